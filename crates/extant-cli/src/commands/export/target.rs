//! [`TarFile`]: a file that gets its name once it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A tar on its way; what was there before stays until [`Self::finish`], and nothing is left of one that is dropped.
#[derive(Debug)]
pub struct TarFile {
    file: BufWriter<File>,
    /// Where it is now and where it goes; pipes and devices are written as they are.
    names: Option<(PathBuf, PathBuf)>,
}

impl TarFile {
    /// Starts a file that will be at `path`, where a symbolic link leads if it is one.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let (file, names) = match fs::canonicalize(path) {
            Ok(end) if !end.is_file() => (File::options().write(true).open(end)?, None),
            end => {
                let end = end.unwrap_or_else(|_| path.to_owned());
                let mut name = std::ffi::OsString::from(".");
                name.push(end.file_name().unwrap_or_default());
                name.push(format!(".extant-{}", std::process::id()));
                let now = end.with_file_name(name);
                (File::create_new(&now)?, Some((now, end)))
            }
        };
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), names })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The system's; then it is gone.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some((now, end)) = &self.names {
            fs::rename(now, end)?;
        }
        self.names = None;
        Ok(())
    }
}

impl Write for TarFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for TarFile {
    fn drop(&mut self) {
        if let Some((now, _)) = &self.names {
            // The reason why it is not wanted was told.
            let _ = fs::remove_file(now);
        }
    }
}
