//! Where the bytes of a write come from: a slice, or memory that may be missing when it is wanted.
//!
//! Source: kernel `lib/iov_iter.c`, `copy_folio_from_iter_atomic`, `fault_in_iov_iter_readable`; `mm/filemap.c`,
//! `generic_perform_write` (D3.4, D3.5).

use core::ops::Range;

use crate::page_cache::{Fetched, LockedFolio};

/// Bytes to write that may be missing when they are wanted: memory of a process, say, of which a page is swapped out or was never
/// there. See [`File::write_from`](crate::File::write_from).
///
/// A slice is a source that is always there; [`File::write_at`](crate::File::write_at) is made for it.
///
/// # Locks
/// Both calls come from within a write, which keeps other changes of the file away for as long: a source changes nothing on the
/// volume that it is written to. [`fault_in`](Self::fault_in) may read from it, even from the file itself, as the fault on a
/// mapping does.
/// # Source
/// Kernel `struct iov_iter`. Differs: bytes are named by their offset, so that nothing is rewound when a copy was too short.
pub trait Source {
    /// How many bytes there are to write, present or not. It stays the same for the whole write.
    fn count(&self) -> usize;

    /// Copies bytes from `offset` on into `into`, as many as are present, and says how many these were. A folio's lock is held:
    /// this neither waits nor calls the file system.
    fn copy(&mut self, offset: usize, into: &mut [u8]) -> usize;

    /// Makes bytes from `offset` on present, up to `len` of them, and says how many are now; 0 if not even the first can be had, and
    /// the write fails with [`Error::SourceFailed`](crate::Error::SourceFailed) (`EFAULT`) unless it got some before. May wait.
    ///
    /// What was present may be gone again at the next [`copy`](Self::copy); the write goes on for as long as this promises more.
    fn fault_in(&mut self, offset: usize, len: usize) -> usize;

    /// All bytes, if none of them can be missing: then nobody asks for copies.
    fn slice(&self) -> Option<&[u8]> {
        None
    }
}

impl Source for &[u8] {
    fn count(&self) -> usize {
        self.len()
    }

    fn copy(&mut self, offset: usize, into: &mut [u8]) -> usize {
        into.copy_from_slice(&self[offset..offset + into.len()]);
        into.len()
    }

    fn fault_in(&mut self, _offset: usize, len: usize) -> usize {
        len
    }

    fn slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// Some of a source's bytes. What writes them is made once for slices, where nothing is called and nothing copied twice, and once
/// for all other sources.
pub(super) struct Piece<'a, S: ?Sized> {
    source: &'a mut S,
    range: Range<usize>,
}

impl<'a, S: Source + ?Sized> Piece<'a, S> {
    /// All of them.
    pub(super) fn all(source: &'a mut S) -> Self {
        let range = 0..source.count();
        Self { source, range }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// The bytes of `range` of these, as far as there are.
    #[inline]
    pub(super) fn part(&mut self, range: Range<usize>) -> Piece<'_, S> {
        let (start, end) = (range.start.min(self.len()), range.end.min(self.len()));
        let range = self.range.start + start..self.range.start + end;
        Piece { source: &mut *self.source, range }
    }

    /// Copies bytes from `offset` of these on, as many as are present, and no more than there is room for.
    fn copy(&mut self, offset: usize, into: &mut [u8]) -> usize {
        self.source.copy(self.range.start + offset, into).min(into.len())
    }

    /// Makes the first bytes present; says whether at least one is.
    ///
    /// # Locks
    /// Waits: none is held of rank 40 or more.
    pub(super) fn fault_in(&mut self) -> bool {
        self.source.fault_in(self.range.start, self.range.len()) > 0
    }

    /// Copies as many bytes as `into` takes, and waits for those that are missing; says how many came before one that cannot be
    /// had.
    ///
    /// # Locks
    /// As [`Self::fault_in`].
    pub(super) fn copy_waiting(&mut self, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            done += self.copy(done, &mut into[done..]);
            let missing = into.len() - done;
            if missing > 0 && self.source.fault_in(self.range.start + done, missing) == 0 {
                break;
            }
        }
        done
    }

    /// Puts bytes into `part` of a folio, which is prepared.
    #[inline]
    pub(super) fn write(&mut self, folio: &LockedFolio, part: &Range<usize>) -> Wrote {
        if let Some(bytes) = self.slice(part) {
            folio.write_bytes(part.start, bytes);
            folio.commit_write(part);
            return Wrote::All(part.len());
        }
        let got = self.get(folio, part);
        let wrote = got.wrote(part);
        got.put(folio, part);
        wrote
    }

    /// Takes the bytes for `part` of a folio, which are not in it yet: few or none, if some are missing.
    pub(super) fn get(&mut self, folio: &LockedFolio, part: &Range<usize>) -> Got<'_> {
        if self.source.slice().is_some() {
            let bytes = self.slice(part).unwrap_or_default();
            return Got { copied: bytes.len(), counted: bytes.len(), bytes: Bytes::Slice(bytes) };
        }
        let fetched = folio.fetch(part, |done, into| self.copy(done, into));
        let copied = fetched.count();
        // All of a short copy, or nothing: blocks that it leaves half changed are not valid (D13.1).
        let is_whole = copied == part.len() || folio.is_valid(0..folio.shape().bytes());
        let counted = if is_whole { copied } else { 0 };
        Got { copied, counted, bytes: Bytes::Fetched(fetched) }
    }

    /// The first bytes, as many as `part` has, if none of the source's can be missing.
    #[inline]
    fn slice(&self, part: &Range<usize>) -> Option<&[u8]> {
        self.source.slice()?.get(self.range.start..self.range.start + part.len())
    }
}

/// What a write has got for a part of a folio.
#[must_use = "the folio does not have it yet"]
pub(super) struct Got<'a> {
    /// How many bytes came.
    copied: usize,
    /// How many of them go in: all or none.
    counted: usize,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Slice(&'a [u8]),
    Fetched(Fetched),
}

impl Got<'_> {
    /// What of `part` of the folio gets bytes.
    pub(super) fn filled(&self, part: &Range<usize>) -> Range<usize> {
        part.start..part.start + self.counted
    }

    /// What of it gets none.
    pub(super) fn rest(&self, part: &Range<usize>) -> Range<usize> {
        part.start + self.counted..part.end
    }

    /// What becomes of a chunk that asked for `part`.
    pub(super) fn wrote(&self, part: &Range<usize>) -> Wrote {
        let (asked, copied, counted) = (part.len(), self.copied, self.counted);
        if counted == asked {
            return Wrote::All(counted);
        }
        Wrote::Short { asked, copied, counted, leaves_promises: false }
    }

    /// Puts what counts into `part` of the folio, and says nothing about its blocks.
    pub(super) fn put_bytes(self, folio: &LockedFolio, part: &Range<usize>) {
        match self.bytes {
            Bytes::Slice(bytes) => folio.write_bytes(part.start, bytes),
            Bytes::Fetched(fetched) if self.counted > 0 => folio.put(part.start, fetched),
            Bytes::Fetched(_) => {}
        }
    }

    /// The same, and what of the rest is new becomes zeros (D13.1).
    ///
    /// Source: kernel `fs/buffer.c`, `block_write_end`.
    pub(super) fn put(self, folio: &LockedFolio, part: &Range<usize>) {
        let (filled, rest) = (self.filled(part), self.rest(part));
        self.put_bytes(folio, part);
        if !rest.is_empty() {
            folio.zero_new(&rest);
        }
        if !filled.is_empty() {
            folio.commit_write(&filled);
        }
    }
}

/// What became of one chunk of a write: of the bytes that one folio has room for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrote {
    /// All of so many went in.
    All(usize),
    /// Not all of them.
    Short {
        /// How many the folio had room for.
        asked: usize,
        /// How many the source had.
        copied: usize,
        /// How many went in.
        counted: usize,
        /// Behind the end of file there are promises for those that did not.
        leaves_promises: bool,
    },
}

impl Wrote {
    /// How many bytes the source had.
    pub(super) fn copied(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Short { copied, .. } => copied,
        }
    }

    /// How many went in.
    pub(super) fn counted(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Short { counted, .. } => counted,
        }
    }
}
