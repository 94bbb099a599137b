//! The rules of handles, commits and checkpoints, each by its name.

use extant_format::jbd2::{JournalIncompat, JournalSuperblock};

use super::*;
use crate::testing::{Bytes, parameters, with_features};
use crate::{CheckpointPlan, CheckpointStep, LogArea, LogBlock};

fn journal() -> Journal<Bytes> {
    let state = LogState {
        next_tid: TransactionId(7),
        head: LogBlock(1),
        last_commit_time: CommitTime::default(),
    };
    Journal::new(parameters(1024, 1200), state)
}

fn block(n: u64) -> PhysicalBlock {
    PhysicalBlock::new(n)
}

fn request(blocks: u32) -> HandleRequest {
    HandleRequest { blocks, ..HandleRequest::default() }
}

fn begin(journal: &mut Journal<Bytes>, request: HandleRequest) -> (Ticket, Option<Reservation>) {
    match journal.begin(request, Duration::ZERO) {
        Begin::Granted { ticket, reservation } => (ticket, reservation),
        other => panic!("not granted: {other:?}"),
    }
}

fn run(journal: &mut Journal<Bytes>, changes: &[(u64, BlockChange)]) -> Stopped {
    let blocks = u32::try_from(changes.len()).unwrap();
    let (ticket, _) = begin(journal, HandleRequest { blocks, revokes: blocks, reserved: 0 });
    journal.stop(ticket, changes.iter().map(|&(n, change)| (block(n), change)))
}

fn seal(version: u8) -> impl FnMut(PhysicalBlock) -> Option<Bytes> {
    move |_| Some(vec![version; 1024].into())
}

fn switch(journal: &mut Journal<Bytes>, version: u8) -> CommitPlan<Bytes> {
    let tid = journal.running().unwrap();
    assert_eq!(journal.lock(tid), Ok(Lock::Locked));
    assert!(journal.ready_to_switch());
    journal.switch(Duration::ZERO, seal(version)).unwrap()
}

/// Commits the running transaction with blocks full of `version`.
fn commit(journal: &mut Journal<Bytes>, version: u8) -> Committed {
    let plan = switch(journal, version);
    journal.committed(plan, Duration::ZERO).unwrap()
}

fn checkpoint(journal: &mut Journal<Bytes>, wanted: u32) -> CheckpointPlan<Bytes> {
    match journal.plan_checkpoint(wanted) {
        CheckpointStep::Write(plan) => plan,
        other => panic!("nothing to write: {other:?}"),
    }
}

fn numbers(blocks: &[(PhysicalBlock, Bytes)]) -> Vec<(u64, u8)> {
    blocks.iter().map(|(block, bytes)| (block.get(), bytes[0])).collect()
}

#[test]
fn limits_follow_the_journal_length() {
    let parameters = parameters(1024, 1200);
    // 1024 - 12 - 16 - 4 - 16 bytes of 16-byte tags.
    assert_eq!(parameters.max_transaction(), 400);
    assert_eq!(parameters.user_maximum(), 400 - 1 - 400u32.div_ceil(61));
    assert_eq!(parameters.reserved_maximum(), parameters.user_maximum() / 2);
}

#[test]
fn a_handle_asking_for_too_much_is_refused() {
    let mut journal = journal();
    let limit = journal.parameters().user_maximum();
    let refused = |begin| matches!(begin, Begin::Refused(JournalError::TooManyCredits { .. }));
    assert!(refused(journal.begin(request(limit + 1), Duration::ZERO)));
    assert!(refused(
        journal.begin(
            HandleRequest { blocks: 1, revokes: 0, reserved: limit / 2 + 1 },
            Duration::ZERO
        )
    ));
    assert!(matches!(journal.begin(request(limit), Duration::ZERO), Begin::Granted { .. }));
}

#[test]
fn revoke_credits_cost_whole_revoke_blocks() {
    let mut journal = journal();
    // 1024 - 16 - 4 bytes of 8-byte numbers.
    let (_ticket, _) = begin(&mut journal, HandleRequest { blocks: 1, revokes: 126, reserved: 0 });
    assert_eq!(journal.running.as_ref().unwrap().open, 3);
}

#[test]
fn an_abort_before_the_first_commit_does_not_lead_back_to_older_numbers() {
    let mut journal = journal();
    let write = journal.abort(5).unwrap();
    let superblock = extant_format::jbd2::JournalSuperblock::parse(write.bytes()).unwrap();
    let next = JournalParameters::new(superblock).unwrap();
    assert_eq!(next.recorded_errno(), Some(5));
    assert_eq!(next.start(), None);
    assert!(!TransactionId(7).is_after(next.clean_state().next_tid));
}

#[test]
fn after_an_abort_every_handle_is_refused_and_the_first_reason_stays() {
    let mut journal = journal();
    let (ticket, reservation) =
        begin(&mut journal, HandleRequest { blocks: 1, revokes: 0, reserved: 2 });
    assert!(journal.abort(5).is_some());
    assert!(journal.abort(30).is_none());
    assert!(matches!(
        journal.begin(request(1), Duration::ZERO),
        Begin::Refused(JournalError::Aborted { errno: 5 })
    ));
    assert!(journal.start_reserved(reservation.unwrap(), Duration::ZERO).is_err());
    assert_eq!(journal.lock(ticket.tid()), Err(JournalError::Aborted { errno: 5 }));
    let _ = journal.stop(ticket, []);
    assert!(journal.updates_drained());
}

#[test]
fn a_shutdown_leaves_no_error_on_disk() {
    assert!(journal().abort(0).is_none());
}

#[test]
fn a_barrier_keeps_all_but_reserved_handles_out() {
    let mut journal = journal();
    let (ticket, reservation) =
        begin(&mut journal, HandleRequest { blocks: 1, revokes: 0, reserved: 2 });
    journal.lock_updates();
    assert!(!journal.updates_drained());
    assert!(matches!(journal.begin(request(1), Duration::ZERO), Begin::WaitBarrier));
    let late = journal.start_reserved(reservation.unwrap(), Duration::ZERO).unwrap();
    let _ = journal.stop(late, []);
    let _ = journal.stop(ticket, []);
    assert!(journal.updates_drained());
    journal.unlock_updates();
    assert!(matches!(journal.begin(request(1), Duration::ZERO), Begin::Granted { .. }));
}

#[test]
fn a_full_transaction_is_committed_first() {
    let mut journal = journal();
    let limit = journal.parameters().user_maximum();
    let (ticket, _) = begin(&mut journal, request(limit));
    assert!(matches!(
        journal.begin(request(1), Duration::ZERO),
        Begin::CommitFirst(TransactionId(7))
    ));
    assert_eq!(journal.commit_due(Duration::ZERO), Some(TransactionId(7)));
    // Unused credits return.
    let _ = journal.stop(ticket, [(block(1), BlockChange::Dirty)]);
    let _ = begin(&mut journal, request(limit - 1));
}

#[test]
fn a_transaction_fills_before_it_is_full() {
    let mut journal = journal();
    assert!(!journal.fills());
    let quarter = journal.parameters().user_maximum() / 4;
    let mut blocks = (1000..).map(|n| (block(n), BlockChange::Dirty));
    for (count, fills) in [(3 * quarter, false), (1, true)] {
        let (ticket, _) = begin(&mut journal, request(count));
        assert!(!journal.fills(), "what a handle may need does not count");
        let _ = journal.stop(ticket, blocks.by_ref().take(usize::try_from(count).unwrap()));
        assert_eq!(journal.fills(), fills);
    }
    let tid = journal.running().unwrap();
    assert_eq!(journal.lock(tid), Ok(Lock::Locked));
    assert!(!journal.fills(), "its commit has begun");
}

#[test]
fn too_many_reservations_are_waited_for() {
    let mut journal = journal();
    let half = journal.parameters().reserved_maximum();
    let (ticket, reservation) =
        begin(&mut journal, HandleRequest { blocks: 1, revokes: 0, reserved: half });
    let more = HandleRequest { blocks: 1, revokes: 0, reserved: 1 };
    assert!(matches!(journal.begin(more, Duration::ZERO), Begin::WaitReserved));
    let limit = journal.parameters().user_maximum();
    assert!(matches!(journal.begin(request(limit), Duration::ZERO), Begin::WaitReserved));
    journal.release(reservation.unwrap());
    let _ = begin(&mut journal, more);
    let _ = journal.stop(ticket, []);
}

#[test]
fn a_reserved_handle_joins_a_locked_transaction() {
    let mut journal = journal();
    let (ticket, reservation) =
        begin(&mut journal, HandleRequest { blocks: 1, revokes: 0, reserved: 1 });
    assert_eq!(journal.lock(ticket.tid()), Ok(Lock::Locked));
    assert!(matches!(
        journal.begin(request(1), Duration::ZERO),
        Begin::WaitLocked(TransactionId(7))
    ));
    let late = journal.start_reserved(reservation.unwrap(), Duration::ZERO).unwrap();
    assert_eq!(late.tid(), TransactionId(7));
    assert!(!journal.stop(ticket, []).is_awaited);
    assert!(journal.stop(late, [(block(3), BlockChange::Dirty)]).is_awaited);
}

#[test]
fn a_transaction_waits_for_the_handles_that_were_pinned_to_it() {
    let reserving = HandleRequest { blocks: 1, revokes: 0, reserved: 1 };
    let mut journal = journal();
    let (ticket, reservation) = begin(&mut journal, reserving);
    let mut pinned = reservation.unwrap();
    journal.pin(&ticket, &mut pinned);
    journal.pin(&ticket, &mut pinned); // once is enough
    let tid = ticket.tid();
    let _ = journal.stop(ticket, [(block(3), BlockChange::Dirty)]);
    assert_eq!(journal.lock(tid), Ok(Lock::Locked));
    assert!(!journal.ready_to_switch());
    assert!(matches!(
        journal.switch(Duration::ZERO, seal(1)),
        Err(JournalError::OutOfOrder("switch"))
    ));
    let late = journal.start_reserved(pinned, Duration::ZERO).unwrap();
    assert_eq!(late.tid(), tid);
    assert!(journal.stop(late, [(block(4), BlockChange::Dirty)]).is_awaited);
    let plan = journal.switch(Duration::ZERO, seal(1)).unwrap();
    let _ = journal.committed(plan, Duration::ZERO).unwrap();

    // One that is given up is waited for no more, and in a later transaction nobody waits.
    let (ticket, reservation) = begin(&mut journal, reserving);
    let mut pinned = reservation.unwrap();
    journal.pin(&ticket, &mut pinned);
    let tid = ticket.tid();
    let _ = journal.stop(ticket, [(block(3), BlockChange::Dirty)]);
    assert_eq!(journal.lock(tid), Ok(Lock::Locked));
    journal.release(pinned);
    assert!(journal.ready_to_switch());
}

#[test]
fn extending_needs_a_running_transaction_with_room() {
    let mut journal = journal();
    let limit = journal.parameters().user_maximum();
    let (mut ticket, _) = begin(&mut journal, request(1));
    assert_eq!(journal.extend(&mut ticket, limit, 0), Ok(Extend::Full));
    assert_eq!(journal.extend(&mut ticket, limit - 1, 0), Ok(Extend::Granted));
    assert_eq!(ticket.blocks(), limit);
    let _ = journal.lock(ticket.tid());
    assert_eq!(journal.extend(&mut ticket, 0, 0), Ok(Extend::Full));
    let _ = journal.stop(ticket, []);
}

#[test]
fn a_nearly_full_log_is_checkpointed_first() {
    let mut journal = journal();
    for round in 0..3u8 {
        let mut changes =
            (0..250).map(|n| (250 * u64::from(round) + n, BlockChange::Dirty)).collect::<Vec<_>>();
        changes.truncate(250);
        let _ = run(&mut journal, &changes);
        let _ = commit(&mut journal, round);
    }
    assert!(matches!(journal.begin(request(1), Duration::ZERO), Begin::CheckpointFirst));
    let wanted = journal.parameters().max_transaction();
    let plan = checkpoint(&mut journal, wanted);
    // Two of the three transactions are enough.
    assert_eq!(plan.blocks().len(), 500);
    assert!(matches!(journal.plan_checkpoint(wanted), CheckpointStep::Busy));
    assert_eq!(journal.checkpointed(plan, &[]).len(), 500);
    assert!(matches!(journal.plan_checkpoint(wanted), CheckpointStep::MoveTail));
    // Only the durable tail frees the log.
    let update = journal.plan_tail_update().unwrap();
    assert!(journal.plan_tail_update().is_none());
    assert!(matches!(journal.begin(request(1), Duration::ZERO), Begin::CheckpointFirst));
    journal.tail_updated(update);
    let _ = begin(&mut journal, request(1));
}

#[test]
fn a_block_is_filed_once_a_transaction() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = run(&mut journal, &[(5, BlockChange::Dirty), (6, BlockChange::Dirty)]);
    assert_eq!(journal.running_blocks().collect::<Vec<_>>(), [block(5), block(6)]);
    assert_eq!(numbers(switch(&mut journal, 1).blocks()), [(5, 1), (6, 1)]);
}

#[test]
fn filing_more_than_the_credits_is_told() {
    let mut journal = journal();
    let (ticket, _) = begin(&mut journal, request(1));
    let stopped = journal.stop(ticket, (0..3).map(|n| (block(n), BlockChange::Dirty)));
    assert_eq!(stopped.overrun, 2);
}

#[test]
fn revoked_then_journalled_again_is_not_revoked() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Revoke)]);
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let plan = switch(&mut journal, 1);
    assert_eq!((plan.revoked().len(), plan.blocks().len()), (0, 1));
}

#[test]
fn journalled_then_revoked_is_revoked_and_not_logged() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = run(&mut journal, &[(5, BlockChange::Revoke)]);
    let plan = switch(&mut journal, 1);
    assert_eq!(plan.revoked(), [block(5)]);
    assert!(plan.blocks().is_empty());
}

#[test]
fn one_transaction_commits_while_the_next_runs() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let first = switch(&mut journal, 1);
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    assert_eq!(journal.progress(first.tid()), Progress::Committing);
    assert_eq!(journal.progress(TransactionId(8)), Progress::Running);
    assert_eq!(journal.progress(TransactionId(9)), Progress::Future);
    assert_eq!(journal.lock(TransactionId(8)), Ok(Lock::Wait(first.tid())));
    assert_eq!(journal.newest_committed(), TransactionId(6));
    let _ = journal.committed(first, Duration::ZERO).unwrap();
    assert_eq!(journal.progress(TransactionId(7)), Progress::Committed);
    assert_eq!(journal.newest_committed(), TransactionId(7));
    assert_eq!(journal.lock(TransactionId(7)), Ok(Lock::NotRunning));
}

#[test]
fn nothing_switches_while_a_handle_runs() {
    let mut journal = journal();
    let (ticket, _) = begin(&mut journal, request(1));
    let _ = journal.lock(ticket.tid());
    assert!(matches!(journal.switch(Duration::ZERO, seal(1)), Err(JournalError::OutOfOrder(_))));
    let _ = journal.stop(ticket, []);
    assert!(journal.switch(Duration::ZERO, seal(1)).is_ok());
}

#[test]
fn a_block_without_contents_stops_the_switch_before_it_changes_anything() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = journal.lock(TransactionId(7));
    assert_eq!(
        journal.switch(Duration::ZERO, |_| None).unwrap_err(),
        JournalError::MissingBlock(block(5))
    );
    assert_eq!(journal.free_log_blocks(), journal.parameters().area().len());
    assert!(journal.switch(Duration::ZERO, seal(1)).is_ok());
}

#[test]
fn the_first_commit_into_an_empty_log_writes_the_superblock() {
    let mut journal = journal();
    for expected in [true, false] {
        let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
        let plan = switch(&mut journal, 1);
        assert_eq!(plan.superblock().is_some(), expected);
        let _ = journal.committed(plan, Duration::ZERO).unwrap();
    }
}

#[test]
fn checkpoint_writes_the_newest_committed_version_never_the_running_one() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty), (6, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 2);
    let _ = run(&mut journal, &[(6, BlockChange::Dirty)]);
    assert_eq!(journal.pending_home(block(5)).unwrap()[0], 2);
    assert_eq!(numbers(checkpoint(&mut journal, u32::MAX).blocks()), [(5, 2), (6, 1)]);
}

#[test]
fn a_superseded_transaction_frees_the_log_without_a_write() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    assert!(journal.plan_tail_update().is_none());
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 2);
    let update = journal.plan_tail_update().unwrap();
    journal.tail_updated(update);
    assert_eq!(journal.free_log_blocks(), journal.parameters().area().len() - 3);
}

#[test]
fn two_writes_of_one_block_are_never_out_together() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    let plan = checkpoint(&mut journal, u32::MAX);
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 2);
    assert!(matches!(journal.plan_checkpoint(u32::MAX), CheckpointStep::Busy));
    // The older version came home; the newer one is still to go.
    assert!(journal.checkpointed(plan, &[]).is_empty());
    assert_eq!(numbers(checkpoint(&mut journal, u32::MAX).blocks()), [(5, 2)]);
}

#[test]
fn a_failed_home_write_stays_pending() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty), (6, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    let plan = checkpoint(&mut journal, u32::MAX);
    assert_eq!(journal.checkpointed(plan, &[block(5)]), [(block(6), TransactionId(7))]);
    assert!(journal.plan_tail_update().is_none());
    assert_eq!(numbers(checkpoint(&mut journal, u32::MAX).blocks()), [(5, 1)]);
}

#[test]
fn forget_cancels_home_writes_when_its_transaction_has_committed() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    let _ = run(&mut journal, &[(5, BlockChange::Forget)]);
    // Until then the older version is the truth.
    assert!(journal.pending_home(block(5)).is_some());
    assert!(!commit(&mut journal, 2).freed_in_flight);
    assert!(journal.pending_home(block(5)).is_none());
}

#[test]
fn forget_in_the_next_transaction_reaches_the_committing_one() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let first = switch(&mut journal, 1);
    let _ = run(&mut journal, &[(5, BlockChange::Revoke)]);
    let _ = journal.committed(first, Duration::ZERO).unwrap();
    assert!(journal.pending_home(block(5)).is_some());
    let _ = commit(&mut journal, 2);
    assert!(journal.pending_home(block(5)).is_none());
}

#[test]
fn freed_blocks_wait_for_a_home_write_that_is_out() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    let plan = checkpoint(&mut journal, u32::MAX);
    let _ = run(&mut journal, &[(5, BlockChange::Revoke)]);
    assert!(commit(&mut journal, 2).freed_in_flight);
    assert!(journal.checkpointed(plan, &[]).is_empty());
}

#[test]
fn a_freed_block_used_again_as_metadata_is_logged_anew() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 1);
    let _ = run(&mut journal, &[(5, BlockChange::Revoke), (5, BlockChange::Dirty)]);
    let _ = commit(&mut journal, 2);
    assert_eq!(journal.pending_home(block(5)).unwrap()[0], 2);
}

#[test]
fn commit_times_never_go_back() {
    let mut journal = journal();
    let late = CommitTime { seconds: 100, nanoseconds: 5 };
    for now in [late, CommitTime { seconds: 99, nanoseconds: 0 }] {
        let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
        let mut plan = switch(&mut journal, 1);
        let _ = plan.log_writes();
        let _ = plan.commit_block(now);
        assert_eq!(plan.time(), late);
        let _ = journal.committed(plan, Duration::ZERO).unwrap();
    }
}

#[test]
fn transactions_expire_after_their_first_handle() {
    let mut journal = journal();
    let _ = journal.begin(request(1), Duration::from_secs(3));
    assert_eq!(journal.expires_at(), Some(Duration::from_secs(8)));
    assert_eq!(journal.commit_due(Duration::from_secs(7)), None);
    assert_eq!(journal.commit_due(Duration::from_secs(8)), Some(TransactionId(7)));
}

#[test]
fn the_average_commit_time_is_three_parts_old() {
    let mut journal = journal();
    for took in [8, 16] {
        let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
        let plan = switch(&mut journal, 1);
        let _ = journal.committed(plan, Duration::from_millis(took)).unwrap();
    }
    assert_eq!(journal.average_commit(), Duration::from_millis(10));
    let _ = run(&mut journal, &[]);
    assert_eq!(journal.batch_wait(Duration::from_millis(9)), Some(Duration::from_millis(10)));
    assert_eq!(journal.batch_wait(Duration::from_millis(10)), None);
}

#[test]
fn a_commit_moves_the_tail_if_that_frees_a_maximum_transaction() {
    let mut journal = journal();
    let mut moved = Vec::new();
    for round in 0..3 {
        let changes = (0..210).map(|n| (n, BlockChange::Dirty)).collect::<Vec<_>>();
        let _ = run(&mut journal, &changes);
        let plan = switch(&mut journal, 1);
        if let Some(superblock) = plan.tail_superblock() {
            moved.push((round, superblock.bytes().to_vec()));
        }
        let _ = journal.committed(plan, Duration::ZERO).unwrap();
        if round < 2 {
            let plan = checkpoint(&mut journal, u32::MAX);
            let _ = journal.checkpointed(plan, &[]);
        }
    }
    assert_eq!(moved.iter().map(|(round, _)| *round).collect::<Vec<_>>(), [2]);
    assert_eq!(journal.free_log_blocks(), journal.parameters().area().len() - 215);
}

#[test]
fn only_an_empty_log_is_marked_clean_and_it_goes_on_from_its_head() {
    let mut journal = journal();
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    assert!(journal.plan_clean().is_err());
    let _ = commit(&mut journal, 1);
    assert!(journal.plan_clean().is_err());
    let plan = checkpoint(&mut journal, u32::MAX);
    let _ = journal.checkpointed(plan, &[]);
    let _ = journal.plan_clean().unwrap();
    assert!(journal.plan_tail_update().is_none());
    journal.cleaned();
    assert_eq!(journal.log.head, LogBlock(4));
    assert_eq!(journal.free_log_blocks(), journal.parameters().area().len());
    assert!(matches!(journal.plan_checkpoint(u32::MAX), CheckpointStep::Nothing));
    // In use again, the superblock is written first.
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    assert!(switch(&mut journal, 1).superblock().is_some());
}

#[test]
fn log_positions_wrap_in_a_plan() {
    let area = LogArea::new(1, 1200).unwrap();
    let state = LogState {
        next_tid: TransactionId(7),
        head: LogBlock(1198),
        last_commit_time: CommitTime::default(),
    };
    let mut journal: Journal<Bytes> = Journal::new(parameters(1024, 1200), state);
    assert_eq!(journal.parameters().area(), area);
    let _ = run(
        &mut journal,
        &[(5, BlockChange::Dirty), (6, BlockChange::Dirty), (7, BlockChange::Revoke)],
    );
    let mut plan = switch(&mut journal, 1);
    let at = plan.log_writes().iter().map(|write| write.at.get()).collect::<Vec<_>>();
    assert_eq!(at, [1198, 1199, 1, 2]);
    assert_eq!(plan.commit_block(CommitTime::default()).at, LogBlock(3));
}

/// A journal with an area of 100 blocks for fast commits, whose first transaction has committed.
fn journal_with_area() -> Journal<Bytes> {
    let features = JournalIncompat::CSUM_V3 | JournalIncompat::FAST_COMMIT;
    let mut parameters = with_features(1024, 1300, features).superblock().clone();
    parameters.change(|raw| raw.num_fc_blocks = 100.into());
    let parameters = JournalParameters::new(parameters).unwrap();
    let state = LogState {
        next_tid: TransactionId(7),
        head: LogBlock(1),
        last_commit_time: CommitTime::default(),
    };
    let mut journal = Journal::new(parameters, state);
    let _ = run(&mut journal, &[(5, BlockChange::Dirty)]);
    assert!(matches!(journal.begin_fast_commit(TransactionId(7)), FastCommitBegin::Refused));
    let _ = commit(&mut journal, 1);
    let _ = run(&mut journal, &[(6, BlockChange::Dirty)]);
    journal
}

fn begin_fast(journal: &mut Journal<Bytes>) -> FastCommitTicket {
    match journal.begin_fast_commit(TransactionId(8)) {
        FastCommitBegin::Granted(ticket) => ticket,
        other => panic!("not granted: {other:?}"),
    }
}

#[test]
fn j10_1_no_fast_commit_while_the_log_is_empty_on_disk() {
    let mut journal = journal_with_area();
    let ticket = begin_fast(&mut journal);
    journal.end_fast_commit(ticket, 1);
    let plan = checkpoint(&mut journal, u32::MAX);
    let _ = journal.checkpointed(plan, &[]);
    let update = journal.plan_tail_update().unwrap();
    journal.tail_updated(update);
    let _ = commit(&mut journal, 2);
    let plan = checkpoint(&mut journal, u32::MAX);
    let _ = journal.checkpointed(plan, &[]);
    let _ = journal.plan_clean().unwrap();
    journal.cleaned();
    let _ = run(&mut journal, &[(6, BlockChange::Dirty)]);
    let tid = journal.running().unwrap();
    assert!(matches!(journal.begin_fast_commit(tid), FastCommitBegin::Refused));
}

#[test]
fn j10_1_fast_commits_and_full_ones_wait_for_each_other() {
    let mut journal = journal_with_area();
    let ticket = begin_fast(&mut journal);
    assert!(matches!(journal.begin_fast_commit(TransactionId(8)), FastCommitBegin::Wait));
    assert_eq!(journal.lock(TransactionId(8)), Ok(Lock::WaitFastCommit));
    journal.end_fast_commit(ticket, 1);
    assert!(matches!(journal.begin_fast_commit(TransactionId(8)), FastCommitBegin::Refused));
    let plan = switch(&mut journal, 2);
    let _ = run(&mut journal, &[(7, BlockChange::Dirty)]);
    assert!(matches!(journal.begin_fast_commit(TransactionId(8)), FastCommitBegin::Wait));
    assert!(matches!(journal.begin_fast_commit(TransactionId(9)), FastCommitBegin::Wait));
    let _ = journal.committed(plan, Duration::ZERO).unwrap();
    assert!(matches!(journal.begin_fast_commit(TransactionId(8)), FastCommitBegin::Done));
}

#[test]
fn j10_7_a_full_commit_starts_the_area_again() {
    let mut journal = journal_with_area();
    let first = begin_fast(&mut journal);
    // The first block behind the log stays unused.
    assert_eq!((first.start(), first.room(), first.is_first()), (LogBlock(1201), 99, true));
    journal.end_fast_commit(first, 3);
    let second = begin_fast(&mut journal);
    assert_eq!((second.start(), second.room(), second.is_first()), (LogBlock(1204), 96, false));
    journal.end_fast_commit(second, 96);
    let full = begin_fast(&mut journal);
    assert_eq!((full.room(), full.is_first()), (0, false));
    journal.end_fast_commit(full, 0);
    let _ = commit(&mut journal, 2);
    let _ = run(&mut journal, &[(7, BlockChange::Dirty)]);
    let FastCommitBegin::Granted(again) = journal.begin_fast_commit(TransactionId(9)) else {
        panic!()
    };
    assert_eq!((again.start(), again.is_first()), (LogBlock(1201), true));
}

#[test]
fn the_log_begins_with_the_transaction_of_fast_commits_once_all_is_home() {
    let mut journal = journal_with_area();
    assert!(!journal.is_all_home() && !journal.is_tail_running());
    assert!(journal.plan_fast_commit_tail().is_none());
    let plan = checkpoint(&mut journal, u32::MAX);
    let _ = journal.checkpointed(plan, &[]);
    let update = journal.plan_fast_commit_tail().unwrap();
    let superblock = JournalSuperblock::parse(update.superblock.bytes()).unwrap();
    assert_eq!(superblock.sequence(), TransactionId(8));
    assert_eq!(superblock.start(), Some(journal.log.head.get()));
    journal.tail_updated(update);
    assert!(journal.is_tail_running());
    assert_eq!(journal.free_log_blocks(), journal.parameters().area().len());
}

#[test]
fn a_fast_commit_waits_for_handles_but_not_for_credits_set_aside() {
    let mut journal = journal_with_area();
    let request = HandleRequest { blocks: 1, revokes: 0, reserved: 1 };
    let (ticket, reservation) = begin(&mut journal, request);
    journal.lock_updates();
    assert!(!journal.handles_stopped());
    assert!(matches!(journal.begin(request, Duration::ZERO), Begin::WaitBarrier));
    assert!(journal.stop(ticket, []).is_awaited);
    assert!(journal.handles_stopped() && !journal.updates_drained());
    journal.unlock_updates();
    journal.release(reservation.unwrap());
}
