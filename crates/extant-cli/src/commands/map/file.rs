//! A file's extents, in the columns of filefrag(8), and its tree, in those of debugfs's `ex`.

use std::io::Write;

use anyhow::Context;
use extant::{FileExtent, FileExtentState};
use extant_format::cast::u64_from;
use extant_format::{ExtentState, InodeNumber};
use extant_image::reader::{MapNode, MapRun, MapStep, Reader};
use serde_json::{Value, json};

use crate::address::ImagePath;
use crate::commands::info::unwrapped;
use crate::output;
use crate::volume::{self, Watch};

/// Prints where a file lies, or returns it for a program.
pub fn extents(
    as_json: bool,
    at: &ImagePath,
    out: &mut dyn Write,
) -> anyhow::Result<Option<Value>> {
    let (extents, size, block) = volume::read(&at.image, |filesystem| {
        let found = filesystem.inode(&at.path).with_context(|| at.to_string())?;
        let extents = found.extents().with_context(|| at.to_string())?;
        Ok((extents, found.metadata()?.size, u64::from(filesystem.statfs().block_size)))
    })?;
    if as_json {
        let values = extents.iter().map(|extent| {
            json!({
                "logical": extent.logical, "physical": extent.physical, "len": extent.len,
                "state": state_name(extent.state),
            })
        });
        return Ok(Some(values.collect()));
    }
    let blocks = output::count(size.div_ceil(block.max(1)), "block");
    writeln!(out, "{size} bytes, {blocks} of {block} bytes")?;
    writeln!(
        out,
        "{:>5} {:>12} {:>12} {:>12} {:>12} {:>10} {:>12}  flags",
        "ext", "file block", "to", "on device", "to", "blocks", "expected"
    )?;
    let mut pieces = 0_u64;
    let mut before: Option<&FileExtent> = None;
    for (number, extent) in extents.iter().enumerate() {
        let expected = before.and_then(|before| expected(before, extent));
        pieces += u64::from(before.is_none() || expected.is_some());
        before = Some(extent);
        let (first, len) = (u64::from(extent.logical), u64::from(extent.len));
        let shown = |block: Option<u64>| block.map_or("-".to_owned(), |block| block.to_string());
        let last = extent.physical.map(|start| start.saturating_add(len).saturating_sub(1));
        let line = format!(
            "{number:>5} {first:>12} {:>12} {:>12} {:>12} {len:>10} {:>12}  {}",
            first.saturating_add(len).saturating_sub(1),
            shown(extent.physical),
            shown(last),
            expected.map_or(String::new(), |block| block.to_string()),
            flags(extent, size, block).join(",")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    let counted = output::count(u64_from(extents.len()), "extent");
    writeln!(out, "{counted} in {}", output::count(pieces, "piece"))?;
    Ok(None)
}

/// Where an extent would be if the file went on, if it is elsewhere.
fn expected(before: &FileExtent, extent: &FileExtent) -> Option<u64> {
    let (end, start) = (before.physical?.saturating_add(before.len.into()), extent.physical?);
    let distance = extent.logical.saturating_sub(before.logical);
    let with_hole = before.physical?.saturating_add(distance.into());
    (start != end && start != with_hole).then_some(end)
}

fn flags(extent: &FileExtent, size: u64, block: u64) -> Vec<&'static str> {
    let state = match extent.state {
        FileExtentState::Written => None,
        other => Some(state_name(other)),
    };
    let end = u64::from(extent.logical).saturating_add(extent.len.into()).saturating_mul(block);
    let last = extent.last.then_some("last");
    let eof = (end >= size).then_some("eof");
    [state, last, eof].into_iter().flatten().collect()
}

fn state_name(state: FileExtentState) -> &'static str {
    match state {
        FileExtentState::Written => "written",
        FileExtentState::Unwritten => "unwritten",
        FileExtentState::Delayed => "delayed",
        FileExtentState::Inline { .. } => "inline",
    }
}

/// Prints a file's tree as it lies on the device, or returns it for a program.
pub fn tree(as_json: bool, at: &ImagePath, out: &mut dyn Write) -> anyhow::Result<Option<Value>> {
    let inode = number_of(at)?;
    let (device, watch) = Watch::open(&at.image)?;
    let name = || at.to_string();
    let reader = Reader::new(&*device).map_err(unwrapped).with_context(name)?;
    let record = reader.record(inode).map_err(unwrapped).with_context(name)?;
    let mut steps = Vec::new();
    let blocks = record.size.div_ceil(reader.geometry().block_size.into());
    let mut line = |mut step: MapStep| {
        if let MapStep::Node(node) = &mut step {
            // The last node of a level could map all that a file can have.
            let end = u32::try_from(blocks).unwrap_or(u32::MAX).max(node.first.saturating_add(1));
            node.end = node.end.min(end);
        }
        steps.push(if as_json { json_step(&step) } else { Value::String(text_step(&step)) });
    };
    let walked = reader.map(inode, &record, &mut line);
    if !as_json {
        writeln!(out, "{inode}")?;
        writeln!(
            out,
            "level     entry    file block            to    on device            to     blocks  flags"
        )?;
        for step in &steps {
            writeln!(out, "{}", step.as_str().unwrap_or_default())?;
        }
    }
    walked.map_err(|error| watch.explain(unwrapped(error))).with_context(name)?;
    Ok(as_json.then_some(Value::Array(steps)))
}

/// The inode that a path leads to.
pub fn number_of(at: &ImagePath) -> anyhow::Result<InodeNumber> {
    volume::read(&at.image, |filesystem| {
        let found = filesystem.inode(&at.path).with_context(|| at.to_string())?;
        Ok(found.number())
    })
}

fn text_step(step: &MapStep) -> String {
    match step {
        MapStep::Node(MapNode { position, block, first, end }) => format!(
            "{:>2}/{:>2} {:>4}/{:<4} {first:>13} {:>13} {:>12} {:>13} {:>10}  node",
            position.level,
            position.depth,
            position.entry,
            position.entries,
            end.saturating_sub(1),
            block.get(),
            "",
            end.saturating_sub(*first),
        ),
        MapStep::Run(MapRun { position, blocks, start, state }) => {
            let last = start.get().saturating_add(blocks.len().into()).saturating_sub(1);
            let unwritten = if *state == ExtentState::Unwritten { "  unwritten" } else { "" };
            format!(
                "{:>2}/{:>2} {:>4}/{:<4} {:>13} {:>13} {:>12} {last:>13} {:>10}{unwritten}",
                position.level,
                position.depth,
                position.entry,
                position.entries,
                blocks.start().get(),
                blocks.last().get(),
                start.get(),
                blocks.len(),
            )
        }
    }
}

fn json_step(step: &MapStep) -> Value {
    let (position, mut value) = match step {
        MapStep::Node(MapNode { position, block, first, end }) => (
            position,
            json!({ "kind": "node", "block": block.get(), "logical": first, "len": end.saturating_sub(*first) }),
        ),
        MapStep::Run(MapRun { position, blocks, start, state }) => (
            position,
            json!({
                "kind": "extent", "physical": start.get(), "logical": blocks.start().get(), "len": blocks.len(),
                "state": if *state == ExtentState::Unwritten { "unwritten" } else { "written" },
            }),
        ),
    };
    value["level"] = json!(position.level);
    value["depth"] = json!(position.depth);
    value["entry"] = json!(position.entry);
    value["entries"] = json!(position.entries);
    value
}
