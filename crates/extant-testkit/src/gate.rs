//! [`GateDevice`]: a device on which one request can be held up, for tests of who waits for whom.

use extant_device::{BlockDevice, DeviceGeometry, OperationKind, Request};
use std::sync::{Condvar, Mutex, PoisonError};

/// Holds up a batch when it is told to, and lets all others pass.
#[derive(Debug)]
pub struct GateDevice<D> {
    inner: D,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Open,
    Next(OperationKind),
    AfterNext(OperationKind),
    Held,
}

impl<D: BlockDevice> GateDevice<D> {
    /// A gate that lets everything pass to `inner`.
    pub const fn new(inner: D) -> Self {
        Self { inner, state: Mutex::new(State::Open), changed: Condvar::new() }
    }

    /// The device below.
    pub const fn inner(&self) -> &D {
        &self.inner
    }

    /// The next batch with a request of this kind waits before it reaches the device below.
    pub fn hold_next(&self, kind: OperationKind) {
        self.set(State::Next(kind));
    }

    /// The next batch with a request of this kind waits once the device below is done with it.
    pub fn hold_after_next(&self, kind: OperationKind) {
        self.set(State::AfterNext(kind));
    }

    /// Returns when a batch is being held.
    pub fn wait_held(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while *state != State::Held {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the batch go.
    pub fn open(&self) {
        self.set(State::Open);
    }

    fn hold(&self) {
        self.set(State::Held);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while *state == State::Held {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn set(&self, to: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.changed.notify_all();
    }
}

impl<D: BlockDevice> BlockDevice for GateDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        self.inner.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        let has = |wanted| batch.iter().any(|request| request.kind() == wanted);
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            State::Next(kind) if has(kind) => {
                self.hold();
                self.inner.run(batch);
            }
            State::AfterNext(kind) if has(kind) => {
                self.inner.run(batch);
                self.hold();
            }
            _ => self.inner.run(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use extant_device::{BlockDeviceExt, MemoryDevice};

    use super::*;

    #[test]
    fn one_batch_waits_and_the_others_pass() {
        let device = GateDevice::new(MemoryDevice::new(4096));
        device.hold_next(OperationKind::Write);
        std::thread::scope(|scope| {
            let held = scope.spawn(|| device.write_bytes(0, &[1; 512]));
            device.wait_held();
            device.write_bytes(512, &[2; 512]).unwrap();
            assert_eq!(device.read_vec(0, 1024).unwrap(), [[0; 512], [2; 512]].concat());
            device.open();
            held.join().unwrap().unwrap();
        });
        assert_eq!(device.read_vec(0, 512).unwrap(), [1; 512]);
    }
}
