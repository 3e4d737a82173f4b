//! A thread that writes down every frame of one interface, or says that it could not.
//!
//! A capture proves an absence ("the marker never crossed the wire in clear"), so frames that it
//! missed make it worthless: an overflow of the socket's buffer is an error, not a shorter capture.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use super::{Namespace, PacketSocket};

pub struct Capture {
    interface: String,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Closed to stop the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Whole frames, both ways, from now on. Offloads of the kernel may make one frame of several
    /// packets, and leave checksums to be filled in.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = PacketSocket::open(namespace, interface)?;
        socket.buffer(256 << 20)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&frames);
        let thread =
            std::thread::Builder::new().name("capture".into()).spawn(move || read(&socket, &stopped, &sink))?;
        Ok(Self { interface: interface.into(), frames, stop: Some(stop), thread: Some(thread) })
    }

    /// How many frames there are so far.
    pub fn len(&self) -> usize {
        self.frames.lock().expect("no holder panics").len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a frame of the capture so far fits `wanted`.
    pub fn any(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.frames.lock().expect("no holder panics").iter().any(|frame| wanted(frame))
    }

    /// Ends it. Everything that had reached the interface before is in it.
    pub fn finish(mut self) -> Result<Vec<Vec<u8>>> {
        self.stop = None;
        let thread = self.thread.take().expect("finished once");
        thread
            .join()
            .expect("the capture's thread does not panic")
            .with_context(|| format!("capture on {}", self.interface))?;
        Ok(std::mem::take(&mut self.frames.lock().expect("no holder panics")))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(socket: &PacketSocket, stopped: &OwnedFd, sink: &Mutex<Vec<Vec<u8>>>) -> Result<()> {
    // Frames of offloads reach 64 KiB and the Ethernet header; IPv6 jumbo ones are larger.
    let mut buffer = vec![0; 1 << 19];
    loop {
        let mut fds = [PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        poll(&mut fds, None)?;
        // Frames first: what came before the end belongs to the capture.
        if fds[0].revents().contains(PollFlags::IN) {
            let length = socket.file().read(&mut buffer)?;
            sink.lock().expect("no holder panics").push(buffer[..length].to_vec());
        } else if !fds[1].revents().is_empty() {
            break;
        }
    }
    let dropped = socket.dropped()?;
    ensure!(dropped == 0, "{dropped} frames were lost, so it proves nothing");
    Ok(())
}
