//! Attributes, extended attributes, and the volume's figures.

use std::borrow::Cow;
use std::time::SystemTime;

use extant::report::{Metadata, SetAttributes};
use extant::{Errno, InodeFlags, InodeHandle, OpenOptions, SetHow, Timestamp};

use super::failure::Failure;
use super::{Outcome, Owners, Server};
use crate::abi::{self, InHeader, Set};
use crate::message::{Answer, Arguments};

impl Server {
    pub(super) fn statfs(&self, answer: &mut Answer) -> Outcome {
        let sizes = self.filesystem.statfs();
        answer.put(&abi::StatfsOut {
            blocks: sizes.blocks,
            bfree: sizes.free_blocks,
            bavail: sizes.available_blocks,
            files: sizes.inodes,
            ffree: sizes.free_inodes,
            bsize: sizes.block_size,
            frsize: sizes.block_size,
            namelen: sizes.name_bytes,
            ..Default::default()
        });
        Ok(())
    }

    pub(super) fn getattr(&self, id: u64, answer: &mut Answer) -> Outcome {
        let handle = self.nodes.get(id)?;
        self.put_attributes(&handle, answer)
    }

    fn put_attributes(&self, handle: &InodeHandle, answer: &mut Answer) -> Outcome {
        let attr = self.attr(&handle.metadata()?);
        let attr_valid = self.settings.valid_seconds;
        answer.put(&abi::AttrOut { attr_valid, attr_valid_nsec: 0, dummy: 0, attr });
        Ok(())
    }

    pub(super) fn attr(&self, found: &Metadata) -> abi::Attr {
        abi::Attr {
            ino: found.inode.get().into(),
            size: found.size,
            blocks: found.blocks,
            atime: found.accessed.seconds.cast_unsigned(),
            mtime: found.modified.seconds.cast_unsigned(),
            ctime: found.changed.seconds.cast_unsigned(),
            atimensec: found.accessed.nanoseconds,
            mtimensec: found.modified.nanoseconds,
            ctimensec: found.changed.nanoseconds,
            mode: found.mode.into(),
            nlink: found.links,
            uid: self.settings.owners.users.apply(found.uid),
            gid: self.settings.owners.groups.apply(found.gid),
            rdev: device_number(found),
            blksize: self.block_size,
            flags: 0,
        }
    }

    pub(super) fn statx(&self, id: u64, answer: &mut Answer) -> Outcome {
        let found = self.nodes.get(id)?.metadata()?;
        let time = |time: Timestamp| abi::SxTime {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds,
            reserved: 0,
        };
        let (rdev_major, rdev_minor) = found.device.unwrap_or_default();
        let mut stat = abi::Statx {
            mask: BASIC_STATS,
            blksize: self.block_size,
            nlink: found.links,
            uid: self.settings.owners.users.apply(found.uid),
            gid: self.settings.owners.groups.apply(found.gid),
            mode: found.mode,
            ino: found.inode.get().into(),
            size: found.size,
            blocks: found.blocks,
            atime: time(found.accessed),
            ctime: time(found.changed),
            mtime: time(found.modified),
            rdev_major,
            rdev_minor,
            attributes_mask: STATX_FLAGS.iter().fold(0, |sum, (_, bit)| sum | bit),
            ..Default::default()
        };
        for (flag, bit) in STATX_FLAGS {
            stat.attributes |= if found.flags.contains(flag) { bit } else { 0 };
        }
        if let Some(created) = found.created {
            stat.mask |= BIRTH_TIME;
            stat.btime = time(created);
        }
        let attr_valid = self.settings.valid_seconds;
        answer.put(&abi::StatxOut {
            attr_valid,
            attr_valid_nsec: 0,
            flags: 0,
            spare: [0; 2],
            stat,
        });
        Ok(())
    }

    pub(super) fn setattr(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::SetattrIn = args.take()?;
        let valid = Set::from_bits_truncate(asked.valid);
        let handle = self.hands(header, 0)?;
        if valid.contains(Set::SIZE) {
            if valid.contains(Set::FH) {
                self.files.get(asked.fh)?.set_len(asked.size)?;
            } else {
                let file = handle.open(OpenOptions::new().write(true))?;
                file.set_len(asked.size)?;
            }
        }
        let pick = |flag, value| valid.contains(flag).then_some(value);
        let time = |flag, now, seconds: u64, nanoseconds| match valid {
            valid if valid.contains(now) => Some(current_time()),
            valid if valid.contains(flag) => {
                Some(Timestamp { seconds: seconds.cast_signed(), nanoseconds })
            }
            _ => None,
        };
        let mut mode =
            pick(Set::MODE, asked.mode).and_then(|mode| u16::try_from(mode & 0o7777).ok());
        if mode.is_none() && valid.contains(Set::KILL_SUIDGID) {
            mode = without_privilege(handle.metadata()?.mode);
        }
        let change = SetAttributes {
            mode,
            uid: pick(Set::UID, asked.uid).map(|uid| self.settings.owners.users.apply(uid)),
            gid: pick(Set::GID, asked.gid).map(|gid| self.settings.owners.groups.apply(gid)),
            accessed: time(Set::ATIME, Set::ATIME_NOW, asked.atime, asked.atimensec),
            modified: time(Set::MTIME, Set::MTIME_NOW, asked.mtime, asked.mtimensec),
            now: valid.intersects(Set::CTIME | Set::ATIME_NOW | Set::MTIME_NOW),
            ..SetAttributes::default()
        };
        if change.mode.is_some()
            || change.uid.is_some()
            || change.gid.is_some()
            || change.accessed.is_some()
            || change.modified.is_some()
        {
            handle.set_attributes(&change)?;
        }
        self.put_attributes(&handle, answer)
    }

    /// Takes the set-user bit from a file, and the set-group bit if the group may execute it.
    pub(super) fn drop_privilege(&self, handle: &InodeHandle) -> Outcome {
        match without_privilege(handle.metadata()?.mode) {
            None => Ok(()),
            mode => {
                let change = SetAttributes { mode, ..SetAttributes::default() };
                handle.set_attributes(&change).map_err(Failure::from)
            }
        }
    }

    pub(super) fn getxattr(
        &self,
        id: u64,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::GetxattrIn = args.take()?;
        let (handle, name) = (self.nodes.get(id)?, args.name()?);
        if let Some(value) = self.private_attribute(&handle, name)? {
            return put_sized(asked.size, value.as_bytes(), answer);
        }
        let mut value = handle.xattr(name)?;
        self.settings.owners.apply_to_list(name, &mut value);
        put_sized(asked.size, &value, answer)
    }

    pub(super) fn listxattr(
        &self,
        id: u64,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::GetxattrIn = args.take()?;
        let mut names = Vec::new();
        for name in self.nodes.get(id)?.list_xattrs()? {
            names.extend_from_slice(&name);
            names.push(0);
        }
        put_sized(asked.size, &names, answer)
    }

    pub(super) fn setxattr(&self, header: &InHeader, args: &mut Arguments<'_>) -> Outcome {
        let asked: abi::SetxattrIn = args.take()?;
        let (name, value) = (args.name()?, args.bytes(asked.size)?);
        let how = match asked.flags {
            0 => SetHow::Any,
            1 => SetHow::Create,
            2 => SetHow::Replace,
            _ => return Err(Errno::INVAL.into()),
        };
        let handle = self.hands(header, 0)?;
        let mut value = Cow::Borrowed(value);
        if self.settings.owners != Owners::default() {
            self.settings.owners.apply_to_list(name, value.to_mut());
        }
        handle.set_xattr_if(how, name, value)?;
        if asked.setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0 {
            let mode = handle.metadata()?.mode & 0o5777;
            let change = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
            handle.set_attributes(&change)?;
        }
        Ok(())
    }
}

/// A value for whoever has room for `room` bytes; zero asks how much room it takes.
fn put_sized(room: u32, value: &[u8], answer: &mut Answer) -> Outcome {
    let len = u32::try_from(value.len()).map_err(|_| Errno::RANGE)?;
    match room {
        0 => answer.put(&abi::GetxattrIn { size: len, padding: 0 }),
        room if room < len => return Err(Errno::RANGE.into()),
        _ => answer.put_bytes(value),
    }
    Ok(())
}

/// What a mode becomes without set-user bit, and without set-group bit if the group may execute; `None` if it stays.
///
/// Source: kernel `setattr_should_drop_suidgid`.
fn without_privilege(mode: u16) -> Option<u16> {
    let mut kept = mode & !0o4000;
    if mode & 0o2010 == 0o2010 {
        kept &= !0o2000;
    }
    (kept != mode).then_some(kept & 0o7777)
}

/// A device's number in the protocol's form.
///
/// Source: kernel `new_encode_dev`.
fn device_number(found: &Metadata) -> u32 {
    let (major, minor) = found.device.unwrap_or_default();
    minor & 0xFF | major << 8 | (minor & !0xFF) << 12
}

fn current_time() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

/// `STATX_BASIC_STATS`.
const BASIC_STATS: u32 = 0x7FF;
/// `STATX_BTIME`.
const BIRTH_TIME: u32 = 0x800;
/// Flags and what `statx` calls them; Linux 6.18 drops these on their way.
const STATX_FLAGS: [(InodeFlags, u64); 6] = [
    (InodeFlags::IMMUTABLE, 0x10),
    (InodeFlags::APPEND, 0x20),
    (InodeFlags::NODUMP, 0x40),
    (InodeFlags::ENCRYPT, 0x800),
    (InodeFlags::VERITY, 0x10_0000),
    (InodeFlags::DAX, 0x20_0000),
];
