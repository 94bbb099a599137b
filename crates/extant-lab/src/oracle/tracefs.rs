//! The kernel's events of one device, in an instance of tracefs that nobody else uses.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Kibibytes of events a processor keeps; more are an error.
const BUFFER_KIBIBYTES: u32 = 24 << 10;

/// An instance; removed when dropped.
#[derive(Debug)]
pub struct Instance {
    folder: PathBuf,
    marker: Option<File>, // closed before the folder goes
}

impl Instance {
    /// A fresh instance that records nothing yet.
    ///
    /// # Errors
    /// Where there is no tracefs, or no right to use it.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            root()?.join("instances").join(format!("extant-{}-{number}", std::process::id()));
        fs::create_dir(&folder)?;
        let marker = OpenOptions::new().write(true).open(folder.join("trace_marker"));
        let marker = marker.inspect_err(|_| drop(fs::remove_dir(&folder)))?;
        let instance = Self { folder, marker: Some(marker) };
        instance.write("tracing_on", "0")?;
        instance.write("trace_clock", "mono")?;
        instance.write("buffer_size_kb", &BUFFER_KIBIBYTES.to_string())?;
        Ok(instance)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Records, from now on, the events with these names that are about a device.
    ///
    /// # Errors
    /// Of tracefs.
    pub fn start<'n>(&self, device: u64, names: impl Iterator<Item = &'n str>) -> io::Result<()> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let number = (u64::from(major) << 20) | u64::from(minor);
        for name in names {
            let group = name.split('_').next().unwrap_or_default();
            let event = format!("events/{group}/{name}");
            if !self.folder.join(&event).exists() {
                continue;
            }
            let filter = match group {
                "writeback" => format!("name == \"{major}:{minor}\""),
                _ if name.contains("_trim_") => {
                    format!("dev_major == {major} && dev_minor == {minor}")
                }
                _ => format!("dev == {number}"),
            };
            self.write(&format!("{event}/filter"), &filter)?;
            self.write(&format!("{event}/enable"), "1")?;
        }
        self.write("tracing_on", "1")
    }

    /// Puts a line of one's own among the events.
    ///
    /// # Errors
    /// Of tracefs.
    pub fn mark(&self, text: &str) -> io::Result<()> {
        self.marker.as_ref().map_or(Ok(()), |mut marker| marker.write_all(text.as_bytes()))
    }

    /// Records no more; what was recorded, a line an event.
    ///
    /// # Errors
    /// Of tracefs, or that there were more events than it could keep.
    pub fn stop(&self) -> io::Result<String> {
        self.write("tracing_on", "0")?;
        for processor in fs::read_dir(self.folder.join("per_cpu"))? {
            let stats = fs::read_to_string(processor?.path().join("stats"))?;
            if stats.lines().any(|line| line.starts_with("overrun:") && line != "overrun: 0") {
                return Err(io::Error::other("more events than the buffer holds"));
            }
        }
        fs::read_to_string(self.folder.join("trace"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.marker = None;
        let off = self.write("events/enable", "0");
        if let Err(error) = off.and_then(|()| fs::remove_dir(&self.folder)) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// Where tracefs is; mounted at its usual place if it is not.
fn root() -> io::Result<&'static Path> {
    let place = Path::new("/sys/kernel/tracing");
    if !place.join("instances").is_dir() {
        let mounted =
            Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(place).output()?;
        if !place.join("instances").is_dir() {
            let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
            return Err(io::Error::new(io::ErrorKind::Unsupported, said));
        }
    }
    Ok(place)
}

/// A line of [`Instance::stop`]: who, and what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line<'a> {
    /// The task's name, which may be cut.
    pub task: &'a str,
    /// Its number.
    pub pid: u32,
    /// The event, or after `tracing_mark_write: ` a line of one's own.
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// The parts of a line; `None` for comments.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (who, rest) = line.split_once(" [")?;
        let (task, pid) = who.trim().rsplit_once('-')?;
        let text = rest.split_once(": ")?.1;
        Some(Self { task, pid: pid.parse().ok()?, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_task_and_an_event() {
        let line = "  kworker/u4:1-flush-7:0-77    [001] ..... 19.7: ext4_sync_fs: dev 7,0 wait 1";
        let expected =
            Line { task: "kworker/u4:1-flush-7:0", pid: 77, text: "ext4_sync_fs: dev 7,0 wait 1" };
        assert_eq!(Line::parse(line), Some(expected));
        assert_eq!(Line::parse("# entries-in-buffer/entries-written: 0/0   #P:2"), None);
    }
}
