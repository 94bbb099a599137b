//! The bounded part of `cargo xtask crash`.

use extant_device::OperationKind;
use extant_lab::crash::{Set, all_pairs, explore};
use extant_testkit::{Effect, Fault};

#[test]
fn every_crash_leaves_what_was_promised() {
    // Known scripts and random ones in turn, and a long one on blocks of 1 KiB, whose journal is full now and then.
    let seeds = (0..30).map(|seed| (seed, 40)).chain([(59, 160)]);
    let usual = seeds.map(|(seed, images)| (Set::Usual, seed, images));
    let fast = (0..20).map(|seed| (Set::FastCommits, seed, 40));
    // Some of all sequences of two changes: a step that no number of kinds or options divides.
    let pairs = (0..all_pairs()).step_by(211).map(|seed| (Set::Pairs, seed, 30));
    let failures: Vec<String> = usual
        .chain(fast)
        .chain(pairs)
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
