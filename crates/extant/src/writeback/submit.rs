//! The I/O of a pass, and what follows it: conversion to written, and the end of writeback.
//!
//! Source: kernel `ext4_bio_write_folio`, `ext4_end_io_end`, `ext4_convert_unwritten_io_end_vec` (D15.16, D16).

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::{FrameSlice, Request};
use extant_format::cast::u64_from;
use extant_format::{InodeNumber, LogicalRange, PhysicalBlock};

use super::Writeback;
use crate::Error;
use crate::inode::Inode;
use crate::page_cache::{LockedFolio, WritebackGuard};
use crate::trace::{HandleType, Task};
use crate::transaction::{Credits, Handle, ReservedCredits};

/// Blocks with a place, their bytes shared, their folios marked as being written.
#[derive(Default)]
pub(super) struct Submission {
    pieces: Vec<Piece>,
    bytes: u64,
}

/// A run of blocks, neighbours in the file and on the device.
struct Piece {
    blocks: LogicalRange,
    at: PhysicalBlock,
    /// To be converted once the data is there.
    unwritten: bool,
    data: Vec<FrameSlice>,
    guards: Vec<WritebackGuard>,
}

impl Submission {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether it fills a batch by itself.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > MAX_BATCH_BYTES
    }

    /// Takes `blocks`, which lie at `at`, from the locked folios.
    pub(super) fn add<'f>(
        &mut self,
        folios: impl Iterator<Item = &'f LockedFolio>,
        blocks: LogicalRange,
        at: PhysicalBlock,
        unwritten: bool,
        size: u64,
    ) {
        let (mut data, mut guards) = (Vec::<FrameSlice>::new(), Vec::new());
        for folio in folios {
            let shape = folio.shape();
            let part = shape.blocks_in(blocks);
            if part.is_empty() {
                continue;
            }
            // Nothing but zeros reaches the device behind the end of file (I6).
            let bytes = shape.bytes_of(&part);
            let tail = shape.part_of(&(size..u64::MAX));
            folio.zero(tail.start.max(bytes.start)..bytes.end.max(tail.start.max(bytes.start)));
            folio.placed_for_write(part.clone());
            let (guard, slices) = folio.begin_writeback(part);
            data.extend(slices);
            guards.push(guard);
        }
        self.bytes += data.iter().map(|slice| u64_from(slice.len())).sum::<u64>();
        match self.pieces.last_mut() {
            Some(last) if last.joins(blocks, at, unwritten) => {
                let len = last.blocks.len() + blocks.len();
                last.blocks =
                    LogicalRange::new(last.blocks.start().get(), len).unwrap_or(last.blocks);
                last.data.extend(data);
                last.guards.extend(guards);
            }
            _ => self.pieces.push(Piece { blocks, at, unwritten, data, guards }),
        }
    }
}

impl Piece {
    /// The block of the device behind it.
    fn end(&self) -> Option<PhysicalBlock> {
        self.at.checked_add(self.blocks.len().into())
    }

    /// Where it lies on the device, from its first block to the one behind it.
    fn place(&self) -> (PhysicalBlock, PhysicalBlock) {
        (self.at, self.end().unwrap_or(self.at))
    }

    fn joins(&self, blocks: LogicalRange, at: PhysicalBlock, unwritten: bool) -> bool {
        self.unwritten == unwritten
            && self.blocks.end() == blocks.start().get()
            && self.end() == Some(at)
    }
}

/// What several passes, also over several files, have ready for the device, to go there together.
///
/// Blocks in here count as being written, so whoever has one may not wait for the journal or for other writeback: it
/// submits first.
#[derive(Default)]
pub(super) struct Batch {
    passes: Vec<Pass>,
    bytes: u64,
}

pub(super) struct Pass {
    inode: Arc<Inode>,
    pieces: Vec<Piece>,
    reserved: Option<ReservedCredits>,
}

impl Batch {
    /// Adds what a pass over `inode` has placed, with the credits for the end of its I/O.
    pub(super) fn add(
        &mut self,
        inode: &Arc<Inode>,
        submission: Submission,
        reserved: Option<ReservedCredits>,
    ) {
        if !submission.is_empty() {
            self.bytes += submission.bytes;
            self.passes.push(Pass {
                inode: Arc::clone(inode),
                pieces: submission.pieces,
                reserved,
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.passes.is_empty()
    }

    /// Whether it is worth a visit to the device.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > MAX_BATCH_BYTES || self.passes.len() >= MAX_BATCH_PASSES
    }
}

/// When the I/O of each pass ends: how many pieces end before its last one. A piece that touches the request before it joins
/// that, at its end or its start; a request ends from front to back.
///
/// Source: kernel `blk_attempt_plug_merge`.
fn ends<P>(passes: impl ExactSizeIterator<Item = P>) -> Vec<usize>
where
    P: Iterator<Item = (PhysicalBlock, PhysicalBlock)>,
{
    let mut ends = alloc::vec![0; passes.len()];
    let mut order: Vec<usize> = Vec::with_capacity(passes.len());
    // The last request's first piece, and where it lies.
    let mut last: Option<(usize, PhysicalBlock, PhysicalBlock)> = None;
    for (nth, pieces) in passes.enumerate() {
        for (start, end) in pieces {
            let (first, place, start, end) = match last {
                Some((first, from, to)) if to == start => (first, order.len(), from, end),
                Some((first, from, to)) if from == end => (first, first, start, to),
                _ => (order.len(), order.len(), start, end),
            };
            order.insert(place, nth);
            last = Some((first, start, end));
        }
    }
    order.into_iter().enumerate().for_each(|(place, nth)| ends[nth] = place);
    ends
}

/// Data that is on the device, in blocks that become written when this goes: who started its writeback and does not wait for it
/// sees them as they were meanwhile. Who has one waits for no writeback of the same file, and for no handle: a commit may be
/// waiting for this.
#[must_use = "the blocks become written at once"]
pub(crate) struct Ending<'w> {
    writeback: &'w Writeback,
    passes: Vec<Pass>,
}

impl Ending<'_> {
    pub(super) const fn new(writeback: &Writeback, passes: Vec<Pass>) -> Ending<'_> {
        Ending { writeback, passes }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // A failure is kept with the file, whose owner hears of it at the next fsync.
        let _ = self.writeback.end(core::mem::take(&mut self.passes));
    }
}

/// Bytes that go to the device together, and passes: each holds credits.
const MAX_BATCH_BYTES: u64 = 8 << 20;
const MAX_BATCH_PASSES: usize = 64;

impl Writeback {
    /// Writes a batch, which is empty then; converts what was unwritten, and ends the writeback of all its blocks.
    ///
    /// # Errors
    /// The first; each is kept with its file as well.
    pub(super) fn submit(&self, batch: &mut Batch) -> Result<(), Error> {
        let (passes, outcome) = self.transfer(batch);
        outcome.and(self.end(passes))
    }

    /// Writes a batch, which is empty then, and ends the writeback of all that needs no conversion. Returns the rest in the
    /// order in which its I/O ended, and the first error.
    pub(super) fn transfer(&self, batch: &mut Batch) -> (Vec<Pass>, Result<(), Error>) {
        let Batch { mut passes, .. } = core::mem::take(batch);
        if passes.is_empty() {
            return (passes, Ok(()));
        }
        let io = self.transactions.io();
        let ends = ends(passes.iter().map(|pass| pass.pieces.iter().map(Piece::place)));
        let pieces = passes.iter_mut().flat_map(|pass| &mut pass.pieces);
        let mut requests: Vec<Request> = pieces
            .map(|piece| io.write_request(piece.at, core::mem::take(&mut piece.data)))
            .collect();
        // Every request has its own result.
        let _ = io.run(&mut requests);
        let mut results = requests.into_iter().map(|request| request.result);
        let mut outcome = Ok(());
        for Pass { inode, pieces, .. } in &mut passes {
            for piece in core::mem::take(pieces) {
                let result = results.next().unwrap_or(Ok(())).map_err(Error::Device);
                if piece.unwritten && result.is_ok() {
                    pieces.push(piece);
                } else {
                    outcome = outcome.and(finish(inode, piece, result));
                }
            }
        }
        let mut passes: Vec<_> = passes.into_iter().zip(ends).collect();
        passes.sort_by_key(|(_, end)| *end);
        (passes.into_iter().map(|(pass, _)| pass).collect(), outcome)
    }

    /// Converts what [`Self::transfer`] has left. What a commit may be waiting for has ended there; now a handle may wait for
    /// that commit.
    ///
    /// # Errors
    /// The first; each is kept with its file as well.
    fn end(&self, passes: Vec<Pass>) -> Result<(), Error> {
        let _task = self.transactions.tracer().task(Task::EndOfIo);
        let mut outcome = Ok(());
        for Pass { inode, pieces, mut reserved } in passes {
            let (mut handle, mut pieces) = (None, pieces.into_iter().peekable());
            while let Some(first) = pieces.next() {
                // Neighbours in the file are converted together, wherever they lie.
                let (mut blocks, mut group) = (first.blocks, Vec::from([first]));
                while let Some(next) =
                    pieces.next_if(|next| next.blocks.start().get() == blocks.end())
                {
                    blocks =
                        LogicalRange::between(blocks.start(), next.blocks.end()).unwrap_or(blocks);
                    group.push(next);
                }
                let converted = self.convert(&mut handle, &mut reserved, &inode, blocks);
                for piece in group {
                    outcome = outcome.and(finish(&inode, piece, converted.clone()));
                }
            }
            outcome = outcome.and(handle.map_or(Ok(()), Handle::stop));
        }
        outcome
    }

    /// Makes blocks written whose data is on the device, under the handle of those before, as long as its transaction
    /// has room.
    fn convert<'t>(
        &'t self,
        handle: &mut Option<Handle<'t>>,
        reserved: &mut Option<ReservedCredits>,
        inode: &Inode,
        blocks: LogicalRange,
    ) -> Result<(), Error> {
        let wanted = self.mapper.credits(inode, 1);
        let mut current = match handle.take() {
            Some(handle) => handle,
            None => self.begin_conversion(inode.number(), wanted, reserved.take())?,
        };
        while let Err(error) = current.ensure_credits(wanted, 0) {
            if !matches!(error, Error::TransactionFull) {
                return Err(error);
            }
            current.stop()?;
            current = self.begin_conversion(inode.number(), wanted, reserved.take())?;
        }
        let converted = self.mapper.convert(&mut current, inode, blocks);
        inode.note_transaction(current.transaction_id(), true);
        *handle = Some(current);
        converted
    }

    fn begin_conversion(
        &self,
        inode: InodeNumber,
        wanted: u32,
        reserved: Option<ReservedCredits>,
    ) -> Result<Handle<'_>, Error> {
        match reserved {
            Some(reserved) => self.transactions.begin_reserved(reserved),
            None => {
                let credits = Credits::blocks(wanted, self.transactions.geometry());
                self.transactions.begin(credits.of(HandleType::ExtentConversion, inode))
            }
        }
    }
}

fn finish(inode: &Inode, piece: Piece, result: Result<(), Error>) -> Result<(), Error> {
    if let Err(error) = &result {
        inode.pages.record_error(error.clone());
    }
    for guard in piece.guards {
        guard.complete(Ok(()));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In which order the I/O of passes ends, each a list of runs on the device.
    fn order(passes: &[&[(u64, u64)]]) -> Vec<usize> {
        let place =
            |&(start, end): &(u64, u64)| (PhysicalBlock::new(start), PhysicalBlock::new(end));
        let ends = ends(passes.iter().map(|pieces| pieces.iter().map(place)));
        let mut order: Vec<usize> = (0..passes.len()).collect();
        order.sort_by_key(|&nth| ends[nth]);
        order
    }

    #[test]
    fn a_request_ends_from_front_to_back() {
        assert_eq!(order(&[&[(10, 20)], &[(20, 30)]]), [0, 1]);
        assert_eq!(order(&[&[(20, 30)], &[(10, 20)]]), [1, 0], "before what it touches");
        assert_eq!(order(&[&[(20, 30)], &[(40, 50)], &[(10, 20)]]), [0, 1, 2], "not the last");
        assert_eq!(order(&[&[(20, 30)], &[(30, 40)], &[(10, 20)]]), [2, 0, 1]);
    }

    #[test]
    fn a_pass_ends_with_its_last_piece() {
        assert_eq!(order(&[&[(50, 60), (20, 30)], &[(10, 20)]]), [1, 0]);
        assert_eq!(order(&[&[(50, 60), (20, 30)], &[(30, 40)]]), [0, 1]);
    }
}
