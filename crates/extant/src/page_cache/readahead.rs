//! [`Readahead`]: what to fetch before it is asked for.

use core::ops::Range;

/// How one open file is being read: a window that doubles as long as reads follow each other.
///
/// Source: kernel `mm/readahead.c`, `struct file_ra_state`. Differs: the first window does not depend on the read's size alone,
/// and a window is fetched when half of the one before has been read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Readahead {
    /// Where the last read ended; at first, a file's start.
    expected: u64,
    /// Bytes of the last window; 0 while reads are random.
    window: u64,
    /// Where it ends.
    fetched: u64,
}

impl Readahead {
    /// Takes note of a read of `len` bytes at `offset`, and says which bytes to have in memory before it goes on; none for a
    /// random read, or while enough has been fetched. The caller cuts the range to the file's size.
    pub(crate) fn next(&mut self, offset: u64, len: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(len);
        if offset != core::mem::replace(&mut self.expected, end) {
            (self.window, self.fetched) = (0, 0);
            if offset > 0 {
                return None;
            }
        }
        let start = match self.window {
            0 => offset,
            window if end.saturating_add(window / 2) <= self.fetched => return None,
            _ => self.fetched.max(offset),
        };
        self.window = match self.window {
            0 => FIRST_WINDOW.max(len.saturating_mul(2)),
            window => window * 2,
        };
        self.window = self.window.min(MAX_WINDOW);
        // Windows end at multiples of their size, so that their folios are large ones.
        let fetched = end.max(start).saturating_add(self.window);
        self.fetched = fetched - fetched % self.window;
        (start < self.fetched).then_some(start..self.fetched)
    }
}

const FIRST_WINDOW: u64 = 128 << 10;
const MAX_WINDOW: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_up_to_two_mebibytes() {
        let mut readahead = Readahead::default();
        let mut fetched = 0;
        let mut windows = alloc::vec::Vec::new();
        for n in 0..4096_u64 {
            if let Some(range) = readahead.next(n * 4096, 4096) {
                assert_eq!(range.start, fetched, "nothing is left out or fetched twice");
                fetched = range.end;
                windows.push(range.end - range.start);
            }
            assert!(fetched >= (n + 1) * 4096);
        }
        assert_eq!(windows.first(), Some(&FIRST_WINDOW));
        assert_eq!(windows.last(), Some(&MAX_WINDOW));
        assert!(windows.len() < 14, "{windows:?}");
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut readahead = Readahead::default();
        for offset in [9 << 20, 4096, 77 << 12, 3 << 30, 5 << 12] {
            assert_eq!(readahead.next(offset, 4096), None);
        }
        assert!(readahead.next(6 << 12, 4096).is_some(), "but two reads that follow each other do");
    }

    #[test]
    fn a_large_read_is_fetched_as_a_whole() {
        let range = Readahead::default().next(0, 8 << 20).unwrap();
        assert!(range.start == 0 && range.end >= 8 << 20);
    }

    #[test]
    fn the_end_of_numbers_does_not_overflow() {
        let mut readahead = Readahead { expected: u64::MAX - 1, window: 0, fetched: 0 };
        let _ = readahead.next(u64::MAX - 1, 100);
        let _ = readahead.next(u64::MAX, 100);
    }
}
