//! The crash explorer: a script runs over a recording device, and every image that a crash could leave is recovered and
//! held against what the script had been promised.
//!
//! # Invariants
//! Of each crash image, after recovery: the tree is the one after some operation of the script, no older than the newest
//! that a sync had acknowledged; each file has the bytes that were synced, and others are new, old or zero; free counts
//! equal the bitmaps.
//! # Locking
//! None.
//! # Not here
//! Which images a crash can leave (`extant_testkit::CrashImages`); what a script means (`script::model`).
//! # Source
//! `house-style`: a crash image is the log up to a flush, plus any subset of the writes before the next.

mod explore;
mod verdict;

use std::sync::Arc;

use extant::MountOptions;
use extant_device::MemoryDevice;
use extant_testkit::tree::Tree;
use extant_testkit::{
    CrashImage, CrashImages, CrashOptions, Fault, FaultDevice, Log, RecordingDevice,
};

use crate::counts;
use crate::script::model::Model;
use crate::script::{Operation, Target};
use crate::volume::Volume;

pub use explore::{Report, explore};
pub use verdict::{Seen, see};

/// What a script did to a device, and when.
#[derive(Debug)]
pub struct Recorded {
    log: Log,
    mounted: usize,
    spans: Vec<(usize, usize)>, // positions in the log where each operation began and had been acknowledged
    model: Model,
}

/// How a volume is written and how many images are built of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the volume is mounted while the script runs.
    pub mount: MountOptions,
    /// Which images.
    pub images: CrashOptions,
    /// At most so many of them, spread over all.
    pub most_images: usize,
    /// What the device does wrong while the script runs; whatever it breaks must be found.
    pub sabotage: Option<Fault>,
}

/// A crash image after the engine has recovered it.
#[derive(Debug)]
pub struct Recovered {
    /// The image, unmounted.
    pub image: MemoryDevice,
    /// What the engine saw in it.
    pub tree: Tree,
}

impl Recorded {
    /// Runs `script` on a copy of `base`, and leaves it mounted.
    ///
    /// # Errors
    /// The operation that fails.
    pub fn of(base: &MemoryDevice, plan: &Plan, script: &[Operation]) -> Result<Self, String> {
        let device = Arc::new(RecordingDevice::from_image(base));
        let faulty = FaultDevice::new(Arc::clone(&device));
        plan.sabotage.into_iter().for_each(|fault| faulty.add(fault));
        let volume = Volume::mount(Arc::new(faulty), plan.mount.clone())
            .map_err(|error| format!("mount: {error}"))?;
        let mounted = device.position();
        let (mut model, mut spans) = (Model::default(), Vec::new());
        for operation in script {
            let began = device.position();
            volume.try_apply(operation).map_err(|error| format!("{operation:?}: {error}"))?;
            spans.push((began, device.position()));
            model
                .apply(operation)
                .map_err(|_| format!("{operation:?}: not possible in the model"))?;
        }
        let log = device.log();
        drop(volume);
        Ok(Self { log, mounted, spans, model })
    }

    /// How many events the device saw.
    pub fn events(&self) -> usize {
        self.log.events().len()
    }

    /// Images that a crash could have left, at most `plan.most_images`, spread over all.
    pub fn images(&self, plan: &Plan) -> impl Iterator<Item = CrashImage> {
        let options = CrashOptions { from: self.mounted, ..plan.images };
        let all = CrashImages::new(&self.log, options).count();
        let (step, most) = (all.div_ceil(plan.most_images).max(1), plan.most_images);
        CrashImages::new(&self.log, options).step_by(step).take(most)
    }

    /// Recovers a crash image with the engine and judges it; the recovered and unmounted image.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn judge(&self, crash: &CrashImage) -> Result<Recovered, String> {
        let device = Arc::new(crash.image.snapshot());
        let fail = |what: &str, error: extant::Error| format!("{what}: {error}");
        let volume = Volume::mount(Arc::<MemoryDevice>::clone(&device), MountOptions::new())
            .map_err(|error| fail("mount", error))?;
        let seen = see(&volume.filesystem)?;
        volume.unmount().map_err(|error| fail("unmount", error))?;
        let begun = self.spans.iter().filter(|(began, _)| *began <= crash.completed).count();
        let is_done = |number: &usize| self.spans[*number].1 <= crash.completed;
        let promise = self.model.promised((0..self.spans.len()).filter(is_done));
        verdict::check(&self.model, &promise, begun, &seen)?;
        counts::check(&device)?;
        Ok(Recovered { image: device.snapshot(), tree: seen.tree })
    }
}
