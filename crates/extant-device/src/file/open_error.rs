//! [`OpenError`]: why an image or device was not opened: what, who, and what to do.

use std::path::{Path, PathBuf};

use alloc::string::String;
use core::fmt;

/// Why a [`FileDevice`](super::FileDevice) was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("cannot open {}: {source}", path.display())]
    System {
        /// The image.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system has no room for a file of this length, or knows none so long.
    #[error("{} cannot be {len_bytes} bytes long: {source}", path.display())]
    Length {
        /// The image.
        path: PathBuf,
        /// The length that was wanted.
        len_bytes: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The path leads to something that stores no image.
    #[error("{} is not {wanted}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Somebody holds a lock on it.
    #[error(
        "{} is {} by {}; stop that first",
        path.display(),
        if *reads { "being read" } else { "in use" },
        HolderText(holder.as_ref())
    )]
    Locked {
        /// The image.
        path: PathBuf,
        /// Who, if that can be known.
        holder: Option<LockHolder>,
        /// Nobody but readers, who are soon done.
        reads: bool,
    },
    /// It is mounted.
    #[error("{path} is mounted at {at}; run `umount {at}` first", path = path.display(), at = mount_point.display())]
    Mounted {
        /// The image or device.
        path: PathBuf,
        /// Where.
        mount_point: PathBuf,
    },
    /// A loop device uses it.
    #[error("{path} is attached to {to}; run `losetup -d {to}` first", path = path.display(), to = loop_device.display())]
    Attached {
        /// The image.
        path: PathBuf,
        /// The loop device.
        loop_device: PathBuf,
        /// The kernel takes it away when its last user goes (`LO_FLAGS_AUTOCLEAR`); a mount that was just undone is one such.
        goes_by_itself: bool,
    },
    /// The kernel has an exclusive claim on this block device, by something other than a mount that can be seen.
    #[error(
        "{} is in use by the system (swap, RAID, device mapper or a mount elsewhere); release it first",
        path.display()
    )]
    Claimed {
        /// The device.
        path: PathBuf,
    },
}

impl OpenError {
    /// Puts the path to an error of the system.
    pub(super) fn system(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::System { path, source }
    }
}

/// A process that holds a lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LockHolder {
    /// Its number.
    pub pid: u32,
    /// Its command's name, if the process can be seen.
    pub command: Option<String>,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == std::process::id() {
            return write!(f, "this very process (pid {})", self.pid);
        }
        write!(f, "{} (pid {})", self.command.as_deref().unwrap_or("a process"), self.pid)
    }
}

struct HolderText<'a>(Option<&'a LockHolder>);

impl fmt::Display for HolderText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => holder.fmt(f),
            None => f.write_str("another process, which holds a lock on it"),
        }
    }
}
