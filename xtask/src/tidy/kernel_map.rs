//! Whether everything that `docs/kernel-map.md` points at exists.

use std::fs;
use std::path::Path;

/// Where files without a longer path are.
const ENGINE: &str = "crates/extant/src";
const MAP: &str = "docs/kernel-map.md";

pub fn check(root: &Path, findings: &mut Vec<String>) {
    let Ok(map) = fs::read_to_string(root.join(MAP)) else { return };
    for (number, line) in (1..).zip(map.lines()) {
        let Some(ours) = ours(line) else { continue };
        for (file, names) in pointers(ours) {
            let path = if file.starts_with("crates/") {
                root.join(file)
            } else {
                root.join(ENGINE).join(file)
            };
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(_) if path.is_dir() => continue,
                Err(_) => {
                    findings.push(format!("{MAP}:{number}: there is no `{file}`"));
                    continue;
                }
            };
            for name in names.into_iter().filter(|name| !has_word(&text, name)) {
                findings.push(format!("{MAP}:{number}: `{file}` has no `{name}`"));
            }
        }
    }
}

/// The second cell of a table's row.
fn ours(line: &str) -> Option<&str> {
    line.strip_prefix("| ")?.split(" | ").nth(1)
}

/// Files with the names that follow each, all of them in backticks.
fn pointers(cell: &str) -> Vec<(&str, Vec<&str>)> {
    let mut pointers: Vec<(&str, Vec<&str>)> = Vec::new();
    for quoted in cell.split('`').skip(1).step_by(2) {
        let is_file = quoted.ends_with(".rs") || quoted.starts_with("crates/");
        match pointers.last_mut() {
            _ if is_file => pointers.push((quoted, Vec::new())),
            Some((_, names)) if quoted.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                names.push(quoted)
            }
            _ => {}
        }
    }
    pointers
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_the_file_before_them() {
        let row = "| `ext4_x` | `file/write.rs`: `write`, `y`; `docs/a.md`, `crates/a/src` |";
        let found = pointers(ours(row).unwrap());
        assert_eq!(found, [("file/write.rs", vec!["write", "y"]), ("crates/a/src", vec![])]);
        assert_eq!(ours("text"), None);
    }

    #[test]
    fn names_are_whole_words() {
        assert!(has_word("fn map() {}", "map"));
        assert!(!has_word("fn map_extent() {}", "map"));
    }
}
