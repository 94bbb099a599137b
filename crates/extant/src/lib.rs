//! ext4 in user space: an engine to embed, with Linux's delayed-allocation write path at its heart.
//!
//! `docs/design.md` tells the road of one `write`; the folders here are its layers, numbered in `ARCHITECTURE.md`.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

extern crate alloc;

#[allow(dead_code, reason = "its glue to transactions follows")]
pub mod allocator;
#[allow(dead_code, reason = "the mapping that uses it follows")]
pub(crate) mod extent_status;
pub(crate) mod sync;
