//! [`Frame`]: reference-counted bytes, and [`FrameSlice`], a part of one.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// The bytes of one piece (a metadata block, a part of a folio): of fixed length, cloned by sharing.
///
/// Whoever changes a frame does so in place while nobody else holds it; else the frame is first replaced by a copy, and the
/// other holders keep the old bytes. The count of holders lies before the bytes, so that who shares a frame need not fetch
/// another line of memory for it.
#[derive(Clone, Eq, PartialEq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// A frame of `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self(core::iter::repeat_n(0, len).collect())
    }

    /// A frame that holds a copy of `bytes`; nothing is zeroed first.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes for changing: in place when nobody else holds the frame, else of a copy that replaces it.
    pub fn make_mut(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.0)
    }

    /// The bytes for changing, or `None` while somebody else holds the frame.
    pub fn unique_mut(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.0)
    }

    /// Whether somebody else holds the frame, so that a change would copy it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether both are the same bytes in memory, not just equal ones.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of `range`, sharing this frame.
    pub fn slice(&self, range: Range<usize>) -> FrameSlice {
        FrameSlice::new(self.clone(), range.start, range.len())
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::from(bytes))
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}

/// A part of a frame, which it shares; always within it.
#[derive(Clone, Debug)]
pub struct FrameSlice {
    frame: Frame,
    start: usize,
    len: usize,
}

impl FrameSlice {
    /// `len` bytes of `frame` from `start` on.
    ///
    /// # Panics
    /// If they are not all within the frame.
    pub fn new(frame: Frame, start: usize, len: usize) -> Self {
        let end = start.checked_add(len);
        assert!(end.is_some_and(|end| end <= frame.len()), "{start}+{len} is not within {frame:?}");
        Self { frame, start, len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.frame.as_slice()[self.start..self.start + self.len]
    }

    /// The frame that this is a part of.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Gives back the hold on the frame.
    pub fn into_frame(self) -> Frame {
        self.frame
    }

    /// Where in the frame it starts.
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl AsRef<[u8]> for FrameSlice {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<Frame> for FrameSlice {
    fn from(frame: Frame) -> Self {
        let len = frame.len();
        Self { frame, start: 0, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_frame_changes_in_place() {
        let mut frame = Frame::copy_from(b"abc");
        let place = frame.as_slice().as_ptr();
        frame.make_mut()[0] = b'x';
        assert_eq!((frame.as_slice(), frame.as_slice().as_ptr()), (&b"xbc"[..], place));
    }

    #[test]
    fn a_shared_frame_is_replaced_by_a_copy() {
        let mut frame = Frame::zeroed(3);
        let kept = frame.slice(1..3);
        assert!(frame.is_shared() && frame.unique_mut().is_none());
        frame.make_mut().fill(7);
        assert_eq!((frame.as_slice(), kept.as_slice()), (&[7, 7, 7][..], &[0, 0][..]));
        assert!(!frame.is_shared());
    }
}
