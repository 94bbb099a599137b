//! Many scripts and kinds of volumes by seed, and the oracles that look at a sample of what was recovered.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use extant::{DataMode, MountOptions};
use extant_device::MemoryDevice;
use extant_format::cast::u64_from;
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::{CrashImage, CrashOptions, Fault, tree};

use super::{Plan, Recorded, Recovered, pairs};
use crate::bases::load;
use crate::fast_commit;
use crate::recipes::some;
use crate::script::{Operation, known_scripts, random_script};

/// What became of one seed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Images that were recovered and judged.
    pub images: usize,
    /// Of these, images that e2fsck looked at.
    pub checked: usize,
    /// Of these, images that the kernel recovered too.
    pub compared: usize,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Report {
    /// Adds what became of another seed.
    pub fn add(&mut self, other: Self) {
        self.images += other.images;
        self.checked += other.checked;
        self.compared += other.compared;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, checked, compared) = (self.images, self.checked, self.compared);
        write!(
            f,
            "{images} crash images, {checked} also by e2fsck, {compared} also by the kernel, {} failed",
            self.failures.len()
        )
    }
}

/// Which scripts and kinds of volumes seeds stand for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Set {
    /// Those that any volume may see.
    #[default]
    Usual,
    /// Volumes with fast commits, and mostly scripts with many of them.
    FastCommits,
    /// All sequences of one and two changes, with and without a sync after each; [`all_pairs`] says how many there are.
    Pairs,
}

/// How many seeds [`Set::Pairs`] has.
pub fn all_pairs() -> u64 {
    u64_from(pairs::scripts().len())
}

/// Explores the script and the kind of volume that `seed` stands for in `set`, with at most `most_images` crash images.
pub fn explore(set: Set, seed: u64, most_images: usize, sabotage: Option<Fault>) -> Report {
    let (kind, name, script) = choose(set, seed);
    let images = CrashOptions { seed, from: 0, all_subsets_up_to: 5, samples: 12, tears: 4 };
    let (mount, journaled) = mount_options(seed);
    // Such a change takes several transactions, as in the kernel, and not from front to back.
    let journaled = journaled && !allocates(&script);
    let after = if set == Set::Pairs { pairs::before() } else { 0 };
    let plan = Plan { mount, images, most_images, journaled, after, sabotage };
    // Each of the pairs has few images, and there are many of them.
    let is_seen_by_oracles = set != Set::Pairs || seed.is_multiple_of(PAIRS_PER_ORACLE);
    let mut report = Report::default();
    let fail = |report: &mut Report, what: String| {
        report.failures.push(format!("seed {seed} ({}, {name}): {what}", KINDS[kind].0));
    };
    let Some(volume) = empty_volume(kind) else { return report };
    let recorded = match Recorded::of(&volume, &plan, &script) {
        Ok(recorded) => recorded,
        Err(reason) => {
            fail(&mut report, reason);
            return report;
        }
    };
    let scratch = Scratch::new("crash");
    for (number, crash) in recorded.images(&plan).enumerate() {
        report.images += 1;
        match recorded.judge(&crash) {
            Err(reason) => fail(&mut report, format!("{crash}: {reason}")),
            Ok(recovered) if is_seen_by_oracles && number % CHECKED == 0 => {
                report.checked += 1;
                if let Err(reason) = recorded.judge_second_crashes(&crash, &recovered, SECOND) {
                    fail(&mut report, format!("{crash}, {reason}"));
                }
                let with_kernel = number % COMPARED == 0;
                match oracles(&scratch, &crash, &recovered, with_kernel, set) {
                    Ok(compared) => report.compared += usize::from(compared),
                    Err(reason) => fail(&mut report, format!("{crash}: {reason}")),
                }
            }
            Ok(_) => {}
        }
    }
    report
}

/// How often e2fsck looks and recovery is cut off in its turn, and how often the kernel looks.
const CHECKED: usize = 5;
/// Of so many pairs one is seen by oracles.
const PAIRS_PER_ORACLE: u64 = 5;
/// How many images of a recovery that was cut off.
const SECOND: usize = 4;
const COMPARED: usize = 25;

/// The kind of volume, the script's name, and the script.
fn choose(set: Set, seed: u64) -> (usize, String, Vec<Operation>) {
    let at = |n: u64, len: usize| usize::try_from(n % u64_from(len)).expect("an index");
    if set == Set::Pairs {
        let script = pairs::scripts()[at(seed, pairs::scripts().len())].clone();
        // Files of indirect blocks take no space ahead.
        let kind = at(seed, USUAL);
        let kind = if allocates(&script) && KINDS[kind].0 == "indirect" { 0 } else { kind };
        return (kind, "a pair".to_owned(), script);
    }
    if set == Set::FastCommits {
        let kind = USUAL + at(seed, KINDS.len() - USUAL);
        if seed % 4 < 3 {
            // A long one fills the area.
            let len = if seed % 16 == 2 { 300 } else { 20 + at(seed, 41) };
            let script = fast_commit::script(seed, len, seed % 4 == 1);
            return (kind, format!("fast commits, {len} operations"), script);
        }
        let known = known_scripts();
        let (name, script) = known[at(seed / 4, known.len())].clone();
        return (kind, name.to_owned(), script);
    }
    let kind = at(seed / 2, USUAL);
    if seed % 2 == 1 {
        // A long one goes round the journal.
        let len = if seed % 20 == 19 { 600 } else { 30 };
        return (kind, format!("random, {len} operations"), random_script(seed, len));
    }
    let known = known_scripts();
    let (name, script) = known[at(seed / 2, known.len())].clone();
    (kind, name.to_owned(), script)
}

fn allocates(script: &[Operation]) -> bool {
    script.iter().any(|step| matches!(step, Operation::Allocate { .. }))
}

/// How the volume is mounted, and whether all data is journaled then.
fn mount_options(seed: u64) -> (MountOptions, bool) {
    let options = MountOptions::new();
    match seed / 4 % 6 {
        // One process writes, so that its files follow each other into the same places.
        0 => (options.delayed_allocation(false).process(1), false),
        1 => (options.unwritten_until_done(false), false),
        2 => (options.cache_bytes(1 << 20), false),
        3 => (options.data_mode(DataMode::Journal).process(1), true),
        _ => (options, false),
    }
}

/// Kinds of volumes: name, options of mkfs.ext4.
const KINDS: [(&str, &[&str]); USUAL + 5] = [
    ("4k", &["-b", "4096"]),
    ("1k", &["-b", "1024"]),
    ("no checksums", &["-b", "4096", "-O", "^metadata_csum"]),
    ("indirect", &["-b", "1024", "-O", "^64bit,^extent"]),
    ("inline data", &["-b", "4096", "-O", "inline_data"]),
    ("1k, small inodes", &["-b", "1024", "-I", "128"]),
    ("orphan file", &["-b", "1024", "-O", "orphan_file"]),
    (
        "inline data, large inodes",
        &["-b", "1024", "-I", "1024", "-O", "inline_data,^metadata_csum"],
    ),
    ("fast commits", &["-b", "4096", "-O", "fast_commit"]),
    ("fast commits, 1k", &["-b", "1024", "-O", "fast_commit", "-J", "fast_commit_size=16"]),
    ("fast commits, orphan file", &["-b", "1024", "-O", "fast_commit,orphan_file"]),
    ("fast commits, inline data", &["-b", "4096", "-O", "fast_commit,inline_data"]),
    ("fast commits, no checksums", &["-b", "2048", "-O", "fast_commit,^metadata_csum"]),
];
/// How many of them are for [`Set::Usual`].
const USUAL: usize = 8;

/// A fresh volume of 16 mebibytes; `None`, after a skip, where there is no mkfs.ext4. It is made once a run.
fn empty_volume(kind: usize) -> Option<MemoryDevice> {
    static MADE: [OnceLock<Option<MemoryDevice>>; KINDS.len()] =
        [const { OnceLock::new() }; KINDS.len()];
    let make = || {
        let scratch = Scratch::new("empty");
        let path = scratch.path("image");
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let fixed = ["-U", uuid, "-E", &format!("hash_seed={uuid},lazy_itable_init=0")];
        oracle::mkfs(&path, 16 << 20, &[KINDS[kind].1, &fixed].concat())?;
        // The superblock's 1024 bytes are not journaled when a volume is mounted and unmounted: as the kernel, the
        // engine relies on a device that stores them whole.
        Some(load(&path).with_sector_bytes(1024))
    };
    MADE[kind].get_or_init(make).as_ref().map(MemoryDevice::snapshot)
}

/// What e2fsck says of what the engine recovered and, if asked, whether the kernel recovers the same; whether it could.
fn oracles(
    scratch: &Scratch,
    crash: &CrashImage,
    recovered: &Recovered,
    with_kernel: bool,
    set: Set,
) -> Result<bool, String> {
    let path = scratch.path("image");
    let store =
        |image: &MemoryDevice| fs::write(&path, image.to_vec()).map_err(|error| error.to_string());
    store(&recovered.image)?;
    oracle::e2fsck(&path).map_err(|text| format!("e2fsck of what was recovered: {text}"))?;
    if !with_kernel {
        return Ok(false);
    }
    store(&crash.image)?;
    let Some(mount) = KernelMount::new(&path, &scratch.path("mount"), "noatime") else {
        return Ok(false);
    };
    let seen = tree::read(mount.root()).map_err(|error| error.to_string())?;
    mount.unmount().map_err(|error| error.to_string())?;
    let is_fast = set == Set::FastCommits;
    if is_fast {
        oracle::e2fsck(&path).map_err(|text| format!("e2fsck of what the kernel made: {text}"))?;
    }
    let differences = tree::differences(&seen, &recovered.tree, |path, field| {
        is_fast && fast_commit::is_unlike_in_kernel(&recovered.tree, path, field)
    });
    match differences.is_empty() {
        true => Ok(true),
        false => Err(format!("the kernel recovers another tree: {}", some(&differences))),
    }
}
