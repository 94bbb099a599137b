//! Reading: from the cache, and into the cache.
//!
//! Source: kernel `mm/filemap.c`, `filemap_read`; `fs/ext4/readpage.c`, `ext4_mpage_readpages`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::cast::u64_from;

use super::{Files, OpenFile};
use crate::Error;
use crate::inode::Inode;
use crate::page_cache::{LockedFolio, PageIndex};

/// Bytes that one batch of requests fills at the most.
const MAX_FILL_BYTES: u64 = 2 << 20;

impl Files {
    /// Copies bytes from `offset` on into `buffer`; fewer only at the end of the file.
    ///
    /// # Errors
    /// Of the block map or the device, if nothing could be read.
    /// # Locks
    /// Takes `invalidate` for reading to fill folios; a read of what is cached takes leaves alone.
    pub(crate) fn read(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let end = inode.size().min(offset.saturating_add(u64_from(buffer.len())));
        if offset >= end {
            return Ok(0);
        }
        let ahead = open.readahead.lock().next(offset, end - offset);
        let fetch_to = ahead.map_or(end, |range| range.end.max(end)).min(inode.size());
        let mut at = offset;
        while at < end {
            let index = |at: u64| usize::try_from(at - offset).expect("within the caller's buffer");
            let found = inode.pages.find(PageIndex::holding(at));
            let copied = found.and_then(|folio| {
                let part = folio.shape().part_of(&(at..end));
                let next = at + u64_from(part.len());
                folio.copy_to(part.start, &mut buffer[index(at)..index(next)]).then_some(next)
            });
            match copied {
                Some(next) => at = next,
                None => match self.fill(inode, at..fetch_to.min(at + MAX_FILL_BYTES)) {
                    Ok(()) => {}
                    Err(_) if at > offset => break,
                    Err(error) => return Err(error),
                },
            }
            // The file may have been cut meanwhile.
            if at >= inode.size() {
                break;
            }
        }
        Ok(usize::try_from(at - offset).expect("within the caller's buffer").min(buffer.len()))
    }

    /// Makes the blocks that `bytes` touch valid in memory: one batch of requests for the whole range.
    ///
    /// # Errors
    /// Of the block map or the device.
    pub(super) fn fill(&self, inode: &Inode, bytes: Range<u64>) -> Result<(), Error> {
        let _invalidate = inode.invalidate.read();
        let size = inode.size();
        let bytes = bytes.start..bytes.end.min(size);
        let max_order = self.max_order(inode);
        let (mut folios, mut reads): (Vec<LockedFolio>, Vec<_>) = (Vec::new(), Vec::new());
        let mut at = bytes.start;
        let mut outcome = Ok(());
        while at < bytes.end && outcome.is_ok() {
            let wanted = usize::try_from(bytes.end - at).unwrap_or(usize::MAX);
            let folio = inode.pages.find_or_create(PageIndex::holding(at), wanted, max_order);
            let part = folio.shape().part_of(&(at..bytes.end));
            at = folio.shape().end();
            outcome = self.fill_from_inode(inode, &folio).map(drop);
            for run in folio.missing(&part) {
                let look_up = |range| self.mapper.look_up(inode, range);
                outcome = outcome.and_then(|()| self.plan_reads(&folio, run, &mut reads, look_up));
            }
            folios.push(folio);
        }
        outcome.and(self.run_reads(&folios, reads))
    }
}
