//! A run on the modelled disk: all of it in virtual time, so that the same input gives the same figures everywhere.

use std::sync::Arc;
use std::time::Duration;

use extant::{Counters, File, Filesystem, MountOptions};
use extant_device::MemoryDevice;
use extant_image::mkfs;

use super::workload::{Layout, Mode, Random, Workload, empty_volume};
use crate::Failure;
use crate::disk::{DiskCounts, DiskModel};
use crate::world::{HardDisk, World, WorldClock, WorldEntropy};

/// Whether files are synced, and later read, one after the other or all at the same time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Company {
    /// Each writer calls `fsync` when it is done, and the next one when that has returned; each file is read by itself.
    InTurn,
    /// All call `fsync` at the same moment; all files are read at once.
    Together,
}

/// What is run, and on what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setup {
    /// The disk.
    pub disk: DiskModel,
    /// When blocks get their place.
    pub mode: Mode,
    /// Who writes what.
    pub workload: Workload,
    /// How they sync and read.
    pub company: Company,
    /// `fsync` after so many bytes of a file, and not only at its end; [`Company::InTurn`] only.
    pub sync_every: Option<u64>,
    /// Memory for file bytes; dirty data may take a fifth of it.
    pub cache_bytes: u64,
    /// Whether the files are read back.
    pub reads: bool,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// From the first write to the return of the last `fsync`.
    pub write: Duration,
    /// Reading all of it back, with nothing in memory; zero if that was not asked for.
    pub read: Duration,
    /// What was asked of device, journal and allocator for writing.
    pub counters: Counters,
    /// What the disk did for writing.
    pub write_disk: DiskCounts,
    /// What it did for reading.
    pub read_disk: DiskCounts,
    /// Where the files' blocks lie.
    pub layouts: Vec<Layout>,
}

impl Outcome {
    /// Runs of blocks of all files together.
    pub fn extents(&self) -> u64 {
        self.layouts.iter().map(Layout::extents).sum()
    }
}

impl Setup {
    /// Does it.
    ///
    /// # Errors
    /// Of the volume; a file that does not read as it was written.
    pub fn run(&self) -> Result<Outcome, Failure> {
        self.run_on(&formatted(&self.disk)?)
    }

    /// Does it on an empty volume, whose device has the files afterwards.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_on(&self, bytes: &Arc<MemoryDevice>) -> Result<Outcome, Failure> {
        let world = World::new(&self.disk);
        let disk = Arc::new(HardDisk::new(&world, Arc::clone(bytes)));
        let workload = &self.workload;

        let filesystem = self.mount(&world, &disk)?;
        let files = workload.create(&filesystem)?;
        filesystem.sync_all()?;
        let (start, counters, counts) = (world.now(), filesystem.counters(), world.disk_counts());
        self.write(&world, &files)?;
        let write = world.now() - start;
        let counters = filesystem.counters().since(&counters);
        let write_disk = world.disk_counts().since(&counts);
        let layouts = files.iter().map(Layout::of).collect::<Result<Vec<_>, _>>()?;
        drop(files);
        filesystem.unmount()?;
        let mut outcome = Outcome {
            write,
            read: Duration::ZERO,
            counters,
            write_disk,
            read_disk: DiskCounts::default(),
            layouts,
        };
        if !self.reads {
            return Ok(outcome);
        }
        // The disk's cache empties meanwhile.
        world.pass_until(world.now() + Duration::from_secs(1));
        let filesystem = self.mount(&world, &disk)?;
        let (start, counts) = (world.now(), world.disk_counts());
        self.read(&world, &filesystem)?;
        outcome.read = world.now() - start;
        outcome.read_disk = world.disk_counts().since(&counts);
        filesystem.unmount()?;
        Ok(outcome)
    }

    fn mount(&self, world: &Arc<World>, disk: &Arc<HardDisk>) -> Result<Filesystem, Failure> {
        let options = self.mode.options().cache_bytes(self.cache_bytes);
        mount(options, world, disk)
    }

    fn write(&self, world: &Arc<World>, files: &[File]) -> Result<(), Failure> {
        let mut random = Random::new(self.workload.seed);
        let mut writers: Vec<_> =
            (0..).zip(files).map(|(number, file)| (self.workload.writer(number), file)).collect();
        while !writers.is_empty() {
            let limit = extant_format::cast::u64_from(writers.len());
            let next = usize::try_from(random.below(limit)).expect("below a count in memory");
            let (writer, file) = &mut writers[next];
            writer.write(file)?;
            let done = writer.written() == self.workload.file_bytes();
            let due = self.sync_every.is_some_and(|bytes| writer.written().is_multiple_of(bytes));
            if self.company == Company::InTurn && (done || due) {
                file.sync_all()?;
            }
            if done {
                writers.swap_remove(next);
            }
        }
        if self.company == Company::Together {
            let task = |file| move || File::sync_all(file);
            world
                .together(files.iter().map(task).collect())
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    fn read(&self, world: &Arc<World>, filesystem: &Filesystem) -> Result<(), Failure> {
        let workload = &self.workload;
        match self.company {
            Company::InTurn => {
                (0..workload.writers).try_for_each(|n| workload.read(filesystem, n))?;
            }
            Company::Together => {
                let task = |n| move || workload.read(filesystem, n);
                let done = world.together((0..workload.writers).map(task).collect());
                done.into_iter().collect::<Result<(), _>>()?;
            }
        }
        Ok(())
    }
}

/// Mounts a modelled disk in its world's time.
pub(super) fn mount(
    options: MountOptions,
    world: &Arc<World>,
    disk: &Arc<HardDisk>,
) -> Result<Filesystem, Failure> {
    let clock = Arc::new(WorldClock(Arc::clone(world)));
    Ok(options.mount_with(disk.clone(), clock, Arc::new(WorldEntropy::default()))?)
}

/// The bytes of a whole disk with an empty file system.
///
/// # Errors
/// Of making it.
pub fn formatted(disk: &DiskModel) -> Result<Arc<MemoryDevice>, Failure> {
    let bytes = MemoryDevice::new(disk.mechanics.bytes / 4096 * 4096);
    mkfs(&bytes, &empty_volume())?;
    Ok(Arc::new(bytes))
}
