//! [`World`]: virtual time, a modelled disk in it, and threads that take turns.
//!
//! Time moves only while everybody waits for the disk, so what the processor does takes none. Of the threads that
//! [`World::together`] runs exactly one runs at any moment; it goes on until it waits for the disk or for another thread,
//! and the next one is chosen by a fixed rule. So a run depends on nothing but its input.

use std::cell::RefCell;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use extant::time::{Clock, Entropy};
use extant_device::{
    BlockDevice, BlockDeviceExt, DeviceError, DeviceGeometry, MemoryDevice, Operation, Request,
};
use extant_format::Timestamp;

use crate::disk::{DiskCounts, DiskModel, Part, Simulation, Ticket};

/// Time, a disk and threads.
#[derive(Debug)]
pub struct World {
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Simulation,
    threads: Vec<Thread>,
    running: Option<usize>,
    /// Goes up whenever a thread has done something that others may wait for.
    progress: u64,
    stuck: bool,
}

#[derive(Debug)]
struct Thread {
    state: State,
    turn: Arc<Condvar>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// May run.
    Ready,
    /// Waits for a batch of requests.
    ForDisk(Ticket),
    /// Waits for another thread; whether that has let it go is worth asking once there is more progress than this.
    ForOthers(u64),
    Done,
}

thread_local! {
    /// The world that this thread takes turns in, and its number there.
    static MEMBER: RefCell<Option<(Arc<World>, usize)>> = const { RefCell::new(None) };
}

impl World {
    /// A disk that was idle until now, at time zero.
    pub fn new(model: &DiskModel) -> Arc<Self> {
        let shared = Shared {
            disk: Simulation::new(model),
            threads: Vec::new(),
            running: None,
            progress: 0,
            stuck: false,
        };
        Arc::new(Self { shared: Mutex::new(shared) })
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.lock().disk.now()
    }

    /// What the disk was asked for and did.
    pub fn disk_counts(&self) -> DiskCounts {
        self.lock().disk.counts()
    }

    /// Lets time pass up to `then` in which nobody asks for anything; the disk goes on with what it has. Outside of
    /// [`Self::together`].
    pub fn pass_until(&self, then: Duration) {
        self.lock().disk.pass_until(then);
    }

    /// Runs tasks in threads that take turns, and gives their results in order.
    ///
    /// # Panics
    /// With the first task that does, or if all threads wait for each other.
    pub fn together<R: Send>(self: &Arc<Self>, tasks: Vec<impl FnOnce() -> R + Send>) -> Vec<R> {
        {
            let mut shared = self.lock();
            assert!(shared.threads.is_empty(), "one group of threads at a time");
            let thread = |_| Thread { state: State::Ready, turn: Arc::new(Condvar::new()) };
            shared.threads = (0..tasks.len()).map(thread).collect();
            shared.running = shared.next();
        }
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = tasks
                .into_iter()
                .enumerate()
                .map(|(number, task)| scope.spawn(move || self.run_member(number, task)))
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        self.lock().threads.clear();
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    }

    fn run_member<R>(self: &Arc<Self>, number: usize, task: impl FnOnce() -> R) -> R {
        /// Leaves the group, also after a panic.
        struct Leave<'a>(&'a World, usize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                MEMBER.set(None);
                let mut shared = self.0.lock();
                shared.threads[self.1].state = State::Done;
                shared.progress += 1;
                shared.hand_over();
            }
        }
        let _leave = Leave(self, number);
        MEMBER.set(Some((Arc::clone(self), number)));
        drop(self.wait_for_turn(self.lock(), number));
        extant::wait_by(let_others_run, task)
    }

    /// Has the disk do `parts`, and returns when they are done.
    fn perform(&self, parts: Vec<Part>) {
        let member = MEMBER.with_borrow(|member| member.as_ref().map(|(_, number)| *number));
        let mut shared = self.lock();
        let ticket = shared.disk.submit(parts);
        match member {
            Some(number) => {
                shared.progress += 1;
                self.give_way(shared, number, State::ForDisk(ticket));
            }
            None => {
                while !shared.disk.is_done(ticket) {
                    assert!(
                        shared.disk.step(),
                        "a disk that is asked for something does something"
                    );
                }
            }
        }
    }

    /// Lets others run until it is this thread's turn again.
    fn give_way(&self, mut shared: MutexGuard<'_, Shared>, number: usize, state: State) {
        shared.threads[number].state = state;
        shared.hand_over();
        drop(self.wait_for_turn(shared, number));
    }

    fn wait_for_turn<'a>(
        &'a self,
        mut shared: MutexGuard<'a, Shared>,
        number: usize,
    ) -> MutexGuard<'a, Shared> {
        let turn = Arc::clone(&shared.threads[number].turn);
        while shared.running != Some(number) {
            assert!(!shared.stuck, "all threads wait for each other");
            shared = turn.wait(shared).expect(POISONED);
        }
        shared
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect(POISONED)
    }
}

/// What the engine calls in a thread that waits for another one.
fn let_others_run(calls: u32) {
    let member = MEMBER.with_borrow(Clone::clone);
    let Some((world, number)) = member else { return };
    let mut shared = world.lock();
    // Only a thread that begins to wait has done anything since its last turn.
    shared.progress += u64::from(calls == 0);
    let asked_at = shared.progress;
    world.give_way(shared, number, State::ForOthers(asked_at));
}

impl Shared {
    /// Chooses who runs next, and wakes it.
    fn hand_over(&mut self) {
        self.running = self.next();
        match self.running {
            Some(number) => self.threads[number].turn.notify_one(),
            None if self.threads.iter().any(|thread| thread.state != State::Done) => {
                self.stuck = true;
                self.threads.iter().for_each(|thread| thread.turn.notify_one());
            }
            None => {}
        }
    }

    /// Whose turn it is: who has what it waited for, then who may have; else time goes on.
    fn next(&mut self) -> Option<usize> {
        loop {
            let (disk, progress) = (&self.disk, self.progress);
            let can_run = |thread: &Thread| match thread.state {
                State::Ready => true,
                State::ForDisk(ticket) => disk.is_done(ticket),
                State::ForOthers(_) | State::Done => false,
            };
            if let Some(number) = self.threads.iter().position(can_run) {
                self.threads[number].state = State::Ready;
                return Some(number);
            }
            let asked_at = |thread: &Thread| match thread.state {
                State::ForOthers(asked_at) if asked_at < progress => Some(asked_at),
                _ => None,
            };
            let waiting = self.threads.iter().enumerate();
            let longest =
                waiting.filter_map(|(number, thread)| Some((asked_at(thread)?, number))).min();
            if let Some((_, number)) = longest {
                return Some(number);
            }
            if !self.disk.step() {
                return None;
            }
        }
    }
}

/// A modelled disk as a device: the bytes are in memory, and requests take their time.
#[derive(Debug)]
pub struct HardDisk {
    world: Arc<World>,
    /// What reads see.
    bytes: Arc<MemoryDevice>,
    /// What a power cut would leave, if anybody wants to know.
    platters: Option<MemoryDevice>,
}

impl HardDisk {
    /// A disk that holds what `bytes` holds.
    pub fn new(world: &Arc<World>, bytes: impl Into<Arc<MemoryDevice>>) -> Self {
        Self { world: Arc::clone(world), bytes: bytes.into(), platters: None }
    }

    /// The same, of a kind that knows at any time what is on its platters.
    pub fn with_platters(world: &Arc<World>, bytes: impl Into<Arc<MemoryDevice>>) -> Self {
        let disk = Self::new(world, bytes);
        Self { platters: Some(disk.bytes.snapshot()), ..disk }
    }

    /// What would be left if the power failed now: not what is in the cache alone. Whole pieces are there or not.
    ///
    /// # Errors
    /// Of memory devices, which have none.
    pub fn after_power_cut(&self) -> Result<MemoryDevice, DeviceError> {
        self.persist()?;
        Ok(self.platters.as_ref().unwrap_or(&self.bytes).snapshot())
    }

    /// Copies what has reached the platters since the last time.
    fn persist(&self) -> Result<(), DeviceError> {
        let reached = self.world.lock().disk.take_persisted();
        let Some(platters) = &self.platters else { return Ok(()) };
        for Range { start, end } in reached {
            let len = usize::try_from(end - start).unwrap_or(usize::MAX);
            platters.run_one(Request::write_frame(start, self.bytes.read_frame(start, len)?))?;
        }
        Ok(())
    }
}

impl BlockDevice for HardDisk {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry { discard: false, fast_zeroes: false, ..self.bytes.geometry() }
    }

    fn run(&self, batch: &mut [Request]) {
        let persisted = self.persist();
        self.bytes.run(batch);
        let parts = batch.iter().filter(|request| request.result.is_ok()).filter_map(part);
        self.world.perform(parts.collect());
        if let Some(request) = batch.first_mut() {
            request.result = request.result.and(persisted);
        }
    }
}

fn part(request: &Request) -> Option<Part> {
    let bytes = request.offset..request.offset + request.len();
    match &request.operation {
        Operation::Flush => Some(Part::Flush),
        _ if bytes.is_empty() => None,
        Operation::Read { .. } => Some(Part::Read(bytes)),
        Operation::Write { fua, .. } => Some(Part::Write(bytes, *fua)),
        Operation::WriteZeroes { .. } => Some(Part::Write(bytes, false)),
        Operation::Discard { .. } => None,
    }
}

/// The engine's view of a world's time.
#[derive(Debug)]
pub struct WorldClock(pub Arc<World>);

impl Clock for WorldClock {
    fn monotonic(&self) -> Duration {
        self.0.now()
    }

    fn wall(&self) -> Timestamp {
        let now = self.0.now();
        let seconds = EPOCH + i64::try_from(now.as_secs()).unwrap_or(i64::MAX - EPOCH);
        Timestamp { seconds, nanoseconds: now.subsec_nanos() }
    }
}

/// Numbers that are the same in every run.
#[derive(Debug, Default)]
pub struct WorldEntropy(std::sync::atomic::AtomicU32);

impl Entropy for WorldEntropy {
    fn draw(&self) -> u32 {
        self.0.fetch_add(0x9E37_79B9, std::sync::atomic::Ordering::Relaxed)
    }
}

/// When worlds begin: 1 January 2026.
const EPOCH: i64 = 1_767_225_600;
const POISONED: &str = "a panic in a thread of the group ends the group";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(world: &World, offset: u64) {
        world.perform(vec![Part::Read(offset..offset + 4096)]);
    }

    #[test]
    fn threads_wait_for_the_disk_side_by_side() {
        let alone = World::new(&DiskModel::DESKTOP);
        let place = |n: u64| n * 37 % 32 * 30_000_000_000;
        (0..32).for_each(|n| read(&alone, place(n)));
        let world = World::new(&DiskModel::DESKTOP);
        let task = |n: u64| {
            let world = &world;
            move || {
                read(world, place(n));
                world.now()
            }
        };
        let times = world.together((0..32).map(task).collect());
        assert_eq!(times.iter().max(), Some(&world.now()));
        assert!(world.now() < alone.now() * 3 / 4, "{:?} {:?}", world.now(), alone.now());
    }

    #[test]
    fn turns_are_the_same_in_every_run() {
        let run = || {
            let world = World::new(&DiskModel::DESKTOP);
            let order = Mutex::new(Vec::new());
            let task = |n: u64| {
                let (world, order) = (&world, &order);
                move || {
                    for step in 0..10 {
                        read(world, (n * 10 + step) * 77_777 % 1000 * 4096);
                        order.lock().unwrap().push(n);
                    }
                }
            };
            world.together((0..5).map(task).collect());
            (order.into_inner().unwrap(), world.now())
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn a_power_cut_loses_what_is_in_the_cache_alone() {
        let world = World::new(&DiskModel::DESKTOP);
        let disk = HardDisk::with_platters(&world, MemoryDevice::new(1 << 30));
        let first_byte = || disk.after_power_cut().unwrap().read_vec(0, 1).unwrap()[0];
        disk.write_bytes(0, &[1; 4096]).unwrap();
        assert_eq!(first_byte(), 0);
        disk.flush().unwrap();
        assert_eq!(first_byte(), 1);
        disk.write_bytes(0, &[2; 4096]).unwrap();
        assert_eq!(first_byte(), 1);
        world.pass_until(world.now() + Duration::from_secs(1));
        assert_eq!(first_byte(), 2, "sooner or later it is written");
        disk.run_one(Request::write_fua(
            0,
            vec![extant_device::Frame::copy_from(&[3; 4096]).into()],
        ))
        .unwrap();
        assert_eq!(first_byte(), 3);
    }

    #[test]
    fn a_task_that_panics_takes_the_others_with_it() {
        let world = World::new(&DiskModel::DESKTOP);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let bad: Box<dyn FnOnce() + Send> = Box::new(|| panic!("as it should"));
            let good: Box<dyn FnOnce() + Send> = Box::new(|| read(&world, 0));
            world.together(vec![good, bad])
        }));
        assert!(outcome.is_err());
    }
}
