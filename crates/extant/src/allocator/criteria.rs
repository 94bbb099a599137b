//! The search for space: at the goal, then criterion by criterion over the groups.
//!
//! Source: kernel `fs/ext4/mballoc.c`: `ext4_mb_regular_allocator`, `ext4_mb_find_by_goal`, `ext4_mb_scan_groups*`,
//! `ext4_mb_good_group`, `ext4_mb_*_scan_group`, `ext4_mb_measure_extent`, `ext4_mb_check_limits`.
//! Differs: no group is skipped because its lock is busy; bitmaps are read ahead of the search only for its next one.

use super::buddy::{Broken, Buddy, fragment_order};
use super::layout::{Layout, Run};
use super::request::{AllocationFlags, Tunables};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Range;
use extant_format::BlockGroup;
use extant_format::cast::usize_from;

/// How demanding the search is; rises until something is found.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Criterion {
    /// A power of two, as one aligned chunk.
    Power2Aligned,
    /// Groups whose average free run is long enough.
    GoalLengthFast,
    /// The same with a shorter length.
    BestAvailableLength,
    /// Every group with enough free clusters.
    GoalLengthSlow,
    /// Whatever is free.
    AnyFree,
    /// All were tried; the best that was seen is taken.
    Exhausted,
}

impl Criterion {
    fn next(self) -> Self {
        match self {
            Self::Power2Aligned => Self::GoalLengthFast,
            Self::GoalLengthFast => Self::BestAvailableLength,
            Self::BestAvailableLength => Self::GoalLengthSlow,
            Self::GoalLengthSlow => Self::AnyFree,
            Self::AnyFree | Self::Exhausted => Self::Exhausted,
        }
    }

    fn is_expensive(self) -> bool {
        self >= Self::GoalLengthSlow
    }
}

/// What is known of a group without its buddy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Summary {
    /// Free clusters; the descriptor's count until the buddy was built.
    pub(super) free: u32,
    pub(super) fragments: u32,
    pub(super) largest_free_order: Option<u32>,
    /// The buddy was built once.
    pub(super) initialised: bool,
    /// The buddy can be built without reading anything.
    pub(super) computable: bool,
    /// Nothing may be allocated or freed here.
    pub(super) corrupt: bool,
}

impl Summary {
    /// Brings the numbers up to date with the buddy.
    pub(super) fn refresh(&mut self, buddy: &Buddy) {
        self.initialised = true;
        self.free = buddy.free();
        self.fragments = buddy.fragments();
        self.largest_free_order = buddy.largest_free_order();
    }
}

/// The groups as the search sees them.
pub(super) trait Groups {
    /// Why a group could not be loaded.
    type Error;

    /// What is known of `group`.
    fn summary(&self, group: BlockGroup) -> Summary;

    /// Calls `look` with the group's buddy under the group's lock, building it first if need be; `None` if the group is corrupt.
    fn with_buddy<R>(
        &self,
        group: BlockGroup,
        look: impl FnOnce(&mut Buddy) -> R,
    ) -> Result<Option<R>, Self::Error>;

    /// The first group of `range` in an ordered set.
    fn next_in(&self, set: Set, range: Range<u32>) -> Option<BlockGroup>;

    /// Whether the group's bitmap has to be read before its buddy can be built, which was not asked before.
    fn is_first_read(&self, group: BlockGroup) -> bool;
}

/// One of the sets in which groups with built buddies are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Set {
    /// Groups whose largest free chunk has this order.
    LargestOrder(u32),
    /// Groups whose free runs have this order on average.
    AverageOrder(u32),
}

/// Groups by largest chunk and by average free run, for searches that do not visit every group.
#[derive(Debug, Default)]
pub(super) struct OrderedSets {
    largest: Vec<BTreeSet<u32>>,
    average: Vec<BTreeSet<u32>>,
    /// Where each group was put, and the version of its buddy then.
    known: BTreeMap<u32, (u64, Orders)>,
}

impl OrderedSets {
    /// Moves `group` to the sets of `orders`, unless news of a later version came first.
    pub(super) fn update(&mut self, group: BlockGroup, version: u64, orders: Orders) {
        let (known, old) = self.known.entry(group.0).or_default();
        if *known >= version {
            return;
        }
        *known = version;
        let old = core::mem::replace(old, orders);
        let change = |sets: &mut Vec<BTreeSet<u32>>, old: Option<u32>, new: Option<u32>| {
            if old == new {
                return;
            }
            if let Some(set) = old.and_then(|order| sets.get_mut(usize_from(order))) {
                set.remove(&group.0);
            }
            if let Some(order) = new.map(usize_from) {
                sets.resize_with(sets.len().max(order + 1), BTreeSet::new);
                sets[order].insert(group.0);
            }
        };
        change(&mut self.largest, old.largest, orders.largest);
        change(&mut self.average, old.average, orders.average);
    }

    /// The first group of `range` in `set`.
    pub(super) fn next_in(&self, set: Set, range: Range<u32>) -> Option<BlockGroup> {
        let (sets, order) = match set {
            Set::LargestOrder(order) => (&self.largest, order),
            Set::AverageOrder(order) => (&self.average, order),
        };
        if range.is_empty() {
            return None;
        }
        sets.get(usize_from(order))?.range(range).next().map(|&group| BlockGroup(group))
    }
}

/// The sets that a group belongs to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Orders {
    pub(super) largest: Option<u32>,
    pub(super) average: Option<u32>,
}

impl Orders {
    /// The sets of a group with this buddy.
    pub(super) fn of(buddy: &Buddy) -> Self {
        Self { largest: buddy.largest_free_order(), average: buddy.average_order() }
    }
}

/// What to search for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    /// Where to begin.
    pub(super) group: BlockGroup,
    /// The cluster wished for in that group, if any is.
    pub(super) start: Option<u32>,
    /// Clusters after normalisation.
    pub(super) len: u32,
    /// Clusters that the request needs.
    pub(super) wanted: u32,
    pub(super) flags: AllocationFlags,
    /// Where the last stream allocation went; used instead of the goal when the request is a stream.
    pub(super) stream_group: BlockGroup,
    /// Groups from this one on are out of reach.
    pub(super) groups: u32,
    /// How many chunks were measured and groups scanned by searches for the same that found nothing.
    pub(super) looked: (u32, u32),
}

/// How a search ended; for the caller and for the event `ext4_mballoc_alloc`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Outcome {
    /// What was taken, marked used in its buddy; at most the length searched for.
    pub(super) run: Option<Run>,
    /// The goal as the search left it: a start of `None` prints as -1.
    pub(super) goal: (BlockGroup, Option<u32>, u32),
    pub(super) flags: AllocationFlags,
    pub(super) criterion: Criterion,
    /// Chunks measured.
    pub(super) found: u32,
    /// Groups scanned.
    pub(super) scanned: u32,
    pub(super) broken: Broken,
}

/// Searches all groups; what was found is marked used in its buddy.
///
/// # Errors
/// The first failure to load a group, if nothing was found in the others.
pub(super) fn search<G: Groups>(
    groups: &G,
    layout: &Layout,
    tunables: &Tunables,
    query: Query,
) -> Result<Outcome, G::Error> {
    let mut search = Search {
        groups,
        layout,
        tunables,
        limit: query.groups.min(layout.groups),
        wanted: query.wanted,
        original_len: query.len,
        order2: None,
        ahead: Ahead::default(),
        best: Run::default(),
        status: Status::Continue,
        error: None,
        outcome: Outcome {
            run: None,
            goal: (query.group, query.start, query.len),
            flags: query.flags,
            criterion: Criterion::Power2Aligned,
            found: query.looked.0,
            scanned: query.looked.1,
            broken: Broken::default(),
        },
    };
    search.run(query.stream_group);
    search.load_ahead();
    match (search.outcome.run, search.error) {
        (None, Some(error)) => Err(error),
        _ => Ok(search.outcome),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Continue,
    Found,
    Break,
}

struct Search<'a, G: Groups> {
    groups: &'a G,
    layout: &'a Layout,
    tunables: &'a Tunables,
    limit: u32,
    wanted: u32,
    original_len: u32,
    /// log2 of the length, if the search begins with powers of two.
    order2: Option<u32>,
    ahead: Ahead,
    /// The best run seen so far; empty if none.
    best: Run,
    status: Status,
    error: Option<G::Error>,
    outcome: Outcome,
}

/// Groups whose buddies are built after the search, for the next one, which passes by groups without.
///
/// Source: kernel `ext4_mb_might_prefetch`.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    /// The group from which on more are added.
    next: u32,
    /// How many before `next`, around the volume.
    count: u32,
    /// Bitmaps that had to be read for it.
    reads: u32,
}

impl<G: Groups> Search<'_, G> {
    fn run(&mut self, stream_group: BlockGroup) {
        self.try_goal();
        if self.status == Status::Found
            || self.outcome.flags.contains(AllocationFlags::HINT_GOAL_ONLY)
        {
            return;
        }
        let len = self.len();
        let order = len.checked_ilog2().unwrap_or(0);
        let in_reach = order + 1 >= self.tunables.order2_req && order < self.layout.block_bits + 2;
        self.order2 = (order > 0 && in_reach && len.is_power_of_two()).then_some(order);
        if self.outcome.flags.contains(AllocationFlags::STREAM_ALLOC) {
            self.outcome.goal = (stream_group, None, len);
            self.outcome.flags.remove(AllocationFlags::HINT_TRY_GOAL);
        }
        if self.outcome.goal.0.0 >= self.limit {
            self.outcome.goal.0 = BlockGroup(0);
        }
        self.outcome.criterion = if self.order2.is_some() {
            Criterion::Power2Aligned
        } else {
            Criterion::GoalLengthFast
        };
        self.scan_by_criteria();
        if self.best.len > 0 && self.status != Status::Found {
            self.try_best();
            if self.status != Status::Found {
                // Somebody else took it: now the first free run will do.
                self.best = Run::default();
                self.status = Status::Continue;
                self.outcome.flags.insert(AllocationFlags::HINT_FIRST);
                self.outcome.criterion = Criterion::AnyFree;
                self.scan_by_criteria();
            }
        }
    }

    fn len(&self) -> u32 {
        self.outcome.goal.2
    }

    fn with_buddy<R>(
        &mut self,
        group: BlockGroup,
        look: impl FnOnce(&mut Self, &mut Buddy) -> R,
    ) -> Option<R> {
        let groups = self.groups;
        match groups.with_buddy(group, |buddy| look(self, buddy)) {
            Ok(result) => result,
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }

    fn try_goal(&mut self) {
        let (group, Some(start), len) = self.outcome.goal else { return };
        let wanted = AllocationFlags::HINT_TRY_GOAL | AllocationFlags::HINT_GOAL_ONLY;
        let in_reach = group.0 < self.limit && self.groups.summary(group).free > 0;
        if !self.outcome.flags.intersects(wanted) || !in_reach {
            return;
        }
        let block = self.layout.block(group, start).get();
        let stripe = u64::from(self.tunables.stripe);
        let of_stripe = stripe > 0 && len == self.layout.clusters(self.tunables.stripe);
        if of_stripe && !block.is_multiple_of(stripe) {
            return;
        }
        self.with_buddy(group, |search, buddy| {
            let found = buddy.find_extent(start, len);
            if found >= len {
                search.outcome.found += 1;
                search.best = Run { group, start, len: found };
                search.take_best(buddy);
            }
        });
    }

    fn try_best(&mut self) {
        self.with_buddy(self.best.group, |search, buddy| {
            search.best.len = buddy.find_extent(search.best.start, search.best.len);
            if search.best.len > 0 {
                search.take_best(buddy);
            }
        });
    }

    fn take_best(&mut self, buddy: &mut Buddy) {
        self.best.len = self.best.len.min(self.len());
        self.outcome.broken = buddy.mark_used(self.best.start, self.best.len);
        self.outcome.run = Some(self.best);
        self.status = Status::Found;
    }

    fn scan_by_criteria(&mut self) {
        while self.outcome.criterion < Criterion::Exhausted && self.status == Status::Continue {
            let criterion = self.outcome.criterion;
            let optimised = self.tunables.optimize_scan && !criterion.is_expensive();
            let start = self.outcome.goal.0.0;
            self.ahead = Ahead { next: start, count: 0, ..self.ahead };
            if !optimised {
                self.scan_linear(start, self.limit);
                if self.status == Status::Continue {
                    self.outcome.criterion = criterion.next();
                }
                continue;
            }
            let start = self.scan_linear(start, self.tunables.max_linear_groups.min(self.limit));
            self.scan_sets(criterion, start..self.limit);
            self.scan_sets(criterion, 0..start);
            if self.status == Status::Continue {
                self.outcome.goal.2 = self.original_len;
                let data = self.outcome.flags.contains(AllocationFlags::HINT_DATA);
                let skip = criterion == Criterion::GoalLengthFast && !data;
                self.outcome.criterion =
                    if skip { Criterion::GoalLengthSlow } else { criterion.next() };
            }
        }
    }

    /// Scans `count` groups in turn, and returns the one after the last.
    fn scan_linear(&mut self, start: u32, count: u32) -> u32 {
        let mut group = start;
        for _ in 0..count {
            self.scan_group(BlockGroup(group));
            if self.status != Status::Continue {
                break;
            }
            group = if group + 1 < self.limit { group + 1 } else { 0 };
        }
        group
    }

    fn scan_sets(&mut self, criterion: Criterion, range: Range<u32>) {
        let top = self.layout.block_bits + 2;
        let len = self.len();
        match criterion {
            Criterion::Power2Aligned => {
                for order in self.order2.unwrap_or(top)..top {
                    self.scan_set(Set::LargestOrder(order), range.clone());
                }
            }
            Criterion::GoalLengthFast => {
                for order in fragment_order(len, top)..top {
                    self.scan_set(Set::AverageOrder(order), range.clone());
                }
            }
            Criterion::BestAvailableLength => {
                let stripe = self.layout.clusters(self.tunables.stripe);
                let order = self.original_len.checked_ilog2().unwrap_or(0);
                for order in (self.shortest_order(order, stripe)..=order).rev() {
                    if self.status == Status::Continue {
                        let len = 1_u32 << order;
                        self.outcome.goal.2 =
                            if stripe > 0 { len.next_multiple_of(stripe) } else { len };
                        self.scan_set(
                            Set::AverageOrder(fragment_order(self.len(), top)),
                            range.clone(),
                        );
                    }
                }
            }
            Criterion::GoalLengthSlow | Criterion::AnyFree | Criterion::Exhausted => {}
        }
    }

    /// How far a request of `2^order` clusters may be shortened.
    fn shortest_order(&self, order: u32, stripe: u32) -> u32 {
        let mut min = order.saturating_sub(self.tunables.best_avail_max_trim_order);
        if stripe > 0 && 1 << min < stripe {
            min = stripe.ilog2();
        }
        if 1 << min < self.wanted { self.wanted.ilog2() + 1 } else { min }
    }

    fn scan_set(&mut self, set: Set, mut range: Range<u32>) {
        while self.status == Status::Continue {
            let Some(group) = self.groups.next_in(set, range.clone()) else { break };
            self.scan_group(group);
            range.start = group.0 + 1;
        }
    }

    /// Takes the groups from `group` on, to the end of their flex group, for those to be loaded after the search.
    fn look_ahead(&mut self, group: BlockGroup) {
        let (flex, groups) = (self.layout.flex_size(), self.layout.groups);
        let (wanted, in_flight) = match self.layout.flex_bits {
            0 => (AHEAD_WITHOUT_FLEX, AHEAD_WITHOUT_FLEX),
            _ => (flex - group.0 % flex, flex.saturating_mul(AHEAD_FLEX_GROUPS)),
        };
        let most = in_flight.saturating_mul(4).min(groups);
        let is_cheap = !self.outcome.criterion.is_expensive();
        if self.ahead.next != group.0 || is_cheap && self.ahead.reads >= most {
            return;
        }
        self.ahead.count = wanted.min(in_flight).min(groups);
        for _ in 0..self.ahead.count {
            let next = BlockGroup(self.ahead.next);
            self.ahead.reads += u32::from(self.groups.is_first_read(next));
            self.ahead.next = if next.0 + 1 < groups { next.0 + 1 } else { 0 };
        }
    }

    /// Builds the buddies of the groups that were looked ahead at; what cannot be read will be told to who needs it.
    ///
    /// Source: kernel `ext4_mb_prefetch_fini`.
    fn load_ahead(&mut self) {
        let mut group = self.ahead.next;
        for _ in 0..self.ahead.count {
            group = group.checked_sub(1).unwrap_or(self.layout.groups - 1);
            let summary = self.groups.summary(BlockGroup(group));
            if !summary.initialised
                && summary.free > 0
                && self.groups.with_buddy(BlockGroup(group), |_| ()).is_err()
            {
                return;
            }
        }
    }

    fn scan_group(&mut self, group: BlockGroup) {
        self.look_ahead(group);
        let summary = self.groups.summary(group);
        let criterion = self.outcome.criterion;
        let enough = criterion == Criterion::AnyFree || summary.free >= self.len();
        if summary.corrupt || summary.free == 0 || !enough {
            return;
        }
        let first_of_flex =
            self.layout.flex_bits > 0 && group.0.is_multiple_of(self.layout.flex_size());
        if summary.initialised {
            if !self.is_good(group, &summary) {
                return;
            }
        } else if !criterion.is_expensive() && !first_of_flex && !summary.computable {
            return;
        }
        self.with_buddy(group, |search, buddy| {
            let mut summary = summary;
            summary.refresh(buddy);
            if search.is_good(group, &summary) {
                search.outcome.scanned += 1;
                search.scan_buddy(group, buddy);
            }
        });
    }

    fn is_good(&self, group: BlockGroup, summary: &Summary) -> bool {
        let Some(average) = summary.free.checked_div(summary.fragments) else { return false };
        let len = self.len();
        let data = self.outcome.flags.contains(AllocationFlags::HINT_DATA);
        match self.outcome.criterion {
            Criterion::Power2Aligned => {
                let reserved = data && self.layout.is_first_of_large_flex(group);
                !reserved && summary.free >= len && summary.largest_free_order >= self.order2
            }
            Criterion::GoalLengthFast | Criterion::BestAvailableLength => average >= len,
            Criterion::GoalLengthSlow => summary.free >= len,
            Criterion::AnyFree => summary.free > 0,
            Criterion::Exhausted => false,
        }
    }

    fn scan_buddy(&mut self, group: BlockGroup, buddy: &mut Buddy) {
        if self.outcome.criterion == Criterion::Power2Aligned {
            return self.scan_simple(group, buddy);
        }
        let stripe = self.tunables.stripe;
        let aligned = stripe > 0 && stripe >= self.layout.cluster_ratio();
        if !self.outcome.criterion.is_expensive()
            && aligned
            && self.len().is_multiple_of(self.layout.clusters(stripe))
        {
            self.scan_stripes(group, buddy);
        }
        if self.status == Status::Continue {
            self.scan_complex(group, buddy);
        }
    }

    /// Takes the first chunk of the lowest order that suffices.
    fn scan_simple(&mut self, group: BlockGroup, buddy: &mut Buddy) {
        let Some((start, order)) = self.order2.and_then(|order| buddy.first_chunk(order)) else {
            return;
        };
        self.outcome.found += 1;
        self.best = Run { group, start, len: 1 << order };
        self.take_best(buddy);
    }

    /// Takes the first free stripe.
    fn scan_stripes(&mut self, group: BlockGroup, buddy: &mut Buddy) {
        let stripe_blocks = u64::from(self.tunables.stripe);
        let stripe = self.layout.clusters(self.tunables.stripe);
        let first = self.layout.first_block(group);
        let offset = (first.next_multiple_of(stripe_blocks) - first) >> self.layout.cluster_bits;
        let mut start = u32::try_from(offset).unwrap_or(u32::MAX);
        while start < buddy.clusters() {
            let len = buddy.find_extent(start, stripe);
            if len >= stripe {
                self.outcome.found += 1;
                self.best = Run { group, start, len };
                return self.take_best(buddy);
            }
            start += stripe;
        }
    }

    /// Measures the free runs, chunk by chunk.
    fn scan_complex(&mut self, group: BlockGroup, buddy: &mut Buddy) {
        let fast = !self.outcome.criterion.is_expensive();
        let mut start = buddy.next_free(buddy.first_free());
        while start < buddy.clusters() && self.status == Status::Continue {
            let run_end = if fast { buddy.next_used(start) } else { start };
            let len = if fast && run_end - start < self.len() {
                run_end - start
            } else {
                let len = buddy.find_extent(start, self.len());
                self.measure(Run { group, start, len }, buddy);
                len
            };
            start = buddy.next_free(start + len);
        }
        self.check_limits(group, buddy, true);
    }

    /// Compares a chunk with the best so far; of those that suffice, the shortest wins.
    fn measure(&mut self, run: Run, buddy: &mut Buddy) {
        self.outcome.found += 1;
        if self.outcome.flags.contains(AllocationFlags::HINT_FIRST) || run.len == self.len() {
            self.best = run;
            return self.take_best(buddy);
        }
        if self.best.len == 0 {
            self.best = run;
            return;
        }
        let better = if self.best.len < self.len() {
            run.len > self.best.len
        } else {
            run.len > self.len() && run.len < self.best.len
        };
        if better {
            self.best = run;
        }
        self.check_limits(run.group, buddy, false);
    }

    fn check_limits(&mut self, group: BlockGroup, buddy: &mut Buddy, group_finished: bool) {
        if self.status == Status::Found {
            return;
        }
        let first = self.outcome.flags.contains(AllocationFlags::HINT_FIRST);
        if self.outcome.found > self.tunables.max_to_scan && !first {
            self.status = Status::Break;
        } else if self.best.len >= self.len()
            && self.best.group == group
            && (group_finished || self.outcome.found > self.tunables.min_to_scan)
        {
            self.take_best(buddy);
        }
    }
}

/// Flex groups that are read ahead at once at the most, and groups where there are none.
const AHEAD_FLEX_GROUPS: u32 = 8;
const AHEAD_WITHOUT_FLEX: u32 = 32;

#[cfg(test)]
#[path = "criteria_tests.rs"]
mod tests;
