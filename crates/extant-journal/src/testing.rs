//! What this crate's tests share: a log in memory, written by the journal and read by recovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use extant_format::PhysicalBlock;
use extant_format::cast::usize_from;
use extant_format::jbd2::{
    JournalCompat, JournalIncompat, JournalSuperblock, RawJournalSuperblock,
};

use crate::*;

pub(crate) type Bytes = Arc<[u8]>;

/// Blocks of the file system that the tests' journals belong to.
pub(crate) const HOME_END: u64 = 1 << 20;

/// A clean journal with 64-bit numbers and checksums of version 3.
pub(crate) fn parameters(block_size: u32, blocks: u32) -> JournalParameters {
    with_features(block_size, blocks, JournalIncompat::BIT64 | JournalIncompat::CSUM_V3)
}

/// A clean journal with these features.
pub(crate) fn with_features(
    block_size: u32,
    blocks: u32,
    features: JournalIncompat,
) -> JournalParameters {
    parse(&raw_superblock(block_size, blocks, features))
}

/// A clean journal with checksums of version 1.
pub(crate) fn with_old_checksum(block_size: u32, blocks: u32) -> JournalParameters {
    let mut raw = raw_superblock(block_size, blocks, JournalIncompat::empty());
    raw.feature_compat = JournalCompat::CHECKSUM.bits().into();
    parse(&raw)
}

fn raw_superblock(block_size: u32, blocks: u32, features: JournalIncompat) -> RawJournalSuperblock {
    let mut raw = RawJournalSuperblock::blank(block_size, blocks, [7; 16]);
    raw.set_incompat(features);
    raw.set_checksum();
    raw
}

fn parse(raw: &RawJournalSuperblock) -> JournalParameters {
    JournalParameters::new(JournalSuperblock::try_from(raw).unwrap()).unwrap()
}

/// What a transaction of a test does.
pub(crate) enum Change {
    /// Fills the block with this byte.
    Fill(u64, u8),
    /// Gives the block these first bytes, and zeros.
    Start(u64, Vec<u8>),
    /// Frees it.
    Revoke(u64),
}

/// The whole journal, block by block.
pub(crate) struct TestLog {
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) journal: Journal<Bytes>,
    unreadable: Option<u32>,
}

impl TestLog {
    pub(crate) fn new(parameters: &JournalParameters) -> Self {
        let size = usize_from(parameters.block_size());
        let blocks = vec![vec![0; size]; usize_from(parameters.superblock().max_len())];
        Self {
            blocks,
            journal: Journal::new(parameters.clone(), parameters.clean_state()),
            unreadable: None,
        }
    }

    /// Commits one transaction at this time; returns where its blocks lie.
    pub(crate) fn commit(&mut self, seconds: u64, changes: &[Change]) -> Vec<LogBlock> {
        let size = usize_from(self.journal.parameters().block_size());
        let request = HandleRequest { blocks: 50, revokes: 50, reserved: 0 };
        let Begin::Granted { ticket, .. } = self.journal.begin(request, Duration::ZERO) else {
            panic!()
        };
        let tid = ticket.tid();
        let mut contents = BTreeMap::new();
        let mut filed = Vec::new();
        for change in changes {
            let (block, start, fill) = match change {
                Change::Fill(block, fill) => (*block, Vec::new(), *fill),
                Change::Start(block, start) => (*block, start.clone(), 0),
                Change::Revoke(block) => {
                    filed.push((PhysicalBlock::new(*block), BlockChange::Revoke));
                    continue;
                }
            };
            let mut bytes = vec![fill; size];
            bytes[..start.len()].copy_from_slice(&start);
            contents.insert(PhysicalBlock::new(block), Bytes::from(bytes));
            filed.push((PhysicalBlock::new(block), BlockChange::Dirty));
        }
        assert_eq!(self.journal.stop(ticket, filed).overrun, 0);
        assert_eq!(self.journal.lock(tid), Ok(Lock::Locked));
        let mut plan =
            self.journal.switch(Duration::ZERO, |block| contents.get(&block).cloned()).unwrap();
        if let Some(superblock) = plan.superblock() {
            self.blocks[0] = superblock.bytes().to_vec();
        }
        let mut writes = plan.log_writes();
        writes.push(plan.commit_block(CommitTime { seconds, nanoseconds: 0 }));
        for write in &writes {
            self.blocks[usize_from(write.at.get())] = write.data.as_ref().to_vec();
        }
        let _ = self.journal.committed(plan, Duration::ZERO).unwrap();
        writes.iter().map(|write| write.at).collect()
    }

    pub(crate) fn block(&mut self, at: LogBlock) -> &mut Vec<u8> {
        &mut self.blocks[usize_from(at.get())]
    }

    /// Makes this block fail to read.
    pub(crate) fn break_block(&mut self, at: LogBlock) {
        self.unreadable = Some(at.get());
    }

    /// Sets fields of the superblock.
    pub(crate) fn change_superblock(&mut self, change: impl FnOnce(&mut RawJournalSuperblock)) {
        let mut superblock = JournalSuperblock::parse(&self.blocks[0]).unwrap();
        superblock.change(change);
        self.blocks[0][..1024].copy_from_slice(zerocopy::IntoBytes::as_bytes(&superblock.to_raw()));
    }

    pub(crate) fn recover(&self) -> (BTreeMap<u64, Vec<u8>>, Result<Recovered, JournalError>) {
        self.run(RecoveryMode::Replay, |_, _| {})
    }

    /// Recovers; `watch` sees every read before it is answered.
    pub(crate) fn run(
        &self,
        mode: RecoveryMode,
        mut watch: impl FnMut(LogRange, &mut Vec<Vec<u8>>),
    ) -> (BTreeMap<u64, Vec<u8>>, Result<Recovered, JournalError>) {
        let mut home = BTreeMap::new();
        let mut blocks = self.blocks.clone();
        let superblock = JournalSuperblock::parse(&blocks[0]).unwrap();
        let parameters = JournalParameters::new(superblock).unwrap();
        let mut recovery = match Recovery::new(parameters, mode, HOME_END) {
            Ok(recovery) => recovery,
            Err(error) => return (home, Err(error)),
        };
        for _ in 0..blocks.len().saturating_mul(8) {
            match recovery.step() {
                Err(error) => return (home, Err(error)),
                Ok(RecoveryStep::Done(recovered)) => return (home, Ok(recovered)),
                Ok(RecoveryStep::Write(writes)) => {
                    home.extend(writes.into_iter().map(|(b, bytes)| (b.get(), bytes)))
                }
                Ok(RecoveryStep::Read(range)) => {
                    watch(range, &mut blocks);
                    let range = range.start.get()..range.start.get() + range.len;
                    match self.unreadable {
                        Some(block) if range.contains(&block) => recovery.read_failed(),
                        _ => recovery.supply(
                            &blocks[usize_from(range.start)..usize_from(range.end)].concat(),
                        ),
                    }
                }
            }
        }
        panic!("recovery does not end");
    }
}
