//! `extant crash-test`: runs a script on a fresh image in memory, crashes it at every moment, and tells which promises of
//! the script do not hold, or what a crash can leave of its files.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args as _;
use extant_device::{BlockDevice, BlockDeviceExt, MemoryDevice};
use extant_format::cast::u64_from;
use extant_image::{MkfsOptions, mkfs};
use extant_script::crash::{
    Breach, CrashError, CrashReport, CrashTest, FileReport, Looks, Moment, Pause, Promise, Reached,
    Wait,
};
use extant_script::{Operation, Script, Step, mount_options};
use serde_json::{Value, json};

use super::mkfs::MkfsArgs;
use crate::failure::{self, Told, Usage};
use crate::output::{count, json_name, print_json};
use crate::volume;

/// Run a script, crash it at every moment, and tell which of its promises do not hold
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct CrashTestArgs {
    /// File with one operation a line, or - for standard input
    script: PathBuf,
    /// The image to run it on; it stays as it is [default: a fresh one, as the script's line `image` says, else of 16 MiB]
    #[arg(value_parser = super::image())]
    image: Option<PathBuf>,
    /// Mount options, as noauto_da_alloc,data=journal; they come after the script's own
    #[arg(short, long, default_value = "")]
    options: String,
    /// At most so many crashes of each run; there are two runs a line, one for each way in which time can pass behind it
    #[arg(long, value_name = "N", default_value_t = 100)]
    crashes: usize,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
A script has one operation a line, what has to survive among them, for example:
  create config, write config 0 4K, sync
  promise config                       # from here on: as it is, or as at its next promise
  create new, write new 0 4K
  rename new config
  promise config
docs/scripts.md lists all operations. What stands before a line `trace` is made durable first. Without any promise
the states that a crash can leave of each file are listed.
A remedy that is told was tried: with it no crash breaks the promise.

Exit codes: 0 every promise holds, or none is made; 1 one does not hold; others as for all commands.";

pub fn run(args: &CrashTestArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = args.script.display().to_string();
    let script =
        Script::parse(&read(&args.script)?).map_err(|error| Usage(format!("{name}, {error}")))?;
    let words = format!("{},{}", script.settings.mount, args.options);
    let mount = mount_options(&words).map_err(|error| Usage(error.to_string()))?;
    let base = match &args.image {
        Some(image) => copy(image)?,
        None => fresh(&script)?,
    };
    let test = CrashTest { base, mount, most_images: args.crashes.max(1) };
    let report = test.run(&script).map_err(|error| match error {
        CrashError::Operation { .. } | CrashError::NoFile { .. } => {
            let line = failure::line(&anyhow::Error::new(error));
            anyhow::Error::new(Usage(format!("{name}, {line}")))
        }
        CrashError::Mount(error) => match &args.image {
            Some(image) => volume::unusable(image, error.into()),
            None => anyhow::Error::new(error).context("the image that the script asks for"),
        },
        other => other.into(),
    })?;
    match args.json {
        true => print_json(out, &json_report(&script, &report))?,
        false => print(&script, &report, out)?,
    }
    let is_broken = report.promises.iter().any(|promise| !promise.breaches.is_empty());
    if is_broken { Err(Told(1).into()) } else { Ok(()) }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    let read = read.with_context(|| path.display().to_string());
    // Without a script the command line makes no more sense than with a wrong one.
    read.map_err(|error| Usage(failure::line(&error)))?;
    Ok(text)
}

/// An empty image in memory, the same in every run.
fn fresh(script: &Script) -> anyhow::Result<MemoryDevice> {
    let bytes = script.settings.image_bytes.unwrap_or(16 << 20);
    let grammar = MkfsArgs::augment_args(clap::Command::new("image").no_binary_name(true));
    let words = script.settings.mkfs.iter().map(String::as_str).chain(["image"]);
    let matches = grammar.try_get_matches_from(words).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        Usage(format!("the script's image: {}", first.trim_start_matches("error: ")))
    })?;
    let args = <MkfsArgs as clap::FromArgMatches>::from_arg_matches(&matches)
        .map_err(|error| Usage(error.to_string()))?;
    // Whatever a script asks for, two runs see the same image.
    let fixed = MkfsOptions {
        uuid: [7; 16],
        hash_seed: [7; 16],
        time_seconds: 1_700_000_000,
        ..args.options()?
    };
    // A volume's superblock is not journaled while it is mounted: like the kernel, the engine needs it stored whole.
    let device = MemoryDevice::new(bytes).with_sector_bytes(1024);
    mkfs(&device, &fixed).map_err(|error| Usage(format!("the script's image: {error}")))?;
    Ok(device)
}

/// The image, in memory.
fn copy(image: &Path) -> anyhow::Result<MemoryDevice> {
    let device = volume::open_to_read(image)?;
    let len = device.geometry().len_bytes;
    let too_long = || Usage(format!("{}: too large to be held in memory", image.display()));
    if len > MOST_BYTES {
        return Err(too_long().into());
    }
    let copy = MemoryDevice::new(len).with_sector_bytes(1024);
    let (mut at, mut used) = (0, 0);
    while at < len {
        let piece = device
            .read_vec(at, usize::try_from((len - at).min(PIECE_BYTES))?)
            .with_context(|| image.display().to_string())?;
        if piece.iter().any(|byte| *byte != 0) {
            used += u64_from(piece.len());
            copy.write_bytes(at, &piece)?;
        }
        if used > MOST_USED {
            return Err(too_long().into());
        }
        at += u64_from(piece.len());
    }
    Ok(copy)
}

const PIECE_BYTES: u64 = 1 << 18;
const MOST_BYTES: u64 = 16 << 30;
const MOST_USED: u64 = 1 << 30;

fn print(script: &Script, report: &CrashReport, out: &mut dyn Write) -> anyhow::Result<()> {
    for promise in &report.promises {
        let line = promise.line.unwrap_or(0);
        let is_kept = if promise.breaches.is_empty() { "holds" } else { "does not hold" };
        writeln!(out, "line {line}: the promise of {} {is_kept}", shown(&promise.path))?;
        print_breaches(script, promise, out)?;
    }
    for file in &report.files {
        print_file(script, file, out)?;
    }
    let crashes = count(u64_from(report.images), "crash image");
    let broken = report.promises.iter().filter(|promise| !promise.breaches.is_empty()).count();
    match (report.promises.len(), broken) {
        (0, _) if report.files.is_empty() => writeln!(out, "the script changes nothing")?,
        (0, _) => writeln!(out, "{crashes}; the script promises nothing")?,
        (_, 0) => writeln!(out, "{crashes}, every promise holds")?,
        (all, broken) => {
            writeln!(out, "{crashes}, {broken} of {} broken", count(u64_from(all), "promise"))?
        }
    }
    Ok(())
}

/// More states that break one promise say nothing new.
const MOST_BREACHES: usize = 3;

fn print_breaches(script: &Script, promise: &Promise, out: &mut dyn Write) -> anyhow::Result<()> {
    for breach in promise.breaches.iter().take(MOST_BREACHES) {
        let path = [promise.path.as_slice(), &breach.found.below].concat();
        let moment = moment(script, breach.moment);
        writeln!(out, "  {moment} can leave {} {}", shown(&path), breach.found)?;
    }
    let more = promise.breaches.len().saturating_sub(MOST_BREACHES);
    if more > 0 {
        writeln!(out, "  and in {}", count(u64_from(more), "other state"))?;
    }
    if let Some(remedy) = remedy(promise) {
        writeln!(out, "  {remedy}")?;
    }
    Ok(())
}

/// What to do about a broken promise.
fn remedy(promise: &Promise) -> Option<String> {
    let worst = promise.breaches.first()?;
    let name = shown(&promise.path);
    let in_place = matches!(
        worst.found.looks,
        Looks::Empty | Looks::Short { .. } | Looks::Zeros | Looks::Mixed
    );
    Some(match &promise.remedy {
        Some(remedy) => format!("add {remedy}: with that it holds"),
        None if in_place => format!(
            "nothing that is added helps: write another file, fsync it, and rename it to {name}"
        ),
        None => "no sync that could be added helps".to_owned(),
    })
}

fn print_file(script: &Script, file: &FileReport, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}", shown(&file.promise.path))?;
    let texts: Vec<(String, String)> =
        file.reached.iter().map(|reached| (looks(reached), when(script, reached))).collect();
    let width = texts.iter().map(|(looks, _)| looks.len()).max().unwrap_or(0);
    for (looks, when) in texts {
        writeln!(out, "  {looks:width$}  {when}")?;
    }
    if let (false, Some(remedy)) = (file.promise.breaches.is_empty(), &file.promise.remedy) {
        writeln!(out, "  to be sure of it behind the last line: add {remedy}")?;
    }
    Ok(())
}

fn looks(reached: &Reached) -> String {
    let below = String::from_utf8_lossy(&reached.found.below).into_owned();
    match below.is_empty() {
        true => reached.found.to_string(),
        false => format!("{} {}", below.trim_start_matches('/'), reached.found),
    }
}

/// Which crashes leave a state.
fn when(script: &Script, reached: &Reached) -> String {
    let (first, last) = reached.steps;
    match (line(script, first), line(script, last)) {
        _ if reached.found.line.is_none() => {
            format!("{} (no line leaves it so)", moment(script, reached.moment))
        }
        (0, 0) => "a crash before the first line is done".to_owned(),
        (0, last) => format!("a crash up to line {last}"),
        (first, last) if first == last => format!("a crash after line {first}"),
        (first, last) => format!("a crash after lines {first} to {last}"),
    }
}

fn line(script: &Script, done: usize) -> usize {
    done.checked_sub(1).and_then(|last| script.steps.get(last)).map_or(0, |step| step.line)
}

/// When a crash comes, and what has passed.
fn moment(script: &Script, moment: Moment) -> String {
    let of = |step: &Step| match &step.operation {
        Operation::Promise { .. } => format!("line {}", step.line),
        operation => format!("line {} (`{}`)", step.line, text(operation)),
    };
    let last = moment.done.checked_sub(1).and_then(|last| script.steps.get(last));
    let at = match (moment.during, script.steps.get(moment.done), last) {
        (true, Some(step), _) => format!("during {}", of(step)),
        (_, _, Some(step)) => format!("after {}", of(step)),
        _ => "at the start".to_owned(),
    };
    let time = |wait| match wait {
        Wait::Commit => "some seconds",
        Wait::Writeback => "half a minute",
    };
    let passes = |after: usize| {
        // Between a line and a promise behind it nothing happens.
        let between = script.steps.get(after..moment.done).unwrap_or_default();
        let is_promise = |step: &Step| matches!(step.operation, Operation::Promise { .. });
        !moment.during && between.iter().all(is_promise)
    };
    match moment.pause {
        Pause::None => format!("a crash {at}"),
        Pause::After(after, wait) if passes(after) => format!("a crash {} {at}", time(wait)),
        Pause::After(after, wait) => {
            format!("a crash {at}, {} after line {},", time(wait), line(script, after))
        }
        Pause::Each(wait) => format!("a crash {at}, with {} between the lines,", time(wait)),
    }
}

/// An operation as users write it, without the tag that decides bytes.
fn text(operation: &Operation) -> String {
    let text = operation.to_string();
    text.split_once(" tag ").map_or(text.clone(), |(before, _)| before.to_owned())
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).replace(char::is_control, "?"))
}

fn json_report(script: &Script, report: &CrashReport) -> Value {
    let promise = |promise: &Promise| {
        json!({
            "line": promise.line,
            "path": json_name(&promise.path),
            "holds": promise.breaches.is_empty(),
            "breaches": promise.breaches.iter().map(|breach| json_breach(script, breach)).collect::<Vec<_>>(),
            "remedy": promise.remedy.as_ref().map(|remedy| {
                let add = |(line, operation): &(usize, Operation)| {
                    json!({ "after_line": line, "operation": operation.to_string() })
                };
                remedy.add.iter().map(add).collect::<Vec<_>>()
            }),
        })
    };
    let file = |file: &FileReport| {
        let state = |reached: &Reached| {
            json!({
                "state": reached.found.to_string(),
                "left_by_line": reached.found.line,
                "below": json_name(&reached.found.below),
                "after_lines": [line(script, reached.steps.0), line(script, reached.steps.1)],
            })
        };
        json!({
            "path": json_name(&file.promise.path),
            "states": file.reached.iter().map(state).collect::<Vec<_>>(),
            "at_the_end": promise(&file.promise),
        })
    };
    json!({
        "crashes": report.images,
        "promises": report.promises.iter().map(promise).collect::<Vec<_>>(),
        "files": report.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn json_breach(script: &Script, breach: &Breach) -> Value {
    let pause = match breach.moment.pause {
        Pause::None => Value::Null,
        Pause::After(after, wait) => {
            json!({ "after_line": line(script, after), "writeback": wait == Wait::Writeback })
        }
        Pause::Each(wait) => json!({ "after_line": "each", "writeback": wait == Wait::Writeback }),
    };
    json!({
        "state": breach.found.to_string(),
        "left_by_line": breach.found.line,
        "below": json_name(&breach.found.below),
        "after_line": line(script, breach.moment.done),
        "during_the_next": breach.moment.during,
        "pause": pause,
        "told": moment(script, breach.moment),
    })
}
