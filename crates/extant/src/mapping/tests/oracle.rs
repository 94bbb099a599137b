//! What we write, e2fsprogs find sound; what the kernel writes, we read as e2fsprogs do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use extant_device::MemoryDevice;
use extant_format::cast::usize_from;
use extant_format::inode::InodeFlags;
use extant_format::{InodeNumber, LogicalRange};
use extant_testkit::Random;
use extant_testkit::oracle::{self, KernelMount, Scratch};

use super::volume::{Volume, behind, range};
use crate::delayed::Privilege;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::MapFlags;

const MIB: u64 = 1 << 20;
const BLOCKS: u32 = 3000;

/// The places of a file's blocks as debugfs tells them; unwritten ones too.
fn blocks_by_debugfs(image: &Path, name: &str, has_extents: bool) -> BTreeMap<u32, u64> {
    let mut places = BTreeMap::new();
    if has_extents {
        // Lines like " 1/ 1   2/ 80     5 -     7   1234 -   1236      3 Uninit".
        let text = oracle::debugfs(image, &format!("dump_extents -l {name}")).unwrap();
        for line in text.lines().skip(1) {
            let numbers: Vec<u64> = line
                .split(|c: char| !c.is_ascii_digit())
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().unwrap())
                .collect();
            let &[_, _, _, _, first, last, start, ..] = numbers.as_slice() else {
                panic!("{line}")
            };
            let each = (first..=last).zip(start..);
            places.extend(each.map(|(block, place)| (u32::try_from(block).unwrap(), place)));
        }
        return places;
    }
    let commands: String = (0..BLOCKS).map(|block| format!("bmap {name} {block}\n")).collect();
    let text = oracle::debugfs_write(image, &commands).unwrap();
    // Answers stand alone on their lines, between the commands' echoes.
    let answers: Vec<u64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(answers.len(), usize_from(BLOCKS), "{text}");
    places.extend((0..).zip(answers).filter(|(_, place)| *place != 0));
    places
}

fn blocks_by_us(volume: &Volume, file: &Inode) -> BTreeMap<u32, u64> {
    let states = volume.states(file, range(0, BLOCKS));
    (0..).zip(states).filter_map(|(block, state)| Some((block, state.place()?.get()))).collect()
}

fn inode_of(image: &Path, name: &str) -> InodeNumber {
    let text = oracle::debugfs(image, &format!("stat {name}")).unwrap();
    let number = text.split_whitespace().nth(1).unwrap();
    InodeNumber::new(number.parse().unwrap()).unwrap()
}

/// Random changes of three files that debugfs made; then the image is judged.
fn check_written(options: &[&str], has_extents: bool, seed: u64) -> Option<()> {
    let scratch = Scratch::new("mapping");
    let image = scratch.path("image");
    oracle::mkfs(&image, 32 * MIB, options)?;
    let names = ["a", "b", "c"];
    oracle::debugfs_write(&image, &names.map(|name| format!("write /dev/null {name}\n")).concat())?;
    let volume = Volume::open(Arc::new(MemoryDevice::from_bytes(&fs::read(&image).unwrap())), None);
    let files = names.map(|name| volume.inodes.get(inode_of(&image, name)).unwrap());
    let mut random = Random::new(seed);
    for _ in 0..600 {
        let file = &files[usize::try_from(random.below(3)).unwrap()];
        let start = u32::try_from(random.below(u64::from(BLOCKS - 40))).unwrap();
        let blocks = range(start, 1 + u32::try_from(random.below(40)).unwrap());
        match random.below(6) {
            0 | 1 => delay(&volume, file, blocks),
            2 => drop(volume.map(file, blocks, MapFlags::CREATE).unwrap()),
            3 if has_extents => {
                drop(volume.map(file, blocks, MapFlags::CREATE | MapFlags::UNWRITTEN).unwrap())
            }
            4 => write_back(&volume, file, has_extents),
            _ => volume.mapper.remove(&mut volume.begin(), file, blocks).unwrap(),
        }
    }
    for file in &files {
        write_back(&volume, file, has_extents);
        file.core.lock().size =
            u64::from(BLOCKS) * u64::from(volume.transactions.geometry().block_size);
        volume.inodes.store(&mut volume.begin(), file).unwrap();
        assert_eq!(file.flags().contains(InodeFlags::EXTENTS), has_extents);
    }
    fs::write(&image, volume.close()).unwrap();
    oracle::e2fsck(&image).unwrap();
    for (name, file) in names.iter().zip(&files) {
        let ours = blocks_by_us(&volume, file);
        assert!(ours.len() > 300, "the test maps too little");
        assert_eq!(blocks_by_debugfs(&image, name, has_extents), ours, "{name}");
    }
    // And all of it can be taken back.
    for file in &files {
        volume.mapper.remove(&mut volume.begin(), file, LogicalRange::ALL).unwrap();
    }
    fs::write(&image, volume.close()).unwrap();
    oracle::e2fsck(&image).unwrap();
    assert_eq!(volume.used_blocks(), 0);
    Some(())
}

fn delay(volume: &Volume, file: &Inode, blocks: LogicalRange) {
    let mut rest = Some(blocks);
    while let Some(range) = rest {
        rest = behind(range, volume.mapper.delay(file, range, Privilege::Ordinary).unwrap().blocks);
    }
}

/// Gives every delayed block a place and, with extents, half of them their data.
fn write_back(volume: &Volume, file: &Inode, has_extents: bool) {
    let states = volume.states(file, range(0, BLOCKS));
    let delayed = (0..).zip(states).filter(|(_, state)| *state == BlockState::Delayed);
    for block in delayed.map(|(block, _)| range(block, 1)) {
        let flags = if has_extents { MapFlags::WRITEBACK } else { MapFlags::WRITEBACK_WRITTEN };
        volume.map(file, block, flags).unwrap();
        if has_extents && block.start().get() % 2 == 0 {
            volume.mapper.convert(&mut volume.begin(), file, block).unwrap();
        }
    }
}

#[test]
fn e2fsck_finds_our_extent_trees_sound() {
    for seed in 0..2 {
        let _ = check_written(&["-O", "^has_journal", "-b", "1024"], true, seed);
        let _ = check_written(&["-O", "^has_journal", "-b", "4096"], true, seed);
    }
}

#[test]
fn e2fsck_finds_our_clusters_sound() {
    let _ = check_written(&["-O", "^has_journal,bigalloc", "-b", "1024", "-C", "16384"], true, 3);
}

#[test]
fn e2fsck_finds_our_indirect_blocks_sound() {
    let _ = check_written(&["-O", "^has_journal,^extents,^64bit,^flex_bg", "-b", "1024"], false, 4);
}

/// A file in which the kernel wrote every third block and preallocated some, read by us.
fn check_read(options: &[&str], mount: &str, has_extents: bool) -> Option<()> {
    let scratch = Scratch::new("mapping");
    let (image, point) = (scratch.path("image"), scratch.path("mount"));
    oracle::mkfs(&image, 32 * MIB, options)?;
    let mounted = KernelMount::new(&image, &point, mount)?;
    let file = File::create(mounted.root().join("a")).unwrap();
    let mut random = Random::new(5);
    for block in (0..u64::from(BLOCKS)).filter(|block| block % 3 == 0 || random.below(50) == 0) {
        file.write_all_at(&[1; 1024], block * 1024).unwrap();
    }
    drop(file);
    if has_extents {
        let name = mounted.root().join("a");
        let _ = oracle::run("fallocate", &["-n", "-o", "1M", "-l", "100K", name.to_str().unwrap()]);
        let _ =
            oracle::run("fallocate", &["-p", "-o", "500K", "-l", "77K", name.to_str().unwrap()]);
    }
    mounted.unmount().unwrap();
    oracle::e2fsck(&image).unwrap();
    let volume = Volume::open(Arc::new(MemoryDevice::from_bytes(&fs::read(&image).unwrap())), None);
    let file = volume.inodes.get(inode_of(&image, "a")).unwrap();
    assert_eq!(blocks_by_us(&volume, &file), blocks_by_debugfs(&image, "a", has_extents));
    Some(())
}

#[test]
fn we_read_the_kernels_extent_trees() {
    let _ = check_read(&["-b", "1024"], "", true);
}

#[test]
fn we_read_the_kernels_indirect_blocks() {
    let _ = check_read(&["-O", "^extents,^64bit,^flex_bg", "-b", "1024"], "", false);
}
