//! Reads a tree inside an image.

use std::collections::HashMap;

use anyhow::Context;
use extant::namespace::NodeKind;
use extant::{Error, File, InodeHandle, Metadata, OpenOptions};
use extant_format::cast::u64_from;
use extant_format::{FileType, InodeNumber};

use super::stream::{Attributes, CHUNK_BYTES, Entry, Item, Settings, Sink, Stopped};

/// A file or tree inside an image.
#[derive(Debug)]
pub struct ImageSource {
    /// What it is.
    pub handle: InodeHandle,
    /// How it was called, for messages.
    pub address: String,
    /// What its copy is called; empty for the target directory itself.
    pub name: Vec<u8>,
    /// The directory that is copied into, if it is in this image: it is not copied into itself.
    pub avoid: Option<InodeNumber>,
}

/// A walk that is under way.
struct Walk<'a> {
    source: &'a ImageSource,
    settings: Settings,
    sink: &'a mut Sink,
    links: HashMap<InodeNumber, u64>,
    /// Where it is, below the source.
    path: Vec<Vec<u8>>,
}

/// Why a file was not sent to its end.
enum Trouble {
    Stopped,
    Failed(Error),
}

impl From<Stopped> for Trouble {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl ImageSource {
    /// Sends the whole tree.
    pub fn walk(&self, settings: Settings, sink: &mut Sink) -> Result<(), Stopped> {
        let mut walk =
            Walk { source: self, settings, sink, links: HashMap::new(), path: Vec::new() };
        let mut stack = Vec::new();
        walk.visit(self.handle.clone(), self.name.clone(), &mut stack)?;
        while let Some((directory, left)) = stack.last_mut() {
            let Some(name) = left.next() else {
                stack.pop();
                walk.path.pop();
                walk.sink.send(Item::Leave)?;
                continue;
            };
            let found = directory.lookup(&name);
            walk.path.push(name.clone());
            match found {
                Ok(handle) => walk.visit(handle, name, &mut stack)?,
                Err(error) => {
                    walk.fail(error)?;
                    walk.path.pop();
                }
            }
        }
        Ok(())
    }
}

/// An open directory and the names in it that were not visited yet.
type Open = (InodeHandle, std::vec::IntoIter<Vec<u8>>);

impl Walk<'_> {
    /// Sends one file, or enters a directory; a file's name leaves the path again.
    fn visit(
        &mut self,
        handle: InodeHandle,
        name: Vec<u8>,
        stack: &mut Vec<Open>,
    ) -> Result<(), Stopped> {
        match self.send(&handle, name) {
            Err(Trouble::Stopped) => return Err(Stopped),
            Err(Trouble::Failed(error)) => self.fail(error)?,
            Ok(Some(names)) => {
                stack.push((handle, names.into_iter()));
                return Ok(());
            }
            Ok(None) => {}
        }
        self.path.pop();
        Ok(())
    }

    /// Sends one file; for a directory that was entered returns the names in it.
    fn send(
        &mut self,
        handle: &InodeHandle,
        name: Vec<u8>,
    ) -> Result<Option<Vec<Vec<u8>>>, Trouble> {
        let metadata = handle.metadata()?;
        let mut link = None;
        if self.settings.archive && metadata.links > 1 && !metadata.is_dir() {
            let number = u64_from(self.links.len());
            if let Some(first) = self.links.get(&handle.number()) {
                self.sink.send(Item::Again { name, modified: metadata.modified, link: *first })?;
                return Ok(None);
            }
            self.links.insert(handle.number(), number);
            link = Some(number);
        }
        let attributes = attributes(handle, &metadata, self.settings)?;
        let entry = Entry { name, attributes, modified: metadata.modified, link };
        if metadata.is_dir() {
            return self.enter(handle, entry);
        }
        if metadata.is_symlink() {
            let target = handle.read_link()?;
            self.sink.send(Item::Symlink { entry, target })?;
        } else if metadata.is_file() {
            let file = handle.open(OpenOptions::new().read(true))?;
            self.sink.send(Item::File(entry))?;
            let sent = self.send_bytes(&file, &metadata);
            self.sink.send(Item::Close { size: metadata.size })?;
            sent?;
        } else {
            let (major, minor) = metadata.device.unwrap_or((0, 0));
            let kind = match metadata.file_type() {
                FileType::BlockDevice => NodeKind::BlockDevice(major, minor),
                FileType::CharacterDevice => NodeKind::CharacterDevice(major, minor),
                FileType::Socket => NodeKind::Socket,
                _ => NodeKind::Fifo,
            };
            self.sink.send(Item::Special { entry, kind })?;
        }
        Ok(None)
    }

    fn enter(
        &mut self,
        handle: &InodeHandle,
        entry: Entry,
    ) -> Result<Option<Vec<Vec<u8>>>, Trouble> {
        if self.source.avoid == Some(handle.number()) {
            return Err(Error::Invalid("a directory cannot be copied into itself").into());
        }
        let mut entries = handle.read_dir()?.collect::<Result<Vec<_>, _>>()?;
        // In the order of the inode table, which is then read from front to back.
        entries.sort_by_key(|entry| entry.inode());
        self.sink.send(Item::Enter(entry))?;
        Ok(Some(entries.iter().map(|entry| entry.name().to_vec()).collect()))
    }

    /// Sends the runs that hold data; holes are looked for only where there must be some.
    fn send_bytes(&mut self, file: &File, metadata: &Metadata) -> Result<(), Trouble> {
        let size = metadata.size;
        if metadata.blocks.saturating_mul(512) >= size {
            return self.send_run(file, 0, size);
        }
        let mut at = 0;
        while let Some(start) = file.seek_data(at)?.filter(|start| *start < size) {
            let end = file.seek_hole(start)?.unwrap_or(size).min(size);
            self.send_run(file, start, end)?;
            at = end.max(start + 1);
        }
        Ok(())
    }

    fn send_run(&mut self, file: &File, start: u64, end: u64) -> Result<(), Trouble> {
        let mut offset = start;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let mut bytes = self.sink.buffer(wanted);
            bytes.resize(wanted, 0);
            let count = file.read_at(&mut bytes, offset)?;
            if count == 0 {
                break;
            }
            bytes.truncate(count);
            self.sink.send(Item::Data { offset, bytes })?;
            offset += u64_from(count);
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) -> Result<(), Stopped> {
        let below = self.path.iter().map(|name| format!("/{}", String::from_utf8_lossy(name)));
        let address = self.source.address.strip_suffix('/').unwrap_or(&self.source.address);
        let address = format!("{address}{}", below.collect::<String>());
        let error = Err::<(), _>(error).context(address).expect_err("it is one");
        self.sink.send(Item::Failed(crate::failure::line(&error)))
    }
}

fn attributes(
    handle: &InodeHandle,
    metadata: &Metadata,
    settings: Settings,
) -> Result<Attributes, Error> {
    if !settings.archive {
        let mode = metadata.permissions() & 0o777 & !settings.umask;
        return Ok(Attributes { mode, ..Attributes::default() });
    }
    let mut xattrs = Vec::new();
    for name in handle.list_xattrs()? {
        let value = handle.xattr(&name)?;
        xattrs.push((name, value));
    }
    Ok(Attributes {
        mode: metadata.permissions(),
        owner: Some((metadata.uid, metadata.gid)),
        times: Some((metadata.accessed, metadata.modified)),
        xattrs,
    })
}
