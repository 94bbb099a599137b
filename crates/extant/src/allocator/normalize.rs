//! How much to look for when a file's data is placed: more than was asked, so that the file can grow in place.

use super::layout::Layout;
use super::request::{AllocationFlags, AllocationRequest, Tunables};
use extant_format::PhysicalBlock;

/// What to search for. All lengths are clusters, `logical` is a file block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Goal {
    /// First file block that the result would serve.
    pub(super) logical: u32,
    pub(super) len: u32,
    /// A place next to a neighbour, to be tried before any search.
    pub(super) adjacent: Option<PhysicalBlock>,
}

/// The parts of a file around a block that preallocations already serve.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Served {
    /// End of the last preallocation that starts at or before the block.
    pub(super) left_end: Option<u64>,
    /// Start of the first preallocation after it.
    pub(super) right_start: Option<u64>,
}

/// Whether a request counts as small and shares a group preallocation, or as a stream, or neither.
///
/// `busy` says whether several allocations compete at this moment.
///
/// Source: kernel `fs/ext4/mballoc.c`, `ext4_mb_group_or_file`.
pub(super) fn file_or_group(
    request: &AllocationRequest,
    layout: &Layout,
    tunables: &Tunables,
    busy: bool,
) -> AllocationFlags {
    use AllocationFlags as F;
    if !request.flags.contains(F::HINT_DATA) {
        return F::empty();
    }
    let end = request_end(request, layout);
    let closed_tail = end == request.file.size_blocks && !busy && !request.file.open_for_write;
    let size = end.max(request.file.size_blocks);
    let small = size <= u64::from(tunables.stream_req) && tunables.group_prealloc != 0;
    match (small, closed_tail) {
        (true, _) => F::HINT_GROUP_ALLOC,
        (false, false) => F::STREAM_ALLOC,
        (false, true) => F::HINT_NOPREALLOC,
    }
}

/// The goal of a request whose first block is aligned to a cluster, with the flags that [`file_or_group`] gave it.
///
/// Source: kernel `fs/ext4/mballoc.c`, `ext4_mb_normalize_request`.
pub(super) fn normalize(
    request: &AllocationRequest,
    layout: &Layout,
    tunables: &Tunables,
    served: Served,
) -> Goal {
    use AllocationFlags as F;
    let logical = request.logical.get();
    let plain = Goal { logical, len: layout.clusters(request.len), adjacent: None };
    if !request.flags.contains(F::HINT_DATA)
        || request.flags.intersects(F::HINT_GOAL_ONLY | F::HINT_NOPREALLOC)
    {
        return plain;
    }
    if request.flags.contains(F::HINT_GROUP_ALLOC) {
        return Goal { len: tunables.group_prealloc, ..plain };
    }
    let (start, size) = grow(request, layout);
    let size = size.max(request.file.growth.min(largest_chunk(layout)));
    let (start, size) = trim(request, layout, served, (start, size));
    let first = u64::from(logical);
    let (Ok(start_block), Ok(size_blocks)) = (u32::try_from(start), u32::try_from(size)) else {
        return plain;
    };
    if first < start || first >= start + size {
        return plain; // neighbours or preallocations cover the request itself: take it as it is
    }
    let after = request.right.filter(|right| u64::from(right.logical.get()) == start + size);
    let after = after
        .and_then(|right| right.physical.checked_sub(size))
        .filter(|&goal| layout.contains(goal));
    let before = request.left.filter(|left| u64::from(left.logical.get()) + 1 == start);
    let before =
        before.and_then(|left| left.physical.checked_add(1)).filter(|&goal| layout.contains(goal));
    Goal { logical: start_block, len: layout.clusters(size_blocks), adjacent: before.or(after) }
}

/// Blocks of the largest chunk that a buddy can have.
fn largest_chunk(layout: &Layout) -> u64 {
    2 << layout.block_bits << layout.cluster_bits
}

/// The file block after the last cluster of the request.
fn request_end(request: &AllocationRequest, layout: &Layout) -> u64 {
    u64::from(request.logical.get())
        + (u64::from(layout.clusters(request.len)) << layout.cluster_bits)
}

/// The range, in file blocks, that the table of sizes gives: start and length.
fn grow(request: &AllocationRequest, layout: &Layout) -> (u64, u64) {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let bits = layout.block_bits;
    let logical = u64::from(request.logical.get());
    let len = request_end(request, layout) - logical;
    let size = ((logical + len) << bits).max(request.file.size_blocks << bits);
    let small_blocks = |limit: u64| 2 << bits <= limit;
    let window = |window: u64| {
        let blocks = window >> bits;
        (logical / blocks * blocks, blocks)
    };
    let powers = [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB];
    if let Some(power) = powers.into_iter().find(|&power| size <= power) {
        (0, power >> bits)
    } else if size <= 4 * MIB || small_blocks(2 * KIB) {
        window(2 * MIB)
    } else if size <= 8 * MIB || small_blocks(4 * KIB) {
        window(4 * MIB)
    } else if len <= (8 * MIB) >> bits || small_blocks(8 * KIB) {
        window(8 * MIB)
    } else {
        (logical, len)
    }
}

/// Cuts a range to the group's size and against what is mapped or set aside already.
fn trim(
    request: &AllocationRequest,
    layout: &Layout,
    served: Served,
    (mut start, mut size): (u64, u64),
) -> (u64, u64) {
    let logical = u64::from(request.logical.get());
    let group = u64::from(layout.blocks_per_group);
    start = start.max(logical / group * group);
    size = size.min(u64::from(u32::MAX).saturating_sub(start));
    if let Some(left) =
        request.left.map(|left| u64::from(left.logical.get())).filter(|&left| start <= left)
    {
        size = size.saturating_sub(left + 1 - start);
        start = left + 1;
    }
    if let Some(right) = request.right.map(|right| u64::from(right.logical.get())) {
        size = size.min(right.saturating_sub(start));
    }
    let mut end = start + size.min(group);
    if let Some(left_end) = served.left_end {
        start = start.max(left_end);
    }
    if let Some(right_start) = served.right_start {
        end = end.min(right_start);
    }
    (start, end.saturating_sub(start))
}

#[cfg(test)]
#[path = "normalize_tests.rs"]
mod tests;
