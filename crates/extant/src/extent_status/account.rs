//! [`StatusAccount`]: what all trees of a volume hold together.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::trace::Tracer;

/// Counters over all status trees of a volume, and the switch that turns them off.
///
/// Source: kernel `fs/ext4/extents_status.h`, `struct ext4_es_stats`; each is a number of its own, none is combined.
#[derive(Debug, Default)]
pub(crate) struct StatusAccount {
    runs: AtomicU64,
    reclaimable: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    bypass: AtomicBool,
    pub(super) tracer: Tracer,
}

/// A reading of a [`StatusAccount`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct StatusCounts {
    /// Runs in all trees.
    pub(crate) runs: u64,
    /// Of these, runs that may be forgotten: all but the delayed ones.
    pub(crate) reclaimable: u64,
    /// Lookups that found their block.
    pub(crate) hits: u64,
    /// Lookups that did not.
    pub(crate) misses: u64,
}

impl StatusAccount {
    /// Of a volume whose events go to `tracer`.
    pub(crate) fn new(tracer: Tracer) -> Self {
        Self { tracer, ..Self::default() }
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> StatusCounts {
        StatusCounts {
            runs: self.runs.load(Relaxed),
            reclaimable: self.reclaimable.load(Relaxed),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
        }
    }

    /// While on, every tree answers "not known" and takes in nothing, as during fast-commit replay (D11.11).
    pub(crate) fn set_bypass(&self, on: bool) {
        self.bypass.store(on, Relaxed);
    }

    /// Whether trees are switched off.
    pub(crate) fn is_bypassed(&self) -> bool {
        self.bypass.load(Relaxed)
    }

    pub(super) fn looked_up(&self, hit: bool) {
        if hit { &self.hits } else { &self.misses }.fetch_add(1, Relaxed);
    }

    pub(super) fn added(&self, reclaimable: bool) {
        self.runs.fetch_add(1, Relaxed);
        self.reclaimable.fetch_add(reclaimable.into(), Relaxed);
    }

    pub(super) fn dropped(&self, reclaimable: bool) {
        self.runs.fetch_sub(1, Relaxed);
        self.reclaimable.fetch_sub(reclaimable.into(), Relaxed);
    }
}
