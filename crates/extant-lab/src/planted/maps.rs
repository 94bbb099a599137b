//! Defects of extent trees and indirect blocks, and of blocks with several owners.

use extant_image::check::Rule;

use super::{ALL, Defect, EXTENTS, INDIRECT, SOME, Stage, defect};

pub(super) fn list() -> Vec<Defect> {
    let mut list = nodes();
    list.extend(extents());
    list.extend(pointers());
    list.extend(claims());
    list
}

/// A file whose map has nodes in blocks of their own.
const DEEP: &str = "holes/pieces";
/// A file whose map is in the inode.
const FLAT: &str = "sizes/300000";
/// Where the block area of an inode is.
const AREA: u64 = 40;

fn nodes() -> Vec<Defect> {
    vec![
        defect("magic number of a root", Rule::ExtentHeader, EXTENTS, |stage| {
            stage.set16(stage.at(stage.inode(FLAT), AREA), 0);
            Some(())
        }),
        defect("more entries than fit a root", Rule::ExtentHeader, EXTENTS, |stage| {
            stage.set16(stage.at(stage.inode(FLAT), AREA + 2), 9);
            Some(())
        }),
        defect("root that is too deep", Rule::ExtentDepth, EXTENTS, |stage| {
            stage.set16(stage.at(stage.inode(DEEP), AREA + 6), 9);
            Some(())
        }),
        defect("magic number of a node", Rule::ExtentHeader, EXTENTS, |stage| {
            stage.set16(node(stage)?, 0);
            Some(())
        }),
        defect("capacity of a node", Rule::ExtentHeader, EXTENTS, |stage| {
            let at = node(stage)? + 4;
            stage.set16(at, stage.get16(at) + 40);
            Some(())
        })
        .raw(),
        defect("depth of a node", Rule::ExtentDepth, EXTENTS, |stage| {
            stage.set16(node(stage)? + 6, 1);
            Some(())
        })
        .differs("e2fsck goes by where the node is, whatever it says"),
        defect("sum of a node", Rule::ExtentChecksum, &["ext4", "ext4-4k", "bigalloc"], |stage| {
            let node = node(stage)?;
            // Behind the entries in use and before the sum.
            let capacity = u64::from(stage.get16(node + 4));
            stage.set32(node + 12 + 12 * capacity, 1);
            Some(())
        })
        .raw(),
        defect("node that starts elsewhere", Rule::ExtentIndex, EXTENTS, |stage| {
            let first = node(stage)? + 12;
            stage.set32(first, stage.get32(first) + stage.survey.geometry.cluster_ratio());
            Some(())
        }),
        defect("node outside", Rule::ExtentPlace, EXTENTS, |stage| {
            stage.set32(stage.at(stage.inode(DEEP), AREA + 16), stage.blocks_count() + 7);
            Some(())
        }),
    ]
}

fn extents() -> Vec<Defect> {
    vec![
        defect("extent outside", Rule::ExtentPlace, EXTENTS, |stage| {
            stage.set32(stage.at(stage.inode(FLAT), AREA + 20), stage.blocks_count() + 100);
            Some(())
        }),
        defect("extent at block 0", Rule::ExtentPlace, EXTENTS, |stage| {
            stage.set32(stage.at(stage.inode(FLAT), AREA + 20), 0);
            Some(())
        }),
        defect("extent past the end", Rule::ExtentEnd, EXTENTS, |stage| {
            let ratio = stage.survey.geometry.cluster_ratio();
            let last = (stage.blocks_count() - 1) / ratio * ratio;
            let first = stage.survey.geometry.first_data_block % ratio;
            stage.set32(stage.at(stage.inode(FLAT), AREA + 20), last - ratio + first);
            Some(())
        }),
        defect("extent without blocks", Rule::ExtentEmpty, EXTENTS, |stage| {
            stage.set16(stage.at(stage.inode(FLAT), AREA + 16), 0);
            Some(())
        }),
        defect("extents out of order", Rule::ExtentOrder, EXTENTS, |stage| {
            let second = node(stage)? + 24;
            let third = second + 12;
            let (a, b) = (stage.get32(second), stage.get32(third));
            stage.set32(second, b);
            stage.set32(third, a);
            Some(())
        }),
        defect("extents that overlap", Rule::ExtentOverlap, EXTENTS, |stage| {
            let second = node(stage)? + 24;
            let third = second + 12;
            stage.set32(third, stage.get32(second));
            Some(())
        }),
        defect("extent past its node", Rule::ExtentBounds, &["ext4", "no-csum"], |stage| {
            let node = node(stage)?;
            let entries = u64::from(stage.get16(node + 2));
            let last = node + 12 * entries;
            stage.set16(last + 4, 500);
            Some(())
        }),
        defect("directory of unwritten blocks", Rule::UnwrittenDirectory, EXTENTS, |stage| {
            let len = stage.at(stage.inode("sticky"), AREA + 16);
            stage.set16(len, stage.get16(len) + 32768);
            Some(())
        }),
        defect("directory with a hole", Rule::DirectoryGap, EXTENTS, |stage| {
            stage.set32(stage.at(stage.inode("sticky"), AREA + 12), 32);
            let size = stage.at(stage.inode("sticky"), 4);
            stage.set32(size, stage.block_size() * 33);
            Some(())
        }),
        defect("extent askew in its cluster", Rule::ClusterAlignment, &["bigalloc"], |stage| {
            let start = stage.at(stage.inode(FLAT), AREA + 20);
            stage.set32(start, stage.get32(start) + 1);
            Some(())
        }),
        defect("pointers among clusters", Rule::ClusterIndirect, &["bigalloc"], |stage| {
            let inode = stage.inode("names");
            let block = stage.data_of(inode);
            stage.edit(stage.at(inode, AREA), 60, |area| area.fill(0));
            stage.set32(stage.at(inode, AREA), block);
            stage.clear32(stage.at(inode, 32), 0x8_0000);
            Some(())
        }),
    ]
}

fn pointers() -> Vec<Defect> {
    vec![
        defect("block outside", Rule::BlockNumber, INDIRECT, |stage| {
            stage.set32(stage.at(stage.inode(FLAT), AREA), stage.blocks_count());
            Some(())
        }),
        defect("indirect block outside", Rule::BlockNumber, INDIRECT, |stage| {
            stage.set32(stage.at(stage.inode(FLAT), AREA + 48), u32::MAX);
            Some(())
        }),
        defect("block outside behind pointers", Rule::BlockNumber, INDIRECT, |stage| {
            stage.set32(node(stage)?, stage.blocks_count() + 1);
            Some(())
        }),
        defect("directory without blocks", Rule::EmptyDirectory, ALL, |stage| {
            let inode = stage.inode("sticky");
            let is_tree = stage.get32(stage.at(inode, 32)) & 0x8_0000 != 0;
            if is_tree {
                stage.set16(stage.at(inode, AREA + 2), 0);
            } else {
                stage.set32(stage.at(inode, AREA), 0);
            }
            Some(())
        }),
    ]
}

fn claims() -> Vec<Defect> {
    vec![
        defect("block of two files", Rule::ClaimedTwice, ALL, |stage| {
            let block = stage.data_of(stage.inode("sizes/300000"));
            set_data(stage, stage.inode("holes/cut"), block);
            Some(())
        }),
        defect("file on an inode table", Rule::ClaimedByMetadata, ALL, |stage| {
            let table = stage.get32(stage.descriptor(0) + 8);
            let ratio = stage.survey.geometry.cluster_ratio();
            let first = stage.survey.geometry.first_data_block;
            let block = (table - first).div_ceil(ratio) * ratio + first;
            set_data(stage, stage.inode("holes/cut"), block);
            Some(())
        }),
        defect("file on the superblock", Rule::ClaimedByMetadata, &["ext4", "ext2"], |stage| {
            set_data(stage, stage.inode("holes/cut"), 1);
            Some(())
        }),
        defect("node of two files", Rule::ClaimedTwice, EXTENTS, |stage| {
            let node = stage.get32(stage.at(stage.inode(DEEP), AREA + 16));
            set_data(stage, stage.inode("holes/cut"), node);
            Some(())
        }),
        defect("attribute block that is data", Rule::ClaimedTwice, SOME, |stage| {
            let block = stage.attribute_block(stage.inode("sizes/300000"))?;
            set_data(stage, stage.inode("holes/cut"), stage.block_number(block));
            Some(())
        }),
    ]
}

/// The first node in a block of its own of the file with the deepest map.
fn node(stage: &Stage) -> Option<u64> {
    let inode = stage.inode(DEEP);
    let nodes = stage.nodes(inode);
    // The first leaf: what lies above it has a depth.
    nodes.into_iter().find(|at| stage.get16(*at) != 0xF30A || stage.get16(*at + 6) == 0)
}

/// Gives a file with a flat map another first block.
fn set_data(stage: &Stage, inode: u32, block: u32) {
    let has_extents = stage.get32(stage.at(inode, 32)) & 0x8_0000 != 0;
    stage.set32(stage.at(inode, if has_extents { AREA + 20 } else { AREA }), block);
}
