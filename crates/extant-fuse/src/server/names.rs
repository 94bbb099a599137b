//! Names in directories, and listings.

use std::ops::ControlFlow;

use extant::namespace::{DirCursor, NodeKind, RenameFlags};
use extant::{Errno, FileType, InodeHandle};

use super::failure::Failure;
use super::files::mode_of;
use super::{Outcome, Server};
use crate::abi::{self, InHeader};
use crate::message::{Answer, Arguments};

impl Server {
    /// Tells the kernel of an inode once more.
    pub(super) fn entry(&self, handle: &InodeHandle) -> Result<abi::EntryOut, Failure> {
        let found = handle.metadata()?;
        let valid = self.settings.valid_seconds;
        Ok(abi::EntryOut {
            nodeid: self.nodes.tell(handle),
            generation: found.generation.into(),
            entry_valid: valid,
            attr_valid: valid,
            entry_valid_nsec: 0,
            attr_valid_nsec: 0,
            attr: self.attr(&found),
        })
    }

    fn put_entry(&self, handle: &InodeHandle, answer: &mut Answer) -> Outcome {
        answer.put(&self.entry(handle)?);
        Ok(())
    }

    pub(super) fn lookup(&self, id: u64, args: &mut Arguments<'_>, answer: &mut Answer) -> Outcome {
        match self.nodes.get(id)?.lookup(args.name()?) {
            Ok(found) => self.put_entry(&found, answer),
            Err(extant::Error::NotFound) => {
                // That there is none may be remembered too.
                let entry_valid = self.settings.valid_seconds;
                answer.put(&abi::EntryOut { entry_valid, ..Default::default() });
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn mknod(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::MknodIn = args.take()?;
        let minor = asked.rdev & 0xFF | asked.rdev >> 12 & !0xFF;
        let device = (asked.rdev >> 8 & 0xFFF, minor);
        let kind = match asked.mode & 0o170_000 {
            0 | 0o100_000 => NodeKind::Regular,
            0o010_000 => NodeKind::Fifo,
            0o140_000 => NodeKind::Socket,
            0o020_000 => NodeKind::CharacterDevice(device.0, device.1),
            0o060_000 => NodeKind::BlockDevice(device.0, device.1),
            _ => return Err(Errno::INVAL.into()),
        };
        let dir = self.hands(header, asked.umask)?;
        let made = dir.mknod(args.name()?, kind, mode_of(asked.mode))?;
        self.put_entry(&made, answer)
    }

    pub(super) fn mkdir(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::MkdirIn = args.take()?;
        let dir = self.hands(header, asked.umask)?;
        let made = dir.create_dir(args.name()?, mode_of(asked.mode))?;
        self.put_entry(&made, answer)
    }

    pub(super) fn symlink(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let (name, target) = (args.name()?, args.name()?);
        let made = self.hands(header, 0)?.symlink(target, name)?;
        self.put_entry(&made, answer)
    }

    pub(super) fn link(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let original = self.nodes.get(args.take::<abi::LinkIn>()?.oldnodeid)?;
        self.hands(header, 0)?.hard_link(&original, args.name()?)?;
        self.put_entry(&original, answer)
    }

    pub(super) fn rename(
        &self,
        header: &InHeader,
        target: u64,
        flags: u32,
        args: &mut Arguments<'_>,
    ) -> Outcome {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let (name, new_name) = (args.name()?, args.name()?);
        let target = self.nodes.get(target)?;
        self.hands(header, 0)?.rename(name, &target, new_name, flags).map_err(Failure::from)
    }

    pub(super) fn read_link(&self, id: u64, answer: &mut Answer) -> Outcome {
        answer.put_bytes(&self.nodes.get(id)?.read_link()?);
        Ok(())
    }

    /// A part of a listing, as long as the kernel has room for; with the inodes behind the names, if it wants them.
    pub(super) fn read_dir(
        &self,
        id: u64,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
        with_inodes: bool,
    ) -> Outcome {
        let asked: abi::ReadIn = args.take()?;
        let dir = self.nodes.get(id)?;
        let room = usize::try_from(asked.size).unwrap_or(0);
        let names = self.names(&dir, asked.offset, room, with_inodes)?;
        for name in names {
            if with_inodes {
                let is_dots = matches!(&name.bytes[..], b"." | b"..");
                // The kernel wants no inode of the dots, and asks again for one that cannot be read.
                let found = (!is_dots).then(|| dir.lookup(&name.bytes).ok()).flatten();
                let entry = found.and_then(|found| self.entry(&found).ok()).unwrap_or_default();
                answer.put(&entry);
            }
            answer.put(&name.head);
            answer.put_bytes(&name.bytes);
            answer.put_bytes(&[0; 8][..padding(name.bytes.len())]);
        }
        Ok(())
    }

    /// The names that fit. Where to go on after a name is behind its position, so that whoever comes back comes to an end;
    /// names of one hash share a position, so a part does not end between them unless it must.
    fn names(
        &self,
        dir: &InodeHandle,
        position: u64,
        room: usize,
        with_inodes: bool,
    ) -> Result<Vec<Name>, Failure> {
        let head = if with_inodes { size_of::<abi::EntryOut>() } else { 0 };
        let (mut names, mut used, mut cut) = (Vec::<Name>::new(), 0, None);
        dir.list(DirCursor::at(position), &mut |listed| {
            let len = listed.name.len();
            used += head + size_of::<abi::Dirent>() + len + padding(len);
            let off = listed.next.position + u64::from(listed.next.skip > 0);
            if used > room {
                cut = Some(off).filter(|_| listed.next.skip > 1);
                return ControlFlow::Break(());
            }
            names.push(Name {
                head: abi::Dirent {
                    ino: listed.inode.get().into(),
                    off,
                    namelen: u32::try_from(len).unwrap_or(0),
                    kind: listed.file_type.map_or(0, kind),
                },
                bytes: listed.name.to_vec(),
            });
            ControlFlow::Continue(())
        })?;
        let whole = names.iter().position(|name| Some(name.head.off) == cut);
        if let Some(whole) = whole.filter(|whole| *whole > 0) {
            names.truncate(whole);
        }
        Ok(names)
    }
}

/// A name of a listing.
struct Name {
    head: abi::Dirent,
    bytes: Vec<u8>,
}

/// Bytes that follow a name so that the next one is aligned.
const fn padding(len: usize) -> usize {
    len.next_multiple_of(8) - len
}

/// A type as `d_type` has it.
const fn kind(file_type: FileType) -> u32 {
    match file_type {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::Regular => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
    }
}
