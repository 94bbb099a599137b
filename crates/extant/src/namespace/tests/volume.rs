//! The layers below names on an image of mkfs.ext4 in memory, without a journal and without files.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use extant_device::{BlockDeviceExt, MemoryDevice};
use extant_format::inode::InodeFlags;
use extant_format::{
    ClusterCount, FileType, Geometry, GroupDescriptor, InodeNumber, LogicalRange, Superblock,
    Timestamp,
};
use extant_testkit::oracle;
use zerocopy::IntoBytes;

use super::super::{DirCursor, Namespace};
use crate::Error;
use crate::allocator::Allocator;
use crate::block_io::BlockIo;
use crate::caller::Caller;
use crate::delayed::{LedgerParameters, SpaceLedger};
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::orphans::Orphans;
use crate::time::{Clock, Entropy};
use crate::transaction::{Credits, Handle, Transactions};
use crate::xattr::Xattrs;

/// A clock that goes on by a second each time it is asked, and numbers one after the other.
#[derive(Debug, Default)]
struct Counter {
    seconds: AtomicI64,
    drawn: AtomicU32,
}

impl Clock for Counter {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn wall(&self) -> Timestamp {
        let seconds = 1_700_000_000 + self.seconds.fetch_add(1, Ordering::Relaxed);
        Timestamp { seconds, nanoseconds: 5 }
    }
}

impl Entropy for Counter {
    fn draw(&self) -> u32 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }
}

fn descriptors(geometry: &Geometry, io: &BlockIo) -> Vec<GroupDescriptor> {
    let read = |group| {
        let (index, offset) = geometry.descriptor_place(group);
        let block = io.read_block(geometry.descriptor_block(index)).unwrap();
        GroupDescriptor::decode(&block.as_slice()[offset..], geometry, group).unwrap()
    };
    geometry.groups().map(read).collect()
}

fn ledger(descriptors: &[GroupDescriptor]) -> Arc<SpaceLedger> {
    let free = descriptors.iter().map(|descriptor| u64::from(descriptor.free_clusters)).sum();
    SpaceLedger::new(LedgerParameters {
        free: ClusterCount(free),
        root_reserve: ClusterCount(0),
        pool: ClusterCount(0),
        watermark: ClusterCount(0),
        fold_batch: 1,
    })
}

/// A volume that has names and attributes.
pub(super) struct Volume {
    pub(super) namespace: Namespace,
    pub(super) xattrs: Arc<Xattrs>,
    pub(super) inodes: Arc<InodeTable>,
    transactions: Arc<Transactions>,
    allocator: Arc<Allocator>,
    mapper: Arc<Mapper>,
    orphans: Arc<Orphans>,
    device: Arc<MemoryDevice>,
    superblock: Superblock,
    scratch: oracle::Scratch,
}

impl Volume {
    /// What mkfs.ext4 makes with these options, without a journal; `None` if the machine has no mkfs.ext4.
    pub(super) fn new(bytes: u64, options: &[&str]) -> Option<Self> {
        let scratch = oracle::Scratch::new("namespace");
        let image = scratch.path("image");
        let options = [&["-O", "^has_journal", "-E", "lazy_itable_init=0"], options].concat();
        oracle::mkfs(&image, bytes, &options)?;
        Some(Self::open(&image, scratch))
    }

    /// The volume of an image that was changed by others.
    pub(super) fn reopen(self, image: &std::path::Path) -> Self {
        Self::open(image, self.scratch)
    }

    fn open(image: &std::path::Path, scratch: oracle::Scratch) -> Self {
        let device = Arc::new(MemoryDevice::from_bytes(&std::fs::read(image).unwrap()));
        let superblock = Superblock::parse(&device.read_vec(1024, 1024).unwrap()).unwrap();
        let geometry = *superblock.geometry();
        let io = BlockIo::new(Arc::<MemoryDevice>::clone(&device), geometry.block_bits);
        let descriptors = descriptors(&geometry, &io);
        let ledger = ledger(&descriptors);
        let clock = Arc::new(Counter::default());
        let tables = descriptors.iter().map(|descriptor| descriptor.inode_table).collect();
        let transactions =
            Arc::new(Transactions::new(io, geometry, Arc::<Counter>::clone(&clock), None, false));
        let allocator = Allocator::load(
            Arc::clone(&transactions),
            Arc::clone(&ledger),
            &superblock,
            descriptors,
            &Default::default(),
        );
        let allocator = Arc::new(allocator.unwrap());
        transactions.add_listener(Arc::<Allocator>::clone(&allocator));
        let inodes = Arc::new(InodeTable::new(
            Arc::clone(&transactions),
            Arc::default(),
            Arc::default(),
            tables,
        ));
        let mapper = Arc::new(Mapper::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&allocator),
            ledger,
        ));
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
            Arc::<Counter>::clone(&clock),
        ));
        let namespace = Namespace::new(
            Arc::clone(&transactions),
            Arc::clone(&inodes),
            Arc::clone(&mapper),
            Arc::clone(&allocator),
            Arc::clone(&orphans),
            Arc::clone(&xattrs),
            Arc::<Counter>::clone(&clock),
            clock,
            &superblock,
        );
        Self {
            namespace,
            xattrs,
            inodes,
            transactions,
            allocator,
            mapper,
            orphans,
            device,
            superblock,
            scratch,
        }
    }

    pub(super) fn root(&self) -> Arc<Inode> {
        self.inodes.get(InodeNumber::ROOT).unwrap()
    }

    /// All names in a directory, sorted, without the dots.
    pub(super) fn names(&self, dir: &Inode) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        self.namespace
            .read_dir(dir, DirCursor::default(), &mut |listed| {
                names.push(listed.name.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        names.retain(|name| name != b"." && name != b"..");
        names.sort();
        names
    }

    pub(super) fn look_up(&self, dir: &Arc<Inode>, name: &str) -> Result<Arc<Inode>, Error> {
        self.namespace.lookup(&Caller::ROOT, dir, name.as_bytes())
    }

    pub(super) fn make_dir(&self, dir: &Inode, name: &str) -> Arc<Inode> {
        self.namespace.make_directory(&Caller::ROOT, dir, name.as_bytes(), 0o755).unwrap()
    }

    pub(super) fn make_file(&self, dir: &Inode, name: &str) -> Arc<Inode> {
        self.namespace.create(&Caller::ROOT, dir, name.as_bytes(), 0o644).unwrap()
    }

    /// Changes something under a handle.
    pub(super) fn change(&self, change: impl FnOnce(&mut Handle<'_>)) {
        let credits = Credits::blocks(100, self.transactions.geometry());
        let mut handle = self.transactions.begin(credits).unwrap();
        change(&mut handle);
        handle.stop().unwrap();
    }

    /// Frees an inode without names, as the layer of files does.
    pub(super) fn evict(&self, inode: Arc<Inode>) {
        if inode.core.lock().links > 0 {
            return;
        }
        let geometry = self.transactions.geometry();
        let mut handle = self.transactions.begin(Credits::blocks(100, geometry)).unwrap();
        let record = inode.core.lock().clone();
        let file_type = record.file_type().unwrap();
        let mapped =
            matches!(file_type, FileType::Regular | FileType::Directory | FileType::Symlink)
                && !record.is_fast_symlink(geometry)
                && !record.flags.contains(InodeFlags::INLINE_DATA);
        if mapped {
            self.mapper.remove(&mut handle, &inode, LogicalRange::ALL).unwrap();
        }
        self.xattrs.release_all(&mut handle, &inode).unwrap();
        self.orphans.remove(&mut handle, &inode).unwrap();
        {
            let mut core = inode.core.lock();
            (core.dtime, core.size) = (1_800_000_000, 0);
        }
        self.inodes.store(&mut handle, &inode).unwrap();
        let is_dir = file_type == FileType::Directory;
        self.allocator.free_inode(&mut handle, inode.number(), is_dir).unwrap();
        handle.stop().unwrap();
        assert!(self.inodes.drop_unused(&inode));
        drop(inode);
        self.evict_unused();
    }

    /// Frees what nothing names any more; some of it may have been named to be freed more than once.
    fn evict_unused(&self) {
        for number in self.orphans.take_unused() {
            if let Ok(inode) = self.inodes.get(number) {
                self.evict(inode);
            }
        }
    }

    /// The image as it is now, in a file.
    pub(super) fn image(&self) -> std::path::PathBuf {
        self.evict_unused();
        self.transactions.sync().unwrap();
        let mut bytes = self.device.to_vec();
        let mut superblock = Superblock::parse(&bytes[1024..2048]).unwrap();
        let bits = self.superblock.geometry().cluster_bits;
        let raw = superblock.raw_mut();
        raw.set_free_blocks_count(self.allocator.free_clusters().get() << bits);
        raw.free_inodes_count = u32::try_from(self.allocator.free_inodes()).unwrap().into();
        bytes[1024..2048].copy_from_slice(superblock.to_raw().as_bytes());
        let path = self.scratch.path("now");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// e2fsck finds nothing.
    pub(super) fn check(&self) {
        if let Err(findings) = oracle::e2fsck(&self.image()) {
            panic!("{findings}");
        }
    }
}
