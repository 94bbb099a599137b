//! An inode's attributes as they will be stored.

use extant_format::inode::{FileType, InodeFlags, InodeRecord, Timestamp};
use extant_format::PhysicalBlock;

/// The attributes of an inode; a copy of what the inode table holds or will hold.
///
/// Source: kernel `struct inode` and `struct ext4_inode_info`, the parts that `ext4_do_update_inode` stores.
#[derive(Clone, Debug)]
pub(crate) struct InodeCore {
    /// File type and permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) project: u32,
    /// Names that lead here; 1 for a directory with more than the format counts.
    pub(crate) links: u32,
    pub(crate) flags: InodeFlags,
    /// Space in 512-byte units, index and attribute blocks included.
    pub(crate) sectors: u64,
    /// The size to store (`i_disksize`), in bytes.
    pub(crate) disk_size: u64,
    /// The 60 bytes of `i_block`: root of the block map, short link target, device number or inline data.
    pub(crate) block: [u8; 60],
    /// The attribute block, if any.
    pub(crate) file_acl: Option<PhysicalBlock>,
    pub(crate) generation: u32,
    pub(crate) version: u64,
    pub(crate) accessed: Timestamp,
    pub(crate) changed: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) created: Timestamp,
    /// Deletion time, or the next inode on the orphan list.
    pub(crate) dtime: u32,
    /// Bytes beyond the first 128 that the inode uses for fields.
    pub(crate) extra_isize: u16,
}

impl InodeCore {
    /// Regular file, directory, ...
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode)
    }

    /// As the inode table holds it.
    pub(crate) fn from_record(record: &InodeRecord) -> Self {
        Self {
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            project: record.project,
            links: u32::from(record.links),
            flags: record.flags,
            sectors: record.sectors,
            disk_size: record.size,
            block: record.block,
            file_acl: record.file_acl,
            generation: record.generation,
            version: record.version,
            accessed: record.accessed,
            changed: record.changed,
            modified: record.modified,
            created: record.created,
            dtime: record.dtime,
            extra_isize: record.extra_isize,
        }
    }
}
