//! `extant bench`: measures the engine. `bench delalloc` is the comparison of delayed with immediate allocation, on an image
//! file and on a modelled hard disk.
//!
//! | file | what |
//! | --- | --- |
//! | `real.rs` | the runs on an image file |
//! | `record.rs` | figures for programs |
//! | `tables.rs` | figures as tables and sentences |
//! | `page.rs`, `plot.rs` | the page, and its pictures |

mod page;
mod plot;
mod real;
mod record;
mod tables;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use extant_bench::delalloc::survey::{Plan, Survey};
use extant_bench::{Failure, Stopped};

use crate::interrupt::{self, Interrupted};
use crate::output::print_json;
use crate::progress::{Progress, Words};
use crate::values;
pub use real::Scratch;
use real::{Real, RealPlan};

/// Measure what the engine does
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Delalloc(DelallocArgs),
}

/// Compare delayed with immediate allocation, on an image file and on a modelled hard disk
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
struct DelallocArgs {
    /// Where the image is made; it needs four times --size
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Bytes that all writers of a run write together
    #[arg(long, default_value = "256M", value_parser = values::size)]
    size: u64,
    /// Numbers of writers to compare on the modelled disk
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64", value_parser = clap::value_parser!(u32).range(1..=1024))]
    writers: Vec<u32>,
    /// Memory of the modelled disk for writes; 0 switches its write cache off
    #[arg(long, default_value = "16M", value_parser = values::size)]
    disk_cache: u64,
    /// Decides what is left to chance in the model
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each run on the image file is made; the best counts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only the modelled disk: figures that are the same on every machine
    #[arg(long, conflicts_with = "real_only")]
    model_only: bool,
    /// Only the image file
    #[arg(long)]
    real_only: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

const HELP: &str = "\
Each run writes files side by side by writes of 4 KiB, makes each durable by fsync, and reads them back cold: with delayed
allocation, with immediate allocation as the kernel does it (nodelalloc), and with blocks taken one at a time and nothing
set aside, as allocators did before. The modelled disk is one of 7,200 turns a minute; its figures are printed. Its time is
virtual, so that a seed gives the same figures everywhere. Power cuts of it show what a crash takes.";

/// All that was measured.
struct Measured {
    survey: Option<Survey>,
    real: Option<Real>,
}

pub fn run(args: &BenchArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    interrupt::watch();
    let Bench::Delalloc(args) = &args.what;
    if let Some(path) = &args.html {
        // Before minutes are spent on what cannot be kept.
        let opened = std::fs::File::options().append(true).create(true).open(path);
        opened.with_context(|| format!("{}", path.display()))?;
    }
    let measured = measure(args)?;
    if let Some(path) = &args.html {
        let page = page::render(&measured, &command_line());
        std::fs::write(path, page).with_context(|| format!("{}", path.display()))?;
    }
    match args.json {
        true => print_json(out, &record::json(&measured))?,
        false => tables::print(&measured, out)?,
    }
    measured.real.iter().flat_map(|real| &real.verdicts).try_for_each(|verdict| verdict.check())
}

fn measure(args: &DelallocArgs) -> anyhow::Result<Measured> {
    let mut plan = Plan {
        writer_counts: args.writers.clone(),
        total_bytes: args.size,
        seed: args.seed,
        ..Plan::default()
    };
    plan.disk.write_cache_bytes = args.disk_cache;
    let real_plan = RealPlan::new(args.size, args.rounds);
    let modelled = u64::try_from(plan.runs()).unwrap_or(u64::MAX).saturating_mul(args.size);
    let total = if args.real_only { 0 } else { modelled }
        + if args.model_only { 0 } else { real_plan.bytes() };
    let progress = Progress::new(Some(total), Words::Usual);
    let mut measured = Measured { survey: None, real: None };
    // First what is measured, then what only has to be computed: that may use all processors.
    if !args.model_only {
        progress.say("image file");
        measured.real = Some(real_plan.run(&args.folder, &progress)?);
    }
    if !args.real_only {
        progress.say("modelled disk");
        measured.survey = Some(stoppable(plan.run(&|| go_on(&progress, args.size)))?);
    }
    progress.clear();
    Ok(measured)
}

/// Tells of so many more bytes, unless a signal came.
pub fn go_on(progress: &Progress, bytes: u64) -> Result<(), Stopped> {
    progress.bytes_done(bytes);
    interrupt::check().map_err(|_| Stopped)
}

/// What a measurement that goes on by [`go_on`] came to.
pub fn stoppable<T>(outcome: Result<T, Failure>) -> anyhow::Result<T> {
    outcome.map_err(|failure| match failure {
        Failure::Stopped(_) => Interrupted(String::new()).into(),
        failure => failure.into(),
    })
}

/// How this program was called.
fn command_line() -> String {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    ["extant".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
