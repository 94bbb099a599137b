//! Scripts out of a seed, and a few that are known to be hard.

use extant_format::cast::u64_from;
use extant_script::JOURNAL_MAGIC;
use extant_testkit::Random;

use super::model::{Model, NodeKind, State, is_removable};
use super::{Operation, Target, parse};

/// A script of `len` operations, each of which is possible where it stands.
pub fn random_script(seed: u64, len: usize) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut script = Vec::new();
    let mut tag = 0;
    while script.len() < len {
        tag += 1;
        // Some data looks like blocks of the journal.
        let shown = if tag % 16 == 7 { JOURNAL_MAGIC } else { tag };
        let Some(operation) = choose(&model, &mut random, shown) else { continue };
        if model.apply(&operation).is_ok() {
            script.push(operation);
        }
    }
    script
}

/// An operation on what exists by now; `None` if what was drawn has nothing to work on.
fn choose(model: &Model, random: &mut Random, tag: u32) -> Option<Operation> {
    let state = model.now();
    let files = state.paths(|kind| *kind == NodeKind::File);
    let directories = state.paths(|kind| *kind == NodeKind::Directory);
    Some(match random.below(32) {
        0..10 => contents(model, &files, random, tag)?,
        10..22 => names(state, &files, &directories, random)?,
        22 => {
            let value = vec![b'v'; [3, 100, 400][index(random, 3)]];
            let name = XATTRS[index(random, 2)].to_owned();
            Operation::SetXattr { path: pick(random, &files)?, name, value }
        }
        23 => {
            let name = XATTRS[index(random, 2)].to_owned();
            Operation::RemoveXattr { path: pick(random, &files)?, name }
        }
        24 => {
            let path = pick(random, &[files, directories].concat())?;
            Operation::Chmod { path, mode: [0o600, 0o755][index(random, 2)] }
        }
        25..29 => Operation::Fsync { path: pick(random, &files)? },
        29 => Operation::Fsync { path: pick(random, &directories).unwrap_or_default() },
        30 if random.below(3) > 0 => Operation::Sync,
        30 if random.coin() => Operation::Hold { path: pick(random, &files)? },
        30 => Operation::Release,
        31 if random.coin() => {
            Operation::JournalData { path: pick(random, &files)?, on: random.below(4) > 0 }
        }
        _ => Operation::Tick { seconds: [1, 6, 40][index(random, 3)] },
    })
}

/// A change of a file's bytes.
fn contents(model: &Model, files: &[Vec<u8>], random: &mut Random, tag: u32) -> Option<Operation> {
    let path = pick(random, files)?;
    let size = model.versions[&model.now().names[&path]].last()?.bytes.len();
    if random.below(5) == 0 {
        let cut = index(random, size + 1);
        let size = if random.coin() { cut } else { size + index(random, 30_000) };
        return Some(Operation::Truncate { path, size: u64_from(size) });
    }
    let most = SIZES[index(random, SIZES.len())];
    let len = 1 + index(random, most);
    let offset = match random.below(4) {
        0 | 1 => size,
        2 => index(random, size + 1),
        _ => index(random, size + 20_000),
    };
    Some(Operation::Write { path, offset: u64_from(offset), len, tag })
}

/// A change of names.
fn names(
    state: &State,
    files: &[Vec<u8>],
    directories: &[Vec<u8>],
    random: &mut Random,
) -> Option<Operation> {
    let mut new = pick(random, directories).filter(|_| random.below(3) == 0).unwrap_or_default();
    if !new.is_empty() {
        new.push(b'/');
    }
    new.extend(NAMES[index(random, NAMES.len())].as_bytes());
    let free = || Some(new.clone()).filter(|new| !state.names.contains_key(new));
    Some(match random.below(12) {
        0..4 => Operation::Create { path: free()?, mode: 0o640 },
        4 => Operation::Mkdir { path: free()?, mode: 0o750 },
        5 => {
            let len = [5, 59, 60, 200][index(random, 4)];
            Operation::Symlink { target: vec![b't'; len], path: free()? }
        }
        6 => Operation::Link { original: pick(random, files)?, path: free()? },
        7..10 => {
            let from = pick(random, &state.paths(|_| true))?;
            let to = if random.coin() { free()? } else { pick(random, files)? };
            let inside = to.starts_with(&[&from, b"/".as_slice()].concat());
            let over = directories.contains(&from) && state.names.contains_key(&to);
            if inside || over {
                return None;
            }
            Operation::Rename { from, to }
        }
        _ => {
            let path = pick(random, &state.paths(|_| true))?;
            match directories.contains(&path) {
                true if is_removable(state, &path) => Operation::Rmdir { path },
                true => return None,
                false => Operation::Unlink { path },
            }
        }
    })
}

/// Scripts of the kinds that lose data where something is missing, by name.
pub fn known_scripts() -> Vec<(&'static str, Vec<Operation>)> {
    KNOWN.iter().map(|(name, text)| (*name, parse(text))).collect()
}

const KNOWN: [(&str, &str); 23] = [
    ("synced", "create a, write a 0 10000, fsync a"),
    (
        "replaced by rename",
        "create a, write a 0 9000, fsync a, create b, write b 0 12000, fsync b, rename b a, fsync /",
    ),
    (
        "replaced unsynced",
        "create a, write a 0 9000, sync, create b, write b 0 9000, rename b a, tick 6",
    ),
    (
        "appended",
        "create a, write a 0 100, fsync a, write a 100 5000, fsync a, write a 5100 100000, fsync a",
    ),
    (
        "overwritten",
        "create a, write a 0 40000, fsync a, write a 5000 20000, fsync a, write a 0 40000",
    ),
    (
        "blocks of a removed file used again",
        "create a, write a 0 60000, sync, unlink a, create b, write b 0 60000, fsync b, create c, \
         write c 0 60000, sync",
    ),
    (
        "cut and grown",
        "create a, write a 0 30000, fsync a, truncate a 1001, fsync a, truncate a 20000, \
         write a 15000 10000, fsync a",
    ),
    (
        "metadata block freed and used for data",
        "mkdir d, create d/x, sync, unlink d/x, rmdir d, create a, write a 0 80000, fsync a, \
         write a 0 80000, sync",
    ),
    (
        "attributes moved out of the inode",
        "create a, xattr a user.one 20, fsync a, xattr a user.one 600, fsync a, xattr a user.one 900, \
         write a 0 5000, fsync a, unxattr a user.one, sync",
    ),
    (
        "holes filled backwards",
        "create a, write a 90000 1000, write a 60000 1000, fsync a, write a 30000 1000, \
         write a 0 1000, sync",
    ),
    (
        "removed while open",
        "create a, write a 0 50000, create b, sync, hold a, unlink a, fsync b, hold b, unlink b, sync, \
         create c, write c 0 100, fsync c, release, create d, sync",
    ),
    (
        "replaced while open",
        "create a, write a 0 9000, create b, write b 0 5000, sync, hold a, rename b a, fsync a, sync, \
         release, create c, sync",
    ),
    (
        "what was cut off does not come back",
        "create a, write a 0 30000, create b, sync, truncate a 1001, write b 0 10, fsync b, \
         truncate a 20000, write b 10 10, fsync b, write b 20 10, fsync b",
    ),
    (
        "grown out of the inode",
        "create a, write a 0 100, fsync a, write a 100 5000, tick 40, tick 6, create b, write b 0 60, sync, \
         write b 60 20000, fsync b, write a 0 50, fsync a",
    ),
    (
        "written and cut in the inode",
        "create a, write a 0 100, fsync a, write a 20 50, fsync a, truncate a 30, fsync a, truncate a 55, \
         write a 90 30, fsync a, truncate a 0, write a 0 10, sync",
    ),
    (
        "moved out of the inode at once",
        "create a, write a 0 100, fsync a, truncate a 5000, fsync a, write a 50 10, create b, write b 0 60, \
         fsync b, xattr b user.one 400, truncate b 61, sync",
    ),
    (
        "cut on the way out of the inode",
        "create a, write a 0 100, fsync a, write a 100 9000, truncate a 40, fsync a, create b, write b 0 90, sync, \
         write b 0 5000, truncate b 0, write b 0 20, fsync b, create c, write c 0 60, fsync c, \
         write c 8000 100, unlink c, sync",
    ),
    (
        "names that grow out of their inode",
        "mkdir d, create d/a, create d/b, fsync d, create d/c, create d/d, create d/e, fsync d, unlink d/a, create d/f, \
         create d/name1, create d/name2, fsync d, create d/name3, create d/name4, create d/name5, mkdir e, \
         rename e d/g, sync, unlink d/name2, rmdir d/g, sync",
    ),
    (
        "journaled blocks freed and used for plain data",
        "create a, journal-data a on, write a 0 120000, fsync a, write a 0 120000, create b, fsync a, unlink a, \
         fsync b, write b 0 120000, fsync b, create c, write c 0 120000, fsync c",
    ),
    (
        "journaled blocks cut off and used for plain data",
        "create a, journal-data a on, write a 0 120000, fsync a, truncate a 5000, fsync a, create b, \
         write b 0 120000, fsync b, truncate a 0, fsync a, write b 120000 120000, fsync b",
    ),
    (
        "journaled no more",
        "create a, journal-data a on, write a 0 30000, fsync a, journal-data a off, write a 0 30000, fsync a, \
         create b, sync, journal-data a on, write a 10000 30000, fsync a",
    ),
    (
        "journaled and overwritten",
        "create a, journal-data a on, write a 0 20000, fsync a, write a 3000 9000, tick 6, write a 5000 100, \
         fsync a, write a 0 50000, write a 100 100, fsync a, write a 200 20000",
    ),
    (
        "directory moved and synced",
        "mkdir d, mkdir e, create d/x, write d/x 0 3000, fsync d/x, rename d e/f, fsync e, \
         rename e/f/x x, sync",
    ),
];

/// One of `from`, if there are any.
pub(crate) fn pick(random: &mut Random, from: &[Vec<u8>]) -> Option<Vec<u8>> {
    (!from.is_empty()).then(|| from[index(random, from.len())].clone())
}

/// A number below `limit`.
pub(crate) fn index(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(u64_from(limit))).expect("below a usize")
}

const NAMES: [&str; 7] = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "a rather long name to make directory blocks fill up sooner than they would otherwise",
];
const XATTRS: [&str; 2] = ["user.one", "user.two"];
const SIZES: [usize; 6] = [50, 1024, 4096, 4097, 20_000, 120_000];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{DirectoryTarget, run};
    use extant_testkit::oracle::Scratch;

    #[test]
    fn a_seed_gives_the_same_script() {
        assert_eq!(random_script(3, 30), random_script(3, 30));
        assert_ne!(random_script(3, 30), random_script(4, 30));
    }

    #[test]
    fn every_script_runs_on_real_files() {
        let random = (0..30).map(|seed| ("random", random_script(seed, 40)));
        for (name, script) in known_scripts().into_iter().chain(random) {
            let scratch = Scratch::new("script");
            let root = scratch.path("root");
            std::fs::create_dir(&root).unwrap();
            run(&mut Model::default(), &script).unwrap();
            // The files may lie on another file system.
            let everywhere =
                |operation: &Operation| !matches!(operation, Operation::JournalData { .. });
            let script: Vec<_> = script.into_iter().filter(everywhere).collect();
            run(&mut DirectoryTarget::new(&root), &script)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
