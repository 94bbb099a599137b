//! The rates as bars, in an SVG that needs nothing else.

use std::fmt::Write;

use crate::report::Results;
use crate::stage::Contender;
use crate::works::{ROWS, Unit};

const NAMES: f64 = 330.0;
const WIDTH: f64 = 900.0;
const BAR: f64 = 7.0;
const GAP: f64 = 10.0;
const TOP: f64 = 34.0;
/// The axis, in powers of ten.
const LOWEST: f64 = -2.0;
const HIGHEST: f64 = 1.0;

const COLOURS: [(Contender, &str); 4] = [
    (Contender::Fuse2fs, "#b0b0b0"),
    (Contender::Extant, "#1f6fb5"),
    (Contender::Writeback, "#5fb3e6"),
    (Contender::Null, "#e0a030"),
];

/// Each row's rates beside the kernel's, on a logarithmic axis.
pub fn bars(results: &Results) -> String {
    let rows: Vec<_> = ROWS.iter().filter(|row| row.unit != Unit::Extents).collect();
    let group = BAR * 4.0 + GAP;
    let height = rows.iter().fold(TOP, |y, _| y + group) + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Rates through the mount, kernel = 1</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (tick, name) in [(-2.0, "0.01"), (-1.0, "0.1"), (0.0, "kernel = 1"), (1.0, "10")] {
        let (x, bottom) = (place(tick), height - 20.0);
        let colour = if tick == 0.0 { "#303030" } else { "#d0d0d0" };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            height - 6.0
        );
    }
    let mut x = NAMES;
    for (contender, colour) in COLOURS {
        let name = contender.name();
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"20\">{name}</text>",
            x + 18.0
        );
        x += 140.0;
    }
    let mut y = TOP + GAP / 2.0;
    for row in rows {
        let middle = y + BAR * 2.0 + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            NAMES - 10.0,
            row.title
        );
        for (contender, colour) in COLOURS {
            if let Some(ratio) = results.ratio(row, contender, Contender::Kernel) {
                let (from, to) = (place(LOWEST), place(ratio.log10()));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"><title>{}: {ratio:.2}</title></rect>",
                    to - from,
                    contender.name()
                );
            }
            y += BAR;
        }
        y += GAP;
    }
    svg + "</svg>\n"
}

/// Where a power of ten is.
fn place(power: f64) -> f64 {
    let part = (power.clamp(LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST);
    NAMES + part * (WIDTH - NAMES - 40.0)
}
