//! Space set aside in memory: used in the buddy, free on disk and in the counters.
//!
//! Source: kernel `fs/ext4/mballoc.c`: `ext4_mb_use_preallocated`, `ext4_mb_new_inode_pa`, `ext4_mb_add_n_trim`.
//! Differs: an inode preallocation remembers which of its clusters were served, where the kernel asks the bitmap on disk.

use super::layout::{Layout, Run};
use super::normalize::Served;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use extant_format::InodeNumber;
use smallvec::SmallVec;

/// Group preallocations are listed by the order of their size, up to this many orders.
const LISTS: usize = 10;
/// A list longer than this is trimmed ..
const LIST_LIMIT: usize = 8;
/// .. to this.
const LIST_KEPT: usize = 5;

/// Space set aside for one part of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
struct InodePreallocation {
    run: Run,
    /// What was served already, as start and end in the group; ascending, never adjacent.
    served: SmallVec<[(u32, u32); 2]>,
}

impl InodePreallocation {
    /// Serves up to `len` clusters from `start` on; nothing if `start` was served before.
    fn serve(&mut self, start: u32, len: u32) -> Option<Run> {
        let at = self.served.partition_point(|&(_, end)| end <= start);
        let limit = self.served.get(at).map_or(self.run.end(), |&(start, _)| start);
        let end = limit.min(start.checked_add(len)?);
        if end <= start {
            return None;
        }
        self.served.insert(at, (start, end));
        if self.served.get(at + 1).is_some_and(|&(next, _)| next == end) {
            self.served[at].1 = self.served.remove(at + 1).1;
        }
        if at > 0 && self.served[at - 1].1 == start {
            self.served[at - 1].1 = self.served.remove(at).1;
        }
        Some(Run { group: self.run.group, start, len: end - start })
    }

    fn is_used_up(&self) -> bool {
        self.served[..] == [(self.run.start, self.run.end())]
    }

    /// What nobody was served.
    fn left(&self) -> impl Iterator<Item = Run> {
        let ends = self.served.iter().map(|&(_, end)| end);
        let starts = self.served.iter().map(|&(start, _)| start);
        let gaps = core::iter::once(self.run.start).chain(ends).zip(starts.chain([self.run.end()]));
        let group = self.run.group;
        gaps.filter(|(start, end)| start < end).map(move |(start, end)| Run {
            group,
            start,
            len: end - start,
        })
    }
}

/// The preallocations of all files, by inode and first file block.
#[derive(Debug, Default)]
pub(super) struct InodePreallocations(BTreeMap<(InodeNumber, u32), InodePreallocation>);

impl InodePreallocations {
    /// Sets `run` aside for the file blocks from `logical` on.
    pub(super) fn insert(&mut self, inode: InodeNumber, logical: u32, run: Run) {
        self.0.insert((inode, logical), InodePreallocation { run, served: SmallVec::new() });
    }

    /// Serves up to `len` clusters for the file blocks from `logical` on, which is aligned to a cluster.
    pub(super) fn serve(
        &mut self,
        layout: &Layout,
        inode: InodeNumber,
        logical: u32,
        len: u32,
        usable: impl FnOnce(Run) -> bool,
    ) -> Option<Run> {
        let (&key, found) = self.0.range_mut((inode, 0)..=(inode, logical)).next_back()?;
        let start = found.run.start + ((logical - key.1) >> layout.cluster_bits);
        if start >= found.run.end() || !usable(found.run) {
            return None;
        }
        let run = found.serve(start, len)?;
        if found.is_used_up() {
            self.0.remove(&key);
        }
        Some(run)
    }

    /// What the preallocations around `logical` serve.
    pub(super) fn around(&self, layout: &Layout, inode: InodeNumber, logical: u32) -> Served {
        let left = self.0.range((inode, 0)..=(inode, logical)).next_back();
        let right = logical
            .checked_add(1)
            .and_then(|next| self.0.range((inode, next)..=(inode, u32::MAX)).next());
        Served {
            left_end: left.map(|(key, found)| {
                u64::from(key.1) + (u64::from(found.run.len) << layout.cluster_bits)
            }),
            right_start: right.map(|(key, _)| u64::from(key.1)),
        }
    }

    /// Drops all that is set aside for `inode`, what is for its end first: how many preallocations there were, and the
    /// clusters to free.
    #[must_use = "the clusters go back to the buddies"]
    pub(super) fn discard(&mut self, inode: InodeNumber) -> (u32, Vec<Run>) {
        let mut count = 0;
        let mut left = Vec::new();
        while let Some(&key) =
            self.0.range((inode, 0)..=(inode, u32::MAX)).next_back().map(|(key, _)| key)
        {
            left.extend(self.0.remove(&key).iter().flat_map(InodePreallocation::left));
            count += 1;
        }
        (count, left)
    }

    /// Drops the preallocations of the groups that `chosen` accepts.
    #[must_use = "the clusters go back to the buddies"]
    pub(super) fn discard_groups(
        &mut self,
        chosen: impl Fn(u32) -> bool,
    ) -> Vec<(InodeNumber, Run)> {
        let mut left = Vec::new();
        self.0.retain(|&(owner, _), found| {
            let drop = chosen(found.run.group.0);
            if drop {
                left.extend(found.left().map(|run| (owner, run)));
            }
            !drop
        });
        left
    }

    /// All that is set aside and not served.
    pub(super) fn left(&self) -> impl Iterator<Item = Run> {
        self.0.values().flat_map(InodePreallocation::left)
    }
}

/// Where a new preallocation begins in the file, when less was found than the goal: `goal` and `request` are file
/// blocks as start and end, `len` blocks were found.
///
/// As near to the goal's end as covers the request's start, else at the goal's start if that covers the request,
/// else at the request.
pub(super) fn place(goal: (u64, u64), request: (u64, u64), len: u64) -> u64 {
    let at_end = goal.1.saturating_sub(len);
    if request.0 >= at_end {
        at_end
    } else if request.1 <= goal.0 + len {
        goal.0
    } else {
        request.0
    }
}

/// The group preallocations of one locality group: space that small files fill one after another.
#[derive(Debug, Default)]
pub(super) struct LocalityGroup {
    lists: [Vec<Run>; LISTS],
}

impl LocalityGroup {
    /// Takes out the preallocation of at least `len` clusters that is nearest by `distance`.
    pub(super) fn take(&mut self, len: u32, distance: impl Fn(Run) -> u64) -> Option<Run> {
        let candidates =
            self.lists.iter().enumerate().skip(order(len)).flat_map(|(order, list)| {
                list.iter()
                    .enumerate()
                    .filter(|(_, run)| run.len >= len)
                    .map(move |(at, &run)| (order, at, run))
            });
        let (order, at, _) = candidates.min_by_key(|&(_, _, run)| distance(run))?;
        Some(self.lists[order].remove(at))
    }

    /// Files what is left of a preallocation, and drops the smallest of its list if that got long.
    #[must_use = "the dropped runs go back to the buddies"]
    pub(super) fn file(&mut self, run: Run) -> Vec<Run> {
        if run.len == 0 {
            return Vec::new();
        }
        let list = &mut self.lists[order(run.len)];
        let at = list.partition_point(|other| other.len <= run.len);
        list.insert(at, run);
        if list.len() <= LIST_LIMIT {
            return Vec::new();
        }
        let mut excess = list.len() - LIST_KEPT;
        let mut dropped = Vec::new();
        list.retain(|&other| {
            let drop = excess > 0 && other != run;
            if drop {
                excess -= 1;
                dropped.push(other);
            }
            !drop
        });
        dropped
    }

    /// Drops the preallocations of the groups that `chosen` accepts.
    #[must_use = "the clusters go back to the buddies"]
    pub(super) fn discard_groups(&mut self, chosen: impl Fn(u32) -> bool) -> Vec<Run> {
        let mut dropped = Vec::new();
        for list in &mut self.lists {
            list.retain(|run| {
                let drop = chosen(run.group.0);
                if drop {
                    dropped.push(*run);
                }
                !drop
            });
        }
        dropped
    }

    /// All that is set aside.
    pub(super) fn left(&self) -> impl Iterator<Item = Run> {
        self.lists.iter().flatten().copied()
    }
}

fn order(len: u32) -> usize {
    let order = len.checked_ilog2().unwrap_or(0);
    extant_format::cast::usize_from(order).min(LISTS - 1)
}

/// The lowest groups that together hold at least `needed` of these clusters: the last of them.
pub(super) fn last_group_needed(mut left: Vec<Run>, needed: u32) -> Option<u32> {
    left.sort_unstable_by_key(|run| Reverse(run.group));
    let mut sum = 0_u64;
    let mut last = None;
    while let Some(run) =
        left.pop().filter(|run| sum < u64::from(needed) || last == Some(run.group.0))
    {
        sum += u64::from(run.len);
        last = Some(run.group.0);
    }
    last
}

#[cfg(test)]
#[path = "preallocation_tests.rs"]
mod tests;
