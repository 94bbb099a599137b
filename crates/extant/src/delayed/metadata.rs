//! How many tree blocks delayed data could need at worst.

use extant_format::ClusterCount;

/// What an extent tree looks like before delayed extents go into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeShape {
    /// Levels below the root; the root is in the inode.
    pub(crate) depth: u32,
    /// Entries that still fit into the root.
    pub(crate) root_free: u32,
    /// Entries of a block.
    pub(crate) per_block: u32,
}

/// At most this many new tree blocks take in `extents` more extents, whatever their order; a delayed cluster is at most one.
///
/// A full node splits into halves, or has a new one put behind it when it is appended to. So `n` insertions into a level make
/// at most one split each, and no more than one for each node that is there, and one for each half node that they fill.
pub(crate) fn metadata_bound(extents: u64, shape: TreeShape) -> ClusterCount {
    let half = u64::from(shape.per_block / 2).max(2);
    let (mut inserts, mut total) = (extents, 0);
    for level in (0..shape.depth).rev() {
        let nodes = ROOT_ENTRIES.saturating_mul(u64::from(shape.per_block).saturating_pow(level));
        inserts = inserts.min(nodes.saturating_add(inserts.div_ceil(half)));
        total += inserts;
    }
    let mut room = u64::from(shape.root_free);
    while inserts > room {
        // The root's entries move into a block of their own, which splits once it is full.
        let splits = inserts
            .saturating_sub(u64::from(shape.per_block).saturating_sub(ROOT_ENTRIES))
            .div_ceil(half);
        total += 1 + splits;
        (inserts, room) = (splits, ROOT_ENTRIES - 1);
    }
    ClusterCount(total)
}

/// Entries of the root.
const ROOT_ENTRIES: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(extents: u64, depth: u32, root_free: u32) -> u64 {
        metadata_bound(extents, TreeShape { depth, root_free, per_block: 340 }).get()
    }

    #[test]
    fn what_fits_the_inode_needs_no_blocks() {
        assert_eq!((bound(0, 0, 4), bound(4, 0, 4), bound(0, 3, 0)), (0, 0, 0));
    }

    #[test]
    fn a_full_root_moves_into_a_block() {
        assert_eq!((bound(5, 0, 4), bound(336, 0, 0), bound(337, 0, 0)), (1, 1, 2));
    }

    #[test]
    fn one_insertion_may_split_a_node_of_each_level() {
        assert_eq!((bound(1, 1, 1), bound(1, 3, 0)), (1, 4)); // at last the root moves into a block
        assert_eq!(bound(170, 1, 0), 5 + 1); // four full leaves, and one that they fill
    }

    #[test]
    fn a_gibibyte_in_single_blocks_needs_under_two_per_cent() {
        let blocks = 1 << 18;
        assert!((771..blocks / 50).contains(&bound(blocks, 0, 4)));
    }
}
