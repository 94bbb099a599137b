//! Runs of a file that are known by their place, for the replay of fast commits.
//!
//! Nothing is allocated or freed here but nodes of the tree: what a file lost is told, since the next record may give it to
//! another. Nothing is noted in memory, and what was known of the range is forgotten (D11.11).
//!
//! Source: kernel `fs/ext4/fast_commit.c`, `ext4_fc_replay_add_range`, `ext4_fc_replay_del_range`; `extents.c`,
//! `ext4_ext_replay_update_ex`. Differs: a run is taken out and put in whole, whatever was there.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use extant_format::corruption::{Place, Rule};
use extant_format::extent::Extent;
use extant_format::inode::InodeFlags;
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock, PhysicalRange};

use super::Mapper;
use crate::Error;
use crate::extent_tree::{Joining, Located, NodeSpace, Walk, charge, refund};
use crate::inode::Inode;
use crate::transaction::Handle;

impl Mapper {
    /// Makes `blocks` of the file a hole; returns the device blocks that it has no more, in whole clusters.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for a file of indirect blocks; of the tree.
    /// # Locks
    /// Takes `Inode::map` for writing.
    pub(crate) fn take_out(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        blocks: LogicalRange,
    ) -> Result<Vec<PhysicalRange>, Error> {
        if !inode.flags().contains(InodeFlags::EXTENTS) {
            return Err(Error::NotSupported("fast commits of a file of indirect blocks"));
        }
        let _map = inode.map.write();
        self.forget(inode, blocks);
        let tree = self.tree(inode);
        if let Some(behind) = LogicalBlock::new(blocks.end()) {
            let nearest = tree.nearest(&tree.find(behind)?);
            if nearest.is_some_and(|extent| extent.blocks.contains(blocks.last())) {
                tree.split_at(handle, behind)?;
            }
        }
        let (mut lost, mut seen) = (Vec::new(), BTreeSet::new());
        let mut path = tree.find(blocks.last())?;
        let mut walk = Walk::at(&path, true);
        loop {
            let cut = tree.plan_cut(handle, &path, blocks, false)?;
            let next = match cut.is_short {
                true => Some(blocks.last()),
                false => walk.next(&tree, &path, cut.empties),
            };
            tree.apply_cut(handle, &path, &cut)?;
            for (extent, from) in cut.removed {
                let part = LogicalRange::between(from, extent.blocks.end());
                let (blocks, start) = part.zip(extent.map(from)).expect("a block of the extent");
                let part = Extent { blocks, start, ..extent };
                self.own_clusters(inode, &part, &mut seen, &mut lost)?;
            }
            let Some(next) = next else { break };
            path = tree.find(next)?;
        }
        refund(inode, self.geometry(), self.count(&lost));
        self.inodes.store(handle, inode)?;
        Ok(lost)
    }

    /// Lets the file have `extent`, whose blocks are a hole now; returns the device blocks that it did not have, in whole
    /// clusters.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file may not own the place; of the tree.
    /// # Locks
    /// Takes `Inode::map` for writing.
    pub(crate) fn put_in(
        &self,
        handle: &mut Handle<'_>,
        inode: &Inode,
        extent: Extent,
    ) -> Result<Vec<PhysicalRange>, Error> {
        if let Some(places) = extent.device_blocks() {
            self.check_place(inode, places)?;
        }
        // Blocks lie in their cluster where they lie in the file's.
        let place = extent.start.get().wrapping_sub(self.geometry().first_data_block.into());
        let start = u64::from(extent.blocks.start().get());
        let is_aligned = (place ^ start) & (u64::from(self.ratio().blocks()) - 1) == 0;
        Place::InodeBlock(inode.number(), extent.start).require(is_aligned, Rule::ExtentPlace)?;
        let _map = inode.map.write();
        self.forget(inode, extent.blocks);
        let mut new = Vec::new();
        self.own_clusters(inode, &extent, &mut BTreeSet::new(), &mut new)?;
        charge(inode, self.geometry(), self.count(&new));
        let tree = self.tree(inode);
        let path = tree.find(extent.blocks.start())?;
        tree.insert(handle, &path, extent, Joining::Now, NodeSpace::Reserved)?;
        self.inodes.store(handle, inode)?;
        Ok(new)
    }

    /// Adds the clusters of `extent`, which the tree does not have, to `clusters`, but for those of which the file has other
    /// blocks, and those at its ends that were `seen`.
    ///
    /// Between two records of a commit, blocks of one cluster of the file may lie in two on the device.
    fn own_clusters(
        &self,
        inode: &Inode,
        extent: &Extent,
        seen: &mut BTreeSet<u64>,
        clusters: &mut Vec<PhysicalRange>,
    ) -> Result<(), Error> {
        let ratio = self.ratio();
        if ratio.blocks() == 1 {
            clusters.extend(extent.device_blocks());
            return Ok(());
        }
        let ends = [extent.blocks.start(), extent.blocks.last()].map(|block| ratio.around(block));
        for end in ends {
            let part = end.intersection(extent.blocks).expect("an end of the extent");
            let place = self.cluster_at(extent.map(part.start()).expect("a part of the extent"));
            if seen.insert(place.start().get()) && !self.has_block_in(inode, end, place)? {
                clusters.push(place);
            }
        }
        let inner = LogicalBlock::new(ends[0].end())
            .and_then(|start| LogicalRange::between(start, ends[1].start().get()));
        let start = inner.and_then(|inner| extent.map(inner.start()));
        clusters.extend(
            inner
                .zip(start)
                .and_then(|(inner, start)| PhysicalRange::new(start, inner.len().into())),
        );
        Ok(())
    }

    /// Whether a block of the file's cluster `blocks` lies in the device's cluster `place`.
    fn has_block_in(
        &self,
        inode: &Inode,
        blocks: LogicalRange,
        place: PhysicalRange,
    ) -> Result<bool, Error> {
        let tree = self.tree(inode);
        let mut next = Some(blocks.start());
        while let Some(block) = next.filter(|block| blocks.contains(*block)) {
            let path = tree.find(block)?;
            let end = match tree.at(&path, block) {
                Located::Extent(extent) => {
                    if extent.map(block).is_some_and(|at| place.contains(at)) {
                        return Ok(true);
                    }
                    extent.blocks.end()
                }
                Located::Hole(gap) => gap.end(),
            };
            next = LogicalBlock::new(end);
        }
        Ok(false)
    }

    /// The cluster of the device that holds a block.
    fn cluster_at(&self, block: PhysicalBlock) -> PhysicalRange {
        let base = u64::from(self.geometry().first_data_block);
        let ratio = u64::from(self.ratio().blocks());
        let start = block.get().saturating_sub(base) / ratio * ratio + base;
        PhysicalRange::new(PhysicalBlock::new(start), ratio).expect("a block of the volume")
    }

    fn count(&self, blocks: &[PhysicalRange]) -> u64 {
        let ratio = u64::from(self.ratio().blocks());
        blocks.iter().map(|range| range.len() / ratio).sum()
    }
}
