//! Files that take all of a new file system, or part of it, from the start, each as contiguous as can be.
//!
//! Source: mke2fs.conf(5), `make_hugefiles` and the relations beside it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use extant_format::{Extent, FileType, Geometry, Incompat, InodeNumber};

use super::config::Lookup;
use super::directory::Name;
use super::files::{Attributes, Files, LOST_AND_FOUND};
use super::map::{FileMap, longest, push_run};
use super::numbers::{Amount, integer};
use super::options::option;
use super::space::Space;
use super::{MkfsError, MkfsOptions};

/// Files that take all of a new file system, or part of it, from the start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hugefiles {
    /// Where they are: directories with slashes between, which are made.
    pub directory: String,
    /// What their names begin with.
    pub name: String,
    /// How many digits their numbers have at least, with zeros before them.
    pub digits: usize,
    /// Who owns them.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// Permissions that files and directories do not have.
    pub umask: u16,
    /// How many there are; 0 for as many as fit, or one where no size is given.
    pub count: u32,
    /// How large each is; 0 for as large as fits.
    pub size: Amount,
    /// How much is left for others before the first.
    pub slack: Amount,
    /// What each one's place is a multiple of; 0 for any.
    pub align: Amount,
    /// Where the device begins on its disk, in bytes: places are counted from the start of the disk.
    pub disk_offset_bytes: u64,
    /// Whether their blocks are zeroed; if not, they show what was on the device.
    pub zero: bool,
}

impl Default for Hugefiles {
    fn default() -> Self {
        Self {
            directory: "/".to_owned(),
            name: "hugefile".to_owned(),
            digits: 5,
            uid: 0,
            gid: 0,
            umask: 0o077,
            count: 0,
            size: Amount::Blocks(0),
            slack: Amount::Bytes(1 << 20),
            align: Amount::Blocks(0),
            disk_offset_bytes: 0,
            zero: true,
        }
    }
}

impl Hugefiles {
    /// The caller's, or those of the types, if these want any.
    pub(super) fn decide(
        options: &MkfsOptions,
        lookup: &Lookup<'_>,
    ) -> Result<Option<Self>, MkfsError> {
        if options.hugefiles.is_some() || !lookup.flag("make_hugefiles").unwrap_or(false) {
            return Ok(options.hugefiles.clone());
        }
        let amount = |name: &'static str, default: Amount| match lookup.text(name) {
            None => Ok(default),
            Some(text) => Amount::parse(text).ok_or_else(|| option(name, format!("`{text}`"))),
        };
        let stock = Self::default();
        let umask = lookup.text("hugefiles_umask").and_then(integer);
        Ok(Some(Self {
            directory: lookup.text("hugefiles_dir").map_or(stock.directory, ToOwned::to_owned),
            name: lookup.text("hugefiles_name").map_or(stock.name, ToOwned::to_owned),
            digits: lookup
                .number("hugefiles_digits")
                .and_then(|digits| usize::try_from(digits).ok())
                .map_or(stock.digits, |digits| digits.min(MOST_DIGITS)),
            uid: lookup.number("hugefiles_uid").unwrap_or(0),
            gid: lookup.number("hugefiles_gid").unwrap_or(0),
            umask: umask.and_then(|mask| u16::try_from(mask).ok()).unwrap_or(stock.umask),
            count: lookup.number("num_hugefiles").unwrap_or(0),
            size: amount("hugefiles_size", stock.size)?,
            slack: amount("hugefiles_slack", stock.slack)?,
            align: amount("hugefiles_align", stock.align)?,
            disk_offset_bytes: match lookup.flag("hugefiles_align_disk") {
                Some(true) => options.disk_offset_bytes,
                _ => 0,
            },
            zero: lookup.flag("zero_hugefiles").unwrap_or(true),
        }))
    }

    /// The name of file number `index` of `count`.
    pub(super) fn name_of(&self, index: u32, count: u32) -> String {
        match self.digits {
            0 if count <= 1 => self.name.clone(),
            0 => format!("{}{index}", self.name),
            digits => format!("{}{index:0digits$}", self.name),
        }
    }
}

/// Makes the files and the directories that they are in.
///
/// # Errors
/// They do not fit, or the features do not allow them.
pub(super) fn place(files: &mut Files<'_>, hugefiles: &Hugefiles) -> Result<(), MkfsError> {
    if !files.geometry.incompat.contains(Incompat::EXTENTS) {
        return Err(option("huge files", "they need extent".to_owned()));
    }
    let no_room = || option("huge files", "there is no room for them".to_owned());
    let (directory, parent, names) = place_directories(files, hugefiles).ok_or_else(no_room)?;
    let (block_size, ratio) = (files.geometry.block_size, files.geometry.cluster_ratio().into());
    let division = divide(hugefiles, files.space.all_free(), block_size, ratio);
    let division = division.ok_or_else(no_room)?;
    place_files(files, hugefiles, division, (directory, parent, names)).ok_or_else(no_room)
}

/// The innermost directory, the one that it is in, and the names in it.
type Innermost = (InodeNumber, InodeNumber, Vec<Name>);

fn place_directories(files: &mut Files<'_>, hugefiles: &Hugefiles) -> Option<Innermost> {
    let attributes = Attributes {
        uid: hugefiles.uid,
        gid: hugefiles.gid,
        ..Attributes::directory(0o777 & !hugefiles.umask, 2)
    };
    let root = InodeNumber::ROOT;
    let mut innermost = (root, root, vec![Name::directory(b"lost+found", LOST_AND_FOUND)]);
    for name in hugefiles.directory.split('/').filter(|name| !name.is_empty()) {
        let (directory, parent, mut names) = innermost;
        let inode = files.new_inode()?;
        files.add_directory(inode, directory, attributes, &[], 1)?;
        names.push(Name::directory(name.as_bytes(), inode));
        files.rename(directory, parent, &names, if directory == root { 4 } else { 3 })?;
        innermost = (inode, directory, Vec::new());
    }
    Some(innermost)
}

fn place_files(
    files: &mut Files<'_>,
    hugefiles: &Hugefiles,
    division: Division,
    (directory, parent, mut names): Innermost,
) -> Option<()> {
    let geometry = files.geometry;
    let first_inode = files.last_inode() + 1;
    for index in 0..division.files {
        let name = hugefiles.name_of(index, division.files).into_bytes();
        let inode = InodeNumber::new(first_inode.checked_add(index)?)?;
        names.push(Name { name, inode, file_type: FileType::Regular });
    }
    let links = if directory == InodeNumber::ROOT { 3 } else { 2 };
    files.rename(directory, parent, &names, links)?;
    let align = hugefiles.align.blocks(geometry.block_size);
    let disk_offset = hugefiles.disk_offset_bytes >> geometry.block_bits;
    let mut goal = round_up(behind(&files.space, division.slack), align, disk_offset);
    let attributes = Attributes {
        mode: FileType::Regular.mode_bits() | 0o666 & !hugefiles.umask,
        uid: hugefiles.uid,
        gid: hugefiles.gid,
        ..Attributes::internal()
    };
    let mut runs = Vec::new();
    for _ in 0..division.files {
        let file = take(geometry, &mut files.space, &mut goal, division.blocks_each)?;
        runs.push((files.new_inode()?, file));
    }
    // Maps come last, so that they do not lie between the files.
    for (inode, file) in runs {
        let blocks: u64 = file.iter().map(|run| u64::from(run.blocks.len())).sum();
        let map = FileMap::of_runs(geometry, &mut files.space, inode, file, 0)?;
        files.add(inode, attributes, blocks << geometry.block_bits, map).zero = hugefiles.zero;
    }
    Some(())
}

/// Takes free runs from `goal` on for a file of so many blocks, or all of them; `None` if there are too few.
fn take(
    geometry: &Geometry,
    space: &mut Space,
    goal: &mut u64,
    blocks: Option<u64>,
) -> Option<Vec<Extent>> {
    let (mut runs, mut done) = (Vec::new(), 0);
    while blocks.is_none_or(|blocks| done < blocks) {
        let Some(run) = space.free(*goal).next() else {
            return blocks.is_none().then_some(runs).filter(|runs| !runs.is_empty());
        };
        let most = blocks.map_or(u64::MAX, |blocks| blocks - done).min(longest(geometry));
        let run = run.start..run.end.min(run.start.saturating_add(most));
        space.take(run.clone());
        *goal = run.end;
        done = push_run(&mut runs, done, run)?;
    }
    Some(runs)
}

/// The place behind the first `slack` free blocks.
fn behind(space: &Space, slack: u64) -> u64 {
    let mut left = slack;
    for run in space.free(0) {
        if run.end - run.start > left {
            return run.start + left;
        }
        left -= run.end - run.start;
    }
    0
}

/// How many files of how many blocks, and how many blocks are left free before the first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Division {
    pub(super) files: u32,
    /// `None` for all that there is.
    pub(super) blocks_each: Option<u64>,
    pub(super) slack: u64,
}

/// Divides `free` blocks; `None` if that is too little.
pub(super) fn divide(
    hugefiles: &Hugefiles,
    free: u64,
    block_size: u32,
    cluster_ratio: u64,
) -> Option<Division> {
    let align = hugefiles.align.blocks(block_size);
    let slack = hugefiles.slack.blocks(block_size);
    let mut each = round_up(hugefiles.size.blocks(block_size), align, 0);
    let mut files = u64::from(hugefiles.count);
    let mut rest = free.checked_sub(slack.checked_add(align)?)?;
    if each > rest {
        return None;
    }
    let nodes = |blocks| map_blocks(blocks, block_size) * cluster_ratio;
    match (each, files) {
        (0, 0) => files = 1,
        (0, 2..) => {
            let rough = rest / files;
            rest = rest.checked_sub(files / 16 + 1 + nodes(rough) * files)?;
            each = rest / files;
        }
        (1.., 0) => {
            let rough = rest / each;
            rest = rest.checked_sub(rough / 16 + 1 + nodes(each) * rough)?;
            files = rest / each;
        }
        _ => {}
    }
    let size = if each > 0 { each } else { rest };
    Some(Division {
        files: u32::try_from(files).ok()?,
        blocks_each: (each > 0).then_some(each),
        slack: slack + nodes(size) * files + files / 16 + 1,
    })
}

/// `block`, or the next one whose distance from the start of the disk is a multiple of `align`.
pub(super) fn round_up(block: u64, align: u64, disk_offset: u64) -> u64 {
    if align == 0 {
        return block;
    }
    let past = (block.saturating_add(disk_offset % align)) % align;
    if past == 0 { block } else { block.saturating_add(align - past) }
}

/// Blocks that the map of a file of `blocks` takes, at the rate of mke2fs: its nodes are half full.
fn map_blocks(blocks: u64, block_size: u32) -> u64 {
    let extents = blocks.div_ceil(32768);
    if extents <= 4 {
        return 0;
    }
    let per_block = u64::from((block_size - 12) / 12 / 2 - 1);
    let levels = core::iter::successors(Some(extents), |below| Some(below.div_ceil(per_block)));
    levels.skip(1).take(4).sum()
}

const MOST_DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_divided_by_size_or_by_number() {
        let with = |count, size| Hugefiles { count, size, ..Hugefiles::default() };
        let all = divide(&with(0, Amount::Blocks(0)), 10_000, 4096, 1).unwrap();
        assert_eq!((all.files, all.blocks_each, all.slack), (1, None, 257));
        let sized = divide(&with(0, Amount::Bytes(4 << 20)), 10_000, 4096, 1).unwrap();
        assert_eq!((sized.files, sized.blocks_each), (9, Some(1024)));
        let counted = divide(&with(4, Amount::Blocks(0)), 10_000, 4096, 1).unwrap();
        assert_eq!((counted.files, counted.blocks_each), (4, Some(2435)));
        assert_eq!(divide(&with(1, Amount::Blocks(20_000)), 10_000, 4096, 1), None);
        assert_eq!(divide(&with(1, Amount::Blocks(1)), 100, 4096, 1), None);
    }

    #[test]
    fn names_have_digits_with_zeros() {
        assert_eq!(Hugefiles::default().name_of(7, 9), "hugefile00007");
        let plain = Hugefiles { digits: 0, ..Hugefiles::default() };
        assert_eq!(
            (plain.name_of(0, 1).as_str(), plain.name_of(1, 2).as_str()),
            ("hugefile", "hugefile1")
        );
    }

    #[test]
    fn places_are_rounded_from_the_start_of_the_disk() {
        assert_eq!([round_up(10, 0, 5), round_up(10, 8, 0), round_up(16, 8, 0)], [10, 16, 16]);
        assert_eq!([round_up(10, 8, 3), round_up(13, 8, 3)], [13, 13]);
    }
}
