//! Images that `extant mount` serves while a test runs.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
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

/// An ordinary user, without any right.
pub const NOBODY: u32 = 65534;

/// An image and a folder of an ordinary user's, with the program where he may run it.
pub struct Nobody {
    pub image: PathBuf,
    pub point: PathBuf,
    pub program: PathBuf,
    _scratch: Scratch,
}

impl Nobody {
    /// Prepares them, the image's root directory his too; `None`, after a skip, for who cannot become another user, or without
    /// the helper.
    pub fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || oracle::run("fusermount3", &["-V"]).is_none() {
            skip("an ordinary user's mount: needs root to become one, and fusermount3");
            return None;
        }
        let is_open = |found: fs::Metadata| found.permissions().mode() & 0o006 == 0o006;
        if !fs::metadata("/dev/fuse").is_ok_and(is_open) {
            skip("an ordinary user's mount: /dev/fuse is not his to open on this machine");
            return None;
        }
        let (scratch, image, point) = prepared(name, "64M");
        fs::create_dir(&point).unwrap();
        fs::set_permissions(scratch.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for path in [&image, &point] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        ok(["chown", &format!("{NOBODY}:{NOBODY}"), &format!("{}:/", image.display())]);
        let program = scratch.path("extant");
        fs::copy(env!("CARGO_BIN_EXE_extant"), &program).unwrap();
        Some(Self { image, point, program, _scratch: scratch })
    }

    /// A program that runs as that user.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    }

    /// What a script says that he runs in the mount.
    pub fn shell(&self, script: &str) -> String {
        let script = format!("cd '{}' && {script}", self.point.display());
        let output = self.command(Path::new("/bin/sh")).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}
