//! Independent judges: e2fsprogs and the kernel's own ext4, run as programs. None of them needs this project.
//!
//! An oracle that cannot run says so by name through [`skip`]; the test that asked then passes, and `cargo xtask ci`
//! counts the line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Prints that the oracle `name` could not run, in the form that `cargo xtask ci` counts.
pub fn skip(name: &str, why: &str) {
    println!("SKIPPED {name}: {why}");
    eprintln!("SKIPPED {name}: {why}");
}

/// A program of e2fsprogs or util-linux, looked for also where root's programs are.
fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Runs a program to its end, or says `None` if the machine lacks it.
pub fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let path = tool(program)?;
    Some(Command::new(path).args(arguments).output().expect("a program that exists can be started"))
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
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let unique = format!("extant-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = base.join(unique);
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
    if !has("mkfs.ext4") {
        skip("mkfs.ext4", "not installed");
        return None;
    }
    let file = fs::File::create(image).expect("the image can be made");
    file.set_len(bytes).expect("the image can grow");
    let mut arguments = vec!["-q", "-F"];
    arguments.extend_from_slice(options);
    let image = image.to_str().expect("a scratch path is text");
    arguments.push(image);
    let output = run("mkfs.ext4", &arguments)?;
    assert!(output.status.success(), "mkfs.ext4 {options:?}: {}", text(&output));
    Some(())
}

/// What e2fsck says of an image without changing it: `Err` with its words if it is not clean.
pub fn e2fsck(image: &Path) -> Result<(), String> {
    let Some(output) = run("e2fsck", &["-fn", image.to_str().expect("a scratch path is text")]) else {
        skip("e2fsck", "not installed");
        return Ok(());
    };
    if output.status.code() == Some(0) { Ok(()) } else { Err(text(&output)) }
}

/// Runs one command of debugfs on an image and returns what it prints, or skips.
pub fn debugfs(image: &Path, command: &str) -> Option<String> {
    let image = image.to_str().expect("a scratch path is text");
    match run("debugfs", &["-R", command, image]) {
        Some(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        None => {
            skip("debugfs", "not installed");
            None
        }
    }
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
        fs::create_dir_all(point).expect("the mount point can be made");
        let options = if options.is_empty() { "loop".to_owned() } else { format!("loop,{options}") };
        let arguments = ["-t", "ext4", "-o", &options, image.to_str()?, point.to_str()?];
        match run("mount", &arguments) {
            Some(output) if output.status.success() => Some(Self { point: point.to_owned(), mounted: true }),
            Some(output) => {
                skip("kernel mount", text(&output).trim());
                None
            }
            None => {
                skip("kernel mount", "no mount program");
                None
            }
        }
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
        let point = self.point.to_str().expect("a scratch path is text");
        let output = run("umount", &[point]).ok_or_else(|| io::Error::other("no umount program"))?;
        if output.status.success() { Ok(()) } else { Err(io::Error::other(text(&output))) }
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
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
