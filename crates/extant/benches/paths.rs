//! How fast the engine is in process, side by side with the same system calls on a kernel mount of an equal image.
//!
//! Both images lie in memory. The kernel's column is left out where there is no root.
//! `cargo xtask bench paths [write-4k write-1m read files copy=DIRECTORY ..]`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run fails")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use extant::{Filesystem, MountOptions, SetAttributes};
use extant_device::FileDevice;
use extant_format::Timestamp;
use extant_testkit::oracle::{self, KernelMount};

const IMAGE_BYTES: u64 = 4 << 30;
const FILE_BYTES: u64 = 512 << 20;
const DIRECTORIES: usize = 20;
const FILES: usize = 500;
/// Passes over the same bytes; the first pays for memory that nobody has touched yet.
const PASSES: usize = 3;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wants = |work: &str| asked.is_empty() || asked.iter().any(|word| word == work);
    let scratch = oracle::Scratch::new("paths");
    let ours = scratch.path("ours");
    if oracle::mkfs(&ours, IMAGE_BYTES, &[]).is_none() {
        return;
    }
    let image = scratch.path("kernel");
    oracle::mkfs(&image, IMAGE_BYTES, &[]).expect("it made the other image");
    let mut kernel = Kernel { image, point: scratch.path("point"), mount: None };
    let has_kernel = kernel.mount();
    let mut pair = (Engine::mount(&ours), has_kernel.then_some(kernel));
    println!(
        "{:<24} {:>12} {:>12} {:>6}   CPU time {:>10} {:>12} {:>6}",
        "work", "extant", "kernel", "ratio", "extant", "kernel", "ratio"
    );
    for (name, piece) in [("write-4k", 4096), ("write-1m", 1 << 20)] {
        if wants(name) {
            writes(&mut pair, name, piece);
        }
    }
    if wants("read") {
        reads(&mut pair);
    }
    if wants("files") {
        files(&mut pair);
    }
    for source in asked.iter().filter_map(|word| word.strip_prefix("copy=")) {
        copy(&mut pair, Path::new(source));
    }
    let peak = fs::read_to_string("/proc/self/status").expect("Linux");
    println!("{}", peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
}

type Pair = (Engine, Option<Kernel>);

fn writes(pair: &mut Pair, name: &str, piece: usize) {
    let bytes = vec![b'x'; piece];
    let path = format!("/{name}");
    for pass in 1..=PASSES {
        compare(&format!("{name}, pass {pass}"), Unit::Bytes(FILE_BYTES), pair, &mut |target| {
            target.write(&path, &bytes);
        });
    }
    compare(&format!("{name}, sync"), Unit::Bytes(FILE_BYTES), pair, &mut |target| target.sync());
}

fn reads(pair: &mut Pair) {
    let path = "/read";
    on_both(pair, &mut |target| {
        target.write(path, &vec![b'x'; 1 << 20]);
        target.remount();
    });
    for (name, piece) in [("4k", 4096), ("1m", 1 << 20)] {
        for how in ["cold", "cached", "cached again"] {
            if how == "cold" {
                on_both(pair, &mut |target| target.remount());
            }
            let name = format!("read-{name}, {how}");
            compare(&name, Unit::Bytes(FILE_BYTES), pair, &mut |target| {
                assert_eq!(target.read(path, piece), FILE_BYTES);
            });
        }
    }
}

fn files(pair: &mut Pair) {
    let bytes = [b'x'; 4096];
    let count = Unit::Calls(DIRECTORIES * FILES);
    let paths: Vec<String> =
        (0..DIRECTORIES * FILES).map(|n| format!("/d{}/file{n}", n / FILES)).collect();
    on_both(pair, &mut |target| {
        (0..DIRECTORIES).for_each(|n| target.create_dir(&format!("/d{n}")));
    });
    for pass in 1..=PASSES {
        let name = |work: &str| format!("{work}, pass {pass}");
        compare(&name("create"), count, pair, &mut |target| {
            paths.iter().for_each(|path| target.create(path, &bytes));
        });
        compare(&name("sync"), count, pair, &mut |target| target.sync());
        compare(&name("stat"), count, pair, &mut |target| {
            paths.iter().for_each(|path| assert_eq!(target.len(path), 4096));
        });
        on_both(pair, &mut |target| target.remount());
        compare(&name("stat cold"), count, pair, &mut |target| {
            paths.iter().for_each(|path| assert_eq!(target.len(path), 4096));
        });
        compare(&name("unlink"), count, pair, &mut |target| {
            paths.iter().for_each(|path| target.remove(path));
        });
        compare(&name("sync"), count, pair, &mut |target| target.sync());
    }
}

/// Copies a tree with all its attributes, from mount to unmount.
fn copy(pair: &mut Pair, source: &Path) {
    on_both(pair, &mut |target| target.remount());
    let count = fs_entries(source);
    compare(&format!("copy {}", source.display()), Unit::Calls(count), pair, &mut |target| {
        target.remount();
        target.copy(source);
        target.remount();
    });
}

fn fs_entries(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("a folder that can be read");
    entries
        .map(|entry| {
            let entry = entry.expect("a folder that can be read");
            let below = entry.file_type().is_ok_and(|kind| kind.is_dir());
            1 + if below { fs_entries(&entry.path()) } else { 0 }
        })
        .sum()
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes(u64),
    Calls(usize),
}

fn on_both(pair: &mut Pair, work: &mut dyn FnMut(&mut dyn Target)) {
    work(&mut pair.0);
    if let Some(kernel) = &mut pair.1 {
        work(kernel);
    }
}

/// Does the work on both and prints a line: the rate by the clock and by CPU time, where a kernel's own threads are
/// not counted.
fn compare(name: &str, unit: Unit, pair: &mut Pair, work: &mut dyn FnMut(&mut dyn Target)) {
    let mut times = Vec::new();
    on_both(pair, &mut |target| {
        let (start, cpu) = (Instant::now(), cpu_time());
        work(target);
        times.push([start.elapsed(), cpu_time() - cpu]);
    });
    let rate = |time: Duration| match unit {
        Unit::Bytes(bytes) => format!("{} MB/s", u128::from(bytes) / time.as_micros().max(1)),
        Unit::Calls(calls) => {
            format!("{:.2} us", time.as_secs_f64() * 1e6 / f64::from(u32::try_from(calls).unwrap()))
        }
    };
    print!("{name:<24}");
    for (which, width) in [(0, 12), (1, 21)] {
        let of = |target: usize| times.get(target).map(|times| times[which]);
        let ratio = of(1).map(|kernel| kernel.as_secs_f64() / times[0][which].as_secs_f64());
        print!(
            " {:>width$} {:>12} {:>6}",
            rate(times[0][which]),
            of(1).map_or_else(String::new, rate),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        );
    }
    println!();
}

/// What this process and its children have used.
fn cpu_time() -> Duration {
    let on_cpu = fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let nanoseconds = on_cpu.split(' ').next().and_then(|field| field.parse().ok());
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<u64>().expect("a count of ticks");
    // cutime and cstime, of children that have ended, in hundredths of a second.
    let children = Duration::from_millis(10 * (ticks(14) + ticks(15)));
    Duration::from_nanos(nanoseconds.expect("a count of nanoseconds")) + children
}

/// What the works need of a file system.
trait Target {
    /// Writes all of a file in pieces like `piece`.
    fn write(&self, path: &str, piece: &[u8]);
    /// Reads all of a file in pieces of `piece` bytes; how many bytes it has.
    fn read(&self, path: &str, piece: usize) -> u64;
    fn create_dir(&self, path: &str);
    fn create(&self, path: &str, bytes: &[u8]);
    fn len(&self, path: &str) -> u64;
    fn remove(&self, path: &str);
    fn sync(&self);
    /// Unmounts, which writes everything and forgets what is cached, and mounts again.
    fn remount(&mut self);
    /// Copies a tree with all its attributes.
    fn copy(&self, source: &Path);
}

struct Engine {
    image: PathBuf,
    mounted: Option<Filesystem>,
}

impl Engine {
    fn mount(image: &Path) -> Self {
        let mut engine = Self { image: image.to_owned(), mounted: None };
        engine.remount();
        engine
    }

    fn fs(&self) -> &Filesystem {
        self.mounted.as_ref().expect("mounted but while remounting")
    }

    fn copy_directory(&self, source: &Path, to: &str, buffer: &mut [u8]) {
        let mut entries: Vec<_> = fs::read_dir(source).unwrap().collect::<Result<_, _>>().unwrap();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = format!("{to}/{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            let meta = entry.metadata().unwrap();
            let time = |seconds, nanoseconds: i64| {
                let nanoseconds = u32::try_from(nanoseconds).unwrap();
                Some(Timestamp { seconds, nanoseconds })
            };
            let change = SetAttributes {
                mode: (!kind.is_symlink()).then(|| u16::try_from(meta.mode() & 0o7777).unwrap()),
                uid: Some(meta.uid()),
                gid: Some(meta.gid()),
                accessed: time(meta.atime(), meta.atime_nsec()),
                modified: time(meta.mtime(), meta.mtime_nsec()),
                ..SetAttributes::default()
            };
            if kind.is_dir() {
                self.fs().create_dir(&path).unwrap();
                self.copy_directory(&entry.path(), &path, buffer);
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                self.fs().symlink(target.to_str().unwrap(), &path).unwrap();
            } else {
                let mut from = fs::File::open(entry.path()).unwrap();
                let file = self.fs().create(&path).unwrap();
                let mut at = 0;
                loop {
                    let n = from.read(buffer).unwrap();
                    if n == 0 {
                        break;
                    }
                    file.write_at(&buffer[..n], at).unwrap();
                    at += u64::try_from(n).unwrap();
                }
                file.inode().set_attributes(&change).unwrap();
                continue;
            }
            set_attributes(self.fs(), &path, &change);
        }
    }
}

/// Sets the attributes of what may be a symbolic link.
fn set_attributes(fs: &Filesystem, path: &str, change: &SetAttributes) {
    fs.set_owner(path, change.uid, change.gid).unwrap();
    if let Some(mode) = change.mode {
        fs.set_permissions(path, mode).unwrap();
    }
    fs.set_times(path, change.accessed, change.modified).unwrap();
}

impl Target for Engine {
    fn write(&self, path: &str, piece: &[u8]) {
        let options = extant::OpenOptions::new().write(true).create(true);
        let file = self.fs().open_with(path, options).unwrap();
        for at in (0..FILE_BYTES).step_by(piece.len()) {
            assert_eq!(file.write_at(piece, at).unwrap(), piece.len());
        }
    }

    fn read(&self, path: &str, piece: usize) -> u64 {
        let file = self.fs().open(path).unwrap();
        let mut buffer = vec![0; piece];
        let mut at = 0;
        loop {
            match file.read_at(&mut buffer, at).unwrap() {
                0 => return at,
                n => at += u64::try_from(n).unwrap(),
            }
        }
    }

    fn create_dir(&self, path: &str) {
        self.fs().create_dir(path).unwrap();
    }

    fn create(&self, path: &str, bytes: &[u8]) {
        self.fs().create(path).unwrap().write_all(bytes).unwrap();
    }

    fn len(&self, path: &str) -> u64 {
        self.fs().metadata(path).unwrap().size
    }

    fn remove(&self, path: &str) {
        self.fs().remove_file(path).unwrap();
    }

    fn sync(&self) {
        self.fs().sync_all().unwrap();
    }

    fn remount(&mut self) {
        if let Some(fs) = self.mounted.take() {
            fs.unmount().unwrap();
        }
        // The kernel's limits are shares of the machine's memory, too.
        let mib = std::env::var("EXTANT_CACHE_MIB").map_or(4096, |mib| mib.parse().unwrap());
        let options = MountOptions::new().cache_bytes(mib << 20);
        let device = FileDevice::open(&self.image).expect("nobody else has the image");
        self.mounted = Some(options.mount(device).expect("the image mounts"));
    }

    fn copy(&self, source: &Path) {
        self.fs().create_dir("/copy").unwrap();
        self.copy_directory(source, "/copy", &mut vec![0; 256 << 10]);
    }
}

struct Kernel {
    image: PathBuf,
    point: PathBuf,
    mount: Option<KernelMount>,
}

impl Kernel {
    fn mount(&mut self) -> bool {
        self.mount = KernelMount::new(&self.image, &self.point, "");
        self.mount.is_some()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.point.join(path.trim_start_matches('/'))
    }
}

impl Target for Kernel {
    fn write(&self, path: &str, piece: &[u8]) {
        let file =
            fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.path(path));
        let file = file.unwrap();
        for at in (0..FILE_BYTES).step_by(piece.len()) {
            file.write_all_at(piece, at).unwrap();
        }
    }

    fn read(&self, path: &str, piece: usize) -> u64 {
        let file = fs::File::open(self.path(path)).unwrap();
        let mut buffer = vec![0; piece];
        let mut at = 0;
        loop {
            match file.read_at(&mut buffer, at).unwrap() {
                0 => return at,
                n => at += u64::try_from(n).unwrap(),
            }
        }
    }

    fn create_dir(&self, path: &str) {
        fs::create_dir(self.path(path)).unwrap();
    }

    fn create(&self, path: &str, bytes: &[u8]) {
        fs::File::create(self.path(path)).unwrap().write_all(bytes).unwrap();
    }

    fn len(&self, path: &str) -> u64 {
        fs::metadata(self.path(path)).unwrap().len()
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn sync(&self) {
        assert!(Command::new("sync").arg("-f").arg(&self.point).status().unwrap().success());
    }

    fn remount(&mut self) {
        drop(self.mount.take());
        assert!(Kernel::mount(self), "it was mounted before");
    }

    fn copy(&self, source: &Path) {
        let to = self.path("/copy");
        assert!(Command::new("cp").arg("-a").arg(source).arg(to).status().unwrap().success());
    }
}
