//! What a block needs before a write may put bytes into it.

use super::states::BlockFlags;

/// How much of a block a write covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Coverage {
    /// Nothing of it.
    Outside,
    /// Some of it.
    Partial,
    /// All of it.
    Whole,
}

/// What has to be done to a block next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PrepareStep {
    /// Nothing; it is ready.
    Nothing,
    /// Give it a place or a promise, then ask again.
    MapFirst,
    /// Zero what the write does not cover: there is nothing on the device yet.
    ZeroOutside,
    /// Read it from the device.
    Read,
}

/// What has to be done to a block next (D8.1 to D8.6). A folio is up to date when all its blocks are.
///
/// Source: kernel `ext4_block_write_begin`.
pub(crate) fn prepare_step(
    block: BlockFlags,
    coverage: Coverage,
    folio_uptodate: bool,
) -> PrepareStep {
    let has = |flag| block.contains(flag);
    match coverage {
        Coverage::Outside => PrepareStep::Nothing,
        Coverage::Partial | Coverage::Whole if !has(BlockFlags::MAPPED) => PrepareStep::MapFirst,
        Coverage::Whole => PrepareStep::Nothing,
        Coverage::Partial if folio_uptodate => PrepareStep::Nothing,
        Coverage::Partial if has(BlockFlags::NEW) => PrepareStep::ZeroOutside,
        Coverage::Partial if block.intersects(READABLE_AS_IT_IS) => PrepareStep::Nothing,
        Coverage::Partial => PrepareStep::Read,
    }
}

/// Its bytes are valid, or there is nothing on the device that could be read.
const READABLE_AS_IT_IS: BlockFlags =
    BlockFlags::UPTODATE.union(BlockFlags::DELAY).union(BlockFlags::UNWRITTEN);

#[cfg(test)]
mod tests {
    use super::*;
    use Coverage::{Outside, Partial, Whole};
    use PrepareStep::{MapFirst, Nothing, Read, ZeroOutside};

    fn check(block: BlockFlags, coverage: Coverage, folio_uptodate: bool, expected: PrepareStep) {
        let step = prepare_step(block, coverage, folio_uptodate);
        assert_eq!(step, expected, "{block:?} {coverage:?} {folio_uptodate}");
    }

    const MAPPED: BlockFlags = BlockFlags::MAPPED;

    #[test]
    fn d8_1_blocks_outside_the_write_are_left_alone() {
        check(BlockFlags::empty(), Outside, false, Nothing);
        check(MAPPED | BlockFlags::UPTODATE, Outside, true, Nothing);
    }

    #[test]
    fn d8_3_an_unmapped_block_is_mapped_first() {
        check(BlockFlags::empty(), Whole, false, MapFirst);
        check(BlockFlags::UPTODATE, Partial, true, MapFirst);
    }

    #[test]
    fn d8_4_a_new_block_is_zeroed_and_never_read() {
        check(MAPPED | BlockFlags::NEW, Partial, false, ZeroOutside);
        check(MAPPED | BlockFlags::NEW | BlockFlags::DELAY, Partial, false, ZeroOutside);
        check(MAPPED | BlockFlags::NEW, Whole, false, Nothing);
        check(MAPPED | BlockFlags::NEW, Partial, true, Nothing);
    }

    #[test]
    fn d8_6_only_a_partly_covered_written_block_is_read() {
        check(MAPPED, Partial, false, Read);
        check(MAPPED, Whole, false, Nothing);
        check(MAPPED | BlockFlags::UPTODATE, Partial, false, Nothing);
        check(MAPPED | BlockFlags::DELAY, Partial, false, Nothing);
        check(MAPPED | BlockFlags::UNWRITTEN, Partial, false, Nothing);
    }

    #[test]
    fn d8_10_a_delayed_block_with_data_is_ready() {
        let delayed = MAPPED | BlockFlags::DELAY | BlockFlags::UPTODATE | BlockFlags::DIRTY;
        check(delayed, Partial, false, Nothing);
    }
}
