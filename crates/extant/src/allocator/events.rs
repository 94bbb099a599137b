//! What the kernel's tracepoints of the allocator are told.

use extant_format::{ClusterCount, InodeNumber, PhysicalRange};

use super::Allocator;
use super::criteria::{Criterion, Outcome};
use super::layout::Run;
use super::normalize::Goal;
use super::request::{Allocation, AllocationFlags, AllocationRequest, FreeFlags, Neighbour, Owner};
use crate::trace::{self, AllocatorExtent, Event};

impl From<AllocationFlags> for trace::AllocationFlags {
    fn from(flags: AllocationFlags) -> Self {
        let mut shown = flags;
        shown.remove(AllocationFlags::MAP_OF_RESERVED);
        let reserved = flags.contains(AllocationFlags::MAP_OF_RESERVED);
        shown.set(
            AllocationFlags::DELALLOC_RESERVED,
            reserved || shown.contains(AllocationFlags::DELALLOC_RESERVED),
        );
        Self(shown.bits())
    }
}

impl From<FreeFlags> for trace::FreeFlags {
    fn from(flags: FreeFlags) -> Self {
        Self((flags - FreeFlags::UNORDERED).bits())
    }
}

impl From<Criterion> for trace::Criterion {
    fn from(criterion: Criterion) -> Self {
        Self(match criterion {
            Criterion::Power2Aligned => 0,
            Criterion::GoalLengthFast => 1,
            Criterion::BestAvailableLength => 2,
            Criterion::GoalLengthSlow => 3,
            Criterion::AnyFree => 4,
            Criterion::Exhausted => 5,
        })
    }
}

/// The neighbours of a request, whose own block lies at `offset` in its cluster, as the kernel's events show them: where
/// there is none, the request's own block and 0, or nothing for those who do not look for them.
fn neighbours(request: &AllocationRequest, offset: u32) -> [(u32, u64); 2] {
    let own = if request.file.block_mapped { 0 } else { request.logical.get() + offset };
    [request.left, request.right].map(|neighbour: Option<Neighbour>| {
        neighbour.map_or((own, 0), |neighbour| (neighbour.logical.get(), neighbour.physical.get()))
    })
}

impl Allocator {
    /// `request`, which begins at a cluster's start and `offset` before what is wanted, is made.
    pub(super) fn tell_request(&self, request: &AllocationRequest, offset: u32) {
        self.transactions.tracer().emit(|| {
            let [(lleft, pleft), (lright, pright)] = neighbours(request, offset);
            Event::RequestBlocks {
                ino: request.inode,
                flags: request.flags.into(),
                len: self.layout.clusters(request.len),
                logical: request.logical.get(),
                goal: request.goal.get(),
                lleft,
                lright,
                pleft,
                pright,
            }
        });
    }

    /// It was answered, or failed.
    pub(super) fn tell_answer(
        &self,
        request: &AllocationRequest,
        offset: u32,
        answer: Option<&Allocation>,
    ) {
        self.transactions.tracer().emit(|| {
            let [(lleft, pleft), (lright, pright)] = neighbours(request, offset);
            let clusters = answer.map_or(ClusterCount::ZERO, |answer| answer.clusters);
            Event::AllocateBlocks {
                ino: request.inode,
                flags: request.flags.into(),
                len: u32::try_from(clusters.get()).unwrap_or(u32::MAX),
                block: answer.map_or(0, |answer| answer.blocks.start().get() - u64::from(offset)),
                logical: request.logical.get(),
                goal: request.goal.get(),
                lleft,
                lright,
                pleft,
                pright,
            }
        });
    }

    /// Blocks are given back.
    pub(super) fn tell_freed(&self, owner: Owner, range: PhysicalRange, flags: FreeFlags) {
        self.transactions.tracer().emit(|| {
            let Owner { inode: ino, mode } = owner;
            let (block, count) = (range.start().get(), range.len());
            let flags = (flags | FreeFlags::VALIDATED).into();
            Event::FreeBlocks { ino, mode, block, count, flags }
        });
    }

    /// The journal forgets one of them.
    pub(super) fn tell_forgotten(&self, owner: Owner, block: u64, flags: FreeFlags) {
        self.transactions.tracer().emit(|| {
            let Owner { inode: ino, mode } = owner;
            let is_metadata = flags.contains(FreeFlags::METADATA);
            Event::Forget { ino, mode, is_metadata, block }
        });
    }

    /// What `request` asked for.
    fn original(&self, request: &AllocationRequest) -> AllocatorExtent {
        let (group, start) = self.layout.place(request.goal).unwrap_or_default();
        AllocatorExtent {
            group: group.get(),
            start: i32::try_from(start).unwrap_or(i32::MAX),
            len: self.layout.clusters(request.len),
            logical: request.logical.get(),
        }
    }

    /// A search is over.
    pub(super) fn tell_search(&self, request: &AllocationRequest, goal: Goal, outcome: &Outcome) {
        self.transactions.tracer().emit(|| {
            let (group, start, len) = outcome.goal;
            let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
            let start = start.map_or(-1, |start| i32::try_from(start).unwrap_or(i32::MAX));
            let order = outcome.broken.order;
            Event::MballocAlloc {
                ino: request.inode,
                orig: self.original(request),
                goal: AllocatorExtent { group: group.get(), start, len, logical: goal.logical },
                result: outcome
                    .run
                    .map_or_else(AllocatorExtent::default, |run| traced(run, goal.logical)),
                found: small(outcome.found),
                groups: small(outcome.scanned),
                cr: outcome.criterion.into(),
                flags: outcome.flags.into(),
                tail: small(outcome.broken.tail),
                buddy: if order == 0 { 0 } else { 1_u32.checked_shl(order).unwrap_or(0) },
            }
        });
    }

    /// A request was served from what was set aside.
    pub(super) fn tell_served(&self, request: &AllocationRequest, run: Run) {
        self.transactions.tracer().emit(|| Event::MballocPrealloc {
            ino: request.inode,
            orig: self.original(request),
            result: traced(run, request.logical.get()),
        });
    }

    /// `run` was set aside for the file blocks from `logical` on, or for small files.
    pub(super) fn tell_set_aside(&self, ino: InodeNumber, run: Run, logical: Option<u32>) {
        self.transactions.tracer().emit(|| {
            let (pa_pstart, pa_len) = (self.layout.block(run.group, run.start).get(), run.len);
            match logical {
                Some(logical) => {
                    let pa_lstart = logical.into();
                    Event::MbNewInodePa { ino, pa_pstart, pa_len, pa_lstart }
                }
                None => Event::MbNewGroupPa { ino, pa_pstart, pa_len, pa_lstart: pa_pstart },
            }
        });
    }

    /// What was set aside for `owner`, or for small files, goes back.
    pub(super) fn give_up_aside(&self, owner: Option<InodeNumber>, run: Run) {
        let tracer = self.transactions.tracer();
        let (block, count) = (self.layout.block(run.group, run.start).get(), run.len);
        if owner.is_none() {
            tracer.emit(|| Event::MbReleaseGroupPa { pa_pstart: block, pa_len: count });
        }
        let (group, start, len) = (run.group.get(), run.start, run.len);
        tracer.emit(|| Event::MballocDiscard { group, start, len });
        if let Some(ino) = owner {
            tracer.emit(|| Event::MbReleaseInodePa { ino, block, count });
        }
        self.release(run);
    }
}

fn traced(run: Run, logical: u32) -> AllocatorExtent {
    let start = i32::try_from(run.start).unwrap_or(i32::MAX);
    AllocatorExtent { group: run.group.get(), start, len: run.len, logical }
}
