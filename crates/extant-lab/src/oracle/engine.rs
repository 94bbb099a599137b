//! A script on the engine, and the events of it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use extant::trace::{self, Task, TraceSink};
use extant_device::FileDevice;
use extant_script::{Operation, Script, Target, Volume};

use super::event::{Event, Stream};
use super::{Run, Seen};

/// Remembers every event of the steps that count.
#[derive(Debug, Default)]
struct Recorder(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    step: Option<usize>,
    tasks: Vec<Task>,
    seen: Vec<Seen>,
    strange: Option<String>,
}

impl Recorder {
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TraceSink for Recorder {
    fn event(&self, event: &trace::Event) {
        self.with(|state| {
            let Some(step) = state.step else { return };
            let stream = match state.tasks.last() {
                None => Stream::Caller,
                Some(Task::EndOfIo) => Stream::EndOfIo,
                Some(Task::Journal) => Stream::Journal,
                Some(Task::Flusher) => Stream::Flusher,
            };
            match Event::parse(&format!("{}: {event}", event.name())) {
                Ok(event) => state.seen.push(Seen { stream, step, event, is_idle: false }),
                Err(strange) => state.strange = Some(strange),
            }
        });
    }

    fn begin(&self, task: Task) {
        self.with(|state| state.tasks.push(task));
    }

    fn end(&self, _: Task) {
        self.with(|state| state.tasks.pop());
    }
}

/// Runs `script` on `image`, and unmounts it.
///
/// # Errors
/// Of mounting and unmounting, and an event whose text is not the kernel's. Operations that fail are answers.
pub fn run(script: &Script, image: &Path) -> Result<Run, String> {
    let recorder = Arc::new(Recorder::default());
    let options = extant_script::mount_options(&super::mount_words(script))
        .map_err(|error| error.to_string())?;
    let mount = || {
        let device = FileDevice::open(image).map_err(|error| error.to_string())?;
        // The kernel's side runs in this thread too.
        let process = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let options = options.clone().trace(Arc::<Recorder>::clone(&recorder)).process(process);
        let options = options.kernel_folios(true).processors(super::kernel::processors());
        Volume::mount(Arc::new(device), options).map_err(|error| format!("mount: {error}"))
    };
    let mut volume = mount()?;
    let setup = script.settings.setup;
    for operation in script.operations().take(setup) {
        if *operation == Operation::Remount {
            volume.unmount().map_err(|error| format!("remount: {error}"))?;
            volume = mount()?;
        } else if let Err(errno) = volume.apply(operation) {
            return Err(format!("{operation}: {errno}"));
        }
    }
    if script.settings.warm {
        volume.filesystem.block_groups().map_err(|error| format!("warming: {error}"))?;
    }
    let mut answers = Vec::new();
    for (step, operation) in script.operations().skip(setup).enumerate() {
        volume.advance(super::PAUSE);
        recorder.with(|state| state.step = Some(step));
        answers.push(volume.apply(operation));
    }
    recorder.with(|state| state.step = None);
    volume.unmount().map_err(|error| format!("unmount: {error}"))?;
    recorder.with(|state| match state.strange.take() {
        Some(strange) => Err(strange),
        None => Ok(Run { events: std::mem::take(&mut state.seen), answers }),
    })
}
