//! `cargo xtask boot`: a real root file system, built, exported, built again, and booted by a Debian kernel.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::oracle::succeed;

/// What this needs beside e2fsprogs, each with the Debian package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("debootstrap", "debootstrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
];
const MIRROR: &str = "http://deb.debian.org/debian";
const SUITE: &str = "bookworm";
const KERNEL: &str = "linux-image-cloud-amd64";
/// What stands between the kernel and a virtio disk, each after what it needs.
const MODULES: [&str; 6] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
];
/// The first program: it mounts the image to write to it, and makes room for a shell.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in MODULES; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /bin/bash -i
";
/// What is typed at the shell; it ends with the machine off.
const TYPED: &str = "
mount -t proc proc /proc
dpkg --audit && find / -xdev -type f -newer /etc/passwd | wc -l
echo written > /root/by-guest && mkdir /var/made && mv /root/by-guest /var/made/
sync; echo SHELL-$((40 + 2)); mount -o remount,ro / && echo o > /proc/sysrq-trigger; sleep 60
";
/// What the shell answers, and what nobody typed.
const ANSWER: &str = "SHELL-42";
const LONGEST_BOOT: Duration = Duration::from_secs(300);

/// Makes, compares and boots; whether all is as it has to be. Needs root, and what [`TOOLS`] names.
pub fn run(extant: &Path) -> anyhow::Result<bool> {
    for (tool, package) in TOOLS {
        if !is_there(tool) {
            println!("boot: skipped, no {tool} here (Debian package {package})");
            return Ok(true);
        }
    }
    let place = Place::new(extant)?;
    place.make_root()?;
    println!("== built, exported, built again");
    let equal = place.rebuild()?;
    println!("== booted");
    let boots = place.boot()?;
    Ok(equal && boots)
}

/// Where it all lies; gone in the end.
struct Place {
    extant: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn new(extant: &Path) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("extant-boot-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { extant: extant.to_owned(), folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A minimal Debian, and the kernel beside it.
    fn make_root(&self) -> anyhow::Result<()> {
        println!("== debootstrap --variant=minbase {SUITE}");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", SUITE]).arg(self.path("root")).arg(MIRROR);
        succeed(debootstrap.stdout(Stdio::null()))?;
        let depends = Command::new("apt-cache").args(["depends", KERNEL]).output()?;
        let text = String::from_utf8_lossy(&depends.stdout);
        let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let package = package.with_context(|| format!("apt knows no {KERNEL}"))?;
        let mut fetch = Command::new("apt-get");
        fetch.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]);
        succeed(fetch.current_dir(&self.folder))?;
        let package = find(&self.folder, |name| name.ends_with(".deb"))?;
        succeed(Command::new("dpkg").arg("-x").arg(package).arg(self.path("kernel")))
    }

    /// One image of the tree, one of a tar of that image, one of the tree again.
    fn rebuild(&self) -> anyhow::Result<bool> {
        let (root, tar) = (self.path("root"), self.path("root.tar"));
        self.build("first.img", &root)?;
        let mut export = Command::new(&self.extant);
        succeed(
            export.arg("export").arg(format!("{}:/", self.path("first.img").display())).arg(&tar),
        )?;
        self.build("of-tar.img", &tar)?;
        self.build("again.img", &root)?;
        let mut all_equal = true;
        for other in ["of-tar.img", "again.img"] {
            let (first, other) = (self.path("first.img"), self.path(other));
            let is_equal = Command::new("cmp").args([&first, &other]).status()?.success();
            if !is_equal {
                // It names what differs.
                let _ = Command::new(&self.extant).arg("diff").args([&first, &other]).status();
            }
            all_equal &= is_equal;
        }
        println!("the same bytes: {}", if all_equal { "yes" } else { "NO" });
        Ok(all_equal)
    }

    fn build(&self, image: &str, from: &Path) -> anyhow::Result<()> {
        let image = self.path(image);
        let mut build = Command::new(&self.extant);
        build.arg("build").arg(&image).arg("--from").arg(from);
        // As it is meant to be used: room to live in, and the same for everybody.
        build.args(["--size", "auto", "--free", "64M", "--deterministic"]);
        succeed(build.env("SOURCE_DATE_EPOCH", "1700000000"))?;
        check(&image)
    }

    /// Whether the image boots to a shell that writes, and is clean afterwards.
    fn boot(&self) -> anyhow::Result<bool> {
        self.make_initrd()?;
        let image = self.path("first.img");
        let kernel = find(&self.path("kernel/boot"), |name| name.starts_with("vmlinuz"))?;
        let mut machine = Command::new("qemu-system-x86_64");
        machine.args(["-accel", "tcg", "-m", "512", "-display", "none", "-serial", "stdio"]);
        machine.args(["-monitor", "none", "-no-reboot", "-kernel"]).arg(kernel);
        machine.arg("-initrd").arg(self.path("initrd"));
        machine.args(["-append", "console=ttyS0 quiet panic=-1", "-drive"]);
        machine.arg(format!("file={},format=raw,if=virtio", image.display()));
        let said = converse(machine.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)?;
        // A terminal's codes may stand before it; what was typed is echoed, but does not end so.
        let answered = said.lines().any(|line| line.trim_end().ends_with(ANSWER));
        if !answered {
            println!("the machine said:\n{said}");
        }
        println!("a shell on it: {}", if answered { "yes" } else { "NO" });
        check(&image)?;
        let made = format!("{}:/var/made/by-guest", image.display());
        let written = Command::new(&self.extant).arg("cat").arg(made).output()?;
        let is_written = written.stdout == b"written\n";
        println!(
            "clean afterwards, what it wrote is there: {}",
            if is_written { "yes" } else { "NO" }
        );
        Ok(answered && is_written)
    }

    /// What the kernel starts from: the modules for the disk, and who loads them.
    fn make_initrd(&self) -> anyhow::Result<()> {
        let start = self.path("start");
        for folder in ["bin", "dev", "root", "modules"] {
            std::fs::create_dir_all(start.join(folder))?;
        }
        let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output()?;
        let busybox = String::from_utf8(busybox.stdout)?;
        std::fs::copy(busybox.trim(), start.join("bin/busybox"))?;
        for module in MODULES {
            let mut search = Command::new("find");
            let found = search.arg(self.path("kernel")).args(["-name", &format!("{module}.ko")]);
            let found = String::from_utf8(found.output()?.stdout)?;
            let from = found.lines().next().with_context(|| format!("{KERNEL} has no {module}"))?;
            std::fs::copy(from, start.join("modules").join(format!("{module}.ko")))?;
        }
        let init = start.join("init");
        std::fs::write(&init, INIT.replace("MODULES", &MODULES.join(" ")))?;
        succeed(Command::new("chmod").arg("755").arg(init))?;
        let pack = "find . | cpio --quiet -o -H newc > ../initrd";
        succeed(Command::new("sh").args(["-c", pack]).current_dir(start))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left behind is in memory or in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Types at the machine's shell once it is there; returns what the machine said until it was off.
fn converse(mut machine: Child) -> anyhow::Result<String> {
    let mut keyboard = machine.stdin.take().context("no input")?;
    let screen = machine.stdout.take().context("no output")?;
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut screen = BufReader::new(screen);
        loop {
            let piece = screen.fill_buf().map(<[u8]>::to_vec).unwrap_or_default();
            screen.consume(piece.len());
            if piece.is_empty() || sender.send(piece).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let (mut said, mut typed) = (Vec::new(), false);
    while let Some(rest) = LONGEST_BOOT.checked_sub(start.elapsed()) {
        match pieces.recv_timeout(rest) {
            Ok(piece) => said.extend(piece),
            Err(_) => break,
        }
        if !typed && said.windows(3).any(|bytes| bytes == b":/#") {
            typed = true;
            keyboard.write_all(TYPED.as_bytes())?;
        }
    }
    // It is off, or stays as it is.
    let _ = machine.kill();
    machine.wait()?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn check(image: &Path) -> anyhow::Result<()> {
    let mut check = Command::new("e2fsck");
    let output = check.arg("-fn").arg(image).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "e2fsck -fn {}:\n{said}", image.display());
    Ok(())
}

fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_it) {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("{}: what is looked for is not there", folder.display())
}

fn is_there(tool: &str) -> bool {
    let asked = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    asked.is_ok_and(|output| output.status.success())
}
