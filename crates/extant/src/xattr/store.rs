//! Reading and writing one attribute: the inode's tail first, then the block, then an inode for the value.
//!
//! Source: kernel `ext4_xattr_get`, `ext4_xattr_set_handle`, `ext4_xattr_ibody_set`, `ext4_xattr_delete_inode`,
//! `__ext4_xattr_set_credits`. Differs: an area is changed as a copy, which is put in place when all is well.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp;
use core::sync::atomic::Ordering;

use extant_format::cast::u64_from;
use extant_format::corruption::Place;
use extant_format::inode::{CORE_BYTES, InodeFlags};
use extant_format::xattr::{self, NameIndex, NewValue, XattrMut, XattrValue, XattrView};
use extant_format::{Compat, InodeNumber, PhysicalBlock};

use super::Xattrs;
use super::value_inode::ValueInode;
use crate::Error;
use crate::inode::Inode;
use crate::report::Ineligible;
use crate::sync::{Rank, assert_held_shared};
use crate::transaction::{BlockKind, Change, Credits, Handle, MetadataBlock};

/// The name of an attribute, as it is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Key<'a> {
    /// Stands for the prefix.
    pub(crate) index: NameIndex,
    /// The rest of the name.
    pub(crate) name: &'a [u8],
}

/// What has to be so before an attribute is set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetHow {
    /// Nothing.
    Any,
    /// The attribute is not there.
    Create,
    /// The attribute is there.
    Replace,
}

/// Where an attribute is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Home {
    Body,
    Block,
}

impl Xattrs {
    /// The value of an attribute, if the inode has it.
    ///
    /// # Errors
    /// The rule that an area or the value's inode breaks, or of reading.
    /// # Locks
    /// Takes `attributes_lock` for reading.
    pub(crate) fn read(&self, inode: &Inode, key: Key<'_>) -> Result<Option<Vec<u8>>, Error> {
        let _attributes = inode.attributes_lock.read();
        Ok(self.find(inode, key)?.map(|held| held.value))
    }

    /// Calls `visit` with the stored name of every attribute, the hidden ones too.
    pub(super) fn for_each(
        &self,
        inode: &Inode,
        mut visit: impl FnMut(Key<'_>),
    ) -> Result<(), Error> {
        let _attributes = inode.attributes_lock.read();
        let mut all = |view: XattrView<'_>| {
            view.entries().for_each(|entry| visit(Key { index: entry.index, name: entry.name }));
        };
        self.with_body(inode, |view| view.into_iter().for_each(&mut all))?;
        if let Some(block) = self.block_of(inode)? {
            self.with_block(inode, &block, all)?;
        }
        Ok(())
    }

    /// Sets or, without a value, removes an attribute, and stores the inode.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoAttribute`] as `how` says; [`Error::NoAttributeSpace`]; of reading and allocating.
    /// # Locks
    /// Takes `attributes_lock` for writing.
    pub(crate) fn write(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        key: Key<'_>,
        value: Option<&[u8]>,
        how: SetHow,
    ) -> Result<(), Error> {
        let _attributes = inode.attributes_lock.write();
        if key.index == NameIndex::SECURITY {
            inode.has_no_capability.store(false, Ordering::Relaxed);
        }
        let held = self.find(inode, key)?;
        match (&held, how) {
            (None, SetHow::Replace) => return Err(Error::NoAttribute),
            (Some(_), SetHow::Create) => return Err(Error::Exists),
            (Some(held), _) if Some(held.value.as_slice()) == value => return Ok(()),
            (None, _) if value.is_none() => return Ok(()),
            _ => {}
        }
        handle.note(Change::Unrecorded(Ineligible::Attributes));
        let refund = held.as_ref().map_or(0, |held| self.charge(held.is_apart, held.value.len()));
        let held = held.map(|held| held.home);
        match value {
            None => self.remove_from(handle, inode, held, key)?,
            Some(value) => {
                let (home, is_apart) = self.place(handle, inode, key, value)?;
                self.remove_from(handle, inode, held.filter(|&held| held != home), key)?;
                let charge = self.charge(is_apart, value.len());
                let mut core = inode.core.lock();
                core.blocks = core.blocks.saturating_add(charge);
            }
        }
        self.note_feature(handle)?;
        let now = self.clock.wall();
        {
            let mut core = inode.core.lock();
            core.blocks = core.blocks.saturating_sub(refund);
            core.ctime = now;
            core.version = core.version.wrapping_add(1);
        }
        self.inodes.store(handle, inode)
    }

    /// Whether the inode's tail has attributes, or inline data, or has had any.
    ///
    /// # Errors
    /// Of reading the inode.
    /// # Locks
    /// Takes `attributes_lock` for reading.
    pub(crate) fn are_in_inode(&self, inode: &Inode) -> Result<bool, Error> {
        let _attributes = inode.attributes_lock.read();
        self.with_body(inode, |view| view.is_some())
    }

    /// Gives back everything that the attributes of an inode hold, which is about to be freed.
    ///
    /// Source: kernel `ext4_xattr_delete_inode`.
    pub(crate) fn release_all(&self, handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Error> {
        let _attributes = inode.attributes_lock.write();
        let values = self.with_body(inode, |view| view.map(value_inodes).unwrap_or_default())?;
        self.shift_references(handle, &values, &[])?;
        self.put_block(handle, inode, None)?;
        self.inodes.store(handle, inode)
    }

    /// Blocks that setting one value can change.
    pub(crate) fn credits(&self, inode: &Inode, value_bytes: usize, is_new: bool) -> Credits {
        let geometry = self.geometry();
        let mut blocks = 7;
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            blocks += self.mapper.credits(inode, 1) + 1;
        }
        if self.has_value_inodes() {
            let value_blocks = |bytes: u32| bytes.div_ceil(geometry.block_size) + 1;
            let bytes = u32::try_from(value_bytes).unwrap_or(MAX_VALUE_BYTES).min(MAX_VALUE_BYTES);
            blocks += 4 + 3 * value_blocks(bytes);
            if !is_new {
                blocks += 4 + 2 * value_blocks(MAX_VALUE_BYTES);
            }
            // Copying a shared block gives each value's inode in it one more reference.
            blocks += geometry.block_size / 32;
        }
        Credits::blocks(blocks, geometry)
    }

    /// What an inode pays for a value in an inode of its own, whoever else does, in units of 512 bytes.
    ///
    /// Source: kernel `round_up_cluster`, `ext4_xattr_inode_alloc_quota`.
    fn charge(&self, is_apart: bool, value_bytes: usize) -> u64 {
        let geometry = self.geometry();
        let cluster = u64::from(geometry.block_size) << geometry.cluster_bits;
        if is_apart { u64_from(value_bytes).next_multiple_of(cluster) / 512 } else { 0 }
    }

    /// The attribute, if the inode has it.
    fn find(&self, inode: &Inode, key: Key<'_>) -> Result<Option<Held>, Error> {
        let in_body =
            self.with_body(inode, |view| view.and_then(|view| Stored::find(view, key)))?;
        if let Some(stored) = in_body {
            return self.load(inode, key, Home::Body, stored).map(Some);
        }
        let Some(block) = self.block_of(inode)? else { return Ok(None) };
        let in_block = self.with_block(inode, &block, |view| Stored::find(view, key))?;
        in_block.map(|stored| self.load(inode, key, Home::Block, stored)).transpose()
    }

    fn load(&self, inode: &Inode, key: Key<'_>, home: Home, stored: Stored) -> Result<Held, Error> {
        Ok(match stored {
            Stored::Here(value) => Held { home, value, is_apart: false },
            Stored::Apart { inode: apart, size, hash } => {
                let value = self.read_value(inode, key, apart, size, hash)?;
                Held { home, value, is_apart: true }
            }
        })
    }

    /// Puts a value where it fits, and says where, and whether it has an inode of its own.
    fn place(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        key: Key<'_>,
        value: &[u8],
    ) -> Result<(Home, bool), Error> {
        let large = self
            .geometry()
            .block_len()
            .saturating_sub(xattr::entry_bytes(3) + xattr::BLOCK_OVERHEAD_BYTES);
        let mut apart = self.has_value_inodes() && value.len() > large;
        let size = u32::try_from(value.len()).map_err(|_| Error::TooLarge)?;
        let home = loop {
            // Which inode it will be matters only once it is known that the entry has room.
            let trial = match apart {
                true => NewValue::Inode { inode: InodeNumber::ROOT, size, hash: 0 },
                false => NewValue::Here(value),
            };
            if self.body_with(inode, key, trial)?.is_some() {
                break Home::Body;
            }
            if self.block_with(inode, key, trial)?.is_some() {
                break Home::Block;
            }
            if apart || !self.has_value_inodes() || value.is_empty() {
                return Err(Error::NoAttributeSpace);
            }
            apart = true;
        };
        let made = if apart { Some(self.value_inode_for(handle, inode, value)?) } else { None };
        let new = made.as_ref().map_or(NewValue::Here(value), ValueInode::new_value);
        match home {
            Home::Body => {
                let area = self.body_with(inode, key, new)?.ok_or(Error::NoAttributeSpace)?;
                self.put_body(handle, inode, &area)?;
            }
            Home::Block => {
                let block = self.block_with(inode, key, new)?.ok_or(Error::NoAttributeSpace)?;
                self.put_block(handle, inode, Some(block))?;
            }
        }
        Ok((home, apart))
    }

    fn remove_from(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        home: Option<Home>,
        key: Key<'_>,
    ) -> Result<(), Error> {
        match home {
            None => Ok(()),
            Some(Home::Body) => {
                let mut raw = self.inodes.with_raw(inode, <[u8]>::to_vec)?;
                let Some(mut area) = self.body_area(inode, &mut raw)? else { return Ok(()) };
                area.remove(key.index, key.name);
                self.put_body(handle, inode, &raw[self.body_start(inode)..])
            }
            Some(Home::Block) => {
                let Some(block) = self.block_of(inode)? else { return Ok(()) };
                let mut bytes = block.frame().as_slice().to_vec();
                let mut area =
                    XattrMut::in_block(&mut bytes, place_of(inode, &block), self.geometry())?;
                area.remove(key.index, key.name);
                let rest = !area.view().is_empty();
                self.put_block(handle, inode, rest.then_some(bytes))
            }
        }
    }

    /// The tail of the inode with the attribute set, if it has room.
    fn body_with(
        &self,
        inode: &Inode,
        key: Key<'_>,
        value: NewValue<'_>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut raw = self.inodes.with_raw(inode, <[u8]>::to_vec)?;
        let area = self.body_area(inode, &mut raw)?;
        let fits = area.is_some_and(|mut area| area.set(key.index, key.name, value));
        Ok(fits.then(|| raw.split_off(self.body_start(inode))))
    }

    /// The attribute block with the attribute set, if it has room; a new block if there is none.
    fn block_with(
        &self,
        inode: &Inode,
        key: Key<'_>,
        value: NewValue<'_>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes;
        let mut area = match self.block_of(inode)? {
            Some(block) => {
                bytes = block.frame().as_slice().to_vec();
                XattrMut::in_block(&mut bytes, place_of(inode, &block), self.geometry())?
            }
            None => {
                bytes = vec![0; self.geometry().block_len()];
                XattrMut::init_block(&mut bytes)
            }
        };
        let fits = area.set(key.index, key.name, value)
            && (!is_here(value) || self.keeps_reserve(area.view()));
        Ok(fits.then_some(bytes))
    }

    /// Where values can have inodes of their own, a part of the block is kept for entries.
    ///
    /// Source: kernel `EXT4_XATTR_BLOCK_RESERVE`.
    fn keeps_reserve(&self, view: XattrView<'_>) -> bool {
        if !self.has_value_inodes() {
            return true;
        }
        let block = self.geometry().block_len();
        let in_block = |entry: xattr::XattrEntry<'_>| match entry.value {
            XattrValue::Here(value) => xattr::padded(value.len()),
            XattrValue::Inode { .. } => 0,
        };
        block - view.entries().map(in_block).sum::<usize>() >= cmp::min(block / 8, 1024)
    }

    fn put_body(&self, handle: &mut Handle<'_>, inode: &Inode, area: &[u8]) -> Result<(), Error> {
        let old = self.with_body(inode, |view| view.map(value_inodes).unwrap_or_default())?;
        let start = self.body_start(inode);
        self.inodes.modify_raw(handle, inode, |raw| raw[start..].copy_from_slice(area))?;
        let new = self.with_body(inode, |view| view.map(value_inodes).unwrap_or_default())?;
        self.shift_references(handle, &old, &new)
    }

    /// Looks at the attributes in the inode's tail.
    fn with_body<R>(
        &self,
        inode: &Inode,
        look: impl FnOnce(Option<XattrView<'_>>) -> R,
    ) -> Result<R, Error> {
        assert_held_shared(Rank::Attributes);
        let (extra, at) = (inode.core.lock().extra_isize, Place::Inode(inode.number()));
        Ok(self.inodes.with_raw(inode, |raw| {
            XattrView::in_inode(raw, extra, at, self.geometry()).map(look)
        })??)
    }

    fn body_area<'a>(
        &self,
        inode: &Inode,
        raw: &'a mut [u8],
    ) -> Result<Option<XattrMut<'a>>, Error> {
        let extra = inode.core.lock().extra_isize;
        Ok(XattrMut::in_inode(raw, extra, Place::Inode(inode.number()), self.geometry())?)
    }

    fn body_start(&self, inode: &Inode) -> usize {
        CORE_BYTES + usize::from(inode.core.lock().extra_isize)
    }

    /// The inode's attribute block, if it has one.
    pub(super) fn block_of(&self, inode: &Inode) -> Result<Option<MetadataBlock>, Error> {
        let number: Option<PhysicalBlock> = inode.core.lock().file_acl;
        number.map(|number| self.transactions.read(number, BlockKind::Attributes)).transpose()
    }

    /// Looks at the attributes in a block.
    pub(super) fn with_block<R>(
        &self,
        inode: &Inode,
        block: &MetadataBlock,
        look: impl FnOnce(XattrView<'_>) -> R,
    ) -> Result<R, Error> {
        let at = place_of(inode, block);
        Ok(block.with(|bytes| XattrView::in_block(bytes, at, self.geometry()).map(look))?)
    }

    /// Says in the superblock that there are attributes.
    ///
    /// Source: kernel `ext4_xattr_update_super_block`.
    fn note_feature(&self, handle: &mut Handle<'_>) -> Result<(), Error> {
        let geometry = self.geometry();
        if geometry.compat.contains(Compat::EXT_ATTR) {
            return Ok(());
        }
        let block = self.transactions.read(geometry.superblock_block(), BlockKind::Superblock)?;
        let at = geometry.superblock_offset() + COMPAT_AT;
        let flag = u8::try_from(Compat::EXT_ATTR.bits()).expect("the bit lies in the first byte");
        if block.with(|bytes| bytes[at] & flag == 0) {
            handle.modify(&block, |bytes| bytes[at] |= flag)?;
        }
        Ok(())
    }
}

/// An attribute that an inode has.
struct Held {
    home: Home,
    value: Vec<u8>,
    is_apart: bool,
}

/// An attribute, taken out of its area.
enum Stored {
    Here(Vec<u8>),
    Apart { inode: InodeNumber, size: u32, hash: u32 },
}

impl Stored {
    fn find(view: XattrView<'_>, key: Key<'_>) -> Option<Self> {
        let entry = view.find(key.index, key.name)?;
        Some(match entry.value {
            XattrValue::Here(value) => Self::Here(value.to_vec()),
            XattrValue::Inode { inode, size } => Self::Apart { inode, size, hash: entry.hash },
        })
    }
}

/// The inodes of values that an area names.
pub(super) fn value_inodes(view: XattrView<'_>) -> Vec<InodeNumber> {
    let apart = |entry: xattr::XattrEntry<'_>| match entry.value {
        XattrValue::Here(_) => None,
        XattrValue::Inode { inode, .. } => Some(inode),
    };
    view.entries().filter_map(apart).collect()
}

pub(super) fn place_of(inode: &Inode, block: &MetadataBlock) -> Place {
    Place::InodeBlock(inode.number(), block.number())
}

const fn is_here(value: NewValue<'_>) -> bool {
    matches!(value, NewValue::Here(value) if !value.is_empty())
}

/// The longest value that a caller can set.
pub(super) const MAX_VALUE_BYTES: u32 = 1 << 16;
const COMPAT_AT: usize = 0x5C;
