//! Plots as SVG inside a page: no script, colours by classes, so that the page's style decides for light and dark.

use std::fmt::Write;

/// Values of one kind.
pub struct Series<'a> {
    /// The style's class.
    pub class: &'static str,
    pub name: &'a str,
    pub values: Vec<f64>,
}

/// How values become heights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scale {
    FromZero,
    Logarithmic,
}

const WIDTH: f64 = 350.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// Lines over categories that are placed side by side.
pub fn lines(
    label: &str,
    unit: &str,
    below: &str,
    places: &[String],
    series: &[Series<'_>],
    scale: Scale,
) -> String {
    let axis = Axis::new(
        series.iter().flat_map(|one| one.values.iter().copied()),
        scale,
        HEIGHT - BOTTOM,
        TOP,
    );
    let mut svg = frame(label, &axis, unit, below);
    let step = (WIDTH - LEFT - RIGHT - 24.0) / float(places.len().saturating_sub(1).max(1));
    let x = |at: usize| LEFT + 12.0 + step * float(at);
    for (at, place) in places.iter().enumerate() {
        text(&mut svg, (x(at), HEIGHT - BOTTOM + 16.0), "middle", place);
    }
    for one in series {
        let points: Vec<(f64, f64)> =
            one.values.iter().enumerate().map(|(at, value)| (x(at), axis.at(*value))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ =
            write!(svg, "<polyline class=\"line {}\" points=\"{}\"/>", one.class, path.join(" "));
        for ((x, y), value) in points.iter().zip(&one.values) {
            let title = format!("{}: {}", one.name, short(*value));
            marker(&mut svg, one.class, (*x, *y), true, &title);
        }
    }
    svg + "</svg>"
}

/// Bars side by side, a group for each place.
pub fn columns(
    label: &str,
    unit: &str,
    below: &str,
    places: &[String],
    series: &[Series<'_>],
) -> String {
    let values = series.iter().flat_map(|one| one.values.iter().copied());
    let axis = Axis::new(values, Scale::FromZero, HEIGHT - BOTTOM, TOP);
    let mut svg = frame(label, &axis, unit, below);
    let group = (WIDTH - LEFT - RIGHT) / float(places.len().max(1));
    let bar = group * 0.72 / float(series.len().max(1));
    for (at, place) in places.iter().enumerate() {
        let start = LEFT + group * float(at) + group * 0.14;
        text(&mut svg, (start + group * 0.36, HEIGHT - BOTTOM + 16.0), "middle", place);
        for (number, one) in series.iter().enumerate() {
            let value = one.values.get(at).copied().unwrap_or(0.0);
            let (x, y) = (start + bar * float(number), axis.at(value));
            let _ = write!(
                svg,
                "<rect class=\"bar {}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: {}</title></rect>",
                one.class,
                bar - 2.0,
                HEIGHT - BOTTOM - y,
                one.name,
                short(value)
            );
        }
    }
    svg + "</svg>"
}

/// A mark in a row of [`rows`].
pub struct Mark {
    pub class: &'static str,
    pub value: f64,
    pub filled: bool,
    pub title: String,
}

/// Rows with marks along one axis; a line at `reference`.
pub fn rows(
    label: &str,
    below: &str,
    rows: &[(String, Vec<Mark>)],
    scale: Scale,
    reference: Option<f64>,
) -> String {
    let (name_width, row_height, width) = (312.0, 24.0, 830.0);
    let height = TOP + row_height * float(rows.len()) + BOTTOM;
    let values = rows.iter().flat_map(|(_, marks)| marks.iter().map(|mark| mark.value));
    let axis = Axis::new(values.chain(reference), scale, name_width, width - RIGHT - 8.0);
    let mut svg = open(label, width, height);
    let bottom = height - BOTTOM + 4.0;
    for tick in &axis.ticks {
        let x = axis.at(*tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
        );
        text(&mut svg, (x, bottom + 16.0), "middle", &short(*tick));
    }
    if let Some(reference) = reference {
        let x = axis.at(reference);
        let _ = write!(
            svg,
            "<line class=\"reference\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
        );
    }
    text(&mut svg, (f64::midpoint(name_width, width), height - 6.0), "middle", below);
    for (at, (name, marks)) in rows.iter().enumerate() {
        let y = TOP + row_height * (float(at) + 0.5);
        text(&mut svg, (name_width - 14.0, y + 4.0), "end", name);
        let _ = write!(
            svg,
            "<line class=\"row\" x1=\"{name_width}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>",
            width - RIGHT
        );
        for mark in marks {
            marker(&mut svg, mark.class, (axis.at(mark.value), y), mark.filled, &mark.title);
        }
    }
    svg + "</svg>"
}

/// Cells of a grid, row by row, each of a class.
pub fn cells(label: &str, columns: usize, side: f64, classes: &[&str]) -> String {
    let lines = classes.chunks(columns.max(1));
    let mut svg = open(label, side * float(columns), side * float(lines.len()));
    for (row, line) in lines.enumerate() {
        let mut at = 0;
        // Neighbours of the same class are one rectangle.
        for run in line.chunk_by(|a, b| a == b) {
            let (x, y) = (side * float(at), side * float(row));
            let _ = write!(
                svg,
                "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{side:.1}\"/>",
                run[0],
                side * float(run.len())
            );
            at += run.len();
        }
    }
    svg + "</svg>"
}

/// Where values are between two ends.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// An axis for `values` from the place `from` to the place `to`.
    fn new(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let (least, most) =
            values.fold((f64::MAX, 0.0_f64), |(a, b), value| (a.min(value), b.max(value)));
        let (low, high, ticks) = match scale {
            Scale::FromZero => {
                let step = round_step(most.max(1e-9) / 4.5);
                let count = (most / step).ceil().max(1.0);
                let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + step));
                (
                    0.0,
                    step * count,
                    ticks.take_while(|tick| *tick <= step * count * 1.001).collect(),
                )
            }
            Scale::Logarithmic => {
                let (low, high) = (least.max(1e-9) / 1.15, most.max(least) * 1.2);
                let powers =
                    std::iter::successors(Some(10_f64.powf(low.log10().floor())), |power| {
                        Some(power * 10.0)
                    });
                let powers = powers.take_while(|power| *power <= high);
                // Over many powers of ten these alone are enough.
                let wide = high / low > 1000.0;
                let factors: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let ticks =
                    powers.flat_map(|power| factors.iter().map(move |factor| factor * power));
                (low, high, ticks.filter(|tick| (low..=high).contains(tick)).collect())
            }
        };
        Self { scale, low, high, from, to, ticks }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::FromZero => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => {
                (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
            }
        };
        self.from + (self.to - self.from) * share
    }
}

/// One, two or five times a power of ten, no less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(least)
}

fn open(label: &str, width: f64, height: f64) -> String {
    format!("<svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {width:.0} {height:.0}\">")
}

/// The grid, the ticks' values and the axes' names.
fn frame(label: &str, axis: &Axis, unit: &str, below: &str) -> String {
    let mut svg = open(label, WIDTH, HEIGHT);
    for tick in &axis.ticks {
        let y = axis.at(*tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT
        );
        text(&mut svg, (LEFT - 6.0, y + 4.0), "end", &short(*tick));
    }
    text(&mut svg, (f64::midpoint(LEFT, WIDTH), HEIGHT - 6.0), "middle", below);
    let y = f64::midpoint(TOP, HEIGHT - BOTTOM);
    let _ = write!(
        svg,
        "<text transform=\"translate(11 {y:.1}) rotate(-90)\" text-anchor=\"middle\">{unit}</text>"
    );
    svg
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(words)
    );
}

/// A circle, a diamond or a square, by class; hollow if not `filled`.
fn marker(svg: &mut String, class: &str, (x, y): (f64, f64), filled: bool, title: &str) {
    let hollow = if filled { "" } else { " hollow" };
    let shape = match class {
        "immediate" => format!("d=\"M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\"", y - 5.5),
        "by-block" => format!("d=\"M{:.1} {:.1}h9v9h-9z\"", x - 4.5, y - 4.5),
        _ => format!("d=\"M{:.1} {y:.1}a4.8 4.8 0 1 0 9.6 0a4.8 4.8 0 1 0 -9.6 0z\"", x - 4.8),
    };
    let _ = write!(
        svg,
        "<path class=\"mark {class}{hollow}\" {shape}><title>{}</title></path>",
        escape(title)
    );
}

/// A number in few digits.
pub fn short(value: f64) -> String {
    let text = match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Words inside a page.
pub fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn float(n: usize) -> f64 {
    extant_bench::float(extant_format::cast::u64_from(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_all_values() {
        for (values, scale, ticks) in [
            (vec![3.0, 190.0], Scale::FromZero, vec![0.0, 50.0, 100.0, 150.0, 200.0]),
            (vec![0.4], Scale::FromZero, vec![0.0, 0.1, 0.2, 0.30000000000000004, 0.4]),
            (vec![1.0, 30.0], Scale::Logarithmic, vec![1.0, 2.0, 5.0, 10.0, 20.0]),
        ] {
            let axis = Axis::new(values.iter().copied(), scale, 0.0, 100.0);
            assert_eq!(axis.ticks, ticks);
            assert!(values.iter().all(|value| (0.0..=100.0).contains(&axis.at(*value))));
        }
        assert_eq!([0.0, 1.0, 2.5, 12.25, 1234.6].map(short), ["0", "1", "2.5", "12.2", "1235"]);
    }

    #[test]
    fn neighbouring_cells_are_one_rectangle() {
        let svg = cells("map", 4, 10.0, &["a", "a", "b", "b", "b", "b", "b", "b"]);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("viewBox=\"0 0 40 20\""));
    }
}
