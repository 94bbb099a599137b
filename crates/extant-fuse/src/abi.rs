//! The layouts and numbers of the FUSE protocol, in the machine's byte order.
//!
//! # Source
//! Kernel `include/uapi/linux/fuse.h`; the names are its names without prefix.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's version that is spoken here.
pub const MAJOR: u32 = 7;
/// The newest minor version that is known here.
pub const MINOR: u32 = 45;
/// The kernel's number for the root directory.
pub const ROOT_ID: u64 = 1;
/// The most bytes of one read or write: the kernel's own limit, unless `fs.fuse.max_pages_limit` was raised.
pub const MAX_BYTES: u32 = 1 << 20;

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident = $bytes:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
            #[repr(C)]
            #[expect(missing_docs, reason = "the fields are the protocol's")]
            pub struct $name {
                $(pub $field: $type,)*
            }
            const _: () = assert!(size_of::<$name>() == $bytes);
        )*
    };
}

layouts! {
    /// What every request begins with.
    InHeader = 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    }
    /// What every answer begins with; the error is negative.
    OutHeader = 16 { len: u32, error: i32, unique: u64, }
    /// Attributes of an inode.
    Attr = 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// An inode that was found or made.
    EntryOut = 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }
    ForgetIn = 8 { nlookup: u64, }
    ForgetOne = 16 { nodeid: u64, nlookup: u64, }
    BatchForgetIn = 8 { count: u32, dummy: u32, }
    AttrOut = 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    MknodIn = 16 { mode: u32, rdev: u32, umask: u32, padding: u32, }
    MkdirIn = 8 { mode: u32, umask: u32, }
    RenameIn = 8 { newdir: u64, }
    Rename2In = 16 { newdir: u64, flags: u32, padding: u32, }
    LinkIn = 8 { oldnodeid: u64, }
    SetattrIn = 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    OpenIn = 8 { flags: u32, open_flags: u32, }
    CreateIn = 16 { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    OpenOut = 16 { fh: u64, open_flags: u32, backing_id: u32, }
    ReleaseIn = 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    ReadIn = 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32, }
    WriteIn = 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32, }
    WriteOut = 8 { size: u32, padding: u32, }
    StatfsOut = 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    FsyncIn = 16 { fh: u64, fsync_flags: u32, padding: u32, }
    SetxattrIn = 16 { size: u32, flags: u32, setxattr_flags: u32, padding: u32, }
    GetxattrIn = 8 { size: u32, padding: u32, }
    InitIn = 64 { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11], }
    InitOut = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    FallocateIn = 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    LseekIn = 24 { fh: u64, offset: u64, whence: u32, padding: u32, }
    LseekOut = 8 { offset: u64, }
    CopyFileRangeIn = 56 {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    CopyFileRangeOut = 8 { bytes_copied: u64, }
    IoctlIn = 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32, }
    IoctlOut = 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32, }
    /// What FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR carry.
    FsXattr = 28 { xflags: u32, extsize: u32, nextents: u32, projid: u32, cowextsize: u32, padding: [u32; 2], }
    /// What FITRIM carries, in bytes.
    FsTrimRange = 24 { start: u64, len: u64, minlen: u64, }
    /// Tells the kernel to forget attributes, and bytes from `off` on if that is not negative.
    NotifyInvalInodeOut = 24 { ino: u64, off: i64, len: i64, }
    BmapIn = 16 { block: u64, blocksize: u32, padding: u32, }
    BmapOut = 8 { block: u64, }
    /// What a name in a listing begins with.
    Dirent = 24 { ino: u64, off: u64, namelen: u32, kind: u32, }
    StatxIn = 24 { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, }
    SxTime = 16 { tv_sec: i64, tv_nsec: u32, reserved: i32, }
    Statx = 256 {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64,
        size: u64, blocks: u64, attributes_mask: u64, atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    StatxOut = 288 { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx, }
}

/// What a request asks for.
pub mod opcode {
    #![expect(missing_docs, reason = "the names are the protocol's")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const READDIR: u32 = 28;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

bitflags::bitflags! {
    /// What kernel and server agree on at the start.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Init: u64 {
        /// Several reads of one file at a time.
        const ASYNC_READ = 1;
        /// `O_TRUNC` comes with open.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// Writes of more than a page.
        const BIG_WRITES = 1 << 5;
        /// The server applies the umask, where no default access list is in the way.
        const DONT_MASK = 1 << 6;
        /// READDIRPLUS.
        const DO_READDIRPLUS = 1 << 13;
        /// READDIRPLUS where it pays.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Several direct requests at a time.
        const ASYNC_DIO = 1 << 15;
        /// The kernel keeps dirty pages.
        const WRITEBACK_CACHE = 1 << 16;
        /// Look-ups and listings of one directory side by side.
        const PARALLEL_DIROPS = 1 << 18;
        /// Access lists are checked by the kernel.
        const POSIX_ACL = 1 << 20;
        /// `max_pages` is set.
        const MAX_PAGES = 1 << 22;
        /// Symbolic links may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// No OPENDIR if the server does not know it.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// The server takes set-user bits and capabilities away where it is told to.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR says whether the set-group bit goes.
        const SETXATTR_EXT = 1 << 29;
        /// The upper half of these is valid.
        const INIT_EXT = 1 << 30;
        /// Direct files may be mapped.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
    }

    /// Which fields of SETATTR count.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Set: u32 {
        /// `mode`
        const MODE = 1;
        /// `uid`
        const UID = 1 << 1;
        /// `gid`
        const GID = 1 << 2;
        /// `size`
        const SIZE = 1 << 3;
        /// `atime`
        const ATIME = 1 << 4;
        /// `mtime`
        const MTIME = 1 << 5;
        /// `fh`: the file is open.
        const FH = 1 << 6;
        /// The time of last access is now.
        const ATIME_NOW = 1 << 7;
        /// The time of the last change of bytes is now.
        const MTIME_NOW = 1 << 8;
        /// The time of the last change of attributes: the kernel brings times that it kept.
        const CTIME = 1 << 10;
        /// Set-user and set-group bits go.
        const KILL_SUIDGID = 1 << 11;
    }
}

/// What is agreed on with a kernel that has made this offer: all that both know, but for dirty pages in the kernel unless they
/// are wanted there. A kernel that speaks another major version asks again in this one if it can, and ends it if not.
pub fn agree(asked: &InitIn, writeback_cache: bool) -> InitOut {
    let mut out = InitOut { major: MAJOR, minor: MINOR, ..Default::default() };
    if asked.major != MAJOR {
        return out;
    }
    let offered = Init::from_bits_retain(u64::from(asked.flags2) << 32 | u64::from(asked.flags));
    let mut wanted = Init::all();
    wanted.set(Init::WRITEBACK_CACHE, writeback_cache);
    let agreed = (offered & wanted).bits();
    out.flags = u32::try_from(agreed & u64::from(u32::MAX)).unwrap_or(0);
    out.flags2 = u32::try_from(agreed >> 32).unwrap_or(0);
    out.max_readahead = asked.max_readahead.max(MAX_BYTES);
    (out.max_background, out.congestion_threshold) = (64, 48);
    out.max_write = MAX_BYTES;
    out.max_pages = u16::try_from(MAX_BYTES / 4096).unwrap_or(u16::MAX);
    out.time_gran = 1;
    out
}

/// The bit of `flags2` by which kernel and server agree on queues over io_uring: the transport's own affair.
pub const OVER_IO_URING: u32 = 1 << (41 - 32);

/// The answer to OPEN with these flags. Who writes only, and through to the server, needs no copy of it in the kernel: that
/// takes memory twice, and a question for capabilities for each file. What others have in the kernel's cache it drops. It would
/// not sync what has to be.
pub const fn open_flags(flags: u32, writes_through: bool) -> u32 {
    if flags & DIRECT != 0 {
        OPEN_DIRECT_IO | OPEN_PARALLEL_DIRECT_WRITES
    } else if writes_through && flags & (ACCESS_MODE | DATA_SYNC) == WRITE_ONLY {
        OPEN_DIRECT_IO | OPEN_KEEP_CACHE
    } else {
        OPEN_KEEP_CACHE
    }
}

/// The bits of an open file's flags that say whether it may be read and written.
pub const ACCESS_MODE: u32 = 0o3;
const WRITE_ONLY: u32 = 0o1;
/// `O_DSYNC`, which is a part of `O_SYNC`.
const DATA_SYNC: u32 = 0o10000;
/// `O_DIRECT`.
pub const DIRECT: u32 = 0o40000;

/// The answer to OPEN: the kernel goes past its cache.
pub const OPEN_DIRECT_IO: u32 = 1;
/// The answer to OPEN: what the kernel has cached of the file is still right.
pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
/// The answer to OPEN: direct writes of one file may come side by side.
pub const OPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
/// FSYNC: data and what is needed to find it.
pub const FSYNC_DATA: u32 = 1;
/// OPEN that cuts the file: set-user and set-group bits go.
pub const OPEN_KILL_SUIDGID: u32 = 1;
/// WRITE: it comes from the kernel's cache, whoever brings it.
pub const WRITE_CACHE: u32 = 1;
/// WRITE: they go unless whoever writes may set them. The kernel says so of every write through its cache.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// SETXATTR: the set-group bit goes.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1;
/// In the error's place of a message that answers no request: attributes that the kernel knows are old.
pub const NOTIFY_INVAL_INODE: i32 = 2;
