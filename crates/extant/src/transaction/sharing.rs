//! Whose `fsync`s share a commit: who has just been served waits for those that were served with him, as they tend to come again.
//!
//! Without this, of threads that sync again and again those that a commit serves miss the next one, which begins with the first
//! that comes: two commits go round by turns, each with a part of the threads.
//!
//! Source: kernel `fs/jbd2/transaction.c`, `jbd2_journal_stop` (`j_average_commit_time`, `j_max_batch_time`). Differs: nobody waits
//! who was alone the last time, and nobody longer than until all have come.

use core::time::Duration;

/// Who waits for the running transaction, and who waited for the one before.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    waiting: u32,
    before: u32,
    /// When the first that waits goes without the others, by the engine's clock.
    until: Option<Duration>,
    /// How long a commit takes, as the mean that the kernel keeps.
    mean: Duration,
}

impl Sharing {
    /// Somebody wants the running transaction to be durable.
    pub(super) fn arrives(&mut self) {
        self.waiting = self.waiting.saturating_add(1);
    }

    /// Somebody comes while the transaction commits that he needs: he is served with those it began with.
    pub(super) fn arrives_late(&mut self) {
        self.before = self.before.saturating_add(1);
    }

    /// How long to wait for others yet, if at all.
    pub(super) fn patience(&mut self, now: Duration) -> Option<Duration> {
        let most = (self.mean / 2).min(MOST);
        if self.waiting >= self.before || most < LEAST {
            return None;
        }
        let until = *self.until.get_or_insert(now.saturating_add(most));
        until.checked_sub(now).filter(|rest| *rest > Duration::ZERO)
    }

    /// The running transaction commits from now on.
    pub(super) fn begins(&mut self) {
        self.before = core::mem::take(&mut self.waiting);
        self.until = None;
    }

    /// A commit took so long.
    pub(super) fn took(&mut self, time: Duration) {
        self.mean = if self.mean.is_zero() { time } else { (time + self.mean * 3) / 4 };
    }
}

/// A wait takes as long as this to begin and end, and so does a commit on a fast device.
const LEAST: Duration = Duration::from_micros(100);
/// The kernel's `EXT4_DEF_MAX_BATCH_TIME`.
const MOST: Duration = Duration::from_millis(15);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn of_commits_that_take(time: Duration) -> Sharing {
        let mut sharing = Sharing::default();
        sharing.took(time);
        sharing
    }

    #[test]
    fn who_was_alone_waits_for_nobody() {
        let mut sharing = of_commits_that_take(10 * MS);
        for _ in 0..3 {
            sharing.arrives();
            assert_eq!(sharing.patience(MS), None);
            sharing.begins();
        }
    }

    #[test]
    fn who_was_served_together_comes_together() {
        let mut sharing = of_commits_that_take(10 * MS);
        sharing.arrives();
        sharing.begins();
        sharing.arrives_late();
        sharing.arrives();
        assert_eq!(sharing.patience(MS), Some(5 * MS), "half of a commit");
        assert_eq!(sharing.patience(4 * MS), Some(2 * MS), "from the first on");
        sharing.arrives();
        assert_eq!(sharing.patience(4 * MS), None, "all are there");
        sharing.begins();
        sharing.arrives();
        assert_eq!(sharing.patience(20 * MS), Some(5 * MS));
        assert_eq!(sharing.patience(25 * MS), None, "the other does not come");
        sharing.begins();
        sharing.arrives();
        assert_eq!(sharing.patience(30 * MS), None, "and is not waited for again");
    }

    #[test]
    fn waits_are_bounded_by_what_a_commit_takes() {
        for (time, most) in [(20, None), (100_000, Some(15 * MS)), (4_000, Some(2 * MS))] {
            let mut sharing = of_commits_that_take(Duration::from_micros(time));
            sharing.arrives();
            sharing.arrives();
            sharing.begins();
            sharing.arrives();
            assert_eq!(sharing.patience(Duration::ZERO), most);
        }
    }
}
