//! What `ioctl(2)` asks for: flags, projects, generations, the label, and discarding free space.
//!
//! The kernel hands on what the number itself says the size of, and asks for flags and projects by numbers and sizes of its own.
//! `FS_IOC_FIEMAP`, `FS_IOC_GETFSUUID` and `FIFREEZE` do not come this far: see `private` for the first two.
//!
//! # Source
//! Kernel `fs/fuse/ioctl.c`, `fs/ext4/ioctl.c`; `include/uapi/linux/fs.h`.

use extant::{Errno, InodeFlags, SetAttributes};
use zerocopy::FromBytes;

use super::failure::Failure;
use super::{Outcome, Server};
use crate::abi::{self, FsTrimRange, FsXattr, InHeader};
use crate::message::{Answer, Arguments};

impl Server {
    pub(super) fn ioctl(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::IoctlIn = args.take()?;
        let input = args.bytes(asked.in_size)?;
        answer.put(&abi::IoctlOut::default());
        match asked.cmd {
            GET_FLAGS => answer.put(&self.flags_of(header.nodeid)?),
            SET_FLAGS => self.set_flags(header, word(input)?, answer)?,
            GET_XATTR => answer.put(&self.extended_flags_of(header.nodeid)?),
            SET_XATTR => self.set_extended_flags(header, input, answer)?,
            GET_VERSION | GET_VERSION_EXT4 => {
                answer.put(&self.nodes.get(header.nodeid)?.metadata()?.generation);
            }
            GET_LABEL => {
                let mut bytes = [0; LABEL_ROOM];
                let label = self.filesystem.label()?;
                bytes[..label.len()].copy_from_slice(&label);
                answer.put_bytes(&bytes);
            }
            SET_LABEL => {
                self.require_master(header)?;
                let label = input.split(|byte| *byte == 0).next().unwrap_or_default();
                self.filesystem.set_label(label)?;
            }
            TRIM => {
                self.require_master(header)?;
                let range = FsTrimRange::read_from_bytes(input).map_err(|_| Errno::INVAL)?;
                let bytes = range.start..range.start.saturating_add(range.len);
                let len = self.filesystem.trim(bytes, range.minlen)?;
                answer.put(&FsTrimRange { len, ..range });
            }
            // Among them the setting of generations: the kernel tells inodes apart by them while it knows them. ext4 refuses it
            // on volumes with checksums.
            _ => return Err(NO_SUCH_IOCTL.into()),
        }
        Ok(())
    }

    /// Whether whoever asks is root, or has mounted the volume.
    fn require_master(&self, header: &InHeader) -> Outcome {
        let is_master = header.uid == 0 || header.uid == self.settings.master;
        if is_master { Ok(()) } else { Err(Errno::PERM.into()) }
    }

    /// Source: kernel `ext4_fileattr_get`.
    fn flags_of(&self, id: u64) -> Result<u32, Failure> {
        let found = self.nodes.get(id)?.metadata()?;
        let mut flags = found.flags.bits() & VISIBLE;
        if found.is_file() {
            flags &= !InodeFlags::PROJINHERIT.bits();
        }
        Ok(flags)
    }

    fn set_flags(&self, header: &InHeader, flags: u32, answer: &mut Answer) -> Outcome {
        if flags & !VISIBLE != 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        let flags = Some(InodeFlags::from_bits_truncate(flags));
        self.change_flags(header, SetAttributes { flags, ..SetAttributes::default() }, answer)
    }

    fn extended_flags_of(&self, id: u64) -> Result<FsXattr, Failure> {
        let flags = InodeFlags::from_bits_truncate(self.flags_of(id)?);
        let projid = self.nodes.get(id)?.metadata()?.project;
        let set = EXTENDED.iter().filter(|(flag, _)| flags.contains(*flag));
        let xflags = set.fold(0, |sum, (_, xflag)| sum | xflag);
        Ok(FsXattr { xflags, projid, ..FsXattr::default() })
    }

    /// Source: kernel `fileattr_fill_xflags`, `vfs_fileattr_set`: flags that these cannot say stay.
    fn set_extended_flags(&self, header: &InHeader, input: &[u8], answer: &mut Answer) -> Outcome {
        let asked = FsXattr::read_from_bytes(input).map_err(|_| Errno::INVAL)?;
        let mut flags = InodeFlags::from_bits_truncate(self.flags_of(header.nodeid)?);
        let mut unknown = asked.xflags;
        for (flag, xflag) in EXTENDED {
            flags.set(flag, asked.xflags & xflag != 0);
            unknown &= !xflag;
        }
        if unknown != 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        let (flags, project) = (Some(flags), Some(asked.projid));
        self.change_flags(
            header,
            SetAttributes { flags, project, ..SetAttributes::default() },
            answer,
        )
    }

    /// Changes flags; the kernel takes the time of the change from what it was told before, unless it is told to forget that.
    fn change_flags(
        &self,
        header: &InHeader,
        change: SetAttributes,
        answer: &mut Answer,
    ) -> Outcome {
        self.hands(header, 0)?.set_attributes(&change)?;
        answer.notify(header.nodeid);
        Ok(())
    }
}

fn word(input: &[u8]) -> Result<u32, Failure> {
    let (word, _) = u32::read_from_prefix(input).map_err(|_| Errno::INVAL)?;
    Ok(word)
}

/// Flags and what `FS_IOC_FSSETXATTR` calls them.
const EXTENDED: [(InodeFlags, u32); 7] = [
    (InodeFlags::IMMUTABLE, 0x8),
    (InodeFlags::APPEND, 0x10),
    (InodeFlags::SYNC, 0x20),
    (InodeFlags::NOATIME, 0x40),
    (InodeFlags::NODUMP, 0x80),
    (InodeFlags::PROJINHERIT, 0x200),
    (InodeFlags::DAX, 0x8000),
];

/// Kernel `EXT4_FL_USER_VISIBLE`.
const VISIBLE: u32 = 0x725B_DFFF;
const LABEL_ROOM: usize = 256;
const NO_SUCH_IOCTL: Errno = Errno(25);

const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_VERSION: u32 = 0x8008_7601;
const GET_VERSION_EXT4: u32 = 0x8008_6603;
const GET_XATTR: u32 = 0x801C_581F;
const SET_XATTR: u32 = 0x401C_5820;
const GET_LABEL: u32 = 0x8100_9431;
const SET_LABEL: u32 = 0x4100_9432;
const TRIM: u32 = 0xC018_5879;
