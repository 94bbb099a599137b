//! What a block needs before a write puts bytes into it: a place or a promise, and valid bytes around the write's edges.
//!
//! Source: kernel `ext4_block_write_begin` (D8).

use alloc::vec::Vec;
use core::ops::Range;

use extant_device::Request;
use extant_format::cast::{u64_from, usize_from};
use extant_format::{LogicalRange, PhysicalBlock, PhysicalRange};

use super::Files;
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::Mapped;
use crate::page_cache::{LockedFolio, Placement, PrepareStep};

impl Files {
    /// Maps every block of `bytes` that has neither place nor promise by `map`, then zeroes or reads what the write
    /// leaves of the blocks at its edges. Offsets count from the folio's start.
    ///
    /// # Errors
    /// Of `map` and of the device. Blocks that got a place or promise by then are still new: see `zero_new`.
    pub(super) fn prepare(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
        bytes: &Range<usize>,
        mut map: impl FnMut(LogicalRange) -> Result<Mapped, Error>,
    ) -> Result<(), Error> {
        for mut run in folio.unmapped(bytes) {
            while !run.is_empty() {
                let mapped = map(folio.shape().file_blocks(&run))?;
                let len = usize_from(mapped.blocks.len()).min(run.len());
                folio.place(run.start..run.start + len, placement(&mapped));
                run.start += len;
            }
        }
        self.prepare_edges(inode, folio, bytes)
    }

    /// Zeroes or reads what a write of `bytes`, all of whose blocks are mapped, leaves of the blocks at its edges.
    ///
    /// # Errors
    /// Of the device.
    pub(super) fn prepare_edges(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
        bytes: &Range<usize>,
    ) -> Result<(), Error> {
        for (block, step) in folio.edges(bytes) {
            match step {
                PrepareStep::ZeroOutside => folio.zero_outside(block, bytes),
                PrepareStep::Read => self.read_blocks(inode, folio, block..block + 1)?,
                PrepareStep::Nothing | PrepareStep::MapFirst => {}
            }
        }
        Ok(())
    }

    /// Reads blocks of a folio from the device; holes and unwritten blocks become zeros.
    ///
    /// # Errors
    /// Of the block map and of the device.
    pub(super) fn read_blocks(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
        blocks: Range<usize>,
    ) -> Result<(), Error> {
        let mut reads = Vec::new();
        let _ = self.plan_reads(folio, blocks, &mut reads, |range| {
            self.mapper.look_up_again(inode, range)
        })?;
        self.run_reads(core::slice::from_ref(folio), reads)
    }

    /// Requests for those of `blocks` that have data; the rest is zeroed at once. Says how the blocks lie.
    pub(super) fn plan_reads(
        &self,
        folio: &LockedFolio,
        mut blocks: Range<usize>,
        reads: &mut Vec<PlannedRead>,
        mut look_up: impl FnMut(LogicalRange) -> Result<Mapped, Error>,
    ) -> Result<Layout, Error> {
        let (mut layout, mut next) = (Layout::Simple, None);
        let start = blocks.start;
        while !blocks.is_empty() {
            let mapped = look_up(folio.shape().file_blocks(&blocks))?;
            let len = usize_from(mapped.blocks.len()).min(blocks.len());
            let run = blocks.start..blocks.start + len;
            blocks.start += len;
            match mapped.state {
                BlockState::Written(at) => {
                    if run.start > start && next != Some(at) {
                        layout = Layout::Mixed;
                    }
                    next = at.checked_add(u64_from(len));
                    self.plan_device_reads(folio, run, at, reads);
                }
                BlockState::Hole | BlockState::Delayed | BlockState::Unwritten(_) => {
                    next = None;
                    folio.fill_hole(run);
                }
            }
        }
        Ok(layout)
    }

    /// Requests for `blocks`, which lie at `at`; those that the journal has newer bytes of are taken from there at once.
    fn plan_device_reads(
        &self,
        folio: &LockedFolio,
        blocks: Range<usize>,
        at: PhysicalBlock,
        reads: &mut Vec<PlannedRead>,
    ) {
        let place = |block: usize| at.get() + u64_from(block - blocks.start);
        let mut plan = |blocks: Range<usize>| {
            let frames = folio.read_frames(&blocks);
            let at = PhysicalBlock::new(place(blocks.start));
            let request = Request::read(self.transactions.io().offset(at), frames);
            reads.push(PlannedRead { folio: folio.shape().start(), blocks, request });
        };
        let range = PhysicalRange::new(at, u64_from(blocks.len()));
        let mut next = blocks.start;
        for (newer, bytes) in
            range.map(|range| self.transactions.newest_data(range)).unwrap_or_default()
        {
            let nth = newer.get() - at.get();
            let block = blocks.start + usize::try_from(nth).expect("within the blocks of a folio");
            if next < block {
                plan(next..block);
            }
            let mut frames = folio.read_frames(&(block..block + 1));
            frames[0].make_mut().copy_from_slice(bytes.as_slice());
            folio.read_done(block..block + 1, frames);
            next = block + 1;
        }
        if next < blocks.end {
            plan(next..blocks.end);
        }
    }

    /// Runs planned reads in one batch, and puts what came into the folios, all of which are locked.
    pub(super) fn run_reads(
        &self,
        folios: &[LockedFolio],
        reads: Vec<PlannedRead>,
    ) -> Result<(), Error> {
        if reads.is_empty() {
            return Ok(());
        }
        let (places, mut batch): (Vec<_>, Vec<_>) =
            reads.into_iter().map(|read| ((read.folio, read.blocks), read.request)).unzip();
        let outcome = self.transactions.io().run(&mut batch);
        for ((start, blocks), request) in places.into_iter().zip(batch) {
            let folio = folios.iter().find(|folio| folio.shape().start() == start);
            if let (Some(folio), Ok(frames)) = (folio, request.into_frames()) {
                folio.read_done(blocks, frames);
            }
        }
        outcome
    }
}

/// How the blocks of a folio that is read lie on the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Layout {
    /// One behind the other, with holes at the most at their end.
    Simple,
    /// In pieces.
    Mixed,
}

/// A read on its way into a folio.
pub(super) struct PlannedRead {
    /// The folio's first byte in the file.
    pub(super) folio: u64,
    pub(super) blocks: Range<usize>,
    request: Request,
}

fn placement(mapped: &Mapped) -> Placement {
    match mapped.state {
        BlockState::Hole | BlockState::Delayed => Placement::Delayed,
        BlockState::Unwritten(_) => Placement::Unwritten,
        BlockState::Written(_) if mapped.new => Placement::Fresh,
        BlockState::Written(_) => Placement::Written,
    }
}
