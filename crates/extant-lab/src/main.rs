//! Runs the suites that have no end of their own: damaged images and crash images, as many as are asked for.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cap::Cap;
use clap::{Args, Parser, Subcommand};
use extant_device::OperationKind;
use extant_lab::contents;
use extant_lab::crash::{self, Report, Set};
use extant_lab::damage::{self, Case, Run, Watch};
use extant_lab::dirty;
use extant_lab::fast_commit;
use extant_lab::fill;
use extant_lab::kill;
use extant_lab::mounts;
use extant_lab::oracle;
use extant_lab::planted;
use extant_lab::stress;
use extant_testkit::oracle::Scratch;
use extant_testkit::{Effect, Fault};

/// Counts what is allocated, so that a case cannot take more than its share: past it, the process ends.
#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// The most that an operation may allocate beyond what was there before.
const MOST_BYTES: usize = 256 << 20;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Reads and writes damaged images
    Damage(DamageArgs),
    /// Does the work of `damage`, for it to survive what kills a process
    #[command(hide = true)]
    DamageWorker { seed: u64, first: u64, step: u64, count: u64 },
    /// Recovers crash images of scripts
    Crash(CrashArgs),
    /// Runs several clients with faults and a crash, all by a seed, twice
    Simulate(SimulateArgs),
    /// Recovers fast commits of the kernel, and lets it recover ours
    FastCommit(FastCommitArgs),
    /// Recovers what the kernel leaves when it is shut down under load
    Dirty(DirtyArgs),
    /// Runs random operations on files against a plain model
    Contents(ContentsArgs),
    /// Fills small images to the last block
    Fill(FillArgs),
    /// Many threads at once on the same few files
    Stress(StressArgs),
    /// Kills copies of a tree, and looks for what had been synced
    Kill(KillArgs),
    /// Copies a tree for `kill`, and names what it synced
    #[command(hide = true)]
    KillCopier { image: PathBuf, tree: PathBuf },
    /// Does to `extant mount` what must not hurt it
    Mounts(MountsArgs),
    /// Compares events with the kernel's
    Trace(TraceArgs),
    /// Checks images with planted defects, and sound ones
    CheckOracle(CheckOracleArgs),
}

#[derive(Debug, Args)]
struct CheckOracleArgs {
    /// How many sound images; kinds take turns
    #[arg(long, default_value_t = 1000)]
    images: u64,
    /// How many damaged images, which need only be checked to their end
    #[arg(long, default_value_t = 1000)]
    damaged: u64,
    /// The first image of either kind
    #[arg(long, default_value_t = 0)]
    first: u64,
}

#[derive(Debug, Args)]
struct TraceArgs {
    /// Scripts to run
    #[arg(required_unless_present_any = ["all", "random"])]
    scripts: Vec<PathBuf>,
    /// Every script of the repository
    #[arg(long)]
    all: bool,
    /// Compare the kernel with itself: what differs then is chance
    #[arg(long)]
    kernel: bool,
    /// Only a line for each script
    #[arg(short, long)]
    quiet: bool,
    /// All differences, not only the first of each stream
    #[arg(short, long, conflicts_with = "quiet")]
    full: bool,
    /// So many random scripts; those that differ are made small, unless a line is all that is told
    #[arg(long, default_value_t = 0)]
    random: u64,
    /// The first random script's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct FastCommitArgs {
    /// How many scripts
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
}

#[derive(Debug, Args)]
struct DirtyArgs {
    #[command(flatten)]
    seeds: FastCommitArgs,
    /// Every how many-th seed: 48 for one kind of volume, mode of data and sort of commit
    #[arg(long, default_value_t = 1)]
    step: usize,
    /// One thread, stopped after so many operations: the same images each time
    #[arg(long)]
    alone: bool,
    /// Recover this image, which was kept after a failure, and no others
    #[arg(long)]
    image: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ContentsArgs {
    /// How many images; kinds take turns
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Operations on each
    #[arg(long, default_value_t = 500)]
    operations: usize,
    /// Print each operation
    #[arg(long)]
    tell: bool,
}

#[derive(Debug, Args)]
struct FillArgs {
    /// How many images; kinds take turns
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Print each step
    #[arg(long)]
    tell: bool,
}

#[derive(Debug, Args)]
struct StressArgs {
    /// For how long; a turn that has begun ends
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many threads
    #[arg(long, default_value_t = 16)]
    threads: u64,
    /// Decides what each thread does
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first turn; kinds of images take turns
    #[arg(long, default_value_t = 0)]
    turn: u64,
}

#[derive(Debug, Args)]
struct KillArgs {
    /// How many kills
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// The image's size in MiB
    #[arg(long, default_value_t = 4096)]
    size: u64,
    /// What is copied
    #[arg(default_value = "/usr/share")]
    tree: PathBuf,
}

#[derive(Debug, Args)]
struct MountsArgs {
    /// The program
    #[arg(long)]
    program: PathBuf,
    /// Which suites; all, if none is named
    #[arg(value_parser = mounts::SUITES.map(|suite| suite.name))]
    suites: Vec<String>,
    /// How many images, kills, or operations of each seed
    #[arg(long)]
    count: Option<u64>,
    /// How long the suites by the clock run, or each part of them
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    images: DamagedImages,
}

/// Which damaged images; the seed decides what other suites do as well.
#[derive(Clone, Copy, Debug, Args)]
struct DamagedImages {
    /// Decides all damage, and what else is done
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of the first damaged image
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this damaged image, step by step
    #[arg(long)]
    only: Option<u64>,
}

#[derive(Debug, Args)]
struct CrashArgs {
    /// How many seeds, each a script on a kind of volume: 100, or all pairs
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// At most so many images of each
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Volumes with fast commits
    #[arg(long)]
    fast_commits: bool,
    /// All sequences of one and two changes
    #[arg(long, conflicts_with = "fast_commits")]
    pairs: bool,
    /// Sequences of three changes, chosen by seed
    #[arg(long, conflicts_with_all = ["fast_commits", "pairs"])]
    triples: bool,
    /// Databases, mail stores and package managers
    #[arg(long, conflicts_with_all = ["fast_commits", "pairs", "triples"])]
    programs: bool,
    /// Instead of crashes, let the n-th request go wrong, n = 1, 2, ..; at most --images runs for each way
    #[arg(long, conflicts_with = "sabotage")]
    failures: bool,
    /// Print each script
    #[arg(long)]
    tell: bool,
    /// Drop every flush, and expect that to be found
    #[arg(long)]
    sabotage: bool,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
}

#[derive(Debug, Args)]
struct DamageArgs {
    /// How many images
    #[arg(long, default_value_t = 1000)]
    count: u64,
    #[command(flatten)]
    images: DamagedImages,
    /// How many processes
    #[arg(long)]
    workers: Option<u64>,
}

fn main() -> ExitCode {
    let passed = match Cli::parse().command {
        Suite::Damage(DamageArgs {
            images: DamagedImages { only: Some(number), seed, .. },
            ..
        }) => replay(Case { seed, number }),
        Suite::Damage(arguments) => run_damage(&arguments),
        Suite::Crash(arguments) => run_crash(&arguments),
        Suite::Simulate(arguments) => run_simulate(&arguments),
        Suite::Trace(arguments) => run_trace(&arguments),
        Suite::CheckOracle(arguments) => run_check_oracle(&arguments),
        Suite::DamageWorker { seed, first, step, count } => {
            damage::work(seed, first, step, count, limit_memory);
            true
        }
        Suite::FastCommit(arguments) => run_fast_commit(&arguments),
        Suite::Dirty(arguments) => run_dirty(&arguments),
        Suite::Contents(arguments) => run_contents(&arguments),
        Suite::Fill(arguments) => run_fill(&arguments),
        Suite::Stress(arguments) => run_stress(&arguments),
        Suite::Kill(arguments) => run_kills(&arguments),
        Suite::Mounts(arguments) => run_mounts(&arguments),
        Suite::KillCopier { image, tree } => match kill::copy(&image, &tree) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("{error}");
                false
            }
        },
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn limit_memory() {
    let limit = ALLOCATOR.allocated().saturating_add(MOST_BYTES);
    // Refused only if more is in use already, which the line above rules out but for other threads.
    let _ = ALLOCATOR.set_limit(limit);
}

fn run_damage(arguments: &DamageArgs) -> bool {
    let start = Instant::now();
    let cores =
        std::thread::available_parallelism().map_or(1, |n| u64::try_from(n.get()).unwrap_or(1));
    let workers = arguments.workers.unwrap_or(cores).max(1);
    let DamagedImages { seed, first, .. } = arguments.images;
    let run = Run { seed, first, count: arguments.count, workers };
    let program = std::env::current_exe().expect("this program has a file");
    let worker = || {
        let mut command = Command::new(&program);
        command.arg("damage-worker");
        command
    };
    let failures = damage::run(&run, worker).expect("this program can be started");
    for failure in &failures {
        let story = failure.case.build().map(|damaged| damaged.story).unwrap_or_default();
        println!("FAILED {}: {}\n  {story}", failure.case, failure.end);
    }
    println!(
        "{} damaged images, {} failed, {} s; replay one with `cargo xtask damage --seed {} --only NUMBER`",
        run.count,
        failures.len(),
        start.elapsed().as_secs(),
        run.seed
    );
    failures.is_empty()
}

fn run_check_oracle(arguments: &CheckOracleArgs) -> bool {
    let scratch = Scratch::new("planted");
    let all = planted::planted();
    let judged = all.iter().map(|(defect, base)| planted::judge(defect, base, &scratch));
    let mut failures: Vec<String> = judged.filter_map(Result::err).collect();
    failures.extend(planted::many_links(&scratch).err());
    println!("{} planted defects, {} misjudged", all.len() + 1, failures.len());
    let wrong = planted::clean_images(arguments.first, arguments.images);
    println!("{} sound images, {} with findings", arguments.images, wrong.len());
    failures.extend(wrong);
    let differ = planted::damaged_images(arguments.first, arguments.damaged);
    println!("{} damaged images, {} with several answers", arguments.damaged, differ.len());
    failures.extend(differ);
    failures.iter().for_each(|failure| println!("{failure}"));
    failures.is_empty()
}

fn run_contents(arguments: &ContentsArgs) -> bool {
    let start = Instant::now();
    let outcome =
        contents::run(arguments.first, arguments.seeds, arguments.operations, arguments.tell);
    match &outcome {
        Ok(operations) => println!(
            "{operations} operations on {} images as the model says, {} s",
            arguments.seeds,
            start.elapsed().as_secs()
        ),
        Err(failures) => failures.iter().for_each(|failure| println!("FAILED {failure}")),
    }
    outcome.is_ok()
}

fn run_fast_commit(arguments: &FastCommitArgs) -> bool {
    let start = Instant::now();
    let (mut done, mut failed) = (0, 0);
    let seen = Arc::new(fast_commit::Seen::default());
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        let of_kernel = fast_commit::recover_from_kernel(seed, &seen);
        let (Some(of_kernel), Some(ours)) =
            (of_kernel, fast_commit::recover_from_engine(seed, &seen))
        else {
            return true;
        };
        for (who, outcome) in [("the kernel's", of_kernel), ("ours", ours)] {
            if let Err(reason) = outcome {
                failed += 1;
                println!("FAILED seed {seed}, {who}: {reason}");
            }
        }
        done += 1;
    }
    println!(
        "{done} scripts, records by tag {:?}, {} refused by the kernel, {} fast commits of ours, {failed} failed, {} s",
        seen.tags(),
        seen.refused(),
        seen.written(),
        start.elapsed().as_secs()
    );
    failed == 0
}

fn run_dirty(arguments: &DirtyArgs) -> bool {
    let start = Instant::now();
    let (mut done, mut failed) = (0, 0);
    let seen = Arc::new(fast_commit::Seen::default());
    if let Some(image) = &arguments.image {
        let outcome = dirty::recover_left(image, &seen);
        match &outcome {
            Ok(()) => println!("recovered alike"),
            Err(reason) => println!("FAILED {reason}"),
        }
        return outcome.is_ok();
    }
    let FastCommitArgs { first, seeds } = arguments.seeds;
    let seeds = usize::try_from(seeds).unwrap_or(usize::MAX);
    let work = if arguments.alone { dirty::Work::Alone } else { dirty::Work::Threads };
    for seed in (first..).step_by(arguments.step.max(1)).take(seeds) {
        let Some(outcome) = dirty::recover(seed, work, &seen) else { return true };
        done += 1;
        if let Err(reason) = outcome {
            failed += 1;
            println!("FAILED seed {seed}: {reason}");
        }
    }
    println!(
        "{done} dirty images of the kernel, records by tag {:?}, {} that it refused itself, {failed} failed, {} s",
        seen.tags(),
        seen.refused(),
        start.elapsed().as_secs()
    );
    failed == 0
}

fn run_fill(arguments: &FillArgs) -> bool {
    let start = Instant::now();
    let outcome = fill::run(arguments.first, arguments.seeds, arguments.tell);
    match &outcome {
        Ok(runs) => println!(
            "{runs} images filled, emptied in part and filled again, nothing lost, {} s",
            start.elapsed().as_secs()
        ),
        Err(failures) => failures.iter().for_each(|failure| println!("FAILED {failure}")),
    }
    outcome.is_ok()
}

fn run_stress(arguments: &StressArgs) -> bool {
    let start = Instant::now();
    let StressArgs { seconds, threads, seed, turn } = *arguments;
    let run = stress::Run { seed, threads, time: Duration::from_secs(seconds), first: turn };
    let outcome = run.run();
    match &outcome {
        Ok(report) => {
            println!("{report}, {threads} threads, {} s", start.elapsed().as_secs());
        }
        Err(failure) => println!("FAILED {failure}"),
    }
    outcome.is_ok()
}

fn run_kills(arguments: &KillArgs) -> bool {
    let start = Instant::now();
    let program = std::env::current_exe().expect("this program has a file");
    let copier = || {
        let mut command = Command::new(&program);
        command.arg("kill-copier");
        command
    };
    let report = kill::run(arguments.count, arguments.size << 20, &arguments.tree, copier);
    let Some(report) = report.expect("the copier can be started and files read") else {
        println!("skipped: neither e2fsprogs nor the kernel can judge here");
        return true;
    };
    report.failures.iter().for_each(|failure| println!("FAILED {failure}"));
    println!(
        "{} kills, {} synced files compared twice, {} failed, {} s",
        report.kills,
        report.files,
        report.failures.len(),
        start.elapsed().as_secs()
    );
    report.failures.is_empty()
}

fn run_mounts(arguments: &MountsArgs) -> bool {
    if !mounts::Served::can() {
        return true;
    }
    let wishes = mounts::Wishes {
        program: arguments.program.clone(),
        seed: arguments.images.seed,
        count: arguments.count,
        seconds: arguments.seconds,
        first: arguments.images.first,
        only: arguments.images.only,
    };
    let is_meant = |suite: &&mounts::Suite| {
        arguments.suites.is_empty() || arguments.suites.iter().any(|name| name == suite.name)
    };
    let mut passed = true;
    for suite in mounts::SUITES.iter().filter(is_meant) {
        passed &= suite.tell(&wishes); // each, even if one before it failed
    }
    passed
}

/// Runs one case here, and tells each step.
fn replay(case: Case) -> bool {
    if let Some(damaged) = case.build() {
        println!("{}", damaged.story);
    }
    let ended = damage::try_case(case, &Watch::new(true), limit_memory);
    match &ended {
        Ok(()) => println!("every step ended"),
        Err(step) => println!("panicked in {step}"),
    }
    ended.is_ok()
}

fn run_crash(arguments: &CrashArgs) -> bool {
    let start = Instant::now();
    let fault =
        Fault { kind: Some(OperationKind::Flush), nth: 1, onwards: true, effect: Effect::Ignore };
    let sabotage = arguments.sabotage.then_some(fault);
    let set = match arguments {
        CrashArgs { fast_commits: true, .. } => Set::FastCommits,
        CrashArgs { pairs: true, .. } => Set::Pairs,
        CrashArgs { triples: true, .. } => Set::Triples,
        CrashArgs { programs: true, .. } => Set::Programs,
        _ => Set::Usual,
    };
    let usual = if set == Set::Pairs { crash::all_pairs() } else { 100 };
    let end = arguments.first.saturating_add(arguments.seeds.unwrap_or(usual));
    let all = Mutex::new(Report::default());
    each_seed(arguments.first..end, |seed| {
        if arguments.tell {
            let script = crash::script_of(set, seed);
            let lines: Vec<String> = script.iter().map(ToString::to_string).collect();
            println!("seed {seed}: {}", lines.join(", "));
        }
        let report = match arguments.failures {
            true => {
                crash::fail_each(set, seed, u64::try_from(arguments.images).unwrap_or(u64::MAX))
            }
            false => crash::explore(set, seed, arguments.images, sabotage),
        };
        report.failures.iter().take(3).for_each(|failure| println!("FAILED {failure}"));
        all.lock().expect("no thread panics").add(report);
    });
    let all = all.into_inner().expect("no thread panics");
    let what = if arguments.failures { ", of failures" } else { "" };
    println!("{all}{what}, {} s", start.elapsed().as_secs());
    all.failures.is_empty() != arguments.sabotage
}

/// Does `work` for each seed, in as many threads as there are processors.
fn each_seed(seeds: Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let turns = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < seeds.end)
        {
            work(seed);
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        (0..workers).for_each(|_| drop(scope.spawn(turns)));
    });
}

fn run_simulate(arguments: &SimulateArgs) -> bool {
    let start = Instant::now();
    let SimulateArgs { first, seeds } = *arguments;
    let sums = Mutex::new((0, 0, 0, 0)); // operations, events, seeds with a fault, failures
    each_seed(first..first.saturating_add(seeds), |seed| {
        let outcome = crash::simulate(seed);
        let mut sums = sums.lock().expect("no thread panics");
        match outcome {
            Ok(done) => {
                sums.0 += done.operations;
                sums.1 += done.events;
                sums.2 += u64::from(done.faulty);
            }
            Err(reason) => {
                sums.3 += 1;
                println!("FAILED cargo xtask simulate --first {seed} --seeds 1: {reason}");
            }
        }
    });
    let (operations, events, faulty, failed) = sums.into_inner().expect("no thread panics");
    println!(
        "{seeds} seeds, each twice, {operations} operations, {events} events, {faulty} met a fault, {failed} failed, {} s",
        start.elapsed().as_secs()
    );
    failed == 0
}

/// Whether no script's events differ.
fn run_trace(arguments: &TraceArgs) -> bool {
    let mut report = oracle::Report::new(
        if arguments.kernel { oracle::Other::Kernel } else { oracle::Other::Engine },
        match (arguments.quiet, arguments.full) {
            (true, _) => oracle::Detail::Line,
            (false, true) => oracle::Detail::All,
            (false, false) => oracle::Detail::First,
        },
    );
    let all = arguments.all.then(|| oracle::repository_scripts().expect("this is the repository"));
    for path in arguments.scripts.iter().chain(all.iter().flatten()) {
        report.file(path);
    }
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.random) {
        report.random(seed);
    }
    println!("{report}");
    report.passes()
}
