//! Images in memory, mounted with a clock that stands still, and their judges.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use extant::time::{Clock, Entropy};
use extant::{Error, Filesystem, MountOptions, OpenOptions};
use extant_device::{BlockDevice, MemoryDevice};
use extant_format::Timestamp;
use extant_testkit::oracle::{self, Scratch};
use extant_testkit::{CrashImages, CrashOptions, RecordingDevice};

/// What unused blocks of a fresh image hold: a reader who sees it has been shown somebody else's bytes.
pub const STALE: u8 = 0xEE;

/// Time that moves when told to.
#[derive(Debug, Default)]
pub struct StillClock(AtomicU64);

impl StillClock {
    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for StillClock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        let seconds = 1_700_000_000 + i64::try_from(self.0.load(Ordering::Relaxed)).unwrap();
        Timestamp { seconds, nanoseconds: 0 }
    }
}

/// Numbers that repeat in every run.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Entropy for Counter {
    fn draw(&self) -> u32 {
        u32::try_from(self.0.fetch_add(0x9E37, Ordering::Relaxed) & 0xFFFF_FFFF).unwrap()
    }
}

/// Files of one test.
pub struct World {
    scratch: Scratch,
}

impl World {
    pub fn new(name: &str) -> Self {
        Self { scratch: Scratch::new(name) }
    }

    fn file(&self) -> PathBuf {
        self.scratch.path("image")
    }

    /// A fresh file system of so many mebibytes whose unused blocks hold [`STALE`]; `None` where there is no mkfs.ext4.
    pub fn mkfs(&self, mebibytes: usize, options: &[&str]) -> Option<MemoryDevice> {
        std::fs::write(self.file(), vec![STALE; mebibytes << 20]).unwrap();
        let options = [&["-q", "-F", "-E", "nodiscard,lazy_itable_init=0"], options].concat();
        let path = self.file();
        let arguments = [&options[..], &[path.to_str().unwrap()]].concat();
        let output = oracle::run("mkfs.ext4", &arguments)?;
        assert!(output.status.success(), "mkfs.ext4 {options:?}: {}", oracle::text(&output));
        Some(MemoryDevice::from_bytes(&std::fs::read(self.file()).unwrap()))
    }

    /// The path of a file outside the image.
    pub fn other_file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.scratch.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What e2fsck says of the image.
    pub fn e2fsck(&self, image: &MemoryDevice) -> Result<(), String> {
        std::fs::write(self.file(), image.to_vec()).unwrap();
        oracle::e2fsck(&self.file())
    }

    /// What a command of debugfs prints of the image.
    pub fn debugfs(&self, image: &MemoryDevice, command: &str) -> String {
        std::fs::write(self.file(), image.to_vec()).unwrap();
        oracle::debugfs(&self.file(), command).expect("mkfs.ext4 is there, and so is debugfs")
    }

    /// The image after commands of debugfs have changed it.
    pub fn changed_by_debugfs(&self, image: &MemoryDevice, commands: &str) -> MemoryDevice {
        std::fs::write(self.file(), image.to_vec()).unwrap();
        oracle::debugfs_write(&self.file(), commands).expect("debugfs is there");
        MemoryDevice::from_bytes(&std::fs::read(self.file()).unwrap())
    }

    /// Mounts what a crash left, lets `look` see it, unmounts, and asks e2fsck.
    pub fn recovers(&self, image: &MemoryDevice, what: &str, look: impl Fn(&Filesystem)) {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, MountOptions::new()).unwrap_or_else(|e| panic!("{what}: {e}"));
        look(&fs);
        fs.unmount().unwrap_or_else(|error| panic!("{what}: unmount: {error}"));
        self.e2fsck(&device).unwrap_or_else(|said| panic!("{what}: {said}"));
    }

    /// Every image that a crash after event `from` could have left recovers; `look` is told how many events were over.
    pub fn every_crash(
        &self,
        recorded: &RecordingDevice<MemoryDevice>,
        options: CrashOptions,
        look: impl Fn(&Filesystem, usize),
    ) {
        let log = recorded.log();
        for crash in CrashImages::new(&log, options) {
            let what = crash.to_string();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.recovers(&crash.image, &what, |fs| look(fs, crash.completed));
            }));
            if let Err(panic) = caught {
                eprintln!("{what}, of {} events", log.events().len());
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Few images a crash point: for scripts with many points.
pub fn few(from: usize) -> CrashOptions {
    CrashOptions { from, all_subsets_up_to: 2, samples: 5, tears: 1, seed: 7 }
}

pub fn mount<D: BlockDevice + 'static>(
    device: &Arc<D>,
    options: MountOptions,
) -> Result<Filesystem, Error> {
    mount_at(device, options, &Arc::default())
}

pub fn mount_at<D: BlockDevice + 'static>(
    device: &Arc<D>,
    options: MountOptions,
    clock: &Arc<StillClock>,
) -> Result<Filesystem, Error> {
    options.mount_with(device.clone(), clock.clone(), Arc::new(Counter::default()))
}

/// The whole of a file.
pub fn read(fs: &Filesystem, path: &str) -> Result<Vec<u8>, Error> {
    let file = fs.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.size).unwrap()];
    let count = file.read_at(&mut bytes, 0)?;
    assert_eq!(count, bytes.len(), "{path} is shorter than its size");
    Ok(bytes)
}

/// Opens a file for reading and writing, made if need be.
pub fn open(fs: &Filesystem, path: &str) -> extant::File {
    fs.open_with(path, OpenOptions::new().read(true).write(true).create(true)).unwrap()
}

/// Writes all of `bytes`.
pub fn write(file: &extant::File, bytes: &[u8], offset: u64) {
    assert_eq!(file.write_at(bytes, offset).unwrap(), bytes.len());
}

/// Panics if a byte of the file belongs to nobody.
pub fn assert_not_stale(fs: &Filesystem, path: &str) {
    match read(fs, path) {
        Ok(bytes) => assert!(!bytes.contains(&STALE), "{path} shows what was on the device before"),
        Err(Error::NotFound) => {}
        Err(error) => panic!("{path}: {error}"),
    }
}
