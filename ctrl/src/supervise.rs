//! Runs the processes of a Gateway in the foreground, and starts one that dies again.
//!
//! Each child is watched by itself: the death of one is no reason to stop the other, since the
//! dataplane serves on without ctrl, and ctrl waits for a dataplane. Restarts back off from 100 ms
//! to 10 s; a life of 30 s clears the slate. Stopping is in order, each with a deadline.
//!
//! SIGTERM lets the dataplane drain; SIGINT ends it at once, its connections reset. A child gets SIGINT
//! from the kernel if this process dies (PR_SET_PDEATHSIG): what is started instead must not wait for
//! it. That can only be set by the child itself, before it becomes the program: [`become_child`].

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// From SIGINT to SIGKILL: time to reset what lives.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LONG_LIFE: Duration = Duration::from_secs(30);

/// Exit code of a process that wants to be started anew and has not failed (EX_TEMPFAIL).
const ANEW: i32 = 75;

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
        // This very program, also when its file has been replaced by a newer one meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg(CHILD).arg(std::process::id().to_string()).arg(&self.program).args(&self.arguments);
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// Sets the signal for the parent's death and becomes `program`. Returns only if that failed.
pub fn become_child(parent: u32, program: &OsString, arguments: &[OsString]) -> std::io::Error {
    if let Err(e) = rustix::process::set_parent_process_death_signal(Some(Signal::INT)) {
        return e.into();
    }
    // It may have died before the line above.
    if rustix::process::getppid().map(|p| p.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
        return std::io::Error::other("the supervisor is gone");
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// What a child is to do; later ones override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Run,
    Stop,
    Die,
}

/// Runs `processes` until `stop`, then stops them from the last to the first; after `hurry` too,
/// without waiting. Call it on a current-thread runtime: the kernel ties a child to the thread
/// that started it.
pub async fn run(processes: Vec<Process>, stop: impl Future<Output = ()>, hurry: impl Future<Output = ()>) {
    let tasks: Vec<_> = processes
        .into_iter()
        .map(|process| {
            let (order, orders) = watch::channel(Order::Run);
            (order, tokio::spawn(keep(process, orders)))
        })
        .collect();
    stop.await;
    let orders: Vec<_> = tasks.iter().map(|(order, _)| order.clone()).collect();
    let in_order = async {
        for (order, task) in tasks.into_iter().rev() {
            order.send_modify(|order| *order = Order::Stop.max(*order));
            if task.await.is_err() {
                error!("a supervising task failed");
            }
        }
    };
    let at_once = async {
        hurry.await;
        for order in &orders {
            order.send_replace(Order::Die);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = in_order => {}
        () = at_once => {}
    }
}

async fn keep(process: Process, mut orders: watch::Receiver<Order>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let born = Instant::now();
        let mut on_purpose = false;
        let how = match process.spawn() {
            Ok(mut child) => {
                info!(pid = child.id(), "{} started", process.name());
                let ended = tokio::select! {
                    ended = child.wait() => Some(ended),
                    () = told(&mut orders, Order::Stop) => None,
                };
                match ended {
                    Some(ended) => {
                        on_purpose = ended.as_ref().is_ok_and(|status| status.code() == Some(ANEW));
                        ended.map_or_else(|e| e.to_string(), describe)
                    }
                    None => return end(&process, child, &mut orders).await,
                }
            }
            Err(e) => format!("could not be started: {e}"),
        };
        if on_purpose || born.elapsed() >= LONG_LIFE {
            pause = FIRST_PAUSE;
        }
        warn!("{} {how}; starting it again in {pause:?}", process.name());
        tokio::select! {
            () = sleep(pause) => {}
            () = told(&mut orders, Order::Stop) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn told(orders: &mut watch::Receiver<Order>, least: Order) {
    // A sender that is gone stops as well.
    let _ = orders.wait_for(|order| *order >= least).await;
}

async fn end(process: &Process, mut child: Child, orders: &mut watch::Receiver<Order>) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    let mut ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = sleep(process.deadline) => None,
        () = told(orders, Order::Die) => None,
    };
    if ended.is_none() {
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
        ended = tokio::time::timeout(LAST_WORDS, child.wait()).await.ok();
    }
    match ended {
        Some(Ok(status)) => info!("{} {}", process.name(), describe(status)),
        Some(Err(e)) => error!("{}: {e}", process.name()),
        None => {
            error!("{} has not stopped: it is killed", process.name());
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
