//! Reads a tree of this machine.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use extant::namespace::NodeKind;
use extant_format::Timestamp;
use extant_format::cast::{low_u16, u64_from};
use rustix::fs::{CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use walkdir::{DirEntry, WalkDir};

use super::stream::{Attributes, CHUNK_BYTES, Entry, Item, Settings, Sink, Stopped};

/// A file or tree of this machine.
#[derive(Debug)]
pub struct LocalSource {
    /// Where it is.
    pub path: PathBuf,
    /// What its copy is called; empty for the target directory itself.
    pub name: Vec<u8>,
    /// Device and inode of the image that is being written, which cannot be put into itself.
    pub avoid: Option<(u64, u64)>,
}

impl LocalSource {
    /// Sends the whole tree.
    pub fn walk(&self, settings: Settings, sink: &mut Sink) -> Result<(), Stopped> {
        let mut links = HashMap::new();
        let mut depth = 0;
        let walk = WalkDir::new(&self.path)
            .max_depth(if settings.recursive { usize::MAX } else { 0 })
            .sort_by_file_name();
        for entry in walk {
            let (entry, metadata) = match look_at(entry, settings) {
                Ok(found) => found,
                Err(error) => {
                    sink.send(Item::Failed(crate::failure::line(&error)))?;
                    continue;
                }
            };
            while depth > entry.depth() {
                sink.send(Item::Leave)?;
                depth -= 1;
            }
            let name = match entry.depth() {
                0 => self.name.clone(),
                _ => entry.file_name().as_bytes().to_vec(),
            };
            if metadata.is_dir() {
                let attributes = attributes(entry.path(), &metadata, settings);
                sink.send(Item::Enter(Entry {
                    name,
                    attributes,
                    modified: modified(&metadata),
                    link: None,
                }))?;
                depth = entry.depth() + 1;
            } else {
                self.send_file(name, &entry, &metadata, settings, &mut links, sink)?;
            }
        }
        (0..depth).try_for_each(|_| sink.send(Item::Leave))
    }

    fn send_file(
        &self,
        name: Vec<u8>,
        entry: &DirEntry,
        metadata: &Metadata,
        settings: Settings,
        links: &mut HashMap<(u64, u64), u64>,
        sink: &mut Sink,
    ) -> Result<(), Stopped> {
        let path = entry.path();
        let key = (metadata.dev(), metadata.ino());
        if self.avoid == Some(key) {
            return sink
                .send(Item::Failed(format!("{} is the image itself; left out", path.display())));
        }
        let mut link = None;
        if settings.archive && metadata.nlink() > 1 {
            let number = u64_from(links.len());
            if let Some(first) = links.get(&key) {
                return sink.send(Item::Again { name, modified: modified(metadata), link: *first });
            }
            links.insert(key, number);
            link = Some(number);
        }
        let attributes = attributes(path, metadata, settings);
        let new = Entry { name, attributes, modified: modified(metadata), link };
        let outcome = send_contents(path, metadata, new, settings, sink);
        match outcome {
            Err(Trouble::Stopped) => Err(Stopped),
            Err(Trouble::Io(error)) => {
                links.remove(&key);
                let error = anyhow::Error::from(error).context(path.display().to_string());
                sink.send(Item::Failed(crate::failure::line(&error)))
            }
            Ok(()) => Ok(()),
        }
    }
}

/// What an entry is; a symbolic link that is named alone stands for its target.
fn look_at(
    entry: walkdir::Result<DirEntry>,
    settings: Settings,
) -> anyhow::Result<(DirEntry, Metadata)> {
    let plain = |error: walkdir::Error| {
        let path = error.path().map(|path| path.display().to_string()).unwrap_or_default();
        let why = error.into_io_error().unwrap_or(ErrorKind::Other.into());
        anyhow::Error::from(why).context(path)
    };
    let entry = entry.map_err(plain)?;
    let metadata = match settings.recursive {
        true => entry.metadata().map_err(plain)?,
        false => {
            std::fs::metadata(entry.path()).with_context(|| entry.path().display().to_string())?
        }
    };
    Ok((entry, metadata))
}

/// Why a file was not sent to its end.
enum Trouble {
    Stopped,
    Io(std::io::Error),
}

impl From<Stopped> for Trouble {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

fn send_contents(
    path: &Path,
    metadata: &Metadata,
    entry: Entry,
    settings: Settings,
    sink: &mut Sink,
) -> Result<(), Trouble> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let target = std::fs::read_link(path)?.into_os_string().into_vec();
        return Ok(sink.send(Item::Symlink { entry, target })?);
    }
    // As with cp(1), what is named alone is read: a pipe, `/dev/stdin`, a disk.
    if kind.is_file() || !settings.recursive {
        let careful = match settings.recursive {
            true => OFlags::NOFOLLOW | OFlags::NONBLOCK,
            false => OFlags::empty(),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | careful;
        let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
        sink.send(Item::File(entry))?;
        // A file that fails half-way is closed with the bytes that came, and reported.
        let sent = match metadata.len() {
            0 => send_stream(file, sink),
            _ => send_bytes(file, metadata, sink),
        };
        sink.send(Item::Close { size: metadata.len() })?;
        return sent;
    }
    let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let kind = if kind.is_block_device() {
        NodeKind::BlockDevice(device.0, device.1)
    } else if kind.is_char_device() {
        NodeKind::CharacterDevice(device.0, device.1)
    } else if kind.is_fifo() {
        NodeKind::Fifo
    } else {
        NodeKind::Socket
    };
    Ok(sink.send(Item::Special { entry, kind })?)
}

/// Sends the runs that hold data; holes are looked for only where there must be some.
fn send_bytes(mut file: File, metadata: &Metadata, sink: &mut Sink) -> Result<(), Trouble> {
    let size = metadata.len();
    if metadata.blocks().saturating_mul(512) >= size {
        return send_run(&mut file, 0, size, sink);
    }
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            start => start?,
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(size);
        rustix::fs::seek(&file, SeekFrom::Start(start))?;
        send_run(&mut file, start, end, sink)?;
        at = end.max(start + 1);
    }
    Ok(())
}

/// Sends what has no size of its own: pipes, devices, files of `/proc`; or nothing, from an empty file.
fn send_stream(mut file: File, sink: &mut Sink) -> Result<(), Trouble> {
    let mut offset = 0;
    loop {
        let mut bytes = sink.buffer(STREAM_BYTES);
        let count = u64_from((&mut file).take(u64_from(STREAM_BYTES)).read_to_end(&mut bytes)?);
        if count == 0 {
            return Ok(());
        }
        sink.send(Item::Data { offset, bytes })?;
        offset += count;
    }
}

fn send_run(file: &mut File, start: u64, end: u64, sink: &mut Sink) -> Result<(), Trouble> {
    let mut offset = start;
    while offset < end {
        let wanted = (end - offset).min(u64_from(CHUNK_BYTES));
        let mut bytes = sink.buffer(usize::try_from(wanted).unwrap_or(CHUNK_BYTES));
        let count = u64_from(file.take(wanted).read_to_end(&mut bytes)?);
        if count == 0 {
            break; // it became shorter meanwhile
        }
        sink.send(Item::Data { offset, bytes })?;
        offset += count;
    }
    Ok(())
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) }
}

fn modified(metadata: &Metadata) -> Timestamp {
    timestamp(metadata.mtime(), metadata.mtime_nsec())
}

fn attributes(path: &Path, metadata: &Metadata, settings: Settings) -> Attributes {
    let mode = low_u16(metadata.mode()) & 0o7777;
    if !settings.archive {
        return Attributes { mode: mode & 0o777 & !settings.umask, ..Attributes::default() };
    }
    Attributes {
        mode,
        owner: Some((metadata.uid(), metadata.gid())),
        times: Some((timestamp(metadata.atime(), metadata.atime_nsec()), modified(metadata))),
        xattrs: xattrs(path),
    }
}

/// All extended attributes that this process may read.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = grow(|buffer| rustix::fs::llistxattr(path, buffer)).unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| grow(|buffer| rustix::fs::lgetxattr(path, name, buffer)).ok();
    names.filter_map(|name| Some((name.to_vec(), value(name)?))).collect()
}

/// Calls until the buffer is large enough.
fn grow(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut buffer = vec![0; LARGEST_XATTR];
    let len = call(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Little, since most files without a size are empty.
const STREAM_BYTES: usize = 32 << 10;
/// Linux keeps values, and lists of names, below this.
const LARGEST_XATTR: usize = 64 << 10;
