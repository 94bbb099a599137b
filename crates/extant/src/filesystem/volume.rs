//! One mounted volume: owns every layer, and is where names, bytes and the clock meet.
//!
//! Source: kernel `fs/ext4/super.c`: `ext4_sync_fs`, `ext4_put_super`, `ext4_statfs`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use extant_device::{BlockDevice, BlockDeviceExt, Frame, Request};
use extant_format::cast::u64_from;
use extant_format::{Incompat, RawSuperblock, RoCompat, Superblock};
use zerocopy::{FromBytes, IntoBytes};

use super::errors::Found;
use super::gate::Gate;
use super::layers::Layers;
use super::protection::Protection;
use crate::Error;
use crate::allocator::Allocator;
use crate::delayed::SpaceLedger;
use crate::file::{FileLayers, Files};
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::namespace::Namespace;
use crate::options::MountOptions;
use crate::orphans::Orphans;
use crate::page_cache::CacheAccount;
use crate::report::{
    AllocatorStats, Counters, GroupSpace, KernelCounters, MemoryCounters, Statfs, StatusStats,
};
use crate::sync::{Mutex, Rank};
use crate::time::{Clock, Entropy};
use crate::transaction::{BlockKind, Transactions};
use crate::writeback::Writeback;
use crate::xattr::Xattrs;

/// How often to look whether something is due: commits and background writeback do not wait for the flusher's interval.
const TICK: Duration = Duration::from_secs(1);

/// How much of the cache's memory there is for each inode in memory.
const BYTES_PER_INODE: u64 = 16 << 10;

/// One mounted volume.
pub(crate) struct Volume {
    pub(super) transactions: Arc<Transactions>,
    pub(super) ledger: Arc<SpaceLedger>,
    pub(super) allocator: Arc<Allocator>,
    pub(super) account: Arc<CacheAccount>,
    pub(super) inodes: Arc<InodeTable>,
    pub(super) orphans: Arc<Orphans>,
    pub(super) xattrs: Arc<Xattrs>,
    pub(super) writeback: Arc<Writeback>,
    pub(super) files: Files,
    pub(super) namespace: Namespace,
    pub(super) clock: Arc<dyn Clock>,
    /// As it was at the mount.
    superblock: Superblock,
    options: MountOptions,
    read_only_because: Option<String>,
    /// It was clean when it was mounted, or has a journal that made it so.
    is_sound: bool,
    pub(super) unmounted: AtomicBool,
    /// Errors that the superblock does not tell of yet; a leaf.
    pub(super) found: Mutex<Option<Found>>,
    pub(super) gate: Gate,
    pub(super) protection: Option<Arc<Protection>>,
}

/// What a volume has beside its own bytes.
pub(super) struct Outside {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    /// Keeps other hosts away.
    pub(super) protection: Option<Arc<Protection>>,
}

/// Bits of the superblock's state: unmounted cleanly; errors were found. Source: `EXT4_VALID_FS`, `EXT4_ERROR_FS`.
pub(super) const STATE_CLEAN: u16 = 1;
pub(super) const STATE_ERRORS: u16 = 2;

impl Volume {
    /// Puts the layers above the block map on `layers`.
    pub(super) fn new(
        layers: Layers,
        superblock: Superblock,
        options: MountOptions,
        read_only_because: Option<String>,
        is_sound: bool,
        outside: Outside,
    ) -> Arc<Self> {
        let Outside { clock, entropy, protection } = outside;
        let Layers { transactions, ledger, allocator, account, inodes, mapper } = layers;
        let orphans = Arc::new(Orphans::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&mapper),
            &superblock,
        ));
        let xattrs = Arc::new(Xattrs::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&mapper),
            Arc::clone(&allocator),
            Arc::clone(&orphans),
            Arc::clone(&clock),
        ));
        let writeback = Writeback::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&mapper),
            Arc::clone(&account),
            &options,
        );
        let files = Files::new(
            FileLayers {
                transactions: Arc::clone(&transactions),
                ledger: Arc::clone(&ledger),
                inodes: Arc::clone(&inodes),
                mapper: Arc::clone(&mapper),
                allocator: Arc::clone(&allocator),
                orphans: Arc::clone(&orphans),
                xattrs: Arc::clone(&xattrs),
                writeback: Arc::clone(&writeback),
            },
            &options,
        );
        let namespace = Namespace::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&mapper),
            Arc::clone(&allocator),
            Arc::clone(&orphans),
            Arc::clone(&xattrs),
            Arc::clone(&clock),
            entropy,
            &superblock,
        )
        .synchronous(options.synchronous_names);
        Arc::new(Self {
            transactions,
            ledger,
            allocator,
            account,
            inodes,
            orphans,
            xattrs,
            writeback,
            files,
            namespace,
            clock,
            superblock,
            options,
            read_only_because,
            is_sound,
            unmounted: AtomicBool::new(false),
            found: Mutex::new(Rank::Leaf, None),
            gate: Gate::new(),
            protection,
        })
    }

    /// Completes what a crash has interrupted: deletes inodes without names, cuts files that were being cut.
    pub(super) fn finish_orphans(&self) -> Result<(), Error> {
        if self.options.read_only {
            return Ok(());
        }
        if self.superblock.raw().state.get() & STATE_ERRORS != 0 {
            return self.orphans.abandon();
        }
        for number in self.orphans.at_mount()? {
            // One that cannot be finished stays where it is, for e2fsck; the others are no worse for it.
            if let Ok(inode) = self.inodes.get(number) {
                inode.orphan.store(true, Ordering::Release);
                let _ = self.files.finish_orphan(&inode);
            }
        }
        self.transactions.check_writable()
    }

    /// Sizes and counts; promised blocks count as used. Root's reserve is counted in blocks here, also where space is given away
    /// in clusters.
    ///
    /// Source: kernel `ext4_statfs`.
    pub(crate) fn statfs(&self) -> Statfs {
        let geometry = self.transactions.geometry();
        let raw = self.superblock.raw();
        let free = self.ledger.free_space();
        let overhead = u64::from(raw.overhead_clusters.get()) << geometry.cluster_bits;
        Statfs {
            block_size: geometry.block_size,
            blocks: geometry.blocks_count - overhead.min(geometry.blocks_count),
            free_blocks: free.free.get() << geometry.cluster_bits,
            available_blocks: free.available(raw.reserved_blocks_count(), geometry.cluster_bits),
            inodes: geometry.inodes_count.into(),
            free_inodes: self.allocator.free_inodes(),
            name_bytes: 255,
        }
    }

    /// What has been asked of device, journal and allocator since the mount.
    pub(crate) fn counters(&self) -> Counters {
        let tally = &self.transactions.io().tally;
        let count = |count: &core::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            device_reads: count(&tally.device_reads),
            device_read_bytes: count(&tally.device_read_bytes),
            device_writes: count(&tally.device_writes),
            device_write_bytes: count(&tally.device_write_bytes),
            flushes: count(&tally.flushes),
            journal_blocks: count(&tally.journal_blocks),
            commits: count(&tally.commits),
            handles: count(&tally.handles),
            allocator_calls: count(&tally.allocator_calls),
            allocator_searches: count(&tally.allocator_searches),
        }
    }

    /// The free space of every block group.
    pub(crate) fn block_groups(&self) -> Result<Vec<GroupSpace>, Error> {
        self.allocator.group_space()
    }

    /// The counters that the kernel shows, by its names.
    ///
    /// Source: kernel `fs/ext4/sysfs.c`, `ext4_seq_es_shrinker_info_show`, `ext4_seq_mb_stats_show`; `fast_commit.c`,
    /// `ext4_fc_info_show`.
    pub(crate) fn kernel_counters(&self) -> KernelCounters {
        let tally = self.counters();
        let session_write_kbytes = tally.device_write_bytes >> 10;
        let before = self.superblock.raw().kbytes_written.get();
        let (pool, sra_exceeded_retry_limit) = self.ledger.pool_and_exceeded();
        let status = self.inodes.status_counts();
        KernelCounters {
            delayed_allocation_blocks: self.ledger.counts().promised,
            session_write_kbytes,
            lifetime_write_kbytes: before.saturating_add(session_write_kbytes),
            reserved_clusters: pool.get(),
            sra_exceeded_retry_limit,
            es_stats: StatusStats {
                runs: status.runs,
                reclaimable: status.reclaimable,
                hits: status.hits,
                misses: status.misses,
            },
            mb_stats: AllocatorStats {
                requests: tally.allocator_calls,
                searches: tally.allocator_searches,
            },
            fc_info: self.transactions.fast_commit_stats(),
        }
    }

    /// What is in memory now.
    pub(crate) fn memory_counters(&self) -> MemoryCounters {
        let log = self.transactions.log_fill();
        MemoryCounters {
            cached_bytes: self.account.cached_bytes(),
            dirty_bytes: self.account.dirty_bytes(),
            writeback_bytes: self.account.writeback_bytes(),
            free_log_blocks: log.map(|(free, _)| free),
            pending_blocks: log.map_or(0, |(_, pending)| u64_from(pending)),
        }
    }

    /// The features because of which nothing is written, if that was not what the mount asked for.
    pub(crate) fn read_only_because(&self) -> Option<&str> {
        self.read_only_because.as_deref()
    }

    /// The superblock as it was at the mount.
    pub(crate) fn superblock(&self) -> Superblock {
        self.superblock.clone()
    }

    /// The inode with this number, from memory or from its table.
    pub(crate) fn inode(&self, number: extant_format::InodeNumber) -> Result<Arc<Inode>, Error> {
        self.inodes.get(number)
    }

    /// Does what is due by the clock, and says when to call again.
    pub(crate) fn tick(&self) -> Result<Duration, Error> {
        // Before anything that may take long.
        self.renew_protection(false)?;
        let Some(_gate) = self.gate.try_read() else { return Ok(TICK) };
        self.tell_found()?;
        let is_early = self.transactions.early_tick().begin();
        self.writeback.tick(is_early);
        let filling = || self.transactions.filling().filter(|_| is_early);
        if let Some(tid) = self.transactions.commit_due().or_else(filling) {
            self.transactions.commit(tid)?;
        }
        self.transactions.bring_home_for_fast_commits()?;
        self.reclaim();
        Ok(TICK)
    }

    /// Keeps metadata and inodes in memory within bounds.
    pub(crate) fn reclaim(&self) {
        self.inodes.shrink_to(
            usize::try_from(self.options.cache_bytes / BYTES_PER_INODE).unwrap_or(usize::MAX),
        );
        self.transactions
            .shrink_to((self.options.cache_bytes / 4) >> self.transactions.geometry().block_bits);
    }

    /// Forgets what is clean and nobody uses: bytes of files, where their blocks lie, inodes, metadata.
    ///
    /// Source: kernel `fs/drop_caches.c`, `drop_caches_sysctl_handler`.
    pub(crate) fn drop_caches(&self) {
        self.account.reclaim(u64::MAX);
        for inode in self.inodes.in_memory() {
            inode.status.lock().clear_cached();
        }
        self.inodes.shrink_to(0);
        self.transactions.shrink_to(0);
    }

    /// Whether a file replaced by rename or truncate is written back early.
    pub(super) fn auto_da_alloc(&self) -> bool {
        self.options.auto_da_alloc && self.options.delayed_allocation
    }

    /// Makes everything durable.
    pub(crate) fn sync_all(&self) -> Result<(), Error> {
        // A frozen volume has nothing that is not durable.
        let Some(_gate) = self.gate.try_read() else { return Ok(()) };
        self.sync_everything()
    }

    pub(super) fn sync_everything(&self) -> Result<(), Error> {
        if self.options.read_only || self.unmounted.load(Ordering::Acquire) {
            return Ok(());
        }
        self.transactions.check_writable()?;
        // One file's failure keeps no other from being made durable.
        let written = self.writeback.write_everything();
        let flushes = &self.transactions.io().tally.cache_flushes;
        let before = flushes.load(Ordering::Relaxed);
        for wait in [false, true] {
            self.transactions.tracer().emit(|| crate::trace::Event::SyncFs { wait });
        }
        self.transactions.sync()?;
        if flushes.load(Ordering::Relaxed) == before {
            // Nothing to commit, but data may have gone to the device.
            self.transactions.io().flush()?;
        }
        // What was lost before, in the background, is missing now; whoever trusts this call has to know.
        written.and(self.account.take_untold_error().map_or(Ok(()), Err))
    }

    /// Writes everything, empties the journal and marks the volume clean. What other threads have begun ends first, and
    /// what they begin meanwhile finds the volume read-only.
    pub(crate) fn unmount(&self) -> Result<(), Error> {
        let _gate = self.gate.write();
        if self.options.read_only || self.unmounted.load(Ordering::Acquire) {
            return Ok(());
        }
        let unmounted = self.write_and_close();
        if let Some(protection) = &self.protection
            && self.check_writable().is_err()
        {
            // Whatever came of it, this host writes no more.
            protection.release(&*self.clock);
        }
        unmounted
    }

    fn write_and_close(&self) -> Result<(), Error> {
        self.transactions.check_writable()?;
        self.free_nameless();
        let written = self.sync_everything();
        // Data that is lost is no reason to leave the rest behind; metadata is.
        self.transactions.sync()?;
        self.transactions.close_journal()?;
        self.mark_clean()?;
        self.unmounted.store(true, Ordering::Release);
        self.transactions.set_read_only();
        written
    }

    /// Frees what has no name any more, though somebody may still have it open: nobody could find it later.
    fn free_nameless(&self) {
        self.dispose_values();
        let first = self.transactions.geometry().first_inode;
        for inode in self.inodes.in_memory() {
            if inode.number().get() >= first && inode.core.lock().links == 0 && inode.end() {
                // What fails here stays on the orphan list, and the next mount finishes it.
                let _ = self.files.evict(&inode);
            }
        }
    }

    /// The last write of an unmount: counts, time, and that nothing is left to be done.
    pub(super) fn mark_clean(&self) -> Result<(), Error> {
        let io = self.transactions.io();
        io.flush()?;
        let geometry = self.transactions.geometry();
        let number = geometry.superblock_block();
        let block = self.transactions.read(number, BlockKind::Superblock)?;
        let mut frame = block.frame();
        let bytes = frame.make_mut();
        let (raw, _) = RawSuperblock::mut_from_prefix(&mut bytes[geometry.superblock_offset()..])
            .expect("a block holds a superblock");
        raw.set_free_blocks_count(self.allocator.free_clusters().get() << geometry.cluster_bits);
        raw.free_inodes_count =
            u32::try_from(self.allocator.free_inodes()).unwrap_or(u32::MAX).into();
        raw.set_write_time(u64::try_from(self.clock.wall().seconds).unwrap_or(0));
        raw.feature_incompat = (raw.incompat() - Incompat::RECOVER).bits().into();
        if self.orphans.is_empty() {
            raw.feature_ro_compat = (raw.ro_compat() - RoCompat::ORPHAN_PRESENT).bits().into();
        }
        if self.is_sound {
            raw.state = (raw.state.get() | STATE_CLEAN).into();
        }
        for finding in self.allocator.take_findings() {
            self.note_found(&Error::Corrupt(finding));
        }
        if let Some(found) = self.found.lock().take() {
            found.put(raw);
        }
        let written = io.tally.device_write_bytes.load(Ordering::Relaxed) >> 10;
        raw.kbytes_written = raw.kbytes_written.get().saturating_add(written).into();
        if geometry.has_metadata_csum() {
            raw.set_checksum();
        }
        let len = frame.len();
        io.run(&mut [Request::write_fua(io.offset(number), vec![frame.slice(0..len)])])
    }
}

/// Writes the primary superblock and makes it durable; for a mount, before anything else is in memory.
pub(super) fn write_superblock(
    superblock: &Superblock,
    device: &dyn BlockDevice,
) -> Result<(), Error> {
    // The sector may be larger than the superblock: whole pages are read and written.
    let mut bytes = device.read_vec(0, 4096)?;
    bytes[1024..2048].copy_from_slice(superblock.to_raw().as_bytes());
    let frame = Frame::from(bytes);
    let len = frame.len();
    let mut batch = [Request::write_fua(0, vec![frame.slice(0..len)])];
    device.run_all(&mut batch)?;
    Ok(())
}
