//! `fsync` by a fast commit: what handles have noted, as records in the journal's area for them.
//!
//! | file | what |
//! | --- | --- |
//! | `records.rs` | records into blocks |
//!
//! # Invariants
//! Records say outcomes: inodes and blocks are as they are when the fast commit begins, whatever they were when they were
//! noted. All that was noted since the last commit is in them, so what a crash leaves is a moment of the whole volume.
//! # Locking
//! [`FastCommits::commit`] waits for handles and other commits, so nothing may be held. Records are made while no handle runs but
//! those at the end of I/O; that takes `Inode::map` for reading, and reads metadata.
//! # Not here
//! What is noted, when a fast commit may be written, and how (`transaction`); replay (`filesystem/replay`).
//! # Source
//! Kernel `fs/ext4/fast_commit.c`, `ext4_fc_perform_commit`, `ext4_fc_write_inode`, `ext4_fc_write_inode_data`,
//! `ext4_fc_commit_dentry_updates`.

mod records;

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use extant_format::extent::{Extent, ExtentState};
use extant_format::fast_commit::Record;
use extant_format::inode::{CORE_BYTES, InodeFlags};
use extant_format::{InodeNumber, LogicalBlock, LogicalRange, TransactionId};

use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::transaction::{FastCommitSpace, Naming, Noted, Transactions};
use records::Blocks;

/// The fast commits of a volume.
pub(crate) struct FastCommits {
    transactions: Arc<Transactions>,
    inodes: Arc<InodeTable>,
    mapper: Arc<Mapper>,
}

impl FastCommits {
    /// Of the volume that has these layers.
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        inodes: Arc<InodeTable>,
        mapper: Arc<Mapper>,
    ) -> Self {
        Self { transactions, inodes, mapper }
    }

    /// Returns when what `tid` has done so far is durable, by a fast commit if there can be one, else by a full one.
    ///
    /// # Errors
    /// Of the full commit.
    /// # Source
    /// Kernel `ext4_fc_commit`.
    pub(crate) fn commit(&self, tid: TransactionId) -> Result<(), Error> {
        self.transactions.commit_fast(tid, |noted, space| self.record(noted, space))
    }

    /// The blocks of a fast commit that tells of all that was `noted`; `None` if none can.
    fn record(&self, noted: &Noted, space: FastCommitSpace) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let mut blocks = Blocks::new(self.transactions.geometry().block_len(), space);
        // Those that came, and those that lost their names again: of these nobody has heard.
        let (mut told, mut nameless) = (BTreeSet::new(), BTreeSet::new());
        for change in &noted.names {
            let link = change.link();
            let is_created = change.naming == Naming::Created;
            if is_created && self.inodes.get(link.inode)?.core.lock().links == 0 {
                nameless.insert(link.inode);
            }
            if nameless.contains(&link.inode) {
                continue;
            }
            let record = match change.naming {
                Naming::Created => {
                    let range = noted.inodes.get(&link.inode).copied().flatten();
                    if !self.record_inode(&mut blocks, link.inode, range, Order::InodeFirst)? {
                        return Ok(None);
                    }
                    told.insert(link.inode);
                    Record::Create(link)
                }
                Naming::Linked => Record::Link(link),
                Naming::Unlinked => Record::Unlink(link),
            };
            if !blocks.push(&record) {
                return Ok(None);
            }
        }
        for (&inode, &range) in &noted.inodes {
            // Of those that came their blocks have been told, but the kernel counts these, and names, by what is told last.
            let range = range.filter(|_| !told.contains(&inode));
            if !self.record_inode(&mut blocks, inode, range, Order::BlocksFirst)? {
                return Ok(None);
            }
        }
        Ok(blocks.seal())
    }

    /// Tells how an inode and a range of its blocks are; `false` if that cannot be told. Of one without names nothing is told:
    /// it goes when its names are taken.
    fn record_inode(
        &self,
        blocks: &mut Blocks,
        number: InodeNumber,
        range: Option<LogicalRange>,
        order: Order,
    ) -> Result<bool, Error> {
        let inode = self.inodes.get(number)?;
        let (links, extra, flags) = {
            let core = inode.core.lock();
            (core.links, core.extra_isize, core.flags)
        };
        if links == 0 {
            return Ok(true);
        }
        if inode.orphan.load(Ordering::Acquire) {
            return Ok(false); // it is being cut, and no record says that it has to be finished
        }
        // First, since the end of I/O may make blocks readable, and then the size larger.
        let raw = self.inodes.with_raw(&inode, |bytes| {
            let len = CORE_BYTES + usize::from(extra);
            let all = flags.contains(InodeFlags::INLINE_DATA);
            let len = if all { bytes.len() } else { len.min(bytes.len()) };
            bytes.get(..len).map(Vec::from)
        })?;
        let Some(raw) = raw else { return Ok(false) };
        let record = Record::Inode(number, &raw);
        if order == Order::InodeFirst && !blocks.push(&record) {
            return Ok(false);
        }
        let range = range.filter(|_| !flags.contains(InodeFlags::INLINE_DATA));
        if let Some(range) = range
            && !self.record_blocks(blocks, &inode, range)?
        {
            return Ok(false);
        }
        Ok(order == Order::InodeFirst || blocks.push(&record))
    }

    fn record_blocks(
        &self,
        blocks: &mut Blocks,
        inode: &Inode,
        range: LogicalRange,
    ) -> Result<bool, Error> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let asked = LogicalRange::new(range.start().get(), range.len().min(MOST_BLOCKS));
            let found = self.mapper.look_up_alone(inode, asked.unwrap_or(range))?;
            let (record, end) = record_of(inode.number(), found.blocks, found.state);
            if !blocks.push(&record) {
                return Ok(false);
            }
            rest = LogicalBlock::new(end).and_then(|next| LogicalRange::between(next, range.end()));
        }
        Ok(true)
    }
}

/// What comes first, an inode or its blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    /// A new one has to be there when blocks are put into it.
    InodeFirst,
    /// The kernel's order for the others.
    BlocksFirst,
}

/// The record of a run of blocks in one state, as many as fit into one, and where it ends.
fn record_of(
    inode: InodeNumber,
    blocks: LogicalRange,
    state: BlockState,
) -> (Record<'static>, u32) {
    let (start, state) = match state {
        BlockState::Written(start) => (start, ExtentState::Written),
        BlockState::Unwritten(start) => (start, ExtentState::Unwritten),
        BlockState::Hole | BlockState::Delayed => {
            return (Record::DeleteRange(inode, blocks), blocks.end());
        }
    };
    let len = blocks.len().min(state.max_len());
    let blocks = LogicalRange::new(blocks.start().get(), len).unwrap_or(blocks);
    (Record::AddRange(inode, Extent { blocks, start, state }), blocks.end())
}

/// The kernel asks for no more blocks at a time.
const MOST_BLOCKS: u32 = 0x7FFF_FFFF;
