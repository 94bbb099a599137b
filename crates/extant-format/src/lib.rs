//! ext4 and jbd2 on disk: bytes to checked types and back, checksums, hashes, block numbers.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

pub mod cast;
pub mod numbers;

pub use numbers::*;
