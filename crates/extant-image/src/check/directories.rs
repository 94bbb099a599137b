//! Every directory: blocks, entries and names, and what its index says of them.
//!
//! Directories are taken in the order of their first blocks, and each by one worker.
//!
//! Source: e2fsprogs `e2fsck/pass2.c`, `check_dir_block`, `check_dot`, `check_dotdot`, `check_name`, `check_filetype`.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::directory::{self, DirEntries, DirEntry, DirLayout};
use extant_format::{Compat, Incompat, InodeFlags, InodeNumber, PhysicalBlock, htree, inline};

use super::finding::{Place, Value};
use super::image::{EA_INODE, Image, Inode, le16};
use super::index::IndexCheck;
use super::inodes::{DirRun, Directory};
use super::report::Findings;
use super::rule::Rule;

/// What one worker has learned of directories.
pub(super) struct Worker<'a, 'b> {
    image: &'a Image<'b>,
    pub(super) findings: Findings,
    /// Subdirectories, each with a directory that names it.
    pub(super) children: Vec<(u32, u32)>,
    /// Directories, each with where its `..` leads.
    pub(super) parents: Vec<(u32, u32)>,
    /// Where `lost+found` in the root leads.
    pub(super) lost_found: Option<u32>,
    names: Vec<Name>,
    piece: Vec<u8>,
}

/// A name of the directory under way: its hash, its block, and its place there.
type Name = (u64, u32, u32);

/// One block of the directory under way.
#[derive(Clone, Copy)]
struct Block<'a> {
    directory: &'a Directory,
    layout: DirLayout,
    inode: InodeNumber,
    /// Its number in the file.
    logical: u32,
    /// Where it lies; `None` for a run of entries in the inode.
    at: Option<PhysicalBlock>,
}

impl Block<'_> {
    fn place(&self) -> Place {
        let place = Place::inode(self.inode).logical(self.logical);
        match self.at {
            Some(at) => place.block(at),
            None => place,
        }
    }

    fn has(&self, flags: InodeFlags) -> bool {
        self.directory.flags & flags.bits() != 0
    }
}

impl<'a, 'b> Worker<'a, 'b> {
    pub(super) fn new(image: &'a Image<'b>, limit: usize) -> Self {
        Self {
            image,
            findings: Findings::new(limit),
            children: Vec::new(),
            parents: Vec::new(),
            lost_found: None,
            names: Vec::new(),
            piece: Vec::new(),
        }
    }

    /// Looks at one directory.
    pub(super) fn directory(
        &mut self,
        directory: &Directory,
        runs: &[DirRun],
    ) -> Result<(), DeviceError> {
        let Some(inode) = InodeNumber::new(directory.inode) else { return Ok(()) };
        let flags = InodeFlags::from_bits_retain(directory.flags);
        let layout = DirLayout {
            // Numbers are judged here, so that a wrong one does not hide what follows.
            inodes_count: u32::MAX,
            ..DirLayout::of(&self.image.geometry, flags)
        };
        self.names.clear();
        if flags.contains(InodeFlags::INLINE_DATA) {
            return self.inline(directory, layout, inode);
        }
        let mut index = self.index(directory, layout, inode, runs);
        let mut piece = core::mem::take(&mut self.piece);
        let block_len = self.image.geometry.block_len();
        let piece_blocks = low_u32(u64_from(PIECE_BYTES / block_len)).max(1);
        let mut next = 0;
        for &(logical, start, len) in runs {
            self.check_hole(directory, inode, next, logical);
            next = logical.saturating_add(len);
            let mut done = 0;
            while done < len {
                let now = piece_blocks.min(len - done);
                piece.resize(usize_from(now) * block_len, 0);
                let Some(from) = start.checked_add(done.into()) else { break };
                self.image.io.read(from, &mut piece)?;
                for (n, bytes) in (0..).zip(piece.chunks_exact(block_len)) {
                    let logical = logical.saturating_add(done).saturating_add(n);
                    let at = from.checked_add(n.into());
                    let block = Block { directory, layout, inode, logical, at };
                    self.block(&block, bytes, index.as_mut());
                }
                done += now;
            }
        }
        self.check_hole(directory, inode, next, directory.blocks);
        self.piece = piece;
        if let Some(index) = index {
            index.judge(&mut self.findings);
        }
        self.check_names(inode, runs, self.is_strict(directory))
    }

    fn index(
        &self,
        directory: &Directory,
        layout: DirLayout,
        inode: InodeNumber,
        runs: &[DirRun],
    ) -> Option<IndexCheck> {
        let flags = InodeFlags::from_bits_retain(directory.flags);
        let is_on = flags.contains(InodeFlags::INDEX) && self.image.compat(Compat::DIR_INDEX);
        let blocks = runs.iter().fold(0_u64, |sum, (.., len)| sum.saturating_add((*len).into()));
        (is_on && blocks <= MOST_INDEXED)
            .then(|| IndexCheck::new(self.image, flags, layout, inode, runs))
    }

    /// With extents, holes are known from the map already.
    fn check_hole(&mut self, directory: &Directory, inode: InodeNumber, next: u32, logical: u32) {
        let is_mapped = directory.flags & InodeFlags::EXTENTS.bits() != 0;
        if next < logical && !is_mapped && !self.image.incompat(Incompat::LARGEDIR) {
            let run = Value::Run(next.into(), u64::from(logical) - 1);
            self.findings.add(Rule::DirectoryHole, Place::inode(inode).logical(next), run, ());
        }
    }

    fn block(&mut self, block: &Block<'_>, bytes: &[u8], index: Option<&mut IndexCheck>) {
        let found = self.findings.count();
        let mut layout = block.layout;
        let mut index = index;
        let is_inner = match &mut index {
            Some(index) => index.inner(block.logical, bytes, &block.place(), &mut self.findings),
            None => false,
        };
        let summed = layout.has_tail;
        if is_inner {
            let rule = match block.logical {
                0 => Rule::IndexRootChecksum,
                _ => Rule::IndexNodeChecksum,
            };
            let sound = !summed || htree::verify_checksum(bytes, layout, block.directory.seed);
            if !sound && self.findings.count() == found {
                self.findings.add(rule, block.place(), (), ());
            }
            if block.logical > 0 {
                return;
            }
            layout.has_tail = false;
            return self.entries(block, layout, bytes, None);
        }
        let has_tail = directory::has_tail(bytes);
        if summed && !has_tail {
            self.findings.add(Rule::DirectoryTail, block.place(), (), ());
            layout.has_tail = false;
        }
        self.entries(block, layout, bytes, index);
        let is_sound = !summed || directory::verify_checksum(bytes, block.directory.seed);
        if has_tail && !is_sound && self.findings.count() == found {
            self.findings.add(Rule::DirectoryChecksum, block.place(), (), ());
        }
    }

    /// The entries of a block; those of the first begin with the two dots.
    fn entries(
        &mut self,
        block: &Block<'_>,
        layout: DirLayout,
        bytes: &[u8],
        mut index: Option<&mut IndexCheck>,
    ) {
        let has_dots = block.logical == 0 && block.at.is_some();
        let walk_from = |at| {
            let nowhere = extant_format::Place::Inode(block.inode);
            DirEntries::new(bytes, layout, nowhere).starting_at(at)
        };
        let (mut walk, mut at, mut ordinal) = (walk_from(0), 0, 0_u32);
        while let Some(entry) = walk.next() {
            let Ok(entry) = entry else {
                // A name of no bytes is wrong, but tells where the next entry is.
                let next = nameless_end(bytes, layout, at);
                let rule = if next.is_some() { Rule::EntryEmpty } else { Rule::EntryLength };
                self.findings.add(rule, block.place().offset(at), (), ());
                let Some(next) = next else { return };
                (walk, at, ordinal) = (walk_from(next), next, ordinal + 1);
                continue;
            };
            match (has_dots, ordinal) {
                (true, 0) => self.dot(block, &entry),
                (true, 1) => self.dot_dot(block, &entry),
                _ => {
                    self.entry(block, &entry);
                    if let (Some(index), Some(_)) = (&mut index, entry.inode) {
                        index.name(block.logical, &entry);
                    }
                }
            }
            if let Some(inode) = entry.inode {
                self.target(block, &entry, inode, bytes, has_dots && ordinal < 2);
            }
            (at, ordinal) = (entry.offset.saturating_add(entry.len), ordinal + 1);
        }
        if has_dots && ordinal < 2 {
            let rule = if ordinal == 0 { Rule::DotMissing } else { Rule::DotDotMissing };
            self.findings.add(rule, block.place(), (), ());
        }
    }

    fn dot(&mut self, block: &Block<'_>, entry: &DirEntry<'_>) {
        let place = || block.place().name(entry.name);
        match entry.inode {
            None => self.findings.add(Rule::DotMissing, block.place(), (), ()),
            Some(_) if entry.name != b"." => self.findings.add(Rule::DotFirst, place(), (), ()),
            Some(inode) if inode != block.inode => {
                self.findings.add(Rule::DotInode, place(), inode, block.inode);
            }
            Some(_) if entry.len > 24 => {
                self.findings.add(Rule::DotLength, place(), u64_from(entry.len), 12_u32);
            }
            Some(_) => {}
        }
    }

    fn dot_dot(&mut self, block: &Block<'_>, entry: &DirEntry<'_>) {
        match entry.inode {
            None => self.findings.add(Rule::DotDotMissing, block.place(), (), ()),
            Some(_) if entry.name != b".." => {
                let place = block.place().name(entry.name);
                self.findings.add(Rule::DotDotSecond, place, (), ());
            }
            Some(parent) => self.parents.push((block.inode.get(), parent.get())),
        }
    }

    /// What holds of a name that is no dot.
    fn entry(&mut self, block: &Block<'_>, entry: &DirEntry<'_>) {
        let Some(inode) = entry.inode else { return };
        let place = || block.place().offset(entry.offset).name(entry.name);
        let rule = match entry.name {
            b"." => Some(Rule::DotAgain),
            b".." => Some(Rule::DotDotAgain),
            b"" => Some(Rule::EntryEmpty),
            _ if inode == block.inode => Some(Rule::EntrySelf),
            _ if inode == InodeNumber::ROOT => Some(Rule::EntryRoot),
            _ => None,
        };
        if let Some(rule) = rule {
            return self.findings.add(rule, place(), inode, ());
        }
        if block.has(InodeFlags::ENCRYPT) {
            if entry.name.len() < LEAST_ENCRYPTED {
                let len = u64_from(entry.name.len());
                self.findings.add(Rule::EncryptedName, place(), len, LEAST_ENCRYPTED_NAME);
            }
        } else if entry.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            self.findings.add(Rule::EntryName, place(), (), ());
        } else if self.is_strict(block.directory) && core::str::from_utf8(entry.name).is_err() {
            self.findings.add(Rule::EncodedName, place(), (), ());
        }
        let hash = hash_of(&key_of(entry.name, self.is_strict(block.directory)));
        self.names.push((hash, block.logical, low_u32(u64_from(entry.offset))));
        let is_root = block.inode == InodeNumber::ROOT;
        if is_root && entry.name == b"lost+found" {
            self.lost_found = Some(inode.get());
        }
    }

    /// Whether names of a directory have to be text, and differ in more than case.
    fn is_strict(&self, directory: &Directory) -> bool {
        let flags = InodeFlags::from_bits_retain(directory.flags);
        let image = self.image;
        let is_on = image.incompat(Incompat::CASEFOLD) && !flags.contains(InodeFlags::ENCRYPT);
        let is_strict = image.raw.encoding_flags.get() & STRICT_ENCODING != 0;
        is_on && is_strict && flags.contains(InodeFlags::CASEFOLD)
    }

    /// What holds of the inode that an entry leads to.
    fn target(
        &mut self,
        block: &Block<'_>,
        entry: &DirEntry<'_>,
        inode: InodeNumber,
        bytes: &[u8],
        is_dots: bool,
    ) {
        let image = self.image;
        let number = inode.get();
        let place = || block.place().offset(entry.offset).name(entry.name);
        let Some((group, index)) = image.geometry.inode_place(inode) else {
            return self.findings.add(Rule::EntryInode, place(), inode, ());
        };
        if image.is_own_inode(number) {
            return self.findings.add(Rule::EntryInode, place(), inode, ());
        }
        let Some(fact) = image.fact(number).filter(|fact| fact.is_used()) else {
            let group = image.groups.get(usize_from(group.get()));
            let rule = match group {
                Some(group) if group.descriptor.inodes_are_uninitialized(&image.geometry) => {
                    Rule::EntryUninit
                }
                Some(group) if index >= image.used_part(group) => Rule::EntryUnusedPart,
                _ => Rule::EntryDeleted,
            };
            return self.findings.add(rule, place(), inode, ());
        };
        if fact.has(EA_INODE) {
            self.findings.add(Rule::EntryEaInode, place(), inode, ());
        }
        let stored = bytes.get(entry.offset.saturating_add(7)).copied().unwrap_or(0);
        let expected = fact.file_type().map_or(0, extant_format::FileType::entry_byte);
        if !block.layout.has_types {
            if stored != 0 {
                self.findings.add(Rule::EntryTypeUnknown, place(), u64::from(stored), 0_u32);
            }
        } else if stored == 0 && expected != 0 {
            self.findings.add(Rule::EntryTypeUnset, place(), 0_u32, u64::from(expected));
        } else if stored != expected && expected != 0 {
            let (stored, expected) = (u64::from(stored), u64::from(expected));
            self.findings.add(Rule::EntryType, place(), stored, expected);
        }
        fact.count();
        if !is_dots && fact.is_directory() && inode != block.inode {
            self.children.push((number, block.inode.get()));
        }
    }

    /// Looks for names that occur twice: equal hashes first, then the names themselves.
    fn check_names(
        &mut self,
        inode: InodeNumber,
        runs: &[DirRun],
        is_folded: bool,
    ) -> Result<(), DeviceError> {
        let mut names = core::mem::take(&mut self.names);
        names.sort_unstable();
        for (first, second) in names.iter().zip(names.iter().skip(1)) {
            if first.0 != second.0 {
                continue;
            }
            let (one, other) = (self.name_at(first, runs)?, self.name_at(second, runs)?);
            let (Some(one), Some(other)) = (one, other) else { continue };
            if key_of(&one, is_folded) == key_of(&other, is_folded) {
                let place = Place::inode(inode).logical(second.1);
                let place = place.offset(usize_from(second.2)).name(&other);
                self.findings.add(Rule::NameTwice, place, (), ());
            }
        }
        self.names = names;
        Ok(())
    }

    fn name_at(&self, name: &Name, runs: &[DirRun]) -> Result<Option<Vec<u8>>, DeviceError> {
        let after = runs.partition_point(|(logical, ..)| *logical <= name.1);
        let run = after.checked_sub(1).and_then(|n| runs.get(n));
        let at = run.and_then(|(logical, start, _)| {
            start.checked_add(u64::from(name.1.checked_sub(*logical)?))
        });
        let Some(at) = at else { return Ok(None) };
        let bytes = self.image.io.block(at)?;
        let entry = bytes.get(usize_from(name.2)..).unwrap_or_default();
        let len = entry.get(6).copied().map_or(0, usize::from);
        Ok(entry.get(8..).and_then(|rest| rest.get(..len)).map(<[u8]>::to_vec))
    }

    /// A directory in its inode: the parent, and two runs of entries.
    fn inline(
        &mut self,
        directory: &Directory,
        layout: DirLayout,
        inode: InodeNumber,
    ) -> Result<(), DeviceError> {
        let Some(bytes) = self.image.read_inode(inode)? else { return Ok(()) };
        let Some(node) = Inode::new(inode, &bytes) else { return Ok(()) };
        let at = extant_format::Place::Inode(inode);
        let size = node.extra_size();
        let data = inline::InlineData::of(&bytes, size, at, &self.image.geometry);
        let Ok(data) = data else { return Ok(()) };
        let len = data.len();
        if len & 3 != 0 || !data.tail.is_empty() && data.tail.len() < 12 {
            let place = Place::inode(inode);
            self.findings.add(Rule::InlineDirectorySize, place, u64_from(len), ());
        }
        let block = Block { directory, layout: layout.inline(), inode, logical: 0, at: None };
        let (parent, first) = data.head.split_at(inline::PARENT_BYTES);
        let parent = parent.first_chunk().copied().map_or(0, u32::from_le_bytes);
        self.parents.push((directory.inode, parent));
        for number in [directory.inode, parent] {
            if let Some(fact) = self.image.fact(number).filter(|fact| fact.is_used()) {
                fact.count();
            }
        }
        self.entries(&block, layout.inline(), first, None);
        self.entries(&block, layout.inline(), data.tail, None);
        self.inline_names(inode, [first, data.tail], layout.inline());
        Ok(())
    }

    /// Names of an inline directory are few, so they are compared as they are.
    fn inline_names(&mut self, inode: InodeNumber, parts: [&[u8]; 2], layout: DirLayout) {
        let at = extant_format::Place::Inode(inode);
        let used = |part| DirEntries::new(part, layout, at).filter_map(Result::ok);
        let all = parts.into_iter().flat_map(used).filter(|entry| entry.inode.is_some());
        let mut names: Vec<&[u8]> = all.map(|entry| entry.name).collect();
        names.sort_unstable();
        for (one, other) in names.iter().zip(names.iter().skip(1)) {
            if one == other {
                self.findings.add(Rule::NameTwice, Place::inode(inode).name(one), (), ());
            }
        }
    }
}

/// Where the entry after the one at `at` starts, if that is in use, has no name, and is sound otherwise.
fn nameless_end(bytes: &[u8], layout: DirLayout, at: usize) -> Option<usize> {
    let entry = bytes.get(at..)?;
    let len = usize::from(le16(entry, 4)?);
    let end = at.checked_add(len)?;
    let is_sound = len >= 12 && len.is_multiple_of(4) && end <= layout.end_of(bytes.len());
    (is_sound && entry.get(6) == Some(&0)).then_some(end)
}

/// What a name is hashed and, where names have to be text, compared by: in a casefolded directory the folded name.
pub(super) fn key_of(name: &[u8], is_folded: bool) -> Cow<'_, [u8]> {
    #[cfg(feature = "std")]
    if let Some(folded) = is_folded.then(|| super::casefold::fold(name)).flatten() {
        return Cow::Owned(folded);
    }
    // Without `std` there are no tables of characters.
    let _ = is_folded;
    Cow::Borrowed(name)
}

/// Tells names apart; FNV-1a.
fn hash_of(name: &[u8]) -> u64 {
    name.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// The superblock's flag of file systems that refuse names which are no text.
const STRICT_ENCODING: u16 = 1;
/// Bytes of directories that are read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Blocks of a directory whose index is judged: more would take much memory, and no directory has so many.
const MOST_INDEXED: u64 = 1 << 22;
/// Bytes of the shortest encrypted name: one block of the cipher.
const LEAST_ENCRYPTED: usize = 16;
const LEAST_ENCRYPTED_NAME: u32 = 16;
