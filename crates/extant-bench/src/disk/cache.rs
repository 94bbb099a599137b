//! [`WriteCache`]: bytes that a disk has acknowledged and not written yet.

use std::collections::BTreeMap;
use std::ops::Range;

/// Runs of bytes that wait to be written, by where they go; neighbours are one run.
///
/// A flush covers what came before it: each run belongs to the flush after which it came, and the flush is done when
/// none of its runs are left.
#[derive(Debug, Default)]
pub(super) struct WriteCache {
    limit: u64,
    /// Bytes of all runs, and of what is being written.
    used: u64,
    runs: BTreeMap<u64, Run>,
    /// How many runs, and pieces being written, belong to each flush.
    counts: BTreeMap<u64, u64>,
    flushes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: u64,
    flush: u64,
}

/// A piece of a run on its way to the platters.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Range<u64>,
    flush: u64,
}

impl WriteCache {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether it is switched on.
    pub(super) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Whether so many bytes more fit in; what is longer than the cache fits into an empty one.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.used == 0 || self.used + bytes <= self.limit
    }

    /// Whether all of these bytes are in here.
    pub(super) fn holds(&self, bytes: &Range<u64>) -> bool {
        let before = self.runs.range(..=bytes.start).next_back();
        before.is_some_and(|(_, run)| run.end >= bytes.end)
    }

    /// Takes bytes in; newer ones replace older ones.
    pub(super) fn insert(&mut self, bytes: Range<u64>) {
        let (mut start, mut end, mut flush) = (bytes.start, bytes.end, self.flushes);
        // Runs do not overlap, so the last ones that start up to `end` are those that can touch.
        while let Some((&at, &run)) = self.runs.range(..=end).next_back() {
            if run.end < start {
                break;
            }
            self.runs.remove(&at);
            self.uncount(run.flush);
            self.used -= run.end - at;
            (start, end, flush) = (start.min(at), end.max(run.end), flush.min(run.flush));
        }
        self.runs.insert(start, Run { end, flush });
        self.used += end - start;
        *self.counts.entry(flush).or_default() += 1;
    }

    /// Takes out the next piece of at most `most` bytes, sweeping upwards from `from` and then from the lowest again.
    pub(super) fn take(&mut self, from: u64, most: u64) -> Option<Piece> {
        let next = self.runs.range(from..).next().or_else(|| self.runs.iter().next());
        let (&start, &run) = next?;
        let end = run.end.min(start + most);
        self.runs.remove(&start);
        if end < run.end {
            self.runs.insert(end, run);
            *self.counts.entry(run.flush).or_default() += 1;
        }
        Some(Piece { bytes: start..end, flush: run.flush })
    }

    /// A piece has been written.
    pub(super) fn written(&mut self, piece: &Piece) {
        self.used -= piece.bytes.end - piece.bytes.start;
        self.uncount(piece.flush);
    }

    /// Begins a flush of all that is in here; its number, for [`Self::is_flushed`].
    pub(super) fn begin_flush(&mut self) -> u64 {
        self.flushes += 1;
        self.flushes - 1
    }

    /// Whether a flush has nothing left to wait for.
    pub(super) fn is_flushed(&self, flush: u64) -> bool {
        self.counts.first_key_value().is_none_or(|(&oldest, _)| oldest > flush)
    }

    fn uncount(&mut self, flush: u64) {
        if let Some(count) = self.counts.get_mut(&flush) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&flush);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_run_and_newer_bytes_replace_older_ones() {
        let mut cache = WriteCache::new(1000);
        for range in [0..10, 20..30, 10..20, 5..25, 40..50] {
            cache.insert(range);
        }
        assert!(cache.holds(&(0..30)) && !cache.holds(&(25..45)));
        assert_eq!(cache.used, 40);
        assert!(cache.has_room(960) && !cache.has_room(961));
        let all: Vec<_> =
            std::iter::from_fn(|| cache.take(25, 8)).map(|piece| piece.bytes).collect();
        assert_eq!(all, [40..48, 48..50, 0..8, 8..16, 16..24, 24..30]);
    }

    #[test]
    fn a_flush_waits_for_what_came_before_it() {
        let mut cache = WriteCache::new(1000);
        cache.insert(0..10);
        let flush = cache.begin_flush();
        cache.insert(100..110);
        assert!(!cache.is_flushed(flush));
        let first = cache.take(0, 6).unwrap();
        let second = cache.take(6, 6).unwrap();
        cache.written(&first);
        assert!(!cache.is_flushed(flush), "a part of the run is on its way");
        cache.written(&second);
        assert!(cache.is_flushed(flush) && cache.holds(&(100..110)));
        let later = cache.begin_flush();
        assert!(!cache.is_flushed(later));
    }
}
