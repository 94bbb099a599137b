//! The engine as the lab sees it: mounted with a clock and random numbers of its own, driven by scripts, read as a tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use extant::namespace::NodeKind;
use extant::time::{Clock, Entropy};
use extant::{Error, File, Filesystem, Metadata, MountOptions, OpenOptions};
use extant_device::BlockDevice;
use extant_format::cast::u64_from;
use extant_format::crc::crc32c;
use extant_format::{FileType, Timestamp};
use extant_testkit::tree::{Entry, Tree, join};

use crate::script::{Errno, Node, Operation, Target, pattern};

/// A clock that a script moves, and that goes on a little each time it is read.
#[derive(Debug, Default)]
pub struct ScriptClock {
    nanoseconds: AtomicU64,
}

impl ScriptClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("less than centuries");
        self.nanoseconds.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for ScriptClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.fetch_add(1, Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        let now = self.monotonic();
        let seconds = i64::try_from(now.as_secs()).expect("less than centuries");
        Timestamp { seconds: START_SECONDS + seconds, nanoseconds: now.subsec_nanos() }
    }
}

/// When every script starts.
const START_SECONDS: i64 = 1_700_000_000;

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
    held: Mutex<Vec<File>>,
}

impl Volume {
    /// Mounts `device`, always at the same time.
    ///
    /// # Errors
    /// The engine's.
    pub fn mount(device: Arc<dyn BlockDevice>, options: MountOptions) -> Result<Self, Error> {
        let clock = Arc::new(ScriptClock::default());
        let filesystem = options.mount_with(
            device,
            Arc::<ScriptClock>::clone(&clock),
            Arc::new(CountedEntropy::default()),
        )?;
        Ok(Self { filesystem, clock, held: Mutex::default() })
    }

    /// Ends it properly.
    ///
    /// # Errors
    /// The engine's.
    pub fn unmount(self) -> Result<(), Error> {
        self.filesystem.unmount()
    }

    /// Does one operation.
    ///
    /// # Errors
    /// The engine's.
    pub fn try_apply(&self, operation: &Operation) -> Result<(), Error> {
        use Operation::{
            Chmod, Chown, Create, Fsync, Hold, Link, Mkdir, Mknod, Release, RemoveXattr, Rename,
            Rmdir, SetTimes, SetXattr, Symlink, Sync, Tick, Truncate, Unlink, Write,
        };
        let fs = &self.filesystem;
        let write = || OpenOptions::new().write(true);
        match operation {
            Create { path, mode } => {
                fs.open_with(path, write().create_new(true))?;
                fs.set_permissions(path, *mode)
            }
            Write { path, offset, len, tag } => {
                let (file, bytes) = (fs.open_with(path, write())?, pattern(*tag, *offset, *len));
                let mut done = 0;
                while done < bytes.len() {
                    done += file.write_at(&bytes[done..], offset + u64_from(done))?;
                }
                Ok(())
            }
            Truncate { path, size } => fs.open_with(path, write())?.set_len(*size),
            Mkdir { path, mode } => {
                fs.create_dir(path)?;
                fs.set_permissions(path, *mode)
            }
            Symlink { target, path } => fs.symlink(target, path),
            Link { original, path } => fs.hard_link(original, path),
            Mknod { path, node, mode } => {
                let kind = match *node {
                    Node::Character(major, minor) => NodeKind::CharacterDevice(major, minor),
                    Node::Block(major, minor) => NodeKind::BlockDevice(major, minor),
                    Node::Fifo => NodeKind::Fifo,
                    Node::Socket => NodeKind::Socket,
                };
                fs.mknod(path, kind, *mode)
            }
            Rename { from, to } => fs.rename(from, to),
            Unlink { path } => fs.remove_file(path),
            Rmdir { path } => fs.remove_dir(path),
            SetXattr { path, name, value } => fs.set_xattr(path, name, value),
            RemoveXattr { path, name } => fs.remove_xattr(path, name),
            Chmod { path, mode } => fs.set_permissions(path, *mode),
            Chown { path, uid, gid } => fs.set_owner(path, Some(*uid), Some(*gid)),
            SetTimes { path, accessed, modified } => {
                let time = |(seconds, nanoseconds)| Some(Timestamp { seconds, nanoseconds });
                fs.set_times(path, time(*accessed), time(*modified))
            }
            Hold { path } => {
                let file = fs.open(path)?;
                self.held.lock().unwrap_or_else(PoisonError::into_inner).push(file);
                Ok(())
            }
            Release => {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
                Ok(())
            }
            Fsync { path } => fs.open(path)?.sync_all(),
            Sync => fs.sync_all(),
            Tick { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
                fs.tick().map(drop)
            }
        }
    }
}

impl Target for Volume {
    fn apply(&mut self, operation: &Operation) -> Result<(), Errno> {
        self.try_apply(operation).map_err(|error| Errno(error.errno().0))
    }
}

/// Everything on a volume, as `extant_testkit::tree::read` tells it of a kernel mount.
///
/// # Errors
/// The first thing that cannot be read, with its path.
pub fn tree(filesystem: &Filesystem) -> Result<Tree, String> {
    let (mut tree, mut seen) = (Tree::new(), BTreeMap::new());
    let mut open = vec![OsString::new()];
    while let Some(relative) = open.pop() {
        let path = relative.as_bytes();
        let failed = |error: Error| format!("{}: {error}", OsStr::from_bytes(path).display());
        let metadata = filesystem.symlink_metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            let entries = filesystem.read_dir(path).map_err(failed)?;
            let names = entries.map(|entry| Ok(OsString::from_vec(entry?.name().to_vec())));
            let mut names: Vec<_> = names.collect::<Result<_, Error>>().map_err(failed)?;
            names.sort_by(|a, b| b.cmp(a));
            open.extend(names.into_iter().map(|name| join(&relative, name)));
        }
        let first = seen.entry(metadata.inode).or_insert_with(|| relative.clone());
        let entry = match tree.get(first) {
            Some(known) if !metadata.is_dir() => {
                Entry { same_as: Some(first.clone()), ..Entry::clone(known) }
            }
            _ => entry(filesystem, path, &metadata).map_err(failed)?,
        };
        tree.insert(relative, entry);
    }
    Ok(tree)
}

fn entry(filesystem: &Filesystem, path: &[u8], metadata: &Metadata) -> Result<Entry, Error> {
    let (sum, data) = match metadata.file_type() {
        FileType::Regular => sum_and_data(filesystem, path)?,
        FileType::Symlink => (crc32c(0, &filesystem.read_link(path)?), Vec::new()),
        _ => (0, Vec::new()),
    };
    let mut xattrs = BTreeMap::new();
    for name in filesystem.list_xattrs(path)? {
        let value = filesystem.xattr(path, &name)?;
        xattrs.insert(name, value);
    }
    let time = |time: Timestamp| (time.seconds, i64::from(time.nanoseconds));
    let is_dir = metadata.is_dir();
    Ok(Entry {
        mode: metadata.mode.into(),
        owner: (metadata.uid, metadata.gid),
        accessed: time(metadata.accessed),
        modified: time(metadata.modified),
        changed: time(metadata.changed),
        links: if is_dir { 0 } else { metadata.links.into() },
        size: if is_dir { 0 } else { metadata.size },
        device: metadata.device.unwrap_or((0, 0)),
        sum,
        sparse: metadata.is_file() && metadata.blocks * 512 < metadata.size / 2,
        data,
        xattrs,
        same_as: None,
    })
}

fn sum_and_data(filesystem: &Filesystem, path: &[u8]) -> Result<(u32, Vec<(u64, u64)>), Error> {
    let file = filesystem.open(path)?;
    let (mut data, mut at) = (Vec::new(), 0);
    while let Some(start) = file.seek_data(at)? {
        at = file.seek_hole(start)?.expect("data ends in a hole");
        data.push((start, at));
    }
    let mut sum = 0;
    let mut buffer = vec![0; 1 << 20];
    for (start, end) in extant_testkit::tree::summed(file.metadata()?.size, &data) {
        let mut at = start;
        while at < end {
            let wanted = usize::try_from((end - at).min(1 << 20)).expect("at most the buffer");
            match file.read_at(&mut buffer[..wanted], at)? {
                0 => break,
                count => {
                    sum = crc32c(sum, &buffer[..count]);
                    at += u64_from(count);
                }
            }
        }
    }
    Ok((sum, data))
}

/// All bytes of a file.
///
/// # Errors
/// The engine's.
pub fn read(filesystem: &Filesystem, path: &[u8]) -> Result<Vec<u8>, Error> {
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
