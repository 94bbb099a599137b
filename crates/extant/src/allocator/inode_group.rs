//! Which group a new inode goes to.
//!
//! Source: kernel `fs/ext4/ialloc.c`: `find_group_orlov`, `find_group_other`.

use super::layout::Layout;
use extant_format::{BlockGroup, InodeNumber};

/// Counts of one group, one flex group, or the volume.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) free_inodes: u64,
    pub(super) free_clusters: u64,
    pub(super) used_directories: u64,
}

/// The groups as the choice sees them.
pub(super) trait InodeGroups {
    /// Counts of one group.
    fn group(&self, group: BlockGroup) -> Counts;
    /// Counts of one flex group; groups are their own flex groups where there are none.
    fn flex_group(&self, flex: u32) -> Counts;
    /// Counts of the volume.
    fn total(&self) -> Counts;
}

/// Where the parent directory is, and what it did last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parent {
    /// Its number.
    pub inode: InodeNumber,
    /// The group that its last new inode went to.
    pub last_group: Option<BlockGroup>,
    /// It is the root, or has the flag TOPDIR: its directories are spread.
    pub is_top: bool,
}

/// What an inode is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InodeKind {
    /// A directory; the hash of its name spreads directories of the top level.
    Directory {
        /// Half-MD4 of the name with the volume's seed.
        name_hash: u32,
    },
    /// Anything else.
    Other,
}

/// The group for a new inode of this kind; `None` if no group has a free inode.
pub(super) fn choose<G: InodeGroups>(
    groups: &G,
    layout: &Layout,
    parent: Parent,
    kind: InodeKind,
) -> Option<BlockGroup> {
    let choice = Choice { groups, layout, parent, home: group_of(layout, parent.inode) };
    match kind {
        InodeKind::Directory { name_hash } if parent.is_top => choice.spread(name_hash),
        InodeKind::Directory { .. } => choice.near_parent(),
        InodeKind::Other if layout.flex_bits > 0 => choice.same_flex_group(),
        InodeKind::Other => choice.by_parent_hash(),
    }
}

/// The group whose inode table holds `inode`.
pub(super) fn group_of(layout: &Layout, inode: InodeNumber) -> BlockGroup {
    BlockGroup((inode.get() - 1) / layout.inodes_per_group)
}

struct Choice<'a, G> {
    groups: &'a G,
    layout: &'a Layout,
    parent: Parent,
    home: BlockGroup,
}

impl<G: InodeGroups> Choice<'_, G> {
    /// Directories of the top level: the flex group with the fewest directories among those above average.
    fn spread(&self, name_hash: u32) -> Option<BlockGroup> {
        let flex_groups = self.layout.flex_groups();
        let (total, n) = (self.groups.total(), u64::from(flex_groups));
        let average = Counts {
            free_inodes: total.free_inodes / n,
            free_clusters: total.free_clusters / n,
            ..total
        };
        let mut fewest = u64::from(self.layout.inodes_per_group);
        let mut best = None;
        for flex in ring(name_hash % flex_groups, flex_groups) {
            let counts = self.groups.flex_group(flex);
            if counts.free_inodes > 0
                && counts.used_directories < fewest
                && counts.free_inodes >= average.free_inodes
                && counts.free_clusters >= average.free_clusters
            {
                fewest = counts.used_directories;
                best = Some(flex);
            }
        }
        best.and_then(|flex| self.front_of_flex(flex)).or_else(|| self.fall_back())
    }

    /// Other directories, and files without room nearby: the first flex group that is not too full.
    fn near_parent(&self) -> Option<BlockGroup> {
        let (layout, total) = (self.layout, self.groups.total());
        let flex_groups = layout.flex_groups();
        let (n, flex_size) = (u64::from(flex_groups), u64::from(layout.flex_size()));
        let inodes = u64::from(layout.inodes_per_group) * flex_size;
        let clusters = u64::from(layout.clusters_per_group()) * flex_size;
        let max_directories = total.used_directories / n + inodes / 16;
        let min_inodes = (total.free_inodes / n).saturating_sub(inodes / 4).max(1);
        let min_clusters = (total.free_clusters / n).saturating_sub(clusters / 4);
        let start = layout.flex_of(self.parent.last_group.unwrap_or(self.home)) % flex_groups;
        let fits = |&flex: &u32| {
            let counts = self.groups.flex_group(flex);
            counts.used_directories < max_directories
                && counts.free_inodes >= min_inodes
                && counts.free_clusters >= min_clusters
        };
        ring(start, flex_groups)
            .find(fits)
            .and_then(|flex| self.front_of_flex(flex))
            .or_else(|| self.fall_back())
    }

    /// Inodes are packed at the front of a flex group.
    fn front_of_flex(&self, flex: u32) -> Option<BlockGroup> {
        let first = flex << self.layout.flex_bits;
        let end = self.layout.groups.min(first.saturating_add(self.layout.flex_size()));
        (first..end).map(BlockGroup).find(|&group| self.groups.group(group).free_inodes > 0)
    }

    /// The first group, from the parent's on, with the average of free inodes, or with any.
    fn fall_back(&self) -> Option<BlockGroup> {
        let average = self.groups.total().free_inodes / u64::from(self.layout.groups);
        let with = |least: u64| {
            let mut ring = self.ring_of_groups();
            ring.find(|&group| self.groups.group(group).free_inodes >= least)
        };
        with(average.max(1)).or_else(|| with(1))
    }

    fn same_flex_group(&self) -> Option<BlockGroup> {
        self.front_of_flex(self.layout.flex_of(self.home))
            .or_else(|| {
                self.parent
                    .last_group
                    .and_then(|last| self.front_of_flex(self.layout.flex_of(last)))
            })
            .or_else(|| self.near_parent())
    }

    /// Without flex groups: beside the parent, else where all files of this directory meet.
    fn by_parent_hash(&self) -> Option<BlockGroup> {
        let groups = self.layout.groups;
        let has_room = |&group: &BlockGroup| {
            let counts = self.groups.group(group);
            counts.free_inodes > 0 && counts.free_clusters > 0
        };
        if has_room(&self.home) {
            return Some(self.home);
        }
        let wrap = |sum: u64| u32::try_from(sum % u64::from(groups)).unwrap_or(0);
        let start = wrap(u64::from(self.home.0) + u64::from(self.parent.inode.get()));
        let steps = core::iter::successors(Some(1_u32), |&step| step.checked_mul(2))
            .take_while(|&step| step < groups);
        let mut probes = steps.scan(start, |at, step| {
            *at = wrap(u64::from(*at) + u64::from(step));
            Some(BlockGroup(*at))
        });
        probes.find(has_room).or_else(|| {
            let mut others = self.ring_of_groups().skip(1).chain([self.home]);
            others.find(|&group| self.groups.group(group).free_inodes > 0)
        })
    }

    fn ring_of_groups(&self) -> impl Iterator<Item = BlockGroup> {
        ring(self.home.0 % self.layout.groups, self.layout.groups).map(BlockGroup)
    }
}

/// All numbers below `len`, from `start` on and around.
fn ring(start: u32, len: u32) -> impl Iterator<Item = u32> {
    (start..len).chain(0..start)
}

#[cfg(test)]
#[path = "inode_group_tests.rs"]
mod tests;
