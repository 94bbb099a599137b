//! `extant stat`: everything that an inode tells.

use std::io::Write;

use anyhow::Context;
use extant::InodeHandle;
use serde_json::json;

use crate::address::ImagePath;
use crate::output::{self, json_metadata, json_name, print_json, time};
use crate::{failure, volume};

/// Show everything that an inode tells
#[derive(Debug, clap::Args)]
pub struct StatArgs {
    /// Files, as IMAGE:/path; an image alone means its root
    #[arg(required = true, value_parser = super::inside_or_root())]
    files: Vec<ImagePath>,
    /// Follow a symbolic link at the path's end
    #[arg(short = 'L', long)]
    dereference: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
}

pub fn run(args: &StatArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut values = Vec::new();
    failure::each(&args.files, |file| {
        let filesystem = volume::open(&file.image)?;
        let handle = match args.dereference {
            true => filesystem.inode(&file.path),
            false => filesystem.symlink_inode(&file.path),
        };
        let show = |handle: InodeHandle| match args.json {
            true => json_of(file, &handle).map(|value| values.push(value)),
            false => print(file, &handle, out),
        };
        handle.map_err(anyhow::Error::from).and_then(show).with_context(|| file.to_string())
    })?;
    if args.json { print_json(out, &json!(values)) } else { Ok(()) }
}

fn json_of(file: &ImagePath, handle: &InodeHandle) -> anyhow::Result<serde_json::Value> {
    let mut value = json_metadata(&handle.metadata()?);
    value["path"] = json_name(&file.path);
    value["xattrs"] = handle.list_xattrs()?.iter().map(|name| json_name(name)).collect();
    if handle.is_symlink() {
        value["target"] = json_name(&handle.read_link()?);
    }
    Ok(value)
}

fn print(file: &ImagePath, handle: &InodeHandle, out: &mut dyn Write) -> anyhow::Result<()> {
    let metadata = handle.metadata()?;
    writeln!(out, "{file}")?;
    writeln!(
        out,
        "  {}, inode {}, {}",
        output::type_name(metadata.file_type()),
        metadata.inode.get(),
        output::count(metadata.links.into(), "link")
    )?;
    if handle.is_symlink() {
        writeln!(out, "  leads to {}", String::from_utf8_lossy(&handle.read_link()?))?;
    }
    if let Some((major, minor)) = metadata.device {
        writeln!(out, "  device   {major}, {minor}")?;
    }
    writeln!(out, "  size     {} bytes in {} sectors", metadata.size, metadata.blocks)?;
    writeln!(
        out,
        "  access   {:04o} {} uid {} gid {}",
        metadata.permissions(),
        output::mode(metadata.mode),
        metadata.uid,
        metadata.gid
    )?;
    writeln!(out, "  flags    {:#x} generation {}", metadata.flags.bits(), metadata.generation)?;
    writeln!(out, "  accessed {}", time(metadata.accessed))?;
    writeln!(out, "  modified {}", time(metadata.modified))?;
    writeln!(out, "  changed  {}", time(metadata.changed))?;
    if let Some(created) = metadata.created {
        writeln!(out, "  created  {}", time(created))?;
    }
    for name in handle.list_xattrs()? {
        let len = handle.xattr(&name)?.len();
        writeln!(out, "  xattr    {} ({len} bytes)", String::from_utf8_lossy(&name))?;
    }
    Ok(())
}
