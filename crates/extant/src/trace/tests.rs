use std::string::{String, ToString};
use std::sync::Mutex;
use std::vec::Vec;

use extant_format::InodeNumber;

use super::*;

const INODE: InodeNumber = InodeNumber::new(12).expect("not zero");

/// `line` is what the kernel printed, without its `caller`; see the captures that the project's notes are made from.
#[track_caller]
fn check(event: &Event, line: &str) {
    assert_eq!(std::format!("{}: {event}", event.name()), line);
}

fn map_flags(flags: &[MapFlags]) -> MapFlags {
    flags.iter().fold(MapFlags::default(), |all, flag| all.with(*flag))
}

fn resv(extra: AllocationFlags) -> AllocationFlags {
    extra.with(AllocationFlags::DELALLOC_RESERVED).with(AllocationFlags::USE_RESERVED)
}

fn extent(group: u32, start: i32, len: u32, logical: u32) -> AllocatorExtent {
    AllocatorExtent { group, start, len, logical }
}

#[test]
fn the_write_path_prints_as_the_kernels() {
    let (ino, mode) = (INODE, 0o100_644);
    check(
        &Event::DaWriteBegin { ino, pos: 0, len: 2_097_152 },
        "ext4_da_write_begin: dev 7,0 ino 12 pos 0 len 2097152",
    );
    check(
        &Event::DaWriteEnd { ino, pos: 8_388_608, len: 2_097_152, copied: 2_097_152 },
        "ext4_da_write_end: dev 7,0 ino 12 pos 8388608 len 2097152 copied 2097152",
    );
    let (reserve_blocks, reserved_data_blocks) = (1, 1);
    check(
        &Event::DaReserveSpace { ino, mode, i_blocks: 0, reserve_blocks, reserved_data_blocks },
        "ext4_da_reserve_space: dev 7,0 ino 12 mode 0100644 i_blocks 0 reserve_blocks 1reserved_data_blocks 1",
    );
    check(
        &Event::DaReleaseSpace {
            ino,
            mode,
            i_blocks: 0,
            freed_blocks: 8,
            reserved_data_blocks: 40,
        },
        "ext4_da_release_space: dev 7,0 ino 12 mode 0100644 i_blocks 0 freed_blocks 8 reserved_data_blocks 40",
    );
    let (used_blocks, reserved_data_blocks, quota_claim) = (2048, 2560, true);
    check(
        &Event::DaUpdateReserveSpace {
            ino,
            mode,
            i_blocks: 0,
            used_blocks,
            reserved_data_blocks,
            quota_claim,
        },
        "ext4_da_update_reserve_space: dev 7,0 ino 12 mode 0100644 i_blocks 0 used_blocks 2048 reserved_data_blocks 2560 quota_claim 1",
    );
}

#[test]
fn the_status_tree_prints_as_the_kernels() {
    let (ino, pblk) = (INODE, 38912);
    let status = StatusFlags::DELAYED.with(StatusFlags::REFERENCED);
    check(
        &Event::EsLookupExtentExit { ino, found: true, lblk: 0, len: 2560, pblk: 0, status },
        "ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 1 [0/2560) 0 DR",
    );
    let status = StatusFlags::default();
    check(
        &Event::EsLookupExtentExit { ino, found: false, lblk: 0, len: 0, pblk: 0, status },
        "ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 0 [0/0) 0 ",
    );
    check(
        &Event::EsFindExtentRangeExit { ino, lblk: 0, len: 0, pblk: 0, status },
        "ext4_es_find_extent_range_exit: dev 7,0 ino 12 es [0/0) mapped 0 status ",
    );
    check(
        &Event::EsInsertExtent { ino, lblk: 0, len: 2048, pblk, status: StatusFlags::UNWRITTEN },
        "ext4_es_insert_extent: dev 7,0 ino 12 es [0/2048) mapped 38912 status U",
    );
    let (status, lclu_allocated, end_allocated) = (StatusFlags::DELAYED, false, false);
    check(
        &Event::EsInsertDelayedExtent {
            ino,
            lblk: 0,
            len: 1,
            pblk: 0,
            status,
            lclu_allocated,
            end_allocated,
        },
        "ext4_es_insert_delayed_extent: dev 7,0 ino 12 es [0/1) mapped 0 status D allocated 0 0",
    );
    check(
        &Event::EsRemoveExtent { ino, lblk: 768, len: 4_294_966_527 },
        "ext4_es_remove_extent: dev 7,0 ino 12 es [768/4294966527)",
    );
}

#[test]
fn mappings_print_as_the_kernels() {
    let (ino, lblk, pblk, len) = (INODE, 0, 38912, 2048);
    check(
        &Event::ExtMapBlocksEnter { ino, lblk, len: 1, flags: MapFlags::default() },
        "ext4_ext_map_blocks_enter: dev 7,0 ino 12 lblk 0 len 1 flags ",
    );
    let flags = map_flags(&[
        MapFlags::CREATE,
        MapFlags::UNWRITTEN,
        MapFlags::DELALLOC,
        MapFlags::PRE_IO,
        MapFlags::METADATA_NOFAIL,
        MapFlags::IO_SUBMIT,
        MapFlags::NO_CACHE,
    ]);
    let mflags = MappedFlags::NEW.with(MappedFlags::MAPPED).with(MappedFlags::UNWRITTEN);
    check(
        &Event::ExtMapBlocksExit { ino, flags, lblk, pblk, len, mflags, ret: 2048 },
        "ext4_ext_map_blocks_exit: dev 7,0 ino 12 flags CREATE|UNWRIT|DELALLOC|PRE_IO|METADATA_NOFAIL|IO_SUBMIT|EX_NOCACHE lblk 0 pblk 38912 len 2048 mflags NMU ret 2048",
    );
    check(
        &Event::IndMapBlocksExit {
            ino,
            flags,
            lblk,
            pblk: 0,
            len: 1,
            mflags: MappedFlags::default(),
            ret: -28,
        },
        "ext4_ind_map_blocks_exit: dev 7,0 ino 12 flags CREATE|UNWRIT|DELALLOC|PRE_IO|METADATA_NOFAIL|IO_SUBMIT|EX_NOCACHE lblk 0 pblk 0 len 1 mflags  ret -28",
    );
    let flags = map_flags(&[
        MapFlags::CREATE,
        MapFlags::UNWRITTEN,
        MapFlags::CONVERT,
        MapFlags::METADATA_NOFAIL,
        MapFlags::IO_SUBMIT,
        MapFlags::NO_CACHE,
    ]);
    check(
        &Event::ExtHandleUnwrittenExtents {
            ino,
            lblk,
            pblk,
            len,
            flags,
            allocated: len,
            newblk: pblk,
        },
        "ext4_ext_handle_unwritten_extents: dev 7,0 ino 12 m_lblk 0 m_pblk 38912 m_len 2048 flags CREATE|UNWRIT|CONVERT|METADATA_NOFAIL|IO_SUBMIT|EX_NOCACHE allocated 2048 newblock 38912",
    );
    check(
        &Event::ExtConvertToInitializedFastpath {
            ino,
            m_lblk: 33,
            m_len: 1,
            u_lblk: 33,
            u_len: 31,
            u_pblk: 36961,
            i_lblk: 32,
            i_len: 1,
            i_pblk: 36960,
        },
        "ext4_ext_convert_to_initialized_fastpath: dev 7,0 ino 12 m_lblk 33 m_len 1 u_lblk 33 u_len 31 u_pblk 36961 i_lblk 32 i_len 1 i_pblk 36960 ",
    );
}

#[test]
fn clusters_print_as_the_kernels() {
    check(
        &Event::GetImpliedClusterAllocExit {
            lblk: 2,
            pblk: 0,
            len: 1,
            flags: MappedFlags::default(),
            ret: 0,
        },
        "ext4_get_implied_cluster_alloc_exit: dev 7,0 m_lblk 2 m_pblk 0 m_len 1 m_flags  ret 0",
    );
}

#[test]
fn removal_prints_as_the_kernels() {
    let (ino, pc_pclu, pc_lblk, pc_state) = (INODE, 0, 0, 0);
    let (ee_lblk, ee_pblk, ee_len) = (768, 5756, 10);
    check(
        &Event::ExtRmLeaf { ino, start: 768, ee_lblk, ee_pblk, ee_len, pc_pclu, pc_lblk, pc_state },
        "ext4_ext_rm_leaf: dev 7,0 ino 12 start_lblk 768 last_extent [768(5756), 10]partial [pclu 0 lblk 0 state 0]",
    );
    check(
        &Event::RemoveBlocks {
            ino,
            ee_lblk,
            ee_pblk,
            ee_len,
            from: 768,
            to: 777,
            pc_pclu,
            pc_lblk,
            pc_state,
        },
        "ext4_remove_blocks: dev 7,0 ino 12 extent [768(5756), 10]from 768 to 777 partial [pclu 0 lblk 0 state 0]",
    );
    let (start, end, depth, eh_entries) = (768, 4_294_967_294, 0, 3);
    check(
        &Event::ExtRemoveSpaceDone {
            ino,
            start,
            end,
            depth,
            pc_pclu,
            pc_lblk,
            pc_state,
            eh_entries,
        },
        "ext4_ext_remove_space_done: dev 7,0 ino 12 since 768 end 4294967294 depth 0 partial [pclu 0 lblk 0 state 0] remaining_entries 3",
    );
    let flags = FreeFlags::VALIDATED.with(FreeFlags::FIRST_CLUSTER).with(FreeFlags::LAST_CLUSTER);
    check(
        &Event::FreeBlocks { ino, mode: 0o100_644, block: 5756, count: 10, flags },
        "ext4_free_blocks: dev 7,0 ino 12 mode 0100644 block 5756 count 10 flags VALIDATED|1ST_CLUSTER|LAST_CLUSTER",
    );
    let flags = FreeFlags::VALIDATED.with(FreeFlags::RERESERVE);
    check(
        &Event::FreeBlocks { ino, mode: 0o100_644, block: 5756, count: 10, flags },
        "ext4_free_blocks: dev 7,0 ino 12 mode 0100644 block 5756 count 10 flags VALIDATED|0x40",
    );
}

#[test]
fn the_allocator_prints_as_the_kernels() {
    let (ino, goal) = (INODE, 32768);
    let flags = resv(AllocationFlags::HINT_DATA);
    let (lleft, lright, pleft, pright) = (0, 0, 0, 0);
    check(
        &Event::RequestBlocks {
            ino,
            flags,
            len: 2048,
            logical: 0,
            goal,
            lleft,
            lright,
            pleft,
            pright,
        },
        "ext4_request_blocks: dev 7,0 ino 12 flags HINT_DATA|DELALLOC_RESV|USE_RESV len 2048 lblk 0 goal 32768 lleft 0 lright 0 pleft 0 pright 0 ",
    );
    check(
        &Event::AllocateBlocks {
            ino,
            flags,
            len: 2048,
            block: 38912,
            logical: 0,
            goal,
            lleft,
            lright,
            pleft,
            pright,
        },
        "ext4_allocate_blocks: dev 7,0 ino 12 flags HINT_DATA|DELALLOC_RESV|USE_RESV len 2048 block 38912 lblk 0 goal 32768 lleft 0 lright 0 pleft 0 pright 0",
    );
    let orig = extent(1, 0, 2048, 0);
    let (goal, result) = (extent(0, -1, 2048, 0), extent(1, 6144, 2048, 0));
    let flags = resv(AllocationFlags::HINT_DATA.with(AllocationFlags::STREAM_ALLOC));
    check(
        &Event::MballocAlloc {
            ino,
            orig,
            goal,
            result,
            found: 1,
            groups: 1,
            cr: Criterion(0),
            flags,
            tail: 0,
            buddy: 0,
        },
        "ext4_mballoc_alloc: dev 7,0 inode 12 orig 1/0/2048@0 goal 0/-1/2048@0 result 1/6144/2048@0 blks 1 grps 1 cr CR_POWER2_ALIGNED flags HINT_DATA|DELALLOC_RESV|STREAM_ALLOC|USE_RESV tail 0 broken 0",
    );
    let event = Event::MballocAlloc {
        ino,
        orig,
        goal,
        result,
        found: 1,
        groups: 1,
        cr: Criterion(5),
        flags,
        tail: 0,
        buddy: 0,
    };
    assert!(event.to_string().contains(" cr 0x5 flags "), "{event}");
}

#[test]
fn preallocations_print_as_the_kernels() {
    let ino = INODE;
    check(
        &Event::MballocDiscard { group: 1, start: 8704, len: 1536 },
        "ext4_mballoc_discard: dev 7,0 inode 0 extent 1/8704/1536 ",
    );
    check(
        &Event::MbNewInodePa { ino, pa_pstart: 40960, pa_len: 2048, pa_lstart: 2048 },
        "ext4_mb_new_inode_pa: dev 7,0 ino 12 pstart 40960 len 2048 lstart 2048",
    );
}

#[test]
fn writeback_prints_as_the_kernels() {
    let ino = INODE;
    check(
        &Event::Writepages {
            ino,
            nr_to_write: i64::MAX,
            pages_skipped: 0,
            range_start: 0,
            range_end: i64::MAX,
            sync_mode: 1,
            for_kupdate: false,
            range_cyclic: false,
            writeback_index: 0,
        },
        "ext4_writepages: dev 7,0 ino 12 nr_to_write 9223372036854775807 pages_skipped 0 range_start 0 range_end 9223372036854775807 sync_mode 1 for_kupdate 0 range_cyclic 0 writeback_index 0",
    );
    let (start_pos, next_pos) = (0x80_0000, 0xa0_0000);
    check(
        &Event::DaWriteFoliosEnd {
            ino,
            start_pos,
            next_pos,
            nr_to_write: 9_223_372_036_854_773_759,
            ret: 0,
        },
        "ext4_da_write_folios_end: dev 7,0 ino 12 start_pos 0x800000 next_pos 0xa00000 nr_to_write 9223372036854773759 ret 0",
    );
    check(
        &Event::DaWritePagesExtent { ino, lblk: 0, len: 2048, flags: MappedFlags(0x100) },
        "ext4_da_write_pages_extent: dev 7,0 ino 12 lblk 0 len 2048 flags 0x100",
    );
    check(
        &Event::WritepagesResult {
            ino,
            ret: 0,
            pages_written: 2,
            pages_skipped: 0,
            sync_mode: 1,
            writeback_index: 2,
        },
        "ext4_writepages_result: dev 7,0 ino 12 ret 0 pages_written 2 pages_skipped 0 sync_mode 1 writeback_index 2",
    );
}

#[test]
fn handles_and_commits_print_as_the_kernels_without_the_caller() {
    let (blocks, rsv_blocks, revoke_creds) = (2, 0, 8);
    check(
        &Event::JournalStartInode {
            blocks,
            rsv_blocks,
            revoke_creds,
            kind: HandleType::Inode,
            ino: INODE,
        },
        "ext4_journal_start_inode: dev 7,0 blocks 2, rsv_blocks 0, revoke_creds 8, type 1, ino 12",
    );
    check(
        &Event::JournalStartSb {
            blocks: 46,
            rsv_blocks,
            revoke_creds,
            kind: HandleType::Directory,
        },
        "ext4_journal_start_sb: dev 7,0 blocks 46, rsv_blocks 0, revoke_creds 8, type 4",
    );
    check(
        &Event::JournalStartReserved { blocks: 18 },
        "ext4_journal_start_reserved: dev 7,0 blocks, 18",
    );
    check(
        &Event::EndCommit { transaction: 2, sync_commit: false, head: 2 },
        "jbd2_end_commit: dev 7,0 transaction 2 sync 0 head 2",
    );
    check(
        &Event::SyncFileEnter { ino: INODE, parent: 2, datasync: false },
        "ext4_sync_file_enter: dev 7,0 ino 12 parent 2 datasync 0 ",
    );
    check(
        &Event::FallocateEnter {
            ino: INODE,
            offset: 0,
            len: 65536,
            mode: FallocateMode::default(),
        },
        "ext4_fallocate_enter: dev 7,0 ino 12 offset 0 len 65536 mode ",
    );
}

#[test]
fn fields_are_those_of_the_record_and_the_device_can_be_any() {
    let event = Event::DaWriteBegin { ino: INODE, pos: 4096, len: 8 };
    let fields: Vec<(&str, String)> =
        event.fields().map(|(name, value)| (name, value.to_string())).collect();
    assert_eq!(fields, [("ino", "12".into()), ("pos", "4096".into()), ("len", "8".into())]);
    let device = DeviceNumber { major: 259, minor: 3 };
    assert_eq!(event.on(device).to_string(), "dev 259,3 ino 12 pos 4096 len 8");
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl TraceSink for Log {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.to_string());
    }

    fn begin(&self, task: Task) {
        self.0.lock().unwrap().push(std::format!("{task:?} {{"));
    }

    fn end(&self, task: Task) {
        self.0.lock().unwrap().push(std::format!("}} {task:?}"));
    }
}

#[test]
fn events_are_built_only_for_who_listens_and_tasks_enclose_theirs() {
    Tracer::default().emit(|| unreachable!("nobody listens"));
    let log = Arc::new(Log::default());
    let tracer = Tracer::new(log.clone());
    {
        let _task = tracer.task(Task::EndOfIo);
        tracer.emit(|| Event::LoadInode { ino: INODE });
    }
    tracer.emit(|| Event::SyncFs { wait: true });
    let lines = log.0.lock().unwrap().clone();
    assert_eq!(lines, ["EndOfIo {", "dev 7,0 ino 12", "} EndOfIo", "dev 7,0 wait 1"]);
}
