//! Giving blocks back: in the bitmap at once, in the buddy when the commit is durable; and discarding what is free.
//!
//! Source: kernel `fs/ext4/mballoc.c`: `ext4_free_blocks`, `ext4_mb_clear_bb`, `ext4_process_freed_data`, `ext4_trim_fs`.

use super::Allocator;
use super::layout::Run;
use super::request::{FreeFlags, Owner};
use crate::Error;
use crate::trace::{Event, Task};
use crate::transaction::{CommitListener, Handle};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use extant_device::Request;
use extant_format::cast::low_u32;
use extant_format::corruption::{Place, Rule};
use extant_format::{BlockGroup, ClusterCount, PhysicalBlock, PhysicalRange, TransactionId};

/// A run that is free in its bitmap, and becomes free in its buddy with its transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    run: Run,
    /// The ledger was told; not so for clusters that turned back into reservations.
    counted: bool,
}

impl Freed {
    /// A run whose freeing the ledger was told of.
    pub(super) const fn counted(run: Run) -> Self {
        Self { run, counted: true }
    }
}

impl Allocator {
    /// Frees `range` of `owner`; returns how many clusters that are.
    ///
    /// The blocks become allocatable when the handle's transaction is durable, and at once where there is no journal or the
    /// data is not ordered. The ledger's free clusters rise at once, but for `RERESERVE_CLUSTER`: then the caller
    /// tells it. Dirties two blocks for each group touched, a bitmap and a descriptor block; `FORGET`, for metadata and
    /// journaled data, keeps the log and the checkpoint from writing them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the range is not the inode's to free or is free already, [`Error::TransactionFull`], or of reading.
    /// The groups before the one that failed are freed then; within one group nothing is or all.
    pub(crate) fn free(
        &self,
        handle: &mut Handle<'_>,
        owner: impl Into<Owner>,
        range: PhysicalRange,
        flags: FreeFlags,
    ) -> Result<ClusterCount, Error> {
        let owner = owner.into();
        let inode = owner.inode;
        let sound = self.may_own(inode, range);
        Place::InodeBlock(inode, range.start()).require(sound, Rule::ExtentPlace)?;
        self.tell_freed(owner, range, flags);
        let whole = self.whole_clusters(range, flags);
        if flags.contains(FreeFlags::FORGET) {
            let (start, end) = whole.unwrap_or((range.start().get(), range.end().get()));
            (start..end).for_each(|block| self.tell_forgotten(owner, block, flags));
            handle.forget(range)?;
        }
        let Some((start, end)) = whole else {
            return Ok(ClusterCount::ZERO);
        };
        let whole = PhysicalRange::new(PhysicalBlock::new(start), end - start);
        let sound = whole.is_some_and(|whole| !self.zones.overlaps(Some(inode), whole));
        Place::InodeBlock(inode, range.start()).require(sound, Rule::ExtentPlace)?;
        let (mut at, mut clusters) = (start, 0);
        while at < end {
            let place = self.layout.place(PhysicalBlock::new(at));
            let (group, start) =
                place.ok_or(Place::Block(PhysicalBlock::new(at)).breaks(Rule::BlockPlace))?;
            let group_end =
                self.layout.first_block(group) + u64::from(self.layout.blocks_per_group);
            let len =
                low_u32((end.min(group_end) - at).div_ceil(u64::from(self.layout.cluster_ratio())));
            self.transactions.tracer().emit(|| {
                let group = group.get();
                Event::MballocFree { ino: inode, group, start, len }
            });
            self.free_run(handle, Run { group, start, len }, flags)?;
            clusters += u64::from(len);
            at = group_end;
        }
        Ok(ClusterCount(clusters))
    }

    /// The blocks of the clusters that go with `range`, as start and end; `None` if there are none.
    fn whole_clusters(&self, range: PhysicalRange, flags: FreeFlags) -> Option<(u64, u64)> {
        let (ratio, base) = (u64::from(self.layout.cluster_ratio()), self.layout.first_data_block);
        let (start, end) = (range.start().get() - base, range.end().get() - base);
        let up = |block: u64| block.next_multiple_of(ratio);
        let down = |block: u64| block / ratio * ratio;
        let start =
            if flags.contains(FreeFlags::NOFREE_FIRST_CLUSTER) { up(start) } else { down(start) };
        let end = if flags.contains(FreeFlags::NOFREE_LAST_CLUSTER) { down(end) } else { up(end) };
        (start < end).then_some((start + base, end + base))
    }

    fn free_run(&self, handle: &mut Handle<'_>, run: Run, flags: FreeFlags) -> Result<(), Error> {
        self.mark(handle, run, false)?;
        let freed = Freed { run, counted: !flags.contains(FreeFlags::RERESERVE_CLUSTER) };
        let clusters = ClusterCount(run.len.into());
        if freed.counted {
            self.ledger.freed(clusters);
        }
        let ordered = flags.contains(FreeFlags::METADATA) || !flags.contains(FreeFlags::UNORDERED);
        if handle.is_journaled() && ordered {
            self.postpone(handle.transaction_id(), freed);
        } else {
            self.give_back(&[freed]);
        }
        Ok(())
    }

    /// Notes that a run becomes free with transaction `tid`.
    fn postpone(&self, tid: TransactionId, freed: Freed) {
        let mut uncommitted = self.uncommitted.lock();
        let at = match uncommitted.iter().position(|(other, _)| *other == tid) {
            Some(at) => at,
            None => {
                uncommitted.push((tid, Vec::new()));
                uncommitted.len() - 1
            }
        };
        let list = &mut uncommitted[at].1;
        // Truncate frees from right to left, and other things from left to right.
        if let Some(last) = list
            .last_mut()
            .filter(|last| last.counted == freed.counted && last.run.group == freed.run.group)
        {
            if last.run.end() == freed.run.start {
                last.run.len += freed.run.len;
                return;
            } else if freed.run.end() == last.run.start {
                last.run = Run { len: last.run.len + freed.run.len, ..freed.run };
                return;
            }
        }
        list.push(freed);
    }

    /// Puts freed runs into their buddies.
    pub(super) fn give_back(&self, freed: &[Freed]) {
        for freed in freed {
            self.group(freed.run.group).trimmed = None;
            self.release(freed.run);
            if freed.counted {
                self.ledger.committed(ClusterCount(freed.run.len.into()));
            }
        }
        if self.discard {
            self.to_discard.lock().extend(freed.iter().map(|freed| freed.run));
        }
    }

    /// With `-o discard`: discards the free runs that the commits since the last call left behind; how many clusters.
    ///
    /// # Errors
    /// Of the device, or of reading bitmaps.
    /// # Locks
    /// Waits for the device: none may be held.
    pub(crate) fn discard_freed(&self) -> Result<ClusterCount, Error> {
        let runs = core::mem::take(&mut *self.to_discard.lock());
        let mut sum = 0;
        for run in runs {
            sum += self.trim_group(run.group, run.start, run.end(), 1)?;
        }
        Ok(ClusterCount(sum))
    }

    /// Discards the free runs of at least `minimum` clusters that start in `range`; how many clusters.
    ///
    /// Groups that were trimmed as thoroughly and in which nothing was freed since are passed by.
    ///
    /// # Errors
    /// Of the device, or of reading bitmaps.
    /// # Locks
    /// Waits for the device: none may be held.
    /// # Source
    /// Kernel `ext4_trim_fs`.
    pub(crate) fn trim(&self, range: PhysicalRange, minimum: u32) -> Result<ClusterCount, Error> {
        let mut sum = 0;
        for group in self.geometry.groups() {
            let (first, clusters) =
                (self.layout.first_block(group), self.layout.clusters_in(group));
            let bits = self.layout.cluster_bits;
            let cluster = |block: u64| {
                u32::try_from(block.saturating_sub(first) >> bits).unwrap_or(u32::MAX).min(clusters)
            };
            let (start, end) = (cluster(range.start().get()), cluster(range.end().get()));
            let done = self.group(group).trimmed.is_some_and(|trimmed| trimmed <= minimum);
            if start < end && !done {
                let (group, len) = (group.get(), end - start);
                self.transactions.tracer().emit(|| Event::TrimAllFree { group, start, len });
                let group = BlockGroup(group);
                sum += self.trim_group(group, start, end, minimum)?;
                if (start, end) == (0, clusters) {
                    self.group(group).trimmed = Some(minimum);
                }
            }
        }
        Ok(ClusterCount(sum))
    }

    /// Discards free runs of a group that start in `start..end`, from there to their end.
    fn trim_group(
        &self,
        group: BlockGroup,
        start: u32,
        end: u32,
        minimum: u32,
    ) -> Result<u64, Error> {
        let (mut sum, mut at) = (0, start);
        while at < end {
            // Nobody can take the run while it is being discarded.
            let taken = self.with_buddy(group, |state, buddy| {
                let mut start = buddy.next_free(at);
                while start < end {
                    let len = buddy.next_used(start) - start;
                    if len >= minimum {
                        buddy.mark_used(start, len);
                        state.pinned += len;
                        return Some(Run { group, start, len });
                    }
                    start = buddy.next_free(start + len);
                }
                None
            })?;
            let Some(run) = taken.flatten() else { break };
            let io = self.transactions.io();
            let offset = io.offset(self.layout.block(group, run.start));
            let bytes = u64::from(run.len) << (self.layout.cluster_bits + self.layout.block_bits);
            let (blk, len) = (self.layout.block(run.group, run.start).get(), run.len);
            let tracer = self.transactions.tracer();
            tracer.emit(|| Event::TrimExtent { group: group.get(), start: run.start, len });
            let count = u64::from(len) << self.layout.cluster_bits;
            tracer.emit(|| Event::DiscardBlocks { blk, count });
            let outcome = io.run(&mut [Request::discard(offset, bytes)]);
            self.release(run);
            outcome?;
            sum += u64::from(run.len);
            at = run.end();
        }
        Ok(sum)
    }
}

impl CommitListener for Allocator {
    fn committed(&self, tid: TransactionId) {
        let freed = {
            let mut uncommitted = self.uncommitted.lock();
            let at = uncommitted.iter().position(|(other, _)| *other == tid);
            at.map(|at| uncommitted.swap_remove(at).1)
        };
        self.give_back(&freed.unwrap_or_default());
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn after_commit(&self) {
        if self.discard {
            let _task = self.transactions.tracer().task(Task::Flusher);
            // As the kernel: a device that discards nothing loses nothing.
            let _ = self.discard_freed();
        }
    }
}
