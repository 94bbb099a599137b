//! What is done, as few pieces of work that one mount does one behind the other; each gives the cost of one row or more.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use extant_testkit::oracle;

use crate::stage::{Contender, Cost, Stage, warm_memory};

/// What a row counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Millions of bytes a second.
    Megabytes,
    /// Operations a second.
    Operations,
    /// Extents a file: less is better.
    Extents,
}

/// One row of the table.
pub struct Row {
    /// By which it is asked for.
    pub name: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// What it counts, and how many of them are done at full size.
    pub unit: Unit,
    /// Bytes or operations of it.
    pub count: u32,
    /// The part of the kernel's rate that `extant mount` has to reach.
    pub bar: f64,
}

const fn row(name: &'static str, title: &'static str, unit: Unit, count: u32, bar: f64) -> Row {
    Row { name, title, unit, count, bar }
}

/// All rows.
pub const ROWS: [Row; 14] = {
    use Unit::{Extents, Megabytes, Operations};
    [
        row("write-1m", "write 1 GiB, 1 MiB calls, fsync", Megabytes, GIB, 0.8),
        row("write-4k", "write 256 MiB, 4 KiB calls, fsync", Megabytes, GIB / 4, 0.25),
        row("read", "read 1 GiB cold", Megabytes, GIB, 0.4),
        row("overwrite", "40,000 random 4 KiB overwrites, fsync", Operations, 40_000, 0.5),
        row("random-read", "20,000 random 4 KiB reads, cold", Operations, 20_000, 2.0),
        row(
            "create",
            "create 10,000 files of 4 KiB in 20 directories, sync",
            Operations,
            FILES,
            0.4,
        ),
        row("stat", "stat 10,000 files, cold", Operations, FILES, 0.4),
        row("delete", "delete that tree, sync", Operations, FILES, 0.4),
        row("unpack", "unpack a tar of 15,000 small files, sync", Operations, PACKED, 0.35),
        row("append", "append 512 bytes + fsync, 1,000 times", Operations, APPENDS, 1.0),
        row("dirs", "mkdir, rename, rmdir of 5,000", Operations, 3 * DIRS, 0.6),
        row("extents", "extents per file, 8 files grown in turn by 4 KiB", Extents, 8, 1.1),
        row(
            "append-disk",
            "the same on a file on the machine's disk",
            Operations,
            APPENDS / 4,
            1.0,
        ),
        row(
            "append-model",
            "the same on a device whose flush takes 5 ms",
            Operations,
            APPENDS / 4,
            1.0,
        ),
    ]
};

const GIB: u32 = 1 << 30;
const FILES: u32 = 10_000;
const PACKED: u32 = 15_000;
const APPENDS: u32 = 1000;
const DIRS: u32 = 5000;

/// Pieces of work, each with the rows that it gives.
pub const WORKS: [(&[&str], Work); 6] = [
    (&["write-1m", "read"], large),
    (&["write-4k", "overwrite", "random-read"], small),
    (&["create", "stat", "delete"], tree),
    (&["unpack"], unpack),
    (&["append"], append),
    (&["dirs"], dirs),
];

/// A piece of work on a stage whose volume is mounted and empty; it is not mounted after. Costs come in the order of the rows.
pub type Work = fn(&mut Stage, &Scale) -> Vec<Cost>;

/// How much is done, and what all share.
pub struct Scale {
    /// Everything is divided by this.
    pub divisor: u32,
    /// What is unpacked.
    pub archive: PathBuf,
}

impl Scale {
    /// So many of what a full run does.
    pub fn of(&self, count: u32) -> u32 {
        count / self.divisor
    }

    /// Makes the archive that is unpacked.
    pub fn pack(&self, scratch: &oracle::Scratch) {
        let folder = scratch.path("plain");
        for n in 0..self.of(PACKED) {
            let dir = folder.join(format!("d{:03}", n / 50));
            fs::create_dir_all(&dir).expect("the scratch folder can be written");
            let len = usize::try_from(n * 37 % 4000 + 1).unwrap_or(1);
            fs::write(dir.join(format!("file-{n}")), &bytes(4096)[..len]).expect("there is room");
        }
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&self.archive).arg("-C").arg(&folder).arg(".");
        assert!(tar.status().is_ok_and(|status| status.success()), "tar");
        let _ = fs::remove_dir_all(folder);
    }
}

const MIB: usize = 1 << 20;

/// Bytes that are no zeros.
fn bytes(len: usize) -> Vec<u8> {
    (0_u32..).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 1).take(len).collect()
}

/// Places in a file of so many pages, the same in each run.
fn places(pages: u32, count: u32) -> impl Iterator<Item = u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % u64::from(pages) * 4096
    })
}

fn write(stage: &Stage, len: u32, piece: usize) {
    let file = File::create(stage.path("file")).expect("a file can be made");
    let bytes = bytes(piece);
    for at in (0..u64::from(len)).step_by(piece) {
        file.write_all_at(&bytes, at).expect("there is room");
    }
    file.sync_all().expect("it is durable");
}

fn large(stage: &mut Stage, scale: &Scale) -> Vec<Cost> {
    let len = scale.of(GIB);
    warm_memory(len + len / 8);
    let written = stage.measured(|stage| write(stage, len, MIB));
    stage.remount_cold();
    warm_memory(len + len / 8);
    let mut buffer = vec![0; MIB];
    let read = stage.measured(|stage| {
        let file = File::open(stage.path("file")).expect("it is there");
        for at in (0..u64::from(len)).step_by(MIB) {
            file.read_exact_at(&mut buffer, at).expect("it is long enough");
        }
    });
    stage.unmount();
    vec![written, read]
}

fn small(stage: &mut Stage, scale: &Scale) -> Vec<Cost> {
    let len = scale.of(GIB / 4);
    warm_memory(len + len / 8);
    let written = stage.measured(|stage| write(stage, len, 4096));
    let page = bytes(4096);
    let overwritten = stage.measured(|stage| {
        let file = File::options().write(true).open(stage.path("file")).expect("it is there");
        for at in places(len / 4096, scale.of(40_000)) {
            file.write_all_at(&page, at).expect("there is room");
        }
        file.sync_all().expect("it is durable");
    });
    stage.remount_cold();
    warm_memory(len + len / 8);
    let mut buffer = [0; 4096];
    let read = stage.measured(|stage| {
        let file = File::open(stage.path("file")).expect("it is there");
        for at in places(len / 4096, scale.of(20_000)) {
            file.read_exact_at(&mut buffer, at).expect("it is long enough");
        }
    });
    stage.unmount();
    vec![written, overwritten, read]
}

/// Twenty directories.
const SPREAD: u32 = 20;

fn tree(stage: &mut Stage, scale: &Scale) -> Vec<Cost> {
    let count = scale.of(FILES);
    let names = |stage: &Stage| -> Vec<PathBuf> {
        (0..count).map(|n| stage.path(&format!("d{}/file-{n}", n * SPREAD / count))).collect()
    };
    let (names, page) = (names(stage), bytes(4096));
    let created = stage.measured(|stage| {
        (0..SPREAD).for_each(|n| make_dir(stage, &format!("d{n}")));
        for name in &names {
            fs::write(name, &page).expect("a file can be made");
        }
        stage.unmount();
    });
    stage.mount_cold();
    let looked_at = stage.measured(|_| {
        for name in &names {
            let found = rustix::fs::stat(name).expect("it is there");
            assert_eq!(found.st_size, 4096);
        }
    });
    let deleted = stage.measured(|stage| {
        names.iter().for_each(|name| fs::remove_file(name).expect("it is there"));
        (0..SPREAD).for_each(|n| remove_dir(stage, &format!("d{n}")));
        stage.unmount();
    });
    vec![created, looked_at, deleted]
}

fn make_dir(stage: &Stage, name: &str) {
    fs::create_dir(stage.path(name)).expect("a directory can be made");
}

fn remove_dir(stage: &Stage, name: &str) {
    fs::remove_dir(stage.path(name)).expect("it is empty");
}

fn unpack(stage: &mut Stage, scale: &Scale) -> Vec<Cost> {
    let unpacked = stage.measured(|stage| {
        let point = stage.path("");
        stage.run(Command::new("tar").arg("-xf").arg(&scale.archive).arg("-C").arg(point));
        stage.unmount();
    });
    vec![unpacked]
}

/// Appends with `fsync`, so many times.
pub fn append_times(stage: &mut Stage, times: u32) -> Cost {
    let bytes = bytes(512);
    let appended = stage.measured(|stage| {
        let file = File::options().create(true).append(true).open(stage.path("log"));
        let mut file = file.expect("a file can be made");
        for _ in 0..times {
            std::io::Write::write_all(&mut file, &bytes).expect("there is room");
            file.sync_all().expect("it is durable");
        }
    });
    stage.unmount();
    appended
}

fn append(stage: &mut Stage, scale: &Scale) -> Vec<Cost> {
    vec![append_times(stage, scale.of(APPENDS))]
}

fn dirs(stage: &mut Stage, scale: &Scale) -> Vec<Cost> {
    let count = scale.of(DIRS);
    let names: Vec<_> = (0..count)
        .map(|n| (stage.path(&format!("dir-{n}")), stage.path(&format!("renamed-{n}"))))
        .collect();
    let cost = stage.measured(|_| {
        names.iter().for_each(|(name, _)| fs::create_dir(name).expect("it can be made"));
        names.iter().for_each(|(from, to)| fs::rename(from, to).expect("it is there"));
        names.iter().for_each(|(_, name)| fs::remove_dir(name).expect("it is empty"));
    });
    stage.unmount();
    vec![cost]
}

/// Grows files side by side; extents of a file then, on average. `None` for whom has no image.
pub fn extents(stage: &mut Stage, scale: &Scale) -> Option<f64> {
    let page = bytes(4096);
    let files: Vec<File> = (0..8)
        .map(|n| File::create(stage.path(&format!("f{n}"))).expect("a file can be made"))
        .collect();
    for at in (0..u64::from(scale.of(32 << 20))).step_by(4096) {
        files.iter().for_each(|file| file.write_all_at(&page, at).expect("there is room"));
    }
    drop(files);
    stage.unmount();
    if stage.contender == Contender::Null {
        return None;
    }
    let count = |n| {
        let told = oracle::debugfs(stage.image(), &format!("extents -l /f{n}"))?;
        Some(told.lines().count().saturating_sub(1))
    };
    let counts: Option<Vec<usize>> = (0..8).map(count).collect();
    let sum = u32::try_from(counts?.iter().sum::<usize>()).unwrap_or(u32::MAX);
    Some(f64::from(sum) / 8.0)
}
