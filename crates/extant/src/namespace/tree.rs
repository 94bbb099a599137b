//! The hash tree of a directory: one to three levels of index nodes above leaves, sorted by the hash of the names.
//!
//! # Invariants
//! A leaf holds the hashes from its key up to the next leaf's key. Names of one hash that did not fit one leaf go on in
//! the next, whose key then has its lowest bit set; hashes themselves are even.
//! # Source
//! Kernel `fs/ext4/namei.c`: `dx_probe`, `ext4_htree_next_block`, `ext4_dx_add_entry`, `do_split`,
//! `make_indexed_dir`. Differs: after each split the way is looked up again, so there is one way to insert.

use alloc::vec::Vec;

use extant_device::Frame;
use extant_format::corruption::{Place, Rule};
use extant_format::directory::{self, DirEntries, DirEntry, DirLayout, NewEntry};
use extant_format::hash::DirHasher;
use extant_format::htree::{self, IndexMut, IndexRoot, IndexView};
use smallvec::SmallVec;

use super::directory::{Blocks, BlocksMut, Directory, Found, Shape};
use crate::Error;

/// What the root of a tree says.
#[derive(Debug)]
pub(super) struct Root {
    frame: Frame,
    index: IndexRoot,
    hasher: DirHasher,
}

impl Root {
    /// From the directory's first block.
    pub(super) fn read<B: Blocks>(dir: &Directory<B>) -> Result<Self, Error> {
        let frame = dir.blocks.frame(0)?;
        let index = IndexRoot::parse(frame.as_slice(), dir.shape.layout, dir.shape.place)?;
        let hasher = dir.shape.hashing.hasher(index.version);
        let hasher = hasher.ok_or_else(|| dir.shape.place.breaks(Rule::HashVersion))?;
        Ok(Self { frame, index, hasher })
    }

    /// How the tree hashes names.
    pub(super) fn hasher(&self) -> &DirHasher {
        &self.hasher
    }

    fn major(&self, name: &[u8]) -> u32 {
        self.hasher.hash(name).major
    }
}

/// The way from the root to one leaf.
#[derive(Debug)]
pub(super) struct Path {
    steps: SmallVec<[Step; 3]>,
    /// The leaf's block.
    pub(super) leaf: u32,
    /// How many more leaves can follow before some leaf must come twice.
    leaves_left: u32,
}

/// One index node on the way.
#[derive(Debug)]
struct Step {
    node: u32,
    frame: Frame,
    /// Which of its entries leads on.
    at: usize,
}

impl Step {
    fn view<B>(&self, dir: &Directory<B>) -> Result<IndexView<'_>, Error> {
        let view = IndexView::trusted(self.frame.as_slice(), dir.shape.layout);
        view.ok_or_else(|| dir.shape.place.breaks(Rule::IndexLimit).into())
    }
}

impl Path {
    /// The way to the leaf for a name's `major` hash.
    pub(super) fn to<B: Blocks>(
        dir: &Directory<B>,
        root: &Root,
        major: u32,
    ) -> Result<Self, Error> {
        let mut path = Self { steps: SmallVec::new(), leaf: 0, leaves_left: dir.blocks.count() };
        path.enter(dir, 0, root.frame.clone(), major)?;
        path.descend(dir, usize::from(root.index.levels) + 1, major)?;
        Ok(path)
    }

    /// Adds a step.
    fn enter<B: Blocks>(
        &mut self,
        dir: &Directory<B>,
        node: u32,
        frame: Frame,
        major: u32,
    ) -> Result<(), Error> {
        let mut step = Step { node, frame, at: 0 };
        step.at = step.view(dir)?.search(major);
        self.steps.push(step);
        Ok(())
    }

    /// Adds steps below the last until there are `levels`, then the leaf.
    fn descend<B: Blocks>(
        &mut self,
        dir: &Directory<B>,
        levels: usize,
        major: u32,
    ) -> Result<(), Error> {
        loop {
            let step = self.steps.last().ok_or_else(|| dir.shape.place.breaks(Rule::IndexBlock))?;
            let child = step.view(dir)?.block(step.at);
            let known = |&child: &u32| {
                child < dir.blocks.count() && self.steps.iter().all(|step| step.node != child)
            };
            let child =
                child.filter(known).ok_or_else(|| dir.shape.place.breaks(Rule::IndexBlock))?;
            if self.steps.len() == levels {
                self.leaf = child;
                return Ok(());
            }
            self.enter(dir, child, dir.blocks.frame(child)?, major)?;
        }
    }

    /// Goes on to the next leaf and returns its key; `None` after the last, or if `only` is given and the next leaf does
    /// not go on with that hash.
    pub(super) fn advance<B: Blocks>(
        &mut self,
        dir: &Directory<B>,
        only: Option<u32>,
    ) -> Result<Option<u32>, Error> {
        let levels = self.steps.len();
        while let Some(step) = self.steps.last_mut() {
            step.at += 1;
            let (at, view) = (step.at, step.view(dir)?);
            if at == view.len() {
                self.steps.pop();
                continue;
            }
            let key = view.hash(at);
            if only.is_some_and(|major| key & !1 != major) {
                return Ok(None);
            }
            let left = self.leaves_left.checked_sub(1);
            self.leaves_left = left.ok_or_else(|| dir.shape.place.breaks(Rule::IndexOrder))?;
            self.descend(dir, levels, 0)?;
            return Ok(Some(key));
        }
        Ok(None)
    }
}

/// The entry called `name`, by its hash.
///
/// # Errors
/// One that [`is_malformed`] if the tree is of no use; else of reading, or the rule that a leaf breaks.
pub(super) fn find<B: Blocks>(dir: &Directory<B>, name: &[u8]) -> Result<Option<Found>, Error> {
    let root = Root::read(dir)?;
    let major = root.major(name);
    let mut path = Path::to(dir, &root, major)?;
    loop {
        let found = dir.find_in(path.leaf, name)?;
        if found.is_some() || path.advance(dir, Some(major))?.is_none() {
            return Ok(found);
        }
    }
}

/// Whether the error says that the tree itself is malformed, so that the blocks may be searched one by one.
///
/// Source: kernel `ERR_BAD_DX_DIR`.
pub(super) fn is_malformed(error: &Error) -> bool {
    let Error::Corrupt(corruption) = error else { return false };
    matches!(
        corruption.rule,
        Rule::IndexRoot | Rule::IndexLimit | Rule::IndexDepth | Rule::HashVersion
    )
}

/// Adds a name to the leaf of its hash; splits whatever is full.
pub(super) fn insert<B: BlocksMut>(
    dir: &mut Directory<B>,
    new: &NewEntry<'_>,
) -> Result<(), Error> {
    loop {
        let root = Root::read(dir)?;
        let path = Path::to(dir, &root, root.major(new.name))?;
        if dir.insert_in(path.leaf, new)? {
            return Ok(());
        }
        // Each turn halves a full node or leaf, so at most one turn a level comes before the name fits.
        let mut steps: SmallVec<[(u32, usize, bool); 3]> = SmallVec::new();
        for step in &path.steps {
            steps.push((step.node, step.at, step.view(dir)?.is_full()));
        }
        let leaf = path.leaf;
        drop(path);
        let roomy = steps.iter().rposition(|&(.., is_full)| !is_full);
        match roomy.map(|level| (steps[level], steps.get(level + 1))) {
            Some(((node, at, _), None)) => split_leaf(dir, &root, leaf, (node, at))?,
            Some(((node, at, _), Some(&(full, ..)))) => split_node(dir, full, (node, at))?,
            None if root.index.levels < dir.shape.layout.max_levels => {
                grow(dir, root.index.levels + 1)?
            }
            None => return Err(Error::DirectoryFull),
        }
    }
}

/// Makes a directory of one block a tree of one leaf, and adds a name.
pub(super) fn convert<B: BlocksMut>(
    dir: &mut Directory<B>,
    new: &NewEntry<'_>,
) -> Result<(), Error> {
    let Shape { layout, place, hashing, .. } = dir.shape;
    let old = dir.blocks.frame(0)?;
    let entries = used_entries(old.as_slice(), layout, place)?;
    let (dots, names) = match entries.split_first_chunk() {
        Some((dots @ [dot, dot_dot], names)) if dot.name == b"." && dot_dot.name == b".." => {
            (dots, names)
        }
        _ => return Err(place.breaks(Rule::NoDots).into()),
    };
    let [inode, parent] = dots.map(|dot| dot.inode);
    let (Some(inode), Some(parent)) = (inode, parent) else {
        return Err(place.breaks(Rule::NoDots).into());
    };
    dir.blocks.append(|bytes| pack(bytes, layout, old.as_slice(), names))?;
    dir.blocks.modify(0, |bytes| {
        IndexMut::init_root(bytes, layout, inode, parent, hashing.version);
    })?;
    dir.set_indexed(true)?;
    insert(dir, new)
}

/// Moves the upper half of a leaf's hashes to a new leaf; `parent` is the node, and its entry, that lead to the leaf.
fn split_leaf<B: BlocksMut>(
    dir: &mut Directory<B>,
    root: &Root,
    leaf: u32,
    parent: (u32, usize),
) -> Result<(), Error> {
    let Shape { layout, place, .. } = dir.shape;
    let old = dir.blocks.frame(leaf)?;
    let mut entries = used_entries(old.as_slice(), layout, place)?;
    entries.sort_by_cached_key(|entry| root.major(entry.name));
    place.require(entries.len() >= 2, Rule::EntryLength)?;
    let at = half(&entries, old.len());
    let (below, key) = (root.major(entries[at - 1].name), root.major(entries[at].name));
    let key = key | u32::from(below == key);
    let ((), upper) =
        dir.blocks.append(|bytes| pack(bytes, layout, old.as_slice(), &entries[at..]))?;
    entries.truncate(at);
    entries.sort_by_key(|entry| entry.offset);
    dir.blocks.modify(leaf, |bytes| pack(bytes, layout, old.as_slice(), &entries))?;
    insert_key(dir, parent, key, upper)
}

/// Where to cut a leaf's entries, sorted by hash: so that no more than half a block is above, or in the middle if all
/// of it is less than that.
fn half(entries: &[DirEntry<'_>], block_bytes: usize) -> usize {
    let mut above = 0;
    let whole = entries.iter().rev().take_while(|entry| {
        let fits = above + entry.len / 2 <= block_bytes / 2;
        above += entry.len;
        fits
    });
    let moved = match whole.count() {
        all if all == entries.len() => all.div_ceil(2),
        some => some.max(1),
    };
    entries.len() - moved
}

/// Moves the upper half of an index node to a new one; `parent` is the node, and its entry, that lead to it.
fn split_node<B: BlocksMut>(
    dir: &mut Directory<B>,
    node: u32,
    parent: (u32, usize),
) -> Result<(), Error> {
    let Shape { layout, place, .. } = dir.shape;
    let len = IndexView::new(dir.blocks.frame(node)?.as_slice(), layout, place)?.len();
    let (key, upper) = move_tail(dir, node, len / 2)?;
    insert_key(dir, parent, key, upper)
}

/// Puts a level between the root and what it leads to.
fn grow<B: BlocksMut>(dir: &mut Directory<B>, levels: u8) -> Result<(), Error> {
    let (_, below) = move_tail(dir, 0, 0)?;
    change_index(dir, 0, |root| root.set_block(0, below))?;
    dir.blocks.modify(0, |bytes| htree::set_levels(bytes, levels))
}

/// Moves the entries of a node from `at` on to a new node, and says their first key and the new node's block.
fn move_tail<B: BlocksMut>(
    dir: &mut Directory<B>,
    node: u32,
    at: usize,
) -> Result<(u32, u32), Error> {
    let Shape { layout, place, .. } = dir.shape;
    let mut lower = dir.blocks.frame(node)?.as_slice().to_vec();
    let mut index =
        IndexMut::trusted(&mut lower, layout).ok_or_else(|| place.breaks(Rule::IndexLimit))?;
    let (key, upper) =
        dir.blocks.append(|bytes| index.move_tail(at, &mut IndexMut::init_node(bytes, layout)))?;
    dir.blocks.modify(node, |bytes| bytes.copy_from_slice(&lower))?;
    Ok((key, upper))
}

fn insert_key<B: BlocksMut>(
    dir: &mut Directory<B>,
    (node, at): (u32, usize),
    key: u32,
    child: u32,
) -> Result<(), Error> {
    let inserted = change_index(dir, node, |index| index.insert(at + 1, key, child))?;
    assert!(inserted, "the caller has made sure that the node has room");
    Ok(())
}

fn change_index<B: BlocksMut, R>(
    dir: &mut Directory<B>,
    node: u32,
    change: impl FnOnce(&mut IndexMut<'_>) -> R,
) -> Result<R, Error> {
    let Shape { layout, place, .. } = dir.shape;
    let changed = dir.blocks.modify(node, |bytes| {
        IndexMut::trusted(bytes, layout).map(|mut index| change(&mut index))
    })?;
    changed.ok_or_else(|| place.breaks(Rule::IndexLimit).into())
}

/// The entries in use, in the order of the block.
fn used_entries(block: &[u8], layout: DirLayout, place: Place) -> Result<Vec<DirEntry<'_>>, Error> {
    let entries = DirEntries::new(block, layout, place);
    Ok(entries
        .filter(|entry| !matches!(entry, Ok(entry) if entry.inode.is_none()))
        .collect::<Result<_, _>>()?)
}

/// Makes `block` hold these entries of another block and nothing else.
fn pack(block: &mut [u8], layout: DirLayout, from: &[u8], entries: &[DirEntry<'_>]) {
    directory::init(block, layout);
    let end = layout.end_of(block.len());
    let mut at = 0;
    for (i, entry) in entries.iter().enumerate() {
        let used = layout.entry_bytes(entry.name.len());
        block[at..at + used].copy_from_slice(&from[entry.offset..entry.offset + used]);
        let reach = if i + 1 == entries.len() { end - at } else { used };
        directory::set_len(block, layout, at, reach);
        at += used;
    }
}
