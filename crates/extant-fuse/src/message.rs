//! Requests taken apart, answers put together.

use extant::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::abi::{InHeader, NOTIFY_INVAL_INODE, NotifyInvalInodeOut, OutHeader};

/// The rest of a request.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    /// The header of a request, and what follows it; `None` if it is cut off.
    pub fn split(message: &'a [u8]) -> Option<(InHeader, Self)> {
        let (header, rest) = InHeader::read_from_prefix(message).ok()?;
        Some((header, Self(rest)))
    }

    /// A structure from the front.
    ///
    /// # Errors
    /// `EIO` if the request ends before.
    pub fn take<T: FromBytes + Immutable>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::IO)?;
        self.0 = rest;
        Ok(value)
    }

    /// A name from the front, without its zero.
    ///
    /// # Errors
    /// `EIO` if it does not end.
    pub fn name(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::IO)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(name)
    }

    /// So many bytes from the front.
    ///
    /// # Errors
    /// `EIO` if there are fewer.
    pub fn bytes(&mut self, len: u32) -> Result<&'a [u8], Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::IO)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::IO)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// An answer in the making; its memory serves the next one too.
#[derive(Debug, Default)]
pub struct Answer {
    bytes: Vec<u8>,
    notice: Option<[u8; NOTICE]>,
}

/// Bytes of an answer's header.
const HEADER: usize = size_of::<OutHeader>();
/// Bytes of a message that attributes are old.
const NOTICE: usize = HEADER + size_of::<NotifyInvalInodeOut>();

impl Answer {
    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.notice = None;
    }

    /// Adds a structure.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.bytes.extend_from_slice(value.as_bytes());
    }

    /// Adds bytes.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets `fill` write up to `len` bytes at the end, and keeps as many as it says.
    pub(crate) fn fill(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, extant::Error>,
    ) -> Result<(), Errno> {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        let filled = fill(&mut self.bytes[start..]).map_err(|error| error.errno());
        self.bytes.truncate(start + *filled.as_ref().unwrap_or(&0));
        filled.map(drop)
    }

    /// Closes it as the answer to request `unique`.
    pub(crate) fn close(&mut self, unique: u64, outcome: Result<(), Errno>) {
        if outcome.is_err() {
            self.bytes.truncate(HEADER);
        }
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let error = outcome.err().map_or(0, |errno| -errno.0);
        self.bytes[..HEADER].copy_from_slice(OutHeader { len, error, unique }.as_bytes());
    }

    /// Tells the kernel that the attributes of an inode are not what it was told, by a message of its own.
    pub(crate) fn notify(&mut self, nodeid: u64) {
        let len = u32::try_from(NOTICE).unwrap_or(0);
        let head = OutHeader { len, error: NOTIFY_INVAL_INODE, unique: 0 };
        let what = NotifyInvalInodeOut { ino: nodeid, off: -1, len: 0 };
        let mut bytes = [0; NOTICE];
        bytes[..HEADER].copy_from_slice(head.as_bytes());
        bytes[HEADER..].copy_from_slice(what.as_bytes());
        self.notice = Some(bytes);
    }

    /// What the transport sends first, if anything. It may fail: the kernel may have forgotten the inode.
    pub fn notice(&self) -> Option<&[u8]> {
        self.notice.as_ref().map(|bytes| &bytes[..])
    }

    /// The whole of it, for the transport.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
