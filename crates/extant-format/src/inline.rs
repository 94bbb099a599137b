//! Inline data: a small file or directory whose bytes lie in its inode, 60 in the block area and the rest in the value of
//! the attribute `system.data`, which is there even if it is empty.
//!
//! Source: kernel `fs/ext4/inline.c`, `ext4_get_max_inline_size`, `ext4_read_inline_data`, `ext4_update_inline_data`.

use crate::bytes::{le32, put};
use crate::corruption::{Corruption, Place, Rule};
use crate::directory::{self, DirEntries, DirLayout};
use crate::geometry::Geometry;
use crate::inode::{BLOCK_AREA_BYTES, CORE_BYTES};
use crate::numbers::InodeNumber;
use crate::xattr::{self, NameIndex, NewValue, XattrMut, XattrValue, XattrView};

/// The contents of an inline file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InlineData<'a> {
    /// The block area.
    pub head: &'a [u8; BLOCK_AREA_BYTES],
    /// What follows it.
    pub tail: &'a [u8],
}

impl<'a> InlineData<'a> {
    /// From the bytes of an inode that is flagged so.
    ///
    /// # Errors
    /// The attribute is missing, or its area breaks a rule.
    pub fn of(
        inode: &'a [u8],
        extra_isize: u16,
        at: Place,
        geometry: &Geometry,
    ) -> Result<Self, Corruption> {
        let head = inode
            .get(BLOCK_AREA_AT..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(at.breaks(Rule::TooShort))?;
        let view = XattrView::in_inode(inode, extra_isize, at, geometry)?;
        let entry = view
            .and_then(|view| view.find(NameIndex::SYSTEM, NAME))
            .ok_or(at.breaks(Rule::InlineData))?;
        match entry.value {
            XattrValue::Here(tail) => Ok(Self { head, tail }),
            XattrValue::Inode { .. } => Err(at.breaks(Rule::InlineData)),
        }
    }

    /// Bytes that the file can have without more room for the attribute.
    pub const fn len(&self) -> usize {
        self.head.len().saturating_add(self.tail.len())
    }

    /// Never true; the block area is always there.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Copies bytes from `offset` on into `to`, and returns how many there were.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> usize {
        let bytes = self.head.iter().chain(self.tail).skip(offset);
        to.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count()
    }

    /// The parent of an inline directory.
    ///
    /// # Errors
    /// The number is impossible.
    pub fn parent(&self, at: Place, geometry: &Geometry) -> Result<InodeNumber, Corruption> {
        let number = le32(self.head, 0)
            .and_then(InodeNumber::new)
            .filter(|ino| ino.get() <= geometry.inodes_count);
        number.ok_or(at.breaks(Rule::EntryInode))
    }

    /// The entries of an inline directory: the run in the block area, then the one in the attribute. Dots have no entries.
    pub fn entries(&self, layout: DirLayout, at: Place) -> [DirEntries<'a>; 2] {
        let head = self.head.get(PARENT_BYTES..).unwrap_or_default();
        [
            DirEntries::new(head, layout.inline(), at),
            DirEntries::new(self.tail, layout.inline(), at),
        ]
    }
}

/// Gives an inode room for `len` bytes of inline data, old bytes kept and new ones zero; `false`, and nothing changed, if
/// that is more than fits. The block area's bytes are the caller's.
///
/// # Errors
/// The area of attributes breaks a rule.
pub fn resize(
    inode: &mut [u8],
    extra_isize: u16,
    len: usize,
    at: Place,
    geometry: &Geometry,
) -> Result<bool, Corruption> {
    if extra_isize == 0 || !has_room(inode, extra_isize, len, at, geometry)? {
        return Ok(false);
    }
    let Some(mut area) = XattrMut::in_inode(inode, extra_isize, at, geometry)? else {
        return Ok(false);
    };
    let has = area.view().find(NameIndex::SYSTEM, NAME).is_some();
    let has = has || area.set(NameIndex::SYSTEM, NAME, NewValue::Here(&[]));
    Ok(has && area.resize_value(NameIndex::SYSTEM, NAME, len.saturating_sub(BLOCK_AREA_BYTES)))
}

fn has_room(
    inode: &[u8],
    extra_isize: u16,
    len: usize,
    at: Place,
    geometry: &Geometry,
) -> Result<bool, Corruption> {
    let value = value_room(inode, extra_isize, at, geometry)?;
    Ok(value.is_some_and(|value| len.saturating_sub(BLOCK_AREA_BYTES) <= value))
}

/// The part of the contents that lies in the attribute, to be changed.
///
/// # Errors
/// The attribute is missing, or its area breaks a rule.
pub fn tail_mut<'a>(
    inode: &'a mut [u8],
    extra_isize: u16,
    at: Place,
    geometry: &Geometry,
) -> Result<&'a mut [u8], Corruption> {
    InlineData::of(inode, extra_isize, at, geometry)?;
    let area = XattrMut::in_inode(inode, extra_isize, at, geometry)?;
    area.and_then(|area| area.into_value(NameIndex::SYSTEM, NAME))
        .ok_or(at.breaks(Rule::InlineData))
}

/// Bytes of inline data that an inode may be asked to hold: 0 if the attribute fits at best without a value, though then
/// [`BLOCK_AREA_BYTES`] would fit, and may even be there.
///
/// # Errors
/// The area of attributes breaks a rule.
/// # Source
/// Kernel `ext4_get_max_inline_size`.
pub fn capacity(
    inode: &[u8],
    extra_isize: u16,
    at: Place,
    geometry: &Geometry,
) -> Result<usize, Corruption> {
    if extra_isize == 0 {
        return Ok(0);
    }
    let value = value_room(inode, extra_isize, at, geometry)?.unwrap_or(0);
    Ok(if value == 0 { 0 } else { value.saturating_add(BLOCK_AREA_BYTES) })
}

/// The longest value that the attribute could have; `None` if not even its entry fits.
fn value_room(
    inode: &[u8],
    extra_isize: u16,
    at: Place,
    geometry: &Geometry,
) -> Result<Option<usize>, Corruption> {
    let area = inode.len().saturating_sub(CORE_BYTES).saturating_sub(extra_isize.into());
    let (free, own) = match XattrView::in_inode(inode, extra_isize, at, geometry)? {
        None => (area.saturating_sub(AREA_OVERHEAD_BYTES), None),
        Some(view) => (view.free_bytes(), view.find(NameIndex::SYSTEM, NAME)),
    };
    let value = match own {
        Some(entry) => {
            let size = usize::try_from(entry.value.size()).unwrap_or(0);
            Some(free.saturating_add(xattr::padded(size)))
        }
        None => free.checked_sub(xattr::entry_bytes(NAME.len())),
    };
    Ok(value.map(|value| value & !3))
}

/// Makes a block area that of an empty inline directory in `parent`.
pub fn init_directory(head: &mut [u8; BLOCK_AREA_BYTES], layout: DirLayout, parent: InodeNumber) {
    set_parent(head, parent);
    directory::init(head.get_mut(PARENT_BYTES..).unwrap_or_default(), layout.inline());
}

/// Sets the parent of an inline directory.
pub fn set_parent(head: &mut [u8; BLOCK_AREA_BYTES], parent: InodeNumber) {
    put(head, 0, &parent.get().to_le_bytes());
}

/// Bytes of an inline directory's block area before its entries.
pub const PARENT_BYTES: usize = 4;
/// The stored part of the attribute's name.
pub const NAME: &[u8] = b"data";
/// Where the block area starts in an inode.
pub const BLOCK_AREA_AT: usize = 0x28;
/// The magic number before the entries and the zeros after them.
const AREA_OVERHEAD_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::NewEntry;
    use crate::inode::FileType;

    const AT: Place = Place::Superblock;

    fn geometry() -> Geometry {
        crate::geometry::tests::with_block_bits(12)
    }

    #[test]
    fn capacity_depends_on_the_inode_and_its_attributes() {
        let mut inode = vec![0; 256];
        assert_eq!(capacity(&inode, 32, AT, &geometry()), Ok(128));
        assert_eq!(capacity(&inode, 0, AT, &geometry()), Ok(0));
        assert!(resize(&mut inode, 32, 128, AT, &geometry()).unwrap());
        assert!(!resize(&mut inode, 32, 129, AT, &geometry()).unwrap());
        assert_eq!(capacity(&inode, 32, AT, &geometry()), Ok(128));
        assert!(resize(&mut inode, 32, 61, AT, &geometry()).unwrap());
        let mut area = XattrMut::in_inode(&mut inode, 32, AT, &geometry()).unwrap().unwrap();
        assert!(area.set(NameIndex::USER, b"abcd", NewValue::Here(b"12345")));
        assert_eq!(capacity(&inode, 32, AT, &geometry()), Ok(128 - 28));
    }

    #[test]
    fn d6_an_attribute_without_room_for_a_value_is_no_capacity() {
        let with_attribute = |value: &[u8]| {
            let mut inode = vec![0; 256];
            let mut area = XattrMut::in_inode(&mut inode, 32, AT, &geometry()).unwrap().unwrap();
            assert!(area.set(NameIndex::USER, b"a", NewValue::Here(value)));
            inode
        };
        assert_eq!(capacity(&with_attribute(&[b'v'; 44]), 32, AT, &geometry()), Ok(64));
        let mut inode = with_attribute(&[b'v'; 48]);
        assert_eq!(capacity(&inode, 32, AT, &geometry()), Ok(0));
        // What was there before such an attribute came keeps its place all the same.
        assert!(resize(&mut inode, 32, BLOCK_AREA_BYTES, AT, &geometry()).unwrap());
        assert!(!resize(&mut inode, 32, BLOCK_AREA_BYTES + 1, AT, &geometry()).unwrap());
        assert_eq!(capacity(&inode, 32, AT, &geometry()), Ok(0));
        assert_eq!(InlineData::of(&inode, 32, AT, &geometry()).unwrap().len(), BLOCK_AREA_BYTES);
        assert!(!resize(&mut with_attribute(&[b'v'; 52]), 32, 60, AT, &geometry()).unwrap());
    }

    #[test]
    fn contents_lie_in_both_places() {
        let mut inode = vec![0; 256];
        assert_eq!(InlineData::of(&inode, 32, AT, &geometry()), Err(AT.breaks(Rule::InlineData)));
        assert!(resize(&mut inode, 32, 70, AT, &geometry()).unwrap());
        inode[40..100].fill(b'h');
        tail_mut(&mut inode, 32, AT, &geometry()).unwrap().fill(b't');
        let data = InlineData::of(&inode, 32, AT, &geometry()).unwrap();
        let mut bytes = [0; 20];
        assert_eq!((data.len(), data.read(58, &mut bytes)), (70, 12));
        assert_eq!(&bytes[..12], b"hhtttttttttt");
    }

    #[test]
    fn a_directory_has_two_runs_of_entries() {
        let layout = DirLayout::of(&geometry(), crate::inode::InodeFlags::empty());
        let ino = |n| InodeNumber::new(n).unwrap();
        let new =
            |name| NewEntry { name, inode: ino(20), file_type: FileType::Regular, hash: (0, 0) };
        let mut inode = vec![0; 256];
        assert!(resize(&mut inode, 32, 100, AT, &geometry()).unwrap());
        let head = inode[40..].first_chunk_mut().unwrap();
        init_directory(head, layout, ino(2));
        directory::insert(&mut head[4..], layout.inline(), AT, &new(b"one")).unwrap().unwrap();
        let tail = tail_mut(&mut inode, 32, AT, &geometry()).unwrap();
        directory::init(tail, layout.inline());
        directory::insert(tail, layout.inline(), AT, &new(b"two")).unwrap().unwrap();
        let data = InlineData::of(&inode, 32, AT, &geometry()).unwrap();
        assert_eq!(data.parent(AT, &geometry()), Ok(ino(2)));
        let names: Vec<_> = data
            .entries(layout, AT)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().name)
            .collect();
        assert_eq!(names, [b"one", b"two"]);
    }
}
