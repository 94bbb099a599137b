//! `extant demo`: what delaying an allocation buys, measured.
//!
//! Eight files grow in turn by small writes, once with delayed allocation and once without, with a cache that holds them and
//! with one that does not. Each run has an image of its own, which `e2fsck` then judges.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use extant::Counters;
use extant_bench::delalloc::image::{Hands, Setup as Run};
use extant_bench::delalloc::workload::{Mode, Workload};
use serde_json::{Value, json};

use super::bench::{Scratch, go_on, stoppable};
use crate::interrupt;
use crate::judge::{Verdict, judge};
use crate::output::{print_json, size};
use crate::progress::{Progress, Words};

/// Measure what delaying an allocation buys, on a throw-away image; `bench delalloc` is the long form
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Where the image is made; it needs 1 GiB at most
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

/// One of the four runs.
#[derive(Clone, Copy, Debug)]
struct Setup {
    delayed: bool,
    cache_bytes: u64,
}

/// What came out of a run.
#[derive(Debug)]
struct Outcome {
    setup: Setup,
    extents: u64,
    counters: Counters,
    elapsed: Duration,
    verdict: Verdict,
}

pub fn run(args: &DemoArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    interrupt::watch();
    let progress = Progress::new(Some(WORKLOAD.bytes() * 4), Words::Usual);
    let mut outcomes = Vec::new();
    for delayed in [true, false] {
        for cache_bytes in [512 << 20, 64 << 20] {
            let setup = Setup { delayed, cache_bytes };
            progress.say(&format!("{}, cache of {}", mode_name(delayed), size(cache_bytes)));
            outcomes.push(measure(setup, &args.folder, &progress)?);
        }
    }
    progress.clear();
    match args.json {
        true => print_json(out, &outcomes.iter().map(json_outcome).collect())?,
        false => print_table(&outcomes, out)?,
    }
    outcomes.iter().try_for_each(|outcome| outcome.verdict.check())
}

fn measure(setup: Setup, folder: &Path, progress: &Progress) -> anyhow::Result<Outcome> {
    let image = Scratch::new(folder);
    let run = Run {
        mode: if setup.delayed { Mode::Delayed } else { Mode::Immediate },
        workload: WORKLOAD,
        hands: Hands::One,
        cache_bytes: setup.cache_bytes,
        image_bytes: IMAGE_BYTES,
        reads: false,
    };
    let outcome = stoppable(run.run(image.path(), &|bytes| go_on(progress, bytes)))?;
    let (extents, counters, elapsed) = (outcome.extents, outcome.counters, outcome.write);
    Ok(Outcome { setup, extents, counters, elapsed, verdict: judge(image.path()) })
}

fn mode_name(delayed: bool) -> &'static str {
    if delayed { "delayed allocation" } else { "immediate allocation" }
}

fn extents_per_file(outcome: &Outcome) -> String {
    let tenths = outcome.extents * 10 / u64::from(WORKLOAD.writers);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A line of the table: its title, and what it shows of a run.
type Row<'a> = (&'a str, &'a dyn Fn(&Outcome) -> String);

fn print_table(outcomes: &[Outcome], out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "Eight files of {} grow in turn by writes of {}, then one sync.",
        size(WORKLOAD.file_bytes()),
        size(WORKLOAD.call_bytes.into())
    )?;
    writeln!(out)?;
    let rows: [Row; 12] = [
        ("blocks are chosen", &|outcome| {
            if outcome.setup.delayed { "at writeback" } else { "at each write" }.to_owned()
        }),
        ("cache limit", &|outcome| size(outcome.setup.cache_bytes)),
        ("extents per file", &extents_per_file),
        ("allocator calls", &|outcome| outcome.counters.allocator_calls.to_string()),
        ("  that searched", &|outcome| outcome.counters.allocator_searches.to_string()),
        ("journal handles", &|outcome| outcome.counters.handles.to_string()),
        ("journal blocks", &|outcome| outcome.counters.journal_blocks.to_string()),
        ("device writes", &|outcome| outcome.counters.device_writes.to_string()),
        ("bytes written", &|outcome| size(outcome.counters.device_write_bytes)),
        ("flushes", &|outcome| outcome.counters.flushes.to_string()),
        ("time", &|outcome| format!("{:.2} s", outcome.elapsed.as_secs_f64())),
        ("e2fsck -fn", &|outcome| outcome.verdict.name().to_owned()),
    ];
    for (title, value) in rows {
        write!(out, "{title:<18}")?;
        for outcome in outcomes {
            write!(out, " {:>14}", value(outcome))?;
        }
        writeln!(out)?;
    }
    Ok(writeln!(out, "\n{WHAT_COUNTS}")?)
}

const WHAT_COUNTS: &str = "\
The time is that of this machine's memory and processor, and differs from run to run by more than from column to column.
What delaying buys stands in the rows above it: a place is chosen once for many writes, each file lies in one piece, and the
journal and the device have less to do. A disk that has to seek, or a flush that takes its time, feels each of them.";

fn json_outcome(outcome: &Outcome) -> Value {
    let counters = &outcome.counters;
    json!({
        "delayed_allocation": outcome.setup.delayed,
        "cache_bytes": outcome.setup.cache_bytes,
        "files": WORKLOAD.writers,
        "file_bytes": WORKLOAD.file_bytes(),
        "extents": outcome.extents,
        "allocator_calls": counters.allocator_calls,
        "allocator_searches": counters.allocator_searches,
        "handles": counters.handles,
        "journal_blocks": counters.journal_blocks,
        "device_writes": counters.device_writes,
        "device_write_bytes": counters.device_write_bytes,
        "flushes": counters.flushes,
        "seconds": outcome.elapsed.as_secs_f64(),
        "e2fsck": match outcome.verdict {
            Verdict::Clean => json!("clean"),
            Verdict::NotClean(_) => json!("not clean"),
            Verdict::NotAsked => Value::Null,
        },
    })
}

const WORKLOAD: Workload =
    Workload { writers: 8, total_bytes: 256 << 20, call_bytes: 4096, seed: 0 };
const IMAGE_BYTES: u64 = 1 << 30;
