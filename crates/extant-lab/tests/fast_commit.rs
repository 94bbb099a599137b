//! The bounded part of `cargo xtask fast-commit`.

use std::sync::Arc;

use extant_lab::dirty::{self, Work};
use extant_lab::fast_commit::{self, Seen};

/// What the kernel left in fast commits is there after recovery, read-only or not: three scripts on each kind of image.
#[test]
fn fast_commits_of_the_kernel_are_recovered() {
    let seen = Arc::new(Seen::default());
    let mut failures = Vec::new();
    for seed in 0..27 {
        match fast_commit::recover_from_kernel(seed, &seen) {
            None => return,
            Some(Ok(())) => {}
            Some(Err(reason)) => failures.push(format!("{seed}: {reason}")),
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    assert!(seen.tags()[1..].iter().all(|count| *count > 9), "{seen:?}");
}

/// What the engine left in fast commits is there after recovery by the kernel, and here, read-only or not; e2fsck finds both
/// clean (its own replay of fast commits is no judge: `docs/design.md`).
#[test]
fn fast_commits_of_the_engine_are_recovered_by_both() {
    let seen = Arc::new(Seen::default());
    let mut failures = Vec::new();
    for seed in 0..22 {
        match fast_commit::recover_from_engine(seed, &seen) {
            None => return,
            Some(Ok(())) => {}
            Some(Err(reason)) => failures.push(format!("{seed}: {reason}")),
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    assert!(seen.written() > 80, "{seen:?}");
    assert!(seen.tags()[1..].iter().all(|count| *count > 9), "{seen:?}");
}

/// Of each kind of volume and each mode of data some.
#[test]
fn what_the_kernel_leaves_after_so_many_operations_is_recovered_as_it_does() {
    let seen = Arc::new(Seen::default());
    let outcomes = (0..48).step_by(5).map_while(|seed| dirty::recover(seed, Work::Alone, &seen));
    let failures: Vec<String> = outcomes.filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}
