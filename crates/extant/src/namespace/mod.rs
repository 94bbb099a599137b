//! Names: directories on disk and inside inodes, and the operations that make, move and remove names.
//!
//! | file | what |
//! | --- | --- |
//! | `name.rs` | callers' names, checked; what the dots mean to each operation |
//! | `directory.rs`, `tree.rs` | entries in blocks, and the hash tree above them, wherever the blocks are |
//! | `read_dir.rs` | listing, by hash or by place |
//! | `inline.rs`, `disk.rs` | entries inside the inode; blocks through the map; which of the two |
//! | `spawn.rs` | new inodes: owner, mode, flags, access control lists |
//! | `create.rs`, `remove.rs`, `rename.rs` | the operations, each one transaction |
//! | `replay.rs` | names that fast commits brought and took |
//! | `encrypted.rs` | how names and targets look without their key |
//!
//! # Invariants
//! Each operation is one transaction: after a crash it has happened or it has not. An operation that is refused, or finds
//! no space, leaves the tree as it was; one that fails otherwise after its first change aborts the journal.
//! An inode without names that is still in use is on the orphan list.
//! # Locking
//! `Namespace::rename` (20) when a directory or file changes its parent; then `Inode::content` of the parents for writing
//! (an ancestor first, else by number), then of the inodes that they lose, by number; then a handle; then the locks of
//! `xattr`, `mapping`, `allocator`.
//! # Not here
//! Paths and what a caller holds open (`library`); freeing the blocks of inodes without names (`file`); opening files.
//! # Source
//! Kernel `fs/ext4/namei.c`, and of `fs/namei.c` what every file system gets from there: permissions, dots, locks.

mod create;
mod directory;
mod disk;
mod encrypted;
mod inline;
mod name;
mod read_dir;
mod remove;
mod rename;
mod replay;
mod spawn;
mod tree;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use extant_format::corruption::{Place, Rule};
use extant_format::fast_commit::Link;
use extant_format::hash::{CharSign, HashVersion};
use extant_format::inode::{InodeFlags, InodeRecord};
use extant_format::{Compat, FileType, Geometry, InodeNumber, RoCompat, Superblock, Timestamp};

pub use create::NodeKind;
use directory::{Found, Hashing};
use name::Name;
pub use read_dir::{DirCursor, Listed};
pub use rename::RenameFlags;

use crate::Error;
use crate::allocator::Allocator;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::inode_table::InodeTable;
use crate::mapping::Mapper;
use crate::orphans::Orphans;
use crate::report::Ineligible;
use crate::sync::{Mutex, Rank};
use crate::time::{Clock, Entropy};
use spawn::Plan;

use crate::trace::{Event, HandleType};
use crate::transaction::{Change, Credits, Handle, Naming, Transactions};
use crate::xattr::{Access, Xattrs};

/// The names of a volume.
pub(crate) struct Namespace {
    transactions: Arc<Transactions>,
    inodes: Arc<InodeTable>,
    mapper: Arc<Mapper>,
    allocator: Arc<Allocator>,
    orphans: Arc<Orphans>,
    xattrs: Arc<Xattrs>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    hashing: Hashing,
    /// The shape of the tree while a directory changes its parent.
    rename: Mutex<()>,
    /// All changes wait for their commit.
    synchronous: bool,
}

/// What an operation on names does, as its transaction is asked for.
#[derive(Clone, Copy)]
enum Deed<'a> {
    /// Makes an inode.
    Make(&'a Plan<'a>),
    /// Changes a directory, with so many credits.
    Change(&'a Inode, u32),
}

impl Namespace {
    /// The names of the volume that the others belong to.
    #[expect(clippy::too_many_arguments, reason = "the layers that names are made of, each once")]
    pub(crate) fn new(
        transactions: Arc<Transactions>,
        inodes: Arc<InodeTable>,
        mapper: Arc<Mapper>,
        allocator: Arc<Allocator>,
        orphans: Arc<Orphans>,
        xattrs: Arc<Xattrs>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        superblock: &Superblock,
    ) -> Self {
        let hashing = Hashing {
            version: HashVersion::from_byte(superblock.raw().def_hash_version)
                .unwrap_or(HashVersion::HalfMd4),
            // Who never said is taken for a machine with signed characters, which the superblock is told at the mount.
            sign: superblock.hash_sign().unwrap_or(CharSign::Signed),
            seed: superblock.hash_seed(),
        };
        let rename = Mutex::new(Rank::Rename, ());
        Self {
            transactions,
            inodes,
            mapper,
            allocator,
            orphans,
            xattrs,
            clock,
            entropy,
            hashing,
            rename,
            synchronous: false,
        }
    }

    /// The same, with all changes waiting for their commit or, by default, only those of directories that are marked so.
    #[must_use]
    pub(crate) fn synchronous(self, on: bool) -> Self {
        Self { synchronous: on, ..self }
    }

    /// The inode that `name` leads to from the directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NameTooLong`], [`Error::AccessDenied`], or what is broken.
    /// # Locks
    /// Takes `content` for reading.
    pub(crate) fn lookup(
        &self,
        caller: &Caller,
        dir: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Arc<Inode>, Error> {
        let name = Name::parse(name)?;
        require_directory(dir)?;
        self.xattrs.check_access(dir, caller, Access::EXECUTE)?;
        let _content = dir.content.read();
        match name {
            Name::Dot => Ok(Arc::clone(dir)),
            Name::DotDot => self.above(dir),
            Name::Entry(name) => {
                self.target(dir, self.find_name(dir, name)?.ok_or(Error::NotFound)?)
            }
        }
    }

    /// The directory that this one is in; the root is in itself.
    ///
    /// # Locks
    /// Takes `content` for reading.
    pub(crate) fn parent(&self, dir: &Inode) -> Result<Arc<Inode>, Error> {
        require_directory(dir)?;
        let _content = dir.content.read();
        self.above(dir)
    }

    /// What `..` leads to. Above a directory that was removed there may be nothing any more, or something else.
    fn above(&self, dir: &Inode) -> Result<Arc<Inode>, Error> {
        require_alive(dir)?;
        self.target(dir, self.find_entry(dir, b"..")?.ok_or(Error::NotFound)?)
    }

    /// Hands names from `cursor` on to `sink`, the dots among them, until it has enough; the caller has opened the directory.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; [`Error::NotFound`] for a directory that was removed; what is broken.
    /// # Locks
    /// Takes `content` for reading, while `sink` runs too: it must not come back here.
    pub(crate) fn read_dir(
        &self,
        dir: &Inode,
        cursor: DirCursor,
        sink: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        require_directory(dir)?;
        let _content = dir.content.read();
        require_alive(dir)?;
        if dir.flags().contains(InodeFlags::ENCRYPT) {
            return self.list_entries(dir, cursor, &mut |listed| {
                let shown = self.shown_name(listed.name);
                sink(Listed { name: &shown, ..listed })
            });
        }
        self.list_entries(dir, cursor, sink)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is something else; what is broken.
    /// # Source
    /// Kernel `fs/ext4/symlink.c`.
    pub(crate) fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let record = inode.core.lock().clone();
        if record.file_type() != Some(FileType::Symlink) {
            return Err(Error::Invalid("not a symbolic link"));
        }
        let len = usize::try_from(record.size).unwrap_or(usize::MAX);
        let mut target = if record.is_fast_symlink(self.geometry()) {
            record.block.to_vec()
        } else if record.flags.contains(InodeFlags::INLINE_DATA) {
            self.inodes.read_inline(inode)?
        } else {
            self.link_block(inode)?
        };
        Place::Inode(inode.number()).require(len <= target.len(), Rule::FileSize)?;
        target.truncate(len);
        if record.flags.contains(InodeFlags::ENCRYPT) {
            return self.shown_target(inode, &target);
        }
        target.truncate(target.iter().position(|&byte| byte == 0).unwrap_or(len));
        Ok(target)
    }

    fn geometry(&self) -> &Geometry {
        self.transactions.geometry()
    }

    /// The entry for a caller's name: without a key, an encrypted directory's names are what they are shown as.
    fn find_name(&self, dir: &Inode, name: &[u8]) -> Result<Option<Found>, Error> {
        if dir.flags().contains(InodeFlags::ENCRYPT) {
            self.find_shown(dir, name)
        } else {
            self.find_entry(dir, name)
        }
    }

    /// The inode that an entry leads to: an ordinary one, or the root, that knows of having a name.
    ///
    /// # Locks
    /// The caller holds the directory's `content`, so that the name is not being taken from it.
    /// # Source
    /// Kernel `ext4_lookup`, `ext4_valid_inum`.
    fn target(&self, dir: &Inode, found: Found) -> Result<Arc<Inode>, Error> {
        let at = Place::Inode(dir.number());
        let first = self.geometry().first_inode;
        let may_be = found.inode == InodeNumber::ROOT || found.inode.get() >= first;
        at.require(may_be, Rule::EntryInode)?;
        let inode = match self.inodes.get(found.inode) {
            Err(Error::Stale(_)) => return Err(at.breaks(Rule::EntryInode).into()), // it is free
            result => result?,
        };
        if inode.core.lock().links == 0 {
            // Nor is it to be freed for having no names, unless it lost them here and is in use.
            self.inodes.drop_unused(&inode);
            return Err(at.breaks(Rule::EntryInode).into());
        }
        Ok(inode)
    }

    /// Runs one operation in a transaction of its own; once more after a commit if there was no space, since what was
    /// freed becomes usable with the commit.
    ///
    /// # Locks
    /// The caller holds content locks, and nothing after them.
    fn transact<R>(
        &self,
        caller: &Caller,
        deed: Deed<'_>,
        sync: bool,
        mut operation: impl FnMut(&mut Handle<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let tracer = self.transactions.tracer();
        let credits = match deed {
            Deed::Make(plan) => {
                let (dir, mode) = (plan.dir(), plan.record.mode);
                tracer.emit(|| Event::RequestInode { dir, mode });
                Credits::blocks(plan.credits(), self.geometry()).of_volume(HandleType::Directory)
            }
            Deed::Change(dir, blocks) => {
                let credits = Credits::blocks(blocks, self.geometry());
                credits.of(HandleType::Directory, dir.number())
            }
        };
        let mut attempt = 0;
        loop {
            let mut handle = self.transactions.begin(credits.by(caller))?;
            if sync || self.synchronous {
                handle.set_sync();
            }
            match operation(&mut handle) {
                Ok(result) => return handle.stop().map(|()| result),
                Err(error) if error.is_no_space() && attempt == 0 => {
                    handle.stop()?;
                    self.transactions.sync()?;
                }
                Err(error) => return Err(handle.fail(error)),
            }
            attempt += 1;
        }
    }

    /// Tells the next fast commit that a name of what is no directory came or went.
    fn note_name(
        &self,
        handle: &Handle<'_>,
        naming: Naming,
        (dir, name): (&Inode, &[u8]),
        inode: &Inode,
    ) {
        if !handle.notes_changes() {
            return;
        }
        let flags = dir.flags();
        let link = Link { parent: dir.number(), inode: inode.number(), name };
        handle.note(match naming {
            _ if flags.contains(InodeFlags::ENCRYPT) => {
                Change::Unrecorded(Ineligible::EncryptedName)
            }
            _ if flags.contains(InodeFlags::CASEFOLD) => {
                Change::Unrecorded(Ineligible::Unrecordable)
            }
            Naming::Created => Change::Create(link),
            Naming::Linked => Change::Link(link),
            Naming::Unlinked => Change::Unlink(link),
        });
    }

    /// Notes in a directory that its names have changed, and stores it.
    fn touch(&self, handle: &mut Handle<'_>, dir: &Inode) -> Result<(), Error> {
        self.touch_at(handle, dir, self.clock.wall())
    }

    /// The same, as of another time.
    fn touch_at(&self, handle: &mut Handle<'_>, dir: &Inode, when: Timestamp) -> Result<(), Error> {
        {
            let mut core = dir.core.lock();
            (core.mtime, core.ctime, core.version) = (when, when, core.version.wrapping_add(1));
            if !self.geometry().compat.contains(Compat::DIR_INDEX) {
                core.flags -= InodeFlags::INDEX;
            }
        }
        self.inodes.store(handle, dir)
    }

    /// Adds a subdirectory's `..` to the links of a directory.
    ///
    /// Source: kernel `ext4_inc_count`.
    fn add_link(&self, dir: &Inode) {
        let indexed = self.shape(dir).indexed;
        let mut core = dir.core.lock();
        core.links = match core.links.saturating_add(1) {
            2 if indexed => 1,
            links if indexed && links > MAX_LINKS => 1,
            links => links,
        };
    }

    /// Takes a name, or a subdirectory's `..`, from the links of an inode.
    ///
    /// Source: kernel `ext4_dec_count`.
    fn drop_link(&self, inode: &Inode) {
        let mut core = inode.core.lock();
        if core.file_type() != Some(FileType::Directory) || core.links > 2 {
            core.links = core.links.saturating_sub(1);
        }
    }

    /// Whether the directory has as many subdirectories as it can count.
    ///
    /// Source: kernel `EXT4_DIR_LINK_MAX`.
    fn check_subdirectories(&self, dir: &Inode) -> Result<(), Error> {
        let uncounted =
            self.geometry().ro_compat.contains(RoCompat::DIR_NLINK) && self.shape(dir).indexed;
        let full = dir.core.lock().links >= MAX_LINKS && !uncounted;
        if full { Err(Error::TooManyLinks) } else { Ok(()) }
    }

    /// Source: kernel `fs/namei.c`, `may_create`.
    fn check_addition(&self, dir: &Inode, caller: &Caller) -> Result<(), Error> {
        require_alive(dir)?;
        self.transactions.check_writable()?;
        self.xattrs.check_access(dir, caller, Access::WRITE | Access::EXECUTE)?;
        if dir.flags().contains(InodeFlags::ENCRYPT) { Err(Error::NoKey) } else { Ok(()) }
    }

    /// Source: kernel `fs/namei.c`, `may_delete`.
    fn check_removal(&self, dir: &Inode, victim: &Inode, caller: &Caller) -> Result<(), Error> {
        self.transactions.check_writable()?;
        self.xattrs.check_access(dir, caller, Access::WRITE | Access::EXECUTE)?;
        let (dir, victim) = (record_of(dir), record_of(victim));
        crate::xattr::check_removal(&dir, &victim, caller)
    }
}

fn record_of(inode: &Inode) -> InodeRecord {
    inode.core.lock().clone()
}

fn require_directory(inode: &Inode) -> Result<(), Error> {
    if inode.file_type() == FileType::Directory { Ok(()) } else { Err(Error::NotDirectory) }
}

/// A directory that was removed while in use gets no more names.
fn require_alive(dir: &Inode) -> Result<(), Error> {
    if dir.core.lock().links == 0 { Err(Error::NotFound) } else { Ok(()) }
}

/// Whether changes of the directory's names wait for their commit.
fn is_sync(dir: &Inode) -> bool {
    dir.flags().intersects(InodeFlags::SYNC | InodeFlags::DIRSYNC)
}

/// The most links of an inode.
const MAX_LINKS: u16 = 65_000;

#[cfg(test)]
mod tests;
