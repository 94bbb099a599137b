//! What the inode itself counts, what the allocator wants to know of it, and what freeing costs.

use core::sync::atomic::Ordering;

use extant_format::inode::InodeFlags;
use extant_format::{Geometry, PhysicalRange};
use smallvec::SmallVec;

use crate::Error;
use crate::allocator::{Allocator, FileHints, FreeFlags, Owner};
use crate::inode::Inode;
use crate::transaction::Handle;

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
        growth: 0,
    }
}

/// Gives blocks of the inode back, data or metadata, and counts the clusters that go as its own no more; the caller stores
/// it.
///
/// # Errors
/// As [`Allocator::free`].
pub(crate) fn free_blocks(
    allocator: &Allocator,
    handle: &mut Handle<'_>,
    inode: &Inode,
    blocks: PhysicalRange,
    flags: FreeFlags,
) -> Result<(), Error> {
    let mode = inode.core.lock().mode;
    let clusters = allocator.free(handle, Owner { inode: inode.number(), mode }, blocks, flags)?;
    refund(inode, allocator.geometry(), clusters.get());
    Ok(())
}

/// The groups whose bitmap and descriptor one step of a removal changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct TouchedGroups(SmallVec<[u32; 16]>);

impl TouchedGroups {
    /// More than this is left to the next step.
    pub(crate) const MOST: u32 = 16;

    /// Adds the groups of `blocks`; returns the credits for all so far, or `None` if they are too many.
    pub(crate) fn add(&mut self, geometry: &Geometry, blocks: PhysicalRange) -> Option<u32> {
        let last = blocks.end().checked_sub(1)?;
        let (first, last) = (geometry.group_of(blocks.start())?, geometry.group_of(last)?);
        for group in first.get()..=last.get() {
            if !self.0.contains(&group) {
                self.0.push(group);
            }
        }
        u32::try_from(self.0.len())
            .ok()
            .filter(|&groups| groups <= Self::MOST)
            .map(|groups| 2 * groups)
    }
}
