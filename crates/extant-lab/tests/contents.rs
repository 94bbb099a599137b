//! The bounded part of `cargo xtask contents`.

use extant_lab::contents::{self, KINDS};

/// Random operations on each kind of image leave the bytes, sizes, holes and counters of a plain model.
#[test]
fn files_hold_what_a_plain_model_says() {
    let kinds = u64::try_from(KINDS.len()).expect("few");
    if let Err(failures) = contents::run(0, 2 * kinds, 150, false) {
        panic!("{}", failures.join("\n"));
    }
}
