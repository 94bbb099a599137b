//! Taking places away: truncate, punch.

use extant_format::extent::Extent;
use extant_format::inode::{FileType, InodeFlags};
use extant_format::{LogicalBlock, LogicalRange};

use super::publish::Payment;
use super::{DataKind, Mapper, indirect};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::extent_status::BlockState;
use crate::extent_tree::refund;
use crate::inode::Inode;
use crate::trace::{self, HandleType};
use crate::transaction::{Credits, Handle, credits};

impl Mapper {
    /// Makes `range` a hole, from its end to its start: promises of delayed blocks are given back, places are freed.
    ///
    /// May restart the handle, so that a crash finds a part of the range removed: whoever cannot have that puts the inode on
    /// the orphan list first. The caller has dropped the pages, and keeps new ones out.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if an extent had to be split for which no node is left, errors of reading the map; some of the
    /// range's end may be gone then.
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
        let mut rest = range;
        loop {
            let step = {
                let _map = inode.map.write();
                if inode.file_type() == FileType::Regular {
                    self.allocator.discard_preallocations(inode.number());
                }
                self.forget(inode, range);
                let step = self.remove_some(handle, inode, rest);
                // A truncation leaves nothing known behind the end, as in the kernel.
                if matches!(step, Ok(None)) && range.end() < u32::MAX {
                    self.publish(inode, range, BlockState::Hole, Payment::Own);
                }
                step
            };
            match step {
                Ok(None) => return Ok(()),
                Ok(Some(left)) => rest = left,
                Err(Error::TransactionFull) => {}
                Err(error) => return Err(error),
            }
            handle.restart(self.removal_credits(inode))?;
        }
    }

    /// Removes as much of the end of `range` as the handle's credits allow; returns what is left.
    fn remove_some(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<Option<LogicalRange>, Error> {
        let flags = inode.flags();
        let mut rest = Some(range).filter(|_| !flags.contains(InodeFlags::INLINE_DATA));
        let mut has_removed = false;
        while let Some(range) = rest {
            let step = if flags.contains(InodeFlags::EXTENTS) {
                self.remove_extents(handle, inode, range)
            } else {
                indirect::IndirectMap::new(self, inode).remove(handle, range)
            };
            match step {
                Err(Error::TransactionFull) if has_removed => return Ok(rest),
                step => rest = step?,
            }
            has_removed = true;
        }
        Ok(None)
    }

    /// One step of [`Self::remove_some`] in an extent tree.
    fn remove_extents(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<Option<LogicalRange>, Error> {
        let tree = self.tree(inode);
        let cut = tree.cut(handle, range, self.data_kind(inode) != DataKind::Plain)?;
        if cut.removed.is_empty() {
            return Ok(None);
        }
        let done = self
            .free_extents(handle, inode, &cut.removed)
            .and_then(|()| self.inodes.store(handle, inode));
        done.inspect_err(|error| {
            self.transactions.abort(error, "blocks taken out of a file could not be freed")
        })?;
        inode.note_transaction(handle.transaction_id(), true);
        Ok(cut.rest)
    }

    /// Frees what a file has no more, given from right to left.
    ///
    /// Under `bigalloc` a cluster goes with the last of its blocks; if delayed blocks still lie in it, it turns into their
    /// promise (D12.7).
    ///
    /// # Source
    /// Kernel `ext4_remove_blocks`. Differs: asks the tree whether a cluster has other blocks, and keeps no state.
    fn free_extents(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        removed: &[Extent],
    ) -> Result<(), Error> {
        let ratio = self.ratio();
        // The leftmost cluster that was looked at: further left it was dealt with.
        let mut dealt_with = None;
        for extent in removed {
            let blocks = extent.blocks;
            if ratio.blocks() == 1 {
                self.free_data(handle, inode, *extent, FreeFlags::empty())?;
                continue;
            }
            let (first, last) = (ratio.around(blocks.start()), ratio.around(blocks.last()));
            let inner_end = if dealt_with == Some(last.start())
                || self.is_shared(handle, inode, extent, last)?
            {
                last.start().get()
            } else {
                blocks.end()
            };
            let shares_first = first != last && self.is_shared(handle, inode, extent, first)?;
            let inner_start = if shares_first { first.end() } else { blocks.start().get() };
            let inner = LogicalBlock::new(inner_start)
                .and_then(|start| LogicalRange::between(start, inner_end));
            if let Some(inner) = inner.and_then(|inner| inner.intersection(blocks)) {
                let start = extent.map(inner.start()).expect("a part of the extent");
                self.free_data(
                    handle,
                    inode,
                    Extent { blocks: inner, start, ..*extent },
                    FreeFlags::empty(),
                )?;
            }
            dealt_with = Some(first.start());
        }
        Ok(())
    }

    /// Whether `cluster`, at an end of `extent`, which the tree has no more, stays allocated for other blocks. If it is only
    /// for delayed blocks, it becomes their promise here.
    fn is_shared(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        extent: &Extent,
        cluster: LogicalRange,
    ) -> Result<bool, Error> {
        if self.tree(inode).has_any(cluster)? {
            return Ok(true);
        }
        let number = self.ratio().cluster_of(cluster.start());
        if !inode.reservations.lock().pending.contains(number) {
            return Ok(false);
        }
        let blocks =
            extent.blocks.intersection(cluster).expect("the cluster is at an end of the extent");
        let start = extent.map(blocks.start()).expect("a part of the extent");
        self.free_data(
            handle,
            inode,
            Extent { blocks, start, ..*extent },
            FreeFlags::RERESERVE_CLUSTER,
        )?;
        let reservation = self.ledger.rereserve(extant_format::ClusterCount(1));
        let mut reservations = inode.reservations.lock();
        reservations.add(reservation);
        reservations.pending.remove(number);
        Ok(true)
    }

    /// Frees whole clusters, those that have blocks of `extent`.
    fn free_data(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        extent: Extent,
        mut flags: FreeFlags,
    ) -> Result<(), Error> {
        flags |= self.free_flags(inode);
        let ratio = self.ratio();
        let clusters = ratio.cluster_of(extent.blocks.last()).0
            - ratio.cluster_of(extent.blocks.start()).0
            + 1;
        let blocks = extent.device_blocks().expect("the tree's extents were checked");
        self.tell_freed(inode, blocks, trace::FreeFlags::EXTENT.with(flags.into()));
        self.allocator.free(handle, inode.number(), blocks, flags)?;
        refund(inode, self.geometry(), clusters.into());
        Ok(())
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
