//! Counters are caches: free counts of an image, recounted from its bitmaps.

use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_format::cast::{u64_from, usize_from};
use extant_format::{BlockGroup, Geometry, GroupDescriptor, Superblock, bitmap};

/// Compares the free counts of a volume that was unmounted with its bitmaps.
///
/// # Errors
/// The first difference, or what cannot be read.
pub fn check(image: &MemoryDevice) -> Result<(), String> {
    let raw = image.read_vec(Superblock::OFFSET_BYTES, 1024).map_err(|error| error.to_string())?;
    let superblock = Superblock::parse(&raw).map_err(|error| error.to_string())?;
    let geometry = superblock.geometry();
    let (mut clusters, mut inodes) = (0, 0);
    for group in geometry.groups() {
        let descriptor = descriptor(image, geometry, group)?;
        clusters += u64::from(descriptor.free_clusters);
        inodes += descriptor.free_inodes;
        let count = |block: extant_format::PhysicalBlock, bits| {
            let bytes = image.read_vec(block.get() << geometry.block_bits, geometry.block_len());
            bytes
                .map(|bytes| bitmap::count_zeros(&bytes, 0..bits))
                .map_err(|error| error.to_string())
        };
        if !descriptor.block_bitmap_is_uninitialized(geometry) {
            let free = count(descriptor.block_bitmap, geometry.clusters_in(group))?;
            same(&format!("{group}: free clusters"), descriptor.free_clusters, free)?;
        }
        if !descriptor.inodes_are_uninitialized(geometry) {
            let free = count(descriptor.inode_bitmap, geometry.inodes_per_group)?;
            same(&format!("{group}: free inodes"), descriptor.free_inodes, free)?;
        }
    }
    let blocks = clusters << geometry.cluster_bits;
    same("superblock: free blocks", superblock.raw().free_blocks_count(), blocks)?;
    same("superblock: free inodes", superblock.raw().free_inodes_count.get(), inodes)
}

fn same<T: PartialEq + std::fmt::Display>(what: &str, stored: T, counted: T) -> Result<(), String> {
    match stored == counted {
        true => Ok(()),
        false => Err(format!("{what}: {stored} stored, {counted} counted")),
    }
}

fn descriptor(
    image: &MemoryDevice,
    geometry: &Geometry,
    group: BlockGroup,
) -> Result<GroupDescriptor, String> {
    let (index, within) = geometry.descriptor_place(group);
    let at = (geometry.descriptor_block(index).get() << geometry.block_bits) + u64_from(within);
    let bytes = image.read_vec(at, usize_from(geometry.desc_size));
    let bytes = bytes.map_err(|error| error.to_string())?;
    GroupDescriptor::decode(&bytes, geometry, group).map_err(|error| error.to_string())
}
