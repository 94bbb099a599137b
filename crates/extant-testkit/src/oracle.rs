//! Independent judges: e2fsprogs and the kernel's own ext4, run as programs. None of them needs this project.
//!
//! An oracle that cannot run says so by name through [`skip`]; the test that asked then passes, and `cargo xtask ci`
//! counts the line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skip;

/// Where a program is, looked for also where root's programs are.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A command for `program`, or a skip that names it.
fn command(program: &str) -> Option<Command> {
    let path = tool(program);
    if path.is_none() {
        skip(&format!("{program} is not installed"));
    }
    path.map(Command::new)
}

/// Runs a program to its end, or skips if the machine lacks it.
pub fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    Some(command(program)?.args(arguments).output().expect("a program that exists can be started"))
}

/// Whether this machine has the program.
pub fn has(program: &str) -> bool {
    tool(program).is_some()
}

/// A folder for one test's files, removed when dropped; in memory where the machine has such a place.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A fresh folder whose name contains `name`.
    ///
    /// # Panics
    /// If no folder can be made.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("extant-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the scratch folder can be made");
        Self(path)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover folder is no reason to fail a test that passed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes an image with `mkfs.ext4 options`, or skips.
///
/// # Panics
/// If mkfs.ext4 is there and fails: the options are wrong.
pub fn mkfs(image: &Path, bytes: u64, options: &[&str]) -> Option<()> {
    let file = fs::File::create(image).expect("the image can be made");
    file.set_len(bytes).expect("the image can grow");
    let arguments = [&["-q", "-F"], options, &[text_of(image)]].concat();
    let output = run("mkfs.ext4", &arguments)?;
    assert!(output.status.success(), "mkfs.ext4 {options:?}: {}", text(&output));
    Some(())
}

/// What unused blocks of an image by [`mkfs_stale`] hold: a reader who sees it has been shown somebody else's bytes.
pub const STALE: u8 = 0xEE;

/// As [`mkfs`], with unused blocks that hold [`STALE`].
///
/// # Panics
/// As [`mkfs`].
pub fn mkfs_stale(image: &Path, bytes: u64, options: &[&str]) -> Option<()> {
    let len = usize::try_from(bytes).expect("the image fits in memory");
    fs::write(image, vec![STALE; len]).expect("the image can be made");
    let arguments =
        [&["-q", "-F", "-E", "nodiscard,lazy_itable_init=0"], options, &[text_of(image)]].concat();
    let output = run("mkfs.ext4", &arguments)?;
    assert!(output.status.success(), "mkfs.ext4 {options:?}: {}", text(&output));
    Some(())
}

/// What e2fsck says of an image without changing it: `Err` with its words if it is not clean.
///
/// # Errors
/// All that e2fsck printed.
pub fn e2fsck(image: &Path) -> Result<(), String> {
    match run("e2fsck", &["-fn", text_of(image)]) {
        Some(output) if output.status.code() != Some(0) => Err(text(&output)),
        _ => Ok(()),
    }
}

/// Runs one command of debugfs on an image and returns what it prints, or skips.
pub fn debugfs(image: &Path, command: &str) -> Option<String> {
    let output = run("debugfs", &["-R", command, text_of(image)])?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs commands of debugfs, one a line, that may change the image; returns all it prints, or skips.
///
/// # Panics
/// If debugfs does not run to its end.
pub fn debugfs_write(image: &Path, commands: &str) -> Option<String> {
    let mut child = command("debugfs")?
        .args(["-w", "-f", "-", text_of(image)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program that exists can be started");
    let mut input = child.stdin.take().expect("it was asked for");
    input.write_all(commands.as_bytes()).expect("debugfs reads its commands");
    drop(input);
    let output = child.wait_with_output().expect("debugfs ends");
    assert!(output.status.success(), "debugfs: {}", text(&output));
    Some(text(&output))
}

/// An image mounted by the kernel; unmounted when dropped.
#[derive(Debug)]
pub struct KernelMount {
    point: PathBuf,
    mounted: bool,
}

impl KernelMount {
    /// Mounts `image` on a loop device with `options`, or skips where that takes more rights than the test has.
    pub fn new(image: &Path, point: &Path, options: &str) -> Option<Self> {
        match Self::try_new(image, point, options)? {
            Ok(mount) => Some(mount),
            Err(why) => {
                skip(&format!("no kernel mount: {}", why.trim()));
                None
            }
        }
    }

    /// Mounts `image`, or returns what `mount` said; `None`, after a skip, where there is no `mount`.
    ///
    /// # Panics
    /// If the mount point cannot be made.
    pub fn try_new(image: &Path, point: &Path, options: &str) -> Option<Result<Self, String>> {
        fs::create_dir_all(point).expect("the mount point can be made");
        let options = format!("loop,{options}");
        let options = options.trim_end_matches(',');
        let output = run("mount", &["-t", "ext4", "-o", options, text_of(image), text_of(point)])?;
        Some(match output.status.success() {
            true => Ok(Self { point: point.to_owned(), mounted: true }),
            false => Err(text(&output)),
        })
    }

    /// Where the image's root directory is.
    pub fn root(&self) -> &Path {
        &self.point
    }

    /// Unmounts, so that the image can be looked at.
    ///
    /// # Errors
    /// What `umount` says.
    pub fn unmount(mut self) -> io::Result<()> {
        self.release()
    }

    fn release(&mut self) -> io::Result<()> {
        if !core::mem::take(&mut self.mounted) {
            return Ok(());
        }
        let mut said = String::new();
        for _ in 0..100 {
            let output = run("umount", &[text_of(&self.point)])
                .ok_or_else(|| io::Error::other("no umount program"))?;
            if output.status.success() {
                return Ok(());
            }
            // Another thread's child has our open files until it runs its own program.
            said = text(&output);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Err(io::Error::other(said))
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            eprintln!("umount {}: {error}", self.point.display());
        }
    }
}

/// All that a program printed.
pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a scratch path is text")
}
