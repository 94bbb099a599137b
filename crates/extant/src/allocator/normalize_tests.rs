//! The table of sizes, the cuts and the choice between file and group, row by row.

use super::*;
use crate::allocator::request::{FileHints, Neighbour};
use extant_format::{InodeNumber, LogicalBlock};

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

fn request(logical: u32, len: u32, size_blocks: u64) -> AllocationRequest {
    AllocationRequest {
        inode: InodeNumber::ROOT,
        logical: LogicalBlock::new(logical).expect("a block"),
        len,
        goal: PhysicalBlock::new(0),
        left: None,
        right: None,
        file: FileHints { size_blocks, open_for_write: true, block_mapped: false, growth: 0 },
        flags: AllocationFlags::HINT_DATA | AllocationFlags::STREAM_ALLOC,
    }
}

fn neighbour(logical: u32, physical: u64) -> Option<Neighbour> {
    Some(Neighbour {
        logical: LogicalBlock::new(logical).expect("a block"),
        physical: PhysicalBlock::new(physical),
    })
}

fn check(request: &AllocationRequest, layout: &Layout, served: Served) -> (u32, u32, Option<u64>) {
    let goal = normalize(request, layout, &Tunables::new(layout, 0, 1), served);
    (goal.logical, goal.len, goal.adjacent.map(PhysicalBlock::get))
}

#[test]
fn each_row_of_the_table() {
    let check = |logical, len, size| {
        let (start, len, _) = check(&request(logical, len, size), &LAYOUT, Served::default());
        (start, len)
    };
    for (size, expected) in [(4, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (256, 256)] {
        assert_eq!(check(3, 1, size), (0, expected), "{size} blocks");
    }
    assert_eq!(check(0, 257, 257), (0, 512));
    assert_eq!(check(600, 1, 1024), (512, 512));
    assert_eq!(check(1030, 1, 1500), (1024, 1024));
    assert_eq!(check(5000, 1, 10000), (4096, 2048));
    assert_eq!(check(5000, 2048, 10000), (4096, 2048));
    assert_eq!(check(5000, 4096, 10000), (4096, 2048), "the last row needs blocks above 4 KiB");
}

#[test]
fn with_one_kib_blocks_everything_large_gets_two_mib() {
    let layout = Layout { block_bits: 10, blocks_per_group: 8192, ..LAYOUT };
    for size in [1025, 5000, 10000, 100_000] {
        assert_eq!(check(&request(900, 100, size), &layout, Served::default()), (0, 2048, None));
    }
    let layout = Layout { block_bits: 11, blocks_per_group: 16384, ..LAYOUT };
    assert_eq!(check(&request(5000, 100, 100_000), &layout, Served::default()), (4096, 2048, None));
}

#[test]
fn large_blocks_ask_for_what_is_wanted() {
    let layout = Layout { block_bits: 16, blocks_per_group: 65536, ..LAYOUT };
    assert_eq!(check(&request(300, 200, 1000), &layout, Served::default()), (300, 200, None));
    assert_eq!(check(&request(300, 20, 1000), &layout, Served::default()), (256, 128, None));
}

#[test]
fn the_goal_may_be_smaller_than_the_request() {
    assert_eq!(check(&request(0, 768, 768), &LAYOUT, Served::default()), (0, 512, None)); // trace 36
    assert_eq!(check(&request(0, 1280, 1280), &LAYOUT, Served::default()), (0, 1024, None)); // trace 27
}

#[test]
fn neighbours_cut_the_range_and_name_the_goal() {
    let mut grown = request(3, 15, 18);
    grown.left = neighbour(2, 37378);
    assert_eq!(check(&grown, &LAYOUT, Served::default()), (3, 29, Some(37379))); // trace 20, before the stream
    let mut second = request(2048, 512, 2560);
    second.left = neighbour(2047, 40959);
    assert_eq!(check(&second, &LAYOUT, Served::default()), (2048, 2048, Some(40960))); // trace 01
    let mut gap = request(100, 1, 200);
    (gap.left, gap.right) = (neighbour(50, 1000), neighbour(120, 5000));
    assert_eq!(check(&gap, &LAYOUT, Served::default()), (51, 69, Some(1001)));
    gap.left = None;
    assert_eq!(check(&gap, &LAYOUT, Served::default()), (0, 120, Some(4880)));
    gap.right = neighbour(120, 60);
    assert_eq!(
        check(&gap, &LAYOUT, Served::default()),
        (0, 120, None),
        "no room before the neighbour"
    );
}

#[test]
fn only_adjacency_of_the_grown_range_makes_a_goal() {
    let mut far = request(600, 1, 1024);
    far.left = neighbour(400, 1000);
    assert_eq!(check(&far, &LAYOUT, Served::default()), (512, 512, None));
}

#[test]
fn preallocations_trim_the_range() {
    let served = Served { left_end: Some(520), right_start: Some(700) };
    assert_eq!(check(&request(600, 1, 1024), &LAYOUT, served), (520, 180, None));
}

#[test]
fn a_request_inside_a_preallocation_is_taken_as_it_is() {
    let served = Served { left_end: Some(610), right_start: None };
    assert_eq!(check(&request(600, 5, 1024), &LAYOUT, served), (600, 5, None));
}

#[test]
fn tiny_groups_bound_the_range() {
    let layout = Layout { blocks_per_group: 256, ..LAYOUT };
    assert_eq!(check(&request(600, 1, 1024), &layout, Served::default()), (512, 256, None));
    assert_eq!(check(&request(800, 1, 1024), &layout, Served::default()), (768, 256, None));
}

#[test]
fn the_end_of_block_numbers_bounds_the_range() {
    let (start, len, _) = check(&request(u32::MAX - 5, 5, 10), &LAYOUT, Served::default());
    assert_eq!(u64::from(start) + u64::from(len), u64::from(u32::MAX));
}

#[test]
fn clusters_are_the_unit_of_the_answer() {
    let layout = Layout { cluster_bits: 4, blocks_per_group: 32768 * 16, groups: 1, ..LAYOUT };
    let mut first = request(0, 2, 33);
    assert_eq!(check(&first, &layout, Served::default()), (0, 4, None)); // trace 16
    first.right = neighbour(32, 4480);
    assert_eq!(check(&first, &layout, Served::default()).1, 2); // trace 16, after the punch
}

#[test]
fn directories_and_exact_requests_are_not_grown() {
    for flags in
        [AllocationFlags::empty(), AllocationFlags::HINT_DATA | AllocationFlags::HINT_NOPREALLOC]
    {
        let request = AllocationRequest { flags, left: neighbour(6, 9), ..request(7, 3, 100) };
        assert_eq!(check(&request, &LAYOUT, Served::default()), (7, 3, None));
    }
    let group = AllocationFlags::HINT_DATA | AllocationFlags::HINT_GROUP_ALLOC;
    assert_eq!(
        check(&AllocationRequest { flags: group, ..request(1, 2, 3) }, &LAYOUT, Served::default()),
        (1, 512, None)
    );
}

#[test]
fn small_files_share_and_closed_tails_take_what_they_need() {
    use AllocationFlags as F;
    let tunables = Tunables::new(&LAYOUT, 0, 1);
    let check = |len, size, open, busy| {
        let mut request = AllocationRequest { flags: F::HINT_DATA, ..request(0, len, size) };
        request.file.open_for_write = open;
        file_or_group(&request, &LAYOUT, &tunables, busy)
    };
    assert_eq!(check(16, 16, false, false), F::HINT_GROUP_ALLOC);
    assert_eq!(check(1, 17, true, false), F::STREAM_ALLOC);
    assert_eq!(check(17, 17, true, false), F::STREAM_ALLOC);
    assert_eq!(check(17, 17, false, true), F::STREAM_ALLOC);
    assert_eq!(check(17, 17, false, false), F::HINT_NOPREALLOC);
    let directory = AllocationRequest { flags: F::empty(), ..request(0, 1, 1) };
    assert_eq!(file_or_group(&directory, &LAYOUT, &tunables, false), F::empty());
    let none = Tunables { group_prealloc: 0, ..tunables };
    assert_eq!(file_or_group(&request(0, 1, 2), &LAYOUT, &none, false), F::STREAM_ALLOC);
}

#[test]
fn defaults_of_group_preallocation() {
    let of = |cluster_bits, stripe| {
        Tunables::new(&Layout { cluster_bits, ..LAYOUT }, stripe, 1).group_prealloc
    };
    assert_eq!((of(0, 0), of(2, 0), of(6, 0), of(0, 48), of(4, 48)), (512, 128, 32, 528, 33));
}

#[test]
fn a_file_that_goes_on_growing_gets_room_up_to_the_largest_chunk() {
    let layout = LAYOUT;
    let mut request = request(0, 400, 400);
    request.file.growth = 1 << 20;
    let goal = normalize(&request, &layout, &Tunables::new(&layout, 0, 1), Served::default());
    assert_eq!((goal.logical, goal.len), (0, 8192));
    request.file.growth = 1000;
    let goal = normalize(&request, &layout, &Tunables::new(&layout, 0, 1), Served::default());
    assert_eq!((goal.logical, goal.len), (0, 1000));
}
