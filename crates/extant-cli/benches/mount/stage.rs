//! The contenders, and what a piece of work costs on each: time by the clock, and on a CPU of whoever works and of whoever serves.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use extant_testkit::oracle;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::time::{ClockId, clock_gettime};

use crate::{null, processors};

/// Who is compared.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Contender {
    /// Linux's ext4 on a loop device.
    Kernel,
    /// Of e2fsprogs.
    Fuse2fs,
    /// `extant mount`.
    Extant,
    /// `extant mount -o writeback`.
    Writeback,
    /// `extant mount -o io_uring`.
    Rings,
    /// The transport with nothing behind it.
    Null,
    /// The same with the kernel's queues.
    NullRings,
}

impl Contender {
    /// Those of the table.
    pub const ALL: [Self; 5] =
        [Self::Kernel, Self::Fuse2fs, Self::Extant, Self::Writeback, Self::Null];
    /// Those that differ in the transport.
    pub const TRANSPORTS: [Self; 4] = [Self::Null, Self::NullRings, Self::Extant, Self::Rings];

    /// What tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Fuse2fs => "fuse2fs",
            Self::Extant => "extant",
            Self::Writeback => "extant -o writeback",
            Self::Rings => "extant -o io_uring",
            Self::Null => "null",
            Self::NullRings => "null io_uring",
        }
    }

    /// Whether it keeps an image, so that there is something to check.
    pub fn has_image(self) -> bool {
        !matches!(self, Self::Null | Self::NullRings)
    }

    /// Why it cannot be measured on this machine.
    pub fn missing(self) -> Option<&'static str> {
        let is_root = rustix::process::geteuid().is_root();
        match self {
            Self::Kernel if !is_root => Some("mounting needs root"),
            Self::Fuse2fs if !oracle::has("fuse2fs") => Some("not installed"),
            Self::Kernel => None,
            _ if File::options().read(true).write(true).open("/dev/fuse").is_err() => {
                Some("no /dev/fuse")
            }
            _ => None,
        }
    }
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// By the clock.
    pub wall: Duration,
    /// On a CPU, of whoever works.
    pub workload: Duration,
    /// On a CPU, of whoever serves; the kernel's threads are not counted.
    pub daemon: Duration,
}

/// One contender with its image and its mount point.
pub struct Stage {
    /// Who it is.
    pub contender: Contender,
    image: PathBuf,
    point: PathBuf,
    daemon: Option<Child>,
    /// Of daemons that have ended.
    past_daemons: Duration,
    /// Of programs that were part of the work.
    programs: Duration,
}

impl Stage {
    /// A contender in a folder of its own; its image is at `image`, and `bytes` long.
    pub fn new(contender: Contender, image: PathBuf, point: PathBuf, bytes: u64) -> Self {
        fs::create_dir_all(&point).expect("the scratch folder can be written");
        if contender.has_image() {
            // All of its memory is touched before anybody is measured.
            let mut file = File::create(&image).expect("the scratch folder can be written");
            let piece = vec![0; 1 << 20];
            (0..bytes >> 20).for_each(|_| file.write_all(&piece).expect("there is room"));
        }
        let none = Duration::ZERO;
        Self { contender, image, point, daemon: None, past_daemons: none, programs: none }
    }

    /// A path in the volume.
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// The image.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Begins with an empty volume, mounted.
    pub fn begin(&mut self) {
        if self.contender.has_image() {
            let tuning = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
            let image = self.image.to_str().expect("a scratch path is text");
            let made = oracle::run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", tuning, image]);
            assert!(made.is_some_and(|made| made.status.success()), "mkfs.ext4 {image}");
        }
        self.mount();
    }

    /// Drops what is cached of the mount and of the machine, so that what follows is cold.
    pub fn remount_cold(&mut self) {
        self.unmount();
        self.mount_cold();
    }

    /// The same for what is not mounted.
    pub fn mount_cold(&mut self) {
        let _ = fs::write("/proc/sys/vm/drop_caches", "3"); // an ordinary user may not
        self.mount();
    }

    fn mount(&mut self) {
        let before = fs::metadata(&self.point).expect("it was made").dev();
        let mut command = match self.contender {
            Contender::Kernel => {
                let image = self.image.to_str().expect("a scratch path is text");
                let point = self.point.to_str().expect("a scratch path is text");
                let done = oracle::run("mount", &["-t", "ext4", "-o", "loop", image, point]);
                assert!(done.is_some_and(|done| done.status.success()), "mount {image}");
                return;
            }
            Contender::Null | Contender::NullRings => {
                let server = self.daemon.get_or_insert_with(|| start_null(&self.point));
                let input = server.stdin.as_mut().expect("it was asked for");
                let uses_rings = self.contender == Contender::NullRings;
                let word: &[u8] = if uses_rings { b"io_uring\n" } else { b"mount\n" };
                input.write_all(word).expect("it listens");
                return hear(server, "mounted");
            }
            Contender::Fuse2fs => {
                let mut command = Command::new("fuse2fs");
                command.arg("-f");
                command
            }
            Contender::Extant | Contender::Writeback | Contender::Rings => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_extant"));
                let options = match self.contender {
                    Contender::Writeback => "writeback,noio_uring",
                    Contender::Rings => "io_uring",
                    _ => "noio_uring",
                };
                command.args(["mount", "--foreground", "-o", options]);
                command
            }
        };
        command.args([&self.image, &self.point]).stdin(Stdio::null()).stdout(Stdio::null());
        let daemon = self.daemon.insert(command.spawn().expect("it is installed"));
        wait_for(|| fs::metadata(&self.point).is_ok_and(|found| found.dev() != before));
        if self.contender != Contender::Fuse2fs {
            processors::free_all_but_the_first(daemon.id());
        }
    }

    /// Unmounts, and returns when the image is whole: when whoever has served it is gone.
    pub fn unmount(&mut self) {
        match self.contender {
            Contender::Kernel => {
                wait_for(|| rustix::mount::unmount(&self.point, UnmountFlags::empty()).is_ok());
            }
            Contender::Null | Contender::NullRings => {
                wait_for(|| extant_fuse::unmount(&self.point).is_ok());
                hear(self.daemon.as_mut().expect("it is mounted"), "done");
            }
            _ => {
                wait_for(|| extant_fuse::unmount(&self.point).is_ok());
                let daemon = self.daemon.take().expect("it is mounted");
                let (cpu, succeeded) = end_of(daemon);
                assert!(succeeded, "{} failed", self.contender.name());
                self.past_daemons += cpu;
            }
        }
    }

    /// What e2fsck finds in the image.
    ///
    /// # Errors
    /// Its words.
    pub fn check(&self) -> Result<(), String> {
        if self.contender.has_image() { oracle::e2fsck(&self.image) } else { Ok(()) }
    }

    /// Runs a program as part of the work.
    pub fn run(&mut self, command: &mut Command) {
        let (cpu, succeeded) = end_of(command.spawn().expect("it is installed"));
        assert!(succeeded, "{command:?} failed on {}", self.contender.name());
        self.programs += cpu;
    }

    /// Does something, and says what it cost.
    pub fn measured(&mut self, work: impl FnOnce(&mut Self)) -> Cost {
        let (daemon, workload, start) = (self.daemon_cpu(), self.own_cpu(), Instant::now());
        work(self);
        let wall = start.elapsed();
        let less = |now: Duration, then| now.saturating_sub(then);
        Cost {
            wall,
            workload: less(self.own_cpu(), workload),
            daemon: less(self.daemon_cpu(), daemon),
        }
    }

    fn own_cpu(&self) -> Duration {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = now.tv_sec.try_into().expect("it does not run backwards");
        self.programs + Duration::new(seconds, now.tv_nsec.try_into().expect("a part of a second"))
    }

    fn daemon_cpu(&self) -> Duration {
        self.past_daemons + self.daemon.as_ref().map_or(Duration::ZERO, |child| cpu_of(child.id()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Touches memory and gives it back, so that nobody pays for pages that a virtual machine has to get from its host first.
pub fn warm_memory(bytes: u32) {
    let mut memory = vec![0_u8; usize::try_from(bytes).unwrap_or(0)];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

fn start_null(point: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program has a path"))
        .arg(null::CHILD)
        .arg(point)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started")
}

/// Waits until a program says `word`.
pub fn hear(child: &mut Child, word: &str) {
    let mut line = Vec::new();
    let output = child.stdout.as_mut().expect("it was asked for");
    for byte in std::io::BufReader::with_capacity(1, output).bytes() {
        match byte.expect("it speaks") {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    assert_eq!(String::from_utf8_lossy(&line), word);
}

/// Waits until a program has ended; what it has taken of a CPU, and whether it succeeded.
fn end_of(mut child: Child) -> (Duration, bool) {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let _ = rustix::process::waitid(WaitId::Pid(Pid::from_child(&child)), how);
    let cpu = cpu_of(child.id());
    (cpu, child.wait().is_ok_and(|status| status.success()))
}

/// What a process has taken of a CPU: by its threads, to the nanosecond, as long as they live; else in hundredths of a second.
fn cpu_of(pid: u32) -> Duration {
    let number = |text: &str, at: usize| text.split(' ').nth(at)?.trim().parse::<u64>().ok();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let fine = threads
        .filter_map(|thread| number(&fs::read_to_string(thread.path().join("schedstat")).ok()?, 0));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(") ").next().unwrap_or("");
    let coarse = number(rest, 11).unwrap_or(0) + number(rest, 12).unwrap_or(0);
    Duration::from_nanos(fine.sum()).max(Duration::from_millis(10 * coarse))
}

/// Asks again and again until something holds.
pub fn wait_for(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}
