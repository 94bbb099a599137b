//! The rules of reserving by name, and the ledger against plain sums.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;

use extant_format::{ClusterCount, ClusterRatio, LogicalBlock, LogicalCluster, LogicalRange};
use proptest::collection::vec;
use proptest::prelude::*;

use super::ledger::{FreeSpace, LedgerCounts};
use super::*;

fn clusters(n: u64) -> ClusterCount {
    ClusterCount(n)
}

fn data(n: u64) -> Promise {
    Promise::data(clusters(n))
}

/// A ledger with exact counters and no watermark.
fn ledger(free: u64, root_reserve: u64, pool: u64) -> Arc<SpaceLedger> {
    SpaceLedger::new(LedgerParameters {
        free: clusters(free),
        root_reserve: clusters(root_reserve),
        pool: clusters(pool),
        watermark: ClusterCount::ZERO,
        fold_batch: 1,
    })
}

/// A ledger in which so much of `free` is promised; the promise stays.
fn promised(free: u64, promised: u64, watermark: u64) -> Arc<SpaceLedger> {
    let parameters = LedgerParameters {
        free: clusters(free),
        root_reserve: ClusterCount::ZERO,
        pool: ClusterCount::ZERO,
        watermark: clusters(watermark),
        fold_batch: 1,
    };
    let ledger = SpaceLedger::new(parameters);
    core::mem::forget(ledger.reserve(data(promised), Privilege::Ordinary).unwrap());
    ledger
}

#[test]
fn d4_1_kicks_writeback_when_free_is_under_twice_promised() {
    assert_eq!(promised(2000, 1000, 0).write_mode(), WriteMode::StayDelayed);
    assert_eq!(promised(1999, 1000, 0).write_mode(), WriteMode::KickWriteback);
    assert_eq!(promised(0, 0, 0).write_mode(), WriteMode::StayDelayed);
}

#[test]
fn d4_2_bypasses_delay_when_free_is_under_150_percent_of_promised() {
    assert_eq!(promised(1500, 1000, 0).write_mode(), WriteMode::KickWriteback);
    assert_eq!(promised(1499, 1000, 0).write_mode(), WriteMode::KickAndSwitch);
    assert_eq!(promised(256, 1, 256).write_mode(), WriteMode::SwitchToImmediate);
    assert_eq!(promised(257, 1, 256).write_mode(), WriteMode::StayDelayed);
}

#[test]
fn d4_3_the_traces_machine_has_a_watermark_of_256() {
    assert_eq!(LedgerParameters::kernel_slop(2), (clusters(256), 32));
    assert_eq!(LedgerParameters::kernel_slop(1), (clusters(0), 32));
    assert_eq!(LedgerParameters::kernel_slop(32), (clusters(8192), 64));
}

#[test]
fn d4_5_the_switch_sees_counters_with_their_slop() {
    let parameters = LedgerParameters {
        free: clusters(100),
        root_reserve: ClusterCount::ZERO,
        pool: ClusterCount::ZERO,
        watermark: ClusterCount::ZERO,
        fold_batch: 32,
    };
    let ledger = SpaceLedger::new(parameters);
    let mut held: Vec<_> =
        (0..31).map(|_| ledger.reserve(data(3), Privilege::Ordinary).unwrap()).collect();
    assert_eq!(ledger.counts().promised, 93);
    assert_eq!(ledger.write_mode(), WriteMode::KickWriteback); // 66 of 93 are seen
    held.truncate(10);
    assert_eq!(ledger.write_mode(), WriteMode::StayDelayed);
    assert!(ledger.has_free(clusters(70), Privilege::Ordinary)); // exact
}

#[test]
fn d5_4_three_retries_with_a_commit_while_freed_space_waits_for_one() {
    let ledger = ledger(10, 0, 0);
    let hold = ledger.reserve(data(10), Privilege::Ordinary).unwrap();
    assert_eq!(ledger.after_no_space(1, true, Privilege::Ordinary), AfterNoSpace::GiveUp);
    ledger.freed(clusters(4));
    assert_eq!(ledger.after_no_space(3, true, Privilege::Ordinary), AfterNoSpace::CommitAndRetry);
    assert_eq!(ledger.after_no_space(4, true, Privilege::Ordinary), AfterNoSpace::GiveUp);
    assert_eq!(ledger.after_no_space(1, false, Privilege::Ordinary), AfterNoSpace::GiveUp);
    ledger.committed(clusters(4));
    assert_eq!(ledger.after_no_space(1, true, Privilege::Ordinary), AfterNoSpace::Retry);
    drop(hold);
}

#[test]
fn d10_1_a_refused_reservation_promises_nothing() {
    let ledger = ledger(10, 2, 3);
    let error = ledger.reserve(data(6), Privilege::Ordinary).unwrap_err();
    assert!(
        matches!(error, crate::error::Error::NoSpace { wanted, free } if (wanted, free) == (clusters(6), clusters(5)))
    );
    assert_eq!(ledger.counts().promised, 0);
}

#[test]
fn d10_4_each_privilege_may_use_one_more_reserve() {
    let ledger = ledger(10, 2, 3);
    for (privilege, most) in
        [(Privilege::Ordinary, 5), (Privilege::Root, 7), (Privilege::Metadata, 10)]
    {
        assert!(ledger.has_free(clusters(most), privilege), "{privilege:?}");
        assert!(!ledger.has_free(clusters(most + 1), privilege), "{privilege:?}");
    }
}

#[test]
fn d10_6_the_pool_is_two_per_cent_and_at_most_4096() {
    let pool = |total| LedgerParameters::kernel_pool(clusters(total), true).get();
    assert_eq!((pool(65536), pool(204_799), pool(1 << 30)), (1310, 4095, 4096));
    assert_eq!(LedgerParameters::kernel_pool(clusters(65536), false), ClusterCount::ZERO);
}

#[test]
fn d10_7_a_dropped_reservation_gives_back() {
    let ledger = ledger(10, 0, 0);
    let mut whole = ledger.reserve(data(8), Privilege::Ordinary).unwrap();
    let part = whole.split(data(3));
    assert_eq!((whole.promise(), part.promise()), (data(5), data(3)));
    drop(part);
    assert_eq!(ledger.counts().promised, 5);
    let rest = ledger.reserve(data(5), Privilege::Ordinary).unwrap();
    whole.merge(rest);
    assert_eq!(whole.promise(), data(10));
    drop(whole);
    assert_eq!(ledger.counts(), LedgerCounts { free: 10, ..LedgerCounts::default() });
}

#[test]
fn d10_9_an_allocation_lowers_free_then_promised() {
    let ledger = ledger(10, 0, 0);
    let mut held = ledger.reserve(data(4), Privilege::Ordinary).unwrap();
    ledger.allocated(clusters(3));
    assert_eq!((ledger.counts().free, ledger.counts().promised), (7, 4));
    held.spend(clusters(3));
    assert_eq!((ledger.counts().free, ledger.counts().promised), (7, 1));
    held.allocated(clusters(1)); // both at once
    assert_eq!((ledger.counts().free, ledger.counts().promised), (6, 0));
    let claim = ledger.claim(clusters(5), Privilege::Ordinary).unwrap();
    assert_eq!((ledger.counts().free, ledger.counts().promised), (6, 5));
    claim.allocated(clusters(2));
    assert_eq!((ledger.counts().free, ledger.counts().promised), (4, 0));
    drop(ledger.claim(clusters(1), Privilege::Ordinary).unwrap());
    assert_eq!((ledger.counts().free, ledger.counts().promised), (4, 0));
}

#[test]
fn d10_9_data_being_placed_does_not_keep_its_metadata_out() {
    let ledger = ledger(10, 0, 2);
    let mut held = ledger.reserve(data(8), Privilege::Ordinary).unwrap();
    ledger.allocated(clusters(6));
    assert!(
        ledger.has_free(clusters(2), Privilege::Metadata)
            && !ledger.has_free(clusters(3), Privilege::Metadata)
    );
    assert!(!ledger.has_free(clusters(1), Privilege::Root));
    held.spend(clusters(4));
    assert!(
        ledger.has_free(clusters(2), Privilege::Metadata)
            && !ledger.has_free(clusters(3), Privilege::Metadata)
    );
    ledger.unplaced(clusters(2)); // the rest could not be put into the tree
    ledger.freed(clusters(2));
    assert_eq!((ledger.counts().free, ledger.counts().promised), (6, 4));
    assert!(
        ledger.has_free(clusters(2), Privilege::Metadata)
            && !ledger.has_free(clusters(3), Privilege::Metadata)
    );
    drop(held);
    ledger.allocated(clusters(1)); // nothing is promised, so nothing is expected to be spent
    assert!(!ledger.has_free(clusters(6), Privilege::Metadata));
}

#[test]
fn d10_10_freed_space_counts_at_once() {
    let ledger = ledger(0, 0, 0);
    ledger.freed(clusters(2));
    assert!(ledger.has_free(clusters(2), Privilege::Ordinary));
    assert_eq!(ledger.counts().uncommitted, 2);
}

#[test]
fn d12_7_a_freed_cluster_with_delayed_blocks_turns_into_a_promise() {
    let ledger = ledger(0, 0, 0);
    let held = ledger.rereserve(clusters(1));
    assert_eq!((ledger.counts().free, ledger.counts().promised), (1, 1));
    assert_eq!(held.promise(), data(1));
}

#[test]
fn d23_2_statfs_leaves_out_promises_and_reserves() {
    let ledger = ledger(57268, 3276, 1310);
    let held = ledger.reserve(data(2560), Privilege::Ordinary).unwrap();
    let space = ledger.free_space();
    assert_eq!(space, FreeSpace { free: clusters(54708), pool: clusters(1310) });
    assert_eq!(space.available(3276, 0), 50122);
    assert_eq!(space.available(3277, 4), (54708 - 1310) * 16 - 3277);
    assert_eq!(space.available(u64::MAX, 4), 0);
    drop(held);
}

#[test]
fn metadata_within_the_pool_changes_no_answer() {
    let (plain, with) = (ledger(100, 5, 10), ledger(100, 5, 10));
    let _a = plain.reserve(data(20), Privilege::Ordinary).unwrap();
    let wanted = Promise { clusters: clusters(20), metadata: clusters(10) };
    let _b = with.reserve(wanted, Privilege::Ordinary).unwrap();
    assert_eq!(plain.free_space(), with.free_space());
    assert_eq!(plain.counts(), LedgerCounts { metadata: 0, ..with.counts() });
    assert!(
        with.has_free(clusters(65), Privilege::Ordinary)
            && !with.has_free(clusters(66), Privilege::Ordinary)
    );
}

#[test]
fn metadata_beyond_the_pool_is_promised_too_and_stays_available_to_metadata() {
    let ledger = ledger(100, 0, 10);
    let wanted = |clusters, metadata| Promise {
        clusters: ClusterCount(clusters),
        metadata: ClusterCount(metadata),
    };
    let held = ledger.reserve(wanted(60, 30), Privilege::Ordinary).unwrap();
    assert!(ledger.reserve(wanted(1, 10), Privilege::Ordinary).is_err());
    let rest = ledger.reserve(wanted(1, 9), Privilege::Ordinary).unwrap();
    assert_eq!(ledger.free_space().free, clusters(100 - 61 - 29));
    assert!(ledger.has_free(clusters(39), Privilege::Metadata)); // its own promise
    drop((held, rest));
    assert_eq!(ledger.counts().metadata, 0);
}

#[test]
fn an_inode_hands_out_what_is_above_its_metadata_bound() {
    let ledger = ledger(100, 0, 0);
    let mut inode = InodeReservations::default();
    assert!(inode.lower_metadata(ClusterCount::ZERO).is_none());
    let wanted = Promise { clusters: clusters(3), metadata: clusters(5) };
    inode.add(ledger.reserve(wanted, Privilege::Ordinary).unwrap());
    drop(inode.lower_metadata(clusters(2)));
    assert_eq!(inode.promise(), Promise { clusters: clusters(3), metadata: clusters(2) });
    assert_eq!(ledger.counts().metadata, 2);
}

const QUAD: u32 = 2; // log2 of the blocks of a cluster

fn plan(start: u32, len: u32, contents: [ClusterContent; 2]) -> DelayedInsert {
    let mut answers = contents.into_iter();
    let content = |_: LogicalBlock| Ok::<_, Infallible>(answers.next().unwrap());
    DelayedInsert::plan(
        LogicalRange::new(start, len).unwrap(),
        ClusterRatio::new(QUAD).unwrap(),
        content,
    )
    .unwrap()
}

#[test]
fn d12_1_shared_end_clusters_are_not_reserved_again() {
    use ClusterContent::{Allocated, Delayed, Empty};
    let insert = |n, first_allocated, last_allocated| DelayedInsert {
        clusters: clusters(n),
        first_allocated,
        last_allocated,
    };
    assert_eq!(plan(1, 10, [Empty, Empty]), insert(3, false, false));
    assert_eq!(plan(1, 10, [Delayed, Empty]), insert(2, false, false));
    assert_eq!(plan(1, 10, [Allocated, Allocated]), insert(1, true, true));
    assert_eq!(plan(1, 2, [Allocated, Allocated]), insert(0, true, false));
}

#[test]
fn d12_1_blocks_as_clusters_are_not_asked_for() {
    let asked = |_| -> Result<ClusterContent, ()> { Err(()) };
    let plan = DelayedInsert::plan(LogicalRange::new(3, 7).unwrap(), ClusterRatio::ONE, asked);
    assert_eq!(plan.unwrap().clusters, clusters(7));
}

#[test]
fn d12_4_pending_clusters_are_not_released() {
    let (ledger, mut inode) = (ledger(10, 0, 0), InodeReservations::default());
    let span = || Some(LogicalCluster(0)..=LogicalCluster(2));
    inode.add(ledger.reserve(data(2), Privilege::Ordinary).unwrap());
    let insert =
        DelayedInsert { clusters: clusters(2), first_allocated: true, last_allocated: false };
    inode.pending.note(LogicalRange::new(0, 12).unwrap(), insert, ClusterRatio::new(QUAD).unwrap());
    assert!(inode.pending.contains(LogicalCluster(0)));
    drop(inode.release(clusters(3), span()));
    assert_eq!((ledger.counts().promised, inode.promise()), (0, data(0)));
    assert_eq!(inode.pending.iter().next(), None);
}

#[test]
fn d12_6_a_placed_cluster_with_delayed_blocks_left_becomes_pending_and_is_spent() {
    let (ledger, mut inode) = (ledger(10, 0, 0), InodeReservations::default());
    inode.add(ledger.reserve(data(2), Privilege::Ordinary).unwrap());
    let edges = |has| [Some((LogicalCluster(0), has)), None];
    let mut spent = inode.placed(ClusterCount::ZERO, None, &edges(true)).unwrap();
    assert_eq!(spent.promise(), data(1));
    spent.allocated(clusters(1));
    assert!(inode.placed(ClusterCount::ZERO, None, &edges(true)).is_none()); // pending already
    assert!(inode.placed(ClusterCount::ZERO, None, &edges(false)).is_none());
    assert!(!inode.pending.contains(LogicalCluster(0)));
    assert_eq!((ledger.counts().free, ledger.counts().promised), (9, 1));
}

/// What a model test does; reservations are chosen by index modulo what exists.
#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(u64, u64, Privilege),
    Claim(u64, u64, Privilege),
    Split(usize, u64, u64),
    Merge(usize, usize),
    Spend(usize, u64),
    Drop(usize),
    Free(u64),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let privilege =
        || prop_oneof![Just(Privilege::Ordinary), Just(Privilege::Root), Just(Privilege::Metadata)];
    prop_oneof![
        4 => (0u64..20, 0u64..6, privilege()).prop_map(|(n, m, p)| Step::Reserve(n, m, p)),
        1 => (1u64..20, 0u64..20, privilege()).prop_map(|(n, used, p)| Step::Claim(n, used.min(n), p)),
        1 => (0usize..8, 0u64..9, 0u64..4).prop_map(|(i, n, m)| Step::Split(i, n, m)),
        1 => (0usize..8, 0usize..8).prop_map(|(i, j)| Step::Merge(i, j)),
        2 => (0usize..8, 0u64..9).prop_map(|(i, n)| Step::Spend(i, n)),
        1 => (0usize..8).prop_map(Step::Drop),
        1 => (0u64..9).prop_map(Step::Free),
        1 => Just(Step::Commit),
    ]
}

proptest! {
    #[test]
    fn ledger_agrees_with_plain_sums(steps in vec(step(), 1..60)) {
        let ledger = ledger(64, 6, 8);
        let (mut free, mut uncommitted) = (64_i64, 0);
        let mut held: Vec<Reservation> = Vec::new();
        for step in steps {
            let sum = |part: fn(Promise) -> ClusterCount| held.iter().map(|r| part(r.promise()).get()).sum::<u64>();
            let (promised, metadata) = (sum(|p| p.clusters), sum(|p| p.metadata));
            let allowed = |n: u64, m: u64, privilege| {
                let excess = (metadata + m).saturating_sub(8);
                let kept = match privilege {
                    Privilege::Ordinary => 14 + excess,
                    Privilege::Root => 8 + excess,
                    Privilege::Metadata => 0,
                };
                free >= i64::try_from(promised + n + kept).unwrap()
            };
            match step {
                Step::Reserve(n, m, privilege) => {
                    let wanted = Promise { clusters: clusters(n), metadata: clusters(m) };
                    let answer = ledger.reserve(wanted, privilege);
                    prop_assert_eq!(answer.is_ok(), allowed(n, m, privilege));
                    held.extend(answer);
                }
                Step::Claim(n, used, privilege) => {
                    let answer = ledger.claim(clusters(n), privilege);
                    prop_assert_eq!(answer.is_ok(), allowed(n, 0, privilege));
                    if let Ok(claim) = answer {
                        claim.allocated(clusters(used));
                        free -= i64::try_from(used).unwrap();
                    }
                }
                Step::Free(n) => {
                    ledger.freed(clusters(n));
                    free += i64::try_from(n).unwrap();
                    uncommitted += n;
                }
                Step::Commit => ledger.committed(clusters(core::mem::take(&mut uncommitted))),
                _ if held.is_empty() => {}
                Step::Split(i, n, m) => {
                    let at = i % held.len();
                    let part = held[at].split(Promise { clusters: clusters(n), metadata: clusters(m) });
                    held.push(part);
                }
                Step::Merge(i, j) => {
                    let other = held.swap_remove(i % held.len());
                    match held.len() {
                        0 => held.push(other),
                        len => held[j % len].merge(other),
                    }
                }
                Step::Spend(i, n) => {
                    let at = i % held.len();
                    let n = clusters(n).min(held[at].promise().clusters);
                    held[at].allocated(n);
                    free -= i64::try_from(n.get()).unwrap();
                }
                Step::Drop(i) => drop(held.swap_remove(i % held.len())),
            }
            let sum = |part: fn(Promise) -> ClusterCount| held.iter().map(|r| part(r.promise()).get()).sum();
            let counts = LedgerCounts { free, promised: sum(|p| p.clusters), metadata: sum(|p| p.metadata), uncommitted };
            prop_assert_eq!(ledger.counts(), counts);
        }
    }
}
