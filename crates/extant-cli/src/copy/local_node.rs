//! Files of this machine as sources.
//!
//! Every file is opened by its name in a directory that is open, so that neither long paths nor a tree that changes meanwhile
//! lead astray.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use extant_format::cast::{low_u16, u64_from};
use extant_format::{FileType, Timestamp};
use extant_image::local::xattrs;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use super::settings::{Settings, Sparse};
use super::sparse;
use super::stream::{CHUNK_BYTES, FileId, Place, Sink};
use super::walk::{Look, Node, Trouble};

/// A file of this machine.
#[derive(Debug)]
pub struct LocalNode {
    /// The directory that it is in; a source's name is taken from where the process is.
    directory: Option<Rc<File>>,
    name: PathBuf,
    follow: bool,
    look: Look,
    allocated_bytes: u64,
    /// Itself: a directory, or what is read.
    file: Option<Rc<File>>,
}

impl LocalNode {
    /// A source.
    pub fn named(path: &Path, follow: bool) -> anyhow::Result<Self> {
        Self::at(None, path.to_owned(), follow)
    }

    fn at(directory: Option<Rc<File>>, name: PathBuf, follow: bool) -> anyhow::Result<Self> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = rustix::fs::statat(directory_of(&directory), &name, flags)?;
        let allocated_bytes = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512);
        let look = look(&found);
        let mut node = Self { directory, name, follow, look, allocated_bytes, file: None };
        if look.kind == FileType::Directory {
            // One that must not be read is told when its names are asked for.
            node.file = node.open_as(OFlags::DIRECTORY).ok().map(Rc::new);
        }
        Ok(node)
    }

    fn open_as(&self, flags: OFlags) -> Result<File, Errno> {
        // What a source's name leads to is opened in any case: whoever named it may end it with a slash.
        let careful = match self.follow || self.directory.is_none() {
            true => OFlags::empty(),
            false => OFlags::NOFOLLOW | OFlags::NONBLOCK,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | careful | flags;
        let at = directory_of(&self.directory);
        rustix::fs::openat(at, &self.name, flags, Mode::empty()).map(File::from)
    }

    /// Where system calls find it that only take paths.
    fn path(&self) -> PathBuf {
        match &self.directory {
            None => self.name.clone(),
            Some(directory) => {
                PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(&self.name)
            }
        }
    }
}

fn directory_of(directory: &Option<Rc<File>>) -> BorrowedFd<'_> {
    directory.as_ref().map_or(CWD, |directory| directory.as_fd())
}

impl Node for LocalNode {
    type Names = Names;

    fn look(&self) -> &Look {
        &self.look
    }

    fn names(&self) -> anyhow::Result<Names> {
        let directory = match &self.file {
            Some(file) => Rc::clone(file),
            None => Rc::new(self.open_as(OFlags::DIRECTORY)?),
        };
        Ok(Names { directory, window: Vec::new().into_iter(), failed: None, is_over: false })
    }

    fn child(&self, name: &[u8], follow: bool) -> anyhow::Result<Self> {
        let name = PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()));
        Self::at(self.file.clone(), name, follow)
    }

    fn read_link(&self) -> anyhow::Result<Vec<u8>> {
        let at = directory_of(&self.directory);
        Ok(rustix::fs::readlinkat(at, &self.name, Vec::new())?.into_bytes())
    }

    fn leads_to(&self) -> Option<FileId> {
        None // what is written is in an image
    }

    fn xattrs(&self, wanted: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = if self.file.is_none() { self.path() } else { PathBuf::new() };
        let list = |buffer: &mut [u8]| match &self.file {
            Some(file) => rustix::fs::flistxattr(file, buffer),
            None => rustix::fs::llistxattr(&path, buffer),
        };
        let get = |name: &[u8], buffer: &mut [u8]| match &self.file {
            Some(file) => rustix::fs::fgetxattr(file, name, buffer),
            None => rustix::fs::lgetxattr(&path, name, buffer),
        };
        Ok(xattrs(list, get, wanted))
    }

    fn open(&mut self) -> anyhow::Result<()> {
        self.file = Some(Rc::new(self.open_as(OFlags::empty())?));
        Ok(())
    }

    fn send_bytes(&mut self, settings: &Settings, sink: &mut Sink) -> Result<(), Trouble> {
        let file = self.file.as_deref().ok_or_else(|| anyhow::anyhow!("is not open"))?;
        match (self.look.size, settings.sparse) {
            (0, sparse) => send_stream(file, self.look.kind != FileType::Regular, sparse, sink),
            // Holes are looked for only where there must be some.
            (size, sparse) if sparse == Sparse::Never || self.allocated_bytes >= size => {
                send_run(file, 0..size, sparse, sink)
            }
            (size, sparse) => send_runs(file, size, sparse, sink),
        }
    }
}

/// Names in a directory, sorted as far as they fit into a window.
#[derive(Debug)]
pub struct Names {
    directory: Rc<File>,
    window: std::vec::IntoIter<Vec<u8>>,
    failed: Option<Errno>,
    /// Nothing more is asked for: all was told, or the directory cannot be read.
    is_over: bool,
}

impl Iterator for Names {
    type Item = anyhow::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(name) = self.window.next() {
            return Some(Ok(name));
        }
        if self.is_over {
            return self.failed.take().map(|errno| Err(errno.into()));
        }
        let (mut names, mut buffer) = (Vec::new(), Vec::with_capacity(LISTING_BYTES));
        let mut entries = RawDir::new(&self.directory, buffer.spare_capacity_mut());
        // What the system has handed over has to be taken.
        while names.len() < WINDOW_NAMES || !entries.is_buffer_empty() {
            match entries.next() {
                None => {
                    self.is_over = true;
                    break;
                }
                Some(Err(errno)) => {
                    (self.failed, self.is_over) = (Some(errno), true);
                    break;
                }
                Some(Ok(entry)) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => names.push(name.to_vec()),
                },
            }
        }
        names.sort_unstable();
        self.window = names.into_iter();
        match self.window.next() {
            Some(name) => Some(Ok(name)),
            None => self.failed.take().map(|errno| Err(errno.into())),
        }
    }
}

fn send_runs(file: &File, size: u64, sparse: Sparse, sink: &mut Sink) -> Result<(), Trouble> {
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            start => start?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        rustix::fs::seek(file, SeekFrom::Start(start))?;
        send_run(file, start..end, sparse, sink)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn send_run(
    file: &File,
    run: std::ops::Range<u64>,
    sparse: Sparse,
    sink: &mut Sink,
) -> Result<(), Trouble> {
    let mut offset = run.start;
    while offset < run.end && !sink.is_unwanted() {
        let wanted = (run.end - offset).min(u64_from(CHUNK_BYTES));
        let mut bytes = sink.buffer(usize::try_from(wanted).unwrap_or(CHUNK_BYTES));
        let count = u64_from(file.take(wanted).read_to_end(&mut bytes)?);
        if count == 0 {
            break; // it became shorter meanwhile
        }
        sparse::send(sink, sparse, offset, bytes)?;
        offset += count;
    }
    Ok(())
}

/// Sends what has no size of its own: pipes, devices, files of `/proc`; or nothing, from an empty file.
fn send_stream(
    file: &File,
    may_wait: bool,
    sparse: Sparse,
    sink: &mut Sink,
) -> Result<(), Trouble> {
    let mut offset = 0;
    loop {
        if may_wait {
            sink.flush()?;
        }
        let mut bytes = sink.buffer(STREAM_BYTES);
        let count = u64_from(file.take(u64_from(STREAM_BYTES)).read_to_end(&mut bytes)?);
        if count == 0 {
            return Ok(());
        }
        sparse::send(sink, sparse, offset, bytes)?;
        offset += count;
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

fn look(found: &Stat) -> Look {
    let time = |seconds: i64, nanoseconds| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    let mode = low_u16(found.st_mode);
    Look {
        id: FileId { place: Place::Device(found.st_dev), inode: found.st_ino },
        kind: FileType::from_mode(mode).unwrap_or(FileType::Regular),
        mode,
        links: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
        owner: (found.st_uid, found.st_gid),
        size: u64::try_from(found.st_size).unwrap_or(0),
        accessed: time(found.st_atime, found.st_atime_nsec),
        modified: time(found.st_mtime, found.st_mtime_nsec),
        device: (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev)),
    }
}

/// Names of a directory that are sorted, and in memory, at a time.
const WINDOW_NAMES: usize = 16 << 10;
/// What the system hands over at once.
const LISTING_BYTES: usize = 32 << 10;
/// Little, since most files without a size are empty.
const STREAM_BYTES: usize = 32 << 10;
