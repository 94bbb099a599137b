//! One command a file, or a few that are three lines each.

pub mod cat;
pub mod change;
pub mod demo;
pub mod df;
pub mod info;
pub mod list;
pub mod map;
pub mod mkfs;
pub mod mode;
pub mod stat;
pub mod trace;
pub mod tree;
pub mod xattr;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::address::ImagePath;
use crate::arguments::Command;
use crate::copy;

/// Does what the command line says.
pub fn run(command: &Command, out: &mut dyn Write) -> anyhow::Result<()> {
    match command {
        Command::Info(args) => info::run(args, out),
        Command::Ls(args) => list::run(args, out),
        Command::Cat(args) => cat::run(args, out),
        Command::Stat(args) => stat::run(args, out),
        Command::Tree(args) => tree::run(args, out),
        Command::Cp(args) => copy::run(args, out),
        Command::Mv(args) => change::mv(args),
        Command::Rm(args) => change::rm(args),
        Command::Mkdir(args) => change::mkdir(args),
        Command::Ln(args) => change::ln(args),
        Command::Chmod(args) => change::chmod(args),
        Command::Chown(args) => change::chown(args),
        Command::Touch(args) => change::touch(args),
        Command::Xattr(args) => xattr::run(args, out),
        Command::Df(args) => df::run(args, out),
        Command::Map(args) => map::run(args, out),
        Command::Mkfs(args) => mkfs::run(args, out),
        Command::Demo(args) => demo::run(args, out),
        Command::Trace(args) => trace::run(args, out),
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
