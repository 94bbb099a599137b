//! [`CpuMeter`]: what the processor spends on something.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the processor spent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Time of all threads of this process, in the program and in the kernel for it.
    pub time: Duration,
    /// Instructions of the program, where the machine counts them: many virtual machines do not.
    pub instructions: Option<u64>,
}

/// Counts from its beginning on; threads that are started later count too.
#[derive(Debug)]
pub struct CpuMeter {
    start: Duration,
    #[cfg(target_os = "linux")]
    instructions: Option<perf_event::Counter>,
}

impl CpuMeter {
    /// Begins.
    pub fn start() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            instructions: instruction_counter(),
            start: process_time(),
        }
    }

    /// What was spent so far; threads whose instructions are to count have ended.
    pub fn read(&mut self) -> Cpu {
        Cpu {
            time: process_time().saturating_sub(self.start),
            #[cfg(target_os = "linux")]
            instructions: self.instructions.as_mut().and_then(|counter| counter.read().ok()),
            #[cfg(not(target_os = "linux"))]
            instructions: None,
        }
    }
}

/// A counter of this thread's instructions and of those of threads that it starts; `None` where the kernel refuses, or the
/// machine has no such counter.
#[cfg(target_os = "linux")]
fn instruction_counter() -> Option<perf_event::Counter> {
    let mut builder = perf_event::Builder::new().kind(perf_event::events::Hardware::INSTRUCTIONS);
    builder.inherit(true);
    let mut counter = builder.build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}

fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let mut meter = CpuMeter::start();
        let sum: u64 = (0..30_000_000_u64).map(|n| std::hint::black_box(n) % 7).sum();
        let spent = meter.read();
        assert!(sum > 0 && spent.time > Duration::from_millis(5), "{spent:?}");
        assert!(spent.instructions.is_none_or(|count| count > 30_000_000));
    }
}
