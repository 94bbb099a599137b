//! The superblock: found, judged, and compared with its copies.
//!
//! Source: e2fsprogs `e2fsck/super.c`, `check_super_block`; `e2fsck/unix.c`, `try_open_fs`.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::cast::{u64_from, usize_from};
use extant_format::mmp::RawMmp;
use extant_format::superblock::MAGIC;
use extant_format::{
    BlockGroup, Compat, FormatError, Geometry, Incompat, InodeNumber, PhysicalBlock, RawSuperblock,
    RoCompat, Superblock, Unsupported,
};
use zerocopy::{FromBytes, IntoBytes};

use super::CheckError;
use super::finding::{Place, Value};
use super::image::Image;
use super::report::Findings;
use super::rule::Rule;

/// The superblock to go on with: the primary one, or the first copy that makes sense.
///
/// # Errors
/// There is none, or it has a feature that is not known here.
pub(super) fn find(
    device: &dyn BlockDevice,
    findings: &mut Findings,
) -> Result<(RawSuperblock, Geometry), CheckError> {
    let primary = read(device, Superblock::OFFSET_BYTES)?;
    let problem = match &primary {
        None => None,
        Some(raw) => match understand(raw) {
            Ok(geometry) => {
                let sound =
                    !geometry.has_metadata_csum() || raw.checksum.get() == raw.computed_checksum();
                if !sound {
                    let (found, expected) = (raw.checksum.get(), raw.computed_checksum());
                    let bits = |sum: u32| Value::Bits(sum.into());
                    let at = Place::superblock();
                    findings.add(Rule::SuperblockChecksum, at, bits(found), bits(expected));
                }
                return Ok((*raw, geometry));
            }
            Err(FormatError::Unsupported(missing)) => return Err(missing.into()),
            Err(FormatError::Corrupt(broken)) => Some(broken),
        },
    };
    for bits in 10..=16 {
        let Some(raw) = read(device, backup_offset(bits))? else { continue };
        let Ok(geometry) = understand(&raw) else { continue };
        if geometry.block_bits != bits || raw.checksum.get() != sum_of(&raw, &geometry) {
            continue;
        }
        match problem {
            None => findings.add(Rule::Magic, Place::superblock(), (), ()),
            Some(broken) => {
                let text = broken.rule.to_string();
                findings.add(Rule::SuperblockField, Place::superblock(), text, ());
            }
        }
        return Ok((raw, geometry));
    }
    Err(problem.map_or(CheckError::NoFileSystem, CheckError::Superblock))
}

fn sum_of(raw: &RawSuperblock, geometry: &Geometry) -> u32 {
    if geometry.has_metadata_csum() { raw.computed_checksum() } else { raw.checksum.get() }
}

/// Where the first copy is of a file system with the usual groups.
fn backup_offset(block_bits: u32) -> u64 {
    let first = u64::from(block_bits == 10);
    ((8_u64 << block_bits) + first) << block_bits
}

/// The bytes of a superblock, if there is one.
fn read(device: &dyn BlockDevice, offset: u64) -> Result<Option<RawSuperblock>, CheckError> {
    if device.geometry().len_bytes < offset.saturating_add(1024) {
        return Ok(None);
    }
    let bytes = device.read_vec(offset, 1024)?;
    let raw = RawSuperblock::read_from_bytes(&bytes).ok();
    Ok(raw.filter(|raw| raw.magic.get() == MAGIC))
}

/// The numbers of a superblock whose checksum may be wrong.
fn understand(raw: &RawSuperblock) -> Result<Geometry, FormatError> {
    let mut sealed = *raw;
    sealed.set_checksum();
    Superblock::try_from(&sealed).map(|superblock| *superblock.geometry())
}

/// Judges all that can be told from the superblock alone.
pub(super) fn judge(image: &Image<'_>, findings: &mut Findings) -> Result<(), CheckError> {
    let (raw, geometry) = (&image.raw, &image.geometry);
    let mut require = |holds: bool, rule: Rule, found: Value, expected: Value| {
        if !holds {
            findings.add(rule, Place::superblock(), found, expected);
        }
    };
    let device_blocks = image.io.device.geometry().len_bytes >> geometry.block_bits;
    let blocks = geometry.blocks_count;
    let fits = blocks <= device_blocks;
    require(fits, Rule::SizePastDevice, blocks.into(), device_blocks.into());
    let (reserved, most) = (raw.reserved_blocks_count(), blocks / 2);
    require(reserved <= most, Rule::ReservedBlocks, reserved.into(), ().into());
    let room = geometry.inode_size.saturating_sub(128);
    let sound = |size: u16| {
        size == 0 || size >= 4 && u32::from(size) <= room && size.is_multiple_of(4) || room == 0
    };
    let (least, wanted) = (raw.min_extra_isize.get(), raw.want_extra_isize.get());
    require(sound(least), Rule::MinExtraSize, least.into(), ().into());
    require(sound(wanted), Rule::WantExtraSize, wanted.into(), ().into());
    let none = || Value::Nothing;
    let summed = geometry.has_metadata_csum();
    let both = summed && image.ro_compat(RoCompat::GDT_CSUM);
    require(!both, Rule::TwoChecksumKinds, none(), none());
    let seed_alone = image.incompat(Incompat::CSUM_SEED) && !summed;
    require(!seed_alone, Rule::SeedWithoutChecksums, none(), none());
    let wide_alone = image.incompat(Incompat::BIT64) && !image.incompat(Incompat::EXTENTS);
    require(!wide_alone, Rule::WideWithoutExtents, none(), none());
    let resize = image.compat(Compat::RESIZE_INODE);
    let clash = resize && image.incompat(Incompat::META_BG);
    require(!clash, Rule::MetaGroupsWithResize, none(), none());
    let spare = geometry.reserved_gdt_blocks;
    require(resize || spare == 0, Rule::ReservedDescriptors, spare.into(), Value::Number(0));
    let orphans = !image.ro_compat(RoCompat::ORPHAN_PRESENT) || image.compat(Compat::ORPHAN_FILE);
    require(orphans, Rule::OrphanPresent, none(), none());
    judge_times(image, findings);
    judge_quota_numbers(image, findings);
    judge_mmp(image, findings)
}

fn judge_times(image: &Image<'_>, findings: &mut Findings) {
    let Some(now) = image.now else { return };
    let raw = &image.raw;
    let mounted = u64::from(raw.mtime_hi) << 32 | u64::from(raw.mtime.get());
    for (rule, time) in [(Rule::MountTime, mounted), (Rule::WriteTime, raw.write_time())] {
        // A day's difference is a matter of clocks and time zones.
        if time > now.saturating_add(86_400) {
            findings.add(rule, Place::superblock(), time, ());
        }
    }
}

fn judge_quota_numbers(image: &Image<'_>, findings: &mut Findings) {
    let raw = &image.raw;
    if !image.ro_compat(RoCompat::QUOTA) {
        return;
    }
    let project = raw.prj_quota_inum.get();
    let sound = |number: u32, own: u32| number == 0 || number == own;
    let wrong = [
        (raw.usr_quota_inum.get(), sound(raw.usr_quota_inum.get(), 3)),
        (raw.grp_quota_inum.get(), sound(raw.grp_quota_inum.get(), 4)),
        (project, project == 0 || image.geometry.inode_place_of(project)),
    ];
    for (number, _) in wrong.into_iter().filter(|(_, sound)| !sound) {
        findings.add(Rule::QuotaNumber, Place::superblock(), number, ());
    }
}

fn judge_mmp(image: &Image<'_>, findings: &mut Findings) -> Result<(), CheckError> {
    if !image.incompat(Incompat::MMP) {
        return Ok(());
    }
    let block = PhysicalBlock::new(image.raw.mmp_block.get());
    if block.get() <= image.geometry.first_data_block.into() || !image.geometry.has_block(block) {
        findings.add(Rule::MmpPlace, Place::superblock(), block, ());
        return Ok(());
    }
    let bytes = image.io.block(block)?;
    let at = extant_format::Place::Block(block);
    if let Err(broken) = RawMmp::parse(&bytes, at, &image.geometry) {
        let rule = match broken.rule {
            extant_format::Rule::Magic => Rule::MmpMagic,
            extant_format::Rule::Checksum => Rule::MmpChecksum,
            _ => Rule::MmpSequence,
        };
        findings.add(rule, Place::superblock().block(block), (), ());
    }
    Ok(())
}

/// Compares the copies of the superblock and of the descriptors with the primary ones.
pub(super) fn judge_copies(
    image: &Image<'_>,
    descriptors: &[u8],
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let geometry = &image.geometry;
    let primary = comparable(&image.raw);
    let per_block = geometry.block_len();
    let mut copy = vec![0; per_block];
    let mut tables = 0;
    for group in geometry.groups().skip(1) {
        let start = geometry.first_block_of(group);
        if geometry.has_super(group) && geometry.has_block(start) {
            image.io.read(start, &mut copy)?;
            judge_copy(&copy, &primary, group, start, findings);
        }
        let (own, _) = geometry.descriptor_place(group);
        // Where every group has a copy, the first of them will do.
        let has_table = geometry.has_super(group) && tables < MOST_TABLES;
        tables += u32::from(has_table);
        let full = if has_table { geometry.full_table_blocks() } else { 0 };
        let scattered = (own >= geometry.full_table_blocks()).then_some(own);
        for index in (0..full).chain(scattered) {
            let Some(block) = geometry.descriptor_block_copy(index, group) else { continue };
            // The first copy of a scattered block is the primary one.
            if block == geometry.descriptor_block(index) || !geometry.has_block(block) {
                continue;
            }
            image.io.read(block, &mut copy)?;
            let at = usize_from(index).saturating_mul(per_block);
            let primary = descriptors.get(at..).unwrap_or_default();
            if !same_places(&copy, primary, geometry) {
                let place = Place::group(group).block(block);
                findings.add(Rule::BackupDescriptors, place, (), ());
            }
        }
    }
    Ok(())
}

fn judge_copy(
    copy: &[u8],
    primary: &RawSuperblock,
    group: BlockGroup,
    start: PhysicalBlock,
    findings: &mut Findings,
) {
    let place = || Place::group(group).block(start);
    let found = RawSuperblock::read_from_prefix(copy).ok().map(|(raw, _)| raw);
    let Some(raw) = found.filter(|raw| raw.magic.get() == MAGIC) else {
        return findings.add(Rule::BackupSuperblock, place(), "no superblock", ());
    };
    let summed = raw.ro_compat().contains(RoCompat::METADATA_CSUM);
    if summed && raw.checksum.get() != raw.computed_checksum() {
        return findings.add(Rule::BackupSuperblock, place(), "a wrong checksum", ());
    }
    if comparable(&raw).as_bytes() != primary.as_bytes() {
        findings.add(Rule::BackupSuperblock, place(), "other sizes or features", ());
    }
}

/// A superblock with nothing left but what a copy must agree in: sizes, places and the features that say how to read.
fn comparable(raw: &RawSuperblock) -> RawSuperblock {
    let mut rest = RawSuperblock::blank();
    rest.inodes_count = raw.inodes_count;
    (rest.blocks_count_lo, rest.blocks_count_hi) = (raw.blocks_count_lo, raw.blocks_count_hi);
    rest.first_data_block = raw.first_data_block;
    rest.log_block_size = raw.log_block_size;
    rest.log_cluster_size = raw.log_cluster_size;
    rest.blocks_per_group = raw.blocks_per_group;
    rest.clusters_per_group = raw.clusters_per_group;
    rest.inodes_per_group = raw.inodes_per_group;
    rest.inode_size = raw.inode_size;
    rest.first_ino = raw.first_ino;
    rest.desc_size = raw.desc_size;
    rest.first_meta_bg = raw.first_meta_bg;
    rest.reserved_gdt_blocks = raw.reserved_gdt_blocks;
    // Recovery comes and goes with each mount.
    rest.feature_incompat = raw.incompat().difference(Incompat::RECOVER).bits().into();
    rest
}

/// Whether a block of descriptors names the same places as the primary one; counts and flags of copies are old.
fn same_places(copy: &[u8], primary: &[u8], geometry: &Geometry) -> bool {
    let size = usize_from(geometry.desc_size);
    let places = |bytes: &[u8]| {
        let found = extant_format::GroupDescriptor::fields(bytes, geometry);
        found.map(|found| (found.block_bitmap, found.inode_bitmap, found.inode_table))
    };
    copy.chunks_exact(size).zip(primary.chunks_exact(size)).all(|(a, b)| places(a) == places(b))
}

/// The primary descriptors' bytes, block after block.
pub(super) fn read_descriptors(
    device: &dyn BlockDevice,
    geometry: &Geometry,
) -> Result<Vec<u8>, CheckError> {
    let block_len = geometry.block_len();
    let len = usize_from(geometry.desc_blocks).saturating_mul(block_len);
    if u64_from(len) > device.geometry().len_bytes {
        return Err(CheckError::NoFileSystem);
    }
    let mut bytes = vec![0; len];
    let full = geometry.full_table_blocks();
    let (table, scattered) = bytes.split_at_mut(usize_from(full).saturating_mul(block_len));
    let offset = |index: u32| geometry.descriptor_block(index).get() << geometry.block_bits;
    device.read_into(offset(0), table)?;
    for (index, block) in (full..).zip(scattered.chunks_exact_mut(block_len)) {
        device.read_into(offset(index), block)?;
    }
    Ok(bytes)
}

/// Copies of the descriptors that are compared.
const MOST_TABLES: u32 = 64;

/// Questions that only numbers from the superblock ask.
trait HasInode {
    fn inode_place_of(&self, number: u32) -> bool;
}

impl HasInode for Geometry {
    /// Whether there is an inode of that number, and it is not reserved.
    fn inode_place_of(&self, number: u32) -> bool {
        let exists = InodeNumber::new(number).and_then(|number| self.inode_place(number)).is_some();
        exists && number >= self.first_inode
    }
}

impl From<Unsupported> for CheckError {
    fn from(missing: Unsupported) -> Self {
        Self::Unsupported(missing)
    }
}
