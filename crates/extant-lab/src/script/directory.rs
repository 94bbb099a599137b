//! Scripts on a directory of the running system: a kernel mount, or a source for `mke2fs -d`.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs as sys;

use super::{Errno, Node, Operation, Target, pattern};

/// A directory that stands for the root.
#[derive(Debug)]
pub struct DirectoryTarget {
    root: PathBuf,
    held: Vec<fs::File>,
}

impl DirectoryTarget {
    /// Everything happens below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), held: Vec::new() }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    fn try_apply(&mut self, operation: &Operation) -> std::io::Result<()> {
        use Operation::{
            Chmod, Chown, Create, Fsync, Hold, Link, Mkdir, Mknod, Release, RemoveXattr, Rename,
            Rmdir, SetTimes, SetXattr, Symlink, Sync, Tick, Truncate, Unlink, Write,
        };
        match operation {
            Create { path, mode } => {
                let path = self.at(path);
                OpenOptions::new().write(true).create_new(true).open(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode((*mode).into()))?;
            }
            Write { path, offset, len, tag } => {
                let file = OpenOptions::new().write(true).open(self.at(path))?;
                file.write_all_at(&pattern(*tag, *offset, *len), *offset)?;
            }
            Truncate { path, size } => {
                OpenOptions::new().write(true).open(self.at(path))?.set_len(*size)?;
            }
            Mkdir { path, mode } => {
                let path = self.at(path);
                fs::DirBuilder::new().mode(0o700).create(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode((*mode).into()))?;
            }
            Symlink { target, path } => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), self.at(path))?;
            }
            Link { original, path } => fs::hard_link(self.at(original), self.at(path))?,
            Mknod { path, node, mode } => self.make_node(path, *node, *mode)?,
            Rename { from, to } => fs::rename(self.at(from), self.at(to))?,
            Unlink { path } => fs::remove_file(self.at(path))?,
            Rmdir { path } => fs::remove_dir(self.at(path))?,
            SetXattr { path, name, value } => {
                sys::lsetxattr(self.at(path), name.as_str(), value, sys::XattrFlags::empty())?;
            }
            RemoveXattr { path, name } => sys::lremovexattr(self.at(path), name.as_str())?,
            Chmod { path, mode } => {
                fs::set_permissions(self.at(path), fs::Permissions::from_mode((*mode).into()))?;
            }
            Chown { path, uid, gid } => {
                std::os::unix::fs::lchown(self.at(path), Some(*uid), Some(*gid))?;
            }
            SetTimes { path, accessed, modified } => {
                let time = |(seconds, nanoseconds): (i64, u32)| sys::Timespec {
                    tv_sec: seconds,
                    tv_nsec: nanoseconds.into(),
                };
                let times = sys::Timestamps {
                    last_access: time(*accessed),
                    last_modification: time(*modified),
                };
                let flags = sys::AtFlags::SYMLINK_NOFOLLOW;
                sys::utimensat(sys::CWD, self.at(path), &times, flags)?;
            }
            Hold { path } => self.held.push(fs::File::open(self.at(path))?),
            Release => self.held.clear(),
            Fsync { path } => {
                let flags = sys::OFlags::NONBLOCK.bits().cast_signed();
                OpenOptions::new()
                    .read(true)
                    .custom_flags(flags)
                    .open(self.at(path))?
                    .sync_all()?;
            }
            Sync => sys::syncfs(fs::File::open(&self.root)?)?,
            Tick { .. } => {}
        }
        Ok(())
    }

    fn make_node(&self, path: &[u8], node: Node, mode: u16) -> std::io::Result<()> {
        let (kind, device) = match node {
            Node::Character(major, minor) => {
                (sys::FileType::CharacterDevice, sys::makedev(major, minor))
            }
            Node::Block(major, minor) => (sys::FileType::BlockDevice, sys::makedev(major, minor)),
            Node::Fifo => (sys::FileType::Fifo, 0),
            Node::Socket => (sys::FileType::Socket, 0),
        };
        let path = self.at(path);
        sys::mknodat(sys::CWD, &path, kind, sys::Mode::from_bits_retain(mode.into()), device)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode.into()))
    }
}

impl Target for DirectoryTarget {
    fn apply(&mut self, operation: &Operation) -> Result<(), Errno> {
        let done = self.try_apply(operation);
        done.map_err(|error| Errno(error.raw_os_error().expect("the system reports an errno")))
    }
}
