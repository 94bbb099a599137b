//! Attaching a server to a directory: as root by mount(2), else by `fusermount3`, and detaching it.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use crate::abi::MAX_BYTES;
use crate::device::Channel;
use crate::loop_device::{Backing, LoopDevice};

/// How a volume is attached.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What `mount` and `df` show as the source: the image's path.
    pub source: String,
    /// The directory.
    pub point: PathBuf,
    /// Nothing is written.
    pub read_only: bool,
    /// Users other than the one who mounts may look into it; always, if that is root.
    pub allow_other: bool,
    /// What mount(8) hands to the kernel, among [`KERNEL_WORDS`]. An ordinary user's helper does not know all of them.
    pub words: Vec<&'static str>,
    /// What gets a loop device, so that the kernel waits for the server: root's mounts alone, and where there is one.
    pub backing: Option<Backing>,
}

/// Words of mount(8) for which the kernel has a flag, and whether fusermount3 passes them on.
pub const KERNEL_WORDS: [(&str, MountFlags, bool); 10] = [
    ("nosuid", MountFlags::NOSUID, true),
    ("nodev", MountFlags::NODEV, true),
    ("noexec", MountFlags::NOEXEC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("nodiratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, false),
    ("lazytime", MountFlags::from_bits_retain(1 << 25), false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("dirsync", MountFlags::DIRSYNC, true),
];

/// Why a mount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The directory cannot be used.
    #[error("{0}: {1}")]
    Point(PathBuf, io::Error),
    /// There is no `/dev/fuse`, or it may not be opened.
    #[error("/dev/fuse: {0}")]
    Device(io::Error),
    /// An ordinary user needs a helper to mount.
    #[error("fusermount3 does not run ({0}); it comes with the package fuse3")]
    NoHelper(io::Error),
    /// The helper has said why on its standard error.
    #[error("fusermount3 did not mount it")]
    Refused,
}

impl Mount {
    /// Attaches, and returns where requests come from. They come at once: who looks at the directory waits.
    ///
    /// # Errors
    /// [`MountError`]; nothing is attached then.
    pub fn attach(&self) -> Result<Channel, MountError> {
        let device = match rustix::process::geteuid().is_root() {
            true => self.attach_as_root(),
            false => self.attach_by_helper(),
        };
        device.map(Channel::new)
    }

    fn attach_as_root(&self) -> Result<OwnedFd, MountError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())
            .map_err(|error| MountError::Device(error.into()))?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        let mut how = MountFlags::empty();
        how.set(MountFlags::RDONLY, self.read_only);
        for (word, flag, _) in KERNEL_WORDS {
            how.set(flag, how.contains(flag) || self.words.contains(&word));
        }
        let mount = |source: &Path, kind: &str, options: &str| {
            let options = CString::new(options).unwrap_or_default();
            rustix::mount::mount(source, &self.point, kind, how, &*options)
        };
        let backing = self.backing.as_ref();
        let attached = backing.and_then(|backing| LoopDevice::attach(backing, self.read_only));
        if let (Some(attached), Some(backing)) = (&attached, backing) {
            let block = backing.block_size.min(LARGEST_BLOCK);
            let options = format!("{options},blksize={block}");
            // A kernel may have been built without.
            if mount(attached.path(), "fuseblk.extant", &options).is_ok() {
                let _ = self.read_far_ahead("-fuseblk");
                return Ok(device);
            }
        }
        mount(Path::new(&self.source), "fuse.extant", &options)
            .map_err(|error| MountError::Point(self.point.clone(), error.into()))?;
        let _ = self.read_far_ahead(""); // or it reads with more requests
        Ok(device)
    }

    /// Has the kernel fetch as much ahead as one request can bring, which is eight times what it does by itself. What it is told
    /// before the server has answered once decides. The kernel adds `suffix` to the number of what it keeps that of.
    fn read_far_ahead(&self, suffix: &str) -> io::Result<()> {
        // Of what it knows already: there is nobody yet to ask.
        let flags = AtFlags::STATX_DONT_SYNC;
        let found = rustix::fs::statx(CWD, &self.point, flags, StatxFlags::TYPE)?;
        let (major, minor) = (found.stx_dev_major, found.stx_dev_minor);
        let knob = format!("/sys/class/bdi/{major}:{minor}{suffix}/read_ahead_kb");
        std::fs::write(knob, (MAX_BYTES >> 10).to_string())
    }

    /// Source: libfuse, `fuse_mount_fusermount`: the helper gets a socket by `_FUSE_COMMFD`, and sends the device through it.
    fn attach_by_helper(&self) -> Result<OwnedFd, MountError> {
        let helper = |error: Errno| MountError::NoHelper(error.into());
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(helper)?;
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(helper)?;
        let mut options = format!("default_permissions,subtype=extant,fsname={}", self.escaped());
        for (is_set, word) in [(self.read_only, ",ro"), (self.allow_other, ",allow_other")] {
            options.push_str(if is_set { word } else { "" });
        }
        for (word, ..) in
            KERNEL_WORDS.iter().filter(|(word, _, is_known)| *is_known && self.words.contains(word))
        {
            options.push(',');
            options.push_str(word);
        }
        let status = Command::new("fusermount3")
            .args(["-o", &options, "--"])
            .arg(&self.point)
            .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .status()
            .map_err(MountError::NoHelper)?;
        drop(theirs);
        if !status.success() {
            return Err(MountError::Refused);
        }
        receive(&ours).ok_or(MountError::Refused)
    }

    /// The source with what separates options made harmless.
    fn escaped(&self) -> String {
        self.source.replace('\\', "\\\\").replace(',', "\\,")
    }
}

/// The largest block that the kernel takes for such a mount.
const LARGEST_BLOCK: u32 = 4096;

/// The descriptor that comes through a socket.
fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut pieces = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// Detaches what is mounted on `point`. The server ends by itself then, and may still be writing when this returns.
///
/// # Errors
/// `EBUSY` while somebody uses it; `EINVAL` if nothing is mounted there.
pub fn unmount(point: &Path) -> io::Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => {
            let status = Command::new("fusermount3").args(["-u", "--"]).arg(point).status()?;
            if status.success() { Ok(()) } else { Err(Errno::BUSY.into()) }
        }
        done => Ok(done?),
    }
}

/// Takes the mount out of sight at once; it ends when its last user goes.
///
/// # Errors
/// As [`unmount`], but for `EBUSY`.
pub fn detach(point: &Path) -> io::Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        Err(Errno::PERM) => {
            let status =
                Command::new("fusermount3").args(["-u", "-z", "--"]).arg(point).status()?;
            if status.success() { Ok(()) } else { Err(Errno::INVAL.into()) }
        }
        done => Ok(done?),
    }
}
