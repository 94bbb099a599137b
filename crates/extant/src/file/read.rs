//! Reading: from the cache, and into the cache.
//!
//! Source: kernel `mm/filemap.c`, `filemap_read`, `filemap_get_pages`.

use alloc::sync::Arc;

use extant_format::cast::u64_from;

use super::{Files, OpenFile};
use crate::Error;
use crate::inode::Inode;
use crate::page_cache::{PAGE_BYTES, PageIndex};

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
        let wanted = offset.saturating_add(u64_from(buffer.len()));
        let mut at = offset;
        while at < end {
            let index = |at: u64| usize::try_from(at - offset).expect("within the caller's buffer");
            let copied = self.find_ahead(inode, open, at, wanted).and_then(|folio| {
                let part = folio.shape().part_of(&(at..end));
                let next = at + u64_from(part.len());
                // Somebody who asks for bytes behind the end of file wants valid ones there, too.
                let behind = part.end..folio.shape().part_of(&(at..wanted)).end;
                let into = &mut buffer[index(at)..index(next)];
                // From the first block to the last, they want it as a whole.
                let block = folio.shape().block_bytes();
                let is_whole = part.start < block && behind.end > folio.shape().bytes() - block;
                let is_valid =
                    (behind.is_empty() || folio.is_valid(behind)) && (!is_whole || folio.is_read());
                (is_valid && folio.copy_to(part.start, into)).then_some(next)
            });
            match copied {
                Some(next) => at = next,
                None => match self.fill(inode, at) {
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
        open.with_readahead(|readahead| readahead.read_to(at));
        Ok(usize::try_from(at - offset).expect("within the caller's buffer").min(buffer.len()))
    }

    /// Makes the folio of the byte at `offset`, inside the file, valid in memory.
    ///
    /// # Errors
    /// Of the block map or the device.
    pub(super) fn fill(&self, inode: &Inode, offset: u64) -> Result<(), Error> {
        self.writeback.make_room();
        let _invalidate = inode.invalidate.read();
        let (page, order) = (PageIndex::holding(offset), self.max_order(inode));
        let folio = inode.pages.find_or_create(page, PAGE_BYTES, order);
        self.read_folio(inode, &folio)
    }
}
