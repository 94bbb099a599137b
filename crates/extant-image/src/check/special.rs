//! Inodes of the file system itself: reserved ones, the journal, quota files, the orphan file, and the list of orphans.
//!
//! Source: e2fsprogs `e2fsck/pass1.c`, `e2fsck_pass1`; `e2fsck/super.c`, `check_resize_inode`, `release_orphan_inodes`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_format::cast::usize_from;
use extant_format::inode::seed_of;
use extant_format::{
    Compat, FileType, InodeFlags, InodeNumber, PhysicalBlock, RoCompat, indirect, orphan,
};

use super::finding::Place;
use super::image::{Image, Inode, le32};
use super::map::{self, Runs};
use super::report::Findings;
use super::rule::Rule;

/// What an inode of the file system itself is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// The list of bad blocks.
    BadBlocks,
    /// The root directory.
    Root,
    /// A quota file.
    Quota,
    /// The boot loader.
    BootLoader,
    /// Owner of the reserved descriptor blocks.
    Resize,
    /// The journal.
    Journal,
    /// The orphan file.
    OrphanFile,
    /// Reserved, for nothing that is in use.
    Unused,
}

/// The role of an inode; `None` of one that is a user's.
pub(super) fn role(image: &Image<'_>, number: u32) -> Option<Role> {
    let raw = &image.raw;
    Some(match number {
        1 => Role::BadBlocks,
        2 => Role::Root,
        3 | 4 => Role::Quota,
        5 => Role::BootLoader,
        7 => Role::Resize,
        8 => Role::Journal,
        _ if number == raw.orphan_file_inum.get() => Role::OrphanFile,
        _ if image.ro_compat(RoCompat::QUOTA) && image.is_quota(number) => Role::Quota,
        _ if number < image.geometry.first_inode => Role::Unused,
        _ => return None,
    })
}

/// Judges what only such an inode has to be.
pub(super) fn judge(image: &Image<'_>, inode: &Inode<'_>, role: Role, findings: &mut Findings) {
    let at = || Place::inode(inode.number);
    let kind = inode.file_type();
    let is_regular = kind == Some(FileType::Regular);
    let first_pointer = le32(&inode.core.block, 0).unwrap_or(0);
    let in_use =
        inode.links() != 0 || inode.stored_blocks(&image.geometry) != 0 || first_pointer != 0;
    let mut file = |is_on: bool, wrong_mode: Rule, not_clear: Rule| {
        if is_on && !is_regular {
            findings.add(wrong_mode, at(), inode.mode(), ());
        } else if !is_on && in_use {
            findings.add(not_clear, at(), (), ());
        }
    };
    match role {
        Role::Root => {
            if kind != Some(FileType::Directory) {
                findings.add(Rule::RootNotDirectory, at(), inode.mode(), ());
            }
            if inode.core.dtime.get() != 0 && inode.links() != 0 {
                findings.add(Rule::RootDeleted, at(), inode.core.dtime.get(), 0_u32);
            }
        }
        Role::Journal => {
            let is_on = image.raw.journal_inum.get() == inode.number.get();
            file(is_on, Rule::JournalMode, Rule::JournalNotClear);
        }
        Role::Quota => {
            let is_on = image.ro_compat(RoCompat::QUOTA) && image.is_quota(inode.number.get());
            file(is_on, Rule::QuotaMode, Rule::QuotaNotClear);
        }
        Role::OrphanFile => {
            let is_on = image.compat(Compat::ORPHAN_FILE);
            file(is_on, Rule::OrphanFileMode, Rule::OrphanFileNotClear);
        }
        Role::BadBlocks => {
            let core = inode.core;
            let is_odd = inode.mode() != 0
                || core.uid.get() != 0
                || core.gid.get() != 0
                || inode.links() != 0
                || inode.has(InodeFlags::INLINE_DATA)
                || inode.attribute_block(&image.geometry).get() != 0;
            if is_odd {
                findings.add(Rule::BadBlocksInode, at(), (), ());
            }
        }
        Role::BootLoader | Role::Resize | Role::Unused => {
            let is_sound = match role {
                Role::BootLoader => kind != Some(FileType::Directory),
                Role::Resize => inode.mode() == 0 || is_regular,
                _ => inode.mode() == 0,
            };
            if !is_sound {
                findings.add(Rule::ReservedMode, at(), inode.mode(), ());
            }
        }
    }
}

/// Judges whether the resize inode holds the reserved descriptor blocks and their copies, and nothing else.
pub(super) fn judge_resize(image: &Image<'_>, findings: &mut Findings) -> Result<(), DeviceError> {
    let number = InodeNumber::RESIZE;
    let Some(bytes) = image.read_inode(number)? else { return Ok(()) };
    let Some(inode) = Inode::new(number, &bytes) else { return Ok(()) };
    let area = &inode.core.block;
    if !image.compat(Compat::RESIZE_INODE) {
        if area.iter().any(|byte| *byte != 0) {
            findings.add(Rule::ResizeNotClear, Place::inode(number), (), ());
        }
        return Ok(());
    }
    let others = (0..15).filter(|slot| *slot != DOUBLE);
    let only_double = others.into_iter().all(|slot| indirect::pointer(area, slot).is_none());
    let top = indirect::pointer(area, DOUBLE).filter(|block| image.has_blocks(*block, 1));
    let is_file = inode.links() != 0 && inode.file_type() == Some(FileType::Regular);
    let sound = match top {
        Some(top) if only_double && is_file => holds_reserved(image, top)?,
        _ => false,
    };
    if !sound {
        findings.add(Rule::ResizeInode, Place::inode(number), (), ());
    }
    Ok(())
}

/// Whether the double indirect block `top` leads to each reserved block, and that to its copies.
fn holds_reserved(image: &Image<'_>, top: PhysicalBlock) -> Result<bool, DeviceError> {
    let geometry = &image.geometry;
    let per_block = geometry.block_size >> 2;
    let pointers = image.io.block(top)?;
    for n in 0..geometry.reserved_gdt_blocks {
        let slot = geometry.desc_blocks.saturating_add(n) % per_block;
        let last = geometry.descriptor_block(0).get().saturating_add(geometry.desc_blocks.into());
        let block = PhysicalBlock::new(last.saturating_add(n.into()));
        if indirect::pointer(&pointers, slot) != Some(block) || !geometry.has_block(block) {
            return Ok(false);
        }
        let copies = image.io.block(block)?;
        let groups = geometry.groups().skip(1).filter(|group| geometry.has_super(*group));
        for (slot, group) in (0..).zip(groups) {
            let start = u64::from(group.get()).saturating_mul(geometry.blocks_per_group.into());
            if indirect::pointer(&copies, slot) != block.checked_add(start) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Inodes that the list of orphans or the orphan file names, in order.
pub(super) fn orphans(image: &Image<'_>, findings: &mut Findings) -> Result<Vec<u32>, DeviceError> {
    let mut found = BTreeSet::new();
    let may =
        |number: u32| number >= image.geometry.first_inode && number <= image.geometry.inodes_count;
    let mut next = image.raw.last_orphan.get();
    while next != 0 {
        let is_head = found.is_empty();
        let rule = if is_head { Rule::OrphanHead } else { Rule::OrphanList };
        let number = InodeNumber::new(next).filter(|_| may(next));
        let Some(number) = number.filter(|_| found.insert(next)) else {
            findings.add(rule, Place::superblock(), next, ());
            break;
        };
        let Some(bytes) = image.read_inode(number)? else { break };
        let Some(inode) = Inode::new(number, &bytes) else { break };
        next = inode.core.dtime.get();
    }
    if image.compat(Compat::ORPHAN_FILE) {
        orphan_file(image, &mut found, findings)?;
    }
    Ok(found.into_iter().collect())
}

fn orphan_file(
    image: &Image<'_>,
    found: &mut BTreeSet<u32>,
    findings: &mut Findings,
) -> Result<(), DeviceError> {
    let Some(number) = InodeNumber::new(image.raw.orphan_file_inum.get()) else { return Ok(()) };
    let Some(bytes) = image.read_inode(number)? else { return Ok(()) };
    let Some(inode) = Inode::new(number, &bytes) else { return Ok(()) };
    let geometry = &image.geometry;
    let place = || Place::inode(number);
    if !inode.size().is_multiple_of(geometry.block_size.into()) {
        findings.add(Rule::OrphanFileSize, place(), inode.size(), ());
        return Ok(());
    }
    if inode.file_type() != Some(FileType::Regular) {
        return Ok(());
    }
    let blocks = u32::try_from(inode.size() >> geometry.block_bits).unwrap_or(u32::MAX);
    let mut runs = Runs::default();
    map::walk(image, &inode, &mut Findings::new(0), &mut runs)?;
    let whole = map::whole(&runs.0, blocks.min(orphan::MAX_BLOCKS));
    let Some(whole) = whole else {
        findings.add(Rule::OrphanFileHole, place(), (), ());
        return Ok(());
    };
    let seed = seed_of(&bytes, geometry, number);
    for block in whole {
        let bytes = image.io.block(block)?;
        let at = extant_format::Place::InodeBlock(number, block);
        if let Err(broken) = orphan::check(&bytes, at, geometry, seed, block) {
            let rule = match broken.rule {
                extant_format::Rule::Checksum => Rule::OrphanFileChecksum,
                _ => Rule::OrphanFileMagic,
            };
            findings.add(rule, place().block(block), (), ());
            continue;
        }
        for (slot, named) in orphan::used_slots(&bytes, geometry) {
            if named.get() < geometry.first_inode || named.get() > geometry.inodes_count {
                let at = place().block(block).offset(usize_from(slot).saturating_mul(4));
                findings.add(Rule::OrphanFileEntry, at, named, ());
            } else {
                found.insert(named.get());
            }
        }
    }
    Ok(())
}

/// The pointer to a double indirect block.
const DOUBLE: u32 = 13;
