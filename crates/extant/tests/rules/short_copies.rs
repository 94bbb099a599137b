//! Writes from memory that is missing in part: what goes in, what is given back, and what nobody may see of the rest
//! (D3.4 to D3.6, D6.4, D13.1, D14.5, D14.6, D21).

use std::sync::{Arc, Mutex, mpsc};

use extant::trace::{Event, TraceSink};
use extant::{
    DataMode, Errno, File, FileExtentState, Filesystem, MountOptions, OpenOptions, RangeChange,
    Source,
};
use extant_testkit::RecordingDevice;

use crate::world::{STALE, World, assert_not_stale, few, mount, open, read, write};

/// Memory in pages, some of which are missing: until they are asked for, or for ever from `gone` on.
struct Memory {
    bytes: Vec<u8>,
    page: usize,
    missing: Vec<bool>,
    gone: usize,
    faults: usize,
}

impl Memory {
    /// All there.
    fn new(bytes: Vec<u8>) -> Self {
        let gone = bytes.len();
        Self { bytes, page: 4096, missing: Vec::new(), gone, faults: 0 }
    }

    /// In pages of `page` bytes of which every other one, from the `first` on, is missing until it is asked for.
    fn swapped_out(self, page: usize, first: usize) -> Self {
        let pages = self.bytes.len().div_ceil(page);
        let missing = (0..pages).map(|n| n >= first && (n - first).is_multiple_of(2)).collect();
        Self { page, missing, ..self }
    }

    /// Without what follows `gone` bytes.
    fn cut_at(self, gone: usize) -> Self {
        Self { gone, ..self }
    }

    fn is_missing(&self, at: usize) -> bool {
        self.missing.get(at / self.page).copied().unwrap_or(false)
    }
}

impl Source for Memory {
    fn count(&self) -> usize {
        self.bytes.len()
    }

    fn copy(&mut self, offset: usize, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() && offset + done < self.gone && !self.is_missing(offset + done) {
            let at = offset + done;
            let end = (at - at % self.page + self.page).min(self.gone).min(offset + into.len());
            into[done..end - offset].copy_from_slice(&self.bytes[at..end]);
            done = end - offset;
        }
        done
    }

    fn fault_in(&mut self, offset: usize, len: usize) -> usize {
        self.faults += 1;
        if offset >= self.gone {
            return 0;
        }
        if self.is_missing(offset) {
            self.missing[offset / self.page] = false;
        }
        (offset - offset % self.page + self.page - offset).min(len)
    }
}

/// How many bytes went in.
fn write_from(file: &File, memory: &mut Memory, offset: u64) -> Result<usize, Errno> {
    file.write_from(memory, offset).map_err(|error| error.errno())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| 1 + u8::try_from(n % 223).unwrap()).collect()
}

fn placed() -> MountOptions {
    MountOptions::new().delayed_allocation(false)
}

fn journal() -> MountOptions {
    MountOptions::new().data_mode(DataMode::Journal)
}

/// What a file holds in the model.
fn put(model: &mut Vec<u8>, bytes: &[u8], offset: u64) {
    let offset = usize::try_from(offset).unwrap();
    model.resize(model.len().max(offset + bytes.len()), 0);
    model[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Formats with small and usual blocks, in mebibytes and options of mkfs.ext4.
const FORMATS: [(usize, &[&str]); 4] = [
    (16, &["-b", "1024"]),
    (16, &["-b", "4096"]),
    (32, &["-b", "4096", "-O", "bigalloc", "-C", "16384"]),
    (16, &["-b", "4096", "-O", "^extents,^64bit"]),
];
/// With the largest, and just large enough for a journal.
const LARGE: (usize, &[&str]) = (136, &["-b", "65536", "-N", "64"]);

/// Runs `test` on volumes of these formats, each way to place data, and judges what is left.
fn everywhere(name: &str, formats: &[(usize, &[&str])], test: impl Fn(&Filesystem)) {
    let world = World::new(name);
    let ways = [
        ("delayed", MountOptions::new()),
        ("kernel's folios", MountOptions::new().kernel_folios(true)),
        ("placed", placed()),
        ("journal", journal()),
    ];
    for &(mebibytes, format) in formats {
        let Some(image) = world.mkfs(mebibytes, format) else { return };
        for (way, options) in &ways {
            let device = Arc::new(image.snapshot());
            let fs = mount(&device, options.clone().check_status(true)).unwrap();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                test(&fs);
                fs.check_invariants(true).unwrap();
            }));
            if let Err(panic) = caught {
                eprintln!("{way}, {format:?}");
                std::panic::resume_unwind(panic);
            }
            let names: Vec<Vec<u8>> = fs
                .read_dir("/")
                .unwrap()
                .map(|entry| entry.unwrap().name().to_vec())
                .filter(|name| !name.starts_with(b".") && name != b"lost+found")
                .collect();
            let path = |name: &[u8]| format!("/{}", std::str::from_utf8(name).unwrap());
            let before: Vec<_> = names.iter().map(|name| read(&fs, &path(name)).unwrap()).collect();
            fs.unmount().unwrap();
            world.e2fsck(&device).unwrap_or_else(|said| panic!("{way}, {format:?}: {said}"));
            let fs = mount(&device, MountOptions::read_only()).unwrap();
            for (name, before) in names.iter().zip(before) {
                assert!(read(&fs, &path(name)).unwrap() == before, "{way}, {format:?}");
            }
        }
    }
}

/// Offsets and lengths of writes, and the sizes of the pages that memory comes in.
const CASES: [(u64, usize, usize); 8] = [
    (0, 4096, 4096),
    (0, 100_000, 4096),
    (5000, 30_000, 4096),
    (1023, 3, 1),
    (300, 9000, 700),
    (65_536, 8192, 4096),
    (250_001, 70_000, 65_536),
    (4096, 300_000, 50_000),
];

#[test]
fn d3_5_bytes_that_are_missing_for_a_while_all_go_in() {
    everywhere("short-once", &[&FORMATS[..], &[LARGE]].concat(), |fs| {
        for (nth, (offset, len, page)) in CASES.into_iter().enumerate() {
            for first in [0, 1] {
                let path = format!("/{nth}-{first}");
                let (file, mut model) = (open(fs, &path), Vec::new());
                // Into nothing, then over some of that, and over what memory has lost.
                for (shift, drop) in [(0, false), (777, false), (100, true)] {
                    if drop {
                        file.sync_all().unwrap();
                        fs.drop_caches();
                    }
                    let bytes = pattern(len);
                    let mut memory = Memory::new(bytes.clone()).swapped_out(page, first);
                    assert_eq!(write_from(&file, &mut memory, offset + shift), Ok(len), "{path}");
                    let pages = len.div_ceil(page);
                    assert!(memory.faults >= (pages - first).div_ceil(2), "{path}");
                    put(&mut model, &bytes, offset + shift);
                    assert!(read(fs, &path).unwrap() == model, "{path} + {shift}");
                }
            }
        }
    });
}

#[test]
fn d3_6_a_byte_that_cannot_be_had_ends_the_write_before_it() {
    everywhere("short-end", &[&FORMATS[..], &[LARGE]].concat(), |fs| {
        for (nth, (offset, len, _)) in CASES.into_iter().enumerate() {
            for (which, kept) in [1, len / 3, len - 1].into_iter().enumerate() {
                let path = format!("/{nth}-{which}");
                let (file, mut model) = (open(fs, &path), Vec::new());
                for (shift, drop) in [(0, false), (777, false), (100, true)] {
                    if drop {
                        file.sync_all().unwrap();
                        fs.drop_caches();
                    }
                    let bytes = pattern(len);
                    let mut memory = Memory::new(bytes.clone()).cut_at(kept);
                    assert_eq!(write_from(&file, &mut memory, offset + shift), Ok(kept), "{path}");
                    put(&mut model, &bytes[..kept], offset + shift);
                    assert!(read(fs, &path).unwrap() == model, "{path} + {shift}");
                    // What was set aside for the rest is given back.
                    let end = u64::try_from(model.len()).unwrap();
                    let block = u64::from(fs.statfs().block_size);
                    let behind = |run: &extant::FileExtent| {
                        (u64::from(run.logical) + u64::from(run.len)) * block > end + block - 1
                    };
                    assert!(!file.extents().unwrap().iter().any(behind), "{path} + {shift}");
                    fs.check_invariants(false).unwrap();
                }
            }
        }
    });
}

/// Measured on Linux 6.18 in all three modes: the size, that is. A remount there finds the old size where data is delayed.
#[test]
fn d13_d14_5_a_write_of_no_bytes_grows_the_file_up_to_where_it_would_have_begun() {
    everywhere("short-none", &FORMATS, |fs| {
        let file = open(fs, "/a");
        write(&file, &[7; 1000], 0);
        let mut model = vec![7; 1000];
        for offset in [0, 500, 1000, 65_536, 1 << 20] {
            let mut memory = Memory::new(pattern(20_000)).cut_at(0);
            assert_eq!(write_from(&file, &mut memory, offset), Err(Errno::FAULT));
            put(&mut model, &[], offset);
            assert!(read(fs, "/a").unwrap() == model, "{offset}");
        }
        file.sync_all().unwrap();
        // It holds what 1,000 bytes need, whatever was promised on the way.
        let cluster = file.metadata().unwrap().blocks;
        write(&open(fs, "/b"), &[7; 1000], 0);
        let other = open(fs, "/b");
        other.sync_all().unwrap();
        assert_eq!(other.metadata().unwrap().blocks, cluster);
    });
}

#[test]
fn d3_5_memory_may_be_mapped_from_the_file_that_is_written() {
    struct Mapped<'a>(&'a File, Vec<u8>);
    impl Source for Mapped<'_> {
        fn count(&self) -> usize {
            30_000
        }
        fn copy(&mut self, offset: usize, into: &mut [u8]) -> usize {
            let there = self.1.get(offset..).unwrap_or_default();
            let count = there.len().min(into.len());
            into[..count].copy_from_slice(&there[..count]);
            count
        }
        fn fault_in(&mut self, offset: usize, len: usize) -> usize {
            let mut page = vec![0; 4096];
            let came = self.0.read_at(&mut page, u64::try_from(offset).unwrap()).unwrap();
            self.1.truncate(offset);
            self.1.extend_from_slice(&page[..came]);
            came.min(len)
        }
    }
    everywhere("short-mapped", &FORMATS, |fs| {
        let file = open(fs, "/a");
        let bytes = pattern(30_000);
        write(&file, &bytes, 0);
        file.sync_all().unwrap();
        fs.drop_caches();
        assert_eq!(file.write_from(&mut Mapped(&file, Vec::new()), 30_000).unwrap(), 30_000);
        assert!(read(fs, "/a").unwrap() == [&bytes[..], &bytes].concat());
    });
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl TraceSink for Log {
    fn event(&self, event: &Event) {
        let line = match *event {
            Event::DaWriteBegin { pos, len, .. } => format!("da begin {pos}+{len}"),
            Event::WriteBegin { pos, len, .. } => format!("begin {pos}+{len}"),
            Event::DaWriteEnd { pos, len, copied, .. } => format!("da end {pos}+{len} {copied}"),
            Event::WriteEnd { pos, len, copied, .. } => format!("end {pos}+{len} {copied}"),
            Event::JournalledWriteEnd { pos, len, copied, .. } => {
                format!("journalled end {pos}+{len} {copied}")
            }
            Event::TruncateEnter { .. } => "truncate".into(),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

/// The events of Linux 6.18 for the same calls, but for the last cut of what was delayed, which is missing there.
#[test]
fn d3_5_chunks_are_tried_again_as_the_kernel_tries_them() {
    let world = World::new("short-events");
    let Some(image) = world.mkfs(16, &["-b", "4096"]) else { return };
    let check = |options: MountOptions, calls: &[(u64, usize, usize)], expected: &[&str]| {
        let log = Arc::new(Log::default());
        let fs = mount(&Arc::new(image.snapshot()), options.kernel_folios(true).trace(log.clone()))
            .unwrap();
        let file = open(&fs, "/a");
        for &(offset, good, len) in calls {
            log.0.lock().unwrap().clear();
            let _ = file.write_from(&mut Memory::new(pattern(len)).cut_at(good), offset);
        }
        assert_eq!(*log.0.lock().unwrap(), expected);
    };
    let two_pages = [(0, 4096, 8192)];
    check(
        MountOptions::new(),
        &two_pages,
        &[
            "da begin 0+8192",
            "da end 0+8192 4096",
            "da begin 0+4096",
            "da end 0+4096 4096",
            "da begin 4096+4096",
            "da end 4096+4096 0",
            "truncate",
        ],
    );
    check(
        placed(),
        &[(2_097_252, 1000, 5096)],
        &[
            "begin 2097252+5096",
            "end 2097252+3996 1000",
            "truncate",
            "begin 2097252+1000",
            "end 2097252+1000 1000",
            "begin 2098252+4096",
            "end 2098252+2996 0",
            "truncate",
        ],
    );
    check(
        journal(),
        &two_pages,
        &[
            "begin 0+4096",
            "journalled end 0+4096 4096",
            "begin 4096+4096",
            "journalled end 4096+4096 0",
            "truncate",
        ],
    );
    check(
        MountOptions::new(),
        &[(0, 4096, 4096), (65_536, 65_536, 65_536), (1 << 20, 0, 4096), (131_072, 6144, 14_336)],
        &[
            "da begin 131072+14336",
            "da end 131072+8192 6144",
            "da begin 131072+6144",
            "da end 131072+6144 6144",
            "da begin 137216+8192",
            "da end 137216+2048 0",
        ],
    );
}

/// Where new blocks lie within the file, what no byte came for has to be zeros, also after a crash.
#[test]
fn d13_1_d14_6_new_blocks_that_got_no_bytes_are_zeros() {
    let world = World::new("short-zeros");
    for block in ["1024", "4096"] {
        let Some(image) = world.mkfs(8, &["-b", block]) else { return };
        for options in [MountOptions::new(), placed(), journal()] {
            let device = Arc::new(RecordingDevice::from_image(&image));
            let fs = mount(&device, options).unwrap();
            // Pages of memory that held something else before.
            let other = open(&fs, "/other");
            write(&other, &[STALE; 400_000], 0);
            other.set_len(0).unwrap();
            drop(other);
            fs.remove_file("/other").unwrap();
            fs.sync_all().unwrap();
            let from = device.position();
            let file = open(&fs, "/a");
            file.set_len(300_000).unwrap();
            let mut model = vec![0; 300_000];
            for (offset, good, len) in
                [(100, 900, 20_000), (40_000, 0, 9000), (70_000, 10_000, 16_384), (140_000, 1, 9)]
            {
                let bytes = pattern(len);
                let wrote = write_from(&file, &mut Memory::new(bytes.clone()).cut_at(good), offset);
                assert_eq!(wrote, if good > 0 { Ok(good) } else { Err(Errno::FAULT) });
                put(&mut model, &bytes[..good], offset);
                assert!(read(&fs, "/a").unwrap() == model);
                file.sync_all().unwrap();
            }
            fs.drop_caches();
            assert!(read(&fs, "/a").unwrap() == model);
            world.every_crash(&device, few(from), |fs, _| assert_not_stale(fs, "/a"));
            drop(file);
            fs.unmount().unwrap();
            world.e2fsck(device.inner()).unwrap();
        }
    }
}

/// Blocks that are overwritten need not be read before, so what a short copy leaves of them is nobody's bytes: neither
/// memory nor the journal may bring them home.
#[test]
fn d13_1_d14_6_what_a_short_copy_leaves_of_older_blocks_stays() {
    let world = World::new("short-old");
    for block in ["1024", "4096"] {
        let Some(image) = world.mkfs(8, &["-b", block]) else { return };
        for options in [MountOptions::new(), placed(), journal()] {
            let device = Arc::new(RecordingDevice::from_image(&image));
            let fs = mount(&device, options).unwrap();
            let (file, old) = (open(&fs, "/a"), vec![0x55; 200_000]);
            write(&file, &old, 0);
            let other = open(&fs, "/other");
            write(&other, &[STALE; 400_000], 0);
            fs.sync_all().unwrap();
            other.set_len(0).unwrap();
            fs.sync_all().unwrap();
            fs.drop_caches();
            let from = device.position();
            let mut model = old.clone();
            for (offset, good, len) in
                [(0, 1, 16_384), (50_000, 0, 20_000), (81_920, 1500, 9000), (4096 * 30, 0, 4096)]
            {
                let bytes = pattern(len);
                let mut memory = Memory::new(bytes.clone()).cut_at(good);
                let _ = write_from(&file, &mut memory, offset);
                put(&mut model, &bytes[..good], offset);
                file.sync_all().unwrap();
            }
            assert!(read(&fs, "/a").unwrap() == model);
            world.every_crash(&device, few(from), |fs, _| {
                let bytes = read(fs, "/a").unwrap();
                let same = |(n, byte): (usize, &u8)| *byte == old[n] || *byte == model[n];
                assert!(bytes.len() == old.len() && bytes.iter().enumerate().all(same));
            });
            drop((file, other));
            fs.unmount().unwrap();
            let fs = mount(&device, MountOptions::read_only()).unwrap();
            assert!(read(&fs, "/a").unwrap() == model);
        }
    }
}

/// Has somebody commit as soon as a file is about to be cut.
struct CommitBeforeCut {
    ask: Mutex<Option<mpsc::Sender<()>>>,
    done: Mutex<mpsc::Receiver<()>>,
}

impl TraceSink for CommitBeforeCut {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::TruncateEnter { .. }) {
            return;
        }
        let ask = self.ask.lock().unwrap().take();
        if let Some(ask) = ask {
            ask.send(()).unwrap();
            self.done.lock().unwrap().recv().unwrap();
        }
    }
}

#[test]
fn d14_5_a_crash_before_the_failed_end_is_cut_finds_the_inode_among_the_orphans() {
    let world = World::new("short-crash");
    for format in [&["-b", "1024"][..], &["-b", "1024", "-O", "^orphan_file"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        for options in [placed(), journal()] {
            let device = Arc::new(RecordingDevice::from_image(&image));
            let ((ask, asked), (tell, done)) = (mpsc::channel(), mpsc::channel());
            let sink = CommitBeforeCut { ask: Mutex::new(None), done: Mutex::new(done) };
            let sink = Arc::new(sink);
            let fs = mount(&device, options.trace(sink.clone())).unwrap();
            let (file, other) = (open(&fs, "/a"), open(&fs, "/other"));
            write(&other, &[7; 1000], 0);
            *sink.ask.lock().unwrap() = Some(ask);
            let from = std::thread::scope(|scope| {
                let (device, other) = (&device, &other);
                let commit = scope.spawn(move || {
                    asked.recv().unwrap();
                    other.sync_all().unwrap();
                    tell.send(()).unwrap();
                    device.position()
                });
                let mut memory = Memory::new(pattern(30_000)).cut_at(2500);
                assert_eq!(write_from(&file, &mut memory, 0), Ok(2500));
                // Nobody waits for a cut that did not come.
                drop(sink.ask.lock().unwrap().take());
                commit.join().unwrap()
            });
            file.sync_all().unwrap();
            world.every_crash(&device, few(from), |fs, _| assert_not_stale(fs, "/a"));
        }
    }
}

#[test]
fn d6_4_contents_of_an_inode_take_what_came() {
    let world = World::new("short-inline");
    let format = ["-b", "4096", "-I", "1024", "-O", "inline_data"];
    let Some(image) = world.mkfs(8, &format) else { return };
    for options in [MountOptions::new(), placed(), journal()] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, options).unwrap();
        let (file, mut model) = (open(&fs, "/a"), vec![b'x'; 10]);
        write(&file, &model, 0);
        for (offset, good, len) in
            [(100, 0, 100), (50, 100, 200), (300, 100, 200), (20, 0, 30), (20, 5, 600)]
        {
            let bytes = pattern(len);
            let wrote = write_from(&file, &mut Memory::new(bytes.clone()).cut_at(good), offset);
            assert_eq!(wrote, if good > 0 { Ok(good) } else { Err(Errno::FAULT) });
            if good > 0 {
                put(&mut model, &bytes[..good], offset);
            }
            assert_eq!(read(&fs, "/a").unwrap(), model, "{offset}");
            fs.check_invariants(true).unwrap();
        }
        // Memory comes back, and the file leaves its inode on the way.
        let (bytes, at) = (pattern(20_000), 200);
        let mut memory = Memory::new(bytes.clone()).swapped_out(4096, 0);
        assert_eq!(write_from(&file, &mut memory, at), Ok(bytes.len()));
        put(&mut model, &bytes, at);
        assert!(read(&fs, "/a").unwrap() == model);
        let file = open(&fs, "/b");
        assert_eq!(write_from(&file, &mut Memory::new(pattern(4146)).cut_at(50), 0), Ok(50));
        assert_eq!(read(&fs, "/b").unwrap(), pattern(50));
        fs.check_invariants(true).unwrap();
        drop(file);
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
        let fs = mount(&device, MountOptions::read_only()).unwrap();
        assert!(read(&fs, "/a").unwrap() == model);
        assert_eq!(read(&fs, "/b").unwrap(), pattern(50));
    }
}

/// As measured on Linux 6.18.
#[test]
fn d21_past_the_cache_a_missing_byte_fails_the_whole_write() {
    let world = World::new("short-direct");
    for format in [&["-b", "4096"][..], &["-b", "1024"], &["-b", "4096", "-O", "^extents,^64bit"]] {
        let Some(image) = world.mkfs(8, format) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, MountOptions::new()).unwrap();
        let direct = OpenOptions::new().read(true).write(true).create(true).direct(true);
        let file = fs.open_with("/a", direct).unwrap();
        let fails = |offset: u64, good: usize, len: usize| {
            let mut memory = Memory::new(vec![b'A'; len]).cut_at(good);
            assert_eq!(write_from(&file, &mut memory, offset), Err(Errno::FAULT));
            fs.check_invariants(true).unwrap();
        };
        fails(0, 4096, 8192);
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.size, metadata.blocks), (0, 0));
        // What the file has is overwritten up to there; the file does not grow.
        write(&file, &[b'x'; 16_384], 0);
        fails(4096, 4096, 8192);
        fails(12_288, 8192, 12_288);
        fails(0, 700, 1024);
        let page = |byte: u8| vec![byte; 4096];
        let mut model = [page(b'x'), page(b'A'), page(b'x'), page(b'A')].concat();
        model[..512].fill(b'A');
        assert!(read(&fs, "/a").unwrap() == model);
        // What is set aside stays so.
        if format.len() == 2 {
            file.set_len(40_960).unwrap();
            file.change_range(RangeChange::Allocate { keep_size: true }, 20_480, 8192).unwrap();
            fails(20_480, 4096, 8192);
            model.resize(40_960, 0);
            assert!(read(&fs, "/a").unwrap() == model);
            let extents = file.extents().unwrap();
            assert_eq!(extents.last().unwrap().state, FileExtentState::Unwritten);
        }
        let mut memory = Memory::new(pattern(8192)).swapped_out(512, 0);
        assert_eq!(write_from(&file, &mut memory, 4096), Ok(8192));
        put(&mut model, &pattern(8192), 4096);
        assert!(read(&fs, "/a").unwrap() == model);
        drop(file);
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

/// A source that says to have copied more than it was asked for has copied what it was asked for.
#[test]
fn a_source_that_says_too_much_breaks_nothing() {
    struct Boaster;
    impl Source for Boaster {
        fn count(&self) -> usize {
            20_000
        }
        fn copy(&mut self, _offset: usize, into: &mut [u8]) -> usize {
            into.fill(7);
            usize::MAX
        }
        fn fault_in(&mut self, _offset: usize, _len: usize) -> usize {
            usize::MAX
        }
    }
    everywhere("boaster", &FORMATS, |fs| {
        assert_eq!(open(fs, "/f").write_from(&mut Boaster, 100).unwrap(), 20_000);
        assert!(read(fs, "/f").unwrap()[100..] == [7; 20_000]);
    });
}
