//! Who owns what has several owners: a second look at every map, and only where the first one met such blocks.
//!
//! Source: e2fsprogs `e2fsck/pass1b.c`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use extant_device::DeviceError;
use extant_format::{InodeNumber, PhysicalBlock};

use super::finding::{Place, Value};
use super::image::{Image, Inode};
use super::inodes::{Nodes, each_inode};
use super::map::{self, Sink};
use super::report::Findings;
use super::rule::Rule;

/// Looks for owners in one group's inodes after the other.
pub(super) struct Worker<'a, 'b> {
    image: &'a Image<'b>,
    nodes: &'a Nodes,
    pub(super) findings: Findings,
    table: Vec<u8>,
}

impl<'a, 'b> Worker<'a, 'b> {
    pub(super) fn new(image: &'a Image<'b>, nodes: &'a Nodes, limit: usize) -> Self {
        Self { image, nodes, findings: Findings::new(limit), table: Vec::new() }
    }

    pub(super) fn group(&mut self, index: usize) -> Result<(), DeviceError> {
        let mut table = core::mem::take(&mut self.table);
        each_inode(self.image, index, &mut table, |_, inode| self.inode(inode))?;
        self.table = table;
        Ok(())
    }

    fn inode(&mut self, inode: &Inode<'_>) -> Result<(), DeviceError> {
        let (image, nodes) = (self.image, self.nodes);
        let is_used = image.fact(inode.number.get()).is_some_and(|fact| fact.is_used());
        if !is_used || !inode.may_have_map() {
            return Ok(());
        }
        let number = inode.number;
        let mut owner =
            Owner { image, nodes, inode: number, seen: BTreeSet::new(), found: Vec::new() };
        map::walk(image, inode, &mut Findings::new(0), &mut owner)?;
        for (start, len) in owner.found {
            tell(image, number, start, len, &mut self.findings);
        }
        Ok(())
    }
}

/// Tells that blocks of `inode` have another owner too.
pub(super) fn tell(
    image: &Image<'_>,
    inode: InodeNumber,
    start: PhysicalBlock,
    len: u64,
    findings: &mut Findings,
) {
    let is_own = image.is_metadata(start, len);
    let rule = if is_own { Rule::ClaimedByMetadata } else { Rule::ClaimedTwice };
    let run = Value::Run(start.get(), start.get().saturating_add(len).saturating_sub(1));
    findings.add(rule, Place::inode(inode).block(start), run, ());
}

/// Gathers the blocks of one file that have several owners.
struct Owner<'a, 'b> {
    image: &'a Image<'b>,
    nodes: &'a Nodes,
    inode: InodeNumber,
    seen: BTreeSet<u64>,
    found: Vec<(PhysicalBlock, u64)>,
}

impl Owner<'_, '_> {
    fn look(&mut self, start: PhysicalBlock, len: u64) {
        let is_resize = self.inode == InodeNumber::RESIZE && self.image.is_metadata(start, len);
        if !is_resize {
            self.found.extend(self.image.usage.twice_within(start, len));
        }
    }
}

impl Sink for Owner<'_, '_> {
    fn data(&mut self, _: u32, start: PhysicalBlock, len: u32, _: u32) {
        self.look(start, len.into());
    }

    fn node(&mut self, block: PhysicalBlock) -> bool {
        self.look(block, 1);
        let first = self.nodes.lock().get(&block.get()).copied();
        let is_new = first == Some(self.inode.get()) && self.seen.insert(block.get());
        is_new && !self.image.is_metadata(block, 1)
    }
}
