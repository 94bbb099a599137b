//! `extant info`: what superblock, groups and journal say, and how free space is divided; works on images that cannot be mounted.

mod free;
mod groups;
mod journal;
mod superblock;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::Superblock;
use extant_image::reader::{ReadError, Reader};
use serde_json::json;

use crate::failure;
use crate::output::print_values;
use crate::volume::{self, Watch};

/// Show what an image says of itself: sizes, features, journal, groups, free space
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// Image files or block devices
    #[arg(required = true, value_parser = super::image())]
    images: Vec<PathBuf>,
    /// Every group too, as a table
    #[arg(short, long)]
    groups: bool,
    /// How free space is divided too
    #[arg(short, long)]
    free: bool,
    /// Every field of the superblock
    #[arg(short, long)]
    all: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

pub fn run(args: &InfoArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let several = args.images.len() > 1;
    let mut is_first = true;
    let outcome = failure::each(&args.images, |image| {
        let (device, watch) = Watch::open(image)?;
        let name = || image.display().to_string();
        let superblock =
            read_superblock(&*device).map_err(|error| volume::unusable(image, error))?;
        let reader = Reader::with(&*device, superblock);
        if args.json {
            let mut value = superblock::json_of(&reader);
            if several {
                value["image"] = json!(name());
            }
            if args.groups {
                value["groups"] = groups::json_of(&reader);
            }
            if args.free {
                value["free_space"] = free::json_of(&reader);
            }
            values.push(value);
            return Ok(());
        }
        if several {
            writeln!(out, "{}{}:", if is_first { "" } else { "\n" }, name())?;
        }
        is_first = false;
        superblock::print(&reader, args.all, out)?;
        journal::print(&reader, out)?;
        if args.groups {
            let printed = groups::print(&reader, out);
            printed.map_err(|error| watch.explain(error)).with_context(name)?;
        }
        if args.free {
            free::print(&reader, out)?;
        }
        Ok(())
    });
    if args.json {
        print_values(out, several, values)?;
    }
    outcome
}

/// The superblock of whatever lies on `device`.
pub fn read_superblock(device: &dyn BlockDevice) -> anyhow::Result<Superblock> {
    let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
    Ok(Superblock::parse(&bytes)?)
}

/// `error`, so that its exit code and its advice are those of its cause.
pub fn unwrapped(error: ReadError) -> anyhow::Error {
    match error {
        ReadError::Device(error) => error.into(),
        ReadError::Format(error) => error.into(),
    }
}
