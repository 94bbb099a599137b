//! The engine in process beside the same system calls on a kernel mount of an equal image, by turns.
//!
//! Both images are files in memory with the defaults of mkfs.ext4. A pass over 512 MiB is cut into slices, of which the two
//! sides do one each in turn, so that what else the machine does meets both alike. The first pass is printed apart: it pays for
//! memory that nobody has touched yet. Then two writers in one engine beside two processes with an engine each.
//! `cargo xtask bench kernel [--json] [WORK..]`, where a work is the start of a row's name, or `writers`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run fails")]

mod measure;
mod sides;
mod writers;

use std::fmt::Write;

use extant_testkit::oracle;
use measure::{Times, measured, median};
use sides::{Engine, Kernel, Side, Work};

const IMAGE_BYTES: u64 = 2 << 30;
const FILE_BYTES: u64 = 512 << 20;
const SLICE_BYTES: u64 = 8 << 20;
const PASSES: usize = 3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [child, image, cpu] = &words[..]
        && child == writers::CHILD
    {
        return writers::child(image.as_ref(), cpu.parse().unwrap());
    }
    let (options, asked): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| word.starts_with("--"));
    let wants =
        |name: &str| asked.is_empty() || asked.iter().any(|word| name.starts_with(word.as_str()));
    let scratch = oracle::Scratch::new("kernel");
    let mut rows = Vec::new();
    if works().iter().any(|(name, _)| wants(name)) {
        let images = (scratch.path("ours"), scratch.path("kernel"));
        for image in [&images.0, &images.1] {
            if oracle::mkfs(image, IMAGE_BYTES, &[]).is_none() {
                return;
            }
        }
        if let Some(kernel) = Kernel::mount(&images.1, &scratch.path("point")) {
            let mut pair: [Box<dyn Side>; 2] =
                [Box::new(Engine::mount(&images.0)), Box::new(kernel)];
            for (name, work) in works().into_iter().filter(|(name, _)| wants(name)) {
                rows.push((name, compare(&mut pair, work)));
            }
        }
    }
    let pairs = if wants("writers") { writers::compare(&scratch) } else { Vec::new() };
    let shown = match options.iter().any(|word| word == "--json") {
        true => as_json(&rows, &pairs),
        false => as_table(&rows, &pairs),
    };
    print!("{shown}");
}

/// The rows, with what each does.
fn works() -> Vec<(String, Work)> {
    let mut works = Vec::new();
    for (size, piece) in [("4k", 4 << 10), ("1m", 1 << 20)] {
        for (name, work) in [
            ("new", Work::New { piece }),
            ("overwrite", Work::Overwrite { piece, at_random: false }),
            ("append", Work::Append { piece }),
            ("read", Work::Read { piece, at_random: false }),
        ] {
            works.push((format!("{name}-{size}"), work));
        }
    }
    works.push(("random-overwrite-4k".into(), Work::Overwrite { piece: 4 << 10, at_random: true }));
    works.push(("random-read-4k".into(), Work::Read { piece: 4 << 10, at_random: true }));
    works
}

/// Times of the passes of both sides.
type Compared = [Vec<Times>; 2];

/// Does the work on both sides, slice by slice in turn.
fn compare(pair: &mut [Box<dyn Side>; 2], work: Work) -> Compared {
    let mut passes = [Vec::new(), Vec::new()];
    pair.iter_mut().for_each(|side| side.prepare(work));
    for _ in 0..PASSES {
        pair.iter_mut().for_each(|side| side.begin(work));
        let mut slices = [Vec::new(), Vec::new()];
        for (n, start) in (0..FILE_BYTES).step_by(SLICE_BYTES.try_into().unwrap()).enumerate() {
            // Who goes first takes turns, too.
            for side in if n % 2 == 0 { [0, 1] } else { [1, 0] } {
                let slice = start..start + SLICE_BYTES;
                slices[side].push(measured(|| pair[side].run(work, slice)).0);
            }
        }
        pair.iter_mut().for_each(|side| side.end());
        for (passes, slices) in passes.iter_mut().zip(slices) {
            passes.push(slices.into_iter().sum());
        }
    }
    passes
}

/// A table for people.
fn as_table(rows: &[(String, Compared)], pairs: &[writers::Compared]) -> String {
    let mut out = String::new();
    if !rows.is_empty() {
        writeln!(
            out,
            "{:<20} {:>11} {:>11} {:>6} {:>8}   {:>9} {:>9} {:>6}",
            "MB/s", "engine", "kernel", "ratio", "cpu", "1st: eng.", "kernel", "ratio"
        )
        .unwrap();
    }
    for (name, [engine, kernel]) in rows {
        let rate = |passes: &[Times]| median(passes.iter().map(|times| times.rate(FILE_BYTES)));
        let cpu = |passes: &[Times]| median(passes.iter().map(|times| times.cpu.as_secs_f64()));
        let (ours, theirs) = (rate(&engine[1..]), rate(&kernel[1..]));
        let (first, their_first) = (rate(&engine[..1]), rate(&kernel[..1]));
        writeln!(
            out,
            "{name:<20} {ours:>11.0} {theirs:>11.0} {:>6.2} {:>8.2}   {first:>9.0} {their_first:>9.0} {:>6.2}",
            ours / theirs,
            cpu(&kernel[1..]) / cpu(&engine[1..]),
            first / their_first,
        )
        .unwrap();
    }
    for pair in pairs {
        writeln!(
            out,
            "writers, {:<11} one engine {:>6.0} MB/s, two processes {:>6.0} MB/s, ratio {:.2} (cpu {:.2}), waiting {:.1} %",
            pair.name,
            pair.together,
            pair.apart,
            pair.ratio,
            pair.cpu_ratio,
            100.0 * pair.waiting
        )
        .unwrap();
    }
    out
}

/// The same for programs: rates in MB/s, pass by pass.
fn as_json(rows: &[(String, Compared)], pairs: &[writers::Compared]) -> String {
    let list = |passes: &[Times]| {
        let rates: Vec<String> =
            passes.iter().map(|times| format!("{:.0}", times.rate(FILE_BYTES))).collect();
        rates.join(",")
    };
    let rows = rows.iter().map(|(name, [engine, kernel])| {
        format!(r#"{{"work":"{name}","engine":[{}],"kernel":[{}]}}"#, list(engine), list(kernel))
    });
    let pairs = pairs.iter().map(|pair| {
        format!(
            r#"{{"work":"writers-{}","one_engine":{:.0},"two_processes":{:.0},"ratio":{:.3},"cpu_ratio":{:.3},"waiting":{:.4}}}"#,
            pair.name, pair.together, pair.apart, pair.ratio, pair.cpu_ratio, pair.waiting
        )
    });
    let all: Vec<String> = rows.chain(pairs).collect();
    format!("[{}]\n", all.join(",\n "))
}
