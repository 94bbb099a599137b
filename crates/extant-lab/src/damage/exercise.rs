//! Everything that can be done with an image: reading all of it, and every kind of change.
//!
//! Each call of the library is one step under a [`Watch`]. Whether it succeeds does not matter here; that it ends, and
//! how, does.

use std::collections::BTreeSet;
use std::sync::Arc;

use extant::{Error, Filesystem, MountOptions, OpenOptions, RangeChange, SetAttributes};
use extant_device::MemoryDevice;
use extant_format::cast::u64_from;
use extant_format::{FileType, Timestamp};
use extant_testkit::{CountingDevice, Random};

use super::watch::Watch;
use crate::script::{Operation, pattern};
use crate::volume::Volume;

/// Reads `image`, changes a copy of it, and reads that again.
///
/// # Panics
/// If the library does, or writes to an image that it was to read.
pub fn exercise(image: &MemoryDevice, random: &mut Random, watch: &Watch) {
    let read_only = || MountOptions::read_only().cache_bytes(CACHE_BYTES);
    let counted = Arc::new(CountingDevice::new(image.snapshot()));
    if let Some(volume) = mount(Arc::clone(&counted), read_only(), watch) {
        walk(&volume.filesystem, watch);
        watch.step("unmount after reading", || volume.unmount()).ok();
    }
    assert_eq!(counted.counts().writes, 0, "an image opened read-only was written");

    let device = Arc::new(image.snapshot());
    if let Some(volume) =
        mount(Arc::clone(&device), MountOptions::new().cache_bytes(CACHE_BYTES), watch)
    {
        let found = walk(&volume.filesystem, watch);
        change(&volume, &found, random, watch);
        watch.step("unmount after writing", || volume.unmount()).ok();
    }
    if let Some(volume) = mount(device, read_only(), watch) {
        walk(&volume.filesystem, watch);
    }
}

/// Memory for cached bytes: little, so that what the engine takes beyond it shows.
const CACHE_BYTES: u64 = 8 << 20;

fn mount<D: extant_device::BlockDevice + 'static>(
    device: Arc<D>,
    options: MountOptions,
    watch: &Watch,
) -> Option<Volume> {
    watch.step("mount", || Volume::mount(device, options)).ok()
}

/// Paths by what they lead to.
#[derive(Debug, Default)]
pub struct Found {
    /// Regular files.
    pub files: Vec<Vec<u8>>,
    /// Directories, the root among them as an empty path.
    pub directories: Vec<Vec<u8>>,
    /// All else.
    pub others: Vec<Vec<u8>>,
}

/// Looks at everything, as far as a sane image of this size would go.
fn walk(fs: &Filesystem, watch: &Watch) -> Found {
    let (mut found, mut seen, mut entries) = (Found::default(), BTreeSet::new(), 0);
    let mut open = vec![Vec::new()];
    watch.step("statfs", || Ok::<_, Error>(fs.statfs())).ok();
    while let Some(path) = open.pop() {
        let Ok(metadata) = watch.step("metadata", || fs.symlink_metadata(&path)) else { continue };
        if !seen.insert(metadata.inode) {
            continue; // another link, or a directory in itself
        }
        attributes(fs, &path, watch);
        let list = match metadata.file_type() {
            FileType::Directory => &mut found.directories,
            FileType::Regular => &mut found.files,
            _ => &mut found.others,
        };
        list.push(path.clone());
        match metadata.file_type() {
            FileType::Regular => read_file(fs, &path, watch),
            FileType::Symlink => drop(watch.step("read_link", || fs.read_link(&path))),
            FileType::Directory => {
                // A listing that goes in circles is a hang, so it is one step.
                let list = || fs.read_dir(&path)?.collect::<Result<Vec<_>, _>>();
                let names = watch.step("read_dir", list).unwrap_or_default();
                let missing = [&path, b"/no such name".as_slice()].concat();
                watch.step("lookup", || fs.symlink_metadata(&missing)).ok();
                entries += names.len();
                if entries < MOST_ENTRIES && path.len() < MOST_PATH_BYTES {
                    let below = |name: &[u8]| [&path, b"/".as_slice(), name].concat();
                    open.extend(names.iter().map(|entry| below(entry.name())));
                }
            }
            _ => {}
        }
    }
    found
}

fn attributes(fs: &Filesystem, path: &[u8], watch: &Watch) {
    for name in watch.step("list_xattrs", || fs.list_xattrs(path)).unwrap_or_default() {
        watch.step("xattr", || fs.xattr(path, &name)).ok();
    }
    watch.step("xattr", || fs.xattr(path, "user.missing")).ok();
}

/// Reads a file's first runs of data, whatever its size says, and its end.
fn read_file(fs: &Filesystem, path: &[u8], watch: &Watch) {
    let Ok(file) = watch.step("open", || fs.open(path)) else { return };
    watch.step("extents", || file.extents()).ok();
    let mut buffer = vec![0; 64 << 10];
    let (mut at, mut left) = (0, MOST_FILE_BYTES);
    while left > 0 {
        let data = watch.step("seek_data", || file.seek_data(at));
        at = data.ok().flatten().unwrap_or(at);
        match watch.step("read", || file.read_at(&mut buffer, at)) {
            Ok(0) => break,
            Ok(count) => (at, left) = (at + u64_from(count), left.saturating_sub(u64_from(count))),
            Err(_) => (at, left) = (at + u64_from(buffer.len()), left.saturating_sub(1 << 20)),
        }
    }
    watch.step("seek_hole", || file.seek_hole(0)).ok();
    let size = watch.step("metadata", || file.metadata()).map_or(0, |metadata| metadata.size);
    watch.step("read the end", || file.read_at(&mut buffer, size.saturating_sub(5000))).ok();
}

/// Every kind of change, in an order that `random` chooses, on what was found and on new files.
fn change(volume: &Volume, found: &Found, random: &mut Random, watch: &Watch) {
    for number in 0..CHANGES {
        if let Some(operation) = random_change(found, number, random) {
            watch.step(&operation, || volume.try_apply(&operation)).ok();
        } else {
            let path = pick(&found.files, random);
            watch.step("write through one handle", || append(&volume.filesystem, &path)).ok();
        }
    }
    change_small(&volume.filesystem, found, watch);
    watch.step("sync", || volume.filesystem.sync_all()).ok();
}

/// What moves contents of small files and directories into their inode, within it, and out of it.
fn change_small(fs: &Filesystem, found: &Found, watch: &Watch) {
    type Step = fn(&extant::File, u64) -> Result<(), Error>;
    const STEPS: [(&str, Step); 6] = [
        ("write within a small file", |file, size| file.write_at(&[1; 5], size / 2).map(drop)),
        ("append to a small file", |file, size| file.write_at(&[2; 20], size).map(drop)),
        ("cut a small file", |file, size| file.set_len(size / 2)),
        ("extend a small file", |file, size| file.set_len(size + 61)),
        ("store into a small file", |file, size| file.store_at(&[3], size / 2).map(drop)),
        ("punch a small file", |file, size| {
            file.change_range(RangeChange::PunchHole, size / 2, size + 1)
        }),
    ];
    for (number, path) in found.files.iter().take(MOST_SMALL).enumerate() {
        let open = || fs.open_with(path, OpenOptions::new().read(true).write(true));
        let Ok(file) = watch.step("open", open) else { continue };
        let size = watch.step("metadata", || file.metadata()).map_or(0, |metadata| metadata.size);
        if size <= SMALL_BYTES {
            for (name, step) in STEPS.iter().cycle().skip(number).take(2) {
                watch.step(name, || step(&file, size)).ok();
            }
        }
    }
    for path in found.directories.iter().take(MOST_SMALL) {
        for n in 0..6 {
            let name = [path, format!("/small name {n}").as_bytes()].concat();
            watch.step("create in a directory", || fs.create(&name)).ok();
        }
    }
}

/// The next change: on something that was found, or on a new file. `None` in one of 24: something else is to be done.
pub fn random_change(found: &Found, number: u32, random: &mut Random) -> Option<Operation> {
    let name = format!("new {}", random.below(20)).into_bytes();
    let directory = pick(&found.directories, random);
    let new = [&directory, b"/".as_slice(), &name].concat();
    let file = if random.below(3) == 0 { new.clone() } else { pick(&found.files, random) };
    let any = match random.below(8) {
        0 => directory.clone(),
        1 => pick(&found.others, random),
        _ => file.clone(),
    };
    operation(file, any, new, number, random)
}

fn operation(
    file: Vec<u8>,
    any: Vec<u8>,
    new: Vec<u8>,
    number: u32,
    random: &mut Random,
) -> Option<Operation> {
    let value = vec![7; [0, 20, 300, 900, 4000][usize_below(random, 5)]];
    let name = ["user.new", "user.large", "security.other"][usize_below(random, 3)].to_owned();
    let offset = [0, 1000, 50_000, 3 << 20, 5 << 30, 1 << 43][usize_below(random, 6)];
    Some(match random.below(24) {
        0..3 => Operation::Create { path: new, mode: 0o644 },
        3..8 => {
            let len = 1 + usize_below(random, 100_000);
            Operation::Write { path: file, offset, len, tag: number }
        }
        8..10 => Operation::Truncate { path: file, size: offset / 3 },
        10 => Operation::Mkdir { path: new, mode: 0o755 },
        11 => Operation::Symlink { target: vec![b't'; 10 + usize_below(random, 900)], path: new },
        12 => Operation::Link { original: file, path: new },
        13 => Operation::Rename { from: any, to: new },
        14 => Operation::Rename { from: new, to: any },
        15 => Operation::Unlink { path: any },
        16 => Operation::Rmdir { path: any },
        17 => Operation::SetXattr { path: any, name, value },
        18 => Operation::RemoveXattr { path: any, name },
        19 => Operation::Chmod { path: any, mode: 0o640 },
        20 => Operation::SetTimes { path: any, accessed: (1, 2), modified: (3, 4) },
        21 => Operation::Fsync { path: any },
        22 => Operation::Tick { seconds: random.below(60) },
        _ => return None,
    })
}

/// What holds a file open across a change of its size.
fn append(fs: &Filesystem, path: &[u8]) -> Result<(), Error> {
    let file = fs.open_with(path, OpenOptions::new().read(true).append(true))?;
    file.write_at(&pattern(1, 0, 10_000), 0)?;
    file.sync_data()?;
    file.set_len(5000)?;
    file.write_at(&pattern(2, 0, 3000), 0)?;
    file.inode().set_attributes(&SetAttributes {
        modified: Some(Timestamp { seconds: 5, nanoseconds: 6 }),
        ..SetAttributes::default()
    })
}

fn pick(from: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if from.is_empty() { Vec::new() } else { from[usize_below(random, from.len())].clone() }
}

fn usize_below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(u64_from(limit))).expect("below a usize")
}

const CHANGES: u32 = 60;
const MOST_SMALL: usize = 24;
const SMALL_BYTES: u64 = 900;
const MOST_ENTRIES: usize = 5000;
const MOST_PATH_BYTES: usize = 4000;
const MOST_FILE_BYTES: u64 = 2 << 20;
