//! Copying from file to file without the bytes going through the kernel.
//!
//! Data is copied run by run; holes stay holes where the target has none of its own to lose. A request copies a bounded part,
//! since it keeps a thread and cannot be interrupted: the caller comes back for more.
//!
//! # Source
//! Kernel `fs/fuse/file.c`, `__fuse_copy_file_range`, which holds the target's lock meanwhile; `copy_file_range(2)`.

use extant::{Errno, File, RangeChange};

use super::files::read_all;
use super::{Outcome, Server};
use crate::abi;
use crate::message::{Answer, Arguments};

/// The most that one request copies.
const REQUEST_BYTES: u64 = 64 << 20;
/// The most that is in memory for it.
const PIECE_BYTES: usize = 1 << 20;

impl Server {
    /// Copies a part; the answer has room for 64 bits if `is_long`.
    pub(super) fn copy_range(
        &self,
        args: &mut Arguments<'_>,
        answer: &mut Answer,
        is_long: bool,
    ) -> Outcome {
        let asked: abi::CopyFileRangeIn = args.take()?;
        let (from, to) = (self.files.get(asked.fh_in)?, self.files.get(asked.fh_out)?);
        let size = from.metadata()?.size;
        let len = asked.len.min(REQUEST_BYTES).min(size.saturating_sub(asked.off_in));
        asked.off_out.checked_add(len).ok_or(Errno::FBIG)?;
        let is_one = from.inode().number() == to.inode().number();
        if is_one && asked.off_in.abs_diff(asked.off_out) < len {
            return Err(Errno::INVAL.into());
        }
        let mut copy = Copy { from: &from, to: &to, buffer: Vec::new() };
        let mut done = 0;
        while done < len {
            match copy.piece(asked.off_in + done, asked.off_out + done, len - done) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        match is_long {
            true => answer.put(&abi::CopyFileRangeOut { bytes_copied: done }),
            false => {
                let size = u32::try_from(done).unwrap_or(u32::MAX);
                answer.put(&abi::WriteOut { size, padding: 0 });
            }
        }
        Ok(())
    }
}

struct Copy<'a> {
    from: &'a File,
    to: &'a File,
    buffer: Vec<u8>,
}

impl Copy<'_> {
    /// Copies up to `len` bytes that are all data or all hole, and says how many.
    fn piece(&mut self, at: u64, target: u64, len: u64) -> Result<u64, extant::Error> {
        let data = self.from.seek_data(at)?.unwrap_or(u64::MAX);
        if data > at {
            let len = len.min(data - at);
            self.hole(target, len)?;
            return Ok(len);
        }
        let end = self.from.seek_hole(at)?.unwrap_or(u64::MAX);
        let len = usize::try_from(len.min(end - at)).unwrap_or(usize::MAX).min(PIECE_BYTES);
        self.buffer.resize(len, 0);
        let count = read_all(self.from, &mut self.buffer, at)?;
        let written = match count {
            0 => 0, // cut meanwhile
            count => self.to.write_at(&self.buffer[..count], target)?,
        };
        Ok(u64::try_from(written).unwrap_or(u64::MAX))
    }

    /// Makes `len` bytes of the target read as zeros. Space that is there stays, as it would if zeros were written.
    fn hole(&mut self, target: u64, len: u64) -> Result<(), extant::Error> {
        let (end, size) = (target + len, self.to.metadata()?.size);
        let first = if target < size { self.to.seek_data(target)? } else { None };
        if let Some(first) = first.filter(|first| *first < end) {
            let zero = RangeChange::Zero { keep_size: true };
            let stop = end.min(size);
            match self.to.change_range(zero, first, stop - first) {
                Err(extant::Error::NotSupported(_)) => self.zeros(first, stop)?,
                done => done?,
            }
        }
        if end > size { self.to.set_len(end) } else { Ok(()) }
    }

    /// Writes zeros, where a file's map knows no other way.
    fn zeros(&mut self, mut at: u64, end: u64) -> Result<(), extant::Error> {
        self.buffer.clear();
        self.buffer.resize(PIECE_BYTES, 0);
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let count = self.to.write_at(&self.buffer[..len], at)?;
            at += u64::try_from(count).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}
