//! Recovery: which transactions in the log are whole, and what they leave on the device.
//!
//! A resumable machine: [`Recovery::step`] asks for log blocks and hands out what to write home. Passes SCAN, REVOKE
//! and REPLAY visit the same blocks; nothing is written before SCAN and REVOKE have found the log sound. Memory is
//! bounded by the journal's length: revokes are kept only for blocks that some descriptor names. Each pass visits a
//! block at most once, so no log, however hostile, makes it loop.
//!
//! # Source
//! Kernel `fs/jbd2/recovery.c`. Differs: a damaged commit block (J7.3) stops us before replay, not after it; blocks
//! outside the file system are refused, also before replay; the end of each pass is bounded.

mod map;
mod passes;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use extant_format::cast::{u64_from, usize_from};
use extant_format::fast_commit::Scan as FastCommitScan;
use extant_format::jbd2::Tag;
use extant_format::{PhysicalBlock, TransactionId};

pub use self::map::{RecoveryMap, Replacement};
use crate::superblock::{SuperblockState, SuperblockWrite};
use crate::{CommitTime, JournalError, JournalParameters, LogBlock, LogRange, LogState};

/// Bytes asked for, or handed out, at once; at least one block.
const BATCH_BYTES: u32 = 128 << 10;

/// What a recovery is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecoveryMode {
    /// Write the log's blocks home.
    Replay,
    /// Only find out where the newest version of each block is; nothing is written.
    Map,
}

/// What to do next.
#[derive(Debug)]
#[must_use]
pub enum RecoveryStep {
    /// Read these blocks of the journal, then [`Recovery::supply`] or [`Recovery::read_failed`].
    Read(LogRange),
    /// Write these blocks home, each at most once; all of them before those of the next step.
    Write(Vec<(PhysicalBlock, Vec<u8>)>),
    /// It is over.
    Done(Recovered),
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovered {
    /// How [`Journal::new`](crate::Journal::new) continues.
    pub state: LogState,
    /// The superblock of the log, empty now: flush the home device, then write it with FUA, before anything else is
    /// logged. Not to be written in [`RecoveryMode::Map`], nor before the fast commits are applied.
    pub superblock: SuperblockWrite,
    /// Whole transactions in the log.
    pub transactions: u32,
    /// Blocks replayed or mapped, versions counted apart.
    pub replayed: u32,
    /// Blocks not replayed because of a later revoke.
    pub revoked: u32,
    /// Where the newest versions are; empty in [`RecoveryMode::Replay`].
    pub map: RecoveryMap,
    /// Fast commits after the last transaction, to be applied in their order (section 10); `None` if there are none.
    pub fast_commits: Option<FastCommits>,
}

/// Where the fast commits lie that count. Applying them is the engine's part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FastCommits {
    /// The transaction that they are a part of: the one after the last in the log.
    pub tid: TransactionId,
    /// The blocks of the journal that hold them.
    pub blocks: LogRange,
    /// How many records of these blocks count, from the first on.
    pub records: u32,
}

/// A recovery under way.
#[derive(Debug)]
pub struct Recovery {
    parameters: JournalParameters,
    mode: RecoveryMode,
    /// Number after the last block of the file system.
    home_end: u64,
    pass: Pass,
    /// The next block to look at, and how many this pass has passed.
    position: LogBlock,
    walked: u32,
    /// The transaction that the next header must belong to.
    tid: TransactionId,
    /// Tags of the last descriptor whose data blocks come next.
    tags: VecDeque<Tag>,
    window: Window,
    scan: Scan,
    /// Where SCAN found the end.
    end: TransactionId,
    /// Every block named by a descriptor, with the newest transaction that revokes it.
    blocks: BTreeMap<PhysicalBlock, Option<TransactionId>>,
    batch: BTreeMap<PhysicalBlock, Vec<u8>>,
    map: RecoveryMap,
    fast_commit: FastCommitScan,
    /// The first damage met while replaying, told at the end.
    damage: Option<JournalError>,
    transactions: u32,
    replayed: u32,
    revoked: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pass {
    Scan,
    Revoke,
    Replay,
    FastCommit,
    Done,
}

/// What SCAN remembers from block to block.
#[derive(Debug)]
struct Scan {
    /// A descriptor or revoke block since the last commit had a wrong checksum (J7.1).
    suspicious: bool,
    last_time: CommitTime,
    /// Where the log continues after the last whole transaction.
    head: LogBlock,
    /// The old checksum over descriptors and data.
    sum: u32,
}

/// Blocks that the caller has read.
#[derive(Debug, Default)]
struct Window {
    start: LogBlock,
    bytes: Vec<u8>,
    /// What the last step asked for.
    asked: Option<LogRange>,
    /// A larger read has failed: go block by block.
    single: bool,
    failed: Option<LogBlock>,
}

impl Recovery {
    /// A recovery of the journal that `parameters` were read from, for a file system of `home_end` blocks. A clean
    /// journal is done at once.
    ///
    /// # Errors
    /// [`JournalError::BadStart`].
    pub fn new(
        parameters: JournalParameters,
        mode: RecoveryMode,
        home_end: u64,
    ) -> Result<Self, JournalError> {
        let state = parameters.clean_state();
        let start = parameters.start();
        if start.is_some_and(|start| !parameters.area().contains(start)) {
            return Err(JournalError::BadStart(start.unwrap_or_default()));
        }
        let position = start.unwrap_or(state.head);
        Ok(Self {
            mode,
            home_end,
            pass: if start.is_some() { Pass::Scan } else { Pass::Done },
            position,
            walked: 0,
            tid: parameters.superblock().sequence(),
            tags: VecDeque::new(),
            window: Window::default(),
            scan: Scan {
                suspicious: false,
                last_time: CommitTime::default(),
                head: position,
                sum: u32::MAX,
            },
            end: parameters.superblock().sequence(),
            blocks: BTreeMap::new(),
            batch: BTreeMap::new(),
            map: RecoveryMap::default(),
            fast_commit: FastCommitScan::new(TransactionId(0)),
            damage: None,
            transactions: 0,
            replayed: 0,
            revoked: 0,
            parameters,
        })
    }

    /// Goes on until something is to be read or written, or all is done; once done, stays so.
    ///
    /// # Errors
    /// Why this journal cannot be recovered; the caller must neither write to the file system nor to the journal. An
    /// error that comes after `Write` steps is told when everything sound was handed out (J7.5).
    pub fn step(&mut self) -> Result<RecoveryStep, JournalError> {
        loop {
            if self.batch_is_due() {
                return Ok(RecoveryStep::Write(
                    core::mem::take(&mut self.batch).into_iter().collect(),
                ));
            }
            if self.pass == Pass::Done {
                return self.finish();
            }
            if self.pass_is_over() {
                self.end_pass()?;
                continue;
            }
            let window = core::mem::take(&mut self.window);
            let step = match window.block(self.position, self.parameters.block_size()) {
                Some(bytes) => self.visit(bytes).map(|()| None),
                None if window.failed == Some(self.position) => {
                    self.skip_unreadable().map(|()| None)
                }
                None => Ok(Some(self.read_range(window.single))),
            };
            self.window = window;
            if let Some(range) = step? {
                self.window.asked = Some(range);
                return Ok(RecoveryStep::Read(range));
            }
        }
    }

    /// The bytes of the blocks that the last step asked for; other lengths count as a failed read.
    pub fn supply(&mut self, bytes: &[u8]) {
        let wanted = self
            .window
            .asked
            .map(|asked| u64::from(asked.len).saturating_mul(self.parameters.block_size().into()));
        if wanted != Some(u64_from(bytes.len())) {
            return self.read_failed();
        }
        if let Some(asked) = self.window.asked.take() {
            self.window.start = asked.start;
            self.window.bytes.clear();
            self.window.bytes.extend_from_slice(bytes);
        }
    }

    /// The read that the last step asked for has failed.
    pub fn read_failed(&mut self) {
        if let Some(asked) = self.window.asked.take() {
            self.window.bytes.clear();
            self.window.single = true;
            if asked.len <= 1 {
                self.window.failed = Some(asked.start);
            }
        }
    }

    /// Writes are handed out when they are many, and at the end of the pass.
    fn batch_is_due(&self) -> bool {
        let full = self.batch.len() >= usize_from(self.batch_blocks());
        full || (self.pass != Pass::Replay && !self.batch.is_empty())
    }

    fn batch_blocks(&self) -> u32 {
        BATCH_BYTES.checked_div(self.parameters.block_size()).unwrap_or(1).max(1)
    }

    fn read_range(&self, single: bool) -> LogRange {
        let wanted = if single { 1 } else { self.batch_blocks() };
        let left = match (self.pass, self.parameters.fast_commit_area()) {
            (Pass::FastCommit, Some(area)) => area.until_turn(self.position),
            _ => self.parameters.area().until_turn(self.position),
        };
        LogRange { start: self.position, len: wanted.min(left) }
    }

    /// A data block that cannot be read is left out (J7.5); without any other block there is no log.
    fn skip_unreadable(&mut self) -> Result<(), JournalError> {
        let error = JournalError::Unreadable(self.position);
        if self.pass != Pass::Replay || self.tags.pop_front().is_none() {
            return Err(error);
        }
        self.damage.get_or_insert(error);
        self.advance(1)
    }

    fn finish(&mut self) -> Result<RecoveryStep, JournalError> {
        if let Some(error) = self.damage {
            return Err(error);
        }
        let state = match self.parameters.start() {
            None => self.parameters.clean_state(),
            Some(_) => LogState {
                next_tid: self.end.next(),
                head: self.scan.head,
                last_commit_time: self.scan.last_time,
            },
        };
        Ok(RecoveryStep::Done(Recovered {
            state,
            superblock: SuperblockState::new(&self.parameters, state)
                .clean(state.next_tid, state.head),
            transactions: self.transactions,
            replayed: self.replayed,
            revoked: self.revoked,
            map: core::mem::take(&mut self.map),
            fast_commits: self.fast_commits(),
        }))
    }

    fn fast_commits(&self) -> Option<FastCommits> {
        let start = self.parameters.fast_commit_area()?.first();
        let (len, records) = (self.fast_commit.valid_blocks(), self.fast_commit.valid_records());
        let blocks = LogRange { start, len };
        (records > 0).then_some(FastCommits { tid: self.end, blocks, records })
    }
}

impl Window {
    fn block(&self, at: LogBlock, block_size: u32) -> Option<&[u8]> {
        let size = usize_from(block_size);
        let index = usize_from(at.get().checked_sub(self.start.get())?);
        let from = index.checked_mul(size)?;
        self.bytes.get(from..from.checked_add(size)?)
    }
}
