//! Fast commits: which records after the last full commit count. Applying them is the engine's part.
//!
//! # Source
//! Kernel `fs/ext4/fast_commit.c`, `ext4_fc_replay_scan`; `fs/jbd2/recovery.c`, `fc_do_one_pass`.

use alloc::vec::Vec;

use extant_format::crc::crc32c;
use extant_format::{InodeNumber, TransactionId};

/// One change that a fast commit recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FastCommitRecord {
    /// These blocks of the file are mapped so.
    AddRange {
        /// The file.
        inode: InodeNumber,
        /// An extent as on disk.
        extent: [u8; 12],
    },
    /// These blocks of the file are holes.
    DeleteRange {
        /// The file.
        inode: InodeNumber,
        /// The first block.
        start: u32,
        /// How many.
        len: u32,
    },
    /// A name came with its inode.
    Create(FastCommitName),
    /// A name came.
    Link(FastCommitName),
    /// A name went.
    Unlink(FastCommitName),
    /// The inode is so.
    Inode {
        /// The inode.
        inode: InodeNumber,
        /// What the table holds of it, from its start.
        raw: Vec<u8>,
    },
}

/// A directory entry in a fast commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FastCommitName {
    /// The directory.
    pub parent: InodeNumber,
    /// What the entry points to.
    pub inode: InodeNumber,
    /// Its name.
    pub name: Vec<u8>,
}

/// Reads the area block by block; only records before a valid TAIL count.
#[derive(Debug, Default)]
pub(super) struct FastCommitScan {
    records: Vec<FastCommitRecord>,
    /// How many of them lie before the last valid TAIL.
    valid: usize,
    started: bool,
    sum: u32,
}

impl FastCommitScan {
    /// Takes the next block; `false` when nothing after it counts.
    pub(super) fn block(&mut self, bytes: &[u8], expected: TransactionId) -> bool {
        let mut rest = bytes;
        while let Some((header, after)) = rest.split_first_chunk::<4>() {
            let [tag_low, tag_high, len_low, len_high] = *header;
            let (tag, len) =
                (u16::from_le_bytes([tag_low, tag_high]), u16::from_le_bytes([len_low, len_high]));
            let Some((value, next)) = after.split_at_checked(len.into()) else { return false };
            if !self.started && tag != HEAD {
                return false;
            }
            if self.record(tag, header, value, expected).is_none() {
                return false;
            }
            rest = next;
        }
        true
    }

    /// The records that count.
    pub(super) fn take_records(&mut self) -> Vec<FastCommitRecord> {
        self.records.truncate(self.valid);
        core::mem::take(&mut self.records)
    }

    fn record(
        &mut self,
        tag: u16,
        header: &[u8],
        value: &[u8],
        expected: TransactionId,
    ) -> Option<()> {
        match tag {
            TAIL => {
                let (tid, stored) = (value.first_chunk()?, le32(value, 4)?);
                let sum = crc32c(crc32c(self.sum, header), tid);
                if TransactionId(u32::from_le_bytes(*tid)) != expected || sum != stored {
                    return None;
                }
                self.valid = self.records.len();
                self.sum = 0;
                return Some(());
            }
            HEAD => {
                // Features, of which none exist, and the transaction.
                (le32(value, 0)? == 0 && le32(value, 4)? == expected.get()).then_some(())?;
                self.started = true;
            }
            PAD => {}
            _ => self.records.push(decode(tag, value)?),
        }
        self.sum = crc32c(crc32c(self.sum, header), value);
        Some(())
    }
}

fn decode(tag: u16, value: &[u8]) -> Option<FastCommitRecord> {
    let number = |at| le32(value, at).and_then(InodeNumber::new);
    let name = || {
        let name = value.get(8..).filter(|name| !name.is_empty() && name.len() <= 255)?.to_vec();
        Some(FastCommitName { parent: number(0)?, inode: number(4)?, name })
    };
    Some(match tag {
        ADD_RANGE => FastCommitRecord::AddRange {
            inode: number(0)?,
            extent: value.get(4..)?.try_into().ok()?,
        },
        DELETE_RANGE if value.len() == 12 => FastCommitRecord::DeleteRange {
            inode: number(0)?,
            start: le32(value, 4)?,
            len: le32(value, 8)?,
        },
        CREATE => FastCommitRecord::Create(name()?),
        LINK => FastCommitRecord::Link(name()?),
        UNLINK => FastCommitRecord::Unlink(name()?),
        INODE => FastCommitRecord::Inode {
            inode: number(0)?,
            raw: value.get(4..).filter(|raw| raw.len() >= OLD_INODE_BYTES)?.to_vec(),
        },
        _ => return None,
    })
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

const ADD_RANGE: u16 = 1;
const DELETE_RANGE: u16 = 2;
const CREATE: u16 = 3;
const LINK: u16 = 4;
const UNLINK: u16 = 5;
const INODE: u16 = 6;
const PAD: u16 = 7;
const TAIL: u16 = 8;
const HEAD: u16 = 9;
const OLD_INODE_BYTES: usize = 128;
