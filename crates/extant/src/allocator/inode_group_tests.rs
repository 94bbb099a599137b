//! The choice of groups for inodes, rule by rule.

use super::*;
use extant_format::cast::usize_from;

const LAYOUT: Layout = Layout {
    block_bits: 12,
    cluster_bits: 0,
    first_data_block: 0,
    blocks: 8 * 1024,
    blocks_per_group: 1024,
    inodes_per_group: 64,
    groups: 8,
    flex_bits: 0,
};

struct Table(Vec<Counts>, u32);

impl InodeGroups for Table {
    fn group(&self, group: BlockGroup) -> Counts {
        self.0[usize_from(group.0)]
    }

    fn flex_group(&self, flex: u32) -> Counts {
        let size = usize_from(1 << self.1);
        self.0
            .chunks(size)
            .nth(usize_from(flex))
            .expect("a flex group")
            .iter()
            .fold(Counts::default(), add)
    }

    fn total(&self) -> Counts {
        self.0.iter().fold(Counts::default(), add)
    }
}

fn add(sum: Counts, counts: &Counts) -> Counts {
    Counts {
        free_inodes: sum.free_inodes + counts.free_inodes,
        free_clusters: sum.free_clusters + counts.free_clusters,
        used_directories: sum.used_directories + counts.used_directories,
    }
}

/// Eight groups; each entry is free inodes, free clusters and directories.
fn check(
    groups: [(u64, u64, u64); 8],
    flex_bits: u32,
    parent: Parent,
    kind: InodeKind,
) -> Option<u32> {
    let counts = |(free_inodes, free_clusters, used_directories)| Counts {
        free_inodes,
        free_clusters,
        used_directories,
    };
    let table = Table(groups.map(counts).into(), flex_bits);
    choose(&table, &Layout { flex_bits, ..LAYOUT }, parent, kind).map(BlockGroup::get)
}

fn parent(group: u32, last: Option<u32>) -> Parent {
    let inode = InodeNumber::new(group * 64 + 3).expect("not zero");
    Parent { inode, last_group: last.map(BlockGroup), is_top: false }
}

const EVEN: [(u64, u64, u64); 8] = [(32, 500, 2); 8];
const DIRECTORY: InodeKind = InodeKind::Directory { name_hash: 5 };

#[test]
fn top_directories_go_where_directories_are_fewest() {
    let top = Parent { is_top: true, ..parent(0, None) };
    assert_eq!(check(EVEN, 0, top, DIRECTORY), Some(5), "the hash picks the first of equals");
    let mut groups = EVEN;
    groups[2].2 = 1;
    assert_eq!(check(groups, 0, top, DIRECTORY), Some(2));
    groups[2].1 = 100;
    assert_eq!(check(groups, 0, top, DIRECTORY), Some(5), "not below the average of free clusters");
}

#[test]
fn top_directories_pack_the_front_of_a_flex_group() {
    let top = Parent { is_top: true, ..parent(0, None) };
    assert_eq!(check(EVEN, 2, top, DIRECTORY), Some(4));
    let mut groups = EVEN;
    groups[4].0 = 0;
    groups[5].0 = 64;
    assert_eq!(check(groups, 2, top, DIRECTORY), Some(5));
}

#[test]
fn other_directories_stay_near_the_last_group_unless_it_is_full() {
    assert_eq!(check(EVEN, 0, parent(3, None), DIRECTORY), Some(3));
    assert_eq!(check(EVEN, 0, parent(3, Some(6)), DIRECTORY), Some(6));
    let mut groups = EVEN;
    groups[3].2 = 40;
    groups[4].0 = 10;
    groups[5].1 = 100;
    assert_eq!(check(groups, 0, parent(3, None), DIRECTORY), Some(6));
}

#[test]
fn files_stay_in_the_flex_group_of_their_directory() {
    let mut groups = EVEN;
    (groups[4].0, groups[5].0) = (0, 0);
    assert_eq!(check(groups, 2, parent(5, None), InodeKind::Other), Some(6));
    (groups[6].0, groups[7].0) = (0, 0);
    assert_eq!(check(groups, 2, parent(5, Some(3)), InodeKind::Other), Some(0));
    assert_eq!(check(groups, 2, parent(5, None), InodeKind::Other), Some(0));
}

#[test]
fn without_flex_groups_files_probe_from_a_hash_of_the_directory() {
    assert_eq!(check(EVEN, 0, parent(3, None), InodeKind::Other), Some(3));
    let mut groups = EVEN;
    groups[3].1 = 0;
    // Directory inode 3 * 64 + 3 = 195: start (3 + 195) % 8 = 6, probes 7, 1, 5.
    assert_eq!(check(groups, 0, parent(3, None), InodeKind::Other), Some(7));
    groups[7].0 = 0;
    assert_eq!(check(groups, 0, parent(3, None), InodeKind::Other), Some(1));
    (groups[1].0, groups[5].0) = (0, 0);
    assert_eq!(check(groups, 0, parent(3, None), InodeKind::Other), Some(4), "then in turn");
}

#[test]
fn the_fallback_takes_the_average_then_anything() {
    let mut groups = [(0, 0, 0); 8];
    (groups[1], groups[6]) = ((3, 0, 500), (30, 0, 500));
    assert_eq!(check(groups, 0, parent(0, None), DIRECTORY), Some(6));
    groups[6].0 = 0;
    assert_eq!(check(groups, 0, parent(3, None), DIRECTORY), Some(1));
    groups[1].0 = 0;
    for kind in [DIRECTORY, InodeKind::Other] {
        assert_eq!(check(groups, 0, parent(3, None), kind), None);
        assert_eq!(check(groups, 2, parent(3, None), kind), None);
    }
}
