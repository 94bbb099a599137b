//! What the inode itself counts and what the allocator wants to know of it.

use core::sync::atomic::Ordering;

use extant_format::Geometry;
use extant_format::inode::InodeFlags;

use crate::allocator::FileHints;
use crate::inode::Inode;

/// Counts `clusters` as the inode's; the caller stores it.
pub(crate) fn charge(inode: &Inode, geometry: &Geometry, clusters: u64) {
    let mut core = inode.core.lock();
    core.blocks = core.blocks.saturating_add(sectors(geometry, clusters));
}

/// Counts `clusters` as the inode's no more; the caller stores it. The count on disk may have been wrong, so it stops at 0.
pub(crate) fn refund(inode: &Inode, geometry: &Geometry, clusters: u64) {
    let mut core = inode.core.lock();
    core.blocks = core.blocks.saturating_sub(sectors(geometry, clusters));
}

fn sectors(geometry: &Geometry, clusters: u64) -> u64 {
    clusters.saturating_mul(u64::from(geometry.cluster_ratio()) << (geometry.block_bits - 9))
}

/// What the allocator wants to know of a file beyond its number.
pub(crate) fn file_hints(inode: &Inode, geometry: &Geometry) -> FileHints {
    FileHints {
        size_blocks: inode.size().div_ceil(geometry.block_size.into()),
        open_for_write: inode.writers.load(Ordering::Acquire) > 0,
        block_mapped: !inode.flags().contains(InodeFlags::EXTENTS),
    }
}
