//! Fast commits against the kernel: what it left is recovered here, what was left here is recovered by it.
//!
//! A script with many `fsync` runs on one side, which is then stopped at once. Copies of the image are recovered by both
//! sides, read-only too, and the trees compared.
//!
//! # Invariants
//! What the engine or the kernel recovers is clean for e2fsck, and the same whether it may write or not.
//! # Locking
//! None.
//! # Not here
//! Crashes between two writes of one fast commit (`crash`).
//! # Source
//! None: a comparison.

mod generate;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use extant::trace::{Event, TraceSink};
use extant::{MountOptions, Timestamp};
use extant_device::MemoryDevice;
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::tree::{self, Entry, Tree};

use crate::bases::load;
use crate::counts;
use crate::recipes::some;
use crate::script::{DirectoryTarget, Operation, Target};
use crate::volume::{self, Volume};

pub use generate::script;

/// Kinds of volumes: options of mkfs.ext4 beside the feature.
const KINDS: [&[&str]; 9] = [
    &["-b", "4096"],
    &["-b", "1024"],
    &["-b", "4096", "-O", "^metadata_csum"],
    &["-b", "1024", "-I", "128"],
    &["-b", "4096", "-O", "orphan_file"],
    &["-b", "4096", "-O", "bigalloc", "-C", "16384"],
    &["-b", "1024", "-O", "^64bit,^flex_bg"],
    &["-b", "2048", "-O", "^dir_index"],
    &["-b", "4096", "-O", "inline_data"],
];

/// The kind that `seed` stands for.
fn kind(seed: u64) -> &'static [&'static str] {
    KINDS[usize::try_from(seed % 9).expect("an index")]
}

/// An empty image of the kind that `seed` stands for.
fn make_image(image: &Path, seed: u64) -> Option<()> {
    let features = ["-O", "fast_commit", "-J", "size=5"];
    oracle::mkfs(image, 32 << 20, &[&features, kind(seed)].concat())
}

/// What was seen of all scripts.
#[derive(Debug, Default)]
pub struct Seen {
    /// Records that the engine applied, by tag.
    tags: [AtomicU64; 7],
    /// Images that the kernel refused, though it wrote them itself: it looks past the end of an area that is full. And
    /// trees of which it could not read all while it had them mounted.
    refused: AtomicU64,
    /// Fast commits that the engine wrote.
    written: AtomicU64,
}

impl Seen {
    /// Records that the engine applied, by tag.
    pub fn tags(&self) -> [u64; 7] {
        self.tags.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Images of the kernel that it refused itself.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Fast commits that the engine wrote.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl TraceSink for Seen {
    fn event(&self, event: &Event) {
        if let Event::FcReplay { tag, .. } = event
            && let Some(count) = usize::try_from(*tag).ok().and_then(|tag| self.tags.get(tag))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Lets the kernel run the script of `seed` and stop, and recovers what it left on both sides; `None`, after a skip, where
/// that cannot be done.
///
/// What is known to be durable is compared for every other script, and for those of which the kernel forgets something
/// in its replay: attributes of a number used again, what counts in a directory's links, bytes that leave the inode.
///
/// # Errors
/// In what they differ.
pub fn recover_from_kernel(seed: u64, seen: &Arc<Seen>) -> Option<Result<(), String>> {
    let scratch = Scratch::new("fast");
    let image = scratch.path("image");
    make_image(&image, seed)?;
    let point = scratch.path("mount");
    let mount = KernelMount::new(&image, &point, "noatime,commit=100")?;
    let len = 20 + usize::try_from(seed % 60).expect("small");
    let is_rare = seed.is_multiple_of(3);
    let mut target = DirectoryTarget::new(&point);
    for operation in &script(seed, len, is_rare) {
        if let Err(errno) = target.apply(operation) {
            return Some(Err(format!("{operation:?}: {errno}")));
        }
    }
    let must_know = is_rare || seed.is_multiple_of(2) || kind(seed).contains(&"inline_data");
    let synced = match must_know.then(|| sync_all(&mut target, &point)).transpose() {
        Ok(synced) => synced,
        Err(_) => {
            seen.refused.fetch_add(1, Ordering::Relaxed);
            return Some(Ok(()));
        }
    };
    target.apply(&Operation::Shutdown { how: 2 }).expect("root may do this");
    drop(target);
    mount.unmount().expect("nobody uses it");
    Some(recover(&scratch, &image, seen, synced.as_ref()))
}

/// All that is seen once each file is synced, a new one too, so that something has changed: it is durable then.
fn sync_all(target: &mut impl Target, root: &Path) -> io::Result<Tree> {
    let last = Operation::Create { path: b"last".to_vec(), mode: 0o644 };
    target.apply(&last).expect("there is no such name");
    let seen = tree::read(root)?;
    for path in files_of(&seen) {
        target.apply(&Operation::Fsync { path }).expect("it is there");
    }
    tree::read(root)
}

/// Runs the script of `seed` here, and recovers what it left on both sides when it is all synced; `None`, after a skip, where
/// that cannot be done.
///
/// # Errors
/// In what they differ, or what e2fsck says of what the kernel has recovered.
pub fn recover_from_engine(seed: u64, seen: &Arc<Seen>) -> Option<Result<(), String>> {
    let scratch = Scratch::new("fast");
    let image = scratch.path("image");
    make_image(&image, seed)?;
    let device = Arc::new(load(&image));
    let len = 20 + usize::try_from(seed % 60).expect("small");
    let script = script(seed, len, seed.is_multiple_of(3));
    Some(write_here(&device, &script, seen).and_then(|synced| {
        fs::write(&image, device.to_vec()).map_err(|error| error.to_string())?;
        let begin = Moment::now();
        let (ours, judged) = recover_here(&image, &scratch.path("ours"), seen, &begin)?;
        judged?;
        // Small inodes have no room for nanoseconds.
        let is_time = |field: &str| TIMES.contains(&field) && kind(seed).contains(&"128");
        same("what was synced against recovered", &synced, &ours, |path, field| {
            let is_told = !is_time_of_directory(&ours, path, field) && !is_time(field);
            !is_told || ["data", "sparse"].contains(&field)
        })?;
        let theirs = recover_there(&image, &scratch.path("mount"))?;
        let theirs = theirs.ok_or("the kernel refuses it")?;
        oracle::e2fsck(&image).map_err(|said| format!("after the kernel: {said}"))?;
        same("kernel against recovered", &theirs, &ours, |path, field| {
            is_unlike_in_kernel(&ours, path, field)
                || begin.is_before(&[&theirs, &ours], path, field)
        })
    }))
}

/// Runs a script and syncs each file; what was seen then. The volume is not unmounted.
fn write_here(
    device: &Arc<MemoryDevice>,
    script: &[Operation],
    seen: &Arc<Seen>,
) -> Result<Tree, String> {
    let mounted = Volume::mount(Arc::<MemoryDevice>::clone(device), MountOptions::new());
    let mut volume = mounted.map_err(|error| format!("mount: {error}"))?;
    let last = Operation::Create { path: b"last".to_vec(), mode: 0o644 };
    for operation in script.iter().chain([&last]) {
        let done = volume.try_apply(operation).map(drop);
        done.map_err(|error| format!("{operation:?}: {error}"))?;
    }
    let files = volume::tree(&volume.filesystem)?;
    for path in files_of(&files) {
        volume.apply(&Operation::Fsync { path }).map_err(|errno| format!("{errno}"))?;
    }
    let synced = volume::tree(&volume.filesystem)?;
    let fast = volume.filesystem.kernel_counters().fc_info;
    seen.written.fetch_add(fast.map_or(0, |stats| stats.commits), Ordering::Relaxed);
    Ok(synced)
}

fn is_time_of_directory(tree: &Tree, path: &Path, field: &str) -> bool {
    let is_directory = tree.get(path.as_os_str()).is_some_and(|entry| is_of_kind(entry, 0x4000));
    is_directory && TIMES.contains(&field)
}

const TIMES: [&str; 3] = ["modified", "changed", "accessed"];

/// In what the kernel may differ after a replay: a directory's own times are in no record, and it counts blocks wrong.
pub(crate) fn is_unlike_in_kernel(tree: &Tree, path: &Path, field: &str) -> bool {
    is_time_of_directory(tree, path, field) || field == "sparse"
}

/// Recovers copies of `image` on both sides, and compares them with each other, or with what was `synced`.
pub(crate) fn recover(
    scratch: &Scratch,
    image: &Path,
    seen: &Arc<Seen>,
    synced: Option<&Tree>,
) -> Result<(), String> {
    let begin = Moment::now();
    let created = seen.tags()[CREATED];
    let (ours, finding) = recover_here(image, &scratch.path("ours"), seen, &begin)?;
    let creates = seen.tags()[CREATED] > created;
    if let Some(synced) = synced {
        finding?;
        // What was read or zeroed in memory counts as data there. Blocks behind the end of a file that it does not make
        // shorter are taken by a truncation of which there is no record.
        return same("what was synced against recovered", synced, &ours, |path, field| {
            is_time_of_directory(&ours, path, field) || ["data", "sparse"].contains(&field)
        });
    }
    let Some(theirs) = recover_there(image, &scratch.path("mount"))? else {
        seen.refused.fetch_add(1, Ordering::Relaxed);
        return finding;
    };
    same("kernel against recovered", &theirs, &ours, |path, field| {
        is_unlike_in_kernel(&ours, path, field)
            || begin.is_before(&[&theirs, &ours], path, field)
            || creates && field == "xattrs" && has_no_xattrs(&ours, path)
    })?;
    finding
}

/// Where the kernel replays that a file was made it keeps the attributes of whoever had the number before.
fn has_no_xattrs(tree: &Tree, path: &Path) -> bool {
    tree.get(path.as_os_str()).is_some_and(|entry| entry.xattrs.is_empty())
}

/// The tag of a record that tells of a new file.
const CREATED: usize = 3;

/// When recovery began: what it changes has a later time, and what was there an earlier one.
struct Moment {
    seconds: i64,
    nanoseconds: i64,
}

impl Moment {
    /// Now, once the kernel's clock for times of files is past all that has been written by then.
    fn now() -> Self {
        std::thread::sleep(Duration::from_millis(20));
        let now = SystemTime::now() - Duration::from_millis(10);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanoseconds: since.subsec_nanos().into() }
    }

    /// The time of recovery here, whose clock stands still.
    fn next(&self) -> Timestamp {
        Timestamp { seconds: self.seconds + 1, nanoseconds: 0 }
    }

    /// Whether the field of this file is the time of a change in all `trees` that recovery made: whoever finishes the cut of a file
    /// changes it then, and two of them at two times. Inodes without room for nanoseconds know the second alone.
    fn is_before(&self, trees: &[&Tree], path: &Path, field: &str) -> bool {
        let is_later = |(seconds, nanoseconds): (i64, i64)| match nanoseconds {
            0 => seconds >= self.seconds,
            _ => (seconds, nanoseconds) >= (self.seconds, self.nanoseconds),
        };
        trees.iter().all(|tree| {
            let entry = tree.get(path.as_os_str());
            entry.is_some_and(|entry| match field {
                "modified" => is_later(entry.modified),
                "changed" => is_later(entry.changed),
                _ => false,
            })
        })
    }
}

/// What the engine makes of the image, and what e2fsck says of the copy `recovered`.
fn recover_here(
    image: &Path,
    recovered: &Path,
    seen: &Arc<Seen>,
    begin: &Moment,
) -> Result<(Tree, Result<(), String>), String> {
    let device = Arc::new(load(image));
    let before = device.to_vec();
    let read = |options: MountOptions| {
        let volume = Volume::mount_at(Arc::<MemoryDevice>::clone(&device), options, begin.next())
            .map_err(|error| format!("mount: {error}"))?;
        let tree = volume::tree(&volume.filesystem)?;
        volume.unmount().map_err(|error| format!("unmount: {error}"))?;
        Ok::<_, String>(tree)
    };
    let through = read(MountOptions::read_only())?;
    if device.to_vec() != before {
        return Err("a read-only mount has written".to_owned());
    }
    let ours = read(MountOptions::new().trace(Arc::<Seen>::clone(seen)))?;
    // A reader sees blocks behind the end of a file whose cut only a writer finishes.
    same("read-only against recovered", &through, &ours, |path, field| {
        let is_cut = field == "sparse" && begin.is_before(&[&ours], path, "modified");
        is_cut || begin.is_before(&[&ours], path, field)
    })?;
    counts::check(&device)?;
    fs::write(recovered, device.to_vec()).map_err(|error| error.to_string())?;
    let judged = oracle::e2fsck(recovered).map_err(|said| format!("e2fsck: {said}"));
    Ok((ours, judged))
}

/// What the kernel makes of the image; `None` if it refuses it.
fn recover_there(image: &Path, point: &Path) -> Result<Option<Tree>, String> {
    let Some(Ok(mount)) = KernelMount::try_new(image, point, "noatime") else { return Ok(None) };
    let seen = tree::read(mount.root()).map_err(|error| error.to_string())?;
    mount.unmount().map_err(|error| error.to_string())?;
    Ok(Some(seen))
}

/// The paths of all regular files.
fn files_of(tree: &Tree) -> Vec<Vec<u8>> {
    let files = tree.iter().filter(|(_, entry)| is_of_kind(entry, 0x8000));
    files.map(|(path, _)| path.as_encoded_bytes().to_vec()).collect()
}

fn is_of_kind(entry: &Entry, kind: u32) -> bool {
    entry.mode & 0xF000 == kind
}

fn same(
    what: &str,
    one: &Tree,
    other: &Tree,
    ignore: impl Fn(&Path, &str) -> bool,
) -> Result<(), String> {
    let differences = tree::differences(one, other, ignore);
    if differences.is_empty() { Ok(()) } else { Err(format!("{what}: {}", some(&differences))) }
}
