//! The kinds of values in events, and how the kernel prints them.

use core::fmt;

use extant_format::InodeNumber;

/// The device in an event's text.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

impl Default for DeviceNumber {
    /// The first loop device.
    fn default() -> Self {
        Self { major: 7, minor: 0 }
    }
}

/// A field of an event as it can be shown or stored.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldValue {
    /// A number.
    Unsigned(u64),
    /// A number that may be below zero.
    Signed(i64),
    /// Bits with names.
    Flags(u32, &'static FlagSet),
    /// One of several names.
    Name(&'static str),
    /// A number without a name in a place for names: in hex.
    Nameless(u64),
    /// A run in a block group.
    Extent(AllocatorExtent),
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unsigned(n) => fmt::Display::fmt(&n, f),
            Self::Signed(n) => fmt::Display::fmt(&n, f),
            Self::Flags(bits, set) => set.print(bits, f),
            Self::Name(name) => f.write_str(name),
            Self::Nameless(n) => write!(f, "{n:#x}"),
            Self::Extent(extent) => extent.fmt(f),
        }
    }
}

impl fmt::Octal for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(n) => fmt::Octal::fmt(n, f),
            other => fmt::Display::fmt(other, f),
        }
    }
}

impl fmt::LowerHex for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(n) => fmt::LowerHex::fmt(n, f),
            other => fmt::Display::fmt(other, f),
        }
    }
}

macro_rules! numbers {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for FieldValue {
            fn from(n: $from) -> Self {
                Self::$variant(n.into())
            }
        })*
    };
}

numbers!(bool => Unsigned, u8 => Unsigned, u16 => Unsigned, u32 => Unsigned, u64 => Unsigned, i32 => Signed, i64 => Signed);

impl From<InodeNumber> for FieldValue {
    fn from(number: InodeNumber) -> Self {
        Self::Unsigned(number.get().into())
    }
}

/// How bits of one kind print: names joined by the separator, then what has no name in hex; nothing at all for no bit.
#[derive(Debug, PartialEq)]
pub struct FlagSet {
    separator: &'static str,
    names: &'static [(u32, &'static str)],
}

impl FlagSet {
    fn print(&self, bits: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut separator) = (bits, "");
        for &(bit, name) in self.names.iter().filter(|(bit, _)| bits & bit == *bit) {
            write!(f, "{separator}{name}")?;
            rest &= !bit;
            separator = self.separator;
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

macro_rules! flag_sets {
    ($($(#[$doc:meta])* $name:ident($separator:literal) { $($flag:ident = $bit:literal $text:literal,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
        pub struct $name(pub u32);

        impl $name {
            $(#[doc = concat!("Prints as `", $text, "`.")]
            pub const $flag: Self = Self($bit);)*

            const SET: FlagSet = FlagSet { separator: $separator, names: &[$(($bit, $text)),*] };

            /// These bits and those of `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These bits, and those of `other` if `wanted`.
            #[must_use]
            pub const fn with_if(self, other: Self, wanted: bool) -> Self {
                if wanted { self.with(other) } else { self }
            }
        }

        impl From<$name> for FieldValue {
            fn from(flags: $name) -> Self {
                const SET: &FlagSet = &$name::SET;
                Self::Flags(flags.0, SET)
            }
        })*
    };
}

flag_sets! {
    /// How blocks are asked for (`EXT4_GET_BLOCKS_*`, `EXT4_EX_*`).
    MapFlags("|") {
        CREATE = 0x1 "CREATE",
        UNWRITTEN = 0x2 "UNWRIT",
        DELALLOC = 0x4 "DELALLOC",
        PRE_IO = 0x8 "PRE_IO",
        CONVERT = 0x10 "CONVERT",
        METADATA_NOFAIL = 0x20 "METADATA_NOFAIL",
        NO_NORMALIZE = 0x40 "NO_NORMALIZE",
        CONVERT_UNWRITTEN = 0x100 "CONVERT_UNWRITTEN",
        ZERO = 0x200 "ZERO",
        IO_SUBMIT = 0x400 "IO_SUBMIT",
        NO_CACHE = 0x4000_0000 "EX_NOCACHE",
    }
    /// What a mapping is (`EXT4_MAP_*`).
    MappedFlags("") {
        NEW = 0x20 "N",
        MAPPED = 0x10 "M",
        UNWRITTEN = 0x800 "U",
        BOUNDARY = 0x200 "B",
    }
    /// What a run of the extent status tree is (`EXTENT_STATUS_*`).
    StatusFlags("") {
        WRITTEN = 0x1 "W",
        UNWRITTEN = 0x2 "U",
        DELAYED = 0x4 "D",
        HOLE = 0x8 "H",
        REFERENCED = 0x10 "R",
    }
    /// How an allocation is asked for (`EXT4_MB_*`).
    AllocationFlags("|") {
        HINT_MERGE = 0x1 "HINT_MERGE",
        HINT_FIRST = 0x8 "HINT_FIRST",
        HINT_DATA = 0x20 "HINT_DATA",
        HINT_NOPREALLOC = 0x40 "HINT_NOPREALLOC",
        HINT_GRP_ALLOC = 0x80 "HINT_GRP_ALLOC",
        HINT_GOAL_ONLY = 0x100 "HINT_GOAL_ONLY",
        HINT_TRY_GOAL = 0x200 "HINT_TRY_GOAL",
        DELALLOC_RESERVED = 0x400 "DELALLOC_RESV",
        STREAM_ALLOC = 0x800 "STREAM_ALLOC",
        USE_ROOT_BLOCKS = 0x1000 "USE_ROOT_BLKS",
        USE_RESERVED = 0x2000 "USE_RESV",
        STRICT_CHECK = 0x4000 "STRICT_CHECK",
    }
    /// How blocks are freed (`EXT4_FREE_BLOCKS_*`).
    FreeFlags("|") {
        METADATA = 0x1 "METADATA",
        FORGET = 0x2 "FORGET",
        VALIDATED = 0x4 "VALIDATED",
        NO_QUOTA = 0x8 "NO_QUOTA",
        FIRST_CLUSTER = 0x10 "1ST_CLUSTER",
        LAST_CLUSTER = 0x20 "LAST_CLUSTER",
        RERESERVE = 0x40 "0x40",
    }
    /// What `fallocate` is to do (`FALLOC_FL_*`).
    FallocateMode("|") {
        KEEP_SIZE = 0x1 "KEEP_SIZE",
        PUNCH_HOLE = 0x2 "PUNCH_HOLE",
        COLLAPSE_RANGE = 0x8 "COLLAPSE_RANGE",
        ZERO_RANGE = 0x10 "ZERO_RANGE",
        WRITE_ZEROES = 0x80 "WRITE_ZEROES",
    }
}

/// Which search found a run; one past the last, when none did and the best run remembered was taken.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Criterion(pub u8);

impl From<Criterion> for FieldValue {
    fn from(criterion: Criterion) -> Self {
        match criterion.0 {
            0 => Self::Name("CR_POWER2_ALIGNED"),
            1 => Self::Name("CR_GOAL_LEN_FAST"),
            2 => Self::Name("CR_BEST_AVAIL_LEN"),
            3 => Self::Name("CR_GOAL_LEN_SLOW"),
            4 => Self::Name("CR_ANY_FREE"),
            other => Self::Nameless(other.into()),
        }
    }
}

/// What a handle is for (`EXT4_HT_*`).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum HandleType {
    /// Anything else.
    #[default]
    Misc = 0,
    /// An inode's attributes.
    Inode = 1,
    /// Writeback.
    WritePage = 2,
    /// Blocks for data.
    MapBlocks = 3,
    /// Names.
    Directory = 4,
    /// A cut.
    Truncate = 5,
    /// Quota.
    Quota = 6,
    /// Growth of the volume.
    Resize = 7,
    /// From indirect blocks to extents and back.
    Migrate = 8,
    /// Blocks that two files exchange.
    MoveExtents = 9,
    /// Extended attributes.
    Xattr = 10,
    /// The end of I/O.
    ExtentConversion = 11,
}

impl From<HandleType> for FieldValue {
    fn from(kind: HandleType) -> Self {
        Self::Unsigned(match kind {
            HandleType::Misc => 0,
            HandleType::Inode => 1,
            HandleType::WritePage => 2,
            HandleType::MapBlocks => 3,
            HandleType::Directory => 4,
            HandleType::Truncate => 5,
            HandleType::Quota => 6,
            HandleType::Resize => 7,
            HandleType::Migrate => 8,
            HandleType::MoveExtents => 9,
            HandleType::Xattr => 10,
            HandleType::ExtentConversion => 11,
        })
    }
}

/// A run in a block group, as the allocator's events print it: `group/start/len@logical`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct AllocatorExtent {
    /// The group.
    pub group: u32,
    /// First cluster within the group; -1 for none.
    pub start: i32,
    /// Clusters.
    pub len: u32,
    /// Block of the file.
    pub logical: u32,
}

impl From<AllocatorExtent> for FieldValue {
    fn from(extent: AllocatorExtent) -> Self {
        Self::Extent(extent)
    }
}

impl fmt::Display for AllocatorExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}@{}", self.group, self.start, self.len, self.logical)
    }
}
