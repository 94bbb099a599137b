//! Rules of the tree by name; trees of depth 3; nodes that break rules.

use std::sync::Arc;

use extant_format::extent::{Extent, ExtentState, Index, NodeMut};
use extant_format::inode::InodeFlags;
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock};
use proptest::prelude::*;

use super::nodes::push;
use super::{Joining, NodeSpace, Walk};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::mapping::tests::volume::{Shape, Volume, range};
use crate::transaction::BlockKind;

use ExtentState::{Unwritten, Written};

/// A volume with a file, and shorthand for changing its tree without any allocator for data.
struct Fixture {
    volume: Volume,
    file: Arc<Inode>,
}

impl Fixture {
    fn new() -> Self {
        let volume = Volume::new(Shape::SMALL);
        let file = volume.file(InodeFlags::EXTENTS);
        Self { volume, file }
    }

    fn insert(&self, extent: Extent) -> Result<(), Error> {
        let tree = self.volume.tree(&self.file);
        let path = tree.find(extent.blocks.start())?;
        tree.insert(&mut self.volume.begin(), &path, extent, Joining::Now, NodeSpace::Free)
    }

    /// Inserts single blocks that cannot join, at twice each number.
    fn insert_apart(&self, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.insert(extent(2 * number, 1, place(number), Written)).unwrap();
        }
    }

    fn extents(&self) -> Vec<Extent> {
        self.volume.extents(&self.file)
    }

    fn starts(&self) -> Vec<u32> {
        self.extents().iter().map(|extent| extent.blocks.start().get()).collect()
    }

    fn depth(&self) -> usize {
        self.volume.tree(&self.file).find(LogicalBlock::ZERO).unwrap().depth()
    }

    /// Entries of the leaves, from left to right.
    fn leaves(&self) -> Vec<usize> {
        let tree = self.volume.tree(&self.file);
        let mut leaves = Vec::new();
        let mut next = Some(LogicalBlock::ZERO);
        while let Some(block) = next {
            let path = tree.find(block).unwrap();
            leaves.push(path.leaf().len);
            next = LogicalBlock::new(path.leaf().expected.end);
        }
        leaves
    }

    /// Takes `range` out of the tree, leaf by leaf.
    fn cut(&self, range: LogicalRange) {
        let (tree, mut handle) = (self.volume.tree(&self.file), self.volume.begin());
        if let Some(behind) = LogicalBlock::new(range.end()) {
            tree.split_at(&mut handle, behind).unwrap();
        }
        let mut next = Some(range.last());
        let mut walk = None;
        while let Some(block) = next {
            let path = tree.find(block).unwrap();
            let walk = walk.get_or_insert_with(|| Walk::at(&path, true));
            let cut = tree.plan_cut(&mut handle, &path, range, false).unwrap();
            next = walk.next(&tree, &path, cut.empties);
            tree.apply_cut(&mut handle, &path, &cut).unwrap();
            if cut.is_short {
                drop(handle);
                handle = self.volume.begin();
                (next, *walk) = (Some(range.last()), Walk::at(&path, true));
            }
        }
    }
}

fn extent(first: u32, len: u32, start: u64, state: ExtentState) -> Extent {
    Extent { blocks: range(first, len), start: PhysicalBlock::new(start), state }
}

/// Some place that the volume has.
fn place(number: u32) -> u64 {
    100 + u64::from(number) % 8000
}

const LEAF: u32 = 84;

#[test]
fn a_full_root_moves_into_a_block() {
    let fixture = Fixture::new();
    fixture.insert_apart(0..4);
    assert_eq!((fixture.depth(), fixture.volume.used_blocks()), (0, 0));
    fixture.insert_apart(4..5);
    assert_eq!((fixture.depth(), fixture.volume.used_blocks()), (1, 1));
    assert_eq!(fixture.starts(), [0, 2, 4, 6, 8]);
    assert_eq!(fixture.file.core.lock().blocks, 2);
}

#[test]
fn a_full_leaf_is_halved_unless_it_is_appended_to() {
    let appended = Fixture::new();
    appended.insert_apart(0..LEAF + 1);
    assert_eq!(appended.leaves(), [84, 1]);

    let middle = Fixture::new();
    middle.insert_apart((0..LEAF + 1).filter(|&number| number != 4));
    middle.insert_apart([4]);
    assert_eq!(middle.leaves(), [43, 42]);

    let first = Fixture::new();
    first.insert_apart(1..LEAF + 1);
    first.insert_apart([0]);
    assert_eq!(first.leaves(), [2, 83]);
}

#[test]
fn what_is_behind_a_full_leaf_goes_to_the_next_leaf_if_that_has_room() {
    let fixture = Fixture::new();
    fixture.insert_apart((0..LEAF).chain([LEAF + 10]));
    fixture.insert_apart([LEAF + 5]);
    assert_eq!(fixture.leaves(), [84, 2]);
    assert_eq!(fixture.starts().last(), Some(&(2 * (LEAF + 10))));
}

#[test]
fn an_extent_joins_both_neighbours() {
    let fixture = Fixture::new();
    for (first, start) in [(0, 100), (20, 120), (10, 110)] {
        fixture.insert(extent(first, 10, start, Written)).unwrap();
    }
    assert_eq!(fixture.extents(), [extent(0, 30, 100, Written)]);
}

#[test]
fn a_single_leaf_of_four_moves_back_into_the_inode() {
    let fixture = Fixture::new();
    for (first, start) in [(0, 100), (20, 200), (40, 300), (60, 400), (80, 500)] {
        fixture.insert(extent(first, 10, start, Written)).unwrap();
    }
    assert_eq!(fixture.depth(), 1);
    fixture.insert(extent(10, 10, 110, Written)).unwrap();
    assert_eq!(
        (fixture.depth(), fixture.extents().len()),
        (1, 5),
        "removal and growth do not collapse, joining does"
    );
    fixture.insert(extent(30, 10, 210, Written)).unwrap();
    fixture.cut(range(80, 10));
    assert_eq!((fixture.depth(), fixture.extents().len()), (1, 4));
    fixture.insert(extent(50, 5, 310, Written)).unwrap();
    assert_eq!((fixture.depth(), fixture.volume.used_blocks()), (0, 0));
}

#[test]
fn where_an_extent_is_none_can_be_inserted() {
    let fixture = Fixture::new();
    fixture.insert(extent(10, 10, 100, Written)).unwrap();
    for blocks in [(5, 6), (10, 1), (15, 1), (19, 5)] {
        let refused = fixture.insert(extent(blocks.0, blocks.1, 500, Written));
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{blocks:?}");
    }
}

#[test]
fn without_space_for_a_node_the_tree_stays_as_it_was() {
    let fixture = Fixture::new();
    fixture.insert_apart(0..4 * LEAF);
    let (before, used) = (fixture.extents(), fixture.volume.used_blocks());
    assert_eq!((fixture.depth(), fixture.leaves()), (1, vec![84; 4]));
    // Two nodes are needed, the root's and a leaf, and there is room for one.
    let claim = fixture.volume.refuse();
    let one_less = claim.clusters().get() - 1;
    drop(claim);
    let claim = fixture
        .volume
        .ledger
        .claim(extant_format::ClusterCount(one_less), crate::delayed::Privilege::Metadata);
    let tree = fixture.volume.tree(&fixture.file);
    let path = tree.find(LogicalBlock::new(5).unwrap()).unwrap();
    let fresh = extent(5, 1, 5000, Written);
    let refused =
        tree.insert(&mut fixture.volume.begin(), &path, fresh, Joining::Now, NodeSpace::Reserved);
    assert!(matches!(refused, Err(Error::NoSpace { .. })));
    assert_eq!((fixture.extents(), fixture.volume.used_blocks()), (before, used));
    drop(claim);
    fixture.insert(fresh).unwrap();
    assert_eq!((fixture.depth(), fixture.volume.used_blocks()), (2, used + 2));
}

#[test]
fn trees_of_depth_three_keep_their_order() {
    let fixture = Fixture::new();
    // A step that is prime to the number of extents brings them in a scattered order.
    let count = 30_011;
    fixture.insert_apart((0..count).map(|number| number * 7919 % count));
    assert_eq!(fixture.depth(), 3);
    assert_eq!(fixture.starts(), (0..count).map(|number| 2 * number).collect::<Vec<_>>());
    fixture.cut(range(1_001, 40_000));
    let expected: Vec<_> = (0..count)
        .map(|number| 2 * number)
        .filter(|start| !(1_001..41_001).contains(start))
        .collect();
    assert_eq!(fixture.starts(), expected);
    fixture.cut(LogicalRange::ALL);
    assert_eq!(
        (fixture.depth(), fixture.volume.used_blocks(), fixture.file.core.lock().blocks),
        (0, 0, 0)
    );
}

#[test]
fn a_cut_in_the_middle_of_an_extent_leaves_both_ends() {
    let fixture = Fixture::new();
    fixture.insert(extent(0, 30, 100, Unwritten)).unwrap();
    fixture.cut(range(10, 5));
    assert_eq!(fixture.extents(), [extent(0, 10, 100, Unwritten), extent(15, 15, 115, Unwritten)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn insertions_and_cuts_agree_with_a_set_of_blocks(
        steps in proptest::collection::vec((any::<bool>(), 0..3000_u32, 1..120_u32), 1..60)
    ) {
        let fixture = Fixture::new();
        let mut model = std::collections::BTreeSet::new();
        for (inserts, at, len) in steps {
            if inserts {
                let fresh: Vec<_> = (at..at + len).filter(|number| model.insert(2 * number)).collect();
                fixture.insert_apart(fresh);
            } else {
                fixture.cut(range(2 * at, 8 * len));
                model.retain(|block| !(2 * at..2 * at + 8 * len).contains(block));
            }
            prop_assert_eq!(fixture.starts(), model.iter().copied().collect::<Vec<_>>());
        }
    }
}

/// One extent of three blocks, 10 to 12, in `state`, inside a file that ends at 20, with old bytes on the device.
fn three_blocks(state: ExtentState, crowded: bool) -> (Fixture, PhysicalBlock) {
    let fixture = Fixture::new();
    let flags =
        if state == Written { MapFlags::CREATE } else { MapFlags::CREATE | MapFlags::UNWRITTEN };
    let mapped = fixture.volume.map(&fixture.file, range(10, 3), flags).unwrap();
    fixture.file.core.lock().size = 20 << 10;
    if crowded {
        fixture.insert_apart(50..53);
    }
    let start = mapped[0].state.place().unwrap();
    (0..3).for_each(|i| fixture.volume.fill(start.checked_add(i).unwrap(), 0xAA));
    (fixture, start)
}

/// Kernel `extents-test.c`: the target gets the new state, the rest keeps the old; places stay.
#[test]
fn converting_a_part_splits_the_extent() {
    let ways = [
        (Unwritten, MapFlags::END_OF_IO, Written),
        (Unwritten, MapFlags::CREATE | MapFlags::METADATA_NOFAIL, Written),
        (Unwritten, MapFlags::WRITEBACK, Unwritten),
        (Written, MapFlags::CREATE | MapFlags::CONVERT_UNWRITTEN, Unwritten),
    ];
    for (old, flags, new) in ways {
        for (target, extents) in [(range(10, 1), 2), (range(11, 2), 2), (range(11, 1), 3)] {
            let (fixture, start) = three_blocks(old, false);
            // Beyond the end of the file nothing is zeroed to save a split.
            fixture.file.core.lock().size = 0;
            let mapped = fixture.volume.map(&fixture.file, target, flags).unwrap();
            assert_eq!(mapped.len(), 1);
            let found = fixture.extents();
            assert_eq!(found.len(), extents, "{old:?} {flags:?} {target}");
            check_states(&fixture, start, |block| if target.contains(block) { new } else { old });
        }
    }
}

/// Kernel `extents-test.c`: without space for a node, zeros make the whole extent written.
#[test]
fn zeros_stand_in_for_a_split_without_space() {
    let ways = [
        (Unwritten, MapFlags::END_OF_IO, Written),
        (Unwritten, MapFlags::WRITEBACK, Unwritten),
        (Written, MapFlags::CREATE | MapFlags::CONVERT_UNWRITTEN, Unwritten),
    ];
    for (old, flags, new) in ways {
        for target in [range(10, 1), range(11, 2), range(11, 1)] {
            let (fixture, start) = three_blocks(old, true);
            let claim = fixture.volume.refuse();
            let mapped = fixture.volume.map(&fixture.file, target, flags).unwrap();
            assert_eq!(mapped[0].state, BlockState::Written(place_of(start, target.start())));
            drop(claim);
            assert_eq!(fixture.extents()[0], extent(10, 3, start.get(), Written));
            check_states(&fixture, start, |_| Written);
            for block in (10..13).filter_map(LogicalBlock::new) {
                let is_zeroed =
                    if target.contains(block) { new == Unwritten } else { old == Unwritten };
                let byte = if is_zeroed { 0 } else { 0xAA };
                assert_eq!(
                    fixture.volume.bytes(place_of(start, block)),
                    vec![byte; 1024],
                    "{old:?} {flags:?} {target} {block}"
                );
            }
        }
    }
}

#[test]
fn behind_the_end_of_the_file_no_zeros_stand_in() {
    let (fixture, start) = three_blocks(Unwritten, true);
    fixture.file.core.lock().size = 10 << 10;
    let claim = fixture.volume.refuse();
    let refused = fixture.volume.map(&fixture.file, range(10, 1), MapFlags::END_OF_IO);
    assert!(matches!(refused, Err(Error::NoSpace { .. })));
    drop(claim);
    assert_eq!(fixture.extents()[0], extent(10, 3, start.get(), Unwritten));
    assert_eq!(fixture.volume.bytes(start), vec![0xAA; 1024]);
}

#[test]
fn short_neighbours_are_zeroed_rather_than_split_off() {
    // 32 KiB are 32 blocks here.
    for (len, target, expected) in [
        (20, range(0, 4), vec![(0, 20, Written)]),
        (20, range(4, 4), vec![(0, 20, Written)]),
        (100, range(90, 4), vec![(0, 90, Unwritten), (90, 10, Written)]),
        (100, range(4, 4), vec![(0, 8, Written), (8, 92, Unwritten)]),
        (20, range(16, 4), vec![(0, 16, Unwritten), (16, 4, Written)]),
    ] {
        let fixture = Fixture::new();
        fixture
            .volume
            .map(&fixture.file, range(0, len), MapFlags::CREATE | MapFlags::UNWRITTEN)
            .unwrap();
        fixture.file.core.lock().size = 200 << 10;
        let _ = fixture.volume.map(&fixture.file, target, MapFlags::CREATE).unwrap();
        let found: Vec<_> = fixture
            .extents()
            .iter()
            .map(|extent| (extent.blocks.start().get(), extent.blocks.len(), extent.state))
            .collect();
        assert_eq!(found, expected, "{target} of {len}");
    }
}

fn place_of(start: PhysicalBlock, block: LogicalBlock) -> PhysicalBlock {
    start.checked_add((block.get() - 10).into()).unwrap()
}

/// Disk and memory agree that the three blocks are what `state` says, where they always were.
fn check_states(
    fixture: &Fixture,
    start: PhysicalBlock,
    state: impl Fn(LogicalBlock) -> ExtentState,
) {
    let expected: Vec<_> = (10..13)
        .filter_map(LogicalBlock::new)
        .map(|block| match state(block) {
            Written => BlockState::Written(place_of(start, block)),
            Unwritten => BlockState::Unwritten(place_of(start, block)),
        })
        .collect();
    assert_eq!(fixture.volume.states(&fixture.file, range(10, 3)), expected, "in memory");
    Volume::forget_cached(&fixture.file);
    assert_eq!(fixture.volume.states(&fixture.file, range(10, 3)), expected, "on disk");
}

/// A root whose only child is block 200, which `fill` makes.
fn crafted(depth: u16, fill: impl Fn(&mut NodeMut<'_>)) -> Fixture {
    let fixture = Fixture::new();
    let block = PhysicalBlock::new(200);
    {
        let mut core = fixture.file.core.lock();
        let mut root = NodeMut::init(&mut core.block, depth);
        push(&mut root, Index { first: LogicalBlock::ZERO, child: block });
    }
    let mut handle = fixture.volume.begin();
    let node = handle.fresh(block, BlockKind::ExtentNode(fixture.file.checksum_seed())).unwrap();
    handle.modify(&node, |bytes| fill(&mut NodeMut::init(bytes, depth - 1))).unwrap();
    drop(handle);
    fixture
}

#[test]
fn nodes_that_do_not_fit_their_parent_are_refused() {
    let leaf = |extent: Extent| crafted(1, move |node| push(node, extent));
    assert_eq!(leaf(extent(0, 1, 300, Written)).starts(), [0]);
    let circle = crafted(3, |node| {
        push(node, Index { first: LogicalBlock::ZERO, child: PhysicalBlock::new(200) });
    });
    let broken = [
        ("first block", leaf(extent(1, 1, 300, Written))),
        ("empty", crafted(1, |_| ())),
        ("outside", leaf(extent(0, 1, 1 << 40, Written))),
        (
            "overlap",
            crafted(1, |node| {
                push(node, extent(0, 5, 300, Written));
                push(node, extent(4, 5, 400, Written));
            }),
        ),
        (
            "depth",
            crafted(1, |node| {
                push(node, extent(0, 1, 300, Written));
                node.set_depth(1);
            }),
        ),
        ("circle", circle),
    ];
    for (what, fixture) in broken {
        let found = fixture.volume.mapper.look_up(&fixture.file, range(0, 1));
        assert!(matches!(found, Err(Error::Corrupt(_))), "{what}: {found:?}");
        assert!(fixture.insert(extent(50, 1, 500, Written)).is_err(), "{what}");
    }
}
