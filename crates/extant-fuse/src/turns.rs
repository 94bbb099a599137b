//! [`Turns`]: who reads the next request.
//!
//! A thread that is woken for every other request pays for cold caches and for a signal between processors, so one thread serves
//! as long as it can. A watch looks now and then whether all that serve have been at one and the same request for a while:
//! then another thread comes, and goes again when no request has taken long for some time. A thread that only waits for a
//! processor would not be helped by another, so the first one, which serves nearly all, is asked how it is doing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often the watch looks, as long as there are requests: others wait for a slow one at most about twice as long.
const LOOK: Duration = Duration::from_millis(4);
/// After so many looks at which no request took long, one thread is enough; after as many without a request the watch sleeps.
const CALM: u32 = 25;
/// After so many looks at which the first thread was at one request another comes, even if it waits for nothing.
const LONG: u32 = 25;

/// Threads that serve, and what the watch knows of them.
#[derive(Debug)]
pub struct Turns {
    most: usize,
    /// How many are to serve.
    wanted: AtomicUsize,
    /// How many do.
    serving: AtomicUsize,
    seats: Mutex<Vec<Arc<AtomicU64>>>,
    watch: OnceLock<Thread>,
    watch_sleeps: AtomicBool,
    is_over: AtomicBool,
}

/// One thread's place. Its count goes up when a request begins and when it is served, so it is odd meanwhile.
#[derive(Debug)]
pub struct Seat {
    steps: Arc<AtomicU64>,
    is_first: bool,
}

impl Turns {
    /// At most so many threads; one to begin with.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            wanted: AtomicUsize::new(1),
            serving: AtomicUsize::new(1),
            seats: Mutex::default(),
            watch: OnceLock::new(),
            watch_sleeps: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// The place of the first thread, which stays to the end; `watch` is the one that watches.
    pub fn first(&self, watch: Thread) -> Seat {
        let _ = self.watch.set(watch);
        self.seat(true)
    }

    fn seat(&self, is_first: bool) -> Seat {
        let steps = Arc::new(AtomicU64::new(0));
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&steps));
        Seat { steps, is_first }
    }

    /// Whether the thread of `seat` goes on; if not, its place is given to nobody.
    pub fn may_stay(&self, seat: &Seat) -> bool {
        if seat.is_first
            || self.serving.load(Ordering::Acquire) <= self.wanted.load(Ordering::Acquire)
        {
            return true;
        }
        let more = |serving| (serving > self.wanted.load(Ordering::Acquire)).then(|| serving - 1);
        self.serving.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err()
    }

    /// A request begins.
    pub fn begin(&self, seat: &Seat) {
        seat.steps.fetch_add(1, Ordering::SeqCst);
        if self.watch_sleeps.load(Ordering::SeqCst) {
            self.watch_sleeps.store(false, Ordering::SeqCst);
            self.watch.get().inspect(|watch| watch.unpark());
        }
    }

    /// It is served.
    pub fn finish(&self, seat: &Seat) {
        seat.steps.fetch_add(1, Ordering::Release);
    }

    /// Nothing is served any more.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.watch.get().inspect(|watch| watch.unpark());
    }

    /// Whether [`Self::end`] was called.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Looks after the others, and has `start` start a thread where one is missing, until it is over. `first_runs` says whether
    /// the first thread is known to have or to want a processor.
    pub fn watch(&self, first_runs: impl Fn() -> bool, mut start: impl FnMut(Seat)) {
        let (mut before, mut calm, mut first_stuck) = (Vec::new(), 0, 0);
        while !self.is_over() {
            thread::park_timeout(LOOK);
            let now = self.steps();
            let is_stuck = |seat: &(usize, u64)| seat.1 % 2 == 1 && before.contains(seat);
            let stuck = now.iter().filter(|seat| is_stuck(seat)).count();
            // Who came first is first in the list.
            first_stuck = if now.first().is_some_and(is_stuck) { first_stuck + 1 } else { 0 };
            let is_busy = (1..LONG).contains(&first_stuck) && first_runs();
            let stuck = stuck - usize::from(is_busy);
            let serving = self.serving.load(Ordering::Acquire);
            if stuck >= serving && serving < self.most {
                self.wanted.store(serving + 1, Ordering::Release);
                self.serving.fetch_add(1, Ordering::AcqRel);
                start(self.seat(false));
            }
            calm = if stuck > 0 { 0 } else { u32::saturating_add(calm, 1) };
            if calm == CALM {
                self.wanted.store(1, Ordering::Release);
            }
            if now != before {
                before = now;
            } else if calm > CALM {
                self.sleep(&before);
            }
        }
    }

    /// Sleeps until a request begins, unless one has since it was `seen` how far all are.
    fn sleep(&self, seen: &[(usize, u64)]) {
        self.watch_sleeps.store(true, Ordering::SeqCst);
        while self.watch_sleeps.load(Ordering::SeqCst) && !self.is_over() {
            if self.steps() != seen {
                self.watch_sleeps.store(false, Ordering::SeqCst);
                return;
            }
            thread::park();
        }
    }

    /// How far each thread is that serves; the number tells them apart.
    fn steps(&self) -> Vec<(usize, u64)> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has left has let go of its count.
        seats.retain(|steps| Arc::strong_count(steps) > 1);
        let step =
            |steps: &Arc<AtomicU64>| (Arc::as_ptr(steps).addr(), steps.load(Ordering::SeqCst));
        seats.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// How long one request takes before another thread is to come.
    fn until_help(first_runs: bool) -> Duration {
        let (turns, helpers) = (Turns::new(2), Mutex::new(Vec::new()));
        let add = |seat| helpers.lock().expect("nobody panics").push(seat);
        thread::scope(|scope| {
            let watch = scope.spawn(|| turns.watch(|| first_runs, add));
            let seat = turns.first(watch.thread().clone());
            let start = Instant::now();
            turns.begin(&seat);
            while helpers.lock().expect("nobody panics").is_empty() {
                assert!(start.elapsed() < Duration::from_secs(60), "nobody comes");
                thread::sleep(Duration::from_millis(1));
            }
            turns.end();
            start.elapsed()
        })
    }

    #[test]
    fn who_only_wants_a_processor_gets_no_help_for_long() {
        assert!(until_help(true) > LOOK * (LONG / 2));
        let soonest = (0..5).map(|_| until_help(false)).min();
        assert!(soonest < Some(LOOK * (LONG / 2)), "{soonest:?}");
    }
}
