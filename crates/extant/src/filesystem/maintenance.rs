//! What is done to the volume as a whole while it is mounted: discarding free space, and its label.
//!
//! Source: kernel `fs/ext4/mballoc.c`, `ext4_trim_fs`; `fs/ext4/ioctl.c`, `ext4_ioctl_setlabel`.

use core::ops::Range;

use extant_device::DeviceError;
use extant_format::{PhysicalBlock, PhysicalRange, RawSuperblock};
use zerocopy::FromBytes;

use super::volume::Volume;
use crate::error::Error;
use crate::report::Ineligible;
use crate::trace::HandleType;
use crate::transaction::{BlockKind, Change, Credits};

/// Bytes of a label.
const LABEL_BYTES: usize = 16;

impl Volume {
    /// Gives free runs of at least `minimum` bytes that start in a range of the device's bytes back to the device; how many
    /// bytes that were.
    ///
    /// # Errors
    /// [`Error::NotSupported`] if the device discards nothing; [`Error::Invalid`] for a range that begins behind the volume
    /// or is shorter than a block, and for a minimum that no group has; of the device.
    /// # Locks
    /// None; waits for the device.
    /// # Source
    /// Kernel `ext4_trim_fs`.
    pub(crate) fn trim(&self, bytes: Range<u64>, minimum: u64) -> Result<u64, Error> {
        if !self.transactions.io().device().geometry().discard {
            return Err(Error::NotSupported("discarding on this device"));
        }
        let geometry = self.transactions.geometry();
        let cluster_bits = geometry.cluster_bits + geometry.block_bits;
        let minimum = u32::try_from((minimum >> cluster_bits).max(1)).unwrap_or(u32::MAX);
        let (start, end) = (bytes.start >> geometry.block_bits, bytes.end >> geometry.block_bits);
        let is_short = bytes.end - bytes.start < u64::from(geometry.block_size);
        if minimum > geometry.clusters_per_group || start >= geometry.blocks_count || is_short {
            return Err(Error::Invalid("the range to discard"));
        }
        let _gate = self.gate.read();
        let first = start.max(geometry.first_data_block.into());
        let len = end.min(geometry.blocks_count).saturating_sub(first);
        let Some(range) = PhysicalRange::new(PhysicalBlock::new(first), len) else { return Ok(0) };
        match self.allocator.trim(range, minimum) {
            Err(Error::Device(DeviceError::Unsupported { .. })) => {
                Err(Error::NotSupported("discarding on this device"))
            }
            trimmed => Ok(trimmed?.get() << cluster_bits),
        }
    }

    /// The label as it is now, without its padding.
    pub(crate) fn label(&self) -> Result<alloc::vec::Vec<u8>, Error> {
        let number = self.transactions.geometry().superblock_block();
        let block = self.transactions.read(number, BlockKind::Superblock)?;
        let name = block.with(|bytes| {
            let offset = self.transactions.geometry().superblock_offset();
            RawSuperblock::ref_from_prefix(&bytes[offset..])
                .map_or([0; LABEL_BYTES], |(raw, _)| raw.volume_name)
        });
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(LABEL_BYTES);
        Ok(name[..len].to_vec())
    }

    /// Gives the volume another label, in the primary superblock: copies of it have the old one until e2fsck or resize2fs
    /// writes them, as after tune2fs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one of more than 16 bytes or with a zero in it; [`Error::ReadOnly`]; of the journal.
    pub(crate) fn set_label(&self, label: &[u8]) -> Result<(), Error> {
        if label.len() > LABEL_BYTES || label.contains(&0) {
            return Err(Error::Invalid("the label"));
        }
        let mut name = [0; LABEL_BYTES];
        name[..label.len()].copy_from_slice(label);
        let _gate = self.gate.read();
        let geometry = self.transactions.geometry();
        let block = self.transactions.read(geometry.superblock_block(), BlockKind::Superblock)?;
        let credits = Credits::blocks(1, geometry).of_volume(HandleType::Misc);
        let mut handle = self.transactions.begin(credits)?;
        handle.note(Change::Unrecorded(Ineligible::Unrecordable));
        let offset = self.transactions.geometry().superblock_offset();
        handle.modify(&block, |bytes| {
            if let Ok((raw, _)) = RawSuperblock::mut_from_prefix(&mut bytes[offset..]) {
                raw.volume_name = name;
            }
        })?;
        handle.set_sync();
        handle.stop()
    }

    /// Whether something can still be changed.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        self.transactions.check_writable()
    }
}
