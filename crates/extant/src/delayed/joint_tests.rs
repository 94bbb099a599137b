//! Status tree, pending clusters, reservation and ledger together, as one file drives them under `bigalloc`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;

use extant_format::{
    ClusterCount, ClusterRatio, LogicalBlock, LogicalCluster, LogicalRange, PhysicalBlock,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::extent_status::{BlockState, ExtentStatusTree};

const BLOCKS: u32 = 24;
const FREE: u64 = 64;

/// One file, and what each of its blocks is.
struct File {
    ratio: ClusterRatio,
    ledger: Arc<SpaceLedger>,
    tree: ExtentStatusTree,
    inode: InodeReservations,
    blocks: Vec<BlockState>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Delay(u32, u32),
    Allocate(u32, u32),
    Remove(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..BLOCKS).prop_flat_map(|start| (Just(start), 1..=(BLOCKS - start).min(10)));
    prop_oneof![
        3 => range.clone().prop_map(|(start, len)| Step::Delay(start, len)),
        2 => range.clone().prop_map(|(start, len)| Step::Allocate(start, len)),
        1 => range.prop_map(|(start, len)| Step::Remove(start, len)),
    ]
}

impl File {
    fn new(bits: u32) -> Self {
        let parameters = LedgerParameters {
            free: ClusterCount(FREE),
            root_reserve: ClusterCount::ZERO,
            pool: ClusterCount::ZERO,
            watermark: ClusterCount::ZERO,
            fold_batch: 1,
        };
        Self {
            ratio: ClusterRatio::new(bits).unwrap(),
            ledger: SpaceLedger::new(parameters),
            tree: ExtentStatusTree::default(),
            inode: InodeReservations::default(),
            blocks: (0..BLOCKS).map(|_| BlockState::Hole).collect(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Delay(start, len) => {
                let holes = self.runs(start, len, |state| state == BlockState::Hole);
                holes.into_iter().for_each(|run| self.delay(run));
            }
            Step::Allocate(start, len) => {
                let open = self.runs(start, len, |state| !state.is_mapped());
                open.into_iter().for_each(|run| self.allocate(run));
            }
            Step::Remove(start, len) => self.remove(LogicalRange::new(start, len).unwrap()),
        }
        self.check();
    }

    fn delay(&mut self, run: LogicalRange) {
        let content = |block| {
            let cluster = self.ratio.around(block);
            Ok::<_, Infallible>(if self.tree.has_delayed(cluster) {
                ClusterContent::Delayed
            } else if self.tree.any(cluster, BlockState::is_mapped) {
                ClusterContent::Allocated
            } else {
                ClusterContent::Empty
            })
        };
        let plan = DelayedInsert::plan(run, self.ratio, content).unwrap();
        self.inode
            .add(self.ledger.reserve(Promise::data(plan.clusters), Privilege::Ordinary).unwrap());
        self.tree.insert_delayed(run);
        self.inode.pending.note(run, plan, self.ratio);
        self.set(run, |_| BlockState::Delayed);
    }

    /// Gives every block of `run` a place; clusters that have one already are not taken again.
    fn allocate(&mut self, run: LogicalRange) {
        let before = self.clusters(BlockState::is_mapped);
        let place = |n: u32| BlockState::Written(PhysicalBlock::new(u64::from(n) + 1000));
        let change = self.tree.set(run, place(run.start().get()), self.ratio);
        self.set(run, place);
        let taken = self.clusters(BlockState::is_mapped).len() - before.len();
        let spent = self.inode.placed(change.clusters, change.span, &change.edges);
        let promised = spent.as_ref().map_or(0, |spent| spent.promise().clusters.get());
        let taken = u64::try_from(taken).unwrap();
        assert!(promised <= taken, "{promised} spent for {taken} clusters");
        if let Some(mut spent) = spent {
            spent.allocated(ClusterCount(promised));
        }
        let direct = ClusterCount(taken - promised);
        self.ledger.claim(direct, Privilege::Ordinary).unwrap().allocated(direct);
    }

    fn remove(&mut self, range: LogicalRange) {
        let before = self.clusters(BlockState::is_mapped);
        let change = self.tree.remove(range, self.ratio);
        drop(self.inode.release(change.clusters, change.span));
        self.set(range, |_| BlockState::Hole);
        let after = self.clusters(BlockState::is_mapped);
        for cluster in before.into_iter().filter(|cluster| !after.contains(cluster)) {
            if self.inode.pending.remove(cluster) {
                self.inode.add(self.ledger.rereserve(ClusterCount(1)));
            } else {
                self.ledger.freed(ClusterCount(1));
            }
        }
    }

    /// I2 and I3, and free space, counted from the blocks.
    fn check(&self) {
        let (delayed, mapped) =
            (self.clusters(BlockState::is_delayed), self.clusters(BlockState::is_mapped));
        let (pending, promised): (Vec<_>, Vec<_>) =
            delayed.into_iter().partition(|cluster| mapped.contains(cluster));
        assert_eq!(self.inode.pending.iter().collect::<Vec<_>>(), pending);
        let promised = u64::try_from(promised.len()).unwrap();
        assert_eq!(self.inode.promise(), Promise::data(ClusterCount(promised)));
        let (counts, taken) = (self.ledger.counts(), i64::try_from(mapped.len()).unwrap());
        assert_eq!(
            (counts.promised, counts.free),
            (promised, i64::try_from(FREE).unwrap() - taken)
        );
    }

    fn set(&mut self, range: LogicalRange, state: impl Fn(u32) -> BlockState) {
        for (n, known) in (0..).zip(&mut self.blocks) {
            if LogicalBlock::new(n).is_some_and(|block| range.contains(block)) {
                *known = state(n);
            }
        }
    }

    fn clusters(&self, matches: impl Fn(BlockState) -> bool) -> Vec<LogicalCluster> {
        let blocks = (0..).zip(&self.blocks).filter(|(_, state)| matches(**state));
        let mut clusters: Vec<_> =
            blocks.map(|(n, _)| self.ratio.cluster_of(LogicalBlock::new(n).unwrap())).collect();
        clusters.dedup();
        clusters
    }

    /// The runs of blocks within `len` from `start` on that match.
    fn runs(
        &self,
        start: u32,
        len: u32,
        matches: impl Fn(BlockState) -> bool,
    ) -> Vec<LogicalRange> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for n in (start..start + len).filter(|n| matches(self.blocks[usize::try_from(*n).unwrap()]))
        {
            match runs.last_mut() {
                Some((first, len)) if *first + *len == n => *len += 1,
                _ => runs.push((n, 1)),
            }
        }
        runs.into_iter().map(|(first, len)| LogicalRange::new(first, len).unwrap()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_file_is_promised_a_cluster_for_each_that_is_delayed_only(
        bits in 0_u32..4,
        steps in vec(step(), 1..40),
    ) {
        let mut file = File::new(bits);
        steps.into_iter().for_each(|step| file.apply(step));
    }
}
