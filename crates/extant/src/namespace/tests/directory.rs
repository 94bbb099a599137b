//! Directories against a sorted map of names, in memory and with tiny blocks so that trees get deep.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use extant_device::Frame;
use extant_format::InodeNumber;
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::directory::{DirEntries, DirLayout, NewEntry, init_with_dots};
use extant_format::hash::{CharSign, HashVersion};
use extant_format::htree::{self, IndexRoot, IndexView};
use extant_format::inode::FileType;
use proptest::prelude::*;

use super::super::directory::{Blocks, BlocksMut, Directory, Hashing, Shape};
use super::super::read_dir::DirCursor;
use crate::Error;

#[derive(Debug)]
struct Memory {
    blocks: Vec<Frame>,
    room: u32,
}

impl Blocks for Memory {
    fn count(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap()
    }
    fn frame(&self, n: u32) -> Result<Frame, Error> {
        Ok(self.blocks[usize_from(n)].clone())
    }
}

impl BlocksMut for Memory {
    fn modify<R>(&mut self, n: u32, change: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        Ok(change(self.blocks[usize_from(n)].make_mut()))
    }
    fn append<R>(&mut self, fill: impl FnOnce(&mut [u8]) -> R) -> Result<(R, u32), Error> {
        if self.count() >= self.room {
            return Err(Error::NoInodes);
        }
        let mut frame = Frame::zeroed(self.blocks[0].len());
        let result = fill(frame.make_mut());
        self.blocks.push(frame);
        Ok((result, self.count() - 1))
    }
    fn set_indexed(&mut self, _: bool) -> Result<(), Error> {
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Options {
    block_size: u32,
    has_tail: bool,
    may_index: bool,
    max_levels: u8,
    version: HashVersion,
}

const SMALL: Options = Options {
    block_size: 1024,
    has_tail: true,
    may_index: true,
    max_levels: 1,
    version: HashVersion::HalfMd4,
};

fn ino(n: u32) -> InodeNumber {
    InodeNumber::new(n).unwrap()
}

fn new_directory(options: Options) -> Directory<Memory> {
    let layout = DirLayout {
        block_size: options.block_size,
        has_tail: options.has_tail,
        has_hashes: false,
        has_types: true,
        inodes_count: 1 << 30,
        max_levels: options.max_levels,
    };
    let mut first = Frame::zeroed(usize_from(options.block_size));
    init_with_dots(first.make_mut(), layout, ino(11), ino(2));
    let hashing = Hashing { version: options.version, sign: CharSign::Signed, seed: [1, 2, 3, 4] };
    let shape = Shape {
        layout,
        hashing,
        indexed: false,
        may_index: options.may_index,
        place: Place::Inode(ino(11)),
    };
    Directory { shape, blocks: Memory { blocks: vec![first], room: u32::MAX } }
}

fn entry(name: &[u8], inode: u32) -> NewEntry<'_> {
    NewEntry { name, inode: ino(inode), file_type: FileType::Regular, hash: (0, 0) }
}

fn fill(
    dir: &mut Directory<Memory>,
    names: impl Iterator<Item = Vec<u8>>,
) -> BTreeMap<Vec<u8>, u32> {
    let mut model = BTreeMap::new();
    for (n, name) in (100..).zip(names) {
        dir.insert(&entry(&name, n)).unwrap();
        model.insert(name, n);
    }
    model
}

/// All names, listed in pieces of `piece`.
fn list(dir: &Directory<Memory>, piece: usize) -> Vec<(Vec<u8>, u32)> {
    let (mut all, mut cursor) = (Vec::new(), DirCursor::default());
    loop {
        let before = all.len();
        dir.list(cursor, &mut |listed| {
            all.push((listed.name.to_vec(), listed.inode.get()));
            cursor = listed.next;
            if all.len() - before == piece {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
        if all.len() == before {
            return all;
        }
    }
}

/// The directory says the same as the model, and its tree is sound.
fn check(dir: &Directory<Memory>, model: &BTreeMap<Vec<u8>, u32>) {
    let mut listed = list(dir, 7);
    assert_eq!(listed[..2], [(b".".to_vec(), 11), (b"..".to_vec(), 2)]);
    listed.drain(..2);
    listed.sort();
    assert_eq!(listed, model.iter().map(|(name, &n)| (name.clone(), n)).collect::<Vec<_>>());
    for (name, &n) in model {
        assert_eq!(dir.find(name).unwrap().unwrap().inode, ino(n));
    }
    assert_eq!(dir.find(b"no such name").unwrap(), None);
    assert_eq!(dir.is_empty().unwrap(), model.is_empty());
    if dir.shape.indexed {
        check_tree(dir);
    }
}

/// Every leaf's hashes lie between its key and the next one's, and each block is used once.
fn check_tree(dir: &Directory<Memory>) {
    let Shape { layout, place, hashing, .. } = dir.shape;
    let root = IndexRoot::parse(dir.blocks.blocks[0].as_slice(), layout, place).unwrap();
    let hasher = hashing.hasher(root.version).unwrap();
    let mut nodes = vec![(0, 0_u32, u64::from(u32::MAX) + 1)];
    let mut seen = vec![0];
    for _ in 0..=root.levels {
        let mut below = Vec::new();
        for (node, low, high) in nodes {
            let view =
                IndexView::new(dir.blocks.blocks[usize_from(node)].as_slice(), layout, place)
                    .unwrap();
            for i in 0..view.len() {
                let key = if i == 0 { low } else { view.hash(i) };
                let next = if i + 1 < view.len() { view.hash(i + 1).into() } else { high };
                assert!(u64::from(key) >= low.into() && u64::from(key) < high);
                let child = view.block(i).unwrap();
                seen.push(child);
                below.push((child, key, next));
            }
        }
        nodes = below;
    }
    for (leaf, low, high) in nodes {
        for entry in DirEntries::new(dir.blocks.blocks[usize_from(leaf)].as_slice(), layout, place)
        {
            let entry = entry.unwrap();
            if entry.inode.is_some() {
                let major = hasher.hash(entry.name).major;
                assert!(
                    major >= low & !1 && u64::from(major) < high,
                    "{major:x} in {low:x}..{high:x}"
                );
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..dir.blocks.count()).collect::<Vec<_>>());
}

fn numbered(count: u32, width: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |n| format!("{n:0width$}").into_bytes())
}

#[test]
fn a_second_block_makes_an_index() {
    let mut dir = new_directory(SMALL);
    let model = fill(&mut dir, numbered(100, 20));
    assert!(dir.shape.indexed && dir.blocks.count() > 2);
    check(&dir, &model);
}

#[test]
fn without_the_feature_blocks_are_searched_in_turn() {
    let mut dir = new_directory(Options { may_index: false, ..SMALL });
    let model = fill(&mut dir, numbered(100, 20));
    assert!(!dir.shape.indexed);
    check(&dir, &model);
}

#[test]
fn a_tree_grows_to_two_levels_and_then_says_full() {
    let mut dir = new_directory(SMALL);
    let mut model = BTreeMap::new();
    let error = (0..).find_map(|n: u32| {
        let name = format!("{n:0250}").into_bytes();
        let result = dir.insert(&entry(&name, n + 100));
        model.insert(name, n + 100);
        if n % 4096 == 4095 {
            check(&dir, &model)
        }
        result.err()
    });
    assert!(matches!(error, Some(Error::DirectoryFull)));
    model.pop_last();
    check(&dir, &model);
    // 123 entries in the root, 126 in a node, and at least one name a leaf.
    assert!(model.len() > 15_000);
}

#[test]
fn large_dir_allows_a_third_level() {
    let mut dir = new_directory(Options { max_levels: 2, ..SMALL });
    let model = fill(&mut dir, numbered(40_000, 250));
    let root = dir.blocks.blocks[0].as_slice();
    assert_eq!(IndexRoot::parse(root, dir.shape.layout, dir.shape.place).unwrap().levels, 2);
    check(&dir, &model);
}

#[test]
fn names_of_one_hash_go_on_in_the_next_leaf() {
    let mut dir = new_directory(Options { version: HashVersion::Legacy, ..SMALL });
    let hasher = dir.shape.hashing.hasher(HashVersion::Legacy).unwrap();
    let name = |n: u32| format!("{n:0250}").into_bytes();
    let mut by_hash = BTreeMap::new();
    let pair =
        (0..).find_map(|n| Some([by_hash.insert(hasher.hash(&name(n)).major, n)?, n])).unwrap();
    let low = *by_hash.values().next().unwrap();
    let high = *by_hash.values().next_back().unwrap();
    // Three fill a leaf; the fourth cuts it between the two of one hash.
    let model = fill(&mut dir, [low, pair[0], pair[1], high].into_iter().map(name));
    let view =
        IndexView::new(dir.blocks.blocks[0].as_slice(), dir.shape.layout, dir.shape.place).unwrap();
    assert_eq!((view.len(), view.hash(1)), (2, hasher.hash(&name(pair[0])).major | 1));
    check(&dir, &model);
}

#[test]
fn a_malformed_index_is_passed_over_when_names_are_looked_up() {
    let mut dir = new_directory(SMALL);
    let model = fill(&mut dir, numbered(100, 20));
    dir.blocks.blocks[0].make_mut()[28] = 3;
    for (name, &n) in &model {
        assert_eq!(dir.find(name).unwrap().unwrap().inode, ino(n));
    }
    assert_eq!(list(&dir, 5).len(), 102);
    let refused = dir.insert(&entry(b"new", 7)).unwrap_err();
    assert!(matches!(refused, Error::Corrupt(broken) if broken.rule == Rule::HashVersion));
}

#[test]
fn without_checksums_a_malformed_index_is_given_up() {
    let mut dir = new_directory(Options { has_tail: false, ..SMALL });
    let mut model = fill(&mut dir, numbered(100, 20));
    dir.blocks.blocks[0].make_mut()[28] = 3;
    dir.insert(&entry(b"new", 7)).unwrap();
    model.insert(b"new".to_vec(), 7);
    assert!(!dir.shape.indexed);
    check(&dir, &model);
}

#[test]
fn an_index_that_leads_in_a_circle_comes_to_an_end() {
    let mut dir = new_directory(SMALL);
    fill(&mut dir, numbered(100, 20));
    let layout = dir.shape.layout;
    let root = dir.blocks.blocks[0].make_mut();
    let mut index = htree::IndexMut::trusted(root, layout).unwrap();
    for i in 0..index.len() {
        index.set_block(i, 0);
    }
    assert!(dir.find(b"x").is_err());
    let mut count = 0;
    let listed = dir.list(DirCursor::default(), &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    assert!(listed.is_err() && count == 2);
}

#[test]
fn a_directory_that_cannot_get_a_block_stays_as_it_was() {
    for room in 1..12 {
        let mut dir = new_directory(SMALL);
        dir.blocks.room = room;
        let mut model = BTreeMap::new();
        let error = (0..1000).find_map(|n: u32| {
            let name = format!("{n:040}").into_bytes();
            let result = dir.insert(&entry(&name, n + 100));
            model.insert(name, n + 100);
            result.err()
        });
        assert!(error.is_some());
        model.pop_last();
        check(&dir, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_directory_agrees_with_a_map(
        may_index: bool,
        has_tail: bool,
        tea: bool,
        steps in prop::collection::vec((0..5_u8, any::<u16>(), 1..120_usize), 1..600),
    ) {
        let version = if tea { HashVersion::Tea } else { HashVersion::HalfMd4 };
        let mut dir = new_directory(Options { may_index, has_tail, version, ..SMALL });
        let mut model: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut inode = 100;
        for (kind, which, width) in steps {
            inode += 1;
            if kind < 3 {
                let name = format!("{which:0width$}").into_bytes();
                model.entry(name).or_insert_with_key(|name| {
                    dir.insert(&entry(name, inode)).unwrap();
                    inode
                });
            } else if let Some(name) = model.keys().nth(usize::from(which) % model.len().max(1)).cloned() {
                let at = dir.find(&name).unwrap().unwrap().at;
                if kind == 3 {
                    dir.remove(at).unwrap();
                    model.remove(&name);
                } else {
                    dir.set_inode(at, ino(inode), FileType::Fifo).unwrap();
                    model.insert(name, inode);
                }
            }
        }
        check(&dir, &model);
    }

    #[test]
    fn listing_goes_on_while_names_change(
        piece in 1..20_usize,
        removed in prop::collection::vec(any::<u16>(), 0..50),
    ) {
        let mut dir = new_directory(SMALL);
        let mut model = fill(&mut dir, numbered(200, 30));
        let (mut seen, mut cursor, mut turn) = (Vec::new(), DirCursor::default(), 0_u32);
        let mut removed = removed.into_iter();
        let stays: Vec<_> = model.keys().skip(100).cloned().collect();
        loop {
            let before = seen.len();
            dir.list(cursor, &mut |listed| {
                seen.push(listed.name.to_vec());
                cursor = listed.next;
                if seen.len() - before == piece { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }).unwrap();
            if seen.len() == before {
                break;
            }
            turn += 1;
            let name = format!("new{turn:030}").into_bytes();
            dir.insert(&entry(&name, turn)).unwrap();
            if let Some(name) = removed.next().and_then(|n| model.keys().nth(usize::from(n) % 50).cloned()) {
                let at = dir.find(&name).unwrap().unwrap().at;
                dir.remove(at).unwrap();
                model.remove(&name);
            }
        }
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), seen.len());
        prop_assert!(stays.iter().all(|name| once.binary_search(name).is_ok()));
    }

    #[test]
    fn no_bytes_make_a_directory_panic_or_hang(
        changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..20),
    ) {
        let mut dir = new_directory(Options { has_tail: false, ..SMALL });
        fill(&mut dir, numbered(150, 60));
        let count = dir.blocks.blocks.len();
        for (at, byte) in changes {
            let at = usize::from(at);
            // Half of the changes go to the root, where they reach furthest.
            let (block, at) = if at % 2 == 0 { (0, at / 2 % 80) } else { (at / 2 % count, at % 1024) };
            dir.blocks.blocks[block].make_mut()[at] = byte;
        }
        let _ = dir.find(b"00000");
        let _ = dir.is_empty();
        let (mut cursor, mut calls) = (DirCursor::default(), 0);
        loop {
            let before = cursor;
            let _ = dir.list(cursor, &mut |listed| {
                cursor = listed.next;
                ControlFlow::Break(())
            });
            calls += 1;
            prop_assert!(calls < 3000);
            if cursor == before {
                break;
            }
        }
        dir.blocks.room = 60;
        for n in 0..40 {
            let _ = dir.insert(&entry(format!("x{n}").as_bytes(), 50));
        }
    }
}
