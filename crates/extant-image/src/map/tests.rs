use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use extant::{Filesystem, MountOptions};
use extant_device::{BlockDevice, BlockDeviceExt, MemoryDevice};
use extant_format::BlockGroup;

use super::picture::{Picture, page, svg};
use super::*;
use crate::reader::Reader;
use crate::{MkfsOptions, mkfs};

/// An image of so many bytes with blocks of 1 KiB, after `fill`.
fn image(bytes: u64, fill: impl FnOnce(&Filesystem)) -> Arc<MemoryDevice> {
    let device = Arc::new(MemoryDevice::new(bytes));
    let options = MkfsOptions { block_size: Some(1024), ..MkfsOptions::default() };
    mkfs(&device, &options).unwrap();
    let filesystem = MountOptions::new().mount(Arc::clone(&device)).unwrap();
    fill(&filesystem);
    filesystem.unmount().unwrap();
    device
}

/// A file of `pieces` blocks with a hole before each.
fn write_holes(filesystem: &Filesystem, path: &str, pieces: u64) {
    let file = filesystem.create(path).unwrap();
    for piece in 0..pieces {
        file.write_at(&[7; 1024], (2 * piece + 1) * 1024).unwrap();
    }
}

fn runs_of(device: &dyn BlockDevice) -> (Vec<Run>, Grid, u64) {
    let reader = Reader::new(device).unwrap();
    let mut runs = Runs::new(0..u64::MAX);
    let mut grid = Grid::new(reader.geometry());
    survey(&reader, &mut Several(vec![&mut runs, &mut grid]));
    (runs.finish(), grid, reader.superblock().raw().free_blocks_count())
}

#[test]
fn every_block_in_use_has_one_owner() {
    let device = image(48 << 20, |filesystem| {
        filesystem.create_dir_all("/a/b").unwrap();
        write_holes(filesystem, "/a/holes", 700);
        filesystem.create("/a/b/one").unwrap().write_all(&[1; 3 << 20]).unwrap();
        filesystem.set_xattr("/a/b/one", "user.large", [3; 900]).unwrap();
    });
    let (runs, grid, free) = runs_of(&device);
    for pair in runs.windows(2) {
        assert!(pair[0].start + pair[0].len <= pair[1].start, "{pair:?}");
    }
    let used: u64 = runs.iter().map(|run| run.len).sum();
    let total = grid.total();
    assert_eq!((used, total.free()), (total.in_use, free));
    assert_eq!(total.of(Kind::Other), 0, "{total:?}");
    let mut kinds = BTreeMap::new();
    runs.iter().for_each(|run| *kinds.entry(run.kind).or_insert(0) += run.len);
    for kind in [
        Kind::Descriptors,
        Kind::InodeTables,
        Kind::Journal,
        Kind::Directories,
        Kind::Maps,
        Kind::Files,
    ] {
        assert!(kinds[&kind] > 0 && kinds[&kind] == total.of(kind), "{kind:?}");
    }
    assert_eq!(kinds[&Kind::Files], 700 + 3072);
    // Three nodes or so of the file with holes, an attribute block, and the block of the inode for growth.
    assert!((3..=12).contains(&kinds[&Kind::Maps]), "{kinds:?}");
}

#[test]
fn a_block_past_the_end_of_a_group_is_counted_where_it_lies() {
    let device = image(48 << 20, |_| ());
    let reader = Reader::new(&device).unwrap();
    let geometry = *reader.geometry();
    let mut grid = Grid::new(&geometry);
    let end = geometry.first_block_of(BlockGroup(1)).get();
    let over =
        extant_format::PhysicalRange::new(extant_format::PhysicalBlock::new(end - 3), 5).unwrap();
    grid.used(Owner::Group(BlockGroup(0)), Kind::Files, over);
    let per_cell = grid.blocks_per_cell();
    let cells: Vec<_> = grid.cells().map(|cell| cell.of(Kind::Files)).collect();
    let edge = usize::try_from((end - 1) / per_cell).unwrap();
    assert_eq!((cells[edge - 1], cells[edge]), (3, 2));
    assert_eq!(cells.iter().sum::<u64>(), 5);
}

#[test]
fn a_picture_has_some_thousand_rectangles_whatever_the_size() {
    for bytes in [1 << 20, 64 << 20, 1 << 30, 24 << 30] {
        let device = image(bytes, |filesystem| {
            write_holes(filesystem, "/holes", 40);
        });
        let reader = Reader::new(&device).unwrap();
        let (mut grid, mut free) =
            (Grid::new(reader.geometry()), FreeSpace::new(reader.geometry()));
        let mut files = Files::new(grid.blocks_per_cell() / 8);
        survey(&reader, &mut Several(vec![&mut grid, &mut free, &mut files]));
        free.finish();
        files.name_all(&reader);
        let picture = Picture {
            name: "disk<1>.img",
            label: "",
            grid: &grid,
            free: &free,
            files: Some(&files),
            highlight: Some(("/holes", &files.largest[0])),
            unreadable: 0,
        };
        let (drawing, page) = (svg(&picture), page(&picture, "extant map"));
        assert!(grid.cells().len() <= 2048);
        for text in [&drawing, &page] {
            let rectangles = text.matches("<rect").count();
            assert!(rectangles < 9000 && text.len() < 2 << 20, "{bytes}: {rectangles}");
            assert!(text.contains("disk&lt;1&gt;.img") && !text.contains("<1>"));
            // Nothing is fetched: the one address is the name of a language.
            assert_eq!(
                text.matches("://").count(),
                text.matches("http://www.w3.org/2000/svg").count()
            );
        }
        assert!(
            drawing.contains("class=\"hit\"")
                && page.contains("<span class=\"path\">/holes</span>")
        );
        assert_eq!(grid.total().free(), free.blocks);
    }
}

#[test]
fn the_largest_and_the_most_scattered_files_are_kept_by_name() {
    let device = image(64 << 20, |filesystem| {
        filesystem.create_dir_all("/deep/er").unwrap();
        for n in 0..60_usize {
            let path = format!("/deep/er/file-{n}");
            filesystem.create(&path).unwrap().write_all(&vec![1; 1024 * (n + 1)]).unwrap();
        }
        write_holes(filesystem, "/deep/holes", 30);
        filesystem.create("/empty").unwrap();
        filesystem.symlink("/empty", "/link").unwrap();
    });
    let reader = Reader::new(&device).unwrap();
    let mut files = Files::new(0);
    survey(&reader, &mut files);
    files.name_all(&reader);
    assert_eq!((files.files, files.with_blocks, files.others), (62, 61, 1));
    // The root, lost+found and two more.
    assert_eq!(files.directories, 4);
    assert_eq!(files.largest.len(), 40);
    assert_eq!(files.largest[0].path, b"/deep/er/file-59");
    assert!(files.largest.is_sorted_by(|one, next| one.blocks >= next.blocks));
    assert!(files.most_scattered.iter().all(|file| file.fragments > 1 && !file.path.is_empty()));
}

#[test]
fn damage_is_told_and_the_rest_is_shown() {
    let device = image(48 << 20, |filesystem| write_holes(filesystem, "/holes", 700));
    let reader = Reader::new(&device).unwrap();
    // The second group's descriptor points nowhere.
    let at =
        reader.geometry().descriptor_block(0).get() * 1024 + u64::from(reader.geometry().desc_size);
    device
        .write_bytes(at & !511, &{
            let mut sector = device.read_vec(at & !511, 512).unwrap();
            let within = usize::try_from(at & 511).unwrap();
            sector[within..within + 12].fill(0xFF);
            sector
        })
        .unwrap();
    #[derive(Default)]
    struct Troubles(u32);
    impl Visitor for Troubles {
        fn trouble(&mut self, _: crate::reader::ReadError) {
            self.0 += 1;
        }
    }
    let (mut grid, mut troubles) = (Grid::new(reader.geometry()), Troubles::default());
    survey(&reader, &mut Several(vec![&mut grid, &mut troubles]));
    let total = grid.total();
    assert_eq!((troubles.0, total.unknown), (1, 8192));
    assert!(total.of(Kind::Files) >= 700);
}

#[test]
fn no_damage_makes_a_survey_fail_or_go_on_for_ever() {
    let sound = image(8 << 20, |filesystem| {
        filesystem.create_dir_all("/a/b/c").unwrap();
        write_holes(filesystem, "/a/holes", 300);
        filesystem.create("/a/b/one").unwrap().write_all(&[1; 1 << 20]).unwrap();
        filesystem.set_xattr("/a/b/one", "user.large", [3; 900]).unwrap();
    });
    let bytes = sound.to_vec();
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for _ in 0..150 {
        let mut damaged = bytes.clone();
        for _ in 0..12 {
            // Where descriptors, bitmaps, inodes and directories are; the superblock stays.
            let at = 2048 + next(640 << 10);
            let value = [0, 0xFF, 1, 0x80][next(4)];
            damaged[at..at + 1 + next(6)].fill(value);
        }
        let device = MemoryDevice::from_bytes(&damaged);
        let reader = Reader::new(&device).unwrap();
        let (mut grid, mut free) =
            (Grid::new(reader.geometry()), FreeSpace::new(reader.geometry()));
        let (mut files, mut runs) = (Files::new(1), Runs::new(0..u64::MAX));
        survey(&reader, &mut Several(vec![&mut grid, &mut free, &mut files, &mut runs]));
        free.finish();
        files.name_all(&reader);
        let highlight = files.largest.first().map(|file| ("x", file));
        let picture = Picture {
            name: "",
            label: "",
            grid: &grid,
            free: &free,
            files: Some(&files),
            highlight,
            unreadable: 0,
        };
        assert!(svg(&picture).len() + page(&picture, "").len() < 4 << 20);
        assert!(
            runs.finish().iter().all(|run| run.start + run.len <= reader.geometry().blocks_count)
        );
    }
}
