//! [`Readahead`]: what to fetch before it is asked for.

use core::ops::Range;

/// How one open file is being read: a window that grows as long as reads follow each other. All but `previous` in pages.
///
/// The first page of a window that nobody has asked for yet is marked in the cache; a reader that comes there fetches the
/// next window, so that it never has to wait.
///
/// Source: kernel `mm/readahead.c`, `struct file_ra_state`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Readahead {
    /// Where the last window starts.
    start: u64,
    /// How large it is.
    size: u64,
    /// How much of it nobody asked for.
    ahead: u64,
    /// log2 of the pages of its folios.
    order: u32,
    /// Where the last read ended, in bytes; `None` before the first.
    previous: Option<u64>,
}

/// What to fetch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Window {
    /// In pages of the file, which may end earlier.
    pub(crate) pages: Range<u64>,
    /// How many of the last are ahead of what is asked for; the first of them gets the mark.
    pub(crate) ahead: u64,
    /// log2 of the pages of its folios in the kernel.
    pub(crate) order: u32,
    /// Its folios have a page each: a store through a mapping makes one dirty as a whole.
    pub(crate) by_page: bool,
}

impl Window {
    /// Just these pages.
    fn exactly(start: u64, count: u64) -> Self {
        Self { pages: start..start.saturating_add(count), ahead: 0, order: 0, by_page: false }
    }
}

impl Readahead {
    /// What to fetch for a read of `count` pages of which the first, `page`, is not in memory. `before` says how many pages
    /// in front of it are, up to a limit.
    ///
    /// Source: kernel `page_cache_sync_ra`.
    pub(crate) fn missed(
        &mut self,
        page: u64,
        count: u64,
        before: impl FnOnce(u64) -> u64,
    ) -> Window {
        let previous = self.previous.map(|end| end >> 12);
        let goes_on = previous.is_some_and(|last| page.wrapping_sub(last) <= 1);
        if page == 0 || count > MAX_PAGES || goes_on {
            let size = first_size(count);
            let ahead = if size > count { size - count } else { size };
            return self.window(page, size, ahead, 0);
        }
        let cached = before(MAX_PAGES);
        if cached <= count {
            return Window::exactly(page, count);
        }
        // What lies before all the way to the file's start has been read in order.
        let cached = if cached == page { cached * 2 } else { cached };
        self.window(page, (cached + count).min(MAX_PAGES), 1, 0)
    }

    /// What to fetch when a read, of `count` pages from there on, comes to the marked folio of `pages`. `missing` says which is
    /// the first page from some on that is not in memory, up to a limit.
    ///
    /// Source: kernel `page_cache_async_ra`.
    pub(crate) fn met(
        &mut self,
        pages: Range<u64>,
        count: u64,
        missing: impl FnOnce(u64, u64) -> u64,
    ) -> Option<Window> {
        let folio_pages = pages.end - pages.start;
        let expected = (self.start + self.size).saturating_sub(self.ahead);
        let (start, size) = if pages.start == expected - expected % folio_pages {
            (self.start + self.size, self.size.max(next_size(self.size)))
        } else {
            let start = missing(pages.start + 1, MAX_PAGES);
            if start - pages.start > MAX_PAGES {
                return None;
            }
            (start, next_size(start - pages.start + count))
        };
        let order = self.order + 2;
        let align = 1 << order.min(MAX_PAGES.ilog2());
        let end = (start + size) / align * align;
        let size = if end > start { end - start } else { size };
        Some(self.window(start, size, size, order))
    }

    /// What to fetch when a program touches a page that is not in memory: what lies around it.
    ///
    /// Source: kernel `do_sync_mmap_readahead`.
    pub(crate) fn faulted(&mut self, page: u64) -> Window {
        let start = page.saturating_sub(MAX_PAGES / 2);
        Window { by_page: true, ..self.window(start, MAX_PAGES, MAX_PAGES / 4, 0) }
    }

    /// A read ended at byte `end`.
    pub(crate) fn read_to(&mut self, end: u64) {
        self.previous = Some(end);
    }

    fn window(&mut self, start: u64, size: u64, ahead: u64, order: u32) -> Window {
        let order = order.min(super::MAX_ORDER).min(size.max(1).ilog2());
        *self = Self { start, size, ahead, order, previous: self.previous };
        Window { pages: start..start.saturating_add(size), ahead, order, by_page: false }
    }
}

/// The largest window, in bytes.
pub(crate) const READ_AHEAD_BYTES: u64 = MAX_PAGES << 12;

/// The same in pages: 2 MiB.
const MAX_PAGES: u64 = 512;

/// How large a first window for a read of so many pages is.
fn first_size(count: u64) -> u64 {
    match count.min(MAX_PAGES).next_power_of_two() {
        size if size <= MAX_PAGES / 32 => size * 4,
        size if size <= MAX_PAGES / 4 => size * 2,
        _ => MAX_PAGES,
    }
}

/// How large the one after a window of so many pages is.
fn next_size(size: u64) -> u64 {
    match size {
        size if size < MAX_PAGES / 16 => 4 * size,
        size if size <= MAX_PAGES / 2 => 2 * size,
        _ => MAX_PAGES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file in order, `count` pages at a time, as its cache would; the windows.
    fn read_in_order(pages: u64, count: u64) -> alloc::vec::Vec<Window> {
        let (mut readahead, mut windows) = (Readahead::default(), alloc::vec::Vec::new());
        let (mut cached, mut mark) = (0, None);
        for start in (0..pages).step_by(usize::try_from(count).unwrap()) {
            for page in start..start + count {
                let window = if page >= cached {
                    Some(readahead.missed(page, start + count - page, |_| page))
                } else if mark == Some(page) {
                    readahead.met(page..page + 1, start + count - page, |_, _| cached)
                } else {
                    None
                };
                if let Some(window) = window {
                    assert_eq!(window.pages.start, cached, "nothing is left out or fetched twice");
                    cached = window.pages.end;
                    mark = Some(cached - window.ahead);
                    windows.push(window);
                }
            }
            readahead.read_to((start + count) << 12);
        }
        windows
    }

    #[test]
    fn windows_grow_up_to_two_mebibytes() {
        let windows = read_in_order(4096, 1);
        let sizes: alloc::vec::Vec<_> =
            windows.iter().map(|window| window.pages.end - window.pages.start).collect();
        assert_eq!(sizes[..4], [4, 16, 60, 112], "{sizes:?}");
        assert_eq!(sizes.last(), Some(&MAX_PAGES));
        assert_eq!(windows[0].ahead, 3);
        assert_eq!(windows[1].order, 2);
    }

    #[test]
    fn a_large_read_begins_with_a_full_window() {
        assert_eq!(read_in_order(4096, 2048)[0].pages, 0..MAX_PAGES);
        assert_eq!(read_in_order(4096, 16)[0].pages, 0..64);
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut readahead = Readahead::default();
        for page in [2304, 1, 19712, 786_432, 5] {
            assert_eq!(readahead.missed(page, 1, |_| 0), Window::exactly(page, 1));
            readahead.read_to((page + 1) << 12);
        }
        assert_eq!(readahead.missed(6, 1, |_| 0).pages, 6..10, "but two that follow each other do");
    }

    #[test]
    fn what_lies_in_memory_before_a_read_tells_of_its_order() {
        let window = Readahead::default().missed(8, 1, |_| 8);
        assert_eq!(window.pages, 8..25, "twice what was read from the file's start");
        assert_eq!(Readahead::default().missed(8, 1, |_| 3).pages, 8..12);
    }

    #[test]
    fn a_mark_that_another_left_counts_what_is_fetched() {
        let window = Readahead::default().met(4..5, 1, |_, _| 16).unwrap();
        assert_eq!(window.pages.start, 16);
        assert_eq!(Readahead::default().met(4..5, 1, |_, _| 4 + MAX_PAGES + 1), None);
    }

    #[test]
    fn a_fault_fetches_what_lies_around() {
        assert_eq!(Readahead::default().faulted(10).pages, 0..MAX_PAGES);
        assert_eq!(Readahead::default().faulted(1000).pages.start, 1000 - MAX_PAGES / 2);
    }

    #[test]
    fn the_end_of_numbers_does_not_overflow() {
        let mut readahead = Readahead::default();
        let _ = readahead.missed(u64::MAX >> 12, 1, |_| 0);
        let _ = readahead.missed(u64::MAX >> 12, 1000, |_| 0);
    }
}
