//! [`Grid`]: an image as a few thousand cells, each with a share of each kind.

use alloc::vec::Vec;

use extant_format::{BlockGroup, Geometry, PhysicalRange, bitmap};

use super::{Kind, Owner, Visitor};

/// The most cells that there are, however large the image is.
pub const MOST_CELLS: u64 = 2048;
/// Cells in a row of a picture.
pub const COLUMNS: u64 = 64;

/// What the blocks of one cell are used for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cell {
    /// Blocks of each kind, by [`Kind::index`]; those of [`Kind::Other`] are known once all is counted ([`Grid::cells`]).
    pub kinds: [u64; Kind::ALL.len()],
    /// Blocks that bitmaps say are in use.
    pub in_use: u64,
    /// Blocks whose bitmap could not be read.
    pub unknown: u64,
    /// Blocks in the cell.
    pub blocks: u64,
}

impl Cell {
    /// Blocks that are free.
    pub const fn free(&self) -> u64 {
        self.blocks.saturating_sub(self.in_use).saturating_sub(self.unknown)
    }

    /// Blocks of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.kinds.get(kind.index()).copied().unwrap_or(0)
    }
}

/// An image in cells of equal size, the last one cut off.
///
/// A cell is a number of whole groups or a group is a number of whole cells, but for the end of a group that does not
/// divide.
#[derive(Clone, Debug)]
pub struct Grid {
    geometry: Geometry,
    per_cell: u64,
    cells: Vec<Cell>,
}

impl Grid {
    /// Empty cells for an image.
    pub fn new(geometry: &Geometry) -> Self {
        let first = u64::from(geometry.first_data_block);
        let blocks = geometry.blocks_count.saturating_sub(first).max(1);
        let group = u64::from(geometry.blocks_per_group).max(1);
        let groups = u64::from(geometry.group_count).max(1);
        let per_cell = match MOST_CELLS.checked_div(groups).unwrap_or(0) {
            // Several groups a cell: as many as a power of two has.
            0 => group.saturating_mul(groups.div_ceil(MOST_CELLS).next_power_of_two()),
            cells => group.div_ceil(1 << cells.min(group).ilog2()).max(1),
        };
        let count = blocks.div_ceil(per_cell);
        let cells = (0..count).map(|at| {
            let before = at.saturating_mul(per_cell);
            Cell { blocks: blocks.saturating_sub(before).min(per_cell), ..Cell::default() }
        });
        Self { geometry: *geometry, per_cell, cells: cells.collect() }
    }

    /// The image's sizes.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Blocks in each cell but the last.
    pub const fn blocks_per_cell(&self) -> u64 {
        self.per_cell
    }

    /// All cells in order.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = Cell> + '_ {
        self.cells.iter().map(|cell| {
            let mut whole = *cell;
            let known: u64 = whole.kinds.iter().sum();
            if let Some(other) = whole.kinds.get_mut(Kind::Other.index()) {
                *other = other.saturating_add(whole.in_use.saturating_sub(known));
            }
            whole
        })
    }

    /// All cells together.
    pub fn total(&self) -> Cell {
        self.cells().fold(Cell::default(), |mut sum, cell| {
            sum.blocks = sum.blocks.saturating_add(cell.blocks);
            sum.in_use = sum.in_use.saturating_add(cell.in_use);
            sum.unknown = sum.unknown.saturating_add(cell.unknown);
            for (sum, kind) in sum.kinds.iter_mut().zip(cell.kinds) {
                *sum = sum.saturating_add(kind);
            }
            sum
        })
    }

    /// The first block of a cell.
    pub fn first_block(&self, cell: u64) -> u64 {
        cell.saturating_mul(self.per_cell).saturating_add(self.geometry.first_data_block.into())
    }

    /// Calls `add` for each cell that has blocks of `start..end`, with how many.
    fn spread(&mut self, start: u64, end: u64, mut add: impl FnMut(&mut Cell, u64)) {
        let first = u64::from(self.geometry.first_data_block);
        let (mut at, end) = (start.saturating_sub(first), end.saturating_sub(first));
        while at < end {
            let cell = at / self.per_cell;
            let next = cell.saturating_add(1).saturating_mul(self.per_cell).min(end);
            let Some(found) = usize::try_from(cell).ok().and_then(|cell| self.cells.get_mut(cell))
            else {
                return;
            };
            add(found, next.saturating_sub(at));
            at = next;
        }
    }
}

impl Visitor for Grid {
    fn group(&mut self, group: BlockGroup, bits: Option<&[u8]>) {
        let geometry = self.geometry;
        let first = geometry.first_block_of(group).get();
        let blocks = u64::from(geometry.blocks_in(group));
        let Some(bits) = bits else {
            let unknown = |cell: &mut Cell, n| cell.unknown = cell.unknown.saturating_add(n);
            return self.spread(first, first.saturating_add(blocks), unknown);
        };
        for (start, end) in set_runs(bits, geometry.clusters_in(group)) {
            let block = |cluster: u32| (u64::from(cluster) << geometry.cluster_bits).min(blocks);
            let in_use = |cell: &mut Cell, n| cell.in_use = cell.in_use.saturating_add(n);
            self.spread(
                first.saturating_add(block(start)),
                first.saturating_add(block(end)),
                in_use,
            );
        }
    }

    fn used(&mut self, _: Owner, kind: Kind, blocks: PhysicalRange) {
        self.spread(blocks.start().get(), blocks.end().get(), |cell, n| {
            if let Some(count) = cell.kinds.get_mut(kind.index()) {
                *count = count.saturating_add(n);
            }
        });
    }
}

/// Runs of set bits among the first `count`.
pub(crate) fn set_runs(bits: &[u8], count: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
    let mut at = 0;
    core::iter::from_fn(move || {
        let start = bitmap::next_one(bits, at..count)?;
        let end = bitmap::next_zero(bits, start..count).unwrap_or(count);
        at = end;
        Some((start, end))
    })
}

/// A place in cells and thousandths of a cell, for drawings.
pub(crate) fn place_in(grid: &Grid, block: u64) -> (u64, u64) {
    let at = block.saturating_sub(grid.geometry.first_data_block.into());
    let within = at % grid.per_cell;
    (at / grid.per_cell, within.saturating_mul(1000) / grid.per_cell)
}

/// An index that cannot be past the end of memory.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

const _: () = assert!(MOST_CELLS.is_multiple_of(COLUMNS));
