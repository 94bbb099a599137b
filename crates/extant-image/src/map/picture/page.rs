//! The page: the drawing, what it is made of, and files whose places light up.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use super::Picture;
use super::draw;
use super::text::{escape, number, percent, share, size};
use crate::map::{FileFound, Files, Kind};
use crate::reader::MapRun;
use extant_format::ExtentState;

/// A page with the drawing in it, and a script that finds files; `command` is what made it.
pub fn page(picture: &Picture<'_>, command: &str) -> String {
    let title = escape(&draw::title(picture));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{}{PAGE_STYLE}</style></head>\n<body class=\"extant\"><main>\n<h1>{title}</h1>\n<p class=\"note\">{}</p>\n",
        draw::STYLE,
        escape(&draw::subtitle(picture)),
    );
    page += &cards(picture);
    page += "<section class=\"panel\"><svg class=\"extant bar\" viewBox=\"0 0 10000 240\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Use of space\">";
    page += &draw::bar(picture, (0, 0), 10_000, 240);
    page += "</svg>\n";
    page += &legend(picture);
    page +=
        "</section>\n<div class=\"columns\"><section class=\"panel wide\"><h2>Where it lies</h2>\n";
    page += &draw::grid_alone(picture);
    page += "</section>\n";
    if let Some(files) = picture.files {
        page += &file_list(picture, files);
    }
    page += "</div>\n";
    page += &free_space(picture);
    let _ = write!(
        page,
        "<footer>Made by <code>{}</code></footer></main>\n<script>{SCRIPT}</script></body></html>\n",
        escape(command)
    );
    page
}

fn card(html: &mut String, value: &str, words: &str) {
    let _ = write!(html, "<div class=\"card\"><b>{}</b>{}</div>", escape(value), escape(words));
}

/// The figures, large.
fn cards(picture: &Picture<'_>) -> String {
    let total = picture.grid.total();
    let block = u64::from(picture.grid.geometry().block_size);
    let mut html = String::from("<div class=\"cards\">");
    card(&mut html, &percent(total.in_use, total.blocks), "of all blocks are in use");
    card(&mut html, &size(total.free().saturating_mul(block)), "are free");
    card(&mut html, &size(picture.free.longest.saturating_mul(block)), "is the longest free run");
    if let Some(files) = picture.files {
        card(&mut html, &number(files.files), if files.files == 1 { "file" } else { "files" });
        card(
            &mut html,
            &number(files.directories),
            if files.directories == 1 { "directory" } else { "directories" },
        );
        let pieces = percent(files.in_one_piece, files.with_blocks);
        card(&mut html, &pieces, "of files with blocks lie in one piece");
    }
    html + "</div>\n"
}

fn legend(picture: &Picture<'_>) -> String {
    let total = picture.grid.total();
    let block = u64::from(picture.grid.geometry().block_size);
    let mut html = String::from("<ul class=\"legend\">");
    let kinds = Kind::ALL.map(|kind| (kind.word(), kind.name(), total.of(kind)));
    let rest = [("unknown", "unreadable", total.unknown), ("free", "free", total.free())];
    for (class, name, blocks) in kinds.into_iter().chain(rest).filter(|part| part.2 > 0) {
        let _ = write!(
            html,
            "<li><svg class=\"key\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"{class}\" width=\"10\" height=\"10\" rx=\"2\"/></svg>\
             {name} <b>{}</b> {}</li>",
            size(blocks.saturating_mul(block)),
            percent(blocks, total.blocks)
        );
    }
    html + "</ul>\n"
}

/// Two lists of files, of which one is shown, and what was chosen.
fn file_list(picture: &Picture<'_>, files: &Files) -> String {
    let block = u64::from(picture.grid.geometry().block_size);
    let mut html = String::from(
        "<section class=\"panel files-panel\"><h2>Files</h2>\n<p class=\"note\">Choose one to see where it lies.</p>\n\
         <div class=\"tools\"><button type=\"button\" data-list=\"largest\" aria-pressed=\"true\">Largest</button>\
         <button type=\"button\" data-list=\"scattered\" aria-pressed=\"false\">Most pieces</button>\
         <input id=\"find\" type=\"search\" placeholder=\"Part of a name\" aria-label=\"Part of a name\"></div>\n",
    );
    for (id, list) in [("largest", &files.largest), ("scattered", &files.most_scattered)] {
        let hidden = if id == "largest" { "" } else { " hidden" };
        let _ = write!(html, "<ol id=\"{id}\" class=\"list\"{hidden}>");
        for file in list {
            file_entry(&mut html, file, block);
        }
        if list.is_empty() {
            html.push_str("<li class=\"none\">There is none.</li>");
        }
        html.push_str("</ol>\n");
    }
    html + "<div id=\"chosen\" hidden></div></section>\n"
}

fn file_entry(html: &mut String, file: &FileFound, block: u64) {
    let path = match file.path.is_empty() {
        true => format!("inode {}", file.inode.get()),
        false => String::from_utf8_lossy(&file.path).into_owned(),
    };
    let _ = write!(html, "<li><button type=\"button\" data-segments=\"");
    for (start, len) in &file.segments {
        let _ = write!(html, "{start}+{len} ");
    }
    html.push_str("\" data-runs=\"");
    for MapRun { blocks, start, state, .. } in &file.runs {
        let mark = if *state == ExtentState::Unwritten { "u" } else { "w" };
        let _ = write!(html, "{}:{}:{}:{mark} ", blocks.start().get(), start.get(), blocks.len());
    }
    let pieces = if file.fragments == 1 { "piece" } else { "pieces" };
    let _ = write!(
        html,
        "\" data-inode=\"{}\"><span class=\"path\">{}</span><span class=\"facts\">{} &middot; {} {pieces}</span></button></li>",
        file.inode.get(),
        escape(&path),
        size(file.blocks.saturating_mul(block)),
        number(file.fragments)
    );
}

/// Runs of free space by size, as bars.
fn free_space(picture: &Picture<'_>) -> String {
    let free = picture.free;
    let block = u64::from(picture.grid.geometry().block_size);
    if free.runs == 0 {
        return String::new();
    }
    let mut html = format!(
        "<section class=\"panel\"><h2>Free space</h2>\n<p class=\"note\">{} in {} runs, on average {}. Each bar is the share of free space that lies in runs of \
         that size.</p>\n<table class=\"bars\"><thead><tr><th>runs from</th><th>share</th><th>runs</th><th>space</th></tr></thead><tbody>\n",
        size(free.blocks.saturating_mul(block)),
        number(free.runs),
        size(free.average().saturating_mul(block)),
    );
    for (from, runs, blocks) in free.histogram() {
        let width = share(blocks, free.blocks, 1000).max(4);
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td><svg class=\"share\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <rect class=\"files\" width=\"{width}\" height=\"10\" rx=\"2\"/></svg></td><td>{}</td><td>{}</td></tr>",
            size(from.saturating_mul(block)),
            number(runs),
            size(blocks.saturating_mul(block))
        );
    }
    html + "</tbody></table></section>\n"
}

const PAGE_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
