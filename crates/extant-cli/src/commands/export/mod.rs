//! `extant export`: a tree of an image as a tar, to a file or a pipe, or as a directory.

mod compress;
mod target;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use extant_image::export::{self, ExportOptions, LeftOut, Observer};

use crate::address::ImagePath;
use crate::failure::{self, Told, Usage};
use crate::interrupt::{self, Interrupted};
use crate::progress::{Progress, Words};
use crate::volume::{Reading, has_changed};
use crate::{copy, output};
use compress::Compressed;
use target::TarFile;

/// Take an image, or a part of it, out: as a tar, or as a directory
///
/// A tar is pax, with times to the nanosecond, attributes and access lists, holes and links: GNU tar unpacks all of it with
/// `--xattrs --xattrs-include='*'`. A directory is filled as by `cp -a`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// What, as IMAGE:/path; an image alone means all of it
    #[arg(value_parser = super::inside_or_root())]
    from: ImagePath,
    /// Where to: a tar by the end of its name (.tar, .tar.gz, .tgz, .tar.zst, .tzst), `-` for a tar on standard output, else a
    /// directory
    target: PathBuf,
    /// How a tar is compressed, whatever its name says; TARGET is one then
    #[arg(long, value_enum, value_name = "HOW")]
    compress: Option<Compression>,
    /// Keep times of access in a tar too
    #[arg(long)]
    atime: bool,
    /// Only speak of what went wrong
    #[arg(short, long)]
    quiet: bool,
}

/// How a tar is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Compression {
    /// Not at all
    None,
    /// As gzip(1) does
    Gzip,
    /// As zstd(1) does
    Zstd,
}

/// Where an export goes.
#[derive(Debug, Eq, PartialEq)]
enum Target {
    Tar(Compression),
    Directory,
}

pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let to_pipe = args.target.as_os_str() == "-";
    let target = match target_of(&args.target, args.compress) {
        Target::Directory if args.atime => {
            return Err(
                Usage("--atime is for a tar; a directory has them anyway".to_owned()).into()
            );
        }
        target => target,
    };
    match target {
        Target::Directory => to_directory(&args.from, &args.target),
        Target::Tar(_) if to_pipe && io::stdout().is_terminal() => {
            Err(Usage("a tar is nothing for a terminal: name a file, or a pipe".to_owned()).into())
        }
        Target::Tar(how) if to_pipe => {
            let pipe = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
            let mut pipe = io::BufWriter::with_capacity(1 << 20, File::from(pipe));
            told(write_tar(args, how, &mut pipe)?)
        }
        Target::Tar(how) => {
            let name = || args.target.display().to_string();
            let mut file = TarFile::create(&args.target).with_context(name)?;
            let code = write_tar(args, how, &mut file)?;
            // What could be read is worth having.
            file.finish().with_context(name)?;
            told(code)
        }
    }
}

fn told(code: u8) -> anyhow::Result<()> {
    if code == 0 { Ok(()) } else { Err(Told(code).into()) }
}

/// What `path` is to be.
fn target_of(path: &Path, compress: Option<Compression>) -> Target {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let by_name = match () {
        () if path.as_os_str() == "-" || ends(&[".tar"]) => Some(Compression::None),
        () if ends(&[".tar.gz", ".tgz"]) => Some(Compression::Gzip),
        () if ends(&[".tar.zst", ".tzst"]) => Some(Compression::Zstd),
        () => None,
    };
    match (compress, by_name, std::fs::metadata(path)) {
        // A directory stays one, whatever it is called.
        (None, _, Ok(found)) if found.is_dir() => Target::Directory,
        (Some(how), ..) => Target::Tar(how),
        (None, Some(how), _) => Target::Tar(how),
        // A pipe or a device takes a tar.
        (None, None, Ok(found)) if !found.is_file() => Target::Tar(Compression::None),
        (None, None, _) => Target::Directory,
    }
}

fn to_directory(from: &ImagePath, directory: &Path) -> anyhow::Result<()> {
    // Whether there is such an image comes before a directory is made for it.
    drop(Reading::open(&from.image)?);
    let made = std::fs::create_dir(directory);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| directory.display().to_string());
        }
        _ => {}
    }
    if !directory.is_dir() {
        let words = "there is a file of this name; a tar's name ends in .tar, .tar.gz or .tar.zst";
        return Err(Usage(format!("{}: {words}", directory.display())).into());
    }
    copy::fill_directory_from(from, directory)
}

/// Writes a tar, and returns the exit code of what is left out.
fn write_tar(
    args: &ExportArgs,
    how: Compression,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<u8> {
    let reading = Reading::open(&args.from.image)?;
    let at = || args.from.to_string();
    let root = reading.filesystem().inode(&args.from.path).with_context(at)?;
    interrupt::watch();
    let words = if args.quiet { Words::Quiet } else { Words::Usual };
    let progress = Progress::new(None, words);
    let mut watching =
        Watching { reading: &reading, from: &args.from, progress: &progress, changed: None };
    let options = ExportOptions { access_times: args.atime };
    let name = args.from.name().unwrap_or_default();
    let written = compress::through(how, out, |out: &mut Compressed<'_>| {
        export::export(&root, name, options, out, &mut watching)
    });
    let changed = watching.changed.take();
    progress.finish();
    if interrupt::is_wanted() {
        return Err(Interrupted(String::new()).into());
    }
    if let Some(error) = changed {
        return Err(error);
    }
    written.with_context(|| format!("{}", args.target.display()))?;
    Ok(progress.worst_code())
}

/// Shows how far it is, and tells of what is left out.
struct Watching<'a> {
    reading: &'a Reading,
    from: &'a ImagePath,
    progress: &'a Progress,
    /// The image changed under us: nothing that follows would be worth more.
    changed: Option<anyhow::Error>,
}

impl Observer for Watching<'_> {
    fn entry(&mut self, _: &[u8]) -> io::Result<()> {
        if interrupt::is_wanted() || self.changed.is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.progress.file_done();
        Ok(())
    }

    fn bytes(&mut self, count: u64) {
        self.progress.bytes_done(count);
    }

    fn left_out(&mut self, path: &[u8], why: &LeftOut) {
        let at = self.from.join(path).to_string();
        match why {
            LeftOut::Socket => self.progress.warn(&format!("{at}: {why}")),
            LeftOut::Name => self.progress.failed(&output_line(&at, why), 1),
            LeftOut::Unreadable(error) => {
                let error = anyhow::Error::from(error.clone()).context(at);
                let error = self.reading.watch().explain(error);
                self.progress.failed(&failure::line(&error), failure::exit_code(&error));
                if has_changed(&error) {
                    self.changed = Some(error);
                }
            }
        }
    }
}

fn output_line(at: &str, why: &LeftOut) -> String {
    String::from_utf8_lossy(&output::name(format!("{at}: {why}").as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_what_it_is() {
        let tar = |how| Target::Tar(how);
        for (name, expected) in [
            ("-", tar(Compression::None)),
            ("a/b.tar", tar(Compression::None)),
            ("b.TAR.gz", tar(Compression::Gzip)),
            ("b.tgz", tar(Compression::Gzip)),
            ("b.tar.zst", tar(Compression::Zstd)),
            ("b.tzst", tar(Compression::Zstd)),
            ("/nowhere/rootfs", Target::Directory),
            ("/nowhere/b.gz", Target::Directory),
            ("/tmp", Target::Directory),
            ("/dev/null", tar(Compression::None)),
        ] {
            assert_eq!(target_of(Path::new(name), None), expected, "{name}");
        }
        assert_eq!(target_of(Path::new("x"), Some(Compression::Zstd)), tar(Compression::Zstd));
    }
}
