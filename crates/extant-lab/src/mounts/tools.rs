//! Testing programs of others: fsx, stress-ng, fio.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::suites::{Ground, Outcome, Wishes, find, lacking, run, succeed};

/// Each seed has the next options.
const FSX_OPTIONS: [&str; 5] = ["", "writeback", "cache=1M", "nodelalloc", "data=journal"];
const FSX_SEEDS: u64 = 10;
const FSX_OPERATIONS: u64 = 200_000;
/// Everything that FUSE lets through; an empty range is nothing that a file system would allocate.
const FSX_CONFIGURATION: &str = "flen = 1048576
[opsize]
min = 1
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 3
fsync = 1
fdatasync = 1
posix_fallocate = 3
punch_hole = 3
sendfile = 2
posix_fadvise = 1
copy_file_range = 3
";
const HOUR: Duration = Duration::from_secs(3600);

/// Random operations on one file, compared with what it should hold: the crate `fsx`.
pub fn fsx(wishes: &Wishes) -> Outcome {
    let Some(fsx) = find("fsx") else {
        return Outcome::Skipped("not installed: fsx (`cargo install fsx`)".to_owned());
    };
    let operations = wishes.count.unwrap_or(FSX_OPERATIONS);
    let mut failures = Vec::new();
    for (number, options) in (0..FSX_SEEDS).zip(FSX_OPTIONS.iter().cycle()) {
        let seed = wishes.seed + number;
        let one = || -> Result<(), String> {
            let ground = Ground::new(&wishes.program, "mount-fsx", "64M", options)?;
            let configuration = ground.beside("fsx.toml");
            fs::write(&configuration, FSX_CONFIGURATION).map_err(|error| error.to_string())?;
            let mut command = Command::new(&fsx);
            command.arg("-f").arg(&configuration).arg("-P").arg(ground.beside(""));
            command.args(["-q", "-N", &operations.to_string(), "-S", &seed.to_string()]);
            succeed(command.arg(ground.root().join("file")), HOUR)?;
            ground.end()
        };
        if let Err(reason) = one() {
            failures.push(format!("seed {seed}, -o {options:?}: {reason}"));
        }
    }
    Outcome::of(failures, format!("{FSX_SEEDS} seeds of {operations} operations"))
}

/// Stressors for what a FUSE mount cannot do or has nothing to do with: other file systems, and an ioctl that ends in the kernel.
const NOT_OF_A_MOUNT: [&str; 4] = ["bind-mount", "binderfs", "procfs", "fiemap"];

/// The stressors of file systems of stress-ng, each on an image of its own.
pub fn stress_ng(wishes: &Wishes) -> Outcome {
    if let Some(lacking) = lacking(&["stress-ng"]) {
        return Outcome::Skipped(lacking);
    }
    let seconds = wishes.seconds.unwrap_or(4);
    let mut list = Command::new("stress-ng");
    let Ok((_, listed)) = run(list.args(["--class", "filesystem?"]), Duration::from_secs(10))
    else {
        return Outcome::Failed(vec!["stress-ng tells nothing of its stressors".to_owned()]);
    };
    let names = listed.rsplit_once("stressors: ").map_or("", |(_, names)| names);
    let names: Vec<&str> =
        names.split_whitespace().filter(|name| !NOT_OF_A_MOUNT.contains(name)).collect();
    let mut failures = Vec::new();
    for name in &names {
        let one = || -> Result<(), String> {
            let ground = Ground::new(&wishes.program, "mount-stress", "1G", "")?;
            let mut command = Command::new("stress-ng");
            command.arg(format!("--{name}")).args(["2", "--verify", "--temp-path"]);
            command.arg(ground.root()).args(["-t", &seconds.to_string()]);
            // What they fill is less than the image.
            command.args(["--fallocate-bytes", "64M", "--iomix-bytes", "64M"]);
            command.args(["--sync-file-bytes", "64M", "--hdd-bytes", "64M"]);
            let said = succeed(&mut command, Duration::from_secs(60 + seconds))?;
            ground.end()?;
            match said.contains("fail:") {
                true => Err(said),
                false => Ok(()),
            }
        };
        if let Err(reason) = one() {
            failures.push(format!("{name}: {reason}"));
        }
    }
    Outcome::of(failures, format!("{} stressors of {seconds} s", names.len()))
}

/// Files of several jobs at once, each block of which says what it has to be.
pub fn fio(wishes: &Wishes) -> Outcome {
    if let Some(lacking) = lacking(&["fio"]) {
        return Outcome::Skipped(lacking);
    }
    let seconds = wishes.seconds.unwrap_or(600);
    let jobs: [(&str, &[&str]); 4] = [
        ("random", &["--rw=randwrite", "--bsrange=512-64k", "--ioengine=psync", "--fsync=50"]),
        ("mapped", &["--rw=randwrite", "--bs=4k", "--ioengine=mmap", "--fsync=100"]),
        ("direct", &["--rw=randwrite", "--bs=8k", "--ioengine=psync", "--direct=1"]),
        ("stream", &["--rw=write", "--bs=256k", "--ioengine=psync"]),
    ];
    let mut failures = Vec::new();
    for options in ["", "writeback,cache=8M"] {
        let one = || -> Result<(), String> {
            let ground = Ground::new(&wishes.program, "mount-fio", "1G", options)?;
            let mut command = Command::new("fio");
            command.arg(format!("--directory={}", ground.root().display()));
            let runtime = format!("--runtime={}", seconds / 2);
            command.args(["--size=48m", "--verify=crc32c", "--verify_backlog=200"]);
            command.args(["--verify_fatal=1", "--time_based=1", &runtime, "--group_reporting"]);
            command.arg(format!("--randseed={}", wishes.seed));
            for (name, words) in jobs {
                command.arg(format!("--name={name}")).args(words);
            }
            succeed(command.current_dir(ground.beside("")), HOUR)?;
            ground.end()
        };
        if let Err(reason) = one() {
            failures.push(format!("-o {options:?}: {reason}"));
        }
    }
    Outcome::of(failures, format!("four kinds of jobs, {} s each way to mount", seconds / 2))
}
