//! Damaged images on a mount: the server neither panics nor hangs, says what is wrong, and writes nothing when it may not.
//!
//! The images are those of `cargo xtask damage`. Who walks them is a process of its own kind: what it waits for comes from the
//! kernel, so a step that does not end is ended by killing the server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use extant_device::{BlockDevice, BlockDeviceExt, MemoryDevice};
use extant_testkit::Random;
use extant_testkit::oracle::Scratch;
use rustix::fs as sys;

use super::server::{NotMounted, Served};
use crate::damage::{Case, Found, Watch, random_change};
use crate::script::{DirectoryTarget, Target};

/// Options that take turns; what a mount does about an error is among them.
const OPTIONS: [&str; 8] = [
    "errors=continue",
    "errors=remount-ro",
    "writeback,errors=continue",
    "errors=panic",
    "nodelalloc,errors=continue",
    "data=journal,errors=continue",
    "cache=1M,errors=continue,noloop",
    "",
];
/// One image in so many is mounted to be read first, and has to stay as it is.
const READ_FIRST: u64 = 4;
/// The most memory that a server may take.
const MOST_KIB: u64 = 256 << 10;

/// What came of all images.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Images by what became of them: `mounted`, or the code of the refusal.
    pub ends: BTreeMap<String, u64>,
    /// How often clients were told each error.
    pub errors: BTreeMap<i32, u64>,
    /// Mounts whose server said that there is damage.
    pub told: u64,
    /// The most memory that a server had.
    pub most_kib: u64,
    /// The longest time that a server took to mount or to refuse.
    pub longest_start: Duration,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// Mounts images `first..first + count` of `seed`, from two threads.
pub fn run(program: &Path, seed: u64, first: u64, count: u64) -> Report {
    let report = Mutex::new(Report::default());
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    let case = Case { seed, number };
                    if let Err(reason) = try_case(program, case, false, &report) {
                        let story = case.build().map(|damaged| damaged.story);
                        let failure = format!("{case}: {reason}\n  {}", story.unwrap_or_default());
                        locked(&report).failures.push(failure);
                    }
                }
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn locked(report: &Mutex<Report>) -> std::sync::MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts one damaged image, and does everything with it; each step is printed if `tell`.
///
/// # Errors
/// What the server did that it may not.
pub fn try_case(
    program: &Path,
    case: Case,
    tell: bool,
    report: &Mutex<Report>,
) -> Result<(), String> {
    let Some(mut damaged) = case.build() else { return Ok(()) };
    let scratch = Scratch::new("mount-damaged");
    let image = scratch.path("disk.img");
    store(&damaged.image, &image).map_err(|error| error.to_string())?;
    if case.number.is_multiple_of(READ_FIRST) {
        let mut mount = Mount { program, image: &image, scratch: &scratch, tell, report };
        mount.exercise("ro", &mut damaged.random.clone())?;
        if fs::read(&image).map_err(|error| error.to_string())? != damaged.image.to_vec() {
            return Err("an image that was mounted to be read was written".into());
        }
    }
    let options = OPTIONS[usize::try_from(case.number / READ_FIRST % 8).unwrap_or(0)];
    let mut mount = Mount { program, image: &image, scratch: &scratch, tell, report };
    mount.exercise(options, &mut damaged.random)
}

/// Writes an image without its zeros.
fn store(image: &MemoryDevice, path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    let len = image.geometry().len_bytes;
    file.set_len(len)?;
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(PIECE_BYTES);
        let bytes = image
            .read_vec(at, usize::try_from(piece).unwrap_or(0))
            .map_err(|error| io::Error::other(error.to_string()))?;
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(&bytes, at)?;
        }
        at += piece;
    }
    Ok(())
}

const PIECE_BYTES: u64 = 64 << 10;

struct Mount<'a> {
    program: &'a Path,
    image: &'a Path,
    scratch: &'a Scratch,
    tell: bool,
    report: &'a Mutex<Report>,
}

impl Mount<'_> {
    fn exercise(&mut self, options: &str, random: &mut Random) -> Result<(), String> {
        let said = |reason: String| format!("-o {options:?}: {reason}");
        let point = self.scratch.path("point");
        let start = Instant::now();
        let started = Served::start(self.program, self.image, &point, options);
        let mut report = locked(self.report);
        report.longest_start = report.longest_start.max(start.elapsed());
        let mut served = match started {
            Ok(served) => served,
            Err(refused) => {
                *report.ends.entry(refusal(&refused)).or_default() += 1;
                return refused.in_order().map_err(said);
            }
        };
        *report.ends.entry("mounted".to_owned()).or_default() += 1;
        drop(report);
        let seen = self.walk(&mut served, options != "ro", random).map_err(said)?;
        let kib = served.status_kib("VmHWM");
        let ended = served.unmount().map_err(said)?;
        ended.in_order().map_err(said)?;
        let mut report = locked(self.report);
        report.most_kib = report.most_kib.max(kib);
        for (errno, times) in &seen {
            *report.errors.entry(*errno).or_default() += times;
        }
        if kib > MOST_KIB {
            return Err(said(format!("the server took {kib} KiB")));
        }
        let told = ended.said.contains("damage was found");
        report.told += u64::from(told);
        // Clients were told, so whoever looks after the machine is.
        let is_damage = |errno| errno == DAMAGED || errno == BAD_CHECKSUM;
        match seen.keys().any(|errno| is_damage(*errno)) && !told {
            true => Err(said(format!("damage was found, and nobody says so: {}", ended.said))),
            false => Ok(()),
        }
    }

    /// Does everything in a thread; a step that takes too long ends with the server. Which errors there were.
    fn walk(
        &self,
        served: &mut Served,
        writes: bool,
        random: &mut Random,
    ) -> Result<BTreeMap<i32, u64>, String> {
        let watch = Watch::new(self.tell);
        let walker =
            Walker { root: served.point().to_owned(), watch: &watch, seen: Mutex::default() };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| walker.everything(writes, random));
            let mut late = None;
            while !thread.is_finished() {
                if let Some(step) = watch.overdue().filter(|_| late.is_none()) {
                    late = Some(format!("it hangs in {step}: {}", served.said()));
                    served.kill();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            match late {
                Some(late) => Err(late),
                None => thread.join().map_err(|_| "the walk itself failed".to_owned()),
            }
        })?;
        Ok(walker.seen.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn refusal(refused: &NotMounted) -> String {
    refused.code().map_or("no end".to_owned(), |code| format!("exit code {code}"))
}

struct Walker<'a> {
    root: std::path::PathBuf,
    watch: &'a Watch,
    seen: Mutex<BTreeMap<i32, u64>>,
}

impl Walker<'_> {
    fn everything(&self, writes: bool, random: &mut Random) {
        let found = self.look();
        if writes {
            let mut target = DirectoryTarget::new(&self.root);
            for number in 0..CHANGES {
                let Some(operation) = random_change(&found, number, random) else { continue };
                self.step(&operation, || {
                    let errno = |errno: crate::script::Errno| io::Error::from_raw_os_error(errno.0);
                    target.apply(&operation).map(drop).map_err(errno)
                });
            }
            drop(target);
            self.step("syncfs", || Ok(sys::syncfs(File::open(&self.root)?)?));
            self.look();
        }
    }

    fn step<T>(
        &self,
        name: impl std::fmt::Debug,
        step: impl FnOnce() -> io::Result<T>,
    ) -> Option<T> {
        match self.watch.step(name, step) {
            Ok(done) => Some(done),
            Err(error) => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                *seen.entry(error.raw_os_error().unwrap_or(0)).or_default() += 1;
                None
            }
        }
    }

    /// Looks at everything, as far as a sane image of this size would go.
    fn look(&self) -> Found {
        let (mut found, mut seen, mut entries) = (Found::default(), Vec::new(), 0);
        let mut open = vec![Vec::new()];
        self.step("statvfs", || Ok(sys::statvfs(&self.root)?));
        while let Some(name) = open.pop() {
            let path = self.root.join(OsStr::from_bytes(&name));
            let step = |what: &str| format!("{what} {}", String::from_utf8_lossy(&name));
            let Some(metadata) = self.step(step("lstat"), || fs::symlink_metadata(&path)) else {
                continue;
            };
            if seen.contains(&metadata.ino()) {
                continue; // another link, or a directory in itself
            }
            seen.push(metadata.ino());
            self.attributes(&path, step("xattrs of"));
            let kind = metadata.file_type();
            if kind.is_file() {
                self.step(step("read"), || read(&path, metadata.len()));
                found.files.push(name);
            } else if kind.is_dir() {
                found.directories.push(name.clone());
                self.step(step("look for nothing in"), || {
                    fs::symlink_metadata(path.join("no such name"))
                });
                let list = || fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>();
                let names = self.step(step("list"), list).unwrap_or_default();
                entries += names.len();
                if entries < MOST_ENTRIES && name.len() < MOST_PATH_BYTES {
                    for entry in names {
                        let below = entry.file_name().into_vec();
                        open.push(if name.is_empty() {
                            below
                        } else {
                            [&name, b"/".as_slice(), &below].concat()
                        });
                    }
                }
            } else {
                if kind.is_symlink() {
                    self.step(step("readlink"), || fs::read_link(&path));
                }
                found.others.push(name);
            }
        }
        found
    }

    fn attributes(&self, path: &Path, step: String) {
        let mut room = vec![0; 70_000];
        let list = |room: &mut Vec<u8>| Ok(sys::llistxattr(path, &mut room[..])?);
        let Some(len) = self.step(&step, || list(&mut room)) else { return };
        let names = room[..len].to_vec();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            self.step(&step, || Ok(sys::lgetxattr(path, name, &mut room[..])?));
        }
    }
}

/// Reads a file's first runs of data, whatever its size says, and its end.
fn read(path: &Path, size: u64) -> io::Result<()> {
    let flags = (sys::OFlags::NONBLOCK | sys::OFlags::NOFOLLOW).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let mut buffer = vec![0; 64 << 10];
    let (mut at, mut left, mut outcome) = (0, MOST_FILE_BYTES, Ok(()));
    while left > 0 {
        at = sys::seek(&file, sys::SeekFrom::Data(at)).unwrap_or(at);
        match file.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(count) => {
                let count = u64::try_from(count).unwrap_or(0);
                (at, left) = (at + count, left.saturating_sub(count));
            }
            Err(error) => {
                (at, left) = (at.saturating_add(64 << 10), left.saturating_sub(1 << 20));
                outcome = Err(error);
            }
        }
    }
    let _ = sys::seek(&file, sys::SeekFrom::Hole(0));
    file.read_at(&mut buffer, size.saturating_sub(5000))?;
    outcome
}

const CHANGES: u32 = 60;
const MOST_ENTRIES: usize = 5000;
const MOST_PATH_BYTES: usize = 3000;
const MOST_FILE_BYTES: u64 = 2 << 20;
const DAMAGED: i32 = 117; // EUCLEAN
const BAD_CHECKSUM: i32 = 74; // EBADMSG
