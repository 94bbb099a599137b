//! One pass over descriptors, bitmaps and inode tables.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use extant_format::indirect::{self, DIRECT};
use extant_format::inode::InodeFlags;
use extant_format::{
    BlockGroup, FileType, Geometry, GroupDescriptor, InodeNumber, InodeRecord, PhysicalBlock,
    PhysicalRange,
};

use super::Kind;
use crate::reader::{MapRun, MapStep, ReadError, Reader};

/// Whose a run is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Owner {
    /// A group's own structures.
    Group(BlockGroup),
    /// An inode's.
    Inode(InodeNumber),
}

/// Who listens to a survey; what it does not care for it leaves out.
pub trait Visitor {
    /// Whether inodes shall be looked at, which is most of the work.
    fn wants_inodes(&self) -> bool {
        true
    }

    /// A group's clusters, a bit each; `None` if its bitmap could not be read.
    fn group(&mut self, group: BlockGroup, bits: Option<&[u8]>) {
        let _ = (group, bits);
    }

    /// Blocks that are used.
    fn used(&mut self, owner: Owner, kind: Kind, blocks: PhysicalRange) {
        let _ = (owner, kind, blocks);
    }

    /// An inode in use, and where its contents lie; no runs if the map makes no sense or there is none.
    fn inode(&mut self, inode: InodeNumber, record: &InodeRecord, runs: &[MapRun]) {
        let _ = (inode, record, runs);
    }

    /// Something that could not be read; the survey goes on.
    fn trouble(&mut self, error: ReadError) {
        let _ = error;
    }
}

/// Tells `visitor` of each group and of each inode in use, in the order of the image.
pub fn survey(reader: &Reader<'_>, visitor: &mut dyn Visitor) {
    let mut bits = Vec::new();
    let mut inodes = Inodes { special: special(reader), shared: BTreeSet::new(), runs: Vec::new() };
    for (group, descriptor) in reader.descriptors() {
        let descriptor = match descriptor {
            Ok(descriptor) => descriptor,
            Err(error) => {
                visitor.trouble(error);
                visitor.group(group, None);
                continue;
            }
        };
        match reader.block_bitmap(group, &descriptor, &mut bits) {
            Ok(()) => visitor.group(group, Some(&bits)),
            Err(error) => {
                visitor.trouble(error);
                visitor.group(group, None);
            }
        }
        metadata(reader, group, &descriptor, visitor);
        if visitor.wants_inodes() {
            let read = reader.inodes_in(group, &descriptor, &mut |inode, bytes| {
                inodes.visit(reader, inode, bytes, visitor);
            });
            if let Err(error) = read {
                visitor.trouble(error);
            }
        }
    }
}

/// The structures of a group itself.
fn metadata(
    reader: &Reader<'_>,
    group: BlockGroup,
    descriptor: &GroupDescriptor,
    visitor: &mut dyn Visitor,
) {
    let kinds = [Kind::Descriptors, Kind::Bitmaps, Kind::Bitmaps, Kind::InodeTables];
    let mut kinds = kinds.into_iter();
    reader.own_metadata(group, descriptor, |start, len| {
        if let (Some(kind), Some(blocks)) = (kinds.next(), PhysicalRange::new(start, len)) {
            visitor.used(Owner::Group(group), kind, blocks);
        }
    });
}

/// Inodes of the file system itself, whose contents are no file of a user.
fn special(reader: &Reader<'_>) -> BTreeSet<InodeNumber> {
    reader.superblock().special_inodes().collect()
}

/// What is remembered from one inode to the next.
struct Inodes {
    special: BTreeSet<InodeNumber>,
    /// Attribute blocks that were met, which may have several owners.
    shared: BTreeSet<PhysicalBlock>,
    runs: Vec<MapRun>,
}

impl Inodes {
    fn visit(
        &mut self,
        reader: &Reader<'_>,
        inode: InodeNumber,
        bytes: &[u8],
        visitor: &mut dyn Visitor,
    ) {
        let record = match InodeRecord::decode(bytes, reader.geometry(), inode) {
            Ok(record) => record,
            Err(error) => return visitor.trouble(error.into()),
        };
        let owner = Owner::Inode(inode);
        if inode.get() == RESIZE_INODE {
            // What its blocks point to is room for descriptors, which belongs to the groups.
            let block = indirect::pointer(&record.block, DIRECT.saturating_add(1));
            if let Some(block) = block.filter(|block| reader.geometry().has_block(*block)) {
                visitor.used(owner, Kind::Maps, PhysicalRange::single(block));
            }
            return;
        }
        if let Some(block) = record.file_acl
            && self.shared.insert(block)
        {
            visitor.used(owner, Kind::Maps, PhysicalRange::single(block));
        }
        let kind = self.kind_of(reader, inode, &record);
        self.runs.clear();
        let runs = &mut self.runs;
        let walked = reader.map(inode, &record, &mut |step| match step {
            MapStep::Node(node) => {
                if reader.geometry().has_block(node.block) {
                    visitor.used(owner, Kind::Maps, PhysicalRange::single(node.block));
                }
            }
            MapStep::Run(run) => {
                if let Some(blocks) = within(reader.geometry(), run.device_blocks()) {
                    visitor.used(owner, kind, blocks);
                }
                runs.push(run);
            }
        });
        if let Err(error) = walked {
            visitor.trouble(error);
        }
        visitor.inode(inode, &record, &self.runs);
    }

    fn kind_of(&self, reader: &Reader<'_>, inode: InodeNumber, record: &InodeRecord) -> Kind {
        match record.file_type() {
            _ if reader.superblock().journal_inode() == Some(inode) => Kind::Journal,
            _ if self.special.contains(&inode) => Kind::Other,
            _ if record.flags.contains(InodeFlags::EA_INODE) => Kind::Maps,
            Some(FileType::Directory) => Kind::Directories,
            Some(_) => Kind::Files,
            None => Kind::Other,
        }
    }
}

/// A range as far as it lies in the file system.
fn within(geometry: &Geometry, range: Option<PhysicalRange>) -> Option<PhysicalRange> {
    let range = range?;
    let len = geometry.blocks_count.checked_sub(range.start().get())?;
    PhysicalRange::new(range.start(), range.len().min(len))
}

const RESIZE_INODE: u32 = 7;

/// Passes everything on to each of several visitors.
pub struct Several<'v>(pub Vec<&'v mut dyn Visitor>);

impl Visitor for Several<'_> {
    fn wants_inodes(&self) -> bool {
        self.0.iter().any(|visitor| visitor.wants_inodes())
    }

    fn group(&mut self, group: BlockGroup, bits: Option<&[u8]>) {
        self.0.iter_mut().for_each(|visitor| visitor.group(group, bits));
    }

    fn used(&mut self, owner: Owner, kind: Kind, blocks: PhysicalRange) {
        self.0.iter_mut().for_each(|visitor| visitor.used(owner, kind, blocks));
    }

    fn inode(&mut self, inode: InodeNumber, record: &InodeRecord, runs: &[MapRun]) {
        self.0.iter_mut().for_each(|visitor| visitor.inode(inode, record, runs));
    }

    fn trouble(&mut self, error: ReadError) {
        self.0.iter_mut().for_each(|visitor| visitor.trouble(error));
    }
}
