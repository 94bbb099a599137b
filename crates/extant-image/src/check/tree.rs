//! How directories hang together, and how many names each inode has.
//!
//! Source: e2fsprogs `e2fsck/pass3.c`, `check_directory`, `check_root`; `e2fsck/pass4.c`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use extant_format::{BlockGroup, InodeFlags, InodeNumber, RoCompat};

use super::finding::Place;
use super::image::{EA_INODE, INDEXED, Image, UNCOUNTED};
use super::inodes::Directory;
use super::report::Findings;
use super::rule::Rule;

/// What the pass over directories has gathered.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Subdirectories, each with a directory that names it.
    pub(super) children: Vec<(u32, u32)>,
    /// Directories, each with where its `..` leads.
    pub(super) parents: BTreeMap<u32, u32>,
    /// Where `lost+found` in the root leads.
    pub(super) lost_found: Option<u32>,
}

/// Judges how directories hang together.
pub(super) fn judge(
    image: &Image<'_>,
    mut family: Family,
    directories: &[Directory],
    findings: &mut Findings,
) {
    let root = InodeNumber::ROOT.get();
    if !image.fact(root).is_some_and(|fact| fact.is_directory()) {
        return findings.add(Rule::RootMissing, Place::inode(InodeNumber::ROOT), (), ());
    }
    family.children.sort_unstable();
    let mut named: BTreeMap<u32, u32> = BTreeMap::new();
    for group in family.children.chunk_by(|(one, _), (other, _)| one == other) {
        let Some(&(child, first)) = group.first() else { continue };
        let own = family.parents.get(&child).copied();
        // Of several, the one counts that the directory itself takes for its parent.
        let parent = group.iter().map(|(_, parent)| *parent).find(|parent| Some(*parent) == own);
        let parent = parent.unwrap_or(first);
        named.insert(child, parent);
        let mut is_told = false;
        for &(_, other) in group {
            let again = other == parent && core::mem::replace(&mut is_told, true);
            if other != parent || again {
                tell(Rule::TwoParents, child, other, parent, findings);
            }
        }
    }
    check_roads(directories, &named, findings);
    for (&directory, &found) in &family.parents {
        let expected = if directory == root { Some(root) } else { named.get(&directory).copied() };
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            tell(Rule::DotDot, directory, found, expected, findings);
        }
    }
    check_lost_found(image, family.lost_found, directories, findings);
}

fn tell(rule: Rule, directory: u32, found: u32, expected: u32, findings: &mut Findings) {
    if let Some(inode) = InodeNumber::new(directory) {
        let inode_of = super::finding::Value::Inode;
        findings.add(rule, Place::inode(inode), inode_of(found), inode_of(expected));
    }
}

/// Follows every directory up to the root, each part of the road once.
fn check_roads(directories: &[Directory], named: &BTreeMap<u32, u32>, findings: &mut Findings) {
    const ROAD: u32 = 0;
    let root = InodeNumber::ROOT.get();
    // By directory, the turn in which it was passed.
    let mut passed: BTreeMap<u32, u32> = BTreeMap::new();
    passed.insert(root, ROAD);
    for (turn, start) in (1..).zip(directories) {
        let mut at = start.inode;
        loop {
            match passed.get(&at) {
                None => {}
                Some(before) => {
                    if *before == turn {
                        tell_one(Rule::DirectoryLoop, at, findings);
                    }
                    break;
                }
            }
            passed.insert(at, turn);
            let Some(parent) = named.get(&at) else {
                tell_one(Rule::Unconnected, at, findings);
                break;
            };
            at = *parent;
        }
    }
}

fn tell_one(rule: Rule, directory: u32, findings: &mut Findings) {
    if let Some(inode) = InodeNumber::new(directory) {
        findings.add(rule, Place::inode(inode), (), ());
    }
}

fn check_lost_found(
    image: &Image<'_>,
    lost_found: Option<u32>,
    directories: &[Directory],
    findings: &mut Findings,
) {
    let Some(number) = lost_found else {
        return findings.add(Rule::LostFoundMissing, Place::inode(InodeNumber::ROOT), (), ());
    };
    let is_directory = image.fact(number).is_some_and(|fact| fact.is_directory());
    if !is_directory {
        return tell_one(Rule::LostFoundType, number, findings);
    }
    let own = directories.iter().find(|directory| directory.inode == number);
    let flags = InodeFlags::from_bits_retain(own.map_or(0, |own| own.flags));
    if flags.contains(InodeFlags::INLINE_DATA) {
        tell_one(Rule::LostFoundInline, number, findings);
    }
    if flags.contains(InodeFlags::ENCRYPT) {
        tell_one(Rule::LostFoundEncrypted, number, findings);
    }
}

/// Compares the names counted with the links stored.
pub(super) fn judge_links(
    image: &Image<'_>,
    references: &BTreeMap<u32, u64>,
    findings: &mut Findings,
) {
    for (group, facts) in (0..).map(BlockGroup).zip(&image.facts) {
        let first = image.first_inode_of(group);
        for (n, fact) in (0..).zip(facts.iter()) {
            if !fact.is_used() || fact.has(UNCOUNTED) {
                continue;
            }
            let number = first.saturating_add(n);
            let Some(inode) = InodeNumber::new(number) else { continue };
            let (links, mut names) = (u32::from(fact.links), fact.names.load(Relaxed));
            let at = || Place::inode(inode);
            if fact.has(EA_INODE) && names == 0 {
                if !references.contains_key(&number) {
                    findings.add(Rule::Unattached, at(), links, 0_u32);
                }
                continue;
            }
            if names == 0 {
                findings.add(Rule::Unattached, at(), links, 0_u32);
                continue;
            }
            let is_directory = fact.is_directory();
            if is_directory && names > MOST_LINKS {
                if !image.ro_compat(RoCompat::DIR_NLINK) {
                    findings.add(Rule::ManyLinks, at(), names, MOST_LINKS);
                }
                names = 1;
            }
            if links == names {
                continue;
            }
            let was_many = is_directory && names > 1 && fact.has(INDEXED) && links == 1;
            let rule = if was_many { Rule::LinkOverflow } else { Rule::LinkCount };
            findings.add(rule, at(), links, names);
        }
    }
}

/// Names that are counted; a directory with more has a count of 1.
const MOST_LINKS: u32 = 65_000;
