//! Files of images as sources.

use extant::library::ReadDir;
use extant::{DirEntry, File, Filesystem, InodeHandle, OpenOptions};
use extant_format::FileType;
use extant_format::cast::u64_from;

use super::settings::{Settings, Sparse};
use super::sparse;
use super::stream::{CHUNK_BYTES, FileId, Place, Sink};
use super::walk::{Look, Node, Trouble};
use crate::output::type_name;

/// A file inside an image.
#[derive(Debug)]
pub struct ImageNode {
    filesystem: Filesystem,
    /// By which symbolic links below are followed.
    path: Vec<u8>,
    handle: InodeHandle,
    place: Place,
    look: Look,
    allocated_bytes: u64,
    file: Option<File>,
}

impl ImageNode {
    /// What is at `path` in the image at `place`.
    pub fn named(
        filesystem: &Filesystem,
        path: &[u8],
        place: Place,
        follow: bool,
    ) -> anyhow::Result<Self> {
        let handle = match follow {
            true => filesystem.inode(path)?,
            false => filesystem.symlink_inode(path)?,
        };
        Self::new(filesystem.clone(), path.to_vec(), handle, place)
    }

    fn new(
        filesystem: Filesystem,
        path: Vec<u8>,
        handle: InodeHandle,
        place: Place,
    ) -> anyhow::Result<Self> {
        let found = handle.metadata()?;
        let look = Look {
            id: id(&handle, place),
            kind: found.file_type(),
            mode: found.mode,
            links: found.links,
            owner: (found.uid, found.gid),
            size: found.size,
            accessed: found.accessed,
            modified: found.modified,
            device: found.device.unwrap_or((0, 0)),
        };
        let allocated_bytes = found.blocks.saturating_mul(512);
        Ok(Self { filesystem, path, handle, place, look, allocated_bytes, file: None })
    }
}

/// Which file a handle is of.
pub fn id(handle: &InodeHandle, place: Place) -> FileId {
    FileId { place, inode: handle.number().get().into() }
}

impl Node for ImageNode {
    type Names = Names;

    fn look(&self) -> &Look {
        &self.look
    }

    fn names(&self) -> anyhow::Result<Names> {
        Ok(Names { entries: self.handle.read_dir()?, window: Vec::new().into_iter(), failed: None })
    }

    fn child(&self, name: &[u8], follow: bool) -> anyhow::Result<Self> {
        let mut handle = self.handle.lookup(name)?;
        handle.check_parent(self.handle.number())?;
        let mut path = Vec::new();
        if follow {
            path = [&self.path, &b"/"[..], name].concat();
            if handle.is_symlink() {
                handle = self.filesystem.inode(&path)?;
            }
        }
        Self::new(self.filesystem.clone(), path, handle, self.place)
    }

    fn read_link(&self) -> anyhow::Result<Vec<u8>> {
        Ok(self.handle.read_link()?)
    }

    fn leads_to(&self) -> Option<FileId> {
        let end = self.filesystem.inode(&self.path).ok()?;
        Some(id(&end, self.place))
    }

    fn xattrs(&self, wanted: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let names = self.handle.list_xattrs()?.into_iter().filter(|name| wanted(name));
        names
            .map(|name| {
                let value = self.handle.xattr(&name)?;
                Ok((name, value))
            })
            .collect()
    }

    fn open(&mut self) -> anyhow::Result<()> {
        if self.look.kind != FileType::Regular {
            let kind = type_name(self.look.kind);
            anyhow::bail!("is a {kind}, which nobody is behind; `cp -r` copies it as such");
        }
        self.file = Some(self.handle.open(OpenOptions::new().read(true))?);
        Ok(())
    }

    fn send_bytes(&mut self, settings: &Settings, sink: &mut Sink) -> Result<(), Trouble> {
        let Some(file) = &self.file else { return Ok(()) };
        let (size, sparse) = (self.look.size, settings.sparse);
        // Holes are looked for only where there must be some.
        if sparse == Sparse::Never || self.allocated_bytes >= size {
            return send_run(file, 0, size, sparse, sink);
        }
        let mut at = 0;
        while let Some(start) = file.seek_data(at)?.filter(|start| *start < size) {
            let end = file.seek_hole(start)?.unwrap_or(size).min(size);
            send_run(file, start, end, sparse, sink)?;
            at = end.max(start + 1);
        }
        Ok(())
    }
}

fn send_run(
    file: &File,
    start: u64,
    end: u64,
    sparse: Sparse,
    sink: &mut Sink,
) -> Result<(), Trouble> {
    let mut offset = start;
    while offset < end && !sink.is_unwanted() {
        let wanted = usize::try_from(end - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut bytes = sink.buffer(wanted);
        bytes.resize(wanted, 0);
        let count = file.read_at(&mut bytes, offset)?;
        if count == 0 {
            break;
        }
        bytes.truncate(count);
        sparse::send(sink, sparse, offset, bytes)?;
        offset += u64_from(count);
    }
    Ok(())
}

impl From<extant::Error> for Trouble {
    fn from(error: extant::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Names in a directory, in the order of the inode table as far as they fit into a window: so it is read from front to back.
#[derive(Debug)]
pub struct Names {
    entries: ReadDir,
    window: std::vec::IntoIter<DirEntry>,
    failed: Option<extant::Error>,
}

impl Iterator for Names {
    type Item = anyhow::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.window.next() {
            return Some(Ok(entry.name().to_vec()));
        }
        let mut entries = Vec::new();
        while self.failed.is_none() && entries.len() < WINDOW_NAMES {
            match self.entries.next() {
                None => break,
                Some(Err(error)) => self.failed = Some(error),
                Some(Ok(entry)) => entries.push(entry),
            }
        }
        entries.sort_by_key(DirEntry::inode);
        self.window = entries.into_iter();
        match self.window.next() {
            Some(entry) => Some(Ok(entry.name().to_vec())),
            None => self.failed.take().map(|error| Err(error.into())),
        }
    }
}

/// Names of a directory that are sorted, and in memory, at a time.
const WINDOW_NAMES: usize = 16 << 10;
