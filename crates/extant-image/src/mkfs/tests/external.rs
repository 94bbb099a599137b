//! Volumes whose journal is on a device of its own, as the engine mounts and writes them.

use std::path::Path;
use std::sync::Arc;

use extant::{Error, Filesystem, MountOptions};
use extant_device::MemoryDevice;
use extant_testkit::oracle::{self, Scratch};

use super::options;
use crate::mkfs::{MkfsOptions, make_journal_device, mkfs, use_journal_device};

fn device(bytes: u64) -> MemoryDevice {
    MemoryDevice::new(bytes)
}

/// A volume and its journal, with blocks of this size.
fn pair(block_size: u32) -> (Arc<MemoryDevice>, Arc<MemoryDevice>) {
    let mut journal_options =
        MkfsOptions { block_size: Some(block_size), uuid: [9; 16], ..options() };
    journal_options.features.apply("journal_dev").unwrap();
    let journal = device(8 << 20);
    make_journal_device(&journal, &journal_options).unwrap();
    let uuid = [7; 16];
    let external = use_journal_device(&journal, block_size, uuid).unwrap();
    let options = MkfsOptions {
        uuid,
        block_size: Some(block_size),
        external_journal: Some(external),
        ..options()
    };
    let volume = device(64 << 20);
    mkfs(&volume, &options).unwrap();
    (Arc::new(volume), Arc::new(journal))
}

fn mount(
    volume: &Arc<MemoryDevice>,
    journal: Option<&Arc<MemoryDevice>>,
    options: MountOptions,
) -> Result<Filesystem, Error> {
    let options = match journal {
        Some(journal) => options.journal_device(Arc::<MemoryDevice>::clone(journal)),
        None => options,
    };
    options.mount(Arc::clone(volume))
}

/// What e2fsck says with these letters, and its exit code.
fn e2fsck(letters: &str, volume: &Path, journal: &Path) -> Option<(String, Option<i32>)> {
    let names = [journal.to_str().unwrap(), volume.to_str().unwrap()];
    let output = oracle::run("e2fsck", &[letters, "-j", names[0], names[1]])?;
    Some((oracle::text(&output), output.status.code()))
}

fn is_clean(volume: &MemoryDevice, journal: &MemoryDevice) {
    let scratch = Scratch::new("external-clean");
    let paths = (scratch.path("volume"), scratch.path("journal"));
    std::fs::write(&paths.0, volume.to_vec()).unwrap();
    std::fs::write(&paths.1, journal.to_vec()).unwrap();
    if let Some((said, code)) = e2fsck("-fn", &paths.0, &paths.1) {
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn what_was_synced_is_in_the_journal_device_and_recovered_by_both() {
    for block_size in [1024, 2048, 4096] {
        let (volume, journal) = pair(block_size);
        let fs = mount(&volume, Some(&journal), MountOptions::new()).unwrap();
        for n in 0..40 {
            fs.create_dir(format!("/d{n}")).unwrap();
            let file = fs.create(format!("/d{n}/f")).unwrap();
            file.write_at(&[7; 9000], 0).unwrap();
            file.sync_all().unwrap();
        }
        // A power cut: what is not home yet is in the log alone.
        let cut = (Arc::new(volume.snapshot()), Arc::new(journal.snapshot()));
        assert!(cut.1.to_vec() != pair(block_size).1.to_vec(), "nothing is in the log");
        let look = |fs: &Filesystem| {
            for n in 0..40 {
                let file = fs.open(format!("/d{n}/f")).unwrap();
                let mut bytes = [0; 9000];
                assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 9000);
                assert!(bytes == [7; 9000]);
            }
        };
        // Without the device there is no volume, not even to read.
        assert!(matches!(mount(&cut.0, None, MountOptions::new()), Err(Error::Unsupported(_))));
        assert!(matches!(
            mount(&cut.0, None, MountOptions::read_only()),
            Err(Error::Unsupported(_))
        ));
        let before = (cut.0.to_vec(), cut.1.to_vec());
        look(&mount(&cut.0, Some(&cut.1), MountOptions::read_only()).unwrap());
        assert!(before == (cut.0.to_vec(), cut.1.to_vec()), "a reader has written");

        let scratch = Scratch::new("external");
        let paths = (scratch.path("volume"), scratch.path("journal"));
        std::fs::write(&paths.0, &before.0).unwrap();
        std::fs::write(&paths.1, &before.1).unwrap();
        if let Some((said, code)) = e2fsck("-fy", &paths.0, &paths.1) {
            assert!(code.is_some_and(|code| code <= 1), "{said}");
            let load =
                |path: &Path| Arc::new(MemoryDevice::from_bytes(&std::fs::read(path).unwrap()));
            look(
                &mount(&load(&paths.0), Some(&load(&paths.1)), MountOptions::read_only()).unwrap(),
            );
        }
        let recovered = mount(&cut.0, Some(&cut.1), MountOptions::new()).unwrap();
        look(&recovered);
        recovered.unmount().unwrap();
        is_clean(&cut.0, &cut.1);
        fs.unmount().unwrap();
        is_clean(&volume, &journal);
        // A clean volume is read without it.
        look(&mount(&volume, None, MountOptions::read_only()).unwrap());
    }
}

#[test]
fn only_the_volumes_own_journal_device_is_taken() {
    let (volume, journal) = pair(4096);
    let refused = |journal: MemoryDevice| {
        let before = volume.to_vec();
        let refused = mount(&volume, Some(&Arc::new(journal)), MountOptions::new());
        assert!(volume.to_vec() == before);
        refused.map(drop).unwrap_err().to_string()
    };
    assert!(refused(device(8 << 20)).contains("holds no journal"));
    assert!(refused(device(512)).contains("holds no journal"));
    let mut other = MkfsOptions { block_size: Some(4096), uuid: [8; 16], ..options() };
    other.features.apply("journal_dev").unwrap();
    let stranger = device(8 << 20);
    make_journal_device(&stranger, &other).unwrap();
    assert!(refused(stranger).contains("another volume's"));
    let fs = mount(&volume, Some(&journal), MountOptions::new()).unwrap();
    fs.unmount().unwrap();
}
