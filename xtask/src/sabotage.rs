//! `cargo xtask sabotage [FILTER]`: takes one line that keeps data safe out of a copy of the tree, and expects a test to
//! fail; once for each entry of `xtask/sabotage.list`. Slow, and so no part of `ci`.
//!
//! An entry is a paragraph: its name; then, indented, the file, the text to take out after `-`, the text to put in its
//! place after `+`, and after `=` the tests that have to notice: a crate or test target, and a filter. White space in the
//! text to find stands for any white space, so that reformatting does no harm.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// The word for the tests that run under a scheduler of their own.
const ORDERS: &str = "orders";

const LIST: &str = "xtask/sabotage.list";
/// A test that hangs has noticed as well.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs the entries whose text contains `filter`; whether none survived.
pub fn run(root: &Path, filter: &str) -> anyhow::Result<bool> {
    let text = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let entries = parse(&text)?;
    let chosen = entries.iter().filter(|entry| {
        entry.name.contains(filter) || entry.file.contains(filter) || entry.tests.contains(filter)
    });
    ensure!(chosen.clone().next().is_some(), "no entry of {LIST} contains `{filter}`");
    let copy = Copy::new(root)?;
    let mut survivors = Vec::new();
    let mut count = 0_u32;
    for entry in chosen {
        let start = Instant::now();
        let outcome = copy.with(entry)?;
        println!("{outcome:<8} {:>4} s  {}", start.elapsed().as_secs(), entry.name);
        if outcome != RED {
            survivors.push(entry.name);
        }
        count += 1;
    }
    println!("{count} sabotaged, {} not noticed", survivors.len());
    for name in &survivors {
        println!("NOT NOTICED  {name}");
    }
    Ok(survivors.is_empty())
}

const RED: &str = "noticed";

/// One line of code and who has to miss it.
#[derive(Debug, Eq, PartialEq)]
struct Entry<'a> {
    name: &'a str,
    file: &'a str,
    from: String,
    to: String,
    tests: &'a str,
}

fn parse(text: &str) -> anyhow::Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let mut lines =
            paragraph.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let Some(name) = lines.next() else { continue };
        let file = lines.next().with_context(|| format!("{name}: no file"))?.trim();
        let mut entry = Entry { name, file, from: String::new(), to: String::new(), tests: "" };
        for line in lines {
            let (kind, rest) = line.trim().split_at_checked(1).unwrap_or_default();
            match kind {
                "-" => entry.from += &format!("{rest}\n"),
                "+" => entry.to += &format!("{rest}\n"),
                "=" => entry.tests = rest.trim(),
                _ => bail!("{name}: what is {line:?}?"),
            }
        }
        ensure!(!entry.from.trim().is_empty() && !entry.tests.is_empty(), "{name}: not whole");
        entries.push(entry);
    }
    Ok(entries)
}

/// Where the words of `from` stand in `text`, whatever white space is between them; only once.
fn find(text: &str, from: &str) -> Option<std::ops::Range<usize>> {
    let words: Vec<&str> = from.split_whitespace().collect();
    let first = *words.first()?;
    let mut found = text.match_indices(first).filter_map(|(start, _)| {
        let mut at = start;
        for (n, word) in words.iter().enumerate() {
            let rest = &text[at..];
            let gap = rest.len() - rest.trim_start().len();
            let fits = rest.trim_start().starts_with(word) && (n == 0) == (gap == 0);
            at += if fits { gap + word.len() } else { return None };
        }
        Some(start..at)
    });
    let one = found.next()?;
    found.next().is_none().then_some(one)
}

/// Removes the files of a copy that the tree does not have any more.
fn remove_others(copy: &Path, folder: &Path, names: &BTreeSet<&Path>) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(copy.join(folder)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(copy, &name, names)?;
        } else if !names.contains(name.as_path()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A copy of the tree that may be spoilt.
struct Copy {
    tree: PathBuf,
    build: PathBuf,
}

impl Copy {
    fn new(root: &Path) -> anyhow::Result<Self> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let place = target.join("sabotage");
        let (tree, build) = (place.join("tree"), place.join("build"));
        let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let names: BTreeSet<&Path> = listed.split('\0').map(Path::new).collect();
        remove_others(&tree, Path::new(""), &names)?;
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root.join(name), tree.join(name));
            let Ok(bytes) = fs::read(&from) else { continue };
            // What has not changed keeps its time, and need not be built again.
            if fs::read(&to).is_ok_and(|old| old == bytes) {
                continue;
            }
            fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
            fs::write(&to, bytes)?;
        }
        Ok(Self { tree, build })
    }

    /// What became of one sabotage.
    fn with(&self, entry: &Entry<'_>) -> anyhow::Result<&'static str> {
        let path = self.tree.join(entry.file);
        let sound = fs::read_to_string(&path).with_context(|| entry.file.to_owned())?;
        let Some(at) = find(&sound, &entry.from) else { return Ok("STALE") };
        let spoilt = format!("{}{}{}", &sound[..at.start], entry.to.trim(), &sound[at.end..]);
        fs::write(&path, spoilt)?;
        let outcome = self.judge(entry.tests);
        fs::write(&path, sound)?;
        outcome
    }

    fn judge(&self, tests: &str) -> anyhow::Result<&'static str> {
        let (target, filter) = tests.split_once(' ').unwrap_or((tests, ""));
        let target: &[&str] = match target {
            "rules" => &["-p", "extant", "--test", "rules"],
            "engine" => &["-p", "extant", "--lib"],
            ORDERS => &["-p", "extant-lab", "--test", "schedules"],
            package => &["-p", package],
        };
        let (build, flags) = match target {
            [.., "schedules"] => (self.build.join(ORDERS), "--cap-lints=warn --cfg extant_shuttle"),
            _ => (self.build.clone(), "--cap-lints=warn"),
        };
        let cargo = |arguments: &[&str]| self.cargo(arguments, &build, flags);
        if !cargo(&[&["test", "--no-run"], target].concat())? {
            return Ok("NO BUILD");
        }
        let filters: Vec<&str> = ["--"].into_iter().chain(filter.split_whitespace()).collect();
        let passes = cargo(&[&["test"], target, &filters].concat())?;
        Ok(if passes { "ALIVE" } else { RED })
    }

    /// Whether cargo succeeds in time.
    fn cargo(&self, arguments: &[&str], build: &Path, flags: &str) -> anyhow::Result<bool> {
        let mut child = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(arguments)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", build)
            // One file changes at a time: what counts is how soon it is built.
            .envs(["DEV", "TEST"].map(|name| (format!("CARGO_PROFILE_{name}_DEBUG"), "0")))
            .env("RUSTFLAGS", flags)
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_FAILURE_PERSISTENCE", "off")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cargo does not run")?;
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if start.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_fits_the_code() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join(LIST)).unwrap();
        for entry in parse(&text).unwrap() {
            let code = fs::read_to_string(root.join(entry.file)).unwrap();
            assert!(
                find(&code, &entry.from).is_some(),
                "{}: not found, or more than once",
                entry.name
            );
            let target = entry.tests.split(' ').next().unwrap_or_default();
            let is_known = ["rules", "engine", ORDERS].contains(&target)
                || root.join("crates").join(target).is_dir();
            assert!(is_known, "{}: there is no `{target}` to test", entry.name);
        }
    }

    #[test]
    fn white_space_stands_for_any() {
        assert_eq!(find("a;\n    b( c );  d", "b( c );"), Some(7..14));
        assert_eq!(find("if x {\n  y\n}", "if x { y }"), Some(0..12));
        assert_eq!(find("a a", "a"), None);
        assert_eq!(find("xy", "x y"), None);
    }

    #[test]
    fn a_copy_loses_what_the_tree_has_lost() {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("d")).unwrap();
        for name in ["kept", "d/kept", "d/lost"] {
            fs::write(copy.path().join(name), "").unwrap();
        }
        let names = ["kept", "d/kept"].map(Path::new).into();
        remove_others(copy.path(), Path::new(""), &names).unwrap();
        let is_there = |name: &str| copy.path().join(name).exists();
        assert!(is_there("kept") && is_there("d/kept") && !is_there("d/lost"));
    }
}
