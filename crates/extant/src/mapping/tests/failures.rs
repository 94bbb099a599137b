//! Full transactions and failing devices: afterwards the map is as before, or the journal is stopped.

use std::sync::Arc;

use extant_device::{MemoryDevice, OperationKind};
use extant_format::extent::{Extent, NodeView};
use extant_format::indirect;
use extant_format::inode::{FileType, InodeFlags};
use extant_format::{InodeNumber, LogicalRange, PhysicalBlock};
use extant_testkit::{Fault, FaultDevice, Random};

use super::volume::{Shape, Volume, behind, blank, range};
use crate::Error;
use crate::delayed::Privilege;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::transaction::{BlockKind, Credits, Handle, MetadataBlock};

/// Changes blocks of nobody until the running transaction has no room for more.
fn fill_transaction(volume: &Volume) {
    let mut handle = volume.transactions.begin(small_credits(0)).unwrap();
    for block in 7000.. {
        if handle.ensure_credits(1, 0).is_err() {
            break;
        }
        handle.fresh(PhysicalBlock::new(block), BlockKind::Plain).unwrap();
    }
}

/// Maps every other block up to `end`.
fn fragment(volume: &Volume, file: &Inode, end: u32, flags: MapFlags) {
    for block in (0..end).step_by(2) {
        volume.map(file, range(block, 1), flags).unwrap();
    }
}

fn small_credits(blocks: u32) -> Credits {
    Credits { blocks, revokes: 8, ..Credits::default() }
}

#[test]
fn a_removal_restarts_its_handle_when_the_transaction_is_full() {
    for flags in [InodeFlags::EXTENTS, InodeFlags::empty()] {
        let volume = Volume::journaled(Shape::SMALL, 1024);
        let file = volume.file(flags);
        fragment(&volume, &file, 3000, MapFlags::CREATE);
        volume.transactions.commit_running().unwrap();
        let handle = volume.transactions.begin(small_credits(0)).unwrap();
        let mut handle = handle.of_another_thread();
        fill_transaction(&volume);
        let first = handle.transaction_id();
        volume.mapper.remove(&mut handle, &file, range(100, 2900)).unwrap();
        assert!(handle.transaction_id().is_after(first), "one transaction cannot hold all of it");
        drop(handle);
        let left =
            volume.states(&file, range(0, 3000)).iter().filter(|state| state.is_mapped()).count();
        assert_eq!(left, 50);
        volume.mapper.remove(&mut volume.begin(), &file, LogicalRange::ALL).unwrap();
        volume.transactions.commit_running().unwrap();
        assert_eq!((volume.used_blocks(), file.core.lock().blocks), (0, 0));
    }
}

#[test]
fn freed_blocks_of_a_directory_are_revoked_in_pieces() {
    for flags in [InodeFlags::EXTENTS, InodeFlags::empty()] {
        let volume = Volume::journaled(Shape::SMALL, 1024);
        let file = volume.file(flags);
        file.core.lock().mode = FileType::Directory.mode_bits();
        volume.map(&file, range(0, 2500), MapFlags::CREATE).unwrap();
        volume.transactions.commit_running().unwrap();
        let mut handle = volume.transactions.begin(small_credits(10)).unwrap();
        volume.mapper.remove(&mut handle, &file, LogicalRange::ALL).unwrap();
        drop(handle);
        volume.transactions.commit_running().unwrap();
        assert_eq!((volume.used_blocks(), file.core.lock().blocks), (0, 0));
    }
}

#[test]
fn a_full_transaction_refuses_before_anything_changes() {
    let volume = Volume::journaled(Shape::SMALL, 1024);
    let file = volume.file(InodeFlags::EXTENTS);
    fragment(&volume, &file, 2 * 4 * 84, MapFlags::CREATE | MapFlags::UNWRITTEN);
    volume.transactions.commit_running().unwrap();
    let (before, used) = (volume.extents(&file), volume.used_blocks());
    let cases = [
        (range(101, 1), MapFlags::CREATE),
        (range(101, 1), MapFlags::CREATE | MapFlags::UNWRITTEN),
        (range(4000, 4), MapFlags::WRITEBACK),
        (range(100, 1), MapFlags::END_OF_IO),
    ];
    for (blocks, flags) in cases {
        let handle = volume.transactions.begin(small_credits(0)).unwrap();
        let mut handle = handle.of_another_thread();
        // Somebody else takes all credits that are left.
        let mut hog = volume.transactions.begin(small_credits(0)).unwrap();
        while hog.ensure_credits(hog.credits() + 1, 0).is_ok() {}
        let outcome = volume.mapper.map(&mut handle, &file, blocks, flags);
        assert!(matches!(outcome, Err(Error::TransactionFull)), "{outcome:?}");
        drop((handle, hog));
        volume.transactions.check_writable().unwrap();
        assert_eq!((volume.extents(&file), volume.used_blocks()), (before.clone(), used));
    }
}

const FILE: InodeNumber = InodeNumber::new(12).unwrap();

/// A volume at rest on which a file has a tree of depth 2, or a chain of indirect blocks.
fn at_rest(flags: InodeFlags) -> (Arc<FaultDevice<MemoryDevice>>, Vec<Extent>) {
    let device = Arc::new(FaultDevice::new(blank(Shape::SMALL)));
    let volume = Volume::open(Arc::<FaultDevice<MemoryDevice>>::clone(&device), None);
    let file = volume.file(flags);
    fragment(&volume, &file, 2 * 5 * 84, MapFlags::CREATE);
    let extents =
        if flags.contains(InodeFlags::EXTENTS) { volume.extents(&file) } else { Vec::new() };
    volume.close();
    (device, extents)
}

#[test]
fn after_a_failed_read_the_map_is_as_before_or_the_journal_is_stopped() {
    for flags in [InodeFlags::EXTENTS, InodeFlags::empty()] {
        for nth in 1.. {
            let (device, before) = at_rest(flags);
            let volume = Volume::open(Arc::<FaultDevice<MemoryDevice>>::clone(&device), None);
            let file = volume.inodes.get(FILE).unwrap();
            device.add(Fault::fail(
                OperationKind::Read,
                device.seen(Some(OperationKind::Read)) + nth,
            ));
            let outcome = volume.map(&file, range(301, 1), MapFlags::CREATE);
            device.heal();
            if device.struck() == 0 {
                outcome.unwrap();
                break;
            }
            if outcome.is_err() && volume.transactions.check_writable().is_ok() {
                assert_eq!(volume.used_blocks(), 0, "read {nth}: a block is lost");
                assert!(!volume.states(&file, range(301, 1))[0].is_mapped(), "read {nth}");
                if flags.contains(InodeFlags::EXTENTS) {
                    assert_eq!(volume.extents(&file), before, "read {nth}");
                }
            }
        }
    }
}

/// Whatever the bytes of a map are: no panic, no endless loop, and the volume can go on or is stopped.
fn check_damaged(flags: InodeFlags, seed: u64) {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(flags);
    fragment(&volume, &file, 2 * 3 * 84, MapFlags::CREATE);
    let mut random = Random::new(seed);
    let mut below = |limit: u64| random.below(limit);
    for _ in 0..1 + below(4) {
        let (at, byte) = (usize::try_from(below(60)).unwrap(), u8::try_from(below(256)).unwrap());
        // Half of the damage is near the front of its node, where the header is.
        let offset = if below(2) == 0 { at % 16 } else { usize::try_from(below(1024)).unwrap() };
        match inner_block(&volume, &file, below(3)) {
            Some(block) if below(3) > 0 => {
                volume.begin().modify(&block, |bytes| bytes[offset] = byte).unwrap()
            }
            _ => file.core.lock().block[at] = byte,
        }
    }
    Volume::forget_cached(&file);
    let mut next = Some(range(0, 2000));
    for _ in 0..4000 {
        let Some(range) = next else { break };
        let Ok(mapped) = volume.mapper.look_up(&file, range) else { break };
        next = behind(range, mapped.blocks);
    }
    Volume::forget_cached(&file);
    let change = |change: &dyn Fn(&mut Handle<'_>)| {
        if let Ok(mut handle) = volume.transactions.begin(small_credits(100)) {
            change(&mut handle);
        }
    };
    for at in [0, 301, 302, 1500, 40_000] {
        let _ = volume.mapper.delay(&file, range(at, 2), Privilege::Ordinary);
        change(&|handle| drop(volume.mapper.map(handle, &file, range(at, 3), MapFlags::WRITEBACK)));
        change(&|handle| drop(volume.mapper.map(handle, &file, range(at, 1), MapFlags::END_OF_IO)));
    }
    change(&|handle| drop(volume.mapper.remove(handle, &file, range(77, 300))));
    change(&|handle| drop(volume.mapper.remove(handle, &file, LogicalRange::ALL)));
}

/// A block that the root points to.
fn inner_block(volume: &Volume, file: &Inode, nth: u64) -> Option<MetadataBlock> {
    let root = file.core.lock().block;
    if file.flags().contains(InodeFlags::EXTENTS) {
        let child = NodeView::trusted(&root)?.index(usize::try_from(nth).unwrap())?.child;
        return volume.transactions.read(child, BlockKind::ExtentNode(file.checksum_seed())).ok();
    }
    let block = indirect::pointer(&root, 12 + u32::try_from(nth).unwrap())?;
    volume.transactions.read(block, BlockKind::Plain).ok()
}

#[test]
fn damaged_maps_do_no_harm() {
    for seed in 0..300 {
        check_damaged(InodeFlags::EXTENTS, seed);
        check_damaged(InodeFlags::empty(), seed);
    }
}
