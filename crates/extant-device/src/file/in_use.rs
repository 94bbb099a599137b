//! Whether an image is in use: locks, mounts, loop devices; and by whom.
//!
//! What the system hides (another mount namespace, another user's process, no `/proc` or `/sys`) counts as not there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::{Errno, retry_on_intr};

use super::open_error::{LockHolder, OpenError};

/// Takes the lock that keeps out every other [`FileDevice`](super::FileDevice) that locks, in this process too.
pub(super) fn lock_exclusive(
    file: &File,
    metadata: &Metadata,
    path: &Path,
) -> Result<(), OpenError> {
    lock(file, metadata, path, FlockOperation::NonBlockingLockExclusive)?;
    // Record locks, as emulators take them, do not collide with ours.
    let identity = Identity::of(metadata);
    match listed_locks().iter().any(|lock| lock.kind != "FLOCK" && lock.is_on(identity)) {
        true => {
            let holder = identity.lock_holder(file);
            Err(OpenError::Locked { path: path.into(), holder, reads: false })
        }
        false => Ok(()),
    }
}

/// Takes a lock that keeps out writers.
pub(super) fn lock_shared(file: &File, metadata: &Metadata, path: &Path) -> Result<(), OpenError> {
    lock(file, metadata, path, FlockOperation::NonBlockingLockShared)
}

/// Who may write while somebody reads: the kernel by a mount, or whoever keeps the shared lock away.
pub(super) fn writer(file: &File, metadata: &Metadata, path: &Path) -> Option<OpenError> {
    let locked = lock_shared(file, metadata, path).err();
    let identity = Identity::of(metadata);
    // Its server holds a lock; its mount says more.
    mounted(identity, |mount| mount.writable, path).or(locked)
}

/// Gives up the lock, if any.
pub(super) fn unlock(file: &File) {
    // It can only fail where there are no locks; closing follows anyway.
    let _ = flock(file, FlockOperation::Unlock);
}

fn lock(
    file: &File,
    metadata: &Metadata,
    path: &Path,
    operation: FlockOperation,
) -> Result<(), OpenError> {
    match retry_on_intr(|| flock(file, operation)) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            let identity = Identity::of(metadata);
            let holder = identity.lock_holder(file);
            Err(OpenError::Locked { path: path.into(), holder, reads: identity.is_only_read() })
        }
        // A file system without locks: refusing would make its images unusable.
        Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(OpenError::system(path)(errno.into())),
    }
}

/// Refuses an image that is mounted, or attached to a loop device.
pub(super) fn check(metadata: &Metadata, path: &Path) -> Result<(), OpenError> {
    let identity = Identity::of(metadata);
    if let Some(mounted) = mounted(identity, |_| true, path) {
        return Err(mounted);
    }
    match loop_devices().into_iter().find(|attached| attached.has(identity)) {
        Some(LoopDevice { path: loop_device, goes_by_itself, .. }) => {
            Err(OpenError::Attached { path: path.into(), loop_device, goes_by_itself })
        }
        None => Ok(()),
    }
}

/// The mount of this storage that `counts`, also by way of a loop device.
fn mounted(identity: Identity, counts: impl Fn(&Mount) -> bool, path: &Path) -> Option<OpenError> {
    let mounts: Vec<_> = mounts().into_iter().filter(counts).collect();
    let at = |identity: Identity| mounts.iter().find(|mount| mount.uses(identity));
    let by_loop = || {
        // Only devices that are mounted are worth asking for what is behind them.
        let devices = loop_devices().into_iter();
        let mut mounted = devices.filter_map(|found| {
            let number = Identity::Device(found.number?);
            Some((at(number)?, found))
        });
        mounted.find(|(_, found)| found.has(identity)).map(|(mount, _)| mount)
    };
    let mount_point = at(identity).or_else(by_loop)?.mount_point.clone();
    Some(OpenError::Mounted { path: path.into(), mount_point })
}

/// What makes two paths the same storage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Identity {
    /// A file by the device that it is on, and its inode.
    File { device: u64, inode: u64 },
    /// A block device by its number, whatever node led to it.
    Device(u64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Device(metadata.rdev())
        } else {
            Self::File { device: metadata.dev(), inode: metadata.ino() }
        }
    }

    fn is_at(self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| Self::of(&metadata) == self)
    }

    /// Whether the locks on it that are known are all of readers.
    fn is_only_read(self) -> bool {
        // A list that is longer than a page comes in pieces, and may miss one lock where another goes meanwhile.
        (0..TRIES).any(|_| {
            let locks = listed_locks();
            let mut ours = locks.iter().filter(|lock| lock.is_on(self)).peekable();
            ours.peek().is_some() && ours.all(|lock| !lock.writes)
        })
    }

    /// A process that has this open with a lock on it, else one that the list of locks names. `own` is the caller's
    /// descriptor, which may have a lock itself.
    fn lock_holder(self, own: &File) -> Option<LockHolder> {
        let own_info = format!("/proc/{}/fdinfo/{}", std::process::id(), own.as_raw_fd());
        let open_by = |process: &PathBuf| {
            let descriptors = entries(&process.join("fd"))
                .into_iter()
                .filter(|descriptor| self.is_at(descriptor));
            let infos = descriptors
                .filter_map(|found| Some(process.join("fdinfo").join(found.file_name()?)));
            infos
                .filter(|info| *info != Path::new(&own_info))
                .any(|info| fs::read_to_string(info).is_ok_and(|text| text.contains("\nlock:")))
        };
        let pid_of = |process: &PathBuf| process.file_name()?.to_str()?.parse().ok();
        let processes =
            entries(Path::new("/proc")).into_iter().filter(|process| pid_of(process).is_some());
        let seen = processes.into_iter().find(open_by).and_then(|process| pid_of(&process));
        let listed = || listed_locks().into_iter().find(|lock| lock.is_on(self))?.pid;
        let pid: u32 = seen.or_else(listed)?;
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        Some(LockHolder { pid, command: command.map(|name| name.trim_end().to_owned()) })
    }
}

const TRIES: u32 = 5;
const LIST_BYTES: usize = 64 << 10;

/// A line of `/proc/locks`.
struct ListedLock {
    kind: String,
    writes: bool,
    pid: Option<u32>,
    place: String, // device and inode
}

impl ListedLock {
    fn is_on(&self, identity: Identity) -> bool {
        match identity {
            Identity::File { device, inode } => {
                self.place == format!("{:02x}:{:02x}:{inode}", major(device), minor(device))
            }
            Identity::Device(_) => false, // listed by its node's inode, of which there may be several
        }
    }
}

fn listed_locks() -> Vec<ListedLock> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1).filter(|field| *field != "->");
        let kind = fields.next()?.to_owned();
        let writes = fields.nth(1)? != "READ";
        let pid = fields.next()?.parse().ok().filter(|pid| *pid > 0);
        Some(ListedLock { kind, writes, pid, place: fields.next()?.to_owned() })
    };
    // With room from the start it is asked for a page at a time, and not for a few bytes.
    let mut list = String::with_capacity(LIST_BYTES);
    let read = File::open("/proc/locks").and_then(|mut file| file.read_to_string(&mut list));
    read.map_or_else(|_| Vec::new(), |_| list.lines().filter_map(parse).collect())
}

/// A line of `/proc/self/mountinfo`.
struct Mount {
    device: u64,
    mount_point: PathBuf,
    source: PathBuf,
    writable: bool,
}

impl Mount {
    fn uses(&self, identity: Identity) -> bool {
        // File systems without a device of their own name it, or the image, as their source.
        identity == Identity::Device(self.device)
            || (self.source.is_absolute() && identity.is_at(&self.source))
    }
}

fn mounts() -> Vec<Mount> {
    let parse = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = parse_device(str::from_utf8(fields.nth(2)?).ok()?)?;
        let mount_point = unescape(fields.nth(1)?);
        let mut of_file_system = fields.skip_while(|field| *field != b"-").skip(2);
        let source = unescape(of_file_system.next()?);
        // The file system's own options: a read-only view of one that is written is written all the same.
        let options = of_file_system.next().unwrap_or_default();
        let writable = options.split(|byte| *byte == b',').any(|word| word == b"rw");
        Some(Mount { device, mount_point, source, writable })
    };
    let list = fs::read("/proc/self/mountinfo").unwrap_or_default();
    list.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// Undoes the `\040` by which the kernel writes blanks in a path.
fn unescape(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field);
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok();
        match (first, tail.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

struct LoopDevice {
    path: PathBuf,
    number: Option<u64>,
    backing: PathBuf, // as the kernel shows it: follows renames, ends in " (deleted)" after an unlink
    goes_by_itself: bool,
}

impl LoopDevice {
    fn has(&self, identity: Identity) -> bool {
        match fs::metadata(&self.backing) {
            Ok(metadata) => Identity::of(&metadata) == identity,
            Err(_) => self.has_by_status(identity).unwrap_or(false),
        }
    }

    /// For a backing file without a name: another name of it may be ours. Only an ioctl of the device tells, which
    /// safe Rust cannot call but a program can; it answers to root alone, who alone attaches loop devices.
    fn has_by_status(&self, identity: Identity) -> Option<bool> {
        let Identity::File { device, inode } = identity else { return None };
        let columns = ["--noheadings", "--output", "BACK-MAJ:MIN,BACK-INO"];
        let output = Command::new("losetup").args(columns).arg(&self.path).output().ok()?;
        let answer = String::from_utf8(output.stdout).ok()?;
        let (backing_device, backing_inode) = answer.trim().split_once(' ')?;
        Some(
            parse_device(backing_device)? == device
                && backing_inode.trim().parse::<u64>().ok()? == inode,
        )
    }
}

fn loop_devices() -> Vec<LoopDevice> {
    let attached = |directory: PathBuf| {
        let backing = fs::read(directory.join("loop/backing_file")).ok()?;
        let backing =
            PathBuf::from(OsStr::from_bytes(backing.strip_suffix(b"\n").unwrap_or(&backing)));
        let number = fs::read_to_string(directory.join("dev"))
            .ok()
            .and_then(|text| parse_device(text.trim()));
        let autoclear = fs::read(directory.join("loop/autoclear"));
        let goes_by_itself = autoclear.is_ok_and(|text| text.starts_with(b"1"));
        let path = Path::new("/dev").join(directory.file_name()?);
        Some(LoopDevice { path, number, backing, goes_by_itself })
    };
    entries(Path::new("/sys/block")).into_iter().filter_map(attached).collect()
}

/// A device number from "major:minor".
fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}
