//! What `fsync` costs: appends of 512 bytes, each made durable, beside a kernel mount of an equal image; and how many threads
//! one commit serves.
//!
//! The rows of the kernel are repeated on a file on the machine's disk, since a flush of memory is free. They need root.
//! `cargo xtask bench fsync`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run fails")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use extant::{Filesystem, MountOptions};
use extant_device::{FileDevice, MemoryDevice};
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::{DiskModel, ModelledDisk};

const IMAGE_BYTES: u64 = 256 << 20;
const APPENDS: u32 = 1000;
const FLUSH: Duration = Duration::from_millis(5);
const THREADS: [usize; 3] = [2, 4, 8];

fn main() {
    let scratch = Scratch::new("fsync");
    let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fsync");
    fs::create_dir_all(&disk).unwrap();
    for (name, folder, rounds) in [("memory", scratch.path(""), 7), ("disk", disk.clone(), 3)] {
        compare(name, &folder, rounds);
    }
    let _ = fs::remove_dir_all(disk); // two images at most
    together(&scratch);
}

/// Both sides by turns, each round on fresh images.
fn compare(name: &str, folder: &Path, rounds: usize) {
    let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
    let (mut engine, mut kernel, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut our_blocks, mut their_blocks) = (0.0, 0.0);
    for _ in 0..rounds {
        for image in [&ours, &theirs] {
            let _ = fs::remove_file(image); // there is none the first time
            if oracle::mkfs(image, IMAGE_BYTES, &["-b", "4096"]).is_none() {
                return;
            }
        }
        let filesystem = MountOptions::new().mount(FileDevice::open(&ours).unwrap()).unwrap();
        let (time, blocks) = appends(&filesystem, "/file");
        engine.push(time);
        our_blocks = blocks;
        filesystem.unmount().unwrap();
        oracle::e2fsck(&ours).unwrap();
        let Some(mount) = KernelMount::new(&theirs, &folder.join("point"), "") else { continue };
        let (time, blocks) = kernel_appends(mount.root());
        kernel.push(time);
        their_blocks = blocks;
        mount.unmount().unwrap();
        ratios.push(time.as_secs_f64() / engine[engine.len() - 1].as_secs_f64());
    }
    print!("{name:<8} {APPENDS} appends: engine {:.1} ms, ", millis(&mut engine));
    if kernel.is_empty() {
        println!("no kernel to compare with");
        return;
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "kernel {:.1} ms, {:.2} times its rate ({:.2} to {:.2}); blocks of the journal an append: {our_blocks:.2}, kernel {their_blocks:.2}",
        millis(&mut kernel),
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

/// The time of all appends, and blocks of the journal for each.
fn appends(filesystem: &Filesystem, path: &str) -> (Duration, f64) {
    let mut file = filesystem.create(path).unwrap();
    filesystem.sync_all().unwrap();
    let before = filesystem.counters();
    let start = Instant::now();
    for _ in 0..APPENDS {
        file.write_all(&[b'x'; 512]).unwrap();
        file.sync_all().unwrap();
    }
    let blocks = filesystem.counters().since(&before).journal_blocks;
    (start.elapsed(), f64::from(u32::try_from(blocks).unwrap()) / f64::from(APPENDS))
}

fn kernel_appends(root: &Path) -> (Duration, f64) {
    let mut file = fs::File::create(root.join("file")).unwrap();
    file.sync_all().unwrap();
    let logged = Logged::begin();
    let start = Instant::now();
    for _ in 0..APPENDS {
        file.write_all(&[b'x'; 512]).unwrap();
        file.sync_all().unwrap();
    }
    let time = start.elapsed();
    (time, logged.map_or(f64::NAN, Logged::end) / f64::from(APPENDS))
}

/// Blocks that the kernel puts into journals while this lives, as its events tell (`jbd2_run_stats`), in a buffer of our own. No
/// other journal may commit meanwhile.
struct Logged(PathBuf);

impl Logged {
    /// Nothing where `tracefs` is not mounted, or not for us.
    fn begin() -> Option<Self> {
        let instance = Self(PathBuf::from("/sys/kernel/tracing/instances/extant-fsync"));
        fs::create_dir(&instance.0).ok()?;
        let event = instance.0.join("events/jbd2/jbd2_run_stats/enable");
        fs::write(event, "1").ok().map(|()| instance)
    }

    fn end(self) -> f64 {
        let trace = fs::read_to_string(self.0.join("trace")).unwrap();
        let logged = |line: &str| line.rsplit_once("blocks_logged ")?.1.trim().parse::<f64>().ok();
        trace.lines().filter_map(logged).sum()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0); // an instance of tracefs goes by it
    }
}

/// Threads with a file each on a device whose flush takes its time.
fn together(scratch: &Scratch) {
    let image = scratch.path("together");
    if oracle::mkfs(&image, IMAGE_BYTES, &["-b", "4096"]).is_none() {
        return;
    }
    let bytes = fs::read(&image).unwrap();
    let alone = rate(&bytes, 1);
    println!("flush of {} ms: one thread {alone:.0} appends/s", FLUSH.as_millis());
    for threads in THREADS {
        let rate = rate(&bytes, threads);
        println!("  {threads} threads {rate:.0}/s, {:.2} times that of one", rate / alone);
    }
}

fn rate(bytes: &[u8], threads: usize) -> f64 {
    let disk =
        ModelledDisk::sleeping(MemoryDevice::from_bytes(bytes), DiskModel::flush_only(FLUSH));
    let filesystem = MountOptions::new().mount(disk).unwrap();
    let count = APPENDS / 5;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..threads {
            let filesystem = &filesystem;
            scope.spawn(move || {
                let mut file = filesystem.create(format!("/{number}")).unwrap();
                for _ in 0..count {
                    file.write_all(&[b'x'; 512]).unwrap();
                    file.sync_all().unwrap();
                }
            });
        }
    });
    let all = f64::from(count) * f64::from(u32::try_from(threads).unwrap());
    let rate = all / start.elapsed().as_secs_f64();
    filesystem.unmount().unwrap();
    rate
}

fn millis(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
