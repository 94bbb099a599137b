//! [`Drive`]: the disk itself: the commands that it has taken, its cache and its arm.
//!
//! The arm does one thing at a time. Of the commands it takes the one whose first byte comes by soonest (that is what NCQ is
//! for); cached writes go to the platters in the order of their places, when no command wants the arm or somebody waits
//! for them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::cache::{Piece, WriteCache};
use super::model::DiskModel;
use super::platters::{Access, Nanos, Platters, nanos};

/// What the drive is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CommandKind {
    Read,
    Write,
    Flush,
}

/// What the drive wants to be called for, and when.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum DriveEvent {
    /// A command is over the link.
    Arrived(u64),
    /// An answer is over the link.
    Answered(u64),
    /// The arm has done what it was doing.
    ArmDone,
}

/// A disk's electronics and mechanics.
#[derive(Debug)]
pub(super) struct Drive {
    platters: Platters,
    cache: WriteCache,
    command: Nanos,
    link_bytes_per_second: u64,
    lookahead_bytes: u64,
    depth: usize,
    link_free: Nanos,
    commands: BTreeMap<u64, Command>,
    /// Commands that want the arm, oldest first.
    for_arm: Vec<u64>,
    /// Writes that wait for room in the cache.
    for_room: VecDeque<u64>,
    /// Flushes under way, and their numbers in the cache.
    for_flush: Vec<(u64, u64)>,
    track: u64,
    /// Where the last transfer ended.
    head: u64,
    job: Option<Job>,
    /// Whether the arm's last job was a command's.
    served_command: bool,
    ahead: Option<Ahead>,
    /// Events to be called for.
    pub(super) events: Vec<(Nanos, DriveEvent)>,
    /// Commands that are done.
    pub(super) done: Vec<u64>,
    /// Bytes that have reached the platters.
    pub(super) persisted: Vec<Range<u64>>,
    /// Times that the arm has moved to another track for.
    pub(super) seeks: u64,
}

#[derive(Clone, Debug)]
struct Command {
    kind: CommandKind,
    bytes: Range<u64>,
    arrived: Nanos,
}

/// What the arm is doing.
#[derive(Debug)]
enum Job {
    Command(u64),
    Cached(Piece),
}

/// What is being read without being asked for, since the last read.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    from: u64,
    /// The end of the last read, when it was over, and where the arm was then.
    end: u64,
    since: Nanos,
    track: u64,
}

impl Drive {
    pub(super) fn new(model: &DiskModel) -> Self {
        Self {
            platters: Platters::new(&model.mechanics),
            cache: WriteCache::new(model.write_cache_bytes),
            command: nanos(model.command),
            link_bytes_per_second: model.link_bytes_per_second.max(1),
            lookahead_bytes: model.lookahead_bytes,
            depth: usize::try_from(model.queue_depth.max(1)).unwrap_or(usize::MAX),
            link_free: 0,
            commands: BTreeMap::new(),
            for_arm: Vec::new(),
            for_room: VecDeque::new(),
            for_flush: Vec::new(),
            track: 0,
            head: 0,
            job: None,
            served_command: false,
            ahead: None,
            events: Vec::new(),
            done: Vec::new(),
            persisted: Vec::new(),
            seeks: 0,
        }
    }

    /// Whether it takes another read or write.
    pub(super) fn has_room(&self) -> bool {
        let flushes = self.for_flush.len();
        self.commands.len().saturating_sub(flushes) < self.depth
    }

    /// Whether a write is done before its bytes are on the platters.
    pub(super) fn caches_writes(&self) -> bool {
        self.cache.is_on()
    }

    /// Takes a command, which arrives when the link has carried it.
    pub(super) fn take(&mut self, now: Nanos, id: u64, kind: CommandKind, bytes: Range<u64>) {
        let carried = if kind == CommandKind::Write { bytes.end - bytes.start } else { 0 };
        self.link_free = self.link_free.max(now) + self.command + self.on_link(carried);
        self.events.push((self.link_free, DriveEvent::Arrived(id)));
        self.commands.insert(id, Command { kind, bytes, arrived: self.link_free });
    }

    /// Something that was asked for in [`Self::events`] happens.
    pub(super) fn happen(&mut self, now: Nanos, event: DriveEvent) {
        match event {
            DriveEvent::Arrived(id) => self.arrived(now, id),
            DriveEvent::Answered(id) => self.finish(id),
            DriveEvent::ArmDone => self.arm_done(now),
        }
        self.start(now);
    }

    fn on_link(&self, bytes: u64) -> Nanos {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.link_bytes_per_second);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    fn finish(&mut self, id: u64) {
        self.commands.remove(&id);
        self.done.push(id);
    }

    fn arrived(&mut self, now: Nanos, id: u64) {
        let Some(command) = self.commands.get(&id).cloned() else { return };
        let len = command.bytes.end - command.bytes.start;
        match command.kind {
            CommandKind::Flush => {
                let flush = self.cache.begin_flush();
                self.for_flush.push((id, flush));
                self.finish_flushes();
            }
            CommandKind::Write if self.cache.is_on() => {
                if self.for_room.is_empty() && self.cache.has_room(len) {
                    self.cache.insert(command.bytes);
                    self.finish(id);
                } else {
                    self.for_room.push_back(id);
                }
            }
            CommandKind::Read if self.is_in_memory(now, &command.bytes) => {
                self.link_free = self.link_free.max(now) + self.on_link(len);
                self.events.push((self.link_free, DriveEvent::Answered(id)));
            }
            CommandKind::Read | CommandKind::Write => self.for_arm.push(id),
        }
    }

    fn arm_done(&mut self, now: Nanos) {
        match self.job.take() {
            Some(Job::Command(id)) => {
                let Some(command) = self.commands.get(&id).cloned() else { return };
                if command.kind == CommandKind::Write {
                    self.persisted.push(command.bytes);
                } else {
                    let from = command.bytes.start;
                    let end = command.bytes.end;
                    self.ahead = Some(Ahead { from, end, since: now, track: self.track });
                }
                self.finish(id);
            }
            Some(Job::Cached(piece)) => {
                self.cache.written(&piece);
                self.persisted.push(piece.bytes);
                self.finish_flushes();
                self.let_in();
            }
            None => {}
        }
    }

    fn finish_flushes(&mut self) {
        let cache = &self.cache;
        let done = self.for_flush.extract_if(.., |(_, flush)| cache.is_flushed(*flush));
        let ids: Vec<u64> = done.map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.finish(id));
    }

    /// Lets writes into the cache as far as there is room.
    fn let_in(&mut self) {
        while let Some(&id) = self.for_room.front() {
            let Some(bytes) = self.commands.get(&id).map(|command| command.bytes.clone()) else {
                return;
            };
            if !self.cache.has_room(bytes.end - bytes.start) {
                return;
            }
            self.for_room.pop_front();
            self.cache.insert(bytes);
            self.finish(id);
        }
    }

    /// Gives an idle arm something to do.
    fn start(&mut self, now: Nanos) {
        if self.job.is_some() {
            return;
        }
        let somebody_waits = !self.for_flush.is_empty() || !self.for_room.is_empty();
        let cached_first = self.for_arm.is_empty() || (somebody_waits && self.served_command);
        if cached_first && let Some(piece) = self.cache.take(self.head, MOST_AT_ONCE) {
            let len = piece.bytes.end - piece.bytes.start;
            let access = self.platters.access(now, self.track, piece.bytes.start, len);
            self.begin(&access, &piece.bytes.clone(), Job::Cached(piece));
        } else if let Some((at, access)) = self.soonest(now) {
            let id = self.for_arm.remove(at);
            let bytes = self.commands.get(&id).map_or(0..0, |command| command.bytes.clone());
            self.begin(&access, &bytes, Job::Command(id));
        }
    }

    fn begin(&mut self, access: &Access, bytes: &Range<u64>, job: Job) {
        self.seeks += u64::from(self.platters.track(bytes.start) != self.track);
        self.events.push((access.end, DriveEvent::ArmDone));
        (self.track, self.head) = (access.track, bytes.end);
        self.served_command = matches!(job, Job::Command(_));
        self.job = Some(job);
        self.ahead = None;
    }

    /// The command whose first byte comes by soonest; the oldest, if it has waited for long.
    fn soonest(&self, now: Nanos) -> Option<(usize, Access)> {
        let commands = self.for_arm.iter().filter_map(|id| self.commands.get(id)).enumerate();
        let mut best: Option<(usize, Access)> = None;
        for (at, command) in commands {
            let access = self.access(now, command);
            if now.saturating_sub(command.arrived) > MOST_PATIENCE {
                return Some((at, access));
            }
            if best.is_none_or(|(_, least)| access.start < least.start) {
                best = Some((at, access));
            }
        }
        best
    }

    fn access(&self, now: Nanos, command: &Command) -> Access {
        let bytes = &command.bytes;
        let access = self.platters.access(now, self.track, bytes.start, bytes.end - bytes.start);
        // What is being read ahead may be there sooner.
        match self.read_ahead(bytes).filter(|_| command.kind == CommandKind::Read) {
            Some(ahead) if ahead.end < access.end => {
                let end = ahead.end.max(now);
                Access { start: ahead.start.max(now), end, ..ahead }
            }
            _ => access,
        }
    }

    /// Whether bytes can be read without the arm.
    fn is_in_memory(&self, now: Nanos, bytes: &Range<u64>) -> bool {
        self.cache.holds(bytes) || self.read_ahead(bytes).is_some_and(|access| access.end <= now)
    }

    /// When reading ahead has these bytes, if it gets so far.
    fn read_ahead(&self, bytes: &Range<u64>) -> Option<Access> {
        let ahead = self.ahead?;
        let reach = ahead.from..=ahead.end + self.lookahead_bytes;
        if !reach.contains(&bytes.start) || !reach.contains(&bytes.end) {
            return None;
        }
        let Some(further) = bytes.end.checked_sub(ahead.end).filter(|further| *further > 0) else {
            return Some(Access { start: ahead.since, end: ahead.since, track: ahead.track });
        };
        Some(self.platters.access(ahead.since, ahead.track, ahead.end, further))
    }
}

/// Cached bytes that go to the platters in one go.
const MOST_AT_ONCE: u64 = 1 << 20;
/// How long a command may be overtaken.
const MOST_PATIENCE: Nanos = 500_000_000;
