//! One thread that makes what the readers tell of: names, attributes, and places for bytes, which the writers bring there.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};

use extant::{Error, FileExtent, Filesystem, InodeHandle, InodeNumber, OpenOptions, SetAttributes};
use extant_device::Request;
use extant_format::cast::u64_from;

use super::entry::{Attributes, Contents, Entry, LinkKey, Parts};
use super::error::Problem;
use super::readers::{Item, Pieces};
use super::tree::NodeId;
use super::writers::{Copy, Task, Writers, fill};
use super::{Build, BuildError, Observer, Totals};

/// The one who applies entries to a new, empty volume.
pub(super) struct Applying<'a> {
    build: &'a Build,
    filesystem: Filesystem,
    observer: &'a dyn Observer,
    writers: &'a Writers<'a>,
    tasks: SyncSender<Task>,
    /// Small files that are to be written together.
    gathered: Vec<Request>,
    gathered_bytes: u64,
    block_bytes: u64,
    /// Directories that were made and not entered yet.
    ahead: HashMap<NodeId, Inode>,
    current: Option<Current>,
    /// Files that more names may follow of.
    links: HashMap<LinkKey, Inode>,
    since_sync: u32,
    totals: Totals,
}

/// Which inode; to keep it in memory would take more.
type Inode = (InodeNumber, u32);

/// The directory at hand.
struct Current {
    node: NodeId,
    handle: InodeHandle,
    attributes: Option<Attributes>,
}

impl<'a> Applying<'a> {
    pub(super) fn new(
        build: &'a Build,
        filesystem: Filesystem,
        observer: &'a dyn Observer,
        writers: &'a Writers<'a>,
        tasks: SyncSender<Task>,
    ) -> Self {
        let block_bytes = filesystem.statfs().block_size.into();
        Self {
            build,
            filesystem,
            observer,
            writers,
            tasks,
            gathered: Vec::new(),
            gathered_bytes: 0,
            block_bytes,
            ahead: HashMap::new(),
            current: None,
            links: HashMap::new(),
            since_sync: 0,
            totals: Totals::default(),
        }
    }

    /// Takes all jobs in their order.
    pub(super) fn run(mut self, jobs: &Receiver<Pieces>) -> Result<Totals, BuildError> {
        for pieces in jobs {
            for items in pieces {
                if self.observer.is_interrupted() {
                    return Err(BuildError::Interrupted);
                }
                if let Some(error) = self.writers.failure() {
                    return Err(error.into());
                }
                for item in items {
                    self.take(item)?;
                }
            }
        }
        self.send_gathered()?;
        Ok(self.totals)
    }

    fn take(&mut self, item: Item) -> Result<(), BuildError> {
        match item {
            Item::Failed(failure) => self.observer.failed(&failure),
            Item::Enter(node, attributes) => {
                let handle = self.enter(node).map_err(|error| self.engine(node, error))?;
                self.current = Some(Current { node, handle, attributes });
            }
            Item::Leave => {
                if let Some(Current { node, handle, attributes: Some(attributes) }) =
                    self.current.take()
                {
                    self.finish(node, &handle, &attributes)?;
                }
                self.totals.directories += 1;
            }
            Item::Directory(node) => {
                let made = self.make_directory(node);
                self.settle(node, made)?;
            }
            Item::Entry(node, entry) => {
                let made = self.make(node, *entry);
                self.settle(node, made)?;
                self.observer.entry_done();
            }
        }
        Ok(())
    }

    /// Tells of what concerns one file alone.
    ///
    /// # Errors
    /// What would come again with every further file.
    fn settle(&mut self, node: NodeId, made: Result<(), Problem>) -> Result<(), BuildError> {
        self.since_sync += 1;
        if self.since_sync == ENTRIES_PER_SYNC {
            self.since_sync = 0;
            self.filesystem.sync_all().map_err(|error| self.engine(node, error))?;
        }
        match made {
            Ok(()) => Ok(()),
            Err(Problem::Engine(error)) if concerns_all(&error) => Err(self.engine(node, error)),
            Err(problem) => {
                self.observer.failed(&self.build.failure_of(node, problem));
                Ok(())
            }
        }
    }

    fn engine(&self, node: NodeId, error: Error) -> BuildError {
        BuildError::Engine { path: self.build.tree.path(node), error }
    }

    fn enter(&mut self, node: NodeId) -> Result<InodeHandle, Error> {
        match self.ahead.remove(&node) {
            Some((number, generation)) => self.filesystem.inode_numbered(number, generation),
            None => self.filesystem.inode("/"),
        }
    }

    fn directory(&self) -> Result<&InodeHandle, Problem> {
        self.current.as_ref().map(|current| &current.handle).ok_or(Problem::Changed)
    }

    fn make_directory(&mut self, node: NodeId) -> Result<(), Problem> {
        let (directory, name) = (self.directory()?, self.build.tree.name(node));
        let made = match directory.create_dir(name, 0o755) {
            // `lost+found` is there from the start.
            Err(Error::Exists) => directory.lookup(name)?,
            made => made?,
        };
        if !made.is_dir() {
            return Err(Problem::InTheWay);
        }
        self.ahead.insert(node, inode(&made)?);
        Ok(())
    }

    fn make(&mut self, node: NodeId, entry: Entry) -> Result<(), Problem> {
        let Entry { attributes, contents, link } = entry;
        let (directory, name) = (self.directory()?, self.build.tree.name(node));
        if let Some((number, generation)) = link.and_then(|link| self.links.get(&link)) {
            let first = self.filesystem.inode_numbered(*number, *generation)?;
            match directory.hard_link(&first, name) {
                // A file can have 65,000 names; the others become copies.
                Err(Error::TooManyLinks) => {}
                linked => return Ok(linked?),
            }
        }
        let made = match &contents {
            Contents::Symlink(target) => directory.symlink(target, name)?,
            Contents::Special(kind) => directory.mknod(name, *kind, attributes.mode)?,
            Contents::Bytes { .. } | Contents::Parts(_) => {
                directory.create_file(name, attributes.mode)?
            }
        };
        match contents {
            Contents::Bytes { bytes, len } if len > 0 => {
                let size = u64_from(len);
                self.totals.bytes += size;
                match made.lay_out(std::slice::from_ref(&(0..size)), size) {
                    Ok(extents) => {
                        extents.iter().try_for_each(|extent| self.gather(&bytes, extent))?
                    }
                    Err(Error::NotSupported(_)) => {
                        write_all(&made, 0, &bytes.as_slice()[..len])?;
                        self.observer.bytes_done(size);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Contents::Parts(parts) => {
                self.totals.bytes +=
                    parts.runs.iter().map(|(run, _)| run.end - run.start).sum::<u64>();
                self.copy(node, &made, parts)?;
            }
            _ => {}
        }
        if let Some(link) = link {
            self.links.insert(link, inode(&made)?);
        }
        self.totals.files += 1;
        self.finish(node, &made, &attributes).map_err(|error| match error {
            BuildError::Engine { error, .. } => Problem::Engine(error),
            _ => Problem::Changed,
        })
    }

    /// Has a part of a small file written with others.
    fn gather(&mut self, bytes: &extant_device::Frame, extent: &FileExtent) -> Result<(), Problem> {
        let index =
            |block: u32| usize::try_from(u64::from(block) * self.block_bytes).unwrap_or(usize::MAX);
        let place = extent.physical.ok_or(Problem::Changed)? * self.block_bytes;
        let part = index(extent.logical)..index(extent.logical + extent.len);
        self.gathered_bytes += u64_from(part.len());
        self.gathered.push(Request::write(place, vec![bytes.slice(part)]));
        if self.gathered_bytes >= GATHERED_BYTES || self.gathered.len() == GATHERED_REQUESTS {
            self.send_gathered().map_err(|_| Problem::Changed)?;
        }
        Ok(())
    }

    fn send_gathered(&mut self) -> Result<(), BuildError> {
        self.observer.bytes_done(std::mem::take(&mut self.gathered_bytes));
        let task = Task::Write(std::mem::take(&mut self.gathered));
        self.tasks.send(task).map_err(|_| BuildError::Thread)
    }

    /// Lays a file out and has its bytes brought there.
    fn copy(&mut self, node: NodeId, made: &InodeHandle, parts: Parts) -> Result<(), Problem> {
        let extents = match made.lay_out(&in_blocks(&parts, self.block_bytes), parts.size) {
            Err(Error::NotSupported(_)) => return self.write(node, made, &parts),
            extents => extents?,
        };
        let block = self.block_bytes;
        let place = |extent: &FileExtent| {
            let start = u64::from(extent.logical) * block;
            Some((start..start + u64::from(extent.len) * block, extent.physical? * block))
        };
        let places: Vec<_> = extents.iter().filter_map(place).collect();
        if places.is_empty() {
            return Ok(());
        }
        let task = Task::Copy(Copy { node, parts, places });
        self.tasks.send(task).map_err(|_| Problem::Changed)
    }

    /// Writes a file through the engine, where it cannot be laid out: in its inode, or by indirect blocks.
    fn write(&self, node: NodeId, made: &InodeHandle, parts: &Parts) -> Result<(), Problem> {
        let mut buffer = Vec::new();
        for (run, _) in &parts.runs {
            let mut at = run.start;
            while at < run.end {
                let end = run.end.min(at + GATHERED_BYTES);
                buffer.resize(usize::try_from(end - at).unwrap_or(0), 0);
                if let Err(problem) = fill(parts, at, &mut buffer) {
                    self.observer.failed(&self.build.failure_of(node, problem));
                }
                write_all(made, at, &buffer)?;
                self.observer.bytes_done(end - at);
                at = end;
            }
        }
        let file = made.open(OpenOptions::new().write(true))?;
        Ok(file.set_len(parts.size)?)
    }

    /// Sets what making the file did not.
    fn finish(
        &self,
        node: NodeId,
        handle: &InodeHandle,
        attributes: &Attributes,
    ) -> Result<(), BuildError> {
        let set = handle.set_attributes(&SetAttributes {
            mode: (!handle.is_symlink()).then_some(attributes.mode),
            uid: Some(attributes.uid),
            gid: Some(attributes.gid),
            accessed: Some(attributes.accessed.unwrap_or(attributes.modified)),
            modified: Some(attributes.modified),
            ..SetAttributes::default()
        });
        set.map_err(|error| self.engine(node, error))?;
        // After the owner, since another owner takes capabilities away.
        for (name, value) in &attributes.xattrs {
            match handle.set_xattr(name, value) {
                Ok(()) => {}
                Err(error) if concerns_all(&error) => return Err(self.engine(node, error)),
                Err(error) => {
                    let problem = Problem::Attribute { name: name.clone(), error };
                    self.observer.failed(&self.build.failure_of(node, problem));
                }
            }
        }
        Ok(())
    }
}

fn write_all(made: &InodeHandle, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
    let file = made.open(OpenOptions::new().write(true))?;
    while !bytes.is_empty() {
        let count = file.write_at(bytes, offset)?;
        bytes = &bytes[count..];
        offset += u64_from(count);
    }
    Ok(())
}

fn inode(handle: &InodeHandle) -> Result<Inode, Error> {
    Ok((handle.number(), handle.metadata()?.generation))
}

/// The parts of a file that get blocks: runs of bytes that share one, or touch, are one part.
fn in_blocks(parts: &Parts, block: u64) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for (run, _) in parts.runs.iter().filter(|(run, _)| !run.is_empty()) {
        let start = run.start - run.start % block;
        match merged.last_mut() {
            Some(last) if start <= last.end => last.end = run.end.next_multiple_of(block),
            _ => merged.push(start..run.end.next_multiple_of(block)),
        }
    }
    merged.iter_mut().for_each(|part| part.end = part.end.min(parts.size));
    merged
}

/// Whether an error would come again with every further file.
fn concerns_all(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSpace { .. }
            | Error::NoInodes
            | Error::Corrupt(_)
            | Error::Device(_)
            | Error::Journal(_)
            | Error::Aborted { .. }
            | Error::Shutdown
            | Error::ReadOnly
    )
}

/// After so many entries what they changed goes to the device, so that memory does not grow with their number.
const ENTRIES_PER_SYNC: u32 = 8192;
/// How many bytes of small files are written at once, and of how many.
const GATHERED_BYTES: u64 = 1 << 20;
const GATHERED_REQUESTS: usize = 512;
