//! Superblocks, descriptors and bitmaps of two images.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::cast::{u64_from, usize_from};
use extant_format::{BlockGroup, PhysicalBlock, Superblock, bitmap};

use super::fields::{self, Field};
use super::{Diff, Kind};
use crate::map::grid::set_runs;

impl Diff<'_, '_, '_> {
    /// The superblock, field by field, and what else lies in its block.
    pub(super) fn superblocks(
        &mut self,
        (left, right): (&dyn BlockDevice, &dyn BlockDevice),
    ) -> ControlFlow<()> {
        let sizes = (self.left.device_bytes(), self.right.device_bytes());
        if sizes.0 != sizes.1 {
            let shown = (format!("{} bytes", sizes.0), format!("{} bytes", sizes.1));
            self.tell(Kind::Other, "size of the device", shown)?;
        }
        let at = Superblock::OFFSET_BYTES;
        // Both were read when the readers were made.
        if let (Ok(a), Ok(b)) = (left.read_vec(at, 1024), right.read_vec(at, 1024)) {
            for field in fields::superblocks(&a, &b) {
                self.field(Kind::Superblock, None, "superblock", field)?;
            }
        }
        if !self.is_comparable() {
            let words = "structures lie elsewhere, and are not compared one by one";
            return self.tell(Kind::Superblock, "sizes of structures", (words, "others"));
        }
        let block = self.left.geometry().superblock_block().get();
        if self.claim(block, 1).is_empty() {
            return ControlFlow::Continue(());
        }
        let (a, b) = self.blocks(block);
        // A block of 1 KiB is the superblock alone; in a larger one other bytes are before and behind it.
        let within = usize::try_from(at).unwrap_or(0) & a.len().saturating_sub(1);
        let beside = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if let Some(own) = bytes.get_mut(within..within.saturating_add(1024)) {
                own.fill(0);
            }
            bytes
        };
        self.bytes_of(Kind::Unused, "bytes beside the superblock", &beside(&a), &beside(&b))
    }

    /// Descriptors and bitmaps, group by group, and copies of superblock and descriptors.
    pub(super) fn groups(&mut self) -> ControlFlow<()> {
        let geometry = *self.left.geometry();
        for group in self.common_groups() {
            let (index, within) = geometry.descriptor_place(group);
            let block = geometry.descriptor_block(index).get();
            if self.differs(block, 1) {
                let (a, b) = self.blocks(block);
                let end = within.saturating_add(usize_from(geometry.desc_size));
                let of = |bytes: &[u8]| bytes.get(within..end).unwrap_or_default().to_vec();
                for field in fields::descriptors(&of(&a), &of(&b)) {
                    let place = format!("descriptor of group {}", group.get());
                    self.field(Kind::Descriptor, Some(group), &place, field)?;
                }
            }
            self.copies(group)?;
        }
        for index in 0..geometry.desc_blocks {
            self.behind_descriptors(index)?;
        }
        self.common_groups().try_for_each(|group| self.bitmaps(group))
    }

    /// Takes a block of descriptors; what differs in it was told, but for what is behind the last group.
    fn behind_descriptors(&mut self, index: u32) -> ControlFlow<()> {
        let geometry = *self.left.geometry();
        let block = geometry.descriptor_block(index).get();
        if self.claim(block, 1).is_empty() {
            return ControlFlow::Continue(());
        }
        let first = index.saturating_mul(geometry.desc_per_block());
        let common = geometry.group_count.min(self.right.geometry().group_count);
        let told = common.saturating_sub(first).min(geometry.desc_per_block());
        let end = usize_from(told.saturating_mul(geometry.desc_size));
        let (mut a, mut b) = self.blocks(block);
        for bytes in [&mut a, &mut b] {
            bytes.get_mut(..end).unwrap_or_default().fill(0);
        }
        self.bytes_of(Kind::Unused, &format!("behind the descriptors in block {block}"), &a, &b)
    }

    /// The copies of superblock and descriptors at a group's start; each is one difference.
    fn copies(&mut self, group: BlockGroup) -> ControlFlow<()> {
        let geometry = *self.left.geometry();
        if group.get() == 0 {
            return ControlFlow::Continue(());
        }
        let first = geometry.first_block_of(group).get();
        if geometry.has_super(group) {
            self.copy(Kind::Superblock, group, first, "copy of the superblock")?;
        }
        for index in 0..geometry.desc_blocks {
            let Some(at) = geometry.descriptor_block_copy(index, group) else { continue };
            if at != geometry.descriptor_block(index) {
                self.copy(Kind::Descriptor, group, at.get(), "copy of descriptors")?;
            }
        }
        ControlFlow::Continue(())
    }

    fn copy(&mut self, kind: Kind, group: BlockGroup, block: u64, what: &str) -> ControlFlow<()> {
        if self.claim(block, 1).is_empty() {
            return ControlFlow::Continue(());
        }
        let place = format!("{what} in group {}, block {block}", group.get());
        let (a, b) = self.blocks(block);
        self.bytes_in(kind, Some(group), &place, &a, &b)
    }

    /// Both bitmaps of a group: which blocks and inodes only one has in use.
    fn bitmaps(&mut self, group: BlockGroup) -> ControlFlow<()> {
        let geometry = *self.left.geometry();
        let (a, b) = (self.left.descriptor(group), self.right.descriptor(group));
        let (Ok(left), Ok(right)) = (&a, &b) else {
            return self.unreadable(format!("descriptor of group {}", group.get()), (&a, &b));
        };
        let mut bits = (Vec::new(), Vec::new());
        let first = geometry.first_block_of(group).get();
        if self.left.block_bitmap(group, left, &mut bits.0).is_ok()
            && self.right.block_bitmap(group, right, &mut bits.1).is_ok()
        {
            let count = geometry.clusters_in(group).min(self.right.geometry().clusters_in(group));
            let block =
                |cluster: u32| first.saturating_add(u64::from(cluster) << geometry.cluster_bits);
            let place = |run: Range<u32>| runs("block", block(run.start)..block(run.end));
            self.bits(Kind::BlockBitmap, group, (&bits.0, &bits.1), count, &place)?;
        }
        let inodes = (self.left.block(left.inode_bitmap), self.right.block(right.inode_bitmap));
        let both_used =
            !left.inodes_are_uninitialized(&geometry) && !right.inodes_are_uninitialized(&geometry);
        if let (Ok(a), Ok(b), true) = (&inodes.0, &inodes.1, both_used) {
            let first = u64::from(group.get())
                .saturating_mul(geometry.inodes_per_group.into())
                .saturating_add(1);
            let number = |index: u32| first.saturating_add(index.into());
            let place = |run: Range<u32>| runs("inode", number(run.start)..number(run.end));
            self.bits(Kind::InodeBitmap, group, (a, b), geometry.inodes_per_group, &place)?;
        }
        let told = |is_unset: [bool; 2]| !is_unset[0] && !is_unset[1];
        let blocks = [left, right].map(|one| one.block_bitmap_is_uninitialized(&geometry));
        let inodes = [left, right].map(|one| one.inodes_are_uninitialized(&geometry));
        for (kind, at, other, told) in [
            (Kind::BlockBitmap, left.block_bitmap, right.block_bitmap, told(blocks)),
            (Kind::InodeBitmap, left.inode_bitmap, right.inode_bitmap, told(inodes)),
        ] {
            if at == other {
                self.claimed_bitmap(kind, group, at, told)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Runs of bits that only one side has set.
    fn bits(
        &mut self,
        kind: Kind,
        group: BlockGroup,
        (a, b): (&[u8], &[u8]),
        count: u32,
        place: &dyn Fn(Range<u32>) -> String,
    ) -> ControlFlow<()> {
        let only = |one: &[u8], other: &[u8]| -> Vec<u8> {
            one.iter().zip(other).map(|(one, other)| one & !other).collect()
        };
        let sides = [(only(a, b), ("in use", "free")), (only(b, a), ("free", "in use"))];
        for (bits, words) in sides {
            let found: Vec<_> = set_runs(&bits, count).collect();
            for (start, end) in found {
                let place =
                    format!("{} of group {}: {}", kind.word(), group.get(), place(start..end));
                self.tell_of(kind, (None, Some(group)), place, words)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes a bitmap's block. What is behind its bits means nothing, nor do bits of a bitmap that one side does not use.
    fn claimed_bitmap(
        &mut self,
        kind: Kind,
        group: BlockGroup,
        block: PhysicalBlock,
        told: bool,
    ) -> ControlFlow<()> {
        if self.claim(block.get(), 1).is_empty() {
            return ControlFlow::Continue(());
        }
        let geometry = self.left.geometry();
        let count = match kind {
            _ if !told => 0,
            Kind::BlockBitmap => geometry.clusters_in(group),
            _ => geometry.inodes_per_group,
        };
        let (mut a, mut b) = self.blocks(block.get());
        bitmap::clear(&mut a, 0..count);
        bitmap::clear(&mut b, 0..count);
        let place = format!("unused part of the {} of group {}", kind.word(), group.get());
        self.bytes_in(Kind::Unused, Some(group), &place, &a, &b)
    }

    /// The bytes of a block on both sides; none where one cannot be read.
    pub(super) fn blocks(&self, block: u64) -> (Vec<u8>, Vec<u8>) {
        let at = PhysicalBlock::new(block);
        let bytes = |read: Result<Vec<u8>, _>| read.unwrap_or_default();
        (bytes(self.left.block(at)), bytes(self.right.block(at)))
    }

    fn field(
        &mut self,
        kind: Kind,
        group: Option<BlockGroup>,
        place: &str,
        (name, left, right): Field,
    ) -> ControlFlow<()> {
        self.tell_of(kind, (None, group), format!("{place}: {name}"), (left, right))
    }

    /// Tells where bytes begin to differ, if they do.
    pub(super) fn bytes_of(
        &mut self,
        kind: Kind,
        place: &str,
        left: &[u8],
        right: &[u8],
    ) -> ControlFlow<()> {
        self.bytes_in(kind, None, place, left, right)
    }

    fn bytes_in(
        &mut self,
        kind: Kind,
        group: Option<BlockGroup>,
        place: &str,
        left: &[u8],
        right: &[u8],
    ) -> ControlFlow<()> {
        let Some(at) = first_difference(left, right) else { return ControlFlow::Continue(()) };
        let place = format!("{place}, byte {at}");
        self.tell_of(kind, (None, group), place, (around(left, at), around(right, at)))
    }

    /// Blocks that nobody has claimed: free on both sides, or in use by nobody known.
    pub(super) fn rest(&mut self) -> ControlFlow<()> {
        let geometry = *self.left.geometry();
        for range in self.differing.take_all() {
            let mut at = range.start;
            while at < range.end {
                let group = geometry.group_of(PhysicalBlock::new(at));
                let end = group.map_or(range.end, |group| {
                    let first = geometry.first_block_of(group).get();
                    first
                        .saturating_add(geometry.blocks_in(group).into())
                        .clamp(at.saturating_add(1), range.end)
                });
                self.unclaimed(group, at..end)?;
                at = end;
            }
        }
        ControlFlow::Continue(())
    }

    /// Unclaimed blocks of one group, in runs of one kind.
    fn unclaimed(&mut self, group: Option<BlockGroup>, range: Range<u64>) -> ControlFlow<()> {
        let Some(group) = group else {
            return self.tell(Kind::Unused, runs("block", range), ("some bytes", "others"));
        };
        let geometry = *self.left.geometry();
        let first = geometry.first_block_of(group).get();
        let mut bits = (Vec::new(), Vec::new());
        let (left, right) = (self.left, self.right);
        for (reader, bits) in [(left, &mut bits.0), (right, &mut bits.1)] {
            if let Ok(descriptor) = reader.descriptor(group) {
                // Bits that cannot be read are clear: the blocks are nobody's then.
                let _ = reader.block_bitmap(group, &descriptor, bits);
            }
        }
        let in_use = |block: u64| {
            let cluster = block.saturating_sub(first) >> geometry.cluster_bits;
            let cluster = u32::try_from(cluster).unwrap_or(u32::MAX);
            [&bits.0, &bits.1].iter().any(|bits| !bits.is_empty() && bitmap::test(bits, cluster))
        };
        let mut at = range.start;
        while at < range.end {
            let used = in_use(at);
            let end = (at..range.end).find(|block| in_use(*block) != used).unwrap_or(range.end);
            let (kind, words) = match used {
                true => (Kind::Other, "in use by nobody known"),
                false => (Kind::Unused, "free"),
            };
            let (a, b) = self.blocks(at);
            let byte = first_difference(&a, &b).unwrap_or(0);
            let place = format!("{}, {words}, byte {byte} of the first", runs("block", at..end));
            self.tell_of(kind, (None, Some(group)), place, (around(&a, byte), around(&b, byte)))?;
            at = end;
        }
        ControlFlow::Continue(())
    }
}

/// `block 7` or `blocks 7-9`.
pub(super) fn runs(noun: &str, range: Range<u64>) -> String {
    match range.end.saturating_sub(range.start) {
        0 | 1 => format!("{noun} {}", range.start),
        _ => format!("{noun}s {}-{}", range.start, range.end.saturating_sub(1)),
    }
}

/// Where bytes begin to differ.
pub(super) fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    let common = left.iter().zip(right).position(|(a, b)| a != b);
    common.or_else(|| (left.len() != right.len()).then(|| left.len().min(right.len())))
}

/// A few bytes from a place on, in hexadecimal digits.
pub(super) fn around(bytes: &[u8], at: usize) -> String {
    let part = bytes.get(at..).unwrap_or_default();
    let digits: String = part.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
    match (digits.is_empty(), u64_from(part.len()) > u64_from(SHOWN_BYTES)) {
        (true, _) => "nothing".to_string(),
        (false, true) => digits + "..",
        (false, false) => digits,
    }
}

const SHOWN_BYTES: usize = 8;
