//! The search against the kernel's traces and rule by rule.

use super::super::bits;
use super::*;
use AllocationFlags as F;
use core::cell::{Cell, RefCell};

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

/// Groups in memory; one without a buddy is cold until somebody looks inside.
struct Table {
    groups: Vec<RefCell<(Summary, Option<Buddy>, Buddy)>>,
    sets: RefCell<OrderedSets>,
    version: Cell<u64>,
    broken: Option<BlockGroup>,
}

impl Table {
    /// Groups of `clusters`, of which these runs are free.
    fn new(block_bits: u32, clusters: u32, free: &[&[(u32, u32)]]) -> Self {
        let groups = free.iter().map(|runs| {
            let mut bitmap = vec![0xFF; 1 << block_bits];
            for &(start, len) in *runs {
                bits::change_bytes(&mut bitmap, false, start, len).expect("inside");
            }
            let buddy = Buddy::new(&bitmap, block_bits, clusters);
            RefCell::new((Summary { free: buddy.free(), ..Summary::default() }, None, buddy))
        });
        Self {
            groups: groups.collect(),
            sets: RefCell::default(),
            version: Cell::default(),
            broken: None,
        }
    }

    /// The same with every buddy built.
    fn warm(block_bits: u32, clusters: u32, free: &[&[(u32, u32)]]) -> Self {
        let table = Self::new(block_bits, clusters, free);
        for group in 0..u32::try_from(free.len()).expect("few") {
            let _ = table.with_buddy(BlockGroup(group), |_| ());
        }
        table
    }
}

impl Groups for Table {
    type Error = &'static str;

    fn summary(&self, group: BlockGroup) -> Summary {
        self.groups[usize_from(group.0)].borrow().0
    }

    fn with_buddy<R>(
        &self,
        group: BlockGroup,
        look: impl FnOnce(&mut Buddy) -> R,
    ) -> Result<Option<R>, Self::Error> {
        if self.broken == Some(group) {
            return Err("unreadable");
        }
        let mut entry = self.groups[usize_from(group.0)].borrow_mut();
        let (summary, loaded, bitmap) = &mut *entry;
        if summary.corrupt {
            return Ok(None);
        }
        let buddy = loaded.get_or_insert_with(|| bitmap.clone());
        let result = look(buddy);
        summary.refresh(buddy);
        self.version.set(self.version.get() + 1);
        self.sets.borrow_mut().update(group, self.version.get(), Orders::of(buddy));
        Ok(Some(result))
    }

    fn next_in(&self, set: Set, range: Range<u32>) -> Option<BlockGroup> {
        self.sets.borrow().next_in(set, range)
    }

    fn is_first_read(&self, group: BlockGroup) -> bool {
        let entry = self.groups[usize_from(group.0)].borrow();
        entry.1.is_none() && !entry.0.computable
    }
}

const DATA: F = F::HINT_DATA;
const STREAM: F = F::HINT_DATA.union(F::STREAM_ALLOC);

fn query(group: u32, start: u32, len: u32, wanted: u32, flags: F) -> Query {
    Query {
        group: BlockGroup(group),
        start: Some(start),
        len,
        wanted,
        flags,
        stream_group: BlockGroup(0),
        groups: u32::MAX,
        looked: (0, 0),
    }
}

fn tunables() -> Tunables {
    Tunables { max_linear_groups: 4, ..Tunables::new(&LAYOUT, 0, 1) }
}

fn find(table: &Table, query: Query) -> Outcome {
    search(table, &LAYOUT, &tunables(), query).expect("readable")
}

/// Group, start and length of the result; then `blks`, `grps`, criterion, tail and broken, as the event prints them.
#[expect(clippy::type_complexity, reason = "as the event prints them")]
fn shown(outcome: Outcome) -> ((u32, u32, u32), (u32, u32, Criterion, u32, u32)) {
    let run = outcome.run.unwrap_or_default();
    let broken = if outcome.broken.order == 0 { 0 } else { 1 << outcome.broken.order };
    let numbers = (outcome.found, outcome.scanned, outcome.criterion, outcome.broken.tail, broken);
    ((run.group.0, run.start, run.len), numbers)
}

use Criterion::*;

/// The free space of most traces: 256 MiB, two groups.
fn usual() -> Table {
    Table::warm(12, 32768, &[&[(4139, 28629)], &[(4129, 28639)]])
}

#[test]
fn trace_01_a_stream_skips_the_first_flex_group_then_hits_its_goal() {
    let table = usual();
    let first = find(&table, query(1, 0, 2048, 2048, STREAM));
    assert_eq!(first.goal, (BlockGroup(0), None, 2048));
    assert_eq!(shown(first), ((1, 6144, 2048), (1, 1, Power2Aligned, 0, 0)));
    let second = find(&table, query(1, 8192, 2048, 512, STREAM | F::HINT_TRY_GOAL));
    assert_eq!(second.goal, (BlockGroup(1), Some(8192), 2048));
    assert_eq!(shown(second), ((1, 8192, 2048), (1, 0, Power2Aligned, 2048, 8192)));
}

#[test]
fn traces_02_and_20_small_files_then_a_stream_by_chunks() {
    let table = usual();
    let small = find(&table, query(1, 0, 512, 2, DATA | F::HINT_GROUP_ALLOC));
    assert_eq!(shown(small), ((1, 4608, 512), (1, 1, Power2Aligned, 0, 0)));
    let stream = find(&table, query(1, 4611, 29, 15, STREAM));
    assert_eq!(shown(stream), ((0, 4139, 29), (9, 1, GoalLengthFast, 8, 64)));
}

#[test]
fn traces_06_and_28_exact_requests_and_tree_blocks() {
    let table = usual();
    let exact = find(&table, query(1, 0, 16, 16, DATA | F::HINT_NOPREALLOC));
    assert_eq!(shown(exact), ((1, 4144, 16), (1, 1, Power2Aligned, 0, 0)));
    let next = find(&table, query(1, 4160, 16, 16, STREAM | F::HINT_NOPREALLOC));
    assert_eq!(shown(next), ((1, 4160, 16), (1, 1, Power2Aligned, 16, 64)));
    let tree = find(&table, query(1, 0, 1, 1, F::empty()));
    assert_eq!(shown(tree), ((1, 4129, 1), (1, 1, GoalLengthFast, 0, 0)));
}

#[test]
fn trace_16_clusters() {
    let layout = Layout { cluster_bits: 4, blocks_per_group: 32768 * 16, groups: 1, ..LAYOUT };
    let table = Table::warm(12, 4096, &[&[(278, 3818)]]);
    let outcome =
        search(&table, &layout, &tunables(), query(0, 0, 4, 1, STREAM)).expect("readable");
    assert_eq!(shown(outcome), ((0, 278, 4), (7, 1, GoalLengthFast, 2, 8)));
}

#[test]
fn trace_27_fragments_go_to_the_slow_search() {
    let holes: &[(u32, u32)] = &[(6144, 24), (8144, 80), (12144, 320), (18144, 1600), (26144, 512)];
    let table = Table::warm(12, 32768, &[&[(7515, 1024), (32757, 11)], holes]);
    let from = |group, query| Query { stream_group: BlockGroup(group), ..query };
    let a = find(&table, from(0, query(1, 0, 256, 256, STREAM)));
    assert_eq!(shown(a), ((1, 18176, 256), (1, 1, Power2Aligned, 0, 0)));
    let b = find(&table, from(1, query(1, 0, 1024, 1280, STREAM)));
    assert_eq!(shown(b), ((1, 18432, 1024), (1, 1, Power2Aligned, 0, 0)));
    let rest = find(&table, from(1, query(1, 19456, 1024, 256, STREAM | F::HINT_TRY_GOAL)));
    assert_eq!(shown(rest).0, (0, 7515, 1024));
    let c = find(&table, from(0, query(1, 0, 512, 512, STREAM)));
    assert_eq!(shown(c), ((1, 26144, 512), (6, 1, GoalLengthSlow, 0, 0)));
}

#[test]
fn trace_25_thirty_two_groups() {
    let layout = Layout {
        block_bits: 10,
        blocks_per_group: 8192,
        groups: 32,
        first_data_block: 1,
        blocks: 262_144,
        ..LAYOUT
    };
    let mut free: Vec<&[(u32, u32)]> = vec![&[(7985, 207)], &[(771, 7421)]];
    free.resize(32, &[(0, 8192)]);
    let table = Table::warm(10, 8192, &free);
    let tunables = Tunables { max_linear_groups: 4, ..Tunables::new(&layout, 0, 1) };
    assert!(tunables.optimize_scan);
    let find = |query| shown(search(&table, &layout, &tunables, query).expect("readable"));
    let small = find(query(1, 0, 512, 16, DATA | F::HINT_GROUP_ALLOC));
    assert_eq!(small, ((1, 1024, 512), (1, 1, Power2Aligned, 512, 1024)));
    assert_eq!(
        find(query(1, 0, 1024, 1024, STREAM)),
        ((1, 2048, 1024), (1, 1, Power2Aligned, 1024, 2048))
    );
    assert_eq!(
        find(query(1, 0, 2048, 2048, STREAM)),
        ((1, 4096, 2048), (1, 1, Power2Aligned, 0, 0))
    );
}

#[test]
fn trace_36_a_cold_group_is_passed_by_unless_it_leads_its_flex_group() {
    let table = Table::new(12, 32768, &[&[(4139, 28629)], &[(4129, 28639)]]);
    // Group 1 is cold and not the first of its flex group; group 0 is, but powers of two avoid it.
    let first = find(&table, query(1, 0, 512, 4, DATA | F::HINT_GROUP_ALLOC));
    assert_eq!((shown(first).0.0, first.criterion), (0, GoalLengthFast));
    assert!(!table.summary(BlockGroup(1)).initialised);
    let second = Table::new(12, 32768, &[&[(4139, 28629)], &[(4129, 28639)]]);
    second.groups[1].borrow_mut().0.computable = true;
    assert_eq!(shown(find(&second, query(1, 0, 512, 4, DATA))).0, (1, 4608, 512));
}

#[test]
fn a_shorter_run_at_the_goal_is_not_taken() {
    let table = Table::warm(12, 32768, &[&[(100, 20), (200, 50)], &[]]);
    let outcome = find(&table, query(0, 110, 25, 25, DATA | F::HINT_TRY_GOAL));
    assert_eq!(shown(outcome).0, (0, 200, 25));
}

#[test]
fn among_sufficient_chunks_the_shortest_wins_among_short_ones_the_longest() {
    let table = Table::warm(12, 32768, &[&[(0, 1024), (2048, 256), (4096, 512)], &[]]);
    assert_eq!(shown(find(&table, query(0, 0, 250, 250, F::empty()))).0, (0, 2048, 250));
    let short = Table::warm(12, 32768, &[&[(0, 8), (100, 30), (200, 20)], &[(500, 5)]]);
    let outcome = find(&short, query(1, 0, 300, 300, DATA));
    assert_eq!((shown(outcome).0, outcome.criterion), ((0, 100, 30), Exhausted));
    let many = Table::warm(12, 32768, &[&[(0, 8), (96, 32), (200, 20)], &[]]);
    assert_eq!(shown(find(&many, query(0, 0, 60, 60, DATA))).0, (0, 96, 32));
}

#[test]
fn the_search_stops_after_too_many_chunks() {
    let runs: Vec<(u32, u32)> =
        (0..400).map(|at| (at * 8, if at == 300 { 4 } else { 1 })).collect();
    let table = Table::warm(12, 32768, &[&runs, &[]]);
    let outcome = find(&table, query(0, 0, 8, 8, DATA));
    assert_eq!(outcome.found, 201);
    assert_eq!(shown(outcome).0, (0, 0, 1));
}

#[test]
fn corrupt_full_and_distant_groups_are_left_out() {
    let table = usual();
    table.groups[1].borrow_mut().0.corrupt = true;
    assert_eq!(shown(find(&table, query(1, 0, 512, 2, DATA))).0.0, 0);
    let full = Table::warm(12, 32768, &[&[], &[]]);
    assert_eq!(find(&full, query(0, 0, 1, 1, DATA)).run, None);
    let far = Table::warm(12, 32768, &[&[], &[(0, 10)]]);
    assert_eq!(find(&far, Query { groups: 1, ..query(1, 0, 1, 1, DATA) }).run, None);
}

#[test]
fn an_unreadable_group_fails_the_search_only_if_nothing_else_is_found() {
    let mut table = Table::new(12, 32768, &[&[(4139, 28629)], &[(4129, 28639)]]);
    table.broken = Some(BlockGroup(1));
    assert_eq!(shown(find(&table, query(1, 0, 5, 5, F::empty()))).0.0, 0);
    let mut table = Table::new(12, 32768, &[&[], &[(4129, 28639)]]);
    table.broken = Some(BlockGroup(1));
    let failed = search(&table, &LAYOUT, &tunables(), query(1, 0, 5, 5, F::empty()));
    assert_eq!(failed.err(), Some("unreadable"));
}

fn many_groups(free: &[&[(u32, u32)]]) -> (Layout, Tunables, Table) {
    let groups = u32::try_from(free.len()).expect("few");
    let layout = Layout { groups, blocks: u64::from(groups) * 32768, flex_bits: 0, ..LAYOUT };
    let tunables =
        Tunables { max_linear_groups: 0, optimize_scan: true, ..Tunables::new(&layout, 0, 1) };
    (layout, tunables, Table::warm(12, 32768, free))
}

#[test]
fn ordered_sets_prefer_the_smallest_sufficient_order_to_nearness() {
    let free: [&[(u32, u32)]; 6] =
        [&[(0, 64)], &[(0, 8192)], &[(0, 2048)], &[(0, 64)], &[(0, 4096)], &[(0, 16)]];
    let (layout, tunables, table) = many_groups(&free);
    let find = |group, len| {
        search(&table, &layout, &tunables, query(group, 0, len, len, DATA)).expect("readable")
    };
    assert_eq!(shown(find(1, 1024)).0, (2, 0, 1024));
    assert_eq!(shown(find(1, 32)).0, (3, 0, 32));
    assert_eq!(shown(find(4, 48)).0, (4, 0, 48), "by average run, wrapping last");
}

#[test]
fn best_available_shortens_before_the_slow_search() {
    let free: [&[(u32, u32)]; 3] = [&[(0, 16), (100, 16)], &[(0, 300), (1000, 300)], &[(0, 20)]];
    let (layout, tunables, table) = many_groups(&free);
    let mut wish = query(0, 0, 400, 100, DATA);
    let outcome = search(&table, &layout, &tunables, wish).expect("readable");
    assert_eq!((shown(outcome).0, outcome.criterion), ((1, 0, 256), BestAvailableLength));
    wish.flags = F::empty();
    let outcome = search(&table, &layout, &tunables, wish).expect("readable");
    assert!(outcome.criterion > BestAvailableLength, "only data is shortened");
    assert_eq!(outcome.goal.2, 400);
}

#[test]
fn best_available_never_goes_below_the_request() {
    let free: [&[(u32, u32)]; 2] = [&[(0, 64)], &[(0, 64)]];
    let (layout, tunables, table) = many_groups(&free);
    let outcome =
        search(&table, &layout, &tunables, query(0, 0, 100, 100, DATA)).expect("readable");
    assert_eq!((shown(outcome).0, outcome.criterion), ((0, 0, 64), Exhausted));
}

#[test]
fn stripes_are_aligned() {
    let layout = Layout { first_data_block: 1, ..LAYOUT };
    let tunables = Tunables { stripe: 48, ..Tunables::new(&LAYOUT, 0, 1) };
    let table = Table::warm(12, 32768, &[&[(10, 1000)], &[]]);
    let outcome =
        search(&table, &layout, &tunables, query(0, 0, 48, 48, F::empty())).expect("readable");
    assert_eq!(shown(outcome).0, (0, 47, 48));
    let goal = query(0, 200, 48, 48, DATA | F::HINT_TRY_GOAL);
    let outcome = search(&table, &layout, &tunables, goal).expect("readable");
    assert_eq!(
        shown(outcome).0,
        (0, 95, 48),
        "a stripe is not taken at a goal that is not aligned"
    );
}
