//! [`Request`]: one thing that a device is asked to do, with the answer.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::cast::u64_from;
use crate::device::DeviceGeometry;
use crate::error::DeviceError;
use crate::frame::{Frame, FrameSlice};

/// What a device is asked to do at a request's offset.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Fill the frames one after the other. They should be unique; a shared one is replaced by a copy.
    Read {
        /// The frames; unspecified content if the request fails.
        into: Vec<Frame>,
    },
    /// Store the slices one after the other.
    Write {
        /// The bytes.
        data: Vec<FrameSlice>,
        /// Whether they must be durable when the request is done.
        fua: bool,
    },
    /// Make durable every write that was done before this call of [`run`](crate::BlockDevice::run). The offset is unused.
    Flush,
    /// Say that the bytes are not needed; what they read as afterwards is unspecified.
    Discard {
        /// How many bytes.
        len: u64,
    },
    /// Make the bytes read as zeros, as durable as a write without FUA.
    WriteZeroes {
        /// How many bytes.
        len: u64,
    },
}

/// An [`Operation`] without its data.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum OperationKind {
    /// [`Operation::Read`].
    Read,
    /// [`Operation::Write`].
    Write,
    /// [`Operation::Flush`].
    Flush,
    /// [`Operation::Discard`].
    Discard,
    /// [`Operation::WriteZeroes`].
    WriteZeroes,
}

impl OperationKind {
    /// Whether it changes the device.
    pub const fn changes(self) -> bool {
        match self {
            Self::Read | Self::Flush => false,
            Self::Write | Self::Discard | Self::WriteZeroes => true,
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write of zeros",
        })
    }
}

/// One thing that a device is asked to do, with the answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where, in bytes from the device's start.
    pub offset: u64,
    /// What.
    pub operation: Operation,
    /// The answer; `Ok` before the request is run.
    pub result: Result<(), DeviceError>,
}

impl Request {
    /// Fill `into`, one frame after the other.
    pub fn read(offset: u64, into: Vec<Frame>) -> Self {
        Self::new(offset, Operation::Read { into })
    }

    /// Store `data`, one slice after the other; durable at the next flush.
    pub fn write(offset: u64, data: Vec<FrameSlice>) -> Self {
        Self::new(offset, Operation::Write { data, fua: false })
    }

    /// Store `data` durably.
    pub fn write_fua(offset: u64, data: Vec<FrameSlice>) -> Self {
        Self::new(offset, Operation::Write { data, fua: true })
    }

    /// Store one whole frame; durable at the next flush.
    pub fn write_frame(offset: u64, frame: Frame) -> Self {
        Self::write(offset, vec![frame.into()])
    }

    /// Make durable what was written before.
    pub fn flush() -> Self {
        Self::new(0, Operation::Flush)
    }

    /// Give `len` bytes back to the device.
    pub fn discard(offset: u64, len: u64) -> Self {
        Self::new(offset, Operation::Discard { len })
    }

    /// Make `len` bytes read as zeros.
    pub fn write_zeroes(offset: u64, len: u64) -> Self {
        Self::new(offset, Operation::WriteZeroes { len })
    }

    /// A request not yet run.
    pub fn new(offset: u64, operation: Operation) -> Self {
        Self { offset, operation, result: Ok(()) }
    }

    /// How many bytes it reads, writes, discards or zeroes.
    pub fn len(&self) -> u64 {
        match &self.operation {
            Operation::Read { into } => into.iter().map(|frame| u64_from(frame.len())).sum(),
            Operation::Write { data, .. } => data.iter().map(|slice| u64_from(slice.len())).sum(),
            Operation::Flush => 0,
            Operation::Discard { len } | Operation::WriteZeroes { len } => *len,
        }
    }

    /// Whether it covers no bytes, as a flush.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What kind of operation it is.
    pub const fn kind(&self) -> OperationKind {
        match self.operation {
            Operation::Read { .. } => OperationKind::Read,
            Operation::Write { .. } => OperationKind::Write,
            Operation::Flush => OperationKind::Flush,
            Operation::Discard { .. } => OperationKind::Discard,
            Operation::WriteZeroes { .. } => OperationKind::WriteZeroes,
        }
    }

    /// Whether a device of this geometry can be asked for this at all; every device asks first.
    ///
    /// Reads may start and end at any byte; what changes the device is made of whole sectors.
    ///
    /// # Errors
    /// [`DeviceError::ReadOnly`], [`DeviceError::OutOfRange`], [`DeviceError::Misaligned`].
    pub fn check(&self, geometry: &DeviceGeometry) -> Result<(), DeviceError> {
        let (operation, offset, len) = (self.kind(), self.offset, self.len());
        if operation == OperationKind::Flush {
            return Ok(());
        }
        if operation.changes() && geometry.read_only {
            return Err(DeviceError::ReadOnly { operation, offset });
        }
        geometry.check_range(operation, offset, len)?;
        let sector_bytes = geometry.sector_bytes;
        let whole = |n: u64| n.is_multiple_of(sector_bytes.into());
        if operation.changes() && !(whole(offset) && whole(len)) {
            return Err(DeviceError::Misaligned { operation, offset, len, sector_bytes });
        }
        Ok(())
    }

    /// The frames of a read that succeeded; none for other operations.
    ///
    /// # Errors
    /// The request's own.
    pub fn into_frames(self) -> Result<Vec<Frame>, DeviceError> {
        self.result?;
        Ok(match self.operation {
            Operation::Read { into } => into,
            _ => Vec::new(),
        })
    }
}
