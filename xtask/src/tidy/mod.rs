//! `cargo xtask tidy`: the rules of layout that no compiler checks.

mod kernel_map;
mod layers;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

const LONGEST_FILE_LINES: usize = 800;
/// Where layers are folders, each with a header of five parts.
const ENGINE: &str = "crates/extant/src";
/// What each folder's header has to tell, after its first paragraph.
const HEADER_PARTS: [&str; 4] = ["# Invariants", "# Locking", "# Not here", "# Source"];
/// Words that have no place in what we ship unless the line gives a reason; in two halves, so that this list may stand here.
const FORBIDDEN: [(&str, &str); 6] = [
    ("/wor", "k/"),
    ("/ho", "me/"),
    ("#[igno", "re]"),
    ("#[should_", "panic"),
    ("unimple", "mented!("),
    ("#![allow", "("),
];
/// The engine's one file that may name these.
const LOCKS_FILE: &str = "sync.rs";
const ONLY_IN_LOCKS_FILE: [&str; 2] = ["std::sync", "std::thread"];

/// Checks every source file and prints what breaks a rule; whether nothing does.
pub fn run(root: &Path) -> anyhow::Result<bool> {
    let mut findings = Vec::new();
    let mut files = Vec::new();
    for top in ["crates", "xtask", "docs", "fuzz", ".ci"] {
        collect(&root.join(top), &mut files)?;
    }
    for top in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml"] {
        files.push(root.join(top));
    }
    files.sort();
    let mut count = 0;
    for path in files.iter().filter(|path| path.exists()) {
        count += 1;
        let Ok(text) = fs::read_to_string(path) else { continue }; // an image or another binary of a test
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        check_text(&name, &text, &mut findings);
        if let Some(inside) = name.strip_prefix(ENGINE).and_then(|rest| rest.strip_prefix('/')) {
            check_engine(inside, &text, &mut findings);
        }
    }
    layers::check_manifests(root, &mut findings)?;
    kernel_map::check(root, &mut findings);
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if findings.is_empty() {
        println!("tidy: {count} files, nothing found");
    }
    Ok(findings.is_empty())
}

/// What holds for every text file.
fn check_text(name: &str, text: &str, findings: &mut Vec<String>) {
    let is_rust = name.ends_with(".rs");
    let lines = text.lines().count();
    if is_rust && lines > LONGEST_FILE_LINES {
        findings.push(format!(
            "{name}: {lines} lines, more than {LONGEST_FILE_LINES}; one concept a file"
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if is_rust && !line.is_ascii() {
            findings.push(format!("{name}:{number}: source is ASCII"));
        }
        for (left, right) in FORBIDDEN {
            if line.contains(&format!("{left}{right}")) && !line.contains("reason =") {
                findings.push(format!("{name}:{number}: `{left}{right}` has no place here"));
            }
        }
        if is_rust && line.contains(concat!("TO", "DO")) && !line.contains('#') {
            findings.push(format!("{name}:{number}: a TO-DO carries an issue's number"));
        }
    }
}

/// What holds for the engine's files; `name` is below its `src`.
fn check_engine(name: &str, text: &str, findings: &mut Vec<String>) {
    let code = layers::without_tests(name, text);
    for arrow in layers::forbidden_arrows(name, code) {
        findings.push(format!("{ENGINE}/{name}: {arrow}"));
    }
    for word in ONLY_IN_LOCKS_FILE.iter().filter(|word| name != LOCKS_FILE && code.contains(**word))
    {
        findings.push(format!("{ENGINE}/{name}: only {LOCKS_FILE} names `{word}`"));
    }
    if name.ends_with("/mod.rs") && name.matches('/').count() == 1 {
        let header: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        if header.first().is_none_or(|first| first.is_empty()) {
            findings.push(format!("{ENGINE}/{name}: opens with what the folder is"));
        }
        for part in HEADER_PARTS.iter().filter(|part| !header.contains(*part)) {
            findings.push(format!("{ENGINE}/{name}: its header lacks `{part}`"));
        }
    }
}

/// Every file below `directory` that git would keep.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(directory)
        .with_context(|| format!("{} cannot be listed", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let generated = path
            .file_name()
            .is_some_and(|name| name == OsStr::new("target") || name == "artifacts");
        match path.is_dir() {
            true if generated => {}
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &[&str], find: impl FnOnce(&mut Vec<String>)) {
        let mut findings = Vec::new();
        find(&mut findings);
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, part) in findings.iter().zip(expected) {
            assert!(finding.contains(part), "{finding} should tell of {part}");
        }
    }

    #[test]
    fn source_is_ascii() {
        check(&["a.rs:2"], |findings| check_text("a.rs", "one\ntw\u{f6}\n", findings));
        check(&[], |findings| check_text("a.md", "tw\u{f6}\n", findings));
    }

    #[test]
    fn a_file_stops_at_800_lines() {
        check(&[], |findings| check_text("a.rs", &"\n".repeat(800), findings));
        check(&["801 lines"], |findings| check_text("a.rs", &"\n".repeat(801), findings));
    }

    #[test]
    fn a_header_has_five_parts() {
        let header = "//! What it is.\n//!\n//! # Invariants\n//! # Locking\n//! # Not here\n";
        check(&["# Source"], |findings| check_engine("mapping/mod.rs", header, findings));
        check(&[], |findings| check_engine("mapping/run.rs", "//! A run.\n", findings));
    }

    #[test]
    fn only_the_locks_file_names_the_systems_locks() {
        let text = "use std::sync::Mutex;\n";
        check(&["only sync.rs"], |findings| check_engine("mapping/run.rs", text, findings));
        check(&[], |findings| check_engine("sync.rs", text, findings));
    }
}
