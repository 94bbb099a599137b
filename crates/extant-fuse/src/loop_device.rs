//! A loop device for the time of a mount: with one the kernel takes the mount for one of a block device, and lets `sync(2)` and
//! `umount(2)` wait for its server.
//!
//! Nobody reads or writes the image through it. It goes by itself when the mount does, also if the server dies: it is marked to
//! be taken away by its last user.
//!
//! # Source
//! losetup(8), whose ioctls safe Rust cannot call; loop(4), `LO_FLAGS_AUTOCLEAR`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An image, or a part of it, that gets a loop device.
#[derive(Clone, Debug)]
pub struct Backing {
    /// The image file.
    pub image: PathBuf,
    /// Where the volume begins, in bytes.
    pub start: u64,
    /// How many bytes it has.
    pub len: u64,
    /// Bytes in a block of the volume.
    pub block_size: u32,
}

/// A loop device in use.
#[derive(Debug)]
pub(crate) struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Attaches an image; `None` where the machine has no loop devices, or none for us.
    pub(crate) fn attach(backing: &Backing, read_only: bool) -> Option<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]);
        if read_only {
            losetup.arg("--read-only");
        }
        losetup.arg(format!("--offset={}", backing.start));
        losetup.arg(format!("--sizelimit={}", backing.len));
        let output = losetup.arg("--").arg(&backing.image).stderr(Stdio::null()).output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?;
        let path = output.status.success().then(|| PathBuf::from(path.trim_end()))?;
        path.is_absolute().then_some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    /// Lets go of it: at once, or with its mount.
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).stderr(Stdio::null()).status();
    }
}
