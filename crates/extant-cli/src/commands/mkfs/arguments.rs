//! The letters of mke2fs, and what they mean to the library.

use std::path::PathBuf;

use anyhow::Context;
use extant::time::{Entropy, SystemEntropy};
use extant_image::mkfs::{
    Amount, Config, CreatorOs, ErrorPolicy, ExtendedOptions, FeatureEdits, Percent, RootOwner,
};
use extant_image::{JournalSize, MkfsOptions};

use crate::failure::Usage;
use crate::{commands, times, values};

/// Make an image with an empty ext2, ext3 or ext4 file system, or put one on a device
///
/// Letters, their values and what goes without saying are those of mke2fs 1.47 and its stock mke2fs.conf, but that the type
/// is ext4 unless said otherwise, and that nothing is overwritten without -F.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct MkfsArgs {
    /// Image file or block device; a missing file is made
    #[arg(value_parser = commands::image(), required_unless_present = "version")]
    pub image: Option<PathBuf>,
    /// How large: blocks (of -b bytes, or 1 KiB), or bytes as 512M, 1.5G, 8192s (sectors), 1048576B; by default all there is
    #[arg(value_parser = parse_size)]
    pub size: Option<Amount>,
    /// Type: ext2, ext3 or ext4, or another of the configuration [default: ext4]
    #[arg(short = 't', value_name = "TYPE")]
    pub fs_type: Option<String>,
    /// What it is for, a list of types: floppy, small, default, big, huge, news, largefile, largefile4 [default: by size]
    #[arg(short = 'T', value_name = "USAGE,..")]
    pub usage: Option<String>,
    /// Features to switch on, or off with ^, such as quota,^has_journal; `none` switches all off
    #[arg(short = 'O', value_name = "FEATURE,..", allow_hyphen_values = true)]
    pub features: Vec<String>,
    /// Bytes in a block, 1024 to 65536; -N for at least N [default: 1024 below 512 MiB, else 4096]
    #[arg(short = 'b', value_name = "BYTES", allow_hyphen_values = true)]
    block_size: Option<String>,
    /// Bytes in a cluster, with -O bigalloc [default: 16 blocks]
    #[arg(short = 'C', value_name = "BYTES", value_parser = values::number::<u32>)]
    cluster_size: Option<u32>,
    /// Bytes in an inode, 128 to the block size [default: 256]
    #[arg(short = 'I', value_name = "BYTES", value_parser = values::number::<u16>)]
    inode_size: Option<u16>,
    /// One inode for so many bytes [default: 8192 below 3 MiB, 4096 below 512 MiB, 16384 below 4 TiB, 32768, 65536]
    #[arg(short = 'i', value_name = "BYTES", value_parser = values::number::<u32>)]
    bytes_per_inode: Option<u32>,
    /// How many inodes, whatever -i says
    #[arg(short = 'N', value_name = "NUMBER")]
    inodes: Option<u32>,
    /// Percent of the blocks that only root may use, 0 to 50, with a fraction [default: 5]
    #[arg(short = 'm', value_name = "PERCENT", value_parser = parse_percent)]
    reserved: Option<Percent>,
    /// Blocks in a group, or clusters with bigalloc [default: 8 times the block size]
    #[arg(short = 'g', value_name = "BLOCKS")]
    blocks_per_group: Option<u32>,
    /// Groups whose tables lie together, a power of two, with flex_bg [default: 16]
    #[arg(short = 'G', value_name = "GROUPS")]
    groups_per_flex: Option<u32>,
    /// A journal, even if the type has none
    #[arg(short = 'j')]
    journaled: bool,
    /// The journal: size=MEBIBYTES, location=BLOCK, device=PATH, fast_commit_size=KIBIBYTES; or just its blocks, or bytes as
    /// 16M [default: by size, in the middle]
    #[arg(short = 'J', value_name = "OPTION=VALUE,..")]
    journal: Vec<String>,
    /// Extended options; see below
    #[arg(short = 'E', short_alias = 'R', value_name = "OPTION=VALUE,..")]
    extended: Vec<String>,
    /// What the kernel does about errors: continue, remount-ro or panic [default: continue]
    #[arg(short = 'e', value_name = "WHAT", value_parser = parse_errors)]
    errors: Option<ErrorPolicy>,
    /// Label, up to 16 bytes
    #[arg(short = 'L', value_name = "LABEL", default_value = "", hide_default_value = true)]
    label: String,
    /// UUID, or random, time or clear [default: random]
    #[arg(short = 'U', value_name = "UUID", value_parser = parse_uuid)]
    uuid: Option<[u8; 16]>,
    /// Where it was last mounted, to be noted in it
    #[arg(short = 'M', value_name = "DIRECTORY", default_value = "", hide_default_value = true)]
    last_mounted: String,
    /// Which system makes it: linux, hurd, freebsd, lites or a number [default: linux]
    #[arg(short = 'o', value_name = "SYSTEM", value_parser = parse_os)]
    creator_os: Option<CreatorOs>,
    /// Revision of the format, 0 or 1 [default: 1]
    #[arg(short = 'r', value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1))]
    revision: Option<u32>,
    /// Copy everything below this directory into it, with all attributes
    #[arg(short = 'd', value_name = "DIRECTORY")]
    pub from: Option<PathBuf>,
    /// Keep clear of the bad blocks that this file lists, a number a line
    #[arg(short = 'l', value_name = "FILE")]
    pub bad_blocks: Option<PathBuf>,
    /// Read all blocks first, and keep clear of those that cannot be read; -cc writes patterns to all and reads them back
    #[arg(short = 'c', action = clap::ArgAction::Count)]
    pub check: u8,
    /// Read types and defaults from this file, in the form of mke2fs.conf [default: $MKE2FS_CONFIG, else the stock one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only tell what would be made
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Write superblocks and descriptors alone, to find the rest again by a check
    #[arg(short = 'S')]
    superblocks_only: bool,
    /// Even if there is something already
    #[arg(short = 'F', long, action = clap::ArgAction::Count)]
    pub force: u8,
    /// Do not tell what was made
    #[arg(short, long)]
    pub quiet: bool,
    /// Tell all about it
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print the version, and make nothing
    #[arg(short = 'V')]
    pub version: bool,
    /// Taken for the sake of scripts: direct I/O
    #[arg(short = 'D', hide = true)]
    direct: bool,
    /// As -E nodiscard
    #[arg(short = 'K', hide = true)]
    keep: bool,
    /// Keep what is overwritten in this file, for e2undo(8) to bring it back [default: one in $E2FSPROGS_UNDO_DIR, or the undo_dir
    /// of the configuration, if an ext2, ext3 or ext4 file system is overwritten]
    #[arg(short = 'z', value_name = "FILE")]
    pub undo: Option<PathBuf>,
}

const HELP: &str = "\
Extended options (-E), with commas between:
  stride=BLOCKS, stripe_width=BLOCKS       how a RAID is laid out
  offset=BYTES                             where on the device the file system begins
  resize=BLOCKS                            room for descriptors of so large a file system
  lazy_itable_init[=0|1]                   leave inode tables to the kernel [1, unless zeros cost nothing]
  lazy_journal_init[=0|1]                  do not zero the journal [0]
  assume_storage_prezeroed[=0|1]           zero nothing [0]
  discard, nodiscard                       give all blocks back first [discard]
  packed_meta_blocks[=0|1]                 tables and journal at the front [0]
  num_backup_sb=0|1|2                      copies of the superblock, with sparse_super2 [2]
  root_owner[=UID:GID], root_perms=MODE    the root directory [0:0, 755]
  quotatype=usr:grp:prj                    what is counted, with quota [usr:grp]
  encoding=utf8, encoding_flags=strict     names without case; switches casefold on
  hash_seed=UUID                           seed of the hashes of names [random]
  mmp_update_interval=SECONDS              with mmp [5]
  desc_size=BYTES                          of a group descriptor, with 64bit [64]
  orphan_file_size=BLOCKS                  with orphan_file [by size]
  no_copy_xattrs                           -d leaves extended attributes out
  test_fs, revision=0|1

The time in the file system is $E2FSPROGS_FAKE_TIME or $SOURCE_DATE_EPOCH, if one is set. The same -U, hash_seed
and time give the same bytes.";

impl MkfsArgs {
    /// What the library shall make, but for what depends on the device.
    pub fn options(&self) -> anyhow::Result<MkfsOptions> {
        let mut features = FeatureEdits::default();
        self.features.iter().try_for_each(|list| features.apply(list)).map_err(usage)?;
        let mut extended = ExtendedOptions { revision: self.revision, ..Default::default() };
        if self.keep {
            extended.discard = Some(false);
        }
        self.extended.iter().try_for_each(|list| extended.apply(list)).map_err(usage)?;
        if extended.root_owner == Some(RootOwner::Caller) {
            let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
            extended.root_owner = Some(RootOwner::Ids(uid.as_raw(), gid.as_raw()));
        }
        let (block_size, least_block_size) = self.block_size()?;
        let config = self.config()?;
        let of_device =
            |name| config.of_device(self.image.as_ref()?.to_str()?, name).map(str::to_owned);
        let mut options = MkfsOptions {
            fs_type: self.fs_type.clone().or_else(|| of_device("fs_type")),
            usage: self.usage.clone().or_else(|| of_device("usage_types")),
            config,
            features,
            block_size,
            least_block_size,
            cluster_size: self.cluster_size,
            inode_size: self.inode_size,
            bytes_per_inode: self.bytes_per_inode,
            inodes: self.inodes,
            reserved: self.reserved,
            blocks_per_group: self.blocks_per_group,
            groups_per_flex: self.groups_per_flex,
            errors: self.errors,
            creator_os: self.creator_os,
            label: self.label.clone().into_bytes(),
            last_mounted: self.last_mounted.clone().into_bytes(),
            uuid: self.uuid.unwrap_or_else(random_uuid),
            hash_seed: random_uuid(),
            time_seconds: time_seconds()?,
            wants_journal: self.journaled,
            extended,
            superblocks_only: self.superblocks_only,
            ..MkfsOptions::default()
        };
        let sized = |size: Amount| size.bytes(options.block_size.unwrap_or(1024));
        options.size_bytes = self.size.map(sized);
        for word in self.journal.iter().flat_map(|list| list.split(',')) {
            set_journal(&mut options, word).map_err(Usage)?;
        }
        Ok(options)
    }

    /// The device that shall hold the journal.
    pub fn journal_device(&self) -> Option<PathBuf> {
        let words = self.journal.iter().flat_map(|list| list.split(','));
        words.filter_map(|word| word.strip_prefix("device=")).next_back().map(PathBuf::from)
    }

    /// How large a block is; or how large at least, as a negative number.
    fn block_size(&self) -> anyhow::Result<(Option<u32>, Option<u32>)> {
        let Some(text) = &self.block_size else { return Ok((None, None)) };
        let size = |text| values::number(text).map_err(|why| Usage(format!("-b: {why}")));
        match text.strip_prefix('-') {
            Some(least) => Ok((None, Some(size(least)?))),
            None => Ok((Some(size(text)?), None)),
        }
    }

    /// The configuration that somebody asks for, or the stock one.
    fn config(&self) -> anyhow::Result<Config> {
        let of_environment = || std::env::var_os("MKE2FS_CONFIG").map(PathBuf::from);
        let Some(path) = self.config.clone().or_else(of_environment) else {
            return Ok(Config::default());
        };
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(name)?;
        Config::parse(&text).with_context(name)
    }
}

/// A wrong value is a mistake of the command line.
fn usage(error: extant_image::MkfsError) -> Usage {
    Usage(error.to_string())
}

/// Sets what one word of `-J` says.
pub fn set_journal(options: &mut MkfsOptions, word: &str) -> Result<(), String> {
    let wrong = || format!("-J: `{word}` is no journal option");
    match word.split_once('=') {
        Some(("size", mebibytes)) => {
            options.journal = JournalSize::Bytes(values::scaled(mebibytes, 1 << 20)?);
        }
        Some(("fast_commit_size", kibibytes)) => {
            options.fast_commit_bytes = Some(values::scaled(kibibytes, 1 << 10)?);
        }
        Some(("location", place)) => {
            options.journal_location = Some(Amount::parse(place).ok_or_else(wrong)?);
        }
        Some(("device", _)) => {}
        Some(_) => return Err(wrong()),
        None if word.is_empty() => {}
        None => {
            options.journal = match word.parse() {
                Ok(blocks) => JournalSize::Blocks(blocks),
                Err(_) => JournalSize::Bytes(values::size(word).map_err(|_| wrong())?),
            };
        }
    }
    Ok(())
}

/// Seconds since 1970 that everything is dated: those of the environment, or this machine's.
fn time_seconds() -> anyhow::Result<u32> {
    let fake = std::env::var("E2FSPROGS_FAKE_TIME").ok().map(|text| {
        let wrong = || Usage(format!("E2FSPROGS_FAKE_TIME: `{text}` is no time"));
        text.trim().parse().map_err(|_| wrong())
    });
    let seconds = match fake.transpose()? {
        Some(seconds) => seconds,
        None => times::source_date()?.unwrap_or(values::now().seconds),
    };
    Ok(u32::try_from(seconds).unwrap_or(if seconds < 0 { 0 } else { u32::MAX }))
}

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

/// The time and a random node (RFC 9562, version 1).
fn time_uuid() -> [u8; 16] {
    let now = values::now();
    let seconds = u64::try_from(now.seconds).unwrap_or(0).wrapping_add(SECONDS_FROM_1582_TO_1970);
    let ticks = seconds.wrapping_mul(10_000_000).wrapping_add(u64::from(now.nanoseconds / 100));
    let [high, mid_high, low @ ..] = ticks.to_be_bytes();
    let mut uuid = random_uuid();
    uuid[..4].copy_from_slice(&low[2..]);
    uuid[4..6].copy_from_slice(&low[..2]);
    uuid[6..8].copy_from_slice(&[high & 0x0F | 0x10, mid_high]);
    // A node that is no network card's has this bit.
    uuid[10] |= 1;
    uuid
}

/// Thirty-two hexadecimal digits, with dashes anywhere; or a word of mke2fs's.
pub fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    match text {
        "random" => return Ok(random_uuid()),
        "time" => return Ok(time_uuid()),
        "clear" | "null" => return Ok([0; 16]),
        _ => {}
    }
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    number.map(u128::to_be_bytes).ok_or_else(|| format!("`{text}` is no UUID"))
}

/// Blocks, or bytes with a unit; fractions and long units too, as everywhere else here.
fn parse_size(text: &str) -> Result<Amount, String> {
    match Amount::parse(text) {
        Some(amount) => Ok(amount),
        None => values::size(text).map(Amount::Bytes),
    }
}

pub fn parse_percent(text: &str) -> Result<Percent, String> {
    Percent::parse(text).ok_or_else(|| format!("`{text}` is no percentage"))
}

fn parse_errors(text: &str) -> Result<ErrorPolicy, String> {
    ErrorPolicy::by_name(text)
        .ok_or_else(|| format!("`{text}` is none of continue, remount-ro, panic"))
}

fn parse_os(text: &str) -> Result<CreatorOs, String> {
    CreatorOs::by_name(text).ok_or_else(|| format!("`{text}` is no system that is known"))
}

const SECONDS_FROM_1582_TO_1970: u64 = 12_219_292_800;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output;

    fn journal(word: &str) -> Result<JournalSize, String> {
        let mut options = MkfsOptions::default();
        set_journal(&mut options, word)?;
        Ok(options.journal)
    }

    #[test]
    fn journals_are_given_in_blocks_or_bytes() {
        assert_eq!(journal("2048"), Ok(JournalSize::Blocks(2048)));
        assert_eq!(journal("16M"), Ok(JournalSize::Bytes(16 << 20)));
        assert_eq!(journal("size=8"), Ok(JournalSize::Bytes(8 << 20)));
        assert!(journal("large").is_err() && journal("depth=1").is_err());
    }

    #[test]
    fn sizes_are_blocks_without_a_unit() {
        assert_eq!(parse_size("2048"), Ok(Amount::Blocks(2048)));
        assert_eq!(parse_size("8s"), Ok(Amount::Bytes(4096)));
        assert_eq!(parse_size("1.5G"), Ok(Amount::Bytes(3 << 29)));
        assert_eq!(parse_size("512B"), Ok(Amount::Bytes(512)));
        assert!(parse_size("many").is_err());
    }

    #[test]
    fn uuids_have_32_digits() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(output::uuid(&parse_uuid(text).unwrap()), text);
        assert!(parse_uuid("0011").is_err());
        assert_eq!(output::uuid(&random_uuid()).as_bytes()[14], b'4');
        assert_eq!(output::uuid(&time_uuid()).as_bytes()[14], b'1');
    }
}
