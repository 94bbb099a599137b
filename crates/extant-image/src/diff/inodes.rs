//! Inodes of two images, and whatever each of them owns.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use extant_format::cast::usize_from;
use extant_format::inode::InodeFlags;
use extant_format::{BlockGroup, FileType, InodeNumber, InodeRecord};

use super::groups::{around, first_difference};
use super::{Diff, Kind, attributes, contents, fields};
use crate::reader::{MapRun, MapStep, ReadError, Reader};

/// An inode of one side.
pub(super) struct Side {
    pub record: Result<InodeRecord, ReadError>,
    pub runs: Vec<MapRun>,
    pub nodes: Vec<u64>,
    /// Why its map was not read to the end.
    pub trouble: Option<ReadError>,
}

impl Diff<'_, '_, '_> {
    /// All inodes in use on either side, in order, then what is left of their tables.
    pub(super) fn inodes(&mut self) -> ControlFlow<()> {
        for group in self.common_groups() {
            let (left, right) = (in_use(self.left, group), in_use(self.right, group));
            let mut numbers: Vec<InodeNumber> = left.keys().chain(right.keys()).copied().collect();
            numbers.sort_unstable();
            numbers.dedup();
            for number in numbers {
                match (left.get(&number), right.get(&number)) {
                    (Some(a), Some(b)) => self.pair(number, a, b)?,
                    (Some(_), None) => {
                        self.of(Kind::Inode, number, "", ("in use", "free"))?;
                        self.own(self.left, number, left.get(&number))?;
                    }
                    (_, Some(b)) => {
                        self.of(Kind::Inode, number, "", ("free", "in use"))?;
                        self.own(self.right, number, Some(b))?;
                    }
                    (None, None) => {}
                }
            }
            self.table(group)?;
        }
        ControlFlow::Continue(())
    }

    /// Tells of something of an inode.
    pub(super) fn of(
        &mut self,
        kind: Kind,
        inode: InodeNumber,
        what: &str,
        sides: (impl Into<String>, impl Into<String>),
    ) -> ControlFlow<()> {
        let place = if what.is_empty() { format!("{inode}") } else { format!("{inode}: {what}") };
        self.tell_of(kind, (Some(inode), None), place, sides)
    }

    /// An inode that both have.
    fn pair(&mut self, number: InodeNumber, left: &[u8], right: &[u8]) -> ControlFlow<()> {
        let a = side(self.left, number, left);
        if left == right && !a.touches(self) {
            return ControlFlow::Continue(());
        }
        let b = side(self.right, number, right);
        let (Ok(one), Ok(other)) = (&a.record, &b.record) else {
            if left != right || a.record != b.record {
                self.unreadable(format!("{number}"), (&a.record, &b.record))?;
            }
            return ControlFlow::Continue(());
        };
        let extra = one.extra_isize.max(other.extra_isize);
        for (name, x, y) in fields::inodes(left, right, extra.into()) {
            self.of(Kind::Inode, number, &name, (x, y))?;
        }
        if a.trouble != b.trouble {
            let words = |side: &Side| {
                side.trouble.as_ref().map_or("readable".to_string(), ToString::to_string)
            };
            self.of(Kind::Unreadable, number, "block map", (words(&a), words(&b)))?;
        }
        self.maps(number, (&a, one), (&b, other))?;
        self.attributes(number, (left, one), (right, other))?;
        contents::compare(self, number, (&a, one), (&b, other))
    }

    /// Where the blocks of a file lie, and what takes the place of a map.
    fn maps(
        &mut self,
        number: InodeNumber,
        (a, left): (&Side, &InodeRecord),
        (b, right): (&Side, &InodeRecord),
    ) -> ControlFlow<()> {
        let mut told = false;
        let mut i = 0;
        // Runs are compared one by one until they part; the first that differs says where.
        while let Some((x, y)) = a.runs.get(i).zip(b.runs.get(i)) {
            if same(x, y) {
                i += 1;
                continue;
            }
            self.of(Kind::Map, number, &format!("extent {i}"), (shown(Some(x)), shown(Some(y))))?;
            told = true;
            break;
        }
        if !told && a.runs.len() != b.runs.len() {
            told = true;
            let sides = (shown(a.runs.get(i)), shown(b.runs.get(i)));
            self.of(Kind::Map, number, &format!("extent {i}"), sides)?;
        }
        if !told && left.block != right.block {
            let at = first_difference(&left.block, &right.block).unwrap_or(0);
            let sides = (around(&left.block, at), around(&right.block, at));
            let is_map = left.flags.contains(InodeFlags::EXTENTS) && !a.runs.is_empty();
            let kind = match left.file_type() {
                _ if is_map => Kind::Unused,
                Some(FileType::Regular | FileType::Symlink) => Kind::Data,
                Some(FileType::Directory) => Kind::Name,
                _ => Kind::Inode,
            };
            self.of(kind, number, &format!("block area, byte {at}"), sides)?;
        }
        let nodes: Vec<u64> = a.nodes.iter().chain(&b.nodes).copied().collect();
        for block in nodes {
            if !self.claim(block, 1).is_empty() && !told {
                let (x, y) = self.blocks(block);
                let at = first_difference(&x, &y).unwrap_or(0);
                let what = format!("inner block {block} of the map, byte {at}");
                self.of(Kind::Map, number, &what, (around(&x, at), around(&y, at)))?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Extended attributes by name.
    fn attributes(
        &mut self,
        number: InodeNumber,
        (left, a): (&[u8], &InodeRecord),
        (right, b): (&[u8], &InodeRecord),
    ) -> ControlFlow<()> {
        let differs = [a.file_acl, b.file_acl]
            .into_iter()
            .flatten()
            .any(|block| self.differs(block.get(), 1));
        if left == right && !differs {
            return ControlFlow::Continue(());
        }
        let (x, y) = (
            attributes::of(self.left, left, a, number),
            attributes::of(self.right, right, b, number),
        );
        let (Ok(x), Ok(y)) = (&x, &y) else {
            return self.unreadable(format!("{number}: attributes"), (&x, &y));
        };
        let mut told = false;
        for name in attributes::names(x, y) {
            let (one, other) = (x.get(&name), y.get(&name));
            if one != other {
                told = true;
                let what = format!("attribute {}", String::from_utf8_lossy(&name));
                let shown = |value: Option<&Vec<u8>>| {
                    value.map_or("none".to_string(), |value| {
                        format!("{} bytes, {}", value.len(), around(value, 0))
                    })
                };
                self.of(Kind::Attribute, number, &what, (shown(one), shown(other)))?;
            }
        }
        let blocks = [a.file_acl, b.file_acl];
        for block in blocks.into_iter().flatten() {
            if !self.claim(block.get(), 1).is_empty() && !told {
                let (x, y) = self.blocks(block.get());
                let at = first_difference(&x, &y).unwrap_or(0);
                let what = format!("attribute block {}, byte {at}", block.get());
                self.of(Kind::Attribute, number, &what, (around(&x, at), around(&y, at)))?;
            }
        }
        let extra = usize_from(u32::from(a.extra_isize.max(b.extra_isize))).saturating_add(128);
        let tail = |bytes: &[u8]| bytes.get(extra..).unwrap_or_default().to_vec();
        if !told && tail(left) != tail(right) {
            let (x, y) = (tail(left), tail(right));
            let at = first_difference(&x, &y).unwrap_or(0);
            let what = format!("space for attributes, byte {at}");
            self.of(Kind::Unused, number, &what, (around(&x, at), around(&y, at)))?;
        }
        ControlFlow::Continue(())
    }

    /// Blocks of an inode that only one side has: that they differ was told with the inode.
    fn own(
        &mut self,
        reader: &Reader<'_>,
        number: InodeNumber,
        bytes: Option<&Vec<u8>>,
    ) -> ControlFlow<()> {
        let Some(bytes) = bytes else { return ControlFlow::Continue(()) };
        let side = side(reader, number, bytes);
        for run in &side.runs {
            self.claim(run.start.get(), run.blocks.len().into());
        }
        for block in &side.nodes {
            self.claim(*block, 1);
        }
        if let Ok(record) = &side.record
            && let Some(block) = record.file_acl
        {
            self.claim(block.get(), 1);
        }
        ControlFlow::Continue(())
    }

    /// Blocks of an inode table: all that inodes in use have in them was told; of free ones each block is one difference.
    fn table(&mut self, group: BlockGroup) -> ControlFlow<()> {
        let geometry = *self.left.geometry();
        let (Ok(a), Ok(b)) = (self.left.descriptor(group), self.right.descriptor(group)) else {
            return ControlFlow::Continue(());
        };
        if a.inode_table != b.inode_table {
            return ControlFlow::Continue(());
        }
        let start = a.inode_table.get();
        let used = (in_use(self.left, group), in_use(self.right, group));
        for range in self.claim(start, geometry.itable_blocks().into()) {
            for block in range {
                let (mut x, mut y) = self.blocks(block);
                let first =
                    block.saturating_sub(start).saturating_mul(geometry.inodes_per_block().into());
                let first = u32::try_from(first).unwrap_or(u32::MAX);
                let len = usize_from(geometry.inode_size);
                for (index, (x, y)) in (first..).zip(x.chunks_mut(len).zip(y.chunks_mut(len))) {
                    let number = geometry.inode_at(group, index);
                    if number.is_some_and(|n| used.0.contains_key(&n) || used.1.contains_key(&n)) {
                        x.fill(0);
                        y.fill(0);
                    }
                }
                let place = format!("free inodes in block {block}");
                self.bytes_of(Kind::Unused, &place, &x, &y)?;
            }
        }
        ControlFlow::Continue(())
    }
}

impl Side {
    /// Whether any block differs that the inode has.
    fn touches(&self, diff: &Diff<'_, '_, '_>) -> bool {
        let acl = self.record.as_ref().ok().and_then(|record| record.file_acl);
        self.runs.iter().any(|run| diff.differs(run.start.get(), run.blocks.len().into()))
            || self.nodes.iter().any(|block| diff.differs(*block, 1))
            || acl.is_some_and(|block| diff.differs(block.get(), 1))
    }
}

/// Inodes in use in a group, with their bytes; none where they cannot be read.
fn in_use(reader: &Reader<'_>, group: BlockGroup) -> BTreeMap<InodeNumber, Vec<u8>> {
    let mut found = BTreeMap::new();
    if let Ok(descriptor) = reader.descriptor(group) {
        // What could be read before an error is compared.
        let _ = reader.inodes_in(group, &descriptor, &mut |inode, bytes| {
            found.insert(inode, bytes.to_vec());
        });
    }
    found
}

fn side(reader: &Reader<'_>, number: InodeNumber, bytes: &[u8]) -> Side {
    let record = InodeRecord::decode(bytes, reader.geometry(), number).map_err(ReadError::from);
    let (mut runs, mut nodes, mut trouble) = (Vec::new(), Vec::new(), None);
    if let Ok(record) = &record {
        trouble = reader
            .map(number, record, &mut |step| match step {
                MapStep::Node(node) => nodes.push(node.block.get()),
                MapStep::Run(run) => runs.push(run),
            })
            .err();
    }
    Side { record, runs, nodes, trouble }
}

fn same(a: &MapRun, b: &MapRun) -> bool {
    (a.blocks, a.start, a.state) == (b.blocks, b.start, b.state)
}

fn shown(run: Option<&MapRun>) -> String {
    run.map_or("none".to_string(), |run| {
        let (first, len) = (run.blocks.start().get(), run.blocks.len());
        format!("file block {first} at {}, {len} blocks, {:?}", run.start.get(), run.state)
            .to_lowercase()
    })
}
