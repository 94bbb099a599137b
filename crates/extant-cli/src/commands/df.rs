//! `extant df`: how full images are.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use crate::output::{print_json, size};
use crate::{failure, volume};

/// Show how full images are
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct DfArgs {
    /// Image files or block devices
    #[arg(required = true, value_parser = super::image())]
    images: Vec<PathBuf>,
    /// Inodes instead of bytes
    #[arg(short, long)]
    inodes: bool,
    /// Sizes with a unit, which is how they are anyway
    #[arg(short, long)]
    human_readable: bool,
    /// For a program to read
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub fn run(args: &DfArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let mut has_title = args.json;
    let outcome = failure::each(&args.images, |image| {
        let found = volume::read(image, |filesystem| Ok(filesystem.statfs()))?;
        if !has_title {
            let unit = if args.inodes { "inodes" } else { "size" };
            writeln!(out, "{:>12} {:>12} {:>12} {:>5}  image", unit, "used", "available", "use%")?;
            has_title = true;
        }
        let block = u64::from(found.block_size);
        let (all, free, available) = match args.inodes {
            true => (found.inodes, found.free_inodes, found.free_inodes),
            false => {
                (found.blocks * block, found.free_blocks * block, found.available_blocks * block)
            }
        };
        let used = all - free;
        if args.json {
            values.push(json!({
                "image": image.display().to_string(), "block_size": block, "blocks": found.blocks,
                "free_blocks": found.free_blocks, "available_blocks": found.available_blocks,
                "inodes": found.inodes, "free_inodes": found.free_inodes,
            }));
            return Ok(());
        }
        let show = |n: u64| if args.inodes { n.to_string() } else { size(n) };
        let percent = (used * 100).div_ceil((used + available).max(1));
        writeln!(
            out,
            "{:>12} {:>12} {:>12} {:>4}%  {}",
            show(all),
            show(used),
            show(available),
            percent,
            image.display()
        )?;
        Ok(())
    });
    if args.json {
        print_json(out, &json!(values))?;
    }
    outcome
}
