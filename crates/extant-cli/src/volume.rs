//! Images, opened for a command: the one place that mounts.
//!
//! Who reads keeps writers out, but nobody keeps readers out: if the image is written by somebody else, a reader says so and
//! reads on, and takes what does not fit together for what it is then, no damage.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use extant::{Filesystem, MountOptions};
use extant_device::{BlockDevice, BlockDeviceExt, FileDevice, OpenError, WindowDevice};
use extant_format::Superblock;

use crate::address::ImagePath;
use crate::failure::{self, NoExt4, OnlyReadable, Usage, say};
use crate::times::{Times, source_date};
use crate::{foreign, host, interrupt, partitions};

/// An image that is open to be read; it is never written, not even to recover its journal.
#[derive(Debug)]
pub struct Reading {
    filesystem: Filesystem,
    watch: Rc<Watch>,
}

/// Tells damage from change: whether an image is as it was when it was opened.
#[derive(Debug)]
pub struct Watch {
    device: Arc<ImageDevice>,
    superblock: Vec<u8>,
    writer: Option<String>,
}

/// The image changed under a reader.
#[derive(Debug, thiserror::Error)]
#[error("changed while it was read{0}; read it again when nobody writes to it")]
pub struct Changed(String);

impl Reading {
    /// Opens `image`; a writer that is there already gets a line.
    pub fn open(image: &Path) -> anyhow::Result<Self> {
        let (device, watch) = Watch::open(image)?;
        let mounted = MountOptions::read_only().cache_bytes(READ_CACHE_BYTES).mount(device);
        match mounted {
            Ok(filesystem) => Ok(Self { filesystem, watch: Rc::new(watch) }),
            Err(error) => Err(unusable(image, watch.explain(error.into()))),
        }
    }

    /// What is in it.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// Tells of one file that cannot be read where others can, and returns the exit code.
    ///
    /// # Errors
    /// `error`, if the image changed meanwhile: then nothing that follows would be worth more.
    pub fn tell(&self, error: anyhow::Error) -> anyhow::Result<u8> {
        let error = self.watch.explain(error);
        if has_changed(&error) { Err(error) } else { Ok(failure::tell(&error)) }
    }

    /// What watches over it.
    pub fn watch(&self) -> Rc<Watch> {
        Rc::clone(&self.watch)
    }
}

impl Watch {
    /// A device to read, and what watches over it.
    pub fn open(image: &Path) -> anyhow::Result<(Arc<ImageDevice>, Self)> {
        let waiting = Waiting::new();
        let (device, writer) = loop {
            match FileDevice::open_beside(image)? {
                // Who is willing to wait gets an image that stands still.
                (_, Some(writer)) if waiting.is_worth_it(&writer, Duration::ZERO) => {}
                opened => break opened,
            }
        };
        let writer = writer.as_ref().map(fact);
        if let Some(writer) = &writer {
            say(&format!("warning: {writer}; what is read may be old, or not fit together"));
        }
        let device = Arc::new(part_of(device, image)?);
        let superblock = superblock_bytes(&*device);
        Ok((Arc::clone(&device), Self { device, superblock, writer }))
    }

    /// `error`, unless the image only looks damaged because it was changed meanwhile.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let is_damage = error.chain().any(|cause| failure::corruption(cause).is_some());
        if !is_damage || failure::is_no_ext4(&error) {
            return error;
        }
        let now = || Some(fact(self.device.below().writer().ok().flatten().as_ref()?));
        match self.writer.clone().or_else(now) {
            Some(writer) => Changed(format!(" ({writer})")).into(),
            None if superblock_bytes(&*self.device) != self.superblock => {
                Changed(String::new()).into()
            }
            None => error,
        }
    }
}

/// Who has an image open, without what to do about it.
fn fact(error: &OpenError) -> String {
    let line = error.to_string();
    line.rsplit_once("; ").map_or(line.as_str(), |(fact, _)| fact).to_owned()
}

/// The bytes that every mount, and every unmount, changes; empty if they cannot be read.
fn superblock_bytes(device: &dyn BlockDevice) -> Vec<u8> {
    device.read_vec(Superblock::OFFSET_BYTES, 1024).unwrap_or_default()
}

/// Whether an error says that an image changed under a reader.
pub fn has_changed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Changed>())
}

/// Does `work` on an image that is open to be read.
pub fn read<T>(
    image: &Path,
    work: impl FnOnce(&Filesystem) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let reading = Reading::open(image)?;
    work(&reading.filesystem).map_err(|error| reading.watch.explain(error))
}

/// Why an image cannot be used: it is damaged, or none at all.
pub fn unusable(image: &Path, error: anyhow::Error) -> anyhow::Error {
    let is_short = std::fs::metadata(image)
        .is_ok_and(|found| found.is_file() && found.len() < Superblock::OFFSET_BYTES + 1024);
    let error = match is_short || failure::is_no_ext4(&error) {
        true => NoExt4(foreign::advice(image)).into(),
        false => error,
    };
    error.context(image.display().to_string())
}

/// An image, or the part of it that the user means.
pub type ImageDevice = WindowDevice<FileDevice>;

/// Which part of an image is meant.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// All from this byte on.
    From(u64),
    /// A partition by its number.
    Partition(u32),
}

/// Opens an image to write to it, waiting for others as long as the user wants, and a moment for readers.
pub fn open_device(image: &Path) -> anyhow::Result<ImageDevice> {
    let waiting = Waiting::new();
    loop {
        match FileDevice::open(image) {
            Err(error) if waiting.is_worth_it(&error, FOR_READERS) => {}
            opened => return part_of(opened?, image),
        }
    }
}

/// Opens an image to read it, and keeps writers out.
pub fn open_to_read(image: &Path) -> anyhow::Result<ImageDevice> {
    part_of(FileDevice::open_read_locked(image)?, image)
}

/// Makes an image.
pub fn create_whole(image: &Path, bytes: u64) -> anyhow::Result<FileDevice> {
    require_whole()?;
    Ok(FileDevice::create(image, bytes)?)
}

/// A command that is about no part of an image refuses to be told of one.
fn require_whole() -> anyhow::Result<()> {
    let why = "a whole image is meant here: --offset and --partition are for what is in one";
    if PART.get().is_some() { Err(Usage(why.to_owned()).into()) } else { Ok(()) }
}

/// Opens an image that is meant as a whole.
pub fn open_whole(image: &Path) -> anyhow::Result<FileDevice> {
    require_whole()?;
    let waiting = Waiting::new();
    loop {
        match FileDevice::open(image) {
            Err(error) if waiting.is_worth_it(&error, FOR_READERS) => {}
            opened => return Ok(opened?),
        }
    }
}

/// The part of an image that the user means.
fn part_of(device: FileDevice, image: &Path) -> anyhow::Result<ImageDevice> {
    let name = || image.display().to_string();
    let (start, len) = match PART.get() {
        None => (0, None),
        Some(Part::From(start)) => (*start, None),
        Some(Part::Partition(number)) => {
            let found = partitions::find(&device, *number).with_context(name)?;
            (found.start, Some(found.end - found.start))
        }
    };
    let (bytes, sector) = (device.geometry().len_bytes, device.geometry().sector_bytes);
    if start > bytes || !start.is_multiple_of(sector.into()) {
        let wrong = format!("--offset {start}: not the start of a sector of {}", name());
        return Err(Usage(wrong).into());
    }
    WindowDevice::new(device, start, len).with_context(name)
}

/// Sets which part of each image is meant; all of it unless this is called.
pub fn use_part(part: Part) {
    // Only the first call counts, and there is one.
    let _ = PART.set(part);
}

/// The words by which another process of this program is told the same.
pub fn part_words() -> Vec<String> {
    match PART.get() {
        None => Vec::new(),
        Some(Part::From(start)) => vec![format!("--offset={start}")],
        Some(Part::Partition(number)) => vec![format!("--partition={number}")],
    }
}

static PART: OnceLock<Part> = OnceLock::new();

/// Does `work` on an image that is open for writing, and leaves it unmounted, durable and clean, whether it succeeds or
/// not. A signal to end only ends it between two steps, where `work` asks [`interrupt::check`].
pub fn change<T>(
    image: &Path,
    work: impl FnOnce(&Filesystem) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let device = open_device(image)?;
    let name = || image.display().to_string();
    interrupt::watch();
    let times = times_for(&device)?;
    let options = MountOptions::new().cache_bytes(CACHE_BYTES).host(host::host(image));
    let mounted = options.mount_with(Arc::new(device), times.clock, times.entropy);
    let filesystem = mounted.map_err(|error| unusable(image, error.into()))?;
    let (outcome, unmounted) = host::while_protected(&filesystem, || {
        let outcome = match filesystem.read_only_because() {
            Some(features) => Err(OnlyReadable(features.to_owned())).with_context(name),
            None => work(&filesystem).inspect_err(|error| handle_damage(&filesystem, error)),
        };
        (outcome, filesystem.clone().unmount().with_context(name))
    });
    let value = outcome?;
    unmounted.map(|()| value)
}

/// Damage that an operation came upon does to the volume what its superblock says, before the unmount.
fn handle_damage(filesystem: &Filesystem, error: &anyhow::Error) {
    let damage = error.chain().filter_map(|cause| cause.downcast_ref::<extant::Error>());
    for error in damage.filter(|error| matches!(error, extant::Error::Corrupt(_))) {
        filesystem.handle_error(error, filesystem.on_error());
    }
}

/// The system's times; or those of `SOURCE_DATE_EPOCH`, so that the same changes make the same bytes.
fn times_for(device: &ImageDevice) -> anyhow::Result<Times> {
    let Some(seconds) = source_date()? else { return Ok(Times::system()) };
    // What is no superblock is told by the mount.
    let superblock = Superblock::parse(&superblock_bytes(device)).ok();
    let known = superblock.map(|found| (found.geometry().uuid, found.raw().mnt_count.get()));
    let (uuid, mounts) = known.unwrap_or_default();
    Ok(Times::still(seconds, uuid, mounts))
}

/// Does `work` on each image once, with all of its paths; what fails is told, and the others go on.
pub fn change_each(
    paths: &[ImagePath],
    mut work: impl FnMut(&Filesystem, &ImagePath) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    failure::each(paths.chunk_by(|one, next| one.image == next.image), |run| {
        change(&run[0].image, |filesystem| {
            failure::each(run, |at| {
                interrupt::check()?;
                let done = work(filesystem, at);
                done.inspect_err(|error| handle_damage(filesystem, error))
                    .with_context(|| at.to_string())
            })
        })
    })
}

/// Sets how long to wait for an image that somebody else has open; not at all unless this is called.
pub fn wait_for_others(how_long: Duration) {
    // Only the first call counts, and there is one.
    let _ = PATIENCE.set(how_long);
}

static PATIENCE: OnceLock<Duration> = OnceLock::new();

/// Waits for somebody else's lock, if that is wanted, and for a loop device that is about to go.
struct Waiting {
    start: Instant,
    told: Cell<bool>,
}

impl Waiting {
    fn new() -> Self {
        Self { start: Instant::now(), told: Cell::new(false) }
    }

    /// Sleeps a little if `error` may be over soon, and returns true; `for_readers` is waited for them in any case, and for a
    /// mount's loop device, which the kernel may take away a moment after the mount.
    fn is_worth_it(&self, error: &OpenError, for_readers: Duration) -> bool {
        let wanted = PATIENCE.get().copied().unwrap_or(Duration::ZERO);
        let patience = match error {
            OpenError::Locked { reads: true, .. }
            | OpenError::Attached { goes_by_itself: true, .. } => wanted.max(for_readers),
            OpenError::Locked { .. } => wanted,
            _ => return false,
        };
        let waited = self.start.elapsed();
        if waited >= patience {
            return false;
        }
        if waited >= BEFORE_A_WORD && wanted > FOR_READERS && !self.told.replace(true) {
            say(&format!("waiting: {error}"));
        }
        std::thread::sleep((waited / 8).clamp(BETWEEN_TRIES, MOST_BETWEEN_TRIES));
        true
    }
}

/// The images of a command, each with the name by which it was opened.
#[derive(Debug, Default)]
pub struct Readings(Vec<(PathBuf, Reading)>);

impl Readings {
    /// The image, opened now or before, and its place among those that were.
    pub fn open(&mut self, image: &Path) -> anyhow::Result<(usize, &Reading)> {
        let place = match self.0.iter().position(|(path, _)| path == image) {
            Some(place) => place,
            None => {
                self.0.push((image.to_owned(), Reading::open(image)?));
                self.0.len() - 1
            }
        };
        Ok((place, &self.0[place].1))
    }
}

/// A command writes each file once and looks back at nothing, so more would only take memory from others.
const CACHE_BYTES: u64 = 128 << 20;
/// Files are read from front to back.
const READ_CACHE_BYTES: u64 = 64 << 20;
/// Readers are soon done, and nobody should have to know of them.
const FOR_READERS: Duration = Duration::from_secs(2);
const BEFORE_A_WORD: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);
const MOST_BETWEEN_TRIES: Duration = Duration::from_millis(200);
