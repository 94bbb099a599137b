//! Whole ext4 images: what works on a device rather than on a mounted file system.
//!
//! [`mkfs`] makes an empty one.

pub mod mkfs;

pub use mkfs::{Features, MkfsError, MkfsOptions, mkfs};
