//! A directory inside its inode: the parent's number, then two runs of entries, one in `i_block` and one in `system.data`.
//!
//! Source: kernel `fs/ext4/inline.c`: `ext4_try_add_inline_entry`, `ext4_update_inline_dir`, `ext4_inlinedir_to_tree`,
//! `ext4_read_inline_dir`, `ext4_finish_convert_inline_dir`.

use alloc::vec::Vec;
use core::ops::Range;

use extant_format::InodeNumber;
use extant_format::cast::u64_from;
use extant_format::corruption::Rule;
use extant_format::directory::{self, DirEntries, DirLayout, NewEntry};
use extant_format::inline::{PARENT_BYTES, init_directory};
use extant_format::inode::{BLOCK_AREA_BYTES, FileType};

use super::directory::{EntryPlace, Found, Shape};
use super::read_dir::{DirCursor, Listed, Sink, gather, hand_on, list_dots};
use crate::Error;

/// The entries of a directory inside its inode, as a copy.
pub(super) struct InlineDirectory {
    bytes: Vec<u8>,
    own: InodeNumber,
    parent: InodeNumber,
    shape: Shape,
}

impl InlineDirectory {
    /// What an empty one takes.
    pub(super) const EMPTY_BYTES: usize = BLOCK_AREA_BYTES;

    /// From all bytes that the inode has for it.
    pub(super) fn new(bytes: Vec<u8>, own: InodeNumber, shape: Shape) -> Result<Self, Error> {
        let parent =
            bytes.first_chunk().and_then(|number| InodeNumber::new(u32::from_le_bytes(*number)));
        let parent = parent.filter(|parent| {
            parent.get() <= shape.layout.inodes_count && bytes.len() >= BLOCK_AREA_BYTES
        });
        let parent = parent.ok_or_else(|| shape.place.breaks(Rule::InlineData))?;
        let shape = Shape { layout: shape.layout.inline(), ..shape };
        Ok(Self { bytes, own, parent, shape })
    }

    /// The bytes of an empty one in `parent`.
    pub(super) fn empty(parent: InodeNumber, shape: Shape) -> [u8; Self::EMPTY_BYTES] {
        let mut head = [0; Self::EMPTY_BYTES];
        init_directory(&mut head, shape.layout, parent);
        head
    }

    /// What to store.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn runs(&self) -> [Range<usize>; 2] {
        [PARENT_BYTES..BLOCK_AREA_BYTES, BLOCK_AREA_BYTES..self.bytes.len()]
    }

    fn entries(&self) -> impl Iterator<Item = (u32, DirEntries<'_>)> {
        let run = |range| DirEntries::new(&self.bytes[range], self.shape.layout, self.shape.place);
        (0..).zip(self.runs().map(run))
    }

    fn run_mut(&mut self, n: u32) -> &mut [u8] {
        let [head, tail] = self.runs();
        &mut self.bytes[if n == 0 { head } else { tail }]
    }

    /// The entry called `name`. The dots are in no entry, so that their place is of no use.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Found>, Error> {
        let dots = match name {
            b"." => Some(self.own),
            b".." => Some(self.parent),
            _ => None,
        };
        if let Some(inode) = dots {
            let at = EntryPlace { block: 0, offset: 0 };
            return Ok(Some(Found { inode, file_type: Some(FileType::Directory), at }));
        }
        for (block, entries) in self.entries() {
            for entry in entries {
                let entry = entry?;
                if entry.name == name
                    && let Some(inode) = entry.inode
                {
                    let at = EntryPlace { block, offset: entry.offset };
                    return Ok(Some(Found { inode, file_type: entry.file_type, at }));
                }
            }
        }
        Ok(None)
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> Result<bool, Error> {
        for (_, entries) in self.entries() {
            for entry in entries {
                if entry?.inode.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Lists names from `cursor` on, in the order and at the positions that they will have when they have moved out.
    pub(super) fn list(&self, mut cursor: DirCursor, sink: Sink<'_>) -> Result<(), Error> {
        if !self.shape.may_index {
            return self.list_by_place(cursor, sink);
        }
        if list_dots([self.own, self.parent], &mut cursor, sink).is_break() {
            return Ok(());
        }
        let hasher = self.shape.hashing.hasher(self.shape.hashing.version);
        let hasher = hasher.ok_or_else(|| self.shape.place.breaks(Rule::HashVersion))?;
        let mut pending = Vec::new();
        for (_, entries) in self.entries() {
            gather(entries, &hasher, &mut pending)?;
        }
        _ = hand_on(pending, &mut cursor, sink);
        Ok(())
    }

    fn list_by_place(&self, cursor: DirCursor, sink: Sink<'_>) -> Result<(), Error> {
        let mut tell = |start: usize, listed: Listed<'_>| {
            u64_from(start) < cursor.position || sink(listed).is_continue()
        };
        let file_type = Some(FileType::Directory);
        for (start, name, inode) in [(0, b".".as_slice(), self.own), (12, b"..", self.parent)] {
            let next = DirCursor::at(u64_from(start + 12));
            if !tell(start, Listed { name, inode, file_type, next }) {
                return Ok(());
            }
        }
        for (run, entries) in self.runs().into_iter().zip(self.entries()) {
            for entry in entries.1 {
                let entry = entry?;
                let start = run.start + entry.offset - PARENT_BYTES + DOTS_BYTES;
                let next = DirCursor::at(u64_from(start + entry.len));
                let (name, file_type) = (entry.name, entry.file_type);
                let Some(inode) = entry.inode else { continue };
                if !tell(start, Listed { name, inode, file_type, next }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds a name; `false` if neither run has room.
    pub(super) fn insert(&mut self, new: &NewEntry<'_>) -> Result<bool, Error> {
        let Shape { layout, place, .. } = self.shape;
        for n in 0..2 {
            if directory::insert(self.run_mut(n), layout, place, new)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a second run up to `capacity` bytes; `false`, and nothing changed, if there is one, or it would be too short.
    pub(super) fn grow(&mut self, capacity: usize) -> bool {
        let grows = self.bytes.len() == BLOCK_AREA_BYTES
            && capacity > BLOCK_AREA_BYTES + SHORTEST_ENTRY_BYTES;
        if grows {
            self.bytes.resize(capacity, 0);
            let layout = self.shape.layout;
            directory::init(self.run_mut(1), layout);
        }
        grows
    }

    /// Removes the entry at a place that [`Self::find`] has named.
    pub(super) fn remove(&mut self, at: EntryPlace) -> Result<(), Error> {
        let Shape { layout, place, .. } = self.shape;
        Ok(directory::remove(self.run_mut(at.block), layout, place, at.offset)?)
    }

    /// Makes the entry at a place that [`Self::find`] has named lead to another inode.
    pub(super) fn set_inode(&mut self, at: EntryPlace, inode: InodeNumber, file_type: FileType) {
        let layout = self.shape.layout;
        directory::set_inode(self.run_mut(at.block), layout, at.offset, inode, file_type);
    }

    /// Makes `..` lead elsewhere.
    pub(super) fn set_parent(&mut self, parent: InodeNumber) {
        self.parent = parent;
        self.bytes[..PARENT_BYTES].copy_from_slice(&parent.get().to_le_bytes());
    }

    /// Makes a block that holds the same names, each as far behind the dots as it lies here behind the parent's number: so
    /// a position in a listing stays good.
    ///
    /// # Errors
    /// The rule that an entry breaks, or that the block is too short.
    pub(super) fn write_block(&self, block: &mut [u8], layout: DirLayout) -> Result<(), Error> {
        let mut last = SHORTEST_ENTRY_BYTES; // the second dot
        for (run, (_, entries)) in self.runs().into_iter().zip(self.entries()) {
            for entry in entries {
                last = run.start + entry?.offset - PARENT_BYTES + DOTS_BYTES;
            }
        }
        directory::init_with_dots(block, layout, self.own, self.parent);
        directory::set_len(block, layout, SHORTEST_ENTRY_BYTES, SHORTEST_ENTRY_BYTES);
        let (end, moved) = (layout.end_of(block.len()), &self.bytes[PARENT_BYTES..]);
        let room = block[..end].get_mut(DOTS_BYTES..).and_then(|room| room.get_mut(..moved.len()));
        let room = room.ok_or_else(|| self.shape.place.breaks(Rule::InlineData))?;
        room.copy_from_slice(moved);
        directory::set_len(block, layout, last, end - last);
        Ok(())
    }
}

/// Bytes that the two dots take in a block.
const DOTS_BYTES: usize = 2 * SHORTEST_ENTRY_BYTES;
/// Bytes of an entry with the shortest name; a dot has no longer one.
const SHORTEST_ENTRY_BYTES: usize = 12;
