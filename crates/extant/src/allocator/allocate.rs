//! From a request to blocks: claim, preallocation, search, marking.
//!
//! Source: kernel `fs/ext4/mballoc.c`: `ext4_mb_new_blocks`, `ext4_mb_initialize_context`, `ext4_mb_discard_preallocations`.

use super::Allocator;
use super::criteria::{Outcome, Query, search};
use super::group::Searched;
use super::layout::Run;
use super::normalize::{Goal, file_or_group, normalize};
use super::preallocation::{last_group_needed, place};
use super::request::{Allocation, AllocationFlags, AllocationRequest};
use crate::Error;
use crate::block_io::Tally;
use crate::delayed::{Claim, Privilege};
use crate::trace::Event;
use crate::transaction::Handle;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::{
    BlockGroup, ClusterCount, InodeNumber, LogicalBlock, PhysicalBlock, PhysicalRange,
};

impl Allocator {
    /// Takes blocks for `request`, as many as can be had in one run and at most as many as asked for.
    ///
    /// The ledger's free clusters fall by what was taken. With `DELALLOC_RESERVED` the ledger is not asked whether it may: the
    /// caller then spends its reservation by `Reservation::spend`. Dirties two blocks: a bitmap and a descriptor block.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TransactionFull`], [`Error::Corrupt`], or of reading; nothing is taken then.
    /// # Locks
    /// A locality group (75) and leaves, none while bitmaps are read. The caller holds `Inode::map` for writing.
    pub(crate) fn allocate(
        &self,
        handle: &mut Handle<'_>,
        request: &AllocationRequest,
    ) -> Result<Allocation, Error> {
        Tally::add(&self.transactions.io().tally.allocator_calls, 1);
        let (aligned, offset) = self.align(request);
        // The goal is told as it was asked for, though it may lie past the end of the volume.
        let goal = request.goal.checked_sub(offset.into()).unwrap_or(aligned.goal);
        let told = AllocationRequest { goal, ..aligned };
        self.tell_request(&told, offset);
        let (mut aligned, mut claim) = (aligned, None);
        if self.takes_single(request) {
            aligned.len = self.layout.cluster_ratio();
        }
        if !request.flags.contains(AllocationFlags::DELALLOC_RESERVED) {
            let (claimed, clusters) = self.claim(aligned.len, request.flags, handle.privilege())?;
            aligned.len = aligned.len.min(clusters << self.layout.cluster_bits);
            claim = Some(claimed);
        }
        let outcome = self.allocate_claimed(handle, request, aligned, claim, offset);
        self.tell_answer(&told, offset, outcome.as_ref().ok());
        outcome
    }

    fn allocate_claimed(
        &self,
        handle: &mut Handle<'_>,
        request: &AllocationRequest,
        aligned: AllocationRequest,
        claim: Option<Claim>,
        offset: u32,
    ) -> Result<Allocation, Error> {
        let run = self.find(handle, &aligned)?;
        let clusters = ClusterCount(run.len.into());
        match claim {
            Some(claim) => claim.allocated(clusters),
            None => self.ledger.allocated(clusters),
        }
        let start = self.layout.block(run.group, run.start).get() + u64::from(offset);
        let len = (u64::from(run.len) << self.layout.cluster_bits) - u64::from(offset);
        let blocks = PhysicalRange::new(PhysicalBlock::new(start), len.min(request.len.into()));
        Ok(Allocation {
            blocks: blocks.expect("a run has a cluster, and the offset is inside"),
            clusters,
        })
    }

    /// Takes the first free cluster from `goal` on, around the volume, out of its buddy; its bitmap is not marked yet.
    fn first_free(&self, goal: PhysicalBlock) -> Result<Option<Run>, Error> {
        let (first, from) = self.layout.place(goal).unwrap_or_default();
        let others = (first.0 + 1..self.layout.groups).chain(0..=first.0);
        let others = others.map(|group| (BlockGroup(group), 0));
        for (group, from) in [(first, from)].into_iter().chain(others) {
            let found = self.with_buddy(group, |state, buddy| {
                let start = buddy.next_free(from);
                (start < buddy.clusters()).then(|| {
                    buddy.mark_used(start, 1);
                    state.pinned += 1;
                    Run { group, start, len: 1 }
                })
            })?;
            if let Some(run) = found.flatten() {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Whether a request is for data block by block: see [`AllocatorOptions::exact`](super::AllocatorOptions).
    fn takes_single(&self, request: &AllocationRequest) -> bool {
        use AllocationFlags as F;
        self.exact
            && !request.file.block_mapped // their block numbers have an end that only the search knows
            && request.flags.contains(F::HINT_DATA)
            && !request.flags.intersects(F::DELALLOC_RESERVED | F::HINT_NOPREALLOC)
    }

    /// Drops what is set aside for `inode`: how many preallocations there were.
    ///
    /// Source: kernel `ext4_discard_preallocations`.
    pub(crate) fn discard_preallocations(&self, inode: InodeNumber) -> u32 {
        let (len, left) = self.inode_preallocations.lock().discard(inode);
        self.transactions.tracer().emit(|| Event::DiscardPreallocations { ino: inode, len });
        left.into_iter().for_each(|run| self.give_up_aside(Some(inode), run));
        len
    }

    /// The request from a cluster's start on, within one group and with a goal inside the volume; and how far its first block
    /// lies inside the cluster.
    fn align(&self, request: &AllocationRequest) -> (AllocationRequest, u32) {
        let layout = &self.layout;
        let offset = request.logical.get() & (layout.cluster_ratio() - 1);
        let logical = request.logical.checked_sub(offset).unwrap_or(LogicalBlock::ZERO);
        let len = request.len.saturating_add(offset).min(layout.blocks_per_group);
        let goal = request.goal.checked_sub(offset.into()).filter(|&goal| layout.contains(goal));
        let goal = goal.unwrap_or(PhysicalBlock::new(layout.first_data_block));
        (AllocationRequest { logical, len, goal, ..*request }, offset)
    }

    /// Holds space for as many of `len` blocks as the ledger lets go of, halving the wish until it does.
    fn claim(
        &self,
        len: u32,
        flags: AllocationFlags,
        caller: Privilege,
    ) -> Result<(Claim, u32), Error> {
        let pool = AllocationFlags::USE_RESERVED | AllocationFlags::MAP_OF_RESERVED;
        let privilege = if flags.intersects(pool) { Privilege::Metadata } else { caller };
        let mut clusters = self.layout.clusters(len);
        loop {
            match self.ledger.claim(ClusterCount(clusters.into()), privilege) {
                Ok(claim) => return Ok((claim, clusters)),
                Err(error) if clusters <= 1 => return Err(error),
                Err(_) => clusters /= 2,
            }
        }
    }

    /// One run for the request, marked in its bitmap: from what was set aside, or from a search.
    fn find(&self, handle: &mut Handle<'_>, request: &AllocationRequest) -> Result<Run, Error> {
        use AllocationFlags as F;
        if let Some(line) = &self.line {
            return self.find_next(handle, line, request);
        }
        if self.takes_single(request) {
            let run = self.first_free(request.goal)?.ok_or_else(|| Error::NoSpace {
                wanted: ClusterCount(1),
                free: self.ledger.free_space().free,
            })?;
            return self.mark_taken(handle, run, run);
        }
        let layout = &self.layout;
        let exact = if self.exact { F::HINT_NOPREALLOC } else { F::empty() };
        let flags = request.flags | exact | file_or_group(request, layout, &self.tunables, false);
        let request = &AllocationRequest { flags, ..*request };
        let (logical, wanted) = (request.logical.get(), layout.clusters(request.len));
        if flags.contains(F::HINT_DATA) {
            let reachable = |run| {
                !request.file.block_mapped
                    || layout.block(run_end(run).0, run_end(run).1).get() <= BLOCK_MAPPED_END
            };
            let served = self.inode_preallocations.lock().serve(
                layout,
                request.inode,
                logical,
                wanted,
                reachable,
            );
            if let Some(run) = served {
                self.tell_served(request, run);
                return self.mark_taken(handle, run, run);
            }
        }
        if flags.contains(F::HINT_GROUP_ALLOC) {
            return self.find_small(handle, request);
        }
        let served = self.inode_preallocations.lock().around(layout, request.inode, logical);
        let goal = normalize(request, layout, &self.tunables, served);
        let (outcome, found) = self.search_again(request, goal)?;
        if found.len <= wanted {
            self.tell_search(request, goal, &outcome);
            return self.mark_taken(handle, found, found);
        }
        let blocks = |clusters: u32| u64::from(clusters) << layout.cluster_bits;
        let (goal_start, first) = (u64::from(goal.logical), u64::from(logical));
        let start = match found.len < goal.len {
            true => place(
                (goal_start, goal_start + blocks(goal.len)),
                (first, first + blocks(wanted)),
                blocks(found.len),
            ),
            false => goal_start,
        };
        let skip = u32::try_from((first - start) >> layout.cluster_bits).unwrap_or(0);
        let run = Run { start: found.start + skip, len: wanted.min(found.len - skip), ..found };
        let logical_start = u32::try_from(start).unwrap_or(logical);
        self.tell_set_aside(request.inode, found, Some(logical_start));
        self.tell_search(request, goal, &outcome);
        self.mark_taken(handle, run, found)?;
        let mut preallocations = self.inode_preallocations.lock();
        preallocations.insert(request.inode, logical_start, found);
        let served = preallocations.serve(layout, request.inode, logical, run.len, |_| true);
        debug_assert_eq!(served, Some(run), "a new preallocation serves its own request");
        Ok(run)
    }

    /// Serves a small file from its locality group's preallocations, or from a new one.
    fn find_small(
        &self,
        handle: &mut Handle<'_>,
        request: &AllocationRequest,
    ) -> Result<Run, Error> {
        let layout = &self.layout;
        let wanted = layout.clusters(request.len);
        let shard = usize_from(request.inode.get()) % self.localities.len();
        let distance =
            |run: Run| layout.block(run.group, run.start).get().abs_diff(request.goal.get());
        let kept = self.localities[shard].lock().take(wanted, distance);
        let found = match kept {
            Some(run) => {
                self.tell_served(request, Run { len: wanted.min(run.len), ..run });
                run
            }
            None => {
                // Nobody waits for this search; what two of them set aside at once serves later requests.
                let goal = normalize(request, layout, &self.tunables, Default::default());
                let (outcome, run) = self.search_again(request, goal)?;
                if run.len > wanted {
                    self.tell_set_aside(request.inode, run, None);
                }
                self.tell_search(request, goal, &outcome);
                run
            }
        };
        let run = Run { len: wanted.min(found.len), ..found };
        self.mark_taken(handle, run, found)?;
        let rest = Run { start: run.end(), len: found.len - run.len, ..found };
        let dropped = self.localities[shard].lock().file(rest);
        dropped.into_iter().for_each(|run| self.give_up_aside(None, run));
        Ok(run)
    }

    /// Searches again while preallocations can be dropped or others free space; always for the same goal, though what it
    /// made room for may be gone by then.
    fn search_again(
        &self,
        request: &AllocationRequest,
        goal: Goal,
    ) -> Result<(Outcome, Run), Error> {
        let wanted = self.layout.clusters(request.len);
        let (mut attempt, mut last) = (0, None);
        loop {
            let changes = self.changes.load(Ordering::Relaxed);
            let outcome = self.search(request, goal, last.as_ref())?;
            if let Some(run) = outcome.run {
                return Ok((outcome, run));
            }
            attempt += 1;
            let dropped = attempt < MAX_ATTEMPTS && self.drop_preallocations(wanted);
            let is_last = !dropped && self.changes.load(Ordering::Relaxed) == changes;
            if is_last || attempt == MAX_ATTEMPTS {
                self.tell_search(request, goal, &outcome);
                return Err(Error::NoSpace {
                    wanted: ClusterCount(wanted.into()),
                    free: self.ledger.free_space().free,
                });
            }
            last = Some(outcome);
        }
    }

    /// One search; it goes on from where `last`, which found nothing, has come.
    fn search(
        &self,
        request: &AllocationRequest,
        goal: Goal,
        last: Option<&Outcome>,
    ) -> Result<Outcome, Error> {
        use AllocationFlags as F;
        Tally::add(&self.transactions.io().tally.allocator_searches, 1);
        let layout = &self.layout;
        let mut flags = request.flags;
        flags.set(F::HINT_TRY_GOAL, flags.contains(F::HINT_TRY_GOAL) || goal.adjacent.is_some());
        let (group, start) =
            layout.place(goal.adjacent.unwrap_or(request.goal)).unwrap_or_default();
        let slot = &self.stream_goals[usize_from(request.inode.get()) % self.stream_goals.len()];
        let groups = match request.file.block_mapped {
            true => {
                (BLOCK_MAPPED_END - layout.first_data_block) / u64::from(layout.blocks_per_group)
            }
            false => layout.groups.into(),
        };
        let query = Query {
            group,
            start: Some(start),
            len: goal.len,
            wanted: layout.clusters(request.len),
            flags,
            stream_group: BlockGroup(slot.load(Ordering::Relaxed)),
            groups: u32::try_from(groups).unwrap_or(u32::MAX),
            looked: (0, 0),
        };
        let query = match last {
            None => query,
            Some(last) => {
                let ((group, start, _), flags) = (last.goal, last.flags);
                Query { group, start, flags, looked: (last.found, last.scanned), ..query }
            }
        };
        let searched = Searched { allocator: self };
        let outcome = search(&searched, layout, &self.tunables, query)?;
        if let Some(run) = outcome.run.filter(|_| flags.contains(F::STREAM_ALLOC)) {
            slot.store(run.group.0, Ordering::Relaxed);
        }
        Ok(outcome)
    }

    /// Marks `run` in its bitmap; if that fails, `all` of what was pinned around it goes back to the buddy.
    pub(super) fn mark_taken(
        &self,
        handle: &mut Handle<'_>,
        run: Run,
        all: Run,
    ) -> Result<Run, Error> {
        let start = self.layout.block(run.group, run.start);
        let range = PhysicalRange::new(start, u64::from(run.len) << self.layout.cluster_bits);
        if range.is_none_or(|range| self.zones.overlaps(None, range)) {
            // The blocks stay marked as used in the buddy.
            let broken = Place::Group(run.group).breaks(Rule::MetadataFree);
            self.set_aside(self.group(run.group), broken);
            return Err(broken.into());
        }
        self.mark(handle, run, true).inspect_err(|_| self.release(all))?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(run)
    }

    /// Drops the preallocations of the lowest groups until `needed` clusters are free; whether there were any.
    fn drop_preallocations(&self, needed: u32) -> bool {
        self.transactions.tracer().emit(|| Event::MbDiscardPreallocations { needed });
        let mut left: Vec<Run> = self.inode_preallocations.lock().left().collect();
        for locality in &self.localities {
            left.extend(locality.lock().left());
        }
        let Some(last) = last_group_needed(left, needed) else { return false };
        let chosen = |group| group <= last;
        let of_inodes = self.inode_preallocations.lock().discard_groups(chosen);
        let mut dropped: Vec<_> =
            of_inodes.into_iter().map(|(owner, run)| (Some(owner), run)).collect();
        for locality in &self.localities {
            let shared = locality.lock().discard_groups(chosen);
            dropped.extend(shared.into_iter().map(|run| (None, run)));
        }
        let any = !dropped.is_empty();
        dropped.into_iter().for_each(|(owner, run)| self.give_up_aside(owner, run));
        any
    }
}

/// The place after a run.
fn run_end(run: Run) -> (BlockGroup, u32) {
    (run.group, run.end())
}

/// How often a search is made, the first one included.
const MAX_ATTEMPTS: u32 = 3;
/// Block-mapped files store block numbers in 32 bits.
const BLOCK_MAPPED_END: u64 = 0xFFFF_FFFF;
