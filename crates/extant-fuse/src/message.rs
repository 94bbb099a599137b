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
pub struct Answer<'a> {
    room: Room<'a>,
    used: usize,
    notice: Option<[u8; NOTICE]>,
    /// It has more bytes than there is room for.
    is_too_long: bool,
}

/// Where an answer is put together. Bytes behind what is used are of earlier messages, so that room is not filled with zeros before it
/// is filled.
#[derive(Debug)]
enum Room<'a> {
    /// Memory of its own, which grows.
    Own(Vec<u8>),
    /// The transport's.
    Lent(&'a mut [u8]),
}

impl Default for Room<'_> {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Room<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(bytes) => bytes,
        }
    }

    /// Bytes from one position to another; `None` beyond what was lent.
    fn part(&mut self, start: usize, end: usize) -> Option<&mut [u8]> {
        if let Self::Own(bytes) = self
            && bytes.len() < end
        {
            bytes.resize(end, 0);
        }
        self.bytes_mut().get_mut(start..end)
    }
}

/// Bytes of an answer's header.
pub(crate) const HEADER: usize = size_of::<OutHeader>();
/// Bytes of a message that attributes are old.
const NOTICE: usize = HEADER + size_of::<NotifyInvalInodeOut>();

impl<'a> Answer<'a> {
    /// An answer in memory of the transport's, [`HEADER`] bytes or more. What does not fit becomes an error.
    pub(crate) fn within(room: &'a mut [u8]) -> Self {
        Self { room: Room::Lent(room), ..Self::default() }
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        (self.notice, self.is_too_long) = (None, false);
        if self.room(HEADER).is_some() {
            self.used = HEADER;
        }
    }

    /// Room for so many bytes at the end, which do not count yet.
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let room = self.room.part(self.used, self.used + len);
        self.is_too_long |= room.is_none();
        room
    }

    /// Adds a structure.
    pub fn put<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.put_bytes(value.as_bytes());
    }

    /// Adds bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        let Some(room) = self.room(bytes.len()) else { return };
        room.copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// Lets `fill` write up to `len` bytes at the end, and keeps as many as it says.
    pub(crate) fn fill(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, extant::Error>,
    ) -> Result<(), extant::Error> {
        let Some(room) = self.room(len) else { return Ok(()) };
        self.used += fill(room)?.min(len);
        Ok(())
    }

    /// Closes it as the answer to request `unique`.
    pub(crate) fn close(&mut self, unique: u64, outcome: Result<(), Errno>) {
        let outcome = if self.is_too_long { Err(Errno::IO) } else { outcome };
        if outcome.is_err() {
            self.used = HEADER;
        }
        let len = u32::try_from(self.used).unwrap_or(u32::MAX);
        let error = outcome.err().map_or(0, |errno| -errno.0);
        let header = OutHeader { len, error, unique };
        self.room.bytes_mut()[..HEADER].copy_from_slice(header.as_bytes());
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
        &self.room.bytes()[..self.used]
    }
}
