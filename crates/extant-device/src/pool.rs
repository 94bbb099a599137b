//! [`FramePool`]: used frames, kept so that the next ones cost no allocation and no page fault.

use alloc::vec::Vec;

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::frame::Frame;
use crate::sync::Mutex;

/// Keeps up to a limit of frames of one length for reuse; other lengths pass through to the allocator.
#[derive(Debug)]
pub struct FramePool {
    frame_len: usize,
    limit: usize,
    free: Mutex<Free>,
    /// How many frames are free, for those who look without the lock.
    kept: AtomicUsize,
}

#[derive(Debug)]
struct Free {
    /// Each unique and of the pool's length.
    frames: Vec<Frame>,
    /// How few they were at the least since [`FramePool::release_unneeded`].
    least: usize,
}

impl FramePool {
    /// An empty pool that will keep at most `limit` frames of `frame_len` bytes.
    pub const fn new(frame_len: usize, limit: usize) -> Self {
        let free = Free { frames: Vec::new(), least: 0 };
        Self { frame_len, limit, free: Mutex::new(free), kept: AtomicUsize::new(0) }
    }

    /// A frame that holds a copy of `bytes`; the copy is all it costs when the pool has a frame.
    pub fn copy_from(&self, bytes: &[u8]) -> Frame {
        match self.reuse(bytes.len()) {
            Some(mut frame) => {
                frame.make_mut().copy_from_slice(bytes);
                frame
            }
            None => Frame::copy_from(bytes),
        }
    }

    /// A frame of `len` zeros.
    pub fn zeroed(&self, len: usize) -> Frame {
        match self.reuse(len) {
            Some(mut frame) => {
                frame.make_mut().fill(0);
                frame
            }
            None => Frame::zeroed(len),
        }
    }

    /// A unique frame of `len` bytes with *any* content, even an earlier holder's: for whoever overwrites every byte
    /// before anybody may look, and drops the frame if that fails.
    pub fn stale(&self, len: usize) -> Frame {
        self.reuse(len).unwrap_or_else(|| Frame::zeroed(len))
    }

    /// Takes `frame` back if nobody else holds it, it has the pool's length and there is room.
    pub fn recycle(&self, mut frame: Frame) {
        if frame.len() == self.frame_len && frame.unique_mut().is_some() {
            let mut free = self.free.lock();
            if free.frames.len() < self.limit {
                free.frames.push(frame);
                self.kept.store(free.frames.len(), Relaxed);
            }
        }
    }

    /// How many bytes of memory the kept frames hold.
    pub fn kept_bytes(&self) -> usize {
        self.kept.load(Relaxed) * self.frame_len
    }

    /// Frees half of the frames that nobody has needed since the last call.
    pub fn release_unneeded(&self) {
        let freed = {
            let mut free = self.free.lock();
            let keep = free.frames.len() - free.least.div_ceil(2);
            let freed = free.frames.split_off(keep);
            free.least = keep;
            self.kept.store(keep, Relaxed);
            freed
        };
        drop(freed); // after the lock
    }

    /// Frees kept frames until at most `bytes` are held.
    pub fn shrink_to(&self, bytes: usize) {
        let keep = bytes.checked_div(self.frame_len).unwrap_or(0);
        let freed = {
            let mut free = self.free.lock();
            let keep = keep.min(free.frames.len());
            free.least = free.least.min(keep);
            self.kept.store(keep, Relaxed);
            free.frames.split_off(keep)
        };
        drop(freed); // after the lock
    }

    fn reuse(&self, len: usize) -> Option<Frame> {
        if len != self.frame_len || self.kept.load(Relaxed) == 0 {
            return None;
        }
        let mut free = self.free.lock();
        let frame = free.frames.pop();
        free.least = free.least.min(free.frames.len());
        self.kept.store(free.frames.len(), Relaxed);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_buffer_is_used_again() {
        let pool = FramePool::new(4, 8);
        let frame = pool.copy_from(b"abcd");
        let place = frame.as_slice().as_ptr();
        pool.recycle(frame);
        let again = pool.copy_from(b"efgh");
        assert_eq!((again.as_slice(), again.as_slice().as_ptr()), (&b"efgh"[..], place));
        pool.recycle(again);
        assert_eq!(pool.zeroed(4).as_slice(), [0; 4]);
    }

    #[test]
    fn a_shared_frame_is_not_recycled() {
        let pool = FramePool::new(4, 8);
        let frame = pool.zeroed(4);
        pool.recycle(frame.clone());
        assert_eq!(pool.kept_bytes(), 0);
    }

    #[test]
    fn frames_that_nobody_needs_are_given_back_by_and_by() {
        let pool = FramePool::new(4, 9);
        (0..9).map(|_| Frame::zeroed(4)).for_each(|frame| pool.recycle(frame));
        pool.release_unneeded();
        assert_eq!(pool.kept_bytes(), 36, "they may be needed again");
        (0..5).map(|_| pool.stale(4)).collect::<Vec<_>>().into_iter().for_each(|f| pool.recycle(f));
        let kept = [(); 4].map(|()| {
            pool.release_unneeded();
            pool.kept_bytes() / 4
        });
        assert_eq!(kept, [7, 3, 1, 0], "of the first nine, four were left while five were in use");
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let pool = FramePool::new(4, 2);
        (0..5).map(|_| Frame::zeroed(4)).for_each(|frame| pool.recycle(frame));
        pool.recycle(Frame::zeroed(5));
        assert_eq!(pool.kept_bytes(), 8);
        pool.shrink_to(5);
        assert_eq!(pool.kept_bytes(), 4);
    }
}
