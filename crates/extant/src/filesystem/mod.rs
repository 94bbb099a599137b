//! Mount, statfs, sync, unmount, and the engine by inode handle: owns everything below.
//!
//! # Invariants
//! Every operation goes through [`Volume`], which knows the clock and all layers; no layer knows it.
//! # Locking
//! Takes content locks for attribute changes; the rest is taken by the layers called.
//! # Not here
//! What the layers do. Paths (`library`).
//! # Source
//! Kernel `fs/ext4/super.c`.

mod attributes;
mod audit;
mod errors;
mod flags;
mod freeze;
mod gate;
mod journal_device;
mod layers;
mod maintenance;
mod mount;
mod open_journal;
mod operations;
mod protection;
mod recovered_view;
mod replay;
#[cfg(test)]
mod safety_tests;
mod support;
#[cfg(test)]
mod tests;
mod volume;

pub(crate) use mount::mount;
pub use support::{Support, feature_support};
pub(crate) use volume::Volume;
