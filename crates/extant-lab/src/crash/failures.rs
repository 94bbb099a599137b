//! The n-th request goes wrong, n = 1, 2, .. to the end of each script: the right errno and no panic, and whatever was promised
//! before is there after the next mount.
//!
//! Source: the idea is that of the I/O error tests of SQLite.

use std::fs;
use std::sync::Arc;

use extant_device::{MemoryDevice, OperationKind};
use extant_testkit::oracle::{self, Scratch};
use extant_testkit::{Effect, Fault, FaultDevice};

use super::attempt::{Attempt, recover};
use super::explore::{Report, Scenario, Set};
use super::verdict::Rule;
use crate::script::model::Model;
use crate::script::{Operation, Target};

/// Runs the script that `seed` stands for in `set` again and again, with one request more that went well each time; at most
/// `most` runs of each kind of failure, spread over all.
pub fn fail_each(set: Set, seed: u64, most: u64) -> Report {
    let (mut report, scenario) = (Report::default(), Scenario::of(set, seed));
    let Some(volume) = scenario.volume() else { return report };
    let script: Vec<Operation> = scenario.script.iter().cloned().chain([Operation::Sync]).collect();
    let mut model = Model::default();
    for operation in &script {
        model.apply(operation).expect("scripts are made with the model");
    }
    let story = Story { scenario: &scenario, volume, script, model, scratch: Scratch::new("fail") };
    for (kind, effect, onwards) in FAILURES {
        if matches!(effect, Effect::Corrupt { .. }) && !scenario.has_checksums() {
            continue;
        }
        let all = story.requests(kind);
        let step = all.div_ceil(most.max(1)).max(1);
        let first = 1 + seed % step;
        for nth in (0..).map(|turn| first + turn * step).take_while(|nth| *nth <= all) {
            let effect = match effect {
                // Somewhere else in each block.
                Effect::Corrupt { .. } => {
                    Effect::Corrupt { byte: nth * 677 + seed * 31, flip: 0x10 }
                }
                effect => effect,
            };
            let fault = Fault { kind, nth, onwards, effect };
            let is_checked = report.images.is_multiple_of(CHECKED);
            report.images += 1;
            report.checked += usize::from(is_checked);
            if let Err(reason) = story.fail(fault, is_checked) {
                let (kind, name) = (scenario.kind(), &scenario.name);
                report.failures.push(format!("seed {seed} ({kind}, {name}), {fault:?}: {reason}"));
            }
        }
    }
    report
}

/// How often e2fsck looks.
const CHECKED: usize = 10;

/// What goes wrong: of which kind of request, how, and whether all later ones do too.
const FAILURES: [(Option<OperationKind>, Effect, bool); 7] = [
    (Some(OperationKind::Read), Effect::Fail, false),
    (Some(OperationKind::Write), Effect::Fail, false),
    (Some(OperationKind::Write), Effect::Tear { sectors: 1 }, false),
    (Some(OperationKind::Flush), Effect::Fail, false),
    (None, Effect::Fail, true),
    (Some(OperationKind::Read), Effect::Corrupt { byte: 0, flip: 0x10 }, false),
    (Some(OperationKind::Write), Effect::Corrupt { byte: 0, flip: 0x10 }, false),
];

struct Story<'a> {
    scenario: &'a Scenario,
    volume: MemoryDevice,
    script: Vec<Operation>,
    model: Model,
    scratch: Scratch,
}

impl Story<'_> {
    /// How many requests of a kind the script makes, with mount and unmount.
    fn requests(&self, kind: Option<OperationKind>) -> u64 {
        let device = Arc::new(FaultDevice::new(self.volume.snapshot()));
        let above = Arc::<FaultDevice<_>>::clone(&device);
        // If that fails, each run does so too, and is told of.
        let _ = Attempt::run(above, self.scenario.mount.clone(), &self.script, None, true, &|| 0);
        device.seen(kind)
    }

    fn fail(&self, fault: Fault, is_checked: bool) -> Result<(), String> {
        let device = Arc::new(FaultDevice::new(self.volume.snapshot()));
        device.add(fault);
        let above = Arc::<FaultDevice<_>>::clone(&device);
        let (mount, unmounts) = (self.scenario.mount.clone(), fault.nth.is_multiple_of(2));
        let attempt = Attempt::run(above, mount, &self.script, Some(fault), unmounts, &|| 0)?;
        device.heal();
        let judged = self.judge(&attempt, device.inner(), fault, is_checked);
        judged.map_err(|reason| match &attempt.failed {
            Some(failed) => format!("{failed}; then {reason}"),
            None => format!("nobody was told; then {reason}"),
        })
    }

    fn judge(
        &self,
        attempt: &Attempt,
        image: &MemoryDevice,
        fault: Fault,
        is_checked: bool,
    ) -> Result<(), String> {
        let rule = self.scenario.rule_of_failure();
        match fault {
            // Nothing protects bytes of files; of the rest the next reader is told.
            Fault { effect: Effect::Corrupt { .. }, kind, .. } => {
                let judged = attempt.judge(&self.model, 0, image, Rule::Any);
                let is_told =
                    |reason: &String| kind == Some(OperationKind::Write) || is_told(reason);
                judged
                    .map(drop)
                    .or_else(|reason| if is_told(&reason) { Ok(()) } else { Err(reason) })
            }
            _ => {
                attempt.judge(&self.model, 0, image, rule)?;
                let recovered = recover(image)?;
                if is_checked {
                    let path = self.scratch.path("image");
                    fs::write(&path, recovered.to_vec()).map_err(|error| error.to_string())?;
                    oracle::e2fsck(&path).map_err(|text| format!("e2fsck: {text}"))?;
                }
                Ok(())
            }
        }
    }
}

/// Whether what was misread, and went back to the device with its neighbours, is known to be wrong.
fn is_told(reason: &str) -> bool {
    ["checksum", "corrupt", "damaged"].iter().any(|word| reason.contains(word))
}
