//! Many scripts and kinds of volumes by seed, and the oracles that look at a sample of what was recovered.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use extant::{DataMode, MountOptions};
use extant_device::MemoryDevice;
use extant_format::cast::u64_from;
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::{CrashImage, CrashOptions, Fault, tree};

use super::verdict::Rule;
use super::{Plan, Recorded, Recovered, pairs, programs};
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
    /// Sequences of three such changes, of which a seed chooses one.
    Triples,
    /// What databases, mail stores and package managers do.
    Programs,
}

impl Set {
    /// Whether its scripts are short, and all begin with the same operations.
    const fn is_short(self) -> bool {
        matches!(self, Self::Pairs | Self::Triples)
    }
}

/// How many seeds [`Set::Pairs`] has.
pub fn all_pairs() -> u64 {
    u64_from(pairs::scripts().len())
}

/// The script that `seed` stands for in `set`.
pub fn script_of(set: Set, seed: u64) -> Vec<Operation> {
    Scenario::of(set, seed).script
}

/// Explores the script and the kind of volume that `seed` stands for in `set`, with at most `most_images` crash images.
pub fn explore(set: Set, seed: u64, most_images: usize, sabotage: Option<Fault>) -> Report {
    let scenario = Scenario::of(set, seed);
    let images = CrashOptions { seed, from: 0, all_subsets_up_to: 5, samples: 12, tears: 4 };
    let Scenario { kind, name, script, mount, journaled, .. } = scenario;
    let after = if set.is_short() { pairs::before() } else { 0 };
    let plan = Plan { mount, images, most_images, journaled, after, sabotage };
    // Each of the short ones has few images, and there are many of them.
    let is_seen_by_oracles = !set.is_short() || seed.is_multiple_of(PAIRS_PER_ORACLE);
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

/// What a seed stands for.
pub(super) struct Scenario {
    kind: usize,
    /// The script's name.
    pub(super) name: String,
    /// The script.
    pub(super) script: Vec<Operation>,
    /// How the volume is mounted.
    pub(super) mount: MountOptions,
    /// Whether all data is journaled.
    pub(super) journaled: bool,
    orders: bool, // new blocks are written from the start, and their data ordered before the commit
}

impl Scenario {
    /// That of `seed` in `set`.
    pub(super) fn of(set: Set, seed: u64) -> Self {
        let (kind, name, script) = choose(set, seed);
        let (mount, journaled) = mount_options(seed);
        // A file that replaces another is written at once, or not.
        let mount = mount.auto_da_alloc(set != Set::Programs || (seed / 3).is_multiple_of(2));
        // Such a change takes several transactions, as in the kernel, and not from front to back.
        let journaled = journaled && !allocates(&script);
        let orders = seed / 4 % 6 == 1;
        Self { kind, name, script, mount, journaled, orders }
    }

    /// The name of the kind of volume.
    pub(super) fn kind(&self) -> &'static str {
        KINDS[self.kind].0
    }

    /// Which bytes may be left where a write of data failed. New blocks that are written from the start (indirect ones, or with
    /// `dioread_lock`) show then what was there before: the journal goes on, as the kernel's does (`data_err=ignore`).
    pub(super) fn rule_of_failure(&self) -> Rule {
        match (self.journaled, self.orders || self.kind() == "indirect") {
            (_, true) => Rule::Any,
            (true, false) => Rule::OneMoment,
            (false, false) => Rule::EachByte,
        }
    }

    /// Whether metadata has checksums.
    pub(super) fn has_checksums(&self) -> bool {
        !KINDS[self.kind].1.iter().any(|option| option.contains("^metadata_csum"))
    }

    /// A fresh volume; `None`, after a skip, where there is no mkfs.ext4.
    pub(super) fn volume(&self) -> Option<MemoryDevice> {
        empty_volume(self.kind)
    }
}

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
    if set == Set::Triples {
        let script = pairs::triple(seed);
        let kind = at(seed, USUAL);
        let kind = if allocates(&script) && KINDS[kind].0 == "indirect" { 0 } else { kind };
        return (kind, "three changes".to_owned(), script);
    }
    if set == Set::Programs {
        let (name, script) = programs::script(seed);
        return (at(seed / 6, USUAL), name.to_owned(), script);
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
