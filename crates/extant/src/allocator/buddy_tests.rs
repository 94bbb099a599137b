//! The buddy against a slow reference that knows only single clusters.

use super::*;
use proptest::prelude::*;

const BLOCK_BITS: u32 = 10;
const CAPACITY: u32 = 8192;

/// Counters of all orders from nothing but free clusters.
fn slow_counters(buddy: &Buddy, free: &[bool]) -> Vec<u32> {
    let all_free = |start: u32, order: u32| {
        let end = start + (1 << order);
        end <= CAPACITY && (start..end).all(|at| free.get(usize_from(at)).copied().unwrap_or(false))
    };
    let top = buddy.orders() - 1;
    let mut counters = vec![0; usize_from(buddy.orders())];
    for order in 0..=top {
        for start in (0..CAPACITY).step_by(1 << order) {
            let parent = start >> (order + 1) << (order + 1);
            if all_free(start, order) && (order == top || !all_free(parent, order + 1)) {
                counters[usize_from(order)] += 1;
            }
        }
    }
    counters
}

fn bitmap_of(free: &[bool]) -> Vec<u8> {
    let mut bytes = vec![0xFF_u8; usize_from(CAPACITY / 8)];
    for (at, _) in free.iter().enumerate().filter(|(_, free)| **free) {
        bytes[at / 8] &= !(1 << (at % 8));
    }
    bytes
}

fn check(buddy: &Buddy, free: &[bool]) {
    let count = free.iter().filter(|free| **free).count();
    let runs = free.split(|free| !free).filter(|run| !run.is_empty()).count();
    assert_eq!((usize_from(buddy.free()), usize_from(buddy.fragments())), (count, runs));
    let counters: Vec<u32> = (0..buddy.orders()).map(|order| buddy.counter(order)).collect();
    assert_eq!(counters, slow_counters(buddy, free));
    let mut rebuilt = Buddy::new(&bitmap_of(free), BLOCK_BITS, buddy.clusters());
    assert!(buddy.first_free() <= rebuilt.first_free());
    rebuilt.first_free = buddy.first_free();
    assert_eq!(*buddy, rebuilt, "incremental updates equal a rebuild");
}

#[test]
fn orders_are_those_of_the_traces() {
    // Traces 01 and 25: groups of which one run is free to the end.
    let buddy_of = |block_bits: u32, used: u32, clusters: u32| {
        let mut bytes = vec![0_u8; 1 << block_bits];
        super::super::bits::change_bytes(&mut bytes, true, 0, used).expect("inside");
        Buddy::new(&bytes, block_bits, clusters)
    };
    let counters =
        |buddy: &Buddy| (0..buddy.orders()).map(|order| buddy.counter(order)).collect::<Vec<_>>();
    let buddy = buddy_of(12, 4139, 32768);
    assert_eq!(counters(&buddy), [1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 3]);
    assert_eq!((buddy.free(), buddy.fragments(), buddy.first_free()), (28629, 1, 4139));
    assert_eq!(counters(&buddy_of(12, 4129, 32768)), [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 3]);
    assert_eq!(counters(&buddy_of(10, 771, 8192)), [1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 3]);
    assert_eq!(counters(&buddy_of(10, 7985, 8192)), [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]);
    assert_eq!(counters(&buddy_of(10, 0, 8192))[11], 4);
}

#[test]
fn find_extent_stops_with_the_chunk_that_suffices() {
    let mut bytes = vec![0_u8; 4096];
    super::super::bits::change_bytes(&mut bytes, true, 0, 4139).expect("inside");
    let buddy = Buddy::new(&bytes, 12, 32768);
    assert_eq!(buddy.find_extent(4139, 29), 85); // 1 + 4 + 16 + 64, trace 20
    assert_eq!(buddy.find_extent(4138, 29), 0);
    assert_eq!(buddy.find_extent(4140, 1), 4);
    assert_eq!(buddy.find_extent(32767, 5), 1);
    assert_eq!(buddy.first_chunk(11), Some((6144, 11)));
    assert_eq!(buddy.average_order(), Some(13));
}

#[test]
fn the_first_partly_taken_chunk_is_reported() {
    let mut bytes = vec![0_u8; 4096];
    super::super::bits::change_bytes(&mut bytes, true, 0, 4139).expect("inside");
    let mut buddy = Buddy::new(&bytes, 12, 32768);
    assert_eq!(buddy.mark_used(4139, 29), Broken { tail: 8, order: 6 }); // trace 20: tail 8 broken 64
    assert_eq!(buddy.mark_used(6144, 2048), Broken::default());
    assert_eq!(buddy.mark_used(8192, 2048), Broken { tail: 2048, order: 13 }); // trace 01
}

#[test]
fn freeing_a_free_cluster_is_refused_and_changes_nothing() {
    let mut buddy = Buddy::new(&bitmap_of(&[true; 64]), BLOCK_BITS, 8000);
    let before = buddy.clone();
    assert_eq!(buddy.release(60, 8), Err(AlreadyFree));
    assert_eq!(buddy.release(7990, 20), Err(AlreadyFree));
    assert_eq!(buddy.release(u32::MAX, 2), Err(AlreadyFree));
    assert_eq!(buddy, before);
}

#[test]
fn a_short_bitmap_or_group_counts_as_used() {
    let buddy = Buddy::new(&[0; 16], BLOCK_BITS, 100);
    assert_eq!((buddy.free(), buddy.clusters()), (100, 100));
    assert_eq!(Buddy::new(&[0; 4], BLOCK_BITS, 8192).free(), 32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn buddy_equals_a_slow_reference(
        clusters in prop_oneof![Just(CAPACITY), 1000_u32..CAPACITY],
        runs in proptest::collection::vec((0_u32..CAPACITY, 1_u32..1500, any::<bool>()), 1..16),
    ) {
        let mut free = vec![true; usize_from(clusters)];
        let mut buddy = Buddy::new(&[0; 1024], BLOCK_BITS, clusters);
        for (start, len, take) in runs {
            let run: Vec<u32> = (start..(start + len).min(clusters)).collect();
            if take {
                // Each free run inside is one allocation.
                let before = free.clone();
                for run in run.chunk_by(|&a, &b| before[usize_from(a)] == before[usize_from(b)]) {
                    if free[usize_from(run[0])] {
                        buddy.mark_used(run[0], u32::try_from(run.len()).expect("short"));
                        run.iter().for_each(|&at| free[usize_from(at)] = false);
                    }
                }
            } else {
                let all_used = run.iter().all(|&at| !free[usize_from(at)]);
                let fits = start + len <= clusters;
                prop_assert_eq!(buddy.release(start, len).is_ok(), all_used && fits);
                if all_used && fits {
                    run.iter().for_each(|&at| free[usize_from(at)] = true);
                }
            }
        }
        check(&buddy, &free);
    }
}
