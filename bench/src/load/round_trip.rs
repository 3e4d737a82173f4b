//! Requests and answers on connections that stay: many of them, from one thread.
//!
//! With a rate, request `n` is due at `n / rate` on connection `n mod connections`, and its latency
//! runs from then. One whose connection still waits for an answer queues up behind it, and that
//! wait is part of its latency. Without a rate each answer sets off the next request.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::pace::sharp_timers;
use super::wire::{ECHO, MESSAGE, Message, PATIENCE, connect};
use super::{Job, Measured, histogram};

pub fn run(job: &Job, connections: u32, rate: Option<u32>, span: Duration) -> Result<Measured> {
    sharp_timers()?;
    let mut pool = Pool::open(job, connections)?;
    if let Some(file) = &job.ready {
        std::fs::write(file, "").context("say that the connections stand")?;
    }
    // On the same connections, so that what is measured is what has settled.
    pool.drive(rate, span.min(WARM_UP)).context("while warming up")?;
    pool.times = histogram()?;
    let before = job.reading()?;
    pool.drive(rate, span)?;
    let spent = before.until(&job.reading()?);
    Ok(Measured::new(spent, pool.times.len() * 2 * MESSAGE as u64, pool.times.len()).timed(&pool.times))
}

struct Pool {
    epoll: std::os::fd::OwnedFd,
    connections: Vec<Connection>,
    times: Histogram<u64>,
    /// Requests without an answer.
    open: u64,
    heard: Instant,
}

struct Connection {
    stream: TcpStream,
    /// When each was due; the first of them is on its way.
    due: VecDeque<Instant>,
    answer: [u8; MESSAGE],
    length: usize,
    number: u64,
}

impl Pool {
    fn open(job: &Job, connections: u32) -> Result<Self> {
        crate::files::ensure_enough(connections)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::new();
        for number in 0..connections {
            let stream = connect(job.server).with_context(|| format!("connection {number}"))?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(number.into()), epoll::EventFlags::IN)?;
            all.push(Connection {
                stream,
                due: VecDeque::new(),
                answer: [0; MESSAGE],
                length: 0,
                number: u64::from(number) << 32,
            });
        }
        Ok(Self { epoll, connections: all, times: histogram()?, open: 0, heard: Instant::now() })
    }

    /// Ends when all that was asked in time is answered.
    fn drive(&mut self, rate: Option<u32>, span: Duration) -> Result<()> {
        let began = Instant::now();
        let mut issued = 0;
        if rate.is_none() {
            (0..self.connections.len()).try_for_each(|at| self.ask(at, began))?;
        }
        loop {
            let now = Instant::now();
            let mut next = None;
            if let Some(rate) = rate {
                let due = |n: u64| began + Duration::from_secs_f64(n as f64 / f64::from(rate));
                while due(issued) <= now && due(issued) < began + span {
                    self.ask(issued as usize % self.connections.len(), due(issued))?;
                    issued += 1;
                }
                next = Some(due(issued)).filter(|due| *due < began + span);
            }
            if next.is_none() && self.open == 0 && now >= began + span {
                return Ok(());
            }
            if rate.is_some() && now >= began + span + LATE {
                return self.give_up(now);
            }
            let repeat = rate.is_none() && now < began + span;
            // After the last request there is nothing to wait for but answers, or the end.
            let until = next.unwrap_or(match (self.open, rate) {
                (0, _) => began + span,
                (_, Some(_)) => began + span + LATE,
                (_, None) => now + PATIENCE,
            });
            self.listen(until.saturating_duration_since(Instant::now()), repeat)?;
        }
    }

    /// What is unanswered counts with the time that it has waited: left out, the worst would be missing.
    fn give_up(&mut self, now: Instant) -> Result<()> {
        for due in self.connections.iter().flat_map(|connection| &connection.due) {
            self.times.record(u64::try_from(now.duration_since(*due).as_nanos())?)?;
        }
        Ok(())
    }

    fn ask(&mut self, at: usize, due: Instant) -> Result<()> {
        let connection = &mut self.connections[at];
        connection.due.push_back(due);
        if self.open == 0 {
            self.heard = Instant::now();
        }
        self.open += 1;
        if connection.due.len() == 1 { connection.send() } else { Ok(()) }
    }

    /// Takes the answers that are there, or that come before `timeout`.
    fn listen(&mut self, timeout: Duration, repeat: bool) -> Result<()> {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
        let wait = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
        // epoll_wait(2) knows milliseconds only, ppoll(2) does better.
        poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&wait))?;
        let count = epoll::wait(&self.epoll, &mut events, Some(&Timespec::default()))?;
        for event in &events[..count] {
            let at = event.data.u64() as usize;
            while let Some(due) = self.connections[at].take()? {
                let now = Instant::now();
                self.times.record(u64::try_from(now.duration_since(due).as_nanos())?)?;
                (self.open, self.heard) = (self.open - 1, now);
                if repeat {
                    self.ask(at, now)?;
                }
            }
        }
        ensure!(self.open == 0 || self.heard.elapsed() < PATIENCE, "the peer was silent for {PATIENCE:?}");
        Ok(())
    }
}

impl Connection {
    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&Message::new(ECHO, self.number).0).context("send a request")
    }

    /// The request that was answered, by when it was due; the next one goes off. None: no answer yet.
    fn take(&mut self) -> Result<Option<Instant>> {
        while self.length < MESSAGE {
            match self.stream.read(&mut self.answer[self.length..]) {
                Ok(0) => bail!("the connection ended instead of an answer"),
                Ok(more) => self.length += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("wait for an answer"),
            }
        }
        self.length = 0;
        let answer = Message(self.answer).number();
        ensure!(answer == self.number + 1, "the answer to {} is {answer}, not that of this request", self.number);
        let due = self.due.pop_front().context("an answer that nobody asked for")?;
        self.number += 1;
        if !self.due.is_empty() {
            self.send()?;
        }
        Ok(Some(due))
    }
}

/// How long after its end a schedule's answers are waited for.
const LATE: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_millis(500);
