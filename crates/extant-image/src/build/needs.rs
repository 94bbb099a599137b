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

impl Build {
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

const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Eight bytes and the name, rounded up to a multiple of four.
const LOST_AND_FOUND_ENTRY_BYTES: u64 = 20;

/// Blocks of a directory whose names take so many bytes. One that is indexed is filled to two thirds.
fn directory_blocks(entry_bytes: u64, block: u64) -> u64 {
    let all = entry_bytes + 24 + 12;
    if all <= block { 1 } else { (all * 3 / 2).div_ceil(block - 24) + 2 }
}

/// The fewest bytes that a file system of these options has to have so that `needs` fit, with `free` bytes more.
///
/// # Errors
/// Options that no size makes possible.
pub fn smallest(needs: Needs, free: u64, options: &MkfsOptions) -> Result<u64, BuildError> {
    let block = u64::from(options.block_size.unwrap_or(4096));
    let blocks = needs.blocks + free.div_ceil(block);
    let fits = |count: u64| -> Result<bool, MkfsError> {
        let bytes = count * block;
        let sized = MkfsOptions { size_bytes: Some(bytes), ..options.clone() };
        match Plan::new(bytes, &sized) {
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
    Ok(high * page * block)
}

/// No file system is larger than so many pages of 4 KiB.
const MOST_PAGES: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};
    use std::path::Path;

    use extant_testkit::oracle::Scratch;

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
        let options =
            MkfsOptions { block_size: Some(4096), inodes: Some(600), ..MkfsOptions::default() };
        for blocks in [10, 5_000, 200_000] {
            let needs = Needs { blocks, inodes: 500, bytes: 0 };
            let bytes = smallest(needs, 0, &options).unwrap();
            let free = |bytes| {
                let plan =
                    Plan::new(bytes, &MkfsOptions { size_bytes: Some(bytes), ..options.clone() });
                plan.map_or(0, |plan| plan.superblock().raw().free_blocks_count())
            };
            assert!(free(bytes) >= blocks && free(bytes - 4096) < blocks, "{blocks} in {bytes}");
            assert!(smallest(needs, 1 << 20, &options).unwrap() > bytes);
        }
    }
}
