//! From a device to a mounted volume: what is checked first, recovery, orphans, the marks of a mount.
//!
//! Source: kernel `fs/ext4/super.c`, `__ext4_fill_super`, `ext4_load_and_init_journal`, `ext4_setup_super`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use extant_device::{BlockDevice, BlockDeviceExt, Frame, Request};
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule, Unsupported};
use extant_format::descriptor::GroupDescriptor;
use extant_format::jbd2::{JournalIncompat, JournalSuperblock};
use extant_format::superblock::SuperblockFlags;
use extant_format::{
    BlockGroup, Compat, Geometry, Incompat, InodeNumber, LogicalRange, RoCompat, Superblock,
};
use extant_journal::{
    Journal, JournalParameters, LogBlock, LogRange, Recovered, Recovery, RecoveryMode, RecoveryStep,
};

use super::layers::Layers;
use super::recovered_view::RecoveredView;
use super::support;
use super::volume::{STATE_CLEAN, STATE_ERRORS, Volume};
use crate::Error;
use crate::block_io::BlockIo;
use crate::extent_status::BlockState;
use crate::options::MountOptions;
use crate::time::{Clock, Entropy};
use crate::transaction::{JournalState, LogMap};

/// Mounts the volume on `device`.
pub(crate) fn mount(
    options: MountOptions,
    device: Arc<dyn BlockDevice>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<Volume>, Error> {
    let superblock = read_superblock(&*device)?;
    let mut options = options.settled(&superblock)?;
    let geometry = *superblock.geometry();
    check_device(&geometry, &*device)?;
    let reason = support::read_only_because(&geometry);
    options.read_only |= reason.is_some() || device.geometry().read_only;

    let io = BlockIo::new(Arc::clone(&device), geometry.block_bits);
    let found = open_journal(&superblock, &io, &options, &clock)?;
    let (io, journal, journal_blocks, has_failed) = match found {
        Opened::None => (io, None, Vec::new(), false),
        Opened::Through(view) => (BlockIo::new(view, geometry.block_bits), None, Vec::new(), false),
        Opened::Ready { state, has_failed } => {
            let blocks = state.blocks();
            (io, Some(*state), blocks, has_failed)
        }
    };
    // Replay may have changed everything that was read so far.
    let mut superblock = read_superblock(&**io.device())?;
    let is_sound = superblock.raw().state.get() & STATE_CLEAN != 0;
    let descriptors = read_descriptors(&superblock, &io, options.read_only)?;
    let layers =
        Layers::new(io, &superblock, descriptors, journal, journal_blocks, &options, &clock)?;
    if !options.read_only {
        let raw = superblock.raw_mut();
        raw.state = (raw.state.get() | if has_failed { STATE_ERRORS } else { 0 }).into();
        mark_mounted(&mut superblock, &*device, &*clock, layers.transactions.is_journaled())?;
        // The file system knows of the journal's failure now.
        layers.transactions.clear_journal_errno()?;
    }
    let volume = Volume::new(layers, superblock, options, reason, is_sound, (clock, entropy));
    volume.finish_orphans()?;
    Ok(volume)
}

/// The primary superblock, checked.
fn read_superblock(device: &dyn BlockDevice) -> Result<Superblock, Error> {
    let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
    Ok(Superblock::parse(&bytes)?)
}

/// The file system must fit its device: a truncated image is found here, not in the middle of a write.
fn check_device(geometry: &Geometry, device: &dyn BlockDevice) -> Result<(), Error> {
    let wanted = geometry.blocks_count.checked_shl(geometry.block_bits);
    let fits = wanted.is_some_and(|bytes| bytes <= device.geometry().len_bytes);
    Ok(Place::Superblock.require(fits, Rule::BlocksPastDevice)?)
}

/// Every group's descriptor; a wrong checksum matters only to a volume that is to be written.
fn read_descriptors(
    superblock: &Superblock,
    io: &BlockIo,
    read_only: bool,
) -> Result<Vec<GroupDescriptor>, Error> {
    let geometry = superblock.geometry();
    let mut descriptors = Vec::with_capacity(usize_from(geometry.group_count));
    let record = usize_from(geometry.desc_size);
    for index in 0..geometry.desc_blocks {
        let block = io.read_block(geometry.descriptor_block(index))?;
        for bytes in
            block.as_slice().chunks_exact(record).take(usize_from(geometry.desc_per_block()))
        {
            let number = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
            if number >= geometry.group_count {
                break;
            }
            let group = BlockGroup(number);
            let sound = read_only || GroupDescriptor::verify(bytes, geometry, group);
            Place::Group(group).require(sound, Rule::Checksum)?;
            let descriptor = GroupDescriptor::decode(bytes, geometry, group)?;
            descriptor.check_counts(geometry, group)?;
            descriptors.push(descriptor);
        }
    }
    Ok(descriptors)
}

/// What was found where a journal might be.
enum Opened {
    /// None, or none that matters to a reader.
    None,
    /// A log that needs recovery, on a volume that must not be written: read through it.
    Through(Arc<dyn BlockDevice>),
    /// Recovered and ready.
    Ready {
        state: Box<JournalState>,
        /// An earlier mount had to stop the journal.
        has_failed: bool,
    },
}

fn open_journal(
    superblock: &Superblock,
    io: &BlockIo,
    options: &MountOptions,
    clock: &Arc<dyn Clock>,
) -> Result<Opened, Error> {
    let geometry = superblock.geometry();
    let Some(number) = superblock.journal_inode() else {
        if superblock.raw().journal_dev.get() != 0 && !options.read_only {
            return Err(
                Unsupported::Needs("a journal on a device of its own", "that device").into()
            );
        }
        return Ok(Opened::None);
    };
    let map = journal_map(superblock, io, options, clock, number)?;
    let mut parameters = journal_parameters(&map, io, geometry)?;
    parameters.commit_interval = options.commit_interval;
    let dirty = parameters.start().is_some();
    if options.read_only {
        return if dirty { read_through(parameters, map, io, geometry) } else { Ok(Opened::None) };
    }
    let recovered = recover(parameters.clone(), RecoveryMode::Replay, &map, io, geometry)?;
    refuse_fast_commits(&recovered)?;
    if dirty {
        io.flush()?;
        write_log_block(&map, io, LogBlock::SUPERBLOCK, recovered.superblock.bytes())?;
    }
    let parameters = with_features(parameters, geometry)?;
    let has_failed = parameters.recorded_errno().is_some();
    let journal = Journal::new(parameters, recovered.state);
    let state = JournalState::new(journal, io.clone(), false, map, options.barriers);
    Ok(Opened::Ready { state: Box::new(state), has_failed })
}

/// Where the journal inode's blocks lie; read through layers that know no journal.
fn journal_map(
    superblock: &Superblock,
    io: &BlockIo,
    options: &MountOptions,
    clock: &Arc<dyn Clock>,
    number: InodeNumber,
) -> Result<LogMap, Error> {
    let geometry = superblock.geometry();
    let reading = MountOptions { read_only: true, ..options.clone() };
    let descriptors = read_descriptors(superblock, io, true)?;
    let layers =
        Layers::new(io.clone(), superblock, descriptors, None, Vec::new(), &reading, clock)?;
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

fn journal_parameters(
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

/// The features that the kernel turns on for a journal that it is about to write.
///
/// Source: kernel `fs/ext4/super.c`, `set_journal_csum_feature_set`, `ext4_load_and_init_journal`.
fn with_features(
    parameters: JournalParameters,
    geometry: &Geometry,
) -> Result<JournalParameters, Error> {
    let mut superblock = parameters.superblock().clone();
    superblock.change(|raw| {
        let mut features = raw.incompat() | JournalIncompat::REVOKE;
        features.remove(
            JournalIncompat::CSUM_V2 | JournalIncompat::CSUM_V3 | JournalIncompat::FAST_COMMIT,
        );
        features.set(JournalIncompat::CSUM_V3, geometry.has_metadata_csum());
        features.set(JournalIncompat::BIT64, geometry.incompat.contains(Incompat::BIT64));
        raw.set_incompat(features);
    });
    let mut with_features = JournalParameters::new(superblock)?;
    with_features.commit_interval = parameters.commit_interval;
    Ok(with_features)
}

/// What was made durable by fast commits must not be lost; until they are replayed here, another has to do it.
fn refuse_fast_commits(recovered: &Recovered) -> Result<(), Error> {
    if recovered.fast_commits.is_none() {
        return Ok(());
    }
    Err(Error::NotSupported(
        "the journal holds fast commits: mount the image once with Linux, or run e2fsck",
    ))
}

fn read_through(
    parameters: JournalParameters,
    map: LogMap,
    io: &BlockIo,
    geometry: &Geometry,
) -> Result<Opened, Error> {
    let recovered = recover(parameters, RecoveryMode::Map, &map, io, geometry)?;
    refuse_fast_commits(&recovered)?;
    let mut copies = BTreeMap::new();
    for (block, replacement) in recovered.map.iter() {
        let at = map
            .block(replacement.at)
            .ok_or(Place::Journal(replacement.at.get()).breaks(Rule::JournalSize))?;
        copies.insert(io.offset(block), (io.offset(at), replacement));
    }
    let device = Arc::clone(io.device());
    let view = RecoveredView::new(Arc::clone(&device), device, geometry.block_size, copies);
    Ok(Opened::Through(Arc::new(view)))
}

/// Runs a recovery to its end.
fn recover(
    parameters: JournalParameters,
    mode: RecoveryMode,
    map: &LogMap,
    io: &BlockIo,
    geometry: &Geometry,
) -> Result<Recovered, Error> {
    let mut recovery = Recovery::new(parameters, mode, geometry.blocks_count)?;
    loop {
        match recovery.step()? {
            RecoveryStep::Done(recovered) => return Ok(recovered),
            RecoveryStep::Read(range) => match read_log(map, io, geometry, range) {
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

/// Writes what a mount leaves in the superblock: the time, the count, and that the image is in use.
fn mark_mounted(
    superblock: &mut Superblock,
    device: &dyn BlockDevice,
    clock: &dyn Clock,
    journaled: bool,
) -> Result<(), Error> {
    let now = u64::try_from(clock.wall().seconds).unwrap_or(0);
    let is_sign_known = superblock.hash_sign().is_some();
    let raw = superblock.raw_mut();
    if !is_sign_known {
        raw.flags = (raw.flags.get() | SuperblockFlags::SIGNED_HASH.bits()).into();
    }
    raw.set_mount_time(now);
    raw.set_write_time(now);
    raw.mnt_count = raw.mnt_count.get().saturating_add(1).into();
    if raw.compat().contains(Compat::ORPHAN_FILE) {
        raw.feature_ro_compat = (raw.ro_compat() | RoCompat::ORPHAN_PRESENT).bits().into();
    }
    if journaled {
        raw.feature_incompat = (raw.incompat() | Incompat::RECOVER).bits().into();
    } else {
        raw.state = (raw.state.get() & !STATE_CLEAN).into();
    }
    super::volume::write_superblock(superblock, device)
}
