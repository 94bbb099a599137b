//! How large an image has to be: what all files take is counted ahead, and the smallest layout that has so much free is looked
//! for.

use std::collections::HashSet;

use extant_format::FileType;

use super::tree::{Kind, NodeId};
use super::{Build, BuildError, Origin};
use crate::mkfs::{MkfsError, MkfsOptions, Plan};

/// What all files take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Blocks, with a little more for directories and attributes than is sure.
    pub blocks: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes in files.
    pub bytes: u64,
}

/// How much room there shall be beside what all files take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Room {
    /// Hardly any: inodes for a few files more.
    #[default]
    Little,
    /// So many bytes, with inodes as mke2fs gives them.
    Bytes(u64),
    /// So much of what all files take, with inodes for files that are as small.
    Percent(u64),
}

impl Needs {
    /// The same with more room, in blocks of `block` bytes.
    #[must_use]
    pub fn with(self, room: Room, block: u32) -> Self {
        let block = u64::from(block);
        let (bytes, as_small) = match room {
            Room::Little => (0, 0),
            Room::Bytes(bytes) => (bytes, 0),
            Room::Percent(percent) => {
                (self.blocks * block / 100 * percent, self.inodes * percent / 100)
            }
        };
        let few = (self.inodes / 64).max(16);
        Self {
            blocks: self.blocks + bytes.div_ceil(block),
            inodes: self.inodes + few.max(as_small).max(bytes / BYTES_PER_INODE),
            ..self
        }
    }
}

impl Build {
    /// Whether there is a directory that may need an index of three levels, in blocks of `block` bytes: feature `large_dir`.
    pub fn has_large_directory(&self, block: u32) -> bool {
        let block = u64::from(block);
        // Heads and tails of blocks aside; nodes are half full at least.
        let most = (block / 8 - 6) * (block / 8 - 2) / 2;
        let mut ahead = vec![NodeId::ROOT];
        while let Some(directory) = ahead.pop() {
            if directory_blocks(self.entry_bytes(directory), block) > most {
                return true;
            }
            ahead.extend(
                self.tree.children(directory).filter(|child| self.tree.is_directory(*child)),
            );
        }
        false
    }

    /// Counts what all files take, in blocks of `block` bytes.
    pub fn needs(&self, block: u32) -> Needs {
        let (mut needs, mut seen) = (Needs::default(), HashSet::new());
        let block = u64::from(block);
        let mut ahead = vec![NodeId::ROOT];
        while let Some(directory) = ahead.pop() {
            if !self.is_made_ahead(directory) {
                needs.inodes += 1;
                needs.blocks += directory_blocks(self.entry_bytes(directory), block);
            }
            let mut open: Option<(u16, std::fs::File)> = None;
            for name in self.tree.sorted_children(directory) {
                let kind = self.tree.kind(name);
                if kind == Kind::File(FileType::Directory) {
                    ahead.push(name);
                    continue;
                }
                needs.inodes += 1;
                if !matches!(kind, Kind::File(FileType::Regular | FileType::Symlink)) {
                    continue;
                }
                let Some(place) = self.tree.place(name) else { continue };
                let counted = match &self.origins[usize::from(place.origin)] {
                    Origin::Archive(archive) => {
                        let link = (place.origin, u64::MAX, place.record);
                        let link = self.tree.is_marked(name).then_some(link);
                        Some((link, archive.allocated(place)))
                    }
                    Origin::Directory(source) => {
                        if open.as_ref().is_none_or(|(origin, _)| *origin != place.origin) {
                            open = source
                                .open_directory(&self.tree, directory)
                                .ok()
                                .map(|file| (place.origin, file));
                        }
                        let bytes = self.tree.name(name);
                        open.as_ref().and_then(|(_, file)| source.allocated(file, bytes).ok())
                    }
                };
                // What cannot be read is told when it is to be.
                let Some((link, bytes)) = counted else { continue };
                if link.is_some_and(|link| !seen.insert(link)) {
                    needs.inodes -= 1;
                    continue;
                }
                if kind == Kind::File(FileType::Regular) {
                    needs.bytes += bytes;
                }
                needs.blocks += bytes.div_ceil(block);
            }
        }
        // Nodes of maps, blocks of attributes, and pieces for metadata that are not used up.
        needs.blocks += 64 + needs.blocks / 256;
        needs
    }

    /// Whether every file system has it from the start, whatever is built.
    fn is_made_ahead(&self, directory: NodeId) -> bool {
        Some(directory) == self.tree.child(NodeId::ROOT, LOST_AND_FOUND)
    }

    /// What the names in a directory take there.
    fn entry_bytes(&self, directory: NodeId) -> u64 {
        let is_told =
            directory != NodeId::ROOT || self.tree.child(NodeId::ROOT, LOST_AND_FOUND).is_some();
        self.tree.entry_bytes(directory) + if is_told { 0 } else { LOST_AND_FOUND_ENTRY_BYTES }
    }
}

/// Bytes of a symbolic link's target of this length that are not in its inode.
pub(super) fn target_bytes(len: u64) -> u64 {
    if len < 60 { 0 } else { len }
}

/// What mke2fs takes for usual.
const BYTES_PER_INODE: u64 = 16384;
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Eight bytes and the name, rounded up to a multiple of four.
const LOST_AND_FOUND_ENTRY_BYTES: u64 = 20;

/// Blocks of a directory whose names take so many bytes. One that is indexed is filled to two thirds.
fn directory_blocks(entry_bytes: u64, block: u64) -> u64 {
    let all = entry_bytes + 24 + 12;
    if all <= block { 1 } else { (all * 3 / 2).div_ceil(block - 24) + 2 }
}

/// The options of the smallest file system that has so much free: their size, and how many inodes unless they say so.
///
/// # Errors
/// Options that no size makes possible.
pub fn smallest(needs: Needs, options: &MkfsOptions) -> Result<MkfsOptions, BuildError> {
    let (block, blocks) = (u64::from(options.block_size.unwrap_or(4096)), needs.blocks);
    let is_counted = options.inodes.is_none() && options.bytes_per_inode.is_none();
    let sized = |count: u64| {
        let bytes = count * block;
        // Each group has a number of inodes that eight divides, whatever was asked for.
        let per_group = 8 * block;
        let groups = 1 + (count / per_group).max(needs.inodes / per_group);
        let inodes = needs.inodes + RESERVED_INODES + 8 * groups;
        let inodes = is_counted.then(|| u32::try_from(inodes).unwrap_or(u32::MAX));
        MkfsOptions {
            size_bytes: Some(bytes),
            inodes: inodes.or(options.inodes),
            ..options.clone()
        }
    };
    let fits = |count: u64| -> Result<bool, MkfsError> {
        match Plan::new(count * block, &sized(count)) {
            Ok(plan) => {
                let raw = plan.superblock().raw();
                Ok(raw.free_blocks_count() >= blocks
                    && u64::from(raw.free_inodes_count.get()) >= needs.inodes)
            }
            Err(MkfsError::TooSmall { .. } | MkfsError::Option { option: "inodes", .. }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    };
    let page = (4096 / block).max(1);
    let tables = needs.inodes * u64::from(options.inode_size.unwrap_or(256)) / block;
    let (mut low, mut high) = (blocks / page, ((blocks + tables) / page + 64).max(16));
    while !fits(high * page)? {
        low = high;
        high += high / 4;
        if high > MOST_PAGES {
            return Err(BuildError::TooMany);
        }
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        match fits(middle * page)? {
            true => high = middle,
            false => low = middle,
        }
    }
    Ok(sized(high * page))
}

/// The first ones are not for files.
const RESERVED_INODES: u64 = 11;
/// No file system is larger than so many pages of 4 KiB.
const MOST_PAGES: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};
    use std::path::Path;

    use extant_testkit::oracle::Scratch;

    use super::super::tree::Place;
    use super::super::{Failure, Observer, Rules};
    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn failed(&self, failure: &Failure) {
            panic!("{failure:?}");
        }
    }

    /// An image that was exported is as large when it is built again, wherever the tree lies meanwhile.
    #[test]
    fn what_every_file_system_has_and_what_lies_in_inodes_takes_nothing() {
        let scratch = Scratch::new("needs");
        let source = scratch.path("source");
        std::fs::create_dir(&source).unwrap();
        symlink("t".repeat(59), source.join("short")).unwrap();
        let needs = |source: &Path| {
            let mut build = Build::new(Rules::default());
            build.add_directory(source, &Nobody).unwrap();
            build.needs(1024)
        };
        let before = needs(&source);
        std::fs::create_dir(source.join("lost+found")).unwrap();
        assert_eq!(needs(&source), before);
        symlink("t".repeat(60), source.join("long")).unwrap();
        assert_eq!(needs(&source).blocks, before.blocks + 1);
        let sparse = std::fs::File::create(source.join("sparse")).unwrap();
        sparse.write_all_at(&[1; 1024], 1 << 20).unwrap();
        sparse.set_len(8 << 20).unwrap();
        assert!((1..=64).contains(&(needs(&source).blocks - before.blocks - 1)), "holes");
    }

    #[test]
    fn the_smallest_size_has_room_and_a_page_less_has_not() {
        for block in [1024, 4096] {
            let options = MkfsOptions { block_size: Some(block), ..MkfsOptions::default() };
            for (blocks, inodes) in [(10, 500), (5_000, 3), (200_000, 77_777), (20_000, 1_000_000)]
            {
                let needs = Needs { blocks, inodes, bytes: 0 };
                let found = smallest(needs, &options).unwrap();
                let bytes = found.size_bytes.unwrap();
                let has_room = |bytes: u64| {
                    let sized = MkfsOptions { size_bytes: Some(bytes), ..found.clone() };
                    let raw = Plan::new(bytes, &sized).map(|plan| *plan.superblock().raw());
                    raw.is_ok_and(|raw| {
                        raw.free_blocks_count() >= blocks
                            && u64::from(raw.free_inodes_count.get()) >= inodes
                    })
                };
                assert!(has_room(bytes) && !has_room(bytes - 4096), "{blocks} in {bytes}");
                let more = needs.with(Room::Bytes(1 << 20), block);
                assert!(smallest(more, &options).unwrap().size_bytes > found.size_bytes);
            }
        }
    }

    #[test]
    fn room_for_more_has_inodes_for_it() {
        let needs = Needs { blocks: 100_000, inodes: 100_000, bytes: 0 };
        assert_eq!(needs.with(Room::Little, 4096), Needs { inodes: 101_562, ..needs });
        let percent = needs.with(Room::Percent(10), 4096);
        assert_eq!((percent.blocks, percent.inodes), (110_000, 110_000));
        let bytes = needs.with(Room::Bytes(1 << 30), 4096);
        assert_eq!((bytes.blocks, bytes.inodes), (100_000 + (1 << 18), 100_000 + (1 << 16)));
        assert_eq!(Needs::default().with(Room::Little, 1024).inodes, 16);
    }

    #[test]
    fn directories_are_large_where_two_levels_of_index_may_not_do() {
        let mut build = Build::new(Rules::default());
        let place = Place { origin: 0, record: 0 };
        let (file, directory) = (Kind::File(FileType::Regular), Kind::File(FileType::Directory));
        let inside = build.tree.add(NodeId::ROOT, b"d", directory, place, 0).unwrap();
        for n in 0..120_000 {
            build.tree.add(inside, format!("{n:060}").as_bytes(), file, place, 0).unwrap();
        }
        assert!(build.has_large_directory(1024) && !build.has_large_directory(2048));
    }
}
