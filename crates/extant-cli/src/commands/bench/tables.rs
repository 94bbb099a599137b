//! Figures as tables and sentences, for the terminal and for the page alike.

use std::io::Write;
use std::time::Duration;

use extant::Counters;
use extant_bench::delalloc::crash::Loss;
use extant_bench::delalloc::survey::{Cuts, Question, Row, Survey, rate};
use extant_bench::delalloc::workload::Mode;
use extant_bench::disk::DiskModel;
use extant_bench::float;

use super::Measured;
use super::real::{Real, RealRow};
use crate::output::size;

/// Rows with a name and a value a column.
pub struct Table {
    /// One word, to lead to it.
    pub id: &'static str,
    pub title: String,
    /// What it shows, and whether that is measured or modelled.
    pub note: String,
    pub head: Vec<String>,
    pub groups: Vec<Group>,
}

/// Rows that belong together.
pub struct Group {
    /// Empty, if there is but one.
    pub title: &'static str,
    pub rows: Vec<(String, Vec<String>)>,
}

impl Group {
    /// All rows of a table.
    fn only(rows: Vec<(String, Vec<String>)>) -> Vec<Self> {
        vec![Self { title: "", rows }]
    }
}

/// Prints everything.
pub fn print(measured: &Measured, out: &mut dyn Write) -> anyhow::Result<()> {
    for line in measured.survey.iter().flat_map(headline) {
        writeln!(out, "{line}")?;
    }
    for table in all(measured) {
        writeln!(out, "\n{}\n{}\n", table.title, table.note)?;
        print_table(&table, out)?;
    }
    if let Some(survey) = &measured.survey {
        writeln!(out, "\n{WHEN_NOTHING}\n")?;
        for line in when_nothing(survey, measured.real.as_ref()) {
            writeln!(out, "- {line}")?;
        }
        writeln!(out, "\nThe modelled disk\n")?;
        for (name, value) in disk_figures(&survey.plan.disk) {
            writeln!(out, "{name:<34} {value}")?;
        }
    }
    Ok(())
}

fn print_table(table: &Table, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = || table.groups.iter().flat_map(|group| &group.rows);
    let first = rows().map(|(name, _)| name.chars().count() + 2).max().unwrap_or(0);
    let column = |at: usize| {
        let values = rows().filter_map(|(_, values)| values.get(at));
        values.chain(table.head.get(at)).map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.head.len()).map(column).collect();
    let mut line = |name: &str, values: &[String]| -> anyhow::Result<()> {
        if values.is_empty() {
            return Ok(writeln!(out, "{name}")?);
        }
        write!(out, "{name:<first$}")?;
        for (value, width) in values.iter().zip(&widths) {
            write!(out, "  {value:>width$}")?;
        }
        Ok(writeln!(out)?)
    };
    line("", &table.head)?;
    for group in &table.groups {
        let indent = if group.title.is_empty() { "" } else { "  " };
        if !group.title.is_empty() {
            line(group.title, &[])?;
        }
        group
            .rows
            .iter()
            .try_for_each(|(name, values)| line(&format!("{indent}{name}"), values))?;
    }
    Ok(())
}

/// All tables that there are figures for.
pub fn all(measured: &Measured) -> Vec<Table> {
    let mut tables = Vec::new();
    tables.push(comparison(measured));
    if let Some(survey) = &measured.survey {
        tables.push(by_writers(survey));
        tables.push(by_setup(survey));
        tables.push(power_cuts(survey));
    }
    tables.extend(measured.real.as_ref().map(image_file));
    tables
}

/// The factors in one breath.
pub fn headline(survey: &Survey) -> Vec<String> {
    let Some(base) = survey.base() else { return Vec::new() };
    let together = survey.of(Question::WritersTogether).next();
    let factors = |row: &Row, mode| {
        let read = row.read_factor(mode).map_or("-".to_owned(), times);
        format!(
            "{} for writing with fsync, {read} for reading back cold",
            times(row.write_factor(mode))
        )
    };
    let (immediate, by_block) = (Mode::Immediate, Mode::BlockByBlock);
    let mut lines = vec![
        format!(
            "Delayed allocation on the modelled disk, {} writers, each synced and read by itself:",
            survey.plan.writers
        ),
        format!(
            "  against immediate allocation as the kernel does it: {}",
            factors(base, immediate)
        ),
        format!(
            "  against one block at a time without preallocation:  {}",
            factors(base, by_block)
        ),
    ];
    if let Some(row) = together {
        lines.push(format!("All {} at the same moment:", row.setup.workload.writers));
        lines.push(format!("  against immediate allocation:  {}", factors(row, immediate)));
        lines.push(format!("  against one block at a time:   {}", factors(row, by_block)));
    }
    lines
}

/// The comparison row by row: when, fragments, work, throughput, crash.
fn comparison(measured: &Measured) -> Table {
    let survey = measured.survey.as_ref();
    let real = measured.real.as_ref().and_then(|real| real.rows.get(1));
    let when =
        |mode| if mode == Mode::Delayed { "at writeback" } else { "at each write" }.to_owned();
    let mut groups = vec![Group { title: "Space", rows: vec![by_mode("is assigned", &when)] }];
    if let Some(row) = survey.and_then(Survey::base) {
        groups.push(Group { title: "Fragments", rows: fragments(row) });
        groups.push(Group { title: "Work", rows: work(&|mode| row.outcome(mode).counters) });
        groups.push(Group { title: "Hard disk, files in turn", rows: throughput(row) });
    }
    if let Some(row) = survey.and_then(|survey| survey.of(Question::WritersTogether).next()) {
        groups.push(Group { title: "Hard disk, all files at once", rows: throughput(row) });
    }
    if let Some(row) = real {
        if survey.is_none() {
            groups.push(Group { title: "Work", rows: work(&|mode| row.outcome(mode).counters) });
        }
        groups.push(Group { title: "Image file", rows: real_rows(row) });
    }
    if let Some(survey) = survey {
        groups.push(Group { title: "Lost by a power cut", rows: lost(survey) });
    }
    Table {
        id: "comparison",
        title: comparison_title(measured),
        note: "Counts are the engine's; the hard disk and its power cuts are modelled; the image file is measured on this \
               machine."
            .to_owned(),
        head: Mode::ALL.map(|mode| mode.name().to_owned()).to_vec(),
        groups,
    }
}

type Values = (String, Vec<String>);

fn by_mode(name: &str, value: &dyn Fn(Mode) -> String) -> Values {
    (name.to_owned(), Mode::ALL.map(value).to_vec())
}

fn fragments(row: &Row) -> Vec<Values> {
    let bytes = row.setup.workload.bytes();
    vec![
        by_mode("extents per file", &|mode| extents_per_file(row, mode)),
        by_mode("mean extent", &|mode| size(bytes / row.outcome(mode).extents().max(1))),
    ]
}

fn work(counters: &dyn Fn(Mode) -> Counters) -> Vec<Values> {
    vec![
        by_mode("allocator calls", &|mode| counters(mode).allocator_calls.to_string()),
        by_mode("journal handles", &|mode| counters(mode).handles.to_string()),
        by_mode("journal blocks", &|mode| counters(mode).journal_blocks.to_string()),
        by_mode("device writes", &|mode| counters(mode).device_writes.to_string()),
        by_mode("flushes", &|mode| counters(mode).flushes.to_string()),
    ]
}

fn throughput(row: &Row) -> Vec<Values> {
    vec![
        by_mode("write with fsync, MB/s", &|mode| one_digit(row.write_rate(mode))),
        by_mode("  time, delayed = 1", &|mode| times(row.write_factor(mode))),
        by_mode("read back cold, MB/s", &|mode| optional(row.read_rate(mode), one_digit)),
        by_mode("  time, delayed = 1", &|mode| optional(row.read_factor(mode), times)),
        by_mode("moves of the arm, writing", &|mode| {
            row.outcome(mode).write_disk.seeks.to_string()
        }),
        by_mode("moves of the arm, reading", &|mode| row.outcome(mode).read_disk.seeks.to_string()),
    ]
}

fn real_rows(row: &RealRow) -> Vec<Values> {
    let bytes = row.workload.bytes();
    let extents = |mode| float(row.outcome(mode).extents) / f64::from(row.workload.writers);
    vec![
        by_mode("extents per file", &|mode| one_digit(extents(mode))),
        by_mode("write with fsync, MB/s", &|mode| one_digit(rate(bytes, row.outcome(mode).write))),
        by_mode("read back cold, MB/s", &|mode| one_digit(rate(bytes, row.outcome(mode).read))),
        by_mode("CPU time, writing", &|mode| millis(row.outcome(mode).write_cpu.time)),
        by_mode("  instructions, millions", &|mode| {
            let instructions = row.outcome(mode).write_cpu.instructions;
            optional(instructions, |count| (count / 1_000_000).to_string())
        }),
        by_mode("CPU time, reading", &|mode| millis(row.outcome(mode).read_cpu.time)),
    ]
}

fn lost(survey: &Survey) -> Vec<Values> {
    let lost = |mode, synced, of: fn(&[Loss]) -> String| {
        cuts_of(survey, mode, synced).map_or("-".to_owned(), |cuts| of(&cuts.losses))
    };
    vec![
        by_mode("of what was written, mean", &|mode| lost(mode, false, mean_loss)),
        by_mode("  at most", &|mode| lost(mode, false, most_lost)),
        by_mode("of what fsync covered", &|mode| lost(mode, true, synced_loss)),
    ]
}

fn comparison_title(measured: &Measured) -> String {
    let workload = match (&measured.survey, &measured.real) {
        (Some(survey), _) => survey.base().map(|row| row.setup.workload),
        (None, real) => real.as_ref().and_then(|real| Some(real.rows.get(1)?.workload)),
    };
    let Some(workload) = workload else { return "Comparison".to_owned() };
    format!(
        "{} files of {} grow side by side by writes of {}, each made durable by fsync",
        workload.writers,
        round_size(workload.file_bytes()),
        round_size(workload.call_bytes.into())
    )
}

fn extents_per_file(row: &Row, mode: Mode) -> String {
    one_digit(float(row.outcome(mode).extents()) / f64::from(row.setup.workload.writers))
}

fn mode_heads(what: &str) -> impl Iterator<Item = String> {
    Mode::ALL.into_iter().map(move |mode| format!("{what} {}", mode.name()))
}

fn by_writers(survey: &Survey) -> Table {
    let row = |row: &Row| {
        let writes = Mode::ALL.map(|mode| one_digit(row.write_rate(mode)));
        let reads = Mode::ALL.map(|mode| optional(row.read_rate(mode), one_digit));
        (row.label.clone(), [writes, reads].concat())
    };
    Table {
        id: "writers",
        title: "From one to many writers, MB/s".to_owned(),
        note: format!(
            "Modelled disk; {} in all; each file synced and read by itself.",
            round_size(survey.plan.total_bytes)
        ),
        head: mode_heads("write").chain(mode_heads("read")).collect(),
        groups: Group::only(survey.of(Question::Writers).map(row).collect()),
    }
}

/// What a row of any question is called among the others.
pub fn full_label(row: &Row) -> String {
    let writers = row.setup.workload.writers;
    match row.question {
        Question::Writers if writers == 1 => "one writer".to_owned(),
        Question::Writers => format!("{writers} writers, in turn"),
        Question::WritersTogether => format!("{writers} writers, all at once"),
        Question::Habit | Question::Disk => row.label.clone(),
    }
}

/// Rows in which one thing is other than usual, the usual one first.
pub fn varied(survey: &Survey) -> Vec<&Row> {
    let first = survey.base().into_iter();
    let single = survey.of(Question::Writers).filter(|row| row.setup.workload.writers == 1);
    let rest = survey.rows.iter().filter(|row| row.question != Question::Writers);
    first.chain(single).chain(rest).collect()
}

fn by_setup(survey: &Survey) -> Table {
    let row = |row: &Row| {
        let values = vec![
            one_digit(row.write_rate(Mode::Delayed)),
            times(row.write_factor(Mode::Immediate)),
            times(row.write_factor(Mode::BlockByBlock)),
            optional(row.read_rate(Mode::Delayed), one_digit),
            optional(row.read_factor(Mode::Immediate), times),
            optional(row.read_factor(Mode::BlockByBlock), times),
        ];
        (full_label(row), values)
    };
    let heads =
        ["write, MB/s", "immediate", "block by block", "read, MB/s", "immediate", "block by block"];
    Table {
        id: "factor",
        title: "What changes the factor".to_owned(),
        note: format!(
            "Modelled disk. MB/s with delayed allocation, and how many times as long the others take. Where a row does not say \
             otherwise: {} writers, each synced and read by itself; queue depth {}, {}, {} of write cache.",
            survey.plan.writers,
            survey.plan.disk.queue_depth,
            survey.plan.disk.elevator.name(),
            round_size(survey.plan.disk.write_cache_bytes),
        ),
        head: heads.map(str::to_owned).to_vec(),
        groups: Group::only(varied(survey).into_iter().map(row).collect()),
    }
}

fn power_cuts(survey: &Survey) -> Table {
    let row = |cuts: &Cuts| {
        let name = match cuts.setup.sync_every {
            None => format!("{}, no fsync", cuts.setup.mode.name()),
            Some(every) => format!("{}, fsync every {} s", cuts.setup.mode.name(), every.as_secs()),
        };
        let values = vec![
            mean_loss(&cuts.losses),
            most_lost(&cuts.losses),
            mean_age(cuts),
            synced_loss(&cuts.losses),
        ];
        (name, values)
    };
    let setup = survey.cuts.first().map(|cuts| cuts.setup);
    let note = setup.map_or(String::new(), |setup| {
        format!(
            "Modelled disk: {} writers of {} a second each, the power cut {} times at random moments; what write() had \
             returned for and is not there after recovery.",
            setup.writers,
            round_size(setup.bytes_per_second),
            setup.cuts
        )
    });
    Table {
        id: "crash",
        title: "What a crash takes".to_owned(),
        note,
        head: ["mean", "at most", "mean, seconds of writing", "of what fsync covered"]
            .map(str::to_owned)
            .to_vec(),
        groups: Group::only(survey.cuts.iter().map(row).collect()),
    }
}

fn image_file(real: &Real) -> Table {
    let row = |row: &RealRow| {
        let bytes = row.workload.bytes();
        let writes = Mode::ALL.map(|mode| one_digit(rate(bytes, row.outcome(mode).write)));
        let reads = Mode::ALL.map(|mode| one_digit(rate(bytes, row.outcome(mode).read)));
        let cpu = Mode::ALL.map(|mode| millis(row.outcome(mode).write_cpu.time));
        let name = if row.workload.writers == 1 {
            "one writer".to_owned()
        } else {
            format!("{} writers", row.workload.writers)
        };
        (name, [writes, reads, cpu].concat())
    };
    let counts = real
        .rows
        .iter()
        .flat_map(|row| &row.outcomes)
        .any(|outcome| outcome.write_cpu.instructions.is_some());
    let instructions = if counts { "" } else { " This machine does not count instructions." };
    let verdict = real.verdicts.first().map_or("", |verdict| verdict.name());
    Table {
        id: "image",
        title: "On an image file".to_owned(),
        note: format!(
            "Measured in {}; a thread for each writer; best of {}; e2fsck -fn: {verdict}. MB/s, and CPU time of the \
             process for writing.{instructions}",
            real.folder.display(),
            crate::output::count(real.rounds.into(), "round"),
        ),
        head: mode_heads("write").chain(mode_heads("read")).chain(mode_heads("CPU")).collect(),
        groups: Group::only(real.rows.iter().map(row).collect()),
    }
}

/// In which of the rows delaying gains less than a tenth, and why that is so where it is so.
pub fn when_nothing(survey: &Survey, real: Option<&Real>) -> Vec<String> {
    let rows = varied(survey);
    let sentence = |what: &str, name: &str, factor: &dyn Fn(&Row) -> Option<f64>| {
        let less = |row: &&&Row| factor(row).is_some_and(|factor| factor < WORTH_IT);
        let labels: Vec<String> = rows.iter().filter(less).map(|row| full_label(row)).collect();
        let labels = if labels.is_empty() { "nowhere".to_owned() } else { labels.join("; ") };
        format!("{what}, against {name}, it gains less than a tenth with: {labels}.")
    };
    let mut lines = Vec::new();
    for (mode, name) in
        [(Mode::Immediate, "immediate allocation"), (Mode::BlockByBlock, "one block at a time")]
    {
        lines.push(sentence("Writing", name, &|row| Some(row.write_factor(mode))));
        lines.push(sentence("Reading", name, &|row| row.read_factor(mode)));
    }
    lines.extend(REASONS.iter().map(|reason| (*reason).to_owned()));
    if let Some(row) = real.and_then(|real| real.rows.get(1)) {
        let factor = |mode| {
            row.outcome(mode).write.as_secs_f64()
                / row.outcome(Mode::Delayed).write.as_secs_f64().max(1e-9)
        };
        lines.push(format!(
            "An image file has no arm of its own: writing it took {} (immediate) and {} (block by block) as long as with \
             delay; what is saved is calls of allocator and journal.",
            times(factor(Mode::Immediate)),
            times(factor(Mode::BlockByBlock))
        ));
    }
    lines
}

/// The heading of [`when_nothing`].
pub const WHEN_NOTHING: &str = "When delaying gains nothing, and why";

const REASONS: [&str; 5] = [
    "One writer alone gets neighbouring blocks from any allocator.",
    "The kernel's immediate allocation sets room aside for each file that grows, up to 8 MiB at a time. Its extents are long enough \
     that seeks between them cost tens of percent and no multiple, until the files are many and small. What remains is the \
     work: an allocator call and a handle for every write.",
    "Blocks taken one by one lie in the order in which they were written. If all files are written back at the same moment, \
     their requests meet in elevator and cache, and become one long transfer. Reading one file later pays for it all the same.",
    "A write cache that holds the blocks of several files sorts them as an elevator would; with files much larger than the \
     cache it does not. The usual row has files of twice the cache.",
    "Each fsync ends a transaction, and with data=ordered whatever other files have placed in it is written too. So without delay \
     an fsync pays for all files: once if they sync at their ends, and every time if they sync often.",
];

/// The model's figures by name.
pub fn disk_figures(disk: &DiskModel) -> Vec<(&'static str, String)> {
    let mechanics = &disk.mechanics;
    let megabytes = |rate: u64| format!("{} MB/s", rate / 1_000_000);
    let milliseconds = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let half_turn =
        Duration::from_nanos(30_000_000_000 / u64::from(mechanics.turns_per_minute.max(1)));
    let cache = match disk.write_cache_bytes {
        0 => "off".to_owned(),
        bytes => round_size(bytes),
    };
    vec![
        ("turns a minute", mechanics.turns_per_minute.to_string()),
        ("half a turn, the average wait", milliseconds(half_turn)),
        ("average seek", milliseconds(mechanics.average_seek)),
        ("to the next track", milliseconds(mechanics.single_track)),
        ("full stroke", milliseconds(mechanics.full_stroke)),
        ("transfer, outermost zone", megabytes(mechanics.outer_bytes_per_second)),
        ("transfer, innermost zone", megabytes(mechanics.inner_bytes_per_second)),
        ("zones, surfaces", format!("{}, {}", mechanics.zones, mechanics.surfaces)),
        ("capacity", format!("{} GB", mechanics.bytes / 1_000_000_000)),
        ("each command", format!("{} us", disk.command.as_micros())),
        ("link", megabytes(disk.link_bytes_per_second)),
        ("write cache", cache),
        ("reads ahead", round_size(disk.lookahead_bytes)),
        ("queue depth (NCQ)", disk.queue_depth.to_string()),
        ("elevator", disk.elevator.name().to_owned()),
        ("requests in elevator and disk", disk.requests.to_string()),
        ("longest request", format!("{} KiB", disk.request_bytes >> 10)),
        ("processor", "takes no time".to_owned()),
    ]
}

/// The power cuts of a mode, with `fsync` or without.
pub fn cuts_of(survey: &Survey, mode: Mode, synced: bool) -> Option<&Cuts> {
    let mut cuts = survey.cuts.iter();
    cuts.find(|cuts| cuts.setup.mode == mode && cuts.setup.sync_every.is_some() == synced)
}

fn mean(losses: &[Loss], of: impl Fn(&Loss) -> u64) -> u64 {
    let count = u64::try_from(losses.len()).unwrap_or(u64::MAX).max(1);
    losses.iter().map(of).sum::<u64>() / count
}

fn mean_loss(losses: &[Loss]) -> String {
    size(mean(losses, |loss| loss.written_missing))
}

fn most_lost(losses: &[Loss]) -> String {
    size(losses.iter().map(|loss| loss.written_missing).max().unwrap_or(0))
}

fn synced_loss(losses: &[Loss]) -> String {
    size(losses.iter().map(|loss| loss.synced_missing).sum())
}

fn mean_age(cuts: &Cuts) -> String {
    let rate = float(cuts.setup.bytes_per_second) * f64::from(cuts.setup.writers);
    one_digit(float(mean(&cuts.losses, |loss| loss.written_missing)) / rate.max(1.0))
}

/// A size without a fraction that is zero.
fn round_size(bytes: u64) -> String {
    size(bytes).replace(".0 ", " ")
}

/// A factor.
pub fn times(factor: f64) -> String {
    format!("{factor:.2} x")
}

fn one_digit(number: f64) -> String {
    format!("{number:.1}")
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn optional<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or("-".to_owned(), show)
}

/// A factor from which on a difference is called a gain.
const WORTH_IT: f64 = 1.1;
