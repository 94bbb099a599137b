//! `extant mkfs`: makes an image with an empty file system.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use extant::time::{Entropy, SystemEntropy};
use extant_device::{BlockDevice, BlockDeviceExt, FileDevice};
use extant_image::{MkfsOptions, mkfs};

use super::info;
use crate::failure::Usage;
use crate::output::{self, size};
use crate::{values, volume};

/// Make an image with an empty ext4 file system, or put one on a device
#[derive(Debug, clap::Args)]
pub struct MkfsArgs {
    /// Image file or block device; a missing file is made
    #[arg(value_parser = super::image())]
    image: PathBuf,
    /// How large, such as 512M or 4G; all of what exists by default
    #[arg(value_parser = values::size)]
    size: Option<u64>,
    /// Bytes in a block
    #[arg(short = 'b', value_name = "BYTES", default_value_t = 4096)]
    block_size: u32,
    /// Bytes in an inode
    #[arg(short = 'I', value_name = "BYTES", default_value_t = 256)]
    inode_size: u16,
    /// One inode for so many bytes
    #[arg(short = 'i', value_name = "BYTES", default_value_t = 16384)]
    bytes_per_inode: u32,
    /// Label, up to 16 bytes
    #[arg(short = 'L', value_name = "LABEL", default_value = "")]
    label: String,
    /// UUID instead of a random one
    #[arg(short = 'U', value_name = "UUID", value_parser = parse_uuid)]
    uuid: Option<[u8; 16]>,
    /// Features to switch, such as ^has_journal,^64bit
    #[arg(short = 'O', value_name = "FEATURES", default_value = "")]
    features: String,
    /// Percent that only root may use
    #[arg(short = 'm', value_name = "PERCENT", default_value_t = 5)]
    reserved: u8,
    /// Blocks in the journal
    #[arg(short = 'J', value_name = "BLOCKS")]
    journal_blocks: Option<u32>,
    /// Even if there is a file system already
    #[arg(short = 'F', long)]
    force: bool,
}

pub fn run(args: &MkfsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut options = MkfsOptions {
        block_size: args.block_size,
        inode_size: args.inode_size,
        bytes_per_inode: args.bytes_per_inode,
        reserved_percent: args.reserved,
        label: args.label.clone().into_bytes(),
        uuid: args.uuid.unwrap_or_else(random_uuid),
        hash_seed: random_uuid(),
        time_seconds: u32::try_from(values::now().seconds).unwrap_or(u32::MAX),
        journal_blocks: args.journal_blocks,
        ..MkfsOptions::default()
    };
    options.features.apply(&args.features)?;
    let is_new = !args.image.exists();
    let device = open(args)?;
    let name = || args.image.display().to_string();
    let made = mkfs(&device, &options).with_context(name).inspect_err(|_| {
        if is_new {
            // Nothing was there before, and an image without a file system is of no use.
            let _ = std::fs::remove_file(&args.image);
        }
    })?;
    let geometry = made.geometry();
    writeln!(
        out,
        "{}: {} in {} blocks of {} bytes, {} inodes, UUID {}",
        name(),
        size(geometry.blocks_count << geometry.block_bits),
        geometry.blocks_count,
        geometry.block_size,
        geometry.inodes_count,
        output::uuid(&geometry.uuid),
    )?;
    Ok(())
}

/// Opens what is there, or makes it; an image file gets the size that was asked for.
fn open(args: &MkfsArgs) -> anyhow::Result<FileDevice> {
    let name = || args.image.display().to_string();
    match (args.image.exists(), args.size) {
        (false, None) => {
            Err(Usage(format!("{} does not exist yet; say how large it shall be", name())).into())
        }
        (false, Some(bytes)) => Ok(FileDevice::create(&args.image, bytes)?),
        (true, bytes) => {
            let mut device = volume::open_device(&args.image)?;
            if !args.force {
                check_empty(&device).with_context(name)?;
            }
            if let Some(bytes) = bytes.filter(|bytes| *bytes != device.geometry().len_bytes) {
                device.set_len(bytes).with_context(name)?;
            }
            Ok(device)
        }
    }
}

/// Refuses a file or device that begins with anything; before its size is changed.
fn check_empty(device: &FileDevice) -> anyhow::Result<()> {
    let len = usize::try_from(device.geometry().len_bytes).unwrap_or(usize::MAX).min(FIRST_BYTES);
    if info::read_superblock(device).is_ok() {
        return Err(Usage("holds a file system already; -F replaces it".to_owned()).into());
    }
    if device.read_vec(0, len)?.iter().any(|byte| *byte != 0) {
        return Err(Usage("holds data already; -F replaces it".to_owned()).into());
    }
    Ok(())
}

/// Where nearly everything that is stored has its magic number.
const FIRST_BYTES: usize = 128 << 10;

/// Sixteen random bytes, marked as such (RFC 9562, version 4).
pub fn random_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    for part in uuid.chunks_mut(4) {
        part.copy_from_slice(&SystemEntropy.draw().to_le_bytes());
    }
    uuid[6] = uuid[6] & 0x0F | 0x40;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// Thirty-two hexadecimal digits, with dashes anywhere.
fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    number.map(u128::to_be_bytes).ok_or_else(|| format!("`{text}` is no UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_32_digits() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(output::uuid(&parse_uuid(text).unwrap()), text);
        assert!(parse_uuid("0011").is_err());
        assert_eq!(output::uuid(&random_uuid()).as_bytes()[14], b'4');
    }
}
