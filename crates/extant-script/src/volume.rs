//! Scripts on the engine: a mounted volume with a clock and random numbers of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use extant::namespace::NodeKind;
use extant::time::{Clock, Entropy};
use extant::{
    Error, File, FileExtentState, Filesystem, MountOptions, OpenOptions, RangeChange, RangeSync,
    SetAttributes,
};
use extant_device::BlockDevice;
use extant_format::cast::u64_from;
use extant_format::{InodeFlags, Timestamp};

use crate::pattern::pieces;
use crate::{Allocation, Answer, Errno, Node, OpenFlag, Operation, SyncStep, Target, pattern};

/// A clock that a script moves, and that goes on a little each time it is read.
#[derive(Debug)]
pub struct ScriptClock {
    nanoseconds: AtomicU64,
    start: Timestamp,
}

impl ScriptClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("less than centuries");
        self.nanoseconds.fetch_add(by, Ordering::Relaxed);
    }

    /// A clock that starts at this moment.
    fn starting_at(start: Timestamp) -> Self {
        Self { nanoseconds: AtomicU64::new(0), start }
    }
}

impl Default for ScriptClock {
    fn default() -> Self {
        Self::starting_at(START)
    }
}

impl Clock for ScriptClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.fetch_add(1, Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        let now = self.monotonic() + Duration::from_nanos(self.start.nanoseconds.into());
        let seconds = i64::try_from(now.as_secs()).expect("less than centuries");
        let seconds = self.start.seconds.saturating_add(seconds);
        Timestamp { seconds, nanoseconds: now.subsec_nanos() }
    }
}

/// When every script starts, unless it changes an image for good.
const START: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

/// Numbers that repeat from run to run.
#[derive(Debug, Default)]
struct CountedEntropy(AtomicU32);

impl Entropy for CountedEntropy {
    fn draw(&self) -> u32 {
        self.0.fetch_add(0x9E37_79B9, Ordering::Relaxed)
    }
}

/// A mounted volume that scripts run on.
pub struct Volume {
    /// The library's own handle.
    pub filesystem: Filesystem,
    clock: Arc<ScriptClock>,
    open: Mutex<BTreeMap<Vec<u8>, Arc<File>>>,
    held: Mutex<Vec<File>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    /// Mounts `device`, always at the same time.
    ///
    /// # Errors
    /// The engine's.
    pub fn mount(device: Arc<dyn BlockDevice>, options: MountOptions) -> Result<Self, Error> {
        Self::mount_at(device, options, START)
    }

    /// Mounts `device` at a moment of the caller's; from then on only the script moves the clock.
    ///
    /// # Errors
    /// The engine's.
    pub fn mount_at(
        device: Arc<dyn BlockDevice>,
        options: MountOptions,
        start: Timestamp,
    ) -> Result<Self, Error> {
        let clock = Arc::new(ScriptClock::starting_at(start));
        let filesystem = options.mount_with(
            device,
            Arc::<ScriptClock>::clone(&clock),
            Arc::new(CountedEntropy::default()),
        )?;
        Ok(Self { filesystem, clock, open: Mutex::default(), held: Mutex::default() })
    }

    /// Lets time pass, without a tick.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Ends it properly; open files are closed first.
    ///
    /// # Errors
    /// The engine's.
    pub fn unmount(self) -> Result<(), Error> {
        self.close_all();
        self.filesystem.unmount()
    }

    /// Closes all files that are open or held.
    pub(crate) fn close_all(&self) {
        lock(&self.open).clear();
        lock(&self.held).clear();
    }

    /// The open file of this path, or one that is opened in this way now.
    fn file(&self, path: &[u8], options: OpenOptions) -> Result<Arc<File>, Error> {
        match lock(&self.open).get(path) {
            Some(file) => Ok(Arc::clone(file)),
            None => self.filesystem.open_with(path, options).map(Arc::new),
        }
    }

    fn reader(&self, path: &[u8]) -> Result<Arc<File>, Error> {
        self.file(path, OpenOptions::new().read(true))
    }

    fn writer(&self, path: &[u8]) -> Result<Arc<File>, Error> {
        self.file(path, OpenOptions::new().write(true))
    }

    /// Does one operation.
    ///
    /// # Errors
    /// The engine's; [`Error::NotSupported`] for what the library does not have.
    pub fn try_apply(&self, operation: &Operation) -> Result<Answer, Error> {
        use Operation::{
            Append, Close, Create, Fdatasync, Fill, Fsync, Hold, Open, Promise, Read, Release,
            Shutdown, Stat, Sync, Tick, Truncate, Write,
        };
        let fs = &self.filesystem;
        match operation {
            Create { path, mode } => {
                let file = fs
                    .open_with(path, OpenOptions::new().write(true).create_new(true).mode(*mode))?;
                if file.metadata()?.mode & 0o7777 != *mode {
                    fs.set_permissions(path, *mode)?;
                }
            }
            Open { path, flags } => {
                let file = fs.open_with(path, open_options(flags)?)?;
                lock(&self.open).insert(path.clone(), Arc::new(file));
            }
            Close { path } => {
                let file = lock(&self.open).remove(path);
                drop(file);
            }
            Write { path, offset, len, tag } => {
                let file = self.writer(path)?;
                return write(&file, *tag, *offset, *len);
            }
            Append { path, len, tag } => {
                let file = self.writer(path)?;
                let end = file.metadata()?.size;
                return write(&file, *tag, end, *len);
            }
            Fill { path, len, count, tag } => {
                let file = self.writer(path)?;
                return fill(&file, *len, *count, *tag);
            }
            Read { path, offset, len } => {
                return read(&*self.reader(path)?, *offset, *len);
            }
            Truncate { path, size } => self.writer(path)?.set_len(*size)?,
            Hold { path } => {
                let file = fs.open(path)?;
                lock(&self.held).push(file);
            }
            Release => lock(&self.held).clear(),
            Fsync { path } => self.reader(path)?.sync_all()?,
            Fdatasync { path } => self.reader(path)?.sync_data()?,
            Sync => fs.sync_all()?,
            Promise { .. } => {}
            Stat { path } => {
                let found = self.reader(path)?.metadata()?;
                let text = format!("size {} sectors {}", found.size, found.blocks);
                return Ok(Answer::Text(text));
            }
            Shutdown { how: 0 } => fs.shut_down_after(extant::Shutdown::AfterSync)?,
            Shutdown { how: 1 } => fs.shut_down_after(extant::Shutdown::AfterLog)?,
            Shutdown { how: 2 } => fs.shut_down(),
            Tick { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
                fs.tick()?;
            }
            _ => return self.change_blocks(operation),
        }
        Ok(Answer::Done)
    }

    /// What is about where a file's blocks are.
    fn change_blocks(&self, operation: &Operation) -> Result<Answer, Error> {
        use Operation::{
            Allocate, Fiemap, ForgetStatus, JournalData, SeekData, SeekHole, Store, SyncRange,
        };
        match operation {
            Store { path, offset } => {
                let file = self.file(path, OpenOptions::new().read(true).write(true))?;
                file.store_at(b"Z", *offset)?;
            }
            SyncRange { path, offset, len, steps } => {
                let has = |step| steps.contains(&step);
                let steps = RangeSync {
                    wait_before: has(SyncStep::Before),
                    write: has(SyncStep::Write),
                    wait_after: has(SyncStep::After),
                };
                let end = if *len == 0 { u64::MAX } else { offset.saturating_add(*len) };
                self.reader(path)?.sync_range(*offset..end, steps)?;
            }
            Allocate { path, offset, len, mode } => {
                self.writer(path)?.change_range(range_change(*mode), *offset, *len)?;
            }
            SeekData { path, offset } => {
                return Ok(found(self.reader(path)?.seek_data(*offset)?));
            }
            SeekHole { path, offset } => {
                return Ok(found(self.reader(path)?.seek_hole(*offset)?));
            }
            Fiemap { path } => return self.fiemap(path),
            ForgetStatus { path } => self.reader(path)?.inode().forget_status(),
            JournalData { path, on } => {
                let file = self.reader(path)?;
                let mut flags = file.metadata()?.flags;
                flags.set(InodeFlags::JOURNAL_DATA, *on);
                let change = SetAttributes { flags: Some(flags), ..SetAttributes::default() };
                file.inode().set_attributes(&change)?;
            }
            _ => return self.change_names(operation),
        }
        Ok(Answer::Done)
    }

    /// What is about names, attributes, and the whole volume.
    fn change_names(&self, operation: &Operation) -> Result<Answer, Error> {
        use Operation::{
            Chmod, Chown, Link, Mkdir, Mknod, RemoveXattr, Rename, Rmdir, SetTimes, SetXattr,
            Statfs, Symlink, Unlink,
        };
        let fs = &self.filesystem;
        match operation {
            Mkdir { path, mode } => {
                fs.create_dir(path)?;
                if fs.metadata(path)?.mode & 0o7777 != *mode {
                    fs.set_permissions(path, *mode)?;
                }
            }
            Symlink { target, path } => fs.symlink(target, path)?,
            Link { original, path } => fs.hard_link(original, path)?,
            Mknod { path, node, mode } => {
                let kind = match *node {
                    Node::Character(major, minor) => NodeKind::CharacterDevice(major, minor),
                    Node::Block(major, minor) => NodeKind::BlockDevice(major, minor),
                    Node::Fifo => NodeKind::Fifo,
                    Node::Socket => NodeKind::Socket,
                };
                fs.mknod(path, kind, *mode)?;
            }
            Rename { from, to } => fs.rename(from, to)?,
            Unlink { path } => fs.remove_file(path)?,
            Rmdir { path } => fs.remove_dir(path)?,
            SetXattr { path, name, value } => fs.set_xattr(path, name, value)?,
            RemoveXattr { path, name } => fs.remove_xattr(path, name)?,
            Chmod { path, mode } => fs.set_permissions(path, *mode)?,
            Chown { path, uid, gid } => fs.set_owner(path, Some(*uid), Some(*gid))?,
            SetTimes { path, accessed, modified } => {
                let time = |(seconds, nanoseconds)| Some(Timestamp { seconds, nanoseconds });
                fs.set_times(path, time(*accessed), time(*modified))?;
            }
            Statfs => {
                let found = fs.statfs();
                let text =
                    format!("free {} available {}", found.free_blocks, found.available_blocks);
                return Ok(Answer::Text(text));
            }
            _ => return Err(Error::NotSupported("the library does not have it")),
        }
        Ok(Answer::Done)
    }

    fn fiemap(&self, path: &[u8]) -> Result<Answer, Error> {
        let block = u64::from(self.filesystem.statfs().block_size);
        let extents = self.reader(path)?.extents()?;
        let words = extents.iter().map(|extent| {
            let state = match extent.state {
                FileExtentState::Written => "written",
                FileExtentState::Unwritten => "unwritten",
                FileExtentState::Delayed => "delayed",
                FileExtentState::Inline { at, bytes } => {
                    return format!("[0+{bytes} at {at} inline]");
                }
            };
            let place = extent.physical.map(|at| format!(" at {}", at * block)).unwrap_or_default();
            let (from, len) = (u64::from(extent.logical) * block, u64::from(extent.len) * block);
            format!("[{from}+{len}{place} {state}]")
        });
        Ok(Answer::Text(words.collect::<Vec<_>>().join(" ")))
    }
}

fn range_change(mode: Allocation) -> RangeChange {
    match mode {
        Allocation::Extend => RangeChange::Allocate { keep_size: false },
        Allocation::KeepSize => RangeChange::Allocate { keep_size: true },
        Allocation::Punch => RangeChange::PunchHole,
        Allocation::Zero => RangeChange::Zero { keep_size: false },
        Allocation::ZeroKeepSize => RangeChange::Zero { keep_size: true },
        Allocation::Collapse => RangeChange::Collapse,
        Allocation::Insert => RangeChange::Insert,
    }
}

fn found(offset: Option<u64>) -> Answer {
    offset.map_or_else(|| Answer::Text("none".to_owned()), Answer::Count)
}

fn open_options(flags: &[OpenFlag]) -> Result<OpenOptions, Error> {
    let has = |flag| flags.contains(&flag);
    if has(OpenFlag::Sync) {
        return Err(Error::NotSupported("the library opens no files in step"));
    }
    Ok(OpenOptions::new()
        .read(true)
        .write(!has(OpenFlag::Read))
        .append(has(OpenFlag::Append))
        .direct(has(OpenFlag::Direct))
        .truncate(has(OpenFlag::Truncate))
        .create_new(has(OpenFlag::Create)))
}

const TOO_FAR: Error = Error::Invalid("past the largest offset");

fn write(file: &File, tag: u32, offset: u64, len: usize) -> Result<Answer, Error> {
    for (start, len) in pieces(offset, len).ok_or(TOO_FAR)? {
        let bytes = pattern(tag, start, len);
        let mut done = 0;
        while done < bytes.len() {
            done += file.write_at(&bytes[done..], start + u64_from(done))?;
        }
    }
    Ok(Answer::Count(u64_from(len)))
}

fn read(file: &File, offset: u64, len: usize) -> Result<Answer, Error> {
    let mut total = 0;
    for (start, len) in pieces(offset, len).ok_or(TOO_FAR)? {
        let count = file.read_at(&mut vec![0; len], start)?;
        total += u64_from(count);
        if count < len {
            break;
        }
    }
    Ok(Answer::Count(total))
}

fn fill(file: &File, len: usize, count: u64, tag: u32) -> Result<Answer, Error> {
    let mut done = 0;
    for _ in 0..count {
        for (start, len) in pieces(done, len).ok_or(TOO_FAR)? {
            done += u64_from(file.write_at(&pattern(tag, start, len), done)?);
        }
    }
    Ok(Answer::Count(done))
}

impl Target for Volume {
    fn apply(&mut self, operation: &Operation) -> Result<Answer, Errno> {
        self.try_apply(operation).map_err(|error| Errno(error.errno().0))
    }
}

/// All bytes of a file.
///
/// # Errors
/// The engine's.
pub fn read_all(filesystem: &Filesystem, path: &[u8]) -> Result<Vec<u8>, Error> {
    let file = filesystem.open(path)?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read_at(&mut buffer, u64_from(bytes.len()))? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
