//! [`Gate`]: lets operations that change the volume in, until somebody freezes it or unmounts it.
//!
//! A freeze is a state and no guard, since it outlives the call that began it.
//!
//! Source: kernel `sb_start_write`, `freeze_super`.

use crate::sync::{Condvar, Held, Mutex, Rank};

/// Whether operations that change the volume may begin, and how many run.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: u32,
    alone: bool,
    frozen: bool,
}

/// One operation that changes the volume; others may run beside it.
#[derive(Debug)]
#[must_use]
pub(super) struct Entered<'g> {
    gate: &'g Gate,
    _held: Held,
}

/// Nobody else is inside.
#[derive(Debug)]
#[must_use]
pub(super) struct Alone<'g> {
    gate: &'g Gate,
    _held: Held,
}

impl Gate {
    /// An open gate.
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(Rank::Leaf, State::default()), changed: Condvar::new() }
    }

    /// Waits until the gate is open, and goes in.
    pub(super) fn read(&self) -> Entered<'_> {
        let held = Held::new(Rank::Gate);
        let mut state = self.state.lock();
        while state.alone || state.frozen {
            state = self.changed.wait(state);
        }
        state.inside += 1;
        Entered { gate: self, _held: held }
    }

    /// Goes in, unless the volume is frozen.
    pub(super) fn try_read(&self) -> Option<Entered<'_>> {
        let held = Held::new(Rank::Gate);
        let mut state = self.state.lock();
        while state.alone {
            state = self.changed.wait(state);
        }
        if state.frozen {
            return None;
        }
        state.inside += 1;
        Some(Entered { gate: self, _held: held })
    }

    /// Waits until nobody is inside, and lets nobody in meanwhile, frozen or not.
    pub(super) fn write(&self) -> Alone<'_> {
        let held = Held::new(Rank::Gate);
        let mut state = self.state.lock();
        while state.alone {
            state = self.changed.wait(state);
        }
        state.alone = true;
        while state.inside > 0 {
            state = self.changed.wait(state);
        }
        Alone { gate: self, _held: held }
    }

    /// Lets nobody in from now on, and waits for those inside; `false` if the volume is frozen already.
    pub(super) fn freeze(&self) -> bool {
        let _held = Held::new(Rank::Gate);
        let mut state = self.state.lock();
        if core::mem::replace(&mut state.frozen, true) {
            return false;
        }
        while state.alone || state.inside > 0 {
            state = self.changed.wait(state);
        }
        true
    }

    /// Whether the volume is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.state.lock().frozen
    }

    /// Lets everybody in again.
    pub(super) fn thaw(&self) {
        self.state.lock().frozen = false;
        self.changed.notify_all();
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.gate.state.lock().inside -= 1;
        self.gate.changed.notify_all();
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.gate.state.lock().alone = false;
        self.gate.changed.notify_all();
    }
}
