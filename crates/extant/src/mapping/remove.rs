//! Taking places away: truncate, punch.

use extant_format::LogicalRange;
use extant_format::inode::{FileType, InodeFlags};

use super::cut::Edge;
use super::publish::Payment;
use super::{DataKind, Mapper, indirect};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::trace::HandleType;
use crate::transaction::{Credits, Handle, credits};

impl Mapper {
    /// Makes `range` a hole: promises of delayed blocks are given back, places are freed.
    ///
    /// May restart the handle, so that a crash finds a part of the range removed: whoever cannot have that puts the inode on
    /// the orphan list first. The caller has dropped the pages, and keeps new ones out.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if an extent had to be split for which no node is left, errors of reading the map; some of the
    /// range may be gone then.
    /// # Locks
    /// Takes `Inode::map` for writing, and lets go of it before each restart.
    /// # Source
    /// Kernel `ext4_ext_truncate`, `ext4_punch_hole`, `ext4_datasem_ensure_credits` (D22.4, D22.7).
    pub(crate) fn remove(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<(), Error> {
        let (mut edge, mut begins) = (Edge::default(), true);
        loop {
            let step = {
                let _map = inode.map.write();
                if core::mem::take(&mut begins) {
                    if inode.file_type() == FileType::Regular {
                        self.allocator.discard_preallocations(inode.number());
                    }
                    self.forget(inode, range);
                }
                let flags = inode.flags();
                let step = if flags.contains(InodeFlags::INLINE_DATA) {
                    Ok(())
                } else if flags.contains(InodeFlags::EXTENTS) {
                    self.remove_extents(handle, inode, range, &mut edge)
                } else {
                    indirect::IndirectMap::new(self, inode).remove(handle, range)
                };
                // A truncation leaves nothing known behind the end, as in the kernel.
                if step.is_ok() && range.end() < u32::MAX {
                    self.publish(inode, range, BlockState::Hole, Payment::Own);
                }
                step
            };
            match step {
                Err(Error::TransactionFull) => handle.restart(self.removal_credits(inode))?,
                done => return done,
            }
        }
    }

    /// How a file's data is freed.
    ///
    /// Source: kernel `get_default_free_blocks_flags`.
    pub(super) fn free_flags(&self, inode: &Inode) -> FreeFlags {
        match self.data_kind(inode) {
            DataKind::Metadata => FreeFlags::METADATA | FreeFlags::FORGET,
            DataKind::Journaled => FreeFlags::FORGET,
            DataKind::Plain if self.options.unordered_data => FreeFlags::UNORDERED,
            DataKind::Plain => FreeFlags::empty(),
        }
    }

    /// What a removal asks for at the start and at each restart.
    ///
    /// Source: kernel `ext4_blocks_for_truncate`, `ext4_ext_rm_leaf`.
    pub(crate) fn removal_credits(&self, inode: &Inode) -> Credits {
        let geometry = self.geometry();
        let credits = Credits::blocks(self.credits(inode, 1) + credits::RESERVE, geometry);
        let revokes = match self.data_kind(inode) {
            DataKind::Plain => credits.revokes,
            DataKind::Metadata | DataKind::Journaled => credits.revokes.max(REVOKES_AT_ONCE),
        };
        Credits { revokes, ..credits }.of(HandleType::Truncate, inode.number())
    }
}

/// Blocks that a step of a removal may revoke.
const REVOKES_AT_ONCE: u32 = 1024 + 8;
