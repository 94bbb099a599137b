//! A journal on a device of its own.
//!
//! Source: kernel `fs/ext4/super.c`, `ext4_get_journal_blkdev`, `ext4_open_dev_journal`; `fs/jbd2/journal.c`, `jbd2_journal_bmap`.

use alloc::sync::Arc;

use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::corruption::{Place, Rule};
use extant_format::superblock::MAGIC;
use extant_format::{Incompat, PhysicalBlock, RawSuperblock, Superblock};
use zerocopy::FromBytes;

use super::open_journal::{Log, journal_parameters};
use crate::Error;
use crate::block_io::BlockIo;
use crate::transaction::LogMap;

/// The log on `device`, which has to be the one that `superblock` names.
///
/// # Errors
/// [`Error::Invalid`] if it holds another journal or none; what is wrong with it.
pub(super) fn find_log(
    superblock: &Superblock,
    device: &Arc<dyn BlockDevice>,
) -> Result<Log, Error> {
    let geometry = *superblock.geometry();
    let none = || Error::Invalid("the journal device holds no journal");
    if device.geometry().len_bytes < Superblock::OFFSET_BYTES + 1024 {
        return Err(none());
    }
    let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
    let raw = RawSuperblock::read_from_bytes(&bytes).map_err(|_| none())?;
    if raw.magic.get() != MAGIC || !raw.incompat().contains(Incompat::JOURNAL_DEV) {
        return Err(none());
    }
    if raw.uuid != superblock.raw().journal_uuid {
        return Err(Error::Invalid("the journal device holds another volume's journal"));
    }
    if raw.log_block_size.get() != geometry.block_bits - 10 {
        return Err(Error::Invalid("the journal device has blocks of another size"));
    }
    let at = Place::Journal(0);
    let io = BlockIo::new(Arc::clone(device), geometry.block_bits);
    // The log's blocks are the device's; its superblock follows the one of the device.
    let first = Superblock::OFFSET_BYTES / u64::from(geometry.block_size) + 1;
    let blocks = raw.blocks_count().min(device.geometry().len_bytes >> geometry.block_bits);
    let blocks = u32::try_from(blocks).map_err(|_| at.breaks(Rule::JournalSize))?;
    let mut map = LogMap::default();
    let fits = map.push(PhysicalBlock::new(first), 1)
        && map.push(PhysicalBlock::new(1), blocks.saturating_sub(1));
    at.require(fits && u64::from(blocks) > first, Rule::JournalSize)?;
    let parameters = journal_parameters(&map, &io, &geometry)?;
    if parameters.superblock().raw().nr_users.get() != 1 {
        return Err(Error::Invalid("several volumes use the journal device"));
    }
    Ok(Log { map, io, separate: true, parameters, geometry })
}
