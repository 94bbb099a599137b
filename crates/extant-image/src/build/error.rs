//! What can go wrong: with one file, or with all.

use std::fmt;
use std::io;

use extant_device::DeviceError;

use crate::acl::AclError;
use crate::mkfs::MkfsError;

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A source cannot be read at all.
    #[error("{source_name}: {error}")]
    Source {
        /// How it is called.
        source_name: String,
        /// Why not.
        error: io::Error,
    },
    /// An archive is damaged, or ends too early.
    #[error("{source_name}: {problem} (at byte {at})")]
    Archive {
        /// How it is called.
        source_name: String,
        /// Where the member begins.
        at: u64,
        /// What is wrong.
        problem: Problem,
    },
    /// A line of a file of entries makes no sense.
    #[error("{source_name}, line {line}: {problem}")]
    Entry {
        /// The file.
        source_name: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// An OCI image layout makes no sense.
    #[error("{source_name}: {problem}")]
    Layout {
        /// How it is called.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
    /// The engine refused, as for lack of space.
    #[error("{path}: {error}", path = Shown(path))]
    Engine {
        /// The file in the image.
        path: Vec<u8>,
        /// Why.
        error: extant::Error,
    },
    /// The file system has features that the engine does not write.
    #[error("can only be read: it uses {0}, which this version does not write")]
    OnlyReadable(String),
    /// The image cannot be laid out.
    #[error(transparent)]
    Mkfs(#[from] MkfsError),
    /// The device failed.
    #[error("device: {0}")]
    Device(#[from] DeviceError),
    /// A name that no directory can have.
    #[error("a name of {len} bytes; there can be 1 to 255")]
    Name {
        /// Its length.
        len: usize,
    },
    /// More names than an image can have.
    #[error("too many names")]
    TooMany,
    /// It was asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A thread has failed, which is a defect.
    #[error("a thread of the build has failed")]
    Thread,
}

/// One file that could not be read, or not as it is; the others go on.
#[derive(Debug, thiserror::Error)]
#[error("{source_name}{path}: {problem}", path = Shown(path))]
pub struct Failure {
    /// The source's name.
    pub source_name: String,
    /// The file in it, with a slash before each name.
    pub path: Vec<u8>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with one file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Reading it failed.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is shorter now than it was when it was looked at; zeros follow what could be read.
    #[error("became shorter while it was read")]
    Shorter,
    /// The image cannot have it.
    #[error("{0}")]
    Engine(#[from] extant::Error),
    /// The image cannot have one of its attributes.
    #[error("attribute {name}: {error}", name = Shown(name))]
    Attribute {
        /// Which.
        name: Vec<u8>,
        /// Why not.
        error: extant::Error,
    },
    /// An archive has an access list that makes no sense here; it is left out.
    #[error("access list: {0}")]
    AccessList(#[from] AclError),
    /// An archive has it in a form that makes no sense, or that no image has.
    #[error("{0}")]
    Archive(&'static str),
    /// It has a name that no directory can have.
    #[error("has a name of {len} bytes; there can be 1 to 255")]
    Name {
        /// Its length.
        len: usize,
    },
    /// It is the image that is built.
    #[error("is the image itself; left out")]
    Itself,
    /// It is not any more what its directory said.
    #[error("changed while it was read")]
    Changed,
    /// Something else has its name in the image.
    #[error("the image has something else there")]
    InTheWay,
}

impl From<rustix::io::Errno> for Problem {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Read(errno.into())
    }
}

/// Bytes as text that a terminal may see.
pub(super) struct Shown<'a>(pub(super) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0).replace(char::is_control, "?"))
    }
}
