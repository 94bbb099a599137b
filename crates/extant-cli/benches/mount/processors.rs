//! Where threads run, and what processors do when there is nothing to run.
//!
//! Who asks and who serves never run at the same time, and a wake-up on another processor takes a virtual machine's host longer than
//! the request takes, four times as long if that processor is busy. Which of the two happens is up to the scheduler, and changes
//! several times a second. So both run on one processor; all other threads, the kernel's among them, run where they like.

use std::fs;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// As long as this lives the calling thread, and what it starts, run on one processor, and idle ones of a virtual machine poll a
/// while before they halt, if asked to.
pub struct Processors {
    all: Option<CpuSet>,
    poll: Option<String>,
}

/// How long they poll, in nanoseconds.
const POLL: &str = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";
/// The kernel's default.
const POLL_NS: u64 = 200_000;

impl Processors {
    /// Begins, as far as the machine knows it and we may. Idle processors are left as they are unless `polls`.
    pub fn begin(polls: bool) -> Self {
        let all = sched_getaffinity(None).ok();
        if let Some(last) = all.and_then(|all| (0..CpuSet::MAX_CPU).rfind(|n| all.is_set(*n))) {
            let mut one = CpuSet::new();
            one.set(last);
            let _ = sched_setaffinity(None, &one);
        }
        let poll =
            fs::read_to_string(POLL).ok().filter(|_| polls).map(|text| text.trim().to_owned());
        let poll = poll.filter(|text| text.parse().is_ok_and(|set: u64| set < POLL_NS));
        let poll = poll.filter(|_| fs::write(POLL, POLL_NS.to_string()).is_ok());
        Self { all, poll }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.all.map(|all| sched_setaffinity(None, &all));
        self.poll.take().map(|poll| fs::write(POLL, poll));
    }
}

/// Lets the threads of a process run where they like, but for its first, which serves, and those of queues, which know where.
pub fn free_all_but_the_first(process: u32) {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|n| all.set(n));
    for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if name.starts_with("queue") {
            continue;
        }
        let thread = thread.file_name().to_string_lossy().parse().unwrap_or(0);
        if Some(process) != u32::try_from(thread).ok() {
            let _ = sched_setaffinity(Pid::from_raw(thread), &all);
        }
    }
}
