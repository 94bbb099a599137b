//! The crash explorer: a script runs over a recording device, and every image that a crash could leave is recovered and
//! held against what the script had been promised.
//!
//! # Invariants
//! Of each crash image, after recovery: the tree is the one after some operation of the script, no older than the newest
//! that a sync had acknowledged; each file has the bytes that were synced, and others are new, old or zero, or, where data is
//! journaled, those of the same moment; free counts equal the bitmaps.
//! # Locking
//! None.
//! # Not here
//! Which images a crash can leave (`extant_testkit::CrashImages`); what a script means (`script::model`).
//! # Source
//! Kernel `Documentation/block/writeback_cache_control.rst`: a crash image is the log up to a flush, plus any subset of the writes before the next.

mod attempt;
mod explore;
mod failures;
mod pairs;
mod programs;
mod simulate;
mod verdict;

use std::sync::Arc;

use extant::MountOptions;
use extant_device::{BlockDevice, MemoryDevice};
use extant_script::crash::{self as script_crash, End};
use extant_testkit::tree::Tree;
use extant_testkit::{
    CrashImage, CrashImages, CrashOptions, Fault, FaultDevice, Log, RecordingDevice,
};

use crate::counts;
use crate::damage::{Kind, Survey};
use crate::script::model::Model;
use crate::script::{Operation, Target};
use crate::volume::Volume;

pub use explore::{Report, Set, all_pairs, explore, script_of};
pub use failures::fail_each;
pub use simulate::{Simulated, simulate};
use verdict::Rule;
pub use verdict::{Seen, see};

/// What a script did to a device, and what that promised.
#[derive(Debug)]
pub struct Recorded {
    run: script_crash::Recorded,
    from: usize, // where crashes are looked at from
    model: Model,
    journaled: bool,
    journal: Option<u64>, // where its superblock is
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
    /// All data goes through the journal, so that it is of the same moment as the names are.
    pub journaled: bool,
    /// Crashes are looked at from behind this many operations.
    pub after: usize,
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
    /// What recovery and unmount wrote; a crash can come then too.
    pub log: Log,
}

impl Recorded {
    /// Runs `script` on a copy of `base`, and unmounts it.
    ///
    /// # Errors
    /// The operation that fails.
    pub fn of(base: &MemoryDevice, plan: &Plan, script: &[Operation]) -> Result<Self, String> {
        let faulty = |device| -> Arc<dyn BlockDevice> {
            let faulty = FaultDevice::new(device);
            plan.sabotage.into_iter().for_each(|fault| faulty.add(fault));
            Arc::new(faulty)
        };
        let run = script_crash::Recorded::of(base, &plan.mount, script, End::Unmounted, faulty);
        // What unmount promises is what sync does.
        let all: Vec<&Operation> = script.iter().chain([&Operation::Sync]).collect();
        let run = run.map_err(|failed| match failed.place {
            None => format!("mount: {}", failed.error),
            Some(place) => format!("{:?}: {}", all[place], failed.error),
        })?;
        let mut model = Model::default();
        for operation in all {
            let done = model.apply(operation);
            done.map_err(|_| format!("{operation:?}: unknown to the model"))?;
        }
        let survey = Survey::of(base);
        let journal = survey.as_ref().and_then(|survey| {
            survey.pieces.iter().find(|piece| piece.kind == Kind::JournalSuperblock)
        });
        let first = |last: usize| run.spans[last].end;
        Ok(Self {
            from: plan.after.checked_sub(1).map_or(run.mounted, first),
            run,
            model,
            journaled: plan.journaled,
            journal: journal.map(|piece| piece.offset),
        })
    }

    /// How many events the device saw.
    pub fn events(&self) -> usize {
        self.run.log.events().len()
    }

    /// Images that a crash could have left, at most `plan.most_images`, spread over all; half of them, as far as there are
    /// so many, from the rare moments when a write of the journal's superblock is loose.
    pub fn images(&self, plan: &Plan) -> impl Iterator<Item = CrashImage> {
        let rare = |crash: &CrashImage| {
            let offset = |event: usize| self.run.log.events()[event].offset;
            crash.kept.iter().any(|(event, _)| Some(offset(*event)) == self.journal)
        };
        let options = CrashOptions { from: self.from, ..plan.images };
        self.run.images(options, plan.most_images, rare)
    }

    /// Recovers a crash image with the engine, judges it, and unmounts it.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn judge(&self, crash: &CrashImage) -> Result<Recovered, String> {
        let device = Arc::new(RecordingDevice::from_image(&crash.image));
        let tree = self.judge_device(crash.completed, Arc::<RecordingDevice<_>>::clone(&device))?;
        counts::check(device.inner())?;
        Ok(Recovered { image: device.inner().snapshot(), tree, log: device.log() })
    }

    /// Judges crashes in the midst of recovery: nothing that was promised before may be lost by them.
    ///
    /// # Errors
    /// The promise that is broken, and in which image.
    pub fn judge_second_crashes(
        &self,
        crash: &CrashImage,
        recovered: &Recovered,
        most_images: usize,
    ) -> Result<(), String> {
        let options =
            CrashOptions { all_subsets_up_to: 3, samples: 4, tears: 1, ..CrashOptions::default() };
        let all = CrashImages::new(&recovered.log, options).count();
        let step = all.div_ceil(most_images).max(1);
        for second in CrashImages::new(&recovered.log, options).step_by(step) {
            let judged = self.judge_device(crash.completed, Arc::new(second.image.snapshot()));
            judged.map_err(|reason| format!("then while it was recovered {second}: {reason}"))?;
        }
        Ok(())
    }

    fn judge_device(&self, completed: usize, device: Arc<dyn BlockDevice>) -> Result<Tree, String> {
        let volume = Volume::mount(device, MountOptions::new())
            .map_err(|error| format!("mount: {error}"))?;
        let seen = see(&volume.filesystem)?;
        volume.unmount().map_err(|error| format!("unmount: {error}"))?;
        let spans = &self.run.spans;
        let begun = spans.iter().filter(|span| span.start <= completed).count();
        let is_done = |number: &usize| spans[*number].end <= completed;
        let promise = self.model.promised((0..spans.len()).filter(is_done));
        let rule = if self.journaled { Rule::OneMoment } else { Rule::EachByte };
        verdict::check(&self.model, &promise, begun, &seen, rule)?;
        Ok(seen.tree)
    }
}
