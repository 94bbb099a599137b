//! Sound images of every kind, in which `check` may find nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use extant::MountOptions;
use extant_device::MemoryDevice;
use extant_image::check::{CheckOptions, check};
use extant_testkit::Random;
use extant_testkit::oracle::{self, Scratch};

use crate::bases::load;
use crate::damage::{Found, random_change};
use crate::script::{self, DirectoryTarget, Scale, Target, Xattrs};
use crate::volume::Volume;

/// A kind of sound image.
#[derive(Clone, Copy, Debug)]
pub struct Clean {
    /// Options of mkfs.ext4.
    pub options: &'static [&'static str],
    /// Mebibytes.
    pub mebibytes: u64,
    /// Whether the engine writes to it.
    pub writable: bool,
}

const fn kind(options: &'static [&'static str], mebibytes: u64) -> Clean {
    Clean { options, mebibytes, writable: true }
}

const fn read_only(options: &'static [&'static str], mebibytes: u64) -> Clean {
    Clean { options, mebibytes, writable: false }
}

/// Every kind.
pub const KINDS: [Clean; 34] = [
    kind(&["-b", "1024"], 12),
    kind(&["-b", "2048"], 16),
    kind(&["-b", "4096"], 16),
    kind(&["-b", "1024", "-t", "ext2"], 8),
    kind(&["-b", "4096", "-t", "ext2"], 8),
    kind(&["-b", "1024", "-t", "ext3"], 12),
    kind(&["-b", "4096", "-O", "^64bit,^extent"], 16),
    kind(&["-b", "1024", "-O", "^metadata_csum"], 12),
    kind(&["-b", "1024", "-O", "uninit_bg,^metadata_csum"], 16),
    kind(&["-b", "1024", "-O", "inline_data"], 12),
    kind(&["-b", "4096", "-O", "inline_data", "-I", "512"], 16),
    kind(&["-b", "1024", "-I", "128"], 12),
    kind(&["-b", "1024", "-I", "1024"], 16),
    kind(&["-b", "1024", "-O", "bigalloc", "-C", "8192"], 16),
    kind(&["-b", "4096", "-O", "bigalloc", "-C", "65536"], 24),
    kind(&["-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "1024"], 16),
    kind(&["-b", "1024", "-O", "^flex_bg"], 16),
    kind(&["-b", "1024", "-O", "^has_journal"], 6),
    kind(&["-b", "1024", "-O", "^has_journal,^dir_index"], 6),
    kind(&["-b", "1024", "-O", "^has_journal,^filetype"], 6),
    kind(&["-b", "1024", "-O", "^has_journal,large_dir"], 6),
    kind(&["-b", "1024", "-O", "^has_journal,ea_inode"], 8),
    kind(&["-b", "1024", "-O", "sparse_super2,^resize_inode", "-g", "2048"], 12),
    kind(&["-b", "1024", "-O", "orphan_file,metadata_csum_seed"], 12),
    kind(&["-b", "1024", "-O", "^sparse_super,^resize_inode", "-g", "2048"], 12),
    kind(&["-b", "1024", "-O", "^extra_isize,^huge_file,^dir_nlink"], 12),
    kind(&["-b", "1024", "-O", "fast_commit"], 16),
    read_only(&["-b", "1024", "-O", "quota,project"], 12),
    read_only(&["-b", "1024", "-O", "^has_journal,quota"], 6),
    read_only(&["-b", "4096", "-O", "casefold"], 16),
    read_only(&["-b", "1024", "-O", "mmp"], 12),
    read_only(&["-b", "4096", "-O", "verity,encrypt"], 16),
    read_only(&["-b", "1024", "-O", "quota,project,bigalloc", "-C", "8192"], 16),
    read_only(&["-b", "2048", "-O", "quota,project,ea_inode,inline_data"], 16),
];

/// Makes `count` sound images, kinds and contents by turns, and says which of them `check` finds fault with.
///
/// # Panics
/// If an image cannot be made.
pub fn clean_images(first: u64, count: u64) -> Vec<String> {
    let scratch = Scratch::new("clean");
    let mut failures = Vec::new();
    for number in first..first + count {
        let kinds = extant_format::cast::u64_from(KINDS.len());
        let kind = &KINDS[usize::try_from(number % kinds).expect("small")];
        let Some(image) = make(kind, number, &scratch) else { continue };
        let report = check(&image, &CheckOptions::default());
        let said = match report {
            Err(error) => error.to_string(),
            Ok(report) if report.findings.is_empty() => continue,
            Ok(report) => {
                let all: Vec<_> = report.findings.iter().take(5).map(ToString::to_string).collect();
                all.join("; ")
            }
        };
        let path = scratch.path("failed.img");
        super::store(&image, &path);
        let theirs = oracle::e2fsck(&path).err().unwrap_or_else(|| "clean".to_owned());
        failures.push(format!("image {number} {:?}: {said}\n  e2fsck: {theirs}", kind.options));
    }
    failures
}

/// One image: filled by mke2fs or by the engine, and changed by it.
fn make(kind: &Clean, number: u64, scratch: &Scratch) -> Option<MemoryDevice> {
    let mut random = Random::new(number);
    let (path, source) = (scratch.path("image"), scratch.path("source"));
    let is_filled = random.below(3) > 0;
    let mut options = kind.options.to_vec();
    if is_filled {
        if !source.exists() {
            fill(&source);
        }
        options.extend(["-d", source.to_str().expect("a scratch path is text")]);
    }
    oracle::mkfs(&path, kind.mebibytes << 20, &options)?;
    let has = |feature: &str| kind.options.iter().any(|option| option.contains(feature));
    // What mke2fs is told to copy it does not count.
    if is_filled && !has("mmp") && (random.coin() || has("quota")) {
        let text = path.to_str().expect("a scratch path is text");
        oracle::run("e2fsck", &["-fyD", text])?;
    }
    let image = Arc::new(load(&path));
    if kind.writable {
        change(&image, &mut random);
    }
    Some(image.snapshot())
}

fn fill(source: &Path) {
    fs::create_dir(source).expect("the scratch folder is ours");
    let scale = Scale {
        block: 1024,
        names: 500,
        pieces: 60,
        xattr_bytes: 300,
        xattrs: Xattrs::User,
        huge: false,
    };
    for operation in script::contents(&scale) {
        let _ = DirectoryTarget::new(source).apply(&operation);
    }
}

/// Random changes by the engine, of which each may fail.
fn change(image: &Arc<MemoryDevice>, random: &mut Random) {
    let Ok(volume) = Volume::mount(image.clone(), MountOptions::new()) else { return };
    let mut found = Found {
        files: vec![b"/one".to_vec(), b"/two".to_vec(), b"/new 3".to_vec()],
        directories: vec![Vec::new(), b"/folder".to_vec()],
        others: vec![b"/link".to_vec()],
    };
    found.files.push(b"/sizes/300000".to_vec());
    for number in 0..60 {
        if let Some(operation) = random_change(&found, number, random) {
            let _ = volume.try_apply(&operation);
        }
    }
    volume.unmount().expect("a sound image is left");
}
