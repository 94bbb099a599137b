//! The page cache against plain bytes: any sequence of operations, and several threads at once.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex as StdMutex;

use extant_device::FrameSlice;
use extant_format::cast::u64_from;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const FILE_BYTES: usize = 512 << 10;

/// A file as its layers would drive the cache, with a disk of bytes; what it should read is kept beside.
struct Model {
    cache: Arc<PageCache>,
    block_bytes: usize,
    disk: Vec<u8>,
    /// Which blocks have a place on the disk.
    placed: Vec<bool>,
    expected: Vec<u8>,
    under_way: Vec<(Range<usize>, WritebackGuard, Vec<FrameSlice>)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize, usize, u8),
    Read(usize, usize),
    Begin(usize),
    Complete(usize),
    Invalidate(usize, usize),
    Reclaim(u64),
    DropClean,
}

fn step() -> impl Strategy<Value = Step> {
    let place = prop_oneof![
        0..FILE_BYTES,
        (0..FILE_BYTES / 4096).prop_map(|page| page * 4096),
        (0..FILE_BYTES / 65536).prop_map(|piece| piece * 65536),
    ];
    let len = prop_oneof![1..3000_usize, Just(4096), Just(65536), 1..FILE_BYTES];
    let range = (place, len).prop_map(|(start, len)| (start, len.min(FILE_BYTES - start)));
    prop_oneof![
        5 => (range.clone(), any::<u8>()).prop_map(|((start, len), byte)| Step::Write(start, len, byte)),
        3 => range.clone().prop_map(|(start, len)| Step::Read(start, len)),
        2 => (0..FILE_BYTES / 4096).prop_map(Step::Begin),
        2 => any::<usize>().prop_map(Step::Complete),
        1 => range.prop_map(|(start, len)| Step::Invalidate(start, len)),
        1 => (0..1_u64 << 20).prop_map(Step::Reclaim),
        1 => Just(Step::DropClean),
    ]
}

impl Model {
    fn new(block_bits: u32) -> Self {
        let block_bytes = 1 << block_bits;
        Self {
            cache: PageCache::new(Arc::default(), BlockSize::new(block_bits).unwrap()),
            block_bytes,
            disk: vec![0xDD; FILE_BYTES],
            placed: vec![false; FILE_BYTES / block_bytes],
            expected: vec![0; FILE_BYTES],
            under_way: Vec::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Write(start, len, byte) => {
                self.write(start, &vec![byte; len]);
                self.expected[start..start + len].fill(byte);
            }
            Step::Read(start, len) => {
                assert_eq!(self.read(start, len), self.expected[start..start + len])
            }
            Step::Begin(page) => self.begin(page),
            Step::Complete(_) if self.under_way.is_empty() => {}
            Step::Complete(nth) => {
                let nth = nth % self.under_way.len();
                self.complete(nth);
            }
            Step::Invalidate(start, len) => self.punch(start..start + len),
            Step::Reclaim(bytes) => drop(self.cache.account().reclaim(bytes)),
            Step::DropClean => drop(self.cache.drop_clean(0..u64::MAX)),
        }
        self.cache.check_invariants();
    }

    /// A delayed write, folio by folio.
    fn write(&mut self, start: usize, bytes: &[u8]) {
        let (mut at, end) = (start, start + bytes.len());
        while at < end {
            let page = PageIndex::holding(u64_from(at));
            let folio = self.cache.find_or_create(page, end - at, MAX_ORDER);
            let base = usize::try_from(folio.shape().start()).unwrap();
            let range = at - base..(end - base).min(folio.shape().bytes());
            for run in folio.unmapped(&range) {
                for block in run {
                    let placed = self.placed[base / self.block_bytes + block];
                    folio.place(
                        block..block + 1,
                        if placed { Placement::Written } else { Placement::Delayed },
                    );
                }
            }
            for (block, step) in folio.edges(&range) {
                match step {
                    PrepareStep::ZeroOutside => folio.zero_outside(block, &range),
                    PrepareStep::Read => self.fill(&folio, block..block + 1),
                    PrepareStep::Nothing | PrepareStep::MapFirst => {
                        panic!("{block} needs {step:?}")
                    }
                }
            }
            let left = &bytes[at - start..];
            let fetched = folio.fetch(&range, |done, into| {
                into.copy_from_slice(&left[done..done + into.len()]);
                into.len()
            });
            assert_eq!(fetched.count(), range.len());
            folio.put(range.start, fetched);
            folio.commit_write(&range);
            at = base + range.end;
        }
    }

    /// Fills blocks that are not up to date, from the disk or as holes.
    fn fill(&self, folio: &LockedFolio, blocks: Range<usize>) {
        let base = usize::try_from(folio.shape().start()).unwrap();
        for block in blocks {
            if self.placed[base / self.block_bytes + block] {
                let mut frames = folio.read_frames(&(block..block + 1));
                let mut at = base + block * self.block_bytes;
                for frame in &mut frames {
                    let len = frame.len();
                    frame.make_mut().copy_from_slice(&self.disk[at..at + len]);
                    at += len;
                }
                folio.read_done(block..block + 1, frames);
            } else {
                folio.fill_hole(block..block + 1);
            }
        }
    }

    fn read(&self, start: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let at = start + bytes.len();
            let folio = self.cache.find_or_create(
                PageIndex::holding(u64_from(at)),
                len - bytes.len(),
                MAX_ORDER,
            );
            let base = usize::try_from(folio.shape().start()).unwrap();
            let range = at - base..(start + len - base).min(folio.shape().bytes());
            for run in folio.missing(&range) {
                self.fill(&folio, run);
            }
            let unlocked = Arc::clone(folio.folio());
            drop(folio);
            unlocked.read(range).unwrap().iter().for_each(|slice| bytes.extend(slice.as_slice()));
        }
        bytes
    }

    /// Begins writeback of the next dirty folio, of every run that is not being written yet.
    fn begin(&mut self, page: usize) {
        let (from, to) = (PageIndex::new(u64_from(page)), PageIndex::new(u64_from(FILE_BYTES)));
        let Some(folio) = self.cache.next_dirty(from, to, Tag::Dirty) else { return };
        let locked = self.cache.lock(folio).unwrap();
        let base = usize::try_from(locked.shape().start()).unwrap() / self.block_bytes;
        let mut from = 0;
        while let Some((run, kind)) = locked.dirty_run(from..locked.shape().blocks()) {
            from = run.end;
            if locked.is_under_writeback(run.clone()) {
                continue;
            }
            for block in run.clone() {
                assert_eq!(kind == DirtyKind::Placed, self.placed[base + block], "{kind:?}");
                self.placed[base + block] = true;
            }
            locked.placed_for_write(run.clone());
            let (guard, slices) = locked.begin_writeback(run.clone());
            self.under_way.push((base + run.start..base + run.end, guard, slices.into_vec()));
        }
    }

    fn complete(&mut self, nth: usize) {
        let (blocks, guard, slices) = self.under_way.swap_remove(nth);
        let mut at = blocks.start * self.block_bytes;
        for slice in slices {
            self.disk[at..at + slice.len()].copy_from_slice(slice.as_slice());
            at += slice.len();
        }
        assert_eq!(at, blocks.end * self.block_bytes);
        guard.complete(Ok(()));
    }

    /// Punches a hole: waits for writeback, zeroes what is left of edge blocks, drops the rest from cache and disk.
    fn punch(&mut self, bytes: Range<usize>) {
        while !self.under_way.is_empty() {
            self.complete(0);
        }
        let whole = bytes.start.div_ceil(self.block_bytes)..(bytes.end / self.block_bytes);
        self.cache.invalidate(u64_from(bytes.start)..u64_from(bytes.end), u64::MAX, |_, _| {});
        self.expected[bytes.clone()].fill(0);
        if whole.start > whole.end {
            return self.write(bytes.start, &vec![0; bytes.len()]);
        }
        self.placed[whole.clone()].fill(false);
        let inner = whole.start * self.block_bytes..whole.end * self.block_bytes;
        self.disk[inner.clone()].fill(0xDD);
        self.write(bytes.start, &vec![0; inner.start - bytes.start]);
        self.write(inner.end, &vec![0; bytes.end - inner.end]);
    }

    /// Writes all back; then the disk alone has what is expected.
    fn finish(mut self) {
        while self.cache.dirty_blocks() > 0 || !self.under_way.is_empty() {
            while !self.under_way.is_empty() {
                self.complete(0);
            }
            self.begin(0);
        }
        assert_eq!(self.cache.account().writeback_bytes(), 0);
        self.cache.account().reclaim(u64::MAX);
        assert_eq!(self.cache.account().cached_bytes(), 0);
        for (block, placed) in self.placed.iter().enumerate() {
            let place = block * self.block_bytes..(block + 1) * self.block_bytes;
            let holds =
                if *placed { &self.disk[place.clone()] } else { &vec![0; self.block_bytes][..] };
            assert!(holds == &self.expected[place], "block {block} of the disk");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn cache_agrees_with_plain_bytes(bits in 10_u32..=16, steps in vec(step(), 1..40)) {
        let mut model = Model::new(bits);
        for step in steps {
            model.apply(step);
        }
        model.finish();
    }
}

/// Bytes that one writer fills with one number at a time; within a frame.
const CELL: usize = 512;
const CELLS: usize = 64;
const ROUNDS: u8 = 200;

/// The disk of the threads' test, by cell.
type Disk = StdMutex<Vec<u8>>;

/// The one number that fills a cell.
fn number(cell: &[u8]) -> u8 {
    assert!(cell.iter().all(|byte| *byte == cell[0]), "a torn cell");
    cell[0]
}

fn fill_from(disk: &Disk, folio: &LockedFolio, bytes: &Range<usize>) {
    for run in folio.missing(bytes) {
        let mut frames = folio.read_frames(&run);
        let mut at =
            usize::try_from(folio.shape().start()).unwrap() + folio.shape().bytes_of(&run).start;
        for frame in &mut frames {
            for cell in frame.make_mut().chunks_exact_mut(CELL) {
                cell.fill(disk.lock().unwrap()[at / CELL]);
                at += CELL;
            }
        }
        folio.read_done(run, frames);
    }
}

/// Each round writes the round's number to every cell of its own.
fn writer(cache: &Arc<PageCache>, disk: &Disk, nth: usize) {
    for round in 1..=ROUNDS {
        for cell in (nth..CELLS).step_by(2) {
            let at = cell * CELL;
            let folio = cache.find_or_create(PageIndex::holding(u64_from(at)), 16384, MAX_ORDER);
            let start = at - usize::try_from(folio.shape().start()).unwrap();
            let range = start..start + CELL;
            for run in folio.unmapped(&range) {
                folio.place(run, Placement::Written);
            }
            for (block, step) in folio.edges(&range) {
                assert_eq!(step, PrepareStep::Read);
                fill_from(disk, &folio, &folio.shape().bytes_of(&(block..block + 1)));
            }
            folio.write_bytes(start, &[round; CELL]);
            folio.commit_write(&range);
        }
    }
}

/// No cell ever goes back, or is seen half written.
fn reader(cache: &Arc<PageCache>, disk: &Disk, stop: &AtomicBool) {
    let mut seen = [0; CELLS];
    let mut last = false;
    while !last {
        last = stop.load(Ordering::Relaxed);
        for (cell, seen) in seen.iter_mut().enumerate() {
            let at = cell * CELL;
            let page = PageIndex::holding(u64_from(at));
            let mut bytes = [0; CELL];
            let offset = |folio: &Folio| at - usize::try_from(folio.shape().start()).unwrap();
            let hit =
                cache.find(page).is_some_and(|folio| folio.copy_to(offset(&folio), &mut bytes));
            if !hit {
                let folio = cache.find_or_create(page, 4096, MAX_ORDER);
                let start = offset(&folio);
                fill_from(disk, &folio, &(start..start + CELL));
                assert!(folio.copy_to(start, &mut bytes));
            }
            let now = number(&bytes);
            assert!(now >= *seen, "cell {cell} went back from {seen} to {now}");
            *seen = now;
        }
    }
    assert_eq!(seen, [ROUNDS; CELLS]);
}

/// Writes dirty folios to the disk; the same block never twice at once.
fn flusher(cache: &Arc<PageCache>, disk: &Disk, stop: &AtomicBool) {
    let end = PageIndex::new(1 << 20);
    while !stop.load(Ordering::Relaxed) || cache.dirty_blocks() > 0 {
        let mut at = PageIndex::ZERO;
        while let Some(folio) = cache.next_dirty(at, end, Tag::Dirty) {
            at = folio.shape().end_index();
            folio.wait_writeback(0..folio.shape().blocks());
            let Some(locked) = cache.lock(Arc::clone(&folio)) else { continue };
            let base = usize::try_from(folio.shape().start()).unwrap();
            let mut from = 0;
            let mut under_way = Vec::new();
            while let Some((run, _)) = locked.dirty_run(from..folio.shape().blocks()) {
                from = run.end;
                if !locked.is_under_writeback(run.clone()) {
                    under_way.push((
                        base + folio.shape().bytes_of(&run).start,
                        locked.begin_writeback(run),
                    ));
                }
            }
            drop(locked);
            for (mut at, (guard, slices)) in under_way {
                for cell in slices.iter().flat_map(|slice| slice.as_slice().chunks_exact(CELL)) {
                    let now = number(cell);
                    let before = core::mem::replace(&mut disk.lock().unwrap()[at / CELL], now);
                    assert!(now >= before, "the disk went back from {before} to {now}");
                    at += CELL;
                }
                guard.complete(Ok(()));
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn threads_read_write_flush_and_reclaim_at_once() {
    let cache = PageCache::new(Arc::default(), BlockSize::new(10).unwrap());
    let disk = Disk::new(vec![0; 2 * CELLS]);
    let (written, flushed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writers = [0, 1].map(|nth| {
            scope.spawn({
                let (cache, disk) = (&cache, &disk);
                move || writer(cache, disk, nth)
            })
        });
        let readers = [(), ()].map(|()| scope.spawn(|| reader(&cache, &disk, &written)));
        let flushers = [(), ()].map(|()| scope.spawn(|| flusher(&cache, &disk, &written)));
        let reclaimer = scope.spawn(|| {
            while !flushed.load(Ordering::Relaxed) {
                cache.account().reclaim(16384);
                std::thread::yield_now();
            }
        });
        let outcome = writers.map(|writer| writer.join().is_ok());
        written.store(true, Ordering::Relaxed);
        let others = readers
            .into_iter()
            .chain(flushers)
            .map(|thread| thread.join().is_ok())
            .collect::<Vec<_>>();
        flushed.store(true, Ordering::Relaxed);
        assert!(outcome.iter().chain(&others).all(|fine| *fine) && reclaimer.join().is_ok());
    });
    assert_eq!(disk.lock().unwrap()[..CELLS], [ROUNDS; CELLS]);
    cache.wait_writeback(&(0..u64::MAX));
    cache.check_invariants();
}
