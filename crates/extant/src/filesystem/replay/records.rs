//! The records of fast commits, out of the journal's blocks.

use alloc::vec::Vec;

use extant_format::InodeNumber;
use extant_format::cast::usize_from;
use extant_format::corruption::Corruption;
use extant_format::fast_commit::{self, Record};
use extant_journal::FastCommits;

use crate::Error;

/// The blocks that hold fast commits which count.
#[derive(Debug)]
pub(in crate::filesystem) struct Records {
    bytes: Vec<u8>,
    block_bytes: usize,
    found: FastCommits,
}

impl Records {
    /// The most bytes of fast commits that are looked at. The kernel's journals have 256 blocks for them, unless somebody
    /// wanted it otherwise.
    const MOST_BYTES: u64 = 32 << 20;

    /// From the blocks that `found` names, which `read` reads.
    ///
    /// # Errors
    /// Of reading; there are too many to hold.
    pub(in crate::filesystem) fn new(
        found: FastCommits,
        block_bytes: usize,
        read: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Self, Error> {
        let len = u64::from(found.blocks.len) * extant_format::cast::u64_from(block_bytes);
        if len > Self::MOST_BYTES {
            return Err(Error::NotSupported("more than 32 MiB of fast commits"));
        }
        Ok(Self { bytes: read()?, block_bytes, found })
    }

    /// One fast commit after the other.
    pub(super) fn commits(
        &self,
    ) -> impl Iterator<Item = Result<Commit<'_, impl Iterator<Item = Record<'_>>>, Corruption>>
    {
        let blocks = (self.found.blocks.start.get()..).zip(self.bytes.chunks(self.block_bytes));
        let mut rest = blocks
            .flat_map(|(at, block)| fast_commit::Records::new(block, at))
            .take(usize_from(self.found.records));
        core::iter::from_fn(move || {
            let (start, mut len, mut inodes) = (rest.clone(), 0, Vec::<InodeAt<'_>>::new());
            for record in rest.by_ref() {
                match record {
                    Ok(Record::Tail(..)) => {
                        // In the order of the records too, as the sort is stable.
                        inodes.sort_by_key(|&(number, ..)| number);
                        let records = start.take(len).filter_map(Result::ok);
                        return Some(Ok(Commit { records, inodes: InodeRecords(inodes) }));
                    }
                    Ok(Record::Inode(number, raw)) => inodes.push((number, len, raw)),
                    Ok(_) => {}
                    Err(broken) => return Some(Err(broken)),
                }
                len += 1;
            }
            None // only what a tail ends counts
        })
    }
}

/// The records of one fast commit, all of which can be read.
pub(super) struct Commit<'r, I> {
    /// In their order; they are read out of the journal's blocks as they are needed.
    pub(super) records: I,
    pub(super) inodes: InodeRecords<'r>,
}

/// The inodes that records of one fast commit hold.
pub(super) struct InodeRecords<'r>(Vec<InodeAt<'r>>);

/// An inode, the number of its record in the fast commit, and what that says.
type InodeAt<'r> = (InodeNumber, usize, &'r [u8]);

impl<'r> InodeRecords<'r> {
    /// The inode in the first record from number `at` on that holds it.
    pub(super) fn next(&self, inode: InodeNumber, at: usize) -> Option<&'r [u8]> {
        let next = self.0.partition_point(|&(number, of, _)| (number, of) < (inode, at));
        let &(number, _, raw) = self.0.get(next)?;
        (number == inode).then_some(raw)
    }

    /// By inode, the last of each last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (InodeNumber, &'r [u8])> {
        self.0.iter().map(|&(number, _, raw)| (number, raw))
    }
}
