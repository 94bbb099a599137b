//! The bounded part of `cargo xtask crash`.

use extant_device::OperationKind;
use extant_lab::crash::explore;
use extant_testkit::{Effect, Fault};

#[test]
fn every_crash_leaves_what_was_promised() {
    let failures: Vec<String> = (0..24).flat_map(|seed| explore(seed, 40, None).failures).collect();
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
    let found = (0..20).any(|seed| !explore(seed, 60, Some(fault)).failures.is_empty());
    assert!(found, "a device without flushes kept every promise");
}
