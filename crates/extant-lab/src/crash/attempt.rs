//! A script that may fail anywhere: how far it came, whether the failure is one that it may be told, and what must be left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use extant::{Errno, Error, MountOptions};
use extant_device::{BlockDevice, MemoryDevice};
use extant_testkit::tree::Tree;
use extant_testkit::{Effect, Fault};

use super::see;
use super::verdict::{self, Rule};
use crate::counts;
use crate::script::Operation;
use crate::script::model::Model;
use crate::volume::Volume;

/// How far a script came.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// Where in the log each operation began and, if it succeeded, had been acknowledged.
    pub(super) spans: Vec<(usize, Option<usize>)>,
    /// What failed, and ended the script.
    pub(super) failed: Option<String>,
}

impl Attempt {
    /// Mounts `device` and runs `script` until an operation fails, as a program would; then unmounts, or drops all. `position`
    /// tells how long the log of the device is.
    ///
    /// # Errors
    /// A panic, or an error that `fault` does not explain.
    pub(super) fn run(
        device: Arc<dyn BlockDevice>,
        mount: MountOptions,
        script: &[Operation],
        fault: Option<Fault>,
        unmounts: bool,
        position: &dyn Fn() -> usize,
    ) -> Result<Self, String> {
        let run = || Self::try_run(device, mount, script, unmounts, position);
        let (attempt, error) = guarded(run)?;
        match error.filter(|error| !explains(fault, error)) {
            Some(error) => {
                let (failed, errno) = (attempt.failed.unwrap_or_default(), error.errno());
                Err(format!("{fault:?} does not explain {failed}: {errno:?}"))
            }
            None => Ok(attempt),
        }
    }

    fn try_run(
        device: Arc<dyn BlockDevice>,
        mount: MountOptions,
        script: &[Operation],
        unmounts: bool,
        position: &dyn Fn() -> usize,
    ) -> (Self, Option<Error>) {
        let mut attempt = Self::default();
        let volume = match Volume::mount(device, mount) {
            Ok(volume) => volume,
            Err(error) => {
                attempt.failed = Some(format!("mount: {error}"));
                return (attempt, Some(error));
            }
        };
        for operation in script {
            let began = position();
            match volume.try_apply(operation) {
                Ok(_) => attempt.spans.push((began, Some(position()))),
                Err(error) => {
                    attempt.spans.push((began, None));
                    attempt.failed = Some(format!("{operation}: {error}"));
                    return (attempt, Some(error));
                }
            }
        }
        if !unmounts {
            return (attempt, None);
        }
        let error = volume.unmount().err();
        attempt.failed = error.as_ref().map(|error| format!("unmount: {error}"));
        (attempt, error)
    }

    /// Recovers `image`, a crash of which came when `completed` events were done, and judges what is there.
    ///
    /// # Errors
    /// The promise that is broken.
    pub(super) fn judge(
        &self,
        model: &Model,
        completed: usize,
        image: &MemoryDevice,
        rule: Rule,
    ) -> Result<Tree, String> {
        let seen = guarded(|| {
            let volume = Volume::mount(Arc::new(image.snapshot()), MountOptions::new())
                .map_err(|error| format!("mount: {error}"))?;
            let seen = see(&volume.filesystem)?;
            volume.unmount().map_err(|error| format!("unmount: {error}"))?;
            Ok::<_, String>(seen)
        })??;
        let begun = self.spans.iter().filter(|(began, _)| *began <= completed).count();
        let is_done = |number: &usize| self.spans[*number].1.is_some_and(|end| end <= completed);
        let promise = model.promised((0..self.spans.len()).filter(is_done));
        verdict::check(model, &promise, begun, &seen, rule)?;
        Ok(seen.tree)
    }
}

/// What `run` returns, unless it panics.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("panic: {}", text.unwrap_or_default())
    })
}

/// Recovers `image` for good, recounts it, and returns what is left.
///
/// # Errors
/// A count that is wrong.
pub(super) fn recover(image: &MemoryDevice) -> Result<MemoryDevice, String> {
    let recovered = Arc::new(image.snapshot());
    let device: Arc<dyn BlockDevice> = Arc::<MemoryDevice>::clone(&recovered);
    let volume =
        Volume::mount(device, MountOptions::new()).map_err(|error| format!("mount: {error}"))?;
    volume.unmount().map_err(|error| format!("unmount: {error}"))?;
    counts::check(&recovered)?;
    Ok(recovered.snapshot())
}

/// Whether an operation may fail so because of `fault`. What is misread may seem to be of a feature that is missing here, and a
/// group whose bitmap is wrong is passed by, as in the kernel.
fn explains(fault: Option<Fault>, error: &Error) -> bool {
    let errno = error.errno();
    let corrupt = [Errno::BADMSG, Errno::UCLEAN, Errno::NOSPC, Errno::OPNOTSUPP];
    match fault.map(|fault| fault.effect) {
        None => false,
        Some(Effect::Corrupt { .. }) if corrupt.contains(&errno) => true,
        Some(_) => [Errno::IO, Errno::ROFS].contains(&errno),
    }
}
