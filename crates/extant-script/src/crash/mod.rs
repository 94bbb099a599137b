//! Crash tests of scripts: which states of its files a crash can leave, and which of the script's promises that breaks.
//!
//! A *rehearsal* runs the script once and looks at its files after each line: these are the states that the script means.
//! Then it runs on a recording device, once as fast as it can and again with pauses in which the volume commits by itself or
//! writes dirty data back; every image that a crash could leave is recovered, and what its files hold is named by
//! comparison with the rehearsal. For what is broken, remedies are tried in turn: a remedy that is told has been seen to work.
//!
//! # Invariants
//! What is found was on a recovered image; what holds held on all that were looked at, which may be a sample.
//! # Locking
//! None.
//! # Not here
//! Which images a crash can leave (`extant_crash`); what is told to users (`extant-cli`).
//! # Source
//! `docs/scripts.md`, "Promises"; `docs/design.md`, "Crash tests".

mod explore;
mod recorded;
mod remedy;
mod state;
mod test;

pub use explore::{Moment, Pause, Wait};
pub use recorded::{End, Failed, Recorded};
pub use remedy::Remedy;
pub use state::{Found, Looks, Node, State};
pub use test::{Breach, CrashError, CrashReport, CrashTest, FileReport, Promise, Reached};
