//! A script on the kernel's ext4, and the events of it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use extant_script::{DirectoryTarget, Operation, Script, Target};
use extant_testkit::oracle::KernelMount;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::event::{self, Event, Stream};
use super::tracefs::{Instance, Line};
use super::{PAUSE, Run, Seen};

/// Runs `script` on a loop mount of `image`; `None`, after a skip, where that cannot be.
///
/// # Errors
/// Of mounting, tracing and reading the events. Operations that fail are answers.
pub fn run(script: &Script, image: &Path, point: &Path) -> Option<Result<Run, String>> {
    let instance = match Instance::new() {
        Ok(instance) => instance,
        Err(error) => {
            extant_testkit::skip(&format!("no tracefs: {error}"));
            return None;
        }
    };
    let _pinned = OneProcessor::pin();
    let options = super::mount_words(script);
    let mount = || KernelMount::new(image, point, &options);
    let mut mounted = mount()?;
    let text = |error: std::io::Error| error.to_string();
    if let Err(error) = read_ahead(image) {
        return Some(Err(error));
    }
    let setup = script.settings.setup;
    let mut target = DirectoryTarget::new(point).waiting();
    for operation in script.operations().take(setup) {
        if *operation == Operation::Remount {
            drop(target);
            if let Err(error) = mounted.unmount() {
                return Some(Err(format!("remount: {error}")));
            }
            mounted = mount()?;
            if let Err(error) = read_ahead(image) {
                return Some(Err(error));
            }
            target = DirectoryTarget::new(point).waiting();
        } else if let Err(errno) = target.apply(operation) {
            return Some(Err(format!("{operation}: {errno}")));
        }
    }
    let ran = (|| {
        if script.settings.warm {
            warm(image)?;
        }
        let device = std::fs::metadata(point).map_err(text)?.dev();
        let names = event::known().chain(["writeback_single_inode"]);
        instance.start(device, names).map_err(text)?;
        let mut answers = Vec::new();
        for (step, operation) in script.operations().skip(setup).enumerate() {
            std::thread::sleep(PAUSE);
            instance.mark(&format!("step {step}")).map_err(text)?;
            answers.push(target.apply(operation));
        }
        instance.mark("over").map_err(text)?;
        std::thread::sleep(PAUSE);
        let events = read(&instance.stop().map_err(text)?)?;
        Ok(Run { events, answers })
    })();
    drop(target);
    Some(mounted.unmount().map_err(text).and(ran))
}

/// Keeps this thread, and the kernel's that write back, on one processor while it lives: small files share room with
/// others of their processor. Where writeback runs is one setting for all, so runs of other processes wait meanwhile.
struct OneProcessor {
    thread: Option<CpuSet>,
    writeback: Option<String>,
    /// Locked until it is closed, which is after the drop of the rest.
    _alone: Option<File>,
}

/// Which processors writeback may use, as a mask in hex.
const WRITEBACK: &str = "/sys/devices/virtual/workqueue/writeback/cpumask";

impl OneProcessor {
    fn pin() -> Self {
        let alone = File::open(WRITEBACK).ok().filter(|file| file.lock().is_ok());
        let before = sched_getaffinity(None).ok();
        let first = before.and_then(|all| (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)));
        let first = first.unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(first);
        let thread = before.filter(|_| sched_setaffinity(None, &one).is_ok());
        let mask = u32::try_from(first).ok().and_then(|first| 1_u32.checked_shl(first));
        let before = std::fs::read_to_string(WRITEBACK).ok();
        let pinned =
            mask.is_some_and(|mask| std::fs::write(WRITEBACK, format!("{mask:x}")).is_ok());
        Self { thread, writeback: before.filter(|_| pinned), _alone: alone }
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        // Where this fails they are slower, and right.
        let _ = self.thread.map(|before| sched_setaffinity(None, &before));
        let _ = self.writeback.take().map(|before| std::fs::write(WRITEBACK, before.trim()));
    }
}

/// How many processors the kernel reckons with.
pub(super) fn processors() -> u32 {
    let shown = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = shown.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    last.map_or(1, |last| last + 1)
}

/// The name of the loop device that has the image.
fn device(image: &Path) -> Result<String, String> {
    let shown = Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(image).output();
    let shown = shown.map_err(|error| format!("losetup: {error}"))?;
    Ok(String::from_utf8_lossy(&shown.stdout).trim().replace("/dev/", ""))
}

/// Has every group's buddy built, as reading this report does.
fn warm(image: &Path) -> Result<(), String> {
    let report = format!("/proc/fs/ext4/{}/mb_groups", device(image)?);
    std::fs::read(&report).map(drop).map_err(|error| format!("{report}: {error}"))
}

/// Has the kernel fetch as far ahead of readers as the engine does.
fn read_ahead(image: &Path) -> Result<(), String> {
    let queue = format!("/sys/block/{}/queue", device(image)?);
    let set = |name: &str, kib: &str| {
        let path = format!("{queue}/{name}");
        std::fs::write(&path, kib).map_err(|error| format!("{path}: {error}"))
    };
    set("max_sectors_kb", "1024").and_then(|()| set("read_ahead_kb", "2048"))
}

/// The events in what tracefs tells, each with the step that it came in.
fn read(trace: &str) -> Result<Vec<Seen>, String> {
    let own = rustix::thread::gettid().as_raw_pid().unsigned_abs();
    let (mut step, mut seen) = (None, Vec::<Seen>::new());
    let mut workers: HashMap<u32, Stream> = HashMap::new();
    let mut visits: HashMap<u32, Vec<usize>> = HashMap::new(); // events of each worker's last
    let mut resized: HashSet<String> = HashSet::new(); // inodes whose map grew or shrank at the end of I/O
    for line in trace.lines().filter_map(Line::parse) {
        if let Some(mark) = line.text.strip_prefix("tracing_mark_write: ") {
            step = mark.strip_prefix("step ").map_or(step, |number| number.parse().ok());
            continue;
        }
        let Some(step) = step else { continue };
        if let Some(visit) = line.text.strip_prefix("writeback_single_inode: ") {
            let inode = visit.split(' ').find_map(|word| word.strip_prefix("ino=")).unwrap_or("");
            let is_idle = is_idle(visit, resized.remove(inode));
            let last = visits.get(&line.pid).filter(|_| is_idle);
            last.into_iter().flatten().for_each(|&at| seen[at].is_idle = true);
            continue;
        }
        let event = Event::parse(line.text)?;
        let stream = match line.task {
            _ if line.pid == own => Stream::Caller,
            "perl" => Stream::Caller,
            task if task.starts_with("jbd2/") => Stream::Journal,
            task if task.starts_with("kworker") => {
                // One worker does one work after the other; both kinds begin in a way of their own.
                match event.name {
                    "ext4_journal_start_reserved" => workers.insert(line.pid, Stream::EndOfIo),
                    "ext4_writepages" | "ext4_trim_extent" => {
                        workers.insert(line.pid, Stream::Flusher)
                    }
                    _ => None,
                };
                workers.get(&line.pid).copied().unwrap_or(Stream::Flusher)
            }
            _ => continue,
        };
        if stream == Stream::EndOfIo
            && matches!(event.name, "ext4_allocate_blocks" | "ext4_free_blocks")
        {
            resized.extend(event.get("ino").map(str::to_owned));
        }
        match event.name {
            "ext4_writepages" => drop(visits.insert(line.pid, vec![seen.len()])),
            _ => visits.entry(line.pid).or_default().push(seen.len()),
        }
        seen.push(Seen { stream, step, event, is_idle: false });
    }
    Ok(seen)
}

/// Whether a visit of the flusher wrote nothing, though it was not for nothing that it came: the end of I/O has `resized` the map
/// since the one before, which counts as a change of the inode; or the visit leaves pages that count as dirty, since a large
/// folio lost all that was dirty of it and split, and its pages keep the tag up to their next writeback. Whether the first is
/// seen by the same `sync`, the next one or none, and how often the second is seen in one, depends on the clock.
///
/// Source: kernel `ext4_ext_try_to_merge_up`, `dquot_free_block`; `folio_cancel_dirty`, `requeue_inode`.
fn is_idle(visit: &str, resized: bool) -> bool {
    let keeps_tags = visit.split([' ', '=', '|']).any(|word| word == "I_DIRTY_PAGES");
    (keeps_tags || resized) && visit.split(' ').any(|word| word == "wrote=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "x-1 [0] ..... 1.0: tracing_mark_write: step 0\n";
    const VISIT: &str = "kworker/u4:1-7 [0] ..... 1.1: ext4_writepages: dev 7,0 ino 12 nr_to_write 1 pages_skipped 0 range_start 0 range_end 1 sync_mode 1 for_kupdate 0 range_cyclic 0 writeback_index 0\n";

    fn idle(trace: &str) -> Vec<bool> {
        read(trace).unwrap().iter().map(|seen| seen.is_idle).collect()
    }

    fn visit(state: &str, wrote: u32) -> String {
        let end = format!("bdi 7:0: ino=12 state={state} index=0 wrote={wrote} cgroup_ino=1");
        format!("{VISIT}kworker/u4:1-7 [0] ..... 1.2: writeback_single_inode: {end}\n")
    }

    #[test]
    fn a_visit_that_leaves_tags_and_writes_nothing_is_idle() {
        assert_eq!(idle(&format!("{START}{}", visit("I_DIRTY_PAGES|I_SYNC", 0))), [true]);
        assert_eq!(idle(&format!("{START}{}", visit("I_DIRTY_PAGES|I_SYNC", 2))), [false]);
        assert_eq!(idle(&format!("{START}{}", visit("I_SYNC", 0))), [false]);
    }

    #[test]
    fn a_visit_after_the_end_of_io_has_freed_a_node_is_idle_once() {
        let worker = |event: &str| format!("kworker/u4:2-8 [0] ..... 1.1: {event}\n");
        let end = worker(
            "ext4_journal_start_reserved: dev 7,0 blocks, 1, caller ext4_convert_unwritten_io_end_vec+0x1/0x2",
        ) + &worker(
            "ext4_free_blocks: dev 7,0 ino 12 mode 0100644 block 9063 count 1 flags METADATA|FORGET|VALIDATED",
        );
        let visit = visit("I_SYNC", 0);
        assert_eq!(idle(&format!("{START}{end}{visit}{visit}")), [false, false, true, false]);
    }
}
