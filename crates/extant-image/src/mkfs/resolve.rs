//! From options and types to one value for everything that does not depend on the groups.
//!
//! Source: mke2fs(8), mke2fs.conf(5); what mke2fs 1.47 makes of each is compared field by field.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use extant_format::superblock::DefaultMountOptions;
use extant_format::{Compat, Incompat, RoCompat};

use super::config::Lookup;
use super::extended::{Encoding, QuotaTypes};
use super::numbers::{Amount, Percent};
use super::options::option;
use super::{
    CreatorOs, ErrorPolicy, ExtendedOptions, FeatureEdits, Features, Hugefiles, JournalSize,
    MkfsError, MkfsOptions,
};

/// Everything decided that does not depend on the groups.
#[derive(Clone, Debug)]
pub(super) struct Decided<'a> {
    pub(super) options: &'a MkfsOptions,
    pub(super) features: Features,
    pub(super) block_size: u32,
    pub(super) cluster_size: u32,
    pub(super) blocks: u64,
    pub(super) reserved_blocks: u64,
    pub(super) inodes: u32,
    pub(super) inode_size: u16,
    pub(super) groups_per_flex: u32,
    pub(super) revision: u32,
    pub(super) errors: ErrorPolicy,
    pub(super) hash_version: u8,
    pub(super) mount_options: DefaultMountOptions,
    pub(super) periodic_check: bool,
    pub(super) quotas: QuotaTypes,
    pub(super) encoding: Encoding,
    pub(super) journal_location: Option<u64>,
    pub(super) packed: bool,
    pub(super) hugefiles: Option<Hugefiles>,
    pub(super) extended: ExtendedOptions,
    /// Blocks that descriptors get to grow, if somebody says how far.
    pub(super) resize_room: Option<u32>,
    /// It is too small for the journal that it should have.
    pub(super) lost_journal: bool,
}

impl<'a> Decided<'a> {
    /// What the options mean on a device of `device_bytes`.
    ///
    /// # Errors
    /// Options that contradict each other, or do not go with the size.
    pub(super) fn new(options: &'a MkfsOptions, device_bytes: u64) -> Result<Self, MkfsError> {
        let bytes = options.size_bytes.unwrap_or(device_bytes);
        let types = types(options, bytes)?;
        let lookup = Lookup { config: &options.config, types: &types };
        let extended = extended(options, &lookup)?;
        let features = features(options, &lookup, &extended)?;
        let block_size = block_size(options, &lookup)?;
        let cluster_size = cluster_size(options, &lookup, &features, block_size)?;
        // Nobody said how much of the device, so the last page is a whole one.
        let rounding = if options.size_bytes.is_none() { PAGE_BYTES.max(block_size) } else { 1 };
        let blocks = (bytes - bytes % u64::from(rounding)) / u64::from(block_size);
        let mut decided = Self {
            options,
            features,
            block_size,
            cluster_size,
            blocks,
            reserved_blocks: reserved(options, &lookup)?.of(blocks),
            inodes: 0,
            inode_size: inode_size(options, &lookup, &features, block_size)?,
            groups_per_flex: groups_per_flex(options, &lookup, &features)?,
            revision: extended.revision.unwrap_or(1),
            errors: errors(options, &lookup)?,
            hash_version: match lookup.text("hash_alg") {
                Some("legacy") => 0,
                Some("tea") => 2,
                _ => HALF_MD4,
            },
            mount_options: match extended.revision {
                Some(0) => DefaultMountOptions::empty(),
                _ => mount_options(&lookup)?,
            },
            periodic_check: lookup.flag("enable_periodic_fsck").unwrap_or(false),
            quotas: quotas(&features, &extended),
            encoding: encoding(&lookup, &extended)?,
            journal_location: journal_location(options, &lookup, block_size),
            packed: extended.packed_meta_blocks.unwrap_or(false),
            hugefiles: Hugefiles::decide(options, &lookup)?,
            extended,
            resize_room: None,
            lost_journal: false,
        };
        decided.fit_to_size(&lookup)?;
        decided.resize_room = decided.resize_room()?;
        if decided.resize_room.is_some() {
            decided.features.compat.insert(Compat::RESIZE_INODE);
        }
        decided.inodes = decided.count_inodes(&lookup)?;
        decided.check()?;
        Ok(decided)
    }

    /// What a size takes from the features, or asks of them.
    fn fit_to_size(&mut self, lookup: &Lookup<'_>) -> Result<(), MkfsError> {
        let needs_64bit = self.blocks > u32::MAX.into();
        if needs_64bit && lookup.flag("auto_64-bit_support").unwrap_or(false) {
            self.features.incompat.insert(Incompat::BIT64);
        }
        if needs_64bit && !self.features.incompat.contains(Incompat::BIT64) {
            return Err(option("features", format!("{} blocks need 64bit", self.blocks)));
        }
        if needs_64bit {
            self.features.compat.remove(Compat::RESIZE_INODE);
        }
        let by_size = self.options.journal == JournalSize::BySize
            && self.options.fast_commit_bytes.is_none()
            && self.options.external_journal.is_none();
        if by_size && self.blocks < SMALLEST_WITH_JOURNAL {
            self.lost_journal = self.features.compat.contains(Compat::HAS_JOURNAL);
            self.features.compat.remove(Compat::HAS_JOURNAL | Compat::ORPHAN_FILE);
        }
        Ok(())
    }

    /// Blocks that descriptors need more when the file system has grown as far as somebody wants; `None` if that is none.
    fn resize_room(&self) -> Result<Option<u32>, MkfsError> {
        let Some(limit) = self.extended.resize_limit else { return Ok(None) };
        let limit = limit.blocks(self.block_size);
        if limit <= self.blocks {
            let problem = format!("{limit} blocks; the file system has {} already", self.blocks);
            return Err(option("resize limit", problem));
        }
        let wide = self.features.incompat.contains(Incompat::BIT64);
        let desc_size = if wide { self.extended.desc_size.unwrap_or(64) } else { 32 };
        let per_block = u64::from(self.block_size) / u64::from(desc_size);
        let group = self.options.blocks_per_group.unwrap_or(self.block_size * 8).max(1);
        let needed = |blocks: u64| blocks.div_ceil(group.into()).div_ceil(per_block);
        let more = needed(limit).saturating_sub(needed(self.blocks));
        Ok(u32::try_from(more).ok().filter(|more| *more > 0))
    }

    /// As many inodes as are wanted.
    fn count_inodes(&self, lookup: &Lookup<'_>) -> Result<u32, MkfsError> {
        let bytes = self.blocks.saturating_mul(self.block_size.into());
        let per_inode = match self.options.bytes_per_inode {
            Some(bytes) if !(1024..=MOST_BYTES_PER_INODE).contains(&bytes) => {
                let problem = format!("{bytes}; from 1024 to {MOST_BYTES_PER_INODE}");
                return Err(option("bytes per inode", problem));
            }
            Some(bytes) => bytes,
            None => {
                let ratio = lookup.number("inode_ratio").unwrap_or(8192);
                ratio.max(self.block_size).max(self.cluster_size)
            }
        };
        let inodes = match self.options.inodes {
            Some(0) => return Err(option("inodes", "at least one".to_owned())),
            Some(inodes) => inodes,
            // Where the ratio gives none it is forgotten.
            None if bytes / u64::from(per_inode) == 0 => {
                u32::try_from(bytes / u64::from(self.block_size.max(4096))).unwrap_or(u32::MAX)
            }
            None => match u32::try_from(bytes / u64::from(per_inode)) {
                Ok(inodes) => inodes,
                // More than 32 bits can count are as many as they can.
                Err(_) if self.features.incompat.contains(Incompat::BIT64) => u32::MAX,
                Err(_) => {
                    return Err(option("inodes", "too many; raise the bytes per inode".to_owned()));
                }
            },
        };
        if u64::from(inodes) * u64::from(self.inode_size) >= bytes {
            let inode_size = self.inode_size;
            let problem = format!("{inodes} of {inode_size} bytes do not fit into {bytes} bytes");
            return Err(option("inodes", problem));
        }
        Ok(inodes)
    }

    /// What does not go together.
    fn check(&self) -> Result<(), MkfsError> {
        let (options, features) = (self.options, &self.features);
        features.check()?;
        if options.label.len() > 16 {
            return Err(option("label", format!("{} bytes; at most 16", options.label.len())));
        }
        if options.last_mounted.len() > 64 {
            let problem = format!("{} bytes; at most 64", options.last_mounted.len());
            return Err(option("last mounted", problem));
        }
        let most = self.block_size * 8;
        if let Some(count) = options.blocks_per_group
            && (!count.is_multiple_of(8) || !(256..=most).contains(&count))
        {
            let problem = format!("{count}; it must be a multiple of 8 from 256 to {most}");
            return Err(option("blocks per group", problem));
        }
        if features.incompat.contains(Incompat::INLINE_DATA) && self.inode_size == 128 {
            let problem = "inodes of 128 bytes have no room for inline_data";
            return Err(option("inode size", problem.to_owned()));
        }
        if features.ro_compat.contains(RoCompat::BIGALLOC) && !options.bad_blocks.is_empty() {
            let problem = "with bigalloc no check can tell them from damage";
            return Err(option("bad blocks", problem.to_owned()));
        }
        let is_plain = *features == Features::default();
        if self.revision == 0 && !is_plain {
            let problem = "revision 0 has none; say `none` first";
            return Err(option("features", problem.to_owned()));
        }
        let size_needs = self.extended.desc_size.is_some_and(|size| size != 64);
        if size_needs && !features.incompat.contains(Incompat::BIT64) {
            return Err(option("descriptor size", "other sizes need 64bit".to_owned()));
        }
        if self.extended.strict_encoding.is_some()
            && !features.incompat.contains(Incompat::CASEFOLD)
        {
            return Err(option("encoding flags", "they need casefold".to_owned()));
        }
        Ok(())
    }
}

/// The names under which the configuration is looked up.
fn types(options: &MkfsOptions, bytes: u64) -> Result<Vec<String>, MkfsError> {
    let is_hurd = creator(options)? == CreatorOs::HURD;
    let config = &options.config;
    let by_default = if is_hurd { "ext2" } else { "ext4" };
    let of_config = config.default_of("fs_type").unwrap_or(by_default);
    let fs_type = options.fs_type.as_deref().unwrap_or(of_config);
    if fs_type != "ext2" && !config.has_type(fs_type) {
        return Err(option("type", format!("the configuration has no `{fs_type}`")));
    }
    let mut types = alloc::vec![fs_type.to_owned()];
    for name in options.usage.as_deref().unwrap_or(usage_of_size(bytes)).split(',') {
        match name {
            name if config.has_type(name) => types.push(name.to_owned()),
            "" | "default" => {}
            // A configuration need not have the types of the sizes.
            _ if options.usage.is_none() => {}
            name => return Err(option("usage", format!("the configuration has no `{name}`"))),
        }
    }
    if is_hurd {
        types.push("hurd".to_owned());
    }
    Ok(types)
}

/// What a file system of so many bytes is for if nobody says.
fn usage_of_size(bytes: u64) -> &'static str {
    const TIB: u64 = 1 << 40;
    match bytes >> 20 {
        0..3 => "floppy",
        3..512 => "small",
        _ if bytes < 4 * TIB => "default",
        _ if bytes < 16 * TIB => "big",
        _ => "huge",
    }
}

/// Which system makes it.
pub(super) fn creator(options: &MkfsOptions) -> Result<CreatorOs, MkfsError> {
    let named = options.config.default_of("creator_os");
    let of_config = named.map(|name| {
        CreatorOs::by_name(name)
            .ok_or_else(|| option("creator_os", format!("there is no `{name}`")))
    });
    Ok(options.creator_os.or(of_config.transpose()?).unwrap_or_default())
}

/// The caller's extended options, and behind them those of the types.
fn extended(options: &MkfsOptions, lookup: &Lookup<'_>) -> Result<ExtendedOptions, MkfsError> {
    let mut of_types = ExtendedOptions {
        packed_meta_blocks: lookup.flag("packed_meta_blocks"),
        lazy_itable_init: lookup.flag("lazy_itable_init"),
        lazy_journal_init: lookup.flag("lazy_journal_init"),
        discard: lookup.flag("discard"),
        backup_superblocks: lookup
            .number("num_backup_sb")
            .and_then(|number| u8::try_from(number).ok())
            .filter(|number| *number <= 2),
        ..ExtendedOptions::default()
    };
    lookup.each("options").try_for_each(|list| of_types.apply(list))?;
    Ok(options.extended.clone().or(of_types))
}

/// The features of the types with the caller's changes.
fn features(
    options: &MkfsOptions,
    lookup: &Lookup<'_>,
    extended: &ExtendedOptions,
) -> Result<Features, MkfsError> {
    let mut edits = FeatureEdits::default();
    if extended.revision.unwrap_or(1) > 0 {
        edits.apply(lookup.text("base_features").unwrap_or(BASE_FEATURES))?;
        lookup.each("features").try_for_each(|list| edits.apply(list))?;
    }
    let mut features = edits.edit(Features::default());
    if creator(options)? == CreatorOs::HURD {
        features.remove_for_hurd();
    }
    if let Some(list) = lookup.text("default_features")
        && options.features.is_empty()
    {
        let mut edits = FeatureEdits::default();
        edits.apply(list)?;
        features = edits.edit(features);
    }
    let by_default = features;
    features = options.features.edit(features);
    let wants_journal = options.wants_journal
        || options.journal != JournalSize::BySize
        || options.external_journal.is_some();
    if wants_journal {
        features.compat.insert(Compat::HAS_JOURNAL);
    }
    // What comes with the type goes with what it needs; what somebody asked for does not.
    if by_default.compat.contains(Compat::ORPHAN_FILE)
        && !features.compat.contains(Compat::HAS_JOURNAL)
    {
        features.compat.remove(Compat::ORPHAN_FILE);
    }
    if by_default.incompat.contains(Incompat::CSUM_SEED)
        && !features.ro_compat.contains(RoCompat::METADATA_CSUM)
    {
        features.incompat.remove(Incompat::CSUM_SEED);
    }
    if extended.encoding.is_some() {
        features.incompat.insert(Incompat::CASEFOLD);
    }
    if extended.quota_types.is_some_and(|types| types.projects) {
        features.ro_compat.insert(RoCompat::PROJECT);
    }
    if features.ro_compat.contains(RoCompat::METADATA_CSUM) {
        features.ro_compat.remove(RoCompat::GDT_CSUM);
    }
    Ok(features)
}

fn block_size(options: &MkfsOptions, lookup: &Lookup<'_>) -> Result<u32, MkfsError> {
    let size = options.block_size.unwrap_or_else(|| {
        let least = options.least_block_size.unwrap_or(0);
        let of_type = lookup.signed("blocksize").unwrap_or(PAGE_BYTES.into());
        // Below zero it is the page's size, or at least so much.
        let wanted = match u32::try_from(of_type) {
            Ok(size) => size,
            Err(_) => PAGE_BYTES.max(u32::try_from(-of_type).unwrap_or(0)),
        };
        wanted.max(least)
    });
    if !size.is_power_of_two() || !(1024..=65536).contains(&size) {
        let problem = format!("{size}; it must be a power of two from 1024 to 65536");
        return Err(option("block size", problem));
    }
    Ok(size)
}

fn cluster_size(
    options: &MkfsOptions,
    lookup: &Lookup<'_>,
    features: &Features,
    block_size: u32,
) -> Result<u32, MkfsError> {
    if !features.ro_compat.contains(RoCompat::BIGALLOC) {
        return match options.cluster_size {
            Some(_) => Err(option("cluster size", "clusters need bigalloc".to_owned())),
            None => Ok(block_size),
        };
    }
    let size = options.cluster_size.or(lookup.number("cluster_size"));
    let size = size.unwrap_or(block_size.saturating_mul(16));
    let least = block_size.max(2048);
    if !size.is_power_of_two() || !(least..=MOST_CLUSTER_BYTES).contains(&size) {
        let problem =
            format!("{size}; it must be a power of two from {least} to {MOST_CLUSTER_BYTES}");
        return Err(option("cluster size", problem));
    }
    Ok(size)
}

fn inode_size(
    options: &MkfsOptions,
    lookup: &Lookup<'_>,
    features: &Features,
    block_size: u32,
) -> Result<u16, MkfsError> {
    let has_projects = features.ro_compat.contains(RoCompat::PROJECT);
    let of_type = lookup.number("inode_size").and_then(|size| u16::try_from(size).ok());
    let of_type = of_type.unwrap_or(128).max(if has_projects { 256 } else { 128 });
    let size = match options.extended.revision {
        Some(0) => 128,
        _ => options.inode_size.unwrap_or(of_type),
    };
    if !size.is_power_of_two() || size < 128 || u32::from(size) > block_size {
        let problem = format!("{size}; it must be a power of two from 128 to the block size");
        return Err(option("inode size", problem));
    }
    if has_projects && size == 128 {
        return Err(option("inode size", "projects need inodes of 256 bytes".to_owned()));
    }
    Ok(size)
}

fn groups_per_flex(
    options: &MkfsOptions,
    lookup: &Lookup<'_>,
    features: &Features,
) -> Result<u32, MkfsError> {
    if !features.incompat.contains(Incompat::FLEX_BG) {
        return match options.groups_per_flex {
            Some(_) => Err(option("groups per flex group", "they need flex_bg".to_owned())),
            None => Ok(1),
        };
    }
    let groups = options.groups_per_flex.or(lookup.number("flex_bg_size")).unwrap_or(16);
    match groups.is_power_of_two() {
        true => Ok(groups),
        false => Err(option("groups per flex group", format!("{groups} is no power of two"))),
    }
}

fn reserved(options: &MkfsOptions, lookup: &Lookup<'_>) -> Result<Percent, MkfsError> {
    let of_type = lookup.text("reserved_ratio").map(|text| {
        Percent::parse(text).ok_or_else(|| option("reserved_ratio", format!("`{text}`")))
    });
    let five = Percent::new(5);
    let part = options
        .reserved
        .or(of_type.transpose()?)
        .or(five)
        .filter(|part| Percent::new(50).is_some_and(|most| *part <= most));
    part.ok_or_else(|| option("reserved percent", "at most 50".to_owned()))
}

fn errors(options: &MkfsOptions, lookup: &Lookup<'_>) -> Result<ErrorPolicy, MkfsError> {
    let of_type = lookup.text("errors").map(|name| {
        ErrorPolicy::by_name(name).ok_or_else(|| option("errors", format!("there is no `{name}`")))
    });
    Ok(options.errors.or(of_type.transpose()?).unwrap_or(ErrorPolicy::Continue))
}

fn mount_options(lookup: &Lookup<'_>) -> Result<DefaultMountOptions, MkfsError> {
    let mut all = DefaultMountOptions::empty();
    let list = lookup.text("default_mntopts").unwrap_or("acl,user_xattr");
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let (name, on) = word.strip_prefix('^').map_or((word, true), |name| (name, false));
        let bits = MOUNT_OPTIONS.iter().find(|(known, _)| *known == name).map(|(_, bits)| *bits);
        let bits =
            bits.ok_or_else(|| option("default_mntopts", format!("there is no `{name}`")))?;
        all.set(bits, on);
    }
    Ok(all)
}

fn quotas(features: &Features, extended: &ExtendedOptions) -> QuotaTypes {
    if !features.ro_compat.contains(RoCompat::QUOTA) {
        return QuotaTypes::default();
    }
    let types =
        extended.quota_types.unwrap_or(QuotaTypes { users: true, groups: true, projects: false });
    let projects = types.projects || features.ro_compat.contains(RoCompat::PROJECT);
    QuotaTypes { projects, ..types }
}

fn encoding(lookup: &Lookup<'_>, extended: &ExtendedOptions) -> Result<Encoding, MkfsError> {
    let named = lookup.text("encoding").map(|name| {
        Encoding::by_name(name).ok_or_else(|| option("encoding", format!("there is no `{name}`")))
    });
    Ok(extended.encoding.or(named.transpose()?).unwrap_or(Encoding::Utf8))
}

fn journal_location(options: &MkfsOptions, lookup: &Lookup<'_>, block_size: u32) -> Option<u64> {
    let of_type = || lookup.text("journal_location").and_then(Amount::parse);
    options.journal_location.or_else(of_type).map(|place| place.blocks(block_size))
}

/// Default mount options, by the names that tune2fs has for them.
const MOUNT_OPTIONS: [(&str, DefaultMountOptions); 12] = [
    ("debug", DefaultMountOptions::DEBUG),
    ("bsdgroups", DefaultMountOptions::BSD_GROUPS),
    ("user_xattr", DefaultMountOptions::USER_XATTR),
    ("acl", DefaultMountOptions::ACL),
    ("uid16", DefaultMountOptions::UID16),
    ("journal_data", DefaultMountOptions::DATA_JOURNAL),
    ("journal_data_ordered", DefaultMountOptions::DATA_ORDERED),
    ("journal_data_writeback", DefaultMountOptions::DATA_WRITEBACK),
    ("nobarrier", DefaultMountOptions::NO_BARRIER),
    ("block_validity", DefaultMountOptions::BLOCK_VALIDITY),
    ("discard", DefaultMountOptions::DISCARD),
    ("nodelalloc", DefaultMountOptions::NO_DELALLOC),
];

const BASE_FEATURES: &str = "sparse_super,large_file,filetype,resize_inode,dir_index";
const PAGE_BYTES: u32 = 4096;
const HALF_MD4: u8 = 1;
const MOST_BYTES_PER_INODE: u32 = 64 << 20;
const MOST_CLUSTER_BYTES: u32 = 512 << 20;
const SMALLEST_WITH_JOURNAL: u64 = 2048;
