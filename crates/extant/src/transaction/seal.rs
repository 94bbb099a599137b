//! Checksums that cover a whole block: verified when it is read, set when its transaction is sealed.
//!
//! Source: kernel, the `_csum_verify` and `_csum_set` pairs that `spec` section "checksum" of each structure names.

use alloc::vec::Vec;

use extant_format::corruption::{Place, Rule};
use extant_format::directory::DirLayout;
use extant_format::inode::InodeFlags;
use extant_format::{
    BlockGroup, Geometry, GroupDescriptor, PhysicalBlock, RawSuperblock, bitmap, extent, htree,
    orphan, xattr,
};
use zerocopy::FromBytes;

use super::block::{BlockKind, MetadataBlock};
use super::cache::MetadataCache;
use crate::Error;

/// Checks what can be checked of a block's bytes without knowing any other block.
///
/// Bitmaps are not checked here: their sums are in the descriptors, which `allocator` holds.
pub(super) fn verify(
    bytes: &[u8],
    number: PhysicalBlock,
    kind: BlockKind,
    geometry: &Geometry,
) -> Result<(), Error> {
    if !geometry.has_metadata_csum() {
        return Ok(());
    }
    let holds = match kind {
        BlockKind::ExtentNode(seed) => extent::verify_block_checksum(bytes, seed),
        BlockKind::Directory(seed) => htree::verify_checksum(bytes, any_directory(geometry), seed),
        BlockKind::OrphanFile(seed) => {
            orphan::check(bytes, Place::Block(number), geometry, seed, number)?;
            true
        }
        BlockKind::Attributes => xattr::verify_checksum(bytes, geometry, number),
        BlockKind::Superblock => {
            let raw = bytes.get(geometry.superblock_offset()..);
            raw.and_then(|raw| RawSuperblock::ref_from_prefix(raw).ok())
                .is_some_and(|(raw, _)| raw.checksum.get() == raw.computed_checksum())
        }
        BlockKind::Plain
        | BlockKind::Descriptors(_)
        | BlockKind::BlockBitmap(_)
        | BlockKind::InodeBitmap(_)
        | BlockKind::InodeTable => true,
    };
    Ok(Place::Block(number).require(holds, Rule::Checksum)?)
}

/// Sets every checksum of `blocks`, which no handle can change meanwhile: bitmaps first, since their sums go into
/// descriptors, then the rest. Descriptors carry their own sums, set by whoever changes one.
pub(super) fn seal(blocks: &[MetadataBlock], cache: &MetadataCache, geometry: &Geometry) {
    if !geometry.has_metadata_csum() {
        return;
    }
    let mut sums: Vec<(BlockGroup, Sum)> = Vec::new();
    for block in blocks {
        match block.kind() {
            BlockKind::BlockBitmap(group) => {
                sums.push((
                    group,
                    Sum::Blocks(block.with(|bits| bitmap::block_bitmap_csum(geometry, bits))),
                ));
            }
            BlockKind::InodeBitmap(group) => {
                sums.push((
                    group,
                    Sum::Inodes(block.with(|bits| bitmap::inode_bitmap_csum(geometry, bits))),
                ));
            }
            _ => seal_alone(block, geometry),
        }
    }
    for (group, sum) in sums {
        let (index, offset) = geometry.descriptor_place(group);
        // Whoever changes a bitmap changes its counts as well, so the descriptor is part of the same transaction.
        let Some(descriptors) = cache.find(geometry.descriptor_block(index)) else { continue };
        descriptors.change_when_sealed(|bytes| {
            let Some(bytes) = bytes.get_mut(offset..) else { return };
            let Ok(mut descriptor) = GroupDescriptor::decode(bytes, geometry, group) else {
                return;
            };
            match sum {
                Sum::Blocks(sum) => descriptor.block_bitmap_csum = sum,
                Sum::Inodes(sum) => descriptor.inode_bitmap_csum = sum,
            }
            descriptor.encode(bytes, geometry, group);
        });
    }
}

enum Sum {
    Blocks(u32),
    Inodes(u32),
}

fn seal_alone(block: &MetadataBlock, geometry: &Geometry) {
    let number = block.number();
    let kind = block.kind();
    block.change_when_sealed(|bytes| match kind {
        BlockKind::Superblock => seal_superblock(bytes, geometry),
        BlockKind::ExtentNode(seed) => extent::set_block_checksum(bytes, seed),
        BlockKind::Directory(seed) => htree::set_checksum(bytes, any_directory(geometry), seed),
        BlockKind::OrphanFile(seed) => orphan::set_checksum(bytes, seed, number),
        BlockKind::Attributes => xattr::set_checksum(bytes, geometry, number),
        BlockKind::Plain
        | BlockKind::Descriptors(_)
        | BlockKind::BlockBitmap(_)
        | BlockKind::InodeBitmap(_)
        | BlockKind::InodeTable => {}
    });
}

fn seal_superblock(bytes: &mut [u8], geometry: &Geometry) {
    let Some(bytes) = bytes.get_mut(geometry.superblock_offset()..) else { return };
    if let Ok((raw, _)) = RawSuperblock::mut_from_prefix(bytes) {
        raw.set_checksum();
    }
}

/// How the blocks of any directory of the volume look, as far as their checksums go.
fn any_directory(geometry: &Geometry) -> DirLayout {
    DirLayout::of(geometry, InodeFlags::empty())
}
