//! Threads that read ahead: each takes the next job of the order, and what it read is taken in that order.
//!
//! A job has a channel of its own, which is put into a queue as the job is handed out. So whoever takes from the queue sees
//! the jobs in order, whichever is done first; and since a queue has an end, readers are never far ahead. The oldest job is
//! always at hand with somebody who waits for nobody but its taker.

use std::fs::File;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use extant_format::FileType;

use super::entry::{Attributes, Contents, Entry};
use super::order::{Job, Order};
use super::tree::{Kind, NodeId, Place};
use super::{Build, Failure, Problem};

/// What a reader tells.
#[derive(Debug)]
pub(super) enum Item {
    /// A directory begins; what it is like, if that can be read.
    Enter(NodeId, Option<Attributes>),
    /// A directory in it.
    Directory(NodeId),
    /// Anything else in it.
    Entry(NodeId, Box<Entry>),
    /// What has this name in it goes.
    Whiteout(NodeId),
    /// Something in it that could not be read.
    Failed(Failure),
    /// The directory has ended.
    Leave,
}

/// What readers have read of one job, in pieces.
pub(super) type Pieces = Receiver<Vec<Item>>;

/// Hands out jobs in order.
pub(super) struct Desk {
    /// The queue is there as long as more jobs come.
    order: Mutex<(Order, Option<SyncSender<Pieces>>)>,
}

/// A desk, and the queue in which the jobs come.
pub(super) fn desk() -> (Desk, Receiver<Pieces>) {
    let (queue, jobs) = sync_channel(JOBS_AHEAD);
    (Desk { order: Mutex::new((Order::new(), Some(queue))) }, jobs)
}

impl Desk {
    /// The next job, and where what is read goes; `None` at the end, or if nobody wants more.
    fn next(&self, build: &Build) -> Option<(Job, SyncSender<Vec<Item>>)> {
        let mut order = self.order.lock().ok()?;
        let (order, queue) = &mut *order;
        let Some(job) = order.next(&build.tree) else {
            *queue = None;
            return None;
        };
        let (pieces, taken) = sync_channel(1);
        queue.as_ref()?.send(taken).ok()?;
        Some((job, pieces))
    }
}

/// What one thread does.
pub(super) fn read_ahead(build: &Build, desk: &Desk) {
    while let Some((job, pieces)) = desk.next(build) {
        let mut reader = Reader { build, pieces, items: Vec::new(), bytes: 0, open: None };
        if reader.read(&job).is_none() {
            return;
        }
    }
}

struct Reader<'a> {
    build: &'a Build,
    pieces: SyncSender<Vec<Item>>,
    items: Vec<Item>,
    bytes: usize,
    /// The directory that names are looked for in, and whose it is.
    open: Option<(u16, File)>,
}

impl Reader<'_> {
    /// Reads a job; `None` if nobody wants more.
    fn read(&mut self, job: &Job) -> Option<()> {
        let tree = &self.build.tree;
        if job.begins {
            let attributes =
                tree.place(job.directory).map(|place| self.directory(job.directory, place));
            let attributes = match attributes {
                // No source has it, but some line may.
                None => self.build.changed_alone(job.directory),
                Some(Ok(attributes)) => Some(attributes),
                Some(Err(problem)) => {
                    let failure = self.build.failure_of(job.directory, problem);
                    self.send(Item::Failed(failure), 0)?;
                    None
                }
            };
            self.send(Item::Enter(job.directory, attributes), 0)?;
        }
        for &name in &job.names {
            let kind = match tree.kind(name) {
                Kind::File(FileType::Directory) => {
                    self.send(Item::Directory(name), 0)?;
                    continue;
                }
                Kind::File(kind) => kind,
                Kind::Whiteout => {
                    self.send(Item::Whiteout(name), 0)?;
                    continue;
                }
                Kind::Gone => continue,
            };
            let Some(place) = tree.place(name) else { continue };
            match self.entry(job.directory, name, kind, place) {
                Ok(entry) => {
                    let bytes = match &entry.contents {
                        Contents::Bytes { bytes, .. } => bytes.len(),
                        // An open file is worth as much as a few bytes of one.
                        Contents::Parts(_) => OPEN_FILE_BYTES,
                        Contents::Symlink(_) | Contents::Special(_) => 0,
                    };
                    self.send(Item::Entry(name, Box::new(entry)), bytes)?;
                }
                Err(problem) => {
                    let failure = self.build.failure(place.origin, name, problem);
                    self.send(Item::Failed(failure), 0)?;
                }
            }
        }
        if job.ends {
            self.send(Item::Leave, 0)?;
        }
        self.flush()
    }

    fn send(&mut self, item: Item, bytes: usize) -> Option<()> {
        self.items.push(item);
        self.bytes += bytes;
        if self.bytes >= PIECE_BYTES { self.flush() } else { Some(()) }
    }

    fn flush(&mut self) -> Option<()> {
        self.bytes = 0;
        self.pieces.send(std::mem::take(&mut self.items)).ok()
    }

    fn directory(&mut self, node: NodeId, place: Place) -> Result<Attributes, Problem> {
        let build = self.build;
        let origin = &build.origins[usize::from(place.origin)];
        let directory = self.open(node, place.origin)?;
        let attributes = origin.directory_attributes(directory, place)?;
        Ok(self.changed(node, attributes))
    }

    fn entry(
        &mut self,
        directory: NodeId,
        name: NodeId,
        kind: FileType,
        place: Place,
    ) -> Result<Entry, Problem> {
        let build = self.build;
        let origin = &build.origins[usize::from(place.origin)];
        let opened = self.open(directory, place.origin)?;
        let bytes = build.tree.name(name);
        let mut entry = origin.read(opened, (name, bytes), kind, place, build)?;
        entry.attributes = self.changed(name, entry.attributes);
        Ok(entry)
    }

    fn changed(&mut self, node: NodeId, attributes: Attributes) -> Attributes {
        let failed = |failure| self.items.push(Item::Failed(failure));
        let attributes = self.build.numbered(node, attributes, failed);
        self.build.changed(node, attributes)
    }

    /// The directory at `node`, if its names are looked for in an open directory at all.
    fn open(&mut self, node: NodeId, origin: u16) -> Result<Option<&File>, Problem> {
        let is_open = self.open.as_ref().is_some_and(|(open, _)| *open == origin);
        if !is_open {
            let opened = self.build.origins[usize::from(origin)].open(&self.build.tree, node)?;
            self.open = opened.map(|file| (origin, file));
        }
        Ok(self.open.as_ref().map(|(_, file)| file))
    }
}

/// How many jobs may wait.
const JOBS_AHEAD: usize = 16;
/// How much of a job is handed over at once.
const PIECE_BYTES: usize = 256 << 10;
const OPEN_FILE_BYTES: usize = 32 << 10;
