//! Rules by name.

use extant_format::ClusterCount;
use extant_format::inode::InodeFlags;

use super::volume::{Shape, Volume, behind, range};
use crate::delayed::Privilege;
use crate::extent_status::BlockState;
use crate::mapping::MapFlags;

#[test]
fn an_empty_file_is_one_hole_that_is_noted_whole() {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(InodeFlags::EXTENTS);
    let mapped = volume.mapper.look_up(&file, range(5, 10)).unwrap();
    assert_eq!((mapped.blocks, mapped.state), (range(5, 10), BlockState::Hole));
    let known = file.status.lock().entries().map(|entry| entry.blocks).collect::<Vec<_>>();
    assert_eq!(known, [extant_format::LogicalRange::ALL]);
}

#[test]
fn a_delayed_write_starts_no_handle_and_asks_no_allocator() {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(InodeFlags::EXTENTS);
    let free = volume.ledger.counts().free;
    let mapped = volume.mapper.delay(&file, range(0, 10), Privilege::Ordinary).unwrap();
    assert_eq!(
        (mapped.blocks, mapped.state, mapped.new),
        (range(0, 10), BlockState::Delayed, true)
    );
    assert_eq!(volume.ledger.counts().promised, 10);
    assert_eq!(volume.ledger.counts().free, free);
    assert_eq!(volume.extents(&file), []);
    let again = volume.mapper.delay(&file, range(3, 1), Privilege::Ordinary).unwrap();
    assert_eq!((again.state, again.new), (BlockState::Delayed, false));
}

#[test]
fn writeback_spends_the_promise_and_the_end_of_io_makes_it_written() {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(InodeFlags::EXTENTS);
    let _ = volume.mapper.delay(&file, range(0, 10), Privilege::Ordinary).unwrap();
    let mapped =
        volume.mapper.map(&mut volume.begin(), &file, range(0, 10), MapFlags::WRITEBACK).unwrap();
    assert!(
        matches!(mapped.state, BlockState::Unwritten(_)) && mapped.new && !mapped.exposes_data()
    );
    assert_eq!(volume.ledger.counts().promised, 0);
    assert_eq!(volume.ledger.counts().metadata, 0);
    assert_eq!(file.reservations.lock().promise().clusters, ClusterCount(0));
    assert_eq!(file.core.lock().blocks, 20);
    volume.mapper.convert(&mut volume.begin(), &file, range(0, 10)).unwrap();
    assert!(
        volume
            .states(&file, range(0, 10))
            .iter()
            .all(|state| matches!(state, BlockState::Written(_)))
    );
    assert_eq!(volume.extents(&file).len(), 1);
}

#[test]
fn fallocate_over_delayed_blocks_takes_their_promise() {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(InodeFlags::EXTENTS);
    let _ = volume.mapper.delay(&file, range(4, 4), Privilege::Ordinary).unwrap();
    volume.map(&file, range(0, 16), MapFlags::CREATE | MapFlags::UNWRITTEN).unwrap();
    assert_eq!(volume.ledger.counts().promised, 0);
    assert!(
        volume
            .states(&file, range(0, 16))
            .iter()
            .all(|state| matches!(state, BlockState::Unwritten(_)))
    );
    assert_eq!(volume.extents(&file).len(), 1, "neighbours joined");
}

#[test]
fn a_removed_delayed_block_gives_its_promise_back() {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(InodeFlags::EXTENTS);
    let _ = volume.mapper.delay(&file, range(0, 8), Privilege::Ordinary).unwrap();
    volume.mapper.remove(&mut volume.begin(), &file, range(2, 3)).unwrap();
    assert_eq!(volume.ledger.counts().promised, 5);
    volume.mapper.remove(&mut volume.begin(), &file, extant_format::LogicalRange::ALL).unwrap();
    assert_eq!((volume.ledger.counts().promised, volume.ledger.counts().metadata), (0, 0));
}

#[test]
fn what_was_promised_can_be_written_tree_and_all() {
    let extents = InodeFlags::EXTENTS;
    let clusters = Shape { blocks: 4096, ..Shape::BIGALLOC };
    let small = Shape { blocks: 1024, ..Shape::SMALL };
    for (shape, flags) in [(small, extents), (clusters, extents), (small, InodeFlags::empty())] {
        // Runs of `len` blocks, `step` apart, until no more can be promised.
        for (len, step) in [(5000, 5000), (1, 2), (3, 7), (1, 300), (40, 100)] {
            let volume = Volume::new(shape);
            let file = volume.file(flags);
            let mut delayed = Vec::new();
            let mut next = range(0, len);
            let refused = loop {
                match volume.mapper.delay(&file, next, Privilege::Ordinary) {
                    Ok(mapped) => {
                        delayed.push(mapped.blocks);
                        let behind = behind(next, mapped.blocks);
                        next = behind
                            .unwrap_or_else(|| range(next.start().get() / step * step + step, len));
                    }
                    Err(error) => break error,
                }
            };
            assert!(refused.is_no_space());
            let free = volume.ledger.free_space().free.get();
            let pool = volume.ledger.counts().free.unsigned_abs() / 25;
            assert!(free <= pool + 20 || step > 100, "{len} of {step}: {free} clusters are left");
            // Scattered, so that no two can be joined at once.
            let pass =
                if flags == extents { MapFlags::WRITEBACK } else { MapFlags::WRITEBACK_WRITTEN };
            for odd in [1, 0] {
                for run in delayed.iter().skip(odd).step_by(2) {
                    let counts = volume.ledger.counts();
                    let outcome = volume.map(&file, *run, pass);
                    assert!(
                        outcome.is_ok(),
                        "{len} of {step}, {run}, {flags:?} {shape:?}: {outcome:?} {counts:?}"
                    );
                }
            }
            assert_eq!((volume.ledger.counts().promised, volume.ledger.counts().metadata), (0, 0));
        }
    }
}

/// How many blocks a removal frees.
fn freed(volume: &Volume, file: &crate::inode::Inode, range: extant_format::LogicalRange) -> u64 {
    let before = volume.used_blocks();
    volume.mapper.remove(&mut volume.begin(), file, range).unwrap();
    before - volume.used_blocks()
}

#[test]
fn a_punched_block_map_keeps_the_branch_around_the_ranges_end() {
    let volume = Volume::new(Shape::SMALL);
    let file = volume.file(InodeFlags::empty());
    volume.map(&file, range(12, 1), MapFlags::CREATE).unwrap();
    assert_eq!(freed(&volume, &file, range(11, 2)), 1, "the block alone, not the array around it");
    assert_eq!(freed(&volume, &file, range(12, 300)), 1, "the array, in which the range begins");
    for block in [12, 300, 600] {
        volume.map(&file, range(block, 1), MapFlags::CREATE).unwrap();
    }
    // Arrays: one for 12, two for 300, another for 600.
    assert_eq!(freed(&volume, &file, range(14, 500)), 1, "300 alone: its array is around the end");
    assert_eq!(
        freed(&volume, &file, range(13, 600)),
        2,
        "600, and the array that was left empty before it"
    );
    assert_eq!(freed(&volume, &file, range(0, 100)), 1, "12 alone: its array is around the end");
    assert_eq!(freed(&volume, &file, extant_format::LogicalRange::ALL), 3, "what was left empty");
    assert_eq!(volume.used_blocks(), 0);
}
