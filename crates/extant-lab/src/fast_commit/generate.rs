//! Scripts that a file system with fast commits has most to say about: many small changes, many `fsync`.

use extant_format::cast::u64_from;
use extant_testkit::Random;

use crate::script::model::{Model, NodeKind, is_removable};
use crate::script::{Allocation, Operation, Target, index, pick};

/// A script of about `len` operations after a first one that commits in full. `rare` lets operations in that no fast commit
/// can tell of.
pub fn script(seed: u64, len: usize, rare: bool) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let start = Operation::Create { path: b"first".to_vec(), mode: 0o644 };
    let mut script = vec![start, Operation::Fsync { path: b"first".to_vec() }];
    script.iter().for_each(|operation| {
        model.apply(operation).expect("the model knows these");
    });
    for tag in 1.. {
        if script.len() >= len {
            break;
        }
        let Some(operation) = choose(&model, &mut random, tag, rare) else { continue };
        if model.apply(&operation).is_ok() {
            script.push(operation);
        }
    }
    script
}

fn choose(model: &Model, random: &mut Random, tag: u32, rare: bool) -> Option<Operation> {
    let state = model.now();
    let files = state.paths(|kind| *kind == NodeKind::File);
    let directories = state.paths(|kind| *kind == NodeKind::Directory);
    let mut new = pick(random, &directories).filter(|_| random.coin()).unwrap_or_default();
    if !new.is_empty() {
        new.push(b'/');
    }
    new.extend(NAMES[index(random, NAMES.len())].as_bytes());
    let free = || Some(new.clone()).filter(|new| !state.names.contains_key(new));
    let Some(file) = pick(random, &files) else {
        return Some(Operation::Create { path: free()?, mode: 0o644 });
    };
    Some(match random.below(40) {
        0..9 => write(model, file, random, tag)?,
        9 | 10 => {
            let size = size_of(model, &file)?;
            let size =
                if random.coin() { index(random, size + 1) } else { size + index(random, 20_000) };
            Operation::Truncate { path: file, size: u64_from(size) }
        }
        11 | 12 => {
            const MODES: [Allocation; 5] = [
                Allocation::Extend,
                Allocation::KeepSize,
                Allocation::Punch,
                Allocation::Punch,
                Allocation::Zero,
            ];
            let (offset, len) = (random.below(60_000), 1 + random.below(30_000));
            Operation::Allocate { path: file, offset, len, mode: MODES[index(random, 5)] }
        }
        13..18 => {
            Operation::Create { path: free()?, mode: [0o640, 0o600, 0o755][index(random, 3)] }
        }
        18 | 19 => Operation::Link { original: file, path: free()? },
        20..23 => {
            let to = if random.coin() { free()? } else { pick(random, &files)? };
            Operation::Rename { from: file, to }
        }
        23..26 => Operation::Unlink { path: file },
        26 => Operation::Chmod { path: file, mode: [0o600, 0o711][index(random, 2)] },
        27 => Operation::SetTimes {
            path: file,
            accessed: (1_000_000_000 + i64::from(tag), 5),
            modified: (1_100_000_000, 999_999_999),
        },
        28 if rare => Operation::Mkdir { path: free()?, mode: 0o750 },
        29 if rare => {
            let path = pick(random, &directories)?;
            is_removable(state, &path).then_some(Operation::Rmdir { path })?
        }
        30 if rare && random.below(4) == 0 => {
            const NAME: &str = "user.one";
            Operation::SetXattr { path: file, name: NAME.to_owned(), value: vec![b'v'; 40] }
        }
        30 if rare && random.below(4) == 0 => {
            Operation::Symlink { target: vec![b't'; 30], path: free()? }
        }
        31 if rare && random.below(4) == 0 => Operation::Sync,
        32 => Operation::Fdatasync { path: file },
        33..40 => Operation::Fsync { path: file },
        _ => return None,
    })
}

fn size_of(model: &Model, path: &[u8]) -> Option<usize> {
    Some(model.versions[&model.now().names[path]].last()?.bytes.len())
}

fn write(model: &Model, path: Vec<u8>, random: &mut Random, tag: u32) -> Option<Operation> {
    let size = size_of(model, &path)?;
    let most = [512, 4096, 5000, 20_000, 70_000][index(random, 5)];
    let offset = match random.below(5) {
        0..3 => size,
        3 => index(random, size + 1),
        _ => index(random, size + 50_000),
    };
    let len = 1 + index(random, most);
    Some(Operation::Write { path, offset: u64_from(offset), len, tag })
}

const NAMES: [&str; 12] = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "j",
    "a rather long name to make directory blocks fill up sooner than they would otherwise, by a lot",
    "another rather long name to make directory blocks fill up sooner than they would otherwise too",
];
