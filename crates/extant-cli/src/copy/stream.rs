//! A tree as a stream of items: what a source sends and a target takes, over a bounded channel.
//!
//! A directory's items stand between its `Enter` and its `Leave`, a file's bytes between its `File` and its `Close`. The
//! name of the first item may be empty: then it is the target directory itself.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

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
    /// Another name of an earlier file, whose entry had this number.
    Again { name: Vec<u8>, modified: Timestamp, link: u64 },
    /// Something that could not be read, in one line.
    Failed(String),
}

/// A file's name and what is kept of its attributes.
#[derive(Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    pub attributes: Attributes,
    /// When it was modified, whether or not that is kept.
    pub modified: Timestamp,
    /// Other names may follow, which refer to this number.
    pub link: Option<u64>,
}

/// What is kept of a file's attributes.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u16,
    /// User and group, if they are kept.
    pub owner: Option<(u32, u32)>,
    /// Times of access and modification, if they are kept.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Extended attributes that are kept; access lists are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a source shall read and keep.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Directories too.
    pub recursive: bool,
    /// Owner, times, extended attributes.
    pub archive: bool,
    /// Permission bits that are not given to copies; none where all are kept.
    pub umask: u16,
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
}

/// Where a target gets its items.
#[derive(Debug)]
pub struct Stream {
    batches: Receiver<Vec<Item>>,
    batch: std::vec::IntoIter<Item>,
    spare: Sender<Vec<u8>>,
}

/// Both ends of a stream.
pub fn stream() -> (Sink, Stream) {
    let (batches, taken) = sync_channel(BATCHES_ON_THE_WAY);
    let (used, spare) = channel();
    let sink = Sink { batches, batch: Vec::new(), batch_bytes: 0, spare };
    (sink, Stream { batches: taken, batch: Vec::new().into_iter(), spare: used })
}

impl Sink {
    pub fn send(&mut self, item: Item) -> Result<(), Stopped> {
        if let Item::Data { bytes, .. } = &item {
            self.batch_bytes += bytes.len();
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
}

impl Stream {
    pub fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.batch.next() {
                return Some(item);
            }
            self.batch = self.batches.recv().ok()?.into_iter();
        }
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
