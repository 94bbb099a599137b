//! Inodes with dirty data, oldest first.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::time::Duration;

use crate::inode::{Inode, QueuePlace};

/// Inodes by the time since which they are dirty; each at most once, which `Inode::queued` sees to.
#[derive(Default)]
pub(super) struct Queue {
    inodes: BTreeMap<QueuePlace, Arc<Inode>>,
    next: u64,
    /// When somebody is to look for old data again.
    look_at: Duration,
}

impl Queue {
    /// The place of an inode that became dirty `now`, which no other gets.
    pub(super) fn place(&mut self, now: Duration) -> QueuePlace {
        self.next += 1;
        QueuePlace { since: now, turn: self.next }
    }

    /// Adds an inode that became dirty `now`.
    pub(super) fn push(&mut self, now: Duration, inode: Arc<Inode>) {
        let place = self.place(now);
        self.push_at(place, inode);
    }

    /// Adds an inode at a place that was given to it.
    pub(super) fn push_at(&mut self, place: QueuePlace, inode: Arc<Inode>) {
        self.inodes.insert(place, inode);
    }

    /// Takes the oldest and since when it is dirty, if `due` says so of that time.
    pub(super) fn pop(
        &mut self,
        due: impl FnOnce(Duration) -> bool,
    ) -> Option<(Duration, Arc<Inode>)> {
        let oldest = self.inodes.first_entry()?;
        let since = oldest.key().since;
        due(since).then(|| (since, oldest.remove()))
    }

    /// Whether it is time to look for old data, if that is done once an `interval`; never, if that is zero.
    ///
    /// Source: kernel `wb_check_old_data_flush`.
    pub(super) fn is_time_to_look(&mut self, now: Duration, interval: Duration) -> bool {
        let looks = !interval.is_zero() && now >= self.look_at;
        if looks {
            self.look_at = now.saturating_add(interval);
        }
        looks
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.inodes.len()
    }
}
