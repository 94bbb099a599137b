//! Which blocks a file of a new file system has, and the tree or the pointers that say so.
//!
//! Source: kernel `Documentation/filesystems/ext4/ifork.rst`.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::extent::{self, Index, NodeMut, ROOT_CAPACITY};
use extant_format::indirect::DIRECT;
use extant_format::inode::{self, BLOCK_AREA_BYTES};
use extant_format::{Extent, ExtentState, Geometry, InodeNumber, LogicalRange, PhysicalBlock};

use super::space::Space;

/// The blocks of a file.
#[derive(Clone, Debug)]
pub(super) struct FileMap {
    /// What the inode's block area says.
    pub(super) area: [u8; BLOCK_AREA_BYTES],
    /// Blocks of the map itself, with their bytes.
    pub(super) nodes: Vec<(u64, Vec<u8>)>,
    /// Data, in the order of the file.
    pub(super) runs: Vec<Extent>,
    /// Blocks that are taken for all of it.
    pub(super) taken: u64,
}

impl FileMap {
    /// A file without blocks.
    pub(super) fn empty(geometry: &Geometry, inode: InodeNumber) -> Self {
        let has_extents = geometry.incompat.contains(extant_format::Incompat::EXTENTS);
        let mut area = [0; BLOCK_AREA_BYTES];
        if has_extents && inode != InodeNumber::BAD_BLOCKS {
            NodeMut::init(&mut area, 0);
        }
        Self { area, nodes: Vec::new(), runs: Vec::new(), taken: 0 }
    }

    /// Takes `len` blocks for a file, the first free ones from `goal` on; `None` if there are too few.
    pub(super) fn place(
        geometry: &Geometry,
        space: &mut Space,
        inode: InodeNumber,
        goal: u64,
        len: u64,
    ) -> Option<Self> {
        if geometry.incompat.contains(extant_format::Incompat::EXTENTS) {
            let runs = place_runs(geometry, space, goal, len)?;
            let goal = runs.last().map_or(0, |run| run.start.get());
            Self::of_runs(geometry, space, inode, runs, goal)
        } else {
            Self::with_pointers(geometry, space, goal, len)
        }
    }

    /// The extent tree over `runs`, whose blocks are taken already; its nodes are the first free blocks from `goal` on.
    pub(super) fn of_runs(
        geometry: &Geometry,
        space: &mut Space,
        inode: InodeNumber,
        runs: Vec<Extent>,
        goal: u64,
    ) -> Option<Self> {
        let ratio = u64::from(geometry.cluster_ratio());
        let data: u64 = runs.iter().map(|run| u64::from(run.blocks.len())).sum();
        let capacity = (geometry.block_len() - 12) / 12;
        let seed = inode::inode_seed(geometry.csum_seed, inode, 0);
        let mut map = Self { area: [0; BLOCK_AREA_BYTES], nodes: Vec::new(), runs, taken: 0 };
        let mut add = |map: &mut Self, mut bytes: Vec<u8>| {
            if geometry.has_metadata_csum() {
                extent::set_block_checksum(&mut bytes, seed);
            }
            let block = space.place(goal, 1)?;
            map.nodes.push((block, bytes));
            Some(PhysicalBlock::new(block))
        };
        if map.runs.len() <= ROOT_CAPACITY {
            fill_leaf(&mut map.area, &map.runs);
        } else {
            let mut level = Vec::new();
            for run in map.runs.clone().chunks(capacity) {
                let mut bytes = vec![0; geometry.block_len()];
                fill_leaf(&mut bytes, run);
                let child = add(&mut map, bytes)?;
                level.push(Index { first: run.first()?.blocks.start(), child });
            }
            let mut depth = 1;
            while level.len() > ROOT_CAPACITY {
                let mut above = Vec::new();
                for indexes in level.chunks(capacity) {
                    let mut bytes = vec![0; geometry.block_len()];
                    fill_index(&mut bytes, depth, indexes);
                    let child = add(&mut map, bytes)?;
                    above.push(Index { first: indexes.first()?.first, child });
                }
                (level, depth) = (above, depth + 1);
            }
            fill_index(&mut map.area, depth, &level);
        }
        map.taken = data.next_multiple_of(ratio) + u64_from(map.nodes.len()) * ratio;
        Some(map)
    }

    /// Takes data and blocks of pointers in the order in which a walk through the file comes upon them.
    fn with_pointers(geometry: &Geometry, space: &mut Space, goal: u64, len: u64) -> Option<Self> {
        let mut blocks =
            Blocks { space, goal, run: 0..0, left: len + geometry.indirect_blocks(len) };
        let data = |blocks: &mut Blocks<'_>| blocks.next();
        Self::of_pointers(geometry, &mut blocks, len, data)
    }

    /// Pointers to blocks that are somewhere already, such as bad ones.
    pub(super) fn of_blocks(geometry: &Geometry, space: &mut Space, data: &[u32]) -> Option<Self> {
        let len = u64_from(data.len());
        let mut blocks = Blocks { space, goal: 0, run: 0..0, left: geometry.indirect_blocks(len) };
        let mut data = data.iter().map(|block| u64::from(*block));
        Self::of_pointers(geometry, &mut blocks, len, |_| data.next())
    }

    fn of_pointers(
        geometry: &Geometry,
        blocks: &mut Blocks<'_>,
        len: u64,
        mut data: impl FnMut(&mut Blocks<'_>) -> Option<u64>,
    ) -> Option<Self> {
        let mut map =
            Self { area: [0; BLOCK_AREA_BYTES], nodes: Vec::new(), runs: Vec::new(), taken: 0 };
        let per_block = usize_from(geometry.block_size / 4);
        let mut left = len;
        let mut logical = 0;
        for slot in 0..usize_from(DIRECT) {
            if left == 0 {
                break;
            }
            put_pointer(&mut map.area, slot, map_data(&mut map.runs, &mut logical, data(blocks)?)?);
            left -= 1;
        }
        for level in 1..=3 {
            if left == 0 {
                break;
            }
            let mut tree =
                PointerTree { per_block, block_len: geometry.block_len(), left, logical };
            let top = tree.build(level, blocks, &mut map, &mut data)?;
            (left, logical) = (tree.left, tree.logical);
            put_pointer(&mut map.area, usize_from(DIRECT) + level - 1, top);
        }
        map.taken = len + u64_from(map.nodes.len());
        (left == 0).then_some(map)
    }

    /// The block of the file's data at `index`.
    pub(super) fn block(&self, index: u32) -> Option<u64> {
        let run = self.runs.iter().find(|run| {
            let start = run.blocks.start().get();
            (start..start + run.blocks.len()).contains(&index)
        })?;
        Some(run.start.get() + u64::from(index - run.blocks.start().get()))
    }
}

/// One of the three trees of pointers, while it is built.
struct PointerTree {
    per_block: usize,
    block_len: usize,
    left: u64,
    logical: u32,
}

impl PointerTree {
    /// A block of pointers and all below it; its number.
    fn build(
        &mut self,
        level: usize,
        blocks: &mut Blocks<'_>,
        map: &mut FileMap,
        data: &mut impl FnMut(&mut Blocks<'_>) -> Option<u64>,
    ) -> Option<u64> {
        let block = blocks.next()?;
        let place = map.nodes.len();
        map.nodes.push((block, Vec::new()));
        let mut bytes = vec![0; self.block_len];
        for slot in 0..self.per_block {
            if self.left == 0 {
                break;
            }
            let below = if level > 1 {
                self.build(level - 1, blocks, map, data)?
            } else {
                self.left -= 1;
                map_data(&mut map.runs, &mut self.logical, data(blocks)?)?
            };
            put_pointer(&mut bytes, slot, below);
        }
        map.nodes[place].1 = bytes;
        Some(block)
    }
}

/// Blocks one by one, taken by the run.
struct Blocks<'a> {
    space: &'a mut Space,
    goal: u64,
    run: core::ops::Range<u64>,
    left: u64,
}

impl Blocks<'_> {
    fn next(&mut self) -> Option<u64> {
        if self.run.is_empty() {
            self.run = self.space.take_some(self.goal, self.left.max(1))?;
            self.left = self.left.saturating_sub(self.run.end - self.run.start);
        }
        // Pointers have 32 bits.
        self.run.next().filter(|block| u32::try_from(*block).is_ok())
    }
}

/// Notes where the next block of the file is.
fn map_data(runs: &mut Vec<Extent>, logical: &mut u32, block: u64) -> Option<u64> {
    let next = *logical;
    *logical = next.checked_add(1)?;
    if let Some(last) = runs.last_mut()
        && last.start.get() + u64::from(last.blocks.len()) == block
    {
        last.blocks = LogicalRange::new(last.blocks.start().get(), last.blocks.len() + 1)?;
        return Some(block);
    }
    let blocks = LogicalRange::new(next, 1)?;
    runs.push(Extent { blocks, start: PhysicalBlock::new(block), state: ExtentState::Written });
    Some(block)
}

/// Takes `len` blocks: the first free runs from `goal` on.
fn place_runs(geometry: &Geometry, space: &mut Space, goal: u64, len: u64) -> Option<Vec<Extent>> {
    let most = longest(geometry);
    let (mut runs, mut done) = (Vec::new(), 0);
    while done < len {
        let run = space.take_some(goal, (len - done).min(most))?;
        done = push_run(&mut runs, done, run)?;
    }
    Some(runs)
}

/// The longest extent of a file that is written: whole clusters.
pub(super) fn longest(geometry: &Geometry) -> u64 {
    let most = ExtentState::Written.max_len();
    let rest = most % geometry.cluster_ratio();
    u64::from(if rest == most { most } else { most - rest })
}

/// Adds a run at a place of the file, and returns the place behind it.
pub(super) fn push_run(runs: &mut Vec<Extent>, at: u64, run: core::ops::Range<u64>) -> Option<u64> {
    let len = run.end - run.start;
    let blocks = LogicalRange::new(u32::try_from(at).ok()?, u32::try_from(len).ok()?)?;
    runs.push(Extent { blocks, start: PhysicalBlock::new(run.start), state: ExtentState::Written });
    Some(at + len)
}

fn fill_leaf(bytes: &mut [u8], extents: &[Extent]) {
    let mut node = NodeMut::init(bytes, 0);
    for (i, extent) in extents.iter().enumerate() {
        assert!(node.insert(i, *extent), "a leaf gets no more than fit");
    }
}

fn fill_index(bytes: &mut [u8], depth: u16, indexes: &[Index]) {
    let mut node = NodeMut::init(bytes, depth);
    for (i, index) in indexes.iter().enumerate() {
        assert!(node.insert(i, *index), "a node gets no more than fit");
    }
}

/// Stores a 32-bit block number; whoever stores one here has kept to the first 2^32 blocks.
pub(super) fn put_pointer(bytes: &mut [u8], slot: usize, block: u64) {
    bytes[slot * 4..slot * 4 + 4].copy_from_slice(&low_u32(block).to_le_bytes());
}
