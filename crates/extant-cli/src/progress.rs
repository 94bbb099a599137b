//! How far long work is: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
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
    bytes: AtomicU64,
    failed: AtomicU64,
}

/// How much is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Words {
    /// Only what went wrong.
    Quiet,
    /// How far it is.
    Usual,
    /// The name of each file too.
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
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
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
        if !self.is_terminal && self.words != Words::Quiet {
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

    /// One file could not be done, for this reason; the others go on.
    pub fn failed(&self, line: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| crate::failure::say(line));
    }

    /// Files done.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
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
        if self.words != Words::Quiet {
            let _ = writeln!(
                std::io::stderr(),
                "{} in {:.1} s",
                self.summary(),
                self.start.elapsed().as_secs_f64()
            );
        }
    }

    /// Takes the bar away without a word.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn line_if_due(&self) {
        if self.is_terminal || self.words == Words::Quiet {
            return;
        }
        let Ok(mut next) = self.next_line.try_lock() else { return };
        if Instant::now() >= *next {
            *next = Instant::now() + BETWEEN_LINES;
            let _ = writeln!(std::io::stderr(), "{} so far", self.summary());
        }
    }

    fn summary(&self) -> String {
        format!("{}, {}", output::count(self.files(), "file"), HumanBytes(self.bytes()))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}

const BETWEEN_LINES: Duration = Duration::from_secs(5);
