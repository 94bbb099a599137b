//! Contents that move out of their inode: dropped there, given a place and written, all in one transaction.
//!
//! Source: kernel `ext4_do_writepages`, `ext4_destroy_inline_data` (D15.5). Differs: the kernel drops them in a handle of
//! its own, so that a transaction can commit that has them nowhere; here a crash finds them in one place or the other.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::cast::u64_from;

use super::{OrderedFile, Writeback};
use crate::Error;
use crate::inode::Inode;
use crate::trace::HandleType;
use crate::transaction::{Credits, Handle};

impl Writeback {
    /// A handle that takes contents out of the inode and then does what `pass` is for.
    pub(super) fn begin_moving_out(
        &self,
        inode: &Inode,
        pass: Credits,
    ) -> Result<Handle<'_>, Error> {
        let first = Credits::blocks(1, self.transactions.geometry());
        // The conversion at the end of I/O may find its transaction locked, and gets no more than this then.
        let conversion = self.mapper.credits(inode, 1);
        let reserved = if pass.reserved == 0 { 0 } else { pass.reserved.max(conversion) };
        let all = Credits { blocks: pass.blocks + 1, reserved, ..pass };
        self.transactions.begin_with(first.of(HandleType::Inode, inode.number()), all)
    }

    /// Takes the contents out of the inode, whose first dirty folio the caller has locked, and hands them out; `None` if
    /// that was done meanwhile. The transaction waits for the end of the I/O that `handle` has set credits aside for.
    pub(super) fn take_contents(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        pass: Credits,
    ) -> Result<Option<Vec<u8>>, Error> {
        let contents = self.inodes.drop_inline(handle, inode)?;
        handle.pin_reserved();
        handle.go_on_as(pass);
        Ok(contents)
    }

    /// Sees to it that contents are not lost: they go back if no block was `placed` for them; and where the block counts as
    /// written at once, the commit waits for its data.
    pub(super) fn see_contents_through(
        &self,
        handle: &mut Handle<'_>,
        inode: &Arc<Inode>,
        contents: &[u8],
        placed: bool,
    ) -> Result<(), Error> {
        if placed {
            if !self.mapper.orders_data(inode) && !self.is_unwritten_until_done(inode) {
                let data = OrderedFile::new(&self.own, inode);
                handle.order(data, 0..u64_from(contents.len()));
            }
            return Ok(());
        }
        let restored = self.inodes.restore_inline(handle, inode, contents);
        restored.inspect_err(|error| {
            self.transactions.abort(error, "inline data could not be put back");
        })
    }
}
