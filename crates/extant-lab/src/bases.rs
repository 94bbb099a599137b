//! The images that damage starts from: small, of every kind that mke2fs makes, with one of everything in them.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use extant_device::MemoryDevice;
use extant_testkit::oracle::{self, Scratch};

use crate::script::{self, DirectoryTarget, Scale, Xattrs};

/// A kind of image.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// Its name, which never changes.
    pub name: &'static str,
    /// Bytes of the image.
    pub bytes: u64,
    /// Bytes in a block.
    pub block: u32,
    /// Options of mkfs.ext4.
    pub options: &'static [&'static str],
}

/// Every kind, in an order that never changes; new ones come last.
pub const BASES: [Base; 17] = [
    Base { name: "ext4", bytes: 12 << 20, block: 1024, options: &[] },
    Base { name: "ext4-4k", bytes: 24 << 20, block: 4096, options: &[] },
    Base { name: "no-csum", bytes: 12 << 20, block: 1024, options: &["-O", "^metadata_csum"] },
    Base { name: "ext3", bytes: 12 << 20, block: 1024, options: &["-O", "^64bit,^extent"] },
    Base { name: "ext2", bytes: 12 << 20, block: 1024, options: &["-t", "ext2"] },
    Base { name: "inline", bytes: 12 << 20, block: 1024, options: &["-O", "inline_data"] },
    Base { name: "inode-128", bytes: 12 << 20, block: 1024, options: &["-I", "128"] },
    Base {
        name: "bigalloc",
        bytes: 24 << 20,
        block: 1024,
        options: &["-O", "bigalloc", "-C", "8192"],
    },
    Base {
        name: "meta-bg",
        bytes: 24 << 20,
        block: 1024,
        options: &["-O", "meta_bg,^resize_inode", "-g", "2048"],
    },
    Base {
        name: "uninit",
        bytes: 24 << 20,
        block: 1024,
        options: &["-O", "uninit_bg,^metadata_csum"],
    },
    Base { name: "ea-inode", bytes: 12 << 20, block: 1024, options: &["-O", "ea_inode"] },
    Base {
        name: "orphan-file",
        bytes: 12 << 20,
        block: 1024,
        options: &["-O", "orphan_file,metadata_csum_seed"],
    },
    Base { name: "64k", bytes: 160 << 20, block: 65536, options: &[] },
    Base {
        name: "no-journal",
        bytes: 12 << 20,
        block: 2048,
        options: &["-O", "^has_journal,large_dir,quota"],
    },
    Base {
        name: "mmp",
        bytes: 12 << 20,
        block: 1024,
        options: &["-O", "mmp,project,sparse_super2,^resize_inode"],
    },
    Base { name: "quota", bytes: 12 << 20, block: 1024, options: &["-O", "quota,project"] },
    Base { name: "casefold", bytes: 12 << 20, block: 1024, options: &["-O", "casefold"] },
];

impl Base {
    /// The image; `None`, after a skip, where there is no mkfs.ext4. It is made once a run.
    pub fn build(&self) -> Option<MemoryDevice> {
        static MADE: [OnceLock<Option<MemoryDevice>>; BASES.len()] =
            [const { OnceLock::new() }; BASES.len()];
        let number = BASES.iter().position(|base| base.name == self.name).expect("one of the list");
        MADE[number].get_or_init(|| self.make()).as_ref().map(MemoryDevice::snapshot)
    }

    fn make(&self) -> Option<MemoryDevice> {
        let scratch = Scratch::new(self.name);
        let (source, image) = (scratch.path("source"), scratch.path("image"));
        fs::create_dir(&source).expect("the scratch folder is ours");
        let block = usize::try_from(self.block).expect("a block is small");
        let xattr_bytes = if self.name == "ea-inode" { 5000 } else { 400 };
        let scale = Scale {
            block,
            names: 1600,
            pieces: 400,
            xattr_bytes,
            xattrs: Xattrs::User,
            huge: false,
        };
        for operation in script::contents(&scale) {
            // Device files take root, some attributes another kernel; what is missing is not damaged.
            let _ = script::Target::apply(&mut DirectoryTarget::new(&source), &operation);
        }
        let is_folded = self.name == "casefold";
        if is_folded {
            let folder = source.join("cased");
            fs::create_dir(&folder).expect("the scratch folder is ours");
            for n in 0..300 {
                let file = fs::File::create(folder.join(format!("NaMe-\u{e9}-{n:03}")));
                file.expect("the scratch folder is ours");
            }
        }
        let (block, source) =
            (self.block.to_string(), source.to_str().expect("a scratch path is text"));
        let strict = if is_folded { ",encoding_flags=strict" } else { "" };
        let fixed = [
            "-b",
            &block,
            "-U",
            UUID,
            "-E",
            &format!("hash_seed={UUID},lazy_itable_init=0{strict}"),
            "-d",
            source,
        ];
        oracle::mkfs(&image, self.bytes, &[self.options, &fixed].concat())?;
        let image_path = image.to_str().expect("a scratch path is text");
        if self.name == "mmp" {
            // e2fsck would wait for eleven seconds.
            return Some(load(&image));
        }
        if is_folded {
            let flags = |folder| format!("set_inode_field /{folder} flags 0x40080000\n");
            oracle::debugfs_write(&image, &(flags("cased") + &flags("many")))?;
        }
        // Directories get their index here; an exit code of 1 says that something was changed.
        let indexed = oracle::run("e2fsck", &["-fyD", image_path])?;
        assert!(indexed.status.code() <= Some(1), "{}: {}", self.name, oracle::text(&indexed));
        Some(load(&image))
    }
}

/// An image file in memory.
pub fn load(image: &Path) -> MemoryDevice {
    MemoryDevice::from_bytes(&fs::read(image).expect("an image that was made can be read"))
}

/// The UUID and the hash seed of every base.
const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
