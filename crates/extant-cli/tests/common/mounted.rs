//! Images that `extant mount` serves while a test runs.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use extant_testkit::oracle::{self, Scratch};
use extant_testkit::skip;

use super::{check, extant, ok};

/// A server in the foreground; killed if a test fails.
pub struct Mounted {
    pub point: PathBuf,
    pub image: PathBuf,
    pub server: Child,
}

impl Mounted {
    /// Mounts an image; `None`, after a skip, where there is no `/dev/fuse` to open.
    pub fn new(image: &Path, point: &Path, options: &str) -> Option<Self> {
        let program = Command::new(env!("CARGO_BIN_EXE_extant"));
        Self::by(program, image, point, options)
    }

    pub fn by(mut program: Command, image: &Path, point: &Path, options: &str) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("no /dev/fuse");
            return None;
        }
        fs::create_dir_all(point).unwrap();
        let before = fs::metadata(point).unwrap().dev();
        let server = program
            .args(["mount", "--foreground", "-o", options])
            .args([image, point])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut mounted = Self { point: point.to_owned(), image: image.to_owned(), server };
        wait_until(|| {
            assert_eq!(mounted.server.try_wait().unwrap(), None, "it does not mount");
            fs::metadata(point).unwrap().dev() != before
        });
        Some(mounted)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Unmounts, and checks that the image is whole when that returns.
    pub fn unmount(mut self) {
        umount(&self.point);
        check(&self.image);
        assert!(self.server.wait().unwrap().success());
    }

    /// The server ends as by a power cut.
    pub fn kill(mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        detach(&self.point);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.server.try_wait().ok().flatten().is_none() {
            let _ = self.server.kill();
            let _ = self.server.wait();
            detach(&self.point);
        }
    }
}

pub fn umount(point: &Path) {
    wait_until(|| {
        let output = extant([Path::new("umount"), point]);
        let words = oracle::text(&output);
        // Another thread's child has our open files until it runs its own program.
        assert!(output.status.success() || words.contains("busy"), "{words}");
        output.status.success()
    });
}

pub fn detach(point: &Path) {
    let lazy = rustix::mount::UnmountFlags::DETACH;
    if rustix::mount::unmount(point, lazy).is_err() {
        let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(point).status();
    }
}

pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A fresh image, and a folder for the mount.
pub fn prepared(name: &str, size: &str) -> (Scratch, PathBuf, PathBuf) {
    let scratch = Scratch::new(name);
    let (image, point) = (scratch.path("disk.img"), scratch.path("mount"));
    ok(["mkfs", "-q", "-b", "4096", image.to_str().unwrap(), size]);
    (scratch, image, point)
}
