//! The active layers below `file`, built from the bottom up.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::{
    ClusterCount, GroupDescriptor, Incompat, InodeNumber, PhysicalRange, Superblock,
};

use crate::Error;
use crate::allocator::{Allocator, AllocatorOptions, Spread};
use crate::block_io::BlockIo;
use crate::delayed::{LedgerParameters, SpaceLedger};
use crate::extent_status::StatusAccount;
use crate::inode_table::InodeTable;
use crate::mapping::{MapOptions, Mapper};
use crate::options::{DataMode, MountOptions, Placement};
use crate::page_cache::CacheAccount;
use crate::time::Clock;
use crate::transaction::{JournalState, Transactions};

/// Everything that knows blocks and inodes, and nothing of names.
pub(crate) struct Layers {
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) ledger: Arc<SpaceLedger>,
    pub(crate) allocator: Arc<Allocator>,
    pub(crate) account: Arc<CacheAccount>,
    pub(crate) inodes: Arc<InodeTable>,
    pub(crate) mapper: Arc<Mapper>,
}

impl Layers {
    /// The layers of the volume that `superblock` describes.
    ///
    /// # Errors
    /// Of the allocator, which checks the descriptors against each other.
    pub(crate) fn new(
        io: BlockIo,
        superblock: &Superblock,
        descriptors: Vec<GroupDescriptor>,
        journal: Option<JournalState>,
        journal_blocks: Vec<PhysicalRange>,
        options: &MountOptions,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let geometry = *superblock.geometry();
        let tables = descriptors.iter().map(|descriptor| descriptor.inode_table).collect();
        let free = descriptors.iter().map(|descriptor| u64::from(descriptor.free_clusters)).sum();
        let ledger = SpaceLedger::new(ledger_parameters(superblock, free, options));
        let transactions =
            Transactions::new(io, geometry, Arc::clone(clock), journal, options.read_only);
        let journal_data = options.has_data_mode(DataMode::Journal);
        // Encrypted data goes past the log whatever the mount says, so that the log must not write over it.
        let encrypts = geometry.incompat.contains(Incompat::ENCRYPT);
        let transactions = transactions
            .with_tracer(options.tracer.clone())
            .with_waker(options.waker.clone())
            .without_revokes(journal_data && !encrypts);
        let transactions = Arc::new(transactions);
        let mut allocator = Allocator::load(
            Arc::clone(&transactions),
            Arc::clone(&ledger),
            superblock,
            descriptors,
            &AllocatorOptions {
                spread: (!options.delayed_allocation && options.preallocation)
                    .then(|| options.process.map_or(Spread::ByInode, Spread::By)),
                discard: options.discard,
                processors: options.processors,
                exact: !options.preallocation,
                sequential: options.placement == Placement::Sequential,
                ..AllocatorOptions::default()
            },
        )?;
        for run in journal_blocks {
            allocator.protect(InodeNumber::JOURNAL, run);
        }
        let allocator = Arc::new(allocator);
        transactions.add_listener(allocator.clone());
        let account = Arc::new(CacheAccount::new(options.cache_bytes));
        let status = Arc::new(StatusAccount::new(options.tracer.clone()));
        let inodes = Arc::new(InodeTable::new(
            Arc::clone(&transactions),
            Arc::clone(&account),
            status,
            tables,
        ));
        let mapper = Mapper::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&allocator),
            Arc::clone(&ledger),
        );
        let mapper = mapper.with_options(MapOptions {
            journal_data,
            journal_flagged: !options.delayed_allocation,
            check_status: options.check_status,
            unordered_data: options.has_data_mode(DataMode::Writeback),
            ..MapOptions::default()
        });
        let mapper = Arc::new(mapper);
        Ok(Self { transactions, ledger, allocator, account, inodes, mapper })
    }
}

fn ledger_parameters(
    superblock: &Superblock,
    free: u64,
    options: &MountOptions,
) -> LedgerParameters {
    let geometry = superblock.geometry();
    let clusters = geometry.clusters_for(geometry.blocks_count);
    let (watermark, fold_batch) = LedgerParameters::kernel_slop(options.processors);
    // Who fills an image once writes nothing back that needs more than was asked for, and may have all of it.
    let has_pool = geometry.incompat.contains(Incompat::EXTENTS) && !options.unjournaled;
    // Nobody has checked this field, and no more than all can be kept back.
    let reserved = superblock.raw().reserved_blocks_count().min(geometry.blocks_count);
    LedgerParameters {
        free: ClusterCount(free),
        root_reserve: ClusterCount(reserved >> geometry.cluster_bits),
        pool: LedgerParameters::kernel_pool(ClusterCount(clusters), has_pool),
        watermark,
        fold_batch,
    }
}
