//! The page cache's rules by name.

use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::ops::Range;

use extant_format::{LogicalBlock, LogicalRange};

use super::shape::PAGE_BYTES;
use super::*;
use crate::error::Error;

fn block_size(bytes: usize) -> BlockSize {
    BlockSize::new(bytes.trailing_zeros()).unwrap()
}

fn page(n: u64) -> PageIndex {
    PageIndex::new(n)
}

/// An empty cache of a file with blocks of so many bytes.
fn cache(block_bytes: usize) -> Arc<PageCache> {
    PageCache::new(Arc::default(), block_size(block_bytes))
}

/// A new folio of one page at page 0 with blocks of 1 KiB.
fn small_folio(cache: &Arc<PageCache>) -> LockedFolio {
    cache.find_or_create(page(0), PAGE_BYTES, MAX_ORDER)
}

/// Writes to a locked folio as a delayed write does: maps, prepares, copies, commits. Reads nothing.
fn write(folio: &LockedFolio, offset: usize, bytes: &[u8]) {
    let range = offset..offset + bytes.len();
    for run in folio.unmapped(&range) {
        folio.place(run, Placement::Delayed);
    }
    for (block, step) in folio.edges(&range) {
        assert_eq!(step, PrepareStep::ZeroOutside);
        folio.zero_outside(block, &range);
    }
    folio.write_bytes(offset, bytes);
    folio.commit_write(&range);
}

/// A whole page of `byte` at page `n`, delayed and dirty.
fn dirty_page(cache: &Arc<PageCache>, n: u64, byte: u8) -> Arc<Folio> {
    let folio = cache.find_or_create(page(n), PAGE_BYTES, MAX_ORDER);
    write(&folio, 0, &[byte; PAGE_BYTES]);
    Arc::clone(folio.folio())
}

/// Writes all of a folio back, successfully.
fn clean(cache: &Arc<PageCache>, folio: &Arc<Folio>) {
    let locked = cache.lock(Arc::clone(folio)).unwrap();
    let mut from = 0;
    while let Some((run, _)) = locked.dirty_run(from..folio.shape().blocks()) {
        from = run.end;
        locked.placed_for_write(run.clone());
        locked.begin_writeback(run).0.complete(Ok(()));
    }
}

fn bytes_of(folio: &Folio, range: Range<usize>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; range.len()];
    folio.copy_to(range.start, &mut bytes).then_some(bytes)
}

#[test]
fn d2_5_a_folio_has_at_most_2048_blocks_and_at_least_one() {
    let orders = |bytes| (block_size(bytes).min_order(), block_size(bytes).max_order());
    assert_eq!((orders(1 << 10), orders(2 << 10), orders(4 << 10)), ((0, 9), (0, 9), (0, 9)));
    assert_eq!((orders(16 << 10), orders(64 << 10)), ((2, 9), (4, 9)));
    assert!(BlockSize::new(9).is_none() && BlockSize::new(17).is_none());
}

#[test]
fn d7_2_the_order_follows_from_length_and_alignment() {
    let order = |n, wanted, max| cache(4096).find_or_create(page(n), wanted, max).shape().order();
    assert_eq!(order(0, 2 << 20, MAX_ORDER), 9);
    assert_eq!(order(0, 8 << 20, MAX_ORDER), 9);
    assert_eq!(order(0, (2 << 20) - 1, MAX_ORDER), 8);
    assert_eq!(order(0, 1, MAX_ORDER), 0);
    assert_eq!(order(12, 2 << 20, MAX_ORDER), 2);
    assert_eq!(order(0, 2 << 20, 3), 3);
    assert_eq!(order(7, 2 << 20, MAX_ORDER), 0);
}

#[test]
fn d7_2_a_folio_has_whole_blocks() {
    let folio = cache(64 << 10).find_or_create(page(17), 1, 0);
    assert_eq!(
        (folio.shape().index(), folio.shape().order(), folio.shape().blocks()),
        (page(16), 4, 1)
    );
}

#[test]
fn d7_2_a_folio_does_not_reach_its_neighbour() {
    let cache = cache(4096);
    drop(cache.find_or_create(page(5), 1, MAX_ORDER));
    let folio = cache.find_or_create(page(0), 2 << 20, MAX_ORDER);
    assert_eq!(folio.shape().order(), 2);
    drop(folio);
    cache.check_invariants();
}

#[test]
fn d7_1_a_folio_is_found_by_any_of_its_pages() {
    let cache = cache(4096);
    let folio = Arc::clone(cache.find_or_create(page(8), 32 << 10, MAX_ORDER).folio());
    let is_it = |found: Option<Arc<Folio>>| found.is_some_and(|found| Arc::ptr_eq(&found, &folio));
    assert!(is_it(cache.find(page(8))) && is_it(cache.find(page(15))));
    assert!(cache.find(page(7)).is_none() && cache.find(page(16)).is_none());
    assert!(
        is_it(cache.find_from(page(0), page(9))) && cache.find_from(page(0), page(8)).is_none()
    );
    assert!(Arc::ptr_eq(cache.find_or_create(page(11), 1, 0).folio(), &folio));
}

#[test]
fn d7_1_a_folio_that_left_the_file_is_not_locked() {
    let cache = cache(4096);
    let folio = Arc::clone(small_folio(&cache).folio());
    cache.get_locked(page(0)).unwrap().remove();
    assert!(cache.lock(folio).is_none() && cache.get_locked(page(0)).is_none());
}

#[test]
fn d8_4_a_new_block_is_zeroed_around_the_write() {
    let cache = cache(1024);
    cache.account().recycle(extant_device::Frame::copy_from(&[0xEE; PAGE_BYTES])); // what a new frame holds
    let folio = small_folio(&cache);
    write(&folio, 1500, &[7; 1000]); // in blocks 1 and 2
    let mut expected = vec![0; 476];
    expected.extend([7; 1000]);
    expected.extend([0; 572]);
    assert_eq!(bytes_of(&folio, 1024..3072), Some(expected));
    assert_eq!(bytes_of(&folio, 1023..1025), None);
}

#[test]
fn d8_6_the_two_ends_of_a_written_range_are_read() {
    let cache = cache(1024);
    let folio = small_folio(&cache);
    assert_eq!(folio.unmapped(&(100..3500)).first(), Some(&(0..4)));
    folio.place(0..4, Placement::Written);
    assert_eq!(
        folio.edges(&(100..3500)).as_slice(),
        [(0, PrepareStep::Read), (3, PrepareStep::Read)]
    );
    assert_eq!(folio.edges(&(1024..2048)).as_slice(), []);
    assert_eq!(folio.edges(&(1100..1200)).as_slice(), [(1, PrepareStep::Read)]);
    let mut frames = folio.read_frames(&(0..1));
    frames[0].make_mut().fill(9);
    folio.read_done(0..1, frames);
    assert_eq!(folio.edges(&(100..3500)).as_slice(), [(3, PrepareStep::Read)]);
    assert_eq!(bytes_of(&folio, 0..1024), Some(vec![9; 1024]));
}

#[test]
fn d8_8_a_failed_write_leaves_dirty_zeros_in_new_blocks() {
    let cache = cache(1024);
    let folio = small_folio(&cache);
    folio.place(0..2, Placement::Delayed);
    folio.write_bytes(0, &[3; 2048]);
    folio.zero_new(&(0..2048));
    assert_eq!(bytes_of(&folio, 0..2048), Some(vec![0; 2048]));
    let expected =
        BlockFlags::MAPPED | BlockFlags::DELAY | BlockFlags::UPTODATE | BlockFlags::DIRTY;
    assert_eq!(
        (folio.flags(0), folio.flags(1), folio.flags(2)),
        (expected, expected, BlockFlags::empty())
    );
}

#[test]
fn d8_8_what_a_failed_write_leaves_out_of_a_new_block_is_zeros_too() {
    let cache = cache(1024);
    let used = cache.find_or_create(page(1), 4096, 0);
    used.write_bytes(0, &[7; 4096]);
    used.commit_write(&(0..4096));
    used.remove();
    // The next folio's frame has what that one left.
    let folio = small_folio(&cache);
    folio.place(0..1, Placement::Fresh);
    folio.zero_new(&(100..2048));
    let bytes = bytes_of(&folio, 0..1024).expect("it is up to date");
    assert_eq!(bytes.iter().position(|byte| *byte != 0), None);
}

#[test]
fn d8_10_rewriting_a_delayed_block_maps_nothing() {
    let cache = cache(1024);
    let folio = small_folio(&cache);
    write(&folio, 0, &[1; 1024]);
    assert!(folio.unmapped(&(10..900)).is_empty() && folio.edges(&(10..900)).is_empty());
}

#[test]
fn d9_3_placements_replace_each_other() {
    let folio = small_folio(&cache(1024));
    for (placement, flags) in [
        (Placement::Delayed, BlockFlags::MAPPED | BlockFlags::NEW | BlockFlags::DELAY),
        (Placement::Unwritten, BlockFlags::MAPPED | BlockFlags::NEW | BlockFlags::UNWRITTEN),
        (Placement::Fresh, BlockFlags::MAPPED | BlockFlags::NEW),
        (Placement::Written, BlockFlags::MAPPED),
    ] {
        folio.place(2..3, placement);
        assert_eq!(folio.flags(2), flags, "{placement:?}");
    }
}

#[test]
fn d13_1_a_commit_clears_new_on_every_block() {
    let cache = cache(1024);
    let folio = small_folio(&cache);
    folio.place(0..4, Placement::Delayed);
    folio.write_bytes(0, &[1; 1024]);
    folio.commit_write(&(0..1024));
    assert!(!folio.any(BlockFlags::NEW, 0..4));
    assert!(folio.any(BlockFlags::DIRTY, 0..1) && !folio.any(BlockFlags::DIRTY, 1..4));
    drop(folio);
    assert_eq!((cache.dirty_blocks(), cache.account().dirty_bytes()), (1, 1024));
}

#[test]
fn d15_8_dirty_runs_end_where_the_need_changes() {
    let cache = cache(1024);
    let folio = cache.find_or_create(page(0), 8192, MAX_ORDER);
    folio.fill_hole(0..8);
    folio.place(0..3, Placement::Delayed);
    folio.place(3..5, Placement::Unwritten);
    folio.place(5..6, Placement::Written);
    folio.set_dirty(1..7);
    let mut runs = Vec::new();
    let mut from = 0;
    while let Some((run, kind)) = folio.dirty_run(from..8) {
        from = run.end;
        runs.push((run, kind));
    }
    let expected = [
        (1..3, DirtyKind::Delayed),
        (3..5, DirtyKind::Unwritten),
        (5..6, DirtyKind::Placed),
        (6..7, DirtyKind::Unmapped),
    ];
    assert_eq!(runs, expected);
}

#[test]
fn d15_13_lost_data_is_forgotten() {
    let cache = cache(4096);
    let folio = dirty_page(&cache, 0, 5);
    cache.lock(Arc::clone(&folio)).unwrap().forget(0..1);
    assert_eq!((folio.flags(0), cache.dirty_blocks()), (BlockFlags::empty(), 0));
}

#[test]
fn d16_5_writeback_ends_without_the_folio_lock() {
    let cache = cache(4096);
    let folio = dirty_page(&cache, 3, 5);
    let locked = cache.get_locked(page(3)).unwrap();
    let (guard, slices) = locked.begin_writeback(0..1);
    assert_eq!(
        slices.iter().map(|slice| slice.as_slice()).collect::<Vec<_>>().concat(),
        vec![5; PAGE_BYTES]
    );
    assert_eq!((cache.dirty_blocks(), cache.account().writeback_bytes()), (0, 4096));
    assert!(locked.is_under_writeback(0..1) && cache.needs_writeback(&(12288..12289)));
    guard.complete(Ok(()));
    assert!(!folio.any(BlockFlags::WRITEBACK, 0..1) && !cache.needs_writeback(&(0..u64::MAX)));
    assert_eq!(cache.account().writeback_bytes(), 0);
}

#[test]
fn a_failed_write_is_told_once_to_each_open_file() {
    let cache = cache(4096);
    let (mut early, mut second) = (cache.error_position(), cache.error_position());
    dirty_page(&cache, 0, 5);
    let (guard, _) = cache.get_locked(page(0)).unwrap().begin_writeback(0..1);
    drop(guard); // never completed
    let mut untold = cache.error_position();
    assert!(matches!(cache.error_since(&mut early), Some(Error::Shutdown)));
    assert!(cache.error_since(&mut early).is_none());
    let mut late = cache.error_position();
    assert!(cache.error_since(&mut second).is_some() && cache.error_since(&mut late).is_none());
    assert!(cache.error_since(&mut untold).is_some());
}

#[test]
fn a_change_during_writeback_goes_to_a_copy_and_makes_dirty_again() {
    let cache = cache(4096);
    let folio = dirty_page(&cache, 0, 5);
    let locked = cache.get_locked(page(0)).unwrap();
    let (guard, slices) = locked.begin_writeback(0..1);
    write(&locked, 0, &[6; PAGE_BYTES]);
    write(&locked, 8, &[7]);
    assert_eq!(slices[0].as_slice(), [5; PAGE_BYTES]);
    guard.complete(Ok(()));
    assert!(folio.any(BlockFlags::DIRTY, 0..1));
    assert_eq!(bytes_of(&folio, 6..10), Some(vec![6, 6, 7, 6]));
    drop(locked);
    cache.check_invariants();
}

#[test]
fn a_full_overwrite_replaces_a_shared_frame_and_keeps_a_unique_one() {
    let cache = cache(4096);
    let folio = dirty_page(&cache, 0, 5);
    let place = |folio: &Folio| folio.read(0..1).unwrap()[0].as_slice().as_ptr();
    let before = place(&folio);
    let locked = cache.get_locked(page(0)).unwrap();
    locked.write_bytes(0, &[6; PAGE_BYTES]);
    assert_eq!(place(&folio), before);
    let held = folio.read(0..PAGE_BYTES).unwrap();
    locked.write_bytes(0, &[7; PAGE_BYTES]);
    assert_ne!(place(&folio), before);
    assert_eq!(held[0].as_slice(), [6; PAGE_BYTES]);
}

#[test]
fn a_source_fills_frames_and_may_deliver_short() {
    let cache = cache(4096);
    let folio = cache.find_or_create(page(0), 256 << 10, MAX_ORDER);
    let mut asked = Vec::new();
    let fetched = folio.fetch(&(4096..200 << 10), |done, into| {
        asked.push((done, into.len()));
        let came = into.len().min(70 << 10) / asked.len();
        into[..came].fill(9);
        came
    });
    let came = fetched.count();
    assert_eq!(asked, [(0, 60 << 10), (60 << 10, 64 << 10)]);
    assert_eq!(came, (60 << 10) + (32 << 10));
    folio.put(4096, fetched);
    folio.commit_write(&(4096..4096 + came));
    assert_eq!(bytes_of(&folio, 4096..4096 + came), Some(vec![9; came]));
}

#[test]
fn readers_share_frames_across_their_edges() {
    let cache = cache(4096);
    let folio = cache.find_or_create(page(0), 128 << 10, MAX_ORDER);
    write(&folio, 0, &vec![1; 64 << 10]);
    write(&folio, 64 << 10, &vec![2; 64 << 10]);
    let slices = folio.read((64 << 10) - 1..(64 << 10) + 1).unwrap();
    assert_eq!(slices.iter().map(|slice| slice.as_slice()[0]).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn dirty_folios_are_found_in_order_and_tagged_ones_apart() {
    let cache = cache(4096);
    let first = dirty_page(&cache, 2, 1);
    write(&cache.find_or_create(page(8), 16384, MAX_ORDER), 8192, &[1]);
    let next = |from, to, tag| {
        cache.next_dirty(page(from), page(to), tag).map(|folio| folio.shape().index().get())
    };
    assert_eq!(
        (next(0, 99, Tag::Dirty), next(3, 99, Tag::Dirty), next(10, 99, Tag::Dirty)),
        (Some(2), Some(8), Some(8))
    );
    assert_eq!(
        (next(12, 99, Tag::Dirty), next(3, 8, Tag::Dirty), next(0, 99, Tag::ToWrite)),
        (None, None, None)
    );
    cache.tag_for_write(page(0)..page(9));
    dirty_page(&cache, 5, 1);
    assert_eq!((next(3, 99, Tag::Dirty), next(3, 99, Tag::ToWrite)), (Some(5), Some(8)));
    clean(&cache, &first);
    assert_eq!((next(0, 99, Tag::ToWrite), next(0, 99, Tag::Dirty)), (Some(8), Some(5)));
    dirty_page(&cache, 2, 2);
    assert_eq!(next(0, 99, Tag::ToWrite), Some(8));
    cache.check_invariants();
}

#[test]
fn d22_5_invalidation_drops_whole_folios_and_zeroes_parts() {
    let cache = cache(1024);
    dirty_page(&cache, 0, 1);
    dirty_page(&cache, 1, 1);
    dirty_page(&cache, 2, 1);
    cache.invalidate(3000..8192, u64::MAX, |_, _| {});
    assert!(cache.find(page(1)).is_none() && cache.find(page(2)).is_some());
    let edge = cache.find(page(0)).unwrap();
    let mut expected = vec![1; 3000];
    expected.extend([0; 1096]);
    assert_eq!(bytes_of(&edge, 0..4096), Some(expected));
    assert!(edge.any(BlockFlags::DIRTY, 2..3), "the edge block is still dirty");
    assert_eq!(edge.flags(3), BlockFlags::UPTODATE);
    assert_eq!(cache.dirty_blocks(), 3 + 4);
    cache.invalidate(0..u64::MAX, u64::MAX, |_, _| {});
    assert_eq!((cache.dirty_blocks(), cache.account().dirty_bytes()), (0, 0));
    cache.check_invariants();
}

#[test]
fn a_clean_folio_that_loses_a_part_splits_and_forgets_its_places() {
    let cache = cache(4096);
    let locked = cache.find_or_create(page(0), 256 << 10, MAX_ORDER);
    write(&locked, 0, &vec![1; 256 << 10]);
    let folio = Arc::clone(locked.folio());
    drop(locked);
    clean(&cache, &folio);
    cache.invalidate((60 << 10)..(72 << 10), u64::MAX, |_, _| {});
    let left = |n| cache.find(page(n)).map(|left| (left.shape().index(), left.shape().pages()));
    assert_eq!((left(0), left(14)), (Some((page(0), 8)), Some((page(14), 1))));
    assert_eq!((left(15), left(17), left(18)), (None, None, Some((page(18), 1))));
    assert_eq!((left(19), left(40)), (Some((page(19), 1)), Some((page(32), 32))));
    let rest = cache.find(page(40)).unwrap();
    assert_eq!(bytes_of(&rest, 0..128 << 10), Some(vec![1; 128 << 10]));
    assert_eq!(rest.flags(3), BlockFlags::UPTODATE);
    drop((folio, rest));
    assert_eq!(cache.account().cached_bytes(), (256 - 12) << 10);
    cache.check_invariants();
}

#[test]
fn a_dirty_folio_that_loses_a_part_stays_whole() {
    let cache = cache(4096);
    let folio = cache.find_or_create(page(0), 256 << 10, MAX_ORDER);
    write(&folio, 0, &vec![1; 256 << 10]);
    let folio = Arc::clone(&{ folio }.folio().clone());
    cache.invalidate((60 << 10)..1 << 40, u64::MAX, |_, _| {});
    assert_eq!(bytes_of(&folio, 0..60 << 10), Some(vec![1; 60 << 10]));
    assert_eq!(bytes_of(&folio, 60 << 10..62 << 10), Some(vec![0; 2 << 10]));
    assert_eq!(folio.flags(15), BlockFlags::UPTODATE);
    assert_eq!(cache.dirty_blocks(), 15);
    cache.check_invariants();
}

#[test]
fn invalidation_waits_for_writeback() {
    let cache = cache(4096);
    dirty_page(&cache, 0, 1);
    let (guard, _) = cache.get_locked(page(0)).unwrap().begin_writeback(0..1);
    std::thread::scope(|scope| {
        let dropper = scope.spawn(|| cache.invalidate(0..4096, u64::MAX, |_, _| {}));
        std::thread::sleep(core::time::Duration::from_millis(10));
        assert!(!dropper.is_finished() && cache.find(page(0)).is_some());
        guard.complete(Ok(()));
    });
    assert!(cache.find(page(0)).is_none());
}

#[test]
fn waiting_for_writeback_ends_with_it() {
    let cache = cache(4096);
    for n in 0..3 {
        dirty_page(&cache, n, 1);
    }
    cache.wait_writeback(&(0..u64::MAX));
    let guards: Vec<_> =
        (0..3).map(|n| cache.get_locked(page(n)).unwrap().begin_writeback(0..1).0).collect();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| cache.wait_writeback(&(0..u64::MAX)));
        for guard in guards {
            assert!(!waiter.is_finished());
            guard.complete(Ok(()));
        }
    });
}

#[test]
fn reclaim_spares_what_is_dirty_locked_written_or_used_again() {
    let cache = cache(4096);
    let pages: Vec<_> = (0..5).map(|n| dirty_page(&cache, n, 1)).collect();
    pages[1..].iter().for_each(|folio| clean(&cache, folio));
    drop(pages);
    let locked = cache.get_locked(page(1)).unwrap();
    let written = cache.get_locked(page(0)).unwrap().begin_writeback(0..1).0;
    for n in 2..4 {
        cache.find(page(n)).unwrap().read(0..10).unwrap();
    }
    assert_eq!(cache.account().reclaim(4096), 4096);
    assert!(
        cache.find(page(2)).is_some()
            && cache.find(page(3)).is_some()
            && cache.find(page(4)).is_none()
    );
    drop(locked);
    written.complete(Ok(()));
    assert_eq!(cache.account().reclaim(u64::MAX), 4 * 4096);
    assert_eq!((cache.account().cached_bytes(), cache.account().reclaim(1)), (0, 0));
}

#[test]
fn reading_once_through_a_file_keeps_nothing_but_hot_data() {
    let account = Arc::<CacheAccount>::default();
    let [hot, cold] = [0, 1].map(|_| PageCache::new(Arc::clone(&account), block_size(4096)));
    for (cache, pages) in [(&hot, 4), (&cold, 64)] {
        for n in 0..pages {
            cache.find_or_create(page(n), PAGE_BYTES, MAX_ORDER).fill_hole(0..1);
            for part in 0..4 {
                cache.find(page(n)).unwrap().read(part * 1024..(part + 1) * 1024).unwrap();
            }
        }
    }
    for n in 0..4 {
        hot.find(page(n)).unwrap().read(0..4096).unwrap();
    }
    assert_eq!(account.reclaim(64 * 4096), 64 * 4096);
    assert!((0..4).all(|n| hot.find(page(n)).is_some()));
    assert_eq!(account.cached_bytes(), 4 * 4096);
}

#[test]
fn dropping_clean_pages_keeps_dirty_ones_and_edges() {
    let cache = cache(4096);
    for n in 0..4 {
        let folio = dirty_page(&cache, n, 1);
        if n != 1 {
            clean(&cache, &folio);
        }
    }
    assert_eq!(cache.drop_clean(0..3 * 4096 + 1), 2 * 4096);
    let kept = (0..4).filter(|&n| cache.find(page(n)).is_some()).collect::<Vec<_>>();
    assert_eq!(kept, [1, 3]);
}

#[test]
fn a_cache_that_is_dropped_leaves_nothing_counted() {
    let account = Arc::<CacheAccount>::default();
    for _ in 0..3000 {
        let cache = PageCache::new(Arc::clone(&account), block_size(4096));
        dirty_page(&cache, 0, 1);
    }
    assert_eq!((account.cached_bytes(), account.dirty_bytes()), (0, 0));
    assert_eq!(account.reclaim(1), 0);
}

#[test]
fn a_shape_converts_between_bytes_blocks_and_pages() {
    let folio = cache(1024).find_or_create(page(4), 8192, MAX_ORDER);
    let shape = folio.shape();
    assert_eq!((shape.start(), shape.end(), shape.blocks(), shape.pages()), (16384, 24576, 8, 2));
    assert_eq!((shape.touched(&(1..1025)), shape.covered(&(1..3000))), (0..2, 1..2));
    assert_eq!((shape.touched(&(5..5)).len(), shape.covered(&(5..6)).len()), (1, 0));
    assert_eq!(shape.part_of(&(0..17000)), 0..616);
    assert!(
        shape.part_of(&(0..16384)).is_empty() && shape.part_of(&(1 << 40..u64::MAX)).is_empty()
    );
    let blocks = LogicalRange::new(17, 3).unwrap();
    assert_eq!((shape.file_blocks(&(1..4)), shape.blocks_in(blocks)), (blocks, 1..4));
    assert_eq!(shape.blocks_in(LogicalRange::new(0, 16).unwrap()).len(), 0);
    let block = |n| shape.block_in(LogicalBlock::new(n).unwrap());
    assert_eq!((block(15), block(16), block(23), block(24)), (None, Some(0), Some(7), None));
    assert!(format!("{folio:?}").contains("order: 1"));
}

#[test]
fn frames_are_kept_for_the_next_folios_within_the_limit() {
    let account = Arc::new(CacheAccount::new(1 << 20));
    let cache = PageCache::new(Arc::clone(&account), BlockSize::new(12).unwrap());
    let fill = |order: u32| {
        let pages = 1 << order;
        for n in (0..256).step_by(pages) {
            let folio = cache.find_or_create(page(n), pages << 12, order);
            write(&folio, 0, &vec![1; pages << 12]);
        }
    };
    fill(4);
    assert_eq!((account.cached_bytes(), account.over_limit()), (1 << 20, 0));
    cache.invalidate(0..1 << 20, u64::MAX, |_, _| {});
    // What the next folios take is nothing new.
    fill(4);
    assert_eq!(account.over_limit(), 0);
    cache.invalidate(0..1 << 20, u64::MAX, |_, _| {});
    // For folios of another size there is nothing in what is kept, which goes.
    fill(1);
    assert_eq!((account.cached_bytes(), account.over_limit()), (1 << 20, 1 << 20));
    assert_eq!(account.make_room(0), 0);
    assert_eq!((account.cached_bytes(), account.over_limit()), (1 << 20, 0));
    cache.invalidate(0..1 << 20, u64::MAX, |_, _| {});
    (0..20).for_each(|_| account.release_unneeded());
    cache.check_invariants();
}

/// D15.16: what lies behind the end of file is not written, and is there as zeros should the file grow; nobody looks for it.
#[test]
fn d15_16_blocks_behind_the_end_of_file_are_clean_zeros() {
    let cache = cache(1 << 10);
    let folio = small_folio(&cache);
    write(&folio, 0, &[7; 2000]);
    folio.end_file(1);
    assert_eq!(folio.dirty_run(0..4).map(|(run, _)| run), Some(0..1));
    assert_eq!(bytes_of(folio.folio(), 2048..4096), Some(vec![0; 2048]));
    folio.end_file(4);
    assert_eq!(folio.dirty_run(0..4).map(|(run, _)| run), Some(0..1));
}

/// Where the last dirty blocks of a folio are dropped, the next pass comes by once more; pieces of a large one stay tagged until
/// they are written or dropped.
#[test]
fn a_folio_that_lost_what_was_dirty_is_looked_at_once_more() {
    let cache = cache(1 << 10);
    write(&small_folio(&cache), 1024, &[7; 1024]);
    cache.invalidate(1000..4096, u64::MAX, |_, _| {});
    assert!(cache.is_tagged() && cache.dirty_blocks() == 0);
    let folio = cache.next_dirty(page(0), page(1), Tag::Dirty).expect("it is to be looked at");
    cache.lock(folio).unwrap().end_file(1);
    assert!(!cache.is_tagged());
    let large = cache.create(page(4), 100, FolioSizes::Exactly(2)).unwrap();
    write(&large, 8192, &[7; 1024]);
    drop(large);
    cache.invalidate(6 * 4096..8 * 4096, u64::MAX, |_, _| {});
    assert!(cache.is_tagged() && cache.next_dirty(page(0), page(9), Tag::Dirty).is_none());
    assert!(cache.is_tagged_in(page(4)..page(5)) && !cache.is_tagged_in(page(6)..page(9)));
    cache.check_invariants();
    cache.invalidate(0..u64::MAX, u64::MAX, |_, _| {});
    assert!(!cache.is_tagged());
}
