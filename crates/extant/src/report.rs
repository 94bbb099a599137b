//! What files and volumes look like to those who look at them from outside.

use alloc::vec::Vec;
use core::time::Duration;

use extant_format::InodeNumber;
use extant_format::inode::{FileType, InodeFlags};
use extant_format::timestamp::Timestamp;

/// What an error that is found does to a volume: `errors=` of ext4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnError {
    /// Whoever asked is told; all else goes on (`errors=continue`). Without its journal a volume can only be read, as in the
    /// kernel.
    Continue,
    /// Nothing is changed any more (`errors=remount-ro`).
    ReadOnly,
    /// Nothing is changed any more, and whoever has it mounted ends at once: the image is as after a power cut
    /// (`errors=panic`).
    Panic,
}

/// A file's attributes.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The inode's number.
    pub inode: InodeNumber,
    /// File type and permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Names that lead to it.
    pub links: u32,
    /// Bytes; for a symbolic link the length of its target.
    pub size: u64,
    /// Space used or promised, in units of 512 bytes.
    pub blocks: u64,
    /// Major and minor number of a device file.
    pub device: Option<(u32, u32)>,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the bytes.
    pub modified: Timestamp,
    /// Last change of the attributes.
    pub changed: Timestamp,
    /// Birth, where the image has room for it.
    pub created: Option<Timestamp>,
    /// The inode's flags.
    pub flags: InodeFlags,
    /// Tells this use of the inode's number from earlier ones.
    pub generation: u32,
    /// The project, on a volume that has projects.
    pub project: u32,
}

impl Metadata {
    /// Regular file, directory, ...
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode).expect("an inode without a type is not handed out")
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::Regular
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// The permission bits, with set-user, set-group and sticky.
    pub fn permissions(&self) -> u16 {
        self.mode & 0o7777
    }
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: InodeNumber,
    pub(crate) file_type: Option<FileType>,
}

impl DirEntry {
    /// The name: bytes, without a slash or a zero.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The inode that it leads to.
    pub fn inode(&self) -> InodeNumber {
        self.inode
    }

    /// The file's type, where the directory says it.
    pub fn file_type(&self) -> Option<FileType> {
        self.file_type
    }
}

/// Where a run of a file's blocks lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileExtent {
    /// First block of the run in the file.
    pub logical: u32,
    /// First block of the run on the device; `None` while it has no place.
    pub physical: Option<u64>,
    /// Blocks.
    pub len: u32,
    /// What the run is.
    pub state: FileExtentState,
    /// Nothing but a hole follows in the range that was asked for.
    pub last: bool,
}

/// What a run of a file's blocks is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileExtentState {
    /// Written: reads what is on the device.
    Written,
    /// Allocated ahead: reads zeroes.
    Unwritten,
    /// In memory with space promised, no place yet.
    Delayed,
    /// In the inode itself, without a block of its own.
    Inline {
        /// Where the first of its bytes lies on the device, in bytes.
        at: u64,
        /// How many there are.
        bytes: u32,
    },
}

/// What becomes of a range of a file's bytes.
///
/// Source: `fallocate(2)`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RangeChange {
    /// Blocks are allocated where there are none, and read as zeros; nothing else changes.
    Allocate {
        /// The file does not grow, though blocks may lie behind its end.
        keep_size: bool,
    },
    /// It becomes a hole. The file keeps its size.
    PunchHole,
    /// It reads as zeros, with blocks allocated for all of it.
    Zero {
        /// The file does not grow.
        keep_size: bool,
    },
    /// It is taken out, and what lies behind moves down. Whole clusters only, and not up to the end of the file.
    Collapse,
    /// A hole is pushed in, and what lies behind moves up. Whole clusters only, and before the end of the file.
    Insert,
}

/// What is still made durable by a forced shutdown.
///
/// Source: kernel `EXT4_IOC_SHUTDOWN`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shutdown {
    /// Everything; the image is left clean.
    AfterSync,
    /// The metadata changed so far; data that has no place yet is lost.
    AfterLog,
    /// Nothing, as if the power had failed.
    AtOnce,
}

/// Which steps of writing a range out are taken, in this order.
///
/// Source: `sync_file_range(2)`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RangeSync {
    /// Waits for what is being written.
    pub wait_before: bool,
    /// Writes what is dirty.
    pub write: bool,
    /// Waits for that.
    pub wait_after: bool,
}

/// Sizes and counts of the volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Statfs {
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks that files can have.
    pub blocks: u64,
    /// Blocks that are neither used nor promised.
    pub free_blocks: u64,
    /// Of these, blocks that an unprivileged caller can have.
    pub available_blocks: u64,
    /// Inodes.
    pub inodes: u64,
    /// Inodes not in use.
    pub free_inodes: u64,
    /// The longest name in bytes.
    pub name_bytes: u32,
}

/// What has been asked of device, journal and allocator since the mount.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Read requests.
    pub device_reads: u64,
    /// Bytes read.
    pub device_read_bytes: u64,
    /// Write requests.
    pub device_writes: u64,
    /// Bytes written.
    pub device_write_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Blocks written to the journal, with descriptors and commit blocks.
    pub journal_blocks: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Handles started.
    pub handles: u64,
    /// Calls of the block allocator.
    pub allocator_calls: u64,
    /// Of these, how many searched the bitmaps; the others took what an earlier call had set aside.
    pub allocator_searches: u64,
}

impl Counters {
    /// What was added after `earlier`, which was asked of the same mount.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            device_reads: self.device_reads - earlier.device_reads,
            device_read_bytes: self.device_read_bytes - earlier.device_read_bytes,
            device_writes: self.device_writes - earlier.device_writes,
            device_write_bytes: self.device_write_bytes - earlier.device_write_bytes,
            flushes: self.flushes - earlier.flushes,
            journal_blocks: self.journal_blocks - earlier.journal_blocks,
            commits: self.commits - earlier.commits,
            handles: self.handles - earlier.handles,
            allocator_calls: self.allocator_calls - earlier.allocator_calls,
            allocator_searches: self.allocator_searches - earlier.allocator_searches,
        }
    }
}

/// Free space of one block group as its buddy has it; `/proc/fs/ext4/*/mb_groups` in the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupSpace {
    /// The group's number.
    pub group: u32,
    /// Free clusters.
    pub free: u32,
    /// Runs of free clusters.
    pub fragments: u32,
    /// The first free cluster; the number of clusters if none is.
    pub first_free: u32,
    /// Free chunks of each power of two.
    pub chunks: Vec<u32>,
}

/// What is known of files' blocks in memory; `/proc/fs/ext4/*/es_shrinker_info` in the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatusStats {
    /// Runs of blocks in all status trees.
    pub runs: u64,
    /// Of these, runs that may be forgotten.
    pub reclaimable: u64,
    /// Lookups that found their block.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
}

/// What the allocator has done; `/proc/fs/ext4/*/mb_stats` in the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AllocatorStats {
    /// Requests.
    pub requests: u64,
    /// Searches of the buddies, for requests that nothing set aside could serve.
    pub searches: u64,
}

/// What a mount has in memory, and how full its log is, at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MemoryCounters {
    /// Bytes of files.
    pub cached_bytes: u64,
    /// Of these, bytes that are not on the device yet.
    pub dirty_bytes: u64,
    /// Bytes on their way to the device.
    pub writeback_bytes: u64,
    /// Free blocks of the journal's log; `None` without a journal.
    pub free_log_blocks: Option<u32>,
    /// Blocks of metadata that were committed and are not home yet.
    pub pending_blocks: u64,
}

/// The counters that the kernel shows under `/sys/fs/ext4` and `/proc/fs/ext4`, by its names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KernelCounters {
    /// Clusters promised to delayed data.
    pub delayed_allocation_blocks: u64,
    /// Written since the mount, in units of 1,024 bytes.
    pub session_write_kbytes: u64,
    /// Written since the volume was made, in units of 1,024 bytes.
    pub lifetime_write_kbytes: u64,
    /// Clusters kept back for metadata of delayed data.
    pub reserved_clusters: u64,
    /// Writes that found no space although they waited for commits.
    pub sra_exceeded_retry_limit: u64,
    /// `es_shrinker_info`.
    pub es_stats: StatusStats,
    /// `mb_stats`.
    pub mb_stats: AllocatorStats,
    /// `fc_info`; `None` on a volume without fast commits.
    pub fc_info: Option<FastCommitStats>,
}

/// Fast commits, as `fc_info` shows them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FastCommitStats {
    /// Those that were written.
    pub commits: u64,
    /// Requests that a full commit had to answer.
    pub ineligible: u64,
    /// Blocks that were written.
    pub blocks: u64,
    /// How long one takes, the last ones weighed more.
    pub average_time: Duration,
    /// How often each [`Ineligible`] has come up, by [`Ineligible::index`].
    pub reasons: [u64; Ineligible::COUNT],
}

/// Why a transaction can be committed in full only: the kernel's reasons, in its order, and one more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ineligible {
    /// Extended attributes changed, or inline data left its inode.
    Attributes,
    /// Two names were exchanged.
    Exchange,
    /// A file's data is journaled from now on, or not any more.
    JournalFlag,
    /// Memory was short.
    NoMemory,
    /// The boot loader's inode was exchanged.
    BootLoader,
    /// The file system grew.
    Resize,
    /// A directory got another name.
    RenameDirectory,
    /// A range was taken out of a file, or pushed in.
    ShiftRange,
    /// Data is journaled, or what changed is no file.
    JournaledData,
    /// A name is encrypted.
    EncryptedName,
    /// Not among the kernel's, which records it all the same, and replays it wrong or not at all: directories that come and go
    /// or get other attributes, files of indirect blocks, names of files that had none, orphans of older
    /// transactions.
    Unrecordable,
}

impl Ineligible {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// The kernel's number.
    pub const fn index(self) -> usize {
        match self {
            Self::Attributes => 0,
            Self::Exchange => 1,
            Self::JournalFlag => 2,
            Self::NoMemory => 3,
            Self::BootLoader => 4,
            Self::Resize => 5,
            Self::RenameDirectory => 6,
            Self::ShiftRange => 7,
            Self::JournaledData => 8,
            Self::EncryptedName => 9,
            Self::Unrecordable => 10,
        }
    }
}

/// What to change; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttributes {
    /// Permission bits with set-user, set-group and sticky.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Owning group.
    pub gid: Option<u32>,
    /// Last access.
    pub accessed: Option<Timestamp>,
    /// Last change of the bytes.
    pub modified: Option<Timestamp>,
    /// The times are the present moment, which whoever may write to a file may set, and an append-only file may have.
    pub now: bool,
    /// The flags that users may change; others are left as they are.
    pub flags: Option<InodeFlags>,
    /// The project.
    pub project: Option<u32>,
}
