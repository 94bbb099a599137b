//! The lab: suites that judge the engine from outside, by images that were damaged, cut off by a crash, or made and read by
//! other programs.
//!
//! `cargo xtask damage`, `cargo xtask crash`, `cargo xtask oracle` and others run them at length; the tests of this crate are
//! their bounded part, and `extant-cli`'s that of `mounts`, which needs the program.

pub mod bases;
pub mod contents;
pub mod counts;
pub mod crash;
pub mod damage;
pub mod dirty;
pub mod fast_commit;
pub mod fill;
pub mod kill;
pub mod mounts;
pub mod oracle;
pub mod planted;
pub mod recipes;
pub mod script;
pub mod stress;
pub mod volume;
