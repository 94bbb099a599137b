//! One client and several, through `/dev/fuse` and through the kernel's queues over io_uring.
//!
//! Clients are threads, which run where the scheduler has them. A request takes time on a processor of whoever asks and of whoever serves;
//! the sum is what counts, since it does not depend on what else the machine does.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use extant_testkit::oracle::Scratch;

use crate::stage::{Contender, Cost, Stage};

/// How many clients there are by turns.
const CLIENTS: [u32; 2] = [1, 4];
const IMAGE_BYTES: u64 = 512 << 20;
const PAGE: usize = 4096;
/// `O_DIRECT`.
const DIRECT: i32 = 0o40000;

/// Its name, how often all clients together do it, and what does it so often for one of them.
type Work = (&'static str, u32, fn(&Stage, u32, u32));

/// In this order on one volume; before the third and the fourth it is mounted anew.
const WORKS: [Work; 7] = [
    ("create files of 4 KiB", 8000, create),
    ("write 4 KiB", 40_000, write),
    ("stat, cold", 8000, stat),
    ("read 4 KiB, direct", 40_000, read),
    ("read 1 MiB", 400, read_far),
    ("append 512 bytes, fsync", 2000, append),
    ("delete", 8000, delete),
];

type Costs = BTreeMap<(usize, u32, Contender), Vec<Cost>>;

/// Measures all of them, and returns the table.
pub fn compare(passes: usize, divisor: u32) -> String {
    let scratch = Scratch::new("clients");
    let mut costs = Costs::new();
    for pass in 0..passes {
        for clients in CLIENTS {
            let mut contenders = Contender::TRANSPORTS;
            contenders.rotate_left(pass % Contender::TRANSPORTS.len());
            for contender in contenders {
                eprintln!("pass {}: {} with {clients} clients", pass + 1, contender.name());
                let name = contender.name().replace(' ', "");
                let (image, point) = (scratch.path("disk.img"), scratch.path(&name));
                let mut stage = Stage::new(contender, image, point, IMAGE_BYTES);
                stage.begin();
                for (index, (_, count, work)) in WORKS.into_iter().enumerate() {
                    if matches!(index, 2 | 3) {
                        stage.remount_cold();
                    }
                    let each = count / divisor / clients;
                    let cost = stage.measured(|stage| {
                        std::thread::scope(|scope| {
                            (0..clients).for_each(|client| {
                                let stage = &*stage;
                                scope.spawn(move || work(stage, client, each));
                            });
                        });
                    });
                    costs.entry((index, clients, contender)).or_default().push(cost);
                }
                stage.unmount();
                stage.check().expect("the image is whole");
            }
        }
    }
    table(&costs, divisor)
}

fn table(costs: &Costs, divisor: u32) -> String {
    let names: Vec<&str> = Contender::TRANSPORTS.iter().map(|who| who.name()).collect();
    let mut out = format!(
        "Microseconds of processor time an operation, and by the clock behind the stroke.\n\n\
         | work | clients | {} | null | extant |\n| --- | --- |{} --- | --- |\n",
        names.join(" | "),
        " --- |".repeat(names.len())
    );
    for (index, (name, count, _)) in WORKS.into_iter().enumerate() {
        for clients in CLIENTS {
            let of = |who, of: fn(&Cost) -> Duration| {
                let mut times: Vec<f64> = costs[&(index, clients, who)]
                    .iter()
                    .map(|cost| of(cost).as_secs_f64() * 1e6 / f64::from(count / divisor))
                    .collect();
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            };
            let cpu = |who| of(who, |cost| cost.workload + cost.daemon);
            let cell = |who: &Contender| format!("{:.1} / {:.1}", cpu(*who), of(*who, |c| c.wall));
            let cells: Vec<String> = Contender::TRANSPORTS.iter().map(cell).collect();
            let null = cpu(Contender::Null) / cpu(Contender::NullRings);
            let extant = cpu(Contender::Extant) / cpu(Contender::Rings);
            let cells = cells.join(" | ");
            let _ = writeln!(out, "| {name} | {clients} | {cells} | {null:.2} | {extant:.2} |");
        }
    }
    out
}

fn create(stage: &Stage, client: u32, count: u32) {
    let dir = stage.path(&format!("d{client}"));
    fs::create_dir(&dir).expect("a directory can be made");
    for n in 0..count {
        fs::write(dir.join(format!("file-{n}")), [7; PAGE]).expect("a file can be made");
    }
}

fn write(stage: &Stage, client: u32, count: u32) {
    let file = File::create(stage.path(&format!("large-{client}"))).expect("a file can be made");
    for n in 0..u64::from(count) {
        file.write_all_at(&[7; PAGE], n * 4096).expect("there is room");
    }
}

fn stat(stage: &Stage, client: u32, count: u32) {
    for n in 0..count {
        fs::metadata(stage.path(&format!("d{client}/file-{n}"))).expect("it is there");
    }
}

fn read(stage: &Stage, client: u32, count: u32) {
    let mut how = File::options();
    how.read(true).custom_flags(DIRECT);
    let file = how.open(stage.path(&format!("large-{client}"))).expect("it is there");
    let mut buffer = [0; PAGE];
    for n in 0..u64::from(count) {
        let page = n * 7919 % u64::from(count);
        file.read_exact_at(&mut buffer, page * 4096).expect("it is long enough");
    }
}

fn read_far(stage: &Stage, client: u32, count: u32) {
    let file = File::open(stage.path(&format!("large-{client}"))).expect("it is there");
    let len = file.metadata().expect("it is open").len();
    let mut buffer = vec![0; 1 << 20];
    for n in 0..u64::from(count) {
        let at = (n << 20) % (len - (1 << 20)).max(1);
        let _ = file.read_at(&mut buffer, at).expect("it can be read");
    }
}

fn append(stage: &Stage, client: u32, count: u32) {
    let mut how = File::options();
    how.create(true).append(true);
    let mut file = how.open(stage.path(&format!("log-{client}"))).expect("a file can be made");
    for _ in 0..count {
        std::io::Write::write_all(&mut file, &[7; 512]).expect("there is room");
        file.sync_all().expect("it is durable");
    }
}

fn delete(stage: &Stage, client: u32, count: u32) {
    for n in 0..count {
        fs::remove_file(stage.path(&format!("d{client}/file-{n}"))).expect("it is there");
    }
}
