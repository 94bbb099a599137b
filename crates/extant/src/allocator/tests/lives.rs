//! Random lives and threads against a plain set of blocks.

use super::*;
use core::fmt::Write;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::string::String;

#[test]
fn threads_never_get_the_same_block() {
    let Some(image) = image(64 * MIB, &["-b", "1024"]) else { return };
    let tunables = |layout: &Layout| Tunables {
        localities: 4,
        processors: 4,
        optimize_scan: true,
        ..Tunables::new(layout, 0, 1)
    };
    let volume = Volume::open_with(&image, true, AllocatorOptions::default(), tunables);
    let work = |thread: u32| {
        let inode = InodeNumber::new(12 + thread).unwrap();
        let mut mine = Vec::new();
        for at in 0..60_u32 {
            let size = if at % 3 == 0 { 4 } else { 4000 };
            if let Ok(got) = volume.allocate(&data(inode, at * 64, 1 + at % 40, 1, size)) {
                mine.push(got.blocks);
            }
            if at % 7 == 6 {
                let blocks = mine.swap_remove(usize_from(at) % mine.len());
                volume
                    .allocator
                    .free(&mut volume.begin(), inode, blocks, FreeFlags::empty())
                    .unwrap();
                volume.allocator.discard_preallocations(inode);
            }
            if at % 20 == 19 {
                volume.transactions.commit_running().unwrap();
                volume.allocator.shrink(4096);
            }
        }
        mine
    };
    let kept: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut seen = BTreeSet::new();
    for block in kept.iter().flat_map(|range| range.start().get()..range.end().get()) {
        assert!(seen.insert(block), "P{block} twice");
    }
    volume.check();
    for blocks in kept {
        volume.free(blocks.start().get(), blocks.len(), FreeFlags::empty()).unwrap();
    }
    for inode in 12..16 {
        volume.allocator.discard_preallocations(InodeNumber::new(inode).unwrap());
    }
    volume.check();
    volume.e2fsck();
}

/// One step of a random life.
#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { inode: u32, block: u32, len: u32, size: u64, goal: u64, flags: u32 },
    Free { which: usize, part: u64 },
    Discard { inode: u32 },
    Commit,
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![Just(0_u32), Just(0x20), Just(0x20), Just(0x60), Just(0x200)];
    let len = prop_oneof![1_u32..4, 10_u32..60, 500_u32..3000];
    prop_oneof![
        6 => (12_u32..15, 0_u32..5000, len, 1_u64..9000, 0_u64..40000, flags).prop_map(
            |(inode, block, len, size, goal, flags)| Step::Allocate { inode, block, len, size, goal, flags }
        ),
        3 => (any::<usize>(), 1_u64..100).prop_map(|(which, part)| Step::Free { which, part }),
        1 => (12_u32..15).prop_map(|inode| Step::Discard { inode }),
        1 => Just(Step::Commit),
        1 => Just(Step::Shrink),
    ]
}

/// Runs the steps and keeps a plain set of the blocks in use beside them.
fn live(image: &[u8], journaled: bool, steps: &[Step]) {
    let tunables =
        |layout: &Layout| Tunables { optimize_scan: journaled, ..Tunables::new(layout, 0, 1) };
    let volume = Volume::open_with(image, journaled, AllocatorOptions::default(), tunables);
    let free = volume.allocator.free_clusters().get();
    let (mut ranges, mut used, mut log) = (Vec::new(), BTreeSet::new(), String::new());
    for step in steps {
        writeln!(log, "{step:?}").unwrap();
        match *step {
            Step::Allocate { inode, block, len, size, goal, flags } => {
                let inode = InodeNumber::new(inode).unwrap();
                let flags = AllocationFlags::from_bits_retain(flags);
                // Each request maps a part of the file that was never mapped: preallocations serve a block once.
                volume.allocator.discard_preallocations(inode);
                match volume
                    .allocate(&AllocationRequest { flags, ..data(inode, block, len, goal, size) })
                {
                    Ok(got) => {
                        assert!(got.blocks.len() <= u64::from(len));
                        let blocks = got.blocks.start().get()..got.blocks.end().get();
                        blocks.for_each(|block| {
                            assert!(used.insert(block), "P{block} twice:\n{log}")
                        });
                        ranges.push(got.blocks);
                    }
                    Err(error) => assert!(error.is_no_space(), "{error}"),
                }
            }
            Step::Free { which, part } if !ranges.is_empty() => {
                let all = ranges.swap_remove(which % ranges.len());
                let cut = part % all.len();
                let start = all.start().get() + cut;
                if cut > 0 {
                    ranges.push(range(all.start().get(), cut));
                }
                volume.free(start, all.len() - cut, FreeFlags::empty()).unwrap();
                (start..all.end().get()).for_each(|block| assert!(used.remove(&block)));
            }
            Step::Free { .. } => {}
            Step::Discard { inode } => {
                volume.allocator.discard_preallocations(InodeNumber::new(inode).unwrap());
            }
            Step::Commit => volume.transactions.commit_running().unwrap(),
            Step::Shrink => {
                volume.allocator.shrink(u64::MAX);
            }
        }
        assert_eq!(
            volume.allocator.free_clusters().get() + u64::try_from(used.len()).unwrap(),
            free
        );
    }
    volume.check();
    assert!(volume.allocator.take_findings().is_empty());
}

#[test]
fn a_random_life_agrees_with_a_plain_set_of_blocks() {
    let Some(image) = image(24 * MIB, &["-b", "1024", "-G", "2"]) else { return };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let lives = (proptest::collection::vec(step(), 1..60), any::<bool>());
    runner
        .run(&lives, |(steps, journaled)| {
            live(&image, journaled, &steps);
            Ok(())
        })
        .unwrap();
}
