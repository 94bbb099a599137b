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

use extant_script::{Answer, Errno, Script};
use extant_testkit::oracle::{self, Scratch};

use compare::Comparison;
use event::{Event, Stream};
use exceptions::Exceptions;
pub use report::Report;

/// An event where it was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Whose work it was part of.
    pub stream: Stream,
    /// Which of the script's traced operations had begun last, from 0.
    pub step: usize,
    /// What happened.
    pub event: Event,
}

/// What came of a script on one side.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// All events of the traced operations.
    pub events: Vec<Seen>,
    /// What each of them reported.
    pub answers: Vec<Result<Answer, Errno>>,
}

/// Runs a script on both sides and compares; `None`, after a skip, where the kernel's side cannot run.
///
/// # Errors
/// What kept a side from running at all, or that e2fsck does not like what is left of an image.
pub fn compare(script: &Script, exceptions: &Exceptions) -> Option<Result<Comparison, String>> {
    let scratch = Scratch::new("trace");
    let (kernels, ours) = (scratch.path("kernel.img"), scratch.path("ours.img"));
    let bytes = script.settings.image_bytes.unwrap_or(256 << 20);
    let options: Vec<&str> =
        MKFS.into_iter().chain(script.settings.mkfs.iter().map(String::as_str)).collect();
    oracle::mkfs(&kernels, bytes, &options)?;
    std::fs::copy(&kernels, &ours).expect("there is room for a second image");
    let theirs = kernel::run(script, &kernels, &scratch.path("mount"))?;
    Some(theirs.and_then(|theirs| {
        let own = engine::run(script, &ours)?;
        check(script, &ours)?;
        Ok(Comparison::new(script, theirs, own, exceptions))
    }))
}

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
    [commit, wanted].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",")
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
