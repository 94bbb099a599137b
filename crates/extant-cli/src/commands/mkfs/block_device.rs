//! What the system knows of a block device.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use extant_image::MkfsOptions;

/// Fills in what a block device wants to be asked for: the layout of a RAID, and where the device begins on its disk. An
/// image file has none of that.
pub fn fill_in(path: &Path, options: &mut MkfsOptions, block_size: u32) {
    let Some(folder) = folder(path) else { return };
    if let Some(sectors) = number(&folder.join("start")) {
        options.disk_offset_bytes = sectors.saturating_mul(512);
    }
    // A partition's queue is its disk's.
    let queue = [folder.join("queue"), folder.join("../queue")].into_iter().find(|at| at.is_dir());
    let Some(queue) = queue else { return };
    let blocks = |name: &str| {
        let bytes = number(&queue.join(name))?;
        (bytes > u64::from(block_size)).then_some(bytes / u64::from(block_size))
    };
    let extended = &mut options.extended;
    let stride = blocks("minimum_io_size").and_then(|blocks| blocks.try_into().ok());
    extended.stride = extended.stride.or(stride);
    let width = blocks("optimal_io_size").and_then(|blocks| blocks.try_into().ok());
    extended.stripe_width = extended.stripe_width.or(width);
}

/// The number of a block device, as 32 bits hold it; 0 for a file.
pub fn number_of(path: &Path) -> u32 {
    let found = std::fs::metadata(path).ok().filter(is_block_device);
    found.map_or(0, |found| {
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        minor & 0xFF | (major & 0xFFF) << 8 | (minor & 0xF_FF00) << 12
    })
}

fn is_block_device(found: &Metadata) -> bool {
    found.file_type().is_block_device()
}

fn folder(path: &Path) -> Option<PathBuf> {
    let found = std::fs::metadata(path).ok().filter(is_block_device)?;
    let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    Some(PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
