//! Makes empty ext2, ext3 and ext4 file systems as mke2fs does, from the same options and with the same defaults.
//!
//! Options become one value for everything ([`resolve`]): the caller's, else that of the types in a configuration
//! ([`config`]), which is built in. Then comes a [`Plan`]: a superblock ([`sizes`]), where tables go ([`tables`]), where files
//! go ([`files`], [`map`]), and what each group then has left ([`layout`]). Only then is anything written, in batches, and
//! only what must be: zeros are asked for, not sent. The superblock comes last, after a flush, so a half-made image is no
//! file system at all.
//!
//! # Invariants
//! The same options on a device of the same size give the same bytes: UUID, hash seed and time are the caller's.
//! Free counts come from the same ranges as the bitmaps.
//! # Locking
//! None; the caller owns the device.
//! # Not here
//! Files from elsewhere; undo files (`undo`, a device around the device); tests of the device for bad blocks, which are the
//! caller's to find.
//! # Source
//! mke2fs(8) and mke2fs.conf(5) for options and defaults; kernel `Documentation/filesystems/ext4/` for the structures.

mod config;
mod directory;
mod extended;
mod features;
mod files;
mod hugefiles;
mod journal_device;
mod layout;
mod map;
mod numbers;
mod options;
mod quota;
mod resolve;
mod sizes;
mod space;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use extant_device::{BlockDevice, DeviceError, WindowDevice};
use extant_format::{FormatError, Incompat, InodeNumber, Superblock};

pub use config::{Config, ConfigError};
pub use extended::{Encoding, ExtendedOptions, QuotaTypes, RootOwner};
pub use features::{FeatureEdits, Features};
pub use hugefiles::Hugefiles;
pub use journal_device::{
    journal_device_block_size, make_journal_device, use_journal_device, wants_journal_device,
};
pub use numbers::{Amount, Percent};
pub use options::{CreatorOs, ErrorPolicy, ExternalJournal, JournalSize, MkfsOptions};

/// Makes an empty file system on `device`; what was there before is lost.
///
/// # Errors
/// Options that contradict each other, a device that is too small, or the device's own errors. Before the first write the
/// device is unchanged; after it, it holds no file system.
pub fn mkfs(device: &dyn BlockDevice, options: &MkfsOptions) -> Result<Superblock, MkfsError> {
    let device_bytes = device.geometry().len_bytes;
    let plan = Plan::new(device_bytes, options)?;
    match plan.offset_bytes {
        0 => plan.write(device),
        offset => plan.write(&WindowDevice::new(device, offset, None)?),
    }
}

/// A file system that could be made: all that `mkfs` decides before it writes.
#[derive(Clone, Debug)]
pub struct Plan {
    superblock: Superblock,
    layout: layout::Layout,
    manner: writer::Manner,
    offset_bytes: u64,
    lost_journal: bool,
}

impl Plan {
    /// Decides everything for a device of so many bytes.
    ///
    /// # Errors
    /// Options that contradict each other, or too few bytes.
    pub fn new(device_bytes: u64, options: &MkfsOptions) -> Result<Self, MkfsError> {
        let offset_bytes = options.extended.offset_bytes.unwrap_or(0);
        let after = device_bytes.saturating_sub(offset_bytes);
        let needed_bytes = options.size_bytes.unwrap_or(after);
        if needed_bytes > after {
            return Err(MkfsError::TooSmall { bytes: after, needed_bytes, journal_bytes: 0 });
        }
        let decided = resolve::Decided::new(options, after)?;
        if decided.features.incompat.contains(Incompat::JOURNAL_DEV) {
            let problem = "journal_dev makes a journal device and no file system";
            return Err(options::option("features", problem.to_owned()));
        }
        let mut raw = decided.superblock()?;
        raw.set_checksum();
        let layout = layout::Layout::plan(&decided, Superblock::try_from(&raw)?.geometry())?;
        layout.describe(&mut raw);
        raw.set_checksum();
        let superblock = Superblock::try_from(&raw)?;
        let manner = writer::Manner {
            discard: decided.extended.discard.unwrap_or(true),
            zero_tables: decided.extended.lazy_itable_init.map(|lazy| !lazy),
            is_zeroed: decided.extended.storage_is_zeroed.unwrap_or(false),
            superblocks_only: options.superblocks_only,
        };
        let lost_journal = decided.lost_journal;
        Ok(Self { superblock, layout, manner, offset_bytes, lost_journal })
    }

    /// What the file system's superblock will say.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Whether it is too small for the journal that it should have, and goes without.
    pub fn lost_journal(&self) -> bool {
        self.lost_journal
    }

    /// Bytes that files can have in it, root's reserve among them.
    pub fn free_bytes(&self) -> u64 {
        self.superblock.raw().free_blocks_count() << self.superblock.geometry().block_bits
    }

    /// Makes the file system; `device` begins where the file system does, whatever the options' offset is.
    ///
    /// # Errors
    /// The device's own.
    pub fn write(&self, device: &dyn BlockDevice) -> Result<Superblock, MkfsError> {
        writer::write(device, self)
    }
}

/// Why no file system was made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MkfsError {
    /// Tables, directories and the journal do not fit.
    #[error(
        "too small: {bytes} bytes, and at least {needed_bytes} are needed with these options{}",
        OfJournal(*journal_bytes)
    )]
    TooSmall {
        /// What there is.
        bytes: u64,
        /// What would do, as far as that is known.
        needed_bytes: u64,
        /// How much of that is for the journal.
        journal_bytes: u64,
    },
    /// An option has a value that it cannot have, or does not go with another.
    #[error("{option}: {problem}")]
    Option {
        /// Which one.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file would have more blocks than an inode can count without `huge_file`.
    #[error("{0} has more blocks than it can count without huge_file")]
    FileTooLarge(InodeNumber),
    /// The options make a superblock that no reader would take.
    #[error("these options make no file system: {0}")]
    Format(FormatError),
    /// The device failed.
    #[error("device: {0}")]
    Device(#[from] DeviceError),
}

/// How much of what is needed is the journal's, if there is one.
struct OfJournal(u64);

impl fmt::Display for OfJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            bytes => {
                write!(f, ", {bytes} of them for the journal, without which `^has_journal` does")
            }
        }
    }
}
