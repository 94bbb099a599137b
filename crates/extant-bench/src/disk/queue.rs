//! [`Queue`]: the requests in front of a disk: cut to size, joined with neighbours, ordered, and given to the disk one by one.
//!
//! Source: kernel `block/blk-mq.c`, `block/mq-deadline.c`, `Documentation/block/deadline-iosched.rst`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::drive::{CommandKind, Drive};
use super::model::{DiskModel, Elevator};
use super::platters::Nanos;

/// One batch of a caller, who waits until all of it is done.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket(u64);

/// A part of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Read(Range<u64>),
    /// With whether it has to be durable when it is done.
    Write(Range<u64>, bool),
    Flush,
}

/// Requests of all callers.
#[derive(Debug)]
pub(super) struct Queue {
    elevator: Elevator,
    most: usize,
    request_bytes: u64,
    next: u64,
    /// Parts that are not admitted yet, caller by caller; whose turn it is comes first.
    waiting: VecDeque<(Ticket, VecDeque<Part>)>,
    /// How many parts of each batch are not done.
    open: BTreeMap<Ticket, u64>,
    /// Requests that are not done, the disk's included.
    requests: BTreeMap<u64, Request>,
    reads: Order,
    writes: Order,
    /// How often reads have gone before writes that waited.
    starved: u32,
    /// Requests more that may go in the same direction.
    batch: u32,
    direction: CommandKind,
    /// Requests that were given to the disk, without flushes.
    pub(super) dispatched: u64,
}

#[derive(Debug)]
struct Request {
    kind: CommandKind,
    bytes: Range<u64>,
    arrived: Nanos,
    /// Whom to tell, once a part.
    owners: Vec<Ticket>,
    /// Those of them for whom a flush has to follow.
    durable: Vec<Ticket>,
}

/// Requests of one direction that the disk does not have yet.
#[derive(Debug, Default)]
struct Order {
    by_place: BTreeSet<(u64, u64)>,
    by_age: BTreeSet<u64>,
    /// Where the last one ended.
    at: u64,
}

impl Queue {
    pub(super) fn new(model: &DiskModel) -> Self {
        Self {
            elevator: model.elevator,
            most: usize::try_from(model.requests.max(1)).unwrap_or(usize::MAX),
            request_bytes: model.request_bytes.max(4096),
            next: 0,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            requests: BTreeMap::new(),
            reads: Order::default(),
            writes: Order::default(),
            starved: 0,
            batch: 0,
            direction: CommandKind::Write,
            dispatched: 0,
        }
    }

    /// Takes a batch.
    pub(super) fn submit(&mut self, parts: impl IntoIterator<Item = Part>) -> Ticket {
        let ticket = Ticket(self.next_number());
        let pieces: VecDeque<Part> =
            parts.into_iter().flat_map(|part| pieces(part, self.request_bytes)).collect();
        if !pieces.is_empty() {
            self.open.insert(ticket, u64::try_from(pieces.len()).unwrap_or(u64::MAX));
            self.waiting.push_back((ticket, pieces));
        }
        ticket
    }

    /// Whether all of a batch is done.
    pub(super) fn is_done(&self, ticket: Ticket) -> bool {
        !self.open.contains_key(&ticket)
    }

    /// Admits what there is room for, and gives the drive what it takes.
    pub(super) fn push(&mut self, now: Nanos, drive: &mut Drive) {
        self.admit(now, drive);
        while drive.has_room() {
            let Some(id) = self.pick(now) else { return };
            let Some(request) = self.requests.get(&id) else { return };
            self.dispatched += 1;
            drive.take(now, id, request.kind, request.bytes.clone());
        }
    }

    /// The drive has done a command.
    pub(super) fn done(&mut self, now: Nanos, id: u64, drive: &mut Drive) {
        let Some(request) = self.requests.remove(&id) else { return };
        let needs_flush = drive.caches_writes() && !request.durable.is_empty();
        request.owners.iter().for_each(|owner| self.part_done(*owner));
        if needs_flush {
            self.flush(now, request.durable, drive);
        } else {
            request.durable.iter().for_each(|owner| self.part_done(*owner));
        }
    }

    fn part_done(&mut self, ticket: Ticket) {
        if let Some(open) = self.open.get_mut(&ticket) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&ticket);
            }
        }
    }

    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Callers take turns; a part that joins a request needs no room of its own.
    fn admit(&mut self, now: Nanos, drive: &mut Drive) {
        let mut stuck = 0;
        while stuck < self.waiting.len()
            && let Some((ticket, mut parts)) = self.waiting.pop_front()
        {
            let admitted = match parts.front().cloned() {
                None => true,
                Some(Part::Flush) => {
                    self.flush(now, vec![ticket], drive);
                    true
                }
                Some(Part::Read(bytes)) => self.enter(now, ticket, CommandKind::Read, bytes, false),
                Some(Part::Write(bytes, fua)) => {
                    self.enter(now, ticket, CommandKind::Write, bytes, fua)
                }
            };
            if admitted {
                stuck = 0;
                parts.pop_front();
            } else {
                stuck += 1;
            }
            if !parts.is_empty() {
                self.waiting.push_back((ticket, parts));
            }
        }
    }

    /// Flushes go past the elevator.
    fn flush(&mut self, now: Nanos, owners: Vec<Ticket>, drive: &mut Drive) {
        let id = self.next_number();
        let kind = CommandKind::Flush;
        let request = Request { kind, bytes: 0..0, arrived: now, owners, durable: Vec::new() };
        self.requests.insert(id, request);
        drive.take(now, id, kind, 0..0);
    }

    fn enter(
        &mut self,
        now: Nanos,
        ticket: Ticket,
        kind: CommandKind,
        bytes: Range<u64>,
        fua: bool,
    ) -> bool {
        let (owners, durable) = if fua { (vec![], vec![ticket]) } else { (vec![ticket], vec![]) };
        let mut request = Request { kind, bytes, arrived: now, owners, durable };
        if self.elevator == Elevator::Deadline && self.join(&mut request) {
            return true;
        }
        if self.requests.len() >= self.most {
            return false;
        }
        let id = self.next_number();
        self.order(kind).insert(id, request.bytes.start);
        self.requests.insert(id, request);
        true
    }

    /// Joins a request with the ones before and behind it, as far as those wait and all together are not too long. It is
    /// older than they are then, as the oldest of them.
    fn join(&mut self, request: &mut Request) -> bool {
        let mut joined = None;
        loop {
            let bytes = request.bytes.clone();
            let order = self.order(request.kind);
            let before = order.by_place.range(..(bytes.start, 0)).next_back().map(|(_, id)| *id);
            let behind = order.from(bytes.end);
            let limit = self.request_bytes;
            let fits = |id: &u64| {
                self.requests.get(id).is_some_and(|other| {
                    let touches = other.bytes.end == bytes.start || other.bytes.start == bytes.end;
                    touches && length(&other.bytes) + length(&bytes) <= limit
                })
            };
            let Some(id) = [before, behind].into_iter().flatten().find(fits) else { break };
            let Some(mut other) = self.withdraw(id) else { break };
            request.bytes = other.bytes.start.min(bytes.start)..other.bytes.end.max(bytes.end);
            request.owners.append(&mut other.owners);
            request.durable.append(&mut other.durable);
            request.arrived = request.arrived.min(other.arrived);
            joined = Some(joined.map_or(id, |joined: u64| joined.min(id)));
        }
        let Some(id) = joined else { return false };
        self.order(request.kind).insert(id, request.bytes.start);
        let empty = Request { owners: Vec::new(), durable: Vec::new(), bytes: 0..0, ..*request };
        self.requests.insert(id, std::mem::replace(request, empty));
        true
    }

    /// Takes back a request that the disk does not have yet.
    fn withdraw(&mut self, id: u64) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        let order = self.order(request.kind);
        order.by_age.remove(&id);
        order.by_place.remove(&(request.bytes.start, id));
        Some(request)
    }

    fn order(&mut self, kind: CommandKind) -> &mut Order {
        if kind == CommandKind::Read { &mut self.reads } else { &mut self.writes }
    }

    /// The request that the disk gets next.
    fn pick(&mut self, now: Nanos) -> Option<u64> {
        let id = match self.elevator {
            Elevator::None => {
                let oldest = [self.reads.by_age.first(), self.writes.by_age.first()];
                oldest.into_iter().flatten().min().copied()?
            }
            Elevator::Deadline => self.pick_by_deadline(now)?,
        };
        let request = self.requests.get(&id)?;
        let (kind, bytes) = (request.kind, request.bytes.clone());
        let order = self.order(kind);
        order.by_age.remove(&id);
        order.by_place.remove(&(bytes.start, id));
        order.at = bytes.end;
        Some(id)
    }

    /// Upwards from the last one, up to sixteen in one direction; then reads before writes, and whoever waits too long first.
    fn pick_by_deadline(&mut self, now: Nanos) -> Option<u64> {
        if self.batch > 0
            && let Some(id) = self.order(self.direction).upwards()
        {
            self.batch -= 1;
            return Some(id);
        }
        let (reads, writes) = (!self.reads.by_age.is_empty(), !self.writes.by_age.is_empty());
        self.direction = match (reads, writes) {
            (true, true) if self.starved < WRITES_STARVED => {
                self.starved += 1;
                CommandKind::Read
            }
            (_, true) => {
                self.starved = 0;
                CommandKind::Write
            }
            (true, false) => CommandKind::Read,
            (false, false) => return None,
        };
        self.batch = FIFO_BATCH - 1;
        let read = self.direction == CommandKind::Read;
        let patience = if read { READ_EXPIRE } else { WRITE_EXPIRE };
        let oldest = self.order(self.direction).by_age.first().copied()?;
        let expired = |request: &Request| now.saturating_sub(request.arrived) >= patience;
        if self.requests.get(&oldest).is_some_and(expired) {
            return Some(oldest);
        }
        Some(self.order(self.direction).upwards().unwrap_or(oldest))
    }
}

impl Order {
    fn insert(&mut self, id: u64, start: u64) {
        self.by_age.insert(id);
        self.by_place.insert((start, id));
    }

    /// The next one behind the last.
    fn upwards(&self) -> Option<u64> {
        self.from(self.at)
    }

    /// The first one that starts at `place` or behind.
    fn from(&self, place: u64) -> Option<u64> {
        self.by_place.range((place, 0)..).next().map(|(_, id)| *id)
    }
}

fn length(bytes: &Range<u64>) -> u64 {
    bytes.end - bytes.start
}

/// Cuts a part to requests of at most `most` bytes.
fn pieces(part: Part, most: u64) -> Vec<Part> {
    let cut = |bytes: Range<u64>| {
        let starts = bytes.clone().step_by(usize::try_from(most).unwrap_or(usize::MAX));
        starts.map(move |start| start..(start + most).min(bytes.end))
    };
    match part {
        Part::Flush => vec![Part::Flush],
        Part::Read(bytes) => cut(bytes).map(Part::Read).collect(),
        Part::Write(bytes, fua) => cut(bytes).map(|bytes| Part::Write(bytes, fua)).collect(),
    }
}

/// `fifo_batch`, `writes_starved`, `read_expire` and `write_expire` of the kernel's `mq-deadline`.
const FIFO_BATCH: u32 = 16;
const WRITES_STARVED: u32 = 2;
const READ_EXPIRE: Nanos = 500_000_000;
const WRITE_EXPIRE: Nanos = 5_000_000_000;
