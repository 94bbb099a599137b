//! Ranges, seeks and maps: the same random operations on the engine and on a kernel mount, answer by answer.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::sync::Arc;

use extant::MountOptions;
use extant_device::FileDevice;
use extant_lab::script::{Allocation, Answer, DirectoryTarget, Errno, OpenFlag, Operation, Target};
use extant_lab::volume::Volume;
use extant_testkit::oracle::{self, KernelMount, Scratch};
use extant_testkit::{Random, skip};

/// Offsets and lengths lie in so many units, which are half blocks or whole clusters.
const UNITS: u64 = 48;

fn offset(random: &mut Random, unit: u64) -> u64 {
    let odd = [0, 0, 1, unit / 2, unit - 1][usize::try_from(random.below(5)).unwrap()];
    random.below(UNITS) * unit + odd
}

fn random_operation(random: &mut Random, unit: u64) -> Operation {
    use Allocation::{Collapse, Extend, Insert, KeepSize, Punch, Zero, ZeroKeepSize};
    let (path, at) = (b"a".to_vec(), offset(random, unit));
    let len = 1 + offset(random, unit) / 3;
    match random.below(14) {
        0..5 => {
            let tag = u32::try_from(random.below(1 << 20)).unwrap();
            Operation::Write { path, offset: at, len: usize::try_from(len).unwrap(), tag }
        }
        5..11 => {
            let modes = [Extend, KeepSize, Punch, Zero, ZeroKeepSize, Collapse, Insert, Punch];
            let mode = modes[usize::try_from(random.below(8)).unwrap()];
            let aligns = matches!(mode, Collapse | Insert) && random.below(8) > 0;
            let (at, len) = match aligns {
                true => (at / unit * unit, len.next_multiple_of(unit)),
                false => (at, len),
            };
            Operation::Allocate { path, offset: at, len, mode }
        }
        11 => Operation::Truncate { path, size: at },
        12 => Operation::Fsync { path },
        _ => Operation::Sync,
    }
}

/// What both are asked after each operation.
fn questions(random: &mut Random, unit: u64) -> Vec<Operation> {
    let path = || b"a".to_vec();
    let mut questions = vec![Operation::Fiemap { path: path() }, Operation::Stat { path: path() }];
    for _ in 0..2 {
        let offset = offset(random, unit);
        questions.push(Operation::SeekData { path: path(), offset });
        questions.push(Operation::SeekHole { path: path(), offset });
    }
    questions
}

/// The answers without what may differ: where blocks lie, and up to four nodes of the extent tree.
fn comparable(question: &Operation, answers: [Result<Answer, Errno>; 2], unit: u64) -> [String; 2] {
    let mut answers = answers.map(|answer| match answer {
        Ok(answer) if matches!(question, Operation::Fiemap { .. }) => joined(&answer.to_string()),
        Ok(answer) => answer.to_string(),
        Err(errno) => errno.to_string(),
    });
    if matches!(question, Operation::Stat { .. }) {
        let parsed = answers.each_ref().map(|text| text.split_once(" sectors ").unwrap());
        let sectors = parsed.map(|(_, sectors)| sectors.parse::<u64>().unwrap());
        if parsed[0].0 == parsed[1].0 && sectors[0].abs_diff(sectors[1]) <= 4 * unit / 512 {
            answers[0] = answers[1].clone();
        }
    }
    answers
}

/// Runs of a map in one state, joined where the device's place alone keeps them apart.
fn joined(map: &str) -> String {
    let mut runs: Vec<(u64, u64, String)> = Vec::new();
    for run in map.split('[').filter(|run| run.contains('+')) {
        let mut words = run.trim_end().trim_end_matches(']').split(' ');
        let (from, len) = words.next().unwrap().split_once('+').unwrap();
        let (from, len): (u64, u64) = (from.parse().unwrap(), len.parse().unwrap());
        let state = words.next_back().unwrap().to_owned();
        match runs.last_mut() {
            Some(last) if last.0 + last.1 == from && last.2 == state => last.1 += len,
            _ => runs.push((from, len, state)),
        }
    }
    format!("{runs:?}")
}

fn compare(
    format: &[&str],
    unit: u64,
    options: &str,
    mounted: MountOptions,
    seed: u64,
    steps: u32,
) {
    let scratch = Scratch::new("ranges");
    let (own, twin) = (scratch.path("own"), scratch.path("twin"));
    let Some(()) = oracle::mkfs(&own, 32 << 20, format) else { return };
    std::fs::copy(&own, &twin).unwrap();
    let Some(mount) = KernelMount::new(&twin, &scratch.path("mount"), options) else { return };
    let mut kernel = DirectoryTarget::new(mount.root());
    let mut engine = Volume::mount(Arc::new(FileDevice::open(&own).unwrap()), mounted).unwrap();
    let open = Operation::Open { path: b"a".to_vec(), flags: vec![OpenFlag::Create] };
    assert_eq!(engine.apply(&open).map_err(|e| e.0), kernel.apply(&open).map_err(|e| e.0));
    let (mut random, mut story) = (Random::new(seed), String::new());
    for _ in 0..steps {
        let operation = random_operation(&mut random, unit);
        story += &format!("{operation}\n");
        use Allocation::{Collapse, Insert};
        if matches!(operation, Operation::Allocate { mode: Collapse | Insert, .. }) {
            // How much is written before the shift depends on folios too.
            let fsync = Operation::Fsync { path: b"a".to_vec() };
            assert_eq!(engine.apply(&fsync), kernel.apply(&fsync));
        }
        let both = [engine.apply(&operation), kernel.apply(&operation)];
        let [own, other] = comparable(&operation, both, unit);
        assert_eq!(
            own, other,
            "{format:?} {options} seed {seed}, engine and kernel, after\n{story}"
        );
        if format.iter().any(|word| word.contains("^extent")) {
            // Where blocks are indirect, the kernel does not see delayed ones that lie behind a hole.
            let fsync = Operation::Fsync { path: b"a".to_vec() };
            assert_eq!(engine.apply(&fsync), kernel.apply(&fsync));
        }
        let (mut is_vague, mut shares) = (false, false);
        for question in questions(&mut random, unit) {
            let seeks = !matches!(question, Operation::Stat { .. } | Operation::Fiemap { .. });
            if (seeks && is_vague) || (shares && matches!(question, Operation::Stat { .. })) {
                continue;
            }
            let both = [engine.apply(&question), kernel.apply(&question)];
            if both[1] == Err(Errno::NOT_SUPPORTED) {
                skip("no perl to ask the kernel");
                return;
            }
            // What of an unwritten extent is data depends on how the kernel has cut the file into folios.
            is_vague |= both.iter().any(
                |answer| matches!(answer, Ok(Answer::Text(text)) if text.contains("unwritten")),
            );
            if options.contains("nodelalloc") && is_vague {
                // The kernel allocates block by block there, so that zeros replace splits elsewhere.
                continue;
            }
            // The kernel counts a cluster that delayed and allocated blocks share once or twice, depending on the way there.
            shares |= format.contains(&"bigalloc")
                && matches!(&both[1], Ok(Answer::Text(text)) if text.contains("delayed"));
            let [own, other] = comparable(&question, both, unit);
            assert_eq!(
                own, other,
                "{format:?} {options} seed {seed}, {question} of engine and kernel, after\n{story}"
            );
        }
    }
    let bytes = std::fs::read(mount.root().join("a")).unwrap();
    assert!(
        extant_lab::volume::read_all(&engine.filesystem, b"a").unwrap() == bytes,
        "{format:?} {options} seed {seed}, other bytes than the kernel's after\n{story}"
    );
    engine.unmount().unwrap();
    drop(kernel);
    mount.unmount().unwrap();
    oracle::e2fsck(&own).unwrap_or_else(|said| panic!("{format:?} seed {seed}: {said}\n{story}"));
}

/// Blocks allocated ahead are data where they were written in memory, and nowhere else.
#[test]
fn seeks_in_unwritten_extents_are_answered_as_the_kernel_answers() {
    let scratch = Scratch::new("seeks");
    let (own, twin) = (scratch.path("own"), scratch.path("twin"));
    let Some(()) = oracle::mkfs(&own, 32 << 20, &["-b", "1024"]) else { return };
    std::fs::copy(&own, &twin).unwrap();
    let Some(mount) = KernelMount::new(&twin, &scratch.path("mount"), "noatime") else { return };
    let mut kernel = DirectoryTarget::new(mount.root());
    let engine = FileDevice::open(&own).unwrap();
    let mut engine = Volume::mount(Arc::new(engine), MountOptions::new()).unwrap();
    let script = "open a create, fallocate a 0 100K, write a 20000 3000, write a 50K 1, fallocate a 60K 10K punch
        write a 80K 1K, fsync a, write a 10K 1K, fallocate a 90K 10K keep-size, fallocate a 82K 30K zero";
    for operation in extant_lab::script::parse(script) {
        assert_eq!(engine.apply(&operation), kernel.apply(&operation), "{operation}");
        for offset in (0..120 << 10).step_by(512) {
            for question in [
                Operation::SeekData { path: b"a".to_vec(), offset },
                Operation::SeekHole { path: b"a".to_vec(), offset },
            ] {
                let answers = (engine.apply(&question), kernel.apply(&question));
                assert_eq!(answers.0, answers.1, "{question} after {operation}");
            }
        }
    }
}

#[test]
fn ranges_are_answered_as_the_kernel_answers() {
    let seeds = std::env::var("EXTANT_SEEDS").map_or(2, |n| n.parse().unwrap());
    for seed in 0..seeds {
        compare(&["-b", "4096"], 4096, "noatime", MountOptions::new(), seed, 40);
        compare(&["-b", "1024"], 1024, "noatime", MountOptions::new(), seed, 40);
        let written = MountOptions::new().unwritten_until_done(false);
        compare(&["-b", "1024"], 1024, "noatime,dioread_lock", written, seed, 40);
        let placed = MountOptions::new().delayed_allocation(false);
        compare(&["-b", "2048"], 2048, "noatime,nodelalloc", placed, seed, 40);
        let bigalloc = ["-b", "1024", "-O", "bigalloc", "-C", "4096"];
        compare(&bigalloc, 4096, "noatime", MountOptions::new(), seed, 40);
        let indirect = ["-b", "1024", "-O", "^extent,^64bit"];
        compare(&indirect, 1024, "noatime", MountOptions::new(), seed, 40);
    }
}
