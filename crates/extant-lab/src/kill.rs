//! Sudden death: a process that copies a tree is killed at any moment, and what it had synced by then has to be whole.
//!
//! The copier names a file on its output once `fsync` has returned. The judge recovers the image twice, with the engine and
//! with the kernel, asks `e2fsck -fn` both times, and compares every named file with its original.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use extant::{Error, Filesystem, MountOptions};
use extant_device::FileDevice;
use extant_testkit::oracle::{self, KernelMount, Scratch};

const WRITERS: usize = 2;
/// One file in so many is synced.
const SYNCED: usize = 8;
const PIECE_BYTES: usize = 64 << 10;

/// Copies the regular files below `tree` to the root of the image, from two threads, and names those that it synced.
///
/// # Errors
/// Of reading the tree, of the image, of writing the names.
pub fn copy(image: &Path, tree: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    list(tree, &mut files)?;
    let filesystem = MountOptions::new().mount(FileDevice::open(image)?)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ticker = scope.spawn(|| -> Result<(), String> {
            while !done.load(Ordering::Acquire) {
                filesystem.tick().map_err(|error| error.to_string())?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (filesystem, files) = (&filesystem, &files);
                scope.spawn(move || {
                    let mine = files.iter().enumerate().skip(writer).step_by(WRITERS);
                    for (number, path) in mine {
                        copy_file(
                            filesystem,
                            tree,
                            path,
                            (number / WRITERS).is_multiple_of(SYNCED),
                        )
                        .map_err(|error| format!("{}: {error}", path.display()))?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        let outcome: Result<Vec<()>, String> =
            writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect();
        done.store(true, Ordering::Release);
        ticker.join().expect("the ticker ends")?;
        outcome.map(|_| ())
    })?;
    Ok(filesystem.unmount()?)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => list(&entry.path(), files)?,
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

fn copy_file(
    filesystem: &Filesystem,
    tree: &Path,
    path: &Path,
    sync: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let name = path.strip_prefix(tree)?;
    let folder = name.parent().unwrap_or(Path::new(""));
    filesystem.create_dir_all([b"/", folder.as_os_str().as_bytes()].concat())?;
    let target = filesystem.create([b"/", name.as_os_str().as_bytes()].concat())?;
    let (mut source, mut offset, mut piece) = (fs::File::open(path)?, 0, vec![0; PIECE_BYTES]);
    loop {
        let len = source.read(&mut piece)?;
        let mut rest = &piece[..len];
        while !rest.is_empty() {
            let written = target.write_at(rest, offset)?;
            offset += u64::try_from(written)?;
            rest = &rest[written..];
        }
        if len == 0 {
            break;
        }
    }
    if sync {
        target.sync_all()?;
        let mut out = io::stdout().lock();
        out.write_all(&[name.as_os_str().as_bytes(), b"\n"].concat())?;
        out.flush()?;
    }
    Ok(())
}

/// What came of many kills.
#[derive(Debug, Default)]
pub struct Report {
    /// How often the copier was killed.
    pub kills: u64,
    /// Synced files that were compared, each after both recoveries.
    pub files: usize,
    /// What was wrong, one line each.
    pub failures: Vec<String>,
}

/// Kills `copier IMAGE TREE` at `kills` moments, spread over its whole time in a mixed order.
///
/// `None` if the kernel or e2fsprogs cannot judge here.
///
/// # Errors
/// Of starting the copier or of reading files.
pub fn run(
    kills: u64,
    image_bytes: u64,
    tree: &Path,
    copier: impl Fn() -> Command,
) -> io::Result<Option<Report>> {
    let scratch = Scratch::new("kill");
    let (image, twin) = (scratch.path("disk.img"), scratch.path("twin.img"));
    let mut report = Report::default();
    let mut whole = None;
    for number in 0..=kills {
        let Some(()) = oracle::mkfs(&image, image_bytes, &[]) else { return Ok(None) };
        let start = Instant::now();
        let mut child = copier().arg(&image).arg(tree).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let reader = std::thread::spawn(move || output.split(b'\n').collect::<Vec<_>>());
        if let Some(whole) = whole {
            // A step that shares no factor with the number of kills meets every moment once.
            let step = (1..).map(|n| 61 + n).find(|step| gcd(*step, kills) == 1).unwrap_or(1);
            let part = u32::try_from(number * step % kills).unwrap_or_default();
            let parts = u32::try_from(kills).unwrap_or(u32::MAX);
            std::thread::sleep(Duration::mul_f64(whole, f64::from(part) / f64::from(parts)));
            child.kill()?;
        }
        let status = child.wait()?;
        let names = reader.join().expect("the reader ends");
        let names = names.into_iter().collect::<io::Result<Vec<Vec<u8>>>>()?;
        if whole.is_none() {
            // The first copy goes to its end, to learn how long it takes.
            if !status.success() {
                report.failures.push("a copy that nobody killed failed".into());
            }
            whole = Some(start.elapsed());
        } else {
            report.kills += 1;
        }
        report.files += names.len();
        fs::copy(&image, &twin)?;
        let judged = [
            ("the engine's", by_engine(&image, tree, &names)),
            ("the kernel's", by_kernel(&twin, &scratch.path("mount"), tree, &names)),
        ];
        for (whose, judged) in judged {
            if let Err(reason) = judged {
                report.failures.push(format!("kill {number}, {whose} recovery: {reason}"));
            }
        }
    }
    Ok(Some(report))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn by_engine(image: &Path, tree: &Path, names: &[Vec<u8>]) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    let device = FileDevice::open(image).map_err(|error| error.to_string())?;
    let filesystem = MountOptions::new().mount(device).map_err(told)?;
    let read = |name: &[u8]| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut file = filesystem.open([b"/", name].concat()).map_err(told)?;
        file.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    };
    compare(tree, names, read)?;
    filesystem.unmount().map_err(told)?;
    oracle::e2fsck(image)
}

fn by_kernel(image: &Path, point: &Path, tree: &Path, names: &[Vec<u8>]) -> Result<(), String> {
    let Some(mount) = KernelMount::new(image, point, "rw") else { return Ok(()) };
    let read = |name: &[u8]| {
        let path = mount.root().join(std::ffi::OsStr::from_bytes(name));
        fs::read(path).map_err(|error| error.to_string())
    };
    compare(tree, names, read)?;
    mount.unmount().map_err(|error| error.to_string())?;
    oracle::e2fsck(image)
}

fn compare(
    tree: &Path,
    names: &[Vec<u8>],
    read: impl Fn(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    for name in names {
        let path = tree.join(std::ffi::OsStr::from_bytes(name));
        let wanted = fs::read(&path).map_err(|error| error.to_string())?;
        let told = |reason: String| format!("{}, which was synced: {reason}", path.display());
        if read(name).map_err(told)? != wanted {
            return Err(told("other bytes".into()));
        }
    }
    Ok(())
}
