//! The same script on the kernel and on the engine: which events happen, in which order, with which fields.
//!
//! Both start from the same image. The kernel's events come from tracefs, the engine's from its own trace; `normal` takes
//! out what may differ, `compare` finds what differs still, `exceptions` are the differences that are accepted. Events
//! form four streams, each with an order of its own: what the caller does, the end of I/O, the journal, the flusher.
//!
//! `cargo xtask oracle trace` runs it; `docs/scripts.md` tells the scripts' format; the scripts are in `oracle/scripts`.

pub mod compare;
mod engine;
pub mod event;
pub mod exceptions;
mod kernel;
mod normal;
mod random;
mod report;
mod tracefs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use extant_script::{Answer, Errno, Script};
use extant_testkit::oracle::{self, Scratch};

use compare::Comparison;
use event::{Event, Stream};
use exceptions::Exceptions;
pub use report::{Detail, Report};

/// An event where it was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Whose work it was part of.
    pub stream: Stream,
    /// Which of the script's traced operations had begun last, from 0.
    pub step: usize,
    /// What happened.
    pub event: Event,
    /// It belongs to a visit of the kernel's flusher that finds nothing to write, for a reason that is chance.
    pub is_idle: bool,
}

/// What came of a script on one side.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// All events of the traced operations.
    pub events: Vec<Seen>,
    /// What each of them reported.
    pub answers: Vec<Result<Answer, Errno>>,
}

/// What the kernel is compared with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Other {
    /// The engine.
    Engine,
    /// The kernel once more: what differs then is chance, and no script may depend on it.
    Kernel,
}

/// Runs a script on both sides and compares; `None`, after a skip, where the kernel's side cannot run.
///
/// The kernel's threads race: when the flusher comes by once more is decided by who is first. So if its run differs
/// from ours in more than `enough` ways it has another try, on the same image; the comparison that differs least is the
/// answer.
///
/// # Errors
/// What kept a side from running at all, or that e2fsck does not like what is left of an image.
pub fn compare(
    script: &Script,
    other: Other,
    exceptions: &Exceptions,
    enough: usize,
) -> Option<Result<Comparison, String>> {
    let scratch = Scratch::new("trace");
    let [image, ours, kernels] = ["image", "ours", "kernel"].map(|name| scratch.path(name));
    let bytes = script.settings.image_bytes.unwrap_or(256 << 20);
    let options: Vec<&str> =
        MKFS.into_iter().chain(script.settings.mkfs.iter().map(String::as_str)).collect();
    oracle::mkfs(&image, bytes, &options)?;
    let copy = |to: &Path| std::fs::copy(&image, to).map(drop).expect("there is room for an image");
    copy(&ours);
    let (own, tries) = match other {
        Other::Engine => {
            (engine::run(script, &ours).and_then(|own| check(script, &ours).map(|()| own)), TRIES)
        }
        Other::Kernel => (kernel::run(script, &ours, &scratch.path("mount"))?, 1),
    };
    let mut best: Option<Comparison> = None;
    for _ in 0..tries {
        copy(&kernels);
        let theirs = match kernel::run(script, &kernels, &scratch.path("mount"))? {
            Ok(theirs) => theirs,
            Err(reason) => return Some(Err(reason)),
        };
        let own = match &own {
            Ok(own) => own.clone(),
            Err(reason) => return Some(Err(reason.clone())),
        };
        let comparison = Comparison::new(script, theirs, own, exceptions);
        if best.as_ref().is_none_or(|best| comparison.differences() < best.differences()) {
            best = Some(comparison);
        }
        if best.as_ref().is_some_and(|best| best.differences() + best.answers() <= enough) {
            break;
        }
    }
    best.map(Ok)
}

/// Longer than a tick of the clock for times of files, so that each operation has a time of its own.
const PAUSE: Duration = Duration::from_millis(12);

/// How often the kernel may try to do what we did.
const TRIES: u32 = 6;

/// The same numbers in every image, and nothing left for the kernel to do after the mount.
const MKFS: [&str; 6] = [
    "-t",
    "ext4",
    "-U",
    "12345678-1234-1234-1234-123456789abc",
    "-E",
    "lazy_itable_init=0,lazy_journal_init=0,hash_seed=87654321-4321-4321-4321-cba987654321",
];

/// A script that shuts the volume down leaves a journal to recover.
fn check(script: &Script, image: &Path) -> Result<(), String> {
    let shut = |operation| matches!(operation, &extant_script::Operation::Shutdown { .. });
    if script.operations().any(shut) {
        return Ok(());
    }
    oracle::e2fsck(image).map_err(|said| format!("e2fsck does not like our image: {said}"))
}

/// The mount options for a script. Commits come when the script asks, not when a clock says so, unless it wants that.
fn mount_words(script: &Script) -> String {
    let wanted = &script.settings.mount;
    let waits = script
        .operations()
        .any(|operation| matches!(operation, extant_script::Operation::Tick { .. }));
    let commit = if waits || wanted.contains("commit=") { "" } else { "commit=300" };
    ["noatime", commit, wanted]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(",")
}

/// The scripts of the repository, in order.
///
/// # Errors
/// If the sources are not where they were when this was built.
pub fn repository_scripts() -> std::io::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/scripts");
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    paths.sort();
    Ok(paths)
}
