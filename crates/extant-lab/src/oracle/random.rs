//! Random scripts, and how one that differs is made small.

use extant_format::cast::u64_from;
use extant_script::{Allocation, Operation, Script, Settings, Step};
use extant_testkit::Random;

/// Kinds of images and mounts, each with how many bytes a block has.
const KINDS: [(&str, &str, u64); 9] = [
    ("-b 4096", "", 4096),
    ("-b 1024", "", 1024),
    ("-b 4096 -O bigalloc -C 65536", "", 4096),
    ("-b 4096", "nodelalloc", 4096),
    ("-b 4096 -O ^extent,^64bit", "", 4096),
    ("-b 1024 -O ^extent,^64bit", "", 1024),
    ("-b 4096", "dioread_lock", 4096),
    ("-b 4096 -O inline_data", "", 4096),
    ("-b 1024 -I 512 -O inline_data", "", 1024),
];
/// How the options of kinds end that keep small files in their inode.
const INLINE: &str = "inline_data";
const IMAGE_BYTES: u64 = 64 << 20;
const FILES: [&str; 3] = ["a", "b", "c"];

/// The script of a seed: `len` operations on a few open files.
pub fn script(seed: u64, len: usize) -> Script {
    let mut random = Random::new(seed);
    let (mkfs, mount, block) = KINDS[index(&mut random, KINDS.len())];
    let settings = Settings {
        image_bytes: Some(IMAGE_BYTES),
        mkfs: mkfs.split(' ').map(str::to_owned).collect(),
        mount: mount.to_owned(),
        warm: true,
        setup: 0,
    };
    let mut script = Script { settings, steps: Vec::new() };
    for file in FILES {
        let flags = vec![extant_script::OpenFlag::Create];
        push(&mut script, Operation::Open { path: file.into(), flags });
    }
    while script.steps.len() < len {
        let place = script.steps.len();
        let operation = match mkfs.ends_with(INLINE) && random.coin() {
            true => small_operation(&mut random, place),
            false => operation(&mut random, block, place),
        };
        push(&mut script, operation);
    }
    script
}

fn push(script: &mut Script, operation: Operation) {
    let line = script.steps.len() + 1;
    script.steps.push(Step { line, operation });
}

/// An operation on what fits an inode, or nearly does.
fn small_operation(random: &mut Random, place: usize) -> Operation {
    let path: Vec<u8> = FILES[index(random, FILES.len())].into();
    let tag = u32::try_from(place).unwrap_or(u32::MAX);
    let (offset, len) = (random.below(150), 1 + index(random, 150));
    match random.below(8) {
        0..3 => Operation::Write { path, offset, len, tag },
        3 | 4 => Operation::Append { path, len, tag },
        5 => Operation::Truncate { path, size: offset },
        6 => Operation::Fsync { path },
        _ => Operation::Stat { path },
    }
}

fn operation(random: &mut Random, block: u64, place: usize) -> Operation {
    let path: Vec<u8> = FILES[index(random, FILES.len())].into();
    let tag = u32::try_from(place).unwrap_or(u32::MAX);
    // Places cluster at the edges of blocks, and within what the files have by now.
    let blocks = random.below(40);
    let inside = [0, 0, 1, 100, block - 1][index(random, 5)];
    let offset = blocks * block + inside;
    let most = [2, 8, 300][index(random, 3)];
    let long = random.below(most) * block;
    let len = (long + [0, 1, 700, block][index(random, 4)]).max(1);
    let bytes = usize::try_from(len).expect("a few blocks");
    match random.below(16) {
        0..5 => Operation::Write { path, offset, len: bytes, tag },
        5..8 => Operation::Append { path, len: bytes, tag },
        8 | 9 => Operation::Truncate { path, size: offset },
        10 | 11 => {
            let modes =
                [Allocation::Extend, Allocation::KeepSize, Allocation::Punch, Allocation::Zero];
            Operation::Allocate { path, offset, len, mode: modes[index(random, modes.len())] }
        }
        12 | 13 => Operation::Fsync { path },
        14 => Operation::Read { path, offset, len: bytes },
        _ => Operation::Sync,
    }
}

/// The smallest script of the kind that `differs`, found by leaving out pieces, halves first.
pub fn shrink(script: &Script, differs: impl Fn(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut piece = best.steps.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        while from < best.steps.len() {
            let mut smaller = best.clone();
            smaller.steps.drain(from..(from + piece).min(smaller.steps.len()));
            if differs(&smaller) {
                best = smaller;
            } else {
                from += piece;
            }
        }
        piece /= 2;
    }
    best
}

fn index(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(u64_from(limit))).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_script() {
        assert_eq!(script(3, 30), script(3, 30));
        assert_ne!(script(3, 30), script(4, 30));
    }

    #[test]
    fn a_random_script_reads_as_it_prints() {
        for seed in 0..20 {
            let script = script(seed, 30);
            assert_eq!(Script::parse(&script.to_string()).unwrap(), renumbered(&script));
        }
    }

    /// Settings take lines too.
    fn renumbered(script: &Script) -> Script {
        let mut script = script.clone();
        let settings = script.to_string().lines().count() - script.steps.len();
        script.steps.iter_mut().for_each(|step| step.line += settings);
        script
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let script = script(5, 40);
        let wanted = [&script.steps[7].operation, &script.steps[30].operation];
        let has_both = |tried: &Script| {
            wanted.iter().all(|wanted| tried.operations().any(|one| one == *wanted))
        };
        let small = shrink(&script, has_both);
        assert_eq!(small.operations().collect::<Vec<_>>(), wanted);
    }
}
