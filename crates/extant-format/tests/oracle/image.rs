//! An image that the host's `mkfs.ext4` has made, read by this crate's views alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use extant_format::cast::{u64_from, usize_from};
use extant_format::extent::{Expected, NodeView};
use extant_format::features::Incompat;
use extant_format::indirect::{self, IndirectPath};
use extant_format::inline::InlineData;
use extant_format::{
    BlockGroup, Geometry, GroupDescriptor, InodeFlags, InodeNumber, InodeRecord, LogicalBlock,
    PhysicalBlock, Place, Superblock,
};

/// An image in memory, and the file it came from.
pub struct Image {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub superblock: Superblock,
    pub geometry: Geometry,
    _directory: tempfile::TempDir,
}

impl Image {
    /// Makes an image of `mebibytes` with `mkfs.ext4 options`, filled with files of all kinds; `None`, and a word of it, if the
    /// tools are missing.
    pub fn make(options: &str, mebibytes: u64) -> Option<Self> {
        Self::make_with_names(options, mebibytes, 300)
    }

    /// The same with `names` names in the directory `many`.
    pub fn make_with_names(options: &str, mebibytes: u64, names: usize) -> Option<Self> {
        for tool in ["mkfs.ext4", "debugfs", "e2fsck"] {
            if Command::new(tool).arg("-V").output().is_err() {
                extant_testkit::skip(&format!("{tool} is missing"));
                return None;
            }
        }
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (path, source) = (directory.path().join("image"), directory.path().join("source"));
        fill(&source, names);
        fs::File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-d"]).arg(&source).args(options.split_whitespace()).arg(&path);
        let output = mkfs.output().unwrap();
        assert!(
            output.status.success(),
            "mkfs.ext4 {options}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(Self::open(path, directory))
    }

    fn open(path: PathBuf, directory: tempfile::TempDir) -> Self {
        let bytes = fs::read(&path).unwrap();
        let superblock = Superblock::parse(&bytes[1024..2048]).unwrap();
        let geometry = *superblock.geometry();
        Self { path, bytes, superblock, geometry, _directory: directory }
    }

    /// Runs `debugfs` commands, writing, and reads the image again.
    pub fn debugfs(self, commands: &str) -> Self {
        let script = self.path.with_extension("debugfs");
        fs::write(&script, commands).unwrap();
        let output = Command::new("debugfs")
            .args(["-w", "-f"])
            .arg(&script)
            .arg(&self.path)
            .output()
            .unwrap();
        assert!(output.status.success(), "debugfs: {}", String::from_utf8_lossy(&output.stderr));
        Self::open(self.path, self._directory)
    }

    /// Writes the bytes back, runs `e2fsck` with `options`, and reads the image again.
    pub fn e2fsck(self, options: &[&str]) -> Self {
        fs::write(&self.path, &self.bytes).unwrap();
        let output = Command::new("e2fsck").args(options).arg(&self.path).output().unwrap();
        let code = output.status.code().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(code <= 1, "e2fsck {options:?}: {text}");
        Self::open(self.path, self._directory)
    }

    pub fn block(&self, block: PhysicalBlock) -> &[u8] {
        let start = usize::try_from(block.get()).unwrap() * self.geometry.block_len();
        &self.bytes[start..start + self.geometry.block_len()]
    }

    pub fn block_mut(&mut self, block: PhysicalBlock) -> &mut [u8] {
        let start = usize::try_from(block.get()).unwrap() * self.geometry.block_len();
        &mut self.bytes[start..start + self.geometry.block_len()]
    }

    pub fn raw_descriptor(&self, group: BlockGroup) -> &[u8] {
        let (index, at) = self.geometry.descriptor_place(group);
        &self.block(self.geometry.descriptor_block(index))[at..]
            [..usize_from(self.geometry.desc_size)]
    }

    pub fn descriptor(&self, group: BlockGroup) -> GroupDescriptor {
        GroupDescriptor::decode(self.raw_descriptor(group), &self.geometry, group).unwrap()
    }

    pub fn raw_inode(&self, inode: InodeNumber) -> &[u8] {
        let (group, index) = self.geometry.inode_place(inode).unwrap();
        let (block, at) = self.geometry.inode_location(self.descriptor(group).inode_table, index);
        &self.block(block)[at..][..usize_from(self.geometry.inode_size)]
    }

    pub fn inode(&self, inode: InodeNumber) -> InodeRecord {
        InodeRecord::decode(self.raw_inode(inode), &self.geometry, inode).unwrap()
    }

    pub fn seed(&self, inode: InodeNumber) -> u32 {
        extant_format::inode::seed_of(self.raw_inode(inode), &self.geometry, inode)
    }

    /// Every mapped block of a file, by its place in the file.
    pub fn blocks_of(&self, inode: InodeNumber) -> Vec<(u32, PhysicalBlock)> {
        let record = self.inode(inode);
        let mut blocks = Vec::new();
        if record.flags.contains(InodeFlags::EXTENTS) {
            self.walk(inode, &record.block, Place::Inode(inode), Expected::ROOT, &mut blocks);
            return blocks;
        }
        for n in 0..u32::try_from(record.size.div_ceil(self.geometry.block_size.into())).unwrap() {
            let path = IndirectPath::to(LogicalBlock::new(n).unwrap(), &self.geometry).unwrap();
            let (first, rest) = path.offsets().split_first().unwrap();
            let start = indirect::pointer(&record.block, *first);
            let end =
                rest.iter().fold(start, |at, &offset| indirect::pointer(self.block(at?), offset));
            blocks.extend(end.map(|block| (n, block)));
        }
        blocks
    }

    fn walk(
        &self,
        inode: InodeNumber,
        bytes: &[u8],
        at: Place,
        expected: Expected,
        blocks: &mut Vec<(u32, PhysicalBlock)>,
    ) {
        let node = NodeView::new(bytes, at, &self.geometry, expected).unwrap();
        for extent in node.extents() {
            let home = |n| (n, extent.map(LogicalBlock::new(n).unwrap()).unwrap());
            blocks.extend((extent.blocks.start().get()..extent.blocks.end()).map(home));
        }
        for (i, index) in node.indexes().enumerate() {
            let child = self.block(index.child);
            let summed = self.geometry.has_metadata_csum();
            assert!(
                !summed || extant_format::extent::verify_block_checksum(child, self.seed(inode))
            );
            let place = Place::InodeBlock(inode, index.child);
            self.walk(inode, child, place, node.expected_of_child(i, expected).unwrap(), blocks);
        }
    }

    /// A file's bytes.
    pub fn read(&self, inode: InodeNumber) -> Vec<u8> {
        let record = self.inode(inode);
        let size = usize::try_from(record.size).unwrap();
        let mut bytes = vec![0; size.next_multiple_of(self.geometry.block_len())];
        if record.flags.contains(InodeFlags::INLINE_DATA) {
            let raw = self.raw_inode(inode);
            let data = InlineData::of(raw, record.extra_isize, Place::Inode(inode), &self.geometry)
                .unwrap();
            data.read(0, &mut bytes);
        } else if record.is_fast_symlink(&self.geometry) {
            bytes[..60].copy_from_slice(&record.block);
        } else {
            for (n, block) in self.blocks_of(inode) {
                let start = usize_from(n) * self.geometry.block_len();
                if u64_from(start) < record.size {
                    bytes[start..start + self.geometry.block_len()]
                        .copy_from_slice(self.block(block));
                }
            }
        }
        bytes.truncate(size);
        bytes
    }

    /// All inodes in use, by the bitmaps.
    pub fn inodes(&self) -> Vec<InodeNumber> {
        let in_group = |group| {
            let descriptor = self.descriptor(group);
            let bits = self.block(descriptor.inode_bitmap);
            let uninit = descriptor.inodes_are_uninitialized(&self.geometry);
            let count = if uninit { 0 } else { self.geometry.inodes_per_group };
            let used = (0..count).filter(|&n| extant_format::bitmap::test(bits, n));
            used.map(|n| self.geometry.inode_at(group, n).unwrap()).collect::<Vec<_>>()
        };
        self.geometry.groups().flat_map(in_group).collect()
    }

    pub fn has(&self, feature: Incompat) -> bool {
        self.geometry.incompat.contains(feature)
    }
}

/// Files of all kinds: empty, small, large, full of holes; many names; links.
fn fill(source: &Path, names: usize) {
    let many = source.join("many");
    fs::create_dir_all(&many).unwrap();
    for n in 0..names {
        fs::write(many.join(format!("name-{n:0width$}", width = 1 + n % 90)), format!("{n}"))
            .unwrap();
    }
    fs::write(many.join("\u{e9}\u{fc}-high-bytes"), "x").unwrap();
    fs::create_dir_all(source.join("a/b/c")).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("small"), "a few bytes").unwrap();
    fs::write(source.join("medium"), vec![b'm'; 100]).unwrap();
    fs::write(source.join("large"), (0..500_000_u32).flat_map(low_bytes).collect::<Vec<_>>())
        .unwrap();
    fs::hard_link(source.join("small"), source.join("a/linked")).unwrap();
    std::os::unix::fs::symlink("short", source.join("short-link")).unwrap();
    std::os::unix::fs::symlink("long/".repeat(40), source.join("long-link")).unwrap();
    let holes = fs::File::create(source.join("holes")).unwrap();
    for n in 0..400_u64 {
        std::os::unix::fs::FileExt::write_at(&holes, format!("piece {n}").as_bytes(), n * 12288)
            .unwrap();
    }
}

fn low_bytes(n: u32) -> [u8; 2] {
    extant_format::cast::low_u16(n).to_le_bytes()
}
