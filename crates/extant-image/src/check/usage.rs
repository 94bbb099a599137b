//! Which clusters are in use: a few runs a group, or a bitmap where there are many.
//!
//! A group costs 8 bytes a run and at most one bit a cluster, as its bitmap on disk.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use extant_device::sync::Mutex;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::{BlockGroup, Geometry, PhysicalBlock, bitmap};

/// Clusters of one group.
#[derive(Clone, Debug)]
pub(super) enum ClusterSet {
    /// Disjoint, in order, none touching the next.
    Runs(Vec<Range<u32>>),
    /// One bit a cluster.
    Bits(Box<[u8]>),
}

impl Default for ClusterSet {
    fn default() -> Self {
        Self::Runs(Vec::new())
    }
}

impl ClusterSet {
    /// Adds `range` of a group of `len` clusters; calls `twice` with each part of it that was there before.
    pub(super) fn insert(
        &mut self,
        range: Range<u32>,
        len: u32,
        mut twice: impl FnMut(Range<u32>),
    ) {
        match self {
            Self::Bits(bits) => {
                set_bits(bits, &range).into_iter().for_each(&mut twice);
                bitmap::set(bits, range);
            }
            Self::Runs(runs) => {
                insert_run(runs, range, twice);
                if runs.len() > MOST_RUNS && u64_from(runs.len()).saturating_mul(64) > len.into() {
                    let mut bits = vec![0; usize_from(len.div_ceil(8))].into_boxed_slice();
                    runs.drain(..).for_each(|run| bitmap::set(&mut bits, run));
                    *self = Self::Bits(bits);
                }
            }
        }
    }

    /// Whether any cluster of `range` is in the set.
    pub(super) fn touches(&self, range: &Range<u32>) -> bool {
        match self {
            Self::Bits(bits) => bitmap::next_one(bits, range.clone()).is_some(),
            Self::Runs(runs) => {
                let first = runs.partition_point(|run| run.end <= range.start);
                runs.get(first).is_some_and(|run| run.start < range.end)
            }
        }
    }

    /// The parts of `range` that are in the set, in order.
    pub(super) fn within(&self, range: &Range<u32>) -> Vec<Range<u32>> {
        let mut parts = Vec::new();
        match self {
            Self::Bits(bits) => parts = set_bits(bits, range),
            Self::Runs(runs) => {
                let first = runs.partition_point(|run| run.end <= range.start);
                let touched = runs.iter().skip(first).take_while(|run| run.start < range.end);
                let cut = |run: &Range<u32>| run.start.max(range.start)..run.end.min(range.end);
                parts.extend(touched.map(cut));
            }
        }
        parts
    }

    /// How many clusters are in the set.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Bits(bits) => bits.iter().fold(0, |sum: u32, byte| sum + byte.count_ones()),
            Self::Runs(runs) => runs.iter().fold(0, |sum: u32, run| sum + (run.end - run.start)),
        }
    }

    /// The set as the bitmap of a group, one bit a cluster, `bytes` long.
    pub(super) fn to_bits(&self, bytes: usize) -> Vec<u8> {
        let mut all = vec![0; bytes];
        match self {
            Self::Bits(bits) => {
                for (to, from) in all.iter_mut().zip(bits.iter()) {
                    *to = *from;
                }
            }
            Self::Runs(runs) => {
                runs.iter().for_each(|run| bitmap::set(&mut all, run.clone()));
            }
        }
        all
    }

    /// The runs of the set, in order.
    pub(super) fn runs(&self) -> Vec<Range<u32>> {
        match self {
            Self::Runs(runs) => runs.clone(),
            Self::Bits(bits) => {
                set_bits(bits, &(0..low_u32(u64_from(bits.len())).saturating_mul(8)))
            }
        }
    }
}

/// The runs of set bits in `range`.
fn set_bits(bits: &[u8], range: &Range<u32>) -> Vec<Range<u32>> {
    let (mut runs, mut at) = (Vec::new(), range.start);
    while let Some(start) = bitmap::next_one(bits, at..range.end) {
        at = bitmap::next_zero(bits, start..range.end).unwrap_or(range.end);
        runs.push(start..at);
    }
    runs
}

/// Adds a run and joins it with those that it touches.
fn insert_run(runs: &mut Vec<Range<u32>>, range: Range<u32>, mut twice: impl FnMut(Range<u32>)) {
    if range.is_empty() {
        return;
    }
    let first = runs.partition_point(|run| run.end < range.start);
    let mut joined = range.clone();
    let mut last = first;
    while let Some(run) = runs.get(last).filter(|run| run.start <= range.end) {
        let (start, end) = (run.start.max(range.start), run.end.min(range.end));
        if start < end {
            twice(start..end);
        }
        joined = joined.start.min(run.start)..joined.end.max(run.end);
        last += 1;
    }
    runs.splice(first..last, [joined]);
}

/// All clusters of the file system.
#[derive(Debug)]
pub(super) struct Usage {
    groups: Vec<Mutex<ClusterSet>>,
    /// By group, what was claimed more than once.
    twice: Mutex<BTreeMap<u32, ClusterSet>>,
    first_data_block: u64,
    cluster_bits: u32,
    per_group: u32,
}

impl Usage {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let mut groups = Vec::new();
        groups.resize_with(usize_from(geometry.group_count), Mutex::default);
        Self {
            groups,
            twice: Mutex::default(),
            first_data_block: geometry.first_data_block.into(),
            cluster_bits: geometry.cluster_bits,
            per_group: geometry.clusters_per_group,
        }
    }

    /// Claims the clusters of `len` blocks from `start` on, all of which lie in the file system.
    pub(super) fn claim(&self, start: PhysicalBlock, len: u64) {
        self.each(start, len, |group, range| {
            let Some(set) = self.groups.get(usize_from(group)) else { return };
            set.lock().insert(range, self.per_group, |both| {
                let mut twice = self.twice.lock();
                twice.entry(group).or_default().insert(both, self.per_group, |_| ());
            });
        });
    }

    /// Claims clusters that may be claimed already.
    pub(super) fn claim_again(&self, start: PhysicalBlock, len: u64) {
        self.each(start, len, |group, range| {
            if let Some(set) = self.groups.get(usize_from(group)) {
                set.lock().insert(range, self.per_group, |_| ());
            }
        });
    }

    /// Whether any cluster was claimed more than once.
    pub(super) fn is_any_twice(&self) -> bool {
        !self.twice.lock().is_empty()
    }

    /// Whether a cluster of these blocks was claimed more than once.
    pub(super) fn is_twice(&self, start: PhysicalBlock, len: u64) -> bool {
        let twice = self.twice.lock();
        let mut found = false;
        self.each(start, len, |group, range| {
            found |= twice.get(&group).is_some_and(|set| set.touches(&range));
        });
        found
    }

    /// The parts of these blocks whose clusters were claimed more than once.
    pub(super) fn twice_within(&self, start: PhysicalBlock, len: u64) -> Vec<(PhysicalBlock, u64)> {
        let twice = self.twice.lock();
        let end = start.get().saturating_add(len);
        let mut parts: Vec<(PhysicalBlock, u64)> = Vec::new();
        self.each(start, len, |group, range| {
            let own = twice.get(&group).map(|set| set.within(&range)).unwrap_or_default();
            for part in own {
                let block = |cluster: u32| {
                    let clusters =
                        u64::from(group) * u64::from(self.per_group) + u64::from(cluster);
                    (clusters << self.cluster_bits).saturating_add(self.first_data_block)
                };
                let (from, to) = (block(part.start).max(start.get()), block(part.end).min(end));
                match parts.last_mut() {
                    Some((first, len)) if first.get() + *len == from => *len += to - from,
                    _ => parts.push((PhysicalBlock::new(from), to.saturating_sub(from))),
                }
            }
        });
        parts
    }

    /// What is in use of a group.
    pub(super) fn take(&self, group: BlockGroup) -> ClusterSet {
        let set = self.groups.get(usize_from(group.get()));
        set.map(|set| core::mem::take(&mut *set.lock())).unwrap_or_default()
    }

    /// The parts of each group that a run of blocks touches, in clusters.
    fn each(&self, start: PhysicalBlock, len: u64, mut visit: impl FnMut(u32, Range<u32>)) {
        let relative = start.get().saturating_sub(self.first_data_block);
        let mut at = relative >> self.cluster_bits;
        let end = relative.saturating_add(len.saturating_sub(1)) >> self.cluster_bits;
        let per_group = u64::from(self.per_group);
        while at <= end {
            let (group, from) = (at / per_group, at % per_group);
            let to = per_group.min(from + (end - at) + 1);
            visit(low_u32(group), low_u32(from)..low_u32(to));
            at += to - from;
        }
    }
}

/// Runs that a group may have before it gets a bitmap.
const MOST_RUNS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use extant_testkit::Random;

    #[test]
    fn a_set_agrees_with_one_bit_a_cluster() {
        let mut random = Random::new(7);
        for bound in [4, 40, 400] {
            let (mut set, mut model) = (ClusterSet::default(), vec![false; 1000]);
            for _ in 0..bound {
                let start = low_u32(random.below(990));
                let range = start..start + 1 + low_u32(random.below(10));
                let mut told = Vec::new();
                set.insert(range.clone(), 1000, |both| told.extend(both));
                let both: Vec<u32> = range.clone().filter(|n| model[usize_from(*n)]).collect();
                assert_eq!(told, both);
                range.for_each(|n| model[usize_from(n)] = true);
            }
            let count = model.iter().filter(|bit| **bit).count();
            assert_eq!(usize_from(set.count()), count);
            let bits = set.to_bits(125);
            for n in 0..1000 {
                assert_eq!(bitmap::test(&bits, n), model[usize_from(n)]);
                assert_eq!(set.touches(&(n..n + 1)), model[usize_from(n)]);
                assert_eq!(set.within(&(n..n + 1)).len(), usize::from(model[usize_from(n)]));
            }
            assert!(
                set.runs().into_iter().flatten().eq((0..1000).filter(|n| model[usize_from(*n)]))
            );
        }
    }
}
