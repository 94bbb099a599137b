use super::*;
use crate::oracle::event::Stream;

fn seen(lines: &str) -> Vec<Seen> {
    let event = |line: &str| Event::parse(line.trim()).unwrap();
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    let seen = |line| Seen { stream: Stream::Caller, step: 0, event: event(line), is_idle: false };
    lines.map(seen).collect()
}

fn of_no_sync(events: Vec<Seen>) -> Vec<Seen> {
    normal(events, |_| false)
}

fn shown(events: Vec<Seen>) -> Vec<String> {
    events.iter().map(|seen| seen.event.to_string()).collect()
}

#[test]
fn inodes_and_transactions_are_numbered_by_appearance() {
    let lines = "ext4_truncate_enter: dev 7,0 ino 31 blocks 8
        ext4_truncate_enter: dev 7,0 ino 2 blocks 8
        ext4_truncate_enter: dev 7,0 ino 12 blocks 8
        jbd2_start_commit: dev 7,0 transaction 31 sync 0";
    assert_eq!(
        shown(of_no_sync(seen(lines))),
        [
            "truncate_enter ino=#1 blocks=8",
            "truncate_enter ino=2 blocks=8",
            "truncate_enter ino=#2 blocks=8",
            "jbd2_start_commit transaction=#1 sync_commit=0"
        ]
    );
}

#[test]
fn the_commits_of_one_sync_are_one() {
    let commit = |number: u32, data: &str| {
        format!(
            "jbd2_start_commit: dev 7,0 transaction {number} sync 0
            jbd2_commit_locking: dev 7,0 transaction {number} sync 0
            jbd2_commit_flushing: dev 7,0 transaction {number} sync 0
            {data}
            jbd2_commit_logging: dev 7,0 transaction {number} sync 0
            jbd2_end_commit: dev 7,0 transaction {number} sync 0 head 1\n"
        )
    };
    let data = "jbd2_submit_inode_data: dev 7,0 ino 12";
    let shown = |lines: &str, syncs: bool| {
        let mut events = seen(lines);
        events.iter_mut().for_each(|seen| seen.stream = Stream::Journal);
        events.last_mut().unwrap().step = 1;
        shown(normal(events, |step| syncs && step == 0))
    };
    let later = "jbd2_start_commit: dev 7,0 transaction 9 sync 0";
    let one = shown(&(commit(7, data) + later), true);
    assert_eq!(one.len(), 7);
    assert_eq!(one[6], "jbd2_start_commit transaction=#2 sync_commit=0");
    assert_eq!(shown(&(commit(7, data) + &commit(8, "") + later), true), one);
    assert_eq!(shown(&(commit(7, "") + &commit(8, data) + later), true), one);
    assert_ne!(shown(&(commit(7, data) + &commit(8, "") + later), false), one);
}

#[test]
fn ends_of_io_come_file_by_file() {
    let end = |inode: u32, at: u32| {
        format!(
            "ext4_journal_start_reserved: dev 7,0 blocks, 18
            ext4_es_insert_extent: dev 7,0 ino {inode} es [{at}/1) mapped 5 status W\n"
        )
    };
    let shown = |lines: &str| {
        let named = "ext4_truncate_enter: dev 7,0 ino 12 blocks 8
            ext4_truncate_enter: dev 7,0 ino 13 blocks 8\n";
        let mut events = seen(&(named.to_owned() + lines));
        events[2..].iter_mut().for_each(|seen| seen.stream = Stream::EndOfIo);
        shown(of_no_sync(events))
    };
    let sorted = shown(&(end(12, 1) + &end(12, 2) + &end(13, 1)));
    assert_eq!(shown(&(end(12, 1) + &end(13, 1) + &end(12, 2))), sorted);
    assert_eq!(shown(&(end(13, 1) + &end(12, 1) + &end(12, 2))), sorted);
    assert_ne!(shown(&(end(12, 2) + &end(12, 1) + &end(13, 1))), sorted, "one file has one queue");
}

#[test]
fn an_inode_stored_often_in_one_operation_is_stored_once() {
    let lines = "ext4_mark_inode_dirty: dev 7,0 ino 31
        ext4_sync_fs: dev 7,0 wait 1
        ext4_mark_inode_dirty: dev 7,0 ino 31";
    assert_eq!(shown(of_no_sync(seen(lines))), ["sync_fs wait=1", "mark_inode_dirty ino=#1"]);
}

#[test]
fn looks_at_adjacent_blocks_of_one_run_fold() {
    let look = |block: u32, len: u32| {
        format!(
            "ext4_es_lookup_extent_enter: dev 7,0 ino 12 lblk {block}
            ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 1 [4/{len}) 900 WR\n"
        )
    };
    assert_eq!(of_no_sync(seen(&(look(5, 9) + &look(6, 9) + &look(7, 9)))).len(), 2);
    assert_eq!(of_no_sync(seen(&(look(5, 9) + &look(7, 9)))).len(), 2);
    assert_eq!(of_no_sync(seen(&(look(5, 9) + &look(6, 8)))).len(), 4, "the run has changed");
    let change = "ext4_truncate_enter: dev 7,0 ino 12 blocks 8\n";
    assert_eq!(
        of_no_sync(seen(&(look(5, 9) + change + &look(6, 9)))).len(),
        5,
        "it may have changed"
    );
}

#[test]
fn what_an_aborted_journal_does_is_dropped() {
    let mut events =
        seen("ext4_shutdown: dev 7,0 flags 2\njbd2_start_commit: dev 7,0 transaction 3 sync 0");
    events[1].stream = Stream::Journal;
    assert_eq!(of_no_sync(events.clone()).len(), 1);
    events.swap(0, 1);
    assert_eq!(of_no_sync(events).len(), 2);
}

#[test]
fn pieces_of_one_write_are_joined() {
    let lines = "ext4_da_write_begin: dev 7,0 ino 12 pos 4000 len 200
        ext4_da_write_end: dev 7,0 ino 12 pos 4000 len 96 copied 96
        ext4_da_write_begin: dev 7,0 ino 12 pos 4096 len 104
        ext4_da_write_end: dev 7,0 ino 12 pos 4096 len 104 copied 104
        ext4_da_write_begin: dev 7,0 ino 12 pos 9000 len 1
        ext4_da_write_end: dev 7,0 ino 12 pos 9000 len 1 copied 1";
    assert_eq!(
        shown(of_no_sync(seen(lines))),
        [
            "da_write_begin ino=#1 pos=4000 len=200",
            "da_write_end ino=#1 pos=4000 len=200 copied=200",
            "da_write_begin ino=#1 pos=9000 len=1",
            "da_write_end ino=#1 pos=9000 len=1 copied=1",
        ]
    );
}

fn block(block: u32, hole: u32, promised: u32) -> String {
    let look = format!(
        "ext4_es_lookup_extent_enter: dev 7,0 ino 12 lblk {block}
        ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 1 [{block}/{hole}) 0 HR\n"
    );
    format!(
        "{look}{look}ext4_da_reserve_space: dev 7,0 ino 12 mode 0100644 i_blocks 0 reserve_blocks 1reserved_data_blocks {promised}
        ext4_es_insert_delayed_extent: dev 7,0 ino 12 es [{block}/1) mapped 0 status D allocated 0 0\n"
    )
}

#[test]
fn adjacent_blocks_that_become_delayed_fold_into_a_run() {
    let lines = block(5, 100, 1) + &block(6, 99, 2) + &block(7, 98, 3);
    let folded = shown(of_no_sync(seen(&lines)));
    assert_eq!(folded.len(), 6, "{folded:#?}");
    assert_eq!(
        folded[4],
        "da_reserve_space ino=#1 mode=100644 i_blocks=0 reserve_blocks=3 reserved_data_blocks=3"
    );
    assert!(folded[5].starts_with("es_insert_delayed_extent ino=#1 lblk=5 len=3"), "{folded:#?}");
}

#[test]
fn what_is_not_the_next_block_is_not_folded() {
    let delayed = block(6, 99, 2).replace("HR", "D"); // the second look at it folds
    for (other, kept) in [(block(7, 98, 2), 12), (block(6, 90, 2), 12), (delayed, 10)] {
        let lines = block(5, 100, 1) + &other;
        assert_eq!(of_no_sync(seen(&lines)).len(), kept, "{other}");
    }
}

#[test]
fn blocks_of_a_cluster_that_has_its_promise_fold_too() {
    let of_cluster = |at, hole| {
        let all = block(at, hole, 1);
        let kept = all.lines().filter(|line| !line.contains("reserve_space"));
        kept.map(|line| format!("{line}\n")).collect::<String>()
    };
    let folded = shown(of_no_sync(seen(&(of_cluster(5, 100) + &of_cluster(6, 99)))));
    assert_eq!(folded.len(), 5, "{folded:#?}");
    assert!(folded[4].starts_with("es_insert_delayed_extent ino=#1 lblk=5 len=2"), "{folded:#?}");
    let promised = of_cluster(5, 100) + &block(6, 99, 2);
    assert_eq!(of_no_sync(seen(&promised)).len(), 11, "the next cluster has its own promise");
}

#[test]
fn questions_about_one_gap_of_a_block_map_fold() {
    let ask = |block: u32, len: u32| {
        format!(
            "ext4_es_lookup_extent_enter: dev 7,0 ino 12 lblk {block}
            ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 0 [0/0) 0\u{20}
            ext4_ind_map_blocks_enter: dev 7,0 ino 12 lblk {block} len {len} flags\u{20}
            ext4_ind_map_blocks_exit: dev 7,0 ino 12 flags  lblk {block} pblk 0 len {len} mflags  ret 0\n"
        )
    };
    assert_eq!(of_no_sync(seen(&(ask(5, 9) + &ask(6, 8) + &ask(7, 7)))).len(), 4);
    assert_eq!(of_no_sync(seen(&(ask(5, 9) + &ask(6, 5)))).len(), 8, "the gap has changed");
    assert_eq!(of_no_sync(seen(&(ask(5, 1) + &ask(6, 8)))).len(), 8, "another read");
    let short = ask(5, 3).replace("pblk 0 len 3", "pblk 0 len 1") + &ask(6, 2);
    assert_eq!(shown(of_no_sync(seen(&short))), shown(of_no_sync(seen(&ask(5, 3)))));
    let known = "ext4_es_lookup_extent_enter: dev 7,0 ino 12 lblk 7
        ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 1 [7/4) 0 H\n";
    let partly = ask(5, 9) + &ask(6, 8) + known + &ask(11, 3);
    assert_eq!(shown(of_no_sync(seen(&partly))), shown(of_no_sync(seen(&ask(5, 9)))));
    assert_eq!(of_no_sync(seen(&(ask(5, 3) + &ask(6, 2) + known))).len(), 6, "beyond the gap");
    let placed = "ext4_es_lookup_extent_enter: dev 7,0 ino 12 lblk 8
        ext4_es_lookup_extent_exit: dev 7,0 ino 12 found 1 [8/4) 99 W\n";
    let pieces = ask(5, 3) + placed + &ask(5, 1) + &ask(6, 1) + &ask(7, 1) + placed;
    assert_eq!(shown(of_no_sync(seen(&pieces))), shown(of_no_sync(seen(&(ask(5, 3) + placed)))));
    assert_eq!(of_no_sync(seen(&(ask(5, 3) + &ask(5, 3)))).len(), 8, "before a promise");
    assert_eq!(of_no_sync(seen(&(ask(5, 3) + placed + &ask(4, 1)))).len(), 10, "another block");
    let single = shown(of_no_sync(seen(&(ask(5, 1) + &ask(6, 1) + &ask(7, 1)))));
    assert_eq!(single, shown(of_no_sync(seen(&ask(5, 3)))));
}
