//! `extant check`: reads a whole image and tells what is wrong with it; never writes.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use extant_format::{Place, Rule};
use extant_image::check::{Finding, Pass, Severity, Value};
use extant_image::{CheckError, CheckOptions, Report, check};
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};

use crate::failure::{self, Told};
use crate::output::{count, json_name, print_values};
use crate::volume::{self, Watch};

/// Read a whole image and tell what is wrong with it; it is never changed
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct CheckArgs {
    /// Image files or block devices
    #[arg(required = true, value_parser = super::image())]
    images: Vec<PathBuf>,
    /// Threads that read and judge [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print at most so many findings of one rule, and how many there are beside; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print nothing but findings
    #[arg(short, long)]
    quiet: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

/// What the exit codes of this command mean: those of e2fsck.
const EXIT_CODES: &str = "\
Exit codes, as those of e2fsck; the largest of all images:
  0   clean, or nothing but warnings
  4   damaged
  8   could not be checked: not there, no ext4, a feature is missing here, or a read failed
  16  the command line makes no sense";

/// For a command line that makes no sense.
pub const USAGE_CODE: u8 = 16;
const DAMAGED: u8 = 4;
const FAILED: u8 = 8;

pub fn run(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let several = args.images.len() > 1;
    let (mut worst, mut values) = (0, Vec::new());
    for image in &args.images {
        match check_one(args, image) {
            Ok(report) => {
                let code = if report.is_clean() { 0 } else { DAMAGED };
                worst = worst.max(code);
                if args.json {
                    values.push(json_report(image, &report));
                } else {
                    print(args, image, &report, out)?;
                }
            }
            Err(error) => {
                failure::tell(&error);
                worst = FAILED;
            }
        }
    }
    if args.json {
        print_values(out, several, values)?;
    }
    if worst == 0 { Ok(()) } else { Err(Told(worst).into()) }
}

fn check_one(args: &CheckArgs, image: &Path) -> anyhow::Result<Report> {
    let (device, watch) = Watch::open(image)?;
    let bar = match std::io::stderr().is_terminal() && !args.quiet {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let progress = |pass: Pass| bar.set_message(pass.name());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let options = CheckOptions {
        threads: args.threads.map_or_else(processors, usize::from),
        limit: if args.limit == 0 { usize::MAX / 2 } else { args.limit },
        now: now.map(|now| now.as_secs()),
        progress: Some(&progress),
    };
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    let checked = check(&*device, &options);
    bar.finish_and_clear();
    let report = match checked {
        Err(CheckError::NoFileSystem) => {
            let none = Place::Superblock.breaks(Rule::Magic);
            return Err(volume::unusable(image, none.into()));
        }
        checked => checked.with_context(|| image.display().to_string())?,
    };
    if !report.is_clean() {
        // What somebody changes meanwhile looks damaged and is not.
        let damage = watch.explain(Place::Superblock.breaks(Rule::Checksum).into());
        if volume::has_changed(&damage) {
            return Err(damage.context(image.display().to_string()));
        }
    }
    Ok(report)
}

fn print(
    args: &CheckArgs,
    image: &Path,
    report: &Report,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let name = image.display();
    if !args.quiet {
        for note in &report.notes {
            writeln!(out, "{name}: note: {note}")?;
        }
    }
    for finding in &report.findings {
        let kind = severity(finding.rule.severity());
        let code = finding.rule.code().map(|code| format!(" [{code}]")).unwrap_or_default();
        writeln!(out, "{name}: {kind}: {finding}{code}")?;
    }
    for rule in report.counts.keys() {
        let more = report.left_out(*rule);
        if more > 0 {
            writeln!(out, "{name}: {}: {more} more", rule.name())?;
        }
    }
    if args.quiet {
        return Ok(());
    }
    let of = |severity: Severity| {
        let all = report.counts.iter().filter(|(rule, _)| rule.severity() == severity);
        all.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count))
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let verdict = match (errors, warnings) {
        (0, 0) => "clean".to_owned(),
        (0, _) => format!("clean, {}", count(warnings, "warning")),
        (_, 0) => count(errors, "error"),
        _ => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    let totals = report.totals;
    writeln!(
        out,
        "{name}: {verdict}; {} in use, {} of them directories, and {}",
        count(totals.inodes, "inode"),
        totals.directories,
        count(totals.clusters, "block"),
    )?;
    Ok(())
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn json_report(image: &Path, report: &Report) -> Json {
    let counts: serde_json::Map<String, Json> =
        report.counts.iter().map(|(rule, n)| (rule.name().to_owned(), json!(n))).collect();
    let totals = report.totals;
    json!({
        "image": image.display().to_string(),
        "clean": report.is_clean(),
        "notes": report.notes,
        "findings": report.findings.iter().map(json_finding).collect::<Vec<_>>(),
        "counts": counts,
        "inodes": totals.inodes,
        "directories": totals.directories,
        "clusters": totals.clusters,
    })
}

fn json_finding(finding: &Finding) -> Json {
    let mut value = json!({
        "rule": finding.rule.name(),
        "text": finding.rule.text(),
        "severity": severity(finding.rule.severity()),
        "pass": finding.rule.pass().name(),
    });
    let place = &finding.place;
    let mut set = |name: &str, field: Option<Json>| {
        if let Some(field) = field {
            value[name] = field;
        }
    };
    set("code", finding.rule.code().map(|code| json!(code)));
    set("group", place.group.map(|group| json!(group.get())));
    set("inode", place.inode.map(|inode| json!(inode.get())));
    set("block", place.block.map(|block| json!(block.get())));
    set("file_block", place.logical.map(|block| json!(block)));
    set("offset", place.offset.map(|offset| json!(offset)));
    set("name", place.name.as_deref().map(json_name));
    set("found", json_value(&finding.found));
    set("expected", json_value(&finding.expected));
    value
}

fn json_value(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Nothing => return None,
        Value::Number(number) | Value::Bits(number) => json!(number),
        Value::Run(first, last) => json!([first, last]),
        Value::Inode(inode) => json!(inode),
        Value::Words(words) => json!(words),
        Value::Text(text) => json!(text),
    })
}
