//! A small engine on top of the journal, which knows what every block should hold after each transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use extant_format::cast::usize_from;
use extant_format::jbd2::{JournalSuperblock, MAGIC, RawJournalSuperblock};
use extant_format::{PhysicalBlock, TransactionId};
use extant_journal::*;
use extant_testkit::Random;

use crate::disk::{Disk, Place};

/// Blocks of the little file system.
pub const HOME_BLOCKS: u64 = 240;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A handle that changes blocks, by number modulo what exists.
    Handle(Vec<(u64, BlockChange)>),
    /// A handle that dirties a run of blocks.
    Run(u64, u64),
    /// The commit under way, or a new one, goes one step further.
    Commit,
    /// It goes to its end.
    FinishCommit,
    /// The checkpoint under way, or a new one, goes one step further.
    Checkpoint,
    /// Data goes straight to a freed block.
    WriteData(u64),
    Flush,
    /// Power is cut, and the journal recovered.
    Crash(u64),
    /// Unmounts and mounts again.
    Remount,
}

/// A planted defect, which the checks must find.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sabotage {
    NoFlushBeforeCommit,
    NoFlushBeforeTail,
    NoRevoke,
    FreeWithoutWaiting,
    ReadLiveVersion,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Metadata of this version.
    Meta(u32),
    /// Freed (or never used: 0) and revoked; may hold data.
    Free(u32),
    /// Freed without revoke: nobody knows what it holds.
    Unknown,
}

type Model = BTreeMap<u64, State>;

struct Commit {
    plan: CommitPlan<Arc<[u8]>>,
    block: Option<LogWrite<Arc<[u8]>>>,
    step: u32,
}

enum Checkpoint {
    Write(CheckpointPlan<Arc<[u8]>>, usize),
    Tail(TailUpdate, u32),
}

pub struct Machine {
    disk: Disk,
    journal: Journal<Arc<[u8]>>,
    sabotage: Option<Sabotage>,
    versions: u32,
    live: Model,
    /// The state after each transaction of this mount; the first is that of the mount.
    history: Vec<Model>,
    first_tid: TransactionId,
    acknowledged: usize,
    commit: Option<Commit>,
    checkpoint: Option<Checkpoint>,
    /// Freed blocks that wait for a checkpoint before they may hold data.
    held: BTreeSet<u64>,
    /// Data in freed blocks: the freeing, the bytes, and whether they were flushed.
    data: BTreeMap<u64, (u32, Vec<u8>, bool)>,
}

impl Machine {
    pub fn new(superblock: &RawJournalSuperblock, sabotage: Option<Sabotage>) -> Self {
        let block_size = usize_from(superblock.block_size.get());
        let mut disk = Disk::new(block_size);
        let mut bytes = zerocopy::IntoBytes::as_bytes(superblock).to_vec();
        bytes.resize(block_size, 0);
        disk.write_through(Place::Log(0), &bytes);
        let parameters = read_parameters(&disk);
        let state = parameters.clean_state();
        let live: Model = (0..HOME_BLOCKS).map(|block| (block, State::Free(0))).collect();
        Self {
            journal: Journal::new(parameters, state),
            disk,
            sabotage,
            versions: 0,
            history: vec![live.clone()],
            live,
            first_tid: state.next_tid,
            acknowledged: 0,
            commit: None,
            checkpoint: None,
            held: BTreeSet::new(),
            data: BTreeMap::new(),
        }
    }

    /// Does one operation; `Err` says which promise was broken.
    pub fn run(&mut self, operation: &Operation) -> Result<(), String> {
        match operation {
            Operation::Handle(changes) => {
                self.handle(changes.iter().map(|&(n, change)| (n % HOME_BLOCKS, change)))
            }
            Operation::Run(start, len) => {
                self.handle((*start..start + len).map(|n| (n % HOME_BLOCKS, BlockChange::Dirty)));
            }
            Operation::Commit => self.step_commit(),
            Operation::FinishCommit => self.finish_commit(),
            Operation::Checkpoint => _ = self.step_checkpoint(u32::MAX),
            Operation::WriteData(block) => self.write_data(block % HOME_BLOCKS),
            Operation::Flush => self.flush(),
            Operation::Crash(seed) => return self.crash(*seed),
            Operation::Remount => return self.remount(),
        }
        self.check_counts()
    }

    /// What the journal counts can be recounted.
    fn check_counts(&self) -> Result<(), String> {
        let pending = (0..HOME_BLOCKS)
            .filter(|&n| self.journal.pending_home(PhysicalBlock::new(n)).is_some())
            .count();
        let same = pending == self.journal.pending_blocks();
        same.then_some(())
            .ok_or(format!("{pending} blocks pending, {} counted", self.journal.pending_blocks()))
    }

    fn handle(&mut self, changes: impl Iterator<Item = (u64, BlockChange)>) {
        let changes: Vec<_> = changes.collect();
        let count = u32::try_from(changes.len()).unwrap();
        let request = HandleRequest { blocks: count, revokes: count.min(100), reserved: 0 };
        let ticket = loop {
            match self.journal.begin(request, Duration::ZERO) {
                Begin::Granted { ticket, .. } => break ticket,
                Begin::CommitFirst(_) | Begin::WaitLocked(_) => self.finish_commit(),
                Begin::CheckpointFirst => {
                    let wanted = self.journal.parameters().max_transaction();
                    assert!(self.step_checkpoint(wanted), "no log space to be had");
                }
                other => panic!("{other:?}"),
            }
        };
        for &(block, change) in &changes {
            self.versions += 1;
            let state = match change {
                BlockChange::Dirty => State::Meta(self.versions),
                BlockChange::Revoke => State::Free(self.versions),
                BlockChange::Forget => State::Unknown,
            };
            self.live.insert(block, state);
        }
        let weak = |change| match change {
            BlockChange::Revoke if self.sabotage == Some(Sabotage::NoRevoke) => BlockChange::Forget,
            other => other,
        };
        let filed =
            changes.into_iter().map(|(block, change)| (PhysicalBlock::new(block), weak(change)));
        assert_eq!(self.journal.stop(ticket, filed).overrun, 0);
    }

    fn step_commit(&mut self) {
        let Some(mut commit) = self.commit.take() else { return self.start_commit() };
        commit.step += 1;
        match (commit.step, &commit.block) {
            (1, _) => {
                if let Some(superblock) = commit.plan.superblock() {
                    self.disk.write(Place::Log(0), superblock.bytes());
                }
                for write in commit.plan.log_writes() {
                    self.disk.write(Place::Log(write.at.get()), write.data.as_ref());
                }
            }
            (2, _) => {
                if self.sabotage != Some(Sabotage::NoFlushBeforeCommit) {
                    self.flush();
                }
                let seconds = self.versions.into();
                let block = commit.plan.commit_block(CommitTime { seconds, nanoseconds: 0 });
                self.disk.write(Place::Log(block.at.get()), block.data.as_ref());
                commit.block = Some(block);
            }
            (3, Some(block)) => {
                self.disk.write_through(Place::Log(block.at.get()), block.data.as_ref())
            }
            (4, _) => {
                if let Some(superblock) = commit.plan.tail_superblock() {
                    self.disk.write(Place::Log(0), superblock.bytes());
                }
            }
            _ => return self.end_commit(commit),
        }
        self.commit = Some(commit);
    }

    fn start_commit(&mut self) {
        let Some(tid) = self.journal.running() else { return };
        assert_eq!(self.journal.lock(tid), Ok(Lock::Locked));
        let (live, size) = (&self.live, self.journal.parameters().block_size());
        let seal = |block: PhysicalBlock| match live[&block.get()] {
            State::Meta(version) => Some(contents(block.get(), version, size).into()),
            _ => None,
        };
        let plan = match self.journal.switch(Duration::ZERO, seal) {
            Err(JournalError::LogFull { .. }) => {
                self.step_checkpoint(u32::MAX);
                return;
            }
            plan => plan.unwrap(),
        };
        self.history.push(self.live.clone());
        self.commit = Some(Commit { plan, block: None, step: 0 });
    }

    fn end_commit(&mut self, commit: Commit) {
        if let Some(superblock) = commit.plan.tail_superblock() {
            self.disk.write_through(Place::Log(0), superblock.bytes());
        }
        let committed = self.journal.committed(commit.plan, Duration::ZERO).unwrap();
        self.acknowledged += 1;
        if committed.freed_in_flight && self.sabotage != Some(Sabotage::FreeWithoutWaiting) {
            let freed = self.history[self.acknowledged]
                .iter()
                .filter(|(_, state)| matches!(state, State::Free(_)));
            self.held.extend(freed.map(|(block, _)| *block));
        }
    }

    fn finish_commit(&mut self) {
        if self.commit.is_none() {
            self.start_commit();
        }
        while self.commit.is_some() {
            self.step_commit();
        }
    }

    /// One step towards an empty log; `false` if it is empty.
    fn step_checkpoint(&mut self, wanted: u32) -> bool {
        match self.checkpoint.take() {
            None => return self.start_checkpoint(wanted),
            Some(Checkpoint::Write(plan, done)) => {
                match plan.blocks().get(done..(done + 7).min(plan.blocks().len())) {
                    None | Some([]) => {
                        let _ = self.journal.checkpointed(plan, &[]);
                        self.held.clear();
                    }
                    Some(blocks) => {
                        for (block, bytes) in blocks {
                            let live = self.live[&block.get()];
                            match (self.sabotage, live) {
                                (Some(Sabotage::ReadLiveVersion), State::Meta(version)) => {
                                    let size = self.journal.parameters().block_size();
                                    let live = contents(block.get(), version, size);
                                    self.disk.write(Place::Home(block.get()), &live);
                                }
                                _ => self.disk.write(Place::Home(block.get()), bytes),
                            }
                        }
                        let next = done + blocks.len();
                        self.checkpoint = Some(Checkpoint::Write(plan, next));
                    }
                }
            }
            Some(Checkpoint::Tail(update, 0)) => {
                if self.sabotage != Some(Sabotage::NoFlushBeforeTail) {
                    self.flush();
                }
                self.disk.write(Place::Log(0), update.superblock.bytes());
                self.checkpoint = Some(Checkpoint::Tail(update, 1));
            }
            Some(Checkpoint::Tail(update, _)) => {
                self.disk.write_through(Place::Log(0), update.superblock.bytes());
                self.journal.tail_updated(update);
            }
        }
        true
    }

    fn start_checkpoint(&mut self, wanted: u32) -> bool {
        match self.journal.plan_checkpoint(wanted) {
            CheckpointStep::Write(plan) => self.checkpoint = Some(Checkpoint::Write(plan, 0)),
            CheckpointStep::MoveTail => {
                let update = self.journal.plan_tail_update().unwrap();
                self.checkpoint = Some(Checkpoint::Tail(update, 0));
            }
            CheckpointStep::Busy | CheckpointStep::WaitCommit(_) => self.finish_commit(),
            CheckpointStep::Nothing => return false,
        }
        true
    }

    /// Data may only go to blocks whose freeing is committed and whose older versions are not on their way home.
    fn write_data(&mut self, block: u64) {
        let State::Free(since) = self.live[&block] else { return };
        if self.history[self.acknowledged][&block] != State::Free(since)
            || self.held.contains(&block)
        {
            return;
        }
        self.versions += 1;
        let bytes = contents(block, self.versions, self.journal.parameters().block_size());
        self.disk.write(Place::Home(block), &bytes);
        self.data.insert(block, (since, bytes, false));
    }

    fn flush(&mut self) {
        self.disk.flush();
        self.data.values_mut().for_each(|(_, _, durable)| *durable = true);
    }

    fn crash(&mut self, seed: u64) -> Result<(), String> {
        let mut random = Random::new(seed);
        self.disk = self.disk.crash(&mut random);
        let recovered = loop {
            match recover(&mut self.disk, &mut random)? {
                Some(recovered) => break recovered,
                None => self.disk = self.disk.crash(&mut random),
            }
        };
        let newest = match recovered.transactions {
            0 if recovered.clean => self.acknowledged,
            _ => usize_from(
                recovered.state.next_tid.get().wrapping_sub(self.first_tid.get()).wrapping_sub(1),
            ),
        };
        if newest < self.acknowledged || newest >= self.history.len() {
            return Err(format!(
                "{newest} transactions recovered, {} acknowledged",
                self.acknowledged
            ));
        }
        let model = self.history[newest].clone();
        self.check(&model)?;
        self.mount(model, recovered.state);
        Ok(())
    }

    /// Compares the disk with the model.
    fn check(&self, model: &Model) -> Result<(), String> {
        let size = self.journal.parameters().block_size();
        for (&block, &state) in model {
            let home = self.disk.read(Place::Home(block));
            let data = self.data.get(&block);
            let expected = match state {
                State::Meta(version) => contents(block, version, size),
                State::Free(since) => match data.filter(|data| data.0 == since) {
                    Some((_, bytes, true)) => bytes.clone(),
                    None if since == 0 => vec![0; home.len()],
                    _ => continue,
                },
                State::Unknown => continue,
            };
            if home != expected {
                return Err(format!("block {block} is not {state:?} after recovery"));
            }
        }
        Ok(())
    }

    fn remount(&mut self) -> Result<(), String> {
        self.finish_commit();
        if self.journal.running().is_some() {
            self.finish_commit();
        }
        while self.step_checkpoint(u32::MAX) {}
        let superblock = self.journal.plan_clean().map_err(|error| error.to_string())?;
        self.flush();
        self.disk.write_through(Place::Log(0), superblock.bytes());
        self.journal.cleaned();
        let model = self.live.clone();
        self.check(&model)?;
        let state = read_parameters(&self.disk).clean_state();
        self.mount(model, state);
        Ok(())
    }

    /// A new life of the journal. Data that was not flushed may be anything.
    fn mount(&mut self, mut model: Model, state: LogState) {
        for (block, (since, _, durable)) in &self.data {
            if model[block] == State::Free(*since) && !durable {
                model.insert(*block, State::Unknown);
            }
        }
        self.journal = Journal::new(read_parameters(&self.disk), state);
        self.first_tid = state.next_tid;
        self.history = vec![model.clone()];
        self.live = model;
        self.acknowledged = 0;
        self.commit = None;
        self.checkpoint = None;
        self.held.clear();
    }
}

struct Found {
    state: LogState,
    transactions: u32,
    clean: bool,
}

/// Recovers, unless power fails again on the way.
fn recover(disk: &mut Disk, random: &mut Random) -> Result<Option<Found>, String> {
    let parameters = read_parameters(disk);
    let clean = parameters.start().is_none();
    check_map(disk)?;
    let mut recovery = Recovery::new(parameters, RecoveryMode::Replay, HOME_BLOCKS)
        .map_err(|error| error.to_string())?;
    loop {
        match recovery.step().map_err(|error| error.to_string())? {
            RecoveryStep::Read(range) => recovery.supply(&read_range(disk, range)),
            RecoveryStep::Write(writes) => {
                for (block, bytes) in writes {
                    disk.write(Place::Home(block.get()), &bytes);
                }
                if random.below(4) == 0 {
                    return Ok(None);
                }
            }
            RecoveryStep::Done(recovered) => {
                disk.flush();
                disk.write_through(Place::Log(0), recovered.superblock.bytes());
                let Recovered { state, transactions, .. } = recovered;
                return Ok(Some(Found { state, transactions, clean }));
            }
        }
    }
}

/// Reading through the map must show what replaying writes.
fn check_map(disk: &Disk) -> Result<(), String> {
    let mut replayed = disk.clone();
    let mut map = RecoveryMap::default();
    for mode in [RecoveryMode::Replay, RecoveryMode::Map] {
        let mut recovery = Recovery::new(read_parameters(disk), mode, HOME_BLOCKS)
            .map_err(|error| error.to_string())?;
        loop {
            match recovery.step().map_err(|error| error.to_string())? {
                RecoveryStep::Read(range) => recovery.supply(&read_range(disk, range)),
                RecoveryStep::Write(writes) => {
                    writes
                        .iter()
                        .for_each(|(block, bytes)| replayed.write(Place::Home(block.get()), bytes));
                }
                RecoveryStep::Done(recovered) => break map = recovered.map,
            }
        }
    }
    for block in 0..HOME_BLOCKS {
        let through = match map.get(PhysicalBlock::new(block)) {
            None => disk.read(Place::Home(block)),
            Some(replacement) => {
                let mut bytes = disk.read(Place::Log(replacement.at.get()));
                replacement.decode(&mut bytes);
                bytes
            }
        };
        if through != replayed.read(Place::Home(block)) {
            return Err(format!("block {block} reads otherwise through the map"));
        }
    }
    Ok(())
}

fn read_range(disk: &Disk, range: LogRange) -> Vec<u8> {
    let numbers = range.start.get()..range.start.get() + range.len;
    numbers.map(|block| disk.read(Place::Log(block))).collect::<Vec<_>>().concat()
}

fn read_parameters(disk: &Disk) -> JournalParameters {
    let superblock =
        JournalSuperblock::parse(&disk.read(Place::Log(0))).expect("the superblock survives");
    JournalParameters::new(superblock).unwrap()
}

/// What version `version` of a block holds; some look like blocks of the log.
fn contents(block: u64, version: u32, block_size: u32) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(version % 251).unwrap(); usize_from(block_size)];
    bytes[16..24].copy_from_slice(&block.to_be_bytes());
    bytes[24..28].copy_from_slice(&version.to_be_bytes());
    if version.is_multiple_of(3) {
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&[0, 0, 0, [1, 2, 5][usize_from(version / 3 % 3)]]);
        bytes[8..12].copy_from_slice(&(version % 32).to_be_bytes());
    }
    bytes
}
