//! The names in a directory, a batch at a time.

use alloc::collections::VecDeque;
use core::ops::ControlFlow;

use super::InodeHandle;
use crate::Error;
use crate::namespace::DirCursor;
use crate::report::DirEntry;

/// Names fetched at once.
const BATCH: usize = 512;

/// Goes through the names in a directory, without `.` and `..`. Names that come or go meanwhile may be listed or not.
#[derive(Debug)]
pub struct ReadDir {
    directory: InodeHandle,
    cursor: DirCursor,
    batch: VecDeque<DirEntry>,
    done: bool,
}

impl ReadDir {
    pub(super) fn new(directory: InodeHandle) -> Result<Self, Error> {
        let mut listing =
            Self { directory, cursor: DirCursor::default(), batch: VecDeque::new(), done: false };
        listing.fetch()?;
        Ok(listing)
    }

    fn fetch(&mut self) -> Result<(), Error> {
        let (batch, cursor) = (&mut self.batch, &mut self.cursor);
        self.directory.volume().list(&self.directory.inode, *cursor, &mut |listed| {
            *cursor = listed.next;
            if listed.name != b"." && listed.name != b".." {
                let (name, inode, file_type) =
                    (listed.name.to_vec(), listed.inode, listed.file_type);
                batch.push_back(DirEntry { name, inode, file_type });
            }
            if batch.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.done = self.batch.len() < BATCH;
        Ok(())
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.is_empty()
            && !self.done
            && let Err(error) = self.fetch()
        {
            self.done = true;
            return Some(Err(error));
        }
        self.batch.pop_front().map(Ok)
    }
}
