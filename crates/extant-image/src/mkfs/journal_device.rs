//! Journals on a device of their own: made, and given to a file system.
//!
//! Source: mke2fs(8), `-O journal_dev` and `-J device=`; kernel `fs/ext4/super.c`, `ext4_get_journal_blkdev`.

use alloc::borrow::ToOwned;
use alloc::format;

use extant_device::{BlockDevice, BlockDeviceExt, Frame, Request};
use extant_format::jbd2::{JournalSuperblock, RawJournalSuperblock};
use extant_format::superblock::{MAGIC, RawSuperblock};
use extant_format::{Compat, FormatError, Incompat, RoCompat, Superblock};
use zerocopy::{FromBytes, IntoBytes};

use super::options::option;
use super::resolve::Decided;
use super::sizes::{NORMAL_TO_FAST, SMALLEST_JOURNAL};
use super::{ExternalJournal, MkfsError, MkfsOptions};

/// Whether these options ask for a journal device rather than a file system: they have the feature `journal_dev`.
///
/// # Errors
/// Options that contradict each other.
pub fn wants_journal_device(options: &MkfsOptions, device_bytes: u64) -> Result<bool, MkfsError> {
    let options = as_journal(options);
    let decided = Decided::new(&options, device_bytes)?;
    Ok(decided.features.incompat.contains(Incompat::JOURNAL_DEV))
}

/// Makes `device` a journal for file systems on other devices, and returns its superblock.
///
/// # Errors
/// Options that contradict each other, a device that is too small, or its own errors.
pub fn make_journal_device(
    device: &dyn BlockDevice,
    options: &MkfsOptions,
) -> Result<RawSuperblock, MkfsError> {
    let device_bytes = device.geometry().len_bytes;
    let options = as_journal(options);
    let decided = Decided::new(&options, device_bytes)?;
    let block_size = decided.block_size;
    let too_small = |bytes| MkfsError::TooSmall {
        bytes,
        needed_bytes: u64::from(SMALLEST_JOURNAL) * u64::from(block_size),
        journal_bytes: 0,
    };
    let bytes = decided.blocks * u64::from(block_size);
    if bytes > device_bytes {
        return Err(MkfsError::TooSmall {
            bytes: device_bytes,
            needed_bytes: bytes,
            journal_bytes: 0,
        });
    }
    let len = u32::try_from(decided.blocks).map_err(|_| {
        option("size", format!("{} blocks are more than a journal can have", decided.blocks))
    })?;
    if len < SMALLEST_JOURNAL {
        return Err(too_small(bytes));
    }
    let raw = superblock(&decided, len)?;
    let journal = journal_superblock(&decided, len);
    let offset = decided.extended.offset_bytes.unwrap_or(0);
    let journal_at = offset + journal_offset(block_size);
    let is_lazy = [decided.extended.lazy_journal_init, decided.extended.storage_is_zeroed];
    let zeroed = if is_lazy.contains(&Some(true)) { u64::from(block_size) * 4 } else { bytes };
    device.run_one(Request::write_zeroes(offset, zeroed))?;
    device.flush()?;
    device.run_one(Request::write_frame(journal_at, Frame::copy_from(journal.as_bytes())))?;
    device.flush()?;
    let frame = Frame::copy_from(raw.as_bytes());
    device.run_one(Request::write_frame(offset + Superblock::OFFSET_BYTES, frame))?;
    device.flush()?;
    Ok(raw)
}

/// Notes on a journal device that the file system `uuid` uses it, and returns what that one has to know of it.
///
/// # Errors
/// The device holds no journal, one for other blocks, or one that another file system uses, since neither the kernel nor
/// e2fsck takes a journal with two users; or its own errors.
pub fn use_journal_device(
    device: &dyn BlockDevice,
    block_size: u32,
    uuid: [u8; 16],
) -> Result<ExternalJournal, MkfsError> {
    let refuse = |problem: &str| option("journal device", problem.to_owned());
    let raw = read_superblock(device)?.ok_or_else(|| refuse("it holds no journal"))?;
    if 1024 << raw.log_block_size.get() != block_size {
        return Err(refuse("its blocks have another size than the file system's"));
    }
    let at = journal_offset(block_size);
    let bytes = device.read_vec(at, 1024)?;
    let mut journal = JournalSuperblock::parse(&bytes)?;
    let others = journal.raw().nr_users.get() > 0 && journal.raw().users[0] != uuid;
    if others {
        return Err(refuse("another file system uses it; make it anew first"));
    }
    journal.change(|raw| {
        raw.users[0] = uuid;
        raw.nr_users = 1.into();
    });
    device.write_bytes(at, journal.to_raw().as_bytes())?;
    device.flush()?;
    Ok(ExternalJournal { uuid: raw.uuid, device: 0 })
}

/// Bytes in a block of a journal device; `None` if it is none.
///
/// # Errors
/// The device's own.
pub fn journal_device_block_size(device: &dyn BlockDevice) -> Result<Option<u32>, MkfsError> {
    Ok(read_superblock(device)?.map(|raw| 1024 << raw.log_block_size.get()))
}

fn read_superblock(device: &dyn BlockDevice) -> Result<Option<RawSuperblock>, MkfsError> {
    if device.geometry().len_bytes < Superblock::OFFSET_BYTES + 1024 {
        return Ok(None);
    }
    let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
    let raw = RawSuperblock::read_from_bytes(&bytes).ok();
    Ok(raw.filter(|raw| {
        raw.magic.get() == MAGIC
            && raw.incompat().contains(Incompat::JOURNAL_DEV)
            && raw.log_block_size.get() <= 6
    }))
}

/// The options without what only a file system has.
fn as_journal(options: &MkfsOptions) -> MkfsOptions {
    let mut options = options.clone();
    options.journal = super::JournalSize::BySize;
    options
}

/// Where the journal begins: in the block behind the superblock's.
fn journal_offset(block_size: u32) -> u64 {
    u64::from(block_size) * if block_size == 1024 { 2 } else { 1 }
}

fn superblock(decided: &Decided<'_>, len: u32) -> Result<RawSuperblock, MkfsError> {
    let mut raw = decided.plain_superblock()?;
    let summed = decided.features.ro_compat & RoCompat::METADATA_CSUM;
    raw.feature_compat = Compat::empty().bits().into();
    raw.feature_incompat = Incompat::JOURNAL_DEV.bits().into();
    raw.feature_ro_compat = summed.bits().into();
    if !summed.is_empty() {
        raw.checksum_type = extant_format::superblock::CRC32C;
    }
    raw.set_blocks_count(len.into());
    raw.blocks_per_group = (decided.block_size * 8).min(65528).into();
    raw.clusters_per_group = raw.blocks_per_group;
    raw.flags = 0.into();
    raw.kbytes_written = 0.into();
    raw.set_checksum();
    Ok(raw)
}

fn journal_superblock(decided: &Decided<'_>, len: u32) -> RawJournalSuperblock {
    let uuid = decided.options.uuid;
    let mut raw = RawJournalSuperblock::blank(decided.block_size, len, uuid);
    let first = journal_offset(decided.block_size) / u64::from(decided.block_size);
    raw.first = extant_format::cast::low_u32(first + 1).into();
    raw.nr_users = 0.into();
    if decided.options.features.edit(decided.features).compat.contains(Compat::FAST_COMMIT) {
        let most = len - SMALLEST_JOURNAL;
        raw.num_fc_blocks = (len / (NORMAL_TO_FAST + 1)).min(most).into();
    }
    raw
}

impl From<FormatError> for MkfsError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}
