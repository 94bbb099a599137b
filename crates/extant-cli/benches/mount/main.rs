//! The volume through a mount, beside the kernel's ext4, fuse2fs, and a server that does nothing, by turns.
//!
//! Images are in memory. In each pass every contender does a piece of work on a fresh volume, and who goes first changes from
//! pass to pass; the median counts. After each piece e2fsck looks at the image. A whole run writes `docs/performance.md` and
//! `docs/mount.svg`; a part of it prints its table.
//! `cargo xtask bench mount [--poll] [--quick] [--passes N] [--row NAME].. [--with CONTENDER]..`; `--poll` has idle processors poll before
//! they halt.
//! `cargo xtask bench mount --uring [--quick] [--passes N]` has one client and several, on both transports.

mod clients;
mod disk;
mod null;
mod plot;
mod processors;
mod report;
mod stage;
mod works;

use std::path::{Path, PathBuf};
use std::time::Duration;

use extant_testkit::FuseQueues;
use extant_testkit::oracle::Scratch;
use processors::Processors;
use report::Results;
use stage::{Contender, Stage};
use works::{ROWS, Scale, WORKS};

const IMAGE_BYTES: u64 = 2 << 30;
/// Where only a log is written.
const SMALL_IMAGE_BYTES: u64 = 256 << 20;
/// Who takes longer than this for a piece of work does it once.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match &words[..] {
        [child, point] if child == null::CHILD => return null::child(Path::new(point)),
        [child, point, files @ ..] if child == disk::CHILD => {
            let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            return disk::child(Path::new(point), &files);
        }
        _ => {}
    }
    let Some(asked) = Asked::parse(&words) else {
        eprintln!(
            "usage: [--uring] [--poll] [--quick] [--passes N] [--row NAME].. [--with CONTENDER]..; rows:"
        );
        ROWS.iter().for_each(|row| eprintln!("  {:<13} {}", row.name, row.title));
        std::process::exit(2);
    };
    if asked.by_transport {
        let Some(_queues) = FuseQueues::switch_on() else { return };
        let divisor = if asked.is_quick { 8 } else { 1 };
        return println!("{}", clients::compare(asked.passes, divisor));
    }
    let processors = Processors::begin(asked.polls);
    let results = asked.run();
    drop(processors);
    let table = report::tables(&results);
    println!("{table}");
    if asked.is_whole() {
        report::write(&results, &table).expect("the folder docs can be written");
    }
    if !results.unclean.is_empty() {
        std::process::exit(1);
    }
}

/// What the words of a call come to.
struct Asked {
    is_quick: bool,
    /// One client and several, through the device and through queues.
    by_transport: bool,
    /// Idle processors poll before they halt.
    polls: bool,
    passes: usize,
    rows: Vec<String>,
    contenders: Vec<String>,
}

impl Asked {
    fn parse(words: &[String]) -> Option<Self> {
        let (rows, contenders) = (Vec::new(), Vec::new());
        let (is_quick, by_transport, polls) = (false, false, false);
        let mut asked = Self { is_quick, by_transport, polls, passes: 3, rows, contenders };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => (asked.is_quick, asked.passes) = (true, 1),
                "--poll" => asked.polls = true,
                "--uring" => asked.by_transport = true,
                "--passes" => asked.passes = words.next()?.parse().ok().filter(|n| *n > 0)?,
                "--row" => asked.rows.push(words.next()?.clone()),
                "--with" => asked.contenders.push(words.next()?.clone()),
                _ => return None,
            }
        }
        let known = |asked: &String| ROWS.iter().any(|row| row.name == asked);
        asked.rows.iter().all(known).then_some(asked)
    }

    fn is_whole(&self) -> bool {
        let is_plain = !self.is_quick && !self.polls;
        is_plain && self.passes >= 3 && self.rows.is_empty() && self.contenders.is_empty()
    }

    fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|asked| asked == row)
    }

    fn run(&self) -> Results {
        let scratch = Scratch::new("mount");
        let divisor = if self.is_quick { 8 } else { 1 };
        let scale = Scale { divisor, archive: scratch.path("archive.tar") };
        let mut results = Results::new(divisor);
        let wanted = |contender: &Contender| {
            let name = contender.name();
            self.contenders.is_empty()
                || self.contenders.iter().any(|asked| name == asked || name.ends_with(asked))
        };
        let mut contenders = Vec::new();
        for contender in Contender::ALL.into_iter().filter(wanted) {
            match contender.missing() {
                None => contenders.push(contender),
                Some(why) => results.skipped.push(format!("{}: {why}", contender.name())),
            }
        }
        let is_plain = |row: &str| !matches!(row, "append-disk" | "append-model");
        if ROWS.iter().any(|row| self.wants(row.name) && is_plain(row.name)) {
            if self.wants("unpack") {
                scale.pack(&scratch);
            }
            let mut stages = Self::stages(&contenders, IMAGE_BYTES, &scratch, |name| {
                scratch.path(&format!("{name}.img"))
            });
            for pass in 0..self.passes {
                self.pass(pass, &scale, &mut stages, &mut results);
            }
        }
        self.run_logs(&contenders, &scratch, &scale, &mut results);
        results
    }

    fn stages(
        contenders: &[Contender],
        bytes: u64,
        scratch: &Scratch,
        image: impl Fn(&str) -> PathBuf,
    ) -> Vec<Stage> {
        let stage = |contender: &Contender| {
            let name = contender.name().replace(' ', "");
            Stage::new(*contender, image(&name), scratch.path(&format!("{name}.mount")), bytes)
        };
        contenders.iter().map(stage).collect()
    }

    /// Each piece of work once by each contender.
    fn pass(&self, pass: usize, scale: &Scale, stages: &mut [Stage], results: &mut Results) {
        for (rows, work) in WORKS.iter().filter(|(rows, _)| rows.iter().any(|row| self.wants(row)))
        {
            for stage in Self::turns(stages, pass) {
                let contender = stage.contender;
                if pass > 0 && results.longest(rows, contender) > PATIENCE {
                    continue;
                }
                eprintln!("pass {}: {} {}", pass + 1, rows.join(", "), contender.name());
                stage.begin();
                for (row, cost) in rows.iter().zip(work(stage, scale)) {
                    if self.wants(row) {
                        results.add(row, contender, cost);
                    }
                }
                results.judge(stage, rows[0]);
            }
        }
        // How files lie does not depend on the moment.
        if pass == 0 && self.wants("extents") {
            for stage in stages.iter_mut().filter(|stage| stage.contender.has_image()) {
                eprintln!("extents {}", stage.contender.name());
                stage.begin();
                if let Some(count) = works::extents(stage, scale) {
                    results.extents.insert(stage.contender, count);
                }
                results.judge(stage, "extents");
            }
        }
    }

    /// The stages, another one first in each pass.
    fn turns(stages: &mut [Stage], pass: usize) -> impl Iterator<Item = &mut Stage> {
        let (first, second) = stages.split_at_mut(pass % stages.len().max(1));
        second.iter_mut().chain(first)
    }

    /// Appending with `fsync` where a flush costs something.
    fn run_logs(
        &self,
        contenders: &[Contender],
        scratch: &Scratch,
        scale: &Scale,
        results: &mut Results,
    ) {
        let with_image: Vec<_> = contenders.iter().copied().filter(|c| c.has_image()).collect();
        let mut compare = |row: &str, mut stages: Vec<Stage>| {
            let count =
                works::ROWS.iter().find(|known| known.name == row).map_or(0, |row| row.count);
            for pass in 0..self.passes {
                for stage in Self::turns(&mut stages, pass) {
                    eprintln!("pass {}: {row} {}", pass + 1, stage.contender.name());
                    stage.begin();
                    let cost = works::append_times(stage, scale.of(count));
                    results.add(row, stage.contender, cost);
                    results.judge(stage, row);
                }
            }
        };
        if self.wants("append-disk") {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let image = |name: &str| folder.join(format!("bench-mount-{name}.img"));
            let stages = Self::stages(&with_image, SMALL_IMAGE_BYTES, scratch, image);
            let images: Vec<_> = stages.iter().map(|stage| stage.image().to_owned()).collect();
            compare("append-disk", stages);
            images.iter().for_each(|image| drop(std::fs::remove_file(image)));
        }
        if self.wants("append-model") {
            let file = |contender: &Contender| {
                let name = contender.name().replace(' ', "");
                let path = scratch.path(&format!("{name}.disk"));
                let file = std::fs::File::create(&path).expect("the scratch folder can be written");
                file.set_len(SMALL_IMAGE_BYTES).expect("there is room");
                path
            };
            let files: Vec<_> = with_image.iter().map(file).collect();
            let disk = disk::Disk::new(&scratch.path("disk"), &files);
            let image = |name: &str| disk.path(&format!("{name}.disk"));
            compare("append-model", Self::stages(&with_image, SMALL_IMAGE_BYTES, scratch, image));
        }
    }
}
