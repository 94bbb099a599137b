//! What `mkfs.ext4` writes, this crate reads, verifies and writes back byte for byte.
//!
//! One test an option set; a set's image holds files of all kinds. The host's tools are needed; without them each test
//! reports itself as skipped.

#![expect(
    clippy::unwrap_used,
    reason = "tests fail by panicking; the lint knows only functions marked as tests"
)]

mod image;
mod journal;

use extant_format::cast::usize_from;
use extant_format::directory::{DirEntries, DirLayout};
use extant_format::features::{Compat, Incompat};
use extant_format::hash::{DirHash, DirHasher, HashVersion};
use extant_format::htree::{self, IndexRoot, IndexView};
use extant_format::inline::InlineData;
use extant_format::mmp::{MmpState, RawMmp};
use extant_format::superblock::{RawSuperblock, Superblock};
use extant_format::xattr::{self, XattrValue, XattrView};
use extant_format::{
    FileType, GroupDescriptor, InodeFlags, InodeNumber, InodeRecord, PhysicalBlock, Place, bitmap,
    inode, orphan,
};
use image::Image;
use zerocopy::IntoBytes;

macro_rules! option_sets {
    ($($name:ident: $options:literal, $mebibytes:literal;)*) => {
        $(#[test]
        fn $name() {
            check($options, $mebibytes);
        })*
    };
}

option_sets! {
    defaults: "", 48;
    blocks_of_1_kib: "-b 1024", 48;
    blocks_of_4_kib: "-b 4096", 64;
    blocks_of_2_kib: "-b 2048", 48;
    blocks_of_64_kib: "-b 65536", 96;
    without_checksums: "-b 4096 -O ^metadata_csum", 48;
    with_descriptor_checksums_alone: "-b 4096 -O ^metadata_csum,uninit_bg", 48;
    with_short_descriptor_checksums_alone: "-O ^metadata_csum,uninit_bg,^64bit", 48;
    without_64bit: "-b 4096 -O ^64bit", 48;
    with_meta_groups: "-b 1024 -g 512 -O meta_bg,^resize_inode", 48;
    with_meta_groups_and_clusters: "-b 1024 -O meta_bg,^resize_inode,bigalloc -C 16384", 64;
    with_clusters: "-b 4096 -O bigalloc -C 65536", 64;
    with_small_inodes: "-I 128", 48;
    with_large_inodes: "-I 1024", 64;
    with_an_orphan_file: "-b 4096 -O orphan_file", 48;
    with_inline_data: "-b 4096 -O inline_data", 48;
    with_inline_data_in_large_inodes: "-O inline_data -I 1024 -b 2048", 64;
    with_ea_inodes: "-b 4096 -O ea_inode", 48;
    with_a_checksum_seed: "-O metadata_csum_seed", 48;
    with_two_backups: "-b 1024 -O sparse_super2,^resize_inode", 64;
    without_flex_groups: "-b 1024 -O ^flex_bg,^resize_inode", 64;
    with_fast_commits: "-O fast_commit -J size=8", 48;
    as_ext2: "-b 4096 -t ext2", 48;
    as_ext3: "-t ext3 -b 1024", 48;
    as_revision_0: "-t ext2 -r 0 -b 1024", 48;
}

/// Only as made: the tools wait eleven seconds before they write to such an image.
#[test]
fn with_mount_protection() {
    if let Some(image) = Image::make("-O mmp", 48) {
        check_image(&image);
    }
}

/// Makes an image, and checks it as made, then with attributes, then with its directories indexed.
fn check(options: &str, mebibytes: u64) {
    let Some(image) = Image::make(options, mebibytes) else { return };
    check_image(&image);
    let long = "v".repeat(120);
    let big = image.path.with_extension("big");
    std::fs::write(&big, vec![b'b'; 3000]).unwrap();
    let image = image.debugfs(&format!(
        "ea_set small user.one first\nea_set small user.two {long}\nea_set small security.abc {long}\n\
         ea_set empty trusted.x y\nea_set -f {} medium user.big\nea_set a user.dir value\n",
        big.display(),
    ));
    check_image(&image);
    let expected: &[_] = if image.superblock.raw().rev_level.get() == 0 {
        &[] // debugfs sets none there
    } else {
        &[("security.abc", 120), ("user.one", 5), ("user.two", 120)]
    };
    let found = attributes(&image, b"small");
    assert!(
        found.iter().map(|(name, size)| (name.as_str(), *size)).eq(expected.iter().copied()),
        "{found:?}"
    );
    let image = image.e2fsck(&["-fyD"]);
    check_image(&image);
    check_contents(&image);
    let indexed =
        image.inode(find(&image, InodeNumber::ROOT, b"many")).flags.contains(InodeFlags::INDEX);
    let can =
        image.geometry.compat.contains(Compat::DIR_INDEX) && image.geometry.block_size < 65536;
    assert_eq!(indexed, can, "the large directory is indexed");
}

fn check_image(image: &Image) {
    check_superblock(image);
    check_descriptors(image);
    check_bitmaps(image);
    for number in image.inodes() {
        check_inode(image, number);
    }
    if let Some(journal) = image.superblock.journal_inode() {
        journal::check_superblock(image, journal);
    }
    if let Some(file) = image.superblock.orphan_file() {
        for (_, block) in image.blocks_of(file) {
            let at = Place::InodeBlock(file, block);
            orphan::check(image.block(block), at, &image.geometry, image.seed(file), block)
                .unwrap();
            assert_eq!(orphan::used_slots(image.block(block), &image.geometry).count(), 0);
        }
    }
    if image.has(Incompat::MMP) {
        let block = PhysicalBlock::new(image.superblock.raw().mmp_block.get());
        let raw = RawMmp::parse(image.block(block), Place::Block(block), &image.geometry).unwrap();
        assert_eq!(raw.state(), Some(MmpState::Clean));
    }
}

fn check_superblock(image: &Image) {
    assert_eq!(image.superblock.to_raw().as_bytes(), &image.bytes[1024..2048]);
    let block = image.geometry.superblock_block();
    let within = if block.get() == 0 { 1024 } else { 0 };
    assert_eq!(&image.block(block)[within..within + 1024], &image.bytes[1024..2048]);
    for group in image.geometry.groups().skip(1).filter(|&group| image.geometry.has_super(group)) {
        let backup = Superblock::parse(image.block(image.geometry.first_block_of(group))).unwrap();
        assert_eq!(u32::from(backup.raw().block_group_nr.get()), group.get());
        assert_eq!(backup.raw().uuid, image.superblock.raw().uuid);
    }
    let text = String::from_utf8(dumpe2fs(image)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Filesystem features:")).unwrap();
    let (compat, incompat, ro_compat) =
        (image.geometry.compat, image.geometry.incompat, image.geometry.ro_compat);
    let ours = format!("{compat} {incompat} {ro_compat}");
    assert_eq!(sorted(&ours), sorted(line));
}

fn dumpe2fs(image: &Image) -> Vec<u8> {
    std::process::Command::new("dumpe2fs").arg("-h").arg(&image.path).output().unwrap().stdout
}

fn sorted(words: &str) -> Vec<&str> {
    let mut words: Vec<_> = words.split_whitespace().filter(|&word| word != "(none)").collect();
    words.sort_unstable();
    words
}

fn check_descriptors(image: &Image) {
    let geometry = &image.geometry;
    for group in geometry.groups() {
        let raw = image.raw_descriptor(group);
        assert!(GroupDescriptor::verify(raw, geometry, group), "{group}");
        let descriptor = image.descriptor(group);
        descriptor.check_counts(geometry, group).unwrap();
        let mut again = raw.to_vec();
        descriptor.encode(&mut again, geometry, group);
        assert_eq!(again, raw, "{group}");
        let mut damaged = raw.to_vec();
        damaged[5] ^= 1;
        assert_eq!(GroupDescriptor::verify(&damaged, geometry, group), !geometry.has_gdt_csum());
        let (index, at) = geometry.descriptor_place(group);
        for copy in
            geometry.groups().filter_map(|group| geometry.descriptor_block_copy(index, group))
        {
            let copied = &image.block(copy)[at..];
            let copied = GroupDescriptor::decode(copied, geometry, group).unwrap();
            assert_eq!(copied.inode_table, descriptor.inode_table, "{group}, copy in {copy}");
        }
        let base = geometry.base_meta_blocks(group);
        let bits = image.block(descriptor.block_bitmap);
        let clusters = base.div_ceil(geometry.cluster_ratio());
        let computed = descriptor.block_bitmap_is_uninitialized(geometry);
        assert!(
            computed || bitmap::count_zeros(bits, 0..clusters) == 0,
            "{group}: {base} blocks at its start"
        );
    }
}

fn check_bitmaps(image: &Image) {
    let geometry = &image.geometry;
    let (mut clusters, mut inodes) = (0, 0);
    for group in geometry.groups() {
        let descriptor = image.descriptor(group);
        clusters += u64::from(descriptor.free_clusters);
        inodes += descriptor.free_inodes;
        if !descriptor.block_bitmap_is_uninitialized(geometry) {
            let bits = image.block(descriptor.block_bitmap);
            assert!(
                descriptor
                    .block_bitmap_matches(geometry, bitmap::block_bitmap_csum(geometry, bits))
            );
            let free = bitmap::count_zeros(bits, 0..geometry.clusters_in(group));
            assert_eq!(free, descriptor.free_clusters, "{group}");
        }
        let bits = image.block(descriptor.inode_bitmap);
        if descriptor.inodes_are_uninitialized(geometry) {
            assert_eq!(descriptor.free_inodes, geometry.inodes_per_group);
        } else {
            assert!(
                descriptor
                    .inode_bitmap_matches(geometry, bitmap::inode_bitmap_csum(geometry, bits))
            );
            let free = bitmap::count_zeros(bits, 0..geometry.inodes_per_group);
            assert_eq!(free, descriptor.free_inodes, "{group}");
        }
    }
    assert_eq!(image.superblock.raw().free_blocks_count(), clusters << geometry.cluster_bits);
    assert_eq!(image.superblock.raw().free_inodes_count.get(), inodes);
}

fn check_inode(image: &Image, number: InodeNumber) {
    let geometry = &image.geometry;
    let raw = image.raw_inode(number);
    let record = image.inode(number);
    let seed = image.seed(number);
    let mut again = raw.to_vec();
    record.encode(&mut again, geometry).unwrap();
    if geometry.has_metadata_csum() {
        assert!(inode::verify_checksum(raw, seed), "{number}");
        inode::set_checksum(&mut again, seed);
    }
    assert_eq!(again, raw, "{number}");
    check_attributes(image, number, &record);
    if record.file_type() == Some(FileType::Directory) {
        check_directory(image, number, &record);
    }
}

fn check_attributes(image: &Image, number: InodeNumber, record: &InodeRecord) {
    let geometry = &image.geometry;
    let raw = image.raw_inode(number);
    let at = Place::Inode(number);
    if let Some(view) = XattrView::in_inode(raw, record.extra_isize, at, geometry).unwrap() {
        for entry in view.entries() {
            check_value(image, &entry);
        }
    }
    let Some(block) = record.file_acl else { return };
    let bytes = image.block(block);
    assert!(!geometry.has_metadata_csum() || xattr::verify_checksum(bytes, geometry, block));
    let view = XattrView::in_block(bytes, Place::Block(block), geometry).unwrap();
    assert_eq!(xattr::references(bytes), Some(1));
    let hash = xattr::stored_block_hash(bytes).unwrap();
    assert!(hash == 0 || hash == xattr::block_hash(view), "e2fsprogs leaves it out");
    for entry in view.entries() {
        assert!(
            matches!(entry.value, XattrValue::Inode { .. }) || entry.hash_matches(0),
            "{number}"
        );
        check_value(image, &entry);
    }
}

fn check_value(image: &Image, entry: &xattr::XattrEntry<'_>) {
    if let XattrValue::Inode { inode, size } = entry.value {
        let value = image.read(inode);
        let hash = xattr::value_hash(&image.geometry, &value);
        assert_eq!(value.len(), usize_from(size));
        assert!(entry.hash_matches(hash));
        assert_eq!(image.inode(inode).atime.seconds & 0xFFFF_FFFF, hash.into());
    }
}

/// Names and sizes of all attributes of a file in the root.
fn attributes(image: &Image, name: &[u8]) -> Vec<(String, u64)> {
    let number = find(image, InodeNumber::ROOT, name);
    let record = image.inode(number);
    let at = Place::Inode(number);
    let inside =
        XattrView::in_inode(image.raw_inode(number), record.extra_isize, at, &image.geometry)
            .unwrap();
    let outside = record
        .file_acl
        .map(|block| XattrView::in_block(image.block(block), at, &image.geometry).unwrap());
    let entries = inside.into_iter().chain(outside).flat_map(XattrView::entries);
    let shown = entries.filter(|entry| entry.name != b"data");
    let name = |entry: &xattr::XattrEntry<'_>| {
        format!("{}{}", entry.index.prefix().unwrap(), String::from_utf8_lossy(entry.name))
    };
    let mut all: Vec<_> = shown.map(|entry| (name(&entry), entry.value.size())).collect();
    all.sort();
    all
}

fn check_directory(image: &Image, number: InodeNumber, record: &InodeRecord) {
    let geometry = &image.geometry;
    let layout = DirLayout::of(geometry, record.flags);
    let at = Place::Inode(number);
    if record.flags.contains(InodeFlags::INLINE_DATA) {
        let data =
            InlineData::of(image.raw_inode(number), record.extra_isize, at, geometry).unwrap();
        data.parent(at, geometry).unwrap();
        data.entries(layout, at).into_iter().flatten().for_each(|entry| assert!(entry.is_ok()));
        return;
    }
    let blocks = image.blocks_of(number);
    for &(n, block) in &blocks {
        let bytes = image.block(block);
        assert!(
            !layout.has_tail || htree::verify_checksum(bytes, layout, image.seed(number)),
            "{number} {n}"
        );
        let shape = if layout.has_tail { htree::shape(bytes, layout) } else { htree::Shape::Leaf };
        let plain =
            DirLayout { has_tail: shape == htree::Shape::Leaf && layout.has_tail, ..layout };
        for entry in DirEntries::new(bytes, plain, at) {
            let entry = entry.unwrap();
            let Some(target) = entry.inode else { continue };
            let expected = image.inode(target).file_type();
            assert!(!layout.has_types || entry.file_type == expected, "{number} {n}");
        }
    }
    if record.flags.contains(InodeFlags::INDEX) {
        check_index(image, number, layout);
    }
}

/// Checks that every name lies where its hash says, which tries the hash, the index and its search at once.
fn check_index(image: &Image, number: InodeNumber, layout: DirLayout) {
    let at = Place::Inode(number);
    let blocks = image.blocks_of(number);
    let block = |n: u32| image.block(blocks.iter().find(|(logical, _)| *logical == n).unwrap().1);
    let root = IndexRoot::parse(block(0), layout, at).unwrap();
    let seed = image.superblock.hash_seed();
    let sign = image.superblock.hash_sign().unwrap();
    assert_eq!(root.version, HashVersion::HalfMd4);
    let hasher = DirHasher::Seeded { version: root.version, sign, seed };
    let find_leaf = |hash: DirHash| {
        let mut bytes = block(0);
        for _ in 0..root.levels {
            let view = IndexView::new(bytes, layout, at).unwrap();
            bytes = block(view.block(view.search(hash.major)).unwrap());
        }
        let view = IndexView::new(bytes, layout, at).unwrap();
        view.block(view.search(hash.major)).unwrap()
    };
    let mut names = 0;
    for &(n, home) in &blocks {
        if htree::shape(image.block(home), layout) != htree::Shape::Leaf {
            continue;
        }
        for entry in DirEntries::new(image.block(home), layout, at) {
            let entry = entry.unwrap();
            if entry.inode.is_some() {
                assert_eq!(
                    find_leaf(hasher.hash(entry.name)),
                    n,
                    "{:?}",
                    String::from_utf8_lossy(entry.name)
                );
                names += 1;
            }
        }
    }
    assert!(names > 100);
}

/// The inode of a name, by a walk over all of the directory's blocks.
fn find(image: &Image, parent: InodeNumber, name: &[u8]) -> InodeNumber {
    let record = image.inode(parent);
    let layout = DirLayout { has_tail: false, ..DirLayout::of(&image.geometry, record.flags) };
    let at = Place::Inode(parent);
    let is = |entry: &extant_format::directory::DirEntry<'_>| {
        entry.name == name && entry.inode.is_some()
    };
    if record.flags.contains(InodeFlags::INLINE_DATA) {
        let data = InlineData::of(image.raw_inode(parent), record.extra_isize, at, &image.geometry)
            .unwrap();
        let mut entries = data.entries(layout, at).into_iter().flatten().map(Result::unwrap);
        return entries.find(is).unwrap().inode.unwrap();
    }
    let blocks = image.blocks_of(parent);
    let mut entries =
        blocks.iter().flat_map(|(_, block)| DirEntries::new(image.block(*block), layout, at));
    entries.find_map(|entry| entry.ok().filter(is)).unwrap().inode.unwrap()
}

fn check_contents(image: &Image) {
    let read = |name: &[u8]| image.read(find(image, InodeNumber::ROOT, name));
    assert_eq!(read(b"empty"), b"");
    assert_eq!(read(b"small"), b"a few bytes");
    assert_eq!(read(b"medium"), [b'm'; 100]);
    let large = read(b"large");
    assert_eq!(large.len(), 1_000_000);
    assert!(
        (0..)
            .zip(large.chunks(2))
            .all(|(n, pair)| pair == extant_format::cast::low_u16(n).to_le_bytes())
    );
    assert_eq!(read(b"short-link"), b"short");
    assert_eq!(read(b"long-link"), "long/".repeat(40).as_bytes());
    let holes = read(b"holes");
    for n in 0..400 {
        let piece = format!("piece {n}");
        assert_eq!(&holes[n * 12288..][..piece.len()], piece.as_bytes());
    }
    let a = find(image, InodeNumber::ROOT, b"a");
    assert_eq!(find(image, a, b"linked"), find(image, InodeNumber::ROOT, b"small"));
    let names = image.inode(find(image, InodeNumber::ROOT, b"many"));
    assert_eq!((names.links, image.inode(a).links), (2, 3));
}

#[test]
fn an_index_with_inner_nodes_is_searched() {
    let Some(image) = Image::make_with_names("-b 1024 -N 6000", 48, 4000) else { return };
    let image = image.e2fsck(&["-fyD"]);
    check_image(&image);
    let many = find(&image, InodeNumber::ROOT, b"many");
    let layout = DirLayout::of(&image.geometry, image.inode(many).flags);
    let (_, first) = image.blocks_of(many)[0];
    assert_eq!(IndexRoot::parse(image.block(first), layout, Place::Inode(many)).unwrap().levels, 1);
}

/// The hash that `debugfs` computes, for each version and sign.
#[test]
fn hashes_agree_with_debugfs() {
    use std::fmt::Write;
    let Some(image) = Image::make("", 32) else { return };
    let names = [
        "a",
        "abc",
        "hello world",
        "name-0000000000000000000000000000000000000000001",
        "x.y.z-123",
    ];
    let seed = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
    let versions = [
        ("legacy", HashVersion::Legacy),
        ("half_md4", HashVersion::HalfMd4),
        ("tea", HashVersion::Tea),
    ];
    for (word, version) in versions {
        for name in names {
            let mut command = String::from("dx_hash -s 01020304-0506-0708-090a-0b0c0d0e0f10 -h ");
            write!(command, "{word} \"{name}\"").unwrap();
            let output = std::process::Command::new("debugfs")
                .args(["-R", &command])
                .arg(&image.path)
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let sign = extant_format::hash::CharSign::Signed;
            let hash = DirHasher::Seeded { version, sign, seed }.hash(name.as_bytes());
            let expected = format!("{:#x} (minor {:#x})", hash.major, hash.minor);
            assert!(text.contains(&expected), "{command}: {text}, not {expected}");
        }
    }
}

/// Sound bytes in which a few are wrong never make a decoder panic.
#[test]
fn a_damaged_image_is_refused_without_a_panic() {
    let Some(mut image) = Image::make("-b 1024 -O inline_data", 32) else { return };
    let mut random = extant_testkit::Random::new(1);
    let mut next =
        |limit: usize| usize::try_from(random.below(u64::try_from(limit).unwrap())).unwrap();
    let numbers = image.inodes();
    for _ in 0..20_000 {
        let number = numbers[next(numbers.len())];
        let raw = image.raw_inode(number).to_vec();
        let mut damaged = raw.clone();
        for _ in 0..1 + next(3) {
            let at = next(damaged.len());
            damaged[at] = u8::try_from(next(256)).unwrap();
        }
        let at = Place::Inode(number);
        if let Ok(record) = InodeRecord::decode(&damaged, &image.geometry, number) {
            let _ = XattrView::in_inode(&damaged, record.extra_isize, at, &image.geometry);
            let _ = InlineData::of(&damaged, record.extra_isize, at, &image.geometry);
            let expected = extant_format::extent::Expected::ROOT;
            let _ =
                extant_format::extent::NodeView::new(&record.block, at, &image.geometry, expected);
        }
        let mut superblock: RawSuperblock = *image.superblock.raw();
        let bytes = superblock.as_mut_bytes();
        let at = next(bytes.len());
        bytes[at] = u8::try_from(next(256)).unwrap();
        superblock.set_checksum();
        if let Ok(damaged) = Superblock::try_from(&superblock) {
            let geometry = damaged.geometry();
            let group = extant_format::BlockGroup(geometry.group_count - 1);
            let _ = (geometry.base_meta_blocks(group), geometry.max_indirect_file_bytes());
            let _ =
                (geometry.clusters_in(group), geometry.descriptor_block(geometry.desc_blocks - 1));
        }
    }
    image.bytes.clear();
}
