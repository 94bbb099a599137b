//! A device as it will be once its journal has been replayed, without writing to it.
//!
//! Source: none in the kernel, which replays before a read-only mount; e2fsprogs' `-o ro,noload` shows old contents.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use extant_device::{
    BlockDevice, BlockDeviceExt, DeviceError, DeviceGeometry, Frame, Operation, OperationKind,
    Request,
};
use extant_format::cast::{u64_from, usize_from};
use extant_journal::Replacement;

/// Reads through the log, and through what fast commits change; refuses to write.
pub(super) struct RecoveredView {
    data: Arc<dyn BlockDevice>,
    journal: Arc<dyn BlockDevice>,
    block_bytes: u32,
    /// By byte offset of the block on the data device.
    copies: BTreeMap<u64, Copy>,
}

/// Where the newest version of a block is.
#[derive(Clone, Debug)]
pub(super) enum Copy {
    /// At this byte offset of the journal's device.
    Logged(u64, Replacement),
    /// Here.
    InMemory(Frame),
}

impl RecoveredView {
    /// `data` with the blocks of `copies` read from there instead.
    pub(super) fn new(
        data: Arc<dyn BlockDevice>,
        journal: Arc<dyn BlockDevice>,
        block_bytes: u32,
        copies: BTreeMap<u64, Copy>,
    ) -> Self {
        Self { data, journal, block_bytes, copies }
    }

    fn read_copy(&self, copy: &Copy) -> Result<Frame, DeviceError> {
        match copy {
            Copy::InMemory(frame) => Ok(frame.clone()),
            Copy::Logged(offset, replacement) => {
                let mut frame = self.journal.read_frame(*offset, usize_from(self.block_bytes))?;
                replacement.decode(frame.make_mut());
                Ok(frame)
            }
        }
    }

    /// Lays the log's copies over what was read from the device.
    fn patch(&self, request: &mut Request) -> Result<(), DeviceError> {
        request.result?;
        let (start, end) = (request.offset, request.offset + request.len());
        let Operation::Read { into } = &mut request.operation else { return Ok(()) };
        let block_bytes = u64::from(self.block_bytes);
        let first = start.saturating_sub(block_bytes - 1);
        for (&at, copy) in self.copies.range(first..end) {
            let bytes = self.read_copy(copy)?;
            let mut frame_start = start;
            for frame in into.iter_mut() {
                let frame_end = frame_start + u64_from(frame.len());
                let (from, to) = (at.max(frame_start), (at + block_bytes).min(frame_end));
                if from < to {
                    let source = index(from - at)..index(to - at);
                    let target = index(from - frame_start)..index(to - frame_start);
                    frame.make_mut()[target].copy_from_slice(&bytes.as_slice()[source]);
                }
                frame_start = frame_end;
            }
        }
        Ok(())
    }
}

/// An offset inside a frame, which fits memory.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("within one frame")
}

impl BlockDevice for RecoveredView {
    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry { read_only: true, ..self.data.geometry() }
    }

    fn run(&self, batch: &mut [Request]) {
        for request in batch {
            match request.kind() {
                OperationKind::Read => {
                    self.data.run(core::slice::from_mut(request));
                    if let Err(error) = self.patch(request) {
                        request.result = Err(error);
                    }
                }
                OperationKind::Flush => {}
                OperationKind::Write | OperationKind::Discard | OperationKind::WriteZeroes => {
                    request.result = Err(DeviceError::ReadOnly {
                        operation: request.kind(),
                        offset: request.offset,
                    });
                }
            }
        }
    }
}
