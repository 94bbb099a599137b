//! [`Served`]: an image that `extant mount` serves, as a process that can be watched and killed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use extant_testkit::{oracle, skip};
use rustix::mount::UnmountFlags;

/// Longer than any image may take to be mounted or unmounted.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A server in the foreground. Dropped, it is killed and its mount taken away.
#[derive(Debug)]
pub struct Served {
    point: PathBuf,
    log: PathBuf,
    child: Child,
}

/// Why there is no mount.
#[derive(Clone, Debug)]
pub struct NotMounted {
    /// How the server ended; `None`: it did not, and was killed.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub said: String,
}

/// How a mount ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How the server did.
    pub status: ExitStatus,
    /// What it has printed.
    pub said: String,
}

impl Served {
    /// Whether this machine can mount; else a skip says what is missing.
    pub fn can() -> bool {
        if !rustix::process::geteuid().is_root() {
            skip("extant mount: needs root");
            return false;
        }
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("extant mount: no /dev/fuse");
            return false;
        }
        true
    }

    /// Serves `image` on `point`, which is made; the log is beside it.
    ///
    /// # Errors
    /// The server ends, or does not mount within a minute.
    pub fn start(
        program: &Path,
        image: &Path,
        point: &Path,
        options: &str,
    ) -> Result<Self, NotMounted> {
        let failed = |error: io::Error| NotMounted { status: None, said: error.to_string() };
        fs::create_dir_all(point).map_err(failed)?;
        let log = point.with_extension("log");
        let child = Command::new(program)
            .args(["mount", "--foreground", "-o", options])
            .args([image, point])
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let mut served = Self { point: point.to_owned(), log, child };
        let start = Instant::now();
        loop {
            let ended = served.child.try_wait().map_err(failed)?;
            if ended.is_none() && is_mounted(point) {
                return Ok(served);
            }
            if ended.is_some() || start.elapsed() > LONGEST_WAIT {
                return Err(NotMounted { status: ended, said: served.said() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The directory.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A number of KiB from its `/proc` status, such as `VmHWM`, the most memory that it ever had.
    pub fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it as a power cut would. Who uses the mount gets errors from then on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Unmounts, and waits for the server.
    ///
    /// # Errors
    /// The mount is busy for a minute, or the server does not end.
    pub fn unmount(mut self) -> Result<Ended, String> {
        let start = Instant::now();
        while self.has_ended().is_none() && is_mounted(&self.point) {
            match rustix::mount::unmount(&self.point, UnmountFlags::NOFOLLOW) {
                Ok(()) => break,
                Err(error) if start.elapsed() > LONGEST_WAIT => {
                    return Err(format!("umount: {error}; {}", self.said()));
                }
                // Another thread's child has our open files until it runs its own program.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        loop {
            if let Some(status) = self.has_ended() {
                return Ok(Ended { status, said: self.said() });
            }
            if start.elapsed() > LONGEST_WAIT {
                return Err(format!("the server does not end; {}", self.said()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.has_ended().is_none() {
            self.kill();
        }
        if is_mounted(&self.point) {
            let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
        }
    }
}

impl Ended {
    /// Whether it ended in good order: without a panic, by itself, and with success or a code that says what is wrong.
    ///
    /// # Errors
    /// How else.
    pub fn in_order(&self) -> Result<(), String> {
        in_order(Some(self.status), &self.said)
    }
}

impl NotMounted {
    /// Whether the image was refused in good order: with one of the documented codes, and a line that says why.
    ///
    /// # Errors
    /// How else.
    pub fn in_order(&self) -> Result<(), String> {
        in_order(self.status, &self.said)?;
        match self.said.lines().count() {
            1 => Ok(()),
            _ => Err(format!("refused, but not in one line: {}", self.said)),
        }
    }

    /// The exit code.
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }
}

fn in_order(status: Option<ExitStatus>, said: &str) -> Result<(), String> {
    if said.contains("panicked") {
        return Err(format!("it panicked: {said}"));
    }
    match status {
        None => Err(format!("it neither mounts nor ends: {said}")),
        Some(status) if status.code().is_some_and(|code| (0..=4).contains(&code)) => Ok(()),
        Some(status) => Err(format!("it ended with {status}: {said}")),
    }
}

/// Whether something is mounted on `point`; asks nobody who serves it.
fn is_mounted(point: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == point))
}

/// What is left of an image: e2fsck finds nothing, or says what.
///
/// # Errors
/// Its words.
pub fn judge(image: &Path) -> Result<(), String> {
    oracle::e2fsck(image).map_err(|words| format!("e2fsck -fn: {words}"))
}
