//! How long operations on other files take while commits go on, on a disk whose flush takes 50 ms.
//!
//! One thread writes and syncs a file without pause; others create, write, read and close files of their own. The bar:
//! 5 ms at the 99th percentile for each kind of operation. `cargo xtask bench latency`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use extant::{Filesystem, MountOptions};
use extant_device::MemoryDevice;
use extant_testkit::{DiskModel, ModelledDisk, oracle};

const FLUSH: Duration = Duration::from_millis(50);
const BAR: Duration = Duration::from_millis(5);
const RUN: Duration = Duration::from_secs(5);
/// Between two rounds of a worker, so that two cores are not what is measured.
const PAUSE: Duration = Duration::from_micros(500);

fn main() {
    let scratch = oracle::Scratch::new("latency");
    let image = scratch.path("image");
    if oracle::mkfs(&image, 1 << 30, &[]).is_none() {
        return;
    }
    let device = MemoryDevice::from_bytes(&std::fs::read(&image).expect("mkfs made the image"));
    let disk = ModelledDisk::sleeping(device, DiskModel::flush_only(FLUSH));
    let fs = MountOptions::new().mount(disk).expect("a fresh image mounts");
    let done = AtomicBool::new(false);
    println!(
        "{:<20} {:>8} {:>10} {:>10} {:>10}  (flush {} ms)",
        "operation",
        "count",
        "p50 us",
        "p99 us",
        "max us",
        FLUSH.as_millis()
    );
    let (syncs, mut workers) = std::thread::scope(|scope| {
        let (fs, done) = (&fs, &done);
        let syncer = scope.spawn(move || sync_loop(fs, done));
        scope.spawn(move || tick_loop(fs, done));
        let workers = [0, 1].map(|n| scope.spawn(move || work(fs, n, done)));
        std::thread::sleep(RUN);
        done.store(true, Ordering::Relaxed);
        let workers = workers.map(|worker| worker.join().expect("a worker does not panic"));
        (syncer.join().expect("the syncer does not panic"), workers)
    });
    print(&mut ("write + fsync", syncs));
    let mut within = true;
    let [first, second] = &mut workers;
    for (kind, other) in first.iter_mut().zip(second) {
        kind.1.append(&mut other.1);
        within &= print(kind) <= BAR;
    }
    println!("counters {:?}", fs.counters());
    println!("{}", if within { "within 5 ms at the 99th percentile" } else { "MISSED: 5 ms" });
}

type Times = (&'static str, Vec<Duration>);

fn sync_loop(fs: &Filesystem, done: &AtomicBool) -> Vec<Duration> {
    let file = fs.create("/synced").expect("a new file");
    let mut times = Vec::new();
    for n in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        file.write_at(&[7; 4096], n * 4096).expect("space");
        file.sync_all().expect("a device that works");
        times.push(start.elapsed());
    }
    times
}

fn tick_loop(fs: &Filesystem, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        fs.tick().expect("a device that works");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn work(fs: &Filesystem, worker: usize, done: &AtomicBool) -> Vec<Times> {
    let kinds = ["create", "write new", "close", "append", "overwrite", "read", "stat", "unlink"];
    let mut times = kinds.map(|kind| (kind, Vec::new()));
    let directory = format!("/worker{worker}");
    fs.create_dir(&directory).expect("a new directory");
    let log = fs.create(format!("{directory}/log")).expect("a new file");
    let options = extant::OpenOptions::new().read(true).write(true).create(true);
    let data = fs.open_with(format!("{directory}/data"), options).expect("a new file");
    data.write_at(&vec![1; 4 << 20], 0).expect("space");
    data.sync_all().expect("a device that works");
    let mut buffer = vec![0; 4096];
    for n in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{directory}/{n}");
        let mut time = |kind: usize, start: Instant| times[kind].1.push(start.elapsed());
        let at = n * 40_503 % 1024 * 4096;

        let start = Instant::now();
        let file = fs.create(&name).expect("a new file");
        time(0, start);
        let start = Instant::now();
        file.write_at(&buffer, 0).expect("space");
        time(1, start);
        let start = Instant::now();
        drop(file);
        time(2, start);
        let start = Instant::now();
        log.write_at(&buffer[..100], n * 100).expect("space");
        time(3, start);
        let start = Instant::now();
        data.write_at(&buffer, at).expect("space");
        time(4, start);
        let start = Instant::now();
        data.read_at(&mut buffer, at).expect("a device that works");
        time(5, start);
        let start = Instant::now();
        fs.metadata(&name).expect("it was made above");
        time(6, start);
        if n % 4 == 0 {
            let start = Instant::now();
            fs.remove_file(&name).expect("it was made above");
            time(7, start);
        }
        std::thread::sleep(PAUSE);
    }
    times.into()
}

/// Prints one line; the 99th percentile.
fn print((name, times): &mut Times) -> Duration {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let (p50, p99, max) = (at(50), at(99), at(100));
    println!(
        "{name:<20} {:>8} {:>10} {:>10} {:>10}",
        times.len(),
        p50.as_micros(),
        p99.as_micros(),
        max.as_micros()
    );
    p99
}
