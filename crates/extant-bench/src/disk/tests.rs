//! The model against what disks of this kind are measured to do.

use super::*;

const MODEL: DiskModel = DiskModel::DESKTOP;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Numbers that look random.
fn random(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678);
    x ^= x >> 30;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 27)
}

/// A place on the whole disk, aligned to 4 KiB.
fn anywhere(n: u64) -> u64 {
    random(n) % (MODEL.mechanics.bytes / 4096) * 4096
}

fn read(offset: u64, len: u64) -> Part {
    Part::Read(offset..offset + len)
}

fn write(offset: u64, len: u64) -> Part {
    Part::Write(offset..offset + len, false)
}

/// Keeps `depth` of the parts under way; operations a second.
fn rate(model: &DiskModel, depth: usize, parts: impl IntoIterator<Item = Part>) -> u64 {
    let mut disk = Simulation::new(model);
    let mut open: Vec<Ticket> = Vec::new();
    let mut count = 0;
    for part in parts {
        while open.len() >= depth {
            assert!(disk.step());
            open.retain(|ticket| !disk.is_done(*ticket));
        }
        open.push(disk.submit([part]));
        count += 1;
    }
    while open.iter().any(|ticket| !disk.is_done(*ticket)) {
        assert!(disk.step());
    }
    count * 1_000_000_000 / disk.now.max(1)
}

/// How long a batch takes.
fn batch(model: &DiskModel, parts: impl IntoIterator<Item = Part>) -> Duration {
    let mut disk = Simulation::new(model);
    let ticket = disk.submit(parts);
    while !disk.is_done(ticket) {
        assert!(disk.step());
    }
    disk.now()
}

#[test]
fn random_reads_take_a_seek_and_half_a_turn_each() {
    let reads = || (0..2000).map(|n| read(anywhere(n), 4 * KIB));
    let one = rate(&MODEL, 1, reads());
    assert!((75..=82).contains(&one), "{one} a second: 8.5 ms + 4.17 ms");
    let many = rate(&MODEL, 32, reads());
    assert!((150..=260).contains(&many), "{many} a second: the disk reorders");
    let without =
        rate(&DiskModel { queue_depth: 1, elevator: Elevator::None, ..MODEL }, 32, reads());
    assert!(without.abs_diff(one) <= 1, "{without} a second: nobody reorders");
}

#[test]
fn random_writes_are_sorted_by_the_cache() {
    let writes = || (0..6000).map(|n| write(anywhere(n), 4 * KIB));
    let off = rate(&DiskModel { write_cache_bytes: 0, ..MODEL }, 1, writes());
    assert!((75..=82).contains(&off), "{off} a second");
    let small = DiskModel { write_cache_bytes: 4 * MIB, ..MODEL };
    let on = rate(&small, 1, writes());
    assert!((120..=260).contains(&on), "{on} a second: sorted by place, but half a turn each");
}

#[test]
fn sequential_transfers_reach_the_platters_rate() {
    for (what, parts) in [
        ("reads", (0..256).map(|n| read(n * MIB, MIB)).collect::<Vec<_>>()),
        ("writes", (0..256).map(|n| write(n * MIB, MIB)).chain([Part::Flush]).collect()),
    ] {
        let megabytes_per_second = 256 * MIB * 1000 / platters::nanos(batch(&MODEL, parts));
        assert!((190..=200).contains(&megabytes_per_second), "{what}: {megabytes_per_second} MB/s");
    }
}

#[test]
fn small_sequential_reads_live_on_reading_ahead() {
    let per_second = rate(&MODEL, 1, (0..20_000).map(|n| read(n * 4 * KIB, 4 * KIB)));
    assert!((18_000..=25_000).contains(&per_second), "{per_second} a second, 74 to 100 MB/s");
    let blind = DiskModel { lookahead_bytes: 0, ..MODEL };
    let per_second = rate(&blind, 1, (0..2000).map(|n| read(n * 4 * KIB, 4 * KIB)));
    assert!((115..=125).contains(&per_second), "{per_second} a second: a turn each");
}

#[test]
fn small_sequential_writes_without_a_cache_take_a_turn_each() {
    let off = DiskModel { write_cache_bytes: 0, ..MODEL };
    let per_second = rate(&off, 1, (0..2000).map(|n| write(n * 4 * KIB, 4 * KIB)));
    assert!((115..=125).contains(&per_second), "{per_second} a second");
}

#[test]
fn sorting_helps_where_requests_come_out_of_order() {
    let mut places: Vec<u64> = (0..2000).map(|n| n * 64 * KIB).collect();
    places.sort_by_key(|place| random(*place));
    let reads = || places.iter().map(|place| read(*place, 4 * KIB));
    let plain = DiskModel { queue_depth: 1, elevator: Elevator::None, ..MODEL };
    let times = [
        batch(&plain, reads()),
        batch(&DiskModel { elevator: Elevator::Deadline, ..plain }, reads()),
        batch(&DiskModel { elevator: Elevator::Deadline, requests: 4096, ..plain }, reads()),
        batch(&DiskModel { queue_depth: 32, ..plain }, reads()),
    ];
    assert!(times[1] < times[0] && times[2] < times[1] / 3 && times[3] < times[0] / 2, "{times:?}");
}

#[test]
fn neighbours_become_one_request() {
    let every_other = (0..64).map(|n| write(n * 8 * KIB, 4 * KIB));
    let between = (0..64).map(|n| write(n * 8 * KIB + 4 * KIB, 4 * KIB));
    for (elevator, expected) in [(Elevator::None, 128), (Elevator::Deadline, 2)] {
        // The disk takes the first, and the others wait.
        let model = DiskModel { elevator, requests: 128, queue_depth: 1, ..MODEL };
        let mut disk = Simulation::new(&model);
        let tickets = [disk.submit(every_other.clone()), disk.submit(between.clone())];
        while tickets.iter().any(|ticket| !disk.is_done(*ticket)) {
            assert!(disk.step());
        }
        assert_eq!(disk.counts().requests, expected, "{elevator:?}");
    }
}

#[test]
fn a_flush_waits_for_the_platters_and_fua_for_a_flush() {
    let scattered = || (0..64).map(|n| write(anywhere(n), 4 * KIB));
    let cached = batch(&MODEL, scattered());
    assert!(cached < Duration::from_millis(5), "{cached:?}");
    let mut disk = Simulation::new(&MODEL);
    let first = disk.submit(scattered());
    while !disk.is_done(first) {
        assert!(disk.step());
    }
    assert!(disk.take_persisted().is_empty());
    let flush = disk.submit([Part::Flush]);
    while !disk.is_done(flush) {
        assert!(disk.step());
    }
    assert!(disk.now() > Duration::from_millis(64 * 4), "{:?}", disk.now());
    let on_platters: u64 = disk.take_persisted().iter().map(|bytes| bytes.end - bytes.start).sum();
    assert_eq!(on_platters, 64 * 4 * KIB);

    let durable = batch(&MODEL, [Part::Write(0..4096, true)]);
    assert!(
        durable > Duration::from_micros(80),
        "the link twice, and a part of a turn: {durable:?}"
    );
    let empty = batch(&MODEL, [Part::Flush]);
    assert_eq!(empty, MODEL.command);
}

#[test]
fn callers_take_turns() {
    let mut disk = Simulation::new(&DiskModel { elevator: Elevator::None, ..MODEL });
    let long = disk.submit((0..10_000).map(|n| read(n * 64 * KIB, 4 * KIB)));
    let short = disk.submit([read(900 * MIB, 4 * KIB)]);
    while !disk.is_done(short) {
        assert!(disk.step());
    }
    assert!(!disk.is_done(long) && disk.now() < Duration::from_secs(1), "{:?}", disk.now());
}

#[test]
fn time_passes_without_anybody_waiting() {
    let mut disk = Simulation::new(&MODEL);
    disk.submit([write(0, MIB)]);
    disk.pass_until(Duration::from_secs(1));
    assert_eq!(disk.now(), Duration::from_secs(1));
    assert_eq!(
        disk.take_persisted(),
        vec![0..MIB],
        "the cache empties when there is nothing else to do"
    );
}
