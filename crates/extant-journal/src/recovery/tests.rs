//! The rules of recovery, each by its name.

use std::collections::BTreeMap;

use extant_format::cast::usize_from;
use extant_format::corruption::Unsupported;
use extant_format::crc::crc32c;
use extant_format::jbd2::{JournalIncompat, MAGIC};
use proptest::prelude::*;

use super::*;
use crate::testing::Change::{Fill, Revoke, Start};
use crate::testing::{HOME_END, TestLog, parameters, with_features, with_old_checksum};

fn log() -> TestLog {
    TestLog::new(&parameters(1024, 1200))
}

/// The first byte of each block that was written home.
fn firsts(home: &BTreeMap<u64, Vec<u8>>) -> Vec<(u64, u8)> {
    home.iter().map(|(&block, bytes)| (block, bytes[0])).collect()
}

/// What recovery writes home; it must succeed.
fn replayed(log: &TestLog) -> Vec<(u64, u8)> {
    let (home, recovered) = log.recover();
    recovered.unwrap();
    firsts(&home)
}

fn error(log: &TestLog) -> JournalError {
    log.recover().1.unwrap_err()
}

const T1: TransactionId = TransactionId(2);
const T2: TransactionId = TransactionId(3);

#[test]
fn a_clean_journal_needs_nothing_and_skips_a_number() {
    let parameters = parameters(1024, 1200);
    let mut recovery = Recovery::new(parameters.clone(), RecoveryMode::Replay, HOME_END).unwrap();
    let RecoveryStep::Done(recovered) = recovery.step().unwrap() else { panic!() };
    assert_eq!(recovered.state.next_tid, parameters.superblock().sequence().next());
    assert_eq!(recovered.state.head, LogBlock(1));
}

#[test]
fn every_checksum_and_width_is_replayed() {
    use JournalIncompat as F;
    let mut journals = vec![with_old_checksum(1024, 1200)];
    for features in
        [F::empty(), F::BIT64, F::CSUM_V2, F::CSUM_V2 | F::BIT64, F::CSUM_V3, F::CSUM_V3 | F::BIT64]
    {
        for block_size in [1024, 4096, 65536] {
            journals.push(with_features(block_size, 1024, features));
        }
    }
    for parameters in journals {
        let mut log = TestLog::new(&parameters);
        log.commit(10, &(0..40).map(|n| Fill(n, 1)).collect::<Vec<_>>());
        log.commit(11, &[Fill(3, 2), Revoke(4), Fill(5, 2)]);
        let (home, recovered) = log.recover();
        let recovered = recovered.unwrap();
        assert_eq!((recovered.transactions, recovered.revoked), (2, 1), "{parameters:?}");
        assert_eq!(home.len(), 39);
        for (block, first) in firsts(&home) {
            assert_eq!(first, if [3, 5].contains(&block) { 2 } else { 1 });
        }
    }
}

#[test]
fn the_log_goes_on_after_the_last_transaction_and_one_number_later() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1)]);
    let last = *log.commit(20, &[Fill(5, 2)]).last().unwrap();
    let recovered = log.recover().1.unwrap();
    assert_eq!(recovered.state.head, LogBlock(last.get() + 1));
    assert_eq!(recovered.state.next_tid, T2.next().next());
    assert_eq!(recovered.state.last_commit_time.seconds, 20);
    let superblock =
        extant_format::jbd2::JournalSuperblock::parse(recovered.superblock.bytes()).unwrap();
    assert_eq!((superblock.start(), superblock.sequence()), (None, recovered.state.next_tid));
    assert_eq!(superblock.raw().head.get(), recovered.state.head.get());
}

#[test]
fn a_transaction_without_commit_block_is_not_seen() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1)]);
    let commit = *log.commit(11, &[Fill(5, 2), Revoke(6)]).last().unwrap();
    log.block(commit).fill(0);
    assert_eq!(replayed(&log), [(5, 1)]);
}

#[test]
fn revokes_hold_for_their_own_and_earlier_transactions_only() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1), Fill(6, 1), Fill(7, 1)]);
    log.commit(11, &[Revoke(5), Revoke(6)]);
    log.commit(12, &[Fill(6, 3)]);
    assert_eq!(replayed(&log), [(6, 3), (7, 1)]);
}

#[test]
fn a_block_that_starts_with_the_magic_number_is_escaped() {
    let mut log = log();
    let at = log.commit(10, &[Start(5, MAGIC.to_be_bytes().to_vec())]);
    assert_eq!(log.block(at[1])[..4], [0; 4]);
    let (home, _) = log.recover();
    assert_eq!(home[&5][..4], MAGIC.to_be_bytes());
}

#[test]
fn a_data_block_with_a_wrong_checksum_is_left_out_and_told_at_the_end() {
    let mut log = log();
    let at = log.commit(10, &[Fill(5, 1), Fill(6, 1), Fill(7, 1)]);
    log.block(at[2])[9] ^= 1;
    let (home, recovered) = log.recover();
    assert_eq!(firsts(&home), [(5, 1), (7, 1)]);
    assert_eq!(recovered.unwrap_err(), JournalError::BadChecksum(T1));
}

#[test]
fn a_damaged_descriptor_before_a_newer_commit_is_corruption() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1)]);
    let at = log.commit(10, &[Fill(5, 2)]);
    log.block(at[0])[100] ^= 1;
    let (home, recovered) = log.recover();
    assert!(home.is_empty());
    assert_eq!(recovered.unwrap_err(), JournalError::BadChecksum(T2));
}

#[test]
fn a_damaged_descriptor_before_an_older_commit_is_stale() {
    let mut log = log();
    let at = log.commit(10, &[Fill(5, 2)]);
    let commit = log.block(at[2]).clone();
    log.commit(20, &[Fill(5, 1)]);
    // An earlier life of the journal used the number of the next transaction.
    let at = log.commit(21, &[Fill(5, 3)]);
    log.block(at[0])[100] ^= 1;
    *log.block(at[2]) = commit;
    log.block(at[2])[8..12].copy_from_slice(&4u32.to_be_bytes());
    assert_eq!(replayed(&log), [(5, 1)]);
}

#[test]
fn a_damaged_revoke_block_counts_like_a_descriptor() {
    let mut log = log();
    let at = log.commit(10, &[Revoke(5)]);
    log.block(at[0])[100] ^= 1;
    assert_eq!(error(&log), JournalError::BadChecksum(T1));
}

#[test]
fn a_damaged_commit_block_fails_the_mount_before_anything_is_written() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1)]);
    let commit = *log.commit(11, &[Fill(5, 2)]).last().unwrap();
    log.block(commit)[20] ^= 1;
    let (home, recovered) = log.recover();
    assert!(home.is_empty());
    assert_eq!(recovered.unwrap_err(), JournalError::FailedCommit(T2));
}

#[test]
fn a_damaged_commit_block_that_is_older_ends_the_log() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1)]);
    let commit = *log.commit(11, &[Fill(5, 2)]).last().unwrap();
    log.block(commit)[48..56].copy_from_slice(&9u64.to_be_bytes());
    assert_eq!(replayed(&log), [(5, 1)]);
}

#[test]
fn a_damaged_commit_block_of_an_async_journal_ends_the_log() {
    let mut log = TestLog::new(&with_features(
        1024,
        1200,
        JournalIncompat::CSUM_V3 | JournalIncompat::ASYNC_COMMIT,
    ));
    log.commit(10, &[Fill(5, 1)]);
    let commit = *log.commit(11, &[Fill(5, 2)]).last().unwrap();
    log.block(commit)[20] ^= 1;
    assert_eq!(replayed(&log), [(5, 1)]);
}

#[test]
fn a_commit_block_with_garbage_after_its_header_is_accepted() {
    let mut log = log();
    let commit = *log.commit(10, &[Fill(5, 1)]).last().unwrap();
    log.block(commit)[512..].fill(0xAA);
    assert_eq!(replayed(&log), [(5, 1)]);
}

#[test]
fn the_old_checksum_covers_descriptors_and_data() {
    let mut log = TestLog::new(&with_old_checksum(1024, 1200));
    let at = log.commit(10, &[Fill(5, 1), Fill(6, 1), Revoke(9)]);
    assert_eq!(replayed(&log), [(5, 1), (6, 1)]);
    let sound = log.block(at[2]).clone();
    log.block(at[2])[50] ^= 1;
    assert_eq!(error(&log), JournalError::FailedCommit(T1));
    *log.block(at[2]) = sound;
    // Left out altogether, it is not missed.
    let commit = log.block(*at.last().unwrap());
    commit[12..20].fill(0);
    assert_eq!(replayed(&log), [(5, 1), (6, 1)]);
}

#[test]
fn a_data_block_that_cannot_be_read_is_left_out_and_told_at_the_end() {
    let mut log = log();
    let at = log.commit(10, &[Fill(5, 1), Fill(6, 1), Fill(7, 1)]);
    log.break_block(at[2]);
    let (home, recovered) = log.recover();
    assert_eq!(firsts(&home), [(5, 1), (7, 1)]);
    assert_eq!(recovered.unwrap_err(), JournalError::Unreadable(at[2]));
    log.break_block(at[0]);
    let (home, recovered) = log.recover();
    assert!(home.is_empty());
    assert_eq!(recovered.unwrap_err(), JournalError::Unreadable(at[0]));
}

#[test]
fn a_block_outside_the_file_system_stops_recovery_before_anything_is_written() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1)]);
    let at = log.commit(11, &[Fill(HOME_END, 1)]);
    let (home, recovered) = log.recover();
    assert!(home.is_empty());
    assert_eq!(recovered.unwrap_err(), JournalError::Corrupt { tid: T2, at: at[0] });
}

#[test]
fn an_impossible_revoke_count_is_corruption() {
    let mut log = TestLog::new(&with_features(1024, 1200, JournalIncompat::empty()));
    let at = log.commit(10, &[Revoke(5)]);
    log.block(at[0])[12..16].copy_from_slice(&2000u32.to_be_bytes());
    assert_eq!(error(&log), JournalError::Corrupt { tid: T1, at: at[0] });
}

#[test]
fn a_pass_that_ends_elsewhere_is_told() {
    let mut log = TestLog::new(&with_features(65536, 1024, JournalIncompat::CSUM_V3));
    log.commit(10, &[Fill(5, 1), Fill(6, 1), Fill(7, 1)]);
    let at = log.commit(11, &[Fill(5, 2)]);
    let mut reads = 0;
    let (_, recovered) = log.run(RecoveryMode::Replay, |range, blocks| {
        reads += u32::from(range.start == LogBlock(1));
        if reads == 2 {
            blocks[usize_from(at[0].get())].fill(0);
        }
    });
    assert_eq!(recovered.unwrap_err(), JournalError::Unstable { expected: T2.next(), found: T2 });
}

#[test]
fn a_ring_without_any_commit_block_ends() {
    let parameters = with_features(1024, 1024, JournalIncompat::empty());
    let mut log = TestLog::new(&parameters);
    let at = log.commit(10, &[Revoke(5)]);
    let revoke = log.block(at[0]).clone();
    for block in 1..1024 {
        *log.block(LogBlock(block)) = revoke.clone();
    }
    assert_eq!(replayed(&log), []);
}

#[test]
fn a_log_that_wraps_is_replayed() {
    let mut parameters = parameters(1024, 1200);
    let mut superblock = parameters.superblock().clone();
    superblock.change(|raw| raw.head = 1197.into());
    parameters = JournalParameters::new(superblock).unwrap();
    let mut log = TestLog::new(&parameters);
    let at = log.commit(10, &[Fill(5, 1), Fill(6, 1), Fill(7, 1)]);
    assert_eq!((at[2], at[3]), (LogBlock(1199), LogBlock(1)));
    log.commit(11, &[Fill(6, 2)]);
    assert_eq!(replayed(&log), [(5, 1), (6, 2), (7, 1)]);
}

#[test]
fn a_map_says_where_the_newest_versions_are_and_nothing_is_written() {
    let mut log = log();
    log.commit(10, &[Fill(5, 1), Fill(6, 1), Fill(7, 1)]);
    let at = log.commit(11, &[Start(5, MAGIC.to_be_bytes().to_vec()), Revoke(7)]);
    let (home, recovered) = log.run(RecoveryMode::Map, |_, _| {});
    assert!(home.is_empty());
    let map = recovered.unwrap().map;
    assert_eq!(map.iter().map(|(block, _)| block.get()).collect::<Vec<_>>(), [5, 6]);
    let newest = map.get(PhysicalBlock::new(5)).unwrap();
    assert_eq!(newest.at, at[2]);
    let mut bytes = log.block(newest.at).clone();
    newest.decode(&mut bytes);
    assert_eq!(bytes[..4], MAGIC.to_be_bytes());
}

/// A record of a fast commit.
fn record(tag: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&tag.to_le_bytes()[..], &len.to_le_bytes(), value].concat()
}

/// A block of records that ends with a TAIL over them all.
fn fast_commit_block(tid: u32, records: &[Vec<u8>]) -> Vec<u8> {
    let mut block = records.concat();
    let rest = u16::try_from(1024 - block.len() - 4).unwrap();
    block.extend(8u16.to_le_bytes().into_iter().chain(rest.to_le_bytes()).chain(tid.to_le_bytes()));
    block.extend(crc32c(0, &block).to_le_bytes());
    block.resize(1024, 0);
    block
}

#[test]
fn fast_commits_after_the_last_transaction_count_up_to_their_last_valid_tail() {
    let mut log = TestLog::new(&with_features(
        1024,
        1500,
        JournalIncompat::CSUM_V3 | JournalIncompat::FAST_COMMIT,
    ));
    log.commit(10, &[Fill(5, 1)]);
    let next = T1.next().get();
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let head = record(9, &words(&[0, next]));
    let unlink = record(5, &[words(&[2, 12]), b"name".to_vec()].concat());
    let hole = record(2, &words(&[12, 7, 3]));
    *log.block(LogBlock(1245)) = fast_commit_block(next, &[head, unlink]);
    *log.block(LogBlock(1246)) = fast_commit_block(next, &[hole]);
    let found = |log: &TestLog| log.recover().1.unwrap().fast_commits;
    let blocks = |len| LogRange { start: LogBlock(1245), len };
    let both = FastCommits { tid: T1.next(), blocks: blocks(2), records: 5 };
    assert_eq!(found(&log), Some(both));
    // Torn: the first fast commit alone counts.
    log.block(LogBlock(1246))[5] ^= 1;
    assert_eq!(found(&log), Some(FastCommits { blocks: blocks(1), records: 3, ..both }));
    // Overtaken by a full commit: none does.
    log.commit(11, &[Fill(6, 1)]);
    assert_eq!(found(&log), None);
}

#[test]
fn fast_commits_with_features_that_nobody_knows_are_refused() {
    let features = JournalIncompat::CSUM_V3 | JournalIncompat::FAST_COMMIT;
    let mut log = TestLog::new(&with_features(1024, 1500, features));
    log.commit(10, &[Fill(5, 1)]);
    let tid = T1.next().get();
    let words = [0_u32.to_le_bytes(), tid.to_le_bytes()].concat();
    let mut head = record(9, &words);
    head[4] = 2;
    *log.block(LogBlock(1245)) = fast_commit_block(tid, &[head]);
    assert_eq!(error(&log), JournalError::Unsupported(Unsupported::FastCommit(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the log holds, recovery ends, and writes nowhere outside the file system.
    #[test]
    fn hostile_logs_end(
        features in 0u32..64,
        damage in prop::collection::vec((0u32..24, 0usize..1024, any::<[u8; 2]>()), 0..12),
        start in 1u32..20,
    ) {
        let features = JournalIncompat::from_bits_retain(features);
        prop_assume!(!features.contains(JournalIncompat::CSUM_V2 | JournalIncompat::CSUM_V3));
        let mut log = TestLog::new(&with_features(1024, 1300, features));
        for round in 0..4 {
            log.commit(10, &[Fill(5, round), Revoke(6), Fill(7, round)]);
        }
        for (block, at, bytes) in damage {
            let aimed = if at % 2 == 0 { at % 64 } else { at };
            log.block(LogBlock(block + 1))[aimed..(aimed + 2).min(1024)]
                .iter_mut().zip(bytes).for_each(|(old, new)| *old = new);
        }
        log.change_superblock(|raw| raw.start = start.into());
        let (home, _) = log.recover();
        prop_assert!(home.keys().all(|&block| block < HOME_END));
        log.run(RecoveryMode::Map, |_, _| {}).1.ok();
    }
}
