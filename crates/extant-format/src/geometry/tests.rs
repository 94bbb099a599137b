use super::*;
use crate::superblock::{CRC32C, Superblock};

/// A sound superblock of `blocks` blocks, changed by `change`.
pub(crate) fn raw(
    block_bits: u32,
    blocks: u64,
    change: impl FnOnce(&mut RawSuperblock),
) -> RawSuperblock {
    let mut raw = RawSuperblock::blank();
    raw.log_block_size = (block_bits - 10).into();
    raw.log_cluster_size = raw.log_block_size;
    raw.blocks_per_group = (8 << block_bits).into();
    raw.clusters_per_group = raw.blocks_per_group;
    raw.first_data_block = u32::from(block_bits == 10).into();
    raw.inodes_per_group = 1024.into();
    raw.set_blocks_count(blocks);
    raw.inode_size = 256.into();
    raw.first_ino = 11.into();
    raw.checksum_type = CRC32C;
    raw.desc_size = 64.into();
    raw.feature_ro_compat =
        (RoCompat::METADATA_CSUM | RoCompat::SPARSE_SUPER | RoCompat::HUGE_FILE).bits().into();
    raw.feature_incompat = (Incompat::EXTENTS | Incompat::BIT64).bits().into();
    change(&mut raw);
    let groups = (raw.blocks_count() - u64::from(raw.first_data_block.get()))
        .div_ceil(raw.blocks_per_group.get().into());
    raw.inodes_count =
        u32::try_from(groups).unwrap().saturating_mul(raw.inodes_per_group.get()).into();
    raw.set_checksum();
    raw
}

pub(crate) fn geometry(
    block_bits: u32,
    blocks: u64,
    change: impl FnOnce(&mut RawSuperblock),
) -> Geometry {
    *Superblock::try_from(&raw(block_bits, blocks, change)).unwrap().geometry()
}

pub(crate) fn with_block_bits(block_bits: u32) -> Geometry {
    geometry(block_bits, 100_000, |_| ())
}

fn meta_bg(raw: &mut RawSuperblock) {
    raw.feature_incompat = (raw.incompat() | Incompat::META_BG).bits().into();
}

#[test]
fn sparse_copies_are_in_group_1_and_powers_of_3_5_7() {
    let geometry = geometry(10, 8192 * 400, |_| ());
    let copies: Vec<u32> =
        geometry.groups().filter(|&group| geometry.has_super(group)).map(BlockGroup::get).collect();
    assert_eq!(copies, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
}

#[test]
fn sparse_super2_names_its_copies() {
    let geometry = geometry(10, 8192 * 40, |raw| {
        raw.feature_compat = Compat::SPARSE_SUPER2.bits().into();
        raw.backup_bgs = [1.into(), 39.into()];
    });
    let copies: Vec<u32> =
        geometry.groups().filter(|&group| geometry.has_super(group)).map(BlockGroup::get).collect();
    assert_eq!(copies, [0, 1, 39]);
}

#[test]
fn without_sparse_super_every_group_has_a_copy() {
    let geometry = geometry(10, 8192 * 9, |raw| raw.feature_ro_compat = 0.into());
    assert!(geometry.groups().all(|group| geometry.has_super(group)));
}

#[test]
fn a_full_table_follows_each_copy() {
    let geometry = geometry(12, 32768 * 130, |raw| raw.reserved_gdt_blocks = 1000.into());
    assert_eq!((geometry.desc_blocks, geometry.full_table_blocks()), (3, 3));
    assert_eq!(geometry.descriptor_block(2), PhysicalBlock::new(3));
    assert_eq!(
        geometry.descriptor_block_copy(2, BlockGroup(3)),
        Some(PhysicalBlock::new(3 * 32768 + 3))
    );
    assert_eq!(geometry.descriptor_block_copy(2, BlockGroup(2)), None);
    assert_eq!(geometry.base_meta_blocks(BlockGroup(0)), 1004);
    assert_eq!(geometry.base_meta_blocks(BlockGroup(2)), 0);
    assert_eq!(geometry.descriptor_place(BlockGroup(65)), (1, 64));
}

#[test]
fn meta_bg_scatters_the_table() {
    let geometry = geometry(12, 32768 * 130, meta_bg);
    assert_eq!(geometry.descriptor_block(0), PhysicalBlock::new(1));
    assert_eq!(geometry.descriptor_block(1), PhysicalBlock::new(64 * 32768));
    assert_eq!(
        geometry.descriptor_block_copy(1, BlockGroup(65)),
        Some(PhysicalBlock::new(65 * 32768))
    );
    assert_eq!(
        geometry.descriptor_block_copy(1, BlockGroup(127)),
        Some(PhysicalBlock::new(127 * 32768))
    );
    assert_eq!(geometry.descriptor_block_copy(1, BlockGroup(66)), None);
    assert_eq!(geometry.base_meta_blocks(BlockGroup(0)), 2);
    assert_eq!(geometry.base_meta_blocks(BlockGroup(66)), 0);
    assert_eq!(geometry.base_meta_blocks(BlockGroup(81)), 1);
    assert_eq!(geometry.base_meta_blocks(BlockGroup(127)), 1);
}

#[test]
fn meta_bg_may_start_late() {
    let geometry = geometry(12, 32768 * 130, |raw| {
        meta_bg(raw);
        raw.first_meta_bg = 1.into();
    });
    assert_eq!(geometry.descriptor_block(0), PhysicalBlock::new(1));
    assert_eq!(geometry.base_meta_blocks(BlockGroup(3)), 2);
    assert_eq!(geometry.descriptor_block(1), PhysicalBlock::new(64 * 32768));
}

#[test]
fn clusters_of_1_kib_blocks_leave_a_boot_block() {
    let geometry = geometry(10, 8192 * 16 * 3, |raw| {
        raw.feature_ro_compat = (raw.ro_compat() | RoCompat::BIGALLOC).bits().into();
        raw.log_cluster_size = 4.into();
        raw.blocks_per_group = (8192 * 16).into();
        raw.clusters_per_group = 8192.into();
        raw.first_data_block = 0.into();
    });
    assert_eq!(geometry.superblock_block(), PhysicalBlock::new(1));
    assert_eq!(geometry.descriptor_block(0), PhysicalBlock::new(2));
    assert_eq!(
        geometry.descriptor_block_copy(0, BlockGroup(1)),
        Some(PhysicalBlock::new(8192 * 16 + 1))
    );
    assert_eq!(geometry.base_meta_blocks(BlockGroup(0)), 3);
    assert_eq!((geometry.cluster_ratio(), geometry.clusters_in(BlockGroup(0))), (16, 8192));
    let block = LogicalBlock::new(37).unwrap();
    assert_eq!((geometry.logical_cluster_of(block).0, geometry.offset_in_cluster(block)), (2, 5));
    assert_eq!(geometry.cluster_of(PhysicalBlock::new(8192 * 16)), Some(PhysicalCluster(8192)));
    assert_eq!(geometry.first_block_of_cluster(PhysicalCluster(3)), PhysicalBlock::new(48));
    assert_eq!(geometry.clusters_for(17), 2);
}

#[test]
fn blocks_and_inodes_have_a_group_and_a_place() {
    let geometry = geometry(10, 8192 * 2 + 101, |_| ());
    assert_eq!(geometry.group_count, 3);
    assert_eq!((geometry.blocks_in(BlockGroup(1)), geometry.blocks_in(BlockGroup(2))), (8192, 100));
    assert_eq!(geometry.place_of(PhysicalBlock::new(0)), None);
    assert_eq!(geometry.place_of(PhysicalBlock::new(8193)), Some((BlockGroup(1), 0)));
    assert_eq!(geometry.place_of(PhysicalBlock::new(8192 * 2 + 101)), None);
    let ino = |n| InodeNumber::new(n).unwrap();
    assert_eq!(geometry.inode_place(ino(1024)), Some((BlockGroup(0), 1023)));
    assert_eq!(geometry.inode_place(ino(1025)), Some((BlockGroup(1), 0)));
    assert_eq!(geometry.inode_place(ino(3073)), None);
    assert_eq!(geometry.inode_at(BlockGroup(2), 1023), Some(ino(3072)));
    assert_eq!(geometry.inode_at(BlockGroup(3), 0), None);
    assert_eq!(geometry.inode_location(PhysicalBlock::new(50), 5), (PhysicalBlock::new(51), 256));
    assert_eq!(geometry.itable_blocks(), 256);
}

#[test]
fn largest_files() {
    let geometry = with_block_bits(12);
    assert_eq!(geometry.max_extent_file_bytes(), 0xFFFF_FFFF << 12);
    let triple = 12 + 1024 + 1024 * 1024 + 1024 * 1024 * 1024;
    assert_eq!(geometry.max_indirect_file_bytes(), triple << 12);
    assert_eq!(geometry.indirect_blocks(12), 0);
    assert_eq!(geometry.indirect_blocks(13), 1);
    assert_eq!(geometry.indirect_blocks(12 + 1024 + 1), 3);
    let short = super::tests::geometry(12, 100_000, |raw| raw.feature_ro_compat = 0.into());
    let blocks = short.max_indirect_file_bytes() >> 12;
    let counted = |blocks| (blocks + short.indirect_blocks(blocks)) * 8;
    assert!(counted(blocks) <= 0xFFFF_FFFF && counted(blocks + 1) > 0xFFFF_FFFF);
}

#[test]
fn without_64bit_descriptors_are_short_whatever_is_stored() {
    let geometry =
        geometry(12, 100_000, |raw| raw.feature_incompat = Incompat::EXTENTS.bits().into());
    assert_eq!((geometry.desc_size, geometry.desc_per_block()), (32, 128));
}
