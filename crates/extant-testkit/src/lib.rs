//! Devices for tests: they count, fail and take their time, beside those of `extant-crash`, which record and rebuild what a
//! crash could have left; and the judges outside this project, [`oracle`], with [`tree`] to compare what they see.
//!
//! Each wraps another device and implements [`BlockDevice`](extant_device::BlockDevice) and nothing else, so they stack:
//! `FaultDevice<RecordingDevice<MemoryDevice>>` records what the faults let through.
//!
//! # Invariants
//! The same calls and seeds give the same log, faults and crash images.
//! # Locking
//! Each device has one lock of its own. [`RecordingDevice`] and [`ModelledDisk`] hold it while the device below works: a
//! log has one order, a disk one arm.
//! # Not here
//! Anything that knows the engine. Nothing here ships: the crate is a dependency of tests and of the lab alone.
//! # Source
//! What a flush and FUA promise: kernel `Documentation/block/writeback_cache_control.rst`.

mod counting;
mod fault;
mod fuse_queues;
mod gate;
mod modelled;
pub mod oracle;
mod skip;
pub mod tree;

pub use counting::{CountingDevice, Counts};
pub use extant_crash::{
    Change, CrashImage, CrashImages, CrashOptions, Event, Kept, Log, Random, RecordingDevice,
};
pub use fault::{Effect, Fault, FaultDevice};
pub use fuse_queues::FuseQueues;
pub use gate::GateDevice;
pub use modelled::{DiskModel, ModelledDisk};
pub use skip::skip;
