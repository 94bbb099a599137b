//! How far long work is: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::output;

/// Counts what was done; may be shared between threads.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    words: Words,
    start: Instant,
    next_line: Mutex<Instant>,
    files: AtomicU64,
    directories: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    worst_code: AtomicU8,
}

/// How much is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Words {
    /// Only what went wrong.
    Quiet,
    /// On a terminal, how far it is.
    Usual,
    /// The name of each file too, and how far it is wherever the words go.
    EachFile,
}

impl Progress {
    /// Starts at zero; `total_bytes` if the end is known.
    pub fn new(total_bytes: Option<u64>, words: Words) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = match (words == Words::Quiet || !is_terminal, total_bytes) {
            (true, _) => ProgressBar::hidden(),
            (false, Some(total)) => ProgressBar::new(total)
                .with_style(style("{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")),
            (false, None) => ProgressBar::new_spinner()
                .with_message("0")
                .with_style(style("{spinner} {msg} files, {bytes} {bytes_per_sec}")),
        };
        Self {
            bar,
            is_terminal,
            words,
            start: Instant::now(),
            next_line: Mutex::new(Instant::now() + BETWEEN_LINES),
            files: AtomicU64::new(0),
            directories: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            worst_code: AtomicU8::new(0),
        }
    }

    /// Whether there is a bar that somebody sees.
    pub fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// There will be so many bytes, so the bar can tell how long it takes yet.
    pub fn expect(&self, bytes: u64) {
        if self.is_shown() {
            self.bar.set_style(style(
                "[{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}, {msg} files",
            ));
            self.bar.set_length(bytes);
        }
    }

    /// One more directory is done.
    pub fn directory_done(&self) {
        self.directories.fetch_add(1, Ordering::Relaxed);
    }

    /// One more file is done.
    pub fn file_done(&self) {
        let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        if (files < 64 || files.is_multiple_of(64)) && !self.bar.is_hidden() {
            self.bar.set_message(files.to_string());
        }
        if files.is_multiple_of(64) {
            self.line_if_due();
        }
    }

    /// So many more bytes are done.
    pub fn bytes_done(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
        self.line_if_due();
    }

    /// What is being done, shown before the bar.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        if !self.is_terminal && self.words == Words::EachFile {
            let _ = writeln!(std::io::stderr(), "{what}");
        }
    }

    /// A file was made: its name is printed if that is wanted.
    pub fn made(&self, name: impl FnOnce() -> String) {
        if self.words == Words::EachFile {
            let name = name().replace(char::is_control, "?");
            // Whoever reads them may go away; the copy goes on.
            self.bar.suspend(|| drop(writeln!(std::io::stdout(), "{name}")));
        }
    }

    /// One file could not be done, for this reason and with this exit code; the others go on.
    pub fn failed(&self, line: &str, code: u8) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.worst_code.fetch_max(code, Ordering::Relaxed);
        self.bar.suspend(|| crate::failure::say(line));
    }

    /// One file was left out together with the directory that it is in.
    pub fn left_out(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Something that the user should know of.
    pub fn warn(&self, line: &str) {
        self.bar.suspend(|| crate::failure::say(&format!("warning: {line}")));
    }

    /// Asks whether to do something; only an answer that begins with `y` means yes.
    pub fn ask(&self, question: &str) -> std::io::Result<bool> {
        self.bar.suspend(|| crate::failure::ask(question))
    }

    /// Files done.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Directories done.
    pub fn directories(&self) -> u64 {
        self.directories.load(Ordering::Relaxed)
    }

    /// The largest exit code of what failed; zero if nothing did.
    pub fn worst_code(&self) -> u8 {
        self.worst_code.load(Ordering::Relaxed)
    }

    /// Bytes done.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Files that could not be done.
    pub fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes the bar away; the last line says how much was done.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        let elapsed = self.start.elapsed();
        let is_told = match self.words {
            Words::Quiet => false,
            // What was done at once needs no words.
            Words::Usual => self.is_terminal && elapsed >= BEFORE_A_SUMMARY,
            Words::EachFile => true,
        };
        if is_told {
            let mut line = format!("{} in {:.1} s", self.summary(), elapsed.as_secs_f64());
            if self.failures() > 0 {
                line =
                    format!("{line}; {} could not be done", output::count(self.failures(), "file"));
            }
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Takes the bar away without a word.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn line_if_due(&self) {
        if self.is_terminal || self.words != Words::EachFile {
            return;
        }
        let Ok(mut next) = self.next_line.try_lock() else { return };
        if Instant::now() >= *next {
            *next = Instant::now() + BETWEEN_LINES;
            let _ = writeln!(std::io::stderr(), "{} so far", self.summary());
        }
    }

    /// How much was done.
    pub fn summary(&self) -> String {
        let directories = match self.directories() {
            0 => String::new(),
            1 => ", 1 directory".to_owned(),
            directories => format!(", {directories} directories"),
        };
        let bytes = HumanBytes(self.bytes());
        match (self.files(), directories) {
            // A measurement has no files of the user's.
            (0, none) if none.is_empty() => bytes.to_string(),
            (files, directories) => {
                format!("{}{directories}, {bytes}", output::count(files, "file"))
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}

const BEFORE_A_SUMMARY: Duration = Duration::from_secs(1);
const BETWEEN_LINES: Duration = Duration::from_secs(5);
