//! `extant cp`: trees into images, out of images, and between them.
//!
//! A tree is a [`stream`] of items. Sources (`local_source`, `image_source`) run in a thread of their own and stay a bounded
//! distance ahead of the targets (`local_target`, `image_target`), so that one processor reads while the other writes. Nothing
//! is made durable file by file: an image is, at its unmount.

mod image_source;
mod image_target;
mod local_source;
mod local_target;
mod stream;
mod target;

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use extant::{Error, Filesystem};
use serde_json::json;

use crate::address::{Address, ImagePath, last_name};
use crate::failure::{Told, Usage, each_until, say};
use crate::output::{count, print_json};
use crate::progress::{Progress, Words};
use crate::volume;
use image_source::ImageSource;
use image_target::ImageTarget;
use local_source::LocalSource;
use local_target::LocalTarget;
use stream::{Settings, Sink, Stopped, stream};
use target::{Replace, Target, concerns_all, take_all};

/// Copy files into an image, out of one, or from image to image
///
/// New files inside an image belong to root unless `-a` or `-p` keeps their owners. A file in the way is replaced, also if it is a
/// symbolic link; a directory in the way is filled. Holes stay holes. `/dev/stdin` and other pipes are read to their end.
#[derive(Debug, clap::Args)]
pub struct CpArgs {
    /// What, and at last where to: IMAGE:/path, or a path of this machine
    #[arg(required = true, num_args = 2.., value_parser = clap::value_parser!(Address))]
    paths: Vec<Address>,
    /// Directories with everything below them too
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Keep owners, permissions, times, hard links, extended attributes and access lists
    #[arg(short, long)]
    preserve: bool,
    /// As -rp
    #[arg(short, long)]
    archive: bool,
    /// Leave files alone that exist
    #[arg(short, long, conflicts_with = "update")]
    no_clobber: bool,
    /// Replace only files that are older
    #[arg(short, long)]
    update: bool,
    /// Without effect: files in the way are replaced anyway
    #[arg(short, long, hide = true)]
    force: bool,
    /// Print the name of each copy
    #[arg(short, long, conflicts_with_all = ["quiet", "json"])]
    verbose: bool,
    /// Only speak of what went wrong
    #[arg(short, long)]
    quiet: bool,
    /// Print what was done for a program to read
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CpArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let (target, sources) = args.paths.split_last().context("nothing to copy")?;
    let recursive = args.recursive || args.archive;
    let job = Job {
        sources,
        target,
        settings: Settings { recursive, archive: args.archive || args.preserve, umask: umask() },
        replace: match (args.no_clobber, args.update) {
            (true, _) => Replace::Never,
            (false, true) => Replace::Older,
            (false, false) => Replace::Always,
        },
        progress: Progress::new(
            None,
            match (args.quiet, args.verbose) {
                (true, _) => Words::Quiet,
                (false, true) => Words::EachFile,
                (false, false) => Words::Usual,
            },
        ),
    };
    match target {
        Address::Image(inside) => {
            volume::change(&inside.image, |filesystem| job.fill_image(inside, filesystem))
        }
        Address::Local(path) => job.fill_directory(path),
    }
    .inspect_err(|_| job.progress.clear())?;
    match recursive {
        true => job.progress.finish(),
        false => job.progress.clear(),
    }
    let failed = job.progress.failures();
    if args.json {
        let (files, bytes) = (job.progress.files(), job.progress.bytes());
        print_json(out, &json!({ "files": files, "bytes": bytes, "failed": failed }))?;
    }
    if failed > 0 && recursive {
        say(&format!("{} could not be copied", count(failed, "file")));
    }
    if failed > 0 { Err(Told(1).into()) } else { Ok(()) }
}

/// One call of `cp`.
struct Job<'a> {
    sources: &'a [Address],
    target: &'a Address,
    settings: Settings,
    replace: Replace,
    progress: Progress,
}

/// A source that is ready to be walked.
enum Source {
    Local(LocalSource),
    Image(ImageSource),
}

impl Source {
    fn walk(&self, settings: Settings, sink: &mut Sink) -> Result<(), Stopped> {
        match self {
            Self::Local(source) => source.walk(settings, sink),
            Self::Image(source) => source.walk(settings, sink),
        }
    }
}

impl Job<'_> {
    fn fill_image(&self, to: &ImagePath, filesystem: &Filesystem) -> anyhow::Result<()> {
        let at = || to.to_string();
        let found = match filesystem.inode(&to.path) {
            Ok(found) => Some(found),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error).with_context(at),
        };
        let into = found.as_ref().is_some_and(|found| found.is_dir());
        self.check_target(into)?;
        let directory = match found.filter(|_| into) {
            Some(directory) => directory,
            None => filesystem.inode(parent(&to.path)).with_context(at)?,
        };
        let shown = if into {
            to.clone()
        } else {
            ImagePath { path: parent(&to.path).to_vec(), ..to.clone() }
        };
        each_until(concerns_all, self.sources, |source| {
            let name = self.name_of_copy(source, into)?;
            let source = match source {
                Address::Local(path) => {
                    let avoid =
                        std::fs::metadata(&to.image).map(|image| (image.dev(), image.ino()));
                    Source::Local(LocalSource { path: path.clone(), name, avoid: avoid.ok() })
                }
                Address::Image(from) => {
                    let same = is_same_file(&from.image, &to.image);
                    let opened = if same { filesystem.clone() } else { volume::open(&from.image)? };
                    let handle = self.find(from, &opened)?;
                    if same
                        && directory
                            .lookup(&name)
                            .is_ok_and(|found| found.number() == handle.number())
                    {
                        return Err(Usage(format!(
                            "{from} is the file that it would be copied to"
                        ))
                        .into());
                    }
                    let avoid = same.then(|| directory.number());
                    Source::Image(ImageSource { handle, address: from.to_string(), name, avoid })
                }
            };
            self.check_slash(&source, into, &to.path)?;
            self.copy(&source, &mut ImageTarget::new(directory.clone()), &shown.to_string())
        })
    }

    fn fill_directory(&self, to: &Path) -> anyhow::Result<()> {
        let into = to.is_dir();
        self.check_target(into)?;
        let named = (!into && to.exists()).then(|| to.to_owned());
        let directory = match (into, to.parent()) {
            (true, _) => to,
            (false, Some(parent)) if !parent.as_os_str().is_empty() => parent,
            (false, _) => Path::new("."),
        };
        let shown = directory.display().to_string();
        each_until(concerns_all, self.sources, |source| {
            let Address::Image(from) = source else {
                let problem =
                    format!("neither {source} nor {} is inside an image; use cp(1)", self.target);
                return Err(Usage(problem).into());
            };
            if is_same_file(&from.image, to) {
                let problem =
                    format!("{} is the image itself; write {0}:/ for its root", to.display());
                return Err(Usage(problem).into());
            }
            let name = self.name_of_copy(source, into)?;
            let handle = self.find(from, &volume::open(&from.image)?)?;
            let source = ImageSource { handle, address: from.to_string(), name, avoid: None };
            let source = Source::Image(source);
            self.check_slash(&source, into, to.as_os_str().as_bytes())?;
            let avoid = std::fs::metadata(&from.image).map(|image| (image.dev(), image.ino()));
            let target = LocalTarget::new(directory, named.clone(), avoid.ok());
            let mut target = target.with_context(|| shown.clone())?;
            self.copy(&source, &mut target, &shown)
        })
    }

    /// Several files, or what has no name of its own, need a directory.
    fn check_target(&self, into: bool) -> anyhow::Result<()> {
        if !into && self.sources.len() > 1 {
            return Err(Usage(format!(
                "{} is no directory, so only one file can be copied to it",
                self.target
            ))
            .into());
        }
        Ok(())
    }

    /// A name with a slash at its end means a directory, and only a directory can become one.
    fn check_slash(&self, source: &Source, into: bool, path: &[u8]) -> anyhow::Result<()> {
        let is_dir = match source {
            Source::Local(local) => local.path.is_dir(),
            Source::Image(image) => image.handle.is_dir(),
        };
        if into || is_dir || !path.ends_with(b"/") {
            return Ok(());
        }
        Err(Usage(format!("{} is no directory", self.target)).into())
    }

    /// What the copy of `source` is called: as the source if the target is a directory, else as the target.
    fn name_of_copy(&self, source: &Address, into: bool) -> anyhow::Result<Vec<u8>> {
        let path = |address: &Address| match address {
            Address::Image(inside) => inside.path.clone(),
            Address::Local(path) => path.as_os_str().as_bytes().to_vec(),
        };
        if into {
            return Ok(last_name(&path(source)).unwrap_or_default().to_vec());
        }
        let name = last_name(&path(self.target)).map(<[u8]>::to_vec);
        name.ok_or_else(|| Usage(format!("{} does not exist", self.target)).into())
    }

    /// The inode of a source; without `-r` it must not be a directory.
    fn find(
        &self,
        from: &ImagePath,
        filesystem: &Filesystem,
    ) -> anyhow::Result<extant::InodeHandle> {
        let found = match self.settings.recursive {
            true => filesystem.symlink_inode(&from.path),
            false => filesystem.inode(&from.path),
        };
        let found = found.with_context(|| from.to_string())?;
        if found.is_dir() && !self.settings.recursive {
            return Err(Usage(format!(
                "{from} is a directory; `cp -r` copies it, `cp -a` with all attributes"
            ))
            .into());
        }
        Ok(found)
    }

    fn copy(&self, source: &Source, target: &mut dyn Target, to: &str) -> anyhow::Result<()> {
        if let Source::Local(local) = source {
            let found = std::fs::symlink_metadata(&local.path);
            let found = found.with_context(|| local.path.display().to_string())?;
            if found.is_dir() && !self.settings.recursive {
                let problem = format!(
                    "{} is a directory; `cp -r` copies it, `cp -a` with all attributes",
                    local.path.display()
                );
                return Err(Usage(problem).into());
            }
        }
        let (mut sink, mut items) = stream();
        std::thread::scope(|scope| {
            // A walk that was stopped has nothing to say: the target stopped it and tells why.
            scope.spawn(move || source.walk(self.settings, &mut sink).and_then(|()| sink.flush()));
            let taken = take_all(&mut items, target, to, self.replace, &self.progress);
            drop(items);
            taken
        })
    }
}

/// The path of the directory that a path's last name is in.
fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    if start == 0 { b"/" } else { &path[..start] }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let key = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((key(one), key(other)), (Ok(one), Ok(other)) if one == other)
}

/// Permission bits that this process does not give to new files.
fn umask() -> u16 {
    let old = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(old);
    u16::try_from(old.as_raw_mode()).unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_paths() {
        for (path, expected) in
            [("/a", "/"), ("/a/b", "/a/"), ("/a/b/", "/a/"), ("/", "/"), ("/a//b", "/a//")]
        {
            assert_eq!(parent(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
