//! Quota files: the tree of each, and what it tells of its owners against what they use.
//!
//! Only what the tree leads to is read: a block of it once, and of the owners those are remembered that have files.
//!
//! Source: e2fsprogs `lib/support/mkquota.c`, `quota_compare_and_update`; `lib/support/quotaio_tree.c`,
//! `qtree_scan_dquots`; kernel `fs/quota/quota_v2.c`, `v2_read_file_info`. Differs: an inner block that two others name is
//! wrong here, and a magic number or version that the kernel refuses.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use extant_device::DeviceError;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::quota::{
    BLOCK_BYTES, QuotaKind, RawEntriesHeader, RawQuotaEntry, RawQuotaHeader, TREE_DEPTH, TREE_ROOT,
    VERSION,
};
use extant_format::{FileType, InodeFlags, InodeNumber, RoCompat, bitmap};
use zerocopy::FromBytes;

use super::finding::{Place, Value};
use super::image::{Image, Inode, le32};
use super::map::{self, DirRuns, Runs};
use super::report::Findings;
use super::rule::Rule;

/// What one owner uses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Used {
    bytes: u64,
    inodes: u64,
}

impl Used {
    const fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// What one owner's files use together.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    all: Used,
    /// The part of symbolic links whose target is inline data: the kernel counts them, e2fsck does not.
    links: Used,
}

impl Sum {
    const fn add(&mut self, other: Self) {
        self.all.add(other.all);
        self.links.add(other.links);
    }

    /// What e2fsck takes for the use.
    const fn without_links(&self) -> Used {
        Used {
            bytes: self.all.bytes.saturating_sub(self.links.bytes),
            inodes: self.all.inodes.saturating_sub(self.links.inodes),
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes and {} inodes", self.bytes, self.inodes)
    }
}

/// What users, groups and projects use.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: BTreeMap<u32, Sum>,
    groups: BTreeMap<u32, Sum>,
    projects: BTreeMap<u32, Sum>,
    /// Of a file with a damaged map nobody knows what it uses, so nothing can be compared.
    is_unknown: bool,
}

impl Owners {
    /// Counts a file with its clusters, if these are known, and `inodes`: itself, and its values in inodes of their own.
    pub(super) fn add(
        &mut self,
        image: &Image<'_>,
        inode: &Inode<'_>,
        clusters: Option<u64>,
        inodes: u64,
    ) {
        if !image.ro_compat(RoCompat::QUOTA) {
            return;
        }
        self.is_unknown |= clusters.is_none();
        let geometry = &image.geometry;
        let cluster = u64::from(geometry.block_size) << geometry.cluster_bits;
        let used = Used { bytes: clusters.unwrap_or(0).saturating_mul(cluster), inodes };
        let is_link = inode.file_type() == Some(FileType::Symlink);
        let is_left_out = is_link && inode.has(InodeFlags::INLINE_DATA);
        let sum = Sum { all: used, links: if is_left_out { used } else { Used::default() } };
        for kind in QuotaKind::ALL {
            let is_on = number_of(image, kind).is_some();
            if let Some(owner) = owner_of(inode, kind).filter(|_| is_on) {
                self.of_mut(kind).entry(owner).or_default().add(sum);
            }
        }
    }

    /// Joins what another worker counted.
    pub(super) fn merge(&mut self, other: Self) {
        self.is_unknown |= other.is_unknown;
        for kind in QuotaKind::ALL {
            for (owner, sum) in other.of(kind) {
                self.of_mut(kind).entry(*owner).or_default().add(*sum);
            }
        }
    }

    const fn of(&self, kind: QuotaKind) -> &BTreeMap<u32, Sum> {
        match kind {
            QuotaKind::User => &self.users,
            QuotaKind::Group => &self.groups,
            QuotaKind::Project => &self.projects,
        }
    }

    const fn of_mut(&mut self, kind: QuotaKind) -> &mut BTreeMap<u32, Sum> {
        match kind {
            QuotaKind::User => &mut self.users,
            QuotaKind::Group => &mut self.groups,
            QuotaKind::Project => &mut self.projects,
        }
    }
}

/// The owner whose quota of a kind an inode counts for; `None` if inodes have no room for one.
fn owner_of(inode: &Inode<'_>, kind: QuotaKind) -> Option<u32> {
    let core = inode.core;
    let join = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
    match kind {
        QuotaKind::User => Some(join(core.uid_high.get(), core.uid.get())),
        QuotaKind::Group => Some(join(core.gid_high.get(), core.gid.get())),
        QuotaKind::Project => {
            let has_room = inode.bytes.len() > extant_format::inode::CORE_BYTES;
            has_room.then(|| inode.extra(PROJECT_AT).unwrap_or(0))
        }
    }
}

/// The quota file of a kind that the superblock names.
fn number_of(image: &Image<'_>, kind: QuotaKind) -> Option<InodeNumber> {
    let raw = &image.raw;
    InodeNumber::new(match kind {
        QuotaKind::User => raw.usr_quota_inum.get(),
        QuotaKind::Group => raw.grp_quota_inum.get(),
        QuotaKind::Project => raw.prj_quota_inum.get(),
    })
}

/// Judges every quota file.
pub(super) fn judge(
    image: &Image<'_>,
    owners: &Owners,
    findings: &mut Findings,
) -> Result<(), DeviceError> {
    if !image.ro_compat(RoCompat::QUOTA) {
        return Ok(());
    }
    for kind in QuotaKind::ALL {
        let Some(inode) = number_of(image, kind) else { continue };
        let Some(file) = QuotaFile::open(image, inode, kind, findings)? else { continue };
        let used = (!owners.is_unknown).then(|| owners.of(kind));
        let is_missed =
            |(owner, sum): (&u32, &Sum)| (sum.without_links() != Used::default()).then_some(*owner);
        let left = used.map(|used| used.iter().filter_map(is_missed).collect());
        let left = left.unwrap_or_default();
        let bits = vec![0; usize_from(file.blocks.div_ceil(8))];
        let mut walk =
            Walk { file: &file, used, left, nodes: bits.clone(), leaves: bits, findings };
        if walk.node(TREE_ROOT, 1)? {
            for owner in walk.left {
                let place = place_of(inode, owner);
                let sum = owners.of(kind).get(&owner).copied().unwrap_or_default();
                let expected = sum.all.to_string();
                walk.findings.add(Rule::QuotaMissing, place, (), expected);
            }
        }
    }
    Ok(())
}

fn place_of(inode: InodeNumber, owner: u32) -> Place {
    Place::inode(inode).name(owner.to_string().as_bytes())
}

/// A quota file whose header is sound.
struct QuotaFile<'a, 'b> {
    image: &'a Image<'b>,
    inode: InodeNumber,
    runs: DirRuns,
    /// Blocks of the tree, the header counted.
    blocks: u32,
}

impl<'a, 'b> QuotaFile<'a, 'b> {
    /// Reads the header; `None` if that is wrong, or what is wrong with the inode was told before.
    fn open(
        image: &'a Image<'b>,
        number: InodeNumber,
        kind: QuotaKind,
        findings: &mut Findings,
    ) -> Result<Option<Self>, DeviceError> {
        let Some(bytes) = image.read_inode(number)? else { return Ok(None) };
        let Some(inode) = Inode::new(number, &bytes) else { return Ok(None) };
        if inode.file_type() != Some(FileType::Regular) || !inode.may_have_map() {
            return Ok(None);
        }
        let mut runs = Runs::default();
        if map::walk(image, &inode, &mut Findings::new(0), &mut runs)?.is_partial {
            return Ok(None);
        }
        let mut file = Self { image, inode: number, runs: runs.0, blocks: 1 };
        let first = file.block(0)?;
        let Ok((header, _)) = RawQuotaHeader::read_from_prefix(&first) else { return Ok(None) };
        file.blocks = header.blocks.get();
        if let Some((found, expected)) = wrong_in(&header, kind, inode.size()) {
            findings.add(Rule::QuotaHeader, Place::inode(number), found, expected);
            return Ok(None);
        }
        Ok(Some(file))
    }

    /// A byte of a block of the tree, which is as large as the file system's or smaller.
    fn place(&self, block: u32, at: usize) -> Place {
        let bits = self.image.geometry.block_bits;
        let byte = u64::from(block) * u64_from(BLOCK_BYTES) + u64_from(at);
        let within = usize_from(low_u32(byte & ((1 << bits) - 1)));
        Place::inode(self.inode).logical(low_u32(byte >> bits)).offset(within)
    }

    /// A block of the tree; a hole has zeros.
    fn block(&self, n: u32) -> Result<[u8; BLOCK_BYTES], DeviceError> {
        let mut bytes = [0; BLOCK_BYTES];
        let bits = self.image.geometry.block_bits;
        let at = u64::from(n) * u64_from(BLOCK_BYTES);
        let (logical, within) = (at >> bits, at & ((1 << bits) - 1));
        let after = self.runs.partition_point(|(first, ..)| u64::from(*first) <= logical);
        let run = after.checked_sub(1).and_then(|n| self.runs.get(n));
        let Some((first, start, len)) = run else { return Ok(bytes) };
        let distance = logical.saturating_sub((*first).into());
        if let Some(block) = start.checked_add(distance).filter(|_| distance < u64::from(*len)) {
            self.image.io.device.read_into((block.get() << bits) + within, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// What is wrong in a header, and what it should be.
fn wrong_in(header: &RawQuotaHeader, kind: QuotaKind, size: u64) -> Option<(Value, Value)> {
    let (blocks, most) = (header.blocks.get(), size.div_ceil(u64_from(BLOCK_BYTES)));
    let bits = |magic: u32| Value::Bits(magic.into());
    if header.magic.get() != kind.magic() {
        return Some((bits(header.magic.get()), bits(kind.magic())));
    }
    if header.version.get() != VERSION {
        return Some(("another version".into(), VERSION.into()));
    }
    if size > LARGEST {
        return Some((size.into(), Value::Nothing));
    }
    if u64::from(blocks) > most {
        return Some((blocks.into(), most.into()));
    }
    let free = [header.free_block.get(), header.free_entry.get()];
    let past = free.into_iter().find(|block| *block >= blocks);
    past.map(|block| (block.into(), Value::Nothing))
}

/// A walk through a tree.
struct Walk<'a, 'b, 'c> {
    file: &'a QuotaFile<'b, 'c>,
    /// What is compared with; `None` if nothing can be.
    used: Option<&'a BTreeMap<u32, Sum>>,
    /// Owners that were not met yet.
    left: BTreeSet<u32>,
    /// Blocks seen, one bit each: inner ones, and those with entries.
    nodes: Vec<u8>,
    leaves: Vec<u8>,
    findings: &'a mut Findings,
}

impl Walk<'_, '_, '_> {
    /// Walks an inner block; whether all below is sound.
    fn node(&mut self, block: u32, depth: u32) -> Result<bool, DeviceError> {
        let bytes = self.file.block(block)?;
        for at in (0..BLOCK_BYTES).step_by(4) {
            let child = le32(&bytes, at).unwrap_or(0);
            if child == 0 {
                continue;
            }
            let is_leaf = depth == TREE_DEPTH;
            let seen = if is_leaf { &mut self.leaves } else { &mut self.nodes };
            let is_outside = child >= self.file.blocks;
            let is_twice = !is_outside && bitmap::test(seen, child);
            if is_outside || is_twice && !is_leaf {
                self.findings.add(Rule::QuotaTree, self.file.place(block, at), child, ());
                return Ok(false);
            }
            bitmap::set(seen, child..child.saturating_add(1));
            if is_leaf && !is_twice {
                self.entries(child)?;
            } else if !is_leaf && !self.node(child, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares the entries of a block, which several identifiers may lead to.
    fn entries(&mut self, block: u32) -> Result<(), DeviceError> {
        let Some(used) = self.used else { return Ok(()) };
        let bytes = self.file.block(block)?;
        let all = bytes.get(size_of::<RawEntriesHeader>()..).unwrap_or_default();
        for bytes in all.chunks_exact(size_of::<RawQuotaEntry>()) {
            let Ok(entry) = RawQuotaEntry::ref_from_bytes(bytes) else { continue };
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let owner = entry.id.get();
            self.left.remove(&owner);
            let found = Used { bytes: entry.bytes.get(), inodes: entry.inodes.get() };
            let sum = used.get(&owner).copied().unwrap_or_default();
            if found != sum.all && found != sum.without_links() {
                let place = place_of(self.file.inode, owner);
                let (found, expected) = (found.to_string(), sum.all.to_string());
                self.findings.add(Rule::QuotaUsage, place, found, expected);
            }
        }
        Ok(())
    }
}

/// Where an inode has its project.
const PROJECT_AT: usize = 0x9C;
/// Bytes of the largest quota file.
const LARGEST: u64 = 1 << 31;
