//! Listing a directory: from any earlier position on, while names come and go.
//!
//! # Invariants
//! Directories that have a hash tree, or could get one without anybody noticing (one block, or inside the inode), are
//! listed by hash; others by place. A cursor stays good through any change: a name that is there from the first call
//! to the last is listed once (unless one of equal hash is removed meanwhile).
//! # Source
//! Kernel `fs/ext4/dir.c`: `ext4_readdir`, `ext4_dx_readdir`, `call_filldir`, `hash2pos`; `fs/ext4/namei.c`,
//! `ext4_htree_fill_tree`. Differs: names of equal hashes are told apart by a count instead of a list in the open file,
//! and the dots come first whether there is a tree or not.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use extant_format::InodeNumber;
use extant_format::cast::{low_u32, u64_from};
use extant_format::corruption::Rule;
use extant_format::directory::{DirEntries, DirEntry};
use extant_format::hash::{DirHash, DirHasher};
use extant_format::inode::FileType;

use super::directory::{Blocks, Directory, is_rule};
use super::tree::{self, Path, Root};
use crate::Error;

/// Where to go on with a listing; the default is its start.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct DirCursor {
    /// What `telldir` says: two hashes of 31 and 32 bits, or a byte offset. Enough to go on by, but for names whose
    /// hashes are equal.
    pub position: u64,
    /// Of the names at this position, how many have been listed.
    pub skip: u32,
}

impl DirCursor {
    /// The position alone.
    pub const fn at(position: u64) -> Self {
        Self { position, skip: 0 }
    }
}

/// One name of a listing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode that it leads to.
    pub inode: InodeNumber,
    /// The type, if the directory says it.
    pub file_type: Option<FileType>,
    /// Where the listing goes on after this name.
    pub next: DirCursor,
}

/// Takes the names of a listing, until it has enough.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Listed<'_>) -> ControlFlow<()>;

/// A name with its position, found and not yet listed.
type Pending<'a> = (u64, DirEntry<'a>);

impl<B: Blocks> Directory<B> {
    /// Lists names from `cursor` on, the dots first, until the sink has enough or there are no more.
    pub(super) fn list(&self, cursor: DirCursor, sink: Sink<'_>) -> Result<(), Error> {
        if self.shape.indexed || (self.shape.may_index && self.blocks.count() == 1) {
            match self.list_by_hash(cursor, sink) {
                Err(error) if tree::is_malformed(&error) => {}
                result => return result.map(|_| ()),
            }
        }
        self.list_by_place(cursor, sink)
    }

    fn list_by_hash(
        &self,
        mut cursor: DirCursor,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let root = if self.shape.indexed { Some(Root::read(self)?) } else { None };
        if cursor.position <= DOT_DOT {
            let dot =
                self.find_in(0, b".")?.ok_or_else(|| self.shape.place.breaks(Rule::NoDots))?;
            if list_dots([dot.inode, self.parent()?.inode], &mut cursor, sink).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let Some(root) = root else {
            let frame = self.blocks.frame(0)?;
            let hasher = self.shape.hashing.hasher(self.shape.hashing.version);
            let hasher = hasher.ok_or_else(|| self.shape.place.breaks(Rule::HashVersion))?;
            let mut pending = Vec::new();
            gather(self.shape.entries(frame.as_slice()), &hasher, &mut pending)?;
            return Ok(hand_on(pending, &mut cursor, sink));
        };
        let mut path = Path::to(self, &root, low_u32(cursor.position >> 32) << 1)?;
        let mut more = true;
        while more {
            // Names of one hash may go on in the next leaf, and have to be sorted together.
            let mut frames = Vec::from([self.blocks.frame(path.leaf)?]);
            more = loop {
                match path.advance(self, None)? {
                    Some(key) if key & 1 == 1 => frames.push(self.blocks.frame(path.leaf)?),
                    next => break next.is_some(),
                }
            };
            let mut pending = Vec::new();
            for frame in &frames {
                gather(self.shape.entries(frame.as_slice()), root.hasher(), &mut pending)?;
            }
            if hand_on(pending, &mut cursor, sink).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn list_by_place(&self, cursor: DirCursor, sink: Sink<'_>) -> Result<(), Error> {
        let block_size = u64::from(self.shape.layout.block_size);
        let first = u32::try_from(cursor.position / block_size).unwrap_or(u32::MAX);
        for n in first..self.blocks.count() {
            let start = u64::from(n) * block_size;
            let frame = match self.blocks.frame(n) {
                Err(error) if is_rule(&error, Rule::IndexBlock) => continue,
                frame => frame?,
            };
            for entry in self.shape.entries(frame.as_slice()) {
                let entry = entry?;
                let Some(inode) = entry.inode else { continue };
                if start + u64_from(entry.offset) < cursor.position {
                    continue;
                }
                let next = DirCursor::at(start + u64_from(entry.offset + entry.len));
                let listed = Listed { name: entry.name, inode, file_type: entry.file_type, next };
                if sink(listed).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Lists the dots that the cursor has not passed.
pub(super) fn list_dots(
    dots: [InodeNumber; 2],
    cursor: &mut DirCursor,
    sink: Sink<'_>,
) -> ControlFlow<()> {
    let file_type = Some(FileType::Directory);
    for (position, name, inode) in [(DOT, b".".as_slice(), dots[0]), (DOT_DOT, b"..", dots[1])] {
        if cursor.position <= position {
            *cursor = DirCursor::at(position + 1);
            sink(Listed { name, inode, file_type, next: *cursor })?;
        }
    }
    ControlFlow::Continue(())
}

/// Adds the names of some entries, but for dots.
pub(super) fn gather<'a>(
    entries: DirEntries<'a>,
    hasher: &DirHasher,
    pending: &mut Vec<Pending<'a>>,
) -> Result<(), Error> {
    for entry in entries {
        let entry = entry?;
        if entry.inode.is_some() && !entry.is_dots() {
            pending.push((position_of(hasher.hash(entry.name)), entry));
        }
    }
    Ok(())
}

/// Sorts names and hands on those at or after the cursor.
///
/// Positions never go back, even if names lie in leaves where they do not belong: whoever goes on by them comes to an end.
pub(super) fn hand_on(
    mut pending: Vec<Pending<'_>>,
    cursor: &mut DirCursor,
    sink: Sink<'_>,
) -> ControlFlow<()> {
    pending.sort_unstable_by_key(|&(position, entry)| (position, entry.name));
    let mut own = DirCursor::default();
    for (position, entry) in pending {
        let Some(inode) = entry.inode else { continue };
        own = if position == own.position {
            DirCursor { skip: own.skip + 1, ..own }
        } else {
            DirCursor::at(position)
        };
        if own >= *cursor {
            *cursor = DirCursor { skip: own.skip + 1, ..own };
            sink(Listed { name: entry.name, inode, file_type: entry.file_type, next: *cursor })?;
        }
    }
    ControlFlow::Continue(())
}

/// A name's position among those sorted by hash.
///
/// Source: `hash2pos`.
fn position_of(hash: DirHash) -> u64 {
    (u64::from(hash.major >> 1) << 32 | u64::from(hash.minor)).max(FIRST_NAME)
}

/// The places of the dots; names never have a position so low.
const DOT: u64 = 0;
const DOT_DOT: u64 = 1;
const FIRST_NAME: u64 = 2;
