//! What can be wrong with bytes from disk: a broken rule at some place, or a feature that is not supported.

use thiserror::Error;

use crate::features::{Incompat, RoCompat};
use crate::jbd2::JournalIncompat;
use crate::numbers::{BlockGroup, InodeNumber, PhysicalBlock};

/// A rule of the format that the image breaks, and where.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{place}: {rule}")]
pub struct Corruption {
    /// Which structure.
    pub place: Place,
    /// Which rule.
    pub rule: Rule,
}

/// The structure that a decoder looks at; callers name it, decoders only pass it on.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Place {
    /// The superblock.
    #[error("superblock")]
    Superblock,
    /// A group's descriptor or one of its bitmaps.
    #[error("{0}")]
    Group(BlockGroup),
    /// An inode, or what lies inside it.
    #[error("{0}")]
    Inode(InodeNumber),
    /// A block that belongs to an inode.
    #[error("{0}, {1}")]
    InodeBlock(InodeNumber, PhysicalBlock),
    /// A block that belongs to no single inode.
    #[error("{0}")]
    Block(PhysicalBlock),
    /// A block of the journal, counted from the journal's start.
    #[error("journal block {0}")]
    Journal(u32),
}

impl Place {
    /// The corruption that `rule` is broken here.
    pub const fn breaks(self, rule: Rule) -> Corruption {
        Corruption { place: self, rule }
    }

    /// `Ok` if `holds`, else the corruption that `rule` is broken here.
    ///
    /// # Errors
    /// That corruption.
    pub const fn require(self, holds: bool, rule: Rule) -> Result<(), Corruption> {
        if holds { Ok(()) } else { Err(self.breaks(rule)) }
    }
}

/// Something of the format that this crate does not support; the image may be sound.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Unsupported {
    /// Features without which nothing may be read.
    #[error("unsupported features: {0}")]
    Incompat(Incompat),
    /// Features without which nothing may be written.
    #[error("unsupported features for writing: {0}")]
    RoCompat(RoCompat),
    /// Features of the journal without which it may not be replayed.
    #[error("unsupported journal features: {0}")]
    JournalIncompat(JournalIncompat),
    /// A feature that needs another one which is off.
    #[error("feature {0} needs feature {1}")]
    Needs(&'static str, &'static str),
    /// A revision of the format from after 1.
    #[error("format revision {0}")]
    Revision(u32),
    /// Features of fast commits in the journal, as a number: none has a name.
    #[error("unsupported features of fast commits: {0:#x}")]
    FastCommit(u32),
    /// Another checksum than crc32c.
    #[error("checksum type {0}")]
    ChecksumType(u8),
}

/// Why bytes did not become a checked type.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FormatError {
    /// A rule is broken.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A feature is missing here.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// A value that the format has no room for, such as a block count without the feature for large ones.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0} does not fit the format")]
pub struct DoesNotFit(pub &'static str);

macro_rules! rules {
    ($($name:ident $text:literal)*) => {
        /// A rule of the format; the name and the text say what is wrong.
        #[derive(Clone, Copy, Debug, Eq, Error, Hash, PartialEq)]
        pub enum Rule {
            $(#[doc = $text] #[error($text)] $name,)*
        }
    };
}

rules! {
    Magic "wrong magic number"
    Checksum "checksum does not match"
    TooShort "structure is cut off"
    BlockSize "impossible block size"
    ClusterSize "impossible cluster size"
    InodeSize "impossible inode size"
    FirstInode "impossible first inode"
    DescriptorSize "impossible group descriptor size"
    BlocksPerGroup "impossible number of blocks per group"
    ClustersPerGroup "impossible number of clusters per group"
    InodesPerGroup "impossible number of inodes per group"
    InodesCount "number of inodes does not match the groups"
    BlocksCount "impossible number of blocks"
    BlocksPastDevice "more blocks than the device has"
    FirstDataBlock "impossible first data block"
    ReservedDescriptors "too many reserved descriptor blocks"
    FirstMetaGroup "first meta group lies past the last"
    Overhead "more overhead than blocks"
    BlockBitmapPlace "block bitmap lies outside its file system or group"
    InodeBitmapPlace "inode bitmap lies outside its file system or group"
    InodeTablePlace "inode table lies outside its file system or group"
    FreeClusters "more free clusters than clusters"
    FreeInodes "more free inodes than inodes"
    UsedDirectories "more directories than inodes"
    UnusedInodes "more unused inodes than inodes"
    FreeClustersCount "number of free clusters does not match the block bitmap"
    MetadataFree "block of the file system itself is marked as free"
    ReservedInodeFree "reserved inode is marked as free"
    UsedTwice "block or inode in use is allocated again"
    FreedTwice "free block or inode is freed again"
    SetAside "group was set aside after an earlier error"
    ExtraSize "impossible extra inode size"
    FileSize "impossible file size"
    AttributeBlock "attribute block lies outside the file system"
    ExtentDepth "extent node has the wrong depth"
    ExtentCapacity "extent node has an impossible capacity"
    ExtentCount "extent node has an impossible number of entries"
    ExtentRange "extent is empty or passes the last block of a file"
    ExtentPlace "extent lies outside the file system"
    ExtentOrder "extents are out of order or overlap"
    ExtentFirst "extent node does not start where its parent says"
    ExtentLimit "extent node goes on where its next sibling starts"
    IndexPlace "extent index points outside the file system"
    EntryLength "directory entry has an impossible length"
    EntryName "directory entry has an impossible name length"
    EntryInode "directory entry has an impossible inode number"
    NoTail "directory block has no checksum tail"
    NoDots "directory does not start with its two dot entries"
    DirectoryCircle "directory has a name in another directory than the one that its `..` leads to"
    IndexRoot "directory index root is malformed"
    IndexLimit "directory index node has an impossible capacity or count"
    IndexDepth "directory index is too deep"
    IndexOrder "directory index entries are out of order"
    IndexBlock "directory index points past the directory"
    HashVersion "unknown directory hash"
    AttributeHeader "attribute block has an impossible header"
    AttributeEntry "attribute entry passes the end of its area"
    AttributeValue "attribute value passes the end of its area"
    AttributeOverlap "attribute values overlap entries or each other"
    AttributeHash "attribute hash does not match"
    AttributeName "attribute entry has no name"
    InlineData "inline data lacks its attribute or has an impossible size"
    MmpSequence "impossible multiple mount protection sequence"
    JournalType "wrong type of journal block"
    JournalSize "journal has an impossible size"
    JournalStart "journal starts outside itself"
    JournalFeatures "journal features exclude each other"
    RevokeCount "impossible size of a revoke block"
    FastCommitTag "fast commit record is malformed"
    BlockPlace "block lies outside the file system"
    CrossLinked "block is used by two structures"
    OrphanList "list of orphans leads nowhere or in a circle"
}
