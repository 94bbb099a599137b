//! Linear directory blocks: entries to read with full checks, to add, to remove; and the checksum tail.
//!
//! The same functions serve the two runs of entries of an inline directory, whose layout is [`DirLayout::inline`].
//!
//! Source: kernel `fs/ext4/dir.c`, `__ext4_check_dir_entry`; `fs/ext4/namei.c`, `ext4_find_dest_de`,
//! `ext4_insert_dentry`, `ext4_generic_delete_entry`, `ext4_dirblock_csum`; `ext4_rec_len_from_disk`.

use crate::bytes::{le16, le32, put};
use crate::cast::usize_from;
use crate::corruption::{Corruption, Place, Rule};
use crate::crc::crc32c;
use crate::features::Incompat;
use crate::geometry::Geometry;
use crate::inode::{FileType, InodeFlags};
use crate::numbers::InodeNumber;

/// How the entries of one directory are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DirLayout {
    /// Bytes in a block, which the encoding of lengths depends on.
    pub block_size: u32,
    /// Whether each block ends in a checksum tail.
    pub has_tail: bool,
    /// Whether the hash follows each name, as in directories both encrypted and casefolded.
    pub has_hashes: bool,
    /// Whether entries have a type.
    pub has_types: bool,
    /// The largest inode number.
    pub inodes_count: u32,
    /// Levels of inner nodes that an index may have below its root.
    pub max_levels: u8,
}

impl DirLayout {
    /// The layout of the blocks of a directory with these flags.
    pub const fn of(geometry: &Geometry, flags: InodeFlags) -> Self {
        Self {
            block_size: geometry.block_size,
            has_tail: geometry.has_metadata_csum(),
            has_hashes: flags.contains(InodeFlags::ENCRYPT.union(InodeFlags::CASEFOLD)),
            has_types: geometry.incompat.contains(Incompat::FILETYPE),
            inodes_count: geometry.inodes_count,
            max_levels: if geometry.incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 },
        }
    }

    /// The layout of the same directory's entries inside its inode.
    #[must_use]
    pub const fn inline(self) -> Self {
        Self { has_tail: false, ..self }
    }

    /// Bytes that an entry with such a name needs.
    pub const fn entry_bytes(&self, name_bytes: usize) -> usize {
        let hash = if self.has_hashes { HASH_BYTES } else { 0 };
        entry_bytes(name_bytes).saturating_add(hash)
    }

    /// Where the entries of a block of `len` bytes end.
    pub const fn end_of(&self, len: usize) -> usize {
        if self.has_tail { len.saturating_sub(TAIL_BYTES) } else { len }
    }

    /// The length in an entry's two bytes.
    pub(crate) fn decode_len(&self, stored: u16) -> usize {
        if self.block_size < 0x1_0000 {
            return stored.into();
        }
        match stored {
            0 | 0xFFFF => usize_from(self.block_size),
            _ => usize::from(stored & 0xFFFC) | usize::from(stored & 3) << 16,
        }
    }

    /// The two bytes that store a length, which is a multiple of 4 and at most 65,536.
    fn encode_len(&self, len: usize) -> [u8; 2] {
        u16::try_from(len).unwrap_or(0xFFFF).to_le_bytes()
    }
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DirEntry<'a> {
    /// Where it starts in its block.
    pub offset: usize,
    /// Up to where it reaches, with the free space after its name.
    pub len: usize,
    /// Which inode; `None` if the entry is free.
    pub inode: Option<InodeNumber>,
    /// The name.
    pub name: &'a [u8],
    /// The type, if entries have one and it is known.
    pub file_type: Option<FileType>,
    /// Major and minor hash, if they are stored.
    pub hash: Option<(u32, u32)>,
}

impl DirEntry<'_> {
    /// Whether this is `.` or `..`.
    pub fn is_dots(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }

    /// Bytes that the entry needs for itself.
    fn used(&self, layout: &DirLayout) -> usize {
        match self.inode {
            None => 0,
            Some(_) if self.is_dots() => entry_bytes(self.name.len()),
            Some(_) => layout.entry_bytes(self.name.len()),
        }
    }
}

/// The entries of a block, free ones among them; ends after the first that breaks a rule.
#[derive(Clone, Debug)]
pub struct DirEntries<'a> {
    block: &'a [u8],
    layout: DirLayout,
    place: Place,
    at: usize,
}

impl<'a> DirEntries<'a> {
    /// From the start of a block, or of a run of entries inside an inode.
    pub fn new(block: &'a [u8], layout: DirLayout, place: Place) -> Self {
        Self {
            block: block.get(..layout.end_of(block.len())).unwrap_or(block),
            layout,
            place,
            at: 0,
        }
    }

    /// From the entry at `offset` on, which an earlier walk over the same bytes has found.
    #[must_use]
    pub const fn starting_at(self, offset: usize) -> Self {
        Self { at: offset, ..self }
    }

    fn entry(&self) -> Result<DirEntry<'a>, Rule> {
        let raw = self.block.get(self.at..).ok_or(Rule::EntryLength)?;
        let len = self.layout.decode_len(le16(raw, 4).ok_or(Rule::EntryLength)?);
        let raw_entry = raw.get(..len).ok_or(Rule::EntryLength)?;
        let after = raw.len().saturating_sub(len);
        let closes = after == 0 || after >= MIN_ENTRY_BYTES;
        if len < MIN_ENTRY_BYTES || !len.is_multiple_of(4) || !closes {
            return Err(Rule::EntryLength);
        }
        let &[name_len, type_byte] =
            raw_entry.get(6..).and_then(<[u8]>::first_chunk).ok_or(Rule::EntryLength)?;
        let name = raw_entry
            .get(8..)
            .and_then(|rest| rest.get(..name_len.into()))
            .ok_or(Rule::EntryName)?;
        let number = le32(raw_entry, 0).unwrap_or(0);
        let entry = DirEntry {
            offset: self.at,
            len,
            inode: InodeNumber::new(number),
            name,
            file_type: FileType::from_entry(type_byte & 0xF).filter(|_| self.layout.has_types),
            hash: self.hash(raw_entry, name),
        };
        if number > self.layout.inodes_count {
            return Err(Rule::EntryInode);
        }
        let fits = entry.used(&self.layout) <= len;
        if fits && (entry.inode.is_none() || !name.is_empty()) {
            Ok(entry)
        } else {
            Err(Rule::EntryName)
        }
    }

    fn hash(&self, raw_entry: &[u8], name: &[u8]) -> Option<(u32, u32)> {
        let at = entry_bytes(name.len());
        let hash = (le32(raw_entry, at)?, le32(raw_entry, at.checked_add(4)?)?);
        (self.layout.has_hashes && !matches!(name, b"." | b"..")).then_some(hash)
    }
}

impl<'a> Iterator for DirEntries<'a> {
    type Item = Result<DirEntry<'a>, Corruption>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.block.len() {
            return None;
        }
        let entry = self.entry().map_err(|rule| self.place.breaks(rule));
        self.at =
            entry.as_ref().map_or(self.block.len(), |entry| self.at.saturating_add(entry.len));
        Some(entry)
    }
}

/// The entry called `name` in a block.
///
/// # Errors
/// The rule broken by an entry before it.
pub fn find<'a>(
    block: &'a [u8],
    layout: DirLayout,
    place: Place,
    name: &[u8],
) -> Result<Option<DirEntry<'a>>, Corruption> {
    for span in Spans::new(block, layout) {
        let span = span.map_err(|rule| place.breaks(rule))?;
        if span.is_used && span.is_called(block, name) {
            return DirEntries::new(block, layout, place)
                .starting_at(span.offset)
                .next()
                .transpose();
        }
    }
    Ok(None)
}

/// Room for one more entry in a block: an entry that has it to spare. Good until the block is changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    offset: usize,
    len: usize,
    used: usize,
}

/// The first room in a block for an entry with a name of `name_bytes`.
///
/// # Errors
/// The rule broken by an entry before it.
pub fn find_gap(
    block: &[u8],
    layout: DirLayout,
    place: Place,
    name_bytes: usize,
) -> Result<Option<Gap>, Corruption> {
    let needed = layout.entry_bytes(name_bytes);
    for span in Spans::new(block, layout) {
        let Span { offset, len, used, .. } = span.map_err(|rule| place.breaks(rule))?;
        if len.saturating_sub(used) >= needed {
            return Ok(Some(Gap { offset, len, used }));
        }
    }
    Ok(None)
}

/// Where entries lie, for walks that need no more: only lengths are checked.
struct Spans<'a> {
    block: &'a [u8],
    layout: DirLayout,
    at: usize,
}

#[derive(Clone, Copy)]
struct Span {
    offset: usize,
    len: usize,
    used: usize,
    is_used: bool,
    name_bytes: usize,
}

impl Span {
    /// Whether this is its name. Names of one directory often begin alike, so the last byte tells most of them apart.
    fn is_called(&self, block: &[u8], name: &[u8]) -> bool {
        let own = || block.get(self.offset.saturating_add(ENTRY_HEADER_BYTES)..)?.get(..name.len());
        self.name_bytes == name.len()
            && own().is_some_and(|own| own.last() == name.last() && own == name)
    }
}

impl<'a> Spans<'a> {
    fn new(block: &'a [u8], layout: DirLayout) -> Self {
        Self { block: block.get(..layout.end_of(block.len())).unwrap_or(block), layout, at: 0 }
    }

    #[inline]
    fn span(&self, raw: &[u8]) -> Result<Span, Rule> {
        let &[a, b, c, d, len_lo, len_hi, name_len, _] =
            raw.first_chunk().ok_or(Rule::EntryLength)?;
        let len = self.layout.decode_len(u16::from_le_bytes([len_lo, len_hi]));
        let after = raw.len().checked_sub(len).ok_or(Rule::EntryLength)?;
        let closes = after == 0 || after >= MIN_ENTRY_BYTES;
        if len < MIN_ENTRY_BYTES || len & 3 != 0 || !closes {
            return Err(Rule::EntryLength);
        }
        let name_bytes = usize::from(name_len);
        let is_used = u32::from_le_bytes([a, b, c, d]) != 0;
        let span = Span { offset: self.at, len, used: 0, is_used, name_bytes };
        if !is_used {
            let fits = name_bytes.saturating_add(ENTRY_HEADER_BYTES) <= raw.len();
            return if fits { Ok(span) } else { Err(Rule::EntryName) };
        }
        let has_hash = self.layout.has_hashes
            && !(span.is_called(self.block, b".") || span.is_called(self.block, b".."));
        let used = entry_bytes(name_bytes).saturating_add(if has_hash { HASH_BYTES } else { 0 });
        if used > len {
            return Err(Rule::EntryName);
        }
        Ok(Span { used, ..span })
    }
}

impl Iterator for Spans<'_> {
    type Item = Result<Span, Rule>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let raw = self.block.get(self.at..).filter(|raw| !raw.is_empty())?;
        let span = self.span(raw);
        self.at = span.as_ref().map_or(self.block.len(), |span| self.at.saturating_add(span.len));
        Some(span)
    }
}

/// What a new entry holds.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The name: 1 to 255 bytes.
    pub name: &'a [u8],
    /// Which inode.
    pub inode: InodeNumber,
    /// The type; not stored if entries have none.
    pub file_type: FileType,
    /// Major and minor hash; stored only where the layout says so.
    pub hash: (u32, u32),
}

/// Adds an entry where the first gap is large enough, and returns its place; `None`, and nothing changed, if none is.
/// Whether the name exists already is the caller's question.
///
/// # Errors
/// The rule broken by an entry before the gap.
pub fn insert(
    block: &mut [u8],
    layout: DirLayout,
    place: Place,
    new: &NewEntry<'_>,
) -> Result<Option<usize>, Corruption> {
    let gap = find_gap(block, layout, place, new.name.len())?;
    Ok(gap.map(|gap| insert_at(block, layout, gap, new)))
}

/// Adds an entry where [`find_gap`] has found room for it; its place.
pub fn insert_at(block: &mut [u8], layout: DirLayout, gap: Gap, new: &NewEntry<'_>) -> usize {
    let Gap { offset, len, used } = gap;
    let start = offset.saturating_add(used);
    if used > 0 {
        set_len(block, layout, offset, used);
    }
    write(block, layout, start, len.saturating_sub(used), new);
    start
}

/// Removes the entry at `offset`: the entry before it takes over its space, or the first entry of a block becomes free.
///
/// # Errors
/// The rule broken by an entry before it, or that none starts there.
pub fn remove(
    block: &mut [u8],
    layout: DirLayout,
    place: Place,
    offset: usize,
) -> Result<(), Corruption> {
    let mut before = None;
    for entry in Spans::new(block, layout) {
        let entry = entry.map_err(|rule| place.breaks(rule))?;
        if entry.offset < offset {
            before = Some((entry.offset, entry.len));
            continue;
        }
        place.require(entry.offset == offset, Rule::EntryLength)?;
        let len = entry.len;
        let kept = if before.is_some() { 0 } else { ENTRY_HEADER_BYTES };
        let wiped = block.get_mut(offset..).and_then(|rest| rest.get_mut(kept..len));
        wiped.unwrap_or_default().fill(0);
        match before {
            Some((start, before)) => set_len(block, layout, start, before.saturating_add(len)),
            None => {
                _ = put(block, offset, &[0; 4])
                    .and_then(|()| put(block, offset.checked_add(6)?, &[0; 2]))
            }
        }
        return Ok(());
    }
    Err(place.breaks(Rule::EntryLength))
}

/// Makes the entry at `offset` name another inode; for a rename that replaces, or a directory's `..`.
pub fn set_inode(
    block: &mut [u8],
    layout: DirLayout,
    offset: usize,
    inode: InodeNumber,
    file_type: FileType,
) {
    put(block, offset, &inode.get().to_le_bytes());
    if layout.has_types {
        put(block, offset.saturating_add(7), &[file_type.entry_byte()]);
    }
}

/// Makes a block of one free entry, with an empty tail if blocks have one; also for a run of entries in an inode.
pub fn init(block: &mut [u8], layout: DirLayout) {
    block.fill(0);
    let end = layout.end_of(block.len());
    set_len(block, layout, 0, end);
    if layout.has_tail {
        put(block, end, &EMPTY_TAIL);
    }
}

/// Makes the first block of a directory that is `inode`, in `parent`: its two dot entries and nothing more.
pub fn init_with_dots(
    block: &mut [u8],
    layout: DirLayout,
    inode: InodeNumber,
    parent: InodeNumber,
) {
    init(block, layout);
    let end = layout.end_of(block.len());
    let dot = |name, inode| NewEntry { name, inode, file_type: FileType::Directory, hash: (0, 0) };
    write(block, layout, 0, MIN_ENTRY_BYTES, &dot(b".", inode));
    write(block, layout, MIN_ENTRY_BYTES, end.saturating_sub(MIN_ENTRY_BYTES), &dot(b"..", parent));
}

/// Writes a whole entry of `len` bytes; what follows the name keeps its bytes.
pub fn write(block: &mut [u8], layout: DirLayout, offset: usize, len: usize, new: &NewEntry<'_>) {
    set_inode(block, layout, offset, new.inode, new.file_type);
    set_len(block, layout, offset, len);
    let name_len = u8::try_from(new.name.len()).expect("names have at most 255 bytes");
    put(block, offset.saturating_add(6), &[name_len]);
    if !layout.has_types {
        put(block, offset.saturating_add(7), &[0]);
    }
    put(block, offset.saturating_add(ENTRY_HEADER_BYTES), new.name);
    if layout.has_hashes && !matches!(new.name, b"." | b"..") {
        let at = offset.saturating_add(entry_bytes(new.name.len()));
        put(block, at, &new.hash.0.to_le_bytes());
        put(block, at.saturating_add(4), &new.hash.1.to_le_bytes());
    }
}

/// Sets up to where the entry at `offset` reaches.
pub fn set_len(block: &mut [u8], layout: DirLayout, offset: usize, len: usize) {
    put(block, offset.saturating_add(4), &layout.encode_len(len));
}

/// Whether a block ends in a checksum tail, right or wrong.
pub fn has_tail(block: &[u8]) -> bool {
    tail_of(block).is_some_and(|tail| tail.get(..8) == EMPTY_TAIL.get(..8))
}

/// Whether a block ends in a checksum tail that is right, given the directory's seed.
pub fn verify_checksum(block: &[u8], seed: u32) -> bool {
    let covered =
        block.len().checked_sub(TAIL_BYTES).and_then(|end| block.get(..end)).unwrap_or(&[]);
    has_tail(block)
        && tail_of(block).is_some_and(|tail| le32(tail, 8) == Some(crc32c(seed, covered)))
}

/// Sets the tail's checksum, given the directory's seed.
pub fn set_checksum(block: &mut [u8], seed: u32) {
    let Some((covered, tail)) = block.split_last_chunk_mut::<TAIL_BYTES>() else { return };
    put(tail, 8, &crc32c(seed, covered).to_le_bytes());
}

fn tail_of(block: &[u8]) -> Option<&[u8; TAIL_BYTES]> {
    block.last_chunk()
}

/// Bytes of an entry without hashes.
const fn entry_bytes(name_bytes: usize) -> usize {
    name_bytes.saturating_add(ENTRY_HEADER_BYTES).saturating_add(3) & !3
}

/// The longest name.
pub const MAX_NAME_BYTES: usize = 255;
const ENTRY_HEADER_BYTES: usize = 8;
/// Bytes of a hash that follows a name.
const HASH_BYTES: usize = 8;
const MIN_ENTRY_BYTES: usize = 12;
const TAIL_BYTES: usize = 12;
/// A free entry of 12 bytes with the type 0xDE, and four bytes of checksum.
const EMPTY_TAIL: [u8; TAIL_BYTES] = [0, 0, 0, 0, 12, 0, 0, 0xDE, 0, 0, 0, 0];

#[cfg(test)]
mod tests;
