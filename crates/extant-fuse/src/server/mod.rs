//! What each request does to the volume. Knows of no device: a request is bytes, and so is its answer.
//!
//! | file | requests |
//! | --- | --- |
//! | `mod.rs` | the start, the end, and who serves what |
//! | `attributes.rs` | attributes, extended attributes, the volume's figures |
//! | `files.rs` | open files: bytes, ranges, syncs |
//! | `copy.rs` | copies from file to file |
//! | `names.rs` | names in directories, and listings |
//! | `ioctl.rs` | flags, projects, the label, discarding |
//! | `private.rs` | attributes by which a mount tells of itself |
//! | `failure.rs` | why a request is refused |
//! | `damage.rs` | what an error does to the mount |
//! | `owners.rs` | users that change places |

mod attributes;
mod copy;
mod damage;
mod failure;
mod files;
mod ioctl;
mod names;
mod owners;
mod private;

pub use extant::OnError;
pub use owners::{Owners, Swap};

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use extant::{Caller, Errno, Error, Filesystem};

use self::failure::Failure;
use crate::abi::{self, InHeader, opcode};
use crate::alarm::Alarm;
use crate::backend::Backend;
use crate::message::{Answer, Arguments};
use crate::nodes::{Nodes, OpenFiles};

/// How the server answers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seconds for which the kernel may believe what it was told. Nobody else changes the volume, so there is no need to ask.
    pub valid_seconds: u64,
    /// The kernel keeps dirty pages (`-o writeback`): faster in small writes, but a full volume is told at `fsync` or `close`.
    pub writeback_cache: bool,
    /// Every write is durable when it returns (`-o sync`).
    pub synchronous: bool,
    /// Nothing is written.
    pub read_only: bool,
    /// Who has mounted it: besides root the one who may set the label and discard free space.
    pub master: u32,
    /// Users and groups that change places.
    pub owners: Owners,
    /// What an error does; `None`: what the superblock says.
    pub on_error: Option<OnError>,
}

/// A volume that is served.
#[derive(Debug)]
pub struct Server {
    filesystem: Filesystem,
    nodes: Nodes,
    files: OpenFiles,
    settings: Settings,
    block_size: u32,
    on_error: OnError,
    alarm: Arc<Alarm>,
    /// The first error that was found, in words.
    found: OnceLock<String>,
}

/// What a request comes to: why not, or the answer as it was put together.
type Outcome = Result<(), Failure>;

impl Server {
    /// Serves a volume.
    ///
    /// # Errors
    /// Of reading its root.
    pub fn new(filesystem: Filesystem, settings: Settings) -> Result<Self, Error> {
        let nodes = Nodes::new(filesystem.root()?);
        let block_size = filesystem.statfs().block_size;
        let on_error = settings.on_error.unwrap_or_else(|| filesystem.on_error());
        Ok(Self {
            filesystem,
            nodes,
            files: OpenFiles::default(),
            settings,
            block_size,
            on_error,
            alarm: Arc::default(),
            found: OnceLock::new(),
        })
    }

    /// The same with the alarm that wakes what the volume was mounted with ([`extant::MountOptions::waker`]).
    #[must_use]
    pub fn with_alarm(self, alarm: Arc<Alarm>) -> Self {
        Self { alarm, ..self }
    }

    /// The volume.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    fn dispatch(&self, header: &InHeader, mut args: Arguments<'_>, answer: &mut Answer) -> Outcome {
        let (args, id) = (&mut args, header.nodeid);
        match header.opcode {
            opcode::INIT => self.init(args, answer),
            opcode::DESTROY => self.destroy(),
            opcode::STATFS => self.statfs(answer),
            opcode::SYNCFS => self.filesystem.sync_all().map_err(Failure::from),

            opcode::LOOKUP => self.lookup(id, args, answer),
            opcode::MKNOD => self.mknod(header, args, answer),
            opcode::MKDIR => self.mkdir(header, args, answer),
            opcode::SYMLINK => self.symlink(header, args, answer),
            opcode::LINK => self.link(header, args, answer),
            opcode::UNLINK => {
                self.hands(header, 0)?.remove_file(args.name()?).map_err(Failure::from)
            }
            opcode::RMDIR => self.hands(header, 0)?.remove_dir(args.name()?).map_err(Failure::from),
            opcode::RENAME => {
                let target = args.take::<abi::RenameIn>()?.newdir;
                self.rename(header, target, 0, args)
            }
            opcode::RENAME2 => {
                let abi::Rename2In { newdir, flags, .. } = args.take()?;
                self.rename(header, newdir, flags, args)
            }
            opcode::READLINK => self.read_link(id, answer),
            opcode::READDIR => self.read_dir(id, args, answer, false),
            opcode::READDIRPLUS => self.read_dir(id, args, answer, true),

            opcode::GETATTR => self.getattr(id, answer),
            opcode::STATX => self.statx(id, answer),
            opcode::SETATTR => self.setattr(header, args, answer),
            opcode::GETXATTR => self.getxattr(id, args, answer),
            opcode::LISTXATTR => self.listxattr(id, args, answer),
            opcode::SETXATTR => self.setxattr(header, args),
            opcode::REMOVEXATTR => {
                self.hands(header, 0)?.remove_xattr(args.name()?).map_err(Failure::from)
            }

            opcode::OPEN => self.open(header, args, answer),
            opcode::CREATE => self.create(header, args, answer, true),
            opcode::TMPFILE => self.create(header, args, answer, false),
            opcode::RELEASE => {
                self.files.remove(args.take::<abi::ReleaseIn>()?.fh);
                Ok(())
            }
            opcode::READ => self.read(args, answer),
            opcode::WRITE => self.write(header, args, answer),
            opcode::FSYNC => self.fsync(args),
            opcode::FSYNCDIR => self.fsyncdir(id, args),
            opcode::FALLOCATE => self.fallocate(args),
            opcode::LSEEK => self.lseek(args, answer),
            opcode::COPY_FILE_RANGE => self.copy_range(args, answer, false),
            opcode::COPY_FILE_RANGE_64 => self.copy_range(args, answer, true),
            opcode::IOCTL => self.ioctl(header, args, answer),
            opcode::BMAP => self.bmap(id, args, answer),
            // Among them FLUSH and OPENDIR: once refused, the kernel does not ask again.
            _ => Err(NOT_IMPLEMENTED.into()),
        }
    }

    /// The inode that a request is about, in the hands of whoever made it.
    fn hands(&self, header: &InHeader, umask: u32) -> Result<extant::InodeHandle, Failure> {
        let mut caller = caller(header, umask);
        caller.uid = self.settings.owners.users.apply(caller.uid);
        caller.gid = self.settings.owners.groups.apply(caller.gid);
        Ok(self.nodes.get(header.nodeid)?.for_caller(&caller))
    }

    /// Agrees with the kernel on what both can do.
    fn init(&self, args: &mut Arguments<'_>, answer: &mut Answer) -> Outcome {
        let asked: abi::InitIn = args.take()?;
        answer.put(&abi::agree(&asked, self.settings.writeback_cache));
        Ok(())
    }

    /// Closes what is open, and makes all durable; the volume is to be unmounted next.
    ///
    /// # Errors
    /// Of writing.
    pub fn close(&self) -> Result<(), Error> {
        self.files.clear();
        self.nodes.clear();
        self.filesystem.sync_all()
    }

    /// The kernel's last word, for which whoever unmounts waits: the image is whole when it is answered.
    fn destroy(&self) -> Outcome {
        let closed = self.close();
        self.filesystem.clone().unmount().and(closed).map_err(Failure::from)
    }

    /// Unmounts the volume, when nothing is asked any more.
    ///
    /// # Errors
    /// Of writing.
    pub fn finish(self) -> Result<(), Error> {
        let closed = self.close();
        let Self { filesystem, nodes, files, .. } = self;
        drop((nodes, files));
        filesystem.unmount().and(closed)
    }
}

impl Backend for Server {
    fn answer(
        &self,
        header: &InHeader,
        args: Arguments<'_>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        self.dispatch(header, args, answer).map_err(|failure| {
            if let Failure::Volume(error @ Error::Corrupt(_)) = &failure {
                self.found_damage(error);
            }
            failure.errno()
        })
    }

    fn forget(&self, id: u64, times: u64) {
        self.nodes.forget(id, times);
    }

    fn stop(&self) {
        self.filesystem.shut_down();
    }

    fn tick(&self) -> Duration {
        Server::tick(self)
    }

    fn ticks_in(&self, clock: Thread) {
        self.alarm.set(clock);
    }
}

/// Whoever made a request; the kernel has checked that he may.
fn caller(header: &InHeader, umask: u32) -> Caller {
    Caller {
        uid: header.uid,
        gid: header.gid,
        groups: Vec::new(),
        umask: u16::try_from(umask & 0o777).unwrap_or(0),
        privileged: header.uid == 0,
        checked: true,
    }
}

const NOT_IMPLEMENTED: Errno = Errno(38);
