//! Images that the kernel leaves dirty: threads work on a mount of the kernel, which is shut down in the midst of it, and both
//! sides recover a copy each.
//!
//! A seed says which volume, work and moment; what the threads have come to by then differs from run to run, so no test of CI
//! depends on this.
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
const THREADS: u64 = 4;
const OPERATIONS: usize = 400;
/// The latest moment to shut down.
const MOST_MICROSECONDS: u64 = 60_000;

/// Leaves the image that `seed` stands for and recovers it; `None`, after a skip, where that cannot be done.
///
/// # Errors
/// In what the two sides differ, or what e2fsck says.
pub fn recover(seed: u64, seen: &Arc<Seen>) -> Option<Result<(), String>> {
    let mut random = Random::new(seed);
    let scratch = Scratch::new("dirty");
    let image = scratch.path("image");
    let kind = KINDS[usize::try_from(seed % 8).expect("an index")];
    let mode = MODES[usize::try_from(seed / 8 % 3).expect("an index")];
    let fast = if seed / 24 % 2 == 1 { "fast_commit" } else { "^fast_commit" };
    oracle::mkfs(&image, 64 << 20, &[kind, &["-O", fast, "-J", "size=5"]].concat())?;
    let point = scratch.path("mount");
    let mount = KernelMount::new(&image, &point, &format!("noatime,data={mode}"))?;
    let moment = Duration::from_micros(random.below(MOST_MICROSECONDS));
    let how = u32::try_from(random.below(3)).expect("small");
    work_and_stop(&point, seed, moment, how);
    mount.unmount().expect("nobody uses it");
    let told = |reason| format!("{kind:?}, data={mode}, {fast}, shutdown {how}: {reason}");
    Some(fast_commit::recover(&scratch, &image, seen, None).map_err(told))
}

/// Threads with a folder each work as long as they can.
fn work_and_stop(point: &Path, seed: u64, moment: Duration, how: u32) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let folder = point.join(thread.to_string());
            fs::create_dir(&folder).expect("the volume is empty");
            scope.spawn(move || {
                let mut target = DirectoryTarget::new(&folder);
                for operation in random_script(seed * THREADS + thread, OPERATIONS) {
                    // Some modes have no journaled files, and at last nothing succeeds.
                    let _ = target.apply(&operation);
                }
            });
        }
        std::thread::sleep(moment);
        let stopped = DirectoryTarget::new(point).apply(&Operation::Shutdown { how });
        stopped.expect("root may do this");
    });
}
