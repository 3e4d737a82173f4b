//! Cleans up when the process is told to end, before it ends.
//!
//! The handler does the one thing that a handler may do, write to a pipe. A thread reads it,
//! removes what the rigs of this process have made, and ends the process as the signal would have.

use std::fs::File;
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use anyhow::{Context, Result, ensure};

use super::rig::Shared;

static RIGS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static PIPE: AtomicI32 = AtomicI32::new(-1);
static ENDING: AtomicBool = AtomicBool::new(false);

pub(super) fn clean_up_on_signal(rig: &Arc<Shared>) -> Result<()> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    RIGS.lock().expect("no holder panics").push(Arc::downgrade(rig));
    if INSTALLED.set(()).is_err() {
        return Ok(());
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a pipe")?;
    PIPE.store(writer.into_raw_fd(), Ordering::SeqCst);
    std::thread::Builder::new().name("signals".into()).spawn(move || serve(File::from(reader)))?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler is async-signal-safe (an atomic load and write(2)), and lives for ever.
        let before = unsafe { libc::signal(signal, handler) };
        ensure!(before != libc::SIG_ERR, "install a handler for signal {signal}");
    }
    Ok(())
}

pub(super) fn forget(rig: &Arc<Shared>) {
    let ours = Arc::downgrade(rig);
    RIGS.lock().expect("no holder panics").retain(|other| !other.ptr_eq(&ours));
}

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = signal as u8;
    ENDING.store(true, Ordering::SeqCst);
    // SAFETY: write(2) may be called in a handler; `byte` lives through the call.
    unsafe { libc::write(PIPE.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
}

/// Does not return while the process ends by a signal: what fails since its programs are being stopped
/// is not how it ended.
pub fn stay_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

fn serve(mut pipe: File) {
    let mut signal = [0];
    if pipe.read_exact(&mut signal).is_err() {
        return;
    }
    eprintln!("\nrig: signal {}: cleaning up", signal[0]);
    for rig in RIGS.lock().expect("no holder panics").iter().filter_map(Weak::upgrade) {
        rig.clean_up();
    }
    std::process::exit(128 + i32::from(signal[0]));
}
