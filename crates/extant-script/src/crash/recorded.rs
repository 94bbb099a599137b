//! A script on a device that records, and when each of its operations was done.

use std::ops::Range;
use std::sync::Arc;

use extant::{Error, MountOptions};
use extant_crash::{CrashImage, CrashImages, CrashOptions, Log, RecordingDevice};
use extant_device::{BlockDevice, MemoryDevice};

use crate::{Operation, Volume};

/// What a script did to a device, and when.
#[derive(Debug)]
pub struct Recorded {
    /// All that changed the device.
    pub log: Log,
    /// The position in the log at which the volume was mounted.
    pub mounted: usize,
    /// The positions at which each operation began and had been acknowledged.
    pub spans: Vec<Range<usize>>,
}

/// An operation that failed where nothing was to fail.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Which one; `None` for the mount.
    pub place: Option<usize>,
    /// Why.
    #[source]
    pub error: Error,
}

/// What becomes of the volume behind the last operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It is left as it is.
    Left,
    /// It is unmounted; that counts as one more operation.
    Unmounted,
}

impl Recorded {
    /// Runs `script` on a copy of `base`; `below` may put a device between the volume and the recording.
    ///
    /// # Errors
    /// The first operation that fails, or the mount.
    pub fn of<'a>(
        base: &MemoryDevice,
        mount: &MountOptions,
        script: impl IntoIterator<Item = &'a Operation>,
        end: End,
        below: impl FnOnce(Arc<RecordingDevice<MemoryDevice>>) -> Arc<dyn BlockDevice>,
    ) -> Result<Self, Failed> {
        let device = Arc::new(RecordingDevice::from_image(base));
        let above = below(Arc::clone(&device));
        let mut runner =
            Runner::new(above, mount).map_err(|error| Failed { place: None, error })?;
        let mounted = device.position();
        let mut spans = Vec::new();
        for (place, operation) in script.into_iter().enumerate() {
            let began = device.position();
            runner.apply(operation).map_err(|error| Failed { place: Some(place), error })?;
            spans.push(began..device.position());
        }
        if end == End::Unmounted {
            let began = device.position();
            let place = Some(spans.len());
            runner.volume.filesystem.unmount().map_err(|error| Failed { place, error })?;
            spans.push(began..device.position());
        }
        Ok(Self { log: device.log(), mounted, spans })
    }

    /// Images that a crash behind `options.from` could have left, at most `most`, spread over all; half of them, as far as
    /// there are so many, of those that `is_rare` says are rare.
    pub fn images(
        &self,
        options: CrashOptions,
        most: usize,
        is_rare: impl Fn(&CrashImage) -> bool,
    ) -> impl Iterator<Item = CrashImage> {
        let rare: Vec<bool> =
            CrashImages::new(&self.log, options).map(|crash| is_rare(&crash)).collect();
        let of_kind =
            |wanted| (0..rare.len()).filter(|number| rare[*number] == wanted).collect::<Vec<_>>();
        let mut chosen = thin_out(&of_kind(true), most / 2);
        chosen.extend(thin_out(&of_kind(false), most - chosen.len()));
        chosen.sort_unstable();
        CrashImages::new(&self.log, options)
            .filter(move |crash| chosen.binary_search(&crash.number).is_ok())
    }
}

/// At most `most` of `all`, spread evenly.
fn thin_out(all: &[usize], most: usize) -> Vec<usize> {
    all.iter().step_by(all.len().div_ceil(most.max(1)).max(1)).take(most).copied().collect()
}

/// A volume that can be mounted again in the midst of a script.
pub(super) struct Runner {
    pub(super) volume: Volume,
    device: Arc<dyn BlockDevice>,
    options: MountOptions,
}

impl Runner {
    pub(super) fn new(device: Arc<dyn BlockDevice>, options: &MountOptions) -> Result<Self, Error> {
        let volume = Volume::mount(Arc::clone(&device), options.clone())?;
        Ok(Self { volume, device, options: options.clone() })
    }

    pub(super) fn apply(&mut self, operation: &Operation) -> Result<(), Error> {
        if *operation != Operation::Remount {
            return self.volume.try_apply(operation).map(drop);
        }
        self.volume.close_all();
        self.volume.filesystem.clone().unmount()?;
        self.volume = Volume::mount(Arc::clone(&self.device), self.options.clone())?;
        Ok(())
    }
}
