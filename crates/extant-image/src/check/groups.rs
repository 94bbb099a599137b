//! Descriptors of groups, and the blocks of the file system itself.
//!
//! Source: e2fsprogs `e2fsck/super.c`, `check_super_block`; `e2fsck/pass1.c`, `mark_table_blocks`.

use alloc::vec::Vec;

use extant_format::cast::usize_from;
use extant_format::descriptor::{GroupFlags, lies_inside};
use extant_format::{BlockGroup, Geometry, GroupDescriptor, PhysicalBlock};

use super::finding::{Place, Value};
use super::image::{Group, Image};
use super::report::Findings;
use super::rule::Rule;

/// The groups of the file system, from the descriptors' bytes.
pub(super) fn read(geometry: &Geometry, descriptors: &[u8]) -> Vec<Group> {
    let record = |group| record_of(geometry, descriptors, group);
    let groups = geometry.groups().filter_map(|group| {
        let descriptor = GroupDescriptor::fields(record(group)?, geometry)?;
        let sound = |block: PhysicalBlock, count| {
            block.get() != 0 && lies_inside(geometry, group, block, count)
        };
        Some(Group {
            descriptor,
            has_block_bitmap: sound(descriptor.block_bitmap, 1),
            has_inode_bitmap: sound(descriptor.inode_bitmap, 1),
            has_table: sound(descriptor.inode_table, geometry.itable_blocks()),
        })
    });
    groups.collect()
}

fn record_of<'a>(
    geometry: &Geometry,
    descriptors: &'a [u8],
    group: BlockGroup,
) -> Option<&'a [u8]> {
    let (index, within) = geometry.descriptor_place(group);
    let at = usize_from(index).checked_mul(geometry.block_len())?.checked_add(within)?;
    descriptors.get(at..)?.get(..usize_from(geometry.desc_size))
}

/// Judges every descriptor.
pub(super) fn judge(image: &Image<'_>, descriptors: &[u8], findings: &mut Findings) {
    let geometry = &image.geometry;
    let last = geometry.group_count.saturating_sub(1);
    for (group, found) in geometry.groups().zip(&image.groups) {
        let own = &found.descriptor;
        let at = || Place::group(group);
        if !found.has_block_bitmap {
            findings.add(Rule::BlockBitmapPlace, at(), own.block_bitmap, ());
        }
        if !found.has_inode_bitmap {
            findings.add(Rule::InodeBitmapPlace, at(), own.inode_bitmap, ());
        }
        if !found.has_table {
            findings.add(Rule::InodeTablePlace, at(), own.inode_table, ());
        }
        let record = record_of(geometry, descriptors, group).unwrap_or_default();
        if !GroupDescriptor::verify(record, geometry, group) {
            findings.add(Rule::DescriptorChecksum, at(), (), ());
        }
        let uninit = own.flags.intersects(GroupFlags::INODE_UNINIT | GroupFlags::BLOCK_UNINIT);
        if !geometry.has_gdt_csum() && (uninit || own.itable_unused != 0) {
            findings.add(Rule::UninitWithoutFeature, at(), (), ());
        }
        if group.get() == last && own.flags.contains(GroupFlags::BLOCK_UNINIT) {
            findings.add(Rule::LastGroupUninit, at(), (), ());
        }
        let most = own.free_inodes.min(geometry.inodes_per_group);
        if geometry.has_gdt_csum() && own.itable_unused > most {
            let (found, expected) = (Value::from(own.itable_unused), Value::from(most));
            findings.add(Rule::UnusedInodes, at(), found, expected);
        }
    }
}

/// Claims the blocks of the file system itself, and tells of those that are two things at once.
pub(super) fn claim(image: &mut Image<'_>, findings: &mut Findings) {
    let geometry = image.geometry;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for group in geometry.groups() {
        let first = geometry.first_block_of(group).get();
        let mut len = u64::from(geometry.base_meta_blocks(group));
        // The boot block is counted where it lies in the group.
        len = len.min(geometry.blocks_in(group).into());
        if len > 0 {
            runs.push((first, first.saturating_add(len)));
        }
    }
    let mmp = image.raw.mmp_block.get();
    if image.incompat(extant_format::Incompat::MMP) && image.has_blocks(PhysicalBlock::new(mmp), 1)
    {
        runs.push((mmp, mmp.saturating_add(1)));
    }
    runs.sort_unstable();
    let mut parts: Vec<Part> = Vec::new();
    for (group, found) in geometry.groups().zip(&image.groups) {
        let own = &found.descriptor;
        let table_len = u64::from(geometry.itable_blocks());
        for (kind, has, start, len) in [
            (0, found.has_table, own.inode_table, table_len),
            (1, found.has_block_bitmap, own.block_bitmap, 1),
            (2, found.has_inode_bitmap, own.inode_bitmap, 1),
        ] {
            if has {
                let (start, end) = (start.get(), start.get().saturating_add(len));
                parts.push(Part { start, end, group, kind });
            }
        }
    }
    tell_conflicts(&runs, &mut parts, findings);
    runs.extend(parts.iter().map(|part| (part.start, part.end)));
    runs.sort_unstable();
    image.metadata = merged(&runs);
    for (start, end) in &image.metadata {
        image.usage.claim_again(PhysicalBlock::new(*start), end.saturating_sub(*start));
    }
}

/// A table or a bitmap of a group.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Part {
    start: u64,
    end: u64,
    group: BlockGroup,
    /// Table, block bitmap, inode bitmap.
    kind: u8,
}

/// Tells of bitmaps and tables that lie on fixed blocks or on each other; of two, the one of the later group, and of one
/// group the bitmap.
fn tell_conflicts(fixed: &[(u64, u64)], parts: &mut [Part], findings: &mut Findings) {
    parts.sort_unstable();
    let mut longest: Option<Part> = None;
    for part in parts.iter().copied() {
        let first = fixed.partition_point(|(_, end)| *end <= part.start);
        let on_fixed = fixed.get(first).is_some_and(|(from, _)| *from < part.end);
        let before = longest.filter(|before| part.start < before.end);
        let guilty = match before {
            Some(before) if (before.group, before.kind) > (part.group, part.kind) => Some(before),
            Some(_) => Some(part),
            None => on_fixed.then_some(part),
        };
        if let Some(guilty) = guilty {
            let rule = match guilty.kind {
                0 => Rule::InodeTableConflict,
                1 => Rule::BlockBitmapConflict,
                _ => Rule::InodeBitmapConflict,
            };
            let place = Place::group(guilty.group).block(PhysicalBlock::new(guilty.start));
            findings.add(rule, place, (), ());
        }
        if longest.is_none_or(|before| part.end > before.end) {
            longest = Some(part);
        }
    }
}

/// Runs in order, joined where they touch or overlap.
fn merged(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for &(start, end) in runs {
        match all.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => all.push((start, end)),
        }
    }
    all
}
