//! The library on a real image: what it writes the kernel reads, and e2fsck finds nothing to say.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::io::{Read, Write};
use std::path::Path;

use extant::MountOptions;
use extant_device::FileDevice;
use extant_testkit::oracle;

fn mount(image: &Path, options: MountOptions) -> extant::Filesystem {
    options.mount(FileDevice::open(image).unwrap()).unwrap()
}

const FORMATS: [&[&str]; 7] = [
    &[],
    &["-b", "1024"],
    &["-O", "^metadata_csum"],
    &["-O", "^has_journal"],
    &["-O", "^64bit,^extent"],
    &["-I", "128"],
    &["-O", "inline_data"],
];

#[test]
fn a_device_of_ones_own_needs_no_other_crate() {
    use extant::{
        BlockDevice, BlockDeviceExt, DeviceError, DeviceGeometry, MemoryDevice, Operation, Request,
    };
    struct ReadOnly(MemoryDevice);
    impl BlockDevice for ReadOnly {
        fn geometry(&self) -> DeviceGeometry {
            DeviceGeometry { read_only: true, ..self.0.geometry() }
        }

        fn run(&self, batch: &mut [Request]) {
            assert!(batch.iter().all(|one| matches!(one.operation, Operation::Read { .. })));
            self.0.run(batch);
        }
    }
    let scratch = oracle::Scratch::new("own-device");
    let image = scratch.path("image");
    if oracle::mkfs(&image, 8 << 20, &[]).is_none() {
        return;
    }
    let device = ReadOnly(MemoryDevice::from_bytes(&std::fs::read(&image).unwrap()));
    let past = device.read_vec(8 << 20, 1);
    assert!(matches!(past, Err(DeviceError::OutOfRange { .. })));
    let fs = MountOptions::new().mount(device).unwrap();
    assert_eq!(fs.read_dir("/").unwrap().count(), 1);
}

#[test]
fn names_bytes_and_attributes_reach_the_kernel() {
    let scratch = oracle::Scratch::new("library");
    let image = scratch.path("image");
    for format in FORMATS {
        println!("mkfs.ext4 {format:?}");
        if oracle::mkfs(&image, 64 << 20, format).is_none() {
            return;
        }
        let check = || oracle::e2fsck(&image).unwrap_or_else(|said| panic!("{format:?}: {said}"));
        write(&mount(&image, MountOptions::new()));
        check();
        read(&mount(&image, MountOptions::read_only()));
        let fs = mount(&image, MountOptions::new());
        fs.remove_dir_all("/e").unwrap();
        fs.unmount().unwrap();
        check();
        let Some(kernel) = oracle::KernelMount::new(&image, &scratch.path("mnt"), "") else {
            continue;
        };
        assert_eq!(std::fs::read(kernel.root().join("d/file")).unwrap(), b"hello, world");
        assert_eq!(std::fs::read_link(kernel.root().join("d/short")).unwrap(), Path::new("file"));
        kernel.unmount().unwrap();
    }
}

fn write(fs: &extant::Filesystem) {
    fs.create_dir("/d").unwrap();
    fs.create_dir_all("d/e/f").unwrap();
    let mut file = fs.create("/d/file").unwrap();
    file.write_all(b"hello, world").unwrap();
    drop(file);
    for n in 0..300 {
        let mut file = fs.create(format!("/d/e/name-that-is-a-little-longer-{n}")).unwrap();
        file.write_all(&vec![b'x'; n * 50]).unwrap();
    }
    fs.symlink("file", "/d/short").unwrap();
    fs.symlink(vec![b'a'; 200], "/d/long").unwrap();
    fs.hard_link("/d/file", "/d/hard").unwrap();
    fs.set_xattr("/d/file", "user.name", "value").unwrap();
    fs.set_permissions("/d/file", 0o4755).unwrap();
    for n in (0..300).step_by(3) {
        fs.remove_file(format!("/d/e/name-that-is-a-little-longer-{n}")).unwrap();
    }
    fs.rename("/d/e", "/e").unwrap();
    fs.rename("/d/hard", "/e/moved").unwrap();
    assert!(matches!(fs.open("/nothing"), Err(extant::Error::NotFound)));
    fs.clone().unmount().unwrap();
}

fn read(fs: &extant::Filesystem) {
    let directory = fs.open("/d").unwrap();
    assert!(matches!(directory.read_at(&mut [0; 64], 0), Err(extant::Error::IsDirectory)));
    let mut text = String::new();
    fs.open("/e/../d/short").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello, world");
    assert_eq!(fs.read_dir("/e").unwrap().count(), 202);
    assert_eq!(fs.xattr("/e/moved", "user.name").unwrap(), b"value");
}
