//! fsync and fdatasync.
//!
//! Source: kernel `ext4_sync_file`, `ext4_fsync_journal` (section 11 of the journal's rules).

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use extant_format::FileType;

use super::{Files, OpenFile};
use crate::Error;
use crate::inode::Inode;
use crate::report::RangeSync;
use crate::trace::Event;
use crate::writeback::Purpose;

impl Files {
    /// Writes a range of bytes out, and no metadata: blocks get their place, but nothing is committed or flushed.
    ///
    /// # Errors
    /// If a step waits: of the device, also of earlier writeback that this open file has not been told of.
    /// # Source
    /// Kernel `fs/sync.c`, `sync_file_range`.
    pub(crate) fn sync_range(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        bytes: Range<u64>,
        steps: RangeSync,
    ) -> Result<(), Error> {
        let told = || inode.pages.error_since(&mut open.errors.lock()).map_or(Ok(()), Err);
        if steps.wait_before {
            inode.pages.wait_writeback(&bytes);
            told()?;
        }
        if steps.write {
            let both = steps.wait_before && steps.wait_after;
            let purpose = if both { Purpose::Integrity } else { Purpose::Start };
            // A failure is kept with the file, and told by whoever waits.
            let _ = self.writeback.write_inode(inode, bytes.clone(), purpose);
        }
        if steps.wait_after {
            inode.pages.wait_writeback(&bytes);
            told()?;
        }
        Ok(())
    }

    /// Makes the file's bytes durable, and what is needed to find them; all its attributes too unless `data_only`.
    ///
    /// # Errors
    /// Of the device, also of earlier writeback that this open file has not been told of; [`Error::Aborted`].
    pub(crate) fn sync(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        data_only: bool,
    ) -> Result<(), Error> {
        match self.transactions.check_writable() {
            Err(Error::ReadOnly) => return Ok(()),
            writable => writable?,
        }
        let (tracer, ino) = (self.transactions.tracer(), inode.number());
        tracer.emit(|| Event::SyncFileEnter { ino, parent: 0, datasync: data_only });
        let outcome = self.sync_data(inode, open, data_only);
        let ret = outcome.as_ref().err().map_or(0, |error| -error.errno().0);
        tracer.emit(|| Event::SyncFileExit { ino, ret });
        outcome
    }

    fn sync_data(&self, inode: &Arc<Inode>, open: &OpenFile, data_only: bool) -> Result<(), Error> {
        let flushes = &self.transactions.io().tally.cache_flushes;
        let mut before = flushes.load(Ordering::Relaxed);
        let written = self.writeback.write_inode(inode, 0..u64::MAX, Purpose::Integrity);
        let told = inode.pages.error_since(&mut open.errors.lock());
        if !self.mapper.journals_data(inode) {
            // Of data that went to its place only a later flush makes sure.
            before = flushes.load(Ordering::Relaxed);
        }
        let tid = inode.last_transaction(data_only);
        if !self.transactions.is_journaled() {
            self.transactions.sync()?;
        } else if inode.file_type() == FileType::Regular {
            self.fast_commits.commit(tid)?;
        } else {
            self.transactions.commit_together(tid)?;
        }
        if flushes.load(Ordering::Relaxed) == before {
            self.transactions.io().flush()?;
        }
        // A failure of I/O is kept with the file and told once; what came before any I/O is told here.
        told.map_or(written, Err)
    }
}
