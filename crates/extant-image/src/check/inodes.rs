//! Every inode: its fields, its map, its attributes; the first and longest pass.
//!
//! A worker takes one group at a time and reads its table in large pieces. Nothing is allocated for an inode but what is
//! remembered of it: 8 bytes, 32 for a directory, and 16 a run of a directory's blocks.
//!
//! Source: e2fsprogs `e2fsck/pass1.c`, `e2fsck_pass1`, `check_blocks`; `e2fsck/pass2.c`, `e2fsck_process_bad_inode`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_device::sync::Mutex;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::inode::{self, seed_of};
use extant_format::{
    BlockGroup, Compat, FileType, Incompat, InodeFlags, InodeNumber, PhysicalBlock, RoCompat,
    inline, xattr::XattrView,
};

use super::attributes::{self, Attributes};
use super::finding::{Place, Value};
use super::image::{EA_INODE, Fact, INDEXED, Image, Inode, UNCOUNTED, le16, le32};
use super::map::{self, Mapped, Sink};
use super::quota::Owners;
use super::report::Findings;
use super::rule::Rule;
use super::special::{self, Role};

/// A directory, for the passes after this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    pub(super) inode: u32,
    /// Seed of its checksums.
    pub(super) seed: u32,
    pub(super) flags: u32,
    /// Where its runs are among those of its worker.
    pub(super) first_run: u32,
    pub(super) runs: u32,
    /// Blocks up to the end of its size.
    pub(super) blocks: u32,
}

/// Some blocks of a directory: of the file, of the device, and how many.
pub(super) type DirRun = (u32, PhysicalBlock, u32);

/// Nodes of maps, by block: a second owner's is not walked.
pub(super) type Nodes = Mutex<BTreeMap<u64, u32>>;

/// What one worker has gathered.
pub(super) struct Worker<'a, 'b> {
    image: &'a Image<'b>,
    nodes: &'a Nodes,
    pub(super) findings: Findings,
    pub(super) facts: Vec<(u32, Box<[Fact]>)>,
    pub(super) directories: Vec<Directory>,
    pub(super) runs: Vec<DirRun>,
    pub(super) attributes: Attributes,
    pub(super) owners: Owners,
    pub(super) has_large_file: bool,
    pub(super) clashed: bool,
    table: Vec<u8>,
}

impl<'a, 'b> Worker<'a, 'b> {
    pub(super) fn new(image: &'a Image<'b>, nodes: &'a Nodes, limit: usize) -> Self {
        Self {
            image,
            nodes,
            findings: Findings::new(limit),
            facts: Vec::new(),
            directories: Vec::new(),
            runs: Vec::new(),
            attributes: Attributes::default(),
            owners: Owners::default(),
            has_large_file: false,
            clashed: false,
            table: Vec::new(),
        }
    }

    /// Looks at every inode of a group.
    pub(super) fn group(&mut self, index: usize) -> Result<(), DeviceError> {
        let mut facts: Vec<Fact> = Vec::new();
        let mut table = core::mem::take(&mut self.table);
        each_inode(self.image, index, &mut table, |n, inode| {
            if let Some(fact) = self.inode(inode)? {
                facts.resize_with(usize_from(n), Fact::default);
                facts.push(fact);
            }
            Ok(())
        })?;
        self.table = table;
        self.facts.push((low_u32(u64_from(index)), facts.into_boxed_slice()));
        Ok(())
    }

    /// Judges one inode; what is to be remembered of it, if it is in use.
    fn inode(&mut self, inode: &Inode<'_>) -> Result<Option<Fact>, DeviceError> {
        let found = self.findings.count();
        let fact = self.judge(inode)?;
        let image = self.image;
        // A wrong checksum alone is told; what is wrong besides explains it.
        if image.geometry.has_metadata_csum() && self.findings.count() == found {
            let seed = seed_of(inode.bytes, &image.geometry, inode.number);
            let blank = || inode.bytes.iter().all(|byte| *byte == 0);
            if !inode::verify_checksum(inode.bytes, seed) && !blank() {
                self.findings.add(Rule::InodeChecksum, Place::inode(inode.number), (), ());
            }
        }
        Ok(fact)
    }

    fn judge(&mut self, inode: &Inode<'_>) -> Result<Option<Fact>, DeviceError> {
        let image = self.image;
        let number = inode.number.get();
        let at = || Place::inode(inode.number);
        let role = special::role(image, number);
        let is_orphan = image.orphans.binary_search(&number).is_ok();
        if role.is_none() && inode.links() == 0 && !is_orphan {
            self.judge_free(inode);
            return Ok(None);
        }
        let mut fact = Fact::new(inode.file_type(), inode.links());
        if let Some(role) = role {
            special::judge(image, inode, role, &mut self.findings);
            let counts = matches!(role, Role::Root);
            if !counts {
                fact.kind |= UNCOUNTED;
            }
            if matches!(role, Role::BadBlocks | Role::Unused) {
                self.check_blocks(inode)?;
                return Ok(Some(fact));
            }
            if !counts {
                self.check_blocks(inode)?;
                return Ok(Some(fact));
            }
            if inode.links() == 0 {
                return Ok(None);
            }
        }
        if inode.core.dtime.get() != 0 && !is_orphan && number != InodeNumber::ROOT.get() {
            let rule = if self.is_low_time(inode) { Rule::StrayOrphan } else { Rule::DeletionTime };
            self.findings.add(rule, at(), inode.core.dtime.get(), 0_u32);
        }
        if is_orphan {
            fact.kind |= UNCOUNTED;
        }
        self.check_fields(inode);
        self.check_flags(inode)?;
        self.check_extra(inode);
        let is_ea = inode.has(InodeFlags::EA_INODE);
        if is_ea {
            fact.kind |= EA_INODE;
            self.attributes.ea_inode(inode);
        }
        if inode.file_type() == Some(FileType::Directory) && inode.has(InodeFlags::INDEX) {
            fact.kind |= INDEXED;
        }
        self.check_type(inode)?;
        self.check_blocks(inode)?;
        Ok(Some(fact))
    }

    /// Judges an inode that is not in use.
    fn judge_free(&mut self, inode: &Inode<'_>) {
        let at = Place::inode(inode.number);
        let dtime = inode.core.dtime.get();
        if dtime != 0 && self.is_low_time(inode) {
            self.findings.add(Rule::StrayOrphan, at, dtime, ());
        } else if dtime == 0 && inode.mode() != 0 {
            self.findings.add(Rule::DeletedWithoutTime, at, 0_u32, ());
        }
    }

    /// Whether a deletion time is the number of an inode, as on an orphan list.
    fn is_low_time(&self, inode: &Inode<'_>) -> bool {
        let raw = &self.image.raw;
        let inodes = self.image.geometry.inodes_count;
        // Images made by a clock that stands near zero have such times rightly.
        let clocks = [raw.wtime.get(), raw.mtime.get(), raw.mkfs_time.get()];
        let early = clocks.iter().any(|time| *time != 0 && *time < inodes);
        inode.core.dtime.get() < inodes && !early
    }

    fn check_fields(&mut self, inode: &Inode<'_>) {
        let image = self.image;
        let core = inode.core;
        let is_directory = inode.file_type() == Some(FileType::Directory);
        let mut require = |holds: bool, rule: Rule, found: u32| {
            if !holds {
                self.findings.add(rule, Place::inode(inode.number), found, Value::Number(0));
            }
        };
        require(core.obsolete_faddr.get() == 0, Rule::FragmentAddress, core.obsolete_faddr.get());
        let high = core.size_high.get();
        let may = !is_directory || image.incompat(Incompat::LARGEDIR);
        require(may || high == 0, Rule::DirectorySizeHigh, high);
        let high = u32::from(core.blocks_high.get());
        require(image.ro_compat(RoCompat::HUGE_FILE) || high == 0, Rule::BlocksHigh, high);
        let high = u32::from(core.file_acl_high.get());
        require(image.incompat(Incompat::BIT64) || high == 0, Rule::AttributeBlockHigh, high);
    }

    fn check_flags(&mut self, inode: &Inode<'_>) -> Result<(), DeviceError> {
        let image = self.image;
        let kind = inode.file_type();
        let is_directory = kind == Some(FileType::Directory);
        let at = || Place::inode(inode.number);
        let bits = Value::Bits(inode.flags().bits().into());
        let mut wrong = |rule: Rule| self.findings.add(rule, at(), bits.clone(), ());
        if inode.flags().bits() & MAGIC_INODE != 0 && !image.compat(Compat::IMAGIC_INODES) {
            wrong(Rule::MagicFlag);
        }
        if inode.has(InodeFlags::CASEFOLD) && !is_directory {
            wrong(Rule::CasefoldNotDirectory);
        } else if inode.has(InodeFlags::CASEFOLD) && !image.incompat(Incompat::CASEFOLD) {
            wrong(Rule::CasefoldWithoutFeature);
        }
        if inode.has(InodeFlags::EA_INODE) && kind != Some(FileType::Regular) {
            wrong(Rule::EaInodeNotRegular);
        }
        let (has_inline, has_extents) =
            (inode.has(InodeFlags::INLINE_DATA), inode.has(InodeFlags::EXTENTS));
        if has_inline && has_extents {
            wrong(Rule::InlineWithExtents);
        } else if has_inline && !image.incompat(Incompat::INLINE_DATA) {
            wrong(Rule::InlineWithoutFeature);
        } else if has_inline && lacks_inline(image, inode) {
            wrong(Rule::InlineWithoutAttribute);
        }
        if has_extents && !image.incompat(Incompat::EXTENTS) {
            wrong(Rule::ExtentsWithoutFeature);
        }
        let mapped = inode.may_have_map() && !has_extents;
        if mapped && image.incompat(Incompat::EXTENTS) && map::looks_like_extents(&inode.core.block)
        {
            wrong(Rule::ExtentsFlagMissing);
        }
        if inode.has(InodeFlags::INDEX) && !is_directory && inode.may_have_map() {
            wrong(Rule::IndexNotDirectory);
        } else if inode.has(InodeFlags::INDEX) && !image.compat(Compat::DIR_INDEX) {
            wrong(Rule::IndexWithoutFeature);
        }
        if inode.has(InodeFlags::ENCRYPT) {
            attributes::check_context(image, inode, &mut self.findings)?;
        }
        Ok(())
    }

    /// The fields beyond the first 128 bytes.
    fn check_extra(&mut self, inode: &Inode<'_>) {
        let room = inode.bytes.len().saturating_sub(inode::CORE_BYTES);
        let size = inode.extra_size();
        if room == 0 {
            return;
        }
        let at = || Place::inode(inode.number);
        if size != 0 && (size < 4 || usize::from(size) > room || !size.is_multiple_of(4)) {
            self.findings.add(Rule::ExtraSize, at(), size, ());
            return;
        }
        self.attributes.in_inode(self.image, inode, &mut self.findings);
        let times = [(8, 0x8C), (12, 0x84), (0x90, 0x94), (16, 0x88)];
        let is_wrong = |(word, extra): (usize, usize)| {
            let epoch = inode.extra(extra).is_some_and(|extra| extra & 3 == 3);
            epoch && le32(inode.bytes, word).is_some_and(|word| word > u32::MAX / 2)
        };
        if times.into_iter().any(is_wrong) {
            self.findings.add(Rule::TimeRange, at(), (), ());
        }
    }

    /// What a type of file may have.
    fn check_type(&mut self, inode: &Inode<'_>) -> Result<(), DeviceError> {
        let at = || Place::inode(inode.number);
        let fixed = InodeFlags::IMMUTABLE | InodeFlags::APPEND;
        match inode.file_type() {
            None => self.findings.add(Rule::BadMode, at(), Value::Bits(inode.mode().into()), ()),
            Some(FileType::Regular | FileType::Directory) => {}
            Some(FileType::Symlink) => {
                let looks_short = inode.is_short_symlink() && !inode.has(InodeFlags::INLINE_DATA);
                if looks_short && inode.has(InodeFlags::EXTENTS) {
                    self.findings.add(Rule::SymlinkExtents, at(), (), ());
                } else if !self.is_sound_symlink(inode)? {
                    self.findings.add(Rule::SymlinkTarget, at(), inode.size(), ());
                }
                if inode.has(fixed) {
                    self.findings.add(Rule::SpecialImmutable, at(), (), ());
                }
            }
            Some(_) => {
                let rest = inode.core.block.get(16..).unwrap_or_default();
                let has_rest = rest.iter().any(|byte| *byte != 0);
                if inode.has(InodeFlags::INDEX | InodeFlags::EXTENTS)
                    || inode.has(fixed) && has_rest
                {
                    self.findings.add(Rule::SpecialFile, at(), (), ());
                } else if inode.has(InodeFlags::INLINE_DATA) {
                    self.findings.add(Rule::SpecialMap, at(), (), ());
                } else if inode.has(fixed) {
                    self.findings.add(Rule::SpecialImmutable, at(), (), ());
                }
                if inode.size() != 0 {
                    self.findings.add(Rule::SpecialSize, at(), inode.size(), 0_u32);
                }
            }
        }
        Ok(())
    }

    fn is_sound_symlink(&self, inode: &Inode<'_>) -> Result<bool, DeviceError> {
        let image = self.image;
        let size = inode.size();
        if size == 0 || inode.core.size_high.get() != 0 || inode.has(InodeFlags::INDEX) {
            return Ok(false);
        }
        if inode.has(InodeFlags::INLINE_DATA) {
            return Ok(inline_size(image, inode) == Some(size));
        }
        let encrypted = inode.has(InodeFlags::ENCRYPT);
        if inode.is_short_symlink() {
            return Ok(target_len(&inode.core.block, encrypted) == Some(size));
        }
        let mut runs = map::Runs::default();
        let mut silent = Findings::new(0);
        map::walk(image, inode, &mut silent, &mut runs)?;
        let [(0, block, 1)] = runs.0[..] else { return Ok(false) };
        let bytes = image.io.block(block)?;
        Ok(runs.1.is_empty() && target_len(&bytes, encrypted) == Some(size))
    }

    /// The map, and what size and count of blocks have to agree with.
    fn check_blocks(&mut self, inode: &Inode<'_>) -> Result<(), DeviceError> {
        let image = self.image;
        let number = inode.number.get();
        let is_directory = inode.file_type() == Some(FileType::Directory);
        let charge = self.attributes.of_inode(image, inode, &mut self.findings)?;
        let first_run = self.runs.len();
        let mut mapped = Mapped::default();
        if inode.may_have_map() {
            let sink = &mut Claims {
                image,
                nodes: self.nodes,
                inode: number,
                runs: is_directory.then_some(&mut self.runs),
                clashed: &mut self.clashed,
            };
            mapped = map::walk(image, inode, &mut self.findings, sink)?;
        }
        let is_general = special::role(image, number).is_none_or(|role| role == Role::Root);
        if is_directory && is_general {
            let size = inode.size() >> image.geometry.block_bits;
            self.directories.push(Directory {
                inode: number,
                seed: seed_of(inode.bytes, &image.geometry, inode.number),
                flags: inode.flags().bits(),
                first_run: low_u32(u64_from(first_run)),
                runs: low_u32(u64_from(self.runs.len().saturating_sub(first_run))),
                blocks: u32::try_from(size).unwrap_or(u32::MAX),
            });
            let has_inline = inode.has(InodeFlags::INLINE_DATA);
            if mapped.end == 0 && !has_inline && !mapped.is_partial {
                self.findings.add(Rule::EmptyDirectory, Place::inode(inode.number), (), ());
            }
        }
        if inode.file_type() == Some(FileType::Regular)
            && inode.size() > i32::MAX.unsigned_abs().into()
        {
            self.has_large_file = true;
        }
        let clusters = mapped.clusters.saturating_add(charge.clusters);
        if !mapped.is_partial {
            self.check_size(inode, &mapped);
            self.check_count(inode, clusters);
        }
        if is_general && !inode.has(InodeFlags::EA_INODE) {
            let known = (!mapped.is_partial).then_some(clusters);
            self.owners.add(image, inode, known, charge.values.saturating_add(1));
        }
        let is_plain = !inode.has(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA);
        let is_file = matches!(inode.file_type(), Some(FileType::Regular | FileType::Directory));
        if image.ro_compat(RoCompat::BIGALLOC)
            && is_plain
            && is_file
            && is_general
            && mapped.clusters > 0
        {
            self.findings.add(Rule::ClusterIndirect, Place::inode(inode.number), (), ());
        }
        Ok(())
    }

    fn check_size(&mut self, inode: &Inode<'_>, mapped: &Mapped) {
        let image = self.image;
        let geometry = &image.geometry;
        let (size, block) = (inode.size(), u64::from(geometry.block_size));
        let at = || Place::inode(inode.number);
        let expected = match inode.file_type() {
            Some(FileType::Symlink) => None,
            Some(FileType::Directory) if inode.has(InodeFlags::INLINE_DATA) => {
                let own = inline_size(image, inode);
                own.filter(|own| *own != size)
            }
            Some(FileType::Directory) => {
                let spare = u64::from(image.raw.prealloc_dir_blocks);
                let blocks = size >> geometry.block_bits;
                let sound = size.is_multiple_of(block)
                    && blocks <= mapped.end
                    && mapped.end - blocks <= spare;
                (!sound).then_some(mapped.end.saturating_mul(block))
            }
            _ => {
                let past =
                    mapped.last_written.is_some_and(|last| size < last.saturating_mul(block));
                let extents = inode.has(InodeFlags::EXTENTS);
                let most = if extents {
                    (1_u64 << (32 + geometry.block_bits)) - 1
                } else {
                    most_indirect(geometry.block_bits)
                };
                let sound = (!past || inode.has(InodeFlags::VERITY)) && size <= most;
                (!sound).then_some(mapped.end.saturating_mul(block))
            }
        };
        if let Some(expected) = expected {
            self.findings.add(Rule::InodeSize, at(), size, expected);
        }
    }

    fn check_count(&mut self, inode: &Inode<'_>, clusters: u64) {
        let geometry = &self.image.geometry;
        let huge = self.image.ro_compat(RoCompat::HUGE_FILE) && inode.has(InodeFlags::HUGE_FILE);
        let blocks = clusters.saturating_mul(geometry.cluster_ratio().into());
        let units = u64::from(geometry.block_size >> 9);
        let expected = if huge { blocks } else { blocks.saturating_mul(units) };
        let found = inode.stored_blocks(geometry);
        if found != expected {
            self.findings.add(Rule::InodeBlocks, Place::inode(inode.number), found, expected);
        }
    }
}

/// Calls `visit` with every inode of a group that may be in use, and its place there; `table` is memory to read into.
pub(super) fn each_inode(
    image: &Image<'_>,
    index: usize,
    table: &mut Vec<u8>,
    mut visit: impl FnMut(u32, &Inode<'_>) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let Some(group) = image.groups.get(index) else { return Ok(()) };
    let count = image.used_part(group);
    let first = image.first_inode_of(BlockGroup(low_u32(u64_from(index))));
    let per_block = image.geometry.inodes_per_block();
    let size = usize_from(image.geometry.inode_size);
    let piece_blocks = (PIECE_BYTES >> image.geometry.block_bits).max(1);
    let blocks = count.div_ceil(per_block);
    let mut at = 0;
    while at < blocks {
        let now = piece_blocks.min(blocks - at);
        table.resize(usize_from(now) << image.geometry.block_bits, 0);
        let start = group.descriptor.inode_table.get().saturating_add(at.into());
        image.io.read(PhysicalBlock::new(start), table)?;
        let before = at.saturating_mul(per_block);
        let left = usize_from(count.saturating_sub(before));
        for (n, bytes) in (before..).zip(table.chunks_exact(size).take(left)) {
            let Some(number) = InodeNumber::new(first.saturating_add(n)) else { continue };
            if !image.is_own_inode(number.get()) && is_blank(bytes) {
                continue;
            }
            if let Some(inode) = Inode::new(number, bytes) {
                visit(n, &inode)?;
            }
        }
        at += now;
    }
    Ok(())
}

/// Claims the blocks of one file, and remembers those of a directory.
struct Claims<'a, 'b> {
    image: &'a Image<'b>,
    nodes: &'a Nodes,
    inode: u32,
    runs: Option<&'a mut Vec<DirRun>>,
    clashed: &'a mut bool,
}

impl Claims<'_, '_> {
    /// The resize inode owns what is the file system's own already.
    fn claim(&self, start: PhysicalBlock, len: u64) {
        let is_resize = self.inode == InodeNumber::RESIZE.get();
        if !(is_resize && self.image.is_metadata(start, len)) {
            self.image.usage.claim(start, len);
        }
    }
}

impl Sink for Claims<'_, '_> {
    fn data(&mut self, logical: u32, start: PhysicalBlock, len: u32, shared: u32) {
        if let Some(rest) = start.checked_add(shared.into()).filter(|_| shared < len) {
            self.claim(rest, (len - shared).into());
        }
        if let Some(runs) = &mut self.runs {
            runs.push((logical, start, len));
        }
    }

    fn node(&mut self, block: PhysicalBlock) -> bool {
        self.claim(block, 1);
        let first = *self.nodes.lock().entry(block.get()).or_insert(self.inode);
        let is_new = first == self.inode && !self.image.usage.is_twice(block, 1);
        *self.clashed |= !is_new;
        is_new
    }
}

/// Bytes of an inode's inline data; `None` if it has none.
pub(super) fn inline_size(image: &Image<'_>, inode: &Inode<'_>) -> Option<u64> {
    let at = extant_format::Place::Inode(inode.number);
    let size = inode.extra_size();
    let data = inline::InlineData::of(inode.bytes, size, at, &image.geometry).ok()?;
    Some(u64_from(data.len()))
}

/// Whether an inode that should have inline data has sound attributes, but not that one.
fn lacks_inline(image: &Image<'_>, inode: &Inode<'_>) -> bool {
    let at = extant_format::Place::Inode(inode.number);
    let view = XattrView::in_inode(inode.bytes, inode.extra_size(), at, &image.geometry);
    let kind = inode.file_type();
    let may = matches!(kind, Some(FileType::Regular | FileType::Directory | FileType::Symlink));
    may && view.is_ok() && inline_size(image, inode).is_none()
}

/// The length of a link's target, or of its encrypted form; `None` if it does not end.
fn target_len(bytes: &[u8], encrypted: bool) -> Option<u64> {
    let len = if encrypted {
        usize::from(le16(bytes, 0)?).checked_add(2)?
    } else {
        bytes.iter().position(|byte| *byte == 0)?
    };
    (len < bytes.len()).then_some(u64_from(len))
}

/// Whether an inode was never used: no mode, no links, no deletion time.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Bytes of the largest file that pointers reach.
fn most_indirect(block_bits: u32) -> u64 {
    let per_block = 1_u64 << (block_bits - 2);
    let blocks =
        (1..=3).fold(12_u64, |sum, level| sum.saturating_add(per_block.saturating_pow(level)));
    blocks.saturating_mul(1 << block_bits)
}

/// Bytes of a table that are read at once.
const PIECE_BYTES: u32 = 1 << 20;
/// The flag of inodes that are looked up by number alone.
const MAGIC_INODE: u32 = 0x2000;

/// Joins what workers have gathered: facts by group, and directories with all runs in one list.
pub(super) fn join_facts(groups: usize, lists: Vec<Vec<(u32, Box<[Fact]>)>>) -> Vec<Box<[Fact]>> {
    let mut facts: Vec<Box<[Fact]>> = vec![];
    facts.resize_with(groups, Box::default);
    for (group, own) in lists.into_iter().flatten() {
        if let Some(place) = facts.get_mut(usize_from(group)) {
            *place = own;
        }
    }
    facts
}
