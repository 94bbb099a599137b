//! What files hold, against a plain model: a vector of bytes, and one flag a block for "has a place or was promised one".
//!
//! Offsets and lengths cluster at the edges of blocks, folios and extents. After each operation the engine recounts itself;
//! now and then, and after each remount, every byte, size and hole is compared. Each image is unmounted, recounted from its
//! bitmaps, and shown to `e2fsck -fn`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use extant::{DataMode, Error, MountOptions};
use extant_device::MemoryDevice;
use extant_format::cast::u64_from;
use extant_script::{Allocation, Operation, Volume, pattern};
use extant_testkit::Random;
use extant_testkit::oracle::{self, Scratch};

use crate::bases::load;
use crate::counts;

/// A kind of image that the model knows the rules of.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, which never changes.
    pub name: &'static str,
    mebibytes: u64,
    block: u64,
    /// What ranges that move have to be whole of.
    cluster: u64,
    options: &'static [&'static str],
    /// Whether it has a journal.
    journal: bool,
    /// Whether small files lie in the inode, and operations are to make many of them.
    inline: bool,
}

/// Every kind, in an order that never changes; new ones come last.
pub const KINDS: [Kind; 13] = [
    kind("1k", 32, 1024, &["-b", "1024"]),
    kind("2k", 32, 2048, &["-b", "2048"]),
    kind("4k", 48, 4096, &["-b", "4096"]),
    kind("16k", 128, 16384, &["-b", "16384"]),
    kind("64k", 512, 65536, &["-b", "65536"]),
    Kind {
        cluster: 8192,
        ..kind("1k-bigalloc", 48, 1024, &["-b", "1024", "-O", "bigalloc", "-C", "8192"])
    },
    Kind {
        cluster: 65536,
        ..kind("4k-bigalloc", 96, 4096, &["-b", "4096", "-O", "bigalloc", "-C", "65536"])
    },
    kind("1k-indirect", 32, 1024, &["-b", "1024", "-O", "^extent,^64bit"]),
    kind("4k-indirect", 48, 4096, &["-b", "4096", "-O", "^extent,^64bit"]),
    Kind { inline: true, ..kind("4k-inline", 48, 4096, &["-b", "4096", "-O", "inline_data"]) },
    Kind {
        journal: false,
        ..kind("4k-no-journal", 48, 4096, &["-b", "4096", "-O", "^has_journal"])
    },
    Kind { inline: true, ..kind("1k-inline", 32, 1024, &["-b", "1024", "-O", "inline_data"]) },
    Kind {
        inline: true,
        ..kind("2k-inline", 32, 2048, &["-b", "2048", "-I", "1024", "-O", "inline_data"])
    },
];

const fn kind(
    name: &'static str,
    mebibytes: u64,
    block: u64,
    options: &'static [&'static str],
) -> Kind {
    Kind { name, mebibytes, block, cluster: block, options, journal: true, inline: false }
}

impl Kind {
    /// An empty image; made once. `None`, after a skip, without mke2fs.
    fn image(&self) -> Option<MemoryDevice> {
        static MADE: Mutex<Vec<(&str, Option<MemoryDevice>)>> = Mutex::new(Vec::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, image)) = made.iter().find(|(name, _)| *name == self.name) {
            return image.as_ref().map(MemoryDevice::snapshot);
        }
        let scratch = Scratch::new("contents");
        let path = scratch.path("disk.img");
        let bytes = self.mebibytes << 20;
        let image = oracle::mkfs_stale(&path, bytes, self.options).map(|()| load(&path));
        made.push((self.name, image.as_ref().map(MemoryDevice::snapshot)));
        image
    }
}

/// One run: a kind, a way to mount it, and operations, all from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Decides everything.
    pub seed: u64,
    /// How many operations.
    pub operations: usize,
    /// Whether each is printed before it runs.
    pub tell: bool,
}

impl Case {
    /// The kind of image.
    pub fn kind(&self) -> &'static Kind {
        let number = self.seed % u64_from(KINDS.len());
        &KINDS[usize::try_from(number).expect("below the number of kinds")]
    }

    fn options(&self, random: &mut Random) -> MountOptions {
        let options =
            MountOptions::new().cache_bytes([1 << 20, 4 << 20, 64 << 20][index(random, 3)]);
        match random.below(8) {
            0 | 1 => options.delayed_allocation(false),
            2 => options.unwritten_until_done(false),
            3 if self.kind().journal => options.data_mode(DataMode::Journal),
            _ => options,
        }
    }

    /// Runs it; `Ok(false)` where mke2fs is missing.
    ///
    /// # Errors
    /// The first thing that is not as the model says, after the operations that led there.
    pub fn run(&self) -> Result<bool, String> {
        let kind = self.kind();
        let Some(image) = kind.image() else { return Ok(false) };
        let device = Arc::new(image);
        let mut random = Random::new(self.seed);
        let options = self.options(&mut random);
        let mut state = State::mount(kind, &device, options)?;
        state.tell = self.tell;
        for step in 0..self.operations {
            state = state.step(&mut random, step % 64 == 63)?;
        }
        state.compare()?;
        let State { volume, .. } = state;
        volume.unmount().map_err(|error| format!("unmount: {error}"))?;
        counts::check(&device)?;
        let scratch = Scratch::new("contents");
        let path = scratch.path("disk.img");
        fs::write(&path, device.to_vec()).map_err(|error| error.to_string())?;
        oracle::e2fsck(&path)?;
        Ok(true)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} ({})", self.seed, self.kind().name)
    }
}

/// What a file has to hold.
#[derive(Clone, Debug, Default)]
struct Plain {
    bytes: Vec<u8>,
    /// Blocks that have a place or a promise of one.
    held: BTreeSet<u64>,
}

struct State<'a> {
    kind: &'static Kind,
    device: &'a Arc<MemoryDevice>,
    options: MountOptions,
    volume: Volume,
    files: Vec<Option<Plain>>,
    tag: u32,
    tell: bool,
}

const FILES: usize = 4;
/// Near the most that an inode holds, in bytes.
const MOST_INLINE: u64 = 200;
/// The longest that a file gets, in blocks, and in bytes.
const MOST_BLOCKS: u64 = 600;
const MOST_BYTES: u64 = 2 << 20;

impl<'a> State<'a> {
    fn mount(
        kind: &'static Kind,
        device: &'a Arc<MemoryDevice>,
        options: MountOptions,
    ) -> Result<Self, String> {
        let volume = Volume::mount(Arc::<MemoryDevice>::clone(device), options.clone())
            .map_err(|error| format!("mount: {error}"))?;
        Ok(Self { kind, device, options, volume, files: vec![None; FILES], tag: 0, tell: false })
    }

    fn step(mut self, random: &mut Random, compare: bool) -> Result<Self, String> {
        self.tag += 1;
        let number = index(random, FILES);
        let operation = self.choose(number, random);
        let told = |reason: &dyn fmt::Display| format!("{operation}: {reason}");
        if self.tell {
            println!("{operation}");
        }
        match &operation {
            Operation::Remount => {
                let Self { kind, device, options, volume, files, tag, tell } = self;
                volume.unmount().map_err(|error| told(&error))?;
                counts::check(device).map_err(|error| told(&error))?;
                self = Self { files, tag, tell, ..Self::mount(kind, device, options)? };
                self.compare().map_err(|error| told(&error))?;
            }
            _ => match self.volume.try_apply(&operation) {
                Ok(_) => self.apply(number, &operation),
                Err(Error::NotSupported(_)) if may_be_refused(&operation) => {}
                Err(Error::NoAttribute) => {}
                Err(error) => return Err(told(&error)),
            },
        }
        self.volume.filesystem.check_invariants(compare).map_err(|error| told(&error))?;
        if compare {
            self.compare().map_err(|error| told(&error))?;
        }
        Ok(self)
    }

    /// An operation on file `number`.
    fn choose(&self, number: usize, random: &mut Random) -> Operation {
        let path = name(number);
        let Some(file) = &self.files[number] else {
            return Operation::Create { path, mode: 0o644 };
        };
        let size = u64_from(file.bytes.len());
        let offset = self.offset(size, random);
        let len = self.length(random).min(self.most().saturating_sub(offset)).max(1);
        let (unit, tag) = (self.kind.cluster, self.tag);
        if self.kind.inline && random.below(8) == 0 {
            return around_contents(path, size, random);
        }
        match random.below(24) {
            0..6 => Operation::Write { path, offset, len: short(len), tag },
            6..9 if size + len <= self.most() => Operation::Append { path, len: short(len), tag },
            6..9 => Operation::Truncate { path, size: 0 },
            9..11 => Operation::Truncate { path, size: offset },
            11 => Operation::Truncate { path, size: offset + len },
            12 => Operation::Allocate { path, offset, len, mode: Allocation::Extend },
            13 => Operation::Allocate { path, offset, len, mode: Allocation::KeepSize },
            14 => Operation::Allocate { path, offset, len, mode: Allocation::Punch },
            15 => Operation::Allocate { path, offset, len, mode: Allocation::Zero },
            16 if size > 2 * unit => {
                let units = size / unit;
                let first = random.below(units - 1);
                let len = random.below(units - first) * unit;
                // It must end before the end of the file.
                let len = if first * unit + len >= size { len - unit } else { len };
                let (offset, mode) = (first * unit, Allocation::Collapse);
                if len == 0 {
                    Operation::Sync
                } else {
                    Operation::Allocate { path, offset, len, mode }
                }
            }
            17 if size > unit && size + 8 * unit <= self.most() => {
                let offset = random.below(size / unit) * unit;
                let len = (1 + random.below(8)) * unit;
                Operation::Allocate { path, offset, len, mode: Allocation::Insert }
            }
            18 => Operation::Fsync { path },
            19 => Operation::Tick { seconds: [1, 6, 40][index(random, 3)] },
            20 => Operation::Read { path, offset, len: short(len) },
            21 if random.below(4) == 0 => Operation::Unlink { path },
            22 if random.below(4) == 0 => Operation::Remount,
            // Without delayed allocation it means something.
            23 if random.coin() => Operation::JournalData { path, on: random.below(3) > 0 },
            _ => Operation::Sync,
        }
    }

    fn most(&self) -> u64 {
        (MOST_BLOCKS * self.kind.block).min(MOST_BYTES)
    }

    /// Near an edge that matters, more often than not.
    fn offset(&self, size: u64, random: &mut Random) -> u64 {
        if self.kind.inline && random.below(3) > 0 {
            return random.below(MOST_INLINE);
        }
        let edge = match random.below(6) {
            0 => 0,
            1 => size,
            2 => random.below(size + 1),
            3 => random.below(8) * self.kind.block,
            4 => random.below(32) << 16,
            _ => random.below(self.most() / self.kind.block) * self.kind.block,
        };
        let shift = match random.below(4) {
            0 => random.below(self.kind.block),
            1 => 1,
            _ => 0,
        };
        let at = if random.coin() { edge + shift } else { edge.saturating_sub(shift) };
        at.min(self.most() - 1)
    }

    fn length(&self, random: &mut Random) -> u64 {
        let block = self.kind.block;
        if self.kind.inline && random.below(3) > 0 {
            return 1 + random.below(MOST_INLINE);
        }
        match random.below(5) {
            0 => 1 + random.below(block),
            1 => block * (1 + random.below(4)),
            2 => block * (1 + random.below(4)) + random.below(block),
            3 => 1 + random.below(100),
            _ => 1 + random.below(256 << 10),
        }
    }

    /// What a successful operation does to the model.
    fn apply(&mut self, number: usize, operation: &Operation) {
        let block = self.kind.block;
        let slot = &mut self.files[number];
        match operation {
            Operation::Create { .. } => *slot = Some(Plain::default()),
            Operation::Unlink { .. } => *slot = None,
            _ => {}
        }
        let Some(file) = slot else { return };
        match operation {
            Operation::Write { offset, len, tag, .. } => file.write(*offset, *len, *tag, block),
            Operation::Append { len, tag, .. } => {
                file.write(u64_from(file.bytes.len()), *len, *tag, block);
            }
            Operation::Truncate { size, .. } => file.truncate(*size, block),
            Operation::Store { offset, .. } => file.store(*offset, block),
            Operation::Allocate { offset, len, mode, .. } => {
                file.allocate(*offset, *len, *mode, block);
            }
            _ => {}
        }
    }

    /// Every file's bytes, size and holes.
    fn compare(&self) -> Result<(), String> {
        for (number, file) in self.files.iter().enumerate() {
            let path = name(number);
            let shown = String::from_utf8_lossy(&path).into_owned();
            match file {
                Some(file) => {
                    self.compare_file(&path, file).map_err(|reason| format!("{shown}: {reason}"))?
                }
                None if self.volume.filesystem.metadata(&path).is_ok() => {
                    return Err(format!("{shown} is still there"));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn compare_file(&self, path: &[u8], wanted: &Plain) -> Result<(), String> {
        let told = |error: Error| error.to_string();
        let file = self.volume.filesystem.open(path).map_err(told)?;
        let size = file.metadata().map_err(told)?.size;
        if size != u64_from(wanted.bytes.len()) {
            return Err(format!("size {size}, to be {}", wanted.bytes.len()));
        }
        let mut bytes = vec![0xEE; wanted.bytes.len()];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], u64_from(done)).map_err(told)? {
                0 => return Err(format!("reading ends at {done} of {size}")),
                count => done += count,
            }
        }
        if let Some(at) = bytes.iter().zip(&wanted.bytes).position(|(is, to_be)| is != to_be) {
            return Err(format!("byte {at} is {}, to be {}", bytes[at], wanted.bytes[at]));
        }
        let extents = file.extents().map_err(told)?;
        let held: BTreeSet<u64> = extents
            .iter()
            .flat_map(|extent| (0..extent.len).map(|n| u64::from(extent.logical) + u64::from(n)))
            .collect();
        // What lies in the inode shows as the first block, and leaves one behind when it is moved out.
        let known = |block: &&u64| !self.kind.inline || **block > 0;
        match held.symmetric_difference(&wanted.held).find(known) {
            Some(block) if held.contains(block) => Err(format!("block {block} has a place")),
            Some(block) => Err(format!("block {block} has no place")),
            None => Ok(()),
        }
    }
}

impl Plain {
    fn write(&mut self, offset: u64, len: usize, tag: u32, block: u64) {
        let (from, to) = (short(offset), short(offset) + len);
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        self.bytes[from..to].copy_from_slice(&pattern(tag, offset, len));
        self.hold(offset, u64_from(len), block);
    }

    fn hold(&mut self, offset: u64, len: u64, block: u64) {
        self.held.extend(offset / block..(offset + len).div_ceil(block));
    }

    fn truncate(&mut self, size: u64, block: u64) {
        if size <= u64_from(self.bytes.len()) {
            self.held.retain(|number| *number < size.div_ceil(block));
        }
        self.bytes.resize(short(size), 0);
    }

    /// A store into a small file, all of which is in one folio.
    fn store(&mut self, offset: u64, block: u64) {
        self.bytes[short(offset)] = b'Z';
        self.hold(0, u64_from(self.bytes.len()), block);
    }

    fn zero(&mut self, offset: u64, len: u64) {
        let end = self.bytes.len().min(short(offset + len));
        if short(offset) < end {
            self.bytes[short(offset)..end].fill(0);
        }
    }

    fn allocate(&mut self, offset: u64, len: u64, mode: Allocation, block: u64) {
        let end = offset + len;
        let grow = |bytes: &mut Vec<u8>| {
            let len = bytes.len().max(short(end));
            bytes.resize(len, 0);
        };
        match mode {
            Allocation::Extend => {
                grow(&mut self.bytes);
                self.hold(offset, len, block);
            }
            Allocation::KeepSize => self.hold(offset, len, block),
            Allocation::Zero => {
                grow(&mut self.bytes);
                self.zero(offset, len);
                self.hold(offset, len, block);
            }
            Allocation::ZeroKeepSize => {
                self.zero(offset, len);
                self.hold(offset, len, block);
            }
            Allocation::Punch => {
                self.zero(offset, len);
                let size = u64_from(self.bytes.len());
                // Beyond the file it reaches to the end of the page that has the file's end, and no further.
                let page = block.max(4096);
                let end = if end > size { size.next_multiple_of(page) } else { end };
                let inside = offset.div_ceil(block)..end / block;
                if offset < size {
                    self.held.retain(|number| !inside.contains(number));
                }
            }
            Allocation::Collapse => {
                self.bytes.drain(short(offset)..short(end));
                let (from, blocks) = (offset / block, len / block);
                self.held = std::mem::take(&mut self.held)
                    .into_iter()
                    .filter(|number| !(from..from + blocks).contains(number))
                    .map(|number| if number < from { number } else { number - blocks })
                    .collect();
            }
            Allocation::Insert => {
                let tail = self.bytes.split_off(short(offset));
                self.bytes.resize(short(end), 0);
                self.bytes.extend(tail);
                let (from, blocks) = (offset / block, len / block);
                self.held = std::mem::take(&mut self.held)
                    .into_iter()
                    .map(|number| if number < from { number } else { number + blocks })
                    .collect();
            }
        }
    }
}

/// What makes room in an inode, takes it away, or moves contents out.
fn around_contents(path: Vec<u8>, size: u64, random: &mut Random) -> Operation {
    let name = ["user.a", "user.bc"][index(random, 2)].to_owned();
    match random.below(6) {
        0..3 => {
            let value = vec![b'v'; index(random, 120)];
            Operation::SetXattr { path, name, value }
        }
        3 | 4 => Operation::RemoveXattr { path, name },
        _ if (1..=4096).contains(&size) => Operation::Store { path, offset: random.below(size) },
        _ => Operation::Fsync { path },
    }
}

/// Whether an image without extents, or with inline data, may refuse it.
fn may_be_refused(operation: &Operation) -> bool {
    matches!(operation, Operation::Allocate { .. })
}

fn name(number: usize) -> Vec<u8> {
    format!("file-{number}").into_bytes()
}

fn index(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(u64_from(len))).expect("below a length")
}

fn short(n: u64) -> usize {
    usize::try_from(n).expect("sizes of the model are small")
}

/// Runs `count` cases from `first` on; with `tell` each operation is printed.
///
/// # Errors
/// Says which failed, and how; up to three of them.
pub fn run(first: u64, count: u64, operations: usize, tell: bool) -> Result<u64, Vec<String>> {
    let (mut done, mut failures) = (0, Vec::new());
    for seed in first..first + count {
        let case = Case { seed, operations, tell };
        let ended = std::panic::catch_unwind(|| case.run()).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            Err(words.unwrap_or_else(|| "panicked".to_owned()))
        });
        match ended {
            Ok(ran) => done += u64::from(ran) * u64_from(operations),
            Err(reason) => failures.push(format!("{case}: {reason}")),
        }
        if failures.len() == 3 {
            break;
        }
    }
    if failures.is_empty() { Ok(done) } else { Err(failures) }
}
