//! The table of events: the kernel's name, the fields of its record, and its text after `dev %d,%d `.
//!
//! Numbers are bare where elsewhere they have types: an event is the kernel's record, with values that no typed number
//! admits (one past the last block, -1 for no start, what an empty slot holds). A field that does not fit its record
//! here is the largest number, never a panic.

use alloc::vec::Vec;
use core::fmt;

use extant_format::InodeNumber;

use super::values::{
    AllocationFlags, AllocatorExtent, Criterion, DeviceNumber, FallocateMode, FieldValue,
    FreeFlags, HandleType, MapFlags, MappedFlags, StatusFlags,
};

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident $name:literal { $($field:ident: $type:ty),* } $text:literal;)*) => {
        /// One thing that happened; named and printed as the kernel's tracepoint of it.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[$doc])* #[doc = concat!("\n\n`", $name, "`: `dev %d,%d ", $text, "`")]
            $variant {
                $(#[doc = concat!("`", stringify!($field), "` of the record.")] $field: $type,)*
            },)*
        }

        impl Event {
            /// The kernel's name of the tracepoint.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                }
            }

            /// Names and values of the fields, `dev` aside.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, FieldValue)> + use<> {
                let fields: Vec<(&'static str, FieldValue)> = match *self {
                    $(Self::$variant { $($field),* } => {
                        alloc::vec![$((stringify!($field), FieldValue::from($field))),*]
                    })*
                };
                fields.into_iter()
            }

            fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$variant { $($field),* } => {
                        $(let $field = FieldValue::from($field);)*
                        // Some go on in the device's own sentence.
                        f.write_str(if $text.starts_with([',', ':']) { "" } else { " " })?;
                        write!(f, $text)
                    })*
                }
            }
        }
    };
}

impl Event {
    /// The event's text as on `device`.
    pub fn on(&self, device: DeviceNumber) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| {
            write!(f, "dev {},{}", device.major, device.minor)?;
            self.print(f)
        })
    }
}

impl fmt::Display for Event {
    /// The kernel's text, as on the first loop device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.on(DeviceNumber::default()).fmt(f)
    }
}

events! {
    // Write path.

    /// A delayed write enters a folio; `len` as asked for, not cut to the folio.
    DaWriteBegin "ext4_da_write_begin" { ino: InodeNumber, pos: u64, len: u32 } "ino {ino} pos {pos} len {len}";
    /// A delayed write leaves a folio; `len` was cut to it.
    DaWriteEnd "ext4_da_write_end" { ino: InodeNumber, pos: u64, len: u32, copied: u32 }
        "ino {ino} pos {pos} len {len} copied {copied}";
    /// A write that allocates at once enters a folio.
    WriteBegin "ext4_write_begin" { ino: InodeNumber, pos: u64, len: u32 } "ino {ino} pos {pos} len {len}";
    /// A write that allocates at once leaves a folio.
    WriteEnd "ext4_write_end" { ino: InodeNumber, pos: u64, len: u32, copied: u32 }
        "ino {ino} pos {pos} len {len} copied {copied}";
    /// A write whose data goes through the journal leaves a folio.
    JournalledWriteEnd "ext4_journalled_write_end" { ino: InodeNumber, pos: u64, len: u32, copied: u32 }
        "ino {ino} pos {pos} len {len} copied {copied}";
    /// Space was promised; `reserved_data_blocks` is what the inode holds now. Carries a run: the kernel tells one cluster a time.
    DaReserveSpace "ext4_da_reserve_space"
        { ino: InodeNumber, mode: u16, i_blocks: u64, reserve_blocks: u32, reserved_data_blocks: u32 }
        "ino {ino} mode 0{mode:o} i_blocks {i_blocks} reserve_blocks {reserve_blocks}reserved_data_blocks {reserved_data_blocks}";
    /// Promised space goes back; `reserved_data_blocks` is what the inode held before.
    DaReleaseSpace "ext4_da_release_space"
        { ino: InodeNumber, mode: u16, i_blocks: u64, freed_blocks: u32, reserved_data_blocks: u32 }
        "ino {ino} mode 0{mode:o} i_blocks {i_blocks} freed_blocks {freed_blocks} reserved_data_blocks {reserved_data_blocks}";
    /// Promised space is spent; numbers are those before.
    DaUpdateReserveSpace "ext4_da_update_reserve_space"
        { ino: InodeNumber, mode: u16, i_blocks: u64, used_blocks: u32, reserved_data_blocks: u32, quota_claim: bool }
        "ino {ino} mode 0{mode:o} i_blocks {i_blocks} used_blocks {used_blocks} reserved_data_blocks {reserved_data_blocks} quota_claim {quota_claim}";
    /// A file that replaces another is to be written back.
    AllocDaBlocks "ext4_alloc_da_blocks" { ino: InodeNumber, reserved_data_blocks: u32 }
        "ino {ino} reserved_data_blocks {reserved_data_blocks}";
    /// The extent status tree is asked about a block. Within a run of delayed blocks the kernel asks about each.
    EsLookupExtentEnter "ext4_es_lookup_extent_enter" { ino: InodeNumber, lblk: u32 } "ino {ino} lblk {lblk}";
    /// What it knew; the status as it was before the look, nothing if not found.
    EsLookupExtentExit "ext4_es_lookup_extent_exit"
        { ino: InodeNumber, found: bool, lblk: u32, len: u32, pblk: u64, status: StatusFlags }
        "ino {ino} found {found} [{lblk}/{len}) {pblk} {status}";
    /// A run is put into the tree.
    EsInsertExtent "ext4_es_insert_extent" { ino: InodeNumber, lblk: u32, len: u32, pblk: u64, status: StatusFlags }
        "ino {ino} es [{lblk}/{len}) mapped {pblk} status {status}";
    /// Delayed blocks are put into the tree; with whether the first and the last cluster were allocated before. Carries
    /// a run: the kernel puts in one block a time.
    EsInsertDelayedExtent "ext4_es_insert_delayed_extent"
        { ino: InodeNumber, lblk: u32, len: u32, pblk: u64, status: StatusFlags, lclu_allocated: bool, end_allocated: bool }
        "ino {ino} es [{lblk}/{len}) mapped {pblk} status {status} allocated {lclu_allocated} {end_allocated}";
    /// A run read from disk is offered to the tree, which may know better.
    EsCacheExtent "ext4_es_cache_extent" { ino: InodeNumber, lblk: u32, len: u32, pblk: u64, status: StatusFlags }
        "ino {ino} es [{lblk}/{len}) mapped {pblk} status {status}";
    /// A range is taken out of the tree.
    EsRemoveExtent "ext4_es_remove_extent" { ino: InodeNumber, lblk: u32, len: u32 } "ino {ino} es [{lblk}/{len})";
    /// The tree is asked for the next run of a kind from a block on.
    EsFindExtentRangeEnter "ext4_es_find_extent_range_enter" { ino: InodeNumber, lblk: u32 } "ino {ino} lblk {lblk}";
    /// The run found, zeroes if none.
    EsFindExtentRangeExit "ext4_es_find_extent_range_exit"
        { ino: InodeNumber, lblk: u32, len: u32, pblk: u64, status: StatusFlags }
        "ino {ino} es [{lblk}/{len}) mapped {pblk} status {status}";
    /// Ordered data beyond a new size is seen to first.
    BeginOrderedTruncate "ext4_begin_ordered_truncate" { ino: InodeNumber, new_size: u64 } "ino {ino} new_size {new_size}";

    // Mapping.

    /// An extent tree is asked, or asked to allocate.
    ExtMapBlocksEnter "ext4_ext_map_blocks_enter" { ino: InodeNumber, lblk: u32, len: u32, flags: MapFlags }
        "ino {ino} lblk {lblk} len {len} flags {flags}";
    /// Its answer: blocks, or an error below zero.
    ExtMapBlocksExit "ext4_ext_map_blocks_exit"
        { ino: InodeNumber, flags: MapFlags, lblk: u32, pblk: u64, len: u32, mflags: MappedFlags, ret: i32 }
        "ino {ino} flags {flags} lblk {lblk} pblk {pblk} len {len} mflags {mflags} ret {ret}";
    /// As for extents, of a file with indirect blocks.
    IndMapBlocksEnter "ext4_ind_map_blocks_enter" { ino: InodeNumber, lblk: u32, len: u32, flags: MapFlags }
        "ino {ino} lblk {lblk} len {len} flags {flags}";
    /// As for extents, of a file with indirect blocks.
    IndMapBlocksExit "ext4_ind_map_blocks_exit"
        { ino: InodeNumber, flags: MapFlags, lblk: u32, pblk: u64, len: u32, mflags: MappedFlags, ret: i32 }
        "ino {ino} flags {flags} lblk {lblk} pblk {pblk} len {len} mflags {mflags} ret {ret}";
    /// A node of the extent tree comes from the device.
    ExtLoadExtent "ext4_ext_load_extent" { ino: InodeNumber, lblk: u32, pblk: u64 } "ino {ino} lblk {lblk} pblk {pblk}";
    /// The search ended at an extent that covers the block or lies left of it.
    ExtShowExtent "ext4_ext_show_extent" { ino: InodeNumber, lblk: u32, pblk: u64, len: u16 }
        "ino {ino} lblk {lblk} pblk {pblk} len {len}";
    /// A mapping is wanted that changes unwritten blocks.
    ExtHandleUnwrittenExtents "ext4_ext_handle_unwritten_extents"
        { ino: InodeNumber, lblk: u32, pblk: u64, len: u32, flags: MapFlags, allocated: u32, newblk: u64 }
        "ino {ino} m_lblk {lblk} m_pblk {pblk} m_len {len} flags {flags} allocated {allocated} newblock {newblk}";
    /// Unwritten blocks become written within an unwritten extent.
    ExtConvertToInitializedEnter "ext4_ext_convert_to_initialized_enter"
        { ino: InodeNumber, m_lblk: u32, m_len: u32, u_lblk: u32, u_len: u32, u_pblk: u64 }
        "ino {ino} m_lblk {m_lblk} m_len {m_len} u_lblk {u_lblk} u_len {u_len} u_pblk {u_pblk}";
    /// They go to a written neighbour.
    ExtConvertToInitializedFastpath "ext4_ext_convert_to_initialized_fastpath"
        { ino: InodeNumber, m_lblk: u32, m_len: u32, u_lblk: u32, u_len: u32, u_pblk: u64, i_lblk: u32, i_len: u32, i_pblk: u64 }
        "ino {ino} m_lblk {m_lblk} m_len {m_len} u_lblk {u_lblk} u_len {u_len} u_pblk {u_pblk} i_lblk {i_lblk} i_len {i_len} i_pblk {i_pblk} ";
    /// Whether a block's cluster is allocated already (`bigalloc`).
    GetImpliedClusterAllocExit "ext4_get_implied_cluster_alloc_exit"
        { lblk: u32, pblk: u64, len: u32, flags: MappedFlags, ret: i32 }
        "m_lblk {lblk} m_pblk {pblk} m_len {len} m_flags {flags} ret {ret}";
    /// Blocks are about to be taken out of an extent tree.
    ExtRemoveSpace "ext4_ext_remove_space" { ino: InodeNumber, start: u32, end: u32, depth: u16 }
        "ino {ino} since {start} end {end} depth {depth}";
    /// A leaf of the tree is cut.
    ExtRmLeaf "ext4_ext_rm_leaf"
        { ino: InodeNumber, start: u32, ee_lblk: u32, ee_pblk: u64, ee_len: u16, pc_pclu: u64, pc_lblk: u32, pc_state: u32 }
        "ino {ino} start_lblk {start} last_extent [{ee_lblk}({ee_pblk}), {ee_len}]partial [pclu {pc_pclu} lblk {pc_lblk} state {pc_state}]";
    /// Blocks of one extent are given back.
    RemoveBlocks "ext4_remove_blocks"
        { ino: InodeNumber, ee_lblk: u32, ee_pblk: u64, ee_len: u16, from: u32, to: u32, pc_pclu: u64, pc_lblk: u32, pc_state: u32 }
        "ino {ino} extent [{ee_lblk}({ee_pblk}), {ee_len}]from {from} to {to} partial [pclu {pc_pclu} lblk {pc_lblk} state {pc_state}]";
    /// A node of the tree is given back.
    ExtRmIdx "ext4_ext_rm_idx" { ino: InodeNumber, pblk: u64 } "ino {ino} index_pblk {pblk}";
    /// What is left of the tree.
    ExtRemoveSpaceDone "ext4_ext_remove_space_done"
        { ino: InodeNumber, start: u32, end: u32, depth: u16, pc_pclu: u64, pc_lblk: u32, pc_state: u32, eh_entries: u16 }
        "ino {ino} since {start} end {end} depth {depth} partial [pclu {pc_pclu} lblk {pc_lblk} state {pc_state}] remaining_entries {eh_entries}";

    // Allocator.

    /// Blocks are asked for.
    RequestBlocks "ext4_request_blocks"
        { ino: InodeNumber, flags: AllocationFlags, len: u32, logical: u32, goal: u64, lleft: u32, lright: u32, pleft: u64, pright: u64 }
        "ino {ino} flags {flags} len {len} lblk {logical} goal {goal} lleft {lleft} lright {lright} pleft {pleft} pright {pright} ";
    /// A search of the bitmaps is over; a `result` of no length is a failure. `buddy` is `1 << order` or 0.
    MballocAlloc "ext4_mballoc_alloc"
        { ino: InodeNumber, orig: AllocatorExtent, goal: AllocatorExtent, result: AllocatorExtent, found: u16, groups: u16,
          cr: Criterion, flags: AllocationFlags, tail: u16, buddy: u32 }
        "inode {ino} orig {orig} goal {goal} result {result} blks {found} grps {groups} cr {cr} flags {flags} tail {tail} broken {buddy}";
    /// A request was served from a preallocation.
    MballocPrealloc "ext4_mballoc_prealloc" { ino: InodeNumber, orig: AllocatorExtent, result: AllocatorExtent }
        "inode {ino} orig {orig} result {result}";
    /// The allocator's answer; no block and no length is a failure.
    AllocateBlocks "ext4_allocate_blocks"
        { ino: InodeNumber, flags: AllocationFlags, len: u32, block: u64, logical: u32, goal: u64, lleft: u32, lright: u32, pleft: u64, pright: u64 }
        "ino {ino} flags {flags} len {len} block {block} lblk {logical} goal {goal} lleft {lleft} lright {lright} pleft {pleft} pright {pright}";
    /// A file has a preallocation of its own.
    MbNewInodePa "ext4_mb_new_inode_pa" { ino: InodeNumber, pa_pstart: u64, pa_len: u32, pa_lstart: u64 }
        "ino {ino} pstart {pa_pstart} len {pa_len} lstart {pa_lstart}";
    /// Small files have a preallocation that they share.
    MbNewGroupPa "ext4_mb_new_group_pa" { ino: InodeNumber, pa_pstart: u64, pa_len: u32, pa_lstart: u64 }
        "ino {ino} pstart {pa_pstart} len {pa_len} lstart {pa_lstart}";
    /// A file's preallocation goes back, one event a run that was not used.
    MbReleaseInodePa "ext4_mb_release_inode_pa" { ino: InodeNumber, block: u64, count: u32 }
        "ino {ino} block {block} count {count}";
    /// A shared preallocation goes back.
    MbReleaseGroupPa "ext4_mb_release_group_pa" { pa_pstart: u64, pa_len: u32 } "pstart {pa_pstart} len {pa_len}";
    /// Preallocated clusters are free in the buddy again.
    MballocDiscard "ext4_mballoc_discard" { group: u32, start: u32, len: u32 } "inode 0 extent {group}/{start}/{len} ";
    /// Clusters of a file are free in the bitmap again.
    MballocFree "ext4_mballoc_free" { ino: InodeNumber, group: u32, start: u32, len: u32 }
        "inode {ino} extent {group}/{start}/{len} ";
    /// A file's preallocations, so many, go back.
    DiscardPreallocations "ext4_discard_preallocations" { ino: InodeNumber, len: u32 } "ino {ino} len: {len}";
    /// Space ran short: everybody's preallocations go back.
    MbDiscardPreallocations "ext4_mb_discard_preallocations" { needed: u32 } "needed {needed}";
    /// Blocks of a file are given back.
    FreeBlocks "ext4_free_blocks" { ino: InodeNumber, mode: u16, block: u64, count: u64, flags: FreeFlags }
        "ino {ino} mode 0{mode:o} block {block} count {count} flags {flags}";
    /// The journal has to forget a block that is given back.
    Forget "ext4_forget" { ino: InodeNumber, mode: u16, is_metadata: bool, block: u64 }
        "ino {ino} mode 0{mode:o} is_metadata {is_metadata} block {block}";
    /// The device is told that blocks are free.
    DiscardBlocks "ext4_discard_blocks" { blk: u64, count: u64 } "blk {blk} count {count}";
    /// The same, in the group's terms.
    TrimExtent "ext4_trim_extent" { group: u32, start: u32, len: u32 } "group {group}, start {start}, len {len}";
    /// A group is searched for what to tell the device.
    TrimAllFree "ext4_trim_all_free" { group: u32, start: u32, len: u32 } "group {group}, start {start}, len {len}";
    /// A block bitmap comes from the device, or is computed.
    ReadBlockBitmapLoad "ext4_read_block_bitmap_load" { group: u32, prefetch: bool } "group {group} prefetch {prefetch}";
    /// A group's bitmap is read for its buddy.
    MbBitmapLoad "ext4_mb_bitmap_load" { group: u32 } "group {group}";
    /// A group's buddy is built.
    MbBuddyBitmapLoad "ext4_mb_buddy_bitmap_load" { group: u32 } "group {group}";
    /// An inode bitmap comes from the device, or is computed.
    LoadInodeBitmap "ext4_load_inode_bitmap" { group: u32 } "group {group}";

    // Writeback.

    /// Writeback of a file begins.
    Writepages "ext4_writepages"
        { ino: InodeNumber, nr_to_write: i64, pages_skipped: i64, range_start: i64, range_end: i64, sync_mode: u32,
          for_kupdate: bool, range_cyclic: bool, writeback_index: u64 }
        "ino {ino} nr_to_write {nr_to_write} pages_skipped {pages_skipped} range_start {range_start} range_end {range_end} sync_mode {sync_mode} for_kupdate {for_kupdate} range_cyclic {range_cyclic} writeback_index {writeback_index}";
    /// A round under one handle begins.
    DaWriteFoliosStart "ext4_da_write_folios_start"
        { ino: InodeNumber, start_pos: u64, next_pos: u64, nr_to_write: i64, sync_mode: u32 }
        "ino {ino} start_pos 0x{start_pos:x} next_pos 0x{next_pos:x} nr_to_write {nr_to_write} sync_mode {sync_mode}";
    /// A run of dirty blocks that have no place, or are unwritten, was gathered.
    DaWritePagesExtent "ext4_da_write_pages_extent" { ino: InodeNumber, lblk: u64, len: u32, flags: MappedFlags }
        "ino {ino} lblk {lblk} len {len} flags {flags}";
    /// The round is over, its handle stopped.
    DaWriteFoliosEnd "ext4_da_write_folios_end"
        { ino: InodeNumber, start_pos: u64, next_pos: u64, nr_to_write: i64, ret: i32 }
        "ino {ino} start_pos 0x{start_pos:x} next_pos 0x{next_pos:x} nr_to_write {nr_to_write} ret {ret}";
    /// Writeback of a file is over, but for what is on its way.
    WritepagesResult "ext4_writepages_result"
        { ino: InodeNumber, ret: i32, pages_written: i32, pages_skipped: i64, sync_mode: u32, writeback_index: u64 }
        "ino {ino} ret {ret} pages_written {pages_written} pages_skipped {pages_skipped} sync_mode {sync_mode} writeback_index {writeback_index}";
    /// A folio's bytes are read.
    ReadFolio "ext4_read_folio" { ino: InodeNumber, index: u64 } "ino {ino} folio_index {index}";
    /// A folio's states are dropped, as it is to go.
    ReleaseFolio "ext4_release_folio" { ino: InodeNumber, index: u64 } "ino {ino} folio_index {index}";
    /// Bytes of a folio are cut off: `index` in pages, `offset` and `length` in bytes.
    InvalidateFolio "ext4_invalidate_folio" { ino: InodeNumber, index: u64, offset: u64, length: u64 }
        "ino {ino} folio_index {index} offset {offset} length {length}";
    /// The same of a file whose data goes through the journal.
    JournalledInvalidateFolio "ext4_journalled_invalidate_folio" { ino: InodeNumber, index: u64, offset: u64, length: u64 }
        "ino {ino} folio_index {index} offset {offset} length {length}";

    // Files and sync.

    /// `fsync` or `fdatasync` begins; `parent` is the directory it was found in, 0 if nobody knows.
    SyncFileEnter "ext4_sync_file_enter" { ino: InodeNumber, parent: u64, datasync: bool }
        "ino {ino} parent {parent} datasync {datasync} ";
    /// It is over.
    SyncFileExit "ext4_sync_file_exit" { ino: InodeNumber, ret: i32 } "ino {ino} ret {ret}";
    /// `sync` of the volume, first without waiting, then with.
    SyncFs "ext4_sync_fs" { wait: bool } "wait {wait}";
    /// `fallocate` begins (mode 0 and `KEEP_SIZE`).
    FallocateEnter "ext4_fallocate_enter" { ino: InodeNumber, offset: u64, len: u64, mode: FallocateMode }
        "ino {ino} offset {offset} len {len} mode {mode}";
    /// It is over; `pos` is its offset.
    FallocateExit "ext4_fallocate_exit" { ino: InodeNumber, pos: u64, blocks: u32, ret: i32 }
        "ino {ino} pos {pos} blocks {blocks} ret {ret}";
    /// A hole is punched; the mode prints empty.
    PunchHole "ext4_punch_hole" { ino: InodeNumber, offset: u64, len: u64, mode: FallocateMode }
        "ino {ino} offset {offset} len {len} mode {mode}";
    /// A range becomes zeroes.
    ZeroRange "ext4_zero_range" { ino: InodeNumber, offset: u64, len: u64, mode: FallocateMode }
        "ino {ino} offset {offset} len {len} mode {mode}";
    /// A range is taken out and what follows moves up.
    CollapseRange "ext4_collapse_range" { ino: InodeNumber, offset: u64, len: u64 } "ino {ino} offset {offset} len {len}";
    /// A hole is put in and what follows moves down.
    InsertRange "ext4_insert_range" { ino: InodeNumber, offset: u64, len: u64 } "ino {ino} offset {offset} len {len}";
    /// Blocks beyond the size are about to go; `blocks` in units of 512 bytes.
    TruncateEnter "ext4_truncate_enter" { ino: InodeNumber, blocks: u64 } "ino {ino} blocks {blocks}";
    /// They are gone.
    TruncateExit "ext4_truncate_exit" { ino: InodeNumber, blocks: u64 } "ino {ino} blocks {blocks}";
    /// A name is about to go.
    UnlinkEnter "ext4_unlink_enter" { ino: InodeNumber, size: u64, parent: InodeNumber }
        "ino {ino} size {size} parent {parent}";
    /// It is gone.
    UnlinkExit "ext4_unlink_exit" { ino: InodeNumber, ret: i32 } "ino {ino} ret {ret}";
    /// A new inode is wanted in a directory.
    RequestInode "ext4_request_inode" { dir: InodeNumber, mode: u16 } "dir {dir} mode 0{mode:o}";
    /// It has its number.
    AllocateInode "ext4_allocate_inode" { ino: InodeNumber, dir: InodeNumber, mode: u16 }
        "ino {ino} dir {dir} mode 0{mode:o}";
    /// An inode's number is given back.
    FreeInode "ext4_free_inode" { ino: InodeNumber, mode: u16, uid: u32, gid: u32, blocks: u64 }
        "ino {ino} mode 0{mode:o} uid {uid} gid {gid} blocks {blocks}";
    /// An inode leaves memory.
    EvictInode "ext4_evict_inode" { ino: InodeNumber, nlink: u32 } "ino {ino} nlink {nlink}";
    /// The last user of an inode is gone; with whether it is to leave memory.
    DropInode "ext4_drop_inode" { ino: InodeNumber, drop: bool } "ino {ino} drop {drop}";
    /// An inode comes from its table.
    LoadInode "ext4_load_inode" { ino: InodeNumber } "ino {ino}";
    /// An inode is copied to its table.
    MarkInodeDirty "ext4_mark_inode_dirty" { ino: InodeNumber } "ino {ino}";
    /// Times of an inode that shares the table block are stored with it (`lazytime`).
    OtherInodeUpdateTime "ext4_other_inode_update_time"
        { orig_ino: InodeNumber, ino: InodeNumber, mode: u16, uid: u32, gid: u32 }
        "orig_ino {orig_ino} ino {ino} mode 0{mode:o} uid {uid} gid {gid}";
    /// The volume is shut down by force.
    Shutdown "ext4_shutdown" { flags: u32 } "flags {flags}";

    // Handles.

    /// A handle is asked for that is for no inode in particular.
    JournalStartSb "ext4_journal_start_sb" { blocks: u32, rsv_blocks: u32, revoke_creds: u32, kind: HandleType }
        "blocks {blocks}, rsv_blocks {rsv_blocks}, revoke_creds {revoke_creds}, type {kind}";
    /// A handle is asked for.
    JournalStartInode "ext4_journal_start_inode"
        { blocks: u32, rsv_blocks: u32, revoke_creds: u32, kind: HandleType, ino: InodeNumber }
        "blocks {blocks}, rsv_blocks {rsv_blocks}, revoke_creds {revoke_creds}, type {kind}, ino {ino}";
    /// A handle begins whose blocks were set aside before.
    JournalStartReserved "ext4_journal_start_reserved" { blocks: u32 } "blocks, {blocks}";

    // The extent status shrinker.

    /// Memory was taken back from extent status trees; `scan_time` in nanoseconds.
    EsShrink "ext4_es_shrink" { nr_shrunk: u32, scan_time: u64, nr_skipped: u32, retried: u32 }
        "nr_shrunk {nr_shrunk}, scan_time {scan_time} nr_skipped {nr_skipped} retried {retried}";
    /// How many entries could go.
    EsShrinkCount "ext4_es_shrink_count" { nr_to_scan: u32, cache_cnt: u32 } "nr_to_scan {nr_to_scan} cache_cnt {cache_cnt}";
    /// Some have to go.
    EsShrinkScanEnter "ext4_es_shrink_scan_enter" { nr_to_scan: u32, cache_cnt: u32 }
        "nr_to_scan {nr_to_scan} cache_cnt {cache_cnt}";
    /// So many went.
    EsShrinkScanExit "ext4_es_shrink_scan_exit" { nr_shrunk: u32, cache_cnt: u32 }
        "nr_shrunk {nr_shrunk} cache_cnt {cache_cnt}";

    // Fast commits.

    /// An `fsync` would have them.
    FcCommitStart "ext4_fc_commit_start" { tid: u32 } "tid {tid}";
    /// It is over: 0 written, 1 not possible for what was done, 2 not needed, 3 failed; with the sums of all.
    FcCommitStop "ext4_fc_commit_stop"
        { nblks: u32, reason: u32, num_fc: u32, num_fc_ineligible: u32, nblks_agg: u32, tid: u32 }
        "nblks {nblks}, reason {reason}, fc = {num_fc}, ineligible = {num_fc_ineligible}, agg_nblks {nblks_agg}, tid {tid}";
    /// What a fast or a full commit has written is forgotten; `j_fc_off` blocks of the area are taken.
    FcCleanup "ext4_fc_cleanup" { j_fc_off: u32, full: bool, tid: u32 } ", j_fc_off {j_fc_off}, full {full}, tid {tid}";
    /// The next fast commit has the inode; `error` is -17 if it had it already.
    FcTrackInode "ext4_fc_track_inode" { t_tid: u32, i_ino: InodeNumber, i_sync_tid: u32, error: i32 }
        ", t_tid {t_tid}, inode {i_ino}, i_sync_tid {i_sync_tid}, error {error}";
    /// The next fast commit tells what these blocks are then, the last included.
    FcTrackRange "ext4_fc_track_range"
        { t_tid: u32, i_ino: InodeNumber, i_sync_tid: u32, error: i32, start: u32, end: u32 }
        ", t_tid {t_tid}, inode {i_ino}, i_sync_tid {i_sync_tid}, error {error}, start {start}, end {end}";
    /// The next fast commit has a new inode's name.
    FcTrackCreate "ext4_fc_track_create" { t_tid: u32, i_ino: InodeNumber, i_sync_tid: u32, error: i32 }
        ", t_tid {t_tid}, ino {i_ino}, i_sync_tid {i_sync_tid}, error {error}";
    /// The next fast commit has one more name.
    FcTrackLink "ext4_fc_track_link" { t_tid: u32, i_ino: InodeNumber, i_sync_tid: u32, error: i32 }
        ", t_tid {t_tid}, ino {i_ino}, i_sync_tid {i_sync_tid}, error {error}";
    /// The next fast commit has one name less.
    FcTrackUnlink "ext4_fc_track_unlink" { t_tid: u32, i_ino: InodeNumber, i_sync_tid: u32, error: i32 }
        ", t_tid {t_tid}, ino {i_ino}, i_sync_tid {i_sync_tid}, error {error}";
    /// A recovery looked at a block of fast commits.
    FcReplayScan "ext4_fc_replay_scan" { error: i32, off: u32 } "error {error}, off {off}";
    /// A recovery applies a record.
    FcReplay "ext4_fc_replay" { tag: u32, ino: i32, priv1: i32, priv2: i32 }
        ": tag {tag}, ino {ino}, data1 {priv1}, data2 {priv2}";

    // The journal.

    /// A commit begins.
    StartCommit "jbd2_start_commit" { transaction: u32, sync_commit: bool } "transaction {transaction} sync {sync_commit}";
    /// It waits for handles.
    CommitLocking "jbd2_commit_locking" { transaction: u32, sync_commit: bool } "transaction {transaction} sync {sync_commit}";
    /// It writes ordered data.
    CommitFlushing "jbd2_commit_flushing" { transaction: u32, sync_commit: bool } "transaction {transaction} sync {sync_commit}";
    /// It writes the log.
    CommitLogging "jbd2_commit_logging" { transaction: u32, sync_commit: bool } "transaction {transaction} sync {sync_commit}";
    /// The transaction is on the device; `head` is the oldest one whose blocks are not home.
    EndCommit "jbd2_end_commit" { transaction: u32, sync_commit: bool, head: u32 }
        "transaction {transaction} sync {sync_commit} head {head}";
    /// Ordered data of a file is written.
    SubmitInodeData "jbd2_submit_inode_data" { ino: InodeNumber } "ino {ino}";
    /// Nothing of a transaction is left to write home.
    DropTransaction "jbd2_drop_transaction" { transaction: u32, sync_commit: bool }
        "transaction {transaction} sync {sync_commit}";
    /// The log's tail moves.
    UpdateLogTail "jbd2_update_log_tail" { tail_sequence: u32, first_tid: u32, block_nr: u64, freed: u64 }
        "from {tail_sequence} to {first_tid} offset {block_nr} freed {freed}";
    /// The journal's superblock is written; flags as the block layer's.
    WriteSuperblock "jbd2_write_superblock" { write_flags: u32 } "write_flags {write_flags:x}";
    /// Blocks go home.
    Checkpoint "jbd2_checkpoint" { result: i32 } "result {result}";
    /// A handle has joined a transaction.
    HandleStart "jbd2_handle_start" { tid: u32, kind: HandleType, requested_blocks: u32 }
        "tid {tid} type {kind} line_no 0 requested_blocks {requested_blocks}";
    /// A handle has got more blocks.
    HandleExtend "jbd2_handle_extend" { tid: u32, kind: HandleType, buffer_credits: u32, requested_blocks: u32 }
        "tid {tid} type {kind} line_no 0 buffer_credits {buffer_credits} requested_blocks {requested_blocks}";
    /// A handle goes on in another transaction.
    HandleRestart "jbd2_handle_restart" { tid: u32, kind: HandleType, requested_blocks: u32 }
        "tid {tid} type {kind} line_no 0 requested_blocks {requested_blocks}";
    /// A handle stops; `interval` in milliseconds.
    HandleStats "jbd2_handle_stats"
        { tid: u32, kind: HandleType, interval: u32, sync: bool, requested_blocks: u32, dirtied_blocks: u32 }
        "tid {tid} type {kind} line_no 0 interval {interval} sync {sync} requested_blocks {requested_blocks} dirtied_blocks {dirtied_blocks}";
}
