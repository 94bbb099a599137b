//! The map of one file: an extent tree or indirect blocks, walked once and judged on the way.
//!
//! A node that was seen before, in this file or another, is not walked again, so no image makes the walk longer than its
//! own blocks.
//!
//! Source: e2fsprogs `e2fsck/pass1.c`, `scan_extent_node`, `process_block`, `has_unaligned_cluster_map`.

use alloc::vec;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_format::cast::usize_from;
use extant_format::extent::{self, NodeView};
use extant_format::inode::{BLOCK_AREA_BYTES, seed_of};
use extant_format::{
    Extent, ExtentState, FileType, Incompat, InodeFlags, InodeNumber, PhysicalBlock, indirect,
};

use super::finding::{Place, Value};
use super::image::{Image, Inode, le16, le32};
use super::report::Findings;
use super::rule::Rule;

/// Who hears of the blocks of a file.
pub(super) trait Sink {
    /// A run of data; its first `shared` blocks lie in a cluster that the file's run before has too.
    fn data(&mut self, logical: u32, start: PhysicalBlock, len: u32, shared: u32);

    /// A node of the map; whether it is to be walked.
    fn node(&mut self, block: PhysicalBlock) -> bool;
}

/// What a map adds up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mapped {
    /// Clusters of data and nodes.
    pub(super) clusters: u64,
    /// The number after the last mapped block.
    pub(super) end: u64,
    /// The last block that has been written, of what is no directory.
    pub(super) last_written: Option<u64>,
    /// A part could not be walked, so that the sums say nothing.
    pub(super) is_partial: bool,
}

/// Walks the map of `inode`, which has one.
pub(super) fn walk(
    image: &Image<'_>,
    inode: &Inode<'_>,
    findings: &mut Findings,
    sink: &mut dyn Sink,
) -> Result<Mapped, DeviceError> {
    let mut walk = Walk {
        image,
        inode: inode.number,
        seed: seed_of(inode.bytes, &image.geometry, inode.number),
        is_directory: inode.file_type() == Some(FileType::Directory),
        is_regular: inode.file_type() == Some(FileType::Regular),
        is_verity: inode.has(InodeFlags::VERITY),
        is_large: inode.core.size_high.get() != 0 || image.incompat(Incompat::LARGEDIR),
        eof: inode.size().div_ceil(image.geometry.block_size.into()),
        findings,
        sink,
        mapped: Mapped::default(),
        next: 0,
        previous: None,
    };
    if inode.has(InodeFlags::EXTENTS) && image.incompat(Incompat::EXTENTS) {
        walk.root(&inode.core.block)?;
    } else {
        walk.pointers(&inode.core.block)?;
    }
    Ok(walk.mapped)
}

struct Walk<'a, 'b> {
    image: &'a Image<'b>,
    inode: InodeNumber,
    seed: u32,
    is_directory: bool,
    is_regular: bool,
    is_verity: bool,
    is_large: bool,
    /// Blocks up to the end of file.
    eof: u64,
    findings: &'a mut Findings,
    sink: &'a mut dyn Sink,
    mapped: Mapped,
    /// The number after the last block seen in an extent.
    next: u64,
    /// The last run's last block in the file and on the device.
    previous: Option<(u64, u64)>,
}

/// What the parent of a node says of it.
#[derive(Clone, Copy)]
struct Bounds {
    depth: u16,
    start: u64,
    /// The last block, if the parent knows it.
    last: Option<u64>,
}

impl Walk<'_, '_> {
    fn place(&self) -> Place {
        Place::inode(self.inode)
    }

    fn root(&mut self, area: &[u8; BLOCK_AREA_BYTES]) -> Result<(), DeviceError> {
        let Some(node) = NodeView::trusted(area) else {
            self.findings.add(Rule::ExtentHeader, self.place(), (), ());
            self.mapped.is_partial = true;
            return Ok(());
        };
        if node.depth() > extent::MAX_DEPTH {
            let (found, most) = (node.depth(), extent::MAX_DEPTH);
            self.findings.add(Rule::ExtentDepth, self.place(), found, most);
            self.mapped.is_partial = true;
            return Ok(());
        }
        self.entries(node, Bounds { depth: node.depth(), start: 0, last: None }, None)
    }

    fn entries(
        &mut self,
        node: NodeView<'_>,
        bounds: Bounds,
        at: Option<PhysicalBlock>,
    ) -> Result<(), DeviceError> {
        let mut start = bounds.start;
        for i in 0..node.len() {
            let place = || match at {
                Some(block) => Place::inode(self.inode).block(block),
                None => Place::inode(self.inode),
            };
            if !node.is_leaf() {
                let place = place();
                self.child(node, i, bounds, &mut start, place)?;
                continue;
            }
            let Some(extent) = node.extent(i) else {
                let place = place();
                self.findings.add(Rule::ExtentEmpty, place, (), ());
                self.mapped.is_partial = true;
                continue;
            };
            match self.judge(&extent, bounds, start) {
                Some(rule) => {
                    let place = place().logical(extent.blocks.start().get());
                    let found = Value::from(extent.start);
                    self.findings.add(rule, place, found, ());
                    self.mapped.is_partial = true;
                }
                None => {
                    start = extent.blocks.last().get().into();
                    self.extent(&extent);
                }
            }
        }
        Ok(())
    }

    /// The rule that an extent breaks.
    fn judge(&self, extent: &Extent, bounds: Bounds, start: u64) -> Option<Rule> {
        let first = u64::from(extent.blocks.start().get());
        let (last, end) = (u64::from(extent.blocks.last().get()), extent.blocks.end());
        let past = bounds.last.is_some_and(|bound| last > bound);
        let may_pass = self.is_verity || extent.state == ExtentState::Unwritten;
        if !self.image.has_blocks(extent.start, 1) {
            Some(Rule::ExtentPlace)
        } else if first < start {
            Some(Rule::ExtentOrder)
        } else if past && !(last > self.eof && may_pass) {
            Some(Rule::ExtentBounds)
        } else if !self.image.has_blocks(extent.start, extent.blocks.len().into()) {
            Some(Rule::ExtentEnd)
        } else if first < self.next {
            Some(Rule::ExtentOverlap)
        } else if self.is_directory && extent.state == ExtentState::Unwritten {
            Some(Rule::UnwrittenDirectory)
        } else if self.is_directory && !self.is_large && u64::from(end) > self.most_directory() {
            Some(Rule::InodeSize)
        } else {
            None
        }
    }

    /// Blocks of the largest directory without `large_dir`: 2 GiB.
    fn most_directory(&self) -> u64 {
        1 << 31_u32.saturating_sub(self.image.geometry.block_bits)
    }

    /// Counts and claims an extent.
    fn extent(&mut self, extent: &Extent) {
        let (logical, len) = (extent.blocks.start().get(), extent.blocks.len());
        let (start, bits) = (extent.start.get(), self.image.geometry.cluster_bits);
        if self.is_directory && self.mapped.end < logical.into() {
            let place = self.place().logical(logical);
            self.findings.add(Rule::DirectoryGap, place, (), self.mapped.end);
        }
        self.data(logical, extent.start, len);
        let last = start.saturating_add(len.into()).saturating_sub(1);
        let relative =
            |block: u64| block.saturating_sub(self.image.geometry.first_data_block.into());
        let (first_cluster, last_cluster) = (relative(start) >> bits, relative(last) >> bits);
        let shared =
            self.previous.is_some_and(|(_, block)| relative(block) >> bits == first_cluster);
        let clusters = (last_cluster - first_cluster).saturating_add(1) - u64::from(shared);
        // The resize inode counts blocks of the file system itself, which no cluster holds together.
        let is_resize = self.inode == InodeNumber::RESIZE;
        let counted = if is_resize { len.into() } else { clusters };
        self.mapped.clusters = self.mapped.clusters.saturating_add(counted);
        self.next = extent.blocks.end().into();
        self.mapped.end = self.next;
        self.previous = Some((self.next.saturating_sub(1), last));
        if !self.is_directory && extent.state == ExtentState::Written {
            self.mapped.last_written = Some(self.next.saturating_sub(1));
        }
    }

    /// Tells of a run, and how much of it lies in a cluster that was told of before.
    fn data(&mut self, logical: u32, start: PhysicalBlock, len: u32) {
        let geometry = &self.image.geometry;
        let bits = geometry.cluster_bits;
        let mask = (1_u64 << bits) - 1;
        let relative = start.get().saturating_sub(geometry.first_data_block.into());
        // Boot blocks of 1 KiB are outside the clusters, so both counts start where group 0 does.
        let is_askew = bits > 0 && (u64::from(logical) ^ relative) & mask != 0;
        if is_askew && self.inode != InodeNumber::RESIZE {
            let place = self.place().logical(logical).block(start);
            self.findings.add(Rule::ClusterAlignment, place, (), ());
        }
        let cluster_of =
            |block: u64| block.saturating_sub(geometry.first_data_block.into()) >> bits;
        let same = self.previous.is_some_and(|(before, block)| {
            cluster_of(block) == relative >> bits && before >> bits == u64::from(logical) >> bits
        });
        let shared = if same { (mask + 1 - (relative & mask)).min(len.into()) } else { 0 };
        self.sink.data(logical, start, len, u32::try_from(shared).unwrap_or(len));
    }

    /// Walks the child at entry `i`.
    fn child(
        &mut self,
        node: NodeView<'_>,
        i: usize,
        bounds: Bounds,
        start: &mut u64,
        place: Place,
    ) -> Result<(), DeviceError> {
        let Some(index) = node.index(i) else {
            self.findings.add(Rule::ExtentOrder, place, (), ());
            self.mapped.is_partial = true;
            return Ok(());
        };
        let first = index.first.get();
        let place = place.logical(first);
        if !self.image.has_blocks(index.child, 1) {
            self.findings.add(Rule::ExtentPlace, place, index.child, ());
            self.mapped.is_partial = true;
            return Ok(());
        }
        if u64::from(first) < *start {
            self.findings.add(Rule::ExtentOrder, place, first, ());
            self.mapped.is_partial = true;
            return Ok(());
        }
        *start = first.into();
        self.mapped.clusters = self.mapped.clusters.saturating_add(1);
        if !self.sink.node(index.child) {
            self.mapped.is_partial = true;
            return Ok(());
        }
        let next = node.first_block(i.saturating_add(1)).map(|next| u64::from(next.get()));
        let last = next.map_or(bounds.last, |next| next.checked_sub(1));
        let inner = Bounds { depth: bounds.depth.saturating_sub(1), start: first.into(), last };
        self.node(index.child, inner)
    }

    /// Walks a node in a block of its own.
    fn node(&mut self, block: PhysicalBlock, bounds: Bounds) -> Result<(), DeviceError> {
        let bytes = self.image.io.block(block)?;
        let place = || Place::inode(self.inode).block(block);
        let node = NodeView::trusted(&bytes).filter(|node| !node.is_empty());
        let fits = node.filter(|node| node.capacity() == (bytes.len() - 12) / 12);
        let Some(node) = fits else {
            let place = place();
            self.findings.add(Rule::ExtentHeader, place, (), ());
            self.mapped.is_partial = true;
            return Ok(());
        };
        if node.depth() != bounds.depth {
            let place = place();
            self.findings.add(Rule::ExtentDepth, place, node.depth(), bounds.depth);
            self.mapped.is_partial = true;
            return Ok(());
        }
        let found = self.findings.count();
        if node.first_block(0).map(|first| u64::from(first.get())) != Some(bounds.start) {
            let first = le32(&bytes, 12).unwrap_or(0);
            let place = place();
            self.findings.add(Rule::ExtentIndex, place, first, bounds.start);
        }
        self.entries(node, bounds, Some(block))?;
        let summed = self.image.geometry.has_metadata_csum();
        let is_new = self.findings.count() == found;
        if summed && is_new && !extent::verify_block_checksum(&bytes, self.seed) {
            let place = self.place().block(block);
            self.findings.add(Rule::ExtentChecksum, place, (), ());
        }
        Ok(())
    }

    /// Walks the pointers of an inode without extents.
    fn pointers(&mut self, area: &[u8; BLOCK_AREA_BYTES]) -> Result<(), DeviceError> {
        let area = *area;
        let mut run = Run::default();
        for slot in 0..indirect::DIRECT {
            self.pointer(indirect::pointer(&area, slot), slot.into(), &mut run);
        }
        let per_block = u64::from(self.image.geometry.block_size >> 2);
        let mut logical = u64::from(indirect::DIRECT);
        for (slot, level) in (indirect::DIRECT..).zip(1..=3) {
            let pointer = indirect::pointer(&area, slot);
            self.indirect(pointer, level, logical, &mut run)?;
            logical = logical.saturating_add(per_block.saturating_pow(level));
        }
        self.flush(&mut run);
        Ok(())
    }

    fn indirect(
        &mut self,
        pointer: Option<PhysicalBlock>,
        level: u32,
        logical: u64,
        run: &mut Run,
    ) -> Result<(), DeviceError> {
        let Some(block) = pointer else { return Ok(()) };
        if !self.image.has_blocks(block, 1) {
            let place = self.place().logical(clip(logical));
            self.findings.add(Rule::BlockNumber, place, block, ());
            self.mapped.is_partial = true;
            return Ok(());
        }
        self.flush(run);
        self.mapped.clusters = self.mapped.clusters.saturating_add(1);
        self.previous = Some((logical, block.get()));
        if !self.sink.node(block) {
            self.mapped.is_partial = true;
            return Ok(());
        }
        let bytes = self.image.io.block(block)?;
        let per_block = self.image.geometry.block_size >> 2;
        let reach = u64::from(per_block).saturating_pow(level - 1);
        let mut at = logical;
        for slot in 0..per_block {
            let pointer = indirect::pointer(&bytes, slot);
            if level == 1 {
                self.pointer(pointer, at, run);
            } else {
                self.indirect(pointer, level - 1, at, run)?;
            }
            at = at.saturating_add(reach);
        }
        Ok(())
    }

    /// Adds one block of data to the run, or tells of the run and begins another.
    fn pointer(&mut self, pointer: Option<PhysicalBlock>, logical: u64, run: &mut Run) {
        let Some(block) = pointer else { return };
        let too_far = !self.is_directory && !self.is_regular && logical > 0
            || logical >= u32::MAX.into()
            || self.is_directory && !self.is_large && logical > self.most_directory();
        let rule = if !self.image.has_blocks(block, 1) {
            Some(Rule::BlockNumber)
        } else {
            too_far.then_some(Rule::InodeSize)
        };
        if let Some(rule) = rule {
            let place = self.place().logical(clip(logical));
            self.findings.add(rule, place, block, ());
            self.mapped.is_partial = true;
            return;
        }
        let follows = run.len > 0
            && u64::from(run.logical) + u64::from(run.len) == logical
            && run.start + u64::from(run.len) == block.get();
        if follows {
            run.len += 1;
        } else {
            self.flush(run);
            *run = Run { logical: clip(logical), start: block.get(), len: 1 };
        }
    }

    fn flush(&mut self, run: &mut Run) {
        if run.len == 0 {
            return;
        }
        let blocks = extant_format::LogicalRange::new(run.logical, run.len);
        let start = PhysicalBlock::new(run.start);
        if let Some(blocks) = blocks {
            // Holes are no fault of a directory without extents here: its own pass finds them.
            self.mapped.end = self.mapped.end.max(run.logical.into());
            self.extent(&Extent { blocks, start, state: ExtentState::Written });
        }
        *run = Run::default();
    }
}

/// Data blocks that follow each other in the file and on the device.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    logical: u32,
    start: u64,
    len: u32,
}

fn clip(logical: u64) -> u32 {
    u32::try_from(logical).unwrap_or(u32::MAX)
}

/// Whether an inode's block area looks like the root of an extent tree.
pub(super) fn looks_like_extents(area: &[u8; BLOCK_AREA_BYTES]) -> bool {
    let max = le16(area, 4).map_or(0, usize::from);
    NodeView::trusted(area).is_some_and(|node| node.depth() <= extent::MAX_DEPTH)
        && max == extent::ROOT_CAPACITY
        && le16(area, 2).is_some_and(|entries| entries > 0)
}

/// Runs of a file, for those who only want to know where it lies.
#[derive(Debug, Default)]
pub(super) struct Runs(pub(super) DirRuns, pub(super) Vec<PhysicalBlock>);

/// Runs in order: the first block of the file and of the device, and how many.
pub(super) type DirRuns = Vec<(u32, PhysicalBlock, u32)>;

impl Sink for Runs {
    fn data(&mut self, logical: u32, start: PhysicalBlock, len: u32, _: u32) {
        self.0.push((logical, start, len));
    }

    fn node(&mut self, block: PhysicalBlock) -> bool {
        let new = !self.1.contains(&block) && self.1.len() < MOST_NODES;
        if new {
            self.1.push(block);
        }
        new
    }
}

/// Nodes of a file of the file system itself, which is never so large.
const MOST_NODES: usize = 1 << 12;

/// The blocks of a file in order, up to its end, if each is there.
pub(super) fn whole(runs: &[(u32, PhysicalBlock, u32)], blocks: u32) -> Option<Vec<PhysicalBlock>> {
    let mut all = vec![];
    for &(logical, start, len) in runs {
        if usize_from(logical) != all.len() {
            return None;
        }
        let room = blocks.saturating_sub(logical).min(len);
        all.extend((0..room).filter_map(|n| start.checked_add(n.into())));
    }
    (all.len() == usize_from(blocks)).then_some(all)
}
