//! Makes files on this machine.
//!
//! Every name is used relative to an open directory and never through a symbolic link, so that no image can lead a copy
//! out of its target; only what the user named as the target itself is followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use extant::namespace::NodeKind;
use extant_format::cast::{low_u16, u64_from, usize_from};
use extant_format::{FileType, Timestamp};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::links::Kept;
use super::settings::{Follow, Policy, is_access_list};
use super::stream::{Attributes, Entry, FileId, Place};
use super::target::{Found, Target};

/// A directory of this machine, and what was made in it so far.
#[derive(Debug)]
pub struct LocalTarget {
    policy: Policy,
    stack: Vec<Directory>,
    file: Option<OpenedFile>,
    names: Names,
    /// Owners may be given away, and attributes of every kind set.
    privileged: bool,
    /// Images that are read, which are not replaced by what is in them.
    avoid: Vec<FileId>,
}

#[derive(Debug)]
struct Directory {
    handle: OwnedFd,
    /// Below the first directory.
    path: PathBuf,
    /// Its place among the paths that were kept, once it has one.
    kept: Option<u32>,
    attributes: Attributes,
    is_new: bool,
}

#[derive(Debug)]
struct OpenedFile {
    file: File,
    name: Vec<u8>,
    attributes: Attributes,
    end: u64,
    is_new: bool,
}

/// First names of files with several, below the first directory.
#[derive(Debug, Default)]
struct Names {
    directories: Vec<PathBuf>,
    /// One name behind the other, each with a zero at its end.
    bytes: Vec<u8>,
    /// Directory, and where the name begins.
    files: Kept<(u32, u32)>,
}

impl LocalTarget {
    /// Files will be made in `directory`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn new(directory: &Path, policy: Policy, avoid: Vec<FileId>) -> anyhow::Result<Self> {
        let handle = open_directory(CWD, directory.as_os_str().as_bytes(), OFlags::empty())?;
        let attributes = Attributes::default();
        let top = Directory { handle, path: PathBuf::new(), kept: None, attributes, is_new: false };
        let privileged = rustix::process::geteuid().is_root();
        let names = Names::default();
        Ok(Self { policy, stack: vec![top], file: None, names, privileged, avoid })
    }

    fn top(&self) -> &Directory {
        self.stack.last().expect("the first directory is never left")
    }

    fn remember(&mut self, name: &[u8], link: Option<u32>) {
        let Some(link) = link else { return };
        let top = self.stack.last_mut().expect("the first directory is never left");
        let directory = *top.kept.get_or_insert_with(|| {
            self.names.directories.push(top.path.clone());
            u32::try_from(self.names.directories.len() - 1).unwrap_or(u32::MAX)
        });
        let start = u32::try_from(self.names.bytes.len()).unwrap_or(u32::MAX);
        self.names.bytes.extend_from_slice(name);
        self.names.bytes.push(0);
        self.names.files.keep(link, (directory, start));
    }

    /// Below the first directory.
    fn first_name(&self, link: u32) -> Option<PathBuf> {
        let (directory, start) = *self.names.files.get(link)?;
        let directory = self.names.directories.get(usize_from(directory))?;
        let name = self.names.bytes.get(usize_from(start)..)?.split(|byte| *byte == 0).next()?;
        Some(directory.join(OsStr::from_bytes(name)))
    }

    /// Makes a file of ours without anybody else being able to use it meanwhile, if its permissions are set later.
    fn first_mode(&self, attributes: &Attributes, allowed: u16, own: u16) -> Mode {
        // Where they are not kept, the system itself applies umask and access lists.
        let mode = if self.policy.keep_mode { 0 } else { attributes.mode & allowed };
        Mode::from_raw_mode((mode | own).into())
    }

    /// Gives an open file or directory its attributes; the owner first, since that takes set-user bits and capabilities
    /// away.
    fn finish(&self, handle: impl AsFd, attributes: &Attributes, is_new: bool) -> io::Result<()> {
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
        if self.policy.keep_mode {
            for name in [&b"system.posix_acl_access"[..], b"system.posix_acl_default"] {
                if !is_new && !attributes.xattrs.iter().any(|(kept, _)| kept == name) {
                    // It may have none, or be where there are none.
                    let _ = rustix::fs::fremovexattr(&handle, name);
                }
            }
            rustix::fs::fchmod(&handle, Mode::from_raw_mode(mode.into()))?;
        }
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
        if !attributes.xattrs.is_empty() {
            let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            let path = path.join(OsStr::from_bytes(name));
            for (name, value) in &attributes.xattrs {
                // Access lists among them are those of a symbolic link, which has none.
                if !(is_symlink && is_access_list(name)) {
                    let set = rustix::fs::lsetxattr(&path, &name[..], value, XattrFlags::empty());
                    self.tolerate(set)?;
                }
            }
        }
        if self.policy.keep_mode && !is_symlink {
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
    fn find(&self, name: &[u8], follow: bool) -> anyhow::Result<Option<Found>> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = match rustix::fs::statat(&self.top().handle, name, flags) {
            Err(Errno::NOENT) => return Ok(None),
            found => found?,
        };
        let id = FileId { place: Place::Device(found.st_dev), inode: found.st_ino };
        Ok(Some(Found {
            id,
            kind: FileType::from_mode(low_u16(found.st_mode)).unwrap_or(FileType::Regular),
            links: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
            modified: Timestamp {
                seconds: found.st_mtime,
                nanoseconds: u32::try_from(found.st_mtime_nsec).unwrap_or(0),
            },
            is_source: self.avoid.contains(&id),
        }))
    }

    fn is_new(&self) -> bool {
        self.top().is_new
    }

    fn make_directory(&mut self, entry: Entry) -> anyhow::Result<()> {
        let mode = self.first_mode(&entry.attributes, 0o1777, 0o700);
        rustix::fs::mkdirat(&self.top().handle, &entry.name[..], mode)?;
        self.enter(entry)?;
        let top = self.stack.last_mut().expect("it was entered");
        top.is_new = true;
        Ok(())
    }

    fn enter(&mut self, entry: Entry) -> anyhow::Result<()> {
        let name: &[u8] = if entry.name.is_empty() { b"." } else { &entry.name };
        let handle = open_directory(&self.top().handle, name, OFlags::NOFOLLOW)?;
        let path = self.top().path.join(OsStr::from_bytes(&entry.name));
        let attributes = entry.attributes;
        self.stack.push(Directory { handle, path, kept: None, attributes, is_new: false });
        Ok(())
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let left = self.stack.pop().expect("it was entered");
        self.finish(&left.handle, &left.attributes, left.is_new)?;
        let wanted = left.attributes.mode & 0o700;
        if left.is_new && !self.policy.keep_mode && wanted != 0o700 {
            let now = rustix::fs::fstat(&left.handle)?.st_mode & 0o7777;
            let lacking = u32::from(0o700 & !wanted);
            rustix::fs::fchmod(&left.handle, Mode::from_raw_mode(now & !lacking))?;
        }
        Ok(())
    }

    fn make_file(&mut self, entry: Entry) -> anyhow::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = if self.policy.keep_mode { 0o600 } else { 0 };
        let mode = self.first_mode(&entry.attributes, 0o777, own);
        let handle = rustix::fs::openat(&self.top().handle, &entry.name[..], flags, mode)?;
        self.remember(&entry.name, entry.link);
        let (file, Entry { name, attributes, .. }) = (File::from(handle), entry);
        self.file = Some(OpenedFile { file, name, attributes, end: 0, is_new: true });
        Ok(())
    }

    fn overwrite(&mut self, entry: Entry) -> anyhow::Result<()> {
        let careful = match self.policy.through {
            Follow::Named => OFlags::empty(),
            _ => OFlags::NOFOLLOW | OFlags::NONBLOCK,
        };
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOCTTY | careful;
        let directory = &self.top().handle;
        let handle = match rustix::fs::openat(directory, &entry.name[..], flags, Mode::empty()) {
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) if self.policy.force => {
                self.remove(&entry.name)?;
                return self.make_file(entry);
            }
            opened => opened?,
        };
        self.remember(&entry.name, entry.link);
        let (file, Entry { name, attributes, .. }) = (File::from(handle), entry);
        self.file = Some(OpenedFile { file, name, attributes, end: 0, is_new: false });
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
        // A device keeps what it has.
        if is_regular {
            self.finish(&opened.file, &opened.attributes, opened.is_new)?;
        }
        Ok(())
    }

    fn abandon(&mut self) -> anyhow::Result<()> {
        let opened = self.file.take().expect("a file is open");
        if opened.is_new {
            self.remove(&opened.name)?;
        }
        Ok(())
    }

    fn make_symlink(&mut self, entry: Entry, target: &[u8]) -> anyhow::Result<()> {
        rustix::fs::symlinkat(target, &self.top().handle, &entry.name[..])?;
        self.remember(&entry.name, entry.link);
        Ok(self.finish_by_name(&entry.name, &entry.attributes, true)?)
    }

    fn make_special(&mut self, entry: Entry, kind: NodeKind) -> anyhow::Result<()> {
        use rustix::fs::FileType;
        let (kind, major, minor) = match kind {
            NodeKind::Regular => (FileType::RegularFile, 0, 0),
            NodeKind::Fifo => (FileType::Fifo, 0, 0),
            NodeKind::Socket => (FileType::Socket, 0, 0),
            NodeKind::CharacterDevice(major, minor) => (FileType::CharacterDevice, major, minor),
            NodeKind::BlockDevice(major, minor) => (FileType::BlockDevice, major, minor),
        };
        let device = rustix::fs::makedev(major, minor);
        let mode = self.first_mode(&entry.attributes, 0o777, 0);
        rustix::fs::mknodat(&self.top().handle, &entry.name[..], kind, mode, device)?;
        self.remember(&entry.name, entry.link);
        Ok(self.finish_by_name(&entry.name, &entry.attributes, false)?)
    }

    fn link(&mut self, name: &[u8], number: u32) -> anyhow::Result<()> {
        // The first name may have failed; its line was printed then.
        let first = self.first_name(number).ok_or(Errno::NOENT)?;
        let root = &self.stack[0].handle;
        Ok(rustix::fs::linkat(root, &first, &self.top().handle, name, AtFlags::empty())?)
    }

    fn keep(&mut self, name: &[u8], number: u32) -> anyhow::Result<()> {
        self.remember(name, Some(number));
        Ok(())
    }

    fn remove(&mut self, name: &[u8]) -> anyhow::Result<()> {
        Ok(rustix::fs::unlinkat(&self.top().handle, name, AtFlags::empty())?)
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
