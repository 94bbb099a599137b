//! All sequences of one and two changes on a few files, and three by a seed, each with and without something made durable after
//! it.
//!
//! Source: Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing" (OSDI 2018): nearly all known
//! bugs show in sequences of up to three operations on few files of a new file system, with a sync after one of them.

use std::sync::OnceLock;

use extant_testkit::Random;

use crate::script::model::Model;
use crate::script::{Allocation, Operation, Target, index, parse};

/// What is there before, made durable: two files, one of them in a directory, and an empty directory.
const BEFORE: &str = "create a, write a 0 5000, xattr a user.old 20, mkdir d, create d/b, write d/b 0 9000, mkdir e, sync";

/// How many operations of each script are those.
pub fn before() -> usize {
    parse(BEFORE).len()
}

/// All scripts. The same number means the same script.
pub fn scripts() -> &'static [Vec<Operation>] {
    static SCRIPTS: OnceLock<Vec<Vec<Operation>>> = OnceLock::new();
    SCRIPTS.get_or_init(|| {
        let steps = steps();
        let ones = steps.iter().map(|step| vec![step]);
        let twos = steps.iter().flat_map(|one| steps.iter().map(move |two| vec![one, two]));
        ones.chain(twos).filter_map(|steps| possible(&steps)).collect()
    })
}

/// Three changes that `seed` chooses, each possible where it stands.
pub fn triple(seed: u64) -> Vec<Operation> {
    static STEPS: OnceLock<Vec<Vec<Operation>>> = OnceLock::new();
    let steps = STEPS.get_or_init(steps);
    let mut random = Random::new(seed);
    loop {
        let chosen = [(); 3].map(|()| &steps[index(&mut random, steps.len())]);
        if let Some(script) = possible(&chosen) {
            return script;
        }
    }
}

/// The script of these steps, if each is possible where it stands.
fn possible(steps: &[&Vec<Operation>]) -> Option<Vec<Operation>> {
    let mut model = Model::default();
    let script: Vec<Operation> =
        parse(BEFORE).into_iter().chain(steps.iter().copied().flatten().cloned()).collect();
    for operation in &script {
        if !is_possible(&model, operation) || model.apply(operation).is_err() {
            return None;
        }
    }
    Some(script)
}

/// Whether nothing is in an operation's way. The model takes what it is told; some operations would find something there, or
/// nothing.
pub(super) fn is_possible(model: &Model, operation: &Operation) -> bool {
    match operation {
        Operation::Create { path, .. }
        | Operation::Mkdir { path, .. }
        | Operation::Symlink { path, .. }
        | Operation::Link { path, .. } => has_room(model, path),
        Operation::Rename { to, .. } => has_parent(model, to),
        Operation::Rmdir { path } => crate::script::model::is_removable(model.now(), path),
        _ => true,
    }
}

fn has_room(model: &Model, path: &[u8]) -> bool {
    !model.now().names.contains_key(path) && has_parent(model, path)
}

fn has_parent(model: &Model, path: &[u8]) -> bool {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    slash.is_none_or(|slash| model.now().names.contains_key(&path[..slash]))
}

/// Each change, followed by nothing, or by a sync of the file, of the directory that its name is in, or of all.
fn steps() -> Vec<Vec<Operation>> {
    let mut steps = Vec::new();
    for change in changes() {
        let path = path_of(&change);
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let parent = Operation::Fsync { path: path[..slash].to_vec() };
        // Nobody can open a symbolic link.
        let is_link = matches!(change, Operation::Symlink { .. });
        let file = if is_link { parent.clone() } else { Operation::Fsync { path } };
        for sync in [None, Some(file), Some(parent), Some(Operation::Sync)] {
            steps.push([change.clone()].into_iter().chain(sync).collect());
        }
    }
    steps
}

/// The path that a change leaves something at, or takes it from.
fn path_of(change: &Operation) -> Vec<u8> {
    match change {
        Operation::Rename { to, .. } => to.clone(),
        Operation::Create { path, .. }
        | Operation::Mkdir { path, .. }
        | Operation::Symlink { path, .. }
        | Operation::Link { path, .. }
        | Operation::Unlink { path }
        | Operation::Rmdir { path }
        | Operation::Write { path, .. }
        | Operation::Truncate { path, .. }
        | Operation::Allocate { path, .. }
        | Operation::SetXattr { path, .. }
        | Operation::RemoveXattr { path, .. }
        | Operation::Chmod { path, .. } => path.clone(),
        _ => Vec::new(),
    }
}

fn changes() -> Vec<Operation> {
    let path = |name: &str| name.as_bytes().to_vec();
    let create = |name| Operation::Create { path: path(name), mode: 0o640 };
    let rename = |from, to| Operation::Rename { from: path(from), to: path(to) };
    let write = |name, offset, len| Operation::Write { path: path(name), offset, len, tag: 9 };
    let cut = |name, size| Operation::Truncate { path: path(name), size };
    let allocate = |mode, offset, len| Operation::Allocate { path: path("a"), offset, len, mode };
    let attribute = |len| Operation::SetXattr {
        path: path("a"),
        name: "user.new".to_owned(),
        value: vec![b'v'; len],
    };
    vec![
        create("c"),
        create("d/c"),
        Operation::Mkdir { path: path("n"), mode: 0o750 },
        Operation::Mkdir { path: path("d/n"), mode: 0o750 },
        Operation::Symlink { target: path("a"), path: path("s") },
        Operation::Symlink { target: vec![b't'; 100], path: path("d/s") },
        Operation::Link { original: path("a"), path: path("d/l") },
        Operation::Unlink { path: path("a") },
        Operation::Unlink { path: path("d/b") },
        Operation::Rmdir { path: path("e") },
        rename("a", "c"),
        rename("a", "d/b"),
        rename("d/b", "a"),
        rename("d", "n"),
        rename("d", "e/n"),
        write("a", 5000, 4000),
        write("a", 0, 5000),
        write("a", 1000, 10),
        write("a", 40_000, 3000),
        write("d/b", 9000, 3000),
        write("c", 0, 3000),
        cut("a", 0),
        cut("a", 1000),
        cut("a", 20_000),
        cut("d/b", 4096),
        allocate(Allocation::Extend, 0, 30_000),
        allocate(Allocation::KeepSize, 4096, 30_000),
        allocate(Allocation::Punch, 0, 4096),
        allocate(Allocation::Zero, 1000, 6000),
        attribute(20),
        attribute(300),
        Operation::RemoveXattr { path: path("a"), name: "user.old".to_owned() },
        Operation::Chmod { path: path("a"), mode: 0o600 },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_is_possible_and_there_are_all() {
        let scripts = scripts();
        assert!(scripts.len() > 8000, "{}", scripts.len());
        let ends = |script: &Vec<Operation>| script[before()..].to_vec();
        let pair = [
            Operation::Rename { from: b"a".to_vec(), to: b"d/b".to_vec() },
            Operation::Fsync { path: b"d".to_vec() },
            Operation::Create { path: b"a".to_vec(), mode: 0o640 },
        ];
        assert!(!scripts.iter().map(ends).any(|script| script == pair), "no change makes an `a`");
        let pair = [
            Operation::Write { path: b"a".to_vec(), offset: 0, len: 5000, tag: 9 },
            Operation::Rename { from: b"a".to_vec(), to: b"d/b".to_vec() },
            Operation::Sync,
        ];
        assert!(scripts.iter().map(ends).any(|script| script == pair));
    }
}
