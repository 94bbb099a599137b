//! Inodes that the kernel knows, and files that it has open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use extant::{Errno, File, InodeHandle};

use crate::abi::ROOT_ID;

/// Tables are cut into so many parts, each with a lock of its own.
const PARTS: usize = 16;

type Part<T> = Mutex<HashMap<u64, T>>;

/// Inodes by the kernel's number, which is the inode's own but for the root's.
#[derive(Debug)]
pub struct Nodes {
    root: InodeHandle,
    known: [Part<Node>; PARTS],
}

#[derive(Debug)]
struct Node {
    handle: InodeHandle,
    /// How often the kernel was told of it, less how often it said to have forgotten it.
    lookups: u64,
}

/// Open files by the number that the kernel was given.
#[derive(Debug, Default)]
pub struct OpenFiles {
    next: AtomicU64,
    open: [Part<Arc<File>>; PARTS],
}

fn part<T>(parts: &[Part<T>; PARTS], number: u64) -> MutexGuard<'_, HashMap<u64, T>> {
    let part = usize::try_from(number).unwrap_or(0) % PARTS;
    parts[part].lock().unwrap_or_else(PoisonError::into_inner)
}

fn count<T>(parts: &[Part<T>; PARTS]) -> u64 {
    let len = |part: &Part<T>| part.lock().unwrap_or_else(PoisonError::into_inner).len();
    parts.iter().map(|part| u64::try_from(len(part)).unwrap_or(0)).sum()
}

impl Nodes {
    /// A table that knows the root alone, for ever.
    pub fn new(root: InodeHandle) -> Self {
        Self { root, known: Default::default() }
    }

    /// The kernel's number of an inode.
    pub fn id(&self, handle: &InodeHandle) -> u64 {
        self.id_of(u64::from(handle.number().get()))
    }

    /// The kernel's number for the inode with this number.
    pub fn id_of(&self, number: u64) -> u64 {
        if number == u64::from(self.root.number().get()) { ROOT_ID } else { number }
    }

    /// The inode that the kernel means.
    ///
    /// # Errors
    /// `ESTALE` for one that it was never told of.
    pub fn get(&self, id: u64) -> Result<InodeHandle, Errno> {
        if id == ROOT_ID {
            return Ok(self.root.clone());
        }
        part(&self.known, id).get(&id).map(|node| node.handle.clone()).ok_or(Errno::STALE)
    }

    /// Notes that the kernel is told of an inode once more.
    pub fn tell(&self, handle: &InodeHandle) -> u64 {
        let id = self.id(handle);
        if id != ROOT_ID {
            let mut known = part(&self.known, id);
            let node =
                known.entry(id).or_insert_with(|| Node { handle: handle.clone(), lookups: 0 });
            node.lookups += 1;
        }
        id
    }

    /// Notes that the kernel forgot an inode so often.
    pub fn forget(&self, id: u64, times: u64) {
        let mut known = part(&self.known, id);
        let Some(node) = known.get_mut(&id) else { return };
        node.lookups = node.lookups.saturating_sub(times);
        if node.lookups == 0 {
            let gone = known.remove(&id);
            // The last user of a deleted file frees its blocks: not under the lock.
            drop(known);
            drop(gone);
        }
    }

    /// How many inodes the kernel knows, without the root.
    pub fn count(&self) -> u64 {
        count(&self.known)
    }

    /// Forgets all.
    pub fn clear(&self) {
        for part in &self.known {
            let all = std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner));
            drop(all);
        }
    }
}

impl OpenFiles {
    /// A number for a file.
    pub fn add(&self, file: File) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        part(&self.open, number).insert(number, Arc::new(file));
        number
    }

    /// The file with this number.
    ///
    /// # Errors
    /// `EBADF` if there is none.
    pub fn get(&self, number: u64) -> Result<Arc<File>, Errno> {
        part(&self.open, number).get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Closes a file.
    pub fn remove(&self, number: u64) {
        let gone = part(&self.open, number).remove(&number);
        drop(gone);
    }

    /// How many files are open.
    pub fn count(&self) -> u64 {
        count(&self.open)
    }

    /// Closes all.
    pub fn clear(&self) {
        for part in &self.open {
            let all = std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner));
            drop(all);
        }
    }
}
