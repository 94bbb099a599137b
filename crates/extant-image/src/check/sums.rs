//! Bitmaps and counts against what is in use, group by group.
//!
//! Counts are compared with the bitmaps as they are on disk, as e2fsck does: a wrong bit is one finding, not three.
//!
//! Source: e2fsprogs `e2fsck/pass5.c`.

use alloc::vec;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::{BlockGroup, Incompat, PhysicalBlock, bitmap};

use super::finding::{Place, Value};
use super::image::{Group, Image};
use super::report::Findings;
use super::rule::Rule;

/// What one worker has added up.
pub(super) struct Worker<'a, 'b> {
    image: &'a Image<'b>,
    pub(super) findings: Findings,
    pub(super) free_clusters: u64,
    pub(super) free_inodes: u64,
    pub(super) used_clusters: u64,
    block: Vec<u8>,
}

impl<'a, 'b> Worker<'a, 'b> {
    pub(super) fn new(image: &'a Image<'b>, limit: usize) -> Self {
        let block = vec![0; image.geometry.block_len()];
        let findings = Findings::new(limit);
        Self { image, findings, free_clusters: 0, free_inodes: 0, used_clusters: 0, block }
    }

    pub(super) fn group(&mut self, index: usize) -> Result<(), DeviceError> {
        let image = self.image;
        let Some(found) = image.groups.get(index) else { return Ok(()) };
        let group = BlockGroup(low_u32(u64_from(index)));
        self.blocks(group, found)?;
        self.inodes(group, found)
    }

    fn blocks(&mut self, group: BlockGroup, found: &Group) -> Result<(), DeviceError> {
        let (image, geometry) = (self.image, &self.image.geometry);
        let own = &found.descriptor;
        let used = image.usage.take(group);
        let count = geometry.clusters_in(group);
        self.used_clusters = self.used_clusters.saturating_add(used.count().into());
        let free = if own.block_bitmap_is_uninitialized(geometry) {
            self.uninitialized(group, &used)
        } else if found.has_block_bitmap {
            image.io.read(own.block_bitmap, &mut self.block)?;
            let sum = bitmap::block_bitmap_csum(geometry, &self.block);
            let expected = used.to_bits(self.block.len());
            let first = geometry.first_block_of(group).get();
            let (ratio, findings) = (u64::from(geometry.cluster_ratio()), &mut self.findings);
            let mut tell = |start: u32, end: u32, is_used: bool| {
                let rule = if is_used { Rule::BlockUnmarked } else { Rule::BlockMarked };
                let at = |n: u32| first.saturating_add(u64::from(n).saturating_mul(ratio));
                let run = Value::Run(at(start), at(end).saturating_sub(1));
                let place = Place::group(group).block(PhysicalBlock::new(at(start)));
                findings.add(rule, place, run, ());
            };
            each_difference(&expected, &self.block, count, &mut tell);
            let all = geometry.block_size << 3;
            if bitmap::next_zero(&self.block, count..all).is_some() {
                findings.add(Rule::BlockPadding, Place::group(group), (), ());
            }
            if !own.block_bitmap_matches(geometry, sum) {
                let (stored, sum) = (own.block_bitmap_csum.into(), Value::Bits(sum.into()));
                let place = Place::group(group);
                findings.add(Rule::BlockBitmapChecksum, place, Value::Bits(stored), sum);
            }
            bitmap::count_zeros(&self.block, 0..count)
        } else {
            return Ok(());
        };
        self.free_clusters = self.free_clusters.saturating_add(free.into());
        if free != own.free_clusters {
            let place = Place::group(group);
            self.findings.add(Rule::GroupFreeBlocks, place, own.free_clusters, free);
        }
        Ok(())
    }

    /// The free clusters of a group that has only blocks of the file system itself.
    fn uninitialized(&mut self, group: BlockGroup, used: &super::usage::ClusterSet) -> u32 {
        let (image, geometry) = (self.image, &self.image.geometry);
        let first = geometry.first_block_of(group);
        let bits = geometry.cluster_bits;
        let mut own = 0_u32;
        for run in used.runs() {
            let mut stray = None;
            for cluster in run.clone() {
                let start = first.get().saturating_add(u64::from(cluster) << bits);
                let len = u64::from(geometry.cluster_ratio());
                if image.is_metadata(PhysicalBlock::new(start), len) {
                    own += 1;
                } else {
                    stray = stray.or(Some(start));
                }
            }
            if let Some(start) = stray {
                let place = Place::group(group).block(PhysicalBlock::new(start));
                self.findings.add(Rule::BlockUninit, place, (), ());
            }
        }
        geometry.clusters_in(group).saturating_sub(own)
    }

    fn inodes(&mut self, group: BlockGroup, found: &Group) -> Result<(), DeviceError> {
        let (image, geometry) = (self.image, &self.image.geometry);
        let own = &found.descriptor;
        let facts = image.facts.get(usize_from(group.get()));
        let facts = facts.map(|facts| &**facts).unwrap_or_default();
        let count = geometry.inodes_per_group;
        let first = image.first_inode_of(group);
        let (free, directories) = if own.inodes_are_uninitialized(geometry) {
            (count, 0)
        } else if found.has_inode_bitmap {
            image.io.read(own.inode_bitmap, &mut self.block)?;
            let mut expected = vec![0; self.block.len()];
            for (n, _) in (0..).zip(facts).filter(|(_, fact)| fact.is_used()) {
                bitmap::set(&mut expected, n..n + 1);
            }
            let findings = &mut self.findings;
            let mut tell = |start: u32, end: u32, is_used: bool| {
                let rule = if is_used { Rule::InodeUnmarked } else { Rule::InodeMarked };
                let at = |n: u32| u64::from(first.saturating_add(n));
                let run = Value::Run(at(start), at(end).saturating_sub(1));
                findings.add(rule, Place::group(group), run, ());
            };
            each_difference(&expected, &self.block, count, &mut tell);
            let all = geometry.block_size << 3;
            if bitmap::next_zero(&self.block, count..all).is_some() {
                findings.add(Rule::InodePadding, Place::group(group), (), ());
            }
            let sum = bitmap::inode_bitmap_csum(geometry, &self.block);
            if !own.inode_bitmap_matches(geometry, sum) {
                let (stored, sum) = (own.inode_bitmap_csum.into(), Value::Bits(sum.into()));
                let place = Place::group(group);
                findings.add(Rule::InodeBitmapChecksum, place, Value::Bits(stored), sum);
            }
            let is_directory = |n: u32| facts.get(usize_from(n)).is_some_and(|f| f.is_directory());
            let marked = (0..low_u32(u64_from(facts.len())))
                .filter(|n| is_directory(*n) && bitmap::test(&self.block, *n));
            let directories = low_u32(u64_from(marked.count()));
            (bitmap::count_zeros(&self.block, 0..count), directories)
        } else {
            return Ok(());
        };
        self.free_inodes = self.free_inodes.saturating_add(free.into());
        let place = || Place::group(group);
        if free != own.free_inodes {
            self.findings.add(Rule::GroupFreeInodes, place(), own.free_inodes, free);
        }
        if directories != own.used_dirs {
            self.findings.add(Rule::GroupDirectories, place(), own.used_dirs, directories);
        }
        Ok(())
    }
}

/// Compares the sums of all groups with the superblock's.
pub(super) fn judge_totals(
    image: &Image<'_>,
    free_clusters: u64,
    free_inodes: u64,
    findings: &mut Findings,
) {
    // While a journal is in use these are brought up to date at the end alone, and every mount counts again.
    if image.incompat(Incompat::RECOVER) || image.groups.iter().any(|group| !group.is_sound()) {
        return;
    }
    let blocks = free_clusters.saturating_mul(image.geometry.cluster_ratio().into());
    let (stored, place) = (image.raw.free_blocks_count(), Place::superblock);
    if stored != blocks {
        findings.add(Rule::FreeBlocks, place(), stored, blocks);
    }
    let stored = u64::from(image.raw.free_inodes_count.get());
    if stored != free_inodes {
        findings.add(Rule::FreeInodes, place(), stored, free_inodes);
    }
}

/// Tells of each run of bits below `count` that differ, with whether they are set in `expected`.
fn each_difference(
    expected: &[u8],
    found: &[u8],
    count: u32,
    tell: &mut impl FnMut(u32, u32, bool),
) {
    let whole = usize_from(count >> 3);
    if expected.get(..whole) == found.get(..whole) && count.is_multiple_of(8) {
        return;
    }
    let mut run: Option<(u32, bool)> = None;
    for n in 0..count {
        let (wanted, there) = (bitmap::test(expected, n), bitmap::test(found, n));
        let now = (wanted != there).then_some(wanted);
        match run {
            Some((start, kind)) if now != Some(kind) => {
                tell(start, n, kind);
                run = now.map(|kind| (n, kind));
            }
            None => run = now.map(|kind| (n, kind)),
            Some(_) => {}
        }
    }
    if let Some((start, kind)) = run {
        tell(start, count, kind);
    }
}

impl Group {
    /// Whether all parts of the group lie where they may.
    fn is_sound(&self) -> bool {
        self.has_block_bitmap && self.has_inode_bitmap && self.has_table
    }
}
