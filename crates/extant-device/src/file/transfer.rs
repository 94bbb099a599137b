//! Moving bytes: vectored positioned calls over runs of requests, and ranges of zeros.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};

use alloc::vec::Vec;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pread, preadv, pwritev, retry_on_intr};

use super::io_error;
use crate::cast::{index, u64_from};
use crate::error::DeviceError;
use crate::request::{Operation, OperationKind, Request};

/// What one vectored call takes at most (`IOV_MAX`).
const MAX_SLICES: usize = 1024;
/// What a range of zeros is written from, where the system offers no other way.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
const MAX_ZERO_SLICES: u64 = 16;

/// Does reads, those that touch in one call.
pub(super) fn read_all(file: &File, reads: &mut [&mut Request]) {
    in_runs(reads, |run| {
        let mut slices = Vec::new();
        let offset = run.first().map_or(0, |first| first.offset);
        for request in run {
            if let Operation::Read { into } = &mut request.operation {
                slices.extend(into.iter_mut().map(|frame| IoSliceMut::new(frame.make_mut())));
            }
        }
        read(file, offset, &mut slices)
    });
}

/// Does writes, those that touch in one call.
pub(super) fn write_all(file: &File, writes: &mut [&mut Request]) {
    in_runs(writes, |run| {
        let mut slices = Vec::new();
        for request in &*run {
            if let Operation::Write { data, .. } = &request.operation {
                slices.extend(data.iter().map(|slice| IoSlice::new(slice.as_slice())));
            }
        }
        write(file, run.first().map_or(0, |first| first.offset), &mut slices, OperationKind::Write)
    });
}

/// Gives a range back.
pub(super) fn discard(file: &File, offset: u64, len: u64) -> Result<(), DeviceError> {
    let operation = OperationKind::Discard;
    match clear(file, FallocateFlags::PUNCH_HOLE, offset, len) {
        Ok(()) => Ok(()),
        Err(errno) if is_unsupported(errno) => Err(DeviceError::Unsupported { operation }),
        Err(errno) => Err(io_error(operation, offset, errno)),
    }
}

/// Makes a range read as zeros, at the least cost that the system offers.
pub(super) fn write_zeroes(file: &File, offset: u64, len: u64) -> Result<(), DeviceError> {
    for how in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
        match clear(file, how, offset, len) {
            Ok(()) => return Ok(()),
            Err(errno) if is_unsupported(errno) => {}
            Err(errno) => return Err(io_error(OperationKind::WriteZeroes, offset, errno)),
        }
    }
    send_zeroes(file, offset, len)
}

/// Makes a range read as zeros by writing them, a bounded piece at a time.
pub(super) fn send_zeroes(file: &File, mut offset: u64, mut len: u64) -> Result<(), DeviceError> {
    let unit = u64_from(ZEROS.len());
    while len > 0 {
        let piece = len.min(unit * MAX_ZERO_SLICES);
        let lens = (0..piece.div_ceil(unit)).map(|n| index((piece - n * unit).min(unit)));
        let mut slices: Vec<_> = lens.map(|len| IoSlice::new(&ZEROS[..len])).collect();
        write(file, offset, &mut slices, OperationKind::WriteZeroes)?;
        (offset, len) = (offset + piece, len - piece);
    }
    Ok(())
}

/// Runs `transfer` on each run of requests that touch. When that fails, on each of the run alone, for its own result.
fn in_runs(
    requests: &mut [&mut Request],
    transfer: impl Fn(&mut [&mut Request]) -> Result<(), DeviceError>,
) {
    requests.sort_by_key(|request| request.offset);
    for run in requests.chunk_by_mut(|a, b| a.offset + a.len() == b.offset) {
        match transfer(run) {
            Ok(()) => {}
            Err(error) if run.len() == 1 => run[0].result = Err(error),
            Err(_) => run.chunks_mut(1).for_each(|alone| alone[0].result = transfer(alone)),
        }
    }
}

fn read(
    file: &File,
    mut offset: u64,
    mut slices: &mut [IoSliceMut<'_>],
) -> Result<(), DeviceError> {
    IoSliceMut::advance_slices(&mut slices, 0); // drops empty ones
    while !slices.is_empty() {
        let some = slices.len().min(MAX_SLICES);
        match retry_on_intr(|| preadv(file, &mut slices[..some], offset)) {
            Ok(0) => return Err(DeviceError::Truncated { offset }),
            Ok(done) => {
                offset += u64_from(done);
                IoSliceMut::advance_slices(&mut slices, done);
            }
            Err(errno) => return Err(io_error(OperationKind::Read, offset, errno)),
        }
    }
    Ok(())
}

/// Does a read into one piece of memory.
pub(super) fn read_into(
    file: &File,
    mut offset: u64,
    mut bytes: &mut [u8],
) -> Result<(), DeviceError> {
    while !bytes.is_empty() {
        match retry_on_intr(|| pread(file, &mut *bytes, offset)) {
            Ok(0) => return Err(DeviceError::Truncated { offset }),
            Ok(done) => {
                offset += u64_from(done);
                bytes = &mut bytes[done..];
            }
            Err(errno) => return Err(io_error(OperationKind::Read, offset, errno)),
        }
    }
    Ok(())
}

fn write(
    file: &File,
    mut offset: u64,
    mut slices: &mut [IoSlice<'_>],
    operation: OperationKind,
) -> Result<(), DeviceError> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let some = slices.len().min(MAX_SLICES);
        match retry_on_intr(|| pwritev(file, &slices[..some], offset)) {
            Ok(0) => return Err(DeviceError::Io { operation, offset, errno: None }),
            Ok(done) => {
                offset += u64_from(done);
                IoSlice::advance_slices(&mut slices, done);
            }
            Err(errno) => return Err(io_error(operation, offset, errno)),
        }
    }
    Ok(())
}

fn clear(file: &File, how: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
    match len {
        0 => Ok(()), // which fallocate refuses
        _ => retry_on_intr(|| fallocate(file, how | FallocateFlags::KEEP_SIZE, offset, len)),
    }
}

fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS)
}
