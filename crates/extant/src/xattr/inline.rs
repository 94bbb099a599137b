//! The bytes of small files and directories that lie in the inode: 60 in `i_block`, the rest in `system.data`.
//!
//! The head is `InodeRecord::block`, the tail is in the inode's table block only; both change under `attributes_lock`.
//!
//! # Source
//! Kernel `fs/ext4/inline.c`: `ext4_prepare_inline_data`, `ext4_write_inline_data`, `ext4_destroy_inline_data_nolock`.

use alloc::vec::Vec;

use extant_format::corruption::Place;
use extant_format::extent::NodeMut;
use extant_format::inline::{self, InlineData};
use extant_format::inode::{BLOCK_AREA_BYTES, InodeFlags};
use extant_format::xattr::{NameIndex, XattrMut};
use extant_format::{FileType, Incompat};

use super::Xattrs;
use crate::Error;
use crate::inode::Inode;
use crate::sync::{Rank, assert_held_shared};
use crate::transaction::Handle;

impl Xattrs {
    /// How many bytes of its contents the inode could hold; 0 if none.
    ///
    /// Source: kernel `ext4_get_max_inline_size` (D6).
    pub(crate) fn inline_capacity(&self, inode: &Inode) -> Result<usize, Error> {
        let _attributes = inode.attributes_lock.read();
        let (extra, at) = shape(inode);
        Ok(self
            .inodes
            .with_raw(inode, |raw| inline::capacity(raw, extra, at, self.geometry()))??)
    }

    /// The contents of an inline file: as many bytes as the inode has room for now, whatever the size says.
    pub(crate) fn read_inline(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let _attributes = inode.attributes_lock.read();
        let (extra, at) = shape(inode);
        let mut bytes = inode.core.lock().block.to_vec();
        self.inodes.with_raw(inode, |raw| {
            InlineData::of(raw, extra, at, self.geometry()).map(|data| bytes.extend(data.tail))
        })??;
        Ok(bytes)
    }

    /// Overwrites inline bytes from `offset` on, and stores the inode.
    ///
    /// # Errors
    /// [`Error::TooLarge`] past the room that [`Self::make_inline`] has made.
    pub(crate) fn write_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let _attributes = inode.attributes_lock.write();
        let (extra, at) = shape(inode);
        let head = bytes.len().min(BLOCK_AREA_BYTES.saturating_sub(offset));
        let (head, tail) = bytes.split_at(head);
        if !tail.is_empty() {
            let start = offset.max(BLOCK_AREA_BYTES) - BLOCK_AREA_BYTES;
            self.inodes.modify_raw(handle, inode, |raw| {
                let room = inline::tail_mut(raw, extra, at, self.geometry())?;
                let room = room
                    .get_mut(start..)
                    .and_then(|room| room.get_mut(..tail.len()))
                    .ok_or(Error::TooLarge)?;
                room.copy_from_slice(tail);
                Ok::<_, Error>(())
            })??;
        }
        if !head.is_empty() {
            inode.core.lock().block[offset..offset + head.len()].copy_from_slice(head);
        }
        self.inodes.store(handle, inode)
    }

    /// Makes room for `len` inline bytes, which keep their values or are zero; `false`, and nothing changed, if there is not
    /// so much. An inode without inline data must have no blocks.
    ///
    /// Source: kernel `ext4_prepare_inline_data`.
    pub(crate) fn make_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        len: usize,
    ) -> Result<bool, Error> {
        let _attributes = inode.attributes_lock.write();
        let (extra, at) = shape(inode);
        let is_inline = inode.flags().contains(InodeFlags::INLINE_DATA);
        let geometry = self.geometry();
        let (capacity, room) = self.inodes.with_raw(inode, |raw| {
            let room = if is_inline { InlineData::of(raw, extra, at, geometry)?.len() } else { 0 };
            Ok::<_, Error>((inline::capacity(raw, extra, at, geometry)?, room))
        })??;
        if len > capacity {
            return Ok(false);
        }
        if len.max(BLOCK_AREA_BYTES) > room {
            let fits = self
                .inodes
                .modify_raw(handle, inode, |raw| inline::resize(raw, extra, len, at, geometry))??;
            if !fits {
                return Ok(false);
            }
        }
        if !is_inline {
            let _map = inode.map.write();
            let mut core = inode.core.lock();
            core.block = [0; BLOCK_AREA_BYTES];
            core.flags = (core.flags | InodeFlags::INLINE_DATA) - InodeFlags::EXTENTS;
        }
        self.inodes.store(handle, inode)?;
        Ok(true)
    }

    /// Makes an inline inode one without blocks; its contents are gone.
    ///
    /// Source: kernel `ext4_destroy_inline_data_nolock`.
    pub(crate) fn drop_inline(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        let _attributes = inode.attributes_lock.write();
        let (extra, at) = shape(inode);
        self.inodes.modify_raw(handle, inode, |raw| {
            let area = XattrMut::in_inode(raw, extra, at, self.geometry())?;
            Ok::<_, Error>(area.map(|mut area| area.remove(NameIndex::SYSTEM, inline::NAME)))
        })??;
        {
            let _map = inode.map.write();
            let mut core = inode.core.lock();
            core.block = [0; BLOCK_AREA_BYTES];
            core.flags -= InodeFlags::INLINE_DATA;
            let mapped = matches!(
                core.file_type(),
                Some(FileType::Regular | FileType::Directory | FileType::Symlink)
            );
            if mapped && self.geometry().incompat.contains(Incompat::EXTENTS) {
                core.flags |= InodeFlags::EXTENTS;
                NodeMut::init(&mut core.block, 0);
            }
        }
        self.inodes.store(handle, inode)
    }
}

fn shape(inode: &Inode) -> (u16, Place) {
    assert_held_shared(Rank::Attributes);
    (inode.core.lock().extra_isize, Place::Inode(inode.number()))
}
