use super::*;
use crate::superblock::{RawSuperblock, Superblock};
use proptest::prelude::*;

const AT: Place = Place::Inode(crate::numbers::InodeNumber::ROOT);

fn geometry() -> Geometry {
    let mut raw = RawSuperblock::blank();
    raw.log_block_size = 2.into();
    raw.log_cluster_size = 2.into();
    raw.blocks_per_group = 32768.into();
    raw.inodes_per_group = 1024.into();
    raw.inodes_count = 4096.into();
    raw.set_blocks_count(131_072);
    raw.inode_size = 256.into();
    raw.first_ino = 11.into();
    *Superblock::try_from(&raw).unwrap().geometry()
}

fn extent(first: u32, len: u32, start: u64, state: ExtentState) -> Extent {
    Extent {
        blocks: LogicalRange::new(first, len).unwrap(),
        start: PhysicalBlock::new(start),
        state,
    }
}

fn index(first: u32, child: u64) -> Index {
    Index { first: LogicalBlock::new(first).unwrap(), child: PhysicalBlock::new(child) }
}

fn root(extents: &[Extent]) -> [u8; 60] {
    let mut bytes = [0; 60];
    let mut node = NodeMut::init(&mut bytes, 0);
    for &extent in extents {
        let len = node.len();
        assert!(node.insert(len, extent));
    }
    bytes
}

use ExtentState::{Unwritten, Written};

#[test]
fn length_32768_is_written_and_more_is_unwritten() {
    let raw = |len: u16| RawExtent {
        block: 0.into(),
        len: len.into(),
        start_hi: 1.into(),
        start_lo: 2.into(),
    };
    let decoded =
        |len| Extent::try_from(raw(len)).map(|extent| (extent.blocks.len(), extent.state));
    assert_eq!(decoded(0), Err(Rule::ExtentRange));
    assert_eq!(decoded(32768), Ok((32768, Written)));
    assert_eq!(decoded(32769), Ok((1, Unwritten)));
    assert_eq!(decoded(65535), Ok((32767, Unwritten)));
    assert_eq!(Extent::try_from(raw(1)).unwrap().start, PhysicalBlock::new(0x1_0000_0002));
}

#[test]
fn capacity_leaves_room_for_the_tail() {
    for (size, capacity) in [(60, 4), (1024, 84), (4096, 340), (65536, 5460)] {
        let mut bytes = vec![0; size];
        assert_eq!(NodeMut::init(&mut bytes, 0).view().capacity(), capacity);
    }
}

#[test]
fn each_node_check_refuses() {
    let geometry = geometry();
    let check = |bytes: &[u8], expected| {
        NodeView::new(bytes, AT, &geometry, expected).err().map(|broken| broken.rule)
    };
    let good = root(&[extent(0, 5, 100, Written), extent(5, 5, 200, Unwritten)]);
    let changed = |at: usize, byte| {
        let mut bytes = good;
        bytes[at] = byte;
        check(&bytes, Expected::ROOT)
    };
    assert_eq!(check(&good, Expected::ROOT), None);
    assert_eq!(check(&good[..8], Expected::ROOT), Some(Rule::TooShort));
    assert_eq!(changed(0, 0), Some(Rule::Magic));
    assert_eq!(changed(2, 5), Some(Rule::ExtentCount));
    assert_eq!(changed(4, 5), Some(Rule::ExtentCapacity));
    assert_eq!(changed(6, 6), Some(Rule::ExtentDepth));
    assert_eq!(changed(16, 0), Some(Rule::ExtentRange));
    assert_eq!(changed(16, 6), Some(Rule::ExtentOrder));
    assert_eq!(changed(22, 2), Some(Rule::ExtentPlace));
    assert_eq!(changed(24, 4), Some(Rule::ExtentOrder));
    let child =
        |depth, first, end| Expected { depth: Some(depth), first: LogicalBlock::new(first), end };
    assert_eq!(check(&good, child(0, 0, 10)), None);
    assert_eq!(check(&good, child(1, 0, 10)), Some(Rule::ExtentDepth));
    assert_eq!(check(&good, child(0, 1, 10)), Some(Rule::ExtentFirst));
    assert_eq!(check(&good, child(0, 0, 9)), Some(Rule::ExtentLimit));
    assert_eq!(check(&root(&[]), Expected::ROOT), None);
    assert_eq!(check(&root(&[]), child(0, 0, 9)), Some(Rule::ExtentCount));
}

#[test]
fn index_entries_hold_48_bits() {
    let mut bytes = [0; 60];
    let mut node = NodeMut::init(&mut bytes, 1);
    assert!(node.insert(0, index(7, 0xABCD_1234_5678)));
    assert_eq!(node.view().index(0), Some(index(7, 0xABCD_1234_5678)));
    assert_eq!(node.view().extent(0), None);
    let refused = NodeView::new(&bytes, AT, &geometry(), Expected::ROOT).unwrap_err();
    assert_eq!(refused.rule, Rule::IndexPlace);
}

#[test]
fn a_childs_bounds_come_from_its_neighbours() {
    let mut bytes = [0; 60];
    let mut node = NodeMut::init(&mut bytes, 2);
    assert!(node.insert(0, index(0, 50)) && node.insert(1, index(30, 60)));
    let view = NodeView::new(&bytes, AT, &geometry(), Expected::ROOT).unwrap();
    let first = view.expected_of_child(0, Expected::ROOT).unwrap();
    assert_eq!(
        (first.depth, first.first.map(LogicalBlock::get), first.end),
        (Some(1), Some(0), 30)
    );
    assert_eq!(view.expected_of_child(1, Expected::ROOT).unwrap().end, u32::MAX);
}

#[test]
fn checksum_covers_the_unused_entries() {
    let mut block = vec![0; 4096];
    assert!(NodeMut::init(&mut block, 0).insert(0, extent(0, 1, 9, Written)));
    set_block_checksum(&mut block, 3);
    assert!(verify_block_checksum(&block, 3) && !verify_block_checksum(&block, 4));
    assert_ne!(block[4092..], [0; 4]);
    block[4091] ^= 1;
    assert!(!verify_block_checksum(&block, 3));
}

#[test]
fn moving_a_tail_splits_a_node() {
    let all: Vec<_> = (0..4).map(|n| extent(n * 10, 5, 100 + u64::from(n) * 10, Written)).collect();
    let (mut left, mut right) = (root(&all), [0; 60]);
    let mut to = NodeMut::init(&mut right, 0);
    NodeMut::trusted(&mut left).unwrap().move_tail(1, &mut to);
    assert_eq!(NodeView::trusted(&left).unwrap().extents().collect::<Vec<_>>(), all[..1]);
    assert_eq!(NodeView::trusted(&right).unwrap().extents().collect::<Vec<_>>(), all[1..]);
}

proptest! {
    #[test]
    fn an_extent_round_trips(first in 0..u32::MAX - 32768, len in 1..=32768_u32, start in 0..1_u64 << 48, written: bool) {
        let state = if written { Written } else { Unwritten };
        let extent = extent(first, len.min(state.max_len()), start, state);
        prop_assert_eq!(Extent::try_from(RawExtent::from(extent)), Ok(extent));
    }

    #[test]
    fn a_node_agrees_with_a_vector(steps in prop::collection::vec((any::<bool>(), 0..90_usize, 0..9_usize), 1..120)) {
        let mut bytes = vec![0; 1024];
        let mut node = NodeMut::init(&mut bytes, 0);
        let mut model = Vec::new();
        for (step, (insert, at, len)) in steps.into_iter().enumerate() {
            let start = at % (model.len() + 1);
            let new = extent(1, 1, u64::try_from(step).unwrap(), Written);
            if insert {
                if node.insert(start, new) {
                    model.insert(start, new);
                }
            } else {
                let end = (start + len).min(model.len());
                model.drain(start..end);
                node.remove(start..end);
            }
            prop_assert_eq!(node.view().extents().collect::<Vec<_>>(), model.clone());
        }
    }

    #[test]
    fn search_finds_the_last_that_starts_by(firsts in prop::collection::btree_set(0..100_u32, 0..4), block in 0..120_u32) {
        let firsts: Vec<_> = firsts.into_iter().collect();
        let all: Vec<_> = firsts.iter().map(|&first| extent(first, 1, 50, Written)).collect();
        let bytes = root(&all);
        let found = NodeView::trusted(&bytes).unwrap().search(LogicalBlock::new(block).unwrap());
        prop_assert_eq!(found, firsts.iter().rposition(|&first| first <= block));
    }

    #[test]
    fn no_bytes_make_a_view_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() > 4 {
            bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[3] = 0;
            bytes[5..].iter_mut().take(1).for_each(|byte| *byte = 0);
        }
        let _ = NodeView::new(&bytes, AT, &geometry(), Expected::ROOT);
        let _ = verify_block_checksum(&bytes, 0);
    }
}
