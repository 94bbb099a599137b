//! [`ExtentStatusTree`]: runs of one state, keyed by their first block.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use extant_format::{ClusterCount, ClusterRatio, InodeNumber, LogicalBlock, LogicalRange};

use super::account::StatusAccount;
use super::change::{Change, Tally};
use super::state::BlockState;
use crate::trace::{Event, StatusFlags};

/// What is known of each block of one file.
///
/// Source: kernel `fs/ext4/extents_status.c`, `struct ext4_es_tree`.
#[derive(Debug, Default)]
pub(crate) struct ExtentStatusTree {
    pub(super) runs: BTreeMap<LogicalBlock, Run>,
    /// A copy of the run that was set or found last, so that the next lookup need not descend (D11.5).
    pub(super) recent: Option<StatusEntry>,
    delayed_runs: usize,
    /// Where the next [`shrink`](Self::shrink) goes on.
    pub(super) shrink_from: LogicalBlock,
    precached: bool,
    /// Whose blocks these are, in events; a tree by itself tells none.
    owner: Option<InodeNumber>,
    account: Arc<StatusAccount>,
}

/// One run of blocks in one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct StatusEntry {
    /// Which blocks.
    pub(crate) blocks: LogicalRange,
    /// The state of the first; the others' places follow its own.
    pub(crate) state: BlockState,
    /// Looked up since the last [`ExtentStatusTree::shrink`] came by.
    pub(crate) referenced: bool,
}

/// A [`StatusEntry`] without its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) len: u32,
    pub(super) state: BlockState,
    pub(super) referenced: bool,
}

impl StatusEntry {
    /// The state of `block`, which lies inside.
    pub(crate) fn state_of(&self, block: LogicalBlock) -> BlockState {
        self.state
            .advanced(block.distance_from(self.blocks.start()).expect("the block lies in the run"))
    }

    /// The part inside `range`, if any.
    pub(crate) fn within(&self, range: LogicalRange) -> Option<Self> {
        let blocks = self.blocks.intersection(range)?;
        Some(Self { blocks, state: self.state_of(blocks.start()), ..*self })
    }

    /// Both as one run, if `next` begins where this ends and goes on with its state (D11.3).
    fn merged(&self, next: &Self) -> Option<Self> {
        let adjoin = self.blocks.end() == next.blocks.start().get();
        let same_kind = self.state.advanced(self.blocks.len()) == next.state;
        let blocks = LogicalRange::new(
            self.blocks.start().get(),
            self.blocks.len().checked_add(next.blocks.len())?,
        )?;
        let referenced = self.referenced || next.referenced;
        (adjoin && same_kind).then_some(Self { blocks, state: self.state, referenced })
    }
}

impl ExtentStatusTree {
    /// An empty tree that is counted in `account`.
    #[cfg(test)]
    pub(crate) fn new(account: Arc<StatusAccount>) -> Self {
        let mut tree = Self::default();
        tree.account = account;
        tree
    }

    /// An empty tree of the inode `owner` that is counted in `account`, and tells events as that does.
    pub(crate) fn of(owner: InodeNumber, account: Arc<StatusAccount>) -> Self {
        let mut tree = Self::default();
        tree.owner = Some(owner);
        tree.account = account;
        tree
    }

    fn tell(&self, event: impl FnOnce(InodeNumber) -> Event) {
        if let Some(owner) = self.owner {
            self.account.tracer.emit(|| event(owner));
        }
    }

    /// Makes `range` known as `state`: a place and its followers, or a hole. Says what that did to delayed blocks.
    ///
    /// Source: kernel `ext4_es_insert_extent`.
    pub(crate) fn set(
        &mut self,
        range: LogicalRange,
        state: BlockState,
        ratio: ClusterRatio,
    ) -> Change {
        assert!(!state.is_delayed(), "delayed blocks go in by insert_delayed");
        if self.account.is_bypassed() {
            return Change::default();
        }
        let (lblk, len) = (range.start().get(), range.len());
        self.tell(|ino| {
            let (pblk, status) = (state.traced_place(), state.into());
            Event::EsInsertExtent { ino, lblk, len, pblk, status }
        });
        let change = self.cut(range, ratio).finish(self, range, ratio);
        self.insert(range, state);
        change
    }

    /// Makes `range`, in which no block is delayed or has a place, known as delayed; the caller has reserved its space.
    ///
    /// Source: kernel `ext4_es_insert_delayed_extent`.
    pub(crate) fn insert_delayed(&mut self, range: LogicalRange) {
        if self.account.is_bypassed() {
            return;
        }
        let free = self.overlapping(range).all(|entry| entry.state == BlockState::Hole);
        assert!(free, "{range} is delayed twice, or has a place");
        let _ = self.cut(range, ClusterRatio::ONE); // only holes
        self.insert(range, BlockState::Delayed);
    }

    /// Forgets `range`. Says what that did to delayed blocks.
    ///
    /// Source: kernel `ext4_es_remove_extent`.
    pub(crate) fn remove(&mut self, range: LogicalRange, ratio: ClusterRatio) -> Change {
        if self.account.is_bypassed() {
            return Change::default();
        }
        let (lblk, len) = (range.start().get(), range.len());
        self.tell(|ino| Event::EsRemoveExtent { ino, lblk, len });
        self.cut(range, ratio).finish(self, range, ratio)
    }

    /// Takes in what was read from disk, unless something is known of any block of `range` (D11.10). Says whether it did.
    ///
    /// Source: kernel `ext4_es_cache_extent`.
    pub(crate) fn cache(&mut self, range: LogicalRange, state: BlockState) -> bool {
        assert!(!state.is_delayed(), "the disk knows no delayed blocks");
        if self.account.is_bypassed() {
            return false;
        }
        let (lblk, len) = (range.start().get(), range.len());
        self.tell(|ino| {
            let (pblk, status) = (state.traced_place(), state.into());
            Event::EsCacheExtent { ino, lblk, len, pblk, status }
        });
        let takes = self.overlapping(range).next().is_none();
        if takes {
            self.insert(range, state);
        }
        takes
    }

    /// The run around `block`, as it was before this lookup marked it referenced; counted as hit or miss (D11.6).
    ///
    /// Source: kernel `ext4_es_lookup_extent`.
    pub(crate) fn lookup(&mut self, block: LogicalBlock) -> Option<StatusEntry> {
        if self.account.is_bypassed() {
            return None;
        }
        self.tell(|ino| Event::EsLookupExtentEnter { ino, lblk: block.get() });
        let found =
            self.recent.filter(|entry| entry.blocks.contains(block)).or_else(|| self.around(block));
        self.account.looked_up(found.is_some());
        self.tell(|ino| {
            let (lblk, len, pblk, status) = traced(found);
            Event::EsLookupExtentExit { ino, found: found.is_some(), lblk, len, pblk, status }
        });
        let entry = found?;
        self.mark(entry);
        Some(entry)
    }

    /// Marks what has any of `blocks` referenced: something was found for the first, and used for the others.
    pub(crate) fn mark_used(&mut self, blocks: LogicalRange) {
        let mut next = Some(blocks.start());
        while let Some(block) = next.filter(|&block| blocks.contains(block)) {
            next = match self.around(block) {
                Some(entry) => {
                    self.mark(entry);
                    LogicalBlock::new(entry.blocks.end())
                }
                None => self.next_start(block),
            };
        }
    }

    fn mark(&mut self, entry: StatusEntry) {
        if !entry.referenced {
            self.runs.get_mut(&entry.blocks.start()).expect("just found").referenced = true;
            if let Some(recent) =
                self.recent.as_mut().filter(|recent| recent.blocks == entry.blocks)
            {
                recent.referenced = true;
            }
        }
    }

    /// Where the first run after `block` begins.
    pub(crate) fn next_start(&self, block: LogicalBlock) -> Option<LogicalBlock> {
        self.runs.range(block.checked_add(1)?..).next().map(|(&start, _)| start)
    }

    /// The first run that `matches` and intersects `range`; if the very first run that ends after the range's start matches,
    /// that one, even when it begins behind the range (D11.19).
    ///
    /// Source: kernel `ext4_es_find_extent_range`.
    pub(crate) fn find(
        &mut self,
        range: LogicalRange,
        matches: impl Fn(BlockState) -> bool,
    ) -> Option<StatusEntry> {
        if self.account.is_bypassed() {
            return None;
        }
        self.tell(|ino| Event::EsFindExtentRangeEnter { ino, lblk: range.start().get() });
        let candidates = self.from(range.start()).enumerate();
        let found = candidates
            .take_while(|(nth, entry)| *nth == 0 || entry.blocks.start() <= range.last())
            .find_map(|(_, entry)| matches(entry.state).then_some(entry));
        self.tell(|ino| {
            let (lblk, len, pblk, status) = traced(found);
            Event::EsFindExtentRangeExit { ino, lblk, len, pblk, status }
        });
        self.recent = found.or(self.recent);
        found
    }

    /// Whether any block of `range` is in a state that `matches`.
    ///
    /// Source: kernel `ext4_es_scan_range`, `ext4_es_scan_clu`.
    pub(crate) fn any(&self, range: LogicalRange, matches: impl Fn(BlockState) -> bool) -> bool {
        !self.account.is_bypassed() && self.overlapping(range).any(|entry| matches(entry.state))
    }

    /// The first delayed blocks in `range` that are one run.
    pub(crate) fn first_delayed(&self, range: LogicalRange) -> Option<LogicalRange> {
        let mut runs = self.overlapping(range).filter(|entry| entry.state.is_delayed());
        runs.next()?.blocks.intersection(range)
    }

    /// Whether any block of `range` is delayed.
    pub(crate) fn has_delayed(&self, range: LogicalRange) -> bool {
        self.delayed_runs > 0 && self.any(range, BlockState::is_delayed)
    }

    /// Takes in a hole that the disk has: `gap` around `block`, cut down where delayed blocks lie in it. Returns the part of
    /// `gap` from `block` on about which that makes certain, and what was taken in as a hole, if anything.
    ///
    /// Delayed blocks before `block`: the hole starts at `block`. Around it: nothing is taken in, and the answer is the rest of
    /// their run. Behind it: the hole ends there (D11.13).
    ///
    /// Source: kernel `fs/ext4/extents.c`, `ext4_ext_determine_insert_hole`.
    pub(crate) fn set_hole(
        &mut self,
        gap: LogicalRange,
        block: LogicalBlock,
    ) -> (LogicalRange, Option<LogicalRange>) {
        assert!(gap.contains(block), "{block} is not in the hole {gap}");
        let part = |start| LogicalRange::between(start, gap.end()).expect("a start in the gap");
        let mut start = gap.start();
        let end = loop {
            match self.find(part(start), BlockState::is_delayed).map(|delayed| delayed.blocks) {
                Some(delayed) if delayed.end() <= block.get() => start = block,
                Some(delayed) if delayed.contains(block) => {
                    return (delayed.intersection(part(block)).expect("both have the block"), None);
                }
                Some(delayed) => break delayed.start().get().min(gap.end()),
                None => break gap.end(),
            }
        };
        let hole = LogicalRange::between(start, end).expect("the block lies in the hole");
        let change = self.set(hole, BlockState::Hole, ClusterRatio::ONE);
        assert_eq!(change.blocks, 0, "the hole was cut down to leave out delayed blocks");
        (LogicalRange::between(block, end).expect("the block lies in the hole"), Some(hole))
    }

    /// Forgets all but delayed blocks, as `EXT4_IOC_CLEAR_ES_CACHE` asks (D11.17).
    pub(crate) fn clear_cached(&mut self) {
        self.forget_if(|run| !run.state.is_delayed());
        self.precached = false;
    }

    /// Every run, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = StatusEntry> + '_ {
        self.runs.iter().map(|(&start, run)| run.at(start))
    }

    /// How many runs there are; with [`reclaimable`](Self::reclaimable) the kernel's `i_es_all_nr` and `i_es_shk_nr`.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// How many runs may be forgotten.
    pub(crate) fn reclaimable(&self) -> usize {
        self.runs.len() - self.delayed_runs
    }

    /// Whether the file's whole map was read in on purpose, so that shrinking spares it in the first pass.
    pub(crate) fn is_precached(&self) -> bool {
        self.precached
    }

    /// Notes that the file's whole map was read in.
    pub(crate) fn set_precached(&mut self) {
        self.precached = true;
    }

    /// Recounts the delayed blocks and the clusters that have any.
    pub(crate) fn recount_delayed(&self, ratio: ClusterRatio) -> (u64, ClusterCount) {
        let (mut blocks, mut clusters, mut last) = (0, 0, None);
        for entry in self.entries().filter(|entry| entry.state.is_delayed()) {
            let (from, to) =
                (ratio.cluster_of(entry.blocks.start()).0, ratio.cluster_of(entry.blocks.last()).0);
            blocks += u64::from(entry.blocks.len());
            clusters += u64::from(to - from) + u64::from(last != Some(from));
            last = Some(to);
        }
        (blocks, ClusterCount(clusters))
    }

    /// Panics if an invariant of the header is broken.
    pub(crate) fn check_invariants(&self) {
        for (left, right) in self.entries().zip(self.entries().skip(1)) {
            assert!(left.blocks.end() <= right.blocks.start().get(), "{left:?} overlaps {right:?}");
            assert!(left.merged(&right).is_none(), "{left:?} and {right:?} are one run");
        }
        let delayed = self.entries().filter(|entry| entry.state.is_delayed()).count();
        assert_eq!(self.delayed_runs, delayed, "counted against present delayed runs");
        let recent =
            self.recent.is_none_or(|recent| self.around(recent.blocks.start()) == Some(recent));
        assert!(recent, "the last hit is out of date: {:?}", self.recent);
    }

    /// Puts in a run whose blocks are not known, merged with its neighbours.
    ///
    /// Source: kernel `__es_insert_extent`, `ext4_es_can_be_merged`.
    fn insert(&mut self, range: LogicalRange, state: BlockState) {
        let mut entry = StatusEntry { blocks: range, state, referenced: false };
        let before =
            self.runs.range(..range.start()).next_back().map(|(&start, run)| run.at(start));
        let after =
            LogicalBlock::new(range.end()).and_then(|end| Some(self.runs.get(&end)?.at(end)));
        if let Some(merged) = after.and_then(|after| entry.merged(&after)) {
            self.take(LogicalBlock::new(range.end()).expect("a run begins there"));
            entry = merged;
        }
        match before.and_then(|before| before.merged(&entry)) {
            Some(merged) => {
                entry = merged;
                let run = self.runs.get_mut(&entry.blocks.start()).expect("just found");
                (run.len, run.referenced) = (entry.blocks.len(), entry.referenced);
            }
            None => self.put(entry),
        }
        self.recent = Some(entry);
    }

    /// Takes `range` out of every run and counts the delayed blocks in it.
    ///
    /// Source: kernel `__es_remove_extent`.
    fn cut(&mut self, range: LogicalRange, ratio: ClusterRatio) -> Tally {
        let mut tally = Tally::default();
        loop {
            let next = self.overlapping(range).next();
            let Some(entry) = next else { break };
            let gone = entry.within(range).expect("it overlaps");
            if gone.state.is_delayed() {
                tally.add(gone.blocks, ratio);
            }
            self.recent = None;
            let tail = LogicalBlock::new(range.end())
                .and_then(|end| LogicalRange::between(end, entry.blocks.end()));
            match LogicalRange::between(entry.blocks.start(), range.start().get()) {
                Some(head) => {
                    self.runs.get_mut(&head.start()).expect("just found").len = head.len()
                }
                None => self.take(entry.blocks.start()),
            }
            if let Some(tail) = tail.and_then(|tail| entry.within(tail)) {
                self.put(tail);
                break;
            }
        }
        tally
    }

    /// The run around `block`; neither counted nor marked.
    pub(crate) fn around(&self, block: LogicalBlock) -> Option<StatusEntry> {
        let (&start, run) = self.runs.range(..=block).next_back()?;
        Some(run.at(start)).filter(|entry| entry.blocks.contains(block))
    }

    /// The runs that intersect `range`, in order.
    fn overlapping(&self, range: LogicalRange) -> impl Iterator<Item = StatusEntry> + '_ {
        self.from(range.start()).take_while(move |entry| entry.blocks.start() <= range.last())
    }

    /// The run around `block`, if any, and all behind it.
    fn from(&self, block: LogicalBlock) -> impl Iterator<Item = StatusEntry> + '_ {
        let first = self.around(block).map_or(block, |entry| entry.blocks.start());
        self.runs.range(first..).map(|(&start, run)| run.at(start))
    }

    fn put(&mut self, entry: StatusEntry) {
        let run = Run { len: entry.blocks.len(), state: entry.state, referenced: entry.referenced };
        let old = self.runs.insert(entry.blocks.start(), run);
        assert!(old.is_none(), "{entry:?} would replace {old:?}");
        self.delayed_runs += usize::from(entry.state.is_delayed());
        self.account.added(!entry.state.is_delayed());
    }

    fn take(&mut self, start: LogicalBlock) {
        let run = self.runs.remove(&start).expect("the caller has just found it");
        self.delayed_runs -= usize::from(run.state.is_delayed());
        self.account.dropped(!run.state.is_delayed());
    }

    /// Forgets every run for which `forget` says so; none of them delayed.
    pub(super) fn forget_if(&mut self, mut forget: impl FnMut(&Run) -> bool) {
        self.recent = None;
        let account = &self.account;
        self.runs.retain(|_, run| {
            let goes = forget(run);
            assert!(!(goes && run.state.is_delayed()), "a delayed run is never forgotten");
            if goes {
                account.dropped(true);
            }
            !goes
        });
    }

    /// Forgets the run that begins at `start`, which is not delayed.
    pub(super) fn forget(&mut self, start: LogicalBlock) {
        self.recent = None;
        self.take(start);
    }
}

impl Run {
    fn at(&self, start: LogicalBlock) -> StatusEntry {
        let blocks =
            LogicalRange::new(start.get(), self.len).expect("it was a range when it came in");
        StatusEntry { blocks, state: self.state, referenced: self.referenced }
    }
}

impl Drop for ExtentStatusTree {
    fn drop(&mut self) {
        for run in self.runs.values() {
            self.account.dropped(!run.state.is_delayed());
        }
    }
}

/// What events say of a run: its first block, length, place and status; zeroes of none.
fn traced(entry: Option<StatusEntry>) -> (u32, u32, u64, StatusFlags) {
    entry.map_or((0, 0, 0, StatusFlags::default()), |entry| {
        let status =
            StatusFlags::from(entry.state).with_if(StatusFlags::REFERENCED, entry.referenced);
        (entry.blocks.start().get(), entry.blocks.len(), entry.state.traced_place(), status)
    })
}
