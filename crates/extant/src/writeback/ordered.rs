//! Data that a commit waits for: written blocks whose data nobody may see half done.
//!
//! Source: kernel `ext4_normal_submit_inode_data_buffers` (D15.20).

use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::Ordering;

use extant_format::InodeNumber;

use super::{Purpose, Writeback};
use crate::Error;
use crate::inode::Inode;
use crate::transaction::OrderedData;

/// One file's part of a transaction's ordered data.
pub(crate) struct OrderedFile {
    writeback: Weak<Writeback>,
    inode: Arc<Inode>,
}

impl OrderedFile {
    /// The data of `inode`, to be handed to [`Handle::order`](crate::transaction::Handle::order).
    pub(crate) fn new(writeback: &Weak<Writeback>, inode: &Arc<Inode>) -> Arc<Self> {
        Arc::new(Self { writeback: Weak::clone(writeback), inode: Arc::clone(inode) })
    }
}

impl OrderedData for OrderedFile {
    fn inode(&self) -> InodeNumber {
        self.inode.number()
    }

    fn life(&self) -> usize {
        Arc::as_ptr(&self.inode).addr()
    }

    fn write_out(&self, bytes: Range<u64>) -> Result<(), Error> {
        let Some(writeback) = self.writeback.upgrade() else { return Ok(()) };
        writeback.write_placed(&self.inode, bytes.clone(), Purpose::Integrity)?;
        self.inode.pages.wait_writeback(&bytes);
        Ok(())
    }

    fn wait(&self, bytes: Range<u64>) {
        self.inode.pages.wait_writeback(&bytes);
    }

    fn is_written_out(&self, now: bool) -> bool {
        self.inode.written_out.fetch_or(now, Ordering::Relaxed) || now
    }
}
