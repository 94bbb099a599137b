//! Pictures of an image, or of one file in it: gathered in one pass, written to a file.

use std::path::Path;

use anyhow::Context;
use extant_image::map::picture::{self, Picture};
use extant_image::map::{FileFound, Files, FreeSpace, Grid, Several, survey};
use extant_image::reader::{MapStep, Reader};

use super::file;
use super::image::Troubles;
use crate::address::ImagePath;
use crate::commands::info::{self, unwrapped};
use crate::volume::{self, Watch};

/// Draws `at` into the files that are named.
pub fn draw(at: &ImagePath, svg: Option<&Path>, html: Option<&Path>) -> anyhow::Result<()> {
    let (device, _watch) = Watch::open(&at.image)?;
    let superblock =
        info::read_superblock(&*device).map_err(|error| volume::unusable(&at.image, error))?;
    let reader = Reader::with(&*device, superblock);
    let mut grid = Grid::new(reader.geometry());
    let mut free = FreeSpace::new(reader.geometry());
    // What is less than an eighth of a cell apart looks like one.
    let gap = grid.blocks_per_cell() / 8;
    let mut files = Files::new(gap);
    let mut troubles = Troubles::default();
    survey(&reader, &mut Several(vec![&mut grid, &mut free, &mut files, &mut troubles]));
    free.finish();
    let highlight = highlight(at, &reader, gap)?;
    if html.is_some() {
        files.name_all(&reader);
        if let Some(file) = &highlight {
            files.put_first(file.clone());
        }
    }
    let name = at.image.file_name().unwrap_or(at.image.as_os_str()).to_string_lossy().into_owned();
    let label = String::from_utf8_lossy(reader.superblock().label()).into_owned();
    let path = String::from_utf8_lossy(&at.path).into_owned();
    let picture = Picture {
        name: &name,
        label: &label,
        grid: &grid,
        free: &free,
        files: html.map(|_| &files),
        highlight: highlight.as_ref().map(|file| (path.as_str(), file)),
        unreadable: troubles.count,
    };
    let write = |to: &Path, text: String| {
        std::fs::write(to, text).with_context(|| to.display().to_string())
    };
    if let Some(to) = svg {
        write(to, picture::svg(&picture))?;
    }
    if let Some(to) = html {
        write(to, picture::page(&picture, &format!("extant map --html FILE {}", at_name(at))))?;
    }
    troubles.outcome()
}

/// The address as a user would write it.
fn at_name(at: &ImagePath) -> String {
    match at.name() {
        Some(_) => at.to_string(),
        None => at.image.display().to_string(),
    }
}

/// Where the file lies that is named, if one is.
fn highlight(at: &ImagePath, reader: &Reader<'_>, gap: u64) -> anyhow::Result<Option<FileFound>> {
    if at.name().is_none() {
        return Ok(None);
    }
    let inode = file::number_of(at)?;
    let record = reader.record(inode).map_err(unwrapped).with_context(|| at.to_string())?;
    let mut runs = Vec::new();
    let walked = reader.map(inode, &record, &mut |step| {
        if let MapStep::Run(run) = step {
            runs.push(run);
        }
    });
    walked.map_err(unwrapped).with_context(|| at.to_string())?;
    let mut found = FileFound::new(inode, record.size, &runs, gap);
    found.path = at.path.clone();
    Ok(Some(found))
}
