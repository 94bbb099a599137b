//! Moving blocks along the file: collapse and insert range.

use extant_format::{LogicalBlock, LogicalRange};

use super::Mapper;
use crate::Error;
use crate::extent_tree::Shift;
use crate::inode::Inode;
use crate::report::Ineligible;
use crate::trace::HandleType;
use crate::transaction::{Change, Credits, Handle};

impl Mapper {
    /// Moves every extent from `from` on. The caller has written and dropped the pages there, and keeps new ones out; below
    /// `from` is a hole as long as the way down, or an end of an extent ([`Self::split_at`]).
    ///
    /// May restart the handle between leaves, if [`Self::shift_credits`] were more than a transaction has: a crash then
    /// finds some extents moved and others not, as with the kernel.
    ///
    /// # Errors
    /// Of reading the tree; the journal is aborted if some extents have moved by then.
    /// # Locks
    /// Takes `Inode::map` for writing, and lets go of it before each restart.
    /// # Source
    /// Kernel `ext4_ext_shift_extents` (D22.12). Differs: asks for all leaves at once, so that most files move in one
    /// transaction; joins the two extents that meet.
    pub(crate) fn shift(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        from: LogicalBlock,
        shift: Shift,
    ) -> Result<(), Error> {
        let known = LogicalRange::from_block_on(from);
        let known = match shift.of(LogicalRange::single(from)) {
            Some(moved) if moved.start() < from => LogicalRange::from_block_on(moved.start()),
            _ => known,
        };
        let (mut rest, mut joins) = (Some(LogicalRange::from_block_on(from)), true);
        loop {
            let step = {
                let _map = inode.map.write();
                let tree = self.tree(inode);
                let mut outcome = Ok(());
                while let (Ok(()), Some(reach)) = (&outcome, rest) {
                    outcome = tree.shift_leaf(handle, reach, shift).map(|left| rest = left);
                }
                if outcome.is_ok() && core::mem::take(&mut joins) {
                    outcome = tree.join_at(handle, known.start());
                    joins = matches!(outcome, Err(Error::TransactionFull));
                }
                self.forget(inode, known);
                outcome
            };
            inode.note_transaction(handle.transaction_id(), true);
            handle.note(Change::Unrecorded(Ineligible::ShiftRange));
            match step {
                Ok(()) => return Ok(()),
                Err(Error::TransactionFull) => {
                    handle.restart(Credits::blocks(self.credits(inode, 1), self.geometry()))?;
                }
                Err(error) => {
                    self.transactions.abort(&error, "extents were moved in part");
                    return Err(error);
                }
            }
        }
    }

    /// Lets an extent begin at `block`, if one has it inside.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing has changed. [`Error::Invalid`] if the last extent would leave the file by `up` blocks.
    pub(crate) fn split_at(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        block: LogicalBlock,
        up: u32,
    ) -> Result<(), Error> {
        let _map = inode.map.write();
        self.allocator.discard_preallocations(inode.number());
        let tree = self.tree(inode);
        if tree.end()?.checked_add(up).is_none() {
            return Err(Error::Invalid("blocks behind the end of file would leave it"));
        }
        tree.split_at(handle, block)
    }

    /// Credits to remove or split one extent and move all behind `from`, if a transaction has so many.
    pub(crate) fn shift_credits(
        &self,
        inode: &Inode,
        from: LogicalBlock,
    ) -> Result<Credits, Error> {
        let _map = inode.map.read();
        let leaves = self.tree(inode).leaves_from(from)?;
        let Credits { blocks, revokes, .. } = self.removal_credits(inode);
        // Nodes above leaves: a hundredth of them at the most, and those that the path to one costs anyway.
        let wanted = blocks.saturating_add(leaves).saturating_add(leaves / 64);
        let blocks = self.transactions.max_credits().map_or(wanted, |most| wanted.min(most / 2));
        let blocks = blocks.max(self.credits(inode, 1));
        let credits = Credits { blocks, revokes, ..Credits::default() };
        Ok(credits.of(HandleType::Truncate, inode.number()))
    }
}
