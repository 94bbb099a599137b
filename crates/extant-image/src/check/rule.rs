//! What can be wrong: one rule each, with one name for ever, and e2fsck's code for the same problem.
//!
//! Source: e2fsprogs `e2fsck/problem.h` for the codes.

/// How much a broken rule matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Nothing that is in use is wrong: e2fsck passes over it, or tells it and ends with 0 all the same.
    Warning,
    /// Damage.
    Error,
}

/// The step in which a rule is judged; findings are told in this order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Pass {
    /// Superblock, its copies, journal and other structures that it points at.
    Superblock,
    /// Descriptors of groups.
    Groups,
    /// Inodes, their maps and their attributes.
    Inodes,
    /// Blocks with more than one owner.
    Claims,
    /// Contents of directories.
    Directories,
    /// How directories hang together.
    Tree,
    /// Links counted against links stored.
    Links,
    /// Bitmaps and counts against what is in use.
    Sums,
    /// Quota files against what their owners use.
    Quota,
}

impl Pass {
    /// The word for it in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Superblock => "superblock",
            Self::Groups => "groups",
            Self::Inodes => "inodes",
            Self::Claims => "claims",
            Self::Directories => "directories",
            Self::Tree => "tree",
            Self::Links => "links",
            Self::Sums => "sums",
            Self::Quota => "quota",
        }
    }
}

macro_rules! rules {
    ($($pass:ident { $($rule:ident $severity:ident $name:literal $code:literal $text:literal)* })*) => {
        /// A rule of the format that an image can break.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Rule {
            $($(#[doc = $text] $rule,)*)*
        }

        impl Rule {
            /// Every rule, in the order of the passes.
            pub const ALL: &'static [Self] = &[$($(Self::$rule,)*)*];

            /// Its name, which never changes.
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$rule => $name,)*)* }
            }

            /// What is wrong, in a few words.
            pub const fn text(self) -> &'static str {
                match self { $($(Self::$rule => $text,)*)* }
            }

            /// The code of the same problem in e2fsck; `None` if it does not look for it.
            pub const fn code(self) -> Option<&'static str> {
                let code = match self { $($(Self::$rule => $code,)*)* };
                if code.is_empty() { None } else { Some(code) }
            }

            /// How much it matters.
            pub const fn severity(self) -> Severity {
                match self { $($(Self::$rule => Severity::$severity,)*)* }
            }

            /// When it is judged.
            pub const fn pass(self) -> Pass {
                match self { $($(Self::$rule => Pass::$pass,)*)* }
            }
        }
    };
}

rules! {
    Superblock {
        Magic Error "magic" "PR_0_SB_CORRUPT" "no superblock where it should be"
        SuperblockField Error "superblock-field" "PR_0_MISC_CORRUPT_SUPER" "impossible value in the superblock"
        SuperblockChecksum Error "superblock-checksum" "PR_0_SB_CORRUPT" "checksum of the superblock does not match"
        SizePastDevice Error "size-past-device" "PR_0_FS_SIZE_WRONG" "more blocks than the device has"
        ReservedBlocks Error "reserved-blocks" "PR_0_MISC_CORRUPT_SUPER" "more than half of the blocks are reserved"
        MinExtraSize Warning "min-extra-size" "PR_0_BAD_MIN_EXTRA_ISIZE" "impossible least size of extra fields"
        WantExtraSize Warning "want-extra-size" "PR_0_BAD_WANT_EXTRA_ISIZE" "impossible wanted size of extra fields"
        TwoChecksumKinds Warning "two-checksum-kinds" "PR_0_META_AND_GDT_CSUM_SET" "metadata_csum and uninit_bg exclude each other"
        SeedWithoutChecksums Warning "seed-without-checksums" "PR_0_CSUM_SEED_WITHOUT_META_CSUM" "metadata_csum_seed without metadata_csum"
        WideWithoutExtents Error "wide-without-extents" "PR_0_64BIT_WITHOUT_EXTENTS" "64bit without extents"
        MetaGroupsWithResize Error "meta-groups-with-resize" "PR_0_DISABLE_RESIZE_INODE" "meta_bg and resize_inode exclude each other"
        ReservedDescriptors Warning "reserved-descriptors" "PR_0_NONZERO_RESERVED_GDT_BLOCKS" "descriptor blocks are reserved without resize_inode"
        BackupSuperblock Warning "backup-superblock" "" "copy of the superblock differs"
        BackupDescriptors Warning "backup-descriptors" "" "copy of the descriptors differs"
        MountTime Warning "mount-time" "PR_0_FUTURE_SB_LAST_MOUNT" "last mounted in the future"
        WriteTime Warning "write-time" "PR_0_FUTURE_SB_LAST_WRITE" "last written in the future"
        LargeFile Error "large-file" "PR_2_FEATURE_LARGE_FILES" "large files without the feature large_file"
        QuotaNumber Error "quota-number" "PR_0_INVALID_QUOTA_INO" "impossible number of a quota inode"
        MmpPlace Error "mmp-place" "PR_0_MMP_INVALID_BLK" "block of multiple mount protection lies outside the file system"
        MmpMagic Error "mmp-magic" "PR_0_MMP_INVALID_MAGIC" "wrong magic number of multiple mount protection"
        MmpChecksum Error "mmp-checksum" "PR_0_MMP_CSUM_INVALID" "checksum of multiple mount protection does not match"
        MmpSequence Error "mmp-sequence" "" "impossible sequence of multiple mount protection"
        JournalWithoutFeature Warning "journal-without-feature" "PR_0_JOURNAL_HAS_JOURNAL" "a journal without has_journal"
        RecoveryWithoutJournal Error "recovery-without-journal" "PR_0_JOURNAL_RECOVER_SET" "needs_recovery without a journal"
        JournalInode Error "journal-inode" "PR_0_JOURNAL_BAD_INODE" "the journal's inode is no journal"
        JournalSuperblock Error "journal-superblock" "PR_0_JOURNAL_BAD_SUPER" "the journal's superblock is damaged"
        JournalRecoveryClear Error "journal-recovery-clear" "PR_0_JOURNAL_RECOVERY_CLEAR" "the journal has transactions, but needs_recovery is off"
        JournalDamaged Error "journal-damaged" "PR_0_JNL_TXN_CORRUPT" "the journal cannot be replayed"
        OrphanHead Error "orphan-head" "PR_0_ORPHAN_ILLEGAL_HEAD_INODE" "impossible first inode of the orphan list"
        OrphanList Error "orphan-list" "PR_0_ORPHAN_ILLEGAL_INODE" "the orphan list leads nowhere or in a circle"
        OrphanPresent Error "orphan-present" "PR_6_ORPHAN_PRESENT_NO_FILE" "orphan_present without orphan_file"
    }
    Groups {
        BlockBitmapPlace Error "block-bitmap-place" "PR_0_BB_NOT_GROUP" "block bitmap lies outside its file system or group"
        InodeBitmapPlace Error "inode-bitmap-place" "PR_0_IB_NOT_GROUP" "inode bitmap lies outside its file system or group"
        InodeTablePlace Error "inode-table-place" "PR_0_ITABLE_NOT_GROUP" "inode table lies outside its file system or group"
        DescriptorChecksum Error "descriptor-checksum" "PR_0_GDT_CSUM" "checksum of a descriptor does not match"
        UninitWithoutFeature Warning "uninit-without-feature" "PR_0_GDT_UNINIT" "parts of a group are marked unused without checksums of descriptors"
        LastGroupUninit Error "last-group-uninit" "PR_0_BB_UNINIT_LAST" "the last group has no block bitmap"
        UnusedInodes Error "unused-inodes" "PR_0_GDT_ITABLE_UNUSED" "impossible number of inodes never used"
        BlockBitmapConflict Error "block-bitmap-conflict" "PR_1_BB_CONFLICT" "block bitmap lies on other metadata"
        InodeBitmapConflict Error "inode-bitmap-conflict" "PR_1_IB_CONFLICT" "inode bitmap lies on other metadata"
        InodeTableConflict Error "inode-table-conflict" "PR_1_ITABLE_CONFLICT" "inode table lies on other metadata"
    }
    Inodes {
        RootNotDirectory Error "root-not-directory" "PR_1_ROOT_NO_DIR" "the root is no directory"
        RootDeleted Error "root-deleted" "PR_1_ROOT_DTIME" "the root has a deletion time"
        ReservedMode Error "reserved-mode" "PR_1_RESERVED_BAD_MODE" "reserved inode has an impossible mode"
        JournalMode Error "journal-mode" "PR_1_JOURNAL_BAD_MODE" "the journal is no regular file"
        JournalNotClear Error "journal-not-clear" "PR_1_JOURNAL_INODE_NOT_CLEAR" "the journal's inode is in use without a journal"
        QuotaMode Error "quota-mode" "PR_1_QUOTA_BAD_MODE" "quota file is no regular file"
        QuotaNotClear Error "quota-not-clear" "PR_1_QUOTA_INODE_NOT_CLEAR" "quota inode is in use without quota"
        OrphanFileMode Error "orphan-file-mode" "PR_1_ORPHAN_FILE_BAD_MODE" "the orphan file is no regular file"
        OrphanFileNotClear Error "orphan-file-not-clear" "PR_1_ORPHAN_FILE_NOT_CLEAR" "the orphan file is in use without orphan_file"
        OrphanFileHole Error "orphan-file-hole" "PR_0_ORPHAN_FILE_HOLE" "the orphan file has a hole"
        OrphanFileSize Error "orphan-file-size" "PR_0_ORPHAN_FILE_WRONG_SIZE" "the orphan file does not end with a block"
        OrphanFileMagic Error "orphan-file-magic" "PR_0_ORPHAN_FILE_BAD_MAGIC" "block of the orphan file has the wrong magic number"
        OrphanFileChecksum Error "orphan-file-checksum" "PR_0_ORPHAN_FILE_BAD_CHECKSUM" "checksum of an orphan file's block does not match"
        OrphanFileEntry Error "orphan-file-entry" "PR_0_ORPHAN_ILLEGAL_INODE" "the orphan file names an impossible inode"
        ResizeInode Error "resize-inode" "PR_0_RESIZE_INODE_INVALID" "the resize inode does not hold the reserved descriptor blocks"
        ResizeNotClear Warning "resize-not-clear" "PR_0_CLEAR_RESIZE_INODE" "the resize inode is in use without resize_inode"
        BadBlocksInode Error "bad-blocks-inode" "PR_1_INVALID_BAD_INODE" "the inode of bad blocks is malformed"
        DeletedWithoutTime Error "deleted-without-time" "PR_1_ZERO_DTIME" "inode without links has no deletion time"
        DeletionTime Error "deletion-time" "PR_1_SET_DTIME" "inode in use has a deletion time"
        StrayOrphan Error "stray-orphan" "PR_1_LOW_DTIME" "inode was on an orphan list, but is on none"
        BadMode Error "bad-mode" "PR_2_BAD_MODE" "mode has no type of file"
        FragmentAddress Error "fragment-address" "PR_2_FADDR_ZERO" "fragment address is not zero"
        DirectorySizeHigh Error "directory-size-high" "PR_2_DIR_SIZE_HIGH_ZERO" "directory has a high half of its size"
        BlocksHigh Error "blocks-high" "PR_2_BLOCKS_HI_ZERO" "high half of the block count without huge_file"
        AttributeBlockHigh Error "attribute-block-high" "PR_2_I_FILE_ACL_HI_ZERO" "high half of the attribute block without 64bit"
        MagicFlag Error "magic-flag" "PR_1_SET_IMAGIC" "flag of magic inodes without the feature"
        CasefoldNotDirectory Error "casefold-not-directory" "PR_1_CASEFOLD_NONDIR" "casefold flag on something that is no directory"
        CasefoldWithoutFeature Error "casefold-without-feature" "PR_1_CASEFOLD_FEATURE" "casefold flag without the feature"
        EaInodeNotRegular Error "ea-inode-not-regular" "PR_1_EA_INODE_NONREG" "attribute inode is no regular file"
        InlineWithExtents Error "inline-with-extents" "PR_1_CLEAR_EXTENT_INLINE_DATA_FLAGS" "flags of inline data and of extents exclude each other"
        InlineWithoutFeature Error "inline-without-feature" "PR_1_INLINE_DATA_SET" "inline data without the feature"
        InlineWithoutAttribute Error "inline-without-attribute" "PR_1_INLINE_DATA_NO_ATTR" "inline data lacks its attribute"
        ExtentsWithoutFeature Error "extents-without-feature" "PR_1_EXTENT_FEATURE" "extents without the feature"
        ExtentsFlagMissing Error "extents-flag-missing" "PR_1_UNSET_EXTENT_FL" "extents without the inode's flag"
        ExtraSize Error "extra-size" "PR_1_EXTRA_ISIZE" "impossible size of extra fields"
        TimeRange Warning "time-range" "PR_1_EA_TIME_OUT_OF_RANGE" "time before 1970 is stored as one after 2310"
        EncryptionMissing Error "encryption-missing" "PR_1_MISSING_ENCRYPTION_XATTR" "encrypted inode has no context"
        EncryptionContext Error "encryption-context" "PR_1_CORRUPT_ENCRYPTION_XATTR" "encryption context is malformed"
        SpecialFile Error "special-file" "PR_2_BAD_CHAR_DEV" "device, pipe or socket has flags or blocks of a file"
        SpecialMap Error "special-map" "PR_1_SPECIAL_EXTENTS_IDATA" "device, pipe or socket has inline data"
        SpecialImmutable Warning "special-immutable" "PR_1_SET_IMMUTABLE" "what is no file or directory is immutable or append-only"
        SpecialSize Error "special-size" "PR_1_SET_NONZSIZE" "device, pipe or socket has a size"
        SymlinkExtents Error "symlink-extents" "PR_1_FAST_SYMLINK_EXTENT_FL" "short symbolic link has the flag of extents"
        SymlinkTarget Error "symlink-target" "PR_2_INVALID_SYMLINK" "symbolic link has an impossible target"
        ExtentHeader Error "extent-header" "PR_1_EXTENT_HEADER_INVALID" "header of an extent node is invalid"
        ExtentDepth Error "extent-depth" "PR_1_EXTENT_BAD_MAX_DEPTH" "extent node has the wrong depth"
        ExtentChecksum Error "extent-checksum" "PR_1_EXTENT_ONLY_CSUM_INVALID" "checksum of an extent node does not match"
        ExtentPlace Error "extent-place" "PR_1_EXTENT_BAD_START_BLK" "extent starts outside the file system"
        ExtentEnd Error "extent-end" "PR_1_EXTENT_ENDS_BEYOND" "extent ends past the file system"
        ExtentEmpty Error "extent-empty" "PR_1_EXTENT_LENGTH_ZERO" "extent has no blocks"
        ExtentOrder Error "extent-order" "PR_1_OUT_OF_ORDER_EXTENTS" "extents are out of order"
        ExtentOverlap Error "extent-overlap" "PR_1_EXTENT_COLLISION" "extents map the same block of a file"
        ExtentBounds Error "extent-bounds" "PR_1_EXTENT_END_OUT_OF_BOUNDS" "extent goes on where the next node starts"
        ExtentIndex Error "extent-index" "PR_1_EXTENT_INDEX_START_INVALID" "extent node does not start where its parent says"
        UnwrittenDirectory Error "unwritten-directory" "PR_1_UNINIT_DBLOCK" "directory has unwritten blocks"
        DirectoryGap Error "directory-gap" "PR_1_COLLAPSE_DBLOCK" "directory has a hole"
        ClusterAlignment Error "cluster-alignment" "PR_1_MISALIGNED_CLUSTER" "extent lies askew in its cluster"
        ClusterIndirect Error "cluster-indirect" "PR_1_NO_BIGALLOC_BLOCKMAP_FILES" "indirect map in a file system of clusters"
        BlockNumber Error "block-number" "PR_1_ILLEGAL_BLOCK_NUM" "block lies outside the file system"
        AttributeBlockPlace Error "attribute-block-place" "PR_2_FILE_ACL_BAD" "attribute block lies outside the file system"
        AttributesWithoutFeature Error "attributes-without-feature" "PR_2_FILE_ACL_ZERO" "attribute block without ext_attr"
        AttributeMagic Error "attribute-magic" "PR_1_BAD_EA_BLOCK" "wrong magic number of an attribute block"
        AttributeBlockCount Error "attribute-block-count" "PR_1_EA_MULTI_BLOCK" "attribute block says that it is more than one"
        AttributeChecksum Error "attribute-checksum" "PR_1_EA_BLOCK_ONLY_CSUM_INVALID" "checksum of an attribute block does not match"
        AttributeEntry Error "attribute-entry" "PR_1_EA_ALLOC_COLLISION" "attribute entry passes the end of its area"
        AttributeName Error "attribute-name" "PR_1_EA_BAD_NAME" "attribute has an impossible name"
        AttributeValue Error "attribute-value" "PR_1_EA_BAD_VALUE" "attribute value passes the end of its area"
        AttributeOverlap Error "attribute-overlap" "PR_1_INODE_EA_ALLOC_COLLISION" "attribute values overlap"
        AttributeHash Error "attribute-hash" "PR_1_ATTR_HASH" "hash of an attribute does not match"
        AttributeOrder Warning "attribute-order" "" "attributes of a block are out of order"
        AttributeReferences Error "attribute-references" "PR_1_EXTATTR_REFCOUNT" "wrong count of references to an attribute block"
        EaInodeFeature Error "ea-inode-feature" "PR_1_EA_INODE_FEATURE" "attribute inode without ea_inode"
        EaInodeNumber Error "ea-inode-number" "PR_1_ATTR_VALUE_EA_INODE" "attribute names an impossible inode"
        EaInodeSize Error "ea-inode-size" "PR_1_ATTR_VALUE_SIZE" "attribute and its inode differ in size"
        EaInodeFlag Error "ea-inode-flag" "PR_1_ATTR_NO_EA_INODE_FL" "attribute's inode lacks the flag"
        IndexNotDirectory Error "index-not-directory" "PR_1_HTREE_NODIR" "index flag on something that is no directory"
        IndexWithoutFeature Error "index-without-feature" "PR_1_HTREE_SET" "index flag without dir_index"
        EmptyDirectory Error "empty-directory" "PR_1_ZERO_LENGTH_DIR" "directory has no blocks"
        InodeSize Error "inode-size" "PR_1_BAD_I_SIZE" "size does not fit the blocks"
        InodeBlocks Error "inode-blocks" "PR_1_BAD_I_BLOCKS" "wrong count of blocks"
        InodeChecksum Error "inode-checksum" "PR_1_INODE_ONLY_CSUM_INVALID" "checksum of an inode does not match"
    }
    Claims {
        ClaimedByMetadata Error "claimed-by-metadata" "PR_1D_SHARE_METADATA" "file has blocks of the file system itself"
        ClaimedTwice Error "claimed-twice" "PR_1B_DUP_BLOCK" "block has several owners"
    }
    Directories {
        DirectoryHole Error "directory-hole" "PR_2_DIRECTORY_HOLE" "directory lacks a block"
        DirectoryTail Error "directory-tail" "PR_2_LEAF_NODE_MISSING_CSUM" "directory block has no room for a checksum"
        DirectoryChecksum Error "directory-checksum" "PR_2_LEAF_NODE_ONLY_CSUM_INVALID" "checksum of a directory block does not match"
        EntryLength Error "entry-length" "PR_2_DIR_CORRUPTED" "directory entry has an impossible length"
        InlineDirectorySize Error "inline-directory-size" "PR_2_BAD_INLINE_DIR_SIZE" "inline directory has an impossible size"
        DotMissing Error "dot-missing" "PR_2_MISSING_DOT" "directory lacks `.`"
        DotFirst Error "dot-first" "PR_2_1ST_NOT_DOT" "first entry of a directory is not `.`"
        DotInode Error "dot-inode" "PR_2_BAD_INODE_DOT" "`.` leads to another inode"
        DotLength Warning "dot-length" "PR_2_SPLIT_DOT" "`.` takes more room than it needs"
        DotDotMissing Error "dot-dot-missing" "PR_2_MISSING_DOT_DOT" "directory lacks `..`"
        DotDotSecond Error "dot-dot-second" "PR_2_2ND_NOT_DOT_DOT" "second entry of a directory is not `..`"
        DotAgain Error "dot-again" "PR_2_DUP_DOT" "`.` a second time"
        DotDotAgain Error "dot-dot-again" "PR_2_DUP_DOT_DOT" "`..` a second time"
        EntrySelf Error "entry-self" "PR_2_LINK_DOT" "directory has a name in itself"
        EntryRoot Error "entry-root" "PR_2_LINK_ROOT" "the root has a name"
        EntryInode Error "entry-inode" "PR_2_BAD_INO" "entry leads to an impossible inode"
        EntryEmpty Error "entry-empty" "PR_2_NULL_NAME" "entry has no name"
        EntryUninit Error "entry-uninit" "PR_2_INOREF_BG_INO_UNINIT" "entry leads into a group without inodes"
        EntryUnusedPart Error "entry-unused-part" "PR_2_INOREF_IN_UNUSED" "entry leads to an inode never used"
        EntryDeleted Error "entry-deleted" "PR_2_UNUSED_INODE" "entry leads to a deleted inode"
        EntryEaInode Error "entry-ea-inode" "PR_2_EA_INODE_DIR_LINK" "entry leads to an attribute's inode"
        EntryType Error "entry-type" "PR_2_BAD_FILETYPE" "entry has the wrong type of file"
        EntryTypeUnset Warning "entry-type-unset" "PR_2_SET_FILETYPE" "entry lacks its type of file"
        EntryTypeUnknown Error "entry-type-unknown" "PR_2_CLEAR_FILETYPE" "entry has a type of file without filetype"
        EntryName Error "entry-name" "PR_2_BAD_NAME" "name has a slash or a zero byte"
        EncodedName Error "encoded-name" "PR_2_BAD_ENCODED_NAME" "name in a casefolded directory is no text"
        EncryptedName Error "encrypted-name" "PR_2_BAD_ENCRYPTED_NAME" "encrypted name is too short"
        NameTwice Error "name-twice" "PR_2_REPORT_DUP_DIRENT" "name occurs twice in a directory"
        IndexRoot Error "index-root" "PR_1_HTREE_BADROOT" "root of a directory index is malformed"
        IndexHash Error "index-hash" "PR_1_HTREE_HASHV" "unknown hash of a directory index"
        IndexSipHash Error "index-siphash" "PR_1_HTREE_CANNOT_SIPHASH" "directory index has the hash of other directories"
        IndexFlags Error "index-flags" "PR_1_HTREE_INCOMPAT" "unknown flags of a directory index"
        IndexDepth Error "index-depth" "PR_1_HTREE_DEPTH" "directory index is too deep"
        IndexRootChecksum Error "index-root-checksum" "PR_2_HTREE_ROOT_CSUM_INVALID" "checksum of a directory index's root does not match"
        IndexNodeChecksum Error "index-node-checksum" "PR_2_HTREE_NODE_CSUM_INVALID" "checksum of a directory index's node does not match"
        IndexLimit Error "index-limit" "PR_2_HTREE_BAD_LIMIT" "directory index node has the wrong capacity"
        IndexCount Error "index-count" "PR_2_HTREE_BAD_COUNT" "directory index node has more entries than fit"
        IndexOrder Error "index-order" "PR_2_HTREE_HASH_ORDER" "hashes of a directory index are out of order"
        IndexBlock Error "index-block" "PR_2_HTREE_BADBLK" "directory index points past the directory"
        IndexLeafDepth Error "index-leaf-depth" "PR_2_HTREE_BAD_DEPTH" "leaf of a directory index at the wrong depth"
        IndexUnreferenced Error "index-unreferenced" "PR_2_HTREE_NOTREF" "directory block that the index does not name"
        IndexTwice Error "index-twice" "PR_2_HTREE_DUPREF" "directory block that the index names twice"
        IndexLow Error "index-low" "PR_2_HTREE_MIN_HASH" "hash of a name lies before its block's range"
        IndexHigh Error "index-high" "PR_2_HTREE_MAX_HASH" "hash of a name lies after its block's range"
    }
    Tree {
        RootMissing Error "root-missing" "PR_3_NO_ROOT_INODE" "there is no root directory"
        TwoParents Error "two-parents" "PR_2_LINK_DIR" "directory has a name in two places"
        Unconnected Error "unconnected" "PR_3_UNCONNECTED_DIR" "directory has no name"
        DirectoryLoop Error "directory-loop" "PR_3_LOOPED_DIR" "directory lies in itself"
        DotDot Error "dot-dot" "PR_3_BAD_DOT_DOT" "`..` does not lead to the parent"
        LostFoundMissing Warning "lost-found-missing" "PR_3_NO_LF_DIR" "there is no lost+found"
        LostFoundType Error "lost-found-type" "PR_3_LPF_NOTDIR" "lost+found is no directory"
        LostFoundInline Error "lost-found-inline" "PR_3_LPF_INLINE_DATA" "lost+found lies in its inode"
        LostFoundEncrypted Error "lost-found-encrypted" "PR_3_LPF_ENCRYPTED" "lost+found is encrypted"
    }
    Links {
        Unattached Error "unattached" "PR_4_UNATTACHED_INODE" "file has no name"
        LinkCount Error "link-count" "PR_4_BAD_REF_COUNT" "wrong count of names"
        LinkOverflow Warning "link-overflow" "PR_4_DIR_OVERFLOW_REF_COUNT" "directory counts one name as if it had too many to count"
        ManyLinks Error "many-links" "PR_4_DIR_NLINK_FEATURE" "directory with more names than can be counted without dir_nlink"
        EaInodeReferences Error "ea-inode-references" "PR_4_EA_INODE_REF_COUNT" "wrong count of references to an attribute inode"
    }
    Sums {
        InodePadding Error "inode-padding" "PR_5_INODE_BMAP_PADDING" "end of an inode bitmap is not filled"
        BlockPadding Error "block-padding" "PR_5_BLOCK_BMAP_PADDING" "end of a block bitmap is not filled"
        BlockUnmarked Error "block-unmarked" "PR_5_BLOCK_USED" "blocks in use are marked free"
        BlockMarked Error "block-marked" "PR_5_BLOCK_UNUSED" "free blocks are marked in use"
        BlockUninit Error "block-uninit" "PR_5_BLOCK_UNINIT" "blocks in use where the group says that it has none"
        InodeUnmarked Error "inode-unmarked" "PR_5_INODE_USED" "inodes in use are marked free"
        InodeMarked Error "inode-marked" "PR_5_INODE_UNUSED" "free inodes are marked in use"
        BlockBitmapChecksum Error "block-bitmap-checksum" "PR_5_BLOCK_BITMAP_CSUM_INVALID" "checksum of a block bitmap does not match"
        InodeBitmapChecksum Error "inode-bitmap-checksum" "PR_5_INODE_BITMAP_CSUM_INVALID" "checksum of an inode bitmap does not match"
        GroupFreeBlocks Error "group-free-blocks" "PR_5_FREE_BLOCK_COUNT_GROUP" "wrong count of a group's free clusters"
        GroupFreeInodes Error "group-free-inodes" "PR_5_FREE_INODE_COUNT_GROUP" "wrong count of a group's free inodes"
        GroupDirectories Error "group-directories" "PR_5_FREE_DIR_COUNT_GROUP" "wrong count of a group's directories"
        FreeBlocks Warning "free-blocks" "PR_5_FREE_BLOCK_COUNT" "wrong count of free blocks"
        FreeInodes Warning "free-inodes" "PR_5_FREE_INODE_COUNT" "wrong count of free inodes"
    }
    Quota {
        QuotaHeader Error "quota-header" "PR_6_UPDATE_QUOTAS" "header of a quota file is malformed"
        QuotaTree Error "quota-tree" "PR_6_UPDATE_QUOTAS" "tree of a quota file leads to an impossible block"
        QuotaUsage Error "quota-usage" "PR_6_UPDATE_QUOTAS" "quota file tells another use than there is"
        QuotaMissing Error "quota-missing" "PR_6_UPDATE_QUOTAS" "quota file lacks an owner"
    }
}
