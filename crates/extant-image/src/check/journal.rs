//! The journal: judged, and replayed in memory if that is needed.
//!
//! Source: e2fsprogs `e2fsck/journal.c`, `e2fsck_check_ext3_journal`; kernel `fs/jbd2/recovery.c` by `extant-journal`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use extant_device::{BlockDevice, DeviceError, DeviceGeometry, Operation, OperationKind, Request};
use extant_format::cast::{u64_from, usize_from};
use extant_format::jbd2::JournalSuperblock;
use extant_format::{Compat, FileType, Incompat, InodeNumber, PhysicalBlock};
use extant_journal::{
    JournalError, JournalParameters, LogRange, Recovered, Recovery, RecoveryMode, RecoveryStep,
};

use super::CheckError;
use super::finding::Place;
use super::image::{Image, Inode};
use super::map::{self, DirRuns, Runs};
use super::report::Findings;
use super::rule::Rule;

/// Blocks that the journal has newer than the device, by number.
pub(super) type Copies = BTreeMap<u64, Vec<u8>>;

/// Judges the journal; the blocks that replaying it would write, if it has to be replayed.
pub(super) fn recover(
    image: &Image<'_>,
    findings: &mut Findings,
    notes: &mut Vec<String>,
) -> Result<Option<Copies>, CheckError> {
    let at = Place::superblock;
    let number = image.raw.journal_inum.get();
    let needs_recovery = image.incompat(Incompat::RECOVER);
    if !image.compat(Compat::HAS_JOURNAL) {
        if number != 0 {
            findings.add(
                Rule::JournalWithoutFeature,
                at(),
                InodeNumber::new(number).map_or(0, InodeNumber::get),
                0_u32,
            );
        } else if needs_recovery {
            findings.add(Rule::RecoveryWithoutJournal, at(), (), ());
        }
        return Ok(None);
    }
    if number == 0 && image.raw.journal_uuid.iter().any(|byte| *byte != 0) {
        let state = if needs_recovery { "needs recovery, and " } else { "" };
        notes.push(format!("the journal {state}is on a device of its own, which is not read"));
        return Ok(None);
    }
    let Some((runs, len)) = find(image, number)? else {
        findings.add(Rule::JournalInode, at(), number, ());
        return Ok(None);
    };
    let log = Log { image, runs };
    let Some(first) = log.block(0) else { return Ok(None) };
    let superblock = match JournalSuperblock::parse(&image.io.block(first)?) {
        Ok(superblock) => superblock,
        Err(error) => {
            let place = at().block(first);
            findings.add(Rule::JournalSuperblock, place, error.to_string(), ());
            return Ok(None);
        }
    };
    let fits =
        superblock.format().block_size == image.geometry.block_size && superblock.max_len() <= len;
    if !fits {
        let place = at().block(first);
        findings.add(Rule::JournalSuperblock, place, "other sizes than its file", ());
        return Ok(None);
    }
    if superblock.start().is_none() {
        return Ok(None);
    }
    if !needs_recovery {
        findings.add(Rule::JournalRecoveryClear, at().block(first), (), ());
        return Ok(None);
    }
    replay(&log, superblock, findings, notes)
}

/// Where the blocks of the journal lie, and how many it has.
fn find(image: &Image<'_>, number: u32) -> Result<Option<(DirRuns, u32)>, DeviceError> {
    let Some(number) = InodeNumber::new(number) else { return Ok(None) };
    let Some(bytes) = image.read_inode(number)? else { return Ok(None) };
    let Some(inode) = Inode::new(number, &bytes) else { return Ok(None) };
    if inode.links() == 0 || inode.file_type() != Some(FileType::Regular) {
        return Ok(None);
    }
    let mut runs = Runs::default();
    let mapped = map::walk(image, &inode, &mut Findings::new(0), &mut runs)?;
    let blocks = u32::try_from(inode.size() >> image.geometry.block_bits).unwrap_or(u32::MAX);
    let mut next = 0;
    for (logical, _, len) in &runs.0 {
        if *logical != next {
            return Ok(None);
        }
        next = logical.saturating_add(*len);
    }
    let sound = !mapped.is_partial && blocks > 0 && next >= blocks;
    Ok(sound.then_some((runs.0, blocks)))
}

struct Log<'a, 'b> {
    image: &'a Image<'b>,
    runs: DirRuns,
}

impl Log<'_, '_> {
    /// Where a block of the journal lies.
    fn block(&self, n: u32) -> Option<PhysicalBlock> {
        let after = self.runs.partition_point(|(logical, ..)| *logical <= n);
        let (logical, start, len) = self.runs.get(after.checked_sub(1)?)?;
        let within = n.checked_sub(*logical).filter(|within| within < len)?;
        start.checked_add(within.into())
    }

    fn read(&self, range: LogRange) -> Option<Vec<u8>> {
        let block_len = self.image.geometry.block_len();
        let mut bytes = vec![0; usize_from(range.len).checked_mul(block_len)?];
        let first = range.start.get();
        for (n, block) in (first..).zip(bytes.chunks_exact_mut(block_len)) {
            self.image.io.read(self.block(n)?, block).ok()?;
        }
        Some(bytes)
    }
}

fn replay(
    log: &Log<'_, '_>,
    superblock: JournalSuperblock,
    findings: &mut Findings,
    notes: &mut Vec<String>,
) -> Result<Option<Copies>, CheckError> {
    let mut copies = Copies::new();
    match run(log, superblock, &mut copies) {
        Ok(recovered) => {
            let (all, blocks) = (recovered.transactions, copies.len());
            notes.push(format!(
                "the journal needs recovery: its {all} transactions ({blocks} blocks) were replayed in memory, \
                 and what follows is of the image as it is then"
            ));
            if let Some(fast) = recovered.fast_commits {
                let records = fast.records;
                notes
                    .push(format!("{records} records of fast commits after them were not applied"));
            }
        }
        Err(error) => {
            findings.add(Rule::JournalDamaged, Place::superblock(), error.to_string(), ());
            return Ok(None);
        }
    }
    Ok(Some(copies))
}

fn run(
    log: &Log<'_, '_>,
    superblock: JournalSuperblock,
    copies: &mut Copies,
) -> Result<Recovered, JournalError> {
    let parameters = JournalParameters::new(superblock)?;
    let blocks = log.image.geometry.blocks_count;
    let mut recovery = Recovery::new(parameters, RecoveryMode::Replay, blocks)?;
    loop {
        match recovery.step()? {
            RecoveryStep::Done(recovered) => return Ok(recovered),
            RecoveryStep::Read(range) => match log.read(range) {
                Some(bytes) => recovery.supply(&bytes),
                None => recovery.read_failed(),
            },
            RecoveryStep::Write(blocks) => {
                copies.extend(blocks.into_iter().map(|(block, bytes)| (block.get(), bytes)));
            }
        }
    }
}

/// A device as it is once its journal has been replayed; never written.
pub(super) struct Replayed<'a> {
    pub(super) below: &'a dyn BlockDevice,
    pub(super) block_bits: u32,
    pub(super) copies: Copies,
}

impl Replayed<'_> {
    /// Lays the journal's blocks over what was read from the device.
    fn patch(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset.saturating_add(u64_from(bytes.len()));
        let (first, last) = (offset >> self.block_bits, end.div_ceil(1 << self.block_bits));
        for (block, copy) in self.copies.range(first..last) {
            let start = block << self.block_bits;
            let (from, to) = (start.max(offset), (start + (1 << self.block_bits)).min(end));
            let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let target = bytes.get_mut(index(from - offset)..index(to - offset));
            let source = copy.get(index(from - start)..index(to - start));
            if let (Some(target), Some(source)) = (target, source) {
                target.copy_from_slice(source);
            }
        }
    }
}

impl BlockDevice for Replayed<'_> {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry { read_only: true, ..self.below.geometry() }
    }

    fn run(&self, batch: &mut [Request]) {
        for request in batch {
            match request.kind() {
                OperationKind::Read => {
                    self.below.run(core::slice::from_mut(request));
                    let mut offset = request.offset;
                    let Operation::Read { into } = &mut request.operation else { continue };
                    for frame in into {
                        self.patch(offset, frame.make_mut());
                        offset = offset.saturating_add(u64_from(frame.len()));
                    }
                }
                OperationKind::Flush => {}
                operation @ (OperationKind::Write
                | OperationKind::Discard
                | OperationKind::WriteZeroes) => {
                    let offset = request.offset;
                    request.result = Err(DeviceError::ReadOnly { operation, offset });
                }
            }
        }
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.below.read_into(offset, bytes)?;
        self.patch(offset, bytes);
        Ok(())
    }
}
