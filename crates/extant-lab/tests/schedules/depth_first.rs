//! Every order in which two threads can take the locks of one inode, depth first: shuttle, by `cargo xtask schedules`.
//!
//! Threads change places only where one asks for a lock of the inode's own (content, invalidation, a folio, the block map) or
//! has to wait; what lies between does not depend on the other. So the orders can be counted, and all of them run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use extant::{Error, File, Filesystem, MountOptions, RangeChange, RangeSync};
use extant_device::MemoryDevice;
use extant_script::Volume;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, Runner, thread};

use super::{base, immediate, judge, open, written_at_once};

/// More orders than two short threads have: a scene that comes so far has not been tried out.
const TOO_MANY: usize = 100_000;
/// Bytes of a block.
const BLOCK: u64 = 1024;

/// Tries one choice after the other, the last ones first.
struct DepthFirst {
    /// The choice at each place where there is one, and how many there are.
    choices: Vec<(usize, usize)>,
    at: usize,
    done: Arc<AtomicUsize>,
}

impl Scheduler for DepthFirst {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.done.fetch_add(1, Ordering::Relaxed) > 0 {
            while self.choices.pop_if(|(choice, of)| *choice + 1 == *of).is_some() {}
            self.choices.last_mut()?.0 += 1;
        }
        self.at = 0;
        assert!(self.done.load(Ordering::Relaxed) < TOO_MANY, "this scene has too many orders");
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let asks = extant::asks_for_inode_lock();
        let goes_on = runnable.iter().map(|task| task.id()).find(|task| Some(*task) == current);
        if let Some(current) = goes_on.filter(|_| !asks && !is_yielding) {
            return Some(current);
        }
        if let [only] = runnable {
            return Some(only.id());
        }
        if self.at == self.choices.len() {
            self.choices.push((0, runnable.len()));
        }
        let (choice, _) = self.choices[self.at];
        self.at += 1;
        Some(runnable[choice].id())
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("the engine draws its numbers where it is told to")
    }
}

/// What one thread does with the file.
type Deed = fn(&File) -> Result<(), Error>;

/// One block that is there, one that waits for its place, and holes.
fn scene(filesystem: &Filesystem) -> Result<(), Error> {
    let file = filesystem.create("/file")?;
    file.write_at(&[b'0'; 1024], 0)?;
    file.sync_all()?;
    file.write_at(&[b'0'; 1024], 3 * BLOCK)?;
    file.set_len(8 * BLOCK)
}

/// Runs both in every order, and says how many there were.
fn every_order(options: fn() -> MountOptions, one: Deed, other: Deed) -> usize {
    let done = Arc::new(AtomicUsize::new(0));
    let run = move || {
        let device = Arc::new(base().snapshot());
        let volume =
            Volume::mount(Arc::<MemoryDevice>::clone(&device), options()).expect("it mounts");
        scene(&volume.filesystem).expect("the scene can be set");
        let running = [one, other].map(|deed| {
            let filesystem = volume.filesystem.clone();
            thread::spawn(move || {
                let file = open(&filesystem).expect("it is there");
                deed(&file).expect("an operation that fits");
            })
        });
        running.into_iter().for_each(|thread| thread.join().expect("a thread ends"));
        let filesystem = &volume.filesystem;
        filesystem.check_invariants(false).expect("reservations and counters are consistent");
        let mut bytes = vec![0xFF; 8 * 1024];
        let len = open(filesystem).expect("it is there").read_at(&mut bytes, 0).expect("it reads");
        assert_eq!(len, bytes.len());
        assert!(bytes.iter().all(|byte| [0, b'0', b'1', b'2'].contains(byte)));
        volume.unmount().expect("it unmounts");
        judge(&device);
    };
    let scheduler = DepthFirst { choices: Vec::new(), at: 0, done: Arc::clone(&done) };
    Runner::new(scheduler, Config::new()).run(run);
    done.load(Ordering::Relaxed) - 1
}

/// Two blocks: the last of the delayed ones and the hole behind it.
fn write(file: &File) -> Result<(), Error> {
    file.write_at(&[b'1'; 1500], 3 * BLOCK + 100).map(drop)
}

fn fault(file: &File) -> Result<(), Error> {
    file.store_at(&[b'2'; 100], 4 * BLOCK + 50).map(drop)
}

fn write_back(file: &File) -> Result<(), Error> {
    file.sync_range(0..u64::MAX, RangeSync { wait_before: false, write: true, wait_after: true })
}

fn allocate(file: &File) -> Result<(), Error> {
    file.change_range(RangeChange::Allocate { keep_size: false }, 2 * BLOCK, 4 * BLOCK)
}

fn zero(file: &File) -> Result<(), Error> {
    file.change_range(RangeChange::Zero { keep_size: false }, 3 * BLOCK, 2 * BLOCK)
}

fn punch(file: &File) -> Result<(), Error> {
    file.change_range(RangeChange::PunchHole, 2 * BLOCK, 2 * BLOCK + 100)
}

/// S16: a block's state is looked up, the map is asked under the shared lock, and everything once more under the exclusive one
/// before it is promised. Whoever comes in between, in whatever order, no block is promised twice or lost.
#[test]
fn s16_every_order_of_a_writer_against_faults_writeback_and_ranges() {
    let pairs: [(&str, Deed, Deed); 9] = [
        ("writer and writer", write, write),
        ("writer and fault", write, fault),
        ("writer and writeback", write, write_back),
        ("writer and fallocate", write, allocate),
        ("fault and writeback", fault, write_back),
        ("fault and fallocate", fault, allocate),
        ("writer and punch", write, punch),
        ("fault and zero", fault, zero),
        ("writeback and punch", write_back, punch),
    ];
    for options in [MountOptions::new, immediate, written_at_once] {
        for (name, one, other) in pairs {
            let orders = every_order(options, one, other);
            println!("{orders:6} orders of {name}");
            assert!(orders > 10, "{name}: {orders} orders, so the threads have not met");
        }
    }
}
