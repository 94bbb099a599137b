//! Locks with a rank: the only file that names the platform's locks and threads.
//!
//! # Invariants
//! A thread takes locks by rising [`Rank`]; debug builds panic on a wrong order and name both ranks.
//! A lock whose holder panicked panics, so damage cannot spread.
//! # Locking
//! `docs/locking.md` has the table of ranks. With `std` the locks sleep; without it they spin, and a
//! [`Condvar`] waits by letting go of its lock and trying again. Built with `--cfg extant_shuttle` they are shuttle's, whose
//! scheduler then decides at each of them which thread goes on. A thread that has called [`wait_by`] does not sleep either:
//! it asks a scheduler of the program's own. A program learns by [`measure_waits`] what they cost it.
//! # Not here
//! What each lock protects (the type that owns it says so).
//! # Source
//! Kernel `fs/ext4/super.c`, "Lock ordering"; lockdep's idea of classes.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

/// A lock's place in the order in which locks are taken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Rank {
    /// Freezing and unmounting a volume against everything that changes it.
    Gate = 10,
    /// The shape of the tree while a directory changes parent.
    Rename = 20,
    /// One inode's size, bytes and entries against each other; several by rising inode number.
    Content = 30,
    /// Truncate and punch against the filling of folios.
    Invalidate = 40,
    /// A change of an inode's data mode against writeback.
    ModeSwitch = 45,
    /// The right to change metadata: no lock but without a journal, where it keeps metadata from being written home.
    Handle = 50,
    /// The lock flag of one folio; several only by rising index.
    Folio = 60,
    /// An inode's extended attributes and inline data.
    Attributes = 65,
    /// An inode's block map.
    Map = 70,
    /// The orphan list.
    Orphans = 72,
    /// A group preallocation across its search.
    LocalityGroup = 75,
    /// What an open file remembers.
    OpenFile = 79,
    /// A leaf: one structure for a few lines; never two of them.
    Leaf = 80,
    /// What fast commits will tell.
    Changes = 85,
    /// The journal's transactions.
    Journal = 90,
    /// The index of cached metadata blocks.
    MetadataIndex = 92,
    /// One metadata block's bytes.
    MetadataBlock = 95,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Sharing {
    Shared,
    Alone,
}

#[expect(non_upper_case_globals, reason = "named as the variants they stand for")]
impl Rank {
    /// An inode's extent status tree.
    pub(crate) const Status: Self = Self::Leaf;
    /// The space ledger.
    pub(crate) const Ledger: Self = Self::Leaf;
    /// One block group.
    pub(crate) const Group: Self = Self::Leaf;
    /// The folios of one file.
    pub(crate) const CacheIndex: Self = Self::Leaf;
}

#[cfg(all(debug_assertions, feature = "std"))]
mod held {
    use super::{Rank, Sharing};
    use std::cell::RefCell;
    use std::vec::Vec;

    #[cfg(extant_shuttle)]
    use shuttle::thread_local;
    #[cfg(not(extant_shuttle))]
    use std::thread_local;

    thread_local! {
        /// With whether it is held by this thread alone.
        static HELD: RefCell<Vec<(Rank, Sharing)>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes that this thread takes a lock of `rank`, and panics if it holds one that comes later.
    pub(super) fn take(rank: Rank, sharing: Sharing) {
        #[cfg(extant_shuttle)]
        super::inode_locks::asked_for(rank);
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            if let Some(top) = held.iter().map(|&(rank, _)| rank).max() {
                let again =
                    matches!(rank, Rank::Content | Rank::Folio | Rank::MetadataBlock | Rank::Map);
                assert!(
                    top < rank || (top == rank && again),
                    "lock order: {rank:?} is taken while {top:?} is held"
                );
            }
            held.push((rank, sharing));
        });
    }

    /// Panics if this thread holds no lock of `rank`, or none that excludes others though `sharing` says so.
    pub(super) fn require(rank: Rank, sharing: Sharing) {
        HELD.with(|held| {
            let held = held.borrow();
            let fits = held.iter().any(|&(own, how)| own == rank && how >= sharing);
            assert!(fits, "{rank:?} ({sharing:?}) is not held");
        });
    }

    /// Panics if this thread holds a lock under which nobody may wait for I/O.
    pub(super) fn check_may_wait() {
        HELD.with(|held| {
            let held = held.borrow();
            let top = held.iter().map(|&(rank, _)| rank).max();
            assert!(top.is_none_or(|top| top <= Rank::ModeSwitch), "waits while {top:?} is held");
        });
    }

    /// Notes that this thread lets go of a lock of `rank`.
    pub(super) fn release(rank: Rank, sharing: Sharing) {
        // A guard may outlive the thread's bookkeeping at its very end.
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(at) = held.iter().rposition(|&(r, how)| (r, how) == (rank, sharing)) {
                held.remove(at);
            }
        });
    }
}

/// Where threads ask for a lock of one inode's own, for schedulers that decide there and nowhere else.
#[cfg(extant_shuttle)]
mod inode_locks {
    use super::Rank;
    use core::sync::atomic::{AtomicBool, Ordering};

    static ASKED: AtomicBool = AtomicBool::new(false);

    pub(super) fn asked_for(rank: Rank) {
        let own = matches!(rank, Rank::Content | Rank::Invalidate | Rank::Folio | Rank::Map);
        ASKED.store(own, Ordering::Relaxed);
    }

    /// Whether the lock that was asked for last is one of an inode's own: content, invalidation, a folio, the block map. It
    /// says so once.
    pub fn asks_for_inode_lock() -> bool {
        ASKED.swap(false, Ordering::Relaxed)
    }
}

#[cfg(extant_shuttle)]
pub use inode_locks::asks_for_inode_lock;

#[cfg(not(all(debug_assertions, feature = "std")))]
mod held {
    use super::{Rank, Sharing};

    #[inline]
    pub(super) fn take(_: Rank, _: Sharing) {}
    #[inline]
    pub(super) fn require(_: Rank, _: Sharing) {}
    #[inline]
    pub(super) fn check_may_wait() {}
    #[inline]
    pub(super) fn release(_: Rank, _: Sharing) {}
}

#[cfg(feature = "std")]
mod imp {
    #[cfg(extant_shuttle)]
    pub(super) use shuttle::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    };
    #[cfg(not(extant_shuttle))]
    pub(super) use std::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    };

    use super::waiting;
    #[cfg(not(extant_shuttle))]
    use std::sync::TryLockError;
    use std::sync::{LockResult, TryLockResult};

    const PANICKED: &str = "a thread panicked while it held this lock";

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        take(|| mutex.try_lock(), || mutex.lock())
    }
    pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock().ok()
    }
    pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        take(|| lock.try_read(), || lock.read())
    }
    pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        take(|| lock.try_write(), || lock.write())
    }
    /// A lock that is free is taken; for one that is not, the thread sleeps, or asks its scheduler.
    #[cfg(not(extant_shuttle))]
    #[inline]
    fn take<G>(attempt: impl Fn() -> TryLockResult<G>, sleep: impl FnOnce() -> LockResult<G>) -> G {
        let attempt = || match attempt() {
            Ok(guard) => Some(guard),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("{PANICKED}"),
        };
        attempt().unwrap_or_else(|| match waiting::hook() {
            Some(hook) => waiting::until(hook, attempt),
            None => waiting::timed(|| sleep().expect(PANICKED)),
        })
    }
    #[cfg(extant_shuttle)]
    fn take<G>(_: impl Fn() -> TryLockResult<G>, sleep: impl FnOnce() -> LockResult<G>) -> G {
        sleep().expect(PANICKED)
    }
    /// `changed` says whether somebody has notified since the call.
    pub(super) fn wait<'a, T>(
        condvar: &Condvar,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        changed: impl Fn() -> bool,
    ) -> MutexGuard<'a, T> {
        let Some(hook) = waiting::hook() else {
            return waiting::timed(|| condvar.wait(guard).expect(PANICKED));
        };
        drop(guard);
        waiting::until(hook, || changed().then_some(()));
        lock(mutex)
    }
    pub(super) fn notify_all(condvar: &Condvar) {
        condvar.notify_all();
    }
    pub(super) fn can_wait_for_time() -> bool {
        cfg!(not(extant_shuttle)) && waiting::hook().is_none()
    }
    pub(super) fn wait_at_most<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        most: core::time::Duration,
    ) -> MutexGuard<'a, T> {
        waiting::timed(|| condvar.wait_timeout(guard, most).expect(PANICKED).0)
    }
}

/// Waiting without sleeping, for threads whose turns a scheduler of the program's own decides; and how long a thread
/// waits, if it wants to know.
#[cfg(feature = "std")]
mod waiting {
    use core::time::Duration;
    use std::cell::Cell;

    /// The clock by which a thread's waiting is measured, and how long it was so far.
    #[derive(Clone, Copy)]
    pub(super) struct Measure {
        pub(super) now: fn() -> Duration,
        pub(super) waited: Duration,
    }

    std::thread_local! {
        pub(super) static MEASURE: Cell<Option<Measure>> = const { Cell::new(None) };
        static HOOK: Cell<Option<fn(u32)>> = const { Cell::new(None) };
    }

    /// Whom this thread asks.
    pub(super) fn hook() -> Option<fn(u32)> {
        HOOK.get()
    }

    /// Sets whom this thread asks, and gives back whom it asked before.
    pub(super) fn set(hook: Option<fn(u32)>) -> Option<fn(u32)> {
        HOOK.replace(hook)
    }

    /// Calls `hook` until an attempt succeeds.
    #[cold]
    pub(super) fn until<R>(hook: fn(u32), attempt: impl Fn() -> Option<R>) -> R {
        let mut calls = 0;
        loop {
            hook(calls);
            calls = calls.saturating_add(1);
            if let Some(result) = attempt() {
                return result;
            }
        }
    }

    /// Runs `wait`, and adds up how long it takes if the thread wants to know.
    #[cold]
    pub(super) fn timed<R>(wait: impl FnOnce() -> R) -> R {
        let Some(Measure { now, .. }) = MEASURE.get() else { return wait() };
        let start = now();
        let result = wait();
        let took = now().saturating_sub(start);
        MEASURE.set(MEASURE.get().map(|so_far| Measure { waited: so_far.waited + took, ..so_far }));
        result
    }
}

/// Calls `run` in this thread; wherever it would sleep until another thread lets it go on, it calls `hook` instead, again
/// and again until it can go on: with 0 first, and then with how often it has been called for this wait.
///
/// For programs that decide themselves which of their threads runs, such as simulators in virtual time: the hook lets
/// another one run, and returns when it is this one's turn. Waiting for the device is the device's own affair.
#[cfg(feature = "std")]
pub fn wait_by<R>(hook: fn(u32), run: impl FnOnce() -> R) -> R {
    /// Puts back what was before, also after a panic.
    struct Before(Option<fn(u32)>);
    impl Drop for Before {
        fn drop(&mut self) {
            waiting::set(self.0);
        }
    }
    let _before = Before(waiting::set(Some(hook)));
    run()
}

/// Calls `run` in this thread, and says how long it waited there for other threads: for their locks, and for changes that they
/// make, but not for the device. Time is what `now` says; it is asked only around a wait.
#[cfg(feature = "std")]
pub fn measure_waits<R>(
    now: fn() -> core::time::Duration,
    run: impl FnOnce() -> R,
) -> (R, core::time::Duration) {
    let zero = core::time::Duration::ZERO;
    let before = waiting::MEASURE.replace(Some(waiting::Measure { now, waited: zero }));
    let result = run();
    let waited = waiting::MEASURE.replace(before).map_or(zero, |measure| measure.waited);
    (result, waited)
}

#[cfg(not(feature = "std"))]
mod imp {
    pub(super) use spin::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug, Default)]
    pub(super) struct Condvar;

    impl Condvar {
        pub(super) const fn new() -> Self {
            Self
        }
    }

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }
    pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock()
    }
    pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read()
    }
    pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write()
    }
    pub(super) fn wait<'a, T>(
        _: &Condvar,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        _: impl Fn() -> bool,
    ) -> MutexGuard<'a, T> {
        drop(guard);
        core::hint::spin_loop();
        mutex.lock()
    }
    pub(super) fn notify_all(_: &Condvar) {}
    pub(super) fn can_wait_for_time() -> bool {
        false
    }
    pub(super) fn wait_at_most<'a, T>(
        _: &Condvar,
        guard: MutexGuard<'a, T>,
        _: core::time::Duration,
    ) -> MutexGuard<'a, T> {
        guard
    }
}

/// A lock that one thread holds at a time.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    rank: Rank,
    inner: imp::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A free lock of `rank` around `value`.
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: imp::Mutex::new(value) }
    }

    /// Waits for the lock.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        held::take(self.rank, Sharing::Alone);
        MutexGuard { lock: self, inner: Some(imp::lock(&self.inner)) }
    }

    /// The lock, if nobody holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = imp::try_lock(&self.inner)?;
        held::take(self.rank, Sharing::Alone);
        Some(MutexGuard { lock: self, inner: Some(inner) })
    }

    /// The value, which nobody else can reach.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        #[cfg(feature = "std")]
        return self.inner.get_mut().expect("a thread panicked while it held this lock");
        #[cfg(not(feature = "std"))]
        return self.inner.get_mut();
    }
}

/// Proof that the thread holds a [`Mutex`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    inner: Option<imp::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("taken only by wait, which consumes the guard")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("taken only by wait, which consumes the guard")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.inner.take().is_some() {
            held::release(self.lock.rank, Sharing::Alone);
        }
    }
}

/// A lock that many readers or one writer hold at a time.
#[derive(Debug)]
pub(crate) struct RwLock<T> {
    rank: Rank,
    inner: imp::RwLock<T>,
}

impl<T> RwLock<T> {
    /// A free lock of `rank` around `value`.
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: imp::RwLock::new(value) }
    }

    /// Waits until no writer holds the lock.
    #[inline]
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        held::take(self.rank, Sharing::Shared);
        ReadGuard { rank: self.rank, inner: imp::read(&self.inner) }
    }

    /// Waits until nobody holds the lock.
    #[inline]
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        held::take(self.rank, Sharing::Alone);
        WriteGuard { rank: self.rank, inner: imp::write(&self.inner) }
    }
}

/// Proof that the thread holds a [`RwLock`] for reading.
#[derive(Debug)]
pub(crate) struct ReadGuard<'a, T> {
    rank: Rank,
    inner: imp::RwLockReadGuard<'a, T>,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        held::release(self.rank, Sharing::Shared);
    }
}

/// Proof that the thread holds a [`RwLock`] for writing.
#[derive(Debug)]
pub(crate) struct WriteGuard<'a, T> {
    rank: Rank,
    inner: imp::RwLockWriteGuard<'a, T>,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        held::release(self.rank, Sharing::Alone);
    }
}

/// Where threads wait for a change of what one [`Mutex`] protects.
#[derive(Debug)]
pub(crate) struct Condvar {
    inner: imp::Condvar,
    /// Goes up under the mutex, so whoever changes something under it afterwards sees who waits for that.
    waiters: AtomicU32,
    /// How often those who wait were told.
    notified: AtomicU32,
}

impl Condvar {
    /// A place where nobody waits yet.
    pub(crate) const fn new() -> Self {
        Self { inner: imp::Condvar::new(), waiters: AtomicU32::new(0), notified: AtomicU32::new(0) }
    }

    /// Lets go of the lock, waits, and takes it again; may wake for nothing, so ask again in a loop.
    pub(crate) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let lock = guard.lock;
        let inner = guard.inner.take().expect("taken only here");
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let before = self.notified.load(Ordering::Relaxed);
        let changed = || self.notified.load(Ordering::Relaxed) != before;
        let inner = imp::wait(&self.inner, &lock.inner, inner, changed);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        MutexGuard { lock, inner: Some(inner) }
    }

    /// As [`Self::wait`], but not much longer than `most`; where [`can_wait_for_time`].
    pub(crate) fn wait_at_most<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        most: core::time::Duration,
    ) -> MutexGuard<'a, T> {
        let lock = guard.lock;
        let inner = guard.inner.take().expect("taken only here");
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let inner = imp::wait_at_most(&self.inner, inner, most);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        MutexGuard { lock, inner: Some(inner) }
    }

    /// Wakes all that wait; costs nothing if nobody does. The change was made with the mutex held.
    #[inline]
    pub(crate) fn notify_all(&self) {
        if self.waiters.load(Ordering::Relaxed) > 0 {
            self.notified.fetch_add(1, Ordering::Relaxed);
            imp::notify_all(&self.inner);
        }
    }
}

/// Whether a thread can wait for a moment: not where it does not sleep, nor where somebody else decides which threads run.
pub(crate) fn can_wait_for_time() -> bool {
    imp::can_wait_for_time()
}

/// A number of this thread, for structures that give threads places of their own; several may have the same.
#[cfg(all(feature = "std", not(extant_shuttle)))]
pub(crate) fn thread_number() -> usize {
    use core::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread at its very end has lost it.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// The same where nobody can tell threads apart.
#[cfg(not(all(feature = "std", not(extant_shuttle))))]
pub(crate) fn thread_number() -> usize {
    0
}

/// Proof that this thread holds what has a rank but is no lock of this file, such as a folio's lock flag.
#[derive(Debug)]
pub(crate) struct Held {
    rank: Rank,
    this_thread: PhantomData<*const ()>,
}

impl Held {
    /// Notes that the thread takes something of `rank`, or is about to wait for it.
    pub(crate) fn new(rank: Rank) -> Self {
        held::take(rank, Sharing::Alone);
        Self { rank, this_thread: PhantomData }
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        held::release(self.rank, Sharing::Alone);
    }
}

/// Panics in debug builds unless this thread holds a lock of `rank` that keeps everybody else out: for functions whose
/// callers have to hold it.
pub(crate) fn assert_held(rank: Rank) {
    held::require(rank, Sharing::Alone);
}

/// Panics in debug builds unless this thread holds a lock of `rank`, perhaps with others.
pub(crate) fn assert_held_shared(rank: Rank) {
    held::require(rank, Sharing::Shared);
}

/// Panics in debug builds if the thread holds anything under which nobody may wait for I/O.
pub(crate) fn assert_may_wait() {
    held::check_may_wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_by_rising_rank() {
        let (low, high) = (Mutex::new(Rank::Map, 1), Mutex::new(Rank::Leaf, 2));
        let sum = {
            let a = low.lock();
            let b = high.lock();
            *a + *b
        };
        assert_eq!(sum, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_falling_rank_panics() {
        let outcome = std::panic::catch_unwind(|| {
            let (low, high) = (Mutex::new(Rank::Map, ()), Mutex::new(Rank::Leaf, ()));
            let _b = high.lock();
            let _a = low.lock();
        });
        assert!(outcome.is_err());
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_lock_that_a_caller_should_hold_is_missed() {
        let panics = |check: fn()| std::panic::catch_unwind(check).is_err();
        let lock = RwLock::new(Rank::Map, ());
        assert!(panics(|| assert_held_shared(Rank::Map)));
        {
            let _map = lock.read();
            assert_held_shared(Rank::Map);
            assert!(panics(|| assert_held(Rank::Map)));
        }
        let _map = lock.write();
        assert_held(Rank::Map);
        assert_held_shared(Rank::Map);
    }

    #[cfg(not(extant_shuttle))]
    #[test]
    fn waits_for_other_threads_are_measured() {
        use core::time::Duration;
        use std::cell::Cell;
        std::thread_local! {
            static SECONDS: Cell<u64> = const { Cell::new(0) };
        }
        fn now() -> Duration {
            Duration::from_secs(SECONDS.replace(SECONDS.get() + 1))
        }
        let lock = Mutex::new(Rank::Leaf, 1);
        assert_eq!(measure_waits(now, || *lock.lock()), (1, Duration::ZERO));
        std::thread::scope(|scope| {
            let held = lock.lock();
            let (ready, is_ready) = std::sync::mpsc::channel();
            let lock = &lock;
            let waiter = scope.spawn(move || {
                measure_waits(now, || {
                    ready.send(()).unwrap();
                    *lock.lock()
                })
            });
            is_ready.recv().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            drop(held);
            assert_eq!(waiter.join().unwrap(), (1, Duration::from_secs(1)));
        });
    }

    #[test]
    fn a_waiter_sees_what_the_notifier_wrote() {
        let pair = (Mutex::new(Rank::Leaf, false), Condvar::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                *pair.0.lock() = true;
                pair.1.notify_all();
            });
            let mut ready = pair.0.lock();
            while !*ready {
                ready = pair.1.wait(ready);
            }
        });
    }

    #[cfg(not(extant_shuttle))]
    #[test]
    fn a_thread_with_a_scheduler_asks_it_instead_of_sleeping() {
        use std::cell::RefCell;
        type Step = Box<dyn FnOnce()>;
        std::thread_local! {
            static ASKED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
            static THEN: RefCell<Option<Step>> = const { RefCell::new(None) };
        }
        fn hook(calls: u32) {
            ASKED.with_borrow_mut(|asked| asked.push(calls));
            // What another thread does meanwhile, at the second call.
            if calls == 1
                && let Some(step) = THEN.take()
            {
                step();
            }
        }
        let pair = std::sync::Arc::new((Mutex::new(Rank::Leaf, 1), Condvar::new()));
        let other = pair.clone();
        let add = move || {
            *other.0.lock() += 1;
            other.1.notify_all();
        };
        THEN.set(Some(Box::new(|| std::thread::spawn(add).join().unwrap())));
        let value = wait_by(hook, || *pair.1.wait(pair.0.lock()));
        assert_eq!((value, ASKED.take()), (2, vec![0, 1]));

        let ((taken, is_taken), (leave, may_leave)) =
            (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let holder = pair.clone();
        let thread = std::thread::spawn(move || {
            let _guard = holder.0.lock();
            taken.send(()).unwrap();
            may_leave.recv().unwrap();
        });
        is_taken.recv().unwrap();
        THEN.set(Some(Box::new(move || {
            leave.send(()).unwrap();
            thread.join().unwrap();
        })));
        let value = wait_by(hook, || *pair.0.lock());
        assert_eq!((value, ASKED.take()), (2, vec![0, 1]));
        assert!(waiting::hook().is_none(), "only inside");
    }
}
