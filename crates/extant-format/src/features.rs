//! Feature bits of the superblock, with the names that `mke2fs -O` and `dumpe2fs` use for them.
//!
//! Unknown `incompat` bits forbid reading, unknown `ro_compat` bits forbid writing, unknown `compat` bits mean nothing.

macro_rules! features {
    ($(#[$doc:meta])* $set:ident, $letter:literal: $($(#[$bit_doc:meta])* $bit:ident = $value:literal $name:literal;)*) => {
        bitflags::bitflags! {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
            pub struct $set: u32 {
                $($(#[$bit_doc])* #[doc = concat!("`", $name, "`")] const $bit = $value;)*
            }
        }

        impl $set {
            /// The name of a single known bit.
            pub fn name(self) -> Option<&'static str> {
                match self.bits() {
                    $($value => Some($name),)*
                    _ => None,
                }
            }

            /// The bit called `name`; unknown bits are called by letter and number.
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$bit),)*
                    _ => {
                        let bit = name.strip_prefix(concat!("FEATURE_", $letter))?.parse().ok()?;
                        1_u32.checked_shl(bit).map(Self::from_bits_retain)
                    }
                }
            }
        }

        /// The names of all bits, lowest first, with blanks between.
        impl core::fmt::Display for $set {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut blank = "";
                for bit in 0..u32::BITS {
                    let one = Self::from_bits_retain(1 << bit);
                    if !self.contains(one) {
                        continue;
                    }
                    match one.name() {
                        Some(name) => write!(f, "{blank}{name}")?,
                        None => write!(f, concat!("{}FEATURE_", $letter, "{}"), blank, bit)?,
                    }
                    blank = " ";
                }
                Ok(())
            }
        }
    };
}
pub(crate) use features;

features! {
    /// Features that a reader or writer may ignore.
    Compat, "C":
    DIR_PREALLOC = 0x1 "dir_prealloc";
    IMAGIC_INODES = 0x2 "imagic_inodes";
    HAS_JOURNAL = 0x4 "has_journal";
    EXT_ATTR = 0x8 "ext_attr";
    RESIZE_INODE = 0x10 "resize_inode";
    DIR_INDEX = 0x20 "dir_index";
    LAZY_BG = 0x40 "lazy_bg";
    EXCLUDE_BITMAP = 0x100 "snapshot_bitmap";
    SPARSE_SUPER2 = 0x200 "sparse_super2";
    FAST_COMMIT = 0x400 "fast_commit";
    STABLE_INODES = 0x800 "stable_inodes";
    ORPHAN_FILE = 0x1000 "orphan_file";
}

features! {
    /// Features that a writer must know.
    RoCompat, "R":
    SPARSE_SUPER = 0x1 "sparse_super";
    LARGE_FILE = 0x2 "large_file";
    BTREE_DIR = 0x4 "btree_dir";
    HUGE_FILE = 0x8 "huge_file";
    GDT_CSUM = 0x10 "uninit_bg";
    DIR_NLINK = 0x20 "dir_nlink";
    EXTRA_ISIZE = 0x40 "extra_isize";
    HAS_SNAPSHOT = 0x80 "snapshot";
    QUOTA = 0x100 "quota";
    BIGALLOC = 0x200 "bigalloc";
    METADATA_CSUM = 0x400 "metadata_csum";
    REPLICA = 0x800 "replica";
    READONLY = 0x1000 "read-only";
    PROJECT = 0x2000 "project";
    SHARED_BLOCKS = 0x4000 "shared_blocks";
    VERITY = 0x8000 "verity";
    ORPHAN_PRESENT = 0x10000 "orphan_present";
}

features! {
    /// Features that a reader must know.
    Incompat, "I":
    COMPRESSION = 0x1 "compression";
    FILETYPE = 0x2 "filetype";
    RECOVER = 0x4 "needs_recovery";
    JOURNAL_DEV = 0x8 "journal_dev";
    META_BG = 0x10 "meta_bg";
    EXTENTS = 0x40 "extent";
    BIT64 = 0x80 "64bit";
    MMP = 0x100 "mmp";
    FLEX_BG = 0x200 "flex_bg";
    EA_INODE = 0x400 "ea_inode";
    DIRDATA = 0x1000 "dirdata";
    CSUM_SEED = 0x2000 "metadata_csum_seed";
    LARGEDIR = 0x4000 "large_dir";
    INLINE_DATA = 0x8000 "inline_data";
    ENCRYPT = 0x10000 "encrypt";
    CASEFOLD = 0x20000 "casefold";
}

impl Incompat {
    /// What this crate can read. As the kernel, neither compression nor `dirdata`, and no journal device as a file system.
    pub const SUPPORTED: Self =
        Self::all().difference(Self::COMPRESSION.union(Self::JOURNAL_DEV).union(Self::DIRDATA));
}

impl RoCompat {
    /// What this crate can write; [`Self::READONLY`] is known and means just what it says.
    pub const SUPPORTED: Self = Self::all().difference(
        Self::BTREE_DIR.union(Self::HAS_SNAPSHOT).union(Self::REPLICA).union(Self::SHARED_BLOCKS),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_mke2fs() {
        assert_eq!(RoCompat::METADATA_CSUM.name(), Some("metadata_csum"));
        assert_eq!(Incompat::by_name("64bit"), Some(Incompat::BIT64));
        assert_eq!(Compat::by_name("nonsense"), None);
        assert_eq!(Incompat::by_name("FEATURE_I99"), None);
    }

    #[test]
    fn unknown_bits_show_letter_and_number() {
        let set = Incompat::EXTENTS | Incompat::from_bits_retain(1 << 30);
        assert_eq!(set.to_string(), "extent FEATURE_I30");
        assert_eq!(Incompat::by_name("FEATURE_I30"), Some(Incompat::from_bits_retain(1 << 30)));
    }

    #[test]
    fn every_name_parses_to_its_bit() {
        for bit in 0..32 {
            let (c, i, r) = (1 << bit, 1 << bit, 1 << bit);
            let (c, i, r) = (
                Compat::from_bits_retain(c),
                Incompat::from_bits_retain(i),
                RoCompat::from_bits_retain(r),
            );
            assert_eq!(Compat::by_name(&c.to_string()), Some(c));
            assert_eq!(Incompat::by_name(&i.to_string()), Some(i));
            assert_eq!(RoCompat::by_name(&r.to_string()), Some(r));
        }
    }
}
