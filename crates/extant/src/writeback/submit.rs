//! The I/O of a pass, and what follows it: conversion to written, and the end of writeback.
//!
//! Source: kernel `ext4_bio_write_folio`, `ext4_end_io_end`, `ext4_convert_unwritten_io_end_vec` (D15.16, D16).

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::{FrameSlice, Request};
use extant_format::{LogicalRange, PhysicalBlock};

use super::Writeback;
use crate::Error;
use crate::inode::Inode;
use crate::page_cache::{LockedFolio, WritebackGuard};
use crate::transaction::ReservedCredits;

/// Blocks with a place, their bytes shared, their folios marked as being written.
#[derive(Default)]
pub(super) struct Submission {
    pieces: Vec<Piece>,
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

    /// Takes `blocks`, which lie at `at`, from the locked folios.
    pub(super) fn add(
        &mut self,
        folios: &[LockedFolio],
        blocks: LogicalRange,
        at: PhysicalBlock,
        unwritten: bool,
        size: u64,
    ) {
        let (mut data, mut guards) = (Vec::new(), Vec::new());
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
    fn joins(&self, blocks: LogicalRange, at: PhysicalBlock, unwritten: bool) -> bool {
        self.unwritten == unwritten
            && self.blocks.end() == blocks.start().get()
            && self.at.checked_add(self.blocks.len().into()) == Some(at)
    }
}

impl Writeback {
    /// Writes a submission, converts what was unwritten, and ends the writeback of its blocks.
    ///
    /// # Errors
    /// The first; it is kept with the file as well.
    pub(super) fn submit(
        &self,
        inode: &Arc<Inode>,
        submission: Submission,
        reserved: Option<ReservedCredits>,
    ) -> Result<(), Error> {
        if submission.is_empty() {
            return Ok(());
        }
        let io = self.transactions.io();
        let mut pieces = submission.pieces;
        let requests = pieces
            .iter_mut()
            .map(|piece| io.write_request(piece.at, core::mem::take(&mut piece.data)));
        let mut batch: Vec<Request> = requests.collect();
        // Every request has its own result.
        let _ = io.run(&mut batch);
        let results: Vec<_> =
            batch.into_iter().map(|request| request.result.map_err(Error::Device)).collect();
        let mut outcome = Ok(());
        let mut to_convert = Vec::new();
        for (piece, result) in pieces.into_iter().zip(results) {
            if piece.unwritten && result.is_ok() {
                to_convert.push(piece);
            } else {
                outcome = outcome.and(finish(inode, piece, result));
            }
        }
        // What a commit may be waiting for has ended above; now a handle may wait for that commit.
        if !to_convert.is_empty() {
            let converted = self.convert(inode, &to_convert, reserved);
            for piece in to_convert {
                outcome = outcome.and(finish(inode, piece, converted.clone()));
            }
        }
        outcome
    }

    fn convert(
        &self,
        inode: &Inode,
        pieces: &[Piece],
        reserved: Option<ReservedCredits>,
    ) -> Result<(), Error> {
        let mut handle = match reserved {
            Some(reserved) => self.transactions.begin_reserved(reserved)?,
            None => self.begin_conversion(inode)?,
        };
        for piece in pieces {
            let wanted = self.mapper.credits(inode, 1);
            match handle.ensure_credits(wanted, 0) {
                Err(Error::TransactionFull) => {
                    handle.stop()?;
                    handle = self.begin_conversion(inode)?;
                }
                other => other?,
            }
            self.mapper.convert(&mut handle, inode, piece.blocks)?;
            inode.note_transaction(handle.transaction_id(), true);
        }
        handle.stop()
    }

    fn begin_conversion(&self, inode: &Inode) -> Result<crate::transaction::Handle<'_>, Error> {
        let blocks = self.mapper.credits(inode, 1);
        self.transactions
            .begin(crate::transaction::Credits::blocks(blocks, self.transactions.geometry()))
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
