//! Which processes hold the socket of a flow: the attestor's thread, and what it does with a question.
//!
//! ```text
//!   dataplane ── Attest ──▶ queue ─▶ [namespace of the port] ─ sock_diag ─▶ inode, cookie
//!                                      /proc/*/fd of its processes ───────▶ who holds the inode
//!                                      facts of each, read twice
//!             ◀─ Attested ────────── sock_diag again: the same socket still
//! ```
//! It runs apart from the runtime, since /proc is read as it comes. Questions that gather meanwhile are
//! answered together, from one look through /proc: that is what costs.

mod diag;
mod holders;
mod namespace;
mod netlink;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use snapshot::{Found, Owner, Party, Process, Question, Unfound};
use tracing::{debug, warn};

use diag::Socket;
use namespace::Namespaces;

/// Questions that wait. The dataplane holds 256 SYNs a core.
const WAITING: usize = 1_024;
/// Questions that are answered together.
const BATCH: usize = 256;
/// The dataplane gives up after 100 ms: what came so long ago needs no answer, and a look through /proc
/// that takes so long gives none.
const PATIENCE: Duration = Duration::from_millis(80);

const LOOKS_AGAIN: usize = 2;

/// Where the workloads of an inside port are, if that is not to be found by the port's other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    Path(PathBuf),
    Pid(u32),
}

impl Netns {
    /// The file that it is entered by.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
        }
    }
}

/// By interface.
pub type Overrides = Arc<BTreeMap<String, Netns>>;

/// Somebody who wants to know.
#[derive(Debug)]
struct Asked {
    question: Question,
    overrides: Overrides,
    at: Instant,
    answer: Answer,
}

/// Called on the attestor's thread; it must not wait.
pub struct Answer(Box<dyn FnOnce(Found) + Send>);

impl Answer {
    pub fn new(answer: impl FnOnce(Found) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// The way to the attestor's thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Attestor(SyncSender<Asked>);

impl Attestor {
    pub fn start() -> std::io::Result<Self> {
        let (sender, questions) = sync_channel(WAITING);
        std::thread::Builder::new().name("attestor".into()).spawn(move || work(&questions))?;
        Ok(Self(sender))
    }

    /// Never waits: without room the answer comes at once, and is that there is none.
    pub fn ask(&self, question: Question, overrides: Overrides, answer: Answer) {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let asked = Asked { question, overrides, at: Instant::now(), answer };
        match self.0.try_send(asked) {
            Ok(()) => {}
            Err(Full(asked)) => (asked.answer.0)(Err(format!("{WAITING} calls wait to be looked into already").into())),
            Err(Disconnected(asked)) => (asked.answer.0)(Err("the attestor's thread has ended: see the log".into())),
        }
    }
}

fn work(questions: &Receiver<Asked>) {
    let mut namespaces = Namespaces::default();
    while let Ok(first) = questions.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(questions.try_iter().take(BATCH - 1)).collect();
        let (late, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|asked| asked.at.elapsed() > PATIENCE);
        if !late.is_empty() {
            warn!(late = late.len(), "calls were refused, since it was not found out in time which process makes them");
        }
        late.into_iter().for_each(|asked| (asked.answer.0)(Err("asked too long ago".into())));
        let began = Instant::now();
        // What they were asked for may have changed; a batch is too short for that to matter.
        let Some(overrides) = batch.last().map(|asked| asked.overrides.clone()) else { continue };
        let (wanted, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|asked| (asked.question, asked.answer)).unzip();
        let found = find(&wanted, &overrides, &mut namespaces);
        debug!(questions = wanted.len(), took = ?began.elapsed(), "looked for the processes of calls");
        answers.into_iter().zip(found).for_each(|(answer, found)| (answer.0)(found));
    }
}

/// The owners of all of them, in their order.
fn find(questions: &[Question], overrides: &Overrides, namespaces: &mut Namespaces) -> Vec<Found> {
    let until = Instant::now() + PATIENCE;
    let mut found: Vec<Option<Found>> = questions.iter().map(|_| None).collect();
    let mut by_port: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, question) in questions.iter().enumerate() {
        by_port.entry(&question.interface).or_default().push(at);
    }
    for (interface, asked) in by_port {
        let answers = match namespaces.of(interface, overrides.get(interface)) {
            Ok(namespace) => {
                let asked: Vec<_> = asked.iter().map(|at| &questions[*at]).collect();
                owners(&asked, &namespace, until)
            }
            Err(why) => asked.iter().map(|_| Err(why.clone().into())).collect(),
        };
        asked.iter().zip(answers).for_each(|(at, answer)| found[*at] = Some(answer));
    }
    found.into_iter().map(|found| found.unwrap_or_else(|| Err("nobody looked".into()))).collect()
}

/// What was caught in a change is looked at again: a server that starts a worker is, for a moment.
fn owners(questions: &[&Question], namespace: &namespace::Namespace, until: Instant) -> Vec<Found> {
    let mut found = look(questions, namespace, until);
    for _ in 0..LOOKS_AGAIN {
        let unknown = |at: &usize| matches!(found[*at], Err(Unfound::Unknown(_)));
        let again: Vec<usize> = (0..questions.len()).filter(unknown).collect();
        if again.is_empty() || Instant::now() >= until {
            break;
        }
        let asked: Vec<_> = again.iter().map(|at| questions[*at]).collect();
        again.iter().zip(look(&asked, namespace, until)).for_each(|(at, now)| found[*at] = now);
    }
    found
}

fn look(questions: &[&Question], namespace: &namespace::Namespace, until: Instant) -> Vec<Found> {
    let before = sockets(questions, namespace);
    let inodes = before.iter().flatten().flatten().map(|socket| socket.inode).collect();
    let holders = match holders::of(&inodes, namespace.inode, until) {
        Ok(holders) => holders,
        Err(why) => return questions.iter().map(|_| Err(why.clone().into())).collect(),
    };
    // Many may ask about one that listens.
    let mut facts: HashMap<u64, Result<Vec<Process>, Unfound>> = HashMap::new();
    let found: Vec<Found> = before
        .iter()
        .map(|sockets| {
            let sockets = sockets.as_ref().map_err(Clone::clone)?;
            let each = sockets.iter().map(|socket| {
                let of = || processes(socket.inode, &holders, until);
                facts.entry(socket.inode).or_insert_with(of).clone()
            });
            owner(sockets[0].inode, each)
        })
        .collect();
    // Whoever closed it meanwhile may not be who has it now: an inode is used again, a cookie is not.
    let after = sockets(questions, namespace);
    let changed = "the socket was closed, or its port used again, while its process was looked for";
    let same = before.into_iter().zip(after).map(|(before, after)| before.is_err() || before == after);
    found.into_iter().zip(same).map(|(found, same)| if same { found } else { Err(changed.into()) }).collect()
}

/// Of each question; those that listen are looked for once an address.
fn sockets(questions: &[&Question], namespace: &namespace::Namespace) -> Vec<Result<Vec<Socket>, Unfound>> {
    let mut listening: HashMap<SocketAddr, Result<Vec<Socket>, Unfound>> = HashMap::new();
    let of = |question: &&Question| {
        let Question { client, server, party, .. } = **question;
        match party {
            Party::Caller => namespace.sockets.calling(client, server).map(|socket| vec![socket]),
            Party::Listener => {
                namespace.sockets.is_in_the_way(client, server)?;
                listening.entry(server).or_insert_with(|| namespace.sockets.listening(server)).clone()
            }
        }
    };
    questions.iter().map(of).collect()
}

/// Who holds one socket, those that are alike once.
fn processes(
    inode: u64,
    holders: &HashMap<u64, Vec<holders::Holder>>,
    until: Instant,
) -> Result<Vec<Process>, Unfound> {
    let holders = holders.get(&inode).map(Vec::as_slice).unwrap_or_default();
    if holders.len() > holders::MOST_SEEN {
        return Err(format!("more than {} processes hold socket {inode}", holders::MOST_SEEN).into());
    }
    let mut found = Vec::new();
    for holder in holders {
        holders::in_time(until)?;
        add(&mut found, holder.facts()?);
    }
    match found.is_empty() {
        true => Err(format!("no process in the workload's network namespace holds socket {inode}").into()),
        false => Ok(found),
    }
}

fn add(found: &mut Vec<Process>, more: impl IntoIterator<Item = Process>) {
    for process in more {
        if !found.iter().any(|known| known.is_like(&process)) {
            found.push(process);
        }
    }
}

/// Of all sockets together.
fn owner(inode: u64, each: impl Iterator<Item = Result<Vec<Process>, Unfound>>) -> Found {
    let mut processes = Vec::new();
    for of_one in each {
        add(&mut processes, of_one?);
    }
    let most = snapshot::process::MOST_HOLDERS;
    if processes.len() > most {
        return Err(format!("{} processes that differ hold socket {inode}, more than {most}", processes.len()).into());
    }
    Ok(Owner { inode, processes })
}
