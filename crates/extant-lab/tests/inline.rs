//! What lies in an inode and what in blocks: the kernel's answer and ours, of the same operations on the same image.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use extant::{FileExtentState, Filesystem, InodeNumber, MountOptions};
use extant_device::{FileDevice, MemoryDevice};
use extant_format::cast::{u64_from, usize_from};
use extant_format::corruption::Place;
use extant_format::directory::{DirEntries, DirLayout};
use extant_format::{FileType, InodeFlags};
use extant_lab::script::{Allocation, DirectoryTarget, Operation, Target};
use extant_lab::volume::{Volume, read_all};
use extant_testkit::Random;
use extant_testkit::oracle::{self, KernelMount, Scratch};

/// Who does some operations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Kernel,
    Engine,
}
use Who::{Engine, Kernel};

/// What is compared of one file or directory.
#[derive(Debug, Eq, PartialEq)]
struct Found {
    is_inline: bool,
    has_extents: bool,
    sectors: u64,
    size: u64,
    bytes: Vec<u8>,
    /// Of a directory in one block: where its names lie.
    places: Vec<(usize, usize, Vec<u8>)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The bytes of files by path, as a mount shows them.
type Shown = BTreeMap<Vec<u8>, Vec<u8>>;

/// Runs some operations and syncs; says what succeeds, and what the kernel shows of files then. `None` where nothing can be
/// mounted.
///
/// Where the kernel moves contents out at once it does so through the journal and writes what comes next past it, so that
/// the old bytes come back when the journal's copy goes home: only while it is mounted it shows what was written.
fn apply(who: Who, image: &Path, point: &Path, script: &[Operation]) -> Option<(Vec<bool>, Shown)> {
    let run = |target: &mut dyn Target| {
        script.iter().chain([&Operation::Sync]).map(|one| target.apply(one).is_ok()).collect()
    };
    Some(match who {
        Kernel => {
            let mount = KernelMount::new(image, point, "noatime")?;
            let done = run(&mut DirectoryTarget::new(mount.root()));
            let mut shown = Shown::new();
            for entry in std::fs::read_dir(mount.root()).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    let path = [b"/", entry.file_name().as_encoded_bytes()].concat();
                    shown.insert(path, std::fs::read(entry.path()).unwrap());
                }
            }
            mount.unmount().unwrap();
            (done, shown)
        }
        Engine => {
            let device = Arc::new(FileDevice::open(image).unwrap());
            let mut volume = Volume::mount(device, MountOptions::new()).unwrap();
            let done = run(&mut volume);
            volume.filesystem.check_invariants(true).unwrap();
            volume.unmount().unwrap();
            (done, Shown::new())
        }
    })
}

fn look(image: &Path) -> BTreeMap<Vec<u8>, Found> {
    let device = MemoryDevice::from_bytes(&std::fs::read(image).unwrap());
    let fs = MountOptions::read_only().mount(Arc::new(device.snapshot())).unwrap();
    let (mut all, mut open) = (BTreeMap::new(), vec![Vec::new()]);
    while let Some(path) = open.pop() {
        let metadata = fs.symlink_metadata(&path).unwrap();
        let mut bytes = Vec::new();
        if metadata.is_dir() {
            for entry in fs.read_dir(&path).unwrap() {
                let name = entry.unwrap().name().to_vec();
                bytes.extend(&name);
                if name != b"lost+found" {
                    open.push([&path[..], b"/", &name].concat());
                }
            }
        } else if metadata.file_type() == FileType::Symlink {
            bytes = fs.read_link(&path).unwrap();
        } else {
            bytes = read_all(&fs, &path).unwrap();
        }
        let has = |flag| metadata.flags.contains(flag);
        let xattrs = fs.list_xattrs(&path).unwrap().into_iter();
        let found = Found {
            is_inline: has(InodeFlags::INLINE_DATA),
            has_extents: has(InodeFlags::EXTENTS),
            sectors: metadata.blocks,
            size: metadata.size,
            bytes,
            places: if metadata.is_dir() { places(&fs, &device, &path) } else { Vec::new() },
            xattrs: xattrs.map(|name| (name.clone(), fs.xattr(&path, &name).unwrap())).collect(),
        };
        all.insert(path, found);
    }
    all
}

fn places(fs: &Filesystem, device: &MemoryDevice, path: &[u8]) -> Vec<(usize, usize, Vec<u8>)> {
    let directory = fs.inode(path).unwrap();
    let extents = directory.extents().unwrap();
    let [only] = &extents[..] else { return Vec::new() };
    if only.len > 1 || matches!(only.state, FileExtentState::Inline { .. }) {
        return Vec::new();
    }
    let superblock = fs.superblock();
    let geometry = superblock.geometry();
    let start = usize::try_from(only.physical.unwrap() << geometry.block_bits).unwrap();
    let block = &device.to_vec()[start..start + usize_from(geometry.block_size)];
    let layout = DirLayout::of(geometry, InodeFlags::empty());
    let entries =
        DirEntries::new(block, layout, Place::Inode(InodeNumber::ROOT)).map(Result::unwrap);
    entries.map(|entry| (entry.offset, entry.len, entry.name.to_vec())).collect()
}

/// Runs `parts`, each followed by an unmount, all by the kernel and then by each of `casts`, and compares what is left.
fn compare(name: &str, format: &[&str], parts: &[Vec<Operation>], casts: &[&[Who]]) {
    let scratch = Scratch::new(name);
    let [empty, image, point] = ["empty", "image", "mount"].map(|name| scratch.path(name));
    let Some(()) = oracle::mkfs(&empty, 32 << 20, format) else { return };
    let run = |cast: &[Who]| {
        std::fs::copy(&empty, &image).unwrap();
        let (mut done, mut shown) = (Vec::new(), Shown::new());
        for (part, who) in parts.iter().zip(cast.iter().cycle()) {
            let (of_part, now) = apply(*who, &image, &point, part)?;
            done.extend(of_part);
            shown = now;
        }
        oracle::e2fsck(&image).unwrap_or_else(|said| panic!("{name} {format:?} {cast:?}: {said}"));
        let mut found = look(&image);
        for (path, bytes) in shown {
            found.get_mut(&path).unwrap().bytes = bytes;
        }
        Some((done, found))
    };
    let Some((wanted_done, wanted)) = run(&[Kernel]) else { return };
    let operations: Vec<_> = parts.iter().flatten().map(ToString::to_string).collect();
    for cast in casts {
        let (done, found) = run(cast).unwrap();
        let story = || operations.join("\n");
        assert_eq!(done, wanted_done, "{name} {format:?} {cast:?}, what succeeds of\n{}", story());
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (path, found) in found.iter().filter(|(path, _)| !path.is_empty()) {
            let shown = String::from_utf8_lossy(path);
            let touches = |line: &&String| {
                line.split(' ').any(|word| path.ends_with(word.as_bytes()) && !word.is_empty())
            };
            let story: Vec<_> = operations.iter().filter(touches).cloned().collect();
            assert_eq!(
                *found,
                wanted[path],
                "{name} {format:?} {cast:?}: {shown}, we and the kernel, after\n{}",
                story.join("\n")
            );
        }
    }
}

const ALONE: &[&[Who]] = &[&[Engine]];
const IN_TURNS: &[&[Who]] = &[&[Engine], &[Kernel, Engine], &[Engine, Kernel]];

fn inode_size(bytes: &str) -> [&str; 6] {
    ["-b", "4096", "-I", bytes, "-O", "inline_data"]
}

fn create(path: &str) -> Operation {
    Operation::Create { path: path.into(), mode: 0o644 }
}

fn write(path: &str, offset: u64, len: usize) -> Operation {
    Operation::Write { path: path.into(), offset, len, tag: 7 }
}

fn truncate(path: &str, size: u64) -> Operation {
    Operation::Truncate { path: path.into(), size }
}

fn xattr(path: &str, len: usize) -> Operation {
    Operation::SetXattr { path: path.into(), name: "user.a".into(), value: vec![b'v'; len] }
}

#[test]
fn d6_the_same_sizes_lie_in_the_inode() {
    for (inode, border) in [("256", 128), ("512", 384), ("1024", 896)] {
        let mut script = Vec::new();
        for len in (0..=300).chain(border - 6..border + 6) {
            let path = format!("f{len}");
            script.push(create(&path));
            script.extend((len > 0).then(|| write(&path, 0, len)));
        }
        compare("sizes", &inode_size(inode), &[script], ALONE);
    }
}

#[test]
fn d6_the_same_growth_moves_out() {
    let steps = [0, 1, 30, 59, 60, 61, 100, 127, 128, 129, 200];
    let mut script = Vec::new();
    for first in steps {
        for second in steps {
            let path = format!("f{first}-{second}");
            script.push(create(&path));
            script.extend((first > 0).then(|| write(&path, 0, first)));
            script.extend((second > 0).then(|| write(&path, u64_from(first / 2), second)));
            script.push(write(&path, 3, 4));
        }
    }
    compare("growth", &inode_size("256"), &[script], ALONE);
}

#[test]
fn d6_6_the_same_cuts_and_extensions_move_out() {
    let mut script = Vec::new();
    for len in [0, 1, 59, 60, 61, 100, 128] {
        for size in [0, 1, 30, 59, 60, 61, 99, 100, 101, 127, 128, 129, 5000] {
            let path = format!("f{len}-{size}");
            script.push(create(&path));
            script.extend((len > 0).then(|| write(&path, 0, len)));
            script.push(truncate(&path, size));
            if size % 2 == 0 {
                script.push(write(&path, size, 9));
            }
        }
    }
    compare("cuts", &inode_size("256"), &[script], ALONE);
}

#[test]
fn the_same_attributes_keep_contents_out() {
    let mut script = Vec::new();
    for value in [0, 1, 4, 20, 36, 40, 43, 44, 45, 48, 52, 60, 100, 300] {
        for len in [1, 40, 60, 61, 64, 68, 70, 100, 128] {
            let (before, after) = (format!("b{value}-{len}"), format!("a{value}-{len}"));
            script.extend([create(&before), xattr(&before, value), write(&before, 0, len)]);
            script.extend([create(&after), write(&after, 0, len), xattr(&after, value)]);
            script.push(write(&after, u64_from(len), 4));
            if value % 2 == 0 {
                let (path, name) = (after.clone().into_bytes(), "user.a".to_owned());
                script.push(Operation::RemoveXattr { path, name });
                script.push(write(&after, u64_from(len), 30));
            }
        }
    }
    for format in
        [inode_size("256"), ["-b", "1024", "-I", "512", "-O", "inline_data,^metadata_csum"]]
    {
        compare("attributes", &format, &[script.clone()], ALONE);
    }
}

/// An access control list as `setxattr` takes it, with so many users beside owner, group, mask and others.
fn acl(users: u32) -> Vec<u8> {
    const NONE: u32 = u32::MAX;
    let mut entries = vec![(1, 7, NONE)];
    entries.extend((0..users).map(|user| (2, 5, 1000 + user)));
    entries.extend([(4, 5, NONE), (0x10, 7, NONE), (0x20, 5, NONE)]);
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(permissions));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

#[test]
fn the_same_access_control_lists_keep_contents_out() {
    let mut script = Vec::new();
    for users in [1, 2, 3, 8] {
        let set = |path: &str, name: &str| Operation::SetXattr {
            path: path.into(),
            name: format!("system.posix_acl_{name}"),
            value: acl(users),
        };
        let dir = format!("d{users}");
        script.push(Operation::Mkdir { path: dir.clone().into(), mode: 0o755 });
        script.push(set(&dir, "default"));
        for len in [1, 40, 60, 70, 100] {
            let (own, child) = (format!("f{users}-{len}"), format!("{dir}/{len}"));
            script.extend([create(&own), write(&own, 0, len), set(&own, "access")]);
            script.push(write(&own, 30, 40));
            script.extend([create(&child), write(&child, 0, len)]);
            script.push(Operation::Mkdir { path: format!("{dir}/below{len}").into(), mode: 0o750 });
        }
    }
    compare("lists", &inode_size("256"), &[script.clone()], ALONE);
    compare("lists", &inode_size("1024"), &[script], ALONE);
}

#[test]
fn d6_5_the_same_range_operations_move_out() {
    let modes = [
        Allocation::Extend,
        Allocation::KeepSize,
        Allocation::Punch,
        Allocation::Zero,
        Allocation::ZeroKeepSize,
    ];
    let mut script = Vec::new();
    for (number, mode) in modes.into_iter().enumerate() {
        for len in [0, 50, 100] {
            for offset in [0, 20, 5000] {
                let path = format!("f{number}-{len}-{offset}");
                script.extend([create(&path), write(&path, 0, 100), truncate(&path, len)]);
                let path = path.into_bytes();
                script.push(Operation::Allocate { path, offset, len: 300, mode });
            }
        }
    }
    compare("ranges", &inode_size("256"), &[script], ALONE);
}

#[test]
fn the_same_directories_lie_in_the_inode_and_their_names_in_the_same_places() {
    let mut script = Vec::new();
    let name = |dir: &str, n: usize, len: usize| format!("{dir}/{n:0len$}");
    for (number, len) in [2, 4, 8, 13, 30, 60, 200].into_iter().enumerate() {
        for count in [1, 3, 5, 8, 9] {
            let dir = format!("d{number}-{count}");
            script.push(Operation::Mkdir { path: dir.clone().into(), mode: 0o755 });
            script.extend((number % 3 == 2).then(|| xattr(&dir, [28, 36][count % 2])));
            for n in 0..count {
                // Links to one file, so that inodes do not run out.
                script.push(create(&name(&dir, n, len)));
                if n % 3 == 2 {
                    script.push(Operation::Unlink { path: name(&dir, n - 1, len).into() });
                    script
                        .push(Operation::Mkdir { path: name(&dir, n + 50, 3).into(), mode: 0o755 });
                }
            }
        }
    }
    script.push(Operation::Rename { from: b"d0-1".to_vec(), to: b"d1-5/m".to_vec() });
    script.push(Operation::Rmdir { path: b"d5-3".to_vec() });
    for len in [1, 59, 60, 61, 100, 300] {
        let path = format!("link{len}").into_bytes();
        script.push(Operation::Symlink { target: vec![b't'; len], path });
    }
    for format in [
        inode_size("256"),
        inode_size("1024"),
        ["-b", "1024", "-I", "256", "-O", "inline_data,^dir_index,^metadata_csum"],
    ] {
        compare("directories", &format, &[script.clone()], ALONE);
    }
}

/// Random operations on few small files and directories.
fn random_part(random: &mut Random, len: usize) -> Vec<Operation> {
    let at =
        |random: &mut Random, len: usize| usize::try_from(random.below(u64_from(len))).unwrap();
    let mut part = Vec::new();
    while part.len() < len {
        let file = format!("f{}", random.below(6));
        let dir = format!("d{}", random.below(3));
        let name = format!("{dir}/{:01$}", random.below(12), [1, 9, 25][at(random, 3)]);
        let offset = random.below(150);
        let size = 1 + at(random, 140);
        let path = || file.clone().into_bytes();
        part.push(match random.below(20) {
            0 | 1 => create(&file),
            2 => Operation::Mkdir { path: dir.into(), mode: 0o755 },
            3..7 => write(&file, offset, size),
            7 => write(&file, offset, 6000),
            8 | 9 => Operation::Append { path: path(), len: size, tag: 3 },
            10 | 11 => truncate(&file, offset.min(60)), // to more, the kernel would move them out at once
            12 => xattr(&file, at(random, 100)),
            13 => xattr(&dir, at(random, 60)),
            14 => Operation::RemoveXattr { path: path(), name: "user.a".to_owned() },
            15 => Operation::Unlink { path: name.into() },
            16 if random.coin() => Operation::Fsync { path: path() },
            16 => Operation::Unlink { path: path() },
            _ => create(&name),
        });
    }
    part
}

/// The kernel goes on with what we have left, and we with what it has left.
#[test]
fn kernel_and_engine_change_each_others_inline_files_and_directories() {
    let formats: [&[&str]; 4] = [
        &["-b", "4096", "-O", "inline_data"],
        &["-b", "1024", "-I", "1024", "-O", "inline_data"],
        &["-b", "2048", "-O", "inline_data,^metadata_csum"],
        &["-b", "1024", "-O", "inline_data,^extent,^64bit"],
    ];
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let parts: Vec<_> = (0..4).map(|_| random_part(&mut random, 40)).collect();
        let format = formats[usize::try_from(seed).unwrap() % formats.len()];
        compare(&format!("turns {seed}"), format, &parts, IN_TURNS);
    }
}
