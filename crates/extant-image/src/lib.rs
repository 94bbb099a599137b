//! Whole ext4 images: what works on a device rather than on a mounted file system.
//!
//! [`mkfs`] makes an empty one:
//!
//! ```
//! use std::io::Write;
//! use std::sync::Arc;
//!
//! use extant::{MemoryDevice, MountOptions};
//! use extant_image::{MkfsOptions, mkfs};
//!
//! // The same options give the same bytes; a UUID is for the caller to choose.
//! let options = MkfsOptions { uuid: *b"sixteen bytes...", ..MkfsOptions::default() };
//! let device = Arc::new(MemoryDevice::new(64 << 20));
//! mkfs(&device, &options)?;
//!
//! let filesystem = MountOptions::new().mount(device.clone())?;
//! filesystem.create("/motd")?.write_all(b"hello")?;
//! filesystem.unmount()?;
//!
//! let again = MountOptions::read_only().mount(device)?;
//! assert_eq!(again.metadata("/motd")?.size, 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without the feature `std` (a default) the crate needs an allocator alone.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

extern crate alloc;

pub mod acl;
#[cfg(feature = "std")]
pub mod build;
pub mod check;
pub mod diff;
#[cfg(feature = "std")]
pub mod export;
#[cfg(feature = "std")]
pub mod local;
pub mod map;
pub mod mkfs;
mod ranges;
pub mod reader;
#[cfg(feature = "std")]
pub mod undo;

pub use check::{CheckError, CheckOptions, Report, check};
pub use mkfs::{JournalSize, MkfsError, MkfsOptions, Plan, mkfs};
