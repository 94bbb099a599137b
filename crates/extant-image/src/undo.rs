//! Undo files: what was on a device before it was written, in the form that e2undo(8) puts back.
//!
//! An undo file is made of blocks. The first is a header, the second the superblock that the device has now, by which e2undo knows
//! that nobody else has changed it since; then come, in turn, a block of keys and the data that its keys tell of, each key's in one
//! piece. Every piece of the device is kept once, as it was before the first write to it.
//!
//! Source: e2fsprogs, `lib/ext2fs/undo_io.c` and `misc/e2undo.c`, for the format.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

use extant_device::{
    BlockDevice, BlockDeviceExt, DeviceError, DeviceGeometry, Operation, OperationKind, Request,
};
use extant_format::Superblock;
use extant_format::cast::u64_from;
use extant_format::crc::{self, crc32c};

use crate::ranges::Ranges;

/// A device that keeps in an undo file what was there before it is written.
#[derive(Debug)]
pub struct UndoDevice<D> {
    device: D,
    recording: Mutex<Recording>,
}

/// An undo file on its way.
#[derive(Debug)]
struct Recording {
    file: File,
    /// Pieces of the device that are not kept yet.
    ahead: Ranges,
    /// Where the file system begins on what e2undo will be given.
    offset_bytes: u64,
    /// The next free block of the file.
    next: u64,
    /// Where the keys at hand go.
    key_block: u64,
    keys: Vec<Key>,
    all_keys: u64,
    /// Why the file could not be written.
    failure: Option<io::Error>,
}

/// A run of bytes that is kept.
#[derive(Clone, Copy, Debug)]
struct Key {
    offset: u64,
    crc: u32,
    len: u64,
}

impl<D: BlockDevice> UndoDevice<D> {
    /// Keeps what is on `device` in `file`, which is empty; `offset_bytes` is where the device begins on the one that e2undo will
    /// be given.
    pub fn new(device: D, file: File, offset_bytes: u64) -> Self {
        let mut ahead = Ranges::default();
        ahead.add(0..device.geometry().len_bytes.div_ceil(PIECE_BYTES));
        let recording = Recording {
            file,
            ahead,
            offset_bytes,
            next: FIRST_KEY_BLOCK + 1,
            key_block: FIRST_KEY_BLOCK,
            keys: Vec::new(),
            all_keys: 0,
            failure: None,
        };
        Self { device, recording: Mutex::new(recording) }
    }

    /// Says in the file that it is whole, and makes it durable; nothing is to be written any more.
    ///
    /// # Errors
    /// The file's.
    pub fn finish(&self) -> io::Result<()> {
        let mut recording = self.recording();
        match recording.failure.take() {
            Some(failure) => Err(failure),
            None => recording
                .write_head(&self.device, FINISHED)
                .and_then(|()| recording.file.sync_all()),
        }
    }

    /// Why the file could not be written, which is why the device was not either.
    pub fn failure(&self) -> Option<io::Error> {
        self.recording().failure.take()
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps what a batch is about to change.
    fn keep(&self, batch: &[Request]) -> Result<(), DeviceError> {
        let mut recording = self.recording();
        let mut is_changed = false;
        for request in batch.iter().filter(|request| kind(request).changes()) {
            let end = request.offset.saturating_add(request.len());
            for run in recording.ahead.take(request.offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES))
            {
                is_changed = true;
                recording.keep_run(&self.device, run.start * PIECE_BYTES, run.end * PIECE_BYTES)?;
            }
        }
        // Whoever is killed before the device is written has an undo file all the same.
        let written = match is_changed {
            true => recording.write_head(&self.device, 0),
            false => Ok(()),
        };
        let synced = written.and_then(|()| {
            match batch.iter().any(|request| kind(request) == OperationKind::Flush) {
                true => recording.file.sync_data(),
                false => Ok(()),
            }
        });
        synced.map_err(|error| recording.failed(error))
    }
}

impl<D: BlockDevice> BlockDevice for UndoDevice<D> {
    fn geometry(&self) -> DeviceGeometry {
        self.device.geometry()
    }

    fn run(&self, batch: &mut [Request]) {
        match self.keep(batch) {
            Ok(()) => self.device.run(batch),
            Err(error) => batch.iter_mut().for_each(|request| request.result = Err(error)),
        }
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_into(offset, bytes)
    }
}

impl Recording {
    /// Keeps the bytes of a run of pieces, as far as the device has them.
    fn keep_run(
        &mut self,
        device: &dyn BlockDevice,
        mut at: u64,
        end: u64,
    ) -> Result<(), DeviceError> {
        let end = end.min(device.geometry().len_bytes);
        while at < end {
            let len = READ_BYTES.min(end - at);
            let bytes = device.read_frame(at, usize::try_from(len).unwrap_or(0))?;
            self.add(at, bytes.as_slice()).map_err(|error| self.failed(error))?;
            at += len;
        }
        Ok(())
    }

    /// Adds bytes that were at `offset`, to the last key if they lie behind what it tells of.
    fn add(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let len = u64_from(bytes.len());
        let goes_on =
            |key: &&mut Key| key.offset + key.len == offset && key.len + len < MOST_BYTES_PER_KEY;
        match self.keys.last_mut().filter(goes_on) {
            Some(key) => *key = Key { crc: crc32c(key.crc, bytes), len: key.len + len, ..*key },
            None => {
                if self.keys.len() == KEYS_PER_BLOCK {
                    self.write_keys()?;
                    self.keys.clear();
                    self.key_block = self.next;
                    self.next += 1;
                }
                self.keys.push(Key { offset, crc: crc32c(crc::START, bytes), len });
                self.all_keys += 1;
            }
        }
        // What is left out reads as zeros.
        if bytes.iter().any(|byte| *byte != 0) {
            self.file.write_all_at(bytes, self.next * PIECE_BYTES)?;
        }
        self.next += len.div_ceil(PIECE_BYTES);
        Ok(())
    }

    fn write_keys(&self) -> io::Result<()> {
        let mut block = vec![0; KEY_BYTES * (1 + KEYS_PER_BLOCK)];
        block[..4].copy_from_slice(&KEY_MAGIC.to_le_bytes());
        for (key, place) in self.keys.iter().zip(block[KEY_BYTES..].chunks_exact_mut(KEY_BYTES)) {
            let len = u32::try_from(key.len).unwrap_or(u32::MAX);
            place[..8].copy_from_slice(&(key.offset / UNIT_BYTES).to_le_bytes());
            place[8..12].copy_from_slice(&key.crc.to_le_bytes());
            place[12..].copy_from_slice(&len.to_le_bytes());
        }
        let sum = crc32c(crc::START, &block);
        block[4..8].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&block, self.key_block * PIECE_BYTES)
    }

    /// Writes the keys at hand, the superblock that the device has now, and the header.
    fn write_head(&self, device: &dyn BlockDevice, state: u32) -> io::Result<()> {
        self.write_keys()?;
        let mut superblock =
            device.read_vec(Superblock::OFFSET_BYTES, 1024).map_err(io::Error::other)?;
        let superblock_crc = crc32c(crc::START, &superblock);
        // So that nobody takes the file for a file system.
        superblock[MAGIC_AT..MAGIC_AT + 2].iter_mut().for_each(|byte| *byte = !*byte);
        self.file.write_all_at(&superblock, PIECE_BYTES)?;
        let features = if self.offset_bytes == 0 { 0 } else { HAS_OFFSET };
        let numbers = [
            (8, &self.all_keys.to_le_bytes()[..]),
            (16, &1_u64.to_le_bytes()),
            (24, &FIRST_KEY_BLOCK.to_le_bytes()),
            (32, &PIECE_BYTES.to_le_bytes()[..4]),
            (36, &UNIT_BYTES.to_le_bytes()[..4]),
            (40, &superblock_crc.to_le_bytes()),
            (44, &state.to_le_bytes()),
            (48, &features.to_le_bytes()),
            (64, &self.offset_bytes.to_le_bytes()),
        ];
        let mut header = [0; 512];
        header[..8].copy_from_slice(b"E2UNDO02");
        for (at, bytes) in numbers {
            header[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let sum = crc32c(crc::START, &header[..508]);
        header[508..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&header, 0)?;
        self.file.set_len(self.next * PIECE_BYTES)
    }

    /// Notes why the file could not be written, and says so in a device's words.
    fn failed(&mut self, error: io::Error) -> DeviceError {
        let errno = error.raw_os_error();
        self.failure.get_or_insert(error);
        DeviceError::Io { operation: OperationKind::Write, offset: self.next * PIECE_BYTES, errno }
    }
}

fn kind(request: &Request) -> OperationKind {
    match request.operation {
        Operation::Read { .. } => OperationKind::Read,
        Operation::Write { .. } => OperationKind::Write,
        Operation::Flush => OperationKind::Flush,
        Operation::Discard { .. } => OperationKind::Discard,
        Operation::WriteZeroes { .. } => OperationKind::WriteZeroes,
    }
}

/// A block of the file, and what is kept of the device at least: as much as mke2fs has it.
const PIECE_BYTES: u64 = 32 << 10;
/// In what keys count.
const UNIT_BYTES: u64 = 4096;
const READ_BYTES: u64 = 1 << 20;
const FIRST_KEY_BLOCK: u64 = 2;
const KEY_BYTES: usize = 16;
const KEYS_PER_BLOCK: usize = (32 << 10) / KEY_BYTES - 1;
/// What e2undo has memory for.
const MOST_BYTES_PER_KEY: u64 = 512 * PIECE_BYTES;
const KEY_MAGIC: u32 = 0xCADE_CADE;
const FINISHED: u32 = 1;
const HAS_OFFSET: u32 = 1;
/// Where a superblock has its magic number.
const MAGIC_AT: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;
    use extant_device::MemoryDevice;
    use extant_testkit::oracle::{self, Scratch};
    use std::sync::Arc;

    const DEVICE_BYTES: u64 = (66 << 20) + 12 * 1024;

    /// A device with different bytes everywhere but for a hole.
    fn device() -> MemoryDevice {
        let device = MemoryDevice::new(DEVICE_BYTES);
        let bytes: Vec<u8> = (0..DEVICE_BYTES / 8)
            .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
            .collect();
        device.write_bytes(0, &bytes).unwrap();
        device.run_one(Request::write_zeroes(20 << 20, 5 << 20)).unwrap();
        device
    }

    /// Has e2undo put back what was on `before`, from what is on `after`.
    fn undone(scratch: &Scratch, after: &MemoryDevice, arguments: &[&str]) -> Option<Vec<u8>> {
        let image = scratch.path("image");
        std::fs::write(&image, after.read_vec(0, usize::try_from(DEVICE_BYTES).unwrap()).unwrap())
            .unwrap();
        let undo = scratch.path("undo");
        let arguments = [arguments, &[undo.to_str().unwrap(), image.to_str().unwrap()]].concat();
        let output = oracle::run("e2undo", &arguments)?;
        assert!(output.status.success(), "{}", oracle::text(&output));
        Some(std::fs::read(&image).unwrap())
    }

    fn record(scratch: &Scratch) -> (Arc<MemoryDevice>, UndoDevice<Arc<MemoryDevice>>, Vec<u8>) {
        let below = Arc::new(device());
        let before = below.read_vec(0, usize::try_from(DEVICE_BYTES).unwrap()).unwrap();
        let file = File::create(scratch.path("undo")).unwrap();
        (Arc::clone(&below), UndoDevice::new(below, file, 0), before)
    }

    #[test]
    fn whatever_is_written_is_put_back() {
        let scratch = Scratch::new("undo");
        let (below, device, before) = record(&scratch);
        device.run_one(Request::discard(0, 1 << 20)).unwrap();
        device.write_bytes(1024, &[1; 1024]).unwrap();
        device.write_bytes((5 << 20) + 512, &[2; 512]).unwrap();
        // More than one key can tell of, holes among it, and the end, which is no whole piece.
        device.run_one(Request::write_zeroes(6 << 20, DEVICE_BYTES - (6 << 20))).unwrap();
        device.write_bytes(DEVICE_BYTES - 512, &[3; 512]).unwrap();
        device.flush().unwrap();
        device.finish().unwrap();
        let Some(after) = undone(&scratch, &below, &[]) else { return };
        assert!(after == before, "other bytes");
    }

    #[test]
    fn more_keys_than_a_block_has_go_on_in_the_next() {
        let scratch = Scratch::new("undo-keys");
        let (below, device, before) = record(&scratch);
        // Pieces from the end on, so that none lies behind the one before.
        for piece in (0..DEVICE_BYTES / PIECE_BYTES).rev() {
            device.write_bytes(piece * PIECE_BYTES + 4096, &[4; 512]).unwrap();
        }
        assert!(device.recording().key_block > FIRST_KEY_BLOCK);
        device.finish().unwrap();
        let Some(after) = undone(&scratch, &below, &[]) else { return };
        assert!(after == before, "other bytes");
    }

    #[test]
    fn who_is_killed_can_put_back_what_was_written_by_then() {
        let scratch = Scratch::new("undo-killed");
        let (below, device, before) = record(&scratch);
        device.write_bytes(7 << 20, &[5; 1 << 20]).unwrap();
        drop(device);
        // It also says that a check should follow, which has nothing to look at here.
        let Some(after) = undone(&scratch, &below, &[]) else { return };
        assert!(after == before, "other bytes");
    }

    #[test]
    fn nothing_is_written_that_could_not_be_kept() {
        let scratch = Scratch::new("undo-full");
        let (below, _, before) = record(&scratch);
        std::fs::write(scratch.path("undo"), "").unwrap();
        let closed = File::open(scratch.path("undo")).unwrap();
        let device = UndoDevice::new(Arc::clone(&below), closed, 0);
        assert!(device.write_bytes(0, &[1; 4096]).is_err());
        assert!(device.failure().is_some());
        assert!(below.read_vec(0, before.len()).unwrap() == before);
    }
}
