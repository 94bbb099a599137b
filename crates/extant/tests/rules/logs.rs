//! Journals that kernels have left with other features: what a mount makes of them is what the kernel makes.
//!
//! Kernel `fs/ext4/super.c`, `set_journal_csum_feature_set`.

use std::path::Path;
use std::sync::Arc;

use extant::MountOptions;
use extant_device::MemoryDevice;
use extant_testkit::oracle::{self, KernelMount, Scratch};

use crate::world::mount;

/// The features of the journal, but for the one that the kernel sets with the first block that it revokes.
fn features(image: &Path) -> Vec<String> {
    let output = oracle::run("dumpe2fs", &["-h", image.to_str().unwrap()]).unwrap();
    let text = oracle::text(&output);
    let line = text.lines().find_map(|line| line.strip_prefix("Journal features:"));
    let words = line.unwrap_or_default().split_whitespace();
    words
        .filter(|word| !["journal_incompat_revoke", "(none)"].contains(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_mount_sets_the_journals_features_as_the_kernel_does() {
    let scratch = Scratch::new("features");
    let (base, copy, point) = (scratch.path("base"), scratch.path("copy"), scratch.path("mount"));
    let of_kernels =
        ["", "journal_checksum", "journal_async_commit,data=writeback", "nojournal_checksum"];
    let mut seen = Vec::new();
    for format in [&["-b", "1024"][..], &["-O", "^metadata_csum"], &["-O", "^metadata_csum,^64bit"]]
    {
        for options in of_kernels {
            let Some(()) = oracle::mkfs(&base, 16 << 20, format) else { return };
            let Some(first) = KernelMount::new(&base, &point, options) else { return };
            std::fs::create_dir(first.root().join("first")).unwrap();
            first.unmount().unwrap();
            seen.extend(features(&base));
            std::fs::copy(&base, &copy).unwrap();
            let Some(second) = KernelMount::new(&copy, &point, "") else { return };
            std::fs::create_dir(second.root().join("second")).unwrap();
            second.unmount().unwrap();

            let device = Arc::new(MemoryDevice::from_bytes(&std::fs::read(&base).unwrap()));
            let fs = mount(&device, MountOptions::new()).unwrap();
            fs.metadata("/first").unwrap();
            fs.create_dir("/second").unwrap();
            fs.unmount().unwrap();
            std::fs::write(&base, device.to_vec()).unwrap();
            assert_eq!(features(&base), features(&copy), "{format:?} {options}");
            oracle::e2fsck(&base).unwrap();
        }
    }
    for feature in
        ["journal_async_commit", "journal_checksum", "journal_checksum_v3", "journal_64bit"]
    {
        assert!(seen.iter().any(|seen| seen == feature), "{feature} was not there: {seen:?}");
    }
}
