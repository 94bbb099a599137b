//! A run on an image file, in real time.

use std::panic::resume_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use extant::{Counters, File, Filesystem};
use extant_device::FileDevice;
use extant_image::mkfs;

use super::workload::{Layout, Mode, Workload, empty_volume};
use crate::cpu::{Cpu, CpuMeter};
use crate::{Failure, Stopped};

/// Who does the writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hands {
    /// One thread goes from file to file, write by write, and syncs once at the end.
    One,
    /// A thread for each file, which calls `fsync` at its end.
    Each,
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// When blocks get their place.
    pub mode: Mode,
    /// Who writes what.
    pub workload: Workload,
    /// In which threads.
    pub hands: Hands,
    /// Memory for file bytes; dirty data may take a fifth of it.
    pub cache_bytes: u64,
    /// How large the image is.
    pub image_bytes: u64,
    /// Whether the files are read back.
    pub reads: bool,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first write until all is durable.
    pub write: Duration,
    /// What the processor spent meanwhile.
    pub write_cpu: Cpu,
    /// Reading all back, file by file, with nothing in memory; zero if that was not asked for.
    pub read: Duration,
    /// What the processor spent meanwhile.
    pub read_cpu: Cpu,
    /// What was asked of device, journal and allocator for writing.
    pub counters: Counters,
    /// Runs of blocks of all files together.
    pub extents: u64,
}

impl Setup {
    /// Makes an image at `path`, which stays, and measures on it. `written` is told of bytes on the way,
    /// and says whether to go on.
    ///
    /// # Errors
    /// Of the image file and of the volume; a file that does not read as it was written; [`Failure::Stopped`].
    pub fn run(&self, path: &Path, written: &Told<'_>) -> Result<Outcome, Failure> {
        let device = FileDevice::create(path, self.image_bytes)?;
        mkfs(&device, &empty_volume())?;
        let mount = || self.mode.options().cache_bytes(self.cache_bytes);
        let filesystem = mount().mount(device)?;
        let files = self.workload.create(&filesystem)?;
        filesystem.sync_all()?;

        let before = filesystem.counters();
        let (mut meter, start) = (CpuMeter::start(), Instant::now());
        match self.hands {
            Hands::One => self.write_in_turn(&filesystem, &files, written)?,
            Hands::Each => self.write_side_by_side(&files, written)?,
        }
        let (write, write_cpu) = (start.elapsed(), meter.read());
        let counters = filesystem.counters().since(&before);
        let layouts = files.iter().map(Layout::of).collect::<Result<Vec<_>, _>>()?;
        let extents = layouts.iter().map(Layout::extents).sum();
        drop(files);
        filesystem.unmount()?;

        let (mut read, mut read_cpu) = (Duration::ZERO, Cpu::default());
        if self.reads {
            forget(path);
            let filesystem = mount().mount(FileDevice::open(path)?)?;
            let (mut meter, start) = (CpuMeter::start(), Instant::now());
            (0..self.workload.writers).try_for_each(|n| self.workload.read(&filesystem, n))?;
            (read, read_cpu) = (start.elapsed(), meter.read());
            filesystem.unmount()?;
        }
        Ok(Outcome { write, write_cpu, read, read_cpu, counters, extents })
    }

    fn write_in_turn(
        &self,
        filesystem: &Filesystem,
        files: &[File],
        written: &Told<'_>,
    ) -> Result<(), Failure> {
        let mut writers: Vec<_> =
            (0..).zip(files).map(|(number, file)| (self.workload.writer(number), file)).collect();
        for _ in 0..self.workload.calls() {
            for (writer, file) in &mut writers {
                writer.write(file)?;
            }
            written(u64::from(self.workload.call_bytes) * u64::from(self.workload.writers))?;
        }
        Ok(filesystem.sync_all()?)
    }

    fn write_side_by_side(&self, files: &[File], written: &Told<'_>) -> Result<(), Failure> {
        let write = |number, file: &File| {
            let mut writer = self.workload.writer(number);
            let mut told = 0;
            for call in 1..=self.workload.calls() {
                writer.write(file)?;
                if writer.written() - told >= STEP_BYTES || call == self.workload.calls() {
                    written(writer.written() - told)?;
                    told = writer.written();
                }
            }
            Ok(file.sync_all()?)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(files)
                .map(|(number, file)| scope.spawn(move || write(number, file)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|it| resume_unwind(it)))
        })
    }
}

/// Takes what the system's cache holds of a file out of it, where it does so on request: not on tmpfs, whose files are
/// nowhere else.
fn forget(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(file) = std::fs::File::open(path) {
        // Clean pages can go; what cannot be dropped only makes the reading warmer than it should be.
        let _ = file.sync_all();
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// Who is told of so many more bytes.
type Told<'a> = dyn Fn(u64) -> Result<(), Stopped> + Sync + 'a;

/// Bytes of a file between two words about the progress.
const STEP_BYTES: u64 = 1 << 20;
