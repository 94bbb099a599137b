//! The kinds of images that mke2fs can make, for the reading and the writing matrix.

use std::fs;
use std::path::Path;
use std::time::Instant;

use extant_testkit::oracle::{self, KernelMount, Scratch};

use crate::script::{DirectoryTarget, Operation, Scale, Target, Xattrs, contents};

/// A kind of image, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Bytes in a block.
    pub block: u32,
    /// Options of mkfs.ext4 beside the block size.
    pub options: &'static [&'static str],
    /// Mebibytes of the image.
    pub mebibytes: u64,
    /// Whether the kernel here mounts it.
    pub kernel: bool,
    /// The feature for which the engine opens it read-only.
    pub read_only: Option<&'static str>,
}

const fn recipe(name: &'static str, block: u32, options: &'static [&'static str]) -> Recipe {
    Recipe { name, block, options, mebibytes: 64, kernel: true, read_only: None }
}

const fn unmountable(recipe: Recipe) -> Recipe {
    Recipe { kernel: false, mebibytes: 256, ..recipe }
}

const fn read_only(recipe: Recipe, feature: &'static str) -> Recipe {
    Recipe { read_only: Some(feature), ..recipe }
}

/// Every kind.
pub const RECIPES: [Recipe; 29] = [
    recipe("ext4", 4096, &[]),
    recipe("ext4-1k", 1024, &[]),
    recipe("ext4-2k", 2048, &[]),
    unmountable(recipe("ext4-8k", 8192, &[])),
    unmountable(recipe("ext4-64k", 65536, &["-J", "size=64"])),
    recipe("ext2", 4096, &["-t", "ext2"]),
    recipe("ext2-1k", 1024, &["-t", "ext2"]),
    recipe("ext3", 4096, &["-t", "ext3"]),
    recipe("ext3-1k", 1024, &["-O", "^64bit,^extent"]),
    recipe("inode-128", 4096, &["-I", "128"]),
    recipe("inode-1024", 4096, &["-I", "1024"]),
    recipe("no-csum", 4096, &["-O", "^metadata_csum"]),
    recipe("no-journal", 4096, &["-O", "^has_journal"]),
    recipe("no-dir-index", 1024, &["-O", "^dir_index"]),
    recipe("inline", 4096, &["-O", "inline_data"]),
    recipe("inline-1k", 1024, &["-O", "inline_data", "-I", "512"]),
    recipe("bigalloc", 4096, &["-O", "bigalloc", "-C", "65536"]),
    recipe("bigalloc-1k", 1024, &["-O", "bigalloc", "-C", "4096"]),
    recipe("meta-bg", 1024, &["-O", "meta_bg,^resize_inode"]),
    recipe("sparse-super2", 4096, &["-O", "sparse_super2,^resize_inode", "-g", "4096"]),
    recipe("uninit", 1024, &["-O", "uninit_bg,^metadata_csum"]),
    recipe("csum-seed", 4096, &["-O", "metadata_csum_seed"]),
    recipe("orphan-file", 4096, &["-O", "orphan_file"]),
    read_only(recipe("mmp", 4096, &["-O", "mmp"]), "mmp"),
    unmountable(recipe("project", 4096, &["-O", "project"])),
    recipe("ea-inode", 1024, &["-O", "ea_inode"]),
    recipe("large-dir", 1024, &["-O", "large_dir"]),
    read_only(unmountable(recipe("quota", 4096, &["-O", "quota"])), "quota"),
    read_only(
        unmountable(recipe("verity-encrypt-casefold", 4096, &["-O", "verity,encrypt,casefold"])),
        "verity",
    ),
];

impl Recipe {
    /// Makes an image, empty or with a copy of `source`; or skips.
    pub fn make(&self, image: &Path, source: Option<&Path>) -> Option<()> {
        let block = self.block.to_string();
        let source = source.map(|path| path.to_str().expect("a scratch path is text"));
        let source = source.map_or(vec![], |source| vec!["-d", source]);
        let options = [self.options, &["-b", &block, "-N", "4096"], &source].concat();
        oracle::mkfs(image, self.mebibytes << 20, &options)
    }

    /// What is put into the image; `names` go into its largest directory.
    pub fn contents(&self, names: u32, xattrs: Xattrs) -> Vec<Operation> {
        let has = |feature: &str| self.options.iter().any(|option| option.contains(feature));
        let room = usize::try_from(self.block).expect("small").min(4096);
        contents(&Scale {
            block: usize::try_from(self.block).expect("small"),
            names,
            pieces: if self.block <= 4096 { 700 } else { 20 },
            xattr_bytes: if has("ea_inode") { 20_000 } else { room / 2 },
            xattrs,
            huge: self.kernel && !has("ext2") && !has("bigalloc"),
        })
    }

    /// The features' own limits: what this kind of image refuses of [`Self::contents`], though it is no error.
    pub fn may_refuse(&self, operation: &Operation) -> bool {
        // The block of attributes is full; ext2 and ext3 give out sooner than others.
        matches!(operation, Operation::SetXattr { .. }) && self.options.contains(&"128")
    }
}

/// Names that give a directory an index, of two levels with blocks of 1 KiB.
pub const MANY: u32 = 3000;

/// A kernel mount that a script has filled, synced and still mounted.
#[derive(Debug)]
pub struct Filled {
    /// The mount.
    pub mount: KernelMount,
}

impl Filled {
    /// Runs `script` on a kernel mount of `image`; `None`, after a skip, where nothing can be mounted.
    ///
    /// # Errors
    /// The operation that failed.
    pub fn new(
        scratch: &Scratch,
        image: &Path,
        recipe: &Recipe,
        script: &[Operation],
    ) -> Option<Result<Self, String>> {
        let mount = KernelMount::new(image, &scratch.path("mount"), "noatime")?;
        let filled = fill(mount.root(), recipe, script);
        Some(filled.map(|()| Self { mount }))
    }
}

/// Runs `script` below `root` and syncs.
///
/// # Errors
/// The operation that failed.
pub fn fill(root: &Path, recipe: &Recipe, script: &[Operation]) -> Result<(), String> {
    let mut target = DirectoryTarget::new(root);
    for operation in script {
        match target.apply(operation) {
            Err(errno) if !recipe.may_refuse(operation) => {
                return Err(format!("{}: {operation:?}: {errno}", recipe.name));
            }
            _ => {}
        }
    }
    target.apply(&Operation::Sync).map(drop).map_err(|errno| format!("sync: {errno}"))
}

/// Whether this process may make device files and set every kind of attribute.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every recipe, each in a scratch folder of its own, and what went wrong with any.
///
/// # Panics
/// If anything did.
pub fn for_each(recipes: &[Recipe], check: impl Fn(&Recipe, &Scratch) -> Result<(), String>) {
    let failures: Vec<String> = recipes
        .iter()
        .filter_map(|recipe| {
            let start = Instant::now();
            let result = check(recipe, &Scratch::new(recipe.name));
            println!("{}: {:?}", recipe.name, start.elapsed());
            result.err().map(|reason| format!("{}: {reason}", recipe.name))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} kinds of images:\n{}",
        failures.len(),
        recipes.len(),
        failures.join("\n")
    );
}

/// Some lines of many.
pub fn some(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(12);
    let shown = lines.iter().take(12).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    format!("{} differences\n  {shown}{}", lines.len(), if more > 0 { "\n  ..." } else { "" })
}

/// A copy of an image file in memory of the machine, holes left out.
///
/// # Panics
/// If there is no room.
pub fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("there is room for an image");
}
