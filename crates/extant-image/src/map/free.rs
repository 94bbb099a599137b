//! [`FreeSpace`]: how what is free is divided.

use extant_format::{BlockGroup, Geometry};

use super::Visitor;
use super::grid::set_runs;

/// Runs of free space by size. A run may go on from one group into the next.
///
/// Source: e2freefrag(8), whose numbers these are.
#[derive(Clone, Debug)]
pub struct FreeSpace {
    geometry: Geometry,
    /// Free blocks.
    pub blocks: u64,
    /// Runs of them.
    pub runs: u64,
    /// The shortest run, in blocks.
    pub shortest: u64,
    /// The longest run, in blocks.
    pub longest: u64,
    /// Runs of at least 2^n and less than 2^(n+1) blocks: how many, and their blocks.
    pub classes: [(u64, u64); 64],
    /// The run that the group seen last ends with.
    open: u64,
}

impl FreeSpace {
    /// Nothing counted yet.
    pub const fn new(geometry: &Geometry) -> Self {
        Self {
            geometry: *geometry,
            blocks: 0,
            runs: 0,
            shortest: 0,
            longest: 0,
            classes: [(0, 0); 64],
            open: 0,
        }
    }

    /// Ends the last run; to be called once all groups were seen.
    pub fn finish(&mut self) {
        let blocks = core::mem::take(&mut self.open);
        if blocks == 0 {
            return;
        }
        self.blocks = self.blocks.saturating_add(blocks);
        self.shortest = if self.runs == 0 { blocks } else { self.shortest.min(blocks) };
        self.longest = self.longest.max(blocks);
        self.runs = self.runs.saturating_add(1);
        let class = usize::try_from(blocks.ilog2()).ok().and_then(|n| self.classes.get_mut(n));
        if let Some((runs, sum)) = class {
            *runs = runs.saturating_add(1);
            *sum = sum.saturating_add(blocks);
        }
    }

    /// Blocks of a run on average.
    pub fn average(&self) -> u64 {
        self.blocks.checked_div(self.runs).unwrap_or(0)
    }

    /// Classes that have runs: the smallest size in blocks, runs, and their blocks.
    pub fn histogram(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let classes = self.classes.iter().zip(0_u32..);
        classes
            .filter(|((runs, _), _)| *runs > 0)
            .map(|((runs, blocks), n)| (1 << n, *runs, *blocks))
    }
}

impl Visitor for FreeSpace {
    fn wants_inodes(&self) -> bool {
        false
    }

    fn group(&mut self, group: BlockGroup, bits: Option<&[u8]>) {
        let Some(bits) = bits else { return self.finish() };
        let blocks = u64::from(self.geometry.blocks_in(group));
        let mut at = 0;
        for (start, end) in set_runs(bits, self.geometry.clusters_in(group)) {
            let block =
                |cluster: u32| (u64::from(cluster) << self.geometry.cluster_bits).min(blocks);
            let (start, end) = (block(start), block(end));
            self.open = self.open.saturating_add(start.saturating_sub(at));
            self.finish();
            at = end;
        }
        self.open = self.open.saturating_add(blocks.saturating_sub(at));
    }
}
