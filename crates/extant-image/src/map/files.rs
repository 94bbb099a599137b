//! [`Files`]: counts of all files, and the few that are worth a look: the largest and the most scattered ones.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use extant_format::{FileType, InodeNumber, InodeRecord};

use super::Visitor;
use crate::reader::{MapRun, ReadError, Reader};

/// A file that is worth a look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileFound {
    /// Which.
    pub inode: InodeNumber,
    /// Bytes.
    pub size: u64,
    /// Blocks of its contents.
    pub blocks: u64,
    /// Runs that do not lie where the one before would go on ([`fragments`]).
    pub fragments: u64,
    /// Where it lies, coarsely: first block and blocks, at most [`MOST_SEGMENTS`], by place. Gaps too small to be seen are
    /// counted in.
    pub segments: Vec<(u64, u64)>,
    /// Its first runs as they are, in the order of the file.
    pub runs: Vec<MapRun>,
    /// Its path, once [`Files::name_all`] has found one.
    pub path: Vec<u8>,
}

impl FileFound {
    /// A file by its runs; `gap` blocks between two of them cannot be seen.
    pub fn new(inode: InodeNumber, size: u64, runs: &[MapRun], gap: u64) -> Self {
        let blocks = runs.iter().map(|run| u64::from(run.blocks.len())).sum();
        let first_runs = runs.iter().take(MOST_RUNS).copied().collect();
        let segments = segments(runs, gap);
        let fragments = fragments(runs);
        Self { inode, size, blocks, fragments, segments, runs: first_runs, path: Vec::new() }
    }
}

/// Files of an image, counted, and the most remarkable ones of them.
#[derive(Clone, Debug)]
pub struct Files {
    gap: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// All else that has a name: links, devices, pipes, sockets.
    pub others: u64,
    /// Regular files with contents on the device.
    pub with_blocks: u64,
    /// Those of them that lie in one piece.
    pub in_one_piece: u64,
    /// Pieces of all of them.
    pub fragments: u64,
    /// The largest files, by bytes on the device.
    pub largest: Vec<FileFound>,
    /// The files in most pieces; each has two or more.
    pub most_scattered: Vec<FileFound>,
    /// Where names are looked for.
    in_which: Vec<InodeNumber>,
}

impl Files {
    /// Nothing seen yet; pictures do not show `gap` blocks.
    pub const fn new(gap: u64) -> Self {
        Self {
            gap,
            files: 0,
            directories: 0,
            others: 0,
            with_blocks: 0,
            in_one_piece: 0,
            fragments: 0,
            largest: Vec::new(),
            most_scattered: Vec::new(),
            in_which: Vec::new(),
        }
    }

    /// Makes a file the first of the largest, whatever its size.
    pub fn put_first(&mut self, file: FileFound) {
        self.largest.retain(|other| other.inode != file.inode);
        self.largest.insert(0, file);
    }

    /// Finds a path of each file that was kept, as far as directories can be read: one pass over all of them.
    pub fn name_all(&mut self, reader: &Reader<'_>) {
        let kept = self.largest.iter().chain(&self.most_scattered);
        let mut nameless: BTreeSet<InodeNumber> = kept.map(|file| file.inode).collect();
        let mut names = BTreeMap::new();
        for directory in &self.in_which {
            if nameless.is_empty() {
                break;
            }
            // A directory that makes no sense has no names for us; others may.
            let _ = reader.names(*directory, &mut |entry| {
                if let Some(inode) = entry.inode
                    && nameless.remove(&inode)
                {
                    names.insert(inode, (*directory, entry.name.to_vec()));
                }
                !nameless.is_empty()
            });
        }
        let mut above = BTreeMap::new();
        for file in self.largest.iter_mut().chain(&mut self.most_scattered) {
            if let Some((parent, name)) = names.get(&file.inode) {
                file.path = [&path_of(reader, *parent, &mut above)[..], b"/", name].concat();
            }
        }
    }
}

impl Visitor for Files {
    fn inode(&mut self, inode: InodeNumber, record: &InodeRecord, runs: &[MapRun]) {
        match record.file_type() {
            Some(FileType::Directory) => {
                self.directories = self.directories.saturating_add(1);
                self.in_which.push(inode);
                return;
            }
            // The journal has no name.
            Some(FileType::Regular) if record.links > 0 && inode.get() > LAST_RESERVED => {}
            Some(FileType::Regular) | None => return,
            Some(_) => {
                self.others = self.others.saturating_add(1);
                return;
            }
        }
        self.files = self.files.saturating_add(1);
        if runs.is_empty() {
            return;
        }
        let blocks: u64 = runs.iter().map(|run| u64::from(run.blocks.len())).sum();
        let pieces = fragments(runs);
        self.with_blocks = self.with_blocks.saturating_add(1);
        self.in_one_piece = self.in_one_piece.saturating_add(u64::from(pieces == 1));
        self.fragments = self.fragments.saturating_add(pieces);
        let found = || FileFound::new(inode, record.size, runs, self.gap);
        keep(&mut self.largest, blocks, |file| file.blocks, found);
        if pieces > 1 {
            keep(&mut self.most_scattered, pieces, |file| file.fragments, found);
        }
    }
}

/// Puts a file into a list that has the largest `measure` first, unless it is full of larger ones.
fn keep(
    list: &mut Vec<FileFound>,
    measured: u64,
    measure: impl Fn(&FileFound) -> u64,
    found: impl FnOnce() -> FileFound,
) {
    let place = list.partition_point(|file| Reverse(measure(file)) <= Reverse(measured));
    if place < MOST_FILES {
        list.truncate(MOST_FILES.saturating_sub(1));
        list.insert(place, found());
    }
}

/// Pieces of a file: runs that lie neither right behind the one before nor where that would be after the hole between them.
///
/// Source: filefrag(8), which counts so.
pub fn fragments(runs: &[MapRun]) -> u64 {
    let breaks = runs.windows(2).filter(|pair| expected(pair).is_some());
    u64::from(!runs.is_empty()).saturating_add(extant_format::cast::u64_from(breaks.count()))
}

/// Where the second of two runs would be if the file went on; `None` if it is there.
pub fn expected(pair: &[MapRun]) -> Option<u64> {
    let [before, next] = pair else { return None };
    let behind = before.start.get().saturating_add(before.blocks.len().into());
    let distance = next.blocks.start().get().saturating_sub(before.blocks.start().get());
    let with_hole = before.start.get().saturating_add(distance.into());
    (next.start.get() != behind && next.start.get() != with_hole).then_some(behind)
}

/// Runs by place, joined over gaps of up to `gap` blocks, and over larger ones until there are few enough.
fn segments(runs: &[MapRun], gap: u64) -> Vec<(u64, u64)> {
    let mut places: Vec<(u64, u64)> =
        runs.iter().map(|run| (run.start.get(), run.blocks.len().into())).collect();
    places.sort_unstable();
    let mut gap = gap;
    loop {
        places.dedup_by(|next, place| {
            let end = place.0.saturating_add(place.1);
            let joins = next.0 <= end.saturating_add(gap);
            if joins {
                place.1 = end.max(next.0.saturating_add(next.1)).saturating_sub(place.0);
            }
            joins
        });
        if places.len() <= MOST_SEGMENTS {
            return places;
        }
        gap = gap.saturating_mul(2).max(1);
    }
}

/// The path of a directory, by its parents and their names; `...` stands for what cannot be found.
fn path_of(
    reader: &Reader<'_>,
    directory: InodeNumber,
    known: &mut BTreeMap<InodeNumber, Vec<u8>>,
) -> Vec<u8> {
    let (mut names, mut at) = (Vec::new(), directory);
    let above = loop {
        if at.get() == ROOT {
            break Vec::new();
        }
        if let Some(path) = known.get(&at) {
            break path.clone();
        }
        match name_above(reader, at) {
            Some((parent, name)) if names.len() < DEEPEST => {
                names.push(name);
                at = parent;
            }
            _ => break b"/...".to_vec(),
        }
    };
    let path = names.iter().rev().fold(above, |path, name| [&path[..], b"/", name].concat());
    known.insert(directory, path.clone());
    path
}

/// The parent of a directory and the name that it has there.
fn name_above(reader: &Reader<'_>, directory: InodeNumber) -> Option<(InodeNumber, Vec<u8>)> {
    let parent = parent_of(reader, directory).ok()??;
    let mut name = None;
    // Whatever was found before an error is found.
    let _ = reader.names(parent, &mut |entry| {
        if entry.inode == Some(directory) && !entry.is_dots() {
            name = Some(entry.name.to_vec());
        }
        name.is_none()
    });
    Some((parent, name?))
}

fn parent_of(
    reader: &Reader<'_>,
    directory: InodeNumber,
) -> Result<Option<InodeNumber>, ReadError> {
    let mut parent = None;
    reader.names(directory, &mut |entry| {
        if entry.name == b".." {
            parent = entry.inode;
        }
        parent.is_none()
    })?;
    Ok(parent)
}

/// The most segments of one file.
pub const MOST_SEGMENTS: usize = 200;
/// The most files of each list.
const MOST_FILES: usize = 40;
/// The most runs of a file that are kept.
const MOST_RUNS: usize = 24;
const ROOT: u32 = 2;
const LAST_RESERVED: u32 = 10;
/// Directories above each other that a path is followed through.
const DEEPEST: usize = 256;
