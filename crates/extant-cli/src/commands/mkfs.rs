//! `extant mkfs`: makes an image with an empty file system.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use extant::time::{Entropy, SystemEntropy};
use extant_device::{BlockDevice, BlockDeviceExt, FileDevice};
use extant_format::{Compat, Superblock};
use extant_image::mkfs::Percent;
use extant_image::{JournalSize, MkfsError, MkfsOptions, mkfs};

use super::info;
use crate::failure;
use crate::output::{self, size};
use crate::{copy, values, volume};

/// Make an image with an empty ext4 file system, or put one on a device
///
/// What is not said depends on the size, as with mke2fs: 1 KiB blocks below 512 MiB, else 4 KiB; an inode for 8 KiB below
/// 3 MiB, for 4 KiB below 512 MiB, for 16 KiB below 4 TiB, for 32 KiB below 16 TiB, else for 64 KiB.
#[derive(Debug, clap::Args)]
pub struct MkfsArgs {
    /// Image file or block device; a missing file is made
    #[arg(value_parser = super::image())]
    image: PathBuf,
    /// How large, such as 512M or 1.5G; all of what exists by default
    #[arg(value_parser = values::size)]
    size: Option<u64>,
    /// Bytes in a block
    #[arg(short = 'b', value_name = "BYTES", value_parser = values::number::<u32>)]
    block_size: Option<u32>,
    /// Bytes in an inode; 256 by default
    #[arg(short = 'I', value_name = "BYTES", value_parser = values::number::<u16>)]
    inode_size: Option<u16>,
    /// One inode for so many bytes
    #[arg(short = 'i', value_name = "BYTES", value_parser = values::number::<u32>)]
    bytes_per_inode: Option<u32>,
    /// How many inodes
    #[arg(short = 'N', value_name = "NUMBER", conflicts_with = "bytes_per_inode")]
    inodes: Option<u32>,
    /// ext2, ext3 or ext4; ext4 by default
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
    /// What it is for: floppy, small, default, big, huge, news, largefile, largefile4; by default the size decides
    #[arg(short = 'T', value_name = "USAGE")]
    usage: Option<String>,
    /// Label, up to 16 bytes
    #[arg(short = 'L', value_name = "LABEL", default_value = "")]
    label: String,
    /// UUID, or `random` as by default, or `clear`
    #[arg(short = 'U', value_name = "UUID", value_parser = parse_uuid)]
    uuid: Option<[u8; 16]>,
    /// Features to switch, such as ^has_journal,^64bit
    #[arg(short = 'O', value_name = "FEATURES")]
    features: Vec<String>,
    /// Percent that only root may use; 5 by default
    #[arg(short = 'm', value_name = "PERCENT", value_parser = parse_percent)]
    reserved: Option<Percent>,
    /// Size of the journal: blocks, or bytes with a unit such as 16M
    #[arg(short = 'J', value_name = "SIZE", value_parser = parse_journal)]
    journal: Option<JournalSize>,
    /// Copy everything below this directory into it, with all attributes
    #[arg(short = 'd', value_name = "DIRECTORY")]
    from: Option<PathBuf>,
    /// Even if there is a file system already
    #[arg(short = 'F', long)]
    force: bool,
    /// Do not tell what was made
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &MkfsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut options = MkfsOptions {
        size_bytes: args.size,
        fs_type: args.fs_type.clone(),
        usage: args.usage.clone(),
        block_size: args.block_size,
        inode_size: args.inode_size,
        bytes_per_inode: args.bytes_per_inode,
        inodes: args.inodes,
        reserved: args.reserved,
        label: args.label.clone().into_bytes(),
        uuid: args.uuid.unwrap_or_else(random_uuid),
        hash_seed: random_uuid(),
        time_seconds: u32::try_from(values::now().seconds).unwrap_or(u32::MAX),
        journal: args.journal.unwrap_or_default(),
        ..MkfsOptions::default()
    };
    args.features.iter().try_for_each(|list| options.features.apply(list))?;
    let is_new = !args.image.exists();
    let made = make(args, &options).inspect_err(|_| {
        if is_new {
            // Nothing was there before, and an image without a file system is of no use.
            let _ = std::fs::remove_file(&args.image);
        }
    })?;
    if args.quiet {
        return Ok(());
    }
    let geometry = made.geometry();
    let has_journal = geometry.compat.contains(Compat::HAS_JOURNAL);
    writeln!(
        out,
        "{}: {} in {} blocks of {} bytes, {} inodes, UUID {}{}",
        args.image.display(),
        size(geometry.blocks_count << geometry.block_bits),
        geometry.blocks_count,
        geometry.block_size,
        geometry.inodes_count,
        output::uuid(&geometry.uuid),
        if is_journaled(args) && !has_journal { "; too small for a journal" } else { "" }
    )?;
    Ok(())
}

/// Makes the file system, and fills it if asked.
fn make(args: &MkfsArgs, options: &MkfsOptions) -> anyhow::Result<Superblock> {
    let name = || args.image.display().to_string();
    if let Some(from) = args.from.as_ref().filter(|from| !from.is_dir()) {
        return Err(failure::Usage(format!("{}: not a directory", from.display())).into());
    }
    let device = open(args)?;
    let made = mkfs(&device, options).map_err(advised).with_context(name)?;
    drop(device);
    if let Some(from) = &args.from {
        volume::change(&args.image, |filesystem| copy::fill_new(from, filesystem, &args.image))?;
    }
    Ok(made)
}

/// An error in the words of this command's options.
fn advised(error: MkfsError) -> anyhow::Error {
    let MkfsError::TooSmall { bytes, needed_bytes, journal_bytes } = error else {
        return error.into();
    };
    let journal = match journal_bytes {
        0 => String::new(),
        bytes => {
            format!(", {bytes} of them for the journal, which `-O ^has_journal` leaves out")
        }
    };
    anyhow::anyhow!(
        "too small: {bytes} bytes, and {needed_bytes} are needed with these options{journal}"
    )
}

/// Opens what is there, or makes it; an image file gets the size that was asked for.
fn open(args: &MkfsArgs) -> anyhow::Result<FileDevice> {
    let name = || args.image.display().to_string();
    match (args.image.exists(), args.size) {
        (false, None) => {
            Err(failure::Usage(format!("{} does not exist yet; say how large it shall be", name()))
                .into())
        }
        (false, Some(bytes)) => volume::create_whole(&args.image, bytes),
        (true, bytes) => {
            let mut device = volume::open_whole(&args.image)?;
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
        return Err(failure::Usage("holds a file system already; -F replaces it".to_owned()).into());
    }
    if device.read_vec(0, len)?.iter().any(|byte| *byte != 0) {
        return Err(failure::Usage("holds data already; -F replaces it".to_owned()).into());
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

/// Thirty-two hexadecimal digits, with dashes anywhere; or a word of mke2fs's.
fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    match text {
        "random" => return Ok(random_uuid()),
        "clear" | "null" => return Ok([0; 16]),
        _ => {}
    }
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    number.map(u128::to_be_bytes).ok_or_else(|| format!("`{text}` is no UUID"))
}

fn parse_percent(text: &str) -> Result<Percent, String> {
    Percent::parse(text).ok_or_else(|| format!("`{text}` is no percentage"))
}

/// Whether the type has a journal, and nobody has said that there shall be none.
fn is_journaled(args: &MkfsArgs) -> bool {
    let has_none = |list: &String| list.contains("^has_journal") || list.contains("none");
    args.fs_type.as_deref() != Some("ext2") && !args.features.iter().any(has_none)
}

/// Blocks, or bytes with a unit; `size=` and mebibytes as mke2fs takes them.
fn parse_journal(text: &str) -> Result<JournalSize, String> {
    if let Some(megabytes) = text.strip_prefix("size=") {
        return values::scaled(megabytes, 1 << 20).map(JournalSize::Bytes);
    }
    match text.parse() {
        Ok(blocks) => Ok(JournalSize::Blocks(blocks)),
        Err(_) => values::size(text).map(JournalSize::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_given_in_blocks_or_bytes() {
        assert_eq!(parse_journal("2048"), Ok(JournalSize::Blocks(2048)));
        assert_eq!(parse_journal("16M"), Ok(JournalSize::Bytes(16 << 20)));
        assert_eq!(parse_journal("size=8"), Ok(JournalSize::Bytes(8 << 20)));
        assert!(parse_journal("large").is_err());
        assert!(parse_percent("0.5").is_ok() && parse_percent("half").is_err());
    }

    #[test]
    fn uuids_have_32_digits() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(output::uuid(&parse_uuid(text).unwrap()), text);
        assert!(parse_uuid("0011").is_err());
        assert_eq!(output::uuid(&random_uuid()).as_bytes()[14], b'4');
    }
}
