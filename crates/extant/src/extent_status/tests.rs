//! The tree's rules by name, and the tree against one state per block.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::{
    ClusterCount, ClusterRatio, LogicalBlock, LogicalCluster, LogicalRange, PhysicalBlock,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::BlockState::{self, Delayed, Hole, Unwritten, Written};
use super::account::StatusCounts;
use super::change::Change;
use super::shrink::Shrunk;
use super::*;

const ONE: ClusterRatio = ClusterRatio::ONE;

fn block(n: u32) -> LogicalBlock {
    LogicalBlock::new(n).unwrap()
}

fn run(start: u32, len: u32) -> LogicalRange {
    LogicalRange::new(start, len).unwrap()
}

fn at(n: u64) -> PhysicalBlock {
    PhysicalBlock::new(n)
}

fn ratio(bits: u32) -> ClusterRatio {
    ClusterRatio::new(bits).unwrap()
}

/// A tree in which each `(start, len, state)` was put in turn.
fn tree(runs: &[(u32, u32, BlockState)]) -> ExtentStatusTree {
    let mut tree = ExtentStatusTree::default();
    for &(start, len, state) in runs {
        put(&mut tree, run(start, len), state);
    }
    tree
}

fn put(tree: &mut ExtentStatusTree, range: LogicalRange, state: BlockState) {
    match state {
        Delayed => tree.insert_delayed(range),
        _ => drop(tree.set(range, state, ONE)),
    }
}

fn check(tree: &ExtentStatusTree, expected: &[(u32, u32, BlockState)]) {
    tree.check_invariants();
    let runs: Vec<_> =
        tree.entries().map(|e| (e.blocks.start().get(), e.blocks.len(), e.state)).collect();
    assert_eq!(runs, expected);
}

#[test]
fn d11_3_merges_same_kinds_whose_places_follow() {
    check(&tree(&[(0, 2, Hole), (4, 2, Hole), (2, 2, Hole)]), &[(0, 6, Hole)]);
    check(&tree(&[(0, 2, Delayed), (2, 1, Delayed)]), &[(0, 3, Delayed)]);
    check(&tree(&[(4, 2, Written(at(14))), (2, 2, Written(at(12)))]), &[(2, 4, Written(at(12)))]);
}

#[test]
fn d11_3_keeps_apart_what_is_discontinuous() {
    let runs =
        [(0, 2, Written(at(10))), (2, 2, Written(at(13))), (4, 2, Unwritten(at(15))), (6, 2, Hole)];
    check(&tree(&runs), &runs);
}

#[test]
fn d11_3_runs_may_cover_every_block() {
    let half = u32::MAX / 2;
    check(&tree(&[(half, u32::MAX - half, Hole), (0, half, Hole)]), &[(0, u32::MAX, Hole)]);
}

#[test]
fn d11_4_insert_replaces_what_it_covers_and_splits_the_rest() {
    check(
        &tree(&[(0, 10, Written(at(100))), (4, 2, Unwritten(at(104)))]),
        &[(0, 4, Written(at(100))), (4, 2, Unwritten(at(104))), (6, 4, Written(at(106)))],
    );
    check(
        &tree(&[(0, u32::MAX, Hole), (0, 1, Delayed)]),
        &[(0, 1, Delayed), (1, u32::MAX - 1, Hole)],
    );
}

#[test]
fn d11_6_lookup_answers_with_the_state_before_it_marked_the_run() {
    let account = Arc::new(StatusAccount::default());
    let mut tree = ExtentStatusTree::new(Arc::clone(&account));
    put(&mut tree, run(4, 4), Written(at(40)));
    put(&mut tree, run(10, 1), Hole);
    let first = tree.lookup(block(5)).unwrap();
    assert!(!first.referenced && tree.lookup(block(6)).unwrap().referenced);
    assert_eq!(first.state_of(block(5)), Written(at(41)));
    assert_eq!(tree.lookup(block(8)), None);
    assert_eq!(tree.next_start(block(5)), Some(block(10)));
    assert_eq!(tree.next_start(block(10)), None);
    assert_eq!(account.counts(), StatusCounts { runs: 2, reclaimable: 2, hits: 2, misses: 1 });
    drop(tree);
    assert_eq!(account.counts().runs, 0);
}

#[test]
fn d11_10_caching_does_not_replace_what_is_known() {
    let mut tree = tree(&[(4, 1, Delayed)]);
    assert!(!tree.cache(run(0, 8), Written(at(10))));
    assert!(tree.cache(run(0, 4), Written(at(10))));
    check(&tree, &[(0, 4, Written(at(10))), (4, 1, Delayed)]);
}

#[test]
fn d11_11_a_bypassed_tree_knows_and_takes_in_nothing() {
    let account = Arc::new(StatusAccount::default());
    let mut tree = ExtentStatusTree::new(Arc::clone(&account));
    put(&mut tree, run(0, 4), Hole);
    account.set_bypass(true);
    assert_eq!(tree.lookup(block(0)), None);
    assert_eq!(tree.find(run(0, 4), |_| true), None);
    assert!(!tree.any(run(0, 4), |_| true) && !tree.cache(run(8, 1), Hole));
    put(&mut tree, run(0, 2), Delayed);
    assert_eq!(tree.remove(run(0, 4), ONE), Change::default());
    account.set_bypass(false);
    check(&tree, &[(0, 4, Hole)]);
}

#[test]
fn d11_13_a_hole_from_disk_leaves_out_delayed_blocks() {
    let all = LogicalRange::ALL;
    let answer = |runs: &[(u32, u32, BlockState)], b: u32| tree(runs).set_hole(all, block(b));
    assert_eq!(answer(&[], 5), (LogicalRange::from_block_on(block(5)), Some(all)));
    let from_five = LogicalRange::from_block_on(block(5));
    assert_eq!(answer(&[(2, 1, Delayed)], 5), (from_five, Some(from_five)));
    assert_eq!(answer(&[(4, 4, Delayed)], 5), (run(5, 3), None));
    assert_eq!(answer(&[(8, 4, Delayed)], 5), (run(5, 3), Some(run(0, 8))));
    assert_eq!(answer(&[(2, 1, Delayed), (8, 4, Delayed)], 5), (run(5, 3), Some(run(5, 3))));
}

#[test]
fn d11_16_shrinking_spares_delayed_runs_and_gives_a_second_chance() {
    let mut tree = tree(&[(0, 1, Written(at(7))), (2, 1, Delayed), (4, 1, Hole)]);
    assert_eq!(tree.reclaimable(), 2);
    tree.lookup(block(0)).unwrap();
    assert_eq!(tree.shrink(10), Shrunk { scanned: 3, forgotten: 1 });
    check(&tree, &[(0, 1, Written(at(7))), (2, 1, Delayed)]);
    assert_eq!(tree.shrink(10), Shrunk { scanned: 2, forgotten: 1 });
    assert_eq!(tree.shrink(10), Shrunk { scanned: 1, forgotten: 0 });
    check(&tree, &[(2, 1, Delayed)]);
}

#[test]
fn d11_16_shrinking_goes_on_where_it_stopped_and_wraps() {
    let mut tree = tree(&[(0, 1, Written(at(1))), (2, 1, Written(at(1))), (4, 1, Written(at(1)))]);
    assert_eq!(tree.shrink(2), Shrunk { scanned: 2, forgotten: 2 });
    put(&mut tree, run(0, 1), Hole);
    assert_eq!(tree.shrink(1), Shrunk { scanned: 1, forgotten: 1 });
    check(&tree, &[(0, 1, Hole)]);
    assert_eq!(tree.shrink(1), Shrunk { scanned: 1, forgotten: 1 });
    assert_eq!(tree.len(), 0);
}

#[test]
fn d11_17_clearing_keeps_delayed_blocks_only() {
    let mut tree = tree(&[(0, 2, Hole), (2, 2, Delayed), (4, 2, Written(at(9)))]);
    tree.set_precached();
    tree.clear_cached();
    check(&tree, &[(2, 2, Delayed)]);
    assert!(!tree.is_precached());
}

#[test]
fn d11_19_a_scan_may_answer_with_a_first_run_behind_its_range() {
    let mut tree = tree(&[(8, 2, Delayed), (10, 2, Hole), (14, 2, Delayed)]);
    let mut found = |from, len| tree.find(run(from, len), BlockState::is_delayed).map(|e| e.blocks);
    assert_eq!(found(0, 4), Some(run(8, 2)));
    assert_eq!(found(10, 3), None);
    assert_eq!(found(10, 5), Some(run(14, 2)));
    assert!(!tree.has_delayed(run(0, 8)) && tree.has_delayed(run(0, 9)));
}

#[test]
fn d12_4_a_cluster_counts_once_and_only_if_no_delayed_block_remains() {
    let ratio = ratio(2);
    let delayed = [(1, 1, Delayed), (3, 6, Delayed), (11, 1, Delayed)];
    let removed = |start, len| {
        let change = tree(&delayed).remove(run(start, len), ratio);
        (change.blocks, change.clusters.get(), change.span.map(|s| (s.start().0, s.end().0)))
    };
    assert_eq!(removed(0, 12), (8, 3, Some((0, 2))));
    assert_eq!(removed(2, 10), (7, 2, Some((1, 2)))); // block 1 keeps cluster 0
    assert_eq!(removed(2, 8), (6, 1, Some((1, 1)))); // block 11 keeps cluster 2
    assert_eq!(removed(5, 1), (1, 0, None));
    assert_eq!(removed(9, 2), (0, 0, None));
    assert_eq!(removed(8, 1), (1, 0, None));
}

#[test]
fn d12_6_a_change_names_its_edge_clusters() {
    let (quad, edge) = (ratio(2), |cluster, has| Some((LogicalCluster(cluster), has)));
    let mut tree = tree(&[(1, 1, Delayed), (4, 6, Delayed)]);
    assert_eq!(tree.set(run(2, 6), Written(at(22)), quad).edges, [edge(0, true), edge(1, false)]);
    assert_eq!(tree.set(run(8, 1), Written(at(28)), quad).edges, [edge(2, true), None]);
    assert_eq!(tree.set(run(8, 1), Written(at(28)), ONE).edges, [None, None]);
}

/// What a model test does to the tree; small, so that every overlap soon comes up.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u32, u32, BlockState),
    Remove(u32, u32),
    Cache(u32, u32, BlockState),
    Lookup(u32),
    Shrink(usize),
    Clear,
}

/// One state per block, or none where nothing is known.
#[derive(Clone, Debug)]
struct Model<const N: usize>([Option<BlockState>; N]);

impl<const N: usize> Model<N> {
    fn cells(
        &mut self,
        start: u32,
        len: u32,
    ) -> impl Iterator<Item = (u32, &mut Option<BlockState>)> {
        (0..)
            .zip(&mut self.0)
            .skip(usize::try_from(start).unwrap())
            .take(usize::try_from(len).unwrap())
    }

    fn fill(&mut self, start: u32, len: u32, state: Option<BlockState>) {
        self.cells(start, len)
            .for_each(|(n, cell)| *cell = state.map(|state| state.advanced(n - start)));
    }

    fn clusters(&self, ratio: ClusterRatio) -> Vec<u32> {
        let delayed = (0..).zip(&self.0).filter(|(_, state)| **state == Some(Delayed));
        let mut clusters: Vec<u32> = delayed.map(|(n, _)| ratio.cluster_of(block(n)).0).collect();
        clusters.dedup();
        clusters
    }

    /// Does `step` to both; checks the answers.
    fn apply(&mut self, tree: &mut ExtentStatusTree, step: Step, ratio: ClusterRatio) {
        let before = self.clone();
        match step {
            Step::Put(start, len, Delayed) => {
                if self.cells(start, len).all(|(_, cell)| matches!(cell, None | Some(Hole))) {
                    self.fill(start, len, Some(Delayed));
                    tree.insert_delayed(run(start, len));
                }
            }
            Step::Put(start, len, state) => {
                self.fill(start, len, Some(state));
                let change = tree.set(run(start, len), state, ratio);
                self.check_change(&before, change, ratio);
            }
            Step::Remove(start, len) => {
                self.fill(start, len, None);
                let change = tree.remove(run(start, len), ratio);
                self.check_change(&before, change, ratio);
            }
            Step::Cache(start, len, state) => {
                let empty = self.cells(start, len).all(|(_, cell)| cell.is_none());
                assert_eq!(tree.cache(run(start, len), state), empty);
                if empty {
                    self.fill(start, len, Some(state));
                }
            }
            Step::Lookup(n) => {
                let known = self.0[usize::try_from(n).unwrap()];
                assert_eq!(tree.lookup(block(n)).map(|entry| entry.state_of(block(n))), known);
            }
            Step::Shrink(scan) => {
                assert!(tree.shrink(scan).scanned <= scan);
                self.forget_what(tree);
            }
            Step::Clear => {
                tree.clear_cached();
                assert_eq!(tree.reclaimable(), 0);
                self.forget_what(tree);
            }
        }
    }

    fn check_change(&self, before: &Self, change: Change, ratio: ClusterRatio) {
        let after = self.clusters(ratio);
        let gone: Vec<u32> =
            before.clusters(ratio).into_iter().filter(|c| !after.contains(c)).collect();
        assert_eq!(change.clusters, ClusterCount(u64::try_from(gone.len()).unwrap()));
        let in_span = |cluster: &u32| {
            change.span.as_ref().is_some_and(|span| span.contains(&LogicalCluster(*cluster)))
        };
        assert!(gone.iter().all(in_span) && !after.iter().any(in_span), "{change:?}");
    }

    /// Forgets what the tree was allowed to forget, and did.
    fn forget_what(&mut self, tree: &ExtentStatusTree) {
        let known: Vec<_> = tree.entries().map(|entry| entry.blocks).collect();
        for (n, cell) in (0..).zip(&mut self.0) {
            if *cell != Some(Delayed) && !known.iter().any(|range| range.contains(block(n))) {
                *cell = None;
            }
        }
    }

    fn check(&self, tree: &ExtentStatusTree, ratio: ClusterRatio) {
        tree.check_invariants();
        for (n, known) in (0..).zip(&self.0) {
            let found = tree.entries().find(|entry| entry.blocks.contains(block(n)));
            assert_eq!(found.map(|entry| entry.state_of(block(n))), *known, "{}", block(n));
        }
        let clusters = ClusterCount(u64::try_from(self.clusters(ratio).len()).unwrap());
        assert_eq!(tree.recount_delayed(ratio).1, clusters);
    }
}

#[test]
fn tree_agrees_with_the_model_on_all_short_sequences() {
    let places = [(0, 8), (0, 2), (1, 3), (2, 2), (3, 5)];
    let states = [Hole, Delayed, Written(at(10)), Unwritten(at(11))];
    let puts =
        places.iter().flat_map(|&(s, l)| states.map(|state| Step::Put(s, l, state.advanced(s))));
    let removes = places.iter().map(|&(s, l)| Step::Remove(s, l));
    let steps: Vec<Step> = puts.chain(removes).collect();
    for index in 0..steps.len().pow(4) {
        let mut model = Model([None; 8]);
        let mut tree = ExtentStatusTree::default();
        let mut rest = index;
        for _ in 0..4 {
            model.apply(&mut tree, steps[rest % steps.len()], ratio(1));
            rest /= steps.len();
            model.check(&tree, ratio(1));
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    // Few places, so that neighbours often follow each other.
    let state = |start: u32| {
        let place = at(u64::from(start) + 100);
        prop_oneof![Just(Hole), Just(Written(place)), Just(Unwritten(place)), Just(Written(at(7)))]
    };
    let range = (0u32..32).prop_flat_map(|start| (Just(start), 1..=32 - start));
    let with_state =
        range.clone().prop_flat_map(move |(start, len)| (Just(start), Just(len), state(start)));
    prop_oneof![
        3 => with_state.clone().prop_map(|(start, len, state)| Step::Put(start, len, state)),
        4 => range.clone().prop_map(|(start, len)| Step::Put(start, len.min(4), Delayed)),
        2 => range.prop_map(|(start, len)| Step::Remove(start, len)),
        2 => with_state.prop_map(|(start, len, state)| Step::Cache(start, len, state)),
        2 => (0u32..32).prop_map(Step::Lookup),
        1 => (0usize..6).prop_map(Step::Shrink),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #[test]
    fn tree_agrees_with_one_state_per_block(steps in vec(step(), 1..40), bits in 0u32..4) {
        let mut model = Model([None; 32]);
        let mut tree = ExtentStatusTree::default();
        for step in steps {
            model.apply(&mut tree, step, ratio(bits));
            model.check(&tree, ratio(bits));
        }
    }
}
