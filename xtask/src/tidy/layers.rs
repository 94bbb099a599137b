//! Which part may know which other: the arrows of `ARCHITECTURE.md`, between the engine's folders and between crates.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// What a folder of the engine may import.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    /// Imported by anyone; imports nobody but its like.
    Noun,
    /// Data with rules: imports what it is named with, and nouns.
    Passive(&'static [&'static str]),
    /// Imports passive layers and active ones of a higher rank.
    Active(u32),
    /// The outer face of rank 0: the two know each other, and it knows what that knows.
    Face,
    /// The crate's root: re-exports everything.
    Root,
}

/// The engine's folders and files. Active ranks follow one `write` downwards.
const LAYERS: [(&str, Layer); 27] = [
    ("lib", Layer::Root),
    ("filesystem", Layer::Active(0)),
    ("library", Layer::Face),
    ("file", Layer::Active(10)),
    ("namespace", Layer::Active(10)),
    ("xattr", Layer::Active(20)),
    ("writeback", Layer::Active(50)),
    ("orphans", Layer::Active(55)),
    ("fast_commit", Layer::Active(57)),
    ("mapping", Layer::Active(60)),
    ("extent_tree", Layer::Active(70)),
    ("indirect", Layer::Active(70)),
    ("allocator", Layer::Active(80)),
    ("inode_table", Layer::Active(85)),
    ("transaction", Layer::Active(90)),
    ("inode", Layer::Passive(&["page_cache", "delayed", "extent_status"])),
    ("page_cache", Layer::Passive(&[])),
    ("delayed", Layer::Passive(&[])),
    ("extent_status", Layer::Passive(&[])),
    ("block_io", Layer::Noun),
    ("caller", Layer::Noun),
    ("error", Layer::Noun),
    ("options", Layer::Noun),
    ("report", Layer::Noun),
    ("sync", Layer::Noun),
    ("time", Layer::Noun),
    ("trace", Layer::Noun),
];

/// The crates, each with those it may depend on; tests may use `extant-testkit` everywhere.
const CRATES: [(&str, &[&str]); 13] = [
    ("extant-format", &[]),
    ("extant-device", &[]),
    ("extant-sys", &[]),
    ("extant-crash", &["extant-device"]),
    ("extant-journal", &["extant-format"]),
    ("extant", &["extant-journal", "extant-device", "extant-format"]),
    ("extant-image", &["extant", "extant-journal", "extant-device", "extant-format"]),
    ("extant-script", &["extant", "extant-crash", "extant-device", "extant-format"]),
    ("extant-bench", &["extant", "extant-device", "extant-format", "extant-image"]),
    (
        "extant-lab",
        &[
            "extant",
            "extant-device",
            "extant-format",
            "extant-image",
            "extant-script",
            "extant-testkit",
        ],
    ),
    ("extant-fuse", &["extant", "extant-device", "extant-format", "extant-sys"]),
    (
        "extant-cli",
        &[
            "extant-bench",
            "extant-fuse",
            "extant-image",
            "extant-lab",
            "extant-script",
            "extant-sys",
            "extant",
            "extant-device",
            "extant-format",
        ],
    ),
    ("extant-testkit", &["extant-crash", "extant-device", "extant-format"]),
];

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// Why the file `name` may not import what it does, one line a module.
pub fn forbidden_arrows(name: &str, code: &str) -> Vec<String> {
    let from = name.split_once('/').map_or(name, |(folder, _)| folder);
    let from = from.strip_suffix(".rs").unwrap_or(from);
    let Some(layer_from) = layer(from) else {
        return vec![format!(
            "the layer `{from}` has no rank; give it one in xtask/src/tidy/layers.rs and ARCHITECTURE.md"
        )];
    };
    let mut targets = imported(code);
    targets.sort_unstable();
    targets.dedup();
    targets
        .into_iter()
        .filter(|to| *to != from)
        .filter_map(|to| refusal(from, layer_from, to))
        .collect()
}

fn refusal(from: &str, layer_from: Layer, to: &str) -> Option<String> {
    let allowed = match (layer_from, layer(to)) {
        (Layer::Root, _) | (_, Some(Layer::Noun)) | (Layer::Face, Some(_)) => true,
        (_, None | Some(Layer::Root)) | (Layer::Noun, Some(_)) => false,
        (Layer::Passive(may), Some(_)) => may.contains(&to),
        (Layer::Active(_), Some(Layer::Passive(_))) => true,
        (Layer::Active(rank), Some(Layer::Face)) => rank == 0,
        (Layer::Active(rank), Some(Layer::Active(other))) => rank < other,
    };
    (!allowed).then(|| format!("`{from}` may not import `{to}`: arrows point down"))
}

/// The first names after each `crate::`, those in braces too. Types re-exported at the root count as what they are there:
/// only the error may be imported from it.
fn imported(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for line_and_rest in code.match_indices("crate::") {
        let before = code[..line_and_rest.0].chars().next_back();
        let in_comment = code[..line_and_rest.0]
            .rsplit('\n')
            .next()
            .is_some_and(|line| line.trim_start().starts_with("//"));
        if before == Some('$') || before.is_some_and(char::is_alphanumeric) || in_comment {
            continue;
        }
        let rest = &code[line_and_rest.0 + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(top_level(list)),
            None => names.push(first_name(rest)),
        }
    }
    names.retain(|name| !matches!(*name, "" | "Error" | "Errno"));
    names
}

/// The first name of each item of a brace list, up to its closing brace.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0_u32, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(first_name(&list[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&list[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> &str {
    let path = path.trim_start();
    let end = path.find(|character: char| !character.is_alphanumeric() && character != '_');
    &path[..end.unwrap_or(path.len())]
}

/// The code of a file without its tests, which may know everything.
pub fn without_tests<'a>(name: &str, text: &'a str) -> &'a str {
    if name.ends_with("tests.rs") || name.contains("/tests/") {
        return "";
    }
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// Checks the manifests' dependencies among our own crates.
pub fn check_manifests(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join("crates")).context("there is no folder `crates`")? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let Some((_, may)) = CRATES.iter().find(|(known, _)| *known == name) else {
            findings.push(format!("crates/{name}: a crate that ARCHITECTURE.md and xtask/src/tidy/layers.rs do not know"));
            continue;
        };
        for to in own_dependencies(&manifest).filter(|to| !may.contains(to)) {
            findings.push(format!("crates/{name}: may not depend on `{to}`"));
        }
    }
    Ok(())
}

/// Our own crates under `[dependencies]`.
fn own_dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let normal =
        manifest.split("\n[").find(|section| section.starts_with("dependencies]")).unwrap_or("");
    let names = normal.lines().skip(1).filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| *name == "extant" || name.starts_with("extant-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_imports_in_braces_and_in_paths() {
        let code = "use crate::{sync::{Mutex, Rank}, mapping::Mapper};\nfn f() -> crate::Error { crate::xattr::g() }\n\
                    // crate::file is only spoken of\nmacro_rules! m { () => { $crate::hidden }; }\nuse crate::delayed::Ledger;\n";
        assert_eq!(imported(code), ["sync", "mapping", "xattr", "delayed"]);
    }

    #[test]
    fn arrows_point_down() {
        let check = |name: &str, code: &str, allowed: bool| {
            assert_eq!(forbidden_arrows(name, code).is_empty(), allowed, "{name}: {code}");
        };
        check("file/mod.rs", "use crate::mapping::Mapper;", true);
        check("mapping/mod.rs", "use crate::file::File;", false);
        check("mapping/mod.rs", "use crate::page_cache::Folio;", true);
        check("mapping/mod.rs", "use crate::mapping::run::Run;", true);
        check("page_cache/folio.rs", "use crate::sync::Mutex;", true);
        check("page_cache/folio.rs", "use crate::transaction::Handle;", false);
        check("inode/mod.rs", "use crate::page_cache::PageCache;", true);
        check("delayed/mod.rs", "use crate::extent_status::Tree;", false);
        check("namespace/mod.rs", "use crate::file::File;", false);
        check("namespace/mod.rs", "use crate::xattr::Attributes;", true);
        check("error.rs", "use crate::file::File;", false);
        check("lib.rs", "pub use crate::file::File;", true);
        check("filesystem/mod.rs", "use crate::Filesystem;", false);
        check("library/file.rs", "use crate::filesystem::Volume;", true);
        check("filesystem/options.rs", "use crate::library::Filesystem;", true);
        check("file/mod.rs", "use crate::library::Filesystem;", false);
        check("novelty/mod.rs", "", false);
    }

    #[test]
    fn tests_may_know_everything() {
        assert_eq!(without_tests("a.rs", "x\n#[cfg(test)]\nmod tests {\n y\n}"), "x\n");
        assert_eq!(without_tests("mapping/tests.rs", "use crate::file::File;"), "");
    }

    #[test]
    fn manifests_tell_their_own_dependencies() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nanyhow.workspace = true\nextant-device.workspace = true\n\
                        extant = { workspace = true }\n[dev-dependencies]\nextant-testkit.workspace = true\n";
        assert_eq!(own_dependencies(manifest).collect::<Vec<_>>(), ["extant-device", "extant"]);
    }
}
