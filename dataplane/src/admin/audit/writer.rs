//! The thread that writes the audit log: it alone waits for the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use ::snapshot::Audit as Settings;
use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;

use super::file::LogFile;
use super::line::failed_line;

/// Lines that may wait for the disk. What does not fit is omitted, and counted.
pub const WAITING: usize = 1024;
/// How long the end of the process waits for the disk.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is written at once: a line, and before it what there is to say of those left out.
pub struct Entry {
    pub text: String,
    /// Decisions that the file knows of by it.
    pub speaks_of: u64,
    /// Those that have a line of their own in it: one or none.
    pub decisions: u64,
    pub at_ms: u64,
}

/// Told by the writer, read by the agent.
pub struct Counts {
    pub written: AtomicU64,
    pub failed: AtomicU64,
    /// The newest: what is wrong with the file, or that nothing is any more.
    pub news: ArrayQueue<Option<String>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { written: AtomicU64::new(0), failed: AtomicU64::new(0), news: ArrayQueue::new(1) }
    }
}

impl Counts {
    pub fn failing(&self, why: &str) {
        tracing::error!("the audit log takes nothing, which is counted and goes on: {why}");
        self.news.force_push(Some(why.to_owned()));
    }
}

pub struct Writer {
    to: Sender<Entry>,
    /// Ends with the thread.
    ended: Receiver<()>,
}

impl Writer {
    /// Begins when the one before has written what it has.
    pub fn start(node: &str, settings: &Settings, before: Option<Self>, counts: Arc<Counts>) -> std::io::Result<Self> {
        let (to, entries) = bounded(WAITING);
        let (running, ended) = bounded::<()>(0);
        let file = LogFile::new(Path::new(&settings.file), settings.max_size, settings.keep);
        let mut state =
            State { node: node.to_owned(), path: settings.file.clone(), file, counts, unsaid: 0, error: None };
        let body = move || {
            if let Some(Self { to, ended }) = before {
                drop(to);
                let _ = ended.recv();
            }
            state.counts.news.force_push(None);
            entries.iter().for_each(|entry| state.write(&entry));
            // The next one begins now, and may want the same file.
            drop(state);
            drop(running);
        };
        thread::Builder::new().name("audit".into()).spawn(body)?;
        Ok(Self { to, ended })
    }

    /// Err: the disk is so far behind that there is no room.
    pub fn send(&self, entry: Entry) -> Result<(), ()> {
        self.to.try_send(entry).map_err(drop)
    }

    /// One that does not come to an end before the answer is dropped.
    #[cfg(test)]
    pub fn stuck() -> (Self, Sender<()>) {
        let ((to, _), (disk, ended)) = (bounded(1), bounded(0));
        (Self { to, ended }, disk)
    }

    pub fn finish(self) {
        drop(self.to);
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

struct State {
    node: String,
    path: String,
    file: LogFile,
    counts: Arc<Counts>,
    /// Decisions that the file should know of, and did not take.
    unsaid: u64,
    error: Option<String>,
}

impl State {
    fn write(&mut self, entry: &Entry) {
        let done = match self.unsaid {
            0 => self.file.append(&entry.text),
            unsaid => self.file.append(&(failed_line(&self.node, unsaid, entry.at_ms) + &entry.text)),
        };
        let error = match done {
            Ok(()) => {
                self.unsaid = 0;
                self.counts.written.fetch_add(entry.decisions, Relaxed);
                None
            }
            Err(error) => {
                self.unsaid += entry.speaks_of;
                self.counts.failed.fetch_add(entry.decisions, Relaxed);
                Some(format!("{}: {error}", self.path))
            }
        };
        self.tell(error);
    }

    /// Once for each change, since there may be hundreds of lines a second.
    fn tell(&mut self, error: Option<String>) {
        if error == self.error {
            return;
        }
        match &error {
            Some(why) => self.counts.failing(why),
            None => {
                tracing::info!(file = self.path, "the audit log is written again");
                self.counts.news.force_push(None);
            }
        }
        self.error = error;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state(directory: &Path, max_size: u64) -> State {
        let path = directory.join("audit.jsonl");
        State {
            node: "node-b".into(),
            path: path.display().to_string(),
            file: LogFile::new(&path, max_size, 3),
            counts: Arc::default(),
            unsaid: 0,
            error: None,
        }
    }

    /// Of 100 bytes.
    fn entry(nth: u64) -> Entry {
        Entry {
            text: format!("{{\"nth\":{nth:>91}}}\n").replace(": ", ":0").replace(' ', "0"),
            speaks_of: 1,
            decisions: 1,
            at_ms: 0,
        }
    }

    fn counts(state: &State) -> (u64, u64, Option<Option<String>>) {
        let counts = &state.counts;
        (counts.written.load(Relaxed), counts.failed.load(Relaxed), counts.news.pop())
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = state(directory.path(), 1000);
        (0..35).for_each(|nth| state.write(&entry(nth)));
        let read = |end: &str| {
            let path = directory.path().join(format!("audit.jsonl{end}"));
            let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o777;
            Some((mode, fs::read_to_string(&path).unwrap()))
        };
        let text = |all: std::ops::Range<u64>| Some((0o600, all.map(|nth| entry(nth).text).collect::<String>()));
        assert_eq!(read(""), text(30..35));
        assert_eq!(read(".1"), text(20..30));
        assert_eq!(read(".2"), text(10..20));
        assert_eq!(read(".3"), text(0..10));
        // Another process goes on where this one stopped.
        drop(state);
        let mut state = self::state(directory.path(), 1000);
        (35..41).for_each(|nth| state.write(&entry(nth)));
        let all = ["", ".1", ".2", ".3", ".4"].map(read);
        assert_eq!(all, [text(40..41), text(30..40), text(20..30), text(10..20), None]);
        assert_eq!(counts(&state), (6, 0, None));
    }

    #[test]
    fn what_is_longer_than_a_file_has_one_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = state(directory.path(), 50);
        (0..3).for_each(|nth| state.write(&entry(nth)));
        let of = |end| fs::read_to_string(directory.path().join(format!("audit.jsonl{end}"))).unwrap();
        assert_eq!([of(""), of(".1"), of(".2")], [2, 1, 0].map(|nth| entry(nth).text));
    }

    #[test]
    fn a_directory_that_is_gone_costs_lines_that_are_counted_and_told_of_when_it_is_back() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("log");
        fs::create_dir(&directory).unwrap();
        let mut state = state(&directory, 1000);
        state.write(&entry(0));
        fs::remove_dir_all(&directory).unwrap();
        (1..3).for_each(|nth| state.write(&entry(nth)));
        // This one speaks of two more, that were above the rate: the file does not know of them either.
        state.write(&Entry { speaks_of: 3, ..entry(3) });
        let (written, failed, news) = counts(&state);
        let why = news.flatten().unwrap();
        assert!(why.contains("audit.jsonl: No such file"), "{why}");
        assert_eq!((written, failed), (1, 3));
        fs::create_dir(&directory).unwrap();
        state.write(&entry(4));
        let text = fs::read_to_string(directory.join("audit.jsonl")).unwrap();
        let told = "\"decision\":\"omitted\",\"of\":\"any\",\"reason\":\"FileError\",\"count\":5}\n";
        assert!(text.contains(told) && text.ends_with(&entry(4).text), "{text}");
        assert_eq!(counts(&state), (2, 3, Some(None)));
        state.write(&entry(5));
        assert_eq!(fs::read_to_string(directory.join("audit.jsonl")).unwrap(), text + &entry(5).text, "told once");
    }

    #[test]
    fn nothing_is_written_where_somebody_else_could_have_put_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let other = directory.path().join("other");
        fs::write(&other, "theirs\n").unwrap();
        for (name, make) in [
            ("a link", &(|| std::os::unix::fs::symlink(&other, &path)) as &dyn Fn() -> std::io::Result<()>),
            ("a second name", &|| fs::hard_link(&other, &path)),
            ("a directory", &|| fs::create_dir(&path)),
        ] {
            make().unwrap();
            let mut state = state(directory.path(), 1000);
            state.write(&entry(0));
            let (written, failed, news) = counts(&state);
            assert_eq!((written, failed), (0, 1), "{name}");
            assert!(news.flatten().is_some(), "{name}");
            assert_eq!(fs::read_to_string(&other).unwrap(), "theirs\n", "{name}");
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
        // A file of our own that others may read is closed to them; one that is written already is not shared.
        fs::write(&path, "before\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (mut first, mut second) = (state(directory.path(), 1000), state(directory.path(), 1000));
        first.write(&entry(0));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        second.write(&entry(1));
        let why = counts(&second).2.flatten().unwrap();
        assert!(why.contains("another process writes it"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("before\n{}", entry(0).text));
    }

    /// Runs itself again where a small file system is mounted.
    #[test]
    fn a_full_disk_leaves_no_piece_of_a_line() {
        const DIRECTORY: &str = "SLUICE_TEST_SMALL_DISK";
        let Some(small) = std::env::var_os(DIRECTORY) else {
            let directory = tempfile::tempdir().unwrap();
            let script = format!(
                "mount -t tmpfs -o size=8k none ${DIRECTORY} && exec \"$0\" --exact \
                 admin::audit::writer::tests::a_full_disk_leaves_no_piece_of_a_line"
            );
            let mut command = std::process::Command::new("unshare");
            command.args(["-m", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
            let output = command.env(DIRECTORY, directory.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
            return;
        };
        let small = Path::new(&small);
        let mut state = state(small, 1 << 20);
        (0..200).for_each(|nth| state.write(&entry(nth)));
        let (written, failed, news) = counts(&state);
        assert_eq!(written + failed, 200);
        assert!(written >= 40 && failed > 0, "{written} written, {failed} failed");
        assert!(news.flatten().unwrap().contains("No space left"));
        let path = small.join("audit.jsonl");
        let text: String = (0..written).map(|nth| entry(nth).text).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // Somebody makes room: moves it away.
        fs::remove_file(&path).unwrap();
        state.write(&entry(200));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("\"count\":{failed}}}\n")) && text.ends_with(&entry(200).text), "{text}");
    }
}
