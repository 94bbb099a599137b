//! Reading for those who have a cache of their own: from memory what is there, and from the device to the reader what is not.

use alloc::sync::Arc;

use extant_format::cast::u64_from;
use extant_format::{LogicalRange, PhysicalBlock, PhysicalRange};

use super::{Files, OpenFile};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::page_cache::{PAGE_BYTES, PageIndex};

impl Files {
    /// Copies bytes from `offset` on into `buffer`; fewer only at the end of the file. Nothing comes into memory that others do not
    /// need, and what is there, on the device, and read up to its end goes.
    ///
    /// # Errors
    /// Of the block map or the device, if nothing could be read.
    /// # Locks
    /// Takes `invalidate` for reading.
    pub(crate) fn read_uncached(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let room = inode.size().saturating_sub(offset);
        let len = buffer.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            match self.read_piece(inode, open, offset + u64_from(done), &mut buffer[done..len]) {
                Ok(0) => break, // cut meanwhile
                Ok(count) => done += count,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// As many of the bytes at `at` as come from one place.
    fn read_piece(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        at: u64,
        into: &mut [u8],
    ) -> Result<usize, Error> {
        let (page, end) = (PageIndex::holding(at), at + u64_from(into.len()));
        let next = inode.pages.find_from(page, page_behind(end)).map(|folio| *folio.shape());
        let (is_there, end) = match next {
            None => (false, end),
            Some(folio) if folio.start() > at => (false, folio.start()),
            Some(folio) => (true, end.min(folio.end())),
        };
        let into = &mut into[..usize::try_from(end - at).unwrap_or(usize::MAX)];
        if !is_there && let Some(count) = self.read_past_memory(inode, at, into)? {
            return Ok(count);
        }
        let count = self.read(inode, open, at, into)?;
        let end = at + u64_from(count);
        inode.pages.drop_clean(at..if end >= inode.size() { u64::MAX } else { end });
        Ok(count)
    }

    /// Bytes of one run of blocks that memory did not have when it was looked at before. `None` if the way is through memory all
    /// the same: something came there meanwhile, or newer bytes lie elsewhere.
    ///
    /// Memory was empty, then the map is asked, and memory is empty still: so what was written before has its place there, and its
    /// data is on the device, also where a block counts as written before it is.
    fn read_past_memory(
        &self,
        inode: &Inode,
        at: u64,
        into: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let _invalidate = inode.invalidate.read();
        let end = inode.size().min(at + u64_from(into.len()));
        if inode.is_inline() || at >= end {
            return Ok(None);
        }
        let Some(blocks) = self.blocks_touched(&(at..end)) else { return Ok(None) };
        let mapped = self.mapper.look_up(inode, blocks)?;
        let bits = self.geometry().block_bits;
        let end = end.min(u64::from(mapped.blocks.end()) << bits);
        if inode.pages.find_from(PageIndex::holding(at), page_behind(end)).is_some() {
            return Ok(None);
        }
        let into = &mut into[..usize::try_from(end - at).unwrap_or(usize::MAX)];
        match mapped.state {
            BlockState::Written(place) if self.is_newer_elsewhere(place, mapped.blocks) => {
                return Ok(None);
            }
            BlockState::Written(place) => {
                let skip = at % u64::from(self.geometry().block_size);
                self.transactions.io().read_into(place, skip, into)?;
            }
            BlockState::Hole | BlockState::Delayed | BlockState::Unwritten(_) => into.fill(0),
        }
        Ok(Some(into.len()))
    }

    /// Whether the log has bytes of blocks that lie from `place` on.
    fn is_newer_elsewhere(&self, place: PhysicalBlock, blocks: LogicalRange) -> bool {
        let places = PhysicalRange::new(place, blocks.len().into());
        places.is_none_or(|places| !self.transactions.newest_data(places).is_empty())
    }
}

/// The first page behind the byte before `end`.
fn page_behind(end: u64) -> PageIndex {
    PageIndex::new(end.div_ceil(u64_from(PAGE_BYTES)))
}
