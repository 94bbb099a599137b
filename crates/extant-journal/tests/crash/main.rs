//! Random handles, commits, checkpoints and power cuts against a disk with a volatile cache: after recovery every
//! committed transaction is whole, nothing of another is visible, and no freed block is overwritten.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod machine;

use extant_format::jbd2::{JournalCompat, JournalIncompat, RawJournalSuperblock};
use extant_journal::BlockChange;
use machine::{Machine, Operation, Sabotage};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

/// Features, block size and head of the journal.
fn journal() -> impl Strategy<Value = RawJournalSuperblock> {
    use JournalIncompat as F;
    let features = prop::sample::select(vec![
        F::CSUM_V3 | F::BIT64,
        F::CSUM_V3,
        F::CSUM_V2,
        F::CSUM_V2 | F::BIT64,
    ]);
    let unsummed = prop::sample::select(vec![F::empty(), F::BIT64]);
    let features = prop_oneof![4 => (features, Just(false)), 1 => (unsummed, any::<bool>())];
    let block_size = prop::sample::select(vec![1024, 1024, 1024, 4096]);
    (features, block_size, 1u32..1024).prop_map(|((features, old_checksum), block_size, head)| {
        let mut raw = RawJournalSuperblock::blank(block_size, 1024, [9; 16]);
        raw.set_incompat(features);
        raw.head = head.into();
        if old_checksum {
            raw.feature_compat = JournalCompat::CHECKSUM.bits().into();
        }
        raw.set_checksum();
        raw
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let change = prop_oneof![4 => Just(BlockChange::Dirty), 3 => Just(BlockChange::Revoke), 1 => Just(BlockChange::Forget)];
    // Few blocks, so that they meet.
    let changes = vec((0u64..12, change), 1..8);
    prop_oneof![
        8 => changes.prop_map(Operation::Handle),
        2 => (0u64..240, 100u64..200).prop_map(|(start, len)| Operation::Run(start, len)),
        8 => Just(Operation::Commit),
        4 => Just(Operation::FinishCommit),
        8 => Just(Operation::Checkpoint),
        8 => (0u64..12).prop_map(Operation::WriteData),
        2 => Just(Operation::Flush),
        3 => any::<u64>().prop_map(Operation::Crash),
        1 => Just(Operation::Remount),
    ]
}

fn run(
    raw: &RawJournalSuperblock,
    operations: &[Operation],
    sabotage: Option<Sabotage>,
) -> Result<(), TestCaseError> {
    let mut machine = Machine::new(raw, sabotage);
    for operation in operations {
        machine.run(operation).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

fn scripts() -> impl Strategy<Value = (RawJournalSuperblock, Vec<Operation>)> {
    let end = any::<u64>().prop_map(Operation::Crash);
    (journal(), vec(operation(), 1..120), end).prop_map(|(raw, mut operations, end)| {
        operations.push(end);
        (raw, operations)
    })
}

proptest! {
    #[test]
    fn committed_transactions_survive_and_others_are_not_seen((raw, operations) in scripts()) {
        run(&raw, &operations, None)?;
    }
}

/// The checks above are believed because each planted defect makes them fail.
#[test]
fn planted_defects_are_found() {
    let defects = [
        Sabotage::NoFlushBeforeCommit,
        Sabotage::NoFlushBeforeTail,
        Sabotage::NoRevoke,
        Sabotage::FreeWithoutWaiting,
        Sabotage::ReadLiveVersion,
    ];
    for defect in defects {
        let config = ProptestConfig {
            cases: 3000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let mut runner = TestRunner::new(config);
        let outcome =
            runner.run(&scripts(), |(raw, operations)| run(&raw, &operations, Some(defect)));
        assert!(outcome.is_err(), "{defect:?} was not found");
    }
}
