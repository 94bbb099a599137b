//! Structures field by field, by the format's own names.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem::offset_of;

use extant_format::inode::RawInode;
use extant_format::jbd2::RawJournalSuperblock;
use extant_format::superblock::RawSuperblock;

/// A field that differs: its name, and both values in words.
pub type Field = (String, String, String);

/// A name, and where the field begins; it ends where the next begins.
type Named = (&'static str, usize);

macro_rules! fields {
    ($name:ident, $kind:ty: $($field:ident)*) => {
        const $name: &[Named] = &[$((stringify!($field), offset_of!($kind, $field))),*];
    };
}

/// Fields of two superblocks that differ.
pub fn superblocks(left: &[u8], right: &[u8]) -> Vec<Field> {
    compare(SUPERBLOCK, Order::LowFirst, left, right)
}

/// Fields of two journal superblocks that differ.
pub fn journals(left: &[u8], right: &[u8]) -> Vec<Field> {
    compare(JOURNAL, Order::HighFirst, left, right)
}

/// Fields of two descriptors that differ.
pub fn descriptors(left: &[u8], right: &[u8]) -> Vec<Field> {
    compare(DESCRIPTOR, Order::LowFirst, left, right)
}

/// Fields of two inodes that differ, without block map and attributes.
pub fn inodes(left: &[u8], right: &[u8], extra_bytes: usize) -> Vec<Field> {
    let cut =
        |bytes: &[u8]| bytes.get(..128_usize.saturating_add(extra_bytes)).unwrap_or(bytes).to_vec();
    let (left, right) = (cut(left), cut(right));
    let mut found = compare(INODE, Order::LowFirst, &left, &right);
    found.retain(|(name, ..)| name != "block");
    found
}

/// Which byte of a number comes first; the journal's is the high one.
#[derive(Clone, Copy, Debug)]
enum Order {
    LowFirst,
    HighFirst,
}

fn compare(fields: &[Named], order: Order, left: &[u8], right: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    let ends = fields.iter().skip(1).map(|field| field.1).chain([usize::MAX]);
    for ((name, start), end) in fields.iter().zip(ends) {
        let of =
            |bytes: &[u8]| bytes.get(*start..end.min(bytes.len())).unwrap_or_default().to_vec();
        let (a, b) = (of(left), of(right));
        if a != b {
            found.push(((*name).to_string(), value(&a, &b, order), value(&b, &a, order)));
        }
    }
    found
}

/// A field's bytes as a number or a text; of a long one the part around the first difference.
fn value(bytes: &[u8], other: &[u8], order: Order) -> String {
    if bytes.len() <= size_of::<u64>() {
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        return match order {
            Order::LowFirst => bytes.iter().rev().fold(0, append),
            Order::HighFirst => bytes.iter().fold(0, append),
        }
        .to_string();
    }
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let printable = text.iter().all(|byte| (0x20..0x7F).contains(byte));
    if printable && !text.is_empty() && bytes.iter().skip(text.len()).all(|byte| *byte == 0) {
        return format!("\"{}\"", String::from_utf8_lossy(text));
    }
    let first = bytes.iter().zip(other).position(|(a, b)| a != b).unwrap_or(0);
    let (start, shown) = if bytes.len() <= 16 { (0, 16) } else { (first, 16) };
    let part = bytes.get(start..).unwrap_or_default();
    let digits: String = part.iter().take(shown).map(|byte| format!("{byte:02x}")).collect();
    if start == 0 { digits } else { format!("{digits} at +{start}") }
}

fields!(SUPERBLOCK, RawSuperblock: inodes_count blocks_count_lo r_blocks_count_lo free_blocks_count_lo free_inodes_count
    first_data_block log_block_size log_cluster_size blocks_per_group clusters_per_group inodes_per_group mtime wtime mnt_count
    max_mnt_count magic state errors minor_rev_level lastcheck checkinterval creator_os rev_level def_resuid def_resgid first_ino
    inode_size block_group_nr feature_compat feature_incompat feature_ro_compat uuid volume_name last_mounted algorithm_usage_bitmap
    prealloc_blocks prealloc_dir_blocks reserved_gdt_blocks journal_uuid journal_inum journal_dev last_orphan hash_seed
    def_hash_version jnl_backup_type desc_size default_mount_opts first_meta_bg mkfs_time jnl_blocks blocks_count_hi
    r_blocks_count_hi free_blocks_count_hi min_extra_isize want_extra_isize flags raid_stride mmp_interval mmp_block
    raid_stripe_width log_groups_per_flex checksum_type encryption_level reserved_pad kbytes_written snapshot_inum snapshot_id
    snapshot_r_blocks_count snapshot_list error_count first_error_time first_error_ino first_error_block first_error_func
    first_error_line last_error_time last_error_ino last_error_line last_error_block last_error_func mount_opts usr_quota_inum
    grp_quota_inum overhead_clusters backup_bgs encrypt_algos encrypt_pw_salt lpf_ino prj_quota_inum checksum_seed wtime_hi mtime_hi
    mkfs_time_hi lastcheck_hi first_error_time_hi last_error_time_hi first_error_errcode last_error_errcode encoding encoding_flags
    orphan_file_inum def_resuid_hi def_resgid_hi reserved checksum);

fields!(JOURNAL, RawJournalSuperblock: magic block_type header_sequence block_size max_len first sequence start errno feature_compat
    feature_incompat feature_ro_compat uuid nr_users dynsuper max_transaction max_trans_data checksum_type padding2 num_fc_blocks
    head padding checksum users);

fields!(INODE_CORE, RawInode: mode uid size_lo atime ctime mtime dtime gid links_count blocks_lo flags version block generation
    file_acl_lo size_high obsolete_faddr blocks_high file_acl_high uid_high gid_high checksum_lo reserved);

/// The fields that all inodes have, and the extra ones.
const INODE: &[Named] = &{
    let mut all = [("", 0); INODE_CORE.len() + INODE_EXTRA.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] =
            if at < INODE_CORE.len() { INODE_CORE[at] } else { INODE_EXTRA[at - INODE_CORE.len()] };
        at += 1;
    }
    all
};

/// Source: kernel `fs/ext4/ext4.h`, `struct ext4_inode`.
const INODE_EXTRA: &[Named] = &[
    ("extra_isize", 128),
    ("checksum_hi", 130),
    ("ctime_extra", 132),
    ("mtime_extra", 136),
    ("atime_extra", 140),
    ("crtime", 144),
    ("crtime_extra", 148),
    ("version_hi", 152),
    ("projid", 156),
    ("further extra fields", 160),
];

/// Source: kernel `fs/ext4/ext4.h`, `struct ext4_group_desc`.
const DESCRIPTOR: &[Named] = &[
    ("block_bitmap_lo", 0),
    ("inode_bitmap_lo", 4),
    ("inode_table_lo", 8),
    ("free_blocks_count_lo", 12),
    ("free_inodes_count_lo", 14),
    ("used_dirs_count_lo", 16),
    ("flags", 18),
    ("exclude_bitmap_lo", 20),
    ("block_bitmap_csum_lo", 24),
    ("inode_bitmap_csum_lo", 26),
    ("itable_unused_lo", 28),
    ("checksum", 30),
    ("block_bitmap_hi", 32),
    ("inode_bitmap_hi", 36),
    ("inode_table_hi", 40),
    ("free_blocks_count_hi", 44),
    ("free_inodes_count_hi", 46),
    ("used_dirs_count_hi", 48),
    ("itable_unused_hi", 50),
    ("exclude_bitmap_hi", 52),
    ("block_bitmap_csum_hi", 56),
    ("inode_bitmap_csum_hi", 58),
    ("reserved", 60),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_structure_has_a_field() {
        for (fields, len) in [(SUPERBLOCK, 1024), (JOURNAL, 1024), (INODE, 160), (DESCRIPTOR, 64)] {
            assert!(fields.is_sorted_by_key(|field| field.1));
            for at in 0..len {
                let (left, mut right) = (vec![0; len], vec![0; len]);
                right[at] = 1;
                assert_eq!(compare(fields, Order::LowFirst, &left, &right).len(), 1, "{at}");
            }
        }
        let (mut left, right) = (vec![0; 1024], vec![0; 1024]);
        left[0x78..0x7C].copy_from_slice(b"disk");
        left[12] = 7;
        let found = superblocks(&left, &right);
        assert_eq!(found[0], ("free_blocks_count_lo".into(), "7".into(), "0".into()));
        assert_eq!(found[1].1, "\"disk\"");
        let mut journal = vec![0; 1024];
        journal[24..28].copy_from_slice(&204_u32.to_be_bytes());
        let found = journals(&journal, &right);
        assert_eq!(found, [("sequence".into(), "204".into(), "0".into())]);
    }
}
