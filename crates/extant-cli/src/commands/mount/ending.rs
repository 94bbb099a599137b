//! How a mount ends: by a signal, or by damage with `errors=panic`.
//!
//! Unmounting takes rights that a server in the sandbox does not have: root's, or a program that runs as root (`fusermount3`).
//! So another process, started before, keeps them. It knows the directory, reads none of the image, and does two things when a
//! byte on its standard input says which. It ends with the server, whose end of the pipe the kernel closes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use extant_fuse::{OnError, Server};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::say;
use crate::interrupt;

/// What the end of a mount takes.
pub struct Ending<'a> {
    image: &'a Path,
    point: &'a Path,
    /// The kernel's log, for those who may write to it.
    log: Option<File>,
    orders: ChildStdin,
    answers: ChildStdout,
}

impl<'a> Ending<'a> {
    /// Opens the log and starts the other process, which says nothing if it is not to be heard.
    pub fn prepare(image: &'a Path, point: &'a Path, is_heard: bool) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("the path of this program")?)
            .args(["umount", "--when-told", "--"])
            .arg(point)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if is_heard { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .context("a process to unmount")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, mut answers) = pipes.context("pipes")?;
        // From then on no signal ends it.
        answers.read_exact(&mut [0; ANSWER]).context("a process to unmount")?;
        let log = File::options().write(true).open("/dev/kmsg").ok();
        Ok(Self { image, point, log, orders, answers })
    }

    /// Detaches the mount once a signal says so: for good as soon as nobody uses it. Ends the process after an error that says
    /// so.
    pub fn watch(&mut self, server: &Server, is_over: &AtomicBool) {
        let mut is_told = false;
        while !interrupt::is_wanted() {
            if let Some((error, consequence)) = server.damage().filter(|_| !is_told) {
                self.tell_of_damage(error, consequence);
                is_told = true;
            }
            if is_over.load(Ordering::Acquire) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
        if let Err(error) = self.order(UNMOUNT) {
            let point = self.point.display();
            say(&format!("{point}: {error}; it ends when nobody uses it any more"));
            let _ = server.filesystem().sync_all();
            self.detach();
        }
    }

    /// Takes the mount out of sight at once.
    pub fn detach(&mut self) {
        let _ = self.order(DETACH);
    }

    /// Says once that the image is damaged; nobody reads the standard error of a process in the background, so the line goes to
    /// the kernel's log too, where ext4's would be. With `errors=panic` ends at once: the kernel ends the connection with the
    /// process.
    fn tell_of_damage(&mut self, error: &str, consequence: OnError) {
        let what = match consequence {
            OnError::Continue => "run e2fsck when it is unmounted",
            OnError::ReadOnly => "nothing is changed any more (errors=remount-ro)",
            OnError::Panic => "the mount ends (errors=panic)",
        };
        let (image, point) = (self.image.display(), self.point.display());
        let line = format!("{image}, mounted on {point}: damage was found: {error}: {what}");
        say(&line);
        if let Some(log) = &mut self.log {
            let _ = log.write_all(format!("<2>extant: {line}\n").as_bytes());
        }
        if consequence == OnError::Panic {
            self.detach();
            std::process::exit(4);
        }
    }

    /// Has the other process do it, and waits for what came of it.
    fn order(&mut self, what: u8) -> io::Result<()> {
        let mut answer = [0; ANSWER];
        self.orders.write_all(&[what])?;
        self.answers.read_exact(&mut answer)?;
        match i32::from_le_bytes(answer) {
            0 => Ok(()),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

/// The other process: does what it is told until nobody can tell it any more.
pub fn unmount_when_told(point: &Path) -> anyhow::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // They are for the server, which then tells.
        signal_hook::flag::register(signal, Arc::default()).context("signals")?;
    }
    let (mut orders, mut answers) = (io::stdin(), io::stdout());
    let mut answer = 0;
    loop {
        // Whoever goes meanwhile does not read it.
        let _ = answers.write_all(&i32::to_le_bytes(answer)).and_then(|()| answers.flush());
        let mut order = [0];
        if orders.read_exact(&mut order).is_err() {
            return Ok(());
        }
        let outcome = match order[0] {
            UNMOUNT => extant_fuse::unmount(point),
            DETACH => extant_fuse::detach(point),
            _ => Err(Errno::INVAL.into()),
        };
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        answer = outcome.map_or_else(errno, |()| 0);
    }
}

const UNMOUNT: u8 = b'u';
const DETACH: u8 = b'd';
/// Bytes of an answer: an error number, or zero. The first says that it listens.
const ANSWER: usize = 4;
