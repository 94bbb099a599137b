//! `extant cat`: a file's bytes.

use std::io::Write;

use anyhow::Context;

use crate::address::ImagePath;
use crate::{failure, volume};

/// Print files
#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// Files, as IMAGE:/path
    #[arg(required = true, value_parser = super::inside())]
    files: Vec<ImagePath>,
}

pub fn run(args: &CatArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    failure::each(&args.files, |file| {
        let at = || file.to_string();
        let filesystem = volume::open(&file.image)?;
        let opened = filesystem.open(&file.path).with_context(at)?;
        if opened.inode().is_dir() {
            return Err(extant::Error::IsDirectory).with_context(at);
        }
        let mut offset = 0;
        loop {
            let count = opened.read_at(&mut buffer, offset).with_context(at)?;
            if count == 0 {
                break;
            }
            out.write_all(&buffer[..count])?;
            offset += extant_format::cast::u64_from(count);
        }
        Ok(())
    })
}
