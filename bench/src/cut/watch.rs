//! Sockets that are watched: when each hears an end, and whether any of them hears anything.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{Timespec, epoll};

use crate::load::wire::exchange;

pub struct Watched<'s> {
    epoll: OwnedFd,
    streams: &'s [TcpStream],
}

/// Ends that one look takes in.
const LOOK: usize = 512;

impl<'s> Watched<'s> {
    pub fn new(streams: &'s [TcpStream]) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        for (number, stream) in streams.iter().enumerate() {
            epoll::add(&epoll, stream, epoll::EventData::new_u64(number as u64), flags)?;
        }
        Ok(Self { epoll, streams })
    }

    /// When each ended, in the order in which that was heard; fewer than there are if `until` comes first.
    pub fn until_all_ended(&mut self, until: Instant) -> Vec<Instant> {
        let mut ends = Vec::with_capacity(self.streams.len());
        while ends.len() < self.streams.len() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            let heard = self.look(until - now);
            let at = Instant::now();
            for number in heard {
                // Nobody speaks on them: whatever is heard is an end. Each is heard once.
                let _ = epoll::delete(&self.epoll, &self.streams[number]);
                ends.push(at);
            }
        }
        ends
    }

    /// How many have heard anything by now.
    pub fn heard(&mut self) -> u32 {
        let mut count = 0;
        loop {
            let heard = self.look(Duration::ZERO);
            if heard.is_empty() {
                return count;
            }
            for number in heard {
                let _ = epoll::delete(&self.epoll, &self.streams[number]);
                count += 1;
            }
        }
    }

    fn look(&self, patience: Duration) -> Vec<usize> {
        let empty = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty; LOOK];
        let patience = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        // A signal is no end: the caller looks again.
        let count = epoll::wait(&self.epoll, &mut events, Some(&patience)).unwrap_or(0);
        let number = |event: &epoll::Event| usize::try_from(event.data.u64()).expect("an index of ours");
        events[..count].iter().map(number).collect()
    }
}

/// How many do not carry a message any more, of all.
pub fn unanswered(streams: &[TcpStream]) -> u32 {
    let silent = streams.iter().enumerate().filter(|(number, stream)| exchange(stream, *number as u64).is_err());
    silent.count() as u32
}
