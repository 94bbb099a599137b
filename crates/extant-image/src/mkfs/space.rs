//! Which blocks of a new file system are taken.

use alloc::collections::BTreeMap;
use core::ops::Range;

use extant_format::Geometry;

/// Which blocks are taken.
#[derive(Clone, Debug)]
pub(super) struct Space {
    all: Range<u64>,
    /// Blocks in a cluster: what is taken for a file is whole clusters.
    ratio: u64,
    /// First block to end; ranges neither overlap nor touch.
    taken: BTreeMap<u64, u64>,
}

impl Space {
    /// Takes the superblocks and descriptors with their reserve.
    pub(super) fn new(geometry: &Geometry) -> Self {
        let all = geometry.first_data_block.into()..geometry.blocks_count;
        let mut space = Self { all, ratio: 1, taken: BTreeMap::new() };
        for group in geometry.groups() {
            let start = geometry.first_block_of(group).get();
            let end = start + u64::from(geometry.base_meta_blocks(group));
            space.take(start..end.min(geometry.blocks_count));
        }
        space
    }

    /// Nothing taken of `all`, in clusters of `ratio` blocks.
    pub(super) fn nothing(all: Range<u64>, ratio: u32) -> Self {
        Self { all, ratio: ratio.into(), taken: BTreeMap::new() }
    }

    /// From now on only whole clusters of `ratio` blocks are taken, and what a taken block is in is taken.
    pub(super) fn round_to_clusters(&mut self, ratio: u32) {
        self.ratio = ratio.into();
        if ratio > 1 {
            for (start, end) in core::mem::take(&mut self.taken) {
                self.take(start..end);
            }
        }
    }

    /// Takes a run, of which parts may be taken already.
    pub(super) fn take(&mut self, run: Range<u64>) {
        if run.start >= run.end {
            return;
        }
        // Clusters exist only where the first block is block 0.
        let mut start = run.start - run.start % self.ratio;
        let mut end = run.end.next_multiple_of(self.ratio).min(self.all.end.max(run.end));
        if let Some((&before, &until)) = self.taken.range(..=start).next_back()
            && until >= start
        {
            (start, end) = (before, end.max(until));
        }
        while let Some((&next, &until)) = self.taken.range(start..=end).next() {
            end = end.max(until);
            self.taken.remove(&next);
        }
        self.taken.insert(start, end);
    }

    /// Takes the first `len` free blocks in a row at or after `goal`, or else anywhere.
    pub(super) fn place(&mut self, goal: u64, len: u64) -> Option<u64> {
        let fits = |run: &Range<u64>| run.end - run.start >= len;
        let start = self.free(goal).find(fits).or_else(|| self.free(0).find(fits))?.start;
        self.take(start..start + len);
        Some(start)
    }

    /// The first place at or after `start` and before `finish` with `len` free blocks in a row.
    pub(super) fn find(&self, start: u64, finish: u64, len: u64) -> Option<u64> {
        let before = self.free(start).take_while(|run| run.start < finish);
        before
            .map(|run| (run.start, run.end))
            .find(|(start, end)| end - start >= len)
            .map(|run| run.0)
    }

    /// Takes the first free run at or after `goal`, or else anywhere, but no more than `most` of it.
    pub(super) fn take_some(&mut self, goal: u64, most: u64) -> Option<Range<u64>> {
        let run = self.free(goal).next().or_else(|| self.free(0).next())?;
        let run = run.start..run.end.min(run.start + most);
        self.take(run.clone());
        Some(run)
    }

    /// Free runs from `from` on; the first may be the rest of one.
    pub(super) fn free(&self, from: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let from = from.max(self.all.start);
        let from = from - from % self.ratio;
        let before = self.taken.range(..=from).next_back().map_or(from, |(_, &end)| end.max(from));
        let mut start = before;
        let ends = self.taken.range(from + 1..).map(|(&start, &end)| (start, end));
        ends.chain([(self.all.end, self.all.end)]).filter_map(move |(next, end)| {
            let run = start..next;
            start = end.max(start);
            (run.start < run.end).then_some(run)
        })
    }

    /// The taken parts of `range`.
    pub(super) fn taken(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first =
            self.taken.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        let runs = self.taken.range(first..range.end.max(first));
        runs.map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|run| !run.is_empty())
    }

    /// How many blocks of `range` are taken.
    pub(super) fn taken_in(&self, range: Range<u64>) -> u64 {
        self.taken(range).map(|run| run.end - run.start).sum()
    }

    /// How many blocks are taken.
    pub(super) fn all_taken(&self) -> u64 {
        self.taken.iter().map(|(start, end)| end - start).sum()
    }

    /// How many blocks are free.
    pub(super) fn all_free(&self) -> u64 {
        (self.all.end - self.all.start).saturating_sub(self.all_taken())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn space() -> Space {
        let mut space = Space { all: 1..100, ratio: 1, taken: BTreeMap::new() };
        space.take(1..10);
        space.take(50..60);
        space
    }

    #[test]
    fn places_at_the_goal_or_else_anywhere() {
        let mut space = space();
        assert_eq!(space.place(55, 5), Some(60));
        assert_eq!(space.place(70, 40), Some(10));
        assert_eq!(space.place(0, 36), None);
        assert_eq!(space.taken, BTreeMap::from([(1, 65)]));
    }

    #[test]
    fn takes_what_is_there_first() {
        let mut space = space();
        assert_eq!(space.take_some(45, 100), Some(45..50));
        assert_eq!(space.take_some(45, 10), Some(60..70));
        assert_eq!(space.take_some(95, 10), Some(95..100));
        assert_eq!(space.take_some(95, 10), Some(10..20));
    }

    #[test]
    fn counts_what_is_taken_in_a_range() {
        let space = space();
        assert_eq!(space.taken_in(5..55), 10);
        assert_eq!(space.taken_in(10..50), 0);
        assert_eq!(space.taken_in(52..54), 2);
        assert_eq!(space.free(0).collect::<Vec<_>>(), [10..50, 60..100]);
        assert_eq!(space.free(52).next(), Some(60..100));
        assert_eq!((space.all_taken(), space.all_free()), (19, 80));
    }

    #[test]
    fn finds_a_start_within_bounds() {
        let space = space();
        assert_eq!(space.find(5, 50, 40), Some(10));
        assert_eq!(space.find(5, 10, 40), None);
        assert_eq!(space.find(20, 100, 35), Some(60));
        assert_eq!(space.find(20, 60, 35), None);
    }

    #[test]
    fn runs_that_overlap_become_one() {
        let mut space = space();
        space.take(5..55);
        assert_eq!(space.taken, BTreeMap::from([(1, 60)]));
        space.take(20..30);
        space.take(70..71);
        space.take(65..80);
        assert_eq!(space.taken, BTreeMap::from([(1, 60), (65, 80)]));
    }

    #[test]
    fn clusters_are_taken_as_a_whole() {
        let mut space = Space { all: 0..96, ratio: 1, taken: BTreeMap::new() };
        space.take(0..17);
        space.take(40..41);
        space.round_to_clusters(16);
        assert_eq!(space.taken, BTreeMap::from([(0, 48)]));
        assert_eq!(space.place(50, 4), Some(48));
        assert_eq!(space.free(0).next(), Some(64..96));
    }
}
