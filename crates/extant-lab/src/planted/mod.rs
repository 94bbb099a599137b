//! Planted defects: sound images with one thing wrong, and the rule that `check` has to name for it.
//!
//! Each [`Defect`] says which kinds of images it can be planted in, what it changes (checksums are made right afterwards,
//! unless they are the defect), and which rule it breaks. [`judge`] expects that rule first in its place, and
//! `e2fsck -fn` to agree on whether the image is clean.
//!
//! # Invariants
//! A defect changes a copy; bases are made once a run. Every rule of `check` has a defect, or a reason why it has none.
//! # Locking
//! None.
//! # Not here
//! Damage by chance (`damage`); repairs.
//! # Source
//! `docs/check.md` for the rules.

mod attributes;
mod clean;
mod directories;
mod groups;
mod inodes;
mod maps;
mod quota;
mod stage;
mod superblock;
mod tree;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use extant_device::MemoryDevice;
use extant_image::check::{CheckOptions, Finding, Pass, Rule, Severity, check};
use extant_testkit::oracle::{self, Scratch};

use crate::bases::BASES;
use crate::damage::{Case, Survey, patch, seal};

pub use clean::{Clean, clean_images};
pub use directories::OTHER_CASE;
pub use stage::Stage;

/// One thing wrong.
#[derive(Clone, Copy, Debug)]
pub struct Defect {
    /// What it is, in a few words.
    pub name: &'static str,
    /// The rule that it breaks.
    pub rule: Rule,
    /// The kinds of images that it is planted in.
    pub bases: &'static [&'static str],
    /// Whether checksums are made right afterwards.
    pub sealed: bool,
    /// Why e2fsck says otherwise, if it does.
    pub differs: Option<&'static str>,
    /// Plants it; `None` if the image has no place for it.
    pub plant: fn(&Stage) -> Option<()>,
}

/// A defect that e2fsck finds too, with checksums made right.
const fn defect(
    name: &'static str,
    rule: Rule,
    bases: &'static [&'static str],
    plant: fn(&Stage) -> Option<()>,
) -> Defect {
    Defect { name, rule, bases, sealed: true, differs: None, plant }
}

impl Defect {
    /// The same, with checksums left as they are.
    const fn raw(self) -> Self {
        Self { sealed: false, ..self }
    }

    /// The same, but e2fsck has another verdict.
    const fn differs(self, why: &'static str) -> Self {
        Self { differs: Some(why), ..self }
    }
}

/// Every defect.
pub fn defects() -> Vec<Defect> {
    [
        superblock::list(),
        groups::list(),
        inodes::list(),
        maps::list(),
        attributes::list(),
        directories::list(),
        tree::list(),
        quota::list(),
    ]
    .concat()
}

/// Every image with a defect: which defect, and the name of the base.
pub fn planted() -> Vec<(Defect, &'static str)> {
    let of = |defect: Defect| defect.bases.iter().map(move |base| (defect, *base));
    defects().into_iter().flat_map(of).collect()
}

/// Plants `defect` in a copy of a base; `None`, after a skip, where there is no mkfs.ext4.
///
/// # Errors
/// The base has no place for the defect.
/// # Panics
/// If the base is not known.
pub fn plant(defect: &Defect, base: &str) -> Result<Option<MemoryDevice>, String> {
    let base = BASES.iter().find(|known| known.name == base).expect("a base that exists");
    let Some(image) = base.build() else { return Ok(None) };
    let survey = Survey::of(&image).expect("bases are sound");
    let stage = Stage::new(image, survey);
    (defect.plant)(&stage).ok_or_else(|| format!("{}: no place in {}", defect.name, base.name))?;
    if defect.sealed {
        seal(&stage.image, &stage.survey);
    }
    Ok(Some(stage.image))
}

/// What is wrong with what is said of an image with a defect.
///
/// # Errors
/// That, in one line.
pub fn judge(defect: &Defect, base: &str, scratch: &Scratch) -> Result<(), String> {
    let Some(image) = plant(defect, base)? else { return Ok(()) };
    let line = |what: String| format!("{} in {base}: {what}", defect.name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|now| now.as_secs());
    let options = CheckOptions { now, ..CheckOptions::default() };
    let report = check(&image, &options).map_err(|error| line(error.to_string()))?;
    let all = || report.findings.iter().map(|one| one.to_string()).collect::<Vec<_>>().join("; ");
    let wanted = report.findings.iter().position(|finding| finding.rule == defect.rule);
    let Some(wanted) = wanted else {
        return Err(line(format!("no {}, but: {}", defect.rule.name(), all())));
    };
    let finding = &report.findings[wanted];
    let first = report.findings.iter().find(|other| same_place(other, finding));
    if first.is_some_and(|first| first.rule != defect.rule) {
        return Err(line(format!("{} comes late: {}", defect.rule.name(), all())));
    }
    if report.is_clean() && defect.rule.severity() == Severity::Error {
        return Err(line(format!("the verdict does not follow from the rule: {}", all())));
    }
    let path = scratch.path("planted.img");
    store(&image, &path);
    let name = path.to_str().expect("a scratch path is text");
    let Some(theirs) = oracle::run("e2fsck", &["-fn", name]) else { return Ok(()) };
    let agrees = (theirs.status.code() == Some(0)) == report.is_clean();
    match (agrees, defect.differs) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(_)) => Err(line("e2fsck agrees now; the exception can go".to_owned())),
        (false, None) => {
            let words = oracle::text(&theirs);
            Err(line(format!("e2fsck has another verdict: {words}; ours: {}", all())))
        }
    }
}

/// Checks damaged images with one thread and with three, and says where these differ.
///
/// # Panics
/// If the check does.
pub fn damaged_images(first: u64, count: u64) -> Vec<String> {
    let mut failures = Vec::new();
    for number in first..first.saturating_add(count) {
        let Some(damaged) = (Case { seed: 7, number }).build() else { return failures };
        let of = |threads| {
            let options = CheckOptions { threads, limit: 5, ..CheckOptions::default() };
            check(&damaged.image, &options).map(|report| (report.findings, report.counts)).ok()
        };
        if of(1) != of(3) {
            failures.push(format!("damaged image {number}: {}", damaged.story));
        }
    }
    failures
}

/// Judges a directory with more subdirectories than can be counted, once with the feature for it and once without.
///
/// # Errors
/// What is wrong with what is said of it.
/// # Panics
/// If the image cannot be made.
pub fn many_links(scratch: &Scratch) -> Result<(), String> {
    let device = Arc::new(MemoryDevice::new(96 << 20));
    let mut options = extant_image::MkfsOptions { inodes: Some(70_000), ..Default::default() };
    options.features.apply("inline_data,^has_journal").expect("features that exist");
    extant_image::mkfs(&device, &options).expect("there is room for an image");
    let volume = extant::MountOptions::new().mount(Arc::clone(&device)).expect("a new image");
    volume.create_dir("/many").expect("there is room for directories");
    for n in 0..65_000 {
        volume.create_dir(format!("/many/{n}")).expect("there is room for directories");
    }
    volume.unmount().expect("nothing fails");
    let survey = Survey::of(&device).ok_or("a sound image is left")?;
    let path = scratch.path("many.img");
    for is_counted in [true, false] {
        if !is_counted {
            patch(&device, 1024, 1024, |bytes| bytes[0x64] &= !0x20);
            seal(&device, &survey);
        }
        let report = check(&*device, &CheckOptions::default()).map_err(|e| e.to_string())?;
        let rules: Vec<Rule> = report.findings.iter().map(|finding| finding.rule).collect();
        let expected = if is_counted { vec![] } else { vec![Rule::ManyLinks] };
        store(&device, &path);
        let theirs = oracle::e2fsck(&path);
        if rules != expected || theirs.is_ok() != is_counted {
            return Err(format!("many links, counted {is_counted}: {rules:?}; e2fsck: {theirs:?}"));
        }
    }
    Ok(())
}

/// Whether two findings are of the same inode, block of a directory or group, and of the same pass.
fn same_place(one: &Finding, other: &Finding) -> bool {
    let of = |finding: &Finding| {
        let place = &finding.place;
        let in_directory = place.logical.filter(|_| finding.rule.pass() == Pass::Directories);
        (finding.rule.pass(), place.inode, place.group, in_directory)
    };
    of(one) == of(other)
}

/// Writes an image to a file, holes left out.
///
/// # Panics
/// If there is no room.
pub fn store(image: &MemoryDevice, path: &Path) {
    use std::io::{Seek, SeekFrom, Write};
    let bytes = image.to_vec();
    let mut file = fs::File::create(path).expect("there is room for an image");
    file.set_len(extant_format::cast::u64_from(bytes.len())).expect("there is room for an image");
    for (n, chunk) in (0..).zip(bytes.chunks(1 << 16)) {
        if chunk.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(n << 16)).expect("inside the file");
            file.write_all(chunk).expect("there is room for an image");
        }
    }
}

/// Every kind of image but those whose structures are all elsewhere too.
const ALL: &[&str] =
    &["ext4", "ext4-4k", "no-csum", "ext3", "ext2", "bigalloc", "meta-bg", "uninit"];
/// Some that differ most.
const SOME: &[&str] = &["ext4", "ext2", "bigalloc"];
/// Those with checksums of everything.
const SUMMED: &[&str] = &["ext4", "ext4-4k", "inline", "bigalloc", "meta-bg"];
/// Those with extents.
const EXTENTS: &[&str] = &["ext4", "ext4-4k", "no-csum", "bigalloc"];
/// Those without.
const INDIRECT: &[&str] = &["ext2", "ext3"];
/// Those whose descriptors have checksums.
const GDT_SUMMED: &[&str] = &["ext4", "meta-bg", "uninit", "bigalloc"];
/// Those with indexed directories of one level, or two in blocks of 1 KiB.
const INDEXED: &[&str] = &["ext4", "no-csum", "ext3", "uninit", "casefold"];

/// Rules that no defect breaks, and why.
pub const WITHOUT: &[(Rule, &str)] = &[(
    Rule::ManyLinks,
    "needs 65,001 directories, which `many_links` makes in `cargo xtask check-oracle`",
)];
