//! [`FolioMap`]: a file's folios by their pages.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::cast::usize_from;

use super::bits::{self, WORD};
use super::folio::Folio;
use super::shape::{MAX_ORDER, PageIndex};

/// Folios by their first page.
///
/// A file's pages are cut into chunks of the size of the largest folio, so that no folio lies in two. A chunk knows by a bit a
/// page where its folios begin: to find the one around a page takes a count of bits, however many there are. By another bit it
/// knows which pages folios hold, so that nobody looks at a folio to learn that it does not hold a page.
///
/// Source: kernel `lib/xarray.c`. Differs: what is indexed are runs of pages, not single ones.
#[derive(Debug, Default)]
pub(super) struct FolioMap {
    chunks: BTreeMap<u64, Box<Chunk>>,
}

/// Pages of a chunk.
const CHUNK: usize = 1 << MAX_ORDER;

#[derive(Debug, Default)]
struct Chunk {
    /// The pages at which folios begin.
    starts: [u64; CHUNK / WORD],
    /// The pages that are in folios.
    held: [u64; CHUNK / WORD],
    /// Those folios, in order.
    folios: Vec<Arc<Folio>>,
}

impl FolioMap {
    /// The folio that holds `page`.
    pub(super) fn around(&self, page: PageIndex) -> Option<&Arc<Folio>> {
        let (number, place) = place_of(page);
        let chunk = self.chunks.get(&number)?;
        bits::any(&chunk.held, place..place + 1).then(|| &chunk.folios[chunk.before(place + 1) - 1])
    }

    /// The folios that begin at `page` or behind it, in order.
    pub(super) fn from(&self, page: PageIndex) -> impl Iterator<Item = &Arc<Folio>> {
        let (first, place) = place_of(page);
        self.chunks.range(first..).flat_map(move |(&number, chunk)| {
            let skipped = if number == first { chunk.before(place) } else { 0 };
            &chunk.folios[skipped..]
        })
    }

    /// The folio that begins at `page`.
    pub(super) fn get(&self, page: PageIndex) -> Option<&Arc<Folio>> {
        self.around(page).filter(|folio| folio.shape().index() == page)
    }

    /// Puts a folio in, where there is none.
    pub(super) fn insert(&mut self, folio: Arc<Folio>) {
        let (number, place) = place_of(folio.shape().index());
        let chunk = self.chunks.entry(number).or_default();
        bits::set(&mut chunk.held, pages_from(place, &folio));
        chunk.folios.insert(chunk.before(place), folio);
        bits::set(&mut chunk.starts, place..place + 1);
    }

    /// Takes out the folio that begins at `page`.
    pub(super) fn remove(&mut self, page: PageIndex) -> Option<Arc<Folio>> {
        let (number, place) = place_of(page);
        let chunk = self.chunks.get_mut(&number)?;
        if !bits::any(&chunk.starts, place..place + 1) {
            return None;
        }
        let folio = chunk.folios.remove(chunk.before(place));
        bits::clear(&mut chunk.starts, place..place + 1);
        bits::clear(&mut chunk.held, pages_from(place, &folio));
        if chunk.folios.is_empty() {
            self.chunks.remove(&number);
        }
        Some(folio)
    }
}

impl Chunk {
    /// How many folios begin before the page at `place`.
    fn before(&self, place: usize) -> usize {
        usize_from(bits::count(&self.starts, 0..place))
    }
}

/// The places of a folio's pages in its chunk, where it begins at `place`.
fn pages_from(place: usize, folio: &Folio) -> Range<usize> {
    place..place + (1 << folio.shape().order())
}

/// The number of a page's chunk, and its place in there.
fn place_of(page: PageIndex) -> (u64, usize) {
    let place = page.get() % (1 << MAX_ORDER);
    (page.get() >> MAX_ORDER, usize::try_from(place).expect("less than a chunk"))
}

#[cfg(test)]
mod tests {
    use super::super::shape::{BlockSize, FolioShape};
    use super::*;

    #[test]
    fn folios_are_found_by_any_of_their_pages() {
        let mut map = FolioMap::default();
        let mut folios = [(0, 0), (1, 0), (4, 2), (16, 4), (511, 0), (512, 9), (5120, 3)];
        folios.reverse();
        for (page, order) in folios {
            let shape = FolioShape::new(PageIndex::new(page), order, BlockSize::new(12).unwrap());
            map.insert(Arc::new(Folio::new_locked(shape, Arc::default())));
        }
        folios.reverse();
        let start = |folio: &Arc<Folio>| folio.shape().index().get();
        for page in 0..5200 {
            let holds =
                |&&(first, order): &&(u64, u32)| (first..first + (1 << order)).contains(&page);
            let expected = folios.iter().find(holds).map(|&(first, _)| first);
            assert_eq!(map.around(PageIndex::new(page)).map(start), expected, "{page}");
            let behind: Vec<u64> = map.from(PageIndex::new(page)).map(start).collect();
            let expected: Vec<u64> =
                folios.iter().map(|&(first, _)| first).filter(|&first| first >= page).collect();
            assert_eq!(behind, expected, "{page}");
        }
        assert!(map.get(PageIndex::new(5)).is_none() && map.remove(PageIndex::new(5)).is_none());
        for (page, _) in folios {
            assert_eq!(map.get(PageIndex::new(page)).map(start), Some(page));
            assert_eq!(map.remove(PageIndex::new(page)).as_ref().map(start), Some(page));
            assert!(map.around(PageIndex::new(page)).is_none());
        }
        assert!(map.chunks.is_empty());
    }
}
