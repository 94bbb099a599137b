//! Images that the kernel leaves dirty: threads work on a mount of the kernel, which is shut down in the midst of it, and both
//! sides recover a copy each.
//!
//! A seed says which volume, work and moment. What the threads have come to by then differs from run to run; so in CI there is
//! one thread, which is stopped after so many operations, and no timer that would commit between them.
//!
//! # Invariants
//! What the engine makes of such an image is clean for e2fsck, the same read-only, and the same as what the kernel makes of it.
//! # Locking
//! None.
//! # Not here
//! Images that the engine leaves (`crash`, `mounts`); what the kernel had promised (`fast_commit`).
//! # Source
//! Kernel `fs/ext4/ioctl.c`, `ext4_force_shutdown`: after all data and the log, after the log, at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use extant_testkit::Random;
use extant_testkit::oracle::{self, KernelMount, Scratch};

use crate::fast_commit::{self, Seen};
use crate::script::{DirectoryTarget, Operation, Target, random_script};

/// Kinds of volumes: options of mkfs.ext4.
const KINDS: [&[&str]; 8] = [
    &["-b", "4096"],
    &["-b", "1024"],
    &["-b", "4096", "-O", "^metadata_csum"],
    &["-b", "1024", "-I", "128"],
    &["-b", "4096", "-O", "orphan_file"],
    &["-b", "1024", "-O", "^extent,^64bit"],
    &["-b", "4096", "-O", "bigalloc", "-C", "16384"],
    &["-b", "4096", "-O", "inline_data"],
];
const MODES: [&str; 3] = ["ordered", "writeback", "journal"];
/// How the kernel sums up its log; it takes the last of them with ordered data for a mistake.
const SUMS: [&str; 3] = ["", ",journal_checksum", ",journal_async_commit"];
const THREADS: u64 = 4;
const OPERATIONS: u64 = 400;
/// The latest moment to shut down.
const MOST_MICROSECONDS: u64 = 60_000;

/// Who works on a volume until it is shut down.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Several threads, up to a moment of time.
    Threads,
    /// One, up to an operation: the same image each time.
    Alone,
}

/// Leaves the image that `seed` stands for and recovers it; `None`, after a skip, where that cannot be done.
///
/// # Errors
/// In what the two sides differ, or what e2fsck says, and where a copy of the image as the kernel left it is.
pub fn recover(seed: u64, work: Work, seen: &Arc<Seen>) -> Option<Result<(), String>> {
    let mut random = Random::new(seed);
    let scratch = Scratch::new("dirty");
    let image = scratch.path("image");
    let kind = KINDS[usize::try_from(seed % 8).expect("an index")];
    let mode = MODES[usize::try_from(seed / 8 % 3).expect("an index")];
    // The kernel writes fast commits of files of indirect blocks, and stops in a bug when it replays them; nobody recovers those.
    let is_fast = seed / 24 % 2 == 1 && !kind.contains(&"^extent,^64bit");
    let fast = if is_fast { "fast_commit" } else { "^fast_commit" };
    oracle::mkfs(&image, 64 << 20, &[kind, &["-O", fast, "-J", "size=5"]].concat())?;
    let point = scratch.path("mount");
    let sum = match SUMS[usize::try_from(seed / 48 % 3).expect("an index")] {
        ",journal_async_commit" if mode == "ordered" => "",
        sum => sum,
    };
    let mount = KernelMount::new(&image, &point, &format!("noatime,commit=300,data={mode}{sum}"))?;
    let moment = Duration::from_micros(random.below(MOST_MICROSECONDS));
    let how = u32::try_from(random.below(3)).expect("small");
    match work {
        Work::Threads => work_and_stop(&point, seed, moment, how),
        Work::Alone => {
            apply_all(&point, seed, random.below(OPERATIONS));
            stop(&point, how);
        }
    }
    mount.unmount().expect("nobody uses it");
    let left = scratch.path("left");
    fs::copy(&image, &left).expect("there is room for a copy");
    Some(fast_commit::recover(&scratch, &image, seen, None).map_err(|reason| {
        let kept = std::env::temp_dir().join(format!("dirty-{seed}.img"));
        let is_kept = fs::copy(&left, &kept).is_ok();
        let kept = if is_kept { kept.display().to_string() } else { "nowhere".to_owned() };
        format!("{kind:?}, data={mode}{sum}, {fast}, shutdown {how}, kept in {kept}: {reason}")
    }))
}

/// Recovers a copy of an image that was left, on both sides.
///
/// # Errors
/// As [`recover`], and of the copy.
pub fn recover_left(left: &Path, seen: &Arc<Seen>) -> Result<(), String> {
    let scratch = Scratch::new("dirty");
    let image = scratch.path("image");
    fs::copy(left, &image).map_err(|error| error.to_string())?;
    fast_commit::recover(&scratch, &image, seen, None)
}

/// Threads with a folder each work until the volume is shut down under them.
fn work_and_stop(point: &Path, seed: u64, moment: Duration, how: u32) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let folder = point.join(thread.to_string());
            fs::create_dir(&folder).expect("the volume is empty");
            scope.spawn(move || apply_all(&folder, seed * THREADS + thread, OPERATIONS));
        }
        std::thread::sleep(moment);
        stop(point, how);
    });
}

/// Some modes have no journaled files, and once the volume is shut down nothing succeeds.
fn apply_all(folder: &Path, seed: u64, operations: u64) {
    let operations = usize::try_from(operations).expect("small");
    let mut target = DirectoryTarget::new(folder);
    for operation in random_script(seed, operations) {
        let _ = target.apply(&operation);
    }
}

fn stop(point: &Path, how: u32) {
    let stopped = DirectoryTarget::new(point).apply(&Operation::Shutdown { how });
    stopped.expect("root may do this");
}
