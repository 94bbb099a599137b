//! Where a file without neighbours would like to be.

use super::layout::{FLEX_SIZE_DIRECTORY_SCHEME, Layout};
use extant_format::cast::low_u32;
use extant_format::{BlockGroup, PhysicalBlock};

/// The first block that an inode of group `inode_group` should get; it may lie past the end of a small volume.
///
/// Without delayed allocation `colour` (the kernel takes the process number) spreads writers over sixteenths of the group.
///
/// Source: kernel `fs/ext4/balloc.c`, `ext4_inode_to_goal_block`.
pub(super) fn inode_goal(
    layout: &Layout,
    inode_group: BlockGroup,
    regular: bool,
    colour: Option<u32>,
) -> PhysicalBlock {
    let mut group = inode_group.0;
    if layout.flex_size() >= FLEX_SIZE_DIRECTORY_SCHEME {
        group = (group & !(layout.flex_size() - 1)) + u32::from(regular);
    }
    let first = layout.first_block(BlockGroup(group));
    let Some(colour) = colour else { return PhysicalBlock::new(first) };
    let (per_group, last) = (u64::from(layout.blocks_per_group), layout.blocks - 1);
    // A group that is not there makes the kernel's span wrap around; whoever allocates looks from the start then.
    let span = if first + per_group <= last { per_group } else { last.wrapping_sub(first) };
    let offset = u64::from(colour % 16).wrapping_mul(span / 16);
    // The kernel keeps it in 32 bits, with a sign.
    let offset = i64::from(low_u32(offset).cast_signed());
    PhysicalBlock::new(first.wrapping_add_signed(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        block_bits: 12,
        cluster_bits: 0,
        first_data_block: 0,
        blocks: 65536,
        blocks_per_group: 32768,
        inodes_per_group: 32768,
        groups: 2,
        flex_bits: 4,
    };

    #[test]
    fn regular_files_start_in_the_second_group_of_a_flex_group() {
        let goal = |group, regular| inode_goal(&LAYOUT, BlockGroup(group), regular, None).get();
        assert_eq!((goal(0, true), goal(1, true)), (32768, 32768));
        assert_eq!((goal(0, false), goal(1, false)), (0, 0));
        assert_eq!(
            inode_goal(&Layout { flex_bits: 1, ..LAYOUT }, BlockGroup(1), true, None).get(),
            32768
        );
    }

    #[test]
    fn a_missing_second_group_is_named_all_the_same() {
        let small = Layout { blocks: 30000, groups: 1, ..LAYOUT };
        assert_eq!(inode_goal(&small, BlockGroup(0), true, None).get(), 32768);
        let wrapped = 32768 - 3 * 174; // the span is negative, and a sixteenth of it is rounded down
        assert_eq!(inode_goal(&small, BlockGroup(0), true, Some(3)).get(), wrapped);
    }

    #[test]
    fn without_delay_the_colour_picks_a_sixteenth() {
        assert_eq!(inode_goal(&LAYOUT, BlockGroup(0), false, Some(18)).get(), 2 * 2048);
        // The last block of the volume counts as the end of the last group, also of a whole one.
        assert_eq!(inode_goal(&LAYOUT, BlockGroup(0), true, Some(14)).get(), 32768 + 14 * 2047);
        let short = Layout { blocks: 32768 + 1601, ..LAYOUT };
        assert_eq!(inode_goal(&short, BlockGroup(0), true, Some(3)).get(), 32768 + 300);
    }
}
