//! How a volume is mounted.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::task::Waker;
use core::time::Duration;

use extant_device::BlockDevice;
use extant_format::superblock::DefaultMountOptions;
use extant_format::{Compat, Superblock};

use crate::Error;
use crate::time::Pause;
use crate::trace::{TraceSink, Tracer};

/// What to do with data before the transaction that makes it reachable commits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DataMode {
    /// It is part of the transaction, and goes to its place afterwards (`data=journal`). Space is then allocated at once,
    /// and nothing goes past the cache.
    Journal,
    /// Written first (`data=ordered`).
    #[default]
    Ordered,
    /// At any time (`data=writeback`).
    Writeback,
}

/// Where space is looked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Placement {
    /// As the kernel does: near the directory, with room to grow, by groups.
    #[default]
    ByGroup,
    /// One after the other: what is asked for at once gets the next free run that holds all of it, if there is one, and
    /// nothing is set aside. For images that are filled once.
    Sequential,
}

/// How this host is known to others that share a device with it, and how it waits for them.
#[derive(Clone)]
pub struct Host {
    /// Its name; 63 bytes of it count.
    pub node: String,
    /// What the device is called here; 31 bytes of it count.
    pub device: String,
    /// Lets time pass.
    pub pause: Arc<dyn Pause>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, device, pause: _ } = self;
        f.debug_struct("Host").field("node", node).field("device", device).finish_non_exhaustive()
    }
}

/// A device, of which there is nothing to show.
#[derive(Clone)]
pub(crate) struct JournalDevice(pub(crate) Arc<dyn BlockDevice>);

impl fmt::Debug for JournalDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JournalDevice")
    }
}

/// How a volume is mounted; by the kernel's names and defaults where it has them.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Nothing is changed, not even to recover the journal (`ro`).
    pub(crate) read_only: bool,
    /// Places are chosen when data is written back (`delalloc`), not when it is written.
    pub(crate) delayed_allocation: bool,
    /// Whether somebody has said so, or otherwise.
    pub(crate) is_delay_asked_for: bool,
    /// Files get more room than was asked for, so that they can grow in place.
    pub(crate) preallocation: bool,
    /// Blocks are allocated unwritten and converted when their data is on the device (`dioread_nolock`).
    pub(crate) unwritten_until_done: bool,
    /// Replace by rename or truncate starts writeback (`auto_da_alloc`).
    pub(crate) auto_da_alloc: bool,
    /// Where space is looked for.
    pub(crate) placement: Placement,
    /// The journal stays as it is, unused.
    pub(crate) unjournaled: bool,
    /// Flushes around commits (`barrier`).
    pub(crate) barriers: bool,
    /// `None`: as the superblock says.
    pub(crate) data_mode: Option<DataMode>,
    /// `fsync` writes fast commits where the volume has the feature.
    pub(crate) fast_commits: bool,
    /// How old a transaction may become (`commit=`).
    pub(crate) commit_interval: Duration,
    /// Memory for cached file bytes.
    pub(crate) cache_bytes: u64,
    /// Share of the cache, in percent, from which dirty data is written back.
    pub(crate) dirty_background_percent: u64,
    /// Share of the cache, in percent, from which writers have to help.
    pub(crate) dirty_percent: u64,
    /// How long data may stay dirty (`dirty_expire_centisecs`).
    pub(crate) dirty_expire: Duration,
    /// How often the flusher looks (`dirty_writeback_centisecs`).
    pub(crate) dirty_interval: Duration,
    /// Folios are as large as the kernel's, and no larger.
    pub(crate) kernel_folios: bool,
    /// Who is told what happens.
    pub(crate) tracer: Tracer,
    /// The number of the process that writes.
    pub(crate) process: Option<u32>,
    /// Processors of the machine.
    pub(crate) processors: u32,
    /// What commits free is discarded (`discard`).
    pub(crate) discard: bool,
    /// Changes of names wait for their commit (`dirsync`).
    pub(crate) synchronous_names: bool,
    /// What memory knows of blocks is compared with the map on disk, always.
    pub(crate) check_status: bool,
    /// Whom to wake when a tick would have something to do before its time.
    pub(crate) waker: Option<Waker>,
    /// Where the journal is, if not on the volume.
    pub(crate) journal_device: Option<JournalDevice>,
    /// As whom to take a volume that several hosts may want.
    pub(crate) host: Option<Host>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            delayed_allocation: true,
            is_delay_asked_for: false,
            preallocation: true,
            unwritten_until_done: true,
            auto_da_alloc: true,
            placement: Placement::ByGroup,
            unjournaled: false,
            barriers: true,
            data_mode: None,
            fast_commits: true,
            commit_interval: Duration::from_secs(5),
            cache_bytes: 256 << 20,
            dirty_background_percent: 10,
            dirty_percent: 20,
            dirty_expire: Duration::from_secs(30),
            dirty_interval: Duration::from_secs(5),
            kernel_folios: false,
            tracer: Tracer::default(),
            process: None,
            processors: 2,
            discard: false,
            synchronous_names: false,
            check_status: cfg!(test),
            waker: None,
            journal_device: None,
            host: None,
        }
    }
}

impl MountOptions {
    /// Read and write, with the kernel's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Read only: the device is never written, and a journal that needs recovery is read through.
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::default() }
    }

    /// Whether nothing is written, as [`Self::read_only`].
    #[must_use]
    pub fn reading(self, on: bool) -> Self {
        Self { read_only: on, ..self }
    }

    /// Whether places are chosen at writeback (the default) or at once.
    #[must_use]
    pub fn delayed_allocation(self, on: bool) -> Self {
        Self { delayed_allocation: on, is_delay_asked_for: true, ..self }
    }

    /// Whether files get more room than was asked for, so that they can grow in place (the default, as the kernel's
    /// multi-block allocator does). Without it, and with [`Self::delayed_allocation`] off, each block of data is asked for
    /// by itself and taken from the last one on, as allocators did before (ext2, `libext2fs`): for experiments. Data that was
    /// delayed still gets one run for as much as is written back at once.
    #[must_use]
    pub fn preallocation(self, on: bool) -> Self {
        Self { preallocation: on, ..self }
    }

    /// Whether blocks stay unwritten until their data is on the device (`dioread_nolock`, the default) or are
    /// allocated written, with the commit waiting for the data (`dioread_lock`).
    #[must_use]
    pub fn unwritten_until_done(self, on: bool) -> Self {
        Self { unwritten_until_done: on, ..self }
    }

    /// Whether a file replaced by rename or truncate is written back early (the default).
    #[must_use]
    pub fn auto_da_alloc(self, on: bool) -> Self {
        Self { auto_da_alloc: on, ..self }
    }

    /// Where space is looked for.
    #[must_use]
    pub fn placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// Whether the volume is treated as if it had no journal: what is changed goes home by itself at a sync, and a crash before
    /// the unmount leaves an image that only e2fsck can repair, if anybody. For images that nobody needs before they are
    /// whole. A journal that needs recovery is refused.
    #[must_use]
    pub fn unjournaled(self, on: bool) -> Self {
        Self { unjournaled: on, ..self }
    }

    /// Whether commits flush the device's cache (the default).
    #[must_use]
    pub fn barriers(self, on: bool) -> Self {
        Self { barriers: on, ..self }
    }

    /// What to do with data before a commit; else it is what the superblock says, or ordered. With [`DataMode::Journal`]
    /// nothing is delayed, and to ask for both is refused.
    #[must_use]
    pub fn data_mode(self, mode: DataMode) -> Self {
        Self { data_mode: Some(mode), ..self }
    }

    /// Whether `fsync` writes fast commits, if the volume has the feature `fast_commit` (the default).
    #[must_use]
    pub fn fast_commits(self, on: bool) -> Self {
        Self { fast_commits: on, ..self }
    }

    /// How old a transaction may become before a tick commits it.
    #[must_use]
    pub fn commit_interval(self, interval: Duration) -> Self {
        Self { commit_interval: interval, ..self }
    }

    /// The share of the cache, in percent, from which on dirty data is written back at the next tick
    /// (`dirty_background_ratio`, 10). If it does not lie below [`Self::dirty_ratio`], half of that.
    #[must_use]
    pub fn dirty_background_ratio(self, percent: u8) -> Self {
        Self { dirty_background_percent: percent.min(100).into(), ..self }
    }

    /// The share of the cache, in percent, from which on writers help to write dirty data back (`dirty_ratio`, 20). The
    /// kernel's default leaves room for everything else that wants memory; a program whose cache is for writing alone may
    /// fill more of it.
    #[must_use]
    pub fn dirty_ratio(self, percent: u8) -> Self {
        Self { dirty_percent: percent.clamp(1, 100).into(), ..self }
    }

    /// How long data may stay dirty before a tick writes it back (`dirty_expire_centisecs`, 30 s).
    #[must_use]
    pub fn dirty_expire(self, age: Duration) -> Self {
        Self { dirty_expire: age, ..self }
    }

    /// How often ticks look for data that is dirty for so long (`dirty_writeback_centisecs`, 5 s); zero: never, and it is
    /// written when there is too much of it, or when somebody syncs.
    #[must_use]
    pub fn dirty_writeback(self, interval: Duration) -> Self {
        Self { dirty_interval: interval, ..self }
    }

    /// Memory for cached file bytes; at least one mebibyte.
    #[must_use]
    pub fn cache_bytes(self, bytes: u64) -> Self {
        Self { cache_bytes: bytes.max(1 << 20), ..self }
    }

    /// For how many processors space is handed out as the kernel does on such a machine; 2 if nobody says. How near to full
    /// a volume stops delaying allocation follows from it, and where large files go.
    #[must_use]
    pub fn processors(self, number: u32) -> Self {
        Self { processors: number.max(1), ..self }
    }

    /// Whether blocks that a commit has freed are discarded on the device after it (`discard`).
    #[must_use]
    pub fn discard(self, on: bool) -> Self {
        Self { discard: on, ..self }
    }

    /// Whether every change of a directory's names is durable when it returns (`dirsync`), as if all directories had that
    /// flag.
    #[must_use]
    pub fn synchronous_names(self, on: bool) -> Self {
        Self { synchronous_names: on, ..self }
    }

    /// Takes `number` for the process that writes: where nothing is delayed the kernel spreads new files over a block group by
    /// it. Else each file's own number does that.
    #[must_use]
    pub fn process(self, number: u32) -> Self {
        Self { process: Some(number), ..self }
    }

    /// Whether the pieces in which files are cached are as large as the kernel would make them: then every step can be
    /// compared with the kernel's. By default files that grow in small pieces, and those that are read, get larger ones.
    #[must_use]
    pub fn kernel_folios(self, on: bool) -> Self {
        Self { kernel_folios: on, ..self }
    }

    /// Wakes `waker` when there is work that another thread may do by calling `tick` before its time, so that those who write
    /// need not do it themselves: much is dirty, or the running transaction fills. Once, until that tick begins. It is called
    /// from within operations and with locks held, and must not call the volume.
    #[must_use]
    pub fn waker(self, waker: Waker) -> Self {
        Self { waker: Some(waker), ..self }
    }

    /// Takes `device` for the one that holds the journal of a volume whose journal is on a device of its own (`journal_path=`).
    #[must_use]
    pub fn journal_device(self, device: Arc<dyn BlockDevice>) -> Self {
        Self { journal_device: Some(JournalDevice(device)), ..self }
    }

    /// Takes a volume that is protected against being mounted twice (feature `mmp`) as this host; without one such a volume is
    /// only read. Somebody has to call `tick`, or [`Filesystem::renew_protection`](crate::Filesystem::renew_protection), every
    /// few seconds then, or other hosts take the volume for free.
    #[must_use]
    pub fn host(self, host: Host) -> Self {
        Self { host: Some(host), ..self }
    }

    /// Compares what memory knows of a file's blocks with the map on disk each time it is asked, and panics where they differ:
    /// slow, and for tests alone (the kernel's `ES_AGGRESSIVE_TEST`).
    #[must_use]
    pub fn check_status(self, on: bool) -> Self {
        Self { check_status: on, ..self }
    }

    /// What the options come to for a volume: what nobody asked for is as its superblock says, and what cannot go together
    /// with journaled data is off (D2.3).
    ///
    /// # Errors
    /// [`Error::Invalid`] if both of such options were asked for, or a mode of data without a journal.
    /// # Source
    /// Kernel `ext4_set_def_opts`, `ext4_fill_super`.
    pub(crate) fn settled(mut self, superblock: &Superblock) -> Result<Self, Error> {
        let stored = superblock.default_mount_options();
        if !self.is_delay_asked_for {
            self.delayed_allocation = !stored.contains(DefaultMountOptions::NO_DELALLOC);
        }
        if self.unjournaled || !superblock.geometry().compat.contains(Compat::HAS_JOURNAL) {
            return match self.data_mode {
                None => Ok(self),
                Some(_) => Err(Error::Invalid("data= on a volume without a journal")),
            };
        }
        let mode = self.data_mode.unwrap_or(match stored & DefaultMountOptions::DATA_WRITEBACK {
            DefaultMountOptions::DATA_JOURNAL => DataMode::Journal,
            DefaultMountOptions::DATA_WRITEBACK => DataMode::Writeback,
            _ => DataMode::Ordered,
        });
        if mode == DataMode::Journal {
            if self.is_delay_asked_for && self.delayed_allocation {
                return Err(Error::Invalid("data=journal and delalloc"));
            }
            (self.delayed_allocation, self.unwritten_until_done) = (false, false);
        }
        Ok(Self { data_mode: Some(mode), ..self })
    }

    /// Whether data is treated in this way, by the default or by choice.
    pub(crate) fn has_data_mode(&self, mode: DataMode) -> bool {
        self.data_mode.unwrap_or_default() == mode
    }

    /// Tells `sink` what happens, event by event, from the mount on.
    #[must_use]
    pub fn trace(self, sink: Arc<dyn TraceSink>) -> Self {
        Self { tracer: Tracer::new(sink), ..self }
    }
}
