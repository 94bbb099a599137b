//! ext4 in user space: an engine to embed, with Linux's delayed-allocation write path at its heart.
//!
//! `docs/design.md` tells the road of one `write`; the folders here are its layers, numbered in `ARCHITECTURE.md`.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "rules with tests whose callers are operations still to come")
)]

extern crate alloc;

pub mod allocator;
pub(crate) mod block_io;
pub mod caller;
pub(crate) mod delayed;
pub mod error;
pub(crate) mod extent_status;
pub(crate) mod extent_tree;
pub(crate) mod file;
pub(crate) mod filesystem;
pub(crate) mod inode;
pub(crate) mod inode_table;
pub mod library;
pub(crate) mod mapping;
pub mod namespace;
pub mod options;
pub(crate) mod orphans;
pub(crate) mod page_cache;
pub mod report;
pub(crate) mod sync;
pub mod time;
pub mod trace;
pub(crate) mod transaction;
pub(crate) mod writeback;
pub(crate) mod xattr;

pub use caller::Caller;
pub use error::{Errno, Error};
pub use filesystem::{Support, feature_support};
pub use library::{File, Filesystem, InodeHandle, OpenOptions};
pub use options::{DataMode, MountOptions};
pub use report::{
    Counters, DirEntry, FileExtent, FileExtentState, Metadata, SetAttributes, Statfs,
};
