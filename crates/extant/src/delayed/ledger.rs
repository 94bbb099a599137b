//! [`SpaceLedger`]: what is free, and what of it is already promised.

use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU8, Ordering};

use extant_format::ClusterCount;

use super::claim::Claim;
use super::reservation::{Promise, Reservation};
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard, Rank};

/// Free and promised clusters of a volume; the only source of [`Reservation`]s and [`Claim`]s.
#[derive(Debug)]
pub(crate) struct SpaceLedger {
    accounts: Mutex<Accounts>,
    /// What [`Accounts::write_mode`] says, for writers who look without the lock.
    write_mode: AtomicU8,
    watermark: i64,
}

/// What a ledger starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LedgerParameters {
    /// Free by the bitmaps.
    pub(crate) free: ClusterCount,
    /// Kept for privileged users (`s_r_blocks_count`).
    pub(crate) root_reserve: ClusterCount,
    /// Kept for metadata at writeback (`s_resv_clusters`).
    pub(crate) pool: ClusterCount,
    /// How far free space must exceed promises for delayed allocation to go on (`EXT4_FREECLUSTERS_WATERMARK`).
    pub(crate) watermark: ClusterCount,
    /// Each counter is seen with up to this less one still unaccounted, as with the kernel's per-CPU counters; 1 is exact.
    pub(crate) fold_batch: u32,
}

/// Who asks for space: what may be dipped into. Each may use what those before it may.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Privilege {
    /// Free space beyond promises, root's reserve and the pool.
    Ordinary,
    /// Also root's reserve.
    Root,
    /// Also the pool: metadata for promised data (`EXT4_MB_USE_RESERVED`).
    Metadata,
}

/// How the next chunk of a buffered write gets its space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WriteMode {
    /// Delay.
    StayDelayed,
    /// Start writeback of everything, wait until it has been submitted, then delay.
    KickWriteback,
    /// Allocate at once.
    SwitchToImmediate,
    /// Start writeback and wait as above, then allocate at once.
    KickAndSwitch,
}

/// What to do after the `attempt`-th failure for lack of space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AfterNoSpace {
    /// Try again: space has turned up.
    Retry,
    /// Commit, which makes freed clusters usable, then try again.
    CommitAndRetry,
    /// Report it.
    GiveUp,
}

/// What `statfs` says, in clusters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FreeSpace {
    /// Free and not promised (`f_bfree`).
    pub(crate) free: ClusterCount,
    /// The reserved pool, which nobody but writeback has.
    pub(crate) pool: ClusterCount,
}

impl FreeSpace {
    /// Blocks for ordinary users (`f_bavail`) of a volume that keeps `reserved` blocks for root, which need be no whole clusters.
    pub(crate) fn available(&self, reserved: u64, cluster_bits: u32) -> u64 {
        let in_blocks = |clusters: ClusterCount| clusters.get() << cluster_bits;
        in_blocks(self.free).saturating_sub(reserved.saturating_add(in_blocks(self.pool)))
    }
}

/// The counters as they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct LedgerCounts {
    /// Free by the bitmaps; negative only on a damaged volume.
    pub(crate) free: i64,
    /// Promised for data by reservations and claims.
    pub(crate) promised: u64,
    /// Bound of what delayed extents could need in metadata.
    pub(crate) metadata: u64,
    /// Of `free`, freed by transactions that have not been committed.
    pub(crate) uncommitted: u64,
}

#[derive(Debug)]
pub(super) struct Accounts {
    free: Counter,
    promised: Counter,
    metadata: i64,
    /// Of `promised`, what is in the bitmaps already and about to be spent: it is missing from `free` as well.
    placed: i64,
    uncommitted: i64,
    root_reserve: i64,
    pool: i64,
    /// Times that somebody gave up although retries were tried.
    exceeded: u64,
}

/// An exact number, and what a reader without a lock would see of it on one CPU.
///
/// Source: kernel `lib/percpu_counter.c`, `percpu_counter_add_batch`.
#[derive(Debug)]
struct Counter {
    exact: i64,
    unfolded: i64,
    batch: u32,
}

impl SpaceLedger {
    /// A ledger in which nothing is promised yet.
    pub(crate) fn new(parameters: LedgerParameters) -> Arc<Self> {
        let counter = |exact| Counter { exact, unfolded: 0, batch: parameters.fold_batch };
        let accounts = Accounts {
            free: counter(signed(parameters.free)),
            promised: counter(0),
            metadata: 0,
            placed: 0,
            uncommitted: 0,
            root_reserve: signed(parameters.root_reserve),
            pool: signed(parameters.pool),
            exceeded: 0,
        };
        let watermark = signed(parameters.watermark);
        Arc::new(Self {
            write_mode: AtomicU8::new(accounts.write_mode(watermark).code()),
            accounts: Mutex::new(Rank::Ledger, accounts),
            watermark,
        })
    }

    /// The accounts, to be changed.
    pub(super) fn change(&self) -> Changing<'_> {
        Changing { ledger: self, accounts: self.accounts.lock() }
    }

    /// Turns `clusters` that are being freed back into a promise, since delayed blocks still lie in them (D12.7); the caller
    /// does not report them as freed.
    ///
    /// Source: kernel `ext4_rereserve_cluster`.
    pub(crate) fn rereserve(self: &Arc<Self>, clusters: ClusterCount) -> Reservation {
        let mut accounts = self.change();
        accounts.free.add(signed(clusters));
        accounts.promise(signed(clusters), 0);
        drop(accounts);
        Reservation::new(Arc::clone(self), Promise { clusters, metadata: ClusterCount::ZERO })
    }

    /// Holds `clusters` for an allocation that is about to happen, and was not promised before.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; nothing is held then.
    /// # Source
    /// Kernel `ext4_claim_free_clusters`.
    pub(crate) fn claim(
        self: &Arc<Self>,
        clusters: ClusterCount,
        privilege: Privilege,
    ) -> Result<Claim, Error> {
        let mut accounts = self.change();
        accounts.admit(signed(clusters), 0, privilege)?;
        accounts.promise(signed(clusters), 0);
        drop(accounts);
        Ok(Claim::new(Arc::clone(self), clusters))
    }

    /// Notes that promised clusters were taken in the bitmaps; their reservation is spent apart ([`Reservation::spend`]), and
    /// until then they do not keep metadata from its space a second time.
    pub(crate) fn allocated(&self, clusters: ClusterCount) {
        let mut accounts = self.change();
        accounts.free.add(-signed(clusters));
        accounts.placed = (accounts.placed + signed(clusters)).min(accounts.promised.exact);
    }

    /// Notes that clusters reported by [`allocated`](Self::allocated) go back, and that their reservation will not be spent.
    pub(crate) fn unplaced(&self, clusters: ClusterCount) {
        let mut accounts = self.change();
        accounts.placed = (accounts.placed - signed(clusters)).max(0);
    }

    /// Notes that clusters were freed in the bitmaps by a transaction that will call [`committed`](Self::committed) (D10.10).
    pub(crate) fn freed(&self, clusters: ClusterCount) {
        let mut accounts = self.change();
        accounts.free.add(signed(clusters));
        accounts.uncommitted += signed(clusters);
    }

    /// Notes that clusters reported by [`freed`](Self::freed) may be used again.
    pub(crate) fn committed(&self, clusters: ClusterCount) {
        let mut accounts = self.change();
        accounts.uncommitted -= signed(clusters);
        assert!(accounts.uncommitted >= 0, "more was committed than freed");
    }

    /// Notes that a group with so many free clusters was set aside as corrupt.
    pub(crate) fn set_aside(&self, clusters: ClusterCount) {
        self.change().free.add(-signed(clusters));
    }

    /// Whether `clusters` could be had now.
    pub(crate) fn has_free(&self, clusters: ClusterCount, privilege: Privilege) -> bool {
        self.accounts.lock().admit(signed(clusters), 0, privilege).is_ok()
    }

    /// Whether the next chunk of a buffered write may be delayed (D4.1, D4.2).
    ///
    /// Source: kernel `ext4_nonda_switch`.
    pub(crate) fn write_mode(&self) -> WriteMode {
        WriteMode::of_code(self.write_mode.load(Ordering::Relaxed))
    }

    /// What to do after the `attempt`-th failure (from 1) to get space (D5.4).
    ///
    /// Source: kernel `ext4_should_retry_alloc`.
    pub(crate) fn after_no_space(
        &self,
        attempt: u32,
        journaled: bool,
        privilege: Privilege,
    ) -> AfterNoSpace {
        let mut accounts = self.change();
        accounts.exceeded += u64::from(journaled && attempt > MAX_RETRIES);
        match (journaled && attempt <= MAX_RETRIES, accounts.uncommitted) {
            (false, _) => AfterNoSpace::GiveUp,
            (true, 0) if accounts.admit(1, 0, privilege).is_ok() => AfterNoSpace::Retry,
            (true, 0) => AfterNoSpace::GiveUp,
            (true, _) => AfterNoSpace::CommitAndRetry,
        }
    }

    /// What `statfs` says (D23.2).
    pub(crate) fn free_space(&self) -> FreeSpace {
        let accounts = self.accounts.lock();
        let free = (accounts.free.exact - accounts.promised.exact - accounts.excess(0)).max(0);
        FreeSpace { free: unsigned(free), pool: unsigned(accounts.pool) }
    }

    /// Clusters of the reserved pool, and how often somebody gave up after all retries.
    pub(crate) fn pool_and_exceeded(&self) -> (ClusterCount, u64) {
        let accounts = self.accounts.lock();
        (unsigned(accounts.pool), accounts.exceeded)
    }

    /// The counters, for recounting.
    pub(crate) fn counts(&self) -> LedgerCounts {
        let accounts = self.accounts.lock();
        LedgerCounts {
            free: accounts.free.exact,
            promised: unsigned(accounts.promised.exact).get(),
            metadata: unsigned(accounts.metadata).get(),
            uncommitted: unsigned(accounts.uncommitted).get(),
        }
    }

    /// Takes back promises whose clusters were taken in the bitmaps, as [`allocated`](Self::allocated) was told.
    pub(super) fn spend(&self, clusters: ClusterCount) {
        let mut accounts = self.change();
        accounts.placed = (accounts.placed - signed(clusters)).max(0);
        accounts.take_back(Promise::data(clusters));
    }

    /// Takes back promises, and notes that `allocated` clusters were taken in the bitmaps.
    pub(super) fn settle(&self, promise: Promise, allocated: ClusterCount) {
        let mut accounts = self.change();
        accounts.free.add(-signed(allocated));
        accounts.take_back(promise);
    }
}

impl LedgerParameters {
    /// The watermark and batch of a kernel on so many CPUs (D4.3).
    pub(crate) fn kernel_slop(cpus: u32) -> (ClusterCount, u32) {
        let batch = 32.max(cpus.saturating_mul(2));
        let watermark = if cpus > 1 { 4 * u64::from(batch) * u64::from(cpus) } else { 0 };
        (ClusterCount(watermark), batch)
    }

    /// The pool that the kernel sets up: 2 %, at most 4,096 clusters, none without extents (D10.6).
    ///
    /// Source: kernel `ext4_set_resv_clusters`.
    pub(crate) fn kernel_pool(total: ClusterCount, extents: bool) -> ClusterCount {
        if extents { ClusterCount((total.get() / 50).min(4096)) } else { ClusterCount::ZERO }
    }
}

/// The right to change the accounts: who writes without the lock sees it at its end.
pub(super) struct Changing<'l> {
    ledger: &'l SpaceLedger,
    accounts: MutexGuard<'l, Accounts>,
}

impl Deref for Changing<'_> {
    type Target = Accounts;
    fn deref(&self) -> &Accounts {
        &self.accounts
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mode = self.accounts.write_mode(self.ledger.watermark).code();
        // It seldom changes: writers keep their copies of its cache line.
        if self.ledger.write_mode.load(Ordering::Relaxed) != mode {
            self.ledger.write_mode.store(mode, Ordering::Relaxed);
        }
    }
}

impl WriteMode {
    /// Of what is short: one bit for kicking, one for switching.
    const fn of_code(code: u8) -> Self {
        match (code & 1 != 0, code & 2 != 0) {
            (false, false) => Self::StayDelayed,
            (true, false) => Self::KickWriteback,
            (false, true) => Self::SwitchToImmediate,
            (true, true) => Self::KickAndSwitch,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::StayDelayed => 0,
            Self::KickWriteback => 1,
            Self::SwitchToImmediate => 2,
            Self::KickAndSwitch => 3,
        }
    }
}

impl Accounts {
    /// How the next chunk of a buffered write gets its space.
    fn write_mode(&self, watermark: i64) -> WriteMode {
        let free = self.free.seen();
        let promised = self.promised.seen() + self.excess(0);
        let kick = promised > 0 && free < 2 * promised;
        let switch = 2 * free < 3 * promised || free < promised + watermark;
        WriteMode::of_code(u8::from(kick) | u8::from(switch) << 1)
    }

    /// Whether so much more can be promised (D10.4).
    ///
    /// Source: kernel `ext4_has_free_clusters`.
    pub(super) fn admit(
        &self,
        clusters: i64,
        metadata: i64,
        privilege: Privilege,
    ) -> Result<(), Error> {
        let kept = match privilege {
            Privilege::Ordinary => self.root_reserve + self.pool + self.excess(metadata),
            Privilege::Root => self.pool + self.excess(metadata),
            Privilege::Metadata => -self.placed, // the excess is promised to just these
        };
        let free = self.free.exact - self.promised.exact - kept;
        if free >= clusters {
            return Ok(());
        }
        Err(Error::NoSpace { wanted: unsigned(clusters), free: unsigned(free.max(0)) })
    }

    pub(super) fn promise(&mut self, clusters: i64, metadata: i64) {
        self.promised.add(clusters);
        self.metadata += metadata;
    }

    fn take_back(&mut self, promise: Promise) {
        self.promise(-signed(promise.clusters), -signed(promise.metadata));
        self.placed = self.placed.min(self.promised.exact);
        assert!(
            self.promised.exact >= 0 && self.metadata >= 0,
            "more was taken back than promised"
        );
    }

    /// What `more` metadata would make of the part that the pool does not cover.
    fn excess(&self, more: i64) -> i64 {
        (self.metadata + more - self.pool).max(0)
    }
}

impl Counter {
    fn add(&mut self, n: i64) {
        self.exact += n;
        self.unfolded += n;
        if self.unfolded.unsigned_abs() >= self.batch.into() {
            self.unfolded = 0;
        }
    }

    /// What an unlocked reader sees; never negative.
    fn seen(&self) -> i64 {
        (self.exact - self.unfolded).max(0)
    }
}

pub(super) fn signed(n: ClusterCount) -> i64 {
    i64::try_from(n.get()).expect("a device has fewer than 2^48 clusters")
}

fn unsigned(n: i64) -> ClusterCount {
    ClusterCount(u64::try_from(n).expect("checked by the caller"))
}

/// How often a write tries again for lack of space.
const MAX_RETRIES: u32 = 3;
