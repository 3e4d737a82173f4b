//! Runs the processes of a Gateway in the foreground, and starts one that dies again.
//!
//! Each child is watched by itself: the death of one is no reason to stop the other, since the
//! dataplane serves on without ctrl, and ctrl waits for a dataplane. Restarts back off from 100 ms
//! to 10 s; a life of 30 s clears the slate. Stopping is in order, each with a deadline.
//!
//! A child gets SIGTERM from the kernel if this process dies (PR_SET_PDEATHSIG). That can only be
//! set by the child itself, before it becomes the program: [`become_child`].

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const LONG_LIFE: Duration = Duration::from_secs(30);

/// First argument of this executable when it is about to become a child.
pub const CHILD: &str = "__child";

/// One process to keep alive.
#[derive(Debug, Clone)]
pub struct Process {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// After SIGTERM it has this long until SIGKILL.
    pub deadline: Duration,
}

impl Process {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).display().to_string()
    }

    /// In a process group of its own: Ctrl-C in a terminal is for the supervisor, which stops the
    /// children in their order.
    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(std::process::id().to_string()).arg(&self.program).args(&self.arguments);
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// Sets the signal for the parent's death and becomes `program`. Returns only if that failed.
pub fn become_child(parent: u32, program: &OsString, arguments: &[OsString]) -> std::io::Error {
    if let Err(e) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return e.into();
    }
    // It may have died before the line above.
    if rustix::process::getppid().map(|p| p.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
        return std::io::Error::other("the supervisor is gone");
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// Runs `processes` until `stop`, then stops them from the last to the first. Call it on a
/// current-thread runtime: the kernel ties a child to the thread that started it.
pub async fn run(processes: Vec<Process>, stop: impl Future<Output = ()>) {
    let tasks: Vec<_> = processes
        .into_iter()
        .map(|process| {
            let (stop, stopped) = watch::channel(false);
            (stop, tokio::spawn(keep(process, stopped)))
        })
        .collect();
    stop.await;
    for (stop, task) in tasks.into_iter().rev() {
        stop.send_replace(true);
        if task.await.is_err() {
            error!("a supervising task failed");
        }
    }
}

async fn keep(process: Process, mut stopped: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let born = Instant::now();
        let how = match process.spawn() {
            Ok(mut child) => {
                info!(pid = child.id(), "{} started", process.name());
                let ended = tokio::select! {
                    ended = child.wait() => Some(ended),
                    () = told_to_stop(&mut stopped) => None,
                };
                match ended {
                    Some(ended) => ended.map_or_else(|e| e.to_string(), describe),
                    None => return end(&process, child).await,
                }
            }
            Err(e) => format!("could not be started: {e}"),
        };
        if born.elapsed() >= LONG_LIFE {
            pause = FIRST_PAUSE;
        }
        warn!("{} {how}; starting it again in {pause:?}", process.name());
        tokio::select! {
            () = sleep(pause) => {}
            () = told_to_stop(&mut stopped) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // A sender that is gone stops as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn end(process: &Process, mut child: Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    match timeout(process.deadline, child.wait()).await {
        Ok(Ok(status)) => info!("{} {}", process.name(), describe(status)),
        Ok(Err(e)) => error!("{}: {e}", process.name()),
        Err(_) => {
            error!("{} did not stop within {:?}: it is killed", process.name(), process.deadline);
            if let Err(e) = child.kill().await {
                error!("{}: {e}", process.name());
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// A binary of ours: beside this executable, else wherever PATH has it.
pub fn find(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}
