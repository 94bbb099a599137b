//! Makes files on this machine.
//!
//! Every name is used relative to an open directory and never through a symbolic link, so that no image can lead a copy
//! out of its target.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use extant::namespace::NodeKind;
use extant_format::Timestamp;
use extant_format::cast::u64_from;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::stream::{Attributes, Entry};
use super::target::Target;

/// A directory of this machine, and what was made in it so far.
#[derive(Debug)]
pub struct LocalTarget {
    stack: Vec<Directory>,
    file: Option<OpenedFile>,
    /// First names of files with several, below the first directory.
    links: HashMap<u64, PathBuf>,
    /// Owners may be given away, and attributes of every kind set.
    privileged: bool,
    /// Device and inode of the image that is read, which is not replaced by what is in it.
    avoid: Option<(u64, u64)>,
    /// A file that exists and was named itself: it is written in place, through links and into devices, as by cp(1).
    named: Option<PathBuf>,
}

#[derive(Debug)]
struct Directory {
    handle: OwnedFd,
    /// Below the first directory.
    path: PathBuf,
    attributes: Attributes,
}

#[derive(Debug)]
struct OpenedFile {
    file: File,
    attributes: Attributes,
    end: u64,
    is_new: bool,
}

impl LocalTarget {
    /// Files will be made in `directory`, but for the first one if it goes to a file that was `named`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn new(
        directory: &Path,
        named: Option<PathBuf>,
        avoid: Option<(u64, u64)>,
    ) -> io::Result<Self> {
        let handle = open_directory(CWD, directory.as_os_str().as_bytes(), OFlags::empty())?;
        let top = Directory { handle, path: PathBuf::new(), attributes: Attributes::default() };
        let privileged = rustix::process::geteuid().is_root();
        let (stack, links) = (vec![top], HashMap::new());
        Ok(Self { stack, file: None, links, privileged, avoid, named })
    }

    fn top(&self) -> &Directory {
        self.stack.last().expect("the first directory is never left")
    }

    /// Makes something with `make`; a file that stands in the way is removed first.
    fn replace<T>(
        &self,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> anyhow::Result<T> {
        let directory = &self.top().handle;
        match make(directory) {
            Err(Errno::EXIST) => {
                let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if self.avoid == Some((found.st_dev, found.st_ino)) {
                    anyhow::bail!("is the image itself; left as it is");
                }
                rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
                Ok(make(directory)?)
            }
            made => Ok(made?),
        }
    }

    /// Opens the file that was named, and cuts it to nothing.
    fn reopen(&self, path: &Path) -> anyhow::Result<File> {
        let file = File::options().write(true).open(path)?;
        let found = file.metadata()?;
        if self.avoid == Some((found.dev(), found.ino())) {
            anyhow::bail!("is the image itself; left as it is");
        }
        if found.is_file() {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn remember(&mut self, entry: &Entry) {
        if let Some(link) = entry.link {
            let path = self.top().path.join(OsStr::from_bytes(&entry.name));
            self.links.insert(link, path);
        }
    }

    /// Gives an open file or directory its attributes; the owner first, since that takes set-user bits away.
    fn finish(&self, handle: impl AsFd, attributes: &Attributes) -> io::Result<()> {
        let mut mode = attributes.mode;
        if let Some((uid, gid)) = attributes.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            if !self.tolerate(rustix::fs::fchown(&handle, Some(uid), Some(gid)))? {
                mode &= 0o1777; // set-user means nothing good with another user
            }
        }
        for (name, value) in &attributes.xattrs {
            self.tolerate(rustix::fs::fsetxattr(&handle, &name[..], value, XattrFlags::empty()))?;
        }
        rustix::fs::fchmod(&handle, Mode::from_raw_mode(mode.into()))?;
        if let Some(times) = attributes.times {
            rustix::fs::futimens(&handle, &timestamps(times))?;
        }
        Ok(())
    }

    /// The same by name, for what cannot be opened.
    fn finish_by_name(
        &self,
        name: &[u8],
        attributes: &Attributes,
        is_symlink: bool,
    ) -> io::Result<()> {
        let directory = &self.top().handle;
        if let Some((uid, gid)) = attributes.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            self.tolerate(rustix::fs::chownat(directory, name, Some(uid), Some(gid), flags))?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let path = path.join(OsStr::from_bytes(name));
        for (name, value) in &attributes.xattrs {
            self.tolerate(rustix::fs::lsetxattr(&path, &name[..], value, XattrFlags::empty()))?;
        }
        if !is_symlink {
            let mode = Mode::from_raw_mode(attributes.mode.into());
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())?;
        }
        if let Some(times) = attributes.times {
            let times = timestamps(times);
            rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Whether it was done; that somebody without privilege may not is no error, as with cp(1).
    fn tolerate(&self, done: Result<(), Errno>) -> Result<bool, Errno> {
        match done {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::OPNOTSUPP) if !self.privileged => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Target for LocalTarget {
    fn enter(&mut self, entry: Entry) -> anyhow::Result<()> {
        let top = self.top();
        let name: &[u8] = if entry.name.is_empty() { b"." } else { &entry.name };
        let made = rustix::fs::mkdirat(&top.handle, name, Mode::RWXU);
        if !matches!(made, Ok(()) | Err(Errno::EXIST)) {
            made?;
        }
        let handle = open_directory(&top.handle, name, OFlags::NOFOLLOW)?;
        let path = top.path.join(OsStr::from_bytes(&entry.name));
        self.stack.push(Directory { handle, path, attributes: entry.attributes });
        Ok(())
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let left = self.stack.pop().expect("it was entered");
        Ok(self.finish(&left.handle, &left.attributes)?)
    }

    fn file(&mut self, entry: Entry) -> anyhow::Result<()> {
        if let Some(path) = self.named.take() {
            let file = self.reopen(&path)?;
            self.file =
                Some(OpenedFile { file, attributes: entry.attributes, end: 0, is_new: false });
            return Ok(());
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let handle = self.replace(&entry.name, |directory| {
            rustix::fs::openat(directory, &entry.name[..], flags, mode)
        })?;
        self.remember(&entry);
        let file = File::from(handle);
        self.file = Some(OpenedFile { file, attributes: entry.attributes, end: 0, is_new: true });
        Ok(())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let opened = self.file.as_mut().expect("data follows a file");
        match opened.file.write_all_at(bytes, offset) {
            // A pipe has no offsets; holes become zeros there.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SPIPE) => {
                fill(&opened.file, offset - opened.end)?;
                opened.file.write_all(bytes)?;
            }
            written => written?,
        }
        opened.end = offset + u64_from(bytes.len());
        Ok(())
    }

    fn close(&mut self, size: u64) -> anyhow::Result<()> {
        let opened = self.file.take().expect("a close follows a file");
        let is_regular = opened.is_new || opened.file.metadata()?.is_file();
        if opened.end < size {
            match is_regular {
                true => opened.file.set_len(size)?,
                false => fill(&opened.file, size - opened.end)?,
            }
        }
        // An old file keeps its permissions unless they are copied, and a device does always.
        if !opened.is_new && (!is_regular || opened.attributes.owner.is_none()) {
            return Ok(());
        }
        Ok(self.finish(&opened.file, &opened.attributes)?)
    }

    fn symlink(&mut self, entry: Entry, target: &[u8]) -> anyhow::Result<()> {
        self.replace(&entry.name, |directory| {
            rustix::fs::symlinkat(target, directory, &entry.name[..])
        })?;
        self.remember(&entry);
        Ok(self.finish_by_name(&entry.name, &entry.attributes, true)?)
    }

    fn special(&mut self, entry: Entry, kind: NodeKind) -> anyhow::Result<()> {
        use rustix::fs::FileType;
        let (kind, major, minor) = match kind {
            NodeKind::Regular => (FileType::RegularFile, 0, 0),
            NodeKind::Fifo => (FileType::Fifo, 0, 0),
            NodeKind::Socket => (FileType::Socket, 0, 0),
            NodeKind::CharacterDevice(major, minor) => (FileType::CharacterDevice, major, minor),
            NodeKind::BlockDevice(major, minor) => (FileType::BlockDevice, major, minor),
        };
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        self.replace(&entry.name, |directory| {
            rustix::fs::mknodat(directory, &entry.name[..], kind, mode, device)
        })?;
        self.remember(&entry);
        Ok(self.finish_by_name(&entry.name, &entry.attributes, false)?)
    }

    fn again(&mut self, name: &[u8], link: u64) -> anyhow::Result<()> {
        // The first name may have failed; its line was printed then.
        let first = self.links.get(&link).ok_or(Errno::NOENT)?;
        let root = &self.stack[0].handle;
        self.replace(name, |directory| {
            rustix::fs::linkat(root, first, directory, name, AtFlags::empty())
        })?;
        Ok(())
    }

    fn modified(&self, name: &[u8]) -> anyhow::Result<Option<Timestamp>> {
        let found = match &self.named {
            Some(path) => rustix::fs::stat(path),
            None => rustix::fs::statat(&self.top().handle, name, AtFlags::SYMLINK_NOFOLLOW),
        };
        match found {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
            Ok(found) => Ok(Some(Timestamp {
                seconds: found.st_mtime,
                nanoseconds: u32::try_from(found.st_mtime_nsec).unwrap_or(0),
            })),
        }
    }

    fn keep(&mut self, name: &[u8], link: u64) -> anyhow::Result<()> {
        let path = self.top().path.join(OsStr::from_bytes(name));
        self.links.insert(link, path);
        Ok(())
    }
}

/// Writes so many zeros where there can be no holes.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), &mut file).map(drop)
}

fn open_directory(at: impl AsFd, name: &[u8], follow: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn timestamps((accessed, modified): (Timestamp, Timestamp)) -> Timestamps {
    let time =
        |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time(accessed), last_modification: time(modified) }
}
