//! A script on the kernel's ext4, and the events of it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use extant_script::{DirectoryTarget, Operation, Script, Target};
use extant_testkit::oracle::KernelMount;

use super::event::{self, Event, Stream};
use super::tracefs::{Instance, Line};
use super::{Run, Seen};

/// Longer than a tick of the kernel's clock for times of files, so that each operation has a time of its own.
const PAUSE: Duration = Duration::from_millis(12);

/// Runs `script` on a loop mount of `image`; `None`, after a skip, where that cannot be.
///
/// # Errors
/// Of mounting, tracing and reading the events. Operations that fail are answers.
pub fn run(script: &Script, image: &Path, point: &Path) -> Option<Result<Run, String>> {
    let instance = match Instance::new() {
        Ok(instance) => instance,
        Err(error) => {
            extant_testkit::skip(&format!("no tracefs: {error}"));
            return None;
        }
    };
    let options = super::mount_words(script);
    let mount = || KernelMount::new(image, point, &options);
    let mut mounted = mount()?;
    let text = |error: std::io::Error| error.to_string();
    let setup = script.settings.setup;
    let mut target = DirectoryTarget::new(point).waiting();
    for operation in script.operations().take(setup) {
        if *operation == Operation::Remount {
            drop(target);
            if let Err(error) = mounted.unmount() {
                return Some(Err(format!("remount: {error}")));
            }
            mounted = mount()?;
            target = DirectoryTarget::new(point).waiting();
        } else if let Err(errno) = target.apply(operation) {
            return Some(Err(format!("{operation}: {errno}")));
        }
    }
    let ran = (|| {
        if script.settings.warm {
            warm(image)?;
        }
        let device = std::fs::metadata(point).map_err(text)?.dev();
        instance.start(device, event::known()).map_err(text)?;
        let mut answers = Vec::new();
        for (step, operation) in script.operations().skip(setup).enumerate() {
            std::thread::sleep(PAUSE);
            instance.mark(&format!("step {step}")).map_err(text)?;
            answers.push(target.apply(operation));
        }
        instance.mark("over").map_err(text)?;
        std::thread::sleep(PAUSE);
        let events = read(&instance.stop().map_err(text)?)?;
        Ok(Run { events, answers })
    })();
    drop(target);
    Some(mounted.unmount().map_err(text).and(ran))
}

/// Has every group's buddy built, as reading this report does.
fn warm(image: &Path) -> Result<(), String> {
    let shown = Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(image).output();
    let shown = shown.map_err(|error| format!("losetup: {error}"))?;
    let name = String::from_utf8_lossy(&shown.stdout).trim().replace("/dev/", "");
    let report = format!("/proc/fs/ext4/{name}/mb_groups");
    std::fs::read(&report).map(drop).map_err(|error| format!("{report}: {error}"))
}

/// The events in what tracefs tells, each with the step that it came in.
fn read(trace: &str) -> Result<Vec<Seen>, String> {
    let own = rustix::thread::gettid().as_raw_pid().unsigned_abs();
    let (mut step, mut seen) = (None, Vec::new());
    let mut workers: HashMap<u32, Stream> = HashMap::new();
    for line in trace.lines().filter_map(Line::parse) {
        if let Some(mark) = line.text.strip_prefix("tracing_mark_write: ") {
            step = mark.strip_prefix("step ").map_or(step, |number| number.parse().ok());
            continue;
        }
        let Some(step) = step else { continue };
        let event = Event::parse(line.text)?;
        let stream = match line.task {
            _ if line.pid == own => Stream::Caller,
            "perl" => Stream::Caller,
            task if task.starts_with("jbd2/") => Stream::Journal,
            task if task.starts_with("kworker") => {
                // One worker does one work after the other; both kinds begin in a way of their own.
                match event.name {
                    "ext4_journal_start_reserved" => workers.insert(line.pid, Stream::EndOfIo),
                    "ext4_writepages" => workers.insert(line.pid, Stream::Flusher),
                    _ => None,
                };
                workers.get(&line.pid).copied().unwrap_or(Stream::Flusher)
            }
            _ => continue,
        };
        seen.push(Seen { stream, step, event });
    }
    Ok(seen)
}
