//! The bytes of small files and directories that lie in the inode: 60 in `i_block`, the rest in `system.data`.
//!
//! The head is `InodeRecord::block`, the tail is in the inode's table block only; both change under `attributes_lock`. The
//! tail can be longer than the file: it is the room that there is.
//!
//! # Source
//! Kernel `fs/ext4/inline.c`: `ext4_prepare_inline_data`, `ext4_write_inline_data`, `ext4_destroy_inline_data_nolock`.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::cast::u64_from;
use extant_format::corruption::Place;
use extant_format::extent::{NodeMut, NodeView};
use extant_format::inline::{self, BLOCK_AREA_AT, InlineData};
use extant_format::inode::{BLOCK_AREA_BYTES, InodeFlags};
use extant_format::xattr::{NameIndex, XattrMut};
use extant_format::{ClusterCount, FileType, Incompat};

use super::InodeTable;
use crate::Error;
use crate::inode::Inode;
use crate::report::Ineligible;
use crate::sync::{Rank, assert_held_shared};
use crate::transaction::{Change, Handle};

impl InodeTable {
    /// How many bytes of its contents the inode may be asked to hold; 0 if none.
    ///
    /// # Source
    /// Kernel `ext4_get_max_inline_size` (D6).
    pub(crate) fn inline_capacity(&self, inode: &Inode) -> Result<usize, Error> {
        let _attributes = inode.attributes_lock.read();
        let (extra, at) = shape(inode);
        Ok(self.with_raw(inode, |raw| inline::capacity(raw, extra, at, self.geometry()))??)
    }

    /// The contents of an inline inode: as many bytes as it has room for now, whatever the size says.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it has none, though its flags say so.
    pub(crate) fn read_inline(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let _attributes = inode.attributes_lock.read();
        self.inline_bytes(inode)
    }

    /// As [`Self::read_inline`], or `None` if the contents are not in the inode, or not any more.
    pub(crate) fn find_inline(&self, inode: &Inode) -> Result<Option<Vec<u8>>, Error> {
        let _attributes = inode.attributes_lock.read();
        inode.is_inline().then(|| self.inline_bytes(inode)).transpose()
    }

    /// Where on the device the contents of an inline inode begin, and how many bytes they have room for; `None` if the
    /// contents are not in the inode. What does not fit the block area is elsewhere in the inode.
    ///
    /// # Source
    /// Kernel `ext4_inline_data_iomap`.
    pub(crate) fn place_of_contents(&self, inode: &Inode) -> Result<Option<(u64, u64)>, Error> {
        let Some(bytes) = self.find_inline(inode)? else { return Ok(None) };
        let (block, offset) = self.location(inode.number())?;
        let start = self.transactions.io().offset(block) + u64_from(offset + BLOCK_AREA_AT);
        Ok(Some((start, u64_from(bytes.len()))))
    }

    fn inline_bytes(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let (extra, at) = shape(inode);
        let mut bytes = inode.core.lock().block.to_vec();
        self.with_raw(inode, |raw| {
            InlineData::of(raw, extra, at, self.geometry()).map(|data| bytes.extend(data.tail))
        })??;
        Ok(bytes)
    }

    /// Overwrites inline bytes from `offset` on.
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
        self.put_inline(handle, inode, offset, bytes)
    }

    fn put_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let (extra, at) = shape(inode);
        let head = bytes.len().min(BLOCK_AREA_BYTES.saturating_sub(offset));
        let (head, tail) = bytes.split_at(head);
        if !tail.is_empty() {
            let start = offset.max(BLOCK_AREA_BYTES) - BLOCK_AREA_BYTES;
            self.modify_raw(handle, inode, |raw| {
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
        self.store_quietly(handle, inode)
    }

    /// Makes room for `len` inline bytes, which keep their values or are zero; `false`, and nothing changed, if the inode may
    /// not hold so much. An inode without inline data must have no blocks.
    ///
    /// # Source
    /// Kernel `ext4_prepare_inline_data`.
    pub(crate) fn make_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        len: usize,
    ) -> Result<bool, Error> {
        let _attributes = inode.attributes_lock.write();
        if !inode.may_inline() {
            return Ok(false);
        }
        let (extra, at) = shape(inode);
        let (is_inline, geometry) = (inode.is_inline(), self.geometry());
        let (capacity, room) = self.with_raw(inode, |raw| {
            let room = if is_inline { InlineData::of(raw, extra, at, geometry)?.len() } else { 0 };
            Ok::<_, Error>((inline::capacity(raw, extra, at, geometry)?, room))
        })??;
        if len > capacity {
            return Ok(false);
        }
        Ok(len.max(BLOCK_AREA_BYTES) <= room || self.take_room(handle, inode, len, has_blocks)?)
    }

    /// Keeps contents out of the inode from now on; `false`, and nothing changed, if it has some.
    pub(crate) fn forbid_inline(&self, inode: &Inode) -> bool {
        let _attributes = inode.attributes_lock.write();
        let forbids = !inode.is_inline();
        if forbids {
            inode.set_may_inline(false);
        }
        forbids
    }

    /// Gives the contents that [`Self::drop_inline`] has taken out back to the inode, which has no blocks; delayed ones it may
    /// have, as what was to move out stays dirty.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if its attributes have grown since.
    /// # Source
    /// Kernel `ext4_restore_inline_data`.
    pub(crate) fn restore_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let _attributes = inode.attributes_lock.write();
        if !self.take_room(handle, inode, bytes.len(), has_extents)? {
            return Err(Error::TooLarge);
        }
        self.put_inline(handle, inode, 0, bytes)
    }

    /// Room for `len` bytes, if there is so much, and the flag that says where they are; not for an inode with blocks, which
    /// a store through a mapping may have made meanwhile. `has_blocks` says which count.
    fn take_room(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        len: usize,
        has_blocks: fn(&Inode) -> bool,
    ) -> Result<bool, Error> {
        let (extra, at) = shape(inode);
        let _map = inode.map.write();
        if !inode.is_inline() && has_blocks(inode) {
            return Ok(false);
        }
        let resize = |raw: &mut [u8]| inline::resize(raw, extra, len, at, self.geometry());
        if !self.modify_raw(handle, inode, resize)?? {
            return Ok(false);
        }
        if !inode.is_inline() {
            let mut core = inode.core.lock();
            core.block = [0; BLOCK_AREA_BYTES];
            core.flags = (core.flags | InodeFlags::INLINE_DATA) - InodeFlags::EXTENTS;
        }
        self.store_quietly(handle, inode)?;
        Ok(true)
    }

    /// Cuts inline contents: the tail ends with `len` at the latest, and what stays in the head behind it is zero. `false` if
    /// the contents are not in the inode any more.
    ///
    /// # Source
    /// Kernel `ext4_inline_data_truncate`.
    pub(crate) fn cut_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        len: usize,
    ) -> Result<bool, Error> {
        let _attributes = inode.attributes_lock.write();
        if !inode.is_inline() {
            return Ok(false);
        }
        let room = self.inline_bytes(inode)?.len();
        if len >= room {
            return Ok(true);
        }
        let (extra, at) = shape(inode);
        if room > BLOCK_AREA_BYTES {
            let resize = |raw: &mut [u8]| inline::resize(raw, extra, len, at, self.geometry());
            self.modify_raw(handle, inode, resize)??;
        }
        let zeros = vec![0; BLOCK_AREA_BYTES.saturating_sub(len)];
        self.put_inline(handle, inode, len, &zeros).map(|()| true)
    }

    /// Makes an inline inode one without blocks, and hands out what its contents were; `None` if they were not in the inode,
    /// or not any more. Either way they are not to be put there again.
    ///
    /// # Source
    /// Kernel `ext4_destroy_inline_data_nolock`.
    pub(crate) fn drop_inline(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
    ) -> Result<Option<Vec<u8>>, Error> {
        let _attributes = inode.attributes_lock.write();
        inode.set_may_inline(false);
        if !inode.is_inline() {
            return Ok(None);
        }
        let bytes = self.inline_bytes(inode)?;
        let (extra, at) = shape(inode);
        if inode.file_type() == FileType::Regular {
            handle.note(Change::Unrecorded(Ineligible::Attributes));
        }
        self.modify_raw(handle, inode, |raw| {
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
        self.store(handle, inode)?;
        Ok(Some(bytes))
    }
}

/// Whether the inode has blocks, or a promise of some; the caller holds its `map`.
fn has_blocks(inode: &Inode) -> bool {
    let promised = inode.reservations.lock().promise().clusters > ClusterCount::ZERO;
    promised || has_extents(inode)
}

fn has_extents(inode: &Inode) -> bool {
    let core = inode.core.lock();
    let is_empty = if core.flags.contains(InodeFlags::EXTENTS) {
        NodeView::trusted(&core.block).is_some_and(|root| root.depth() == 0 && root.is_empty())
    } else {
        core.block == [0; BLOCK_AREA_BYTES]
    };
    !is_empty
}

fn shape(inode: &Inode) -> (u16, Place) {
    assert_held_shared(Rank::Attributes);
    (inode.core.lock().extra_isize, Place::Inode(inode.number()))
}
