//! Everything that can go wrong, and the one place that knows errno.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use extant_device::DeviceError;
use extant_format::corruption::{Corruption, FormatError, Rule, Unsupported};
use extant_format::{ClusterCount, InodeNumber};
use extant_journal::JournalError;

/// A Linux error number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// What the C library says for this number.
            pub const fn message(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "Unknown error",
                }
            }
        }
    };
}

errnos! {
    PERM = 1, "Operation not permitted";
    NOENT = 2, "No such file or directory";
    INTR = 4, "Interrupted system call";
    IO = 5, "Input/output error";
    TOOBIG = 7, "Argument list too long";
    BADF = 9, "Bad file descriptor";
    NOMEM = 12, "Cannot allocate memory";
    ACCES = 13, "Permission denied";
    FAULT = 14, "Bad address";
    BUSY = 16, "Device or resource busy";
    EXIST = 17, "File exists";
    XDEV = 18, "Invalid cross-device link";
    NOTDIR = 20, "Not a directory";
    ISDIR = 21, "Is a directory";
    INVAL = 22, "Invalid argument";
    FBIG = 27, "File too large";
    NOSPC = 28, "No space left on device";
    ROFS = 30, "Read-only file system";
    MLINK = 31, "Too many links";
    RANGE = 34, "Numerical result out of range";
    NAMETOOLONG = 36, "File name too long";
    NOTEMPTY = 39, "Directory not empty";
    LOOP = 40, "Too many levels of symbolic links";
    NODATA = 61, "No data available";
    BADMSG = 74, "Bad message";
    OVERFLOW = 75, "Value too large for defined data type";
    OPNOTSUPP = 95, "Operation not supported";
    STALE = 116, "Stale file handle";
    UCLEAN = 117, "Structure needs cleaning";
    DQUOT = 122, "Disk quota exceeded";
    NOKEY = 126, "Required key not available";
}

/// Everything that an operation on a mounted file system can report.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too few clusters are free beyond what was promised and kept back.
    #[error("no space: {wanted} wanted, {free} free")]
    NoSpace {
        /// What was asked for.
        wanted: ClusterCount,
        /// What is free and not promised.
        free: ClusterCount,
    },
    /// Every inode is in use.
    #[error("no space: every inode is in use")]
    NoInodes,
    /// The attribute does not fit beside the others.
    #[error("no space for the extended attribute")]
    NoAttributeSpace,
    /// The directory's index is full.
    #[error("the directory's index is full")]
    DirectoryFull,
    /// The image breaks a rule of the format.
    #[error("corrupt file system: {0}")]
    Corrupt(#[from] Corruption),
    /// The image uses a feature that this engine lacks.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The device failed.
    #[error("device: {0}")]
    Device(#[from] DeviceError),
    /// The journal refused or failed.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// The journal was aborted after an earlier failure; nothing can be changed any more.
    #[error("the file system was stopped by an earlier error: {reason}{}", DeviceText(*device))]
    Aborted {
        /// Errno of the first failure.
        errno: Errno,
        /// What failed first.
        reason: &'static str,
        /// Why, if it was the device.
        device: Option<DeviceError>,
    },
    /// Forced shutdown.
    #[error("the file system is shut down")]
    Shutdown,
    /// Mounted read-only.
    #[error("read-only file system")]
    ReadOnly,
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory still has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// A name of more than 255 bytes.
    #[error("file name too long")]
    NameTooLong,
    /// Symbolic links lead in a circle, or too far.
    #[error("too many levels of symbolic links")]
    LinkLoop,
    /// The inode has as many links as the format can count.
    #[error("too many links")]
    TooManyLinks,
    /// The caller may not do this to this file.
    #[error("permission denied")]
    AccessDenied,
    /// Nobody without privilege, or nobody at all, may do this.
    #[error("operation not permitted")]
    NotPermitted,
    /// The argument makes no sense; the text says which rule it breaks.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// Past the largest file that the format can hold.
    #[error("file too large")]
    TooLarge,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer, or the format's field, is too small.
    #[error("result too large")]
    Range,
    /// A value of more than 64 KiB.
    #[error("attribute value too long")]
    ValueTooLong,
    /// The names in this directory are encrypted.
    #[error("required key not available")]
    NoKey,
    /// The two names lie in different projects.
    #[error("cross-project link")]
    CrossDevice,
    /// In use by something that excludes this.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// Somebody else has the volume, as its multiple mount protection says.
    #[error("in use: {0}")]
    InUse(Box<InUse>),
    /// The handle names an inode that is gone.
    #[error("stale handle of {0}")]
    Stale(InodeNumber),
    /// The source of the bytes to write could not deliver them.
    #[error("the data to write could not be read")]
    SourceFailed,
    /// The kind of file does not have this operation.
    #[error("operation not supported: {0}")]
    NotSupported(&'static str),
    /// The transaction has no room for more; the caller begins another.
    #[error("transaction full")]
    TransactionFull,
}

/// Who has a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InUse {
    /// What for.
    pub by: User,
    /// The name of that host, as far as it is known.
    pub node: String,
    /// What the volume's device is called there.
    pub device: String,
    /// When it said so last, in seconds since 1970.
    pub seconds: u64,
}

/// What somebody has a volume for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    /// A host has mounted it.
    Host,
    /// e2fsck checks it.
    Checker,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            User::Host => write!(f, "another host has it mounted")?,
            User::Checker => write!(f, "e2fsck is running on it")?,
        }
        match (self.node.as_str(), self.device.as_str()) {
            ("", _) => Ok(()),
            (node, "") => write!(f, " ({node})"),
            (node, device) => write!(f, " ({node}, as {device})"),
        }
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Corrupt(corruption) => Self::Corrupt(corruption),
            FormatError::Unsupported(unsupported) => Self::Unsupported(unsupported),
        }
    }
}

/// What the device said, if it is why.
struct DeviceText(Option<DeviceError>);

impl fmt::Display for DeviceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl Error {
    /// Whether what comes next would fail for the same reason, whichever file it is about: no space, damage, a device or a
    /// journal that failed, a volume that is not written any more.
    pub fn concerns_all(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. }
                | Self::NoInodes
                | Self::Corrupt(_)
                | Self::Device(_)
                | Self::Journal(_)
                | Self::Aborted { .. }
                | Self::Shutdown
                | Self::ReadOnly
                | Self::InUse(_)
        )
    }

    /// The errno that Linux ext4 gives for the same failure.
    pub fn errno(&self) -> Errno {
        match self {
            // No wildcard: a new variant has to choose.
            Self::NoSpace { .. }
            | Self::NoInodes
            | Self::NoAttributeSpace
            | Self::DirectoryFull => Errno::NOSPC,
            Self::Corrupt(corruption) if corruption.rule == Rule::Checksum => Errno::BADMSG,
            Self::Corrupt(_) => Errno::UCLEAN,
            Self::Unsupported(_) | Self::NotSupported(_) => Errno::OPNOTSUPP,
            Self::Device(_) | Self::Shutdown => Errno::IO,
            Self::Journal(error) => match error {
                JournalError::Aborted { .. } => Errno::ROFS,
                _ => Errno::IO,
            },
            Self::Aborted { .. } | Self::ReadOnly => Errno::ROFS,
            Self::NotFound => Errno::NOENT,
            Self::Exists => Errno::EXIST,
            Self::NotDirectory => Errno::NOTDIR,
            Self::IsDirectory => Errno::ISDIR,
            Self::NotEmpty => Errno::NOTEMPTY,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::LinkLoop => Errno::LOOP,
            Self::TooManyLinks => Errno::MLINK,
            Self::AccessDenied => Errno::ACCES,
            Self::NotPermitted => Errno::PERM,
            Self::Invalid(_) => Errno::INVAL,
            Self::TooLarge => Errno::FBIG,
            Self::NoAttribute => Errno::NODATA,
            Self::Range => Errno::RANGE,
            Self::ValueTooLong => Errno::TOOBIG,
            Self::NoKey => Errno::NOKEY,
            Self::CrossDevice => Errno::XDEV,
            Self::Busy(_) | Self::InUse(_) => Errno::BUSY,
            Self::Stale(_) => Errno::STALE,
            Self::SourceFailed => Errno::FAULT,
            Self::TransactionFull => Errno::NOSPC,
        }
    }

    /// Whether an operation that fails so has left everything in order: it looked for room first, or undid its changes.
    pub(crate) fn leaves_order(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. }
                | Self::NoInodes
                | Self::NoAttributeSpace
                | Self::DirectoryFull
                | Self::NotEmpty
        )
    }

    /// Whether another try after a commit may find space: the kernel's `-ENOSPC`.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}
