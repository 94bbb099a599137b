//! No space: said by `write`, never by writeback.

use std::sync::Arc;

use extant::{Caller, DataMode, Errno, Error, File, Filesystem, MountOptions, RangeChange};
use extant_device::MemoryDevice;

use crate::world::{World, mount, open, read};

/// Files written until there is no space; every write that succeeded must then go out and be read back.
fn fill(world: &World, image: &MemoryDevice, options: MountOptions, stride: u64, files: usize) {
    let device = Arc::new(image.snapshot());
    let fs = mount(&device, options.clone()).unwrap();
    let block = u64::from(fs.statfs().block_size);
    let written = write_until_full(&fs, block, stride, files);
    fs.sync_all().unwrap();
    for (n, offsets) in written.iter().enumerate() {
        let file = open(&fs, &format!("/{n}"));
        file.sync_all().unwrap();
        for &offset in offsets {
            let mut bytes = vec![0; usize::try_from(block).unwrap()];
            file.read_at(&mut bytes, offset).unwrap();
            assert!(bytes.iter().all(|&byte| byte == 7), "file {n} at {offset}");
        }
    }
    // What is removed can be used again.
    fs.remove_file("/0").unwrap();
    assert_eq!(open(&fs, "/again").write_at(&[9; 1024], 0).unwrap(), 1024);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
    let fs = mount(&device, MountOptions::read_only()).unwrap();
    assert!(read(&fs, "/again").unwrap() == [9; 1024]);
}

fn write_until_full(fs: &Filesystem, block: u64, stride: u64, files: usize) -> Vec<Vec<u64>> {
    let handles: Vec<_> = (0..files).map(|n| open(fs, &format!("/{n}"))).collect();
    let mut written = vec![Vec::new(); files];
    let bytes = vec![7; usize::try_from(block).unwrap()];
    for n in 0.. {
        for (file, offsets) in handles.iter().zip(&mut written) {
            let offset = n * block * stride;
            match file.write_at(&bytes, offset) {
                Ok(count) => assert_eq!(count, bytes.len()),
                Err(error) => {
                    assert_eq!(error.errno(), Errno::NOSPC);
                    return written;
                }
            }
            offsets.push(offset);
        }
    }
    unreachable!("the loop ends with the space")
}

#[test]
fn no_space_is_said_by_write_and_never_by_writeback() {
    let world = World::new("full");
    for format in [
        &["-b", "1024"][..],
        &["-b", "4096"],
        &["-b", "1024", "-m", "0", "-O", "^has_journal"],
        &["-b", "1024", "-m", "0", "-O", "^extent,^64bit"],
    ] {
        let Some(image) = world.mkfs(8, format) else { return };
        for (stride, files) in [(1, 1), (2, 1), (2, 40), (3, 7)] {
            fill(&world, &image, MountOptions::new(), stride, files);
        }
        fill(&world, &image, MountOptions::new().unwritten_until_done(false), 2, 3);
        fill(&world, &image, MountOptions::new().delayed_allocation(false), 2, 3);
        if !format.contains(&"^has_journal") {
            fill(&world, &image, MountOptions::new().data_mode(DataMode::Journal), 2, 3);
        }
    }
}

/// Root's share is refused to an ordinary caller, whichever way he asks (D10.4, D10.5).
#[test]
fn d10_5_only_root_has_what_is_kept_for_root() {
    let world = World::new("reserve");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-m", "20"]) else { return };
    for delayed in [true, false] {
        let device = Arc::new(image.snapshot());
        let options = MountOptions::new().delayed_allocation(delayed);
        let fs = mount(&device, options).unwrap();
        let user = open(&fs, "/his").for_caller(&Caller::user(1000, 1000));
        let mut end = 0;
        let refused = loop {
            match user.write_at(&[7; 1024], end) {
                Ok(count) => end += u64::try_from(count).unwrap(),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.errno(), Errno::NOSPC);
        fs.sync_all().unwrap();
        let left = fs.statfs();
        assert!(left.available_blocks < 8 && left.free_blocks > 1600, "{left:?}");
        user.set_len(1 << 20).unwrap();
        user.set_len(2 << 20).unwrap();
        let change = RangeChange::Allocate { keep_size: false };
        let allocated = user.change_range(change, 0, 8 << 20);
        assert_eq!(allocated.unwrap_err().errno(), Errno::NOSPC);
        assert!(fs.statfs().free_blocks > 1600);
        assert_eq!(open(&fs, "/roots").write_at(&[9; 100 << 10], 0).unwrap(), 100 << 10);
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

/// It is root's for whatever needs a block: directories, links, attributes, bytes that leave their inode (D10.4).
#[test]
fn d10_5_root_has_it_for_metadata_and_for_contents_of_inodes() {
    let world = World::new("reserve-metadata");
    let options = ["-b", "1024", "-m", "20", "-O", "inline_data"];
    let Some(image) = world.mkfs(8, &options) else { return };
    for delayed in [true, false] {
        let device = Arc::new(image.snapshot());
        let fs = mount(&device, MountOptions::new().delayed_allocation(delayed)).unwrap();
        for name in ["/written", "/allocated", "/grown"] {
            open(&fs, name).write_at(b"hello", 0).unwrap();
        }
        let user = |name: &str| open(&fs, name).for_caller(&Caller::user(1000, 1000));
        let full = user("/his");
        (0..).find(|n| full.write_at(&[7; 1024], n << 10).is_err());
        fs.sync_all().unwrap();
        (0..).find(|n| full.write_at(&[7; 1024], (16 << 20) + (n << 10)).is_err());
        fs.sync_all().unwrap();
        let change = RangeChange::Allocate { keep_size: true };
        type Way<'w> = (&'w str, &'w dyn Fn(&File) -> Result<(), Error>);
        let ways: [Way<'_>; 3] = [
            ("/written", &|file| file.write_at(&[7; 1024], 1024).map(drop)),
            ("/allocated", &|file| file.change_range(change, 0, 1024)),
            ("/grown", &|file| file.set_len(1 << 20)),
        ];
        for (name, way) in ways {
            assert_eq!(way(&user(name)).unwrap_err().errno(), Errno::NOSPC, "{name}");
            assert_eq!(read(&fs, name).unwrap(), b"hello");
            way(&open(&fs, name)).unwrap();
            assert_eq!(read(&fs, name).unwrap()[..5], *b"hello");
        }
        for n in 0..20 {
            fs.create_dir(format!("/{n:0200}")).unwrap();
            fs.symlink(vec![b'l'; 800], format!("/{n:0200}/link")).unwrap();
            fs.set_xattr(format!("/{n:0200}/link"), "trusted.a", vec![b'x'; 600]).unwrap();
        }
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn names_that_find_no_space_leave_nothing_behind() {
    let world = World::new("names");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-m", "0", "-N", "2000"]) else { return };
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    write_until_full(&fs, 1024, 1, 1);
    fs.sync_all().unwrap();
    let error = (0..3000).find_map(|n| fs.create_dir(format!("/d{n}")).err()).unwrap();
    assert_eq!(error.errno(), Errno::NOSPC);
    let link = fs.symlink(vec![b'l'; 200], "/link").unwrap_err();
    assert_eq!(link.errno(), Errno::NOSPC);
    let error = (0..3000).find_map(|n| {
        fs.mknod(format!("/{n:0200}"), extant::namespace::NodeKind::Fifo, 0o600).err()
    });
    assert_eq!(error.unwrap().errno(), Errno::NOSPC);
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
}

#[test]
fn an_attribute_that_finds_no_space_leaves_no_value_behind() {
    let world = World::new("values");
    for format in [&["-O", "ea_inode"][..], &["-O", "ea_inode,^has_journal"]] {
        let options = [&["-b", "1024", "-m", "0"], format].concat();
        let Some(image) = world.mkfs(8, &options) else { return };
        let device = Arc::new(image);
        let fs = mount(&device, MountOptions::new()).unwrap();
        for n in 0..40 {
            open(&fs, &format!("/with-{n}"));
        }
        write_until_full(&fs, 1024, 1, 1);
        fs.sync_all().unwrap();
        // Room for some of the blocks that each value needs, one more in every round.
        for n in 0..40_u64 {
            let size = fs.metadata("/0").unwrap().size;
            open(&fs, "/0").set_len(size - 1024).unwrap();
            fs.sync_all().unwrap();
            let value = vec![u8::try_from(n).unwrap() + 1; 5000];
            if let Err(error) = fs.set_xattr(format!("/with-{n}"), "user.value", value) {
                assert_eq!(error.errno(), Errno::NOSPC);
            }
        }
        fs.unmount().unwrap();
        world.e2fsck(&device).unwrap();
    }
}

#[test]
fn an_inline_file_that_finds_no_space_keeps_its_bytes() {
    let world = World::new("inline");
    let Some(image) = world.mkfs(8, &["-b", "1024", "-m", "0", "-O", "inline_data"]) else {
        return;
    };
    // Only others make inline files.
    let image = world.changed_by_debugfs(&image, &format!("write {} small\n", small(&world)));
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    assert_eq!(read(&fs, "/small").unwrap(), b"hello");
    write_until_full(&fs, 1024, 1, 1);
    fs.sync_all().unwrap();
    let error = open(&fs, "/small").write_at(&[7; 1024], 5).unwrap_err();
    assert_eq!(error.errno(), Errno::NOSPC);
    assert_eq!(read(&fs, "/small").unwrap(), b"hello");
    fs.unmount().unwrap();
    world.e2fsck(&device).unwrap();
    let fs = mount(&device, MountOptions::read_only()).unwrap();
    assert_eq!(read(&fs, "/small").unwrap(), b"hello");
}

fn small(world: &World) -> String {
    world.other_file("small", b"hello")
}

/// D23.2: root's reserve is a number of blocks, whatever a cluster has.
#[test]
fn d23_2_statfs_leaves_out_a_reserve_that_is_no_whole_cluster() {
    let world = World::new("reserve-statfs");
    let options = ["-b", "4096", "-O", "bigalloc", "-C", "65536", "-m", "1.3"];
    let Some(image) = world.mkfs(256, &options) else { return };
    let field = image.to_vec()[1024 + 8..][..4].try_into().unwrap();
    let reserved = u64::from(u32::from_le_bytes(field));
    assert!(!reserved.is_multiple_of(16), "{reserved}");
    let device = Arc::new(image);
    let fs = mount(&device, MountOptions::new()).unwrap();
    let told = fs.statfs();
    let pool = fs.kernel_counters().reserved_clusters * 16;
    assert_eq!(told.available_blocks, told.free_blocks - reserved - pool);
}
