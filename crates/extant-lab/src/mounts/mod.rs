//! The suites of `extant mount`: what happens to servers, images and programs when all goes wrong, or much happens at once.
//!
//! | file | suite |
//! | --- | --- |
//! | `suites` | the list, and what all share |
//! | `server` | a server as a process: started, watched, killed |
//! | `damaged` | damaged images, mounted and used |
//! | `killed` | servers killed under load, and what is there afterwards |
//! | `loads` | programs that know what they may expect, for `killed` and `load` |
//! | `tools` | fsx, stress-ng, fio |
//! | `programs` | git, SQLite, rsync, tar, cargo, PostgreSQL |
//! | `load` | sixteen clients at once, and the memory and time that they take |
//!
//! # Invariants
//! What a suite finds, it tells with what repeats it. A program that the machine lacks is skipped by name.
//! # Locking
//! None.
//! # Not here
//! What single calls do on a mount: the tests of `extant-cli`.
//! # Source
//! `docs/mount.md`.

mod damaged;
mod killed;
mod load;
mod loads;
mod programs;
mod server;
mod suites;
mod tools;

pub use server::Served;
pub use suites::{Outcome, SUITES, Suite, Wishes};
