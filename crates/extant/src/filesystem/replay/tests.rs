//! The rules of replay, each by its name; that it ends as the kernel's does is for the lab to see.

use std::sync::Arc;

use extant_device::{BlockDevice, BlockDeviceExt, MemoryDevice};
use extant_format::corruption::Rule;
use extant_format::extent::{Extent, ExtentState};
use extant_format::fast_commit::{Link, Record, Writer};
use extant_format::jbd2::JournalIncompat;
use extant_format::{InodeNumber, LogicalRange, PhysicalBlock, PhysicalRange, TransactionId};
use extant_journal::{JournalParameters, LogBlock};
use extant_testkit::{Kept, Random, RecordingDevice, oracle};

use super::Records;
use super::claims::Claims;
use super::records::InodeRecords;
use crate::Error;
use crate::block_io::BlockIo;
use crate::caller::Caller;
use crate::filesystem::open_journal::Opening;
use crate::filesystem::{Volume, mount};
use crate::options::MountOptions;
use crate::time::{Clock, Entropy, SystemClock, SystemEntropy};

const ROOT: &Caller = &Caller::ROOT;

/// A clean image with a directory `d` and the files `a`, of five blocks, and `b`, of one.
struct Stage {
    image: MemoryDevice,
    /// Where the blocks of the journal lie, its superblock first.
    log: Vec<u64>,
    first_area: usize,
    block_len: usize,
    tid: TransactionId,
    numbers: [InodeNumber; 3],
    start: PhysicalBlock,
}

impl Stage {
    fn new(options: &[&str]) -> Option<Self> {
        let scratch = oracle::Scratch::new("replay");
        let path = scratch.path("image");
        oracle::mkfs(&path, 16 << 20, &[&["-O", "fast_commit"], options].concat())?;
        let image = MemoryDevice::from_bytes(&std::fs::read(path).unwrap());
        let device = Arc::new(image.snapshot());
        let volume = mounted(&device, MountOptions::new()).unwrap();
        let root = volume.root().unwrap();
        let dir = volume.make_directory(ROOT, &root, b"d", 0o755).unwrap();
        let a = volume.create_file(ROOT, &root, b"a", 0o644).unwrap();
        let b = volume.create_file(ROOT, &root, b"b", 0o644).unwrap();
        let block = usize::try_from(volume.transactions.geometry().block_size).unwrap();
        for (file, blocks) in [(&a, 5), (&b, 1)] {
            volume.write_file(ROOT, file, Some(0), &vec![7; blocks * block]).unwrap();
        }
        volume.sync_all().unwrap();
        let start = volume.extents(&a, &(0..1), 1).unwrap()[0].physical.unwrap();
        let start = PhysicalBlock::new(start);
        let numbers = [dir.number(), a.number(), b.number()];
        volume.unmount().unwrap();
        let superblock = volume.superblock();
        drop((volume, root, dir, a, b));
        let io = BlockIo::new(device.clone(), superblock.geometry().block_bits);
        let options = MountOptions::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let opening = Opening { io: &io, options: &options, clock: &clock, entropy: &entropy };
        let log = opening.find_log(&superblock, superblock.journal_inode().unwrap()).unwrap();
        let mut with_area = log.parameters.superblock().clone();
        with_area.change(|raw| raw.set_incompat(raw.incompat() | JournalIncompat::FAST_COMMIT));
        let area = JournalParameters::new(with_area).unwrap().fast_commit_area();
        let offset = |at| io.offset(log.map.block(LogBlock(at)).unwrap());
        Some(Self {
            image: device.snapshot(),
            log: (0..log.map.len()).map(offset).collect(),
            first_area: usize::try_from(area.unwrap().first().get()).unwrap(),
            block_len: block,
            tid: log.parameters.superblock().sequence(),
            numbers,
            start,
        })
    }

    /// The image with these fast commits pending.
    fn pend(&self, commits: &[&[Record<'_>]]) -> MemoryDevice {
        let image = self.image.snapshot();
        let mut blocks = Vec::new();
        for (at, records) in commits.iter().enumerate() {
            let head = (at == 0).then_some(Record::Head(0, self.tid));
            let (mut writer, mut block) = (Writer::new(), vec![0; self.block_len]);
            for record in head.iter().chain(*records) {
                while !writer.push(&mut block, record) {
                    blocks.push(block.clone());
                }
            }
            while !writer.seal(&mut block, self.tid) {
                blocks.push(block.clone());
            }
            blocks.push(block);
        }
        for (block, at) in blocks.iter().zip(&self.log[self.first_area..]) {
            write(&image, *at, block);
        }
        let mut bytes = vec![0; self.block_len];
        image.read_exact(self.log[0], &mut bytes).unwrap();
        let mut superblock = extant_format::jbd2::JournalSuperblock::parse(&bytes).unwrap();
        superblock.change(|raw| {
            raw.start = raw.first;
            raw.set_incompat(raw.incompat() | JournalIncompat::FAST_COMMIT);
            raw.set_checksum();
        });
        let raw = superblock.to_raw();
        put(&mut bytes, 0, zerocopy::IntoBytes::as_bytes(&raw));
        write(&image, self.log[0], &bytes);
        image
    }

    /// Why the image with these records cannot be mounted; read-only and otherwise the same.
    fn refusal(&self, records: &[Record<'_>]) -> Option<Error> {
        let image = Arc::new(self.pend(&[records]));
        let before = image.to_vec();
        let through = mounted(&image, MountOptions::read_only()).err();
        assert_eq!(image.to_vec(), before, "a read-only mount has written");
        let recovered = mounted(&image, MountOptions::new()).err();
        assert_eq!(
            through.as_ref().map(Error::to_string),
            recovered.as_ref().map(Error::to_string)
        );
        recovered
    }

    fn refuses(&self, records: &[Record<'_>], rule: Rule) {
        let refusal = self.refusal(records);
        let Some(Error::Corrupt(corruption)) = &refusal else { panic!("{records:?}: {refusal:?}") };
        assert_eq!(corruption.rule, rule, "{records:?}");
    }

    /// The bytes of an inode, changed.
    fn raw(&self, number: InodeNumber, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let volume = mounted(&Arc::new(self.image.snapshot()), MountOptions::read_only()).unwrap();
        let inode = volume.inode(number).unwrap();
        let mut raw = volume.inodes.with_raw(&inode, |bytes| bytes[..160].to_vec()).unwrap();
        change(&mut raw);
        raw
    }
}

fn mounted<D: BlockDevice + 'static>(
    device: &Arc<D>,
    options: MountOptions,
) -> Result<Arc<Volume>, Error> {
    let (clock, entropy) = (Arc::new(SystemClock::default()), Arc::new(SystemEntropy));
    let device: Arc<dyn BlockDevice> = Arc::<D>::clone(device);
    mount(options, device, clock, entropy)
}

fn write(image: &MemoryDevice, at: u64, bytes: &[u8]) {
    image.write_bytes(at, bytes).unwrap();
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn ino(number: u32) -> InodeNumber {
    InodeNumber::new(number).unwrap()
}

fn extent(start: u32, len: u32, place: PhysicalBlock) -> Extent {
    let blocks = LogicalRange::new(start, len).unwrap();
    Extent { blocks, start: place, state: ExtentState::Written }
}

fn range(start: u64, len: u64) -> PhysicalRange {
    PhysicalRange::new(PhysicalBlock::new(start), len).unwrap()
}

/// Names of the root, with the links and the bytes of what they lead to.
fn seen(
    image: &Arc<impl BlockDevice + 'static>,
    options: MountOptions,
) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let filesystem = options.mount(Arc::clone(image)).unwrap();
    let names = filesystem.read_dir("").unwrap().map(|entry| entry.unwrap().name().to_vec());
    let seen = names
        .map(|name| {
            let metadata = filesystem.symlink_metadata(&name).unwrap();
            let mut bytes = Vec::new();
            if metadata.is_file() {
                bytes.resize(usize::try_from(metadata.size).unwrap(), 0);
                filesystem.open(&name).unwrap().read_at(&mut bytes, 0).unwrap();
            }
            (name, metadata.links.into(), bytes)
        })
        .collect();
    filesystem.unmount().unwrap();
    seen
}

fn check(image: &MemoryDevice) {
    let scratch = oracle::Scratch::new("replay");
    let path = scratch.path("image");
    std::fs::write(&path, image.to_vec()).unwrap();
    oracle::e2fsck(&path).unwrap();
}

#[test]
fn j10_6_records_are_applied_in_order_and_whole() {
    let Some(stage) = Stage::new(&["-b", "1024"]) else { return };
    let [dir, a, b] = stage.numbers;
    let root = InodeNumber::ROOT;
    let new = ino(b.get() + 1);
    let free = PhysicalBlock::new(stage.start.get() + 2000);
    let longer = stage.raw(b, |raw| put(raw, 4, &2048_u32.to_le_bytes()));
    let shorter = stage.raw(a, |raw| put(raw, 4, &1024_u32.to_le_bytes()));
    let fresh = stage.raw(b, |raw| {
        put(raw, 4, &0_u32.to_le_bytes());
        put(raw, 100, &7_u32.to_le_bytes());
    });
    let link = |parent, inode, name| Link { parent, inode, name };
    let commits: [&[Record<'_>]; 2] = [
        &[
            Record::Inode(new, &fresh),
            Record::Create(link(root, new, b"new")),
            Record::Unlink(link(root, a, b"a")),
            Record::Link(link(dir, a, b"moved")),
        ],
        &[
            Record::AddRange(b, extent(1, 1, free)),
            Record::Inode(b, &longer),
            Record::DeleteRange(a, LogicalRange::new(1, u32::MAX - 1).unwrap()),
            Record::Inode(a, &shorter),
        ],
    ];
    let image = Arc::new(stage.pend(&commits));
    let through = seen(&image, MountOptions::read_only());
    assert_eq!(seen(&image, MountOptions::new()), through);
    let names: Vec<_> =
        through.iter().map(|(name, links, bytes)| (&name[..], *links, bytes.len())).collect();
    for expected in [(&b"new"[..], 1, 0), (b"b", 1, 2048)] {
        assert!(names.contains(&expected), "{names:?}");
    }
    assert!(!names.iter().any(|(name, ..)| *name == b"a"), "{names:?}");
    check(&image);
    // A second mount finds nothing to do.
    assert_eq!(seen(&image, MountOptions::new()), through);
}

#[test]
fn j10_6_a_replay_that_breaks_off_ends_the_same_when_it_starts_again() {
    let Some(stage) = Stage::new(&["-b", "1024"]) else { return };
    let [dir, a, b] = stage.numbers;
    let free = PhysicalBlock::new(stage.start.get() + 2000);
    let longer = stage.raw(b, |raw| {
        put(raw, 4, &2048_u32.to_le_bytes());
        raw[26] = 2;
    });
    let records = [
        Record::Unlink(Link { parent: InodeNumber::ROOT, inode: a, name: b"a" }),
        Record::Link(Link { parent: dir, inode: b, name: b"more" }),
        Record::AddRange(b, extent(1, 1, free)),
        Record::Inode(b, &longer),
    ];
    let pending = stage.pend(&[&records]);
    let device = Arc::new(RecordingDevice::from_image(&pending));
    let expected = seen(&device, MountOptions::new());
    let log = device.log();
    let mut random = Random::new(1);
    let mut before = 0;
    for position in 0..=log.events().len() {
        for _ in 0..2 {
            let crashed = log
                .crash_at(position, |_| [Kept::Whole, Kept::Nothing][usize::from(random.coin())]);
            let crashed = Arc::new(crashed);
            before += u32::from(!crashed.to_vec().eq(&pending.to_vec()));
            assert_eq!(seen(&crashed, MountOptions::read_only()), expected, "{position}");
            assert_eq!(seen(&crashed, MountOptions::new()), expected, "{position}");
            check(&crashed);
        }
    }
    assert!(before > 4, "few crashes are in the middle");
}

#[test]
fn hostile_records_are_told_for_what_they_are() {
    let Some(stage) = Stage::new(&["-b", "1024"]) else { return };
    let [dir, a, b] = stage.numbers;
    let root = InodeNumber::ROOT;
    let link = |parent, inode, name| Link { parent, inode, name };
    let free = PhysicalBlock::new(stage.start.get() + 2000);
    let outside = PhysicalBlock::new(1 << 30);
    assert!(stage.refusal(&[Record::AddRange(a, extent(9, 1, free))]).is_none());
    // Places that no file can have, or that another has.
    stage.refuses(&[Record::AddRange(a, extent(9, 1, outside))], Rule::ExtentPlace);
    stage.refuses(&[Record::AddRange(a, extent(9, 9, PhysicalBlock::new(1)))], Rule::ExtentPlace);
    stage.refuses(
        &[Record::AddRange(a, extent(9, 4, free)), Record::AddRange(b, extent(9, 4, free))],
        Rule::UsedTwice,
    );
    let all = LogicalRange::ALL;
    stage.refuses(&[Record::DeleteRange(dir, all)], Rule::FastCommitTag);
    stage.refuses(&[Record::AddRange(root, extent(9, 1, free))], Rule::FastCommitTag);
    // Inodes that are none, or the file system's own.
    for number in [ino(1), ino(7), ino(8), root, ino(10), ino(1 << 30)] {
        let raw = stage.raw(a, |_| ());
        stage.refuses(&[Record::Inode(number, &raw)], Rule::EntryInode);
    }
    let raw = |at, bytes: &'static [u8]| stage.raw(a, |raw| put(raw, at, bytes));
    stage.refuses(&[Record::Inode(a, &raw(104, &[9]))], Rule::AttributeBlock);
    stage.refuses(&[Record::Inode(a, &raw(0, &[0, 0]))], Rule::FastCommitTag);
    stage.refuses(&[Record::Inode(a, &[0x81; 600])], Rule::FastCommitTag);
    // Names that are none, and inodes that are not there.
    for name in [&b"."[..], b"..", b"a/b", b"a\0b"] {
        stage.refuses(&[Record::Link(link(root, a, name))], Rule::EntryName);
        stage.refuses(&[Record::Unlink(link(root, a, name))], Rule::EntryName);
    }
    stage.refuses(&[Record::Create(link(root, ino(60), b"x"))], Rule::FastCommitTag);
    stage.refuses(&[Record::Link(link(root, dir, b"x"))], Rule::FastCommitTag);
    stage.refuses(&[Record::Create(link(root, ino(1 << 30), b"x"))], Rule::EntryInode);
}

#[test]
fn a_record_of_a_file_with_indirect_blocks_is_not_supported() {
    let Some(stage) = Stage::new(&["-b", "1024", "-O", "^extent,^64bit"]) else { return };
    let [_, a, _] = stage.numbers;
    let refusal = stage.refusal(&[Record::DeleteRange(a, LogicalRange::ALL)]);
    assert!(matches!(refusal, Some(Error::NotSupported(_))), "{refusal:?}");
    let moved = stage.raw(a, |raw| raw[40] ^= 1);
    let refusal = stage.refusal(&[Record::Inode(a, &moved)]);
    assert!(matches!(refusal, Some(Error::NotSupported(_))), "{refusal:?}");
}

#[test]
fn blocks_of_a_cluster_lie_in_it_as_they_lie_in_the_file() {
    let Some(stage) = Stage::new(&["-b", "1024", "-O", "bigalloc", "-C", "8192"]) else { return };
    let [_, a, _] = stage.numbers;
    let place = |shift| PhysicalBlock::new(stage.start.get() + 800 + shift);
    assert!(stage.refusal(&[Record::AddRange(a, extent(16, 9, place(0)))]).is_none());
    assert!(stage.refusal(&[Record::AddRange(a, extent(19, 9, place(3)))]).is_none());
    stage.refuses(&[Record::AddRange(a, extent(16, 9, place(3)))], Rule::ExtentPlace);
}

#[test]
fn any_sealed_records_end_in_a_tree_or_an_error() {
    let Some(stage) = Stage::new(&["-b", "1024"]) else { return };
    let numbers: Vec<_> =
        stage.numbers.into_iter().chain([ino(2), ino(8), ino(14), ino(15), ino(99)]).collect();
    let raw = stage.raw(stage.numbers[1], |_| ());
    let mut random = Random::new(5);
    let mut mounted_some = 0;
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..8 {
            let mut raw = raw.clone();
            for _ in 0..random.below(3) {
                let at = usize::try_from(random.below(160)).unwrap();
                raw[at] = u8::try_from(random.below(256)).unwrap();
            }
            bytes.push(raw);
        }
        let records: Vec<_> = bytes
            .iter()
            .map(|raw| {
                let mut pick = || numbers[usize::try_from(random.below(8)).unwrap()];
                let (inode, parent) = (pick(), pick());
                let name =
                    [&b"a"[..], b"b", b"c", b"d", b"e"][usize::try_from(random.below(5)).unwrap()];
                let link = Link { parent, inode, name };
                let start = u32::try_from(random.below(20)).unwrap();
                let len = u32::try_from(1 + random.below(9)).unwrap();
                let place = PhysicalBlock::new(stage.start.get() + random.below(3000));
                match random.below(6) {
                    0 => Record::AddRange(inode, extent(start, len, place)),
                    1 => Record::DeleteRange(inode, LogicalRange::new(start, len).unwrap()),
                    2 => Record::Create(link),
                    3 => Record::Link(link),
                    4 => Record::Unlink(link),
                    _ => Record::Inode(inode, raw),
                }
            })
            .collect();
        let image = Arc::new(stage.pend(&[&records[..3], &records[3..]]));
        let through = mounted(&image, MountOptions::read_only()).map(|volume| volume.unmount());
        let recovered = mounted(&image, MountOptions::new()).map(|volume| volume.unmount());
        assert_eq!(through.is_ok(), recovered.is_ok(), "{through:?} {recovered:?}");
        mounted_some += u32::from(recovered.is_ok());
    }
    assert!(mounted_some > 10, "{mounted_some} of 300 were possible");
}

#[test]
fn fast_commits_that_change_more_than_the_log_can_hold_are_refused() {
    let Some(stage) = Stage::new(&["-b", "1024", "-N", "8192", "-J", "fast_commit_size=512"])
    else {
        return;
    };
    let raw = stage.raw(stage.numbers[1], |raw| {
        put(raw, 4, &0_u32.to_le_bytes());
        raw.truncate(128);
    });
    // One in each block of the tables.
    let records: Vec<_> =
        (20..8192).step_by(4).map(|number| Record::Inode(ino(number), &raw)).collect();
    let commits: Vec<_> = records.chunks(400).collect();
    let image = Arc::new(stage.pend(&commits));
    let refused = mounted(&image, MountOptions::new()).err();
    assert!(matches!(refused, Some(Error::Journal(_))), "{refused:?}");
}

#[test]
fn records_of_inodes_that_are_not_there_take_no_long_search_each() {
    let Some(stage) = Stage::new(&["-b", "1024", "-J", "fast_commit_size=2048"]) else { return };
    let free = PhysicalBlock::new(stage.start.get() + 2000);
    let raw = stage.raw(stage.numbers[1], |_| ());
    // One commit of 80,000 records, to be searched for what follows each.
    let mut records = vec![Record::AddRange(ino(90), extent(0, 1, free)); 80_000];
    records.extend((0..800).map(|_| Record::Inode(stage.numbers[1], &raw)));
    assert!(stage.refusal(&records).is_none());
}

#[test]
fn the_next_record_of_an_inode_is_found_in_its_commit() {
    let Some(stage) = Stage::new(&["-b", "1024"]) else { return };
    let raws: Vec<Vec<u8>> = (0..4).map(|byte| vec![byte; 128]).collect();
    let commits = [
        [Record::Inode(ino(12), &raws[0]), Record::Inode(ino(11), &raws[1])],
        [Record::Inode(ino(12), &raws[2]), Record::Inode(ino(12), &raws[3])],
    ];
    let image = stage.pend(&[&commits[0], &commits[1]]);
    let area = stage.log[stage.first_area..][..2].iter();
    let bytes = area.flat_map(|at| image.read_vec(*at, stage.block_len).unwrap()).collect();
    let blocks = extant_journal::LogRange { start: LogBlock(9), len: 2 };
    let found = extant_journal::FastCommits { tid: stage.tid, blocks, records: 7 };
    let records = Records::new(found, stage.block_len, || Ok(bytes)).unwrap();
    let [first, second] = &records.commits().collect::<Result<Vec<_>, _>>().unwrap()[..] else {
        panic!()
    };
    let next =
        |inodes: &InodeRecords<'_>, number, at| inodes.next(ino(number), at).map(|raw| raw[0]);
    // The first record of the first commit is its head.
    assert_eq!([0, 1, 2].map(|at| next(&first.inodes, 12, at)), [Some(0), Some(0), None]);
    assert_eq!([0, 2, 3].map(|at| next(&first.inodes, 11, at)), [Some(1), Some(1), None]);
    assert_eq!([0, 1, 2].map(|at| next(&second.inodes, 12, at)), [Some(2), Some(3), None]);
    assert_eq!(next(&second.inodes, 11, 0), None);
    assert_eq!(second.inodes.iter().last(), Some((ino(12), &raws[3][..])));
}

#[test]
fn more_bytes_of_fast_commits_than_can_be_held_are_refused() {
    let blocks = extant_journal::LogRange { start: LogBlock(9), len: (32 << 10) + 1 };
    let found = extant_journal::FastCommits { tid: TransactionId(1), blocks, records: 1 };
    let read = || -> Result<Vec<u8>, Error> { panic!("it is not read") };
    assert!(matches!(Records::new(found, 1024, read), Err(Error::NotSupported(_))));
}

#[test]
fn j10_6_blocks_go_from_one_file_to_another_in_either_order() {
    let settled = |claims: &Claims| {
        let mut free: Vec<_> = claims.settle().ok()?.collect();
        free.sort_by_key(|range| range.start());
        Some(free)
    };
    let (a, b) = (ino(12), ino(13));
    let mut claims = Claims::default();
    claims.set_aside(a, range(100, 10));
    assert_eq!(settled(&claims), Some(vec![range(100, 10)]));
    claims.give(a, range(100, 10));
    assert_eq!(settled(&claims), Some(vec![]));
    claims.give(b, range(104, 2));
    assert_eq!(settled(&claims), None, "both have them");
    claims.take(a, range(100, 6));
    assert_eq!(settled(&claims), Some(vec![range(100, 4)]));
    claims.take(b, range(104, 2));
    assert_eq!(settled(&claims), Some(vec![range(100, 4), range(104, 2)]));
}
