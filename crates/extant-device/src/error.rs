//! [`DeviceError`]: why a request failed.

use crate::request::OperationKind;

/// Why a device could not do what a request asked for. Offsets and lengths are bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// The device, or the system below it, failed.
    #[error("{operation} at byte {offset} failed{}", ErrnoText(*errno))]
    Io {
        /// What was asked for.
        operation: OperationKind,
        /// Where it failed.
        offset: u64,
        /// The system's error number, where there is one.
        errno: Option<i32>,
    },
    /// The request passes the end of the device.
    #[error(
        "{operation} of {len} bytes at byte {offset} passes the end of the device, which has {device_bytes} bytes"
    )]
    OutOfRange {
        /// What was asked for.
        operation: OperationKind,
        /// Where it starts.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// How many the device has.
        device_bytes: u64,
    },
    /// The file ends earlier than it did when it was opened.
    #[error("the image was truncated while in use: nothing to read at byte {offset}")]
    Truncated {
        /// Where bytes were missing.
        offset: u64,
    },
    /// The device was opened for reading, or cannot be written.
    #[error("{operation} at byte {offset} refused: the device is read-only")]
    ReadOnly {
        /// What was asked for.
        operation: OperationKind,
        /// Where.
        offset: u64,
    },
    /// A request that changes the device does not start or end with a sector.
    #[error(
        "{operation} of {len} bytes at byte {offset} is not made of whole sectors of {sector_bytes} bytes"
    )]
    Misaligned {
        /// What was asked for.
        operation: OperationKind,
        /// Where it starts.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The unit that the device writes.
        sector_bytes: u32,
    },
    /// The device cannot do this at all.
    #[error("{operation} is not supported by the device")]
    Unsupported {
        /// What was asked for.
        operation: OperationKind,
    },
}

impl DeviceError {
    /// The error number that Linux gives for the same failure.
    pub const fn errno(self) -> i32 {
        match self {
            Self::Io { errno: Some(errno), .. } => errno,
            Self::Io { errno: None, .. } | Self::OutOfRange { .. } | Self::Truncated { .. } => 5, // EIO
            Self::ReadOnly { .. } => 30,    // EROFS
            Self::Misaligned { .. } => 22,  // EINVAL
            Self::Unsupported { .. } => 95, // EOPNOTSUPP
        }
    }
}

/// The end of an I/O error's line.
struct ErrnoText(Option<i32>);

impl core::fmt::Display for ErrnoText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            None => Ok(()),
            #[cfg(feature = "std")]
            Some(errno) => write!(f, ": {}", std::io::Error::from_raw_os_error(errno)),
            #[cfg(not(feature = "std"))]
            Some(errno) => write!(f, ": error {errno}"),
        }
    }
}
