//! Block devices: what the engine reads and writes bytes through.
//!
//! A [`BlockDevice`] takes a batch of [`Request`]s in one blocking call. Bytes travel in [`Frame`]s, which are shared by
//! reference and copied only when somebody changes one that another still holds. [`MemoryDevice`] needs no operating
//! system; [`OverlayDevice`] keeps in memory what is written over another device; `FileDevice` (feature `std`) opens image files and block devices.
//!
//! # Invariants
//! A request either did all that it says or carries an error; the requests of a batch have no order among themselves.
//! Data is durable once a flush has returned that began after the write did, or once a write with FUA has returned.
//! # Locking
//! Devices are `Sync` and lock for themselves; no lock of a device is held when a call of it returns.
//! # Not here
//! Blocks, groups and checksums (`extant-format`); faults, recording and delays (`extant-testkit`): a test device
//! implements [`BlockDevice`] like any other, and the trait has no hook for it.
//! # Source
//! Request kinds and the meaning of flush and FUA: kernel `Documentation/block/writeback_cache_control.rst`.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

extern crate alloc;

mod cast;
mod device;
mod error;
#[cfg(feature = "std")]
mod file;
mod frame;
mod memory;
mod overlay;
mod pool;
mod request;
pub mod sync;
mod window;

pub use device::{BlockDevice, BlockDeviceExt, DeviceGeometry};
pub use error::DeviceError;
#[cfg(feature = "std")]
pub use file::{FileDevice, LockHolder, OpenError};
pub use frame::{Frame, FrameSlice};
pub use memory::MemoryDevice;
pub use overlay::OverlayDevice;
pub use pool::FramePool;
pub use request::{Operation, OperationKind, Request};
pub use window::WindowDevice;
