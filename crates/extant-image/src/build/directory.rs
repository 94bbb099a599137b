//! A directory of this machine as a source.
//!
//! Everything is opened by its name in a directory that is open and never through a symbolic link, so that neither long paths
//! nor a tree that changes meanwhile lead astray.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use extant::namespace::NodeKind;
use extant_device::Frame;
use extant_format::cast::low_u16;
use extant_format::{FileType, Timestamp};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use super::entry::{Attributes, Contents, Entry, LinkKey, Parts};
use super::error::Problem;
use super::needs::target_bytes;
use super::tree::{Kind, NodeId, Place, Tree};
use super::{Build, BuildError, Failure, Rules};
use crate::local::xattrs;

/// A directory that is a source.
#[derive(Debug)]
pub(super) struct Directory {
    root: File,
    pub(super) name: String,
    number: u16,
}

impl Directory {
    pub(super) fn open(path: &Path, number: u16) -> Result<Self, BuildError> {
        let name = path.display().to_string();
        // What the user named may be a link.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map(File::from);
        let root = root.map_err(|errno| BuildError::Source {
            source_name: name.clone(),
            error: errno.into(),
        })?;
        Ok(Self { root, name, number })
    }

    /// Adds all names to the tree, over those that are there. What cannot be listed is told, and stays empty.
    pub(super) fn index(
        &self,
        tree: &mut Tree,
        layer: u16,
        rules: &Rules,
        failed: &mut dyn FnMut(Failure),
    ) -> Result<(), BuildError> {
        let place = Place { origin: self.number, record: 0 };
        tree.replace(NodeId::ROOT, Kind::File(FileType::Directory), place, layer);
        let again = openat(&self.root, b".", OFlags::DIRECTORY).map_err(|errno| {
            BuildError::Source { source_name: self.name.clone(), error: errno.into() }
        })?;
        let mut stack =
            vec![(again, self.list(tree, NodeId::ROOT, &self.root, layer, rules, failed)?)];
        while let Some((directory, below)) = stack.last_mut() {
            let Some(node) = below.pop() else {
                stack.pop();
                continue;
            };
            match openat(directory, tree.name(node), OFlags::DIRECTORY) {
                Ok(opened) => {
                    let below = self.list(tree, node, &opened, layer, rules, failed)?;
                    stack.push((opened, below));
                }
                Err(errno) => failed(self.failure(tree, node, errno.into())),
            }
        }
        Ok(())
    }

    /// Adds the names in one directory, and returns those that are directories.
    fn list(
        &self,
        tree: &mut Tree,
        at: NodeId,
        directory: &File,
        layer: u16,
        rules: &Rules,
        failed: &mut dyn FnMut(Failure),
    ) -> Result<Vec<NodeId>, BuildError> {
        let place = Place { origin: self.number, record: 0 };
        let mut below = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let path = rules.excludes_any().then(|| tree.path(at));
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    failed(self.failure(tree, at, errno.into()));
                    break;
                }
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..")
                || path.as_ref().is_some_and(|path| rules.excludes(path, name))
            {
                continue;
            }
            let kind = match file_type(entry.file_type()) {
                Some(kind) => kind,
                // A file system that does not say.
                None => match stat(directory, name) {
                    Ok(found) => {
                        FileType::from_mode(low_u16(found.st_mode)).unwrap_or(FileType::Regular)
                    }
                    Err(Errno::NOENT) => continue,
                    Err(errno) => {
                        failed(self.failure(tree, at, errno.into()));
                        continue;
                    }
                },
            };
            let node = match tree.child(at, name) {
                None => tree.add(at, name, Kind::File(kind), place, layer)?,
                Some(node) => {
                    tree.replace(node, Kind::File(kind), place, layer);
                    node
                }
            };
            if kind == FileType::Directory {
                below.push(node);
            }
        }
        Ok(below)
    }

    fn failure(&self, tree: &Tree, node: NodeId, problem: Problem) -> Failure {
        Failure { source_name: self.name.clone(), path: tree.path(node), problem }
    }

    /// Opens the directory at `node`.
    pub(super) fn open_directory(&self, tree: &Tree, node: NodeId) -> Result<File, Errno> {
        let mut names = Vec::new();
        let mut at = node;
        while let Some(parent) = tree.parent(at) {
            names.push(tree.name(at));
            at = parent;
        }
        let Some((last, above)) = names.split_first() else {
            return openat(&self.root, b".", OFlags::DIRECTORY);
        };
        let mut opened: Option<File> = None;
        for name in above.iter().rev() {
            let next = openat(
                opened.as_ref().unwrap_or(&self.root),
                name,
                OFlags::PATH | OFlags::DIRECTORY,
            )?;
            opened = Some(next);
        }
        let above = opened.as_ref().unwrap_or(&self.root);
        match openat(above, last, OFlags::DIRECTORY) {
            // Its attributes can be had all the same.
            Err(Errno::ACCESS) => openat(above, last, OFlags::PATH | OFlags::DIRECTORY),
            opened => opened,
        }
    }

    /// The attributes of an open directory.
    pub(super) fn attributes(&self, directory: &File) -> Result<Attributes, Problem> {
        let found = rustix::fs::fstat(directory)?;
        Ok(attributes(&found, xattrs_of_open(directory)))
    }

    /// What has a name in an open directory and is none itself.
    pub(super) fn read(
        &self,
        directory: &File,
        name: &[u8],
        kind: FileType,
        build: &Build,
    ) -> Result<Entry, Problem> {
        if kind == FileType::Regular {
            return self.read_file(directory, name, build);
        }
        let found = stat(directory, name)?;
        self.special(directory, name, &found)
    }

    fn read_file(&self, directory: &File, name: &[u8], build: &Build) -> Result<Entry, Problem> {
        let file = openat(directory, name, OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let found = rustix::fs::fstat(&file)?;
        if FileType::from_mode(low_u16(found.st_mode)) != Some(FileType::Regular) {
            return self.special(directory, name, &found);
        }
        if build.rules.avoids(found.st_dev, found.st_ino) {
            return Err(Problem::Itself);
        }
        let attributes = attributes(&found, xattrs_of_open(&file));
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let allocated = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512);
        let link = (found.st_nlink > 1).then_some((self.number, found.st_dev, found.st_ino));
        let small = usize::try_from(size).ok().filter(|size| *size <= SMALL_BYTES);
        let contents = match small.filter(|_| link.is_none() && allocated >= size) {
            Some(size) => read_bytes(&file, size, build.block_bytes)?,
            None => {
                let runs = if allocated < size { runs(&file, size)? } else { whole(size) };
                Contents::Parts(Parts { file: Arc::new(file), size, runs })
            }
        };
        Ok(Entry { attributes, contents, link })
    }

    fn special(&self, directory: &File, name: &[u8], found: &Stat) -> Result<Entry, Problem> {
        let (major, minor) = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
        let contents = match FileType::from_mode(low_u16(found.st_mode)) {
            Some(FileType::Symlink) => {
                let name = OsStr::from_bytes(name);
                Contents::Symlink(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes())
            }
            Some(FileType::CharacterDevice) => {
                Contents::Special(NodeKind::CharacterDevice(major, minor))
            }
            Some(FileType::BlockDevice) => Contents::Special(NodeKind::BlockDevice(major, minor)),
            Some(FileType::Fifo) => Contents::Special(NodeKind::Fifo),
            Some(FileType::Socket) => Contents::Special(NodeKind::Socket),
            _ => return Err(Problem::Changed),
        };
        let link = (found.st_nlink > 1).then_some((self.number, found.st_dev, found.st_ino));
        let attributes = attributes(found, xattrs_of_name(directory, name));
        Ok(Entry { attributes, contents, link })
    }

    /// Where the symbolic link at `node` leads.
    pub(super) fn link_target(&self, tree: &Tree, node: NodeId) -> Result<Vec<u8>, Problem> {
        let parent = tree.parent(node).ok_or(Problem::Changed)?;
        let directory = self.open_directory(tree, parent)?;
        let name = OsStr::from_bytes(tree.name(node));
        Ok(rustix::fs::readlinkat(&directory, name, Vec::new())?.into_bytes())
    }

    /// Which file has a name, if it has several, and how many bytes of it are neither holes nor in its inode. How many blocks it
    /// has where it lies tells no more than that there may be holes.
    pub(super) fn allocated(
        &self,
        directory: &File,
        name: &[u8],
    ) -> Result<(Option<LinkKey>, u64), Problem> {
        let found = stat(directory, name)?;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let allocated = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512);
        let link = (found.st_nlink > 1).then_some((self.number, found.st_dev, found.st_ino));
        let bytes = match FileType::from_mode(low_u16(found.st_mode)) {
            Some(FileType::Symlink) => target_bytes(size),
            Some(FileType::Regular) if allocated < size => {
                let file = openat(directory, name, OFlags::NONBLOCK | OFlags::NOCTTY)?;
                runs(&file, size)?.iter().map(|(run, _)| run.end - run.start).sum()
            }
            _ => size,
        };
        Ok((link, bytes))
    }
}

fn openat(directory: &File, name: &[u8], flags: OFlags) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | flags;
    rustix::fs::openat(directory, OsStr::from_bytes(name), flags, Mode::empty()).map(File::from)
}

fn stat(directory: &File, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
}

fn file_type(kind: rustix::fs::FileType) -> Option<FileType> {
    use rustix::fs::FileType as Found;
    match kind {
        Found::RegularFile => Some(FileType::Regular),
        Found::Directory => Some(FileType::Directory),
        Found::Symlink => Some(FileType::Symlink),
        Found::Fifo => Some(FileType::Fifo),
        Found::Socket => Some(FileType::Socket),
        Found::CharacterDevice => Some(FileType::CharacterDevice),
        Found::BlockDevice => Some(FileType::BlockDevice),
        Found::Unknown => None,
    }
}

fn attributes(found: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Attributes {
    let time = |seconds: i64, nanoseconds| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    Attributes {
        mode: low_u16(found.st_mode) & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        modified: time(found.st_mtime, found.st_mtime_nsec),
        accessed: Some(time(found.st_atime, found.st_atime_nsec)),
        xattrs,
        lists: Vec::new(),
    }
}

/// Reads a whole file into one piece of memory, with zeros up to a whole block; it may have become shorter meanwhile.
fn read_bytes(file: &File, size: usize, block: usize) -> Result<Contents, Problem> {
    let mut bytes = Frame::zeroed(size.next_multiple_of(block));
    let mut len = 0;
    if let Some(buffer) = bytes.unique_mut() {
        while len < size {
            match rustix::io::retry_on_intr(|| rustix::io::read(file, &mut buffer[len..size]))? {
                0 => break,
                count => len += count,
            }
        }
    }
    Ok(Contents::Bytes { bytes, len })
}

/// All bytes as one run.
fn whole(size: u64) -> Vec<(std::ops::Range<u64>, u64)> {
    if size == 0 { Vec::new() } else { vec![(0..size, 0)] }
}

/// Where a file has bytes.
fn runs(file: &File, size: u64) -> Result<Vec<(std::ops::Range<u64>, u64)>, Errno> {
    let (mut runs, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            // A file system that knows of no holes.
            Err(Errno::INVAL) => return Ok(whole(size)),
            start => start?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if start >= size {
            break;
        }
        runs.push((start..end, start));
        at = end.max(start + 1);
    }
    Ok(runs)
}

fn xattrs_of_open(file: &File) -> Vec<(Vec<u8>, Vec<u8>)> {
    xattrs(
        |buffer| rustix::fs::flistxattr(file, buffer),
        |name, buffer| rustix::fs::fgetxattr(file, name, buffer),
        |_| true,
    )
}

/// The attributes of what must not be opened, by a path that leads through the open directory.
fn xattrs_of_name(directory: &File, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let directory: BorrowedFd<'_> = directory.as_fd();
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
        .join(OsStr::from_bytes(name));
    xattrs(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
        |_| true,
    )
}

/// Copies of at most so many bytes travel through memory whole; larger ones go from file to device in pieces.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// What the system hands over at once.
const LISTING_BYTES: usize = 32 << 10;

const _: () = assert!(SMALL_BYTES.is_multiple_of(4096));
