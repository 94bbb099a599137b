//! The bounded part of `cargo xtask damage`.

use std::process::Command;

/// Each image is read and written in a process of its own kind, within time and memory.
#[test]
fn damaged_images_are_read_and_written_without_panic_hang_or_waste() {
    damage(&["--seed", "1", "--count", "300"]);
}

/// Images that once broke something, by seed and number.
#[test]
fn known_damage_does_no_harm_again() {
    for (seed, number) in [("2", "811"), ("2", "1310"), ("2", "1728")] {
        damage(&["--seed", seed, "--only", number]);
    }
}

fn damage(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_extant-lab"));
    let output = command.arg("damage").args(arguments).output().expect("the lab was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
