//! The comparison as one page: HTML with SVG in it, that needs nothing else.

use std::fmt::Write;

use extant_bench::delalloc::survey::{Question, Row, Survey, rate};
use extant_bench::delalloc::workload::Mode;
use extant_bench::float;

use super::Measured;
use super::plot::{self, Mark, Scale, Series, escape};
use super::real::Real;
use super::tables::{self, Table, times};

/// The page; `command` is what made it.
pub fn render(measured: &Measured, command: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>What delaying an allocation buys</title>\n<style>{STYLE}</style></head>\n<body><main>\n\
         <h1>What delaying an allocation buys</h1>\n\
         <p>ext4 gives a block its place when it is written back, not when it is written. This page compares that with giving \
         it at each write, as <b>extant</b> measures it. Made by <code>{}</code>.</p>\n",
        escape(command)
    );
    if let Some(survey) = &measured.survey {
        page += &cards(survey);
    }
    let mut all = tables::all(measured).into_iter();
    page += &all.next().map_or(String::new(), |table| section(&table, "", true));
    if let Some(survey) = &measured.survey {
        page += &blocks(survey);
        page +=
            &all.next().map_or(String::new(), |table| section(&table, &by_writers(survey), false));
        page +=
            &all.next().map_or(String::new(), |table| section(&table, &by_setup(survey), false));
        page += &nothing(survey, measured.real.as_ref());
        page += &all.next().map_or(String::new(), |table| section(&table, &losses(survey), false));
    }
    if let Some(real) = &measured.real {
        page +=
            &all.next().map_or(String::new(), |table| section(&table, &image_file(real), false));
    }
    page += &honesty(measured);
    page + "</main></body></html>\n"
}

/// The factors, large.
fn cards(survey: &Survey) -> String {
    let Some(base) = survey.base() else { return String::new() };
    let mut html = "<div class=\"cards\">".to_owned();
    for (mode, against) in [
        (Mode::BlockByBlock, "one block at a time, nothing set aside"),
        (Mode::Immediate, "immediate allocation as the kernel does it"),
    ] {
        let read = base.read_factor(mode).unwrap_or(1.0);
        let _ = write!(
            html,
            "<div class=\"card {}\"><p>Against {against}</p><div class=\"big\"><p><b>{}</b>writing with fsync</p>\
             <p><b>{}</b>reading back cold</p></div></div>",
            class(mode),
            times(base.write_factor(mode)),
            times(read)
        );
    }
    let _ = write!(
        html,
        "</div><p class=\"note\">How many times as long it takes without delay: {} concurrent sequential writers on the modelled \
         disk of {} turns a minute, each synced and read by itself. All at the same moment, and on other disks, the factors are \
         others: see <a href=\"#factor\">what changes the factor</a>.</p>",
        survey.plan.writers, survey.plan.disk.mechanics.turns_per_minute
    );
    html
}

fn section(table: &Table, plots: &str, plain: bool) -> String {
    let body = html_table(table);
    let body = match plain || plots.is_empty() {
        true => body,
        false => format!("<details><summary>The figures</summary>{body}</details>"),
    };
    format!(
        "<section id=\"{}\"><h2>{}</h2><p class=\"note\">{}</p>{plots}{body}</section>\n",
        table.id,
        escape(&table.title),
        escape(&table.note)
    )
}

fn html_table(table: &Table) -> String {
    let mut html = "<div class=\"scroll\"><table><thead><tr><th></th>".to_owned();
    for head in &table.head {
        let _ = write!(html, "<th>{}</th>", escape(head));
    }
    html += "</tr></thead><tbody>";
    for group in &table.groups {
        if !group.title.is_empty() {
            let (width, title) = (table.head.len() + 1, escape(group.title));
            let _ = write!(html, "<tr class=\"group\"><th colspan=\"{width}\">{title}</th></tr>");
        }
        for (name, values) in &group.rows {
            let class = if name.starts_with("  ") { " class=\"sub\"" } else { "" };
            let _ = write!(html, "<tr{class}><th>{}</th>", escape(name.trim_start()));
            for value in values {
                let _ = write!(html, "<td>{}</td>", escape(value));
            }
            html += "</tr>";
        }
    }
    html + "</tbody></table></div>"
}

fn legend() -> String {
    let entry = |mode: Mode| format!("<span class=\"key {}\">{}</span>", class(mode), mode.name());
    format!("<p class=\"legend\">{}</p>", Mode::ALL.map(entry).join(" "))
}

fn figure(caption: &str, svg: &str) -> String {
    format!("<figure>{svg}<figcaption>{}</figcaption></figure>", escape(caption))
}

fn class(mode: Mode) -> &'static str {
    match mode {
        Mode::Delayed => "delayed",
        Mode::Immediate => "immediate",
        Mode::BlockByBlock => "by-block",
    }
}

fn by_mode(value: impl Fn(Mode) -> Vec<f64>) -> Vec<Series<'static>> {
    Mode::ALL
        .map(|mode| Series { class: class(mode), name: mode.name(), values: value(mode) })
        .into()
}

fn by_writers(survey: &Survey) -> String {
    let rows: Vec<&Row> = survey.of(Question::Writers).collect();
    let places: Vec<String> = rows.iter().map(|row| row.label.clone()).collect();
    let values = |of: &dyn Fn(&Row, Mode) -> f64| {
        by_mode(|mode| rows.iter().map(|row| of(row, mode)).collect())
    };
    let writes = values(&|row, mode| row.write_rate(mode));
    let reads = values(&|row, mode| row.read_rate(mode).unwrap_or(0.0));
    let extents = values(&|row, mode| {
        float(row.outcome(mode).extents()) / f64::from(row.setup.workload.writers)
    });
    let plot = |label: &str, unit: &str, series: &[Series<'_>], scale| {
        plot::lines(label, unit, "writers", &places, series, scale)
    };
    format!(
        "{}<div class=\"plots\">{}{}{}</div>",
        legend(),
        figure(
            "Writing with fsync",
            &plot("Rate of writing by number of writers", "MB/s", &writes, Scale::FromZero)
        ),
        figure(
            "Reading back cold",
            &plot("Rate of reading by number of writers", "MB/s", &reads, Scale::FromZero)
        ),
        figure(
            "Extents per file",
            &plot("Extents per file by number of writers", "extents", &extents, Scale::Logarithmic)
        ),
    )
}

fn by_setup(survey: &Survey) -> String {
    let rows: Vec<(String, Vec<Mark>)> = tables::varied(survey)
        .into_iter()
        .map(|row| {
            let marks = [Mode::Immediate, Mode::BlockByBlock].into_iter().flat_map(|mode| {
                let mark = |value: f64, filled, what: &str| Mark {
                    class: class(mode),
                    value,
                    filled,
                    title: format!("{what}, {}: {}", mode.name(), times(value)),
                };
                let read = row.read_factor(mode).map(|factor| mark(factor, false, "reading"));
                [Some(mark(row.write_factor(mode), true, "writing")), read].into_iter().flatten()
            });
            (tables::full_label(row), marks.collect())
        })
        .collect();
    let svg = plot::rows(
        "Factor by setup",
        "times as long as with delay",
        &rows,
        Scale::Logarithmic,
        Some(1.0),
    );
    let keys = "<p class=\"legend\"><span class=\"key immediate\">immediate</span> <span class=\"key by-block\">block by block</span> \
                filled: writing, hollow: reading</p>";
    format!(
        "{keys}{}",
        figure("The usual setup is in the first row; the line at 1 is delayed allocation", &svg)
    )
}

fn nothing(survey: &Survey, real: Option<&Real>) -> String {
    let lines = tables::when_nothing(survey, real);
    let items: String = lines.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
    format!("<section><h2>{}</h2><ul>{items}</ul></section>\n", tables::WHEN_NOTHING)
}

fn losses(survey: &Survey) -> String {
    let row = |mode: Mode, synced: bool| {
        let cuts = tables::cuts_of(survey, mode, synced)?;
        let rate = float(cuts.setup.bytes_per_second) * f64::from(cuts.setup.writers);
        let marks = cuts.losses.iter().map(|loss| {
            let bytes = if synced { loss.synced_missing } else { loss.written_missing };
            let value = float(bytes) / rate.max(1.0);
            let title =
                format!("cut after {:.1} s: {value:.1} s of writing lost", loss.at.as_secs_f64());
            Mark { class: class(mode), value, filled: false, title }
        });
        let what = if synced { "covered by fsync" } else { "acknowledged by write()" };
        Some((format!("{}, {what}", mode.name()), marks.collect()))
    };
    let kinds =
        [false, true].into_iter().flat_map(|synced| Mode::ALL.map(|mode| row(mode, synced)));
    let rows: Vec<(String, Vec<Mark>)> = kinds.flatten().collect();
    let svg = plot::rows(
        "Lost by power cuts",
        "seconds of writing lost, a mark for each power cut",
        &rows,
        Scale::FromZero,
        None,
    );
    figure(
        "Delayed data waits up to 30 s for the flusher, and then for the commit; immediate data up to 5 s for the commit",
        &svg,
    )
}

fn image_file(real: &Real) -> String {
    let places: Vec<String> =
        real.rows.iter().map(|row| row.workload.writers.to_string()).collect();
    let writes = by_mode(|mode| {
        real.rows.iter().map(|row| rate(row.workload.bytes(), row.outcome(mode).write)).collect()
    });
    let reads = by_mode(|mode| {
        real.rows.iter().map(|row| rate(row.workload.bytes(), row.outcome(mode).read)).collect()
    });
    let cpu = by_mode(|mode| {
        real.rows.iter().map(|row| row.outcome(mode).write_cpu.time.as_secs_f64() * 1e3).collect()
    });
    format!(
        "{}<div class=\"plots\">{}{}{}</div>",
        legend(),
        figure(
            "Writing with fsync",
            &plot::columns("Rate of writing", "MB/s", "writers", &places, &writes)
        ),
        figure(
            "Processor time for it",
            &plot::columns("Processor time", "ms", "writers", &places, &cpu)
        ),
        figure(
            "Reading back cold",
            &plot::columns("Rate of reading", "MB/s", "writers", &places, &reads)
        ),
    )
}

/// Where the files of the usual row lie.
fn blocks(survey: &Survey) -> String {
    let Some(base) = survey.base() else { return String::new() };
    let mut html = "<section><h2>Where the blocks lie</h2><p class=\"note\">A colour for each file. Above, all of the files' region, \
                    sampled; below, 512 blocks of 4 KiB from its middle.</p><div class=\"plots\">"
        .to_owned();
    for mode in Mode::ALL {
        let owners = Owners::of(base, mode);
        let strip: Vec<&str> = (0..STRIP).map(|at| owners.class(owners.sample(at))).collect();
        let middle = owners.sample(STRIP / 2);
        let zoom: Vec<&str> = (middle..middle + 512).map(|block| owners.class(block)).collect();
        let svg =
            plot::cells("All blocks", usize::try_from(STRIP).unwrap_or(1), 4.0, &strip.repeat(10))
                + &plot::cells("512 blocks", 64, 16.0, &zoom);
        let extents = float(base.outcome(mode).extents()) / f64::from(base.setup.workload.writers);
        html +=
            &figure(&format!("{}: {} extents per file", mode.name(), plot::short(extents)), &svg);
    }
    html + "</div></section>\n"
}

/// Columns of the picture of a region.
const STRIP: u64 = 256;

/// Whose block is which.
struct Owners {
    /// First block, blocks, and whose; by place.
    runs: Vec<(u64, u32, usize)>,
    start: u64,
    end: u64,
}

impl Owners {
    fn of(row: &Row, mode: Mode) -> Self {
        let layouts = row.outcome(mode).layouts.iter().enumerate();
        let mut runs: Vec<_> = layouts
            .flat_map(|(file, layout)| {
                layout.runs.iter().map(move |(start, len)| (*start, *len, file))
            })
            .collect();
        runs.sort_unstable();
        let start = runs.first().map_or(0, |run| run.0);
        let end = runs.last().map_or(1, |run| run.0 + u64::from(run.1));
        Self { runs, start, end }
    }

    fn sample(&self, at: u64) -> u64 {
        self.start + (self.end - self.start) * at / STRIP
    }

    fn class(&self, block: u64) -> &'static str {
        let after = self.runs.partition_point(|run| run.0 <= block);
        let run = after.checked_sub(1).map(|at| self.runs[at]);
        let owner = run.filter(|run| block < run.0 + u64::from(run.1));
        owner.map_or("free", |run| FILES[run.2 % FILES.len()])
    }
}

const FILES: [&str; 8] = ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"];

/// What is measured, what is modelled, and by which figures.
fn honesty(measured: &Measured) -> String {
    let mut html = "<section><h2>What is measured, and what is modelled</h2><ul>".to_owned();
    if measured.real.is_some() {
        html += "<li><b>Measured</b>: the rows of the image file: real time and CPU time of this machine, other work on it \
                 included. Reading is cold as far as the system drops its cache on request.</li>";
    }
    if let Some(survey) = &measured.survey {
        let _ = write!(
            html,
            "<li><b>Counted</b>: extents, allocator calls, handles, journal blocks, device writes, flushes: by the engine, while it did \
             the work.</li><li><b>Modelled</b>: all that happens on the disk. The engine runs as it is, on a device that computes how \
             long a disk would take; the processor takes no time; seed {}. What is read back is compared with what was written.</li>\
             <li>Not modelled: bad sectors, shingled tracks, more than one segment of reading ahead, and firmware that is cleverer, or \
             less clever, than sweeping over its write cache by place.</li></ul><h3>The modelled disk</h3>",
            survey.plan.seed
        );
        let figures = tables::disk_figures(&survey.plan.disk);
        html += "<div class=\"scroll\"><table class=\"figures\"><tbody>";
        for pair in figures.chunks(2) {
            html += "<tr>";
            for (name, value) in pair {
                let _ = write!(html, "<th>{name}</th><td>{}</td>", escape(value));
            }
            html += "</tr>";
        }
        html += "</tbody></table></div><p class=\"note\">After the data sheets of Seagate BarraCuda ST1000DM003 and ST1000DM010 and the \
                 specification of Hitachi Deskstar 7K1000.C; seek curve after Ruemmler and Wilkes, 1994; queue and elevator as Linux has \
                 them for SATA. How much of its memory such a disk keeps for writes is not published: a quarter of 64 MB is \
                 assumed, and other sizes are in the rows above.</p>";
    } else {
        html += "</ul>";
    }
    html + "</section>"
}

const STYLE: &str = include_str!("page.css");
