//! The journal at the mount: found, recovered or read through, fast commits included.
//!
//! Fast commits are replayed in memory. A read-only mount reads through the outcome. Another writes it into the log, from which
//! the recovery before has taken everything home, as the one transaction that the fast commits were a part of, and recovers
//! once more: so a crash finds all of them applied, or none and their records.
//!
//! Source: kernel `fs/ext4/super.c`, `ext4_load_and_init_journal`; `fs/jbd2/recovery.c`, `jbd2_journal_recover`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use extant_device::{BlockDevice, Frame, Request};
use extant_format::corruption::{Place, Rule, Unsupported};
use extant_format::jbd2::{JournalCompat, JournalIncompat, JournalSuperblock};
use extant_format::{
    Compat, Geometry, Incompat, InodeNumber, LogicalRange, PhysicalRange, Superblock,
};
use extant_journal::{
    FastCommits, Journal, JournalParameters, LogBlock, LogRange, LogState, Recovered, Recovery,
    RecoveryMode, RecoveryStep,
};

use super::journal_device;
use super::layers::Layers;
use super::mount::{read_descriptors, read_superblock};
use super::recovered_view::{Copy, RecoveredView};
use super::replay::{self, Changes, Records};
use super::volume::{Outside, Volume};
use crate::Error;
use crate::block_io::BlockIo;
use crate::extent_status::BlockState;
use crate::options::{DataMode, MountOptions};
use crate::time::{Clock, Entropy};
use crate::transaction::{JournalState, LogMap};

/// How much fast commits may change, which is held in memory until it is in the log. An area of the usual 256 blocks tells
/// of far less.
const MOST_CHANGED_BYTES: u32 = 128 << 20;

/// What was found where a journal might be.
pub(super) enum Opened {
    /// None, or none that matters to a reader.
    None,
    /// An empty one that is not to be used; its blocks.
    Unused(Vec<PhysicalRange>),
    /// A log that needs recovery, on a volume that must not be written: read through it.
    Through(Arc<dyn BlockDevice>),
    /// Recovered and ready.
    Ready {
        state: Box<JournalState>,
        /// An earlier mount had to stop the journal.
        has_failed: bool,
    },
}

/// What a mount has when it opens the journal.
pub(super) struct Opening<'a> {
    pub(super) io: &'a BlockIo,
    pub(super) options: &'a MountOptions,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) entropy: &'a Arc<dyn Entropy>,
}

/// A journal, and where it lies.
pub(super) struct Log {
    pub(super) map: LogMap,
    /// The device that holds it.
    pub(super) io: BlockIo,
    /// Whether that is one of its own.
    pub(super) separate: bool,
    pub(super) parameters: JournalParameters,
    pub(super) geometry: Geometry,
}

impl Log {
    /// The volume's blocks that hold it.
    fn home_blocks(&self) -> Vec<PhysicalRange> {
        if self.separate { Vec::new() } else { self.map.runs().collect() }
    }
}

impl Opening<'_> {
    /// Opens the journal that `superblock` names.
    ///
    /// # Errors
    /// Why it cannot be recovered; the device may have been written nonetheless, as far as that changes nothing.
    pub(super) fn open_journal(&self, superblock: &Superblock) -> Result<Opened, Error> {
        if !superblock.geometry().compat.contains(Compat::HAS_JOURNAL) {
            return Ok(Opened::None);
        }
        let needs_recovery = superblock.raw().incompat().contains(Incompat::RECOVER);
        let mut log = match (superblock.journal_inode(), &self.options.journal_device) {
            (Some(number), _) => self.find_log(superblock, number)?,
            (None, Some(device)) => journal_device::find_log(superblock, &device.0)?,
            (None, None)
                if needs_recovery || !(self.options.read_only || self.options.unjournaled) =>
            {
                let needs = Unsupported::Needs("a journal on a device of its own", "that device");
                return Err(needs.into());
            }
            (None, None) => return Ok(Opened::None),
        };
        let dirty = log.parameters.start().is_some();
        if self.options.read_only {
            return if dirty { self.read_through(&log) } else { Ok(Opened::None) };
        }
        if self.options.unjournaled {
            if dirty || needs_recovery {
                return Err(Error::Invalid("a journal that has to be recovered first"));
            }
            return Ok(Opened::Unused(log.home_blocks()));
        }
        let mut recovered = self.recover(&log, RecoveryMode::Replay)?;
        if let Some(found) = recovered.fast_commits {
            // What is written over in the log must not be needed any more.
            self.io.flush()?;
            let changes = self.replay(&log, found, self.io)?;
            if !changes.is_empty() {
                let state = LogState { next_tid: found.tid, ..recovered.state };
                self.write_alone(&log, state, changes)?;
                log.parameters = journal_parameters(&log.map, &log.io, &log.geometry)?;
                recovered = self.recover(&log, RecoveryMode::Replay)?;
            }
        }
        if dirty {
            self.io.flush()?;
            write_log_block(&log.map, &log.io, LogBlock::SUPERBLOCK, recovered.superblock.bytes())?;
        }
        let parameters = self.with_features(&log)?;
        let has_failed = parameters.recorded_errno().is_some();
        let journal = Journal::new(parameters, recovered.state);
        let state =
            JournalState::new(journal, log.io, log.separate, log.map, self.options.barriers);
        Ok(Opened::Ready { state: Box::new(state), has_failed })
    }

    /// Where the journal in inode `number` is, and its parameters.
    pub(super) fn find_log(
        &self,
        superblock: &Superblock,
        number: InodeNumber,
    ) -> Result<Log, Error> {
        let geometry = *superblock.geometry();
        let map = self.journal_map(superblock, number)?;
        let parameters = journal_parameters(&map, self.io, &geometry)?;
        Ok(Log { map, io: self.io.clone(), separate: false, parameters, geometry })
    }

    /// Where the journal inode's blocks lie; read through layers that know no journal.
    fn journal_map(&self, superblock: &Superblock, number: InodeNumber) -> Result<LogMap, Error> {
        let geometry = superblock.geometry();
        let reading = MountOptions { read_only: true, ..self.options.clone() };
        let descriptors = read_descriptors(superblock, self.io, true)?;
        let layers = Layers::new(
            self.io.clone(),
            superblock,
            descriptors,
            None,
            Vec::new(),
            &reading,
            self.clock,
        )?;
        let inode = layers.inodes.get(number)?;
        let at = Place::Inode(number);
        let blocks = u32::try_from(inode.size() >> geometry.block_bits)
            .map_err(|_| at.breaks(Rule::JournalSize))?;
        at.require(blocks > 1, Rule::JournalSize)?;
        let mut map = LogMap::default();
        while let Some(rest) = LogicalRange::new(map.len(), blocks - map.len()) {
            let mapped = layers.mapper.look_up(&inode, rest)?;
            let BlockState::Written(start) = mapped.state else {
                return Err(at.breaks(Rule::JournalSize).into());
            };
            at.require(map.push(start, mapped.blocks.len()), Rule::JournalSize)?;
        }
        Ok(map)
    }

    fn read_through(&self, log: &Log) -> Result<Opened, Error> {
        let recovered = self.recover(log, RecoveryMode::Map)?;
        let mut copies = BTreeMap::new();
        for (block, replacement) in recovered.map.iter() {
            let broken = Place::Journal(replacement.at.get()).breaks(Rule::JournalSize);
            let at = log.map.block(replacement.at).ok_or(broken)?;
            copies.insert(self.io.offset(block), Copy::Logged(log.io.offset(at), replacement));
        }
        let view = |copies| -> Arc<dyn BlockDevice> {
            let (data, journal) = (Arc::clone(self.io.device()), Arc::clone(log.io.device()));
            Arc::new(RecoveredView::new(data, journal, log.geometry.block_size, copies))
        };
        if let Some(found) = recovered.fast_commits {
            let io = BlockIo::new(view(copies.clone()), log.geometry.block_bits);
            for (block, frame) in self.replay(log, found, &io)? {
                copies.insert(io.offset(block), Copy::InMemory(frame));
            }
        }
        Ok(Opened::Through(view(copies)))
    }

    /// What fast commits change on a volume that `io` reads as it was after the last full commit. Nothing is written.
    fn replay(&self, log: &Log, found: FastCommits, io: &BlockIo) -> Result<Changes, Error> {
        let records = Records::new(found, log.geometry.block_len(), || {
            read_log(&log.map, &log.io, &log.geometry, found.blocks)
        })?;
        let superblock = read_superblock(&**io.device())?;
        let descriptors = read_descriptors(&superblock, io, false)?;
        // No data is written, so it does not matter how.
        let options = MountOptions { read_only: false, data_mode: None, ..self.options.clone() };
        let layers = Layers::new(
            io.clone(),
            &superblock,
            descriptors,
            None,
            log.home_blocks(),
            &options,
            self.clock,
        )?;
        let most = MOST_CHANGED_BYTES >> log.geometry.block_bits;
        layers.transactions.limit_changes(log.parameters.area().len().min(most));
        let (clock, entropy) = (Arc::clone(self.clock), Arc::clone(self.entropy));
        let outside = Outside { clock, entropy, protection: None };
        let volume = Volume::new(layers, superblock, options, None, true, outside);
        replay::replay(&volume, &records)
    }

    /// Writes `changes` as the one transaction of the log, whose number and place `state` says.
    fn write_alone(&self, log: &Log, state: LogState, changes: Changes) -> Result<(), Error> {
        let journal = Journal::new(log.parameters.clone(), state);
        let map = log.map.clone();
        JournalState::new(journal, log.io.clone(), log.separate, map, self.options.barriers)
            .write_alone(changes)
    }

    /// Runs a recovery to its end.
    fn recover(&self, log: &Log, mode: RecoveryMode) -> Result<Recovered, Error> {
        let (io, geometry) = (self.io, &log.geometry);
        let mut recovery = Recovery::new(log.parameters.clone(), mode, geometry.blocks_count)?;
        loop {
            match recovery.step()? {
                RecoveryStep::Done(recovered) => return Ok(recovered),
                RecoveryStep::Read(range) => match read_log(&log.map, &log.io, geometry, range) {
                    Ok(bytes) => recovery.supply(&bytes),
                    Err(_) => recovery.read_failed(),
                },
                RecoveryStep::Write(blocks) => {
                    let requests = blocks.into_iter().map(|(block, bytes)| {
                        Request::write_frame(io.offset(block), Frame::from(bytes))
                    });
                    io.run(&mut requests.collect::<Vec<_>>())?;
                }
            }
        }
    }

    /// The features that the kernel turns on for a journal that it is about to write.
    ///
    /// Source: kernel `fs/ext4/super.c`, `set_journal_csum_feature_set`, `ext4_load_and_init_journal`.
    fn with_features(&self, log: &Log) -> Result<JournalParameters, Error> {
        let geometry = &log.geometry;
        // J10: none where all data is journaled; nor with clusters, since the kernel, where it replays, counts those of a
        // file by their blocks in use.
        let fast_commits = self.options.fast_commits
            && geometry.compat.contains(Compat::FAST_COMMIT)
            && geometry.cluster_bits == 0
            && !self.options.has_data_mode(DataMode::Journal);
        let mut superblock = log.parameters.superblock().clone();
        superblock.change(|raw| {
            let mut features = raw.incompat() | JournalIncompat::REVOKE;
            // A commit block goes out behind all that it covers, whatever an earlier mount did.
            features.remove(
                JournalIncompat::CSUM_V2
                    | JournalIncompat::CSUM_V3
                    | JournalIncompat::ASYNC_COMMIT
                    | JournalIncompat::FAST_COMMIT,
            );
            let compat = raw.compat() - JournalCompat::CHECKSUM;
            raw.feature_compat = compat.bits().into();
            features.set(JournalIncompat::CSUM_V3, geometry.has_metadata_csum());
            features.set(JournalIncompat::BIT64, geometry.incompat.contains(Incompat::BIT64));
            features.set(JournalIncompat::FAST_COMMIT, fast_commits);
            raw.set_incompat(features);
        });
        let mut parameters = JournalParameters::new(superblock)?;
        parameters.commit_interval = self.options.commit_interval;
        Ok(parameters)
    }
}

pub(super) fn journal_parameters(
    map: &LogMap,
    io: &BlockIo,
    geometry: &Geometry,
) -> Result<JournalParameters, Error> {
    let block =
        map.block(LogBlock::SUPERBLOCK).ok_or(Place::Journal(0).breaks(Rule::JournalSize))?;
    let superblock = JournalSuperblock::parse(io.read_block(block)?.as_slice())?;
    let at = Place::Journal(0);
    at.require(superblock.format().block_size == geometry.block_size, Rule::JournalSize)?;
    at.require(superblock.max_len() <= map.len(), Rule::JournalSize)?;
    Ok(JournalParameters::new(superblock)?)
}

fn read_log(
    map: &LogMap,
    io: &BlockIo,
    geometry: &Geometry,
    range: LogRange,
) -> Result<Vec<u8>, Error> {
    let block_len = geometry.block_len();
    let mut batch = Vec::new();
    for at in range.start.get()..range.start.get() + range.len {
        let block = map.block(LogBlock(at)).ok_or(Place::Journal(at).breaks(Rule::JournalSize))?;
        batch.push(Request::read(io.offset(block), vec![Frame::zeroed(block_len)]));
    }
    io.run(&mut batch)?;
    let mut bytes = Vec::with_capacity(block_len * batch.len());
    for request in batch {
        for frame in request.into_frames()? {
            bytes.extend_from_slice(frame.as_slice());
        }
    }
    Ok(bytes)
}

fn write_log_block(map: &LogMap, io: &BlockIo, at: LogBlock, bytes: &[u8]) -> Result<(), Error> {
    let block = map.block(at).ok_or(Place::Journal(at.get()).breaks(Rule::JournalSize))?;
    let frame = Frame::copy_from(bytes);
    let len = frame.len();
    io.run(&mut [Request::write_fua(io.offset(block), vec![frame.slice(0..len)])])
}
