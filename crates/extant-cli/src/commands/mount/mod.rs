//! `extant mount` and `extant umount`: an image as a directory, by FUSE.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod calls;
mod ending;
mod memory;
mod options;
mod sandbox;

use std::fs::File;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Waker;
use std::time::Duration;

use anyhow::Context;
use extant::{Filesystem, MountOptions};
use extant_device::{BlockDevice, FileDevice, OpenError};
use extant_fuse::{Alarm, Backing, Channel, Mount, NoRings, Server};

use self::ending::Ending;
use self::options::Wishes;
use crate::failure::{OnlyReadable, Told, Usage, say};
use crate::volume::ImageDevice;
use crate::{host, interrupt, volume};

/// Attach an image to a directory
#[derive(Debug, clap::Args)]
#[command(after_help = OPTIONS.as_str())]
pub struct MountArgs {
    /// Image file or block device
    #[arg(value_parser = super::image())]
    image: PathBuf,
    /// The directory
    directory: PathBuf,
    /// Mount options with commas between; see below
    #[arg(short, long, default_value = "")]
    options: Vec<String>,
    /// Stay in the foreground, and unmount at Ctrl-C
    #[arg(short, long)]
    foreground: bool,
    /// Say on standard output when it is mounted
    #[arg(long, hide = true)]
    tell: bool,
}

/// Detach what is mounted on a directory, and wait until its image is whole
#[derive(Debug, clap::Args)]
pub struct UmountArgs {
    /// The directory
    directory: PathBuf,
    /// Detach it when a byte on standard input says so
    #[arg(long, hide = true)]
    when_told: bool,
}

static OPTIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "Options by the kernel's names, and some of its own:\n{}\n\
         Data is durable after fsync, and after 5 s of the commit timer for what was written back. For root's mounts sync(2) and \
         umount(8) wait for the image too; else `extant umount` does.\n\
         Once mounted, the serving process is in a sandbox: it opens no file, starts no program, has no network and no right of root's.",
        options::help()
    )
});

pub fn run(args: &MountArgs) -> anyhow::Result<()> {
    memory::settle();
    let user = rustix::process::geteuid().as_raw();
    let wishes = Wishes::parse(&args.options.join(","), user)?;
    let image = std::fs::canonicalize(&args.image).unwrap_or_else(|_| args.image.clone());
    let point = std::fs::canonicalize(&args.directory)
        .with_context(|| args.directory.display().to_string())?;
    if !point.is_dir() {
        return Err(Usage(format!("{}: not a directory", point.display())).into());
    }
    match args.foreground || args.tell {
        true => serve(&image, point, wishes, args.tell),
        false => in_background(args),
    }
}

/// Starts another process that serves, and waits until it says that it does.
fn in_background(args: &MountArgs) -> anyhow::Result<()> {
    let mut child = Command::new(std::env::current_exe().context("the path of this program")?)
        .args(["mount", "--tell", "-o", &args.options.join(",")])
        .args(volume::part_words())
        .arg("--")
        .args([&args.image, &args.directory])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("a process to serve the image")?;
    let mut told = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut told).context("what the serving process says")?;
    }
    if told.is_empty() {
        // It has said why on standard error.
        let code = child.wait().ok().and_then(|status| status.code());
        return Err(Told(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)).into());
    }
    Ok(())
}

fn serve(image: &Path, point: PathBuf, wishes: Wishes, tells: bool) -> anyhow::Result<()> {
    let Wishes {
        engine,
        settings,
        allow_other,
        words,
        loop_device,
        rings,
        depth,
        sandbox,
        journal,
    } = wishes;
    let device = match settings.read_only {
        true => volume::open_to_read(image)?,
        false => volume::open_device(image)?,
    };
    let (start, len) = device.place();
    let alarm = Arc::new(Alarm::default());
    let engine = engine.waker(Waker::from(Arc::clone(&alarm))).host(host::host(image));
    let engine = match &journal {
        Some(path) => engine.journal_device(journal_device(path, settings.read_only)?),
        None => engine,
    };
    let filesystem = open_volume(image, device, engine, settings.read_only)?;
    let block_size = filesystem.statfs().block_size;
    let server =
        Server::new(filesystem, settings).map_err(|error| volume::unusable(image, error.into()))?;
    let server = server.with_alarm(alarm);
    let backing = Backing { image: image.to_owned(), start, len, block_size };
    let mount = Mount {
        source: image.display().to_string(),
        point,
        read_only: settings.read_only,
        allow_other,
        words,
        backing: loop_device.then_some(backing),
    };
    let mut ending = Ending::prepare(image, &mount.point, !tells)?;
    let nowhere = File::options().read(true).write(true).open("/dev/null").context("/dev/null")?;
    interrupt::watch();
    let mut channel = mount.attach()?;
    let rings = use_rings(&mut channel, rings, depth);
    if sandbox {
        let left_out = sandbox::enter(rings);
        if !tells && !left_out.is_empty() {
            say(&format!(
                "the sandbox lacks what this system does not allow: {}",
                left_out.join(", ")
            ));
        }
    }
    if tells && let Err(error) = leave_terminal(&nowhere) {
        ending.detach();
        return Err(error);
    }
    let is_over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| ending.watch(&server, &is_over));
        let outcome = extant_fuse::serve(&server, &channel, extant_fuse::THREADS);
        is_over.store(true, Ordering::Release);
        waiter.thread().unpark();
        outcome
    });
    drop(channel);
    let finished = server.finish();
    outcome.with_context(|| mount.point.display().to_string())?;
    finished.with_context(|| image.display().to_string())
}

/// The volume, which can be written unless it need not be.
fn open_volume(
    image: &Path,
    device: ImageDevice,
    engine: MountOptions,
    reads: bool,
) -> anyhow::Result<Filesystem> {
    let filesystem = engine.mount(device).map_err(|error| match error {
        // Each word makes sense, but not all of them on this image.
        extant::Error::Invalid(which) => Usage(format!("{}: {which}", image.display())).into(),
        error => volume::unusable(image, error.into()),
    })?;
    match filesystem.read_only_because() {
        Some(features) if !reads => Err(OnlyReadable(features.to_owned()))
            .with_context(|| format!("{}; mount it with -o ro", image.display())),
        _ => Ok(filesystem),
    }
}

/// The device that holds the journal, which nobody else uses meanwhile.
fn journal_device(path: &Path, reads: bool) -> anyhow::Result<Arc<dyn BlockDevice>> {
    let device = if reads { FileDevice::open_read_locked(path)? } else { FileDevice::open(path)? };
    Ok(Arc::new(device))
}

/// Has requests come by the kernel's queues, and returns where their descriptors lie. Says so if it cannot be, but for a kernel that
/// has none, or has them switched off, where nobody asked for them.
fn use_rings(
    channel: &mut Channel,
    wish: Option<bool>,
    depth: Option<u16>,
) -> Option<RangeInclusive<RawFd>> {
    if wish == Some(false) {
        return None;
    }
    let why = channel.use_rings(depth).map_err(|why| match (why, wish) {
        (NoRings::Off, None) => {}
        (why, _) => say(&format!("requests come through /dev/fuse, not io_uring: {why}")),
    });
    why.ok()
}

/// Says that it is mounted, and lets go of the terminal.
fn leave_terminal(nowhere: &File) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "mounted").and_then(|()| out.flush()).context("standard output")?;
    let _ = rustix::process::setsid();
    rustix::stdio::dup2_stdout(nowhere).context("standard output")?;
    rustix::stdio::dup2_stderr(nowhere).context("standard error")
}

pub fn umount(args: &UmountArgs) -> anyhow::Result<()> {
    if args.when_told {
        return ending::unmount_when_told(&args.directory);
    }
    let name = || args.directory.display().to_string();
    let point = std::fs::canonicalize(&args.directory).with_context(name)?;
    let image = source_of(&point);
    extant_fuse::unmount(&point).with_context(name)?;
    let Some(image) = image else { return Ok(()) };
    // Whoever serves it has it locked until all is written.
    loop {
        match FileDevice::open_read_locked(&image) {
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(10)),
            _ => return Ok(()),
        }
    }
}

/// The image that is mounted on `point`, if it is one of ours.
fn source_of(point: &Path) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let found = mounts.lines().rev().find_map(|line| {
        let (mount, of) = line.split_once(" - ")?;
        let at = mount.split(' ').nth(4)?;
        (Path::new(&unescaped(at)) == point).then_some(of)
    })?;
    let mut words = found.split(' ');
    let (kind, source) = (words.next()?, unescaped(words.next()?));
    match kind {
        "fuse.extant" => Some(source.into()),
        "fuseblk.extant" => {
            let device = Path::new(&source).file_name()?;
            let backing = Path::new("/sys/block").join(device).join("loop/backing_file");
            Some(std::fs::read_to_string(backing).ok()?.trim_end_matches('\n').into())
        }
        _ => None,
    }
}

/// A word of mountinfo, in which blanks are octal numbers.
fn unescaped(word: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(word.to_owned(), |word, (code, text)| word.replace(code, text))
}
