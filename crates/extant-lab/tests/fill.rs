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

/// A folio gets places for a part of its blocks if the transaction has no room for the rest: what the write leaves of a new
/// block at the edge is zeros then too, and not what its place held before (D8.4). This run ends a transaction there.
#[test]
fn d8_4_edges_are_zeroed_where_a_transaction_ends_within_a_folio() {
    if let Err(failures) = fill::run(1288, 1, false) {
        panic!("{}", failures.join("\n"));
    }
}

/// What a privileged caller needs to move bytes out of their inode may come from root's reserve (D10.4, D6.1). This run has
/// nothing else left then.
#[test]
fn d10_4_contents_leave_their_inode_into_the_reserve_of_root() {
    if let Err(failures) = fill::run(6747, 1, false) {
        panic!("{}", failures.join("\n"));
    }
}
