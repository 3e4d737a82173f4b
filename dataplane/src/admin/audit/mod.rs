//! The audit log: a JSON line for each connection that was accepted, refused, or cut by a newer snapshot.
//!
//! ```text
//!   worker ── Report, bounded ──▶ agent: rates ── Entry, bounded ──▶ writer: file, rotation
//! ```
//! The agent makes the lines and never waits for a disk: a thread of their own writes them, and what finds
//! no place on the way there is counted. Each decision ends in one of three counts (written, omitted,
//! failed), and what is not in the file is told of in it by an `omitted` line, before the next line of its kind.

mod file;
mod line;
mod rates;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ::snapshot::{Audit as Settings, AuditStatus, ConnectionReport};

use crate::time::Now;
use line::omitted_line;
use rates::Rates;
pub use rates::Topic;
use writer::{Counts, Entry, Writer};

pub struct Audit {
    node: String,
    settings: Option<Settings>,
    rates: Rates,
    writer: Option<Writer>,
    counts: Arc<Counts>,
    error: Option<String>,
}

impl Audit {
    pub fn new(node: String, now: Now) -> Self {
        let (counts, rates) = (Arc::default(), Rates::new(now.mono));
        Self { node, settings: None, rates, writer: None, counts, error: None }
    }

    /// What a new snapshot says. The file that was written before is finished first, by its own thread.
    pub fn configure(&mut self, settings: Option<&Settings>, now: Now) {
        if self.settings.as_ref() == settings {
            return;
        }
        self.say_what_is_left(now);
        let before = self.writer.take();
        self.settings = settings.cloned();
        let Some(settings) = settings else {
            tracing::info!("the audit log is closed");
            return;
        };
        tracing::info!(file = settings.file, "the audit log is written");
        match Writer::start(&self.node, settings, before, self.counts.clone()) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => self.counts.failing(&format!("no thread to write it: {error}")),
        }
    }

    /// A connection that was decided about at `at_ms`.
    pub fn write(&mut self, topic: Topic, report: &ConnectionReport, at_ms: u64, now: Now) {
        let Some(settings) = &self.settings else { return };
        if topic == Topic::Accepted && !settings.accepted {
            return;
        }
        let Some(unsaid) = self.rates.admit(topic, settings.per_second, now.mono) else { return };
        let mut text = omitted_line(&self.node, topic, unsaid, now.unix_ms);
        text.push_str(&line::line(&self.node, topic, report, at_ms));
        let Some(writer) = &self.writer else {
            self.counts.failed.fetch_add(1, Relaxed);
            return;
        };
        // The disk is behind: what this line would have told of the others is told by a later one.
        if writer.send(Entry { text, speaks_of: unsaid + 1, decisions: 1, at_ms: now.unix_ms }).is_err() {
            self.rates.put_back(topic, unsaid);
        }
    }

    /// Decisions whose reports found no room on their way from the workers.
    pub fn lost(&mut self, count: u64, now: Now) {
        if count > 0 && self.settings.is_some() {
            self.rates.omit(Topic::Unknown, count);
            self.say(Topic::Unknown, now);
        }
    }

    /// With no line of its kind to follow.
    fn say(&mut self, topic: Topic, now: Now) {
        let Some(writer) = &self.writer else { return };
        let unsaid = self.rates.take(topic);
        let text = omitted_line(&self.node, topic, unsaid, now.unix_ms);
        if unsaid > 0 && writer.send(Entry { text, speaks_of: unsaid, decisions: 0, at_ms: now.unix_ms }).is_err() {
            self.rates.return_unsaid(topic, unsaid);
        }
    }

    fn say_what_is_left(&mut self, now: Now) {
        Topic::all().for_each(|topic| self.say(topic, now));
    }

    pub fn status(&mut self) -> Option<AuditStatus> {
        if let Some(news) = self.counts.news.pop() {
            self.error = news;
        }
        let settings = self.settings.as_ref()?;
        Some(AuditStatus {
            file: settings.file.clone(),
            written: self.counts.written.load(Relaxed),
            omitted: self.rates.total(),
            failed: self.counts.failed.load(Relaxed),
            error: self.error.clone(),
        })
    }

    /// Since the process started, by the name of what was decided.
    pub fn omitted(&self) -> Vec<(String, u64)> {
        Topic::all().map(|topic| (topic.name().to_owned(), self.rates.omitted(topic))).collect()
    }

    /// Lines in the file, and lines that it did not take.
    pub fn totals(&self) -> [(&'static str, u64); 2] {
        let (written, failed) = (&self.counts.written, &self.counts.failed);
        [("audit_lines", written.load(Relaxed)), ("audit_failed", failed.load(Relaxed))]
    }

    /// The process ends: what is on its way is written, if the disk takes it soon.
    pub fn finish(&mut self, now: Now) {
        self.say_what_is_left(now);
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
    }
}

#[cfg(test)]
mod tests;
