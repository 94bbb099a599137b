//! Stores into a shared mapping: the fault before the first one makes a folio writable.
//!
//! Source: kernel `ext4_page_mkwrite`, `fs/buffer.c`, `block_page_mkwrite` (D19).

use alloc::sync::Arc;
use core::ops::Range;

use extant_format::InodeFlags;
use extant_format::cast::u64_from;

use super::write::{Delays, privilege};
use super::{Files, OpenFile};
use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::page_cache::{LockedFolio, PageIndex, READ_AHEAD_BYTES};

impl Files {
    /// Puts `bytes` at `offset` as a store through a shared mapping does: within the file's size, and with a place or a promise
    /// for every block of the folio up to the end of file. An empty `bytes` only makes the folio writable. Returns how
    /// many bytes went in: as many as lie in one folio and in the file.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::NotPermitted`], of the device: a program gets `SIGBUS`. [`Error::Invalid`] behind the end
    /// of file.
    /// # Locks
    /// Takes `invalidate` for reading, and not `content`: writers and stores meet at the folio.
    pub(crate) fn store(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, Error> {
        self.transactions.check_writable()?;
        if inode.flags().contains(InodeFlags::IMMUTABLE) {
            return Err(Error::NotPermitted);
        }
        self.fault(inode, open, offset)?;
        self.note_modified(inode, caller)?;
        self.leave_inode_of_store(caller, inode)?;
        self.writeback.balance();
        let mut attempt = 0;
        loop {
            let stored = match self.delays(inode) {
                Delays::Yes => self.store_delayed(caller, inode, offset, bytes),
                Delays::No if self.mapper.journals_data(inode) => {
                    self.store_journaled(caller, inode, offset, bytes)
                }
                Delays::No => self.store_placed(caller, inode, offset, bytes),
            };
            match stored {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => self.fault(inode, open, offset)?, // the folio may have been dropped
                Err(error) if error.is_no_space() => {
                    self.wait_for_space(privilege(caller), error, &mut attempt)?
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves contents out of the inode, unless they are being cut.
    fn leave_inode_of_store(&self, caller: &Caller, inode: &Arc<Inode>) -> Result<(), Error> {
        let _invalidate = inode.invalidate.read();
        self.leave_inode(caller, inode).map(drop)
    }

    /// Brings the page of `offset` into memory, with what lies around it.
    ///
    /// Source: kernel `filemap_fault`.
    fn fault(&self, inode: &Arc<Inode>, open: &OpenFile, offset: u64) -> Result<(), Error> {
        if offset >= inode.size() {
            return Err(Error::Invalid("a store behind the end of file"));
        }
        let page = PageIndex::holding(offset);
        match inode.pages.find(page) {
            Some(folio) => self.read_behind_mark(inode, open, &folio, offset + READ_AHEAD_BYTES),
            None => {
                let window = open.with_readahead(|readahead| readahead.faulted(page.get()));
                self.read_ahead(inode, &window);
            }
        }
        let found = inode.pages.find(page);
        match found.filter(|folio| folio.is_valid(0..folio.shape().bytes())) {
            Some(_) => Ok(()),
            None => self.fill(inode, offset),
        }
    }

    /// Promises space for what has none (D19.3). `None`: some of the folio has to be read first.
    fn store_delayed(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Option<usize>, Error> {
        let _invalidate = inode.invalidate.read();
        let Some((folio, part)) = self.folio_to_store(inode, offset)? else { return Ok(None) };
        let prepared = self.prepare(inode, &folio, &part, |range| {
            self.mapper.delay(inode, range, privilege(caller))
        });
        self.end_store(inode, folio, part, prepared, offset, bytes)
    }

    /// Allocates for what has no place, under a handle, if there is such (D19.4, D19.5). `None`: some of the folio has to be read
    /// first, or has got no place yet.
    fn store_placed(
        &self,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Option<usize>, Error> {
        let _invalidate = inode.invalidate.read();
        let Some((folio, part)) = self.folio_to_store(inode, offset)? else { return Ok(None) };
        if folio.unmapped(&part).is_empty() {
            return self.end_store(inode, folio, part, Ok(()), offset, bytes);
        }
        let blocks = u32::try_from(folio.shape().blocks()).unwrap_or(u32::MAX);
        drop(folio); // a handle comes before folios
        let credits = self.write_credits(inode, blocks).by(caller);
        let mut handle = self.transactions.begin(credits)?;
        let Some((folio, part)) = self.folio_to_store(inode, offset)? else { return Ok(None) };
        let all = folio.shape().start()..folio.shape().start() + u64_from(part.end);
        let prepared = self.prepare_placed(&mut handle, inode, &folio, &all);
        let stored = match prepared {
            // The transaction had room for the places of these: they stay, and another handle has to find those of the rest.
            Ok(placed) if placed.end < part.end => {
                folio.commit_write(&placed);
                drop(folio);
                self.writeback.note_dirty(inode);
                Ok(None)
            }
            prepared => {
                let prepared = prepared.map(drop);
                self.end_store(inode, folio, part, prepared, offset, bytes)
            }
        };
        self.inodes.store(&mut handle, inode)?;
        inode.note_transaction(handle.transaction_id(), true);
        handle.stop()?;
        stored
    }

    /// The folio of `offset`, all of whose bytes up to the end of file are valid, and those bytes.
    pub(super) fn folio_to_store(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
    ) -> Result<Option<(LockedFolio, Range<usize>)>, Error> {
        let folio = inode.pages.get_locked(PageIndex::holding(offset));
        let size = inode.size();
        if offset >= size {
            return Err(Error::Invalid("a store behind the end of file"));
        }
        let Some(folio) = folio else { return Ok(None) };
        let part = 0..folio.shape().part_of(&(0..size)).end;
        if !folio.missing(&part).is_empty() {
            self.read_folio(inode, &folio)?;
        }
        Ok(Some((folio, part)))
    }

    fn end_store(
        &self,
        inode: &Arc<Inode>,
        folio: LockedFolio,
        part: Range<usize>,
        prepared: Result<(), Error>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Option<usize>, Error> {
        let outcome = match prepared {
            Ok(()) => Ok(Some(put_stored(&folio, &part, offset, bytes))),
            Err(error) => {
                folio.zero_new(&part);
                Err(error)
            }
        };
        drop(folio);
        self.writeback.note_dirty(inode);
        outcome
    }
}

/// Puts as many bytes as `part` of the folio takes from `offset` of the file on, and makes all of the part dirty: how many.
pub(super) fn put_stored(
    folio: &LockedFolio,
    part: &Range<usize>,
    offset: u64,
    bytes: &[u8],
) -> usize {
    let at = folio.shape().part_of(&(offset..u64::MAX)).start;
    let count = bytes.len().min(part.end - at);
    folio.write_bytes(at, &bytes[..count]);
    folio.commit_write(part);
    count
}
