//! What a script's run leaves: operations, their answers, and the events between, each with its moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use extant::trace::{Event, Task, TraceSink};
use extant_script::{Answer, Errno, Operation};

/// One line of a trace.
#[derive(Clone, Debug)]
pub struct Record {
    /// Since the first one.
    pub at: Duration,
    /// Whose work it is; `None` for the caller's own.
    pub task: Option<Task>,
    /// What happened.
    pub what: What,
}

/// What a record tells.
#[derive(Clone, Debug)]
pub enum What {
    /// An operation begins.
    Begin(String),
    /// It is over, with this answer.
    End(String),
    /// An event of the engine's.
    Event(Event),
}

/// Keeps records while an operation of the script runs.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    listens: bool,
    tasks: Vec<Task>,
    records: Vec<Record>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes now belongs to `operation`.
    pub fn begin_operation(&self, operation: &Operation) {
        let mut state = self.state();
        state.listens = true;
        self.push(&mut state, None, What::Begin(operation.to_string()));
    }

    /// The operation is over.
    pub fn end_operation(&self, answer: &Result<Answer, Errno>) {
        let mut state = self.state();
        state.listens = false;
        let text = match answer {
            Ok(answer) => answer.to_string(),
            Err(errno) => error_text(*errno),
        };
        self.push(&mut state, None, What::End(text));
    }

    fn push(&self, state: &mut State, task: Option<Task>, what: What) {
        state.records.push(Record { at: self.start.elapsed(), task, what });
    }

    /// All records; none are left.
    pub fn take(&self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.state().records);
        let first = records.first().map_or(Duration::ZERO, |record| record.at);
        records.iter_mut().for_each(|record| record.at -= first);
        records
    }
}

impl TraceSink for Recorder {
    fn event(&self, event: &Event) {
        let mut state = self.state();
        if state.listens {
            let task = state.tasks.last().copied();
            self.push(&mut state, task, What::Event(event.clone()));
        }
    }

    fn begin(&self, task: Task) {
        self.state().tasks.push(task);
    }

    fn end(&self, _: Task) {
        self.state().tasks.pop();
    }
}

/// The system's words for an errno.
pub fn error_text(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.0).to_string()
}
