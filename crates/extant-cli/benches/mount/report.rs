//! What was measured, as tables in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::plot;
use crate::stage::{Contender, Cost, Stage};
use crate::works::{ROWS, Row, Unit};

/// What all passes gave.
pub struct Results {
    divisor: u32,
    costs: BTreeMap<(&'static str, Contender), Vec<Cost>>,
    /// Extents a file.
    pub extents: BTreeMap<Contender, f64>,
    /// Who was not measured, and why.
    pub skipped: Vec<String>,
    /// What e2fsck had to say.
    pub unclean: Vec<String>,
}

impl Results {
    /// Nothing yet; all is divided by `divisor`.
    pub fn new(divisor: u32) -> Self {
        let (costs, extents) = (BTreeMap::new(), BTreeMap::new());
        Self { divisor, costs, extents, skipped: Vec::new(), unclean: Vec::new() }
    }

    /// Adds what one pass took.
    pub fn add(&mut self, row: &str, contender: Contender, cost: Cost) {
        let row = ROWS.iter().find(|known| known.name == row).expect("rows are known by name");
        self.costs.entry((row.name, contender)).or_default().push(cost);
    }

    /// Has e2fsck look at what is left.
    pub fn judge(&mut self, stage: &Stage, after: &str) {
        if let Err(words) = stage.check() {
            let told = format!("{} after {after}: {words}", stage.contender.name());
            eprintln!("{told}");
            self.unclean.push(told);
        }
    }

    /// The longest time that a contender took for one of the rows.
    pub fn longest(&self, rows: &[&str], contender: Contender) -> Duration {
        let of = |row: &&'static str| self.costs.get(&(*row, contender)).into_iter().flatten();
        let known = ROWS.iter().map(|row| row.name).filter(|row| rows.contains(row));
        let longest = known.collect::<Vec<_>>().iter().flat_map(of).map(|cost| cost.wall).max();
        longest.unwrap_or_default()
    }

    /// The medians of a row.
    fn cost(&self, row: &Row, contender: Contender) -> Option<Cost> {
        let costs = self.costs.get(&(row.name, contender))?;
        let middle = |of: fn(&Cost) -> Duration| {
            let mut times: Vec<Duration> = costs.iter().map(of).collect();
            times.sort();
            times[times.len() / 2]
        };
        let (workload, daemon) = (middle(|cost| cost.workload), middle(|cost| cost.daemon));
        Some(Cost { wall: middle(|cost| cost.wall), workload, daemon })
    }

    /// A row's rate, in its unit; for extents their number.
    fn rate(&self, row: &Row, contender: Contender) -> Option<f64> {
        if row.unit == Unit::Extents {
            return self.extents.get(&contender).copied();
        }
        let seconds = self.cost(row, contender)?.wall.as_secs_f64();
        let count = f64::from(row.count / self.divisor);
        Some(if row.unit == Unit::Megabytes { count / 1e6 / seconds } else { count / seconds })
    }

    /// A row's rate as a part of another's.
    pub fn ratio(&self, row: &Row, contender: Contender, to: Contender) -> Option<f64> {
        Some(self.rate(row, contender)? / self.rate(row, to)?)
    }

    /// The mean of the ratios of the rows that count rates in memory.
    fn mean(&self, contender: Contender, to: Contender) -> Option<f64> {
        let rows = ROWS[..11].iter();
        let logs: Option<Vec<f64>> =
            rows.map(|row| Some(self.ratio(row, contender, to)?.ln())).collect();
        let logs = logs?;
        Some((logs.iter().sum::<f64>() / f64::from(u32::try_from(logs.len()).ok()?)).exp())
    }

    /// Who was measured.
    pub fn contenders(&self) -> Vec<Contender> {
        let measured = |contender: &Contender| {
            self.costs.keys().any(|(_, who)| who == contender)
                || self.extents.contains_key(contender)
        };
        Contender::ALL.into_iter().filter(measured).collect()
    }
}

/// The part of the kernel's rate that a contender has to reach.
fn bar(row: &Row, contender: Contender) -> Option<f64> {
    match (contender, row.name) {
        (Contender::Writeback, "write-4k") => Some(0.7),
        (Contender::Extant, _) => Some(row.bar),
        _ => None,
    }
}

/// The part of null's rate that `extant mount` has to reach.
fn null_bar(row: &Row) -> Option<f64> {
    match row.name {
        "write-4k" | "overwrite" | "stat" => Some(0.8),
        "create" | "delete" | "unpack" => Some(0.6),
        _ => None,
    }
}

/// Three tables: rates as parts of the kernel's and of null's, and times.
pub fn tables(results: &Results) -> String {
    let (mut out, contenders) = (String::new(), results.contenders());
    let head = |out: &mut String, first: &str, last: &str| {
        let names: Vec<&str> = contenders.iter().map(|contender| contender.name()).collect();
        let _ = writeln!(out, "| {first} | {} |{last}", names.join(" | "));
        let dashes = if last.is_empty() { "" } else { " --- |" };
        let _ = writeln!(out, "| --- |{}{dashes}", " --- |".repeat(names.len()));
    };
    head(&mut out, "work", " must reach |");
    for row in &ROWS {
        let cells: Vec<String> =
            contenders.iter().map(|contender| rate_cell(results, row, *contender)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let bar = if row.name == "write-4k" { ", 0.7 writeback" } else { "" };
            let _ = writeln!(out, "| {} | {} | {}{bar} |", row.title, cells.join(" | "), row.bar);
        }
    }
    for (to, name) in [(Contender::Kernel, "kernel"), (Contender::Fuse2fs, "fuse2fs")] {
        if let Some(mean) = results.mean(Contender::Extant, to) {
            let _ =
                write!(out, "\nGeometric mean of the eleven rates, extant to {name}: {mean:.2}.");
        }
    }
    null_table(results, &mut out);
    out.push_str("\n\nSeconds by the clock (on a CPU: of who works + of who serves):\n\n");
    head(&mut out, "work", "");
    for row in &ROWS {
        let cell = |contender: &Contender| {
            results.cost(row, *contender).map_or(String::new(), |cost| {
                let [wall, work, serve] =
                    [cost.wall, cost.workload, cost.daemon].map(|time| time.as_secs_f64());
                format!("{wall:.3} ({work:.2} + {serve:.2})")
            })
        };
        let cells: Vec<String> = contenders.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(out, "| {} | {} |", row.title, cells.join(" | "));
        }
    }
    for told in &results.unclean {
        let _ = writeln!(out, "\nNot clean: {told}");
    }
    for skipped in &results.skipped {
        let _ = writeln!(out, "\nSkipped: {skipped}.");
    }
    out
}

/// What `extant mount` reaches of null's rate, by the clock and by the time on a CPU of who works and who serves.
fn null_table(results: &Results, out: &mut String) {
    let rows = ROWS.iter().filter_map(|row| {
        let cpu = |contender| {
            let Cost { workload, daemon, .. } = results.cost(row, contender)?;
            Some((workload + daemon).as_secs_f64())
        };
        let clock = results.ratio(row, Contender::Extant, Contender::Null)?;
        Some((row, clock, cpu(Contender::Null)? / cpu(Contender::Extant)?))
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    out.push_str("\n\nParts of null's rate that extant reaches:\n\n");
    out.push_str(
        "| work | by the clock | by time on a CPU | must reach |\n| --- | --- | --- | --- |\n",
    );
    for (row, clock, cpu) in rows {
        let bar = null_bar(row);
        let mark = |part: f64| if bar.is_some_and(|bar| part < bar) { " (short)" } else { "" };
        let [clock_mark, cpu_mark] = [clock, cpu].map(mark);
        let bar = bar.map_or(String::new(), |bar| bar.to_string());
        let title = row.title;
        let _ = writeln!(out, "| {title} | {clock:.2}{clock_mark} | {cpu:.2}{cpu_mark} | {bar} |");
    }
}

fn rate_cell(results: &Results, row: &Row, contender: Contender) -> String {
    let Some(rate) = results.rate(row, contender) else { return String::new() };
    let reached = match row.unit {
        Unit::Extents => rate,
        _ if contender == Contender::Kernel => {
            let unit = if row.unit == Unit::Megabytes { "MB/s" } else { "/s" };
            return format!("{} {unit}", thousands(rate));
        }
        _ => match results.ratio(row, contender, Contender::Kernel) {
            Some(ratio) => ratio,
            None => return thousands(rate),
        },
    };
    let is_short = bar(row, contender).is_some_and(|bar| match row.unit {
        Unit::Extents => reached > bar,
        _ => reached < bar,
    });
    let mark = if is_short { " (short)" } else { "" };
    if reached >= 100.0 {
        format!("{}{mark}", thousands(reached))
    } else {
        format!("{reached:.2}{mark}")
    }
}

/// A whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Puts the section about the mount into `docs/performance.md`, and the plot beside it.
///
/// # Errors
/// Of the files.
pub fn write(results: &Results, tables: &str) -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    fs::write(docs.join("mount.svg"), plot::bars(results))?;
    let path = docs.join("performance.md");
    let old = fs::read_to_string(&path)?;
    let start = old.find(HEADING).unwrap_or(old.len());
    let after = old[start..].get(1..).and_then(|rest| rest.find("\n## "));
    let rest = after.map_or("", |at| &old[start + 1 + at..]);
    let before = old[..start].trim_end();
    let section = format!("{HEADING}{}\n{ABOUT}\n{tables}", facts());
    fs::write(path, format!("{before}\n\n{section}{rest}"))
}

const HEADING: &str = "## Through the mount\n\n";

/// Where and when.
fn facts() -> String {
    let line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        output.unwrap_or_default().trim().to_owned()
    };
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(name)).unwrap_or("").to_owned();
        found.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let kib: f64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "`cargo xtask bench mount`, {}: Linux {}, {cores} cores of {}, {:.0} GiB; at the end of the run {} processes on average wanted a processor.\n",
        line("date", &["-u", "+%-d %B %Y"]),
        line("uname", &["-r"]),
        field("/proc/cpuinfo", "model name"),
        kib / f64::from(1 << 20),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').nth(2).unwrap_or("?"),
    )
}

const ABOUT: &str = "\
Each figure but the kernel's is a part of the kernel's rate (extents apart), the median of three passes by turns, each on a fresh image of
2 GiB in memory (`mkfs.ext4 -b 4096`, nothing left to be initialized later). *kernel* is Linux's ext4 on a loop device; *fuse2fs* that of e2fsprogs;
*null* a server that keeps names and throws bytes away, on the transport of `extant mount`: the limit of any file system on it.
A contender that takes more than 10 s for a piece of work does it once. Memory for large files is touched before. e2fsck looks at each image after each piece.

- *sync*: neither `sync(2)` nor `syncfs` reaches a server of plain FUSE such as fuse2fs, though they reach `extant mount` as root. So the time includes, for all
  alike, unmounting and waiting until whoever serves the image has ended: then all is in the image.
- *cold*: the volume was unmounted, the machine's caches dropped (`drop_caches`), and mounted again.
- The machine's disk is a file on it; the device with a flush of 5 ms is a file on a FUSE mount whose `fsync` takes that long.
- Time on a CPU does not count the kernel's own threads, which do a part of the kernel's work (loop device, writeback).
- Who asks and who serves are on one processor (all of fuse2fs, whose threads all serve; the first thread of extant and null), all else is where the scheduler puts
  it: they never run at once, and to wake somebody on another processor takes a virtual machine's host up to four times what a request takes.
- Idle processors halt or poll as the machine has it (`guest_halt_poll_ns`). With `--poll` they poll as long as is the kernel's default before they halt. That helps
  whoever waits for another processor: most of all the kernel, which hands what its loop device is asked for to other threads.
- 'short' is below what we want of `extant mount`.

![Rates as parts of the kernel's](mount.svg)
";
