//! Block numbers in the log, and the ring `[first, last)` with its head, tail and free space.

use core::fmt;

/// A block's place in the journal, in blocks from its start; block 0 is the journal superblock.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogBlock(pub u32);

impl LogBlock {
    /// The journal superblock.
    pub const SUPERBLOCK: Self = Self(0);

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LogBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "J{}", self.0)
    }
}

/// Neighbouring blocks of the journal; never wraps, may be empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogRange {
    /// The first of them.
    pub start: LogBlock,
    /// How many.
    pub len: u32,
}

/// The circular part of the journal: blocks `[first, last)`, never empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogArea {
    first: u32,
    last: u32,
}

impl LogArea {
    /// The ring `[first, last)`, or `None` if it is empty or holds the superblock.
    pub const fn new(first: u32, last: u32) -> Option<Self> {
        if first >= 1 && first < last { Some(Self { first, last }) } else { None }
    }

    /// Its first block.
    pub const fn first(self) -> LogBlock {
        LogBlock(self.first)
    }

    /// The number after its last block.
    pub const fn end(self) -> u32 {
        self.last
    }

    /// How many blocks; at least one.
    pub const fn len(self) -> u32 {
        self.last.saturating_sub(self.first)
    }

    /// Never true; a ring has at least one block.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Whether `block` lies in the ring.
    pub const fn contains(self, block: LogBlock) -> bool {
        self.first <= block.0 && block.0 < self.last
    }

    /// The block `blocks` further on, going round.
    #[must_use]
    pub fn advance(self, block: LogBlock, blocks: u32) -> LogBlock {
        let offset = u64::from(block.0.saturating_sub(self.first)).saturating_add(blocks.into());
        let offset = offset.checked_rem(self.len().into()).expect("a ring is not empty");
        let offset = u32::try_from(offset).expect("below the length");
        LogBlock(self.first.saturating_add(offset))
    }

    /// How many steps lead from `from` to `to`, going round; less than the length.
    pub fn distance(self, from: LogBlock, to: LogBlock) -> u32 {
        match to.0.checked_sub(from.0) {
            Some(steps) => steps,
            None => self.len().saturating_sub(from.0.saturating_sub(to.0)),
        }
    }

    /// How many blocks lie from `block` up to where the ring turns, `block` included.
    pub fn until_turn(self, block: LogBlock) -> u32 {
        self.last.saturating_sub(block.0)
    }
}

/// Who owns the blocks of the ring: `[tail, head)` is in use, the rest is free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    pub(crate) area: LogArea,
    /// Where the next transaction goes.
    pub(crate) head: LogBlock,
    /// The oldest block that the superblock on disk may point to.
    pub(crate) tail: LogBlock,
    pub(crate) free: u32,
}

impl Log {
    /// An empty log that continues at `head`.
    pub(crate) fn empty(area: LogArea, head: LogBlock) -> Self {
        Self { area, head, tail: head, free: area.len() }
    }

    /// Takes `blocks` at the head and returns the first; one block always stays free, so that head and tail meet
    /// only when the log is empty.
    pub(crate) fn take(&mut self, blocks: u32) -> Option<LogBlock> {
        let free = self.free.checked_sub(blocks).filter(|&free| free > 0)?;
        let start = self.head;
        self.free = free;
        self.head = self.area.advance(start, blocks);
        Some(start)
    }

    /// How many blocks a new tail gives back.
    pub(crate) fn gain(&self, tail: LogBlock) -> u32 {
        self.area.distance(self.tail, tail)
    }

    /// Gives back what lies before `tail`.
    pub(crate) fn release_to(&mut self, tail: LogBlock) {
        self.free = self.free.saturating_add(self.gain(tail));
        self.tail = tail;
        assert_eq!(
            self.free,
            self.area.len().saturating_sub(self.area.distance(tail, self.head)),
            "log space"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_wraps_from_last_to_first() {
        let area = LogArea::new(1, 11).unwrap();
        assert_eq!(area.advance(LogBlock(9), 3), LogBlock(2));
        assert_eq!(area.distance(LogBlock(9), LogBlock(2)), 3);
        assert_eq!(area.until_turn(LogBlock(9)), 2);
        assert_eq!(LogArea::new(0, 5), None);
        assert_eq!(LogArea::new(5, 5), None);
    }

    #[test]
    fn log_space_comes_back_with_the_tail() {
        let mut log = Log::empty(LogArea::new(1, 11).unwrap(), LogBlock(8));
        assert_eq!(log.take(10), None);
        assert_eq!(log.take(9), Some(LogBlock(8)));
        assert_eq!((log.head, log.free), (LogBlock(7), 1));
        log.release_to(LogBlock(2));
        assert_eq!(log.free, 5);
        log.release_to(log.head);
        assert_eq!(log.free, 10);
    }
}
