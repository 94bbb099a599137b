//! `extant cat`: a file's bytes.

use std::io::Write;

use anyhow::{Context, bail};
use extant_format::cast::u64_from;

use crate::address::ImagePath;
use crate::output::type_name;
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
        volume::read(&file.image, |filesystem| {
            let opened = filesystem.open(&file.path).with_context(at)?;
            let found = opened.metadata().with_context(at)?;
            if !found.is_file() {
                bail!("{file}: is a {}", type_name(found.file_type()));
            }
            let mut offset = 0;
            loop {
                let count = opened.read_at(&mut buffer, offset).with_context(at)?;
                if count == 0 {
                    return Ok(());
                }
                out.write_all(&buffer[..count])?;
                offset += u64_from(count);
            }
        })
    })
}
