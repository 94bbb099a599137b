//! Two writers on two files: two threads in one engine beside two processes with an engine each.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use extant::{File, measure_waits};
use extant_testkit::oracle::{self, Scratch};

use crate::IMAGE_BYTES;
use crate::measure::{Times, measured, median, stay_on_cpu};
use crate::sides::{Engine, Work};

/// The word that makes this program one of the two processes.
pub const CHILD: &str = "--child";

/// What one writer writes in a round.
const ROUND_BYTES: u64 = 64 << 20;
const ROUNDS: usize = 31;
const FILES: [&str; 2] = ["/one", "/two"];

const WORKS: [(&str, Work); 3] = [
    ("overwrite-4k", Work::Overwrite { piece: 4 << 10, at_random: false }),
    ("append-4k", Work::Append { piece: 4 << 10 }),
    ("overwrite-1m", Work::Overwrite { piece: 1 << 20, at_random: false }),
];

/// How the two ways compare.
pub struct Compared {
    /// Of the work.
    pub name: &'static str,
    /// Both threads, in MB/s.
    pub together: f64,
    /// Both processes, in MB/s.
    pub apart: f64,
    /// Of the rates, in the median of rounds.
    pub ratio: f64,
    /// Of time on CPUs, in the median of rounds.
    pub cpu_ratio: f64,
    /// Which part of the time of the threads goes by while they wait for each other.
    pub waiting: f64,
}

/// One writer's round.
#[derive(Clone, Copy)]
struct Round {
    times: Times,
    waited: Duration,
}

/// Both ways, by turns; the first round of each warms up.
pub fn compare(scratch: &Scratch) -> Vec<Compared> {
    let images = ["both", "apart-one", "apart-two"].map(|name| scratch.path(name));
    if images.iter().any(|image| oracle::mkfs(image, IMAGE_BYTES, &[]).is_none()) {
        return Vec::new();
    }
    let engine = Engine::mount(&images[0]);
    let mut processes = [Process::start(&images[1], 0), Process::start(&images[2], 1)];
    let compared = WORKS.into_iter().enumerate().map(|(number, (name, work))| {
        let rounds: Vec<[[Round; 2]; 2]> = (0..=ROUNDS)
            .map(|_| {
                let together = in_threads(&engine, work);
                processes.iter_mut().for_each(|process| process.ask(number));
                processes.iter_mut().for_each(|process| process.say("go"));
                [together, processes.each_mut().map(|process| process.answer())]
            })
            .skip(1)
            .collect();
        summary(name, &rounds)
    });
    compared.collect()
}

fn summary(name: &'static str, rounds: &[[[Round; 2]; 2]]) -> Compared {
    let rate =
        |way: &[Round; 2]| way.iter().map(|round| round.times.rate(ROUND_BYTES)).sum::<f64>();
    let cpu = |way: &[Round; 2]| way.iter().map(|round| round.times.cpu.as_secs_f64()).sum::<f64>();
    let waiting = |way: &[Round; 2]| {
        way.iter().map(|round| round.waited.as_secs_f64()).sum::<f64>()
            / way.iter().map(|round| round.times.wall.as_secs_f64()).sum::<f64>()
    };
    Compared {
        name,
        together: median(rounds.iter().map(|[together, _]| rate(together))),
        apart: median(rounds.iter().map(|[_, apart]| rate(apart))),
        ratio: median(rounds.iter().map(|[together, apart]| rate(together) / rate(apart))),
        cpu_ratio: median(rounds.iter().map(|[together, apart]| cpu(apart) / cpu(together))),
        waiting: median(rounds.iter().map(|[together, _]| waiting(together))),
    }
}

fn in_threads(engine: &Engine, work: Work) -> [Round; 2] {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        [0, 1]
            .map(|nth| {
                let start = &start;
                scope.spawn(move || {
                    stay_on_cpu(nth);
                    let path = FILES[nth];
                    let file = prepare(engine, path, work);
                    round(file, work, || {
                        start.wait();
                    })
                })
            })
            .map(|thread| thread.join().unwrap())
    })
}

/// The file as a round finds it.
fn prepare(engine: &Engine, path: &str, work: Work) -> File {
    let file = engine.open(path, work);
    match work {
        Work::Append { .. } => file.set_len(0).unwrap(),
        _ if file.metadata().unwrap().size < ROUND_BYTES => {
            Engine::run(&file, &mut vec![b'y'; 1 << 20], work, 0..ROUND_BYTES);
        }
        _ => {}
    }
    file
}

/// Closes the file after the measured time, and before anybody else may begin: what was appended to a file that was cut is
/// written then.
fn round(file: File, work: Work, ready: impl FnOnce()) -> Round {
    let mut bytes = vec![b'x'; 1 << 20];
    ready();
    let (times, ((), waited)) =
        measured(|| measure_waits(now, || Engine::run(&file, &mut bytes, work, 0..ROUND_BYTES)));
    drop(file);
    Round { times, waited }
}

fn now() -> Duration {
    std::thread_local! {
        static START: Instant = Instant::now();
    }
    START.with(Instant::elapsed)
}

/// One of the two processes, seen from the first.
struct Process {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(image: &Path, cpu: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(CHILD)
            .arg(image)
            .arg(cpu.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn say(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Has it prepare a round of a work.
    fn ask(&mut self, number: usize) {
        self.say(&number.to_string());
        assert_eq!(self.hear(), "ready");
    }

    /// Waits for the end of the round.
    fn answer(&mut self) -> Round {
        let numbers: Vec<u64> = self.hear().split(' ').map(|word| word.parse().unwrap()).collect();
        let [wall, cpu, waited] = numbers[..] else { panic!("three numbers") };
        let [wall, cpu, waited] = [wall, cpu, waited].map(Duration::from_nanos);
        Round { times: Times { wall, cpu }, waited }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What such a process does: rounds, as it is asked for them.
pub fn child(image: &Path, cpu: usize) {
    stay_on_cpu(cpu);
    let engine = Engine::mount(image);
    let mut lines = std::io::stdin().lines();
    while let Some(Ok(line)) = lines.next() {
        let (_, work) = WORKS[line.parse::<usize>().unwrap()];
        let file = prepare(&engine, FILES[0], work);
        println!("ready");
        let _ = lines.next();
        let round = round(file, work, || {});
        let nanos = |time: Duration| time.as_nanos();
        println!("{} {} {}", nanos(round.times.wall), nanos(round.times.cpu), nanos(round.waited));
    }
}
