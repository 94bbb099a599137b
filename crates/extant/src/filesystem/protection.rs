//! Multiple mount protection: hosts that share a device see that one of them has the volume.
//!
//! Whoever has it writes another number into a block every few seconds. Who wants it looks whether that number stays as it is for
//! longer than its owner may take.
//!
//! Source: kernel `fs/ext4/mmp.c`: `ext4_multi_mount_protect`, `kmmpd`. Differs: looks each time before it writes, and not only
//! when it comes late; who finds another host's number writes nothing any more, whatever is to be done after errors.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use extant_device::{Frame, Request};
use extant_format::corruption::{Place, Rule};
use extant_format::mmp::{MAX_SEQUENCE, MmpState, RawMmp};
use extant_format::{Geometry, PhysicalBlock, Superblock};
use zerocopy::IntoBytes;

use super::volume::Volume;
use crate::block_io::BlockIo;
use crate::error::{Errno, Error, InUse, User};
use crate::options::Host;
use crate::sync::{Condvar, Mutex, Rank};
use crate::time::{Clock, Entropy};

/// Seconds between two looks, at least and at most.
const LEAST_SECONDS: u64 = 5;
const MOST_SECONDS: u64 = 300;
/// How much longer than its own interval an owner may take.
const PATIENCE: u64 = 2;
/// The most that is waited beyond one interval.
const MOST_BEYOND_SECONDS: u64 = 60;

/// The block that says that this host has the volume.
pub(super) struct Protection {
    io: BlockIo,
    geometry: Geometry,
    block: PhysicalBlock,
    /// Between two writes.
    interval: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

/// What this host knows of the block.
enum State {
    /// As written at this time.
    Ours(Box<RawMmp>, Duration),
    /// A thread looks at it, or writes it.
    Busy,
    /// Given back, or somebody else's.
    Gone,
}

impl Protection {
    /// Takes the volume for this host. Waits where another one may have it.
    ///
    /// # Errors
    /// [`Error::InUse`] if somebody has it; [`Error::Busy`] if the wait was cut short; what is wrong with the block.
    pub(super) fn claim(
        io: BlockIo,
        superblock: &Superblock,
        host: &Host,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Self, Error> {
        let geometry = *superblock.geometry();
        let block = PhysicalBlock::new(superblock.raw().mmp_block.get());
        let stored = u64::from(superblock.raw().mmp_interval.get());
        let protection = Self {
            io,
            geometry,
            block,
            interval: Duration::from_secs(stored.clamp(1, MOST_SECONDS)),
            state: Mutex::new(Rank::Leaf, State::Gone),
            changed: Condvar::new(),
        };
        let mut raw = protection.read()?;
        let wait = match raw.state() {
            Some(MmpState::Clean) => None,
            Some(MmpState::Checking) => return Err(in_use(&raw, User::Checker)),
            Some(MmpState::Mounted(_)) | None => Some(longest_silence(&raw, stored)),
        };
        protection.stays(&raw, host, wait)?;
        raw.set_state(MmpState::Mounted(entropy.draw() % (MAX_SEQUENCE + 1)));
        raw.check_interval = checked_every(protection.interval).into();
        put_name(&mut raw.node_name, &host.node);
        put_name(&mut raw.device_name, &host.device);
        protection.write(&mut raw, clock)?;
        let written = clock.monotonic();
        // Two that come at once have both written by now; the last one has it.
        protection.stays(&raw, host, wait)?;
        *protection.state.lock() = State::Ours(Box::new(raw), written);
        Ok(protection)
    }

    /// Waits, and sees that nobody has changed the block.
    fn stays(&self, raw: &RawMmp, host: &Host, wait: Option<Duration>) -> Result<(), Error> {
        if wait.is_some_and(|time| !host.pause.pause(time)) {
            return Err(Error::Busy("the wait for another host was cut short"));
        }
        let now = self.read()?;
        if now.sequence == raw.sequence { Ok(()) } else { Err(in_use(&now, User::Host)) }
    }

    /// Sees that the block is as this host has written it; what it tried to write last may be there or not.
    fn is_ours(&self, raw: &RawMmp) -> Result<(), Error> {
        let (now, last) = (self.read()?, raw.sequence.get());
        let is_ours = [last, next(last)].contains(&now.sequence.get());
        if is_ours && now.node_name == raw.node_name {
            Ok(())
        } else {
            Err(in_use(&now, User::Host))
        }
    }

    /// Says once more that this host has the volume, if that is due or `always`; when to do so again.
    ///
    /// # Errors
    /// [`Error::InUse`] if another host has it by now, and nothing is written; of the device.
    /// # Locks
    /// None; waits for the device.
    fn renew(&self, clock: &dyn Clock, always: bool) -> Result<Duration, Error> {
        let began = clock.monotonic();
        let mut state = self.state.lock();
        let (mut raw, written) = match &*state {
            State::Ours(raw, written) => (raw.clone(), *written),
            State::Busy | State::Gone => return Ok(self.interval),
        };
        let since = began.saturating_sub(written);
        if !always && since < self.interval {
            return Ok(self.interval - since);
        }
        *state = State::Busy;
        drop(state);
        let renewed = self.is_ours(&raw).and_then(|()| {
            let before = raw.clone();
            raw.set_state(MmpState::Mounted(next(raw.sequence.get())));
            // A slow device makes others wait longer.
            raw.check_interval = checked_every(since.max(self.interval)).into();
            self.write(&mut raw, clock).inspect_err(|_| raw = before)
        });
        *self.state.lock() = match &renewed {
            Ok(()) => State::Ours(raw, began),
            Err(Error::InUse(_)) => State::Gone,
            // The next one tries again.
            Err(_) => State::Ours(raw, written),
        };
        self.changed.notify_all();
        renewed.map(|()| self.interval)
    }

    /// Gives the volume back, unless it is another host's by now. A block that cannot be written makes the next one wait.
    pub(super) fn release(&self, clock: &dyn Clock) {
        let mut state = self.state.lock();
        while matches!(*state, State::Busy) {
            state = self.changed.wait(state);
        }
        let State::Ours(mut raw, _) = core::mem::replace(&mut *state, State::Gone) else { return };
        drop(state);
        if self.is_ours(&raw).is_ok() {
            raw.set_state(MmpState::Clean);
            let _ = self.write(&mut raw, clock);
        }
    }

    fn read(&self) -> Result<RawMmp, Error> {
        let at = Place::Block(self.block);
        let is_inside = self.block.get() >= self.geometry.first_data_block.into()
            && self.geometry.has_block(self.block);
        at.require(is_inside, Rule::BlockPlace)?;
        let frame = self.io.read_block(self.block)?;
        Ok(RawMmp::parse(frame.as_slice(), at, &self.geometry)?)
    }

    fn write(&self, raw: &mut RawMmp, clock: &dyn Clock) -> Result<(), Error> {
        raw.time = u64::try_from(clock.wall().seconds).unwrap_or(0).into();
        raw.set_checksum(&self.geometry);
        let mut bytes: Vec<u8> = raw.as_bytes().to_vec();
        bytes.resize(self.geometry.block_len(), 0);
        let frame = Frame::from(bytes);
        let len = frame.len();
        let offset = self.io.offset(self.block);
        self.io.run(&mut [Request::write_fua(offset, vec![frame.slice(0..len)])])
    }
}

impl Volume {
    /// Says to other hosts, if that is due or `always`, that this one has the volume; when to do so again, if they look for it.
    ///
    /// # Errors
    /// [`Error::InUse`] if another host has it by now; nothing is written any more then, not even that.
    /// # Locks
    /// None; waits for the device. Does nothing while the volume is frozen.
    pub(crate) fn renew_protection(&self, always: bool) -> Result<Option<Duration>, Error> {
        let Some(protection) = &self.protection else { return Ok(None) };
        if self.gate.is_frozen() {
            return Ok(Some(protection.interval));
        }
        let renewed = protection.renew(&*self.clock, always);
        if matches!(renewed, Err(Error::InUse(_))) {
            self.transactions.abort_unsaid(Errno::BUSY, "another host has mounted the volume");
        }
        renewed.map(Some)
    }
}

/// The number after this one.
fn next(sequence: u32) -> u32 {
    if sequence >= MAX_SEQUENCE { 1 } else { sequence + 1 }
}

/// For how long the one who wrote `raw` may say nothing.
fn longest_silence(raw: &RawMmp, stored: u64) -> Duration {
    let interval = stored.max(LEAST_SECONDS).max(raw.check_interval.get().into());
    Duration::from_secs((interval * PATIENCE + 1).min(interval + MOST_BEYOND_SECONDS))
}

/// What others are told of how often to look, if so much time lies between two writes.
fn checked_every(interval: Duration) -> u16 {
    let seconds = interval.as_secs().saturating_mul(PATIENCE).clamp(LEAST_SECONDS, MOST_SECONDS);
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

/// As much of a name as there is room for; it ends with a zero.
fn put_name(field: &mut [u8], name: &str) {
    field.fill(0);
    let len = name.len().min(field.len() - 1);
    field[..len].copy_from_slice(&name.as_bytes()[..len]);
}

fn in_use(raw: &RawMmp, by: User) -> Error {
    let name = |field: &[u8]| {
        let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    let (node, device) = (name(&raw.node_name), name(&raw.device_name));
    Error::InUse(Box::new(InUse { by, node, device, seconds: raw.time.get() }))
}
