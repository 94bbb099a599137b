//! The bounded part of `cargo xtask mounts`: what must not hurt a mount.

use extant_lab::mounts::{Outcome, SUITES, Served, Wishes};

/// Runs a suite, so much of it and so long.
fn suite(name: &str, count: u64, seconds: u64) {
    if !Served::can() {
        return;
    }
    let wishes = Wishes {
        program: env!("CARGO_BIN_EXE_extant").into(),
        seed: 1,
        count: Some(count),
        seconds: Some(seconds),
        ..Wishes::default()
    };
    let suite = SUITES.iter().find(|suite| suite.name == name).expect("a suite of the list");
    match (suite.run)(&wishes) {
        Outcome::Passed(what) => println!("{what}"),
        Outcome::Skipped(why) => extant_testkit::skip(&format!("{name}: {why}")),
        Outcome::Failed(failures) => panic!("{}", failures.join("\n")),
    }
}

#[test]
fn damaged_images_are_mounted_and_used_without_panic_or_hang() {
    suite("damage", 45, 0);
}

#[test]
fn a_killed_server_leaves_what_was_synced_whole() {
    suite("kill", 24, 0);
}

#[test]
fn a_file_holds_what_fsx_has_stored() {
    suite("fsx", 1000, 0);
}

#[test]
fn programs_are_content_with_a_mount() {
    suite("programs", 0, 1);
}

#[test]
fn files_are_what_fio_has_written() {
    suite("fio", 0, 4);
}

#[test]
fn sixteen_clients_get_on_within_bounded_memory() {
    suite("load", 0, 4);
}
