//! The allocator on images of mke2fs, judged by the kernel's traces, a plain model and e2fsck.

mod lives;
mod rules;
mod traces;

use super::criteria::Groups;
use super::group::Searched;
use super::*;
use crate::block_io::BlockIo;
use crate::delayed::LedgerParameters;
use crate::time::SystemClock;
use crate::transaction::{Credits, Handle, JournalState, LogMap};
use extant_device::MemoryDevice;
use extant_format::LogicalBlock;
use extant_format::corruption::{Place, Rule};
use extant_format::descriptor::GroupFlags;
use extant_format::jbd2::{JournalIncompat, JournalSuperblock, RawJournalSuperblock};
use extant_journal::{Journal, JournalParameters};
use extant_testkit::FaultDevice;
use extant_testkit::oracle::{self, Scratch};

/// A volume without layers above the allocator.
struct Volume {
    device: Arc<FaultDevice<MemoryDevice>>,
    transactions: Arc<Transactions>,
    ledger: Arc<SpaceLedger>,
    allocator: Arc<Allocator>,
}

const MIB: u64 = 1 << 20;

/// An image of mke2fs, or `None` where there is no such program.
fn image(bytes: u64, options: &[&str]) -> Option<Vec<u8>> {
    let scratch = Scratch::new("allocator");
    let path = scratch.path("image");
    let uuid = "12345678-1234-1234-1234-123456789abc";
    let extended =
        "lazy_itable_init=0,lazy_journal_init=0,hash_seed=87654321-4321-4321-4321-cba987654321";
    oracle::mkfs(&path, bytes, &[&["-t", "ext4", "-U", uuid, "-E", extended], options].concat())?;
    Some(std::fs::read(&path).unwrap())
}

/// The volume of the kernel's traces.
fn traced(options: AllocatorOptions) -> Option<Volume> {
    let tunables =
        |layout: &Layout| Tunables { max_linear_groups: 4, ..Tunables::new(layout, 0, 1) };
    Some(Volume::open_with(&image(256 * MIB, &["-b", "4096"])?, true, options, tunables))
}

impl Volume {
    fn open(image: &[u8], journaled: bool) -> Self {
        Self::open_with(image, journaled, AllocatorOptions::default(), |layout| {
            Tunables::new(layout, 0, 1)
        })
    }

    fn open_with(
        image: &[u8],
        journaled: bool,
        options: AllocatorOptions,
        tunables: impl FnOnce(&Layout) -> Tunables,
    ) -> Self {
        let superblock = Superblock::parse(&image[1024..2048]).unwrap();
        let geometry = *superblock.geometry();
        let device = Arc::new(FaultDevice::new(MemoryDevice::from_bytes(image)));
        let io = BlockIo::new(device.clone(), geometry.block_bits);
        let descriptors: Vec<_> =
            geometry.groups().map(|group| descriptor(&geometry, image, group)).collect();
        let free = descriptors.iter().map(|descriptor| u64::from(descriptor.free_clusters)).sum();
        let ledger = SpaceLedger::new(LedgerParameters {
            free: ClusterCount(free),
            root_reserve: ClusterCount(0),
            pool: ClusterCount(0),
            watermark: ClusterCount(0),
            fold_batch: 1,
        });
        let journal = journaled.then(|| memory_journal(&geometry));
        let transactions =
            Transactions::new(io, geometry, Arc::new(SystemClock::default()), journal, false);
        let transactions = Arc::new(transactions);
        let options =
            AllocatorOptions { tunables: Some(tunables(&Layout::from(&geometry))), ..options };
        let allocator = Allocator::load(
            Arc::clone(&transactions),
            Arc::clone(&ledger),
            &superblock,
            descriptors,
            &options,
        );
        let allocator = Arc::new(allocator.unwrap());
        transactions.add_listener(allocator.clone());
        Self { device, transactions, ledger, allocator }
    }

    /// Builds every buddy.
    fn warm(self) -> Self {
        for group in self.allocator.geometry.groups() {
            self.allocator.with_buddy(group, |_, _| ()).unwrap();
        }
        self
    }

    fn begin(&self) -> Handle<'_> {
        let credits = Credits::blocks(64, self.transactions.geometry());
        self.transactions.begin(credits).unwrap()
    }

    fn allocate(&self, request: &AllocationRequest) -> Result<Allocation, Error> {
        self.allocator.allocate(&mut self.begin(), request)
    }

    /// First block and length of what a request gets.
    fn get(&self, request: AllocationRequest) -> (u64, u64) {
        let blocks = self.allocate(&request).unwrap().blocks;
        (blocks.start().get(), blocks.len())
    }

    fn free(&self, start: u64, len: u64, flags: FreeFlags) -> Result<(), Error> {
        self.allocator.free(&mut self.begin(), FILE, range(start, len), flags).map(drop)
    }

    fn free_in_buddies(&self) -> u64 {
        let free = |group| u64::from(Searched { allocator: &self.allocator }.summary(group).free);
        self.allocator.geometry.groups().map(free).sum()
    }

    /// All counters against each other and the bitmaps.
    fn check(&self) {
        self.allocator.check_invariants().unwrap();
        let snapshots =
            self.allocator.geometry.groups().filter_map(|group| self.allocator.snapshot(group));
        let sum: u64 = snapshots.map(|snapshot| u64::from(snapshot.descriptor.free_clusters)).sum();
        assert_eq!(self.allocator.free_clusters(), ClusterCount(sum));
        assert_eq!(self.ledger.counts().free, i64::try_from(sum).unwrap());
        assert_eq!(self.ledger.counts().promised, 0);
    }

    /// Writes everything home and asks e2fsck; the superblock's own counts are set right first, as an unmount does.
    fn e2fsck(&self) {
        self.allocator.discard_preallocations(FILE);
        self.transactions.sync().unwrap();
        self.transactions.close_journal().unwrap();
        let scratch = Scratch::new("fsck");
        let path = scratch.path("image");
        std::fs::write(&path, self.device.inner().to_vec()).unwrap();
        if let Err(words) = oracle::e2fsck(&path) {
            panic!("{words}");
        }
    }
}

fn descriptor(geometry: &Geometry, image: &[u8], group: BlockGroup) -> GroupDescriptor {
    let (index, offset) = geometry.descriptor_place(group);
    let start = usize_from(
        u32::try_from(geometry.descriptor_block(index).get() << geometry.block_bits).unwrap(),
    );
    GroupDescriptor::decode(&image[start + offset..], geometry, group).unwrap()
}

/// A journal on a device of its own.
fn memory_journal(geometry: &Geometry) -> JournalState {
    let blocks = 2048;
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

const FILE: InodeNumber = InodeNumber::new(12).unwrap();
const OTHER: InodeNumber = InodeNumber::new(13).unwrap();

fn range(start: u64, len: u64) -> PhysicalRange {
    PhysicalRange::new(PhysicalBlock::new(start), len).unwrap()
}

fn logical(block: u32) -> LogicalBlock {
    LogicalBlock::new(block).unwrap()
}

/// `len` blocks at `block` of a file of `size` blocks, open for writing, reserved before.
fn data(inode: InodeNumber, block: u32, len: u32, goal: u64, size: u64) -> AllocationRequest {
    AllocationRequest {
        inode,
        logical: logical(block),
        len,
        goal: PhysicalBlock::new(goal),
        left: None,
        right: None,
        file: FileHints { size_blocks: size, open_for_write: true, block_mapped: false, growth: 0 },
        flags: AllocationFlags::HINT_DATA,
    }
}

/// The same behind a mapped block.
fn after(request: AllocationRequest, left: u32, physical: u64) -> AllocationRequest {
    let left = Neighbour { logical: logical(left), physical: PhysicalBlock::new(physical) };
    AllocationRequest { left: Some(left), goal: PhysicalBlock::new(physical + 1), ..request }
}

/// One block of metadata.
fn tree_block(goal: u64) -> AllocationRequest {
    AllocationRequest { flags: AllocationFlags::empty(), ..data(FILE, 0, 1, goal, 0) }
}
