//! The drawing: a row of usage, a grid of cells, a legend. A unit is a tenth of a pixel at the drawing's usual size.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::Picture;
use super::text::{escape, number, percent, share, size};
use crate::map::grid::{COLUMNS, Cell, Grid, place_in};
use crate::map::{FileFound, Kind};

/// Colours and letters, for drawing and page.
pub const STYLE: &str = include_str!("style.css");
/// Width of all drawings.
const WIDTH: u64 = 10_200;
/// Where cells begin: row labels are left of it.
const LEFT: u64 = 1040;
/// From one cell to the next.
const PITCH: u64 = 140;
/// Between cells.
const GAP: u64 = 14;

/// A drawing of its own, with title and legend.
pub fn whole(picture: &Picture<'_>) -> String {
    let grid = picture.grid;
    let grid_top = 900;
    let legend_top = grid_top + rows(grid) * PITCH + 260;
    let height = legend_top + legend_height(picture) + 100;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"extant{}\" viewBox=\"0 0 {WIDTH} {height}\" width=\"1020\" height=\"{}\" role=\"img\" \
         aria-label=\"{}\">\n<style>{STYLE}</style>\n{MESH}<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        if picture.highlight.is_some() { " chosen" } else { "" },
        height / 10,
        escape(&title(picture)),
    );
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"200\" y=\"330\">{}</text>",
        escape(&title(picture))
    );
    let _ = writeln!(svg, "<text x=\"200\" y=\"530\">{}</text>", escape(&subtitle(picture)));
    svg += &bar(picture, (200, 620), WIDTH - 400, 130);
    svg += &cells(grid, grid_top);
    if let Some((_, file)) = picture.highlight {
        svg += &hits(grid, file, grid_top);
    }
    svg += &legend(picture, legend_top);
    svg + "</svg>\n"
}

/// Only the grid, as part of a page: what the page's script draws goes into `#hits`.
pub fn grid_alone(picture: &Picture<'_>) -> String {
    let grid = picture.grid;
    let height = rows(grid) * PITCH + 60;
    format!(
        "<svg id=\"map\" class=\"extant\" viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"{}\" data-first=\"{}\" data-per-cell=\"{}\" \
         data-columns=\"{COLUMNS}\" data-pitch=\"{PITCH}\" data-gap=\"{GAP}\" data-left=\"{LEFT}\" data-show=\"{}\">\n{MESH}{}<g id=\"hits\"></g></svg>\n",
        LEFT + COLUMNS * PITCH,
        escape(&title(picture)),
        grid.geometry().first_data_block,
        grid.blocks_per_cell(),
        picture.highlight.map_or(0, |(_, file)| file.inode.get()),
        cells(grid, 0),
    )
}

/// Lines of paper between cells: so neighbours of one kind can be one rectangle.
const MESH: &str = "<defs><pattern id=\"mesh\" width=\"140\" height=\"140\" patternUnits=\"userSpaceOnUse\" x=\"1040\" y=\"0\">\
    <rect class=\"mesh-line\" x=\"126\" width=\"14\" height=\"140\"/><rect class=\"mesh-line\" y=\"126\" width=\"140\" height=\"14\"/></pattern></defs>\n";

/// What the picture is of.
pub fn title(picture: &Picture<'_>) -> String {
    let geometry = picture.grid.geometry();
    let bytes = size(geometry.blocks_count.saturating_mul(geometry.block_size.into()));
    let label = if picture.label.is_empty() {
        String::new()
    } else {
        format!(", \u{201C}{}\u{201D}", picture.label)
    };
    format!("{}{label}, {bytes}", picture.name)
}

/// How it is divided, and what is highlighted.
pub fn subtitle(picture: &Picture<'_>) -> String {
    let geometry = picture.grid.geometry();
    let block = u64::from(geometry.block_size);
    let total = picture.grid.total();
    let mut text = format!(
        "{} groups of {}, blocks of {}; {} in use, {} free; a square is {}",
        number(geometry.group_count.into()),
        size(u64::from(geometry.blocks_per_group).saturating_mul(block)),
        size(block),
        percent(total.in_use, total.blocks),
        size(total.free().saturating_mul(block)),
        size(picture.grid.blocks_per_cell().saturating_mul(block)),
    );
    if let Some((name, file)) = picture.highlight {
        let pieces = if file.fragments == 1 {
            "one piece".into()
        } else {
            format!("{} pieces", number(file.fragments))
        };
        let _ = write!(
            text,
            ". Highlighted: {name}, {} in {pieces}",
            size(file.blocks.saturating_mul(block))
        );
    }
    if picture.unreadable > 0 {
        let _ = write!(text, ". {} structures could not be read", number(picture.unreadable));
    }
    text
}

/// What is shown of a cell, with its words: each kind, what is free, what is not known.
fn parts(cell: &Cell) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    let kinds = Kind::ALL.map(|kind| (kind.word(), kind.name(), cell.of(kind)));
    let rest = [("unknown", "unreadable", cell.unknown), ("free", "free", cell.free())];
    kinds.into_iter().chain(rest).filter(|part| part.2 > 0)
}

/// One bar with the share of each kind.
pub fn bar(picture: &Picture<'_>, (left, top): (u64, u64), width: u64, height: u64) -> String {
    let total = picture.grid.total();
    let block = u64::from(picture.grid.geometry().block_size);
    let mut svg = String::from("<g class=\"usage\">");
    let (mut before, mut at) = (0_u64, left);
    for (class, name, blocks) in parts(&total) {
        before = before.saturating_add(blocks);
        // What is there can be seen, however little it is.
        let end = (left + share(before, total.blocks, width)).max(at + 12).min(left + width);
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{at}\" y=\"{top}\" width=\"{}\" height=\"{height}\"><title>{name}: {}, {}</title></rect>",
            end - at,
            size(blocks.saturating_mul(block)),
            percent(blocks, total.blocks)
        );
        at = end;
    }
    svg + "</g>\n"
}

/// The colours and what they stand for, three in a row.
fn legend(picture: &Picture<'_>, top: u64) -> String {
    let total = picture.grid.total();
    let block = u64::from(picture.grid.geometry().block_size);
    let mut svg = String::from("<g class=\"legend\">");
    for (at, (class, name, blocks)) in (0_u64..).zip(parts(&total)) {
        let (x, y) = (200 + at % 3 * 3270, top + at / 3 * 240);
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"150\" height=\"150\" rx=\"25\"/><text x=\"{}\" y=\"{}\"><tspan class=\"strong\">{name}</tspan> {}</text>",
            x + 230,
            y + 115,
            size(blocks.saturating_mul(block))
        );
    }
    svg + "</g>\n"
}

fn legend_height(picture: &Picture<'_>) -> u64 {
    extant_format::cast::u64_from(parts(&picture.grid.total()).count()).div_ceil(3) * 240
}

fn rows(grid: &Grid) -> u64 {
    extant_format::cast::u64_from(grid.cells().len()).div_ceil(COLUMNS)
}

/// The grid with row labels; at most a few rectangles a cell, and one for neighbours of one kind.
fn cells(grid: &Grid, top: u64) -> String {
    let all: Vec<Cell> = grid.cells().collect();
    let mut svg = format!("<g class=\"cells\" transform=\"translate(0 {top})\">\n");
    for (row, line) in (0_u64..).zip(all.chunks(crate::map::grid::index(COLUMNS))) {
        let first = row * COLUMNS;
        row_label(&mut svg, grid, row, first);
        let mut column = 0;
        for run in line.chunk_by(|one, next| {
            let alike = uniform(one);
            alike.is_some() && alike == uniform(next) && one.blocks == next.blocks
        }) {
            let len = extant_format::cast::u64_from(run.len());
            draw_run(&mut svg, grid, (row, column), len, run[0]);
            column += len;
        }
    }
    let (width, height) = (COLUMNS * PITCH, rows(grid) * PITCH);
    let _ =
        writeln!(svg, "<rect class=\"mesh\" x=\"{LEFT}\" width=\"{width}\" height=\"{height}\"/>");
    group_lines(&mut svg, grid);
    svg + "</g>\n"
}

/// The one class of a cell that has no other.
fn uniform(cell: &Cell) -> Option<&'static str> {
    let mut parts = parts(cell);
    let (class, _, _) = parts.next()?;
    parts.next().is_none().then_some(class)
}

fn row_label(svg: &mut String, grid: &Grid, row: u64, first: u64) {
    let at = grid.first_block(first).saturating_mul(grid.geometry().block_size.into());
    let y = row * PITCH + 105;
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
        LEFT - 90,
        size(at)
    );
}

/// `len` cells that look like `cell`.
fn draw_run(svg: &mut String, grid: &Grid, (row, column): (u64, u64), len: u64, cell: Cell) {
    let (x, y) = (LEFT + column * PITCH, row * PITCH);
    let first = row * COLUMNS + column;
    let title = cell_title(grid, first, len, &cell);
    let _ = write!(
        svg,
        "<g data-cell=\"{first}\" data-groups=\"{}\"><title>{title}</title>",
        groups(grid, first, len)
    );
    let height = PITCH - GAP;
    let (mut before, mut bottom) = (0_u64, 0);
    let shown: Vec<_> = shown_parts(&cell);
    let sum: u64 = shown.iter().map(|part| part.1).sum();
    for (class, blocks) in shown {
        before = before.saturating_add(blocks);
        let end = share(before, sum, height).max(bottom + 10).min(height);
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            y + height - end,
            len * PITCH,
            end - bottom
        );
        bottom = end;
    }
    svg.push_str("</g>\n");
}

/// The parts of a cell that are drawn: the largest four, in the order of all.
fn shown_parts(cell: &Cell) -> Vec<(&'static str, u64)> {
    let mut by_size: Vec<u64> = parts(cell).map(|part| part.2).collect();
    by_size.sort_unstable_by(|a, b| b.cmp(a));
    let least = by_size.get(3).copied().unwrap_or(0);
    parts(cell)
        .filter(|part| part.2 >= least)
        .take(4)
        .map(|(class, _, blocks)| (class, blocks))
        .collect()
}

/// The groups that cells lie in, as `3` or `3-5`.
fn groups(grid: &Grid, first: u64, len: u64) -> String {
    let per_group = u64::from(grid.geometry().blocks_per_group).max(1);
    let last = u64::from(grid.geometry().group_count.saturating_sub(1));
    let start = (first * grid.blocks_per_cell() / per_group).min(last);
    let end = (((first + len) * grid.blocks_per_cell()).saturating_sub(1) / per_group).min(last);
    if start == end { format!("{start}") } else { format!("{start}-{end}") }
}

fn cell_title(grid: &Grid, first: u64, len: u64, cell: &Cell) -> String {
    let block = u64::from(grid.geometry().block_size);
    let groups = groups(grid, first, len);
    let noun = if groups.contains('-') { "groups" } else { "group" };
    let at = size(grid.first_block(first).saturating_mul(block));
    let bytes = size(cell.blocks.saturating_mul(len).saturating_mul(block));
    let mut title = format!("{noun} {groups}: {bytes} at {at}\n");
    for (at, (_, name, blocks)) in parts(cell).enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(title, "{comma}{name} {}", percent(blocks, cell.blocks));
    }
    title
}

/// Lines where groups begin, if groups are larger than cells.
fn group_lines(svg: &mut String, grid: &Grid) {
    let per_group = u64::from(grid.geometry().blocks_per_group).max(1);
    let per_cell = grid.blocks_per_cell();
    if per_cell > per_group {
        return;
    }
    svg.push_str("<g class=\"groups\">");
    for group in 0..u64::from(grid.geometry().group_count) {
        let cell = group.saturating_mul(per_group) / per_cell;
        let (row, column) = (cell / COLUMNS, cell % COLUMNS);
        let x = LEFT + column * PITCH - GAP;
        let _ = write!(
            svg,
            "<rect class=\"group-line\" data-group=\"{group}\" x=\"{x}\" y=\"{}\" width=\"{GAP}\" height=\"{}\"/>",
            row * PITCH,
            PITCH - GAP
        );
    }
    svg.push_str("</g>\n");
}

/// Where a file lies, over the cells.
fn hits(grid: &Grid, file: &FileFound, top: u64) -> String {
    let mut svg = format!("<g id=\"hits\" transform=\"translate(0 {top})\">");
    for (start, len) in &file.segments {
        let (mut cell, mut within) = place_in(grid, *start);
        let (last, end) = place_in(grid, start.saturating_add(*len).saturating_sub(1));
        while cell <= last {
            // Up to the end of its row, or of the segment.
            let row_end = (cell / COLUMNS + 1) * COLUMNS;
            let from = LEFT + cell % COLUMNS * PITCH + within * PITCH / 1000;
            let to = match last < row_end {
                true => LEFT + last % COLUMNS * PITCH + end * PITCH / 1000,
                false => LEFT + COLUMNS * PITCH - GAP,
            };
            let _ = write!(
                svg,
                "<rect class=\"hit\" x=\"{from}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                cell / COLUMNS * PITCH,
                to.saturating_sub(from).max(30),
                PITCH - GAP
            );
            (cell, within) = (row_end, 0);
        }
    }
    svg + "</g>\n"
}
