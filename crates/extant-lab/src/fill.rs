//! Volumes written until they are full: `ENOSPC` comes from the call that asks for space, and never from one that only writes
//! out what was promised.
//!
//! Small files, long appends, sparse writes and allocation ahead fill a small image, whole or fragmented, for an ordinary
//! caller or for root. What a write accepted is compared after a sync with nothing in memory, on the full volume and after a
//! remount; the engine recounts itself every few steps. Then files are deleted, which takes no space, and writing goes on.

mod plain;

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use extant::{Caller, DataMode, Error, File, MountOptions, OpenOptions, RangeChange};
use extant_device::MemoryDevice;
use extant_format::cast::u64_from;
use extant_script::{Operation, Volume, pattern};
use extant_testkit::Random;
use extant_testkit::oracle::{self, Scratch};

use crate::bases::load;
use crate::counts;
use plain::Plain;

/// A kind of image, small enough to be filled in a moment.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, which never changes.
    pub name: &'static str,
    kibibytes: u64,
    block: u64,
    cluster: u64,
    options: &'static [&'static str],
    journal: bool,
}

/// Every kind, in an order that never changes; new ones come last.
pub const KINDS: [Kind; 12] = [
    kind("1k", 3 << 10, 1024, &[]),
    kind("4k", 10 << 10, 4096, &[]),
    Kind { cluster: 8192, ..kind("1k-bigalloc", 6 << 10, 1024, &["-O", "bigalloc", "-C", "8192"]) },
    kind("1k-inline", 3 << 10, 1024, &["-O", "inline_data"]),
    kind("1k-indirect", 3 << 10, 1024, &["-O", "^extent,^64bit"]),
    Kind { journal: false, ..kind("1k-no-journal", 2 << 10, 1024, &["-O", "^has_journal"]) },
    kind("1k-groups", 4 << 10, 1024, &["-g", "1024", "-O", "^resize_inode"]),
    Kind {
        cluster: 16384,
        ..kind("4k-bigalloc", 12 << 10, 4096, &["-O", "bigalloc", "-C", "16384"])
    },
    kind("4k-inline", 10 << 10, 4096, &["-O", "inline_data"]),
    kind("4k-indirect", 10 << 10, 4096, &["-O", "^extent,^64bit"]),
    Kind { journal: false, ..kind("4k-no-journal", 3 << 10, 4096, &["-O", "^has_journal"]) },
    kind("1k-orphan-file", 3 << 10, 1024, &["-O", "orphan_file"]),
];

const fn kind(
    name: &'static str,
    kibibytes: u64,
    block: u64,
    options: &'static [&'static str],
) -> Kind {
    Kind { name, kibibytes, block, cluster: block, options, journal: true }
}

impl Kind {
    /// An empty image with `reserve` percent kept for root; made once. `None`, after a skip, without mke2fs.
    fn image(&self, reserve: u8) -> Option<MemoryDevice> {
        type Made = ((&'static str, u8), Option<MemoryDevice>);
        static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, image)) = made.iter().find(|(key, _)| *key == (self.name, reserve)) {
            return image.as_ref().map(MemoryDevice::snapshot);
        }
        let scratch = Scratch::new("fill");
        let path = scratch.path("disk.img");
        let (block, percent) = (self.block.to_string(), reserve.to_string());
        let options = [self.options, &["-b", &block, "-m", &percent, "-N", "128"]].concat();
        let image = oracle::mkfs_stale(&path, self.kibibytes << 10, &options).map(|()| load(&path));
        made.push(((self.name, reserve), image.as_ref().map(MemoryDevice::snapshot)));
        image
    }
}

/// One run; the seed decides everything.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Decides everything.
    pub seed: u64,
    /// Whether e2fsck looks at the image.
    pub e2fsck: bool,
    /// Whether each step is printed before it is done.
    pub tell: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        write!(
            f,
            "seed {seed} ({}); replay: cargo xtask fill --first {seed} --seeds 1 --tell",
            self.kind().name
        )
    }
}

impl Case {
    fn kind(&self) -> &'static Kind {
        let number = self.seed % u64_from(KINDS.len());
        &KINDS[usize::try_from(number).expect("below the number of kinds")]
    }

    fn options(&self, random: &mut Random) -> MountOptions {
        let options = MountOptions::new()
            .cache_bytes([1 << 20, 4 << 20, 64 << 20][index(random, 3)])
            .check_status(true);
        match random.below(12) {
            0..3 => options.delayed_allocation(false),
            3 | 4 => options.unwritten_until_done(false),
            5 if self.kind().journal => options.data_mode(DataMode::Journal),
            6 if self.kind().journal => options.data_mode(DataMode::Writeback),
            _ => options,
        }
    }

    /// Runs it; `Ok(false)` where mke2fs is missing.
    ///
    /// # Errors
    /// The first thing that is not as it has to be, after the step that led there.
    pub fn run(&self) -> Result<bool, String> {
        let kind = self.kind();
        let mut random = Random::new(self.seed ^ 0xF111_F111);
        let reserve = [0, 10][index(&mut random, 2)];
        let Some(image) = kind.image(reserve) else { return Ok(false) };
        let device = Arc::new(image);
        let options = self.options(&mut random);
        let caller = if random.coin() { Caller::ROOT } else { Caller::user(1000, 1000) };
        if self.tell {
            println!("{} reserve {reserve}% {caller:?} {options:?}", kind.name);
        }
        let mut state = State {
            kind,
            volume: mount(&device, &options)?,
            files: Vec::new(),
            caller,
            random,
            serial: 0,
            tell: self.tell,
        };
        state.fragment()?;
        state.fill()?;
        state.compare_cold()?;
        state.make_room()?;
        state.fill()?;
        let State { volume, files, .. } = state;
        volume.unmount().map_err(|error| format!("unmount: {error}"))?;
        let volume = mount(&device, &options)?;
        compare(&volume, &files).map_err(|reason| format!("after a remount: {reason}"))?;
        volume.filesystem.check_invariants(true).map_err(|error| error.to_string())?;
        volume.unmount().map_err(|error| format!("unmount: {error}"))?;
        counts::check(&device)?;
        if self.e2fsck {
            let scratch = Scratch::new("fill");
            let path = scratch.path("disk.img");
            fs::write(&path, device.to_vec()).map_err(|error| error.to_string())?;
            oracle::e2fsck(&path)?;
        }
        Ok(true)
    }
}

fn mount(device: &Arc<MemoryDevice>, options: &MountOptions) -> Result<Volume, String> {
    Volume::mount(Arc::<MemoryDevice>::clone(device), options.clone())
        .map_err(|error| format!("mount: {error}"))
}

struct State {
    kind: &'static Kind,
    volume: Volume,
    /// Names, and what is under them.
    files: Vec<(Vec<u8>, Plain)>,
    caller: Caller,
    random: Random,
    serial: u32,
    tell: bool,
}

/// Whether a call got its space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Got {
    All,
    Less,
}

/// After so many calls that got too little, the rest of the space is taken in an orderly way.
const REFUSALS: u32 = 10;
const MOST_STEPS: u32 = 160;
/// The engine recounts itself after so many steps.
const STEPS_BETWEEN_COUNTS: u32 = 8;
/// Clusters that may be left when a write of one block gets none: what the path to it could have needed.
const LEFT_CLUSTERS: u64 = 12;

impl State {
    /// In half of all runs: files of a cluster each, every other one deleted, or a long one with every other cluster punched out.
    fn fragment(&mut self) -> Result<(), String> {
        match self.random.below(4) {
            0 => {
                let count = 20 + self.random.below(80);
                for _ in 0..count {
                    if let Some(number) = self.create()? {
                        let len = self.kind.cluster * (1 + self.random.below(2));
                        self.write(number, 0, len)?;
                    }
                }
                self.sync()?;
                for number in (0..self.files.len()).rev().filter(|number| number % 2 == 0) {
                    self.unlink(number)?;
                }
            }
            1 => {
                let Some(number) = self.create()? else { return Ok(()) };
                let clusters = 64 + self.random.below(400);
                self.write(number, 0, clusters * self.kind.cluster)?;
                self.sync()?;
                for cluster in (0..clusters).step_by(2) {
                    self.punch(number, cluster * self.kind.cluster, self.kind.cluster)?;
                }
            }
            _ => {}
        }
        self.recount(true)
    }

    /// Steps at random until space runs out, then blocks until there is none.
    fn fill(&mut self) -> Result<(), String> {
        let (mut refusals, mut steps) = (0, 0);
        while refusals < REFUSALS && steps < MOST_STEPS {
            steps += 1;
            refusals += u32::from(self.step()? == Got::Less);
            if steps.is_multiple_of(STEPS_BETWEEN_COUNTS) {
                self.recount(steps.is_multiple_of(8 * STEPS_BETWEEN_COUNTS))?;
            }
        }
        self.take_rest()?;
        self.sync()?;
        self.recount(true)
    }

    /// Appends ever shorter pieces, and a last block when nothing waits for its place any more: that it gets none has to mean
    /// that there is none.
    fn take_rest(&mut self) -> Result<(), String> {
        let number = match self.create()? {
            Some(number) => number,
            None if self.files.is_empty() => return Ok(()),
            None => self.files.len() - 1,
        };
        let block = self.kind.block;
        let (mut len, mut is_synced) = (128 << 10, false);
        loop {
            let end = self.files[number].1.size.next_multiple_of(block);
            let got = self.write(number, end, len)?;
            match got {
                Got::All => {}
                Got::Less if len > block => len = (len / 2).max(block),
                Got::Less if is_synced => break,
                Got::Less => {
                    self.sync()?;
                    (len, is_synced) = (4 * block, true);
                }
            }
        }
        let left = self.usable_clusters();
        if left > LEFT_CLUSTERS {
            return Err(format!("a write of one block gets no space with {left} clusters left"));
        }
        Ok(())
    }

    /// Clusters that the caller could have by what statfs says.
    fn usable_clusters(&self) -> u64 {
        let sizes = self.volume.filesystem.statfs();
        let pool = self.volume.filesystem.kernel_counters().reserved_clusters;
        let per_cluster = self.kind.cluster / self.kind.block;
        match self.caller.privileged {
            true => (sizes.free_blocks / per_cluster).saturating_sub(pool),
            false => sizes.available_blocks / per_cluster,
        }
    }

    /// Deletes some files and cuts others, which takes no space, and writes what has room then.
    fn make_room(&mut self) -> Result<(), String> {
        for number in (0..self.files.len()).rev() {
            match self.random.below(4) {
                0 => self.unlink(number)?,
                1 => {
                    let size = self.random.below(self.files[number].1.size + 1);
                    self.truncate(number, size)?;
                }
                _ => {}
            }
        }
        if !self.files.is_empty() {
            self.unlink(0)?;
        }
        self.sync()?;
        self.recount(true)?;
        let room = self.usable_clusters();
        if room > LEFT_CLUSTERS {
            let number = self.create()?.ok_or("no file can be made after others were deleted")?;
            if self.write(number, 0, self.kind.block)? != Got::All {
                return Err(format!("{room} clusters are free again, and one block gets none"));
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Got, String> {
        let block = self.kind.block;
        let choice = self.random.below(24);
        if self.files.is_empty() || choice < 6 {
            let Some(number) = self.create()? else { return Ok(Got::Less) };
            let len = match self.random.below(3) {
                0 => 1 + self.random.below(200),
                _ => 1 + self.random.below(4 * block),
            };
            return self.write(number, 0, len);
        }
        let number = index(&mut self.random, self.files.len());
        let size = self.files[number].1.size;
        let far = [1 << 20, 1 << 21, 200 << 20][index(&mut self.random, 3)];
        let at = self.random.below(far);
        let len = 1 + self.random.below(self.kind.kibibytes << 7);
        match choice {
            6..10 => self.write(number, size, len),
            10..14 => {
                let len = 1 + self.random.below(3 * block);
                self.write(number, at, len)
            }
            14 => {
                let at = self.random.below(size + 1);
                self.write(number, at, len / 4 + 1)
            }
            15..17 => self.allocate(number, size, len, false),
            17 => self.allocate(number, at, len, true),
            18 if size > 0 => {
                let at = self.random.below(size);
                self.store(number, at)
            }
            19 => {
                let size = if self.random.coin() { self.random.below(size + 1) } else { at };
                self.truncate(number, size)?;
                Ok(Got::All)
            }
            20 => {
                let at = self.random.below(size + 1);
                self.punch(number, at, len)?;
                Ok(Got::All)
            }
            21 => self.between(number),
            22 if self.random.below(3) == 0 => {
                self.unlink(number)?;
                Ok(Got::All)
            }
            _ => self.tick(),
        }
    }

    /// What moves promised space to its place.
    fn between(&mut self, number: usize) -> Result<Got, String> {
        match self.random.below(3) {
            0 => self.sync()?,
            1 => {
                self.say(|state| format!("fsync {}", state.shown(number)));
                let file = self.open(number)?;
                file.sync_all().map_err(|error| format!("fsync: {error}"))?;
            }
            _ => {
                self.say(|_| "drop caches".into());
                self.volume.filesystem.drop_caches();
            }
        }
        Ok(Got::All)
    }

    fn tick(&mut self) -> Result<Got, String> {
        let seconds = [1, 6, 40][index(&mut self.random, 3)];
        self.say(|_| format!("tick {seconds}"));
        let ticked = self.volume.try_apply(&Operation::Tick { seconds });
        ticked.map(|_| Got::All).map_err(|error| format!("tick: {error}"))
    }

    fn say(&self, what: impl FnOnce(&Self) -> String) {
        if self.tell {
            println!("{}", what(self));
        }
    }

    fn shown(&self, number: usize) -> String {
        String::from_utf8_lossy(&self.files[number].0).into_owned()
    }

    fn sync(&mut self) -> Result<(), String> {
        self.say(|_| "sync".into());
        self.volume.filesystem.sync_all().map_err(|error| format!("sync: {error}"))
    }

    fn recount(&self, bitmaps: bool) -> Result<(), String> {
        let counted = self.volume.filesystem.check_invariants(bitmaps);
        counted.map_err(|error| format!("recount: {error}"))
    }

    fn open(&self, number: usize) -> Result<File, String> {
        let options = OpenOptions::new().read(true).write(true);
        let file = self.volume.filesystem.open_with(&self.files[number].0, options);
        file.map(|file| file.for_caller(&self.caller))
            .map_err(|error| format!("open {}: {error}", self.shown(number)))
    }

    /// A new file's place in the list; `None` if it got no space.
    fn create(&mut self) -> Result<Option<usize>, String> {
        self.serial += 1;
        let long = if self.random.below(4) == 0 {
            "-with-a-name-that-fills-directories".repeat(4)
        } else {
            String::new()
        };
        let name = format!("f{}{long}", self.serial).into_bytes();
        self.say(|_| format!("create {}", String::from_utf8_lossy(&name)));
        let options = OpenOptions::new().write(true).create_new(true);
        let made = self.volume.filesystem.open_with(&name, options).map(drop);
        if granted(made, "create")?.is_none() {
            return Ok(None);
        }
        self.files.push((name, Plain::default()));
        Ok(Some(self.files.len() - 1))
    }

    fn write(&mut self, number: usize, at: u64, len: u64) -> Result<Got, String> {
        self.serial += 1;
        self.say(|state| format!("write {} {at} {len}", state.shown(number)));
        let bytes = pattern(self.serial, at, short(len));
        let file = self.open(number)?;
        let Some(count) = granted(file.write_at(&bytes, at), "write")? else {
            return Ok(Got::Less);
        };
        if count == 0 {
            return Err(format!("write {}: nothing went in, and no error", self.shown(number)));
        }
        self.files[number].1.write(at, &bytes[..count]);
        Ok(if count == bytes.len() { Got::All } else { Got::Less })
    }

    /// One byte, as through a shared mapping.
    fn store(&mut self, number: usize, at: u64) -> Result<Got, String> {
        self.say(|state| format!("store {} {at}", state.shown(number)));
        let file = self.open(number)?;
        let Some(count) = granted(file.store_at(b"Z", at), "store")? else { return Ok(Got::Less) };
        self.files[number].1.write(at, &b"Z"[..count]);
        Ok(Got::All)
    }

    fn allocate(&mut self, number: usize, at: u64, len: u64, keep: bool) -> Result<Got, String> {
        self.say(|state| format!("allocate {} {at} {len} keep {keep}", state.shown(number)));
        let file = self.open(number)?;
        let done = file.change_range(RangeChange::Allocate { keep_size: keep }, at, len);
        let old = self.files[number].1.size;
        let most = if keep { old } else { old.max(at + len) };
        let got = match done {
            Err(Error::NotSupported(_)) => return Ok(Got::All),
            done => granted(done, "allocate")?,
        };
        // What there was space for stays, and the size says how much.
        let size = file.metadata().map_err(|error| error.to_string())?.size;
        let right = if got.is_some() { size == most } else { (old..=most).contains(&size) };
        if !right {
            return Err(format!(
                "allocate {}: size {size} after {old}, {most} wanted",
                self.shown(number)
            ));
        }
        self.files[number].1.truncate(size);
        Ok(if got.is_some() { Got::All } else { Got::Less })
    }

    fn truncate(&mut self, number: usize, size: u64) -> Result<(), String> {
        self.say(|state| format!("truncate {} {size}", state.shown(number)));
        let file = self.open(number)?;
        match file.set_len(size) {
            Ok(()) => self.files[number].1.truncate(size),
            // Contents that leave the inode for it take a block.
            Err(Error::NoSpace { .. })
                if self.kind.name.contains("inline") && size > self.files[number].1.size => {}
            Err(error) => return Err(format!("truncate {} {size}: {error}", self.shown(number))),
        }
        Ok(())
    }

    fn punch(&mut self, number: usize, at: u64, len: u64) -> Result<(), String> {
        self.say(|state| format!("punch {} {at} {len}", state.shown(number)));
        let file = self.open(number)?;
        match file.change_range(RangeChange::PunchHole, at, len) {
            Ok(()) => self.files[number].1.zero(at, len),
            Err(Error::NotSupported(_)) => {}
            // As with `truncate`.
            Err(Error::NoSpace { .. }) if self.kind.name.contains("inline") => {}
            Err(error) => return Err(format!("punch {}: {error}", self.shown(number))),
        }
        Ok(())
    }

    fn unlink(&mut self, number: usize) -> Result<(), String> {
        self.say(|state| format!("unlink {}", state.shown(number)));
        let (name, _) = self.files.remove(number);
        let removed = self.volume.filesystem.remove_file(&name);
        removed.map_err(|error| format!("unlink {}: {error}", String::from_utf8_lossy(&name)))
    }

    /// Everything, read from the device.
    fn compare_cold(&mut self) -> Result<(), String> {
        self.volume.filesystem.drop_caches();
        compare(&self.volume, &self.files).map_err(|reason| format!("after a sync: {reason}"))
    }
}

fn compare(volume: &Volume, files: &[(Vec<u8>, Plain)]) -> Result<(), String> {
    files.iter().try_for_each(|(name, plain)| {
        let file = volume.filesystem.open(name).map_err(|error| error.to_string());
        file.and_then(|file| plain.compare(&file))
            .map_err(|reason| format!("{}: {reason}", String::from_utf8_lossy(name)))
    })
}

/// What a call that may ask for space returned; `None` for `ENOSPC`.
fn granted<T>(result: Result<T, Error>, what: &str) -> Result<Option<T>, String> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoSpace { .. } | Error::NoInodes) => Ok(None),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

fn index(random: &mut Random, len: usize) -> usize {
    short(random.below(u64_from(len)))
}

fn short(n: u64) -> usize {
    usize::try_from(n).expect("lengths of this suite are small")
}

/// One image in so many is shown to e2fsck, and each of a run that fails.
pub const SAMPLE: u64 = 20;
const MOST_FAILURES: usize = 5;

/// Runs `count` cases from `first` on; with `tell` each step is printed. How many were run.
///
/// # Errors
/// Says which failed, and how; up to five of them.
pub fn run(first: u64, count: u64, tell: bool) -> Result<u64, Vec<String>> {
    let (mut done, mut failures) = (0, Vec::new());
    for seed in first..first.saturating_add(count) {
        let case = Case { seed, tell, e2fsck: tell || seed % SAMPLE == seed / SAMPLE % SAMPLE };
        let ended = std::panic::catch_unwind(|| case.run()).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            Err(words.unwrap_or_else(|| "panicked".to_owned()))
        });
        match ended {
            Ok(ran) => done += u64::from(ran),
            Err(reason) => failures.push(format!("{case}\n  {reason}")),
        }
        if failures.len() == MOST_FAILURES {
            break;
        }
    }
    if failures.is_empty() { Ok(done) } else { Err(failures) }
}
