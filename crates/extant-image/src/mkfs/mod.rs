//! Makes an empty ext4 file system with the features that mke2fs gives by default.
//!
//! A plan comes first ([`layout`]): where tables, directories and the journal go, and what each group then has left. Only
//! then is anything written, in batches, and only what must be: zeros are asked for, not sent. The superblock comes last,
//! after a flush, so a half-made image is no file system at all.
//!
//! # Invariants
//! The same options on a device of the same size give the same bytes: UUID, hash seed and time are the caller's.
//! Free counts come from the same ranges as the bitmaps.
//! # Locking
//! None; the caller owns the device.
//! # Not here
//! Indirect maps, `bigalloc`, `meta_bg`, quota files, external journals: options that ask for them are refused.
//! # Source
//! mke2fs(8) and mke2fs.conf(5) for options and defaults; kernel `Documentation/filesystems/ext4/` for the structures.

mod contents;
mod layout;
mod options;
mod sizes;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use alloc::string::String;
use core::fmt;

use extant_device::{BlockDevice, DeviceError};
use extant_format::{FormatError, Superblock};

pub use options::{Features, JournalSize, MkfsOptions};
pub use usage::Usage;

/// Makes an empty file system on `device`; what was there before is lost.
///
/// # Errors
/// Options that contradict each other, a device that is too small, or the device's own errors. Before the first write the
/// device is unchanged; after it, it holds no file system.
pub fn mkfs(device: &dyn BlockDevice, options: &MkfsOptions) -> Result<Superblock, MkfsError> {
    let (superblock, layout) = plan(device, options)?;
    writer::write(device, &layout, superblock)
}

fn plan(
    device: &dyn BlockDevice,
    options: &MkfsOptions,
) -> Result<(Superblock, layout::Layout), MkfsError> {
    let device_bytes = device.geometry().len_bytes;
    let bytes = options.size_bytes.unwrap_or(device_bytes);
    if bytes > device_bytes {
        return Err(MkfsError::TooSmall {
            bytes: device_bytes,
            needed_bytes: bytes,
            journal_bytes: 0,
        });
    }
    let sizes = sizes::Sizes::new(options, device_bytes)?;
    let mut raw = sizes.superblock()?;
    raw.set_checksum();
    let mut superblock = Superblock::try_from(&raw)?;
    let geometry = superblock.geometry();
    let zeroed_tables = device.geometry().fast_zeroes || !geometry.has_gdt_csum();
    let journal_len = sizes.journal_len(geometry.blocks_count)?;
    let layout = layout::Layout::plan(geometry, journal_len, options.time_seconds, zeroed_tables)?;
    layout.describe(&mut superblock);
    Ok((superblock, layout))
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
    /// The options make a superblock that no reader would take.
    #[error("these options make no file system: {0}")]
    Format(#[from] FormatError),
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
