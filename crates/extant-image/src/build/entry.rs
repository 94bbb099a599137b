//! One file as a source tells of it: attributes, and contents or where they are.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use extant::namespace::NodeKind;
use extant_device::Frame;
use extant_format::Timestamp;

/// What is kept of a file besides its contents.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Permission bits with set-user, set-group and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Last access, where the source knows it.
    pub accessed: Option<Timestamp>,
    /// Extended attributes, access lists among them, as `getxattr` gives them.
    pub xattrs: Vec<Xattr>,
    /// Access lists in words, which may name users and groups.
    pub lists: Vec<AccessList>,
}

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);
/// An access list: the name of its attribute, and its words.
pub type AccessList = (&'static [u8], Vec<u8>);

/// A file that is no directory.
#[derive(Debug)]
pub struct Entry {
    pub attributes: Attributes,
    pub contents: Contents,
    /// Other names may have the same, and are one file then.
    pub link: Option<LinkKey>,
}

/// Tells files with several names apart: source, device and number, or source and place.
pub type LinkKey = (u16, u64, u64);

/// What is in a file.
#[derive(Debug)]
pub enum Contents {
    /// So many bytes, with zeros behind them up to a whole block.
    Bytes { bytes: Frame, len: usize },
    /// Bytes that are still to be read.
    Parts(Parts),
    /// Where a symbolic link leads.
    Symlink(Vec<u8>),
    /// A device, a pipe or a socket.
    Special(NodeKind),
}

/// The bytes of a file inside another one, of the same name or an archive.
#[derive(Clone, Debug)]
pub struct Parts {
    pub file: Arc<File>,
    /// Of the file that is made.
    pub size: u64,
    /// Where bytes are in the file that is made, in rising order, and where the first of each lies in `file`; holes lie between.
    pub runs: Vec<(Range<u64>, u64)>,
}
