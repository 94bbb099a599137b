//! The journal against `debugfs`, which writes transactions for us, and `e2fsck`, which replays ours.

use extant_format::fast_commit::{self, Link, Record};
use extant_format::features::Incompat;
use extant_format::jbd2::{
    BlockType, CommitBlock, CommitChecksum, DescriptorTags, DescriptorWriter, JournalHeader,
    JournalIncompat, JournalSuperblock, RevokeWriter, TagFlags, revoked_blocks,
};
use extant_format::{InodeNumber, PhysicalBlock, TransactionId};
use zerocopy::IntoBytes;

use crate::image::Image;

pub fn check_superblock(image: &Image, journal: InodeNumber) {
    let blocks = image.blocks_of(journal);
    let superblock = JournalSuperblock::parse(image.block(blocks[0].1)).unwrap();
    assert_eq!(superblock.to_raw().as_bytes(), &image.block(blocks[0].1)[..1024]);
    assert_eq!(superblock.format().block_size, image.geometry.block_size);
    assert_eq!(usize::try_from(superblock.max_len()).unwrap(), blocks.len());
}

/// The journal's blocks, and its superblock.
fn open(image: &Image) -> (Vec<PhysicalBlock>, JournalSuperblock) {
    let blocks: Vec<_> =
        image.blocks_of(InodeNumber::JOURNAL).into_iter().map(|(_, block)| block).collect();
    let superblock = JournalSuperblock::parse(image.block(blocks[0])).unwrap();
    (blocks, superblock)
}

/// A free block near the end of the image, as a home for what is replayed.
fn home(image: &Image, n: u64) -> PhysicalBlock {
    PhysicalBlock::new(image.geometry.blocks_count - 100 + n)
}

#[test]
fn transactions_of_debugfs_are_read() {
    for (options, version) in [("", 3), ("", 2), ("-O ^64bit", 3), ("-O ^64bit", 2), ("-b 1024", 3)]
    {
        read_transaction(options, &format!("jo -c -v {version}"));
    }
    read_transaction("-O ^64bit,^metadata_csum", "jo");
    read_transaction("-O 64bit,^metadata_csum", "jo");
}

fn read_transaction(options: &str, open_command: &str) {
    let Some(image) = Image::make(options, 32) else { return };
    let data = image.path.with_extension("data");
    let size = image.geometry.block_len();
    let mut bytes = vec![b'1'; size * 2];
    bytes[..4].copy_from_slice(&extant_format::jbd2::MAGIC.to_be_bytes());
    std::fs::write(&data, &bytes).unwrap();
    let (one, two, three) = (home(&image, 1).get(), home(&image, 2).get(), home(&image, 3).get());
    let data = data.display();
    let image =
        image.debugfs(&format!("{open_command}\njw -r {three}\njw -b {one},{two} {data}\njc\n"));
    let (blocks, superblock) = open(&image);
    let format = *superblock.format();
    let block = |n: u32| image.block(blocks[usize::try_from(n).unwrap()]);
    let (mut at, mut tid) = (superblock.start().unwrap(), superblock.sequence());
    let (mut homes, mut revoked) = (Vec::new(), Vec::new());
    while let Some(header) = JournalHeader::parse(block(at)).filter(|header| header.sequence == tid)
    {
        let bytes = block(at);
        at += 1;
        match header.block_type.unwrap() {
            BlockType::Descriptor => {
                assert!(format.verify_tail(bytes), "{options} {open_command}");
                for tag in DescriptorTags::new(bytes, format) {
                    assert!(
                        format.tag_matches(&tag, tid, block(at)),
                        "{options} {open_command}: {tag:?}"
                    );
                    homes.push((tag.block.get(), tag.flags.contains(TagFlags::ESCAPE)));
                    at += 1;
                }
            }
            BlockType::Revoke => {
                assert!(format.verify_tail(bytes));
                revoked.extend(revoked_blocks(bytes, format, at).unwrap().map(PhysicalBlock::get));
            }
            BlockType::Commit => {
                assert_eq!(CommitBlock::verify(bytes, &format), CommitChecksum::Right);
                assert!(CommitBlock::parse(bytes).unwrap().seconds > 1_500_000_000);
                tid = tid.next();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (homes, revoked),
        (vec![(one, true), (two, false)], vec![three]),
        "{options} {open_command}"
    );
}

#[test]
fn transactions_of_ours_are_replayed() {
    let all = [
        JournalIncompat::empty(),
        JournalIncompat::BIT64,
        JournalIncompat::CSUM_V2,
        JournalIncompat::CSUM_V2 | JournalIncompat::BIT64,
        JournalIncompat::CSUM_V3,
        JournalIncompat::CSUM_V3 | JournalIncompat::BIT64,
    ];
    for features in all {
        let options = if features.intersects(JournalIncompat::CSUM_V2 | JournalIncompat::CSUM_V3) {
            "-b 1024"
        } else {
            "-b 1024 -O ^metadata_csum"
        };
        let Some(image) = Image::make(options, 32) else { return };
        replay(image, features);
    }
}

fn replay(mut image: Image, features: JournalIncompat) {
    let size = image.geometry.block_len();
    let magic = [extant_format::jbd2::MAGIC.to_be_bytes().to_vec(), vec![b'm'; size - 4]].concat();
    let homes: Vec<_> = (1..=90).map(|n| home(&image, n)).collect();
    let before = image.block(homes[3]).to_vec();
    let mut log = Log::start(&mut image, features);
    let tid = log.tid;
    let contents =
        |n: usize| if n == 1 { magic.clone() } else { vec![u8::try_from(n).unwrap() + b'A'; size] };
    log.transaction(&mut image, &homes, contents);
    let revoke_at = log.next_block();
    let mut revoke = RevokeWriter::new(image.block_mut(revoke_at), log.format, log.tid);
    assert!(revoke.push(homes[3]));
    revoke.finish();
    log.transaction(&mut image, &homes[4..5], |_| vec![b'!'; size]);
    let image = image.e2fsck(&["-fy"]);
    for (n, &home) in homes.iter().enumerate() {
        let expected = match n {
            3 => before.clone(),
            4 => vec![b'!'; size],
            _ => contents(n),
        };
        assert!(image.block(home) == expected, "{features}: {home}");
    }
    let (_, superblock) = open(&image);
    assert_eq!(superblock.start(), None);
    assert!(superblock.sequence().is_after(tid));
}

/// Writes transactions into an image's journal, from its first block on.
struct Log {
    blocks: Vec<PhysicalBlock>,
    format: extant_format::jbd2::LogFormat,
    at: usize,
    tid: TransactionId,
}

impl Log {
    /// Gives the journal these features, and marks it as to be replayed.
    fn start(image: &mut Image, features: JournalIncompat) -> Self {
        let (blocks, mut superblock) = open(image);
        superblock.change(|raw| {
            raw.set_incompat(features | JournalIncompat::REVOKE);
            raw.start = raw.first;
        });
        let raw = superblock.to_raw();
        image.block_mut(blocks[0])[..1024].copy_from_slice(raw.as_bytes());
        let fs = image.superblock.raw_mut();
        fs.feature_incompat = (fs.incompat() | Incompat::RECOVER).bits().into();
        let fs = image.superblock.to_raw();
        image.bytes[1024..2048].copy_from_slice(fs.as_bytes());
        let at = usize::try_from(superblock.first()).unwrap();
        Self { blocks, format: *superblock.format(), at, tid: superblock.sequence() }
    }

    fn next_block(&mut self) -> PhysicalBlock {
        self.at += 1;
        self.blocks[self.at - 1]
    }

    /// Logs `homes` with `contents`, in as many descriptors as that needs, and commits.
    fn transaction(
        &mut self,
        image: &mut Image,
        homes: &[PhysicalBlock],
        contents: impl Fn(usize) -> Vec<u8>,
    ) {
        let size = image.geometry.block_len();
        let mut rest = homes.iter().enumerate().peekable();
        while rest.peek().is_some() {
            let descriptor_at = self.next_block();
            let mut descriptor = vec![0xAA; size];
            let mut writer = DescriptorWriter::new(&mut descriptor, self.format, self.tid);
            while writer.has_room() {
                let Some((n, &home)) = rest.next() else { break };
                let mut data = contents(n);
                let escaped = extant_format::jbd2::needs_escape(&data);
                if escaped {
                    extant_format::jbd2::escape(&mut data);
                }
                writer.push(home, escaped, self.format.tag_checksum(self.tid, &data));
                let at = self.next_block();
                image.block_mut(at).copy_from_slice(&data);
            }
            writer.finish();
            image.block_mut(descriptor_at).copy_from_slice(&descriptor);
        }
        let at = self.next_block();
        let commit = CommitBlock { seconds: 1_700_000_000, nanoseconds: 1 };
        commit.write(image.block_mut(at), &self.format, self.tid);
        self.tid = self.tid.next();
    }
}

#[test]
fn fast_commits_of_ours_are_replayed() {
    let Some(mut image) = Image::make("-O fast_commit", 32) else {
        return;
    };
    let small = crate::find(&image, InodeNumber::ROOT, b"small");
    let features = JournalIncompat::CSUM_V3 | JournalIncompat::BIT64 | JournalIncompat::FAST_COMMIT;
    let mut log = Log::start(&mut image, features);
    let homes = [home(&image, 1)];
    let size = image.geometry.block_len();
    log.transaction(&mut image, &homes, |_| vec![b'h'; size]);
    let (_, superblock) = open(&image);
    let first = log.blocks[usize::try_from(superblock.last()).unwrap() + 1];
    let mut raw = image.raw_inode(small)[..160].to_vec();
    raw[0x1A] += 1;
    let link = Link { parent: InodeNumber::ROOT, inode: small, name: b"by-fast-commit" };
    let records = [Record::Head(0, log.tid), Record::Link(link), Record::Inode(small, &raw)];
    let mut writer = fast_commit::Writer::new();
    for record in &records {
        assert!(writer.push(image.block_mut(first), record));
    }
    assert!(writer.seal(image.block_mut(first), log.tid));
    let mut scan = fast_commit::Scan::new(log.tid);
    assert_eq!(scan.feed(image.block(first)), Ok(true));
    assert_eq!(scan.valid_records(), 4);
    let image = image.e2fsck(&["-fy"]);
    assert_eq!(crate::find(&image, InodeNumber::ROOT, b"by-fast-commit"), small);
    assert_eq!(image.inode(small).links, 3);
}
