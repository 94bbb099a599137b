//! Preallocations: serving, placing, filing, dropping.

use super::*;
use extant_format::BlockGroup;

const LAYOUT: Layout = Layout {
    block_bits: 12,
    cluster_bits: 0,
    first_data_block: 0,
    blocks: 65536,
    blocks_per_group: 32768,
    inodes_per_group: 32768,
    groups: 2,
    flex_bits: 4,
};
const INODE: InodeNumber = InodeNumber::ROOT;
const OTHER: InodeNumber = InodeNumber::JOURNAL;

fn run(group: u32, start: u32, len: u32) -> Run {
    Run { group: BlockGroup(group), start, len }
}

fn serve(all: &mut InodePreallocations, logical: u32, len: u32) -> Option<(u32, u32)> {
    all.serve(&LAYOUT, INODE, logical, len, |_| true).map(|run| (run.start, run.len))
}

#[test]
fn a_preallocation_serves_its_own_part_of_the_file() {
    let mut all = InodePreallocations::default();
    all.insert(INODE, 2048, run(1, 8192, 2048));
    assert_eq!(serve(&mut all, 2047, 1), None);
    assert_eq!(serve(&mut all, 2048, 512), Some((8192, 512)));
    assert_eq!(serve(&mut all, 4000, 512), Some((8192 + 1952, 96)), "to its end at most");
    assert_eq!(serve(&mut all, 4096, 1), None);
    assert_eq!(all.serve(&LAYOUT, OTHER, 3000, 1, |_| true), None);
    assert_eq!(all.serve(&LAYOUT, INODE, 3000, 1, |_| false), None, "out of reach of a block map");
    let (count, left) = all.discard(INODE);
    assert_eq!((count, left), (1, vec![run(1, 8704, 1440)]));
    assert_eq!(all.discard(INODE), (0, vec![]));
}

#[test]
fn nothing_is_served_twice() {
    let mut all = InodePreallocations::default();
    all.insert(INODE, 0, run(0, 100, 10));
    assert_eq!(serve(&mut all, 4, 2), Some((104, 2)));
    assert_eq!(serve(&mut all, 5, 2), None);
    assert_eq!(serve(&mut all, 2, 8), Some((102, 2)), "up to what was served before");
    assert_eq!(serve(&mut all, 8, 2), Some((108, 2)));
    assert_eq!(all.left().collect::<Vec<_>>(), [run(0, 100, 2), run(0, 106, 2)]);
    assert_eq!(serve(&mut all, 0, 2), Some((100, 2)));
    assert_eq!(serve(&mut all, 6, 9), Some((106, 2)));
    assert_eq!(all.discard(INODE).0, 0, "one that is used up is gone");
}

#[test]
fn a_cluster_serves_several_blocks() {
    let layout = Layout { cluster_bits: 4, ..LAYOUT };
    let mut all = InodePreallocations::default();
    all.insert(INODE, 0, run(0, 278, 4));
    assert_eq!(all.serve(&layout, INODE, 0, 1, |_| true), Some(run(0, 278, 1)));
    assert_eq!(all.serve(&layout, INODE, 32, 1, |_| true), Some(run(0, 280, 1))); // trace 16
    assert_eq!(all.around(&layout, INODE, 0), Served { left_end: Some(64), right_start: None });
    assert_eq!(all.discard(INODE).1, [run(0, 279, 1), run(0, 281, 1)]); // trace 16
}

#[test]
fn neighbours_of_a_block_are_its_own_inodes() {
    let mut all = InodePreallocations::default();
    all.insert(INODE, 10, run(0, 100, 5));
    all.insert(INODE, 40, run(0, 200, 5));
    all.insert(OTHER, 20, run(0, 300, 5));
    assert_eq!(
        all.around(&LAYOUT, INODE, 30),
        Served { left_end: Some(15), right_start: Some(40) }
    );
    assert_eq!(all.around(&LAYOUT, INODE, 9), Served { left_end: None, right_start: Some(10) });
    assert_eq!(
        all.around(&LAYOUT, OTHER, u32::MAX),
        Served { left_end: Some(25), right_start: None }
    );
}

#[test]
fn a_short_find_is_placed_at_the_end_the_start_or_the_request() {
    assert_eq!(place((512, 1024), (704, 705), 388), 636); // trace 08
    assert_eq!(place((512, 1024), (520, 530), 100), 512);
    assert_eq!(place((512, 1024), (600, 650), 100), 600);
}

#[test]
fn the_nearest_group_preallocation_serves_and_is_refiled() {
    let mut group = LocalityGroup::default();
    for start in [1000, 3000, 2000] {
        assert!(group.file(run(0, start, 100)).is_empty());
    }
    assert!(group.file(run(1, 0, 8)).is_empty());
    let near = |goal: u32| {
        move |run: Run| u64::from(run.group.0 * 32768 + run.start).abs_diff(goal.into())
    };
    assert_eq!(group.take(101, near(0)), None);
    assert_eq!(group.take(5, near(2100)), Some(run(0, 2000, 100)));
    assert_eq!(group.take(5, near(32768)), Some(run(1, 0, 8)));
    assert_eq!(group.take(64, near(0)), Some(run(0, 1000, 100)));
    assert!(group.file(run(0, 1100, 0)).is_empty());
    assert_eq!(group.left().collect::<Vec<_>>(), [run(0, 3000, 100)]);
}

#[test]
fn a_list_of_more_than_eight_is_trimmed_to_five() {
    let mut group = LocalityGroup::default();
    for len in 64..72 {
        assert!(group.file(run(0, len * 100, len)).is_empty());
    }
    let dropped = group.file(run(0, 1, 64));
    assert_eq!(dropped.iter().map(|run| run.len).collect::<Vec<_>>(), [64, 65, 66, 67]);
    assert_eq!(group.left().map(|run| run.len).collect::<Vec<_>>(), [64, 68, 69, 70, 71]);
}

#[test]
fn dropping_by_group_takes_whole_groups_from_the_lowest() {
    let mut all = InodePreallocations::default();
    all.insert(INODE, 0, run(3, 0, 10));
    all.insert(INODE, 50, run(1, 0, 10));
    all.insert(OTHER, 0, run(1, 20, 10));
    let last = |needed| last_group_needed(all.left().collect(), needed);
    assert_eq!((last(1), last(20), last(21), last(1000)), (Some(1), Some(1), Some(3), Some(3)));
    assert_eq!(last_group_needed(vec![], 1), None);
    let of_both = [(INODE, run(1, 0, 10)), (OTHER, run(1, 20, 10))];
    assert_eq!(all.discard_groups(|group| group <= 1), of_both);
    assert_eq!(all.left().collect::<Vec<_>>(), [run(3, 0, 10)]);
}
