//! The bounded part of `cargo xtask kill`.

use std::path::Path;
use std::process::Command;

use extant_lab::kill;

/// The engine's own sources are the tree: some hundred small files, and a few kills of a copy of them.
#[test]
fn a_killed_copy_leaves_every_synced_file_whole() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../extant");
    let copier = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_extant-lab"));
        command.arg("kill-copier");
        command
    };
    if let Some(report) = kill::run(7, 64 << 20, &tree, copier).expect("files can be read") {
        assert_eq!(report.failures, Vec::<String>::new());
        assert!(report.files > 7, "{report:?}");
    }
}
