//! Rule by rule: freeing, setting aside, inodes, trimming, memory.

use super::*;
use extant_device::OperationKind;
use extant_testkit::{Effect, Fault};
use std::collections::BTreeSet;

#[test]
fn unaligned_ends_keep_their_clusters_if_told_so() {
    let Some(image) = image(64 * MIB, &["-b", "4096", "-O", "bigalloc", "-C", "16384"]) else {
        return;
    };
    let volume = Volume::open(&image, false);
    let used = |volume: &Volume| volume.allocator.free_clusters().get();
    let all = used(&volume);
    let (start, len) = volume
        .get(AllocationRequest { flags: AllocationFlags::empty(), ..data(FILE, 0, 64, 8192, 64) });
    assert_eq!((len, all - used(&volume)), (64, 16));
    volume.free(start + 1, 2, FreeFlags::NOFREE_FIRST_CLUSTER).unwrap();
    assert_eq!(all - used(&volume), 16, "nothing is left to free");
    volume
        .free(start + 1, 6, FreeFlags::NOFREE_FIRST_CLUSTER | FreeFlags::NOFREE_LAST_CLUSTER)
        .unwrap();
    assert_eq!(all - used(&volume), 16);
    volume
        .free(start + 1, 8, FreeFlags::NOFREE_FIRST_CLUSTER | FreeFlags::NOFREE_LAST_CLUSTER)
        .unwrap();
    assert_eq!(all - used(&volume), 15, "the whole one between");
    volume.free(start + 9, 2, FreeFlags::empty()).unwrap();
    assert_eq!(all - used(&volume), 14, "widened to both sides");
    volume.check();
}

#[test]
fn freed_blocks_are_allocatable_after_their_commit() {
    let Some(image) = image(16 * MIB, &["-b", "1024", "-O", "^resize_inode"]) else { return };
    let volume = Volume::open(&image, true).warm();
    let (start, len) = volume.get(data(FILE, 0, 100, 1, 100));
    volume.allocator.discard_preallocations(FILE);
    let before = volume.free_in_buddies();
    volume.free(start, len, FreeFlags::empty()).unwrap();
    assert_eq!(volume.free_in_buddies(), before);
    assert_eq!(volume.ledger.counts().uncommitted, len);
    volume.check();
    let again = volume
        .get(AllocationRequest { goal: PhysicalBlock::new(start), ..data(OTHER, 0, 1, start, 1) });
    assert!(!range(start, len).contains(PhysicalBlock::new(again.0)));
    volume.transactions.commit_running().unwrap();
    assert_eq!(volume.ledger.counts().uncommitted, 0);
    assert_eq!(
        volume.free_in_buddies() + 512,
        before + len,
        "but for the other file's preallocation"
    );
    volume.check();
}

#[test]
fn unordered_data_and_volumes_without_a_journal_free_at_once() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    for journaled in [false, true] {
        let volume = Volume::open(&image, journaled).warm();
        let (start, len) = volume
            .get(AllocationRequest { flags: AllocationFlags::empty(), ..data(FILE, 0, 100, 1, 0) });
        let before = volume.free_in_buddies();
        volume
            .free(start, len, if journaled { FreeFlags::UNORDERED } else { FreeFlags::empty() })
            .unwrap();
        assert_eq!(volume.free_in_buddies(), before + len);
        assert_eq!(volume.ledger.counts().uncommitted, 0);
        volume.check();
    }
}

#[test]
fn rereserved_clusters_leave_the_ledger_to_the_caller() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    let volume = Volume::open(&image, true);
    let (start, len) = volume
        .get(AllocationRequest { flags: AllocationFlags::empty(), ..data(FILE, 0, 10, 1, 0) });
    let before = volume.ledger.counts();
    volume.free(start, len, FreeFlags::RERESERVE_CLUSTER).unwrap();
    assert_eq!(volume.ledger.counts(), before);
    drop(volume.ledger.rereserve(ClusterCount(len)));
    volume.transactions.commit_running().unwrap();
    volume.check();
}

#[test]
fn nobody_frees_what_is_free_or_the_file_systems_own() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    let mut volume = Volume::open(&image, true);
    let geometry = volume.allocator.geometry;
    for block in [0, 1, 2, geometry.blocks_count, u64::MAX - 9] {
        assert!(volume.free(block, 1, FreeFlags::empty()).is_err(), "block {block}");
    }
    let table = volume.allocator.snapshot(BlockGroup(1)).unwrap().descriptor.inode_table.get();
    assert!(volume.free(table + 3, 1, FreeFlags::empty()).is_err());
    let (start, len) = volume.get(data(FILE, 0, 20, 1, 20));
    let allocator = Arc::get_mut(&mut volume.allocator);
    assert!(allocator.is_none(), "shared with the transactions");
    assert!(volume.allocator.take_findings().is_empty());
    volume.free(start, len, FreeFlags::empty()).unwrap();
    assert!(volume.free(start, len, FreeFlags::empty()).is_err());
    let group = geometry.group_of(PhysicalBlock::new(start)).unwrap();
    assert!(volume.allocator.snapshot(group).unwrap().blocks_set_aside);
    assert_eq!(volume.allocator.take_findings(), [Place::Group(group).breaks(Rule::FreedTwice)]);
}

#[test]
fn protected_blocks_are_their_inodes_alone() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    let volume = Volume::open(&image, false);
    let mut allocator = Arc::into_inner(volume.allocator);
    if let Some(allocator) = &mut allocator {
        allocator.protect(InodeNumber::JOURNAL, range(9000, 100));
        assert!(allocator.may_own(InodeNumber::JOURNAL, range(9050, 10)));
        assert!(!allocator.may_own(FILE, range(9099, 10)));
        assert!(allocator.may_own(FILE, range(9100, 10)));
    }
}

#[test]
fn a_bitmap_that_breaks_its_checksum_or_count_sets_the_group_aside() {
    let Some(mut image) = image(32 * MIB, &["-b", "1024"]) else { return };
    let geometry = *Superblock::parse(&image[1024..2048]).unwrap().geometry();
    let place = |group| {
        let bitmap = descriptor(&geometry, &image, BlockGroup(group)).block_bitmap.get();
        usize_from(u32::try_from(bitmap << geometry.block_bits).unwrap())
    };
    let (torn, counted) = (place(1), place(2));
    image[torn + 1000] ^= 1;
    image[counted + 1000] ^= 1;
    // The second gets its checksum right again.
    let mut descriptor = descriptor(&geometry, &image, BlockGroup(2));
    let bits = &image[counted..counted + geometry.block_len()];
    descriptor.block_bitmap_csum = extant_format::bitmap::block_bitmap_csum(&geometry, bits);
    descriptor.flags.remove(GroupFlags::BLOCK_UNINIT);
    let (index, offset) = geometry.descriptor_place(BlockGroup(2));
    let at = usize_from(
        u32::try_from(geometry.descriptor_block(index).get() << geometry.block_bits).unwrap(),
    );
    descriptor.encode(&mut image[at + offset..], &geometry, BlockGroup(2));

    let volume = Volume::open(&image, true).warm();
    let uninitialized = volume
        .allocator
        .snapshot(BlockGroup(1))
        .unwrap()
        .descriptor
        .flags
        .contains(GroupFlags::BLOCK_UNINIT);
    let broken = |group, rule| Place::Group(BlockGroup(group)).breaks(rule);
    let mut expected = vec![broken(2, Rule::FreeClustersCount)];
    if !uninitialized {
        expected.insert(0, broken(1, Rule::Checksum));
    }
    assert_eq!(volume.allocator.take_findings(), expected);
    for _ in 0..40 {
        let (start, _) = volume.get(AllocationRequest {
            flags: AllocationFlags::empty(),
            ..data(FILE, 0, 400, 16385, 0)
        });
        assert_ne!(geometry.group_of(PhysicalBlock::new(start)), Some(BlockGroup(2)));
    }
    assert_eq!(volume.ledger.counts().free + i64::from(descriptor.free_clusters), {
        i64::try_from(volume.allocator.free_clusters().get()).unwrap()
    });
}

#[test]
fn a_bitmap_that_gives_metadata_away_sets_the_group_aside() {
    let Some(mut image) = image(16 * MIB, &["-b", "1024", "-O", "^metadata_csum"]) else { return };
    let geometry = *Superblock::parse(&image[1024..2048]).unwrap().geometry();
    let bitmap = descriptor(&geometry, &image, BlockGroup(0)).block_bitmap.get();
    image[usize_from(u32::try_from(bitmap << geometry.block_bits).unwrap())] = 0;
    let volume = Volume::open(&image, false).warm();
    assert_eq!(
        volume.allocator.take_findings(),
        [Place::Group(BlockGroup(0)).breaks(Rule::MetadataFree)]
    );
}

#[test]
fn structures_that_overlap_are_refused() {
    let Some(mut image) = image(16 * MIB, &["-b", "1024", "-O", "^metadata_csum,^uninit_bg"])
    else {
        return;
    };
    let superblock = Superblock::parse(&image[1024..2048]).unwrap();
    let geometry = *superblock.geometry();
    let (one, mut two) = (
        descriptor(&geometry, &image, BlockGroup(0)),
        descriptor(&geometry, &image, BlockGroup(1)),
    );
    two.inode_bitmap = one.block_bitmap;
    let zones = [(BlockGroup(0), one), (BlockGroup(1), two)];
    assert!(SystemZones::new(&geometry, zones.into_iter()).is_err());
    image.clear();
}

#[test]
fn when_space_ends_preallocations_go_first() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    let volume = Volume::open(&image, true);
    let free = volume.allocator.free_clusters().get();
    assert_eq!(volume.get(data(OTHER, 0, 1, 1, 1)).1, 1); // keeps 511
    assert_eq!(volume.get(data(FILE, 5000, 100, 1, 9000)).1, 100); // keeps up to 1948
    let mut got = 101;
    loop {
        match volume.allocate(&AllocationRequest {
            flags: AllocationFlags::empty(),
            ..data(FILE, 0, 300, 1, 0)
        }) {
            Ok(allocation) => got += allocation.clusters.get(),
            Err(error) => {
                assert!(error.is_no_space());
                break;
            }
        }
    }
    assert_eq!(got, free);
    assert_eq!(volume.allocator.discard_preallocations(FILE), 0);
    volume.check();
}

#[test]
fn a_claim_is_halved_until_the_ledger_lets_go() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    let volume = Volume::open(&image, true);
    let free = volume.ledger.counts().free;
    let hold = volume.ledger.claim(
        ClusterCount(u64::try_from(free - 70).unwrap()),
        crate::delayed::Privilege::Ordinary,
    );
    let wish = AllocationRequest { flags: AllocationFlags::empty(), ..data(FILE, 0, 256, 1, 0) };
    assert_eq!(volume.get(wish).1, 64);
    let reserved = AllocationRequest { flags: AllocationFlags::DELALLOC_RESERVED, ..wish };
    assert_eq!(volume.get(reserved).1, 256, "who has a reservation is not asked");
    drop(hold);
    volume.check();
}

#[test]
fn block_mapped_files_stay_below_their_limit() {
    let request = AllocationRequest {
        file: FileHints { block_mapped: true, ..FileHints::default() },
        ..data(FILE, 0, 10, 1, 0)
    };
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    assert_eq!(Volume::open(&image, true).get(request).1, 10);
}

#[test]
fn uninitialised_groups_come_to_life_and_e2fsck_agrees() {
    let Some(image) = image(64 * MIB, &["-b", "1024", "-G", "2"]) else { return };
    for journaled in [true, false] {
        let volume = Volume::open(&image, journaled);
        let is_uninit = |group| {
            volume
                .allocator
                .snapshot(group)
                .unwrap()
                .descriptor
                .flags
                .contains(GroupFlags::BLOCK_UNINIT)
        };
        let Some(group) = volume.allocator.geometry.groups().find(|&group| is_uninit(group)) else {
            panic!("none")
        };
        let goal = volume.allocator.geometry.first_block_of(group).get() + 5000;
        let flags = AllocationFlags::HINT_TRY_GOAL;
        let (start, len) = volume.get(AllocationRequest { flags, ..data(FILE, 0, 50, goal, 0) });
        assert_eq!((start, len), (goal, 50));
        assert!(!is_uninit(group));
        volume.check();
        volume.free(start, len, FreeFlags::empty()).unwrap();
        let parent = Parent { inode: InodeNumber::ROOT, last_group: None, is_top: true };
        for name_hash in 0..20 {
            let kind = InodeKind::Directory { name_hash };
            let inode =
                volume.allocator.allocate_inode(&mut volume.begin(), parent, kind, None).unwrap();
            volume.allocator.free_inode(&mut volume.begin(), inode, true).unwrap();
        }
        volume.check();
        volume.e2fsck();
    }
}

#[test]
fn inodes_are_taken_from_the_front_and_given_back() {
    let Some(image) = image(64 * MIB, &["-b", "1024", "-G", "4", "-N", "4096"]) else { return };
    let volume = Volume::open(&image, true);
    let allocator = &volume.allocator;
    let free = allocator.free_inodes();
    let parent = Parent { inode: InodeNumber::ROOT, last_group: None, is_top: true };
    let take = |kind, goal| allocator.allocate_inode(&mut volume.begin(), parent, kind, goal);
    let first = take(InodeKind::Other, None).unwrap();
    assert_eq!(first.get(), 12, "after lost+found");
    let unused = allocator.snapshot(BlockGroup(0)).unwrap().descriptor.itable_unused;
    assert_eq!(unused, allocator.geometry.inodes_per_group - 12);
    assert!(!allocator.is_alone_in_table_block(first).unwrap());
    let goal = InodeNumber::new(allocator.geometry.inodes_per_group * 3 + 100);
    let far = take(InodeKind::Other, goal).unwrap();
    assert_eq!(Some(far), goal);
    assert!(allocator.is_alone_in_table_block(far).unwrap());
    assert!(allocator.is_inode_used(far).unwrap());
    assert_eq!(take(InodeKind::Other, goal).unwrap().get(), far.get() + 1);
    assert_eq!((allocator.free_inodes(), allocator.used_directories()), (free - 3, 2));
    let directory = take(InodeKind::Directory { name_hash: 7 }, None).unwrap();
    assert_eq!(allocator.used_directories(), 3);
    let give = |inode, directory| allocator.free_inode(&mut volume.begin(), inode, directory);
    give(directory, true).unwrap();
    for inode in [first, far, InodeNumber::new(far.get() + 1).unwrap()] {
        give(inode, false).unwrap();
    }
    assert_eq!((allocator.free_inodes(), allocator.used_directories()), (free, 2));
    volume.e2fsck();
    assert!(give(InodeNumber::ROOT, true).is_err(), "reserved");
    assert!(give(InodeNumber::new(u32::MAX).unwrap(), true).is_err(), "past the end");
    assert!(give(first, false).is_err(), "free already");
    assert!(allocator.snapshot(BlockGroup(0)).unwrap().inodes_set_aside);
    let next = take(InodeKind::Other, None).unwrap();
    assert_ne!(allocator.geometry.inode_place(next).unwrap().0, BlockGroup(0));
}

#[test]
fn all_inodes_can_be_taken() {
    let Some(image) = image(16 * MIB, &["-b", "1024", "-N", "512"]) else { return };
    let volume = Volume::open(&image, true);
    let parent = Parent { inode: InodeNumber::ROOT, last_group: None, is_top: false };
    let mut taken = BTreeSet::new();
    let outcome = loop {
        match volume.allocator.allocate_inode(&mut volume.begin(), parent, InodeKind::Other, None) {
            Ok(inode) => assert!(taken.insert(inode), "{inode} twice"),
            Err(error) => break error,
        }
    };
    assert!(matches!(outcome, Error::NoInodes));
    assert_eq!(volume.allocator.free_inodes(), 0);
    assert_eq!(taken.len() + 11, usize_from(volume.allocator.geometry.inodes_count));
}

#[test]
fn blocks_named_by_a_fast_commit_are_taken_where_free_and_freed_where_used() {
    let plain: &[&str] = &["-b", "1024", "-O", "^has_journal,^resize_inode"];
    let bigalloc: &[&str] =
        &["-b", "1024", "-O", "bigalloc,^has_journal,^resize_inode", "-C", "8192"];
    for (options, bytes) in [(plain, 32 * MIB), (bigalloc, 200 * MIB)] {
        let Some(image) = image(bytes, options) else { return };
        let volume = Volume::open(&image, false);
        let allocator = &volume.allocator;
        let (layout, mut handle) = (allocator.layout, volume.begin());
        let ratio = u64::from(layout.cluster_ratio());
        let before = allocator.free_clusters().get();
        // Over the border of two groups, past what mkfs has put at the start of the second.
        let free = |group| {
            let first = allocator.with_buddy(BlockGroup(group), |_, buddy| buddy.next_free(500));
            layout.block(BlockGroup(group), first.unwrap().unwrap()).get()
        };
        let (start, end) = (free(1), free(2));
        let border = layout.first_block(BlockGroup(2));
        let named = range(start, end - start + 1);
        let taken = allocator.take_free(&mut handle, named).unwrap();
        let count: u64 = taken.iter().map(|blocks| blocks.len() / ratio).sum();
        assert_eq!(allocator.free_clusters().get(), before - count);
        assert_eq!(taken.first().unwrap().start().get(), start);
        assert_eq!(taken.last().unwrap().end().get(), end + ratio);
        assert!(
            taken
                .iter()
                .all(|blocks| blocks.end().get() <= border || blocks.start().get() >= border)
        );
        assert!(allocator.take_free(&mut handle, range(start, border - start)).unwrap().is_empty());
        for blocks in taken {
            allocator.free_used(&mut handle, blocks).unwrap();
            allocator.free_used(&mut handle, blocks).unwrap();
        }
        assert_eq!(allocator.free_clusters().get(), before);
        let table = allocator.snapshot(BlockGroup(1)).unwrap().descriptor.inode_table;
        assert!(allocator.take_free(&mut handle, PhysicalRange::single(table)).is_err());
        let outside = range(allocator.geometry.blocks_count, 1);
        assert!(allocator.free_used(&mut handle, outside).is_err());
    }
}

#[test]
fn an_inode_named_by_a_fast_commit_is_taken_once() {
    let Some(image) = image(16 * MIB, &["-b", "1024", "-O", "^has_journal"]) else { return };
    let volume = Volume::open(&image, false);
    let (allocator, mut handle) = (&volume.allocator, volume.begin());
    let before = (allocator.free_inodes(), allocator.used_directories());
    let number = |n| InodeNumber::new(n).unwrap();
    for _ in 0..2 {
        allocator.take_inode_number(&mut handle, number(700), true).unwrap();
        assert!(allocator.is_inode_used(number(700)).unwrap());
        assert!(!allocator.is_inode_used(number(699)).unwrap());
    }
    assert_eq!((allocator.free_inodes() + 1, allocator.used_directories() - 1), before);
    let past = number(allocator.geometry.inodes_count + 1);
    assert!(allocator.take_inode_number(&mut handle, past, false).is_err());
}

#[test]
fn trimming_discards_free_runs_once() {
    let Some(image) = image(16 * MIB, &["-b", "1024", "-O", "^has_journal"]) else { return };
    let options = AllocatorOptions { discard: true, ..AllocatorOptions::default() };
    let volume = Volume::open_with(&image, true, options, |layout| Tunables::new(layout, 0, 1));
    let whole = range(0, 16384);
    let free = volume.allocator.free_clusters();
    let (start, len) = volume
        .get(AllocationRequest { flags: AllocationFlags::empty(), ..data(FILE, 0, 100, 1, 0) });
    let trimmed = volume.allocator.trim(whole, 1).unwrap();
    assert_eq!(trimmed.get() + len, free.get());
    assert_eq!(
        volume.allocator.trim(whole, 1).unwrap(),
        ClusterCount(0),
        "nothing was freed since"
    );
    volume.free(start, len, FreeFlags::empty()).unwrap();
    assert_eq!(volume.allocator.discard_freed().unwrap(), ClusterCount(0), "not committed yet");
    volume.transactions.commit_running().unwrap();
    assert_eq!(volume.allocator.discard_freed().unwrap(), ClusterCount(0), "the commit has");
    assert!(volume.allocator.trim(whole, 1).unwrap().get() >= len);
    volume.check();
}

#[test]
fn buddies_are_dropped_only_while_nothing_is_pinned() {
    let Some(image) = image(64 * MIB, &["-b", "1024"]) else { return };
    let volume = Volume::open(&image, true).warm();
    let all = volume.allocator.buddy_bytes();
    assert_eq!(all, 8 * 2048);
    let (start, len) = volume.get(data(FILE, 0, 100, 1, 100));
    assert_eq!(volume.allocator.shrink(u64::MAX), all - 2048);
    volume.allocator.discard_preallocations(FILE);
    assert_eq!(volume.allocator.shrink(u64::MAX), 2048);
    volume.check();
    volume.allocator.shrink(u64::MAX);
    volume.free(start, len, FreeFlags::empty()).unwrap();
    assert_eq!(volume.allocator.shrink(u64::MAX), 0, "freed but not committed");
    volume.transactions.commit_running().unwrap();
    volume.check();
}

#[test]
fn a_full_transaction_refuses_and_changes_nothing() {
    let Some(image) = image(16 * MIB, &["-b", "1024"]) else { return };
    let volume = Volume::open(&image, true);
    let (start, len) = volume.get(data(FILE, 0, 20, 1, 20));
    volume.allocator.discard_preallocations(FILE);
    volume.transactions.commit_running().unwrap();
    let before = (
        volume.allocator.free_clusters(),
        volume.allocator.free_inodes(),
        volume.free_in_buddies(),
    );
    // Others have asked for all that a transaction may have but one block.
    let all = (1..4096).rev().find(|&blocks| {
        volume.transactions.begin(Credits { blocks, ..Credits::default() }).is_ok()
    });
    let others = Credits { blocks: all.unwrap() - 1, ..Credits::default() };
    let others = volume.transactions.begin(others).unwrap().of_another_thread();
    let mut handle =
        volume.transactions.begin(Credits { blocks: 1, ..Credits::default() }).unwrap();
    let allocator = &volume.allocator;
    let is_full = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::TransactionFull)), "{outcome:?}")
    };
    for flags in [AllocationFlags::empty(), AllocationFlags::HINT_DATA] {
        is_full(
            allocator
                .allocate(&mut handle, &AllocationRequest { flags, ..data(FILE, 0, 20, 1, 20) })
                .map(drop),
        );
        is_full(
            allocator
                .allocate(&mut handle, &AllocationRequest { flags, ..data(FILE, 0, 20, 1, 2000) })
                .map(drop),
        );
    }
    is_full(allocator.free(&mut handle, FILE, range(start, len), FreeFlags::empty()).map(drop));
    let parent = Parent { inode: InodeNumber::ROOT, last_group: None, is_top: false };
    is_full(allocator.allocate_inode(&mut handle, parent, InodeKind::Other, None).map(drop));
    drop((handle, others));
    let after = (
        volume.allocator.free_clusters(),
        volume.allocator.free_inodes(),
        volume.free_in_buddies(),
    );
    assert_eq!(after, before);
    volume.check();
}

#[test]
fn any_read_may_fail() {
    let Some(image) = image(32 * MIB, &["-b", "1024", "-G", "2", "-O", "^has_journal"]) else {
        return;
    };
    let parent = Parent { inode: InodeNumber::ROOT, last_group: None, is_top: true };
    for nth in 1.. {
        let volume = Volume::open(&image, true);
        volume.device.add(Fault {
            kind: Some(OperationKind::Read),
            nth,
            onwards: false,
            effect: Effect::Fail,
        });
        let mut kept = Vec::new();
        for goal in [1, 9000, 17000, 25000] {
            let tree = AllocationRequest {
                flags: AllocationFlags::empty(),
                ..data(FILE, 0, 100, goal, 0)
            };
            for request in [tree, data(FILE, 0, 3, goal, 3), data(FILE, 50, 700, goal, 900)] {
                kept.extend(volume.allocate(&request).map(|got| got.blocks));
                volume.allocator.discard_preallocations(FILE);
            }
            let kind = InodeKind::Directory { name_hash: u32::try_from(goal).unwrap() };
            let inode = volume.allocator.allocate_inode(&mut volume.begin(), parent, kind, None);
            if let Ok(inode) = inode {
                while volume.allocator.free_inode(&mut volume.begin(), inode, true).is_err() {}
            }
        }
        for blocks in kept {
            while volume.free(blocks.start().get(), blocks.len(), FreeFlags::empty()).is_err() {}
        }
        let struck = volume.device.struck();
        volume.device.heal();
        volume.check();
        assert!(volume.allocator.take_findings().is_empty());
        if struck == 0 {
            return volume.e2fsck();
        }
    }
}
