//! `extant demo`: what delaying an allocation buys, measured.
//!
//! Eight files grow in turn by small writes, once with delayed allocation and once without, with a cache that holds them and
//! with one that does not. Each run has an image of its own, which `e2fsck` then judges.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use extant::{Counters, Filesystem, MountOptions};
use extant_device::FileDevice;
use extant_format::cast::u64_from;
use extant_image::{MkfsOptions, mkfs};
use serde_json::{Value, json};

use super::mkfs::random_uuid;
use crate::interrupt;
use crate::output::{print_json, size};
use crate::progress::{Progress, Words};

/// Measure what delaying an allocation buys, on a throw-away image
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
    extents: usize,
    counters: Counters,
    elapsed: Duration,
    verdict: Verdict,
}

/// What `e2fsck -fn` says of the image.
#[derive(Debug)]
enum Verdict {
    Clean,
    NotClean(String),
    NotAsked,
}

pub fn run(args: &DemoArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    interrupt::watch();
    let progress = Progress::new(Some(FILES * FILE_BYTES * 4), Words::Usual);
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
    let dirty = outcomes.iter().find_map(|outcome| match &outcome.verdict {
        Verdict::NotClean(words) => Some(words),
        Verdict::Clean | Verdict::NotAsked => None,
    });
    dirty.map_or(Ok(()), |words| Err(anyhow::anyhow!("e2fsck found the image not clean: {words}")))
}

/// An image that is removed when it is no longer needed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover file is no reason to fail.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn measure(setup: Setup, folder: &Path, progress: &Progress) -> anyhow::Result<Outcome> {
    let image = Scratch(folder.join(format!("extant-demo-{}.img", std::process::id())));
    let device = FileDevice::create(&image.0, IMAGE_BYTES)?;
    let options =
        MkfsOptions { uuid: random_uuid(), hash_seed: random_uuid(), ..MkfsOptions::default() };
    mkfs(&device, &options)?;
    let mount =
        MountOptions::new().delayed_allocation(setup.delayed).cache_bytes(setup.cache_bytes);
    let filesystem = mount.mount(device)?;

    let before = filesystem.counters();
    let start = Instant::now();
    let extents = grow_in_turn(&filesystem, progress).context("growing eight files")?;
    let elapsed = start.elapsed();
    let counters = difference(filesystem.counters(), before);
    filesystem.unmount().context("unmounting")?;
    Ok(Outcome { setup, extents, counters, elapsed, verdict: judge(&image.0) })
}

/// Writes, syncs, and counts the extents of all files together.
fn grow_in_turn(filesystem: &Filesystem, progress: &Progress) -> anyhow::Result<usize> {
    let names = (0..FILES).map(|n| format!("/file-{n}"));
    let files = names.map(|name| filesystem.create(name)).collect::<Result<Vec<_>, _>>()?;
    let piece = [0x5A; PIECE_BYTES];
    for step in 0..FILE_BYTES / u64_from(PIECE_BYTES) {
        for file in &files {
            let mut written = 0;
            while written < piece.len() {
                let offset = step * u64_from(PIECE_BYTES) + u64_from(written);
                written += file.write_at(&piece[written..], offset)?;
            }
        }
        if step % 64 == 63 {
            interrupt::check()?;
            progress.bytes_done(FILES * 64 * u64_from(PIECE_BYTES));
        }
    }
    filesystem.sync_all()?;
    files.iter().map(|file| Ok(file.extents()?.len())).sum()
}

fn difference(after: Counters, before: Counters) -> Counters {
    Counters {
        device_reads: after.device_reads - before.device_reads,
        device_read_bytes: after.device_read_bytes - before.device_read_bytes,
        device_writes: after.device_writes - before.device_writes,
        device_write_bytes: after.device_write_bytes - before.device_write_bytes,
        flushes: after.flushes - before.flushes,
        journal_blocks: after.journal_blocks - before.journal_blocks,
        commits: after.commits - before.commits,
        handles: after.handles - before.handles,
        allocator_calls: after.allocator_calls - before.allocator_calls,
        allocator_searches: after.allocator_searches - before.allocator_searches,
    }
}

fn judge(image: &Path) -> Verdict {
    let found = ["e2fsck", "/usr/sbin/e2fsck", "/sbin/e2fsck"].into_iter().find_map(|program| {
        Command::new(program).arg("-fn").arg(image).stdin(Stdio::null()).output().ok()
    });
    match found {
        None => Verdict::NotAsked,
        Some(output) if output.status.success() => Verdict::Clean,
        Some(output) => {
            Verdict::NotClean(String::from_utf8_lossy(&output.stdout).trim().replace('\n', " | "))
        }
    }
}

fn mode_name(delayed: bool) -> &'static str {
    if delayed { "delayed allocation" } else { "immediate allocation" }
}

fn extents_per_file(outcome: &Outcome) -> String {
    let tenths = u64_from(outcome.extents) * 10 / FILES;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A line of the table: its title, and what it shows of a run.
type Row<'a> = (&'a str, &'a dyn Fn(&Outcome) -> String);

fn print_table(outcomes: &[Outcome], out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "Eight files of {} grow in turn by writes of {}, then one sync.",
        size(FILE_BYTES),
        size(u64_from(PIECE_BYTES))
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
        ("e2fsck -fn", &|outcome| match outcome.verdict {
            Verdict::Clean => "clean".to_owned(),
            Verdict::NotClean(_) => "NOT CLEAN".to_owned(),
            Verdict::NotAsked => "not installed".to_owned(),
        }),
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
        "files": FILES,
        "file_bytes": FILE_BYTES,
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

const FILES: u64 = 8;
const FILE_BYTES: u64 = 32 << 20;
const PIECE_BYTES: usize = 4096;
const IMAGE_BYTES: u64 = 1 << 30;
