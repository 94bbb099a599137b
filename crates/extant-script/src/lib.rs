//! Scripts: sequences of file operations that the engine and a real directory both can run.
//!
//! `docs/scripts.md` has the format. [`Script::parse`] reads it, `Display` writes it; [`Volume`] runs operations on the
//! engine, [`DirectoryTarget`] on files of the running system, such as a kernel mount; [`crash`] tests what a crash leaves of it.

pub mod crash;
mod directory;
mod operation;
mod options;
mod pattern;
mod requests;
mod text;
mod volume;

pub use directory::DirectoryTarget;
pub use operation::{Allocation, Node, OpenFlag, Operation, SyncStep};
pub use options::{WrongOption, mount_options};
pub use pattern::{JOURNAL_MAGIC, pattern};
pub use text::{Script, ScriptError, Settings, Step, parse};
pub use volume::{ScriptClock, Volume, read_all};

use std::fmt;

/// An errno, as the system numbers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Errno(pub i32);

impl Errno {
    /// The target does not have the operation.
    pub const NOT_SUPPORTED: Self = Self(95);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// What an operation reports when it succeeds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// That it was done.
    Done,
    /// Bytes moved, or an offset.
    Count(u64),
    /// Several figures, the same words on every target.
    Text(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// What a script can be run on.
pub trait Target {
    /// Does one operation.
    ///
    /// # Errors
    /// What the system call reports, or would; [`Errno::NOT_SUPPORTED`] for what the target does not have.
    fn apply(&mut self, operation: &Operation) -> Result<Answer, Errno>;
}

/// Runs a whole script.
///
/// # Errors
/// The first operation that fails, and how.
pub fn run(target: &mut dyn Target, script: &[Operation]) -> Result<(), String> {
    script.iter().try_for_each(|operation| {
        target.apply(operation).map(drop).map_err(|errno| format!("{operation}: {errno}"))
    })
}
