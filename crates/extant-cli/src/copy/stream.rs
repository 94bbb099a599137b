//! Trees as a stream of items: what the sources send and a target takes, over a bounded channel.
//!
//! A directory's items stand between its `Enter` and its `Leave`, a file's bytes between its `File` and its `Close`. The
//! name of a source's first item may be empty: then it is the target directory itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use extant::namespace::NodeKind;
use extant_format::Timestamp;

/// One step through a tree.
#[derive(Debug)]
pub enum Item {
    /// A directory begins.
    Enter(Entry),
    /// The directory that began last ends.
    Leave,
    /// A regular file begins.
    File(Entry),
    /// Bytes of the file that began last, in rising order; what lies between is a hole.
    Data { offset: u64, bytes: Vec<u8> },
    /// The file that began last ends, with so many bytes.
    Close { size: u64 },
    /// A symbolic link.
    Symlink { entry: Entry, target: Vec<u8> },
    /// A device file, a pipe or a socket.
    Special { entry: Entry, kind: NodeKind },
    /// Another name of an earlier file, whose entry had the same link number.
    Again(Entry),
    /// Something that could not be read, in one line, and its exit code.
    Failed { line: String, code: u8 },
    /// Something that the user should know of.
    Warned(String),
}

/// A file's name and what is kept of its attributes.
#[derive(Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    pub role: Role,
    pub attributes: Attributes,
    /// When it was modified, whether or not that is kept.
    pub modified: Timestamp,
    /// Which file it is.
    pub id: FileId,
    /// Which file a symbolic link leads to, where that matters.
    pub leads_to: Option<FileId>,
    /// Other names may follow, or came before, which have this number too.
    pub link: Option<u32>,
}

/// What an item is to the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A source.
    Named,
    /// A directory above a source, which is only made (`--parents`).
    Parent,
    /// Below a source.
    Below,
}

/// Tells a file from every other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FileId {
    /// Where it is.
    pub place: Place,
    /// Its number there.
    pub inode: u64,
}

/// A file system.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Place {
    /// One of this machine, by its device.
    Device(u64),
    /// The image that is written.
    Target,
    /// An image that is only read, by its place among those.
    Image(usize),
}

/// What is kept of a file's attributes.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Permission bits; new files get them, but for those of the umask unless they are kept.
    pub mode: u16,
    /// User and group, if they are kept.
    pub owner: Option<(u32, u32)>,
    /// Times of access and modification, if they are kept.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Extended attributes that are kept; access lists are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The other end is gone, and knows why.
#[derive(Debug)]
pub struct Stopped;

/// Where a source puts its items. They travel in batches, since waking the other end for each small file would cost more
/// than the file.
#[derive(Debug)]
pub struct Sink {
    batches: SyncSender<Vec<Item>>,
    batch: Vec<Item>,
    batch_bytes: usize,
    spare: Receiver<Vec<u8>>,
    files: u32,
    unwanted: Arc<AtomicU32>,
}

/// Where a target gets its items.
#[derive(Debug)]
pub struct Stream {
    batches: Receiver<Vec<Item>>,
    batch: std::vec::IntoIter<Item>,
    spare: Sender<Vec<u8>>,
    files: u32,
    unwanted: Arc<AtomicU32>,
}

/// Nothing came yet, though it was waited for a little.
#[derive(Debug)]
pub struct NothingYet;

/// Both ends of a stream.
pub fn stream() -> (Sink, Stream) {
    let (batches, taken) = sync_channel(BATCHES_ON_THE_WAY);
    let (used, spare) = channel();
    let unwanted = Arc::new(AtomicU32::new(0));
    let (batch, files) = (Vec::new(), 0);
    let sink =
        Sink { batches, batch, batch_bytes: 0, spare, files, unwanted: Arc::clone(&unwanted) };
    let batch = Vec::new().into_iter();
    (sink, Stream { batches: taken, batch, spare: used, files, unwanted })
}

impl Sink {
    pub fn send(&mut self, item: Item) -> Result<(), Stopped> {
        match &item {
            Item::Data { bytes, .. } => self.batch_bytes += bytes.len(),
            Item::File(_) => self.files = self.files.wrapping_add(1),
            _ => {}
        }
        self.batch.push(item);
        if self.batch.len() < BATCH_ITEMS && self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Sends what is waiting; to be called at the end.
    pub fn flush(&mut self) -> Result<(), Stopped> {
        self.batch_bytes = 0;
        self.batches.send(std::mem::take(&mut self.batch)).map_err(|_| Stopped)
    }

    /// An empty buffer with room for `len` bytes; a large one has been used before if there is such a one.
    pub fn buffer(&self, len: usize) -> Vec<u8> {
        let mut buffer = match len {
            LARGE_BUFFER.. => self.spare.try_recv().unwrap_or_default(),
            _ => Vec::new(),
        };
        buffer.reserve(len);
        buffer
    }

    /// Whether the bytes of the file that began last are no longer wanted.
    pub fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Relaxed) == self.files
    }
}

impl Stream {
    /// The next item; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Item>, NothingYet> {
        loop {
            if let Some(item) = self.batch.next() {
                if matches!(item, Item::File(_)) {
                    self.files = self.files.wrapping_add(1);
                }
                return Ok(Some(item));
            }
            self.batch = match self.batches.recv_timeout(PATIENCE) {
                Ok(batch) => batch.into_iter(),
                Err(RecvTimeoutError::Timeout) => return Err(NothingYet),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            };
        }
    }

    /// Tells the source that the bytes of the file that began last need not be read.
    pub fn refuse(&self) {
        self.unwanted.store(self.files, Ordering::Relaxed);
    }

    /// Gives a buffer back for the source to use again.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() >= LARGE_BUFFER {
            buffer.clear();
            // A source that is done needs no buffers.
            let _ = self.spare.send(buffer);
        }
    }
}

/// Bytes in an item: large enough that the calls do not matter, small enough to lie in the processor's cache.
pub const CHUNK_BYTES: usize = 512 << 10;
const BATCH_BYTES: usize = 512 << 10;
const BATCH_ITEMS: usize = 256;
const BATCHES_ON_THE_WAY: usize = 8;
/// Smaller buffers are not worth handing back.
const LARGE_BUFFER: usize = 64 << 10;
/// How long a target waits before it looks up.
const PATIENCE: Duration = Duration::from_millis(100);
