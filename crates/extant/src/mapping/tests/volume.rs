//! A small volume in memory: real layers over a device of zeros.

use std::sync::Arc;
use std::time::Duration;

use extant_device::{BlockDevice, BlockDeviceExt, Frame, MemoryDevice, Request};
use extant_format::cast::usize_from;
use extant_format::descriptor::GroupFlags;
use extant_format::extent::{Extent, NodeMut};
use extant_format::inode::{FileType, InodeFlags, InodeRecord};
use extant_format::jbd2::{JournalIncompat, JournalSuperblock, RawJournalSuperblock};
use extant_format::superblock::RawSuperblock;
use extant_format::timestamp::Timestamp;
use extant_format::{
    BlockGroup, ClusterCount, Geometry, GroupDescriptor, Incompat, InodeNumber, LogicalBlock,
    LogicalRange, PhysicalBlock, RoCompat, Superblock, bitmap,
};

use crate::Error;
use crate::allocator::{Allocator, AllocatorOptions};
use crate::block_io::BlockIo;
use crate::delayed::{Claim, LedgerParameters, Privilege, SpaceLedger};
use crate::extent_status::{BlockState, StatusAccount};
use crate::extent_tree::ExtentTree;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::{MapFlags, Mapped, Mapper};
use crate::page_cache::CacheAccount;
use crate::time::Clock;
use crate::transaction::{Credits, Handle, JournalState, LogMap, Transactions};
use extant_journal::{Journal, JournalParameters};
use zerocopy::IntoBytes;

/// What a volume looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) block_bits: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) blocks: u64,
}

impl Shape {
    /// 8 MiB in blocks of 1 KiB: leaves have 84 entries.
    pub(crate) const SMALL: Self = Self { block_bits: 10, cluster_bits: 0, blocks: 8192 };
    /// Clusters of 16 blocks.
    pub(crate) const BIGALLOC: Self = Self { block_bits: 10, cluster_bits: 4, blocks: 32768 };
}

/// All layers up to the mapper.
pub(crate) struct Volume {
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) allocator: Arc<Allocator>,
    pub(crate) inodes: Arc<InodeTable>,
    pub(crate) ledger: Arc<SpaceLedger>,
    pub(crate) mapper: Mapper,
    pub(crate) device: Arc<dyn BlockDevice>,
    free: i64,
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn wall(&self) -> Timestamp {
        Timestamp { seconds: 0, nanoseconds: 0 }
    }
}

impl Volume {
    /// An empty volume without a journal.
    pub(crate) fn new(shape: Shape) -> Self {
        Self::open(Arc::new(blank(shape)), None)
    }

    /// An empty volume with a journal of `log_blocks` blocks on a device of its own.
    pub(crate) fn journaled(shape: Shape, log_blocks: u32) -> Self {
        Self::open(Arc::new(blank(shape)), Some(log_blocks))
    }

    /// The volume on `device`.
    pub(crate) fn open(device: Arc<dyn BlockDevice>, log_blocks: Option<u32>) -> Self {
        let superblock = Superblock::parse(&device.read_vec(1024, 1024).unwrap()).unwrap();
        let geometry = *superblock.geometry();
        let io = BlockIo::new(Arc::clone(&device), geometry.block_bits);
        let descriptors = read_descriptors(&io, &geometry);
        let free = descriptors.iter().map(|descriptor| u64::from(descriptor.free_clusters)).sum();
        let ledger = SpaceLedger::new(LedgerParameters {
            free: ClusterCount(free),
            root_reserve: ClusterCount(0),
            pool: ClusterCount(free / 50),
            watermark: ClusterCount(0),
            fold_batch: 1,
        });
        let journal = log_blocks.map(|blocks| journal(&geometry, blocks));
        let transactions =
            Arc::new(Transactions::new(io, geometry, Arc::new(StoppedClock), journal, false));
        let tables = descriptors.iter().map(|descriptor| descriptor.inode_table).collect();
        let allocator = Allocator::load(
            Arc::clone(&transactions),
            Arc::clone(&ledger),
            &superblock,
            descriptors,
            &AllocatorOptions::default(),
        );
        let allocator = Arc::new(allocator.unwrap());
        transactions.add_listener(Arc::<Allocator>::clone(&allocator));
        let (account, status) = (Arc::<CacheAccount>::default(), Arc::<StatusAccount>::default());
        let inodes = Arc::new(InodeTable::new(Arc::clone(&transactions), account, status, tables));
        let mapper = Mapper::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&allocator),
            Arc::clone(&ledger),
        );
        let free = ledger.counts().free;
        Self { transactions, allocator, inodes, ledger, mapper, device, free }
    }

    /// Writes everything home, and into the superblock what is free; returns the image.
    pub(crate) fn close(&self) -> Vec<u8> {
        self.transactions.sync().unwrap();
        let mut superblock = Superblock::parse(&self.device.read_vec(1024, 1024).unwrap()).unwrap();
        let free = u64::try_from(self.ledger.counts().free).unwrap()
            << self.transactions.geometry().cluster_bits;
        superblock.raw_mut().set_free_blocks_count(free);
        let bytes = superblock.to_raw();
        let mut first = self.device.read_vec(0, 4096).unwrap();
        first[1024..2048].copy_from_slice(bytes.as_bytes());
        let mut batch = [Request::write_frame(0, Frame::from(first))];
        self.device.run(&mut batch);
        batch[0].result.unwrap();
        let len = self.device.geometry().len_bytes;
        self.device.read_vec(0, usize::try_from(len).unwrap()).unwrap()
    }

    /// An empty file.
    pub(crate) fn file(&self, flags: InodeFlags) -> Arc<Inode> {
        let time = Timestamp { seconds: 0, nanoseconds: 0 };
        let mut record = InodeRecord {
            mode: FileType::Regular.mode_bits() | 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            links: 1,
            blocks: 0,
            flags,
            file_acl: None,
            generation: 7,
            version: 1,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: None,
            dtime: 0,
            projid: 0,
            extra_isize: 32,
            block: [0; 60],
        };
        if flags.contains(InodeFlags::EXTENTS) {
            NodeMut::init(&mut record.block, 0);
        }
        self.inodes
            .create(&mut self.begin(), InodeNumber::new(12).unwrap(), record, || Ok(false))
            .unwrap()
    }

    pub(crate) fn begin(&self) -> Handle<'_> {
        self.transactions.begin(Credits::blocks(100, self.transactions.geometry())).unwrap()
    }

    pub(crate) fn tree<'a>(&'a self, inode: &'a Inode) -> ExtentTree<'a> {
        ExtentTree::new(&self.transactions, &self.allocator, &self.inodes, inode)
    }

    /// Blocks that are in use, those of the empty volume apart.
    pub(crate) fn used_blocks(&self) -> u64 {
        let clusters = u64::try_from(self.free - self.ledger.counts().free).unwrap();
        clusters * u64::from(self.transactions.geometry().cluster_ratio())
    }

    /// Leaves no space but what is promised, until the answer is dropped.
    pub(crate) fn refuse(&self) -> Claim {
        let counts = self.ledger.counts();
        let left = u64::try_from(counts.free).unwrap() - counts.promised;
        self.ledger.claim(ClusterCount(left), Privilege::Metadata).unwrap()
    }

    /// The bytes of a device block.
    pub(crate) fn bytes(&self, block: PhysicalBlock) -> Vec<u8> {
        self.transactions.io().read_block(block).unwrap().as_slice().to_vec()
    }

    /// Fills a device block with `byte`.
    pub(crate) fn fill(&self, block: PhysicalBlock, byte: u8) {
        let frame = Frame::from(vec![byte; self.transactions.geometry().block_len()]);
        let request = Request::write_frame(self.transactions.io().offset(block), frame);
        self.transactions.io().run(&mut [request]).unwrap();
    }

    /// Maps all of `range`.
    pub(crate) fn map(
        &self,
        inode: &Inode,
        range: LogicalRange,
        flags: MapFlags,
    ) -> Result<Vec<Mapped>, Error> {
        let mut all = Vec::new();
        let mut rest = Some(range);
        while let Some(range) = rest {
            let mapped = self.mapper.map(&mut self.begin(), inode, range, flags)?;
            rest = behind(range, mapped.blocks);
            all.push(mapped);
        }
        Ok(all)
    }

    /// What `look_up` says of every block of `range`.
    pub(crate) fn states(&self, inode: &Inode, range: LogicalRange) -> Vec<BlockState> {
        let mut all = Vec::new();
        let mut rest = Some(range);
        while let Some(range) = rest {
            let mapped = self.mapper.look_up(inode, range).unwrap();
            all.extend((0..mapped.blocks.len()).map(|i| mapped.state.advanced(i)));
            rest = behind(range, mapped.blocks);
        }
        all
    }

    pub(crate) fn extents(&self, inode: &Inode) -> Vec<Extent> {
        self.tree(inode).check_invariants()
    }

    /// Forgets what memory knows and is not delayed, so that the disk is asked.
    pub(crate) fn forget_cached(inode: &Inode) {
        inode.status.lock().clear_cached();
    }
}

/// What of `range` is behind its start `done`.
pub(crate) fn behind(range: LogicalRange, done: LogicalRange) -> Option<LogicalRange> {
    assert_eq!(done.start(), range.start());
    LogicalBlock::new(done.end()).and_then(|next| LogicalRange::between(next, range.end()))
}

pub(crate) fn range(start: u32, len: u32) -> LogicalRange {
    LogicalRange::new(start, len).unwrap()
}

/// A device with the superblock, descriptors and block bitmaps of an empty volume.
pub(crate) fn blank(shape: Shape) -> MemoryDevice {
    let superblock = superblock(shape);
    let geometry = *superblock.geometry();
    let device = Arc::new(MemoryDevice::new(shape.blocks << shape.block_bits));
    let io = BlockIo::new(Arc::<MemoryDevice>::clone(&device), geometry.block_bits);
    write_descriptors(&io, &geometry, &mut descriptors(&geometry));
    let at = 1024 % geometry.block_len();
    let mut first = vec![0; geometry.block_len()];
    first[at..at + 1024].copy_from_slice(superblock.to_raw().as_bytes());
    let block = PhysicalBlock::new(u64::from(1024 / geometry.block_size));
    io.run(&mut [Request::write_frame(io.offset(block), Frame::from(first))]).unwrap();
    drop(io);
    Arc::into_inner(device).unwrap()
}

/// A journal on a device of its own.
fn journal(geometry: &Geometry, blocks: u32) -> JournalState {
    let mut raw = RawJournalSuperblock::blank(geometry.block_size, blocks, [7; 16]);
    raw.set_incompat(JournalIncompat::BIT64 | JournalIncompat::CSUM_V3 | JournalIncompat::REVOKE);
    raw.set_checksum();
    let parameters = JournalParameters::new(JournalSuperblock::try_from(&raw).unwrap()).unwrap();
    let device = Arc::new(MemoryDevice::new(u64::from(blocks) << geometry.block_bits));
    let mut map = LogMap::default();
    assert!(map.push(PhysicalBlock::new(0), blocks));
    let journal = Journal::new(parameters.clone(), parameters.clean_state());
    JournalState::new(journal, BlockIo::new(device, geometry.block_bits), true, map, true)
}

fn read_descriptors(io: &BlockIo, geometry: &Geometry) -> Vec<GroupDescriptor> {
    let one = |group| {
        let (index, at) = geometry.descriptor_place(group);
        let block = io.read_block(geometry.descriptor_block(index)).unwrap();
        GroupDescriptor::decode(
            &block.as_slice()[at..at + usize_from(geometry.desc_size)],
            geometry,
            group,
        )
        .unwrap()
    };
    geometry.groups().map(one).collect()
}

/// Bitmaps from block 20 and 40 on, inode tables from block 64 on, bitmaps not there yet.
fn descriptors(geometry: &Geometry) -> Vec<GroupDescriptor> {
    assert!(geometry.group_count <= 16, "the tables have no room for more");
    let table_end = 64 + 16 * geometry.itable_blocks();
    let one = |group: BlockGroup| {
        let base = geometry.base_meta_blocks(group);
        let taken = if group.0 == 0 { table_end - geometry.first_data_block } else { base };
        GroupDescriptor {
            block_bitmap: PhysicalBlock::new((20 + group.0).into()),
            inode_bitmap: PhysicalBlock::new((40 + group.0).into()),
            inode_table: PhysicalBlock::new((64 + group.0 * geometry.itable_blocks()).into()),
            free_clusters: geometry.clusters_in(group) - taken.div_ceil(geometry.cluster_ratio()),
            free_inodes: geometry.inodes_per_group,
            used_dirs: 0,
            itable_unused: geometry.inodes_per_group,
            flags: GroupFlags::INODE_UNINIT | GroupFlags::INODE_ZEROED,
            block_bitmap_csum: 0,
            inode_bitmap_csum: 0,
        }
    };
    geometry.groups().map(one).collect()
}

/// Writes the block bitmaps and the descriptors, which get the bitmaps' checksums.
fn write_descriptors(io: &BlockIo, geometry: &Geometry, descriptors: &mut [GroupDescriptor]) {
    let mut table = vec![0; usize_from(geometry.desc_blocks) * geometry.block_len()];
    let mut batch = Vec::new();
    for (group, descriptor) in geometry.groups().zip(descriptors) {
        let clusters = geometry.clusters_in(group);
        let mut bits = vec![0; geometry.block_len()];
        bitmap::set(&mut bits, 0..clusters - descriptor.free_clusters);
        bitmap::set(&mut bits, clusters..8 * geometry.block_size);
        descriptor.block_bitmap_csum = bitmap::block_bitmap_csum(geometry, &bits);
        let (_, at) = geometry.descriptor_place(group);
        descriptor.encode(&mut table[at..], geometry, group);
        batch.push(Request::write_frame(io.offset(descriptor.block_bitmap), Frame::from(bits)));
    }
    batch.push(Request::write_frame(io.offset(geometry.descriptor_block(0)), Frame::from(table)));
    io.run(&mut batch).unwrap();
}

fn superblock(shape: Shape) -> Superblock {
    let mut raw = RawSuperblock::blank();
    raw.set_blocks_count(shape.blocks);
    raw.log_block_size = (shape.block_bits - 10).into();
    raw.log_cluster_size = (shape.block_bits - 10 + shape.cluster_bits).into();
    raw.first_data_block = u32::from(shape.block_bits == 10 && shape.cluster_bits == 0).into();
    let clusters = 8 << shape.block_bits;
    raw.blocks_per_group = (clusters << shape.cluster_bits).into();
    raw.clusters_per_group = clusters.into();
    raw.inodes_per_group = 32.into();
    let data = shape.blocks - u64::from(raw.first_data_block.get());
    let groups = u32::try_from(data.div_ceil(raw.blocks_per_group.get().into())).unwrap();
    raw.inodes_count = (32 * groups).into();
    raw.inode_size = 256.into();
    raw.first_ino = 11.into();
    raw.desc_size = 64.into();
    raw.checksum_type = 1;
    raw.feature_incompat =
        (Incompat::FILETYPE | Incompat::EXTENTS | Incompat::BIT64 | Incompat::FLEX_BG)
            .bits()
            .into();
    let mut ro_compat = RoCompat::LARGE_FILE
        | RoCompat::HUGE_FILE
        | RoCompat::EXTRA_ISIZE
        | RoCompat::METADATA_CSUM;
    ro_compat.set(RoCompat::BIGALLOC, shape.cluster_bits > 0);
    raw.feature_ro_compat = ro_compat.bits().into();
    raw.set_checksum();
    Superblock::try_from(&raw).unwrap()
}
