//! One stream of an agent: asked for, listened to, and asked for again, for as long as somebody wants it.
//!
//! ```text
//!   ask ─▶ first message within 10 s ─▶ messages when the agent has news ─┐
//!    ▲                                                                    │ ended, refused, wrong, overdue
//!    └──────────── 0.5, 1, 2, … 30 s, each ± a quarter ◀──────────────────┘
//! ```
//! The agent pushes, so silence is no fault; what would be late by then ([`Listener::patience`]) is asked
//! for anew, which finds out whether anybody is there.

use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::fault::{Fault, Refusals};
use super::link::{Link, Ways};

/// What is done with what an agent says.
pub trait Listener<M>: Send {
    fn hear(&mut self, said: Result<M, Fault>);

    /// What it was told before means something else now.
    fn reconsider(&mut self);

    /// How long silence is right.
    fn patience(&self) -> Duration;
}

/// A stream, and what has it looked at again.
pub struct Line<W> {
    pub link: Arc<Link>,
    /// What it means when the agent refuses.
    pub refusals: Refusals,
    /// Rung to have it asked for at once.
    pub hurry: Arc<Notify>,
    /// What messages are judged by.
    pub world: watch::Receiver<W>,
}

enum Ended {
    Fault(Fault),
    /// Nothing is wrong; it is asked for anew.
    Asked,
}

/// Never ends by itself.
pub async fn follow<M, W, Answer>(mut line: Line<W>, ask: impl Fn(Channel) -> Answer, mut listener: impl Listener<M>)
where
    Answer: Future<Output = Result<Response<Streaming<M>>, Status>>,
{
    let (mut failures, mut ways) = (0, line.link.ways());
    loop {
        let fault = match line.link.channel(&mut ways).await {
            Ok((number, channel)) => {
                match listen(&mut line, &mut ways, ask(channel), &mut listener, &mut failures).await {
                    Ended::Asked => continue,
                    Ended::Fault(fault) => {
                        if !fault.is_wait() {
                            line.link.renew(number);
                        }
                        fault
                    }
                }
            }
            Err(fault) => fault,
        };
        let longest = if fault.is_wait() { LONGEST_WAIT } else { LONGEST_BACK_OFF };
        listener.hear(Err(fault));
        let again = Instant::now() + back_off(failures, longest);
        failures = failures.saturating_add(1);
        rest(&mut line, &mut ways, &mut listener, again).await;
    }
}

async fn listen<M, W>(
    line: &mut Line<W>,
    ways: &mut Ways,
    answer: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
    listener: &mut impl Listener<M>,
    failures: &mut u32,
) -> Ended {
    let socket = || line.link.path().to_owned();
    let refused = |status: Status| Ended::Fault(Fault::of(&status, socket(), &line.refusals));
    let soon = Instant::now() + ANSWER;
    // The headers may come with the first message.
    let mut stream = match timeout_at(soon, answer).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return refused(status),
        Err(_late) => return Ended::Fault(silent(socket())),
    };
    let first = match timeout_at(soon, stream.message()).await {
        Ok(first) => first,
        Err(_late) => return Ended::Fault(silent(socket())),
    };
    let mut next = first;
    loop {
        match next {
            Ok(Some(message)) => listener.hear(Ok(message)),
            Ok(None) => {
                return Ended::Fault(Fault::Away { socket: socket(), reason: "the agent ended the stream".into() });
            }
            Err(status) => return refused(status),
        }
        *failures = 0;
        // Who has ever so much news is not listened to more often.
        sleep(PACE).await;
        next = loop {
            tokio::select! {
                message = stream.message() => break message,
                Ok(()) = line.world.changed() => listener.reconsider(),
                () = line.hurry.notified() => return Ended::Asked,
                Ok(()) = ways.changed() => return Ended::Asked,
                () = sleep(listener.patience()) => return Ended::Asked,
            }
        };
    }
}

/// Until then, unless somebody is in a hurry or there is another way to the agent.
async fn rest<M, W>(line: &mut Line<W>, ways: &mut Ways, listener: &mut impl Listener<M>, until: Instant) {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            () = line.hurry.notified() => return,
            Ok(()) = ways.changed() => return,
            Ok(()) = line.world.changed() => listener.reconsider(),
        }
    }
}

fn silent(socket: PathBuf) -> Fault {
    Fault::Away { socket, reason: format!("the agent does not answer within {} s", ANSWER.as_secs()) }
}

/// Doubles, and differs by up to a quarter: all streams of an agent that went away come back together.
pub fn back_off(failures: u32, longest: Duration) -> Duration {
    let plain = SHORTEST_BACK_OFF.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(longest);
    let chance = RandomState::new().hash_one(failures) % 501;
    plain.mul_f64((750 + chance) as f64 / 1000.0)
}

const ANSWER: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(100);
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// An entry takes an agent about so long to hear of.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_never_all_the_same() {
        for (failures, plain) in [(0, 500), (1, 1_000), (4, 8_000), (6, 30_000), (40, 30_000)] {
            let pauses: Vec<_> = (0..100).map(|_| back_off(failures, LONGEST_BACK_OFF).as_millis()).collect();
            let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(*least >= plain * 3 / 4 && *most <= plain * 5 / 4, "{failures}: {least} to {most}");
            assert!(most - least > plain / 5, "{failures}: {least} to {most} of 100");
        }
        assert!(back_off(9, LONGEST_WAIT) <= LONGEST_WAIT * 5 / 4);
    }
}
