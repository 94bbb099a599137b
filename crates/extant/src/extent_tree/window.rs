//! Pieces and joins of a few neighbouring extents, without any tree.

use extant_format::extent::{Extent, ExtentState};
use extant_format::{LogicalBlock, LogicalRange};
use smallvec::SmallVec;

/// Neighbouring extents, in order.
pub(super) type Window = SmallVec<[Extent; 5]>;

/// The part of `extent` inside `blocks`, if any.
pub(super) fn part(extent: Extent, blocks: LogicalRange) -> Option<Extent> {
    let blocks = extent.blocks.intersection(blocks)?;
    Some(Extent { blocks, start: extent.map(blocks.start())?, ..extent })
}

/// The parts of `extent` before and after `cut`, which lies inside it.
pub(super) fn around(extent: Extent, cut: LogicalRange) -> (Option<Extent>, Option<Extent>) {
    let before = LogicalRange::between(extent.blocks.start(), cut.start().get());
    let after = LogicalBlock::new(cut.end())
        .and_then(|start| LogicalRange::between(start, extent.blocks.end()));
    (before.and_then(|blocks| part(extent, blocks)), after.and_then(|blocks| part(extent, blocks)))
}

/// `extent` in pieces of which the one that is `middle` has become `state`; short enough for their states.
///
/// A written extent of 32,768 blocks is one too long to be unwritten, so its middle may be two pieces.
pub(super) fn pieces(extent: Extent, middle: LogicalRange, state: ExtentState) -> Window {
    let (before, after) = around(extent, middle);
    let mut pieces = Window::from_iter(before);
    let mut rest = part(extent, middle).map(|changed| Extent { state, ..changed });
    while let Some(piece) = rest {
        let len = piece.blocks.len().min(state.max_len());
        let head = LogicalRange::new(piece.blocks.start().get(), len).expect("a part of a range");
        pieces.extend(part(piece, head));
        rest = around(piece, head).1;
    }
    pieces.extend(after);
    pieces
}

/// Joins neighbours that can be one extent.
///
/// Source: kernel `ext4_can_extents_be_merged`.
pub(super) fn join(window: &mut Window) {
    let mut joined = Window::new();
    for &extent in window.iter() {
        match joined.last_mut() {
            Some(last) if can_join(last, &extent) => {
                let len = last.blocks.len() + extent.blocks.len();
                last.blocks = LogicalRange::new(last.blocks.start().get(), len)
                    .expect("both lie side by side");
            }
            _ => joined.push(extent),
        }
    }
    *window = joined;
}

pub(super) fn can_join(left: &Extent, right: &Extent) -> bool {
    left.state == right.state
        && left.blocks.end() == right.blocks.start().get()
        && left.device_blocks().is_some_and(|blocks| blocks.end() == right.start)
        && left.blocks.len() + right.blocks.len() <= left.state.max_len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExtentState::{Unwritten, Written};
    use extant_format::PhysicalBlock;

    fn extent(first: u32, len: u32, start: u64, state: ExtentState) -> Extent {
        Extent {
            blocks: LogicalRange::new(first, len).unwrap(),
            start: PhysicalBlock::new(start),
            state,
        }
    }

    fn check_join(window: &[Extent], expected: &[Extent]) {
        let mut window = Window::from_slice(window);
        join(&mut window);
        assert_eq!(window.as_slice(), expected);
    }

    #[test]
    fn neighbours_join_when_state_file_and_device_agree() {
        let (a, b) = (extent(0, 2, 10, Written), extent(2, 3, 12, Written));
        check_join(&[a, b], &[extent(0, 5, 10, Written)]);
        for other in
            [extent(3, 3, 12, Written), extent(2, 3, 13, Written), extent(2, 3, 12, Unwritten)]
        {
            check_join(&[a, other], &[a, other]);
        }
    }

    #[test]
    fn an_unwritten_extent_has_one_block_less_than_a_written_one() {
        for (state, fits) in [(Written, true), (Unwritten, false)] {
            let window = [extent(0, 16384, 0, state), extent(16384, 16384, 16384, state)];
            let whole = [extent(0, 32768, 0, state)];
            check_join(&window, if fits { &whole } else { &window });
        }
    }

    #[test]
    fn the_middle_of_an_extent_changes_alone() {
        let whole = extent(10, 3, 100, Unwritten);
        let middle = LogicalRange::new(11, 1).unwrap();
        let expected = [
            extent(10, 1, 100, Unwritten),
            extent(11, 1, 101, Written),
            extent(12, 1, 102, Unwritten),
        ];
        assert_eq!(pieces(whole, middle, Written).as_slice(), expected);
        assert_eq!(
            pieces(whole, whole.blocks, Written).as_slice(),
            [Extent { state: Written, ..whole }]
        );
    }

    #[test]
    fn a_full_written_extent_becomes_two_unwritten_ones() {
        let whole = extent(0, 32768, 100, Written);
        let expected = [extent(0, 32767, 100, Unwritten), extent(32767, 1, 32867, Unwritten)];
        assert_eq!(pieces(whole, whole.blocks, Unwritten).as_slice(), expected);
    }
}
