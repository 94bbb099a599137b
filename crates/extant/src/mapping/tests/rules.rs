//! Rules by name.

use extant_format::ClusterCount;
use extant_format::inode::InodeFlags;

use super::volume::{Shape, Volume, range};
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
fn delay_promises_a_part_when_not_all_fits() {
    let volume = Volume::new(Shape { blocks: 1024, ..Shape::SMALL });
    let file = volume.file(InodeFlags::EXTENTS);
    let mut next = 0;
    let refused = loop {
        match volume.mapper.delay(&file, range(next, 5000), Privilege::Ordinary) {
            Ok(mapped) => next = mapped.blocks.end(),
            Err(error) => break error,
        }
    };
    assert!(refused.is_no_space());
    assert_eq!(u64::from(next), volume.ledger.counts().promised);
    assert!(next > 700);
    // Everything that was promised can be written, tree and all.
    volume.map(&file, range(0, next), MapFlags::WRITEBACK).unwrap();
    assert_eq!(volume.ledger.counts().promised, 0);
}
