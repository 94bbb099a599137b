//! Why an event happened: a sentence each, with the kernel's function that decides it.

use extant::trace::{AllocationFlags, Event, FreeFlags, MapFlags, MappedFlags, StatusFlags};

/// Which branch was taken, and why.
pub fn explain(event: &Event) -> String {
    write_path(event)
        .or_else(|| status_tree(event))
        .or_else(|| mapping(event))
        .or_else(|| removal(event))
        .or_else(|| allocator(event))
        .or_else(|| giving_back(event))
        .or_else(|| writeback(event))
        .or_else(|| files(event))
        .or_else(|| journal(event))
        .unwrap_or_else(|| "no more is known of this event than its name.".to_owned())
}

fn status(flags: StatusFlags) -> &'static str {
    let has = |flag: StatusFlags| flags.0 & flag.0 != 0;
    if has(StatusFlags::DELAYED) {
        "delayed"
    } else if has(StatusFlags::UNWRITTEN) {
        "unwritten"
    } else if has(StatusFlags::WRITTEN) {
        "written"
    } else {
        "a hole"
    }
}

fn write_path(event: &Event) -> Option<String> {
    Some(match event {
        Event::DaWriteBegin { .. } => "space is not short, so this write is delayed: ext4_da_write_begin promises blocks and \
            chooses none (ext4_nonda_switch said no)."
            .to_owned(),
        Event::DaWriteEnd { len, copied, .. } if copied < len => format!(
            "only {copied} of {len} bytes could be copied from the caller, so the size moves by those (ext4_da_write_end)."
        ),
        Event::DaWriteEnd { .. } => "the bytes are in the page cache and the size has moved; the blocks keep their promise \
            until writeback (ext4_da_write_end)."
            .to_owned(),
        Event::WriteBegin { .. } => "this write allocates at once: delayed allocation is off, or ext4_nonda_switch found too \
            few free clusters beside the dirty ones (ext4_write_begin)."
            .to_owned(),
        Event::WriteEnd { .. } => {
            "the bytes are in the page cache over blocks that have their place (ext4_write_end).".to_owned()
        }
        Event::JournalledWriteEnd { .. } => "the data of this file goes through the journal, so its blocks are filed with the \
            transaction (ext4_journalled_write_end)."
            .to_owned(),
        Event::DaReserveSpace { reserve_blocks, reserved_data_blocks, .. } => format!(
            "{reserve_blocks} clusters had no promise yet and enough are free, so they are promised now; the file holds \
             {reserved_data_blocks} (ext4_da_reserve_space)."
        ),
        Event::DaReleaseSpace { freed_blocks, .. } => format!(
            "{freed_blocks} promised clusters will never be written, so the promise goes back (ext4_da_release_space)."
        ),
        Event::DaUpdateReserveSpace { used_blocks, quota_claim: true, .. } => format!(
            "the allocator placed {used_blocks} promised clusters, so the promise is spent \
             (ext4_da_update_reserve_space)."
        ),
        Event::DaUpdateReserveSpace { used_blocks, .. } => format!(
            "{used_blocks} promised clusters were placed by somebody who paid for them already, so only the promise goes \
             (ext4_da_update_reserve_space)."
        ),
        Event::AllocDaBlocks { reserved_data_blocks: 0, .. } => {
            "the file replaces another but nothing of it waits for a place (ext4_alloc_da_blocks).".to_owned()
        }
        Event::AllocDaBlocks { .. } => "the file replaces another, so its data is written before the commit that would \
            forget the old contents (auto_da_alloc, ext4_alloc_da_blocks)."
            .to_owned(),
        Event::BeginOrderedTruncate { .. } => "blocks past the new size may be part of a commit under way, so their data is \
            seen to first (jbd2_journal_begin_ordered_truncate)."
            .to_owned(),
        _ => return None,
    })
}

fn status_tree(event: &Event) -> Option<String> {
    Some(match event {
        Event::EsLookupExtentEnter { lblk, .. } => {
            format!("what block {lblk} is, is asked of memory before the disk (ext4_es_lookup_extent).")
        }
        Event::EsLookupExtentExit { found: false, .. } => {
            "nothing is known of the block, so the extent tree has to be asked (ext4_es_lookup_extent).".to_owned()
        }
        Event::EsLookupExtentExit { status: known, len, .. } => format!(
            "known without reading anything: {} for {len} blocks (ext4_es_lookup_extent).",
            status(*known)
        ),
        Event::EsInsertExtent { status: known, .. } => format!(
            "the range is {} now; delayed blocks in it lose their promise here (ext4_es_insert_extent).",
            status(*known)
        ),
        Event::EsInsertDelayedExtent { len, lclu_allocated, end_allocated, .. } => {
            let shared = if *lclu_allocated || *end_allocated {
                "; a cluster at its edge has its place already, so it took no promise"
            } else {
                ""
            };
            format!("{len} blocks are remembered as delayed, which is all that marks them{shared} (ext4_es_insert_delayed_extent).")
        }
        Event::EsCacheExtent { .. } => "a neighbour was read with the block that was wanted, so it is remembered unless \
            something newer is known (ext4_es_cache_extent)."
            .to_owned(),
        Event::EsRemoveExtent { .. } => "the range is about to change on disk or to go, so memory of it goes first; promises \
            in it are given back (ext4_es_remove_extent)."
            .to_owned(),
        Event::EsFindExtentRangeEnter { .. } => "how far a hole reaches depends on delayed blocks, which are only in memory \
            (ext4_es_find_extent_range)."
            .to_owned(),
        Event::EsFindExtentRangeExit { len: 0, .. } => {
            "no delayed block lies in the hole, so all of it is one (ext4_es_find_extent_range).".to_owned()
        }
        Event::EsFindExtentRangeExit { lblk, .. } => {
            format!("block {lblk} is delayed, so the hole ends before it (ext4_es_find_extent_range).")
        }
        Event::EsShrink { .. } | Event::EsShrinkCount { .. } | Event::EsShrinkScanEnter { .. } | Event::EsShrinkScanExit { .. } => {
            "memory is wanted back: entries that the disk knows too can go, delayed ones cannot (ext4_es_scan).".to_owned()
        }
        _ => return None,
    })
}

fn mapping(event: &Event) -> Option<String> {
    let asks = |flags: MapFlags, flag: MapFlags| flags.0 & flag.0 != 0;
    Some(match event {
        Event::ExtMapBlocksEnter { flags, .. } | Event::IndMapBlocksEnter { flags, .. } => {
            let why = if asks(*flags, MapFlags::CONVERT) {
                "the data is on the device, so unwritten blocks may become written"
            } else if asks(*flags, MapFlags::DELALLOC) {
                "writeback wants a place for delayed blocks"
            } else if asks(*flags, MapFlags::CREATE) {
                "the caller wants blocks at once"
            } else {
                "memory did not know the block, so the tree is asked and nothing changes"
            };
            let place = if matches!(event, Event::IndMapBlocksEnter { .. }) { "ext4_ind_map_blocks" } else { "ext4_ext_map_blocks" };
            format!("{why} ({place}).")
        }
        Event::ExtMapBlocksExit { ret, mflags, .. } | Event::IndMapBlocksExit { ret, mflags, .. } => {
            let new = if mflags.0 & MappedFlags::NEW.0 != 0 { "new " } else { "" };
            match ret {
                0 => "the block is in a hole (ext4_map_blocks).".to_owned(),
                1.. => format!("{ret} {new}blocks are mapped in one piece (ext4_map_blocks)."),
                _ => format!("it failed with errno {} (ext4_map_blocks).", ret.unsigned_abs()),
            }
        }
        Event::ExtLoadExtent { .. } => {
            "this node of the tree was not in memory (__read_extent_tree_block).".to_owned()
        }
        Event::ExtShowExtent { .. } => "the search ended at this extent, which covers the block or lies left of it \
            (ext4_find_extent)."
            .to_owned(),
        Event::ExtHandleUnwrittenExtents { flags, .. } => {
            let why = if asks(*flags, MapFlags::PRE_IO) {
                "data is about to be written, so the extent is split but stays unwritten"
            } else if asks(*flags, MapFlags::CONVERT) {
                "its data is on the device, so it becomes written"
            } else if asks(*flags, MapFlags::UNWRITTEN) {
                "unwritten blocks were asked for, and they are"
            } else if asks(*flags, MapFlags::CREATE) {
                "blocks were asked for as written ones, so it is converted before the write"
            } else {
                "somebody only looks, so it reads as a hole"
            };
            format!("the block lies in an unwritten extent: {why} (ext4_ext_handle_unwritten_extents).")
        }
        Event::ExtConvertToInitializedEnter { .. } => "part of an unwritten extent becomes written: it is split, or what is \
            left is small enough to be zeroed (ext4_ext_convert_to_initialized)."
            .to_owned(),
        Event::ExtConvertToInitializedFastpath { .. } => "the written neighbour lies right beside on the device, so the border \
            between the two moves and no extent is added (ext4_ext_convert_to_initialized)."
            .to_owned(),
        Event::GetImpliedClusterAllocExit { ret: 0, .. } => {
            "no block of this cluster has a place, so a cluster has to be allocated (get_implied_cluster_alloc).".to_owned()
        }
        Event::GetImpliedClusterAllocExit { .. } => "another block of this cluster has a place, so this one has too, for \
            nothing (get_implied_cluster_alloc)."
            .to_owned(),
        _ => return None,
    })
}

fn removal(event: &Event) -> Option<String> {
    Some(match event {
        Event::ExtRemoveSpace { .. } => {
            "blocks of this range leave the file, from the last extent backwards (ext4_ext_remove_space).".to_owned()
        }
        Event::ExtRmLeaf { .. } => "this leaf has extents in the range (ext4_ext_rm_leaf).".to_owned(),
        Event::RemoveBlocks { .. } => "this piece of an extent is given back; a cluster that it shares with what stays waits \
            for its last block (ext4_remove_blocks)."
            .to_owned(),
        Event::ExtRmIdx { .. } => "the leaf is empty, so its block and the entry that leads to it go (ext4_ext_rm_idx).".to_owned(),
        Event::ExtRemoveSpaceDone { eh_entries: 0, .. } => {
            "nothing is left, so the tree is one level deep again (ext4_ext_remove_space).".to_owned()
        }
        Event::ExtRemoveSpaceDone { .. } => "the range is gone and other extents stay (ext4_ext_remove_space).".to_owned(),
        Event::TruncateEnter { .. } => {
            "the size is smaller than what the file may have blocks for (ext4_truncate).".to_owned()
        }
        Event::TruncateExit { blocks, .. } => format!("{blocks} sectors are left (ext4_truncate)."),
        Event::InvalidateFolio { .. } | Event::JournalledInvalidateFolio { .. } => {
            "these bytes are cut off or punched, so the cache must not write them (ext4_invalidate_folio).".to_owned()
        }
        Event::ReleaseFolio { .. } => "the folio is clean and leaves memory (ext4_release_folio).".to_owned(),
        Event::FallocateEnter { .. } => "blocks are wanted without data: they will be unwritten (ext4_fallocate).".to_owned(),
        Event::FallocateExit { ret: 0, blocks, .. } => format!("{blocks} blocks have a place now (ext4_fallocate)."),
        Event::FallocateExit { ret, .. } => format!("it failed with errno {} (ext4_fallocate).", ret.unsigned_abs()),
        Event::PunchHole { .. } => "whole blocks in the range go, and the edges are zeroed (ext4_punch_hole).".to_owned(),
        Event::ZeroRange { .. } => "whole blocks in the range become unwritten, which reads as zeros without writing any \
            (ext4_zero_range)."
            .to_owned(),
        Event::CollapseRange { .. } => "the range goes and what follows moves up (ext4_collapse_range).".to_owned(),
        Event::InsertRange { .. } => "what follows moves down to make room for a hole (ext4_insert_range).".to_owned(),
        _ => return None,
    })
}

fn allocator(event: &Event) -> Option<String> {
    let has = |flags: AllocationFlags, flag: AllocationFlags| flags.0 & flag.0 != 0;
    Some(match event {
        Event::RequestBlocks { len, flags, goal, .. } => {
            let paid = if has(*flags, AllocationFlags::DELALLOC_RESERVED) { "promised before, so there is room" } else { "charged now" };
            format!("one call for all {len} blocks of the run, {paid}; it should be near block {goal} (ext4_mb_new_blocks).")
        }
        Event::MballocAlloc { result, .. } if result.len == 0 => {
            "no group has a run that serves (ext4_mb_regular_allocator).".to_owned()
        }
        Event::MballocAlloc { found, flags, orig, goal, .. } => {
            let kind = if has(*flags, AllocationFlags::HINT_GRP_ALLOC) {
                "the file is small, so it shares a chunk with others of this processor"
            } else if has(*flags, AllocationFlags::STREAM_ALLOC) {
                "the file is large, so it goes where the last large one went"
            } else {
                "the goal decides where to look first"
            };
            let more = if goal.len > orig.len { ", and more is taken than was asked for, as the file will grow" } else { "" };
            format!("{kind}{more}; {found} free runs were looked at (ext4_mb_normalize_request, ext4_mb_regular_allocator).")
        }
        Event::MballocPrealloc { .. } => {
            "an earlier search set room aside that fits, so nothing is searched (ext4_mb_use_preallocated).".to_owned()
        }
        Event::AllocateBlocks { len: 0, .. } => "nothing could be had (ext4_mb_new_blocks).".to_owned(),
        Event::AllocateBlocks { len, block, .. } => {
            format!("{len} blocks from {block} on, marked in the bitmap under this handle (ext4_mb_mark_diskspace_used).")
        }
        Event::MbNewInodePa { pa_len, .. } => format!(
            "more was found than asked for, so {pa_len} clusters stay set aside for this file (ext4_mb_new_inode_pa)."
        ),
        Event::MbNewGroupPa { pa_len, .. } => {
            format!("{pa_len} clusters are set aside for small files together (ext4_mb_new_group_pa).")
        }
        Event::ReadBlockBitmapLoad { .. } => {
            "the group's bitmap is not in memory, or was never written (ext4_read_block_bitmap_nowait).".to_owned()
        }
        Event::MbBitmapLoad { .. } | Event::MbBuddyBitmapLoad { .. } => {
            "this group was not searched since the mount, so its free runs are counted (ext4_mb_init_cache).".to_owned()
        }
        Event::LoadInodeBitmap { .. } => "the group's inodes were not asked for since the mount (ext4_read_inode_bitmap).".to_owned(),
        _ => return None,
    })
}

fn giving_back(event: &Event) -> Option<String> {
    Some(match event {
        Event::MbReleaseInodePa { count, .. } => {
            format!("{count} clusters that were set aside were not used (ext4_mb_release_inode_pa).")
        }
        Event::MbReleaseGroupPa { pa_len, .. } => {
            format!("{pa_len} clusters that small files shared were not used (ext4_mb_release_group_pa).")
        }
        Event::MballocDiscard { .. } => "clusters set aside are free for all again (ext4_mb_release_inode_pa).".to_owned(),
        Event::MballocFree { .. } => "the clusters may be used again once this transaction has committed \
            (ext4_mb_clear_bb, ext4_mb_free_metadata)."
            .to_owned(),
        Event::DiscardPreallocations { len: 0, .. } => {
            "nothing is set aside for this file (ext4_discard_preallocations).".to_owned()
        }
        Event::DiscardPreallocations { .. } => "the last writer closed the file, or it was cut, so it will not grow into what \
            was set aside (ext4_discard_preallocations)."
            .to_owned(),
        Event::MbDiscardPreallocations { needed } => format!(
            "{needed} clusters were not to be had, so everybody's preallocations are taken back before giving up \
             (ext4_mb_discard_preallocations)."
        ),
        Event::FreeBlocks { flags, .. } if flags.0 & FreeFlags::METADATA.0 != 0 => "metadata of the file: the journal must not \
            write it over what comes next (ext4_free_blocks)."
            .to_owned(),
        Event::FreeBlocks { .. } => "nothing refers to these blocks any more (ext4_free_blocks).".to_owned(),
        Event::Forget { is_metadata: true, .. } => "the journal may hold a copy of this block, so it is revoked \
            (__ext4_forget)."
            .to_owned(),
        Event::Forget { .. } => "data that does not go through the journal needs no revoke (__ext4_forget).".to_owned(),
        Event::DiscardBlocks { .. } | Event::TrimExtent { .. } | Event::TrimAllFree { .. } => {
            "the commit that freed them is durable, so the device may drop them (ext4_process_freed_data).".to_owned()
        }
        _ => return None,
    })
}

fn writeback(event: &Event) -> Option<String> {
    Some(match event {
        Event::Writepages { sync_mode: 1, .. } => {
            "somebody waits for this data, so all of the range is written \
            (ext4_do_writepages)."
                .to_owned()
        }
        Event::Writepages { for_kupdate: true, .. } => {
            "the data is older than dirty_expire_centisecs (wb_writeback, ext4_do_writepages)."
                .to_owned()
        }
        Event::Writepages { .. } => {
            "dirty data is written though nobody waits for it (wb_writeback, ext4_do_writepages)."
                .to_owned()
        }
        Event::DaWriteFoliosStart { .. } => {
            "dirty blocks are gathered until they no longer form one extent, under one handle \
            (mpage_prepare_extent_to_map)."
                .to_owned()
        }
        Event::DaWritePagesExtent { lblk, len, .. } => {
            format!(
                "blocks {lblk} to {} need a place or a conversion, all in one request (mpage_map_one_extent).",
                lblk.saturating_add(u64::from(*len)).saturating_sub(1)
            )
        }
        Event::DaWriteFoliosEnd { .. } => {
            "the handle stops before anything waits for the device (ext4_do_writepages).".to_owned()
        }
        Event::WritepagesResult { ret: 0, .. } => {
            "everything is on its way (ext4_do_writepages).".to_owned()
        }
        Event::WritepagesResult { ret, .. } => {
            format!("writeback failed with errno {} (ext4_do_writepages).", ret.unsigned_abs())
        }
        Event::ReadFolio { .. } => {
            "bytes are wanted that are not in memory (ext4_read_folio).".to_owned()
        }
        _ => return None,
    })
}

fn files(event: &Event) -> Option<String> {
    Some(match event {
        Event::SyncFileEnter { .. } => {
            "data first, then the transaction that makes it reachable (ext4_sync_file).".to_owned()
        }
        Event::SyncFileExit { ret: 0, .. } => {
            "all that was written to the file is durable (ext4_sync_file).".to_owned()
        }
        Event::SyncFileExit { ret, .. } => {
            format!(
                "something of the file is not durable: errno {} (ext4_sync_file).",
                ret.unsigned_abs()
            )
        }
        Event::SyncFs { wait: false } => {
            "a commit is started and not waited for (ext4_sync_fs).".to_owned()
        }
        Event::SyncFs { .. } => {
            "the commit is waited for, and the device's cache flushed (ext4_sync_fs).".to_owned()
        }
        Event::UnlinkEnter { .. } => {
            "the name is in the directory and may go (ext4_unlink).".to_owned()
        }
        Event::UnlinkExit { .. } => {
            "the name is gone; the file goes with its last user (ext4_unlink).".to_owned()
        }
        Event::RequestInode { .. } => {
            "a new inode is looked for near its directory, a new directory away from others \
            (__ext4_new_inode, find_group_orlov)."
                .to_owned()
        }
        Event::AllocateInode { ino, .. } => {
            format!("{ino} was the first free one there (__ext4_new_inode).")
        }
        Event::FreeInode { .. } => {
            "no name and no user is left, and its blocks are gone (ext4_free_inode).".to_owned()
        }
        Event::EvictInode { nlink: 0, .. } => {
            "no name and no user is left, so the inode is deleted (ext4_evict_inode).".to_owned()
        }
        Event::EvictInode { .. } => {
            "nobody uses it, so it leaves memory (ext4_evict_inode).".to_owned()
        }
        Event::DropInode { .. } => "the last user is gone (ext4_drop_inode).".to_owned(),
        Event::LoadInode { .. } => "the inode was not in memory (ext4_iget).".to_owned(),
        Event::MarkInodeDirty { .. } => {
            "the inode changed, so it is copied into its table block under the handle \
            (ext4_mark_inode_dirty)."
                .to_owned()
        }
        Event::OtherInodeUpdateTime { .. } => {
            "a neighbour's times go out with this table block (ext4_update_other_inode_time)."
                .to_owned()
        }
        Event::Shutdown { .. } => {
            "from here on nothing is changed any more (ext4_force_shutdown).".to_owned()
        }
        _ => return None,
    })
}

fn journal(event: &Event) -> Option<String> {
    Some(match event {
        Event::JournalStartSb { .. } | Event::JournalStartInode { .. } => "metadata is about to change, so room for it is \
            taken in the running transaction (__ext4_journal_start_sb)."
            .to_owned(),
        Event::JournalStartReserved { .. } => "room was set aside when the data was sent, so the end of I/O cannot be kept \
            waiting (jbd2_journal_start_reserved)."
            .to_owned(),
        Event::StartCommit { .. } => "somebody wants the transaction durable, or it is old (jbd2_journal_commit_transaction).".to_owned(),
        Event::CommitLocking { .. } => "no handle may join any more, and running ones are waited for \
            (jbd2_journal_commit_transaction)."
            .to_owned(),
        Event::CommitFlushing { .. } => "data of files that changed goes first (data=ordered, journal_submit_data_buffers).".to_owned(),
        Event::CommitLogging { .. } => "the changed blocks go into the log (jbd2_journal_commit_transaction).".to_owned(),
        Event::EndCommit { .. } => "the commit block is durable (jbd2_journal_commit_transaction).".to_owned(),
        Event::SubmitInodeData { .. } => "this file's blocks are reachable by this commit, so their data must be there before \
            it (journal_submit_data_buffers)."
            .to_owned(),
        Event::DropTransaction { .. } => "all its blocks are home (__jbd2_journal_drop_transaction).".to_owned(),
        Event::UpdateLogTail { .. } => "older transactions are home, so their part of the log is free (__jbd2_update_log_tail).".to_owned(),
        Event::WriteSuperblock { .. } => "recovery has to start elsewhere, or the log is in use from now on \
            (jbd2_write_superblock)."
            .to_owned(),
        Event::Checkpoint { .. } => "the log runs full, so committed blocks go home (jbd2_log_do_checkpoint).".to_owned(),
        Event::HandleStart { .. } => "the handle joined this transaction (start_this_handle).".to_owned(),
        Event::HandleExtend { .. } => "more blocks change than were asked for, and there is room (jbd2_journal_extend).".to_owned(),
        Event::HandleRestart { .. } => "no room is left, so the work goes on in the next transaction (jbd2__journal_restart).".to_owned(),
        Event::HandleStats { .. } => "the handle stops (jbd2_journal_stop).".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use extant::trace::FallocateMode;
    use extant_format::InodeNumber;

    use super::*;

    #[test]
    fn the_same_event_is_explained_by_what_it_says() {
        let ino = InodeNumber::new(12).unwrap();
        let look = |found, status| Event::EsLookupExtentExit {
            ino,
            found,
            lblk: 0,
            len: 5,
            pblk: 0,
            status,
        };
        let missed = explain(&look(false, StatusFlags::default()));
        assert!(missed.contains("extent tree has to be asked"), "{missed}");
        let delayed = explain(&look(true, StatusFlags::DELAYED));
        assert!(delayed.contains("delayed for 5 blocks"), "{delayed}");
        let exit = |ret| Event::ExtMapBlocksExit {
            ino,
            flags: MapFlags::default(),
            lblk: 0,
            pblk: 0,
            len: 1,
            mflags: MappedFlags::default(),
            ret,
        };
        assert!(explain(&exit(0)).contains("hole"));
        assert!(explain(&exit(-28)).contains("errno 28"));
        let fallocate =
            Event::FallocateEnter { ino, offset: 0, len: 1, mode: FallocateMode::default() };
        assert!(explain(&fallocate).ends_with("(ext4_fallocate)."));
    }
}
