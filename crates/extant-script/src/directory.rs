//! Scripts on a directory of the running system: a kernel mount, or a source for `mke2fs -d`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs as sys;

use crate::pattern::pieces;
use crate::requests::{self, Request};
use crate::{Allocation, Answer, Errno, Node, OpenFlag, Operation, SyncStep, Target, pattern};

/// A directory that stands for the root.
#[derive(Debug)]
pub struct DirectoryTarget {
    root: PathBuf,
    open: BTreeMap<Vec<u8>, File>,
    held: Vec<File>,
    waits: bool,
}

impl DirectoryTarget {
    /// Everything happens below `root`, and no time passes by [`Operation::Tick`].
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), open: BTreeMap::new(), held: Vec::new(), waits: false }
    }

    /// The same, but [`Operation::Tick`] waits.
    #[must_use]
    pub fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }

    /// Below the root, also if it begins as an absolute path.
    fn at(&self, path: &[u8]) -> PathBuf {
        let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
        self.root.join(OsStr::from_bytes(&path[start..]))
    }

    /// The open file of this path, or one that is opened in this way now.
    fn file(&self, path: &[u8], options: &OpenOptions) -> io::Result<File> {
        match self.open.get(path) {
            Some(file) => file.try_clone(),
            None => options.open(self.at(path)),
        }
    }

    fn reader(&self, path: &[u8]) -> io::Result<File> {
        let flags = sys::OFlags::NONBLOCK.bits().cast_signed();
        self.file(path, OpenOptions::new().read(true).custom_flags(flags))
    }

    fn writer(&self, path: &[u8]) -> io::Result<File> {
        self.file(path, OpenOptions::new().write(true))
    }

    fn request(&self, path: &[u8], request: Request) -> io::Result<Answer> {
        match requests::make(&self.reader(path)?, request)? {
            text if text.is_empty() => Ok(Answer::Done),
            text => Ok(Answer::Text(text)),
        }
    }

    fn try_apply(&mut self, operation: &Operation) -> io::Result<Answer> {
        use Operation::{
            Allocate, Append, Close, Create, Fdatasync, Fiemap, Fill, ForgetStatus, Fsync, Hold,
            JournalData, Open, Promise, Read, Release, Remount, SeekData, SeekHole, Shutdown, Stat,
            Store, Sync, SyncRange, Tick, Truncate, Write,
        };
        let seek = |path: &[u8], to| match sys::seek(self.reader(path)?, to) {
            Ok(at) => Ok(Answer::Count(at)),
            Err(rustix::io::Errno::NXIO) => Ok(Answer::Text("none".to_owned())),
            Err(errno) => Err(errno.into()),
        };
        match operation {
            Create { path, mode } => {
                let file = create(&self.at(path), *mode)?;
                set_mode(&file, *mode)?;
            }
            Open { path, flags } => {
                let file = open(&self.at(path), flags)?;
                self.open.insert(path.clone(), file);
            }
            Close { path } => drop(self.open.remove(path)),
            Write { path, offset, len, tag } => {
                return write(&self.writer(path)?, *tag, *offset, *len);
            }
            Append { path, len, tag } => {
                let file = self.writer(path)?;
                let end = file.metadata()?.len();
                return write(&file, *tag, end, *len);
            }
            Fill { path, len, count, tag } => return fill(&self.writer(path)?, *len, *count, *tag),
            Store { path, offset } => {
                let file = self.file(path, OpenOptions::new().read(true).write(true))?;
                requests::make(&file, Request::Store(*offset))?;
            }
            Read { path, offset, len } => return read(&self.reader(path)?, *offset, *len),
            Truncate { path, size } => self.writer(path)?.set_len(*size)?,
            Allocate { path, offset, len, mode } => {
                sys::fallocate(self.writer(path)?, allocate_flags(*mode), *offset, *len)?;
            }
            JournalData { path, on } => return self.request(path, Request::JournalData(*on)),
            Hold { path } => self.held.push(File::open(self.at(path))?),
            Release => self.held.clear(),
            Fsync { path } => self.reader(path)?.sync_all()?,
            Fdatasync { path } => self.reader(path)?.sync_data()?,
            SyncRange { path, offset, len, steps } => {
                let bit = |step: &SyncStep| {
                    SyncStep::WORDS
                        .iter()
                        .find(|(known, ..)| known == step)
                        .map_or(0, |known| known.2)
                };
                let flags = steps.iter().map(bit).fold(0, |flags, bit| flags | bit);
                return self.request(path, Request::SyncRange(*offset, *len, flags));
            }
            Sync => sys::syncfs(File::open(&self.root)?)?,
            SeekData { path, offset } => return seek(path, sys::SeekFrom::Data(*offset)),
            SeekHole { path, offset } => return seek(path, sys::SeekFrom::Hole(*offset)),
            Fiemap { path } => return self.request(path, Request::Fiemap),
            Stat { path } => {
                let found = self.reader(path)?.metadata()?;
                let text = format!("size {} sectors {}", found.len(), found.blocks());
                return Ok(Answer::Text(text));
            }
            ForgetStatus { path } => return self.request(path, Request::ForgetStatus),
            Shutdown { how } => return self.request(b"", Request::Shutdown(*how)),
            Tick { seconds } if self.waits => std::thread::sleep(Duration::from_secs(*seconds)),
            Tick { .. } | Promise { .. } => {}
            Remount => return Err(rustix::io::Errno::OPNOTSUPP.into()),
            _ => return self.change_names(operation),
        }
        Ok(Answer::Done)
    }

    /// What is about names, attributes, and the whole volume.
    fn change_names(&self, operation: &Operation) -> io::Result<Answer> {
        use Operation::{
            Chmod, Chown, DropCaches, Link, Mkdir, Mknod, RemoveXattr, Rename, Rmdir, SetTimes,
            SetXattr, Statfs, Symlink, Unlink,
        };
        match operation {
            Mkdir { path, mode } => {
                let path = self.at(path);
                fs::DirBuilder::new().mode((*mode).into()).create(&path)?;
                set_mode(&File::open(&path)?, *mode)?;
            }
            Symlink { target, path } => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), self.at(path))?;
            }
            Link { original, path } => fs::hard_link(self.at(original), self.at(path))?,
            Mknod { path, node, mode } => self.make_node(path, *node, *mode)?,
            Rename { from, to } => fs::rename(self.at(from), self.at(to))?,
            Unlink { path } => fs::remove_file(self.at(path))?,
            Rmdir { path } => fs::remove_dir(self.at(path))?,
            SetXattr { path, name, value } => {
                sys::lsetxattr(self.at(path), name.as_str(), value, sys::XattrFlags::empty())?;
            }
            RemoveXattr { path, name } => sys::lremovexattr(self.at(path), name.as_str())?,
            Chmod { path, mode } => {
                fs::set_permissions(self.at(path), fs::Permissions::from_mode((*mode).into()))?;
            }
            Chown { path, uid, gid } => {
                std::os::unix::fs::lchown(self.at(path), Some(*uid), Some(*gid))?;
            }
            SetTimes { path, accessed, modified } => {
                let time = |(seconds, nanoseconds): (i64, u32)| sys::Timespec {
                    tv_sec: seconds,
                    tv_nsec: nanoseconds.into(),
                };
                let times = sys::Timestamps {
                    last_access: time(*accessed),
                    last_modification: time(*modified),
                };
                let flags = sys::AtFlags::SYMLINK_NOFOLLOW;
                sys::utimensat(sys::CWD, self.at(path), &times, flags)?;
            }
            Statfs => {
                let found = sys::statvfs(&self.root)?;
                let text = format!("free {} available {}", found.f_bfree, found.f_bavail);
                return Ok(Answer::Text(text));
            }
            DropCaches { inodes } => {
                fs::write("/proc/sys/vm/drop_caches", if *inodes { "3" } else { "1" })?;
            }
            _ => return Err(rustix::io::Errno::OPNOTSUPP.into()),
        }
        Ok(Answer::Done)
    }

    fn make_node(&self, path: &[u8], node: Node, mode: u16) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Character(major, minor) => {
                (sys::FileType::CharacterDevice, sys::makedev(major, minor))
            }
            Node::Block(major, minor) => (sys::FileType::BlockDevice, sys::makedev(major, minor)),
            Node::Fifo => (sys::FileType::Fifo, 0),
            Node::Socket => (sys::FileType::Socket, 0),
        };
        let path = self.at(path);
        sys::mknodat(sys::CWD, &path, kind, sys::Mode::from_bits_retain(mode.into()), device)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode.into()))
    }
}

/// A new file, open for writing.
fn create(path: &Path, mode: u16) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode.into()).open(path)
}

/// Gives back what the umask took.
fn set_mode(file: &File, mode: u16) -> io::Result<()> {
    let mode = u32::from(mode);
    if file.metadata()?.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn open(path: &Path, flags: &[OpenFlag]) -> io::Result<File> {
    let has = |flag| flags.contains(&flag);
    let mut custom = sys::OFlags::empty();
    custom.set(sys::OFlags::DIRECT, has(OpenFlag::Direct));
    custom.set(sys::OFlags::SYNC, has(OpenFlag::Sync));
    OpenOptions::new()
        .read(true)
        .write(!has(OpenFlag::Read))
        .append(has(OpenFlag::Append))
        .truncate(has(OpenFlag::Truncate))
        .create_new(has(OpenFlag::Create))
        .mode(0o644)
        .custom_flags(custom.bits().cast_signed())
        .open(path)
}

/// Room whose start a direct request can use, and how far that is from the vector's start.
fn aligned(len: usize) -> (Vec<u8>, usize) {
    let bytes = vec![0_u8; len + DIRECT_ALIGNMENT];
    let skip = bytes.as_ptr().align_offset(DIRECT_ALIGNMENT);
    (bytes, skip)
}

const DIRECT_ALIGNMENT: usize = 4096;

/// One call, and more only if it wrote less.
fn write(file: &File, tag: u32, offset: u64, len: usize) -> io::Result<Answer> {
    for (start, len) in pieces(offset, len).ok_or(rustix::io::Errno::INVAL)? {
        let (mut room, skip) = aligned(len);
        room[skip..skip + len].copy_from_slice(&pattern(tag, start, len));
        file.write_all_at(&room[skip..skip + len], start)?;
    }
    Ok(Answer::Count(count(len)))
}

fn fill(file: &File, len: usize, pieces_count: u64, tag: u32) -> io::Result<Answer> {
    let mut done = 0;
    for _ in 0..pieces_count {
        for (start, len) in pieces(done, len).ok_or(rustix::io::Errno::INVAL)? {
            done += count(file.write_at(&pattern(tag, start, len), done)?);
        }
    }
    Ok(Answer::Count(done))
}

fn read(file: &File, offset: u64, len: usize) -> io::Result<Answer> {
    let mut total = 0;
    for (start, len) in pieces(offset, len).ok_or(rustix::io::Errno::INVAL)? {
        let (mut room, skip) = aligned(len);
        let mut done = 0;
        while done < len {
            match file.read_at(&mut room[skip + done..skip + len], start + count(done))? {
                0 => return Ok(Answer::Count(total + count(done))),
                more => done += more,
            }
        }
        total += count(done);
    }
    Ok(Answer::Count(total))
}

fn allocate_flags(mode: Allocation) -> sys::FallocateFlags {
    let known = Allocation::WORDS.iter().find(|(known, ..)| *known == mode);
    sys::FallocateFlags::from_bits_retain(known.map_or(0, |known| known.2))
}

fn count(len: usize) -> u64 {
    extant_format::cast::u64_from(len)
}

impl Target for DirectoryTarget {
    fn apply(&mut self, operation: &Operation) -> Result<Answer, Errno> {
        let done = self.try_apply(operation);
        done.map_err(|error| error.raw_os_error().map_or(Errno::NOT_SUPPORTED, Errno))
    }
}
