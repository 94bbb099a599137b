//! What the engine does, told event by event: the kernel's tracepoints, from a program that one can step through.
//!
//! An [`Event`] is emitted where the thing happens, by the layer that does it, in the kernel's order; its `Display` is
//! the kernel's text, so a line can be compared with one of `trace_pipe`.
//!
//! # Invariants
//! Nothing is emitted for show: an event stands where the kernel's tracepoint stands in the same course of action, and
//! a layer that does not do the thing emits nothing. While nobody listens, an event costs one branch and is not built.
//! # Runs
//! Where the kernel walks block by block and we act on a run of blocks, one event carries the run; the variants that do
//! say so. The kernel's events of adjacent blocks fold into one of ours.
//! # Tasks
//! The engine has no threads: what the kernel leaves to a worker or to the journal's thread runs inside the call that
//! needs it. [`TraceSink::begin`] and [`TraceSink::end`] enclose it, so that streams can be told apart.
//! # Differences
//! `caller` is an address in the kernel and is left out, with what separates it. `line_no` is 0.
//! # Locking
//! Sinks are called with locks of any rank held, and must not call the file system.
//! # Not here
//! Who listens, how a recording is kept or compared, and times: a sink has its own clock.
//! # Source
//! Kernel `include/trace/events/ext4.h`, `jbd2.h`, by way of the `format` files of Linux 6.18.

mod events;
mod values;

pub use events::Event;
pub use values::{
    AllocationFlags, AllocatorExtent, Criterion, DeviceNumber, FallocateMode, FieldValue,
    FreeFlags, HandleType, MapFlags, MappedFlags, StatusFlags,
};

use alloc::sync::Arc;
use core::fmt;

/// Who listens to events.
pub trait TraceSink: Send + Sync {
    /// `event` happens now, in this thread; called with locks held, so it must not call the file system.
    fn event(&self, event: &Event);

    /// What follows in this thread is the work of `task`, up to the matching [`Self::end`]; tasks nest.
    fn begin(&self, task: Task) {
        let _ = task;
    }

    /// `task` is done.
    fn end(&self, task: Task) {
        let _ = task;
    }
}

/// Work that the kernel gives to a thread of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Task {
    /// The end of I/O: blocks become written (`kworker`).
    EndOfIo,
    /// The journal: commit, and what waits for it (`jbd2`).
    Journal,
    /// Writeback that no caller asked for (`kworker/flush`).
    Flusher,
}

/// A layer's way to whoever listens; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tracer(Option<Arc<dyn TraceSink>>);

impl Tracer {
    /// Tells `sink` everything.
    pub(crate) fn new(sink: Arc<dyn TraceSink>) -> Self {
        Self(Some(sink))
    }

    /// Tells what `event` builds, if anybody listens.
    #[inline]
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if let Some(sink) = &self.0 {
            Self::tell(&**sink, event);
        }
    }

    /// Whether anybody listens: for events that take more than their fields to build.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Until the answer is dropped, this thread does the work of `task`.
    pub(crate) fn task(&self, task: Task) -> TaskScope<'_> {
        let sink = self.0.as_deref();
        if let Some(sink) = sink {
            sink.begin(task);
        }
        TaskScope { sink, task }
    }

    #[cold]
    #[inline(never)]
    fn tell(sink: &dyn TraceSink, event: impl FnOnce() -> Event) {
        sink.event(&event());
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

/// The work of a task goes on while this lives.
#[must_use]
pub(crate) struct TaskScope<'t> {
    sink: Option<&'t dyn TraceSink>,
    task: Task,
}

impl Drop for TaskScope<'_> {
    fn drop(&mut self) {
        if let Some(sink) = self.sink {
            sink.end(self.task);
        }
    }
}

#[cfg(test)]
mod tests;
