//! Making holes delayed: what a buffered write does instead of allocating.

use extant_format::inode::InodeFlags;
use extant_format::{ClusterCount, ClusterRatio, LogicalRange};

use super::look_up::{Noting, note_leaf};
use super::publish::{counted, mode_and_blocks};
use super::{Mapped, Mapper};
use crate::Error;
use crate::delayed::{ClusterContent, DelayedInsert, Privilege};
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::sync::{Rank, assert_held};
use crate::trace::{Event, StatusFlags};

impl Mapper {
    /// What the first run of `range` is, after holes in it became delayed.
    ///
    /// Asks twice, without and with `Inode::map` held for writing: a store through a mapping or a preallocation may come in
    /// between (D9.4). Starts no handle and asks no allocator.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if nothing more can be promised; nothing is then.
    /// # Source
    /// Kernel `ext4_da_map_blocks` (D9). Differs: a run at once, where the kernel asks block by block; if not all of it can
    /// be promised, a part of it is.
    pub(crate) fn delay(
        &self,
        inode: &Inode,
        range: LogicalRange,
        caller: Privilege,
    ) -> Result<Mapped, Error> {
        let found = match self.known(inode, range)? {
            Some(known) => known,
            None => {
                let _map = inode.map.read();
                self.query_start(inode, range)?
            }
        };
        if found.state != BlockState::Hole {
            self.note_used(inode, &found);
            return Ok(found);
        }
        let _map = inode.map.write();
        let found = match self.known(inode, range)? {
            Some(known) => known,
            None => self.query_start(inode, range)?,
        };
        if found.state != BlockState::Hole {
            return Ok(found);
        }
        // What is promised is promised by the cluster.
        let mut run = match self.ratio() {
            ClusterRatio::ONE => found.blocks,
            ratio => ratio.around(found.blocks.start()).intersection(found.blocks).unwrap_or(range),
        };
        loop {
            match self.insert_delayed(inode, run, caller) {
                Ok(blocks) => return Ok(Mapped { blocks, state: BlockState::Delayed, new: true }),
                Err(Error::NoSpace { .. }) if run.len() > 1 => {
                    run = LogicalRange::new(run.start().get(), run.len() / 2)
                        .expect("at least one block");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the map on disk what the first block of `range` is, which notes what lies around it; and says what is known then.
    fn query_start(&self, inode: &Inode, range: LogicalRange) -> Result<Mapped, Error> {
        let first = LogicalRange::single(range.start());
        let found = self.query(inode, first, Noting::Leaf)?;
        Ok(self
            .known_still(inode, range)
            .filter(|known| known.state == found.state)
            .unwrap_or(found))
    }

    /// Promises space for `blocks`, which is a hole within a cluster if there are such, and makes it delayed (D12.1); of a
    /// cluster that has a place and nothing delayed yet, the first block. Says which blocks are delayed now.
    ///
    /// Source: kernel `ext4_insert_delayed_blocks`, `ext4_da_reserve_space`.
    fn insert_delayed(
        &self,
        inode: &Inode,
        blocks: LogicalRange,
        caller: Privilege,
    ) -> Result<LogicalRange, Error> {
        assert_held(Rank::Map);
        let (ratio, mut blocks) = (self.ratio(), blocks);
        let plan = DelayedInsert::plan(blocks, ratio, |block| {
            self.cluster_content(inode, ratio.around(block))
        })?;
        if plan.first_allocated {
            blocks = LogicalRange::single(blocks.start());
        }
        let promise = self.promise_for(inode, blocks, plan.clusters);
        let reservation = self.ledger.reserve(promise, caller)?;
        let reserved = {
            let mut reservations = inode.reservations.lock();
            reservations.add(reservation);
            reservations.pending.note(blocks, plan, ratio);
            reservations.promise().clusters
        };
        self.tell_delayed(inode, blocks, plan, reserved);
        inode.status.lock().insert_delayed(blocks);
        Ok(blocks)
    }

    fn tell_delayed(
        &self,
        inode: &Inode,
        blocks: LogicalRange,
        plan: DelayedInsert,
        reserved: ClusterCount,
    ) {
        let (tracer, ino) = (self.transactions.tracer(), inode.number());
        if plan.clusters > ClusterCount::ZERO {
            tracer.emit(|| {
                let (mode, i_blocks) = mode_and_blocks(inode);
                let (reserve_blocks, reserved_data_blocks) =
                    (counted(plan.clusters), counted(reserved));
                Event::DaReserveSpace { ino, mode, i_blocks, reserve_blocks, reserved_data_blocks }
            });
        }
        tracer.emit(|| Event::EsInsertDelayedExtent {
            ino,
            lblk: blocks.start().get(),
            len: blocks.len(),
            pblk: 0,
            status: StatusFlags::DELAYED,
            lclu_allocated: plan.first_allocated,
            end_allocated: plan.last_allocated,
        });
    }

    /// What the blocks of one cluster are, together.
    ///
    /// Source: kernel `ext4_clu_alloc_state`.
    fn cluster_content(
        &self,
        inode: &Inode,
        cluster: LogicalRange,
    ) -> Result<ClusterContent, Error> {
        let known = {
            let status = inode.status.lock();
            if status.has_delayed(cluster) {
                return Ok(ClusterContent::Delayed);
            }
            status.any(cluster, BlockState::is_mapped)
        };
        let is_inline = inode.flags().contains(InodeFlags::INLINE_DATA);
        let mut is_mapped = known;
        if !known && !is_inline {
            let tree = self.tree(inode);
            note_leaf(inode, &tree, &tree.find(cluster.start())?);
            is_mapped = tree.has_any(cluster)?;
        }
        Ok(if is_mapped { ClusterContent::Allocated } else { ClusterContent::Empty })
    }
}
