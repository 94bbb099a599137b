//! What the next fast commit has to tell: changes by their meaning, noted by handles, kept until they have been told.
//!
//! Source: kernel `fs/ext4/fast_commit.c`, `ext4_fc_track_inode`, `_range`, `_create`, `_link`, `_unlink`,
//! `ext4_fc_mark_ineligible`, `ext4_fc_del`. Differs: inodes and names are numbers and bytes, so nothing here keeps an inode in
//! memory; what was noted is bounded by what the area could hold.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use extant_format::fast_commit::Link;
use extant_format::{InodeNumber, LogicalRange, TransactionId};

use crate::report::Ineligible;
use crate::sync::{Mutex, Rank};
use crate::trace::{Event, Tracer};

/// A change, as [`Handle::note`](super::Handle::note) is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// The attributes of a file were stored, `again` if not for the first time in this transaction.
    Inode { inode: InodeNumber, again: bool },
    /// These blocks of a file have, or lost, a place, or are in another state.
    Blocks(InodeNumber, LogicalRange),
    /// A new inode got its first name.
    Create(Link<'a>),
    /// An inode got one more name.
    Link(Link<'a>),
    /// An inode lost a name.
    Unlink(Link<'a>),
    /// The inode is gone, and its number may be used again; `leaves_attributes` if its table entry still has some.
    Freed { inode: InodeNumber, leaves_attributes: bool },
    /// Something that no record tells of: only a full commit will do.
    Unrecorded(Ineligible),
}

/// What became of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Naming {
    /// It is the first of a new inode.
    Created,
    /// It is one more.
    Linked,
    /// It is gone.
    Unlinked,
}

/// A name that came or went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NameChange {
    /// Which of the two.
    pub(crate) naming: Naming,
    parent: InodeNumber,
    inode: InodeNumber,
    name: Box<[u8]>,
}

impl NameChange {
    /// As records have it.
    pub(crate) fn link(&self) -> Link<'_> {
        Link { parent: self.parent, inode: self.inode, name: &self.name }
    }
}

/// All that was noted since the last fast commit.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Names, in order.
    pub(crate) names: Vec<NameChange>,
    /// Inodes, each with the blocks that have changed.
    pub(crate) inodes: BTreeMap<InodeNumber, Option<LogicalRange>>,
}

/// Why a transaction is not committed fast any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// It did something of which no record tells.
    Ineligible,
    /// It did more than the area can hold, or a fast commit has failed.
    Failed,
}

/// The changes of the running transaction.
#[derive(Debug)]
pub(super) struct NotedChanges {
    queue: Mutex<Queue>,
    /// The most bytes of records that are noted.
    limit: usize,
    reasons: [AtomicU64; Ineligible::COUNT],
}

#[derive(Debug, Default)]
struct Queue {
    /// Whose changes these are; what older transactions have noted is of no use.
    tid: TransactionId,
    refusal: Option<Refusal>,
    names: BTreeMap<u64, NameChange>,
    next: u64,
    /// Names of inodes whose first name is in `names`.
    created: BTreeMap<InodeNumber, Vec<u64>>,
    inodes: BTreeMap<InodeNumber, Option<LogicalRange>>,
    /// Freed in this transaction, leaving attributes that a replay would give to whoever has the number next.
    worn: BTreeSet<InodeNumber>,
    /// About what the records take.
    bytes: usize,
}

impl NotedChanges {
    /// For an area of `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let queue = Mutex::new(Rank::Changes, Queue::default());
        Self { queue, limit, reasons: Default::default() }
    }

    /// Notes a change that a handle of `tid` has made.
    pub(super) fn note(&self, tid: TransactionId, change: Change<'_>, tracer: &Tracer) {
        let mut queue = self.queue.lock();
        queue.begin(tid);
        if let Change::Unrecorded(reason) = change {
            self.reasons[reason.index()].fetch_add(1, Ordering::Relaxed);
            queue.refuse(Refusal::Ineligible);
        }
        if queue.refusal.is_some() {
            return;
        }
        match change {
            Change::Inode { inode, .. } => queue.note_inode(inode, None),
            Change::Blocks(inode, blocks) => queue.note_inode(inode, Some(blocks)),
            Change::Create(link) if queue.worn.contains(&link.inode) => {
                self.reasons[Ineligible::Unrecordable.index()].fetch_add(1, Ordering::Relaxed);
                queue.refuse(Refusal::Ineligible);
            }
            Change::Create(link) => queue.note_name(Naming::Created, link),
            Change::Link(link) => queue.note_name(Naming::Linked, link),
            Change::Unlink(link) => queue.note_name(Naming::Unlinked, link),
            Change::Freed { inode, leaves_attributes } => queue.free(inode, leaves_attributes),
            Change::Unrecorded(_) => {}
        }
        if queue.bytes > self.limit {
            queue.refuse(Refusal::Failed);
        }
        drop(queue);
        if let Some(event) = tracer.is_on().then(|| event(tid, change)).flatten() {
            tracer.emit(|| event);
        }
    }

    /// Why `tid` cannot be committed fast, if it cannot.
    pub(super) fn refusal(&self, tid: TransactionId) -> Option<Refusal> {
        let queue = self.queue.lock();
        queue.refusal.filter(|_| queue.tid == tid)
    }

    /// Whether `tid` has noted nothing since the last fast commit.
    pub(super) fn is_empty(&self, tid: TransactionId) -> bool {
        let queue = self.queue.lock();
        queue.tid != tid || queue.names.is_empty() && queue.inodes.is_empty()
    }

    /// Only a full commit will do for `tid` from now on.
    pub(super) fn refuse(&self, tid: TransactionId) {
        let mut queue = self.queue.lock();
        queue.begin(tid);
        queue.refuse(Refusal::Failed);
    }

    /// What `tid` has noted; from now on it notes for the fast commit after this one.
    pub(super) fn take(&self, tid: TransactionId) -> Noted {
        let mut queue = self.queue.lock();
        queue.begin(tid);
        let names = core::mem::take(&mut queue.names).into_values().collect();
        queue.created.clear();
        queue.bytes = 0;
        Noted { names, inodes: core::mem::take(&mut queue.inodes) }
    }

    /// How often each reason has come up.
    pub(super) fn reasons(&self) -> [u64; Ineligible::COUNT] {
        self.reasons.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Queue {
    fn begin(&mut self, tid: TransactionId) {
        if self.tid != tid {
            *self = Self { tid, ..Self::default() };
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let refusal = Some(self.refusal.unwrap_or(refusal));
        *self = Self { tid: self.tid, refusal, ..Self::default() };
    }

    fn note_inode(&mut self, inode: InodeNumber, blocks: Option<LogicalRange>) {
        let bytes = &mut self.bytes;
        let known = self.inodes.entry(inode).or_insert_with(|| {
            *bytes += INODE_BYTES;
            None
        });
        let all = known.map_or(blocks, |known| {
            let Some(blocks) = blocks else { return Some(known) };
            let (start, end) = (known.start().min(blocks.start()), known.end().max(blocks.end()));
            LogicalRange::between(start, end)
        });
        *known = all;
    }

    fn note_name(&mut self, naming: Naming, link: Link<'_>) {
        let Link { parent, inode, name } = link;
        let at = self.next;
        self.next += 1;
        if naming == Naming::Created {
            self.created.insert(inode, Vec::new());
            self.bytes += INODE_BYTES;
        }
        if let Some(names) = self.created.get_mut(&inode) {
            names.push(at);
        }
        self.bytes += NAME_BYTES + name.len();
        self.names.insert(at, NameChange { naming, parent, inode, name: name.into() });
    }

    /// The inode is gone. If nobody has been told that it came, nobody is told of its names either.
    fn free(&mut self, inode: InodeNumber, leaves_attributes: bool) {
        if self.inodes.remove(&inode).is_some() {
            self.bytes = self.bytes.saturating_sub(INODE_BYTES);
        }
        if let Some(names) = self.created.remove(&inode) {
            self.bytes = self.bytes.saturating_sub(INODE_BYTES);
            for name in names.iter().filter_map(|at| self.names.remove(at)) {
                self.bytes = self.bytes.saturating_sub(NAME_BYTES + name.name.len());
            }
        }
        if leaves_attributes && self.worn.insert(inode) {
            self.bytes += WORN_BYTES;
        }
    }
}

fn event(tid: TransactionId, change: Change<'_>) -> Option<Event> {
    let (t_tid, i_sync_tid, error) = (tid.get(), tid.get(), 0);
    match change {
        Change::Inode { inode: i_ino, again } => {
            let error = if again { EXISTS } else { 0 };
            Some(Event::FcTrackInode { t_tid, i_ino, i_sync_tid, error })
        }
        Change::Blocks(i_ino, blocks) => {
            let (start, end) = (blocks.start().get(), blocks.last().get());
            Some(Event::FcTrackRange { t_tid, i_ino, i_sync_tid, error, start, end })
        }
        Change::Create(Link { inode: i_ino, .. }) => {
            Some(Event::FcTrackCreate { t_tid, i_ino, i_sync_tid, error })
        }
        Change::Link(Link { inode: i_ino, .. }) => {
            Some(Event::FcTrackLink { t_tid, i_ino, i_sync_tid, error })
        }
        Change::Unlink(Link { inode: i_ino, .. }) => {
            Some(Event::FcTrackUnlink { t_tid, i_ino, i_sync_tid, error })
        }
        Change::Freed { .. } | Change::Unrecorded(_) => None,
    }
}

/// `-EEXIST`.
const EXISTS: i32 = -17;
/// What the records of an inode take, without its blocks: headers and a range among them.
const INODE_BYTES: usize = 200;
/// What the record of a name takes beside the name.
const NAME_BYTES: usize = 12;
const WORN_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const TID: TransactionId = TransactionId(7);

    fn ino(number: u32) -> InodeNumber {
        InodeNumber::new(number).unwrap()
    }

    fn link(inode: u32) -> Link<'static> {
        Link { parent: InodeNumber::ROOT, inode: ino(inode), name: b"name" }
    }

    fn noted(changes: &[Change<'_>]) -> NotedChanges {
        let all = NotedChanges::new(4096);
        changes.iter().for_each(|change| all.note(TID, *change, &Tracer::default()));
        all
    }

    fn inode(number: u32) -> Change<'static> {
        Change::Inode { inode: ino(number), again: false }
    }

    #[test]
    fn an_inode_has_one_range_that_covers_all() {
        let range = |start, len| LogicalRange::new(start, len).unwrap();
        let blocks = |start, len| Change::Blocks(ino(12), range(start, len));
        let all = noted(&[blocks(9, 2), inode(12), blocks(3, 1), inode(13)]).take(TID);
        assert_eq!(all.inodes, [(ino(12), Some(range(3, 8))), (ino(13), None)].into());
    }

    #[test]
    fn nothing_is_told_of_what_came_and_went() {
        let freed = |leaves_attributes| Change::Freed { inode: ino(12), leaves_attributes };
        let came = [inode(12), Change::Create(link(12)), Change::Link(link(12))];
        let went = [Change::Unlink(link(12)), inode(12), freed(false)];
        let all = noted(&[&came[..], &went].concat());
        assert!(all.is_empty(TID));
        assert_eq!(all.queue.lock().bytes, 0);
        // But of one that was there before, or of which a fast commit has told, its names are.
        let all = noted(&came);
        assert_eq!(all.take(TID).names.len(), 2);
        went.iter().for_each(|change| all.note(TID, *change, &Tracer::default()));
        let left = all.take(TID);
        assert_eq!((left.names.len(), left.inodes.len()), (1, 0));
        assert_eq!(left.names[0].naming, Naming::Unlinked);
    }

    #[test]
    fn a_number_whose_old_attributes_would_come_back_is_not_told_of() {
        let freed = |leaves_attributes| Change::Freed { inode: ino(12), leaves_attributes };
        let again = |leaves| noted(&[freed(leaves), Change::Create(link(12))]).refusal(TID);
        assert_eq!((again(false), again(true)), (None, Some(Refusal::Ineligible)));
    }

    #[test]
    fn j10_5_what_is_not_recorded_counts_until_the_transaction_is_over() {
        let all = noted(&[inode(12), Change::Unrecorded(Ineligible::ShiftRange), inode(13)]);
        assert_eq!(all.refusal(TID), Some(Refusal::Ineligible));
        assert_eq!(all.reasons()[Ineligible::ShiftRange.index()], 1);
        assert!(all.is_empty(TID));
        assert_eq!(all.refusal(TID.next()), None);
        all.note(TID.next(), inode(14), &Tracer::default());
        assert_eq!((all.refusal(TID.next()), all.is_empty(TID.next())), (None, false));
        assert!(all.is_empty(TID), "what an older transaction has noted is of no use");
    }

    #[test]
    fn more_than_the_area_holds_is_not_kept() {
        let many: Vec<_> = (12..60).map(inode).collect();
        let all = noted(&many);
        assert_eq!(all.refusal(TID), Some(Refusal::Failed));
        assert_eq!((all.is_empty(TID), all.queue.lock().bytes), (true, 0));
    }
}
