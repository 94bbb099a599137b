//! ext4 in user space: an engine to embed, with Linux's delayed-allocation write path at its heart.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! use extant::{FileDevice, MountOptions};
//!
//! let device = FileDevice::open("disk.img")?; // or a MemoryDevice, or a BlockDevice of your own
//! let filesystem = MountOptions::new().mount(device)?; // recovers the journal if it has to
//! filesystem.create_dir_all("/var/log")?;
//! let mut file = filesystem.create("/var/log/boot")?; // Read + Write + Seek
//! file.write_all(b"up")?;
//! file.sync_all()?; // durable from here on
//!
//! let mut text = String::new();
//! filesystem.open("/var/log/boot")?.read_to_string(&mut text)?;
//! for entry in filesystem.read_dir("/var")? {
//!     println!("{}", String::from_utf8_lossy(entry?.name()));
//! }
//! filesystem.unmount()?; // dropping it instead loses what was not synced
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Filesystem`] works by paths, as `std::fs` does; [`InodeHandle`] by inodes, as a front-end needs it. Nothing happens by itself:
//! a program that stays mounted for long calls [`Filesystem::tick`] now and then, which commits and writes back what is old enough.
//! Without the feature `std` (a default), [`MountOptions::mount_with`] takes the clock and the random numbers that the system would
//! give. Empty volumes are made by `extant_image::mkfs`, and [`BlockDevice`] shows how to bring a device.
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
pub(crate) mod fast_commit;
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
pub use error::{Errno, Error, InUse, User};
#[cfg(feature = "std")]
pub use extant_device::FileDevice;
pub use extant_device::{
    BlockDevice, BlockDeviceExt, DeviceError, DeviceGeometry, Frame, FrameSlice, MemoryDevice,
    Operation, OperationKind, Request,
};
pub use extant_format::inode::InodeFlags;
pub use extant_format::{FileType, InodeNumber, Timestamp};
pub use file::Source;
pub use filesystem::{Support, feature_support};
pub use library::{File, Filesystem, InodeHandle, OpenOptions};
pub use options::{DataMode, Host, MountOptions, Placement};
pub use report::{
    AllocatorStats, Counters, DirEntry, FastCommitStats, FileExtent, FileExtentState, GroupSpace,
    Ineligible, KernelCounters, MemoryCounters, Metadata, OnError, RangeChange, RangeSync,
    SetAttributes, Shutdown, Statfs, StatusStats,
};
#[cfg(extant_shuttle)]
pub use sync::asks_for_inode_lock;
#[cfg(feature = "std")]
pub use sync::{measure_waits, wait_by};
pub use xattr::SetHow;
