//! Extended attributes in an inode's tail or in an attribute block: checked views, and changes in place.
//!
//! Entries grow up from the start of the area, values down from its end, with four zero bytes or more between. A block's
//! entries are sorted and hashed; an inode's are neither, but for those whose value lies in another inode.
//!
//! Source: kernel `fs/ext4/xattr.c`, `check_xattrs`, `ext4_xattr_set_entry`, `ext4_xattr_hash_entry`,
//! `ext4_xattr_rehash`, `ext4_xattr_block_csum`. Differs: an area whose values overlap is refused before it is changed.

use core::cmp::Ordering;
use core::mem::offset_of;
use core::ops::Range;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{le32, put};
use crate::cast::{low_u32, u64_from, usize_from};
use crate::corruption::{Corruption, Place, Rule};
use crate::crc::{Crc32c, crc32c};
use crate::features::Incompat;
use crate::geometry::Geometry;
use crate::inode::CORE_BYTES;
use crate::numbers::{InodeNumber, PhysicalBlock};

/// Which namespace a name belongs to; its prefix is not stored.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NameIndex(pub u8);

impl NameIndex {
    /// `user.`
    pub const USER: Self = Self(1);
    /// `system.posix_acl_access`, as a whole
    pub const ACL_ACCESS: Self = Self(2);
    /// `system.posix_acl_default`, as a whole
    pub const ACL_DEFAULT: Self = Self(3);
    /// `trusted.`
    pub const TRUSTED: Self = Self(4);
    /// `security.`
    pub const SECURITY: Self = Self(6);
    /// `system.`; in use only for inline data
    pub const SYSTEM: Self = Self(7);
    /// The context of encryption; has no name outside
    pub const ENCRYPTION: Self = Self(9);
    /// `gnu.`, of the Hurd
    pub const HURD: Self = Self(10);

    /// The prefix that names of this index have outside; `None` if they are not shown.
    pub const fn prefix(self) -> Option<&'static str> {
        Some(match self {
            Self::USER => "user.",
            Self::ACL_ACCESS => "system.posix_acl_access",
            Self::ACL_DEFAULT => "system.posix_acl_default",
            Self::TRUSTED => "trusted.",
            Self::SECURITY => "security.",
            Self::SYSTEM => "system.",
            Self::HURD => "gnu.",
            _ => return None,
        })
    }

    /// The index and the stored part of a whole name; `None` if there is no index for it, or nothing after the prefix.
    pub fn split(name: &[u8]) -> Option<(Self, &[u8])> {
        for whole in [Self::ACL_ACCESS, Self::ACL_DEFAULT] {
            if Some(name) == whole.prefix().map(str::as_bytes) {
                return Some((whole, &[]));
            }
        }
        let prefixed = [Self::USER, Self::TRUSTED, Self::SECURITY, Self::SYSTEM, Self::HURD];
        let strip = |index: Self| Some((index, name.strip_prefix(index.prefix()?.as_bytes())?));
        prefixed.into_iter().find_map(strip).filter(|(_, rest)| !rest.is_empty())
    }
}

/// One attribute, as it is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct XattrEntry<'a> {
    /// The namespace.
    pub index: NameIndex,
    /// The name without its prefix.
    pub name: &'a [u8],
    /// The value, or where it is.
    pub value: XattrValue<'a>,
    /// The stored hash.
    pub hash: u32,
}

impl XattrEntry<'_> {
    /// Whether the hash is right; one made with signed characters is, too. `value_hash` is that of a value elsewhere.
    pub fn hash_matches(&self, value_hash: u32) -> bool {
        let word = value_hash.to_le_bytes();
        let value = match self.value {
            XattrValue::Here(value) => value,
            XattrValue::Inode { .. } => &word,
        };
        self.hash == entry_hash(self.name, value)
            || self.hash == signed_entry_hash(self.name, value)
    }
}

/// A value, or where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XattrValue<'a> {
    /// In the same area.
    Here(&'a [u8]),
    /// In an inode of its own.
    Inode {
        /// Which.
        inode: InodeNumber,
        /// Bytes.
        size: u32,
    },
}

impl XattrValue<'_> {
    /// Bytes of the value.
    pub const fn size(&self) -> u64 {
        match self {
            Self::Here(value) => u64_from(value.len()),
            Self::Inode { size, .. } => u64_from(usize_from(*size)),
        }
    }
}

/// An area of attributes, to be read.
#[derive(Clone, Copy, Debug)]
pub struct XattrView<'a> {
    bytes: &'a [u8],
    start: usize,
}

impl<'a> XattrView<'a> {
    /// The attributes inside an inode of `geometry.inode_size` bytes; `None` if it has none.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn in_inode(
        inode: &'a [u8],
        extra_isize: u16,
        at: Place,
        geometry: &Geometry,
    ) -> Result<Option<Self>, Corruption> {
        let area = inode.get(inode_area(extra_isize)..).filter(|_| extra_isize != 0);
        let Some(area) = area.filter(|area| le32(area, 0) == Some(MAGIC)) else { return Ok(None) };
        let bytes = area.get(4..).ok_or(at.breaks(Rule::TooShort))?;
        let view = Self { bytes, start: 0 };
        view.check(at, geometry)?;
        Ok(Some(view))
    }

    /// The attributes in a block. Its checksum is another question.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn in_block(block: &'a [u8], at: Place, geometry: &Geometry) -> Result<Self, Corruption> {
        let (header, _) =
            RawBlockHeader::ref_from_prefix(block).map_err(|_| at.breaks(Rule::TooShort))?;
        at.require(header.magic.get() == MAGIC, Rule::Magic)?;
        at.require(header.blocks.get() == 1, Rule::AttributeHeader)?;
        let view = Self { bytes: block, start: BLOCK_HEADER_BYTES };
        view.check(at, geometry)?;
        Ok(view)
    }

    /// All entries, in the order in which they are stored.
    pub fn entries(self) -> impl Iterator<Item = XattrEntry<'a>> + use<'a> {
        self.slots().filter_map(move |slot| slot.entry(self.bytes))
    }

    /// Where the values of the area lie in it, padding counted, in the order of their entries.
    pub fn value_ranges(self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        self.slots().filter_map(|slot| slot.value_range())
    }

    /// The entry with that name.
    pub fn find(self, index: NameIndex, name: &[u8]) -> Option<XattrEntry<'a>> {
        self.entries().find(|entry| entry.index == index && entry.name == name)
    }

    /// Whether there is no entry.
    pub fn is_empty(self) -> bool {
        self.slots().next().is_none()
    }

    /// Bytes that entries and values can still take.
    pub fn free_bytes(self) -> usize {
        self.values_start().saturating_sub(self.entries_end()).saturating_sub(END_BYTES)
    }

    fn slots(self) -> Slots<'a> {
        Slots { bytes: self.bytes, at: self.start }
    }

    /// Where the four zero bytes are.
    fn entries_end(self) -> usize {
        self.slots().last().map_or(self.start, |slot| slot.end())
    }

    /// Where the lowest value starts.
    fn values_start(self) -> usize {
        self.slots()
            .filter_map(|slot| slot.value_range())
            .map(|value| value.start)
            .min()
            .unwrap_or(self.bytes.len())
    }

    fn check(self, at: Place, geometry: &Geometry) -> Result<(), Corruption> {
        let mut end = self.start;
        for slot in self.slots() {
            end = slot.end();
            let name = slot.name(self.bytes).ok_or(at.breaks(Rule::AttributeEntry))?;
            at.require(!name.contains(&0), Rule::AttributeName)?;
        }
        at.require(le32(self.bytes, end) == Some(0), Rule::AttributeEntry)?;
        let values = end.saturating_add(END_BYTES);
        for slot in self.slots() {
            at.require(slot.raw.value_size.get() <= MAX_VALUE_BYTES, Rule::AttributeValue)?;
            if let Some(inode) = InodeNumber::new(slot.raw.value_inum.get()) {
                let sound = geometry.incompat.contains(Incompat::EA_INODE)
                    && inode.get() <= geometry.inodes_count;
                at.require(sound, Rule::AttributeValue)?;
            }
            if let Some(value) = slot.value_range() {
                at.require(value.end <= self.bytes.len(), Rule::AttributeValue)?;
                at.require(value.start >= values, Rule::AttributeOverlap)?;
            }
        }
        Ok(())
    }
}

/// What a new value is.
#[derive(Clone, Copy, Debug)]
pub enum NewValue<'a> {
    /// To be stored in the same area.
    Here(&'a [u8]),
    /// Already stored in an inode of its own.
    Inode {
        /// Which.
        inode: InodeNumber,
        /// Bytes.
        size: u32,
        /// [`value_hash`] of the value.
        hash: u32,
    },
}

/// An area of attributes, to be changed.
#[derive(Debug)]
pub struct XattrMut<'a> {
    bytes: &'a mut [u8],
    start: usize,
}

impl<'a> XattrMut<'a> {
    /// The attributes inside an inode; if it has none, an empty area is made. `None` if it has no room for any: a small
    /// inode, or one whose extra fields are not in use yet.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn in_inode(
        inode: &'a mut [u8],
        extra_isize: u16,
        at: Place,
        geometry: &Geometry,
    ) -> Result<Option<Self>, Corruption> {
        let area = inode.get_mut(inode_area(extra_isize)..).unwrap_or_default();
        if extra_isize == 0 || area.len() < 4 + END_BYTES {
            return Ok(None);
        }
        if le32(area, 0) != Some(MAGIC) {
            area.fill(0);
            put(area, 0, &MAGIC.to_le_bytes());
        }
        let bytes = area.get_mut(4..).unwrap_or_default();
        Self::checked(bytes, 0, at, geometry).map(Some)
    }

    /// The attributes in a block.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn in_block(
        block: &'a mut [u8],
        at: Place,
        geometry: &Geometry,
    ) -> Result<Self, Corruption> {
        XattrView::in_block(block, at, geometry)?;
        Self::checked(block, BLOCK_HEADER_BYTES, at, geometry)
    }

    /// Makes `block` an empty attribute block with one reference.
    pub fn init_block(block: &'a mut [u8]) -> Self {
        block.fill(0);
        for (at, value) in [(0, MAGIC), (REFERENCES_AT, 1), (offset_of!(RawBlockHeader, blocks), 1)]
        {
            put(block, at, &value.to_le_bytes());
        }
        Self { bytes: block, start: BLOCK_HEADER_BYTES }
    }

    /// The same area, to be read.
    pub fn view(&self) -> XattrView<'_> {
        XattrView { bytes: self.bytes, start: self.start }
    }

    /// Sets an attribute, new or not; `false`, and nothing changed, if there is no room.
    #[must_use]
    pub fn set(&mut self, index: NameIndex, name: &[u8], value: NewValue<'_>) -> bool {
        let old = self.view().slots().find(|slot| slot.is(self.bytes, index, name));
        let freed = old.and_then(|slot| slot.value_range()).map_or(0, |value| value.len());
        let here = match value {
            NewValue::Here(value) => value,
            NewValue::Inode { .. } => &[],
        };
        let needed = padded(here.len()).saturating_add(if old.is_some() {
            0
        } else {
            entry_bytes(name.len())
        });
        if name.len() > 255 || needed > self.view().free_bytes().saturating_add(freed) {
            return false;
        }
        if let Some(slot) = old {
            self.take_value(slot);
        }
        let at = old.map_or_else(|| self.insert_entry(index, name), |slot| slot.at);
        let (offset, inode, size, value_hash) = match value {
            NewValue::Here(value) => {
                (self.add_value(value), 0, low_u32(u64_from(value.len())), None)
            }
            NewValue::Inode { inode, size, hash } => (0, inode.get(), size, Some(hash)),
        };
        let hash = match value_hash {
            Some(hash) => entry_hash(name, &hash.to_le_bytes()),
            None if self.start == 0 => 0,
            None => entry_hash(name, here),
        };
        let raw = RawEntry {
            name_len: u8::try_from(name.len()).unwrap_or(u8::MAX),
            name_index: index.0,
            value_offset: u16::try_from(offset).expect(SMALL).into(),
            value_inum: inode.into(),
            value_size: size.into(),
            hash: hash.into(),
        };
        put(self.bytes, at, raw.as_bytes());
        self.set_block_hash();
        true
    }

    /// Removes an attribute; `false` if there is none of that name.
    pub fn remove(&mut self, index: NameIndex, name: &[u8]) -> bool {
        let found = self.view().slots().find(|slot| slot.is(self.bytes, index, name));
        let Some(slot) = found else { return false };
        self.take_value(slot);
        let (end, len) = (self.view().entries_end(), slot.end().saturating_sub(slot.at));
        self.bytes.copy_within(slot.end()..end, slot.at);
        self.zero(end.saturating_sub(len)..end);
        self.set_block_hash();
        true
    }

    /// Makes a value of the same area shorter or longer, old bytes kept and new ones zero; `false`, and nothing changed,
    /// if there is no such value or no room.
    #[must_use]
    pub fn resize_value(&mut self, index: NameIndex, name: &[u8], len: usize) -> bool {
        let found = self.view().slots().find(|slot| slot.is(self.bytes, index, name));
        let Some(slot) = found.filter(|slot| slot.raw.value_inum.get() == 0) else { return false };
        let old = slot.value_range().unwrap_or(0..0);
        if padded(len) > self.view().free_bytes().saturating_add(old.len()) {
            return false;
        }
        let lowest = self.view().values_start();
        self.raise_values_below(slot);
        if let Some(moved) = self.bytes.get_mut(lowest..old.end) {
            moved.rotate_right(old.len());
        }
        let end = lowest.saturating_add(old.len());
        let start = end.saturating_sub(padded(len));
        let kept = usize_from(slot.raw.value_size.get()).min(len);
        self.bytes.copy_within(lowest..lowest.saturating_add(kept), start);
        self.zero(start.saturating_add(kept)..end);
        self.zero(lowest..start);
        let mut raw = slot.raw;
        raw.value_offset = u16::try_from(if len == 0 { 0 } else { start }).expect(SMALL).into();
        raw.value_size = low_u32(u64_from(len)).into();
        put(self.bytes, slot.at, raw.as_bytes());
        true
    }

    /// The bytes of a value of the same area, to be changed; hashes stay as they are, so this is for inodes.
    pub fn into_value(self, index: NameIndex, name: &[u8]) -> Option<&'a mut [u8]> {
        let slot = self.view().slots().find(|slot| slot.is(self.bytes, index, name))?;
        let size = usize_from(slot.raw.value_size.get());
        match slot.value_range() {
            Some(range) => self.bytes.get_mut(range)?.get_mut(..size),
            None => (slot.raw.value_inum.get() == 0).then_some(&mut []),
        }
    }

    fn checked(
        bytes: &'a mut [u8],
        start: usize,
        at: Place,
        geometry: &Geometry,
    ) -> Result<Self, Corruption> {
        let view = XattrView { bytes, start };
        view.check(at, geometry)?;
        let used = view
            .slots()
            .filter_map(|slot| slot.value_range())
            .fold(0, |sum: usize, value| sum.saturating_add(value.len()));
        let fits = view.values_start().checked_add(used).is_some_and(|end| end <= bytes.len());
        at.require(fits, Rule::AttributeOverlap)?;
        Ok(Self { bytes, start })
    }

    /// Closes the gap that the value of `slot` leaves, and makes the entry one without a value.
    fn take_value(&mut self, slot: Slot) {
        if let Some(value) = slot.value_range() {
            let start = self.view().values_start();
            self.raise_values_below(slot);
            let target = start.saturating_add(value.len());
            self.bytes.copy_within(start..value.start, target);
            self.zero(start..target);
        }
        let mut raw = slot.raw;
        (raw.value_offset, raw.value_size, raw.value_inum) = (0.into(), 0.into(), 0.into());
        put(self.bytes, slot.at, raw.as_bytes());
    }

    /// Tells the entries whose values lie below that of `slot` that they move up by its length.
    fn raise_values_below(&mut self, slot: Slot) {
        let Some(value) = slot.value_range() else { return };
        let mut at = self.start;
        while let Some(other) = Slot::at(self.bytes, at) {
            if other.at != slot.at
                && other.value_range().is_some_and(|range| range.start < value.start)
            {
                let offset = usize::from(other.raw.value_offset.get()).saturating_add(value.len());
                let offset = u16::try_from(offset).expect(SMALL);
                put(self.bytes, other.at.saturating_add(2), &offset.to_le_bytes());
            }
            at = other.end();
        }
    }

    /// Makes room for an entry where the order wants it, writes its name, and returns where it is.
    fn insert_entry(&mut self, index: NameIndex, name: &[u8]) -> usize {
        let end = self.view().entries_end();
        let sorted = self.start != 0;
        let after =
            |slot: &Slot| sorted && slot.compare(self.bytes, index, name) == Ordering::Greater;
        let at = self.view().slots().find(after).map_or(end, |slot| slot.at);
        let len = entry_bytes(name.len());
        self.bytes.copy_within(at..end, at.saturating_add(len));
        self.zero(at..at.saturating_add(len));
        put(self.bytes, at, &[u8::try_from(name.len()).unwrap_or(u8::MAX), index.0]);
        put(self.bytes, at.saturating_add(ENTRY_BYTES), name);
        at
    }

    /// Puts a value below all others, and returns where it is; an empty one is nowhere.
    fn add_value(&mut self, value: &[u8]) -> usize {
        if value.is_empty() {
            return 0;
        }
        let end = self.view().values_start();
        let start = end.saturating_sub(padded(value.len()));
        self.zero(start..end);
        put(self.bytes, start, value);
        start
    }

    fn zero(&mut self, range: Range<usize>) {
        self.bytes.get_mut(range).unwrap_or_default().fill(0);
    }

    /// Sets the hash by which equal blocks are found.
    fn set_block_hash(&mut self) {
        if self.start != 0 {
            let hash = block_hash(self.view());
            put(self.bytes, offset_of!(RawBlockHeader, hash), &hash.to_le_bytes());
        }
    }
}

/// The hash of an entry: over its name and its value, or the value's own hash as one word if that is elsewhere.
pub fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    hash_value(name.iter().fold(0, |hash: u32, &byte| hash.rotate_left(5) ^ u32::from(byte)), value)
}

/// The same with bytes of the name taken as signed, as old kernels did.
pub fn signed_entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let widen = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned();
    hash_value(name.iter().fold(0, |hash: u32, &byte| hash.rotate_left(5) ^ widen(byte)), value)
}

/// The hash of a whole block: of its entries', or 0 if one of them is 0, which means that it must not be shared.
pub fn block_hash(view: XattrView<'_>) -> u32 {
    let mix = |hash: u32, entry: u32| (entry != 0).then_some(hash.rotate_left(16) ^ entry);
    view.slots().map(|slot| slot.raw.hash.get()).try_fold(0, mix).unwrap_or(0)
}

/// The hash that a block stores of itself.
pub fn stored_block_hash(block: &[u8]) -> Option<u32> {
    le32(block, offset_of!(RawBlockHeader, hash))
}

/// The hash of a value in an inode of its own.
///
/// Source: kernel `fs/ext4/xattr.c`, `ext4_xattr_inode_hash`.
pub fn value_hash(geometry: &Geometry, value: &[u8]) -> u32 {
    crc32c(geometry.csum_seed, value)
}

/// How many inodes share an attribute block.
pub fn references(block: &[u8]) -> Option<u32> {
    le32(block, REFERENCES_AT)
}

/// Sets how many inodes share an attribute block.
pub fn set_references(block: &mut [u8], count: u32) {
    put(block, REFERENCES_AT, &count.to_le_bytes());
}

/// Whether an attribute block's checksum is right. Ask only if the file system has checksums.
pub fn verify_checksum(block: &[u8], geometry: &Geometry, number: PhysicalBlock) -> bool {
    checksum(block, geometry, number).is_some_and(|sum| le32(block, CHECKSUM_AT) == Some(sum))
}

/// Sets an attribute block's checksum.
pub fn set_checksum(block: &mut [u8], geometry: &Geometry, number: PhysicalBlock) {
    if let Some(sum) = checksum(block, geometry, number) {
        put(block, CHECKSUM_AT, &sum.to_le_bytes());
    }
}

fn checksum(block: &[u8], geometry: &Geometry, number: PhysicalBlock) -> Option<u32> {
    let sum = Crc32c::new(geometry.csum_seed).update(&number.get().to_le_bytes());
    let sum = sum.update(block.get(..CHECKSUM_AT)?).update(&[0; 4]);
    Some(sum.update(block.get(CHECKSUM_AT.saturating_add(4)..)?).finish())
}

/// Bytes that an entry with such a name takes, without its value.
pub const fn entry_bytes(name_bytes: usize) -> usize {
    padded(name_bytes.saturating_add(ENTRY_BYTES))
}

/// Bytes that a value takes.
pub const fn padded(bytes: usize) -> usize {
    bytes.saturating_add(3) & !3
}

fn hash_value(hash: u32, value: &[u8]) -> u32 {
    value.chunks(4).fold(hash, |hash, chunk| {
        let word = chunk.iter().rev().fold(0, |word: u32, &byte| word << 8 | u32::from(byte));
        hash.rotate_left(16) ^ word
    })
}

fn inode_area(extra_isize: u16) -> usize {
    CORE_BYTES.saturating_add(extra_isize.into())
}

/// The header of an attribute block, as stored on disk.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBlockHeader {
    magic: U32,
    references: U32,
    blocks: U32,
    hash: U32,
    checksum: U32,
    reserved: [U32; 3],
}
const _: () = assert!(size_of::<RawBlockHeader>() == BLOCK_HEADER_BYTES);
const _: () = assert!(offset_of!(RawBlockHeader, checksum) == CHECKSUM_AT);
const _: () = assert!(offset_of!(RawBlockHeader, references) == REFERENCES_AT);

/// An entry, as stored on disk; its name follows.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    name_len: u8,
    name_index: u8,
    value_offset: U16,
    value_inum: U32,
    value_size: U32,
    hash: U32,
}
const _: () = assert!(size_of::<RawEntry>() == ENTRY_BYTES);

/// An entry and where it is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: usize,
    raw: RawEntry,
}

impl Slot {
    /// The entry at `at`, unless that is the end.
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let rest = bytes.get(at..)?;
        if le32(rest, 0)? == 0 {
            return None;
        }
        let (&raw, _) = RawEntry::ref_from_prefix(rest).ok()?;
        Some(Self { at, raw })
    }

    fn end(&self) -> usize {
        self.at.saturating_add(entry_bytes(self.raw.name_len.into()))
    }

    fn name<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.at.checked_add(ENTRY_BYTES)?..)?.get(..self.raw.name_len.into())
    }

    /// Where the value is, with its padding, if it is in the area and not empty.
    fn value_range(&self) -> Option<Range<usize>> {
        let here = self.raw.value_inum.get() == 0 && self.raw.value_size.get() != 0;
        let start = usize::from(self.raw.value_offset.get());
        here.then(|| start..start.saturating_add(padded(usize_from(self.raw.value_size.get()))))
    }

    fn entry<'a>(&self, bytes: &'a [u8]) -> Option<XattrEntry<'a>> {
        let size = self.raw.value_size.get();
        let value = match (InodeNumber::new(self.raw.value_inum.get()), self.value_range()) {
            (Some(inode), _) => XattrValue::Inode { inode, size },
            (None, Some(range)) => XattrValue::Here(bytes.get(range)?.get(..usize_from(size))?),
            (None, None) => XattrValue::Here(&[]),
        };
        let index = NameIndex(self.raw.name_index);
        Some(XattrEntry { index, name: self.name(bytes)?, value, hash: self.raw.hash.get() })
    }

    fn is(&self, bytes: &[u8], index: NameIndex, name: &[u8]) -> bool {
        self.raw.name_index == index.0 && self.name(bytes) == Some(name)
    }

    /// Where this entry belongs, compared to one with that name.
    fn compare(&self, bytes: &[u8], index: NameIndex, name: &[u8]) -> Ordering {
        let own = self.name(bytes).unwrap_or_default();
        (self.raw.name_index, own.len(), own).cmp(&(index.0, name.len(), name))
    }
}

/// Walks entries up to the four zero bytes or the end of the area.
#[derive(Clone, Copy, Debug)]
struct Slots<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Slots<'_> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        let slot = Slot::at(self.bytes, self.at)?;
        self.at = slot.end();
        Some(slot)
    }
}

/// The most inodes that share an attribute block.
pub const MAX_REFERENCES: u32 = 1024;
/// The longest value.
pub const MAX_VALUE_BYTES: u32 = 1 << 24;
/// Bytes of a block that no entry or value can take: the header and the end of the entries.
pub const BLOCK_OVERHEAD_BYTES: usize = BLOCK_HEADER_BYTES + END_BYTES;
const MAGIC: u32 = 0xEA02_0000;
const SMALL: &str = "values start inside 64 KiB";
const BLOCK_HEADER_BYTES: usize = 32;
const REFERENCES_AT: usize = 4;
const CHECKSUM_AT: usize = 16;
const ENTRY_BYTES: usize = 16;
const END_BYTES: usize = 4;

#[cfg(test)]
mod tests;
