//! The bounded part of `cargo xtask fill`.

use extant_lab::fill::{self, KINDS};

/// A full volume refuses calls that ask for space and keeps all that was accepted (D5.4, D10.2, I5).
#[test]
fn i5_what_a_write_accepted_is_there_when_the_volume_is_full() {
    let kinds = u64::try_from(KINDS.len()).expect("few");
    if let Err(failures) = fill::run(0, 3 * kinds, false) {
        panic!("{}", failures.join("\n"));
    }
}
