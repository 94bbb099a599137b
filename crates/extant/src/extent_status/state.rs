//! [`BlockState`]: what one block of a file is, and how events change it.

use core::fmt;

use extant_format::PhysicalBlock;

use crate::trace::StatusFlags;

/// What a block of a file is; the four exclude each other.
///
/// Source: kernel `fs/ext4/extents_status.h`, `ES_TYPE_VALID`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BlockState {
    /// No place on the device, reads as zeros.
    Hole,
    /// Has data in memory and a promise of space, but no place yet.
    Delayed,
    /// Has a place, reads as zeros until its first write is done.
    Unwritten(PhysicalBlock),
    /// Has a place and data.
    Written(PhysicalBlock),
}

/// What happens to a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BlockEvent {
    /// A buffered write puts data into memory.
    Dirty,
    /// It gets a place; the data will follow, so it is not to be read from there yet.
    Allocate(PhysicalBlock),
    /// It gets a place that counts as written at once; ordered mode waits for the data.
    AllocateWritten(PhysicalBlock),
    /// Its data on the device is declared zero, but the place stays (zero range).
    Unwrite,
    /// A write to its place has finished.
    WriteDone,
    /// It is truncated or punched out.
    Punch,
}

impl BlockState {
    /// What the block is after `event`, or `None` where the event cannot happen: a bug of ours.
    pub(crate) fn after(self, event: BlockEvent) -> Option<Self> {
        use {BlockEvent::*, BlockState::*};
        match (self, event) {
            (Hole, Dirty) => Some(Delayed),
            (Delayed | Unwritten(_) | Written(_), Dirty) => Some(self),
            (Hole | Delayed, Allocate(at)) => Some(Unwritten(at)),
            (Hole | Delayed, AllocateWritten(at)) => Some(Written(at)),
            // A place once given is kept until it is punched out.
            (Unwritten(old), Allocate(at)) => (old == at).then_some(self),
            (Unwritten(old), AllocateWritten(at)) => (old == at).then_some(Written(at)),
            (Unwritten(at) | Written(at), Unwrite) => Some(Unwritten(at)),
            (Unwritten(at) | Written(at), WriteDone) => Some(Written(at)),
            (_, Punch) => Some(Hole),
            (Written(_), Allocate(_) | AllocateWritten(_)) => None,
            (Hole | Delayed, Unwrite | WriteDone) => None,
        }
    }

    /// Its place as events print it: 0 for none.
    pub(crate) fn traced_place(self) -> u64 {
        self.place().map_or(0, PhysicalBlock::get)
    }

    /// Its place on the device, if it has one.
    pub(crate) const fn place(self) -> Option<PhysicalBlock> {
        match self {
            Self::Hole | Self::Delayed => None,
            Self::Unwritten(at) | Self::Written(at) => Some(at),
        }
    }

    /// Whether it is delayed.
    pub(crate) fn is_delayed(self) -> bool {
        self == Self::Delayed
    }

    /// Whether it has a place on the device.
    pub(crate) const fn is_mapped(self) -> bool {
        self.place().is_some()
    }

    /// The state of the block that lies `blocks` further on in the same run.
    #[must_use]
    pub(crate) fn advanced(self, blocks: u32) -> Self {
        let further =
            |at: PhysicalBlock| at.checked_add(blocks.into()).expect("places on disk have 48 bits");
        match self {
            Self::Hole | Self::Delayed => self,
            Self::Unwritten(at) => Self::Unwritten(further(at)),
            Self::Written(at) => Self::Written(further(at)),
        }
    }
}

impl From<BlockState> for StatusFlags {
    fn from(state: BlockState) -> Self {
        match state {
            BlockState::Hole => Self::HOLE,
            BlockState::Delayed => Self::DELAYED,
            BlockState::Unwritten(_) => Self::UNWRITTEN,
            BlockState::Written(_) => Self::WRITTEN,
        }
    }
}

impl fmt::Display for BlockState {
    /// As the kernel's traces show it: a letter, after the place if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole => write!(f, "H"),
            Self::Delayed => write!(f, "D"),
            Self::Unwritten(at) => write!(f, "{at} U"),
            Self::Written(at) => write!(f, "{at} W"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BlockEvent::*;
    use BlockState::*;

    const A: PhysicalBlock = PhysicalBlock::new(100);
    const B: PhysicalBlock = PhysicalBlock::new(200);

    #[test]
    fn a_delayed_write_lives_from_hole_to_written() {
        let steps = [Dirty, Dirty, Allocate(A), WriteDone, Dirty, Unwrite, WriteDone, Punch];
        let seen: Vec<_> = steps
            .iter()
            .scan(Hole, |state, &event| {
                *state = state.after(event)?;
                Some(*state)
            })
            .collect();
        let (unwritten, written) = (Unwritten(A), Written(A));
        assert_eq!(seen, [Delayed, Delayed, unwritten, written, written, unwritten, written, Hole]);
    }

    #[test]
    fn impossible_steps_are_refused() {
        for (state, event) in [
            (Written(A), Allocate(B)),
            (Written(A), AllocateWritten(A)),
            (Unwritten(A), Allocate(B)),
            (Hole, WriteDone),
            (Delayed, WriteDone),
            (Delayed, Unwrite),
        ] {
            assert_eq!(state.after(event), None, "{state} {event:?}");
        }
    }
}
