//! What every new inode starts with.

use extant_format::extent::NodeMut;
use extant_format::inode::{BLOCK_AREA_BYTES, InodeFlags, InodeRecord};
use extant_format::{FileType, Geometry, Incompat, Timestamp};

/// The attributes of a new inode without names, owner, permissions and blocks.
///
/// Source: kernel `fs/ext4/ialloc.c`, `__ext4_new_inode` (M12.11).
pub(crate) fn new_record(geometry: &Geometry, file_type: FileType, now: Timestamp) -> InodeRecord {
    let mapped = matches!(file_type, FileType::Regular | FileType::Directory | FileType::Symlink);
    let mut block = [0; BLOCK_AREA_BYTES];
    let mut flags = InodeFlags::empty();
    if mapped && geometry.incompat.contains(Incompat::EXTENTS) {
        flags |= InodeFlags::EXTENTS;
        NodeMut::init(&mut block, 0);
    }
    InodeRecord {
        mode: file_type.mode_bits(),
        uid: 0,
        gid: 0,
        size: 0,
        links: 0,
        blocks: 0,
        flags,
        file_acl: None,
        generation: 0,
        version: 1,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: (geometry.want_extra_isize >= CREATION_TIME_END).then_some(now),
        dtime: 0,
        projid: 0,
        extra_isize: geometry.want_extra_isize,
        block,
    }
}

/// A record of nothing but a mode.
#[cfg(test)]
pub(crate) fn blank_record(mode: u16) -> InodeRecord {
    let now = Timestamp::default();
    InodeRecord {
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        links: 1,
        blocks: 0,
        flags: InodeFlags::empty(),
        file_acl: None,
        generation: 0,
        version: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: None,
        dtime: 0,
        projid: 0,
        extra_isize: 32,
        block: [0; BLOCK_AREA_BYTES],
    }
}

/// How far the extra fields reach if the time of creation is among them.
const CREATION_TIME_END: u16 = 24;
