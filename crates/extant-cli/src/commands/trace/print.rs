//! Traces as text: the kernel's form, JSON, and what trace viewers open.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use extant::trace::{Event, FieldValue, Task};
use serde_json::{Map, Value, json};

use super::explain::explain;
use super::record::{Record, What};

/// What is printed.
pub struct Trace {
    /// What happened, in order.
    pub records: Vec<Record>,
    /// Whether each event is to be explained.
    pub explained: bool,
    /// Counters at the end, if they are wanted.
    pub counters: Vec<(&'static str, u64)>,
}

/// A name and a number for whose work it is, after the kernel's threads.
fn task(task: Option<Task>) -> (&'static str, u32) {
    match task {
        None => ("extant", 1),
        Some(Task::EndOfIo) => ("kworker/end-io", 2),
        Some(Task::Journal) => ("jbd2/image-8", 3),
        Some(Task::Flusher) => ("kworker/flush", 4),
    }
}

/// Lines as tracefs prints them; operations are marks, and explanations comments.
pub fn ftrace(trace: &Trace, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "# tracer: nop\n#")?;
    for record in &trace.records {
        let (name, number) = task(record.task);
        let at = record.at.as_micros();
        write!(
            out,
            "{name:>16}-{number} [000] ..... {:5}.{:06}: ",
            at / 1_000_000,
            at % 1_000_000
        )?;
        match &record.what {
            What::Begin(operation) => writeln!(out, "tracing_mark_write: OP {operation}")?,
            What::End(answer) => writeln!(out, "tracing_mark_write: RET {answer}")?,
            What::Event(event) => {
                writeln!(out, "{}: {event}", event.name())?;
                if trace.explained {
                    writeln!(out, "#{:37}{}", "", explain(event))?;
                }
            }
        }
    }
    for (name, count) in &trace.counters {
        writeln!(out, "# {name}: {count}")?;
    }
    Ok(())
}

/// An object a line; the counters are the last one.
pub fn json(trace: &Trace, out: &mut dyn Write) -> anyhow::Result<()> {
    for record in &trace.records {
        let mut line = Map::new();
        line.insert("microseconds".to_owned(), microseconds(record.at));
        line.insert("task".to_owned(), json!(task(record.task).0));
        match &record.what {
            What::Begin(operation) => drop(line.insert("operation".to_owned(), json!(operation))),
            What::End(answer) => drop(line.insert("answer".to_owned(), json!(answer))),
            What::Event(event) => {
                line.insert("event".to_owned(), json!(event.name()));
                line.insert("fields".to_owned(), fields(event));
                if trace.explained {
                    line.insert("why".to_owned(), json!(explain(event)));
                }
            }
        }
        writeln!(out, "{}", Value::from(line))?;
    }
    if !trace.counters.is_empty() {
        writeln!(out, "{}", json!({ "counters": counters(trace) }))?;
    }
    Ok(())
}

/// The trace event format: operations and what begins and ends are spans, other events are instants.
///
/// Source: "Trace Event Format" of the Chromium project.
pub fn chrome(trace: &Trace, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut lines: Vec<Value> = [None, Some(Task::EndOfIo), Some(Task::Journal), Some(Task::Flusher)]
        .into_iter()
        .map(|of| {
            let (name, number) = task(of);
            json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": { "name": name } })
        })
        .collect();
    let mut open: HashMap<Option<Task>, Vec<&str>> = HashMap::new(); // how the spans will end that have begun
    for record in &trace.records {
        let (at, of) = (microseconds(record.at), record.task);
        let mut line = |phase: &str, name: &str, args: Value| {
            let tid = task(of).1;
            lines.push(json!({ "ph": phase, "name": name, "ts": at, "pid": 1, "tid": tid, "s": "t", "args": args }));
        };
        match &record.what {
            What::Begin(operation) => line("B", operation, json!({})),
            What::End(answer) => {
                // A span that an error cut short ends with its operation.
                for _ in open.remove(&of).unwrap_or_default() {
                    line("E", "", json!({}));
                }
                line("E", "", json!({ "answer": answer }));
            }
            What::Event(event) => {
                let mut args = fields(event);
                if trace.explained {
                    args["why"] = json!(explain(event));
                }
                let open = open.entry(of).or_default();
                if open.pop_if(|end| *end == event.name()).is_some() {
                    line("E", "", args);
                } else if let Some((_, end)) =
                    SPANS.iter().find(|(begin, _)| *begin == event.name())
                {
                    open.push(end);
                    line("B", event.name(), args);
                } else {
                    line("i", event.name(), args);
                }
            }
        }
    }
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    for (number, line) in lines.iter().enumerate() {
        write!(out, "{}\n{line}", if number == 0 { "" } else { "," })?;
    }
    writeln!(out, "\n],")?;
    Ok(writeln!(out, "\"otherData\":{}}}", counters(trace))?)
}

fn counters(trace: &Trace) -> Value {
    trace.counters.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
}

/// Events that begin something, and those that end it.
const SPANS: [(&str, &str); 16] = [
    ("ext4_da_write_begin", "ext4_da_write_end"),
    ("ext4_write_begin", "ext4_write_end"),
    ("ext4_es_lookup_extent_enter", "ext4_es_lookup_extent_exit"),
    ("ext4_es_find_extent_range_enter", "ext4_es_find_extent_range_exit"),
    ("ext4_ext_map_blocks_enter", "ext4_ext_map_blocks_exit"),
    ("ext4_ind_map_blocks_enter", "ext4_ind_map_blocks_exit"),
    ("ext4_ext_remove_space", "ext4_ext_remove_space_done"),
    ("ext4_request_blocks", "ext4_allocate_blocks"),
    ("ext4_writepages", "ext4_writepages_result"),
    ("ext4_da_write_folios_start", "ext4_da_write_folios_end"),
    ("ext4_sync_file_enter", "ext4_sync_file_exit"),
    ("ext4_fallocate_enter", "ext4_fallocate_exit"),
    ("ext4_truncate_enter", "ext4_truncate_exit"),
    ("ext4_unlink_enter", "ext4_unlink_exit"),
    ("ext4_request_inode", "ext4_allocate_inode"),
    ("jbd2_start_commit", "jbd2_end_commit"),
];

fn microseconds(at: Duration) -> Value {
    json!(at.as_secs_f64() * 1e6)
}

fn fields(event: &Event) -> Value {
    let value = |value: FieldValue| match value {
        FieldValue::Unsigned(n) => json!(n),
        FieldValue::Signed(n) => json!(n),
        other => json!(other.to_string()),
    };
    event.fields().map(|(name, of)| (name.to_owned(), value(of))).collect::<Map<_, _>>().into()
}
