//! One command a file.

mod acl;
pub mod bench;
pub mod build;
pub mod cat;
pub mod check;
pub mod chmod;
pub mod chown;
pub mod crash_test;
pub mod demo;
pub mod df;
pub mod diff;
pub mod export;
pub mod info;
pub mod link;
pub mod list;
mod live;
pub mod manual;
pub mod map;
pub mod mkdir;
pub mod mkfs;
pub mod mode;
pub mod mount;
mod mounted;
pub mod remove;
pub mod rename;
pub mod stat;
pub mod touch;
pub mod trace;
pub mod tree;
mod walk;
pub mod xattr;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::builder::{OsStringValueParser, TypedValueParser};
use extant::{Error, Filesystem};
use extant_format::Timestamp;
use extant_format::cast::low_u16;

use crate::address::{Address, ImagePath, parent};
use crate::arguments::Command;
use crate::failure::Usage;
use crate::{copy, volume};

/// Does what the command line says.
pub fn run(command: &Command, out: &mut dyn Write) -> anyhow::Result<()> {
    match command {
        Command::Info(args) => info::run(args, out),
        Command::Check(args) => check::run(args, out),
        Command::Ls(args) => list::run(args, out),
        Command::Cat(args) => cat::run(args, out),
        Command::Stat(args) => stat::run(args, out),
        Command::Tree(args) => tree::run(args, out),
        Command::Cp(args) => copy::run(args, out),
        Command::Mv(args) => rename::run(args, out),
        Command::Rm(args) => remove::run(args, out),
        Command::Mkdir(args) => mkdir::run(args, out),
        Command::Ln(args) => link::run(args, out),
        Command::Chmod(args) => chmod::run(args, out),
        Command::Chown(args) => chown::run(args, out),
        Command::Touch(args) => touch::run(args),
        Command::Xattr(args) => xattr::run(args, out),
        Command::Df(args) => df::run(args, out),
        Command::Diff(args) => diff::run(args, out),
        Command::Export(args) => export::run(args),
        Command::Map(args) => map::run(args, out),
        Command::Build(args) => build::run(args, out),
        Command::Mkfs(args) => mkfs::run(args, out),
        Command::Bench(args) => bench::run(args, out),
        Command::Completions(args) => manual::completions(args, out),
        Command::Man(args) => manual::man(args),
        Command::Demo(args) => demo::run(args, out),
        Command::Trace(args) => trace::run(args, out),
        Command::CrashTest(args) => crash_test::run(args, out),
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => mount::umount(args),
    }
}

/// Permissions of something new at `path`: all but the umask's, or all where its directory has an access list for it.
pub fn new_mode(filesystem: &Filesystem, path: &[u8], all: u16) -> Result<u16, Error> {
    let directory = match filesystem.inode(parent(path)) {
        Err(Error::NotFound | Error::NotDirectory) => return Ok(all),
        directory => directory?,
    };
    match directory.xattr(b"system.posix_acl_default") {
        Ok(_) => Ok(all),
        Err(Error::NoAttribute | Error::NotSupported(_)) => Ok(all & !copy::umask()),
        Err(error) => Err(error),
    }
}

/// For arguments that must name a file inside an image.
pub fn inside() -> impl TypedValueParser<Value = ImagePath> {
    OsStringValueParser::new().try_map(ImagePath::parse)
}

/// For arguments where an image alone means its root directory.
pub fn inside_or_root() -> impl TypedValueParser<Value = ImagePath> {
    OsStringValueParser::new().map(|text: OsString| ImagePath::parse_or_root(text))
}

/// For arguments that are an image as a whole.
pub fn image() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(ImagePath::parse_image)
}

/// For an argument that is a file inside an image only if another option says so.
pub fn parse_inside(text: &str) -> anyhow::Result<ImagePath> {
    Ok(ImagePath::parse(text.into()).map_err(Usage)?)
}

/// What a command takes from a file that stands for a value (`--reference`).
pub struct Reference {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub accessed: Timestamp,
    pub modified: Timestamp,
}

/// Looks at such a file, in an image or on this machine.
pub fn look(at: &Address) -> anyhow::Result<Reference> {
    match at {
        Address::Image(inside) => volume::read(&inside.image, |filesystem| {
            let found = filesystem.metadata(&inside.path).with_context(|| at.to_string())?;
            Ok(Reference {
                mode: found.mode,
                uid: found.uid,
                gid: found.gid,
                accessed: found.accessed,
                modified: found.modified,
            })
        }),
        Address::Local(path) => {
            let found = std::fs::metadata(path).with_context(|| at.to_string())?;
            let time = |seconds, nanoseconds: i64| Timestamp {
                seconds,
                nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
            };
            Ok(Reference {
                mode: low_u16(found.mode()),
                uid: found.uid(),
                gid: found.gid(),
                accessed: time(found.atime(), found.atime_nsec()),
                modified: time(found.mtime(), found.mtime_nsec()),
            })
        }
    }
}
