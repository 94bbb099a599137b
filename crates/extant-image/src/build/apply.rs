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
                let entered = self.enter(node);
                let handle = entered.map_err(|error| self.engine(node, error))?;
                if self.build.in_place {
                    let prepared = self.prepare(node, &handle, attributes.as_ref());
                    prepared.map_err(|error| self.engine(node, error))?;
                }
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
            Item::Whiteout(node) => {
                let taken = self.take_away(node);
                self.settle(node, taken)?;
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
            Err(Problem::Engine(error)) if error.concerns_all() => Err(self.engine(node, error)),
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
        let (tree, directory) = (&self.build.tree, self.directory()?);
        let name = tree.name(node);
        let made = match directory.create_dir(name, 0o755) {
            Err(Error::Exists) => match directory.lookup(name)? {
                found if found.is_dir() => found,
                // Of a directory that only stands on a path nobody says that it is none any more.
                found
                    if found.is_symlink() && tree.place(node).is_none() && self.build.in_place =>
                {
                    self.filesystem.inode(tree.path(node))?
                }
                _ if tree.place(node).is_none() => return Err(Problem::InTheWay),
                _ => {
                    self.make_room(name)?;
                    directory.create_dir(name, 0o755)?
                }
            },
            made => made?,
        };
        if !made.is_dir() {
            return Err(Problem::InTheWay);
        }
        self.ahead.insert(node, inode(&made)?);
        Ok(())
    }

    /// Takes what has a name in the directory at hand away; only in an image that is changed in place something can be there.
    fn make_room(&self, name: &[u8]) -> Result<(), Problem> {
        if !self.build.in_place {
            return Err(Problem::InTheWay);
        }
        remove(self.directory()?, name)?;
        Ok(())
    }

    fn take_away(&self, node: NodeId) -> Result<(), Problem> {
        match remove(self.directory()?, self.build.tree.name(node)) {
            Ok(()) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has a directory that may have been there before be as if it were new, as far as its layer says so.
    fn prepare(
        &self,
        node: NodeId,
        handle: &InodeHandle,
        attributes: Option<&Attributes>,
    ) -> Result<(), Error> {
        if self.build.tree.is_marked(node) {
            for name in names(handle)? {
                remove(handle, &name)?;
            }
        }
        let Some(attributes) = attributes else { return Ok(()) };
        for name in handle.list_xattrs()? {
            if !attributes.xattrs.iter().any(|(kept, _)| *kept == name) {
                handle.remove_xattr(&name)?;
            }
        }
        Ok(())
    }

    fn make(&mut self, node: NodeId, entry: Entry) -> Result<(), Problem> {
        let Entry { attributes, contents, link } = entry;
        if self.build.in_place {
            self.take_away(node)?;
        }
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
                match self.lay_out(&made, std::slice::from_ref(&(0..size)), size)? {
                    Some(extents) => {
                        extents.iter().try_for_each(|extent| self.gather(&bytes, extent))?
                    }
                    None => {
                        write_all(&made, 0, &bytes.as_slice()[..len])?;
                        self.observer.bytes_done(size);
                    }
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

    /// Places for bytes that go past the engine; `None` where they must not: in an image that others may read, in an inode, by
    /// indirect blocks.
    fn lay_out(
        &self,
        made: &InodeHandle,
        parts: &[Range<u64>],
        size: u64,
    ) -> Result<Option<Vec<FileExtent>>, Error> {
        if self.build.in_place {
            return Ok(None);
        }
        match made.lay_out(parts, size) {
            Err(Error::NotSupported(_)) => Ok(None),
            extents => extents.map(Some),
        }
    }

    /// Lays a file out and has its bytes brought there.
    fn copy(&mut self, node: NodeId, made: &InodeHandle, parts: Parts) -> Result<(), Problem> {
        let blocks = in_blocks(&parts, self.block_bytes);
        let Some(extents) = self.lay_out(made, &blocks, parts.size)? else {
            return self.write(node, made, &parts);
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
                Err(error) if error.concerns_all() => return Err(self.engine(node, error)),
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

/// Removes a name, and everything below it if it is a directory.
fn remove(directory: &InodeHandle, name: &[u8]) -> Result<(), Error> {
    let found = directory.lookup(name)?;
    if !found.is_dir() {
        return directory.remove_file(name);
    }
    // Depth first, without recursion: directories to be emptied, each with the one that it is in.
    let mut open = vec![(directory.clone(), name.to_vec(), found)];
    while let Some((parent, name, directory)) = open.last() {
        directory.check_parent(parent.number())?;
        let mut below = None;
        for entry in names(directory)? {
            match directory.remove_file(&entry) {
                Err(Error::IsDirectory) => {
                    let found = directory.lookup(&entry)?;
                    below = Some((directory.clone(), entry, found));
                    break;
                }
                removed => removed?,
            }
        }
        match below {
            Some(below) => open.push(below),
            None => {
                parent.remove_dir(name)?;
                open.pop();
            }
        }
    }
    Ok(())
}

fn names(directory: &InodeHandle) -> Result<Vec<Vec<u8>>, Error> {
    directory.read_dir()?.map(|entry| entry.map(|entry| entry.name().to_vec())).collect()
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

/// After so many entries what they changed goes to the device, so that memory does not grow with their number.
const ENTRIES_PER_SYNC: u32 = 8192;
/// How many bytes of small files are written at once, and of how many.
const GATHERED_BYTES: u64 = 1 << 20;
const GATHERED_REQUESTS: usize = 512;
