//! The comparison of delayed with immediate allocation, row by row: when space is assigned, fragments, processor, throughput,
//! and what a crash takes.
//!
//! | file | what |
//! | --- | --- |
//! | `workload.rs` | files that grow side by side, and what they hold |
//! | `modelled.rs` | one run on the modelled disk |
//! | `image.rs` | one run on an image file, in real time |
//! | `crash.rs` | power cuts of the modelled disk |
//! | `survey.rs` | which runs make up the comparison |
//!
//! # Invariants
//! What is read back is compared with what was written, so a figure of a volume that lost something is no figure.
//! Everything on the modelled disk depends on its setup alone.
//! # Locking
//! None.
//! # Not here
//! How figures are shown (the command line).
//! # Source
//! None: the comparison is this project's own.

pub mod crash;
pub mod image;
pub mod modelled;
pub mod survey;
pub mod workload;
