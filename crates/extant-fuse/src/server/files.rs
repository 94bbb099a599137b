//! Open files: bytes, ranges, syncs.

use extant::{Errno, File, InodeHandle, OpenOptions, RangeChange};

use super::failure::Failure;
use super::{Outcome, Server};
use crate::abi::{self, ACCESS_MODE, DIRECT, InHeader, MAX_BYTES};
use crate::message::{Answer, Arguments};

impl Server {
    pub(super) fn open(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::OpenIn = args.take()?;
        let handle = self.hands(header, 0)?;
        if asked.open_flags & abi::OPEN_KILL_SUIDGID != 0 {
            self.drop_privilege(&handle)?;
        }
        self.put_open(&handle, asked.flags, answer)
    }

    /// Opens an inode and says by which number.
    fn put_open(&self, handle: &InodeHandle, flags: u32, answer: &mut Answer) -> Outcome {
        let (writes, is_direct) = (flags & ACCESS_MODE != 0, flags & DIRECT != 0);
        let options = OpenOptions::new()
            .read(true)
            .write(writes)
            .tells_the_end(flags & APPEND != 0)
            .truncate(writes && flags & TRUNCATE != 0)
            // What it has read the kernel keeps.
            .uncached(true)
            .direct(is_direct);
        let file = handle.open(options)?;
        let writes_through = !self.settings.writeback_cache && !self.settings.synchronous;
        let open_flags = abi::open_flags(flags, writes_through);
        answer.put(&abi::OpenOut { fh: self.files.add(file), open_flags, backing_id: 0 });
        Ok(())
    }

    /// Makes a file and opens it; without a name until a link gives it one, if it `is_named` not.
    pub(super) fn create(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
        is_named: bool,
    ) -> Outcome {
        let asked: abi::CreateIn = args.take()?;
        let (dir, mode) = (self.hands(header, asked.umask)?, mode_of(asked.mode));
        let made = match is_named {
            true => dir.create_file(args.name()?, mode),
            false => dir.create_unnamed(mode),
        };
        let made = made?;
        let entry = self.entry(&made)?;
        answer.put(&entry);
        // There is nothing to be cut off a new file.
        self.put_open(&made, asked.flags & !TRUNCATE, answer)
            .inspect_err(|_| self.nodes.forget(entry.nodeid, 1))
    }

    pub(super) fn read(&self, args: &mut Arguments<'_>, answer: &mut Answer) -> Outcome {
        let asked: abi::ReadIn = args.take()?;
        let file = self.files.get(asked.fh)?;
        answer.fill(length(asked.size), |buffer| read_all(&file, buffer, asked.offset))?;
        Ok(())
    }

    pub(super) fn write(
        &self,
        header: &InHeader,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
    ) -> Outcome {
        let asked: abi::WriteIn = args.take()?;
        let bytes = args.bytes(asked.size)?;
        let file = self.files.get(asked.fh)?;
        // Whoever writes need not be who opened it, whom the engine goes by.
        if asked.write_flags & abi::WRITE_KILL_SUIDGID != 0 && header.uid != 0 {
            self.drop_privilege(file.inode())?;
        }
        let count = match asked.write_flags & abi::WRITE_CACHE != 0 {
            true => file.write_back_at(bytes, asked.offset),
            false => file.write_at(bytes, asked.offset),
        };
        let count = count?;
        // Past its cache the kernel leaves this to the server.
        if asked.flags & DIRECT != 0 {
            match asked.flags & SYNC {
                SYNC => file.sync_all()?,
                0 if !self.settings.synchronous => {}
                _ => file.sync_data()?,
            }
        }
        answer.put(&abi::WriteOut { size: u32::try_from(count).unwrap_or(u32::MAX), padding: 0 });
        Ok(())
    }

    pub(super) fn fsync(&self, args: &mut Arguments<'_>) -> Outcome {
        let asked: abi::FsyncIn = args.take()?;
        let file = self.files.get(asked.fh)?;
        match asked.fsync_flags & abi::FSYNC_DATA != 0 {
            true => file.sync_data().map_err(Failure::from),
            false => file.sync_all().map_err(Failure::from),
        }
    }

    pub(super) fn fsyncdir(&self, id: u64, args: &mut Arguments<'_>) -> Outcome {
        let asked: abi::FsyncIn = args.take()?;
        let dir = self.nodes.get(id)?.open(OpenOptions::new().read(true))?;
        match asked.fsync_flags & abi::FSYNC_DATA != 0 {
            true => dir.sync_data().map_err(Failure::from),
            false => dir.sync_all().map_err(Failure::from),
        }
    }

    pub(super) fn fallocate(&self, args: &mut Arguments<'_>) -> Outcome {
        let asked: abi::FallocateIn = args.take()?;
        let keep_size = asked.mode & KEEP_SIZE != 0;
        let change = match asked.mode & !KEEP_SIZE {
            0 => RangeChange::Allocate { keep_size },
            PUNCH_HOLE if keep_size => RangeChange::PunchHole,
            COLLAPSE if !keep_size => RangeChange::Collapse,
            ZERO => RangeChange::Zero { keep_size },
            INSERT if !keep_size => RangeChange::Insert,
            _ => return Err(Errno::OPNOTSUPP.into()),
        };
        let file = self.files.get(asked.fh)?;
        file.change_range(change, asked.offset, asked.length).map_err(Failure::from)
    }

    pub(super) fn lseek(&self, args: &mut Arguments<'_>, answer: &mut Answer) -> Outcome {
        let asked: abi::LseekIn = args.take()?;
        let file = self.files.get(asked.fh)?;
        let found = match asked.whence {
            SEEK_DATA => file.seek_data(asked.offset),
            SEEK_HOLE => file.seek_hole(asked.offset),
            _ => return Err(Errno::INVAL.into()),
        };
        let offset = found?.ok_or(NO_SUCH_PLACE)?;
        answer.put(&abi::LseekOut { offset });
        Ok(())
    }

    pub(super) fn bmap(&self, id: u64, args: &mut Arguments<'_>, answer: &mut Answer) -> Outcome {
        let asked: abi::BmapIn = args.take()?;
        if asked.blocksize != self.block_size {
            return Err(Errno::INVAL.into());
        }
        let file = self.nodes.get(id)?.open(OpenOptions::new().read(true))?;
        let block = u32::try_from(asked.block).map_err(|_| Errno::INVAL)?;
        let block = file.block_at(block)?.unwrap_or(0);
        answer.put(&abi::BmapOut { block });
        Ok(())
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_all(
    file: &File,
    buffer: &mut [u8],
    offset: u64,
) -> Result<usize, extant::Error> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match file.read_at(&mut buffer[done..], at) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// No request is longer than what was agreed on.
fn length(bytes: u32) -> usize {
    usize::try_from(bytes.min(MAX_BYTES)).unwrap_or(0)
}

pub(super) fn mode_of(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// `ENXIO`: nothing of the kind follows.
const NO_SUCH_PLACE: Errno = Errno(6);
const SYNC: u32 = 0o4_010_000;
const TRUNCATE: u32 = 0o1000;
const APPEND: u32 = 0o2000;
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const COLLAPSE: u32 = 8;
const ZERO: u32 = 0x10;
const INSERT: u32 = 0x20;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;
