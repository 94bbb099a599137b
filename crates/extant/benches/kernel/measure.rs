//! How long something takes, by the clock and in time on a CPU.

use std::iter::Sum;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// How long something took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// By the clock.
    pub wall: Duration,
    /// What the calling thread was on a CPU of it.
    pub cpu: Duration,
}

impl Times {
    /// So many bytes in this time, in MB/s.
    pub fn rate(&self, bytes: u64) -> f64 {
        f64::from(u32::try_from(bytes >> 10).unwrap()) * 1.024e-3 / self.wall.as_secs_f64()
    }
}

impl Sum for Times {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, one| Self {
            wall: sum.wall + one.wall,
            cpu: sum.cpu + one.cpu,
        })
    }
}

/// Runs `work` in this thread; how long it took, and what it gave.
pub fn measured<R>(work: impl FnOnce() -> R) -> (Times, R) {
    let (start, cpu) = (Instant::now(), on_cpu());
    let result = work();
    (Times { wall: start.elapsed(), cpu: on_cpu().saturating_sub(cpu) }, result)
}

fn on_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

/// Keeps the calling thread on the `nth` of the CPUs that it may have, counted around. Else the scheduler may leave two threads
/// that begin together on one CPU for longer than a round takes, beside an idle one.
pub fn stay_on_cpu(nth: usize) {
    let may = sched_getaffinity(None).unwrap();
    let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| may.is_set(cpu));
    let mut one = CpuSet::new();
    one.set(cpus.cycle().nth(nth).unwrap());
    sched_setaffinity(None, &one).unwrap();
}

/// The value in the middle, or the mean of the two there.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}
