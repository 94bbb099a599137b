//! ext4 in user space: an engine to embed, with Linux's delayed-allocation write path at its heart.
//!
//! `docs/design.md` tells the road of one `write`; the folders here are its layers, numbered in `ARCHITECTURE.md`.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

extern crate alloc;

pub(crate) mod sync;
