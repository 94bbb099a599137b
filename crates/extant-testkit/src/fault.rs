//! [`FaultDevice`]: a device whose n-th request goes wrong.

use std::collections::BTreeMap;

use extant_device::sync::Mutex;
use extant_device::{
    BlockDevice, DeviceError, DeviceGeometry, FrameSlice, Operation, OperationKind, Request,
};

use extant_crash::part_of;

/// `EIO`, what a request that fails reports.
const EIO: i32 = 5;

/// Which request goes wrong, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Of which kind; `None` counts all requests alike.
    pub kind: Option<OperationKind>,
    /// Which one of that kind, from 1, counted since the device was made.
    pub nth: u64,
    /// Whether every later one goes wrong too.
    pub onwards: bool,
    /// What happens.
    pub effect: Effect,
}

impl Fault {
    /// The `nth` request of `kind` fails and does nothing.
    pub const fn fail(kind: OperationKind, nth: u64) -> Self {
        Self { kind: Some(kind), nth, onwards: false, effect: Effect::Fail }
    }

    /// The `nth` request of any kind and every later one fails: the device is gone.
    pub const fn gone_from(nth: u64) -> Self {
        Self { kind: None, nth, onwards: true, effect: Effect::Fail }
    }
}

/// What happens to a request that goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing is done; the request fails with `EIO`.
    Fail,
    /// A write stores its first sectors only, then fails; other kinds fail.
    Tear {
        /// How many.
        sectors: u64,
    },
    /// One byte of a read or write is changed, and success reported; other kinds are ignored.
    Corrupt {
        /// Which byte, modulo the request's length.
        byte: u64,
        /// Which of its bits.
        flip: u8,
    },
    /// Nothing is done, and success reported: a device that lies.
    Ignore,
}

/// Passes requests to the device below, but for those that a [`Fault`] picks.
#[derive(Debug)]
pub struct FaultDevice<D> {
    inner: D,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    seen: BTreeMap<OperationKind, u64>,
    struck: u64,
}

impl<D: BlockDevice> FaultDevice<D> {
    /// A device without faults so far.
    pub fn new(inner: D) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// The device below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// Adds a fault; where several pick the same request, the first added decides.
    pub fn add(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Takes all faults away; the counts stay.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// How many requests of `kind` there were; of all kinds for `None`.
    pub fn seen(&self, kind: Option<OperationKind>) -> u64 {
        self.state.lock().seen(kind)
    }

    /// How many requests went wrong.
    pub fn struck(&self) -> u64 {
        self.state.lock().struck
    }

    fn run_wrong(&self, request: &mut Request, effect: Effect) {
        request.result = request.check(&self.geometry());
        if request.result.is_err() || effect == Effect::Ignore {
            return;
        }
        let (operation, offset) = (request.kind(), request.offset);
        match (&request.operation, effect) {
            (Operation::Write { data, fua }, Effect::Tear { sectors }) => {
                let whole = sectors.saturating_mul(self.geometry().sector_bytes.into());
                let data = part_of(data, 0, whole.min(request.len()));
                self.run_inner(Request::new(offset, Operation::Write { data, fua: *fua }));
            }
            (Operation::Write { data, fua }, Effect::Corrupt { byte, flip })
                if !request.is_empty() =>
            {
                let data = vec![corrupted(data, byte % request.len(), flip)];
                request.result = self
                    .run_inner(Request::new(offset, Operation::Write { data, fua: *fua }))
                    .result;
                return;
            }
            (Operation::Read { .. }, Effect::Corrupt { byte, flip }) => {
                self.inner.run(std::slice::from_mut(request));
                flip_in_read(request, byte, flip);
                return;
            }
            (_, Effect::Corrupt { .. }) => return,
            (_, Effect::Fail | Effect::Tear { .. } | Effect::Ignore) => {}
        }
        request.result = Err(DeviceError::Io { operation, offset, errno: Some(EIO) });
    }

    fn run_inner(&self, request: Request) -> Request {
        let mut batch = [request];
        self.inner.run(&mut batch);
        let [request] = batch;
        request
    }
}

impl State {
    fn seen(&self, kind: Option<OperationKind>) -> u64 {
        match kind {
            Some(kind) => self.seen.get(&kind).copied().unwrap_or(0),
            None => self.seen.values().sum(),
        }
    }

    /// Counts a request of `kind` and says how it goes wrong, if it does.
    fn strike(&mut self, kind: OperationKind) -> Option<Effect> {
        *self.seen.entry(kind).or_default() += 1;
        let picks = |fault: &&Fault| {
            let number = self.seen(fault.kind);
            fault.kind.is_none_or(|wanted| wanted == kind)
                && (number == fault.nth || (fault.onwards && number > fault.nth))
        };
        let effect = self.faults.iter().find(picks)?.effect;
        self.struck += 1;
        Some(effect)
    }
}

impl<D: BlockDevice> BlockDevice for FaultDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        self.inner.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        let effects: Vec<_> = {
            let mut state = self.state.lock();
            batch.iter().map(|request| state.strike(request.kind())).collect()
        };
        // Sound neighbours still go down together.
        let mut rest = batch;
        for run in effects.chunk_by(|a, b| a.is_none() && b.is_none()) {
            let (requests, after) = rest.split_at_mut(run.len());
            match run[0] {
                None => self.inner.run(requests),
                Some(effect) => self.run_wrong(&mut requests[0], effect),
            }
            rest = after;
        }
    }
}

fn corrupted(data: &[FrameSlice], byte: u64, flip: u8) -> FrameSlice {
    let mut bytes: Vec<u8> = data.iter().flat_map(FrameSlice::as_slice).copied().collect();
    bytes[index(byte)] ^= flip;
    extant_device::Frame::from(bytes).into()
}

/// `n` as an index into data in memory.
fn index(n: u64) -> usize {
    usize::try_from(n).expect("lies within data in memory")
}

fn flip_in_read(request: &mut Request, byte: u64, flip: u8) {
    let Some(byte) = byte.checked_rem(request.len()) else { return };
    let (Operation::Read { into }, mut at) = (&mut request.operation, index(byte)) else { return };
    for frame in into {
        if let Some(found) = frame.make_mut().get_mut(at) {
            *found ^= flip;
            return;
        }
        at -= frame.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use extant_device::{BlockDeviceExt, Frame, MemoryDevice};

    fn device(fault: Fault) -> FaultDevice<MemoryDevice> {
        let device = FaultDevice::new(MemoryDevice::new(8192));
        device.add(fault);
        device
    }

    #[test]
    fn only_the_nth_request_of_its_kind_fails() {
        let device = device(Fault::fail(OperationKind::Write, 2));
        device.flush().unwrap();
        let mut batch =
            [0, 512, 1024].map(|offset| Request::write_frame(offset, Frame::copy_from(&[1; 512])));
        device.run(&mut batch);
        let error =
            DeviceError::Io { operation: OperationKind::Write, offset: 512, errno: Some(5) };
        assert_eq!(batch.map(|request| request.result), [Ok(()), Err(error), Ok(())]);
        assert_eq!(device.inner().to_vec()[..1536], [[1; 512], [0; 512], [1; 512]].concat());
        assert_eq!(
            (device.seen(Some(OperationKind::Write)), device.seen(None), device.struck()),
            (3, 4, 1)
        );
    }

    #[test]
    fn a_device_that_is_gone_stays_gone() {
        let device = device(Fault::gone_from(2));
        device.flush().unwrap();
        assert!(
            device.flush().is_err()
                && device.read_vec(0, 1).is_err()
                && device.write_bytes(0, &[1; 512]).is_err()
        );
        device.heal();
        device.flush().unwrap();
    }

    #[test]
    fn a_torn_write_stores_its_first_sectors_and_fails() {
        let fault =
            Fault { effect: Effect::Tear { sectors: 1 }, ..Fault::fail(OperationKind::Write, 1) };
        let device = device(fault);
        assert!(device.write_bytes(0, &[1; 1536]).is_err());
        assert_eq!(device.inner().to_vec()[..1024], [[1; 512], [0; 512]].concat());
    }

    #[test]
    fn corruption_is_silent() {
        for kind in [OperationKind::Write, OperationKind::Read] {
            let device = device(Fault {
                effect: Effect::Corrupt { byte: 512 + 3, flip: 4 },
                ..Fault::fail(kind, 1)
            });
            device.write_bytes(0, &[1; 512]).unwrap();
            let mut read = [Request::read(0, vec![Frame::zeroed(2), Frame::zeroed(510)])];
            device.run_all(&mut read).unwrap();
            let [read] = read;
            let bytes: Vec<u8> =
                read.into_frames().unwrap().into_iter().flat_map(|frame| frame.to_vec()).collect();
            assert_eq!((bytes[2], bytes[3], bytes[4]), (1, 5, 1));
        }
    }

    #[test]
    fn an_ignored_request_reports_success() {
        let device =
            device(Fault { effect: Effect::Ignore, ..Fault::fail(OperationKind::Write, 1) });
        device.write_bytes(0, &[1; 512]).unwrap();
        assert_eq!(device.read_vec(0, 512).unwrap(), [0; 512]);
    }
}
