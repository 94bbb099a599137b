//! The index of a hashed directory: its root in block 0, its inner nodes, and their checksum.
//!
//! To readers without the feature a root looks like a block with two dot entries, a node like one free entry. Entry 0
//! has no key: its place holds capacity and count.
//!
//! Source: kernel `fs/ext4/namei.c`, `struct dx_root`, `dx_node`, `dx_probe`, `ext4_dx_csum`, `get_dx_countlimit`.

use crate::bytes::{le16, le32, put};
use crate::corruption::{Corruption, Place, Rule};
use crate::crc::Crc32c;
use crate::directory::{self, DirLayout};
use crate::hash::HashVersion;
use crate::numbers::InodeNumber;

/// What a root says of the whole index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IndexRoot {
    /// How names are hashed.
    pub version: HashVersion,
    /// Levels of inner nodes below the root.
    pub levels: u8,
}

impl IndexRoot {
    /// From the first block of a directory that is flagged as indexed.
    ///
    /// # Errors
    /// The rule that its fixed part breaks.
    pub fn parse(block: &[u8], layout: DirLayout, at: Place) -> Result<Self, Corruption> {
        at.require(shape(block, layout) == Shape::Root, Rule::IndexRoot)?;
        let &[version, _, levels, flags] = block
            .get(VERSION_AT..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(at.breaks(Rule::TooShort))?;
        at.require(flags & 1 == 0, Rule::IndexRoot)?;
        let version = HashVersion::from_byte(version).ok_or(at.breaks(Rule::HashVersion))?;
        at.require(levels <= layout.max_levels, Rule::IndexDepth)?;
        Ok(Self { version, levels })
    }
}

/// What a block of a directory looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Plain entries.
    Leaf,
    /// The root of an index.
    Root,
    /// An inner node of an index.
    Node,
}

/// The shape of a block. Only meaningful in directories with an index, or with checksum tails.
pub fn shape(block: &[u8], layout: DirLayout) -> Shape {
    let len_at = |at| le16(block, at).map(|stored| layout.decode_len(stored));
    if len_at(4) == Some(block.len()) && le32(block, 0) == Some(0) {
        return Shape::Node;
    }
    let covers = len_at(4) == Some(12) && len_at(16) == block.len().checked_sub(12);
    let info = le32(block, INFO_AT) == Some(0) && block.get(INFO_LENGTH_AT) == Some(&INFO_BYTES);
    if covers && info { Shape::Root } else { Shape::Leaf }
}

/// A root or node, to be read.
#[derive(Clone, Copy, Debug)]
pub struct IndexView<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
    limit: usize,
}

impl<'a> IndexView<'a> {
    /// Checks a root or node. Its checksum is another question, and so is whether its blocks exist.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn new(block: &'a [u8], layout: DirLayout, at: Place) -> Result<Self, Corruption> {
        let view = Self::trusted(block, layout).ok_or(at.breaks(Rule::IndexLimit))?;
        at.require(Some(view.limit) == limit(block, layout), Rule::IndexLimit)?;
        at.require((1..view.len()).is_sorted_by_key(|i| view.hash(i)), Rule::IndexOrder)?;
        Ok(view)
    }

    /// A view of a block that was checked before; `None` if count or capacity make no sense.
    pub fn trusted(block: &'a [u8], layout: DirLayout) -> Option<Self> {
        let (all, _) = block.get(entries_at(block, layout)?..)?.as_chunks();
        let first = all.first()?;
        let (limit, count) = (usize::from(le16(first, 0)?), usize::from(le16(first, 2)?));
        let entries = all.get(..count)?;
        (count > 0 && count <= limit && limit <= all.len()).then_some(Self { entries, limit })
    }

    /// Entries in use; at least one.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never true; a sound view has an entry.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no entry more fits.
    pub const fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    /// The least hash below entry `i`; bit 0 says that the hash began in the block before.
    pub fn hash(&self, i: usize) -> u32 {
        if i == 0 {
            0
        } else {
            self.entries.get(i).and_then(|entry| le32(entry, 0)).unwrap_or(u32::MAX)
        }
    }

    /// The directory's block that entry `i` points to.
    pub fn block(&self, i: usize) -> Option<u32> {
        le32(self.entries.get(i)?, 4).map(|block| block & BLOCK_MASK)
    }

    /// The last entry whose hash is `major` or less.
    pub fn search(&self, major: u32) -> usize {
        let later = self.entries.get(1..).unwrap_or_default();
        later.partition_point(|entry| le32(entry, 0).is_some_and(|hash| hash <= major))
    }
}

/// A root or node, to be changed. Order is the caller's care; positions past the end are bugs of the caller and panic.
#[derive(Debug)]
pub struct IndexMut<'a> {
    entries: &'a mut [[u8; ENTRY_BYTES]],
}

impl<'a> IndexMut<'a> {
    /// Makes `block` the root of an index without inner nodes whose one leaf is the directory's block 1.
    pub fn init_root(
        block: &'a mut [u8],
        layout: DirLayout,
        inode: InodeNumber,
        parent: InodeNumber,
        version: HashVersion,
    ) -> Self {
        directory::init_with_dots(block, DirLayout { has_tail: false, ..layout }, inode, parent);
        put(block, VERSION_AT, &[version.byte(), INFO_BYTES, 0, 0]);
        let mut root = Self::with_limit(block, layout, ROOT_ENTRIES_AT);
        root.set_count(1);
        root.set_block(0, 1);
        root
    }

    /// Makes `block` an inner node without entries, to be filled by [`Self::move_tail`].
    pub fn init_node(block: &'a mut [u8], layout: DirLayout) -> Self {
        directory::init(block, DirLayout { has_tail: false, ..layout });
        Self::with_limit(block, layout, NODE_ENTRIES_AT)
    }

    /// A view of a block that was checked before; `None` if count or capacity make no sense.
    pub fn trusted(block: &'a mut [u8], layout: DirLayout) -> Option<Self> {
        let limit = IndexView::trusted(block, layout)?.limit;
        let at = entries_at(block, layout)?;
        let (all, _) = block.get_mut(at..)?.as_chunks_mut();
        Some(Self { entries: all.get_mut(..limit)? })
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.entries.first().and_then(|first| le16(first, 2)).unwrap_or(0).into()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Points entry `i` at another block of the directory.
    pub fn set_block(&mut self, i: usize, block: u32) {
        assert!(i < self.len(), "entry {i} of {}", self.len());
        put(self.entry(i), 4, &block.to_le_bytes());
    }

    /// Puts an entry before entry `i`, which is not 0; `false`, and nothing changed, if the block is full.
    #[must_use]
    pub fn insert(&mut self, i: usize, hash: u32, block: u32) -> bool {
        let len = self.len();
        assert!(i > 0 && i <= len, "entry {i} of {len}");
        if len >= self.entries.len() {
            return false;
        }
        self.entries.copy_within(i..len, i.saturating_add(1));
        self.set_count(len.saturating_add(1));
        put(self.entry(i), 0, &hash.to_le_bytes());
        self.set_block(i, block);
        true
    }

    /// Moves the entries from `i` on to `to`, an empty node, and returns the hash of the first of them (0 for entry 0).
    /// Moved from 0, entry 0 stays too, as the one entry that the caller points elsewhere.
    pub fn move_tail(&mut self, i: usize, to: &mut IndexMut<'_>) -> u32 {
        let len = self.len();
        assert!(
            i < len && to.is_empty() && to.entries.len() >= len.saturating_sub(i),
            "entry {i} of {len}"
        );
        let first = *self.entry(i);
        for (into, from) in
            to.entries.iter_mut().zip(self.entries.get(i..len).unwrap_or_default()).skip(1)
        {
            *into = *from;
        }
        to.set_count(len.saturating_sub(i));
        to.set_block(0, le32(&first, 4).unwrap_or(0));
        self.set_count(i.max(1));
        if i == 0 { 0 } else { le32(&first, 0).unwrap_or(0) }
    }

    fn with_limit(block: &'a mut [u8], layout: DirLayout, at: usize) -> Self {
        let limit = limit(block, layout).expect("a block was just given a shape");
        let (all, _) = block.get_mut(at..).expect("a block has room for an index").as_chunks_mut();
        let entries = all.get_mut(..limit).expect("the capacity is what fits");
        let mut index = Self { entries };
        put(index.entry(0), 0, &u16::try_from(limit).expect("2^16 bytes hold less").to_le_bytes());
        index
    }

    fn set_count(&mut self, count: usize) {
        put(self.entry(0), 2, &u16::try_from(count).expect("no more than fit").to_le_bytes());
    }

    fn entry(&mut self, i: usize) -> &mut [u8; ENTRY_BYTES] {
        self.entries.get_mut(i).expect("positions were checked")
    }
}

/// Sets the levels below a root, when the index grows.
pub fn set_levels(root: &mut [u8], levels: u8) {
    put(root, LEVELS_AT, &[levels]);
}

/// Whether the checksum of a directory's block of any shape is right, given the directory's seed.
pub fn verify_checksum(block: &[u8], layout: DirLayout, seed: u32) -> bool {
    match shape(block, layout) {
        Shape::Leaf => directory::verify_checksum(block, seed),
        Shape::Root | Shape::Node => {
            checksum(block, layout, seed).is_some_and(|(at, sum)| le32(block, at) == Some(sum))
        }
    }
}

/// Sets the checksum of a directory's block of any shape, given the directory's seed.
pub fn set_checksum(block: &mut [u8], layout: DirLayout, seed: u32) {
    match shape(block, layout) {
        Shape::Leaf => directory::set_checksum(block, seed),
        Shape::Root | Shape::Node => {
            if let Some((at, sum)) = checksum(block, layout, seed) {
                put(block, at, &sum.to_le_bytes());
            }
        }
    }
}

/// Where the checksum of a root or node is, and what it should be: entries in use, then the tail's reserved word.
fn checksum(block: &[u8], layout: DirLayout, seed: u32) -> Option<(usize, u32)> {
    let start = entries_at(block, layout)?;
    let first = block.get(start..)?;
    let end_of = |entries: u16| usize::from(entries).checked_mul(ENTRY_BYTES)?.checked_add(start);
    let (tail, used) = (end_of(le16(first, 0)?)?, end_of(le16(first, 2)?)?);
    let reserved = block.get(tail..)?.first_chunk::<4>()?;
    let sum = Crc32c::new(seed).update(block.get(..used)?).update(reserved).update(&[0; 4]);
    Some((tail.checked_add(4)?, sum.finish()))
}

/// Where the entries of a root or node start.
fn entries_at(block: &[u8], layout: DirLayout) -> Option<usize> {
    match shape(block, layout) {
        Shape::Leaf => None,
        Shape::Root => Some(ROOT_ENTRIES_AT),
        Shape::Node => Some(NODE_ENTRIES_AT),
    }
}

/// Entries that fit; with stored hashes the kernel counts a node's header as an entry longer.
fn limit(block: &[u8], layout: DirLayout) -> Option<usize> {
    let header = match entries_at(block, layout)? {
        NODE_ENTRIES_AT => layout.entry_bytes(0),
        at => at,
    };
    let tail = if layout.has_tail { TAIL_BYTES } else { 0 };
    block.len().checked_sub(header)?.checked_sub(tail)?.checked_div(ENTRY_BYTES)
}

const INFO_AT: usize = 24;
const VERSION_AT: usize = 28;
const INFO_LENGTH_AT: usize = 29;
const LEVELS_AT: usize = 30;
const INFO_BYTES: u8 = 8;
const ROOT_ENTRIES_AT: usize = 32;
const NODE_ENTRIES_AT: usize = 8;
const ENTRY_BYTES: usize = 8;
const TAIL_BYTES: usize = 8;
const BLOCK_MASK: u32 = 0x0FFF_FFFF;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::usize_from;
    use proptest::prelude::*;

    const AT: Place = Place::Superblock;

    fn layout(block_size: u32) -> DirLayout {
        DirLayout {
            block_size,
            has_tail: true,
            has_hashes: false,
            has_types: true,
            inodes_count: 1000,
            max_levels: 1,
        }
    }

    fn root(size: u32) -> Vec<u8> {
        let mut block = vec![0xAA; usize_from(size)];
        let ino = |n| InodeNumber::new(n).unwrap();
        IndexMut::init_root(&mut block, layout(size), ino(11), ino(2), HashVersion::HalfMd4);
        block
    }

    #[test]
    fn a_new_root_has_one_leaf_and_looks_like_dots() {
        for size in [1024, 4096, 65536] {
            let mut block = root(size);
            let parsed = IndexRoot::parse(&block, layout(size), AT).unwrap();
            assert_eq!(parsed, IndexRoot { version: HashVersion::HalfMd4, levels: 0 });
            let view = IndexView::new(&block, layout(size), AT).unwrap();
            assert_eq!(
                (view.len(), view.block(0), view.limit),
                (1, Some(1), usize_from(size / 8 - 5))
            );
            let plain = DirLayout { has_tail: false, ..layout(size) };
            assert_eq!(
                directory::DirEntries::new(&block, plain, AT).map(Result::unwrap).count(),
                2
            );
            set_checksum(&mut block, layout(size), 9);
            assert!(
                verify_checksum(&block, layout(size), 9)
                    && !verify_checksum(&block, layout(size), 8)
            );
        }
    }

    #[test]
    fn each_root_check_refuses() {
        let check = |at: usize, byte| {
            let mut block = root(1024);
            block[at] = byte;
            let root = IndexRoot::parse(&block, layout(1024), AT).err();
            root.or(IndexView::new(&block, layout(1024), AT).err()).map(|broken| broken.rule)
        };
        assert_eq!(check(24, 0), None);
        assert_eq!(check(24, 1), Some(Rule::IndexRoot));
        assert_eq!(check(28, 3), Some(Rule::HashVersion));
        assert_eq!(check(29, 9), Some(Rule::IndexRoot));
        assert_eq!(check(30, 2), Some(Rule::IndexDepth));
        assert_eq!(check(31, 1), Some(Rule::IndexRoot));
        assert_eq!(check(32, 122), Some(Rule::IndexLimit));
        assert_eq!(check(34, 0), Some(Rule::IndexLimit));
        assert_eq!(check(34, 124), Some(Rule::IndexLimit));
    }

    #[test]
    fn unordered_keys_are_refused() {
        let mut block = root(1024);
        let mut index = IndexMut::trusted(&mut block, layout(1024)).unwrap();
        assert!(index.insert(1, 50, 2) && index.insert(1, 60, 3));
        assert_eq!(IndexView::new(&block, layout(1024), AT).unwrap_err().rule, Rule::IndexOrder);
    }

    #[test]
    fn a_full_root_moves_into_a_node_and_that_splits() {
        let layout = layout(1024);
        let (mut top, mut left, mut right) = (root(1024), vec![0; 1024], vec![0; 1024]);
        let mut index = IndexMut::trusted(&mut top, layout).unwrap();
        let mut n = 1;
        while index.insert(index.len(), n * 2, n + 1) {
            n += 1;
        }
        let mut node = IndexMut::init_node(&mut left, layout);
        assert_eq!(index.move_tail(0, &mut node), 0);
        index.set_block(0, 200);
        let mut second = IndexMut::init_node(&mut right, layout);
        assert_eq!(node.move_tail(60, &mut second), 120);
        assert!(index.insert(1, 120, 201));
        set_levels(&mut top, 1);
        assert_eq!(IndexRoot::parse(&top, layout, AT).unwrap().levels, 1);
        let views = [&top, &left, &right].map(|block| IndexView::new(block, layout, AT).unwrap());
        assert_eq!((views[0].len(), views[1].len(), views[2].len()), (2, 60, usize_from(n) - 60));
        assert_eq!(views[0].block(views[0].search(119)), Some(200));
        assert_eq!(views[0].block(views[0].search(120)), Some(201));
        assert_eq!(
            (views[2].block(0), views[2].block(1), views[2].hash(1)),
            (Some(61), Some(62), 122)
        );
        assert_eq!(views[1].limit, 126);
    }

    #[test]
    fn stored_hashes_cost_a_node_an_entry() {
        let hashed = DirLayout { has_hashes: true, ..layout(1024) };
        let mut block = vec![0; 1024];
        assert_eq!(IndexMut::init_node(&mut block, hashed).entries.len(), 125);
    }

    #[test]
    fn checksum_covers_used_entries_only() {
        let mut block = root(1024);
        set_checksum(&mut block, layout(1024), 9);
        block[500] ^= 1;
        assert!(verify_checksum(&block, layout(1024), 9));
        block[36] ^= 1;
        assert!(!verify_checksum(&block, layout(1024), 9));
    }

    proptest! {
        #[test]
        fn search_finds_the_last_hash_not_above(hashes in prop::collection::btree_set(1..500_u32, 0..60), major in 0..520_u32) {
            let mut block = root(1024);
            let mut index = IndexMut::trusted(&mut block, layout(1024)).unwrap();
            for (block, &hash) in (2..).zip(&hashes) {
                let len = index.len();
                prop_assert!(index.insert(len, hash, block));
            }
            let view = IndexView::new(&block, layout(1024), AT).unwrap();
            prop_assert_eq!(view.search(major), hashes.iter().filter(|&&hash| hash <= major).count());
        }

        #[test]
        fn no_bytes_make_a_view_panic(change in prop::collection::vec((0..40_usize, any::<u8>()), 0..8)) {
            let mut block = root(1024);
            change.into_iter().for_each(|(at, byte)| block[at] = byte);
            let _ = IndexRoot::parse(&block, layout(1024), AT);
            let _ = IndexView::new(&block, layout(1024), AT);
            set_checksum(&mut block, layout(1024), 1);
            let _ = verify_checksum(&block, layout(1024), 1);
        }
    }
}
