//! `extant build` beside `mke2fs -d`, a kernel mount filled by `cp -a`, and the time that reading the tree takes.
//!
//! Source and images are in memory. In each pass all take their turn; the median counts. e2fsck looks at each image.
//! `cargo xtask bench build [--from DIRECTORY] [--passes N] [--program EXTANT] [--write]`; with `--write` the table goes into
//! `docs/performance.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use extant_testkit::oracle::{self, KernelMount, Scratch};

/// What is timed.
const ROWS: [&str; 5] = [
    "`extant build --size 2G`",
    "`extant build` (`--size auto`)",
    "`mke2fs -d`",
    "`mkfs.ext4`, kernel mount, `cp -a`, unmount",
    "`tar -cf - \\| cat`",
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let from = value("--from").unwrap_or_else(|| "/usr/share".to_owned());
    let passes: usize = value("--passes").and_then(|count| count.parse().ok()).unwrap_or(3);
    let program = value("--program").unwrap_or_else(|| env!("CARGO_BIN_EXE_extant").to_owned());
    let scratch = Scratch::new("bench-build");
    let source = scratch.path("source");
    let copied = Command::new("cp").args(["-a", &from]).arg(&source).status();
    assert!(copied.is_ok_and(|status| status.success()), "{from} cannot be copied");
    let bench = Bench { program: program.into(), source, image: scratch.path("image") };
    let mut seconds = vec![Vec::new(); ROWS.len()];
    let mut peak = 0;
    for pass in 0..passes {
        for turn in 0..ROWS.len() {
            let row = (pass + turn) % ROWS.len();
            let (time, kib) = bench.run(row, &scratch);
            seconds[row].extend(time);
            peak = peak.max(kib);
        }
    }
    let table = table(&mut seconds, &bench.describe(), peak);
    println!("{table}");
    if words.iter().any(|word| word == "--write") {
        write(&table).expect("docs/performance.md can be written");
    }
}

struct Bench {
    program: PathBuf,
    source: PathBuf,
    image: PathBuf,
}

impl Bench {
    /// Seconds of one turn, and for our own the most KiB in memory; `None` where this machine cannot.
    fn run(&self, row: usize, scratch: &Scratch) -> (Option<f64>, u64) {
        let _ = fs::remove_file(&self.image);
        let (source, image) =
            (self.source.to_str().unwrap_or(""), self.image.to_str().unwrap_or(""));
        let start = Instant::now();
        let mut peak = 0;
        let outcome = match row {
            0 => self.build(&["build", "-q", image, "--from", source, "--size", "2G"], &mut peak),
            1 => self.build(&["build", "-q", image, "--from", source], &mut peak),
            2 => oracle::run("mke2fs", &["-q", "-t", "ext4", "-d", source, image, "2G"]).map(drop),
            3 => oracle::mkfs(&self.image, 2 << 30, &["-E", "lazy_itable_init=0"]).and_then(|()| {
                let mount = KernelMount::new(&self.image, &scratch.path("mount"), "")?;
                let to = mount.root().to_str()?.to_owned();
                oracle::run("cp", &["-a", &format!("{source}/."), &to])?;
                mount.unmount().ok()
            }),
            _ => oracle::run("sh", &["-c", &format!("tar -cf - -C {source} . | cat > /dev/null")])
                .map(drop),
        };
        let time = start.elapsed().as_secs_f64();
        if row < 4 && outcome.is_some() {
            oracle::e2fsck(&self.image).unwrap_or_else(|words| panic!("{}: {words}", ROWS[row]));
        }
        (outcome.map(|()| time), peak)
    }

    /// Runs our program under time(1), if there is one, which knows its memory.
    fn build(&self, arguments: &[&str], peak: &mut u64) -> Option<()> {
        let program = self.program.to_str()?;
        let output = match oracle::has("time") {
            true => oracle::run("time", &[&["-f", "%M", program], arguments].concat())?,
            false => oracle::run(program, arguments)?,
        };
        assert!(output.status.success(), "{}", oracle::text(&output));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        *peak = words.trim().parse().unwrap_or(0);
        Some(())
    }

    /// How large the source is.
    fn describe(&self) -> String {
        let (mut files, mut bytes, mut open) = (0_u64, 0_u64, vec![self.source.clone()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                files += 1;
                match metadata.is_dir() {
                    true => open.push(entry.path()),
                    false => bytes += metadata.len(),
                }
            }
        }
        format!("{files} files, {} MB", bytes / 1_000_000)
    }
}

fn median(seconds: &mut [f64]) -> Option<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

fn table(seconds: &mut [Vec<f64>], what: &str, peak: u64) -> String {
    let ours = median(&mut seconds[0]);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let mut text = format!(
        "{what} in memory; medians of {} passes by turns, each image clean under `e2fsck -fn`; {load} processes wanted a processor at the\n\
         end. `extant build` had at most {} MiB in memory.\n\n| | seconds | parts of the first row |\n| --- | ---: | ---: |\n",
        seconds[0].len(),
        peak.div_ceil(1024),
    );
    for (name, times) in ROWS.iter().zip(seconds) {
        let time = median(times);
        let shown = |number: Option<f64>| {
            number.map_or("not here".to_owned(), |number| format!("{number:.2}"))
        };
        let ratio = time.zip(ours).map(|(time, ours)| time / ours);
        text += &format!("| {name} | {} | {} |\n", shown(time), shown(ratio));
    }
    text
}

const HEADING: &str = "## Whole images\n\n";

/// Puts the table into its section of `docs/performance.md`, and leaves the others as they are.
fn write(table: &str) -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
    let old = fs::read_to_string(&path)?;
    let start = old.find(HEADING).unwrap_or(old.len());
    let after = old[start..].get(1..).and_then(|rest| rest.find("\n## "));
    let rest = after.map_or("", |at| &old[start + 1 + at..]);
    let before = old[..start].trim_end();
    fs::write(path, format!("{before}\n\n{HEADING}`cargo xtask bench build`: {table}{rest}"))
}
