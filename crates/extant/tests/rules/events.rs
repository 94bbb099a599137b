//! What Linux 6.18 tells of small courses of action, where only events show that it is done the same way. Found by random scripts;
//! `crates/extant-lab/oracle/scripts` has them, from 54 on.

use std::sync::{Arc, Mutex};

use extant::trace::{Event, TraceSink};
use extant::{File, Filesystem, MountOptions, RangeChange};

use crate::world::{World, mount, open, read, write};

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl TraceSink for Log {
    fn event(&self, event: &Event) {
        let text = event.to_string();
        let fields = text.split_once(" ino ").map_or(text.as_str(), |(_, fields)| fields);
        let fields = fields.split_once(' ').map_or("", |(_, fields)| fields);
        let name = event.name();
        let line = format!("{} {fields}", name.strip_prefix("ext4_").unwrap_or(name));
        self.0.lock().unwrap().push(line.trim().to_owned());
    }
}

impl Log {
    /// The events from the last call on whose names begin so, without those names and the number of the inode.
    fn take(&self, name: &str) -> Vec<String> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        let of_name = |line: &String| line.strip_prefix(name).map(|rest| rest.trim().to_owned());
        all.iter().filter_map(of_name).collect()
    }
}

/// An empty volume of this format whose events are kept; its files end as they are expected to, which e2fsck judges.
fn told(format: &[&str], options: MountOptions, act: impl FnOnce(&Filesystem, &Log)) {
    let world = World::new("events");
    let Some(image) = world.mkfs(16, format) else { return };
    let (device, log) = (Arc::new(image), Arc::new(Log::default()));
    let fs = mount(&device, options.kernel_folios(true).trace(log.clone())).unwrap();
    act(&fs, &log);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap() | 1).collect()
}

fn append(file: &File, len: usize) {
    write(file, &bytes(len), file.metadata().unwrap().size);
}

/// Has a file whose extents fill more than its inode: one block each at multiples of `step`.
fn in_a_leaf(file: &File, step: u64) {
    for n in 0..5 {
        write(file, &bytes(1024), n * step);
    }
    file.sync_all().unwrap();
}

#[test]
fn d15_15_a_folio_past_the_end_of_file_stores_the_inode_though_its_size_stays() {
    told(&["-b", "1024"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        in_a_leaf(&file, 4096);
        file.change_range(RangeChange::Allocate { keep_size: false }, 18_432, 1024).unwrap();
        write(&file, &bytes(1024), 18_432);
        log.take("");
        file.sync_all().unwrap();
        let stores = log.take("mark_inode_dirty");
        assert_eq!(stores.len(), 2, "in the round, and at the end of its I/O");
    });
}

#[test]
fn d12_9_blocks_of_a_shared_cluster_in_a_leaf_are_none_of_the_inodes() {
    told(&["-b", "4096", "-O", "bigalloc", "-C", "65536"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        in_a_leaf(&file, 131_072);
        write(&file, &bytes(4096), 8192);
        log.take("");
        file.sync_all().unwrap();
        assert_eq!(log.take("mark_inode_dirty").len(), 1, "at the end of I/O alone");
    });
}

#[test]
fn d23_6_a_read_from_the_first_block_of_a_folio_to_the_last_takes_it_as_a_whole() {
    told(&["-b", "1024"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        write(&file, &bytes(5120), 4096);
        file.sync_all().unwrap();
        log.take("");
        let mut page = vec![0; 3073];
        assert_eq!(file.read_at(&mut page[..2000], 8192).unwrap(), 1024);
        assert_eq!(log.take("read_folio"), [""; 0], "three blocks of four");
        assert_eq!(file.read_at(&mut page, 8192).unwrap(), 1024);
        assert_eq!(log.take("read_folio"), ["folio_index 2"], "all but a part of the last");
        assert_eq!(file.read_at(&mut page, 8192).unwrap(), 1024);
        assert_eq!(log.take("read_folio"), [""; 0], "once");
    });
}

#[test]
fn d9_5_a_folio_whose_blocks_were_looked_at_asks_for_one_at_a_time() {
    told(&["-b", "1024"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        file.set_len(9316).unwrap();
        // This zeroes the rest of the last block, and so makes a folio that knows of its blocks.
        write(&file, &bytes(1024), 32_768);
        log.take("");
        file.read_at(&mut [0; 1000], 10_240).unwrap();
        let asked = log.take("ext_map_blocks_enter");
        assert!(asked.iter().all(|asked| asked.starts_with("lblk 10 len 1 ")), "{asked:?}");
    });
}

#[test]
fn d22_4_blocks_that_follow_each_other_are_freed_at_once_whatever_lies_between_their_pointers() {
    told(&["-b", "1024", "-O", "^extent,^64bit"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        write(&file, &bytes(2049), 0);
        write(&file, &bytes(1), 7168);
        file.sync_all().unwrap();
        log.take("");
        file.set_len(1).unwrap();
        let freed = log.take("free_blocks");
        assert_eq!(freed.len(), 1, "{freed:?}");
        assert!(freed[0].contains(" count 3 "), "{freed:?}");
    });
}

#[test]
fn d6_6_a_cut_behind_the_contents_of_an_inode_leaves_the_promise_for_the_first_block() {
    told(&["-b", "4096", "-O", "inline_data"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        write(&file, &bytes(61), 30);
        append(&file, 141);
        log.take("");
        file.set_len(91).unwrap();
        assert_eq!(log.take("da_release_space"), [""; 0]);
        file.set_len(90).unwrap();
        assert_eq!(log.take("da_release_space").len(), 1);
        let expected = [&[0; 30][..], &bytes(60)].concat();
        assert!(read(fs, "/a").unwrap() == expected);
        fs.sync_all().unwrap();
        assert!(read(fs, "/a").unwrap() == expected);
    });
}

#[test]
fn d22_8_what_is_being_written_is_dropped_after_the_parts_of_folios_at_the_ends() {
    told(&["-b", "1024", "-I", "512", "-O", "inline_data"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        write(&file, &bytes(94), 47);
        write(&file, &bytes(1025), 21_504);
        log.take("");
        file.change_range(RangeChange::Zero { keep_size: false }, 4097, 152_576).unwrap();
        let dropped = log.take("invalidate_folio");
        assert_eq!(
            dropped,
            ["folio_index 38 offset 0 length 1025", "folio_index 5 offset 0 length 4096"]
        );
    });
}

#[test]
fn d22_7_a_punch_beside_what_is_being_written_finds_it_unwritten() {
    told(&["-b", "1024", "-I", "512", "-O", "inline_data"], MountOptions::new(), |fs, log| {
        let file = open(fs, "/a");
        write(&file, &bytes(45), 148);
        write(&file, &bytes(8192), 34_817);
        log.take("");
        file.change_range(RangeChange::PunchHole, 30_720, 700).unwrap();
        let noted = log.take("es_cache_extent");
        assert!(noted[0].contains("[0/1) ") && noted[0].ends_with(" U"), "{noted:?}");
        file.change_range(RangeChange::PunchHole, 100, 40_000).unwrap();
        let expected = [&[0; 40_100][..], &bytes(8192)[5283..]].concat();
        assert!(read(fs, "/a").unwrap() == expected);
    });
}

#[test]
fn d22_8_a_folio_that_splits_loses_what_lies_behind_the_end_of_file() {
    let options = MountOptions::new().delayed_allocation(false);
    told(&["-b", "4096"], options, |fs, log| {
        let file = open(fs, "/a");
        write(&file, &bytes(921_601), 0);
        file.set_len(102_399).unwrap();
        fs.sync_all().unwrap();
        file.change_range(RangeChange::Zero { keep_size: true }, 40_959, 1).unwrap();
        log.take("");
        write(&file, &bytes(20_480), 135_169);
        let begun = log.take("write_begin");
        assert_eq!(begun[1], "pos 139264 len 16385", "page 33 is a folio of its own: {begun:?}");
    });
}
