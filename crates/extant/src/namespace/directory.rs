//! One directory made of blocks: find, insert and remove names, whatever its blocks are stored in.
//!
//! # Invariants
//! Every block holds a chain of entries that covers it, or, with the index flag, a node of the hash tree. The first
//! block starts with the two dot entries. A name is in at most one entry (callers look before they insert).
//! # Locking
//! None here: the caller holds the directory's `content`.
//! # Not here
//! The hash tree (`tree`), listing (`read_dir`), directories inside an inode (`inline`), where blocks lie (`disk`).
//! # Source
//! Kernel `fs/ext4/namei.c`: `ext4_find_entry`, `ext4_add_entry`, `ext4_generic_delete_entry`, `ext4_empty_dir`.

use extant_device::Frame;
use extant_format::InodeNumber;
use extant_format::corruption::{Place, Rule};
use extant_format::directory::{self, DirEntries, DirLayout, NewEntry};
use extant_format::hash::{CharSign, DirHasher, HashVersion};
use extant_format::htree;
use extant_format::inode::FileType;

use super::tree;
use crate::Error;

/// What a directory's blocks are stored in.
pub(super) trait Blocks {
    /// How many blocks the directory has.
    fn count(&self) -> u32;

    /// The bytes of block `n`, which is below [`Self::count`]; their checksum has been verified.
    ///
    /// # Errors
    /// Of reading it; [`Rule::IndexBlock`] for a hole.
    fn frame(&self, n: u32) -> Result<Frame, Error>;
}

/// The same, for those who may change them.
pub(super) trait BlocksMut: Blocks {
    /// Changes block `n`.
    fn modify<R>(&mut self, n: u32, change: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error>;

    /// Adds a block at the end, which `fill` makes from zeroes, and says what that returned and the block's number.
    fn append<R>(&mut self, fill: impl FnOnce(&mut [u8]) -> R) -> Result<(R, u32), Error>;

    /// Sets or clears the directory's index flag.
    fn set_indexed(&mut self, indexed: bool) -> Result<(), Error>;
}

/// What is known of a directory apart from its blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How entries are laid out.
    pub(super) layout: DirLayout,
    /// How names are hashed: in the root of a tree, or in a new one.
    pub(super) hashing: Hashing,
    /// It has a hash tree, and may use it.
    pub(super) indexed: bool,
    /// It may get a hash tree when it needs a second block.
    pub(super) may_index: bool,
    /// Whose blocks these are, for complaints.
    pub(super) place: Place,
}

impl Shape {
    /// The layout of one block: those of the index have their checksum elsewhere.
    pub(super) fn layout_of(&self, block: &[u8]) -> DirLayout {
        let has_tail =
            self.layout.has_tail && htree::shape(block, self.layout) == htree::Shape::Leaf;
        DirLayout { has_tail, ..self.layout }
    }

    /// The entries of one block.
    pub(super) fn entries<'a>(&self, block: &'a [u8]) -> DirEntries<'a> {
        DirEntries::new(block, self.layout_of(block), self.place)
    }
}

/// How a volume hashes names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashing {
    /// The version that new trees get.
    pub(crate) version: HashVersion,
    /// How bytes are taken.
    pub(crate) sign: CharSign,
    /// The seed from the superblock.
    pub(crate) seed: [u32; 4],
}

impl Hashing {
    /// The hasher of a tree of this version; `None` if that needs a key which is not known.
    pub(super) fn hasher(&self, version: HashVersion) -> Option<DirHasher> {
        let Self { sign, seed, .. } = *self;
        (version != HashVersion::SipHash).then_some(DirHasher::Seeded { version, sign, seed })
    }
}

/// One name of a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    /// The inode that it leads to.
    pub(super) inode: InodeNumber,
    /// The type, if the entry says it.
    pub(super) file_type: Option<FileType>,
    /// Where the entry is.
    pub(super) at: EntryPlace,
}

/// Where an entry is: good until the directory is changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntryPlace {
    /// Which block; for a directory inside its inode, which of its two runs.
    pub(super) block: u32,
    /// Where in it.
    pub(super) offset: usize,
}

/// A directory: its shape and its blocks.
#[derive(Debug)]
pub(super) struct Directory<B> {
    pub(super) shape: Shape,
    pub(super) blocks: B,
}

impl<B: Blocks> Directory<B> {
    /// The entry called `name`, the dots among them.
    ///
    /// # Errors
    /// The rule that a block breaks, or of reading one. A malformed index is passed over, as in the kernel: all blocks
    /// are searched then.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Found>, Error> {
        if matches!(name, b"." | b"..") {
            return self.find_in(0, name);
        }
        if self.shape.indexed {
            match tree::find(self, name) {
                Err(error) if tree::is_malformed(&error) => {}
                result => return result,
            }
        }
        for block in 0..self.blocks.count() {
            let found = match self.find_in(block, name) {
                // A hole holds no names.
                Err(error) if is_rule(&error, Rule::IndexBlock) => None,
                result => result?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The entry called `name` in block `n`.
    pub(super) fn find_in(&self, n: u32, name: &[u8]) -> Result<Option<Found>, Error> {
        let frame = self.blocks.frame(n)?;
        let bytes = frame.as_slice();
        let found = directory::find(bytes, self.shape.layout_of(bytes), self.shape.place, name)?;
        Ok(found.and_then(|entry| {
            let at = EntryPlace { block: n, offset: entry.offset };
            Some(Found { inode: entry.inode?, file_type: entry.file_type, at })
        }))
    }

    /// The inode that `..` names.
    pub(super) fn parent(&self) -> Result<Found, Error> {
        self.find_in(0, b"..")?.ok_or_else(|| self.shape.place.breaks(Rule::NoDots).into())
    }

    /// Whether it holds nothing but its dots.
    ///
    /// # Errors
    /// As [`Self::find`]: what cannot be read is not taken for empty.
    pub(super) fn is_empty(&self) -> Result<bool, Error> {
        for n in 0..self.blocks.count() {
            let frame = match self.blocks.frame(n) {
                Err(error) if is_rule(&error, Rule::IndexBlock) => continue,
                frame => frame?,
            };
            for entry in self.shape.entries(frame.as_slice()) {
                let entry = entry?;
                if entry.inode.is_some() && !(n == 0 && entry.is_dots()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl<B: BlocksMut> Directory<B> {
    /// Adds a name that the directory does not have.
    ///
    /// # Errors
    /// [`Error::DirectoryFull`] if the tree cannot grow, or of allocating a block; the directory is consistent then.
    pub(super) fn insert(&mut self, new: &NewEntry<'_>) -> Result<(), Error> {
        let mut may_index = self.shape.may_index;
        if self.shape.indexed {
            match tree::insert(self, new) {
                Err(error) if tree::is_malformed(&error) && !self.shape.layout.has_tail => {
                    self.set_indexed(false)?;
                    may_index = false;
                }
                result => return result,
            }
        }
        let count = self.blocks.count();
        for n in 0..count {
            if self.insert_in(n, new)? {
                return Ok(());
            }
        }
        if count == 1 && may_index {
            return tree::convert(self, new);
        }
        let Shape { layout, place, .. } = self.shape;
        let (inserted, _) = self.blocks.append(|bytes| {
            directory::init(bytes, layout);
            directory::insert(bytes, layout, place, new)
        })?;
        inserted?;
        Ok(())
    }

    /// Adds a name to block `n`; `false` if it has no room.
    pub(super) fn insert_in(&mut self, n: u32, new: &NewEntry<'_>) -> Result<bool, Error> {
        let Shape { layout, place, .. } = self.shape;
        let frame = self.blocks.frame(n)?;
        let gap = directory::find_gap(frame.as_slice(), layout, place, new.name.len())?;
        drop(frame);
        if let Some(gap) = gap {
            self.blocks.modify(n, |bytes| directory::insert_at(bytes, layout, gap, new))?;
        }
        Ok(gap.is_some())
    }

    /// Removes the entry at a place that [`Self::find`] has named.
    pub(super) fn remove(&mut self, at: EntryPlace) -> Result<(), Error> {
        let Shape { layout, place, .. } = self.shape;
        Ok(self
            .blocks
            .modify(at.block, |bytes| directory::remove(bytes, layout, place, at.offset))??)
    }

    /// Makes the entry at a place that [`Self::find`] has named lead to another inode.
    pub(super) fn set_inode(
        &mut self,
        at: EntryPlace,
        inode: InodeNumber,
        file_type: FileType,
    ) -> Result<(), Error> {
        let layout = self.shape.layout;
        self.blocks.modify(at.block, |bytes| {
            directory::set_inode(bytes, layout, at.offset, inode, file_type)
        })
    }

    /// Sets or clears the index flag, here and in the inode.
    pub(super) fn set_indexed(&mut self, indexed: bool) -> Result<(), Error> {
        self.shape.indexed = indexed;
        self.blocks.set_indexed(indexed)
    }
}

/// Whether the error is that an image breaks this rule.
pub(super) fn is_rule(error: &Error, rule: Rule) -> bool {
    matches!(error, Error::Corrupt(corruption) if corruption.rule == rule)
}
