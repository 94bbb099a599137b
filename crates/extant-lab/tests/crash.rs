//! The bounded part of `cargo xtask crash`.

use extant_device::OperationKind;
use extant_lab::crash::{Set, all_pairs, explore, fail_each, simulate};
use extant_testkit::{Effect, Fault};

#[test]
fn every_crash_leaves_what_was_promised() {
    // Known scripts and random ones in turn, and a long one on blocks of 1 KiB, whose journal is full now and then.
    let seeds = (0..30).map(|seed| (seed, 40)).chain([(59, 160)]);
    let usual = seeds.map(|(seed, images)| (Set::Usual, seed, images));
    let fast = (0..20).map(|seed| (Set::FastCommits, seed, 40));
    // Some of all sequences of two changes: a step that no number of kinds or options divides.
    let pairs = (0..all_pairs()).step_by(211).map(|seed| (Set::Pairs, seed, 30));
    // What programs do, and sequences of three changes.
    let programs = (0..36).map(|seed| (Set::Programs, seed, 30));
    let triples = (0..40).map(|seed| (Set::Triples, seed * 7, 20));
    let failures: Vec<String> = usual
        .chain(fast)
        .chain(pairs)
        .chain(programs)
        .chain(triples)
        .flat_map(|(set, seed, images)| explore(set, seed, images, None).failures)
        .collect();
    assert!(
        failures.is_empty(),
        "{}:\n{}",
        failures.len(),
        failures[..failures.len().min(10)].join("\n")
    );
}

/// A checker is believed once it has caught a planted defect.
#[test]
fn dropped_flushes_are_found() {
    let fault =
        Fault { kind: Some(OperationKind::Flush), nth: 1, onwards: true, effect: Effect::Ignore };
    for set in [Set::Usual, Set::FastCommits, Set::Pairs] {
        let found = (0..20).any(|seed| !explore(set, seed, 60, Some(fault)).failures.is_empty());
        assert!(found, "a device without flushes kept every promise: {set:?}");
    }
}

/// Each request may go wrong, and is told of by the right errno; what was promised before is still there.
#[test]
fn every_failure_leaves_what_was_promised() {
    let usual = (0..24).map(|seed| (Set::Usual, seed));
    let others = [Set::FastCommits, Set::Programs].into_iter();
    let others = others.flat_map(|set| (0..8).map(move |seed| (set, seed)));
    let failures = usual.chain(others).flat_map(|(set, seed)| fail_each(set, seed, 6).failures);
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Several clients, time, faults and a crash, all by a seed: twice the same, and nothing that was promised is lost.
#[test]
fn every_simulation_is_repeated_and_keeps_its_promises() {
    let (mut faulty, mut operations) = (0, 0);
    for seed in 0..120 {
        match simulate(seed) {
            Ok(done) => {
                (faulty, operations) =
                    (faulty + u64::from(done.faulty), operations + done.operations)
            }
            Err(reason) => panic!("cargo xtask simulate --first {seed} --seeds 1: {reason}"),
        }
    }
    assert!(operations == 0 || (faulty > 10 && operations > 2000), "{faulty}, {operations}");
}
