//! `cargo xtask oracle`: long comparisons with the kernel on a large tree: contents, speed, memory, sudden death.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

const PARTS: [&str; 3] = ["speed", "kills", "contents"];
const ROUNDS: usize = 5;
const KILLS: u32 = 100;
const IMAGE_BYTES: u64 = 4 << 30;
const MOST_MEMORY: u64 = 256 << 20;

/// Compares as `arguments` say; whether all is as it has to be. Needs root, a loop device and e2fsprogs.
pub fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<bool> {
    let (parts, tree) = parse(arguments).map_err(anyhow::Error::msg)?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "extant-cli"]).current_dir(root);
    ensure!(build.status()?.success(), "the command line does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let place = Place::new(target.join("release/extant"), tree.into())?;
    let mut all_right = true;
    for part in parts {
        all_right &= match part {
            "speed" => speed(&place)?,
            "kills" => sudden_death(&place)?,
            _ => contents(root, tree)?,
        };
    }
    Ok(all_right)
}

/// Which parts, on which tree; a tree must exist, since a mistyped part would pass for one.
pub fn parse<'a>(arguments: &[&'a str]) -> Result<(Vec<&'a str>, &'a str), String> {
    let (parts, tree) = match *arguments {
        [part, ref rest @ ..] if PARTS.contains(&part) => (vec![part], rest),
        ref rest => (PARTS.to_vec(), rest),
    };
    match *tree {
        [] => Ok((parts, "/usr/share")),
        [tree] if Path::new(tree).is_dir() => Ok((parts, tree)),
        [tree] => Err(format!("`{tree}` is neither a directory nor a part ({})", PARTS.join(", "))),
        _ => Err("one tree at most".to_owned()),
    }
}

/// Where the images are, and what is copied.
struct Place {
    extant: PathBuf,
    tree: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn new(extant: PathBuf, tree: PathBuf) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("extant-oracle-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("mount"))?;
        Ok(Self { extant, tree, folder })
    }

    fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    fn mount(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// An empty image as mkfs.ext4 makes it.
    fn make_image(&self) -> anyhow::Result<()> {
        std::fs::File::create(self.image())?.set_len(IMAGE_BYTES)?;
        succeed(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(self.image()))
    }

    fn copy(&self) -> Command {
        let mut command = Command::new(&self.extant);
        command.args(["cp", "-qa"]).arg(&self.tree).arg(format!("{}:/", self.image().display()));
        command
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut check = Command::new("e2fsck");
        succeed(check.arg("-fn").arg(self.image()).stdout(Stdio::null()).stderr(Stdio::null()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left behind is in memory or in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Copies by turns with the kernel and with us; the better of both, several times.
fn speed(place: &Place) -> anyhow::Result<bool> {
    println!("== speed and memory of `cp -a {}`", place.tree.display());
    let (mut kernel, mut ours, mut memory) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        place.make_image()?;
        let start = Instant::now();
        succeed(Command::new("mount").args(["-o", "loop"]).arg(place.image()).arg(place.mount()))?;
        let copied = succeed(Command::new("cp").arg("-a").arg(&place.tree).arg(place.mount()));
        succeed(Command::new("umount").arg(place.mount()))?;
        copied?;
        kernel.push(start.elapsed());

        place.make_image()?;
        let start = Instant::now();
        memory = memory.max(peak_memory(place.copy().spawn()?)?);
        ours.push(start.elapsed());
        place.check()?;
    }
    let (kernel, ours) = (median(kernel), median(ours));
    let ratio = ours.as_secs_f64() / kernel.as_secs_f64();
    println!(
        "kernel {:.2} s, extant {:.2} s, ratio {ratio:.2}, memory {} MiB",
        kernel.as_secs_f64(),
        ours.as_secs_f64(),
        memory >> 20
    );
    Ok(ratio <= 1.0 && memory <= MOST_MEMORY)
}

/// Kills copies at random moments; both recoveries must leave a clean image.
fn sudden_death(place: &Place) -> anyhow::Result<bool> {
    println!("== {KILLS} copies killed");
    place.make_image()?;
    let start = Instant::now();
    succeed(&mut place.copy())?;
    let whole = start.elapsed();
    let mut failed = 0;
    for n in 0..KILLS {
        place.make_image()?;
        let mut child = place.copy().spawn()?;
        // Spread over the whole time, in an order that looks random.
        std::thread::sleep(whole * (n * 61 % KILLS) / KILLS);
        child.kill()?;
        child.wait()?;
        let by_us = place.folder.join("by-us.img");
        succeed(Command::new("cp").arg("--sparse=always").arg(place.image()).arg(&by_us))?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(place.image()).arg(place.mount()))?;
        succeed(Command::new("umount").arg(place.mount()))?;
        let kernel = place.check();
        std::fs::rename(&by_us, place.image())?;
        let touched = format!("{}:/after", place.image().display());
        let ours = succeed(Command::new(&place.extant).args(["touch", &touched]))
            .and_then(|()| place.check());
        for (by, outcome) in [("the kernel's", kernel), ("our", ours)] {
            if let Err(error) = outcome {
                failed += 1;
                println!("kill {n}: {by} recovery: {error:#}");
            }
        }
    }
    println!("{} recoveries, {failed} failed", 2 * KILLS);
    Ok(failed == 0)
}

/// The suite of many kinds of images, on the large tree.
fn contents(root: &Path, tree: &str) -> anyhow::Result<bool> {
    let mut tests = Command::new("cargo");
    tests.args([
        "test",
        "--release",
        "--package",
        "extant-cli",
        "--test",
        "kernel",
        "--",
        "--test-threads=1",
    ]);
    Ok(tests.current_dir(root).env("EXTANT_TREE", tree).status()?.success())
}

/// The largest share of memory that a process has until its end.
fn peak_memory(mut child: Child) -> anyhow::Result<u64> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kibibytes = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kibibytes.unwrap_or(0) << 10);
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(peak),
            Some(status) => anyhow::bail!("the copy ended with {status}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs `command`; an error unless it succeeds.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?} does not run"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
