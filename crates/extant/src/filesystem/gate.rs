//! [`Gate`]: lets operations that change the volume in, until somebody freezes it or unmounts it.
//!
//! A freeze is a state and no guard, since it outlives the call that began it. The gate has several doors, each with a count
//! and a lock of its own, so that threads that come and go all the time do not meet; who closes it closes each.
//!
//! Source: kernel `sb_start_write`, `freeze_super`; `percpu_rw_semaphore`.

use crate::sync::{Condvar, Held, Mutex, Rank, thread_number};

/// Whether operations that change the volume may begin, and how many run.
#[derive(Debug)]
pub(super) struct Gate {
    doors: [Door; DOORS],
    /// Held while all doors are frozen or thawed.
    switch: Mutex<()>,
}

/// Threads share doors by their numbers.
const DOORS: usize = 16;

/// In cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Door {
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
    door: &'g Door,
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
        let door =
            || Door { state: Mutex::new(Rank::Leaf, State::default()), changed: Condvar::new() };
        Self { doors: core::array::from_fn(|_| door()), switch: Mutex::new(Rank::Gate, ()) }
    }

    fn door(&self) -> &Door {
        &self.doors[thread_number() % DOORS]
    }

    /// Waits until the gate is open, and goes in.
    pub(super) fn read(&self) -> Entered<'_> {
        let (held, door) = (Held::new(Rank::Gate), self.door());
        let mut state = door.state.lock();
        while state.alone || state.frozen {
            state = door.changed.wait(state);
        }
        state.inside += 1;
        Entered { door, _held: held }
    }

    /// Goes in, unless the volume is frozen.
    pub(super) fn try_read(&self) -> Option<Entered<'_>> {
        let (held, door) = (Held::new(Rank::Gate), self.door());
        let mut state = door.state.lock();
        while state.alone {
            state = door.changed.wait(state);
        }
        if state.frozen {
            return None;
        }
        state.inside += 1;
        Some(Entered { door, _held: held })
    }

    /// Waits until nobody is inside, and lets nobody in meanwhile, frozen or not.
    pub(super) fn write(&self) -> Alone<'_> {
        let held = Held::new(Rank::Gate);
        // Two who want to be alone meet at the first door.
        for door in &self.doors {
            let mut state = door.state.lock();
            while state.alone {
                state = door.changed.wait(state);
            }
            state.alone = true;
        }
        for door in &self.doors {
            door.wait_while(|state| state.inside > 0);
        }
        Alone { gate: self, _held: held }
    }

    /// Lets nobody in from now on, and waits for those inside; `false` if the volume is frozen already.
    pub(super) fn freeze(&self) -> bool {
        if self.set_frozen(true) {
            return false;
        }
        let _held = Held::new(Rank::Gate);
        for door in &self.doors {
            door.wait_while(|state| state.alone || state.inside > 0);
        }
        true
    }

    /// Whether the volume is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.doors[0].state.lock().frozen
    }

    /// Lets everybody in again.
    pub(super) fn thaw(&self) {
        self.set_frozen(false);
    }

    /// Freezes or thaws every door; whether it was frozen before.
    fn set_frozen(&self, frozen: bool) -> bool {
        let _switch = self.switch.lock();
        let mut before = frozen;
        for door in &self.doors {
            before = core::mem::replace(&mut door.state.lock().frozen, frozen);
            door.changed.notify_all();
        }
        before
    }
}

impl Door {
    fn wait_while(&self, condition: impl Fn(&State) -> bool) {
        let mut state = self.state.lock();
        while condition(&state) {
            state = self.changed.wait(state);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.door.state.lock().inside -= 1;
        self.door.changed.notify_all();
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        for door in &self.gate.doors {
            door.state.lock().alone = false;
            door.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// More than there are doors, so that some share one.
    const THREADS: usize = DOORS + 3;

    /// Runs `close` while as many threads are inside, who leave one by one; how many were still inside when it came back.
    fn inside_after<R>(gate: &Gate, close: impl FnOnce() -> R) -> (usize, R) {
        let (inside, ready) = (AtomicUsize::new(THREADS), Barrier::new(THREADS + 1));
        std::thread::scope(|scope| {
            for n in 0..THREADS {
                let (inside, ready) = (&inside, &ready);
                scope.spawn(move || {
                    let entered = gate.read();
                    ready.wait();
                    std::thread::sleep(Duration::from_millis(u64::try_from(n).unwrap()));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(entered);
                });
            }
            ready.wait();
            let closed = close();
            (inside.load(Ordering::SeqCst), closed)
        })
    }

    #[test]
    fn who_wants_to_be_alone_waits_for_those_behind_every_door() {
        let gate = Gate::new();
        let (inside, alone) = inside_after(&gate, || gate.write());
        assert_eq!(inside, 0);
        std::thread::scope(|scope| {
            let late = scope.spawn(|| drop(gate.read()));
            std::thread::sleep(Duration::from_millis(10));
            assert!(!late.is_finished());
            drop(alone);
        });
    }

    #[test]
    fn a_freeze_waits_for_those_behind_every_door_and_keeps_all_out() {
        let gate = Gate::new();
        assert_eq!(inside_after(&gate, || gate.freeze()), (0, true));
        assert!(gate.is_frozen() && !gate.freeze());
        std::thread::scope(|scope| {
            let refused = [(); THREADS].map(|()| scope.spawn(|| gate.try_read().is_none()));
            assert!(refused.into_iter().all(|thread| thread.join().unwrap()));
            let late = scope.spawn(|| drop(gate.read()));
            std::thread::sleep(Duration::from_millis(10));
            assert!(!late.is_finished());
            gate.thaw();
        });
        assert!(!gate.is_frozen() && gate.try_read().is_some());
    }
}
