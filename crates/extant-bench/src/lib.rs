//! What delaying an allocation buys, measured: workloads for the engine, a modelled hard disk in virtual time to run them
//! on, and power cuts of it.
//!
//! [`delalloc::survey::Plan`] makes the whole comparison on the modelled disk, which gives the same figures on every machine;
//! [`delalloc::image`] measures on an image file. [`HardDisk`] is a [`BlockDevice`](extant_device::BlockDevice) for any
//! other use:
//! ```
//! use std::sync::Arc;
//!
//! use extant::{MemoryDevice, MountOptions};
//! use extant_bench::{DiskModel, HardDisk, World, WorldClock, WorldEntropy};
//! use extant_image::{MkfsOptions, mkfs};
//!
//! let bytes = MemoryDevice::new(64 << 20);
//! mkfs(&bytes, &MkfsOptions::default())?;
//! let world = World::new(&DiskModel::DESKTOP);
//! let disk = Arc::new(HardDisk::new(&world, bytes));
//! let clock = Arc::new(WorldClock(Arc::clone(&world)));
//! let filesystem =
//!     MountOptions::new().mount_with(disk, clock, Arc::new(WorldEntropy::default()))?;
//! filesystem.create("/file")?;
//! let before = world.now();
//! filesystem.sync_all()?;
//! println!("a sync takes {:?} on such a disk", world.now() - before);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cpu;
pub mod delalloc;
pub mod disk;
mod world;

pub use cpu::{Cpu, CpuMeter};
pub use disk::DiskModel;
pub use world::{HardDisk, World, WorldClock, WorldEntropy};

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] extant::Error),
    /// Making the file system.
    #[error("making a file system: {0}")]
    Mkfs(#[from] extant_image::MkfsError),
    /// A device.
    #[error(transparent)]
    Device(#[from] extant_device::DeviceError),
    /// The image file.
    #[error(transparent)]
    Image(#[from] extant_device::OpenError),
    /// Whoever is told of the progress wants no more of it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The answer of whoever is told how far a measurement is and wants it to end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the measurement was stopped")]
pub struct Stopped;

/// A count as a number with a fraction; exact below 2^53.
pub fn float(n: u64) -> f64 {
    let high = f64::from(extant_format::cast::high_u32(n));
    high * 4_294_967_296.0 + f64::from(extant_format::cast::low_u32(n))
}
