//! `extant stat`: everything that an inode tells.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use extant::{InodeHandle, Metadata};
use extant_format::Timestamp;
use serde_json::json;

use super::live;
use crate::address::ImagePath;
use crate::failure::Usage;
use crate::names::Names;
use crate::output::{self, json_metadata, json_name, print_json, time as time_of};
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
    /// One line of this form: as in stat(1), %n name, %N name and target, %a octal permissions, %A in letters, %b sectors,
    /// %B bytes of a sector, %f mode in hexadecimal, %F type, %g %u numbers, %G %U names of group and owner, %h links, %i
    /// inode, %s size, %t %T device, %w %x %y %z times of birth, access, modification, change, and %W %X %Y %Z as seconds
    #[arg(short = 'c', long, value_name = "FORM", conflicts_with = "json")]
    format: Option<String>,
    /// For a program to read
    #[arg(long)]
    json: bool,
    /// Show what a mount is doing, a line each time: FILES is its directory
    #[arg(long, conflicts_with_all = ["dereference", "format"])]
    live: bool,
    /// With --live: only once
    #[arg(long, requires = "live")]
    once: bool,
    /// With --live: how often
    #[arg(long, value_name = "SECONDS", default_value = "1", requires = "live", value_parser = live::interval)]
    interval: Duration,
}

pub fn run(args: &StatArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.live {
        let [mount] = &args.files[..] else {
            return Err(Usage("--live is for one mount".to_owned()).into());
        };
        let how = live::How { json: args.json, once: args.once, interval: args.interval };
        return live::run(&mount.image, &how, out);
    }
    let mut values = Vec::new();
    let outcome = failure::each(&args.files, |file| {
        let at = || file.to_string();
        volume::read(&file.image, |filesystem| {
            let handle = match args.dereference {
                true => filesystem.inode(&file.path),
                false => filesystem.symlink_inode(&file.path),
            };
            let handle = handle.with_context(at)?;
            match (&args.format, args.json) {
                (Some(format), _) => {
                    let names = Names::of(filesystem);
                    print_as(format, file, &handle, &names, out).with_context(at)
                }
                (None, true) => {
                    values.push(json_of(file, &handle).with_context(at)?);
                    Ok(())
                }
                (None, false) => print(file, &handle, out).with_context(at),
            }
        })
    });
    if args.json {
        print_json(out, &json!(values))?;
    }
    outcome
}

/// Prints a line in a form of the user's own.
fn print_as(
    format: &str,
    file: &ImagePath,
    handle: &InodeHandle,
    names: &Names,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let metadata = handle.metadata()?;
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => out.write_all(&value(letters.next(), file, handle, &metadata, names)?)?,
            _ => write!(out, "{letter}")?,
        }
    }
    Ok(writeln!(out)?)
}

/// What a letter of a form stands for.
fn value(
    letter: Option<char>,
    file: &ImagePath,
    handle: &InodeHandle,
    metadata: &Metadata,
    names: &Names,
) -> anyhow::Result<Vec<u8>> {
    let moment = |time: Timestamp| {
        let shown = time_of(time);
        shown.strip_suffix(" UTC").map_or(shown.clone(), |shown| format!("{shown} +0000"))
    };
    let seconds = |time: Timestamp| time.seconds.to_string();
    let (major, minor) = metadata.device.unwrap_or((0, 0));
    Ok(match letter {
        None | Some('%') => "%".to_owned(),
        Some('n') => file.to_string(),
        Some('N') if handle.is_symlink() => {
            format!("'{file}' -> '{}'", String::from_utf8_lossy(&handle.read_link()?))
        }
        Some('N') => format!("'{file}'"),
        Some('a') => format!("{:o}", metadata.permissions()),
        Some('A') => output::mode(metadata.mode),
        Some('b') => metadata.blocks.to_string(),
        Some('B') => "512".to_owned(),
        Some('f') => format!("{:x}", metadata.mode),
        Some('F') if metadata.is_file() && metadata.size == 0 => "regular empty file".to_owned(),
        Some('F') => output::type_name(metadata.file_type()).to_owned(),
        Some('g') => metadata.gid.to_string(),
        Some('u') => metadata.uid.to_string(),
        Some('G') => return Ok(output::name(&names.group(metadata.gid))),
        Some('U') => return Ok(output::name(&names.user(metadata.uid))),
        Some('h') => metadata.links.to_string(),
        Some('i') => metadata.inode.get().to_string(),
        Some('s') => metadata.size.to_string(),
        Some('t') => format!("{major:x}"),
        Some('T') => format!("{minor:x}"),
        Some('w') => metadata.created.map_or("-".to_owned(), moment),
        Some('W') => metadata.created.map_or("0".to_owned(), seconds),
        Some('x') => moment(metadata.accessed),
        Some('X') => seconds(metadata.accessed),
        Some('y') => moment(metadata.modified),
        Some('Y') => seconds(metadata.modified),
        Some('z') => moment(metadata.changed),
        Some('Z') => seconds(metadata.changed),
        Some(other) => {
            return Err(Usage(format!(
                "`%{other}` stands for nothing here; `extant stat --help` has the letters"
            ))
            .into());
        }
    }
    .into_bytes())
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
    writeln!(out, "  accessed {}", time_of(metadata.accessed))?;
    writeln!(out, "  modified {}", time_of(metadata.modified))?;
    writeln!(out, "  changed  {}", time_of(metadata.changed))?;
    if let Some(created) = metadata.created {
        writeln!(out, "  created  {}", time_of(created))?;
    }
    for name in handle.list_xattrs()? {
        let len = handle.xattr(&name)?.len();
        writeln!(out, "  xattr    {} ({len} bytes)", String::from_utf8_lossy(&name))?;
    }
    Ok(())
}
