//! What was measured, for programs.

use extant::Counters;
use extant_bench::Cpu;
use extant_bench::delalloc::crash::Loss;
use extant_bench::delalloc::modelled::{self, Company};
use extant_bench::delalloc::survey::{Cuts, Plan, Question, Row};
use extant_bench::delalloc::workload::Mode;
use extant_bench::disk::DiskModel;
use serde_json::{Map, Value, json};

use super::Measured;
use super::real::{Real, RealRow};

/// All of it.
pub fn json(measured: &Measured) -> Value {
    let survey = measured.survey.as_ref();
    json!({
        "modelled_disk": survey.map(|survey| json!({
            "plan": plan(&survey.plan),
            "disk": disk(&survey.plan.disk),
            "rows": survey.rows.iter().map(row).collect::<Vec<_>>(),
            "power_cuts": survey.cuts.iter().map(cuts).collect::<Vec<_>>(),
        })),
        "image_file": measured.real.as_ref().map(real),
    })
}

fn plan(plan: &Plan) -> Value {
    json!({
        "writers": plan.writers,
        "total_bytes": plan.total_bytes,
        "call_bytes": plan.call_bytes,
        "seed": plan.seed,
    })
}

fn disk(disk: &DiskModel) -> Value {
    let mechanics = &disk.mechanics;
    json!({
        "bytes": mechanics.bytes,
        "turns_per_minute": mechanics.turns_per_minute,
        "surfaces": mechanics.surfaces,
        "zones": mechanics.zones,
        "outer_bytes_per_second": mechanics.outer_bytes_per_second,
        "inner_bytes_per_second": mechanics.inner_bytes_per_second,
        "single_track_seconds": mechanics.single_track.as_secs_f64(),
        "average_seek_seconds": mechanics.average_seek.as_secs_f64(),
        "full_stroke_seconds": mechanics.full_stroke.as_secs_f64(),
        "write_cache_bytes": disk.write_cache_bytes,
        "lookahead_bytes": disk.lookahead_bytes,
        "command_seconds": disk.command.as_secs_f64(),
        "link_bytes_per_second": disk.link_bytes_per_second,
        "queue_depth": disk.queue_depth,
        "elevator": disk.elevator.name(),
        "requests": disk.requests,
        "request_bytes": disk.request_bytes,
    })
}

/// Words that a program can compare.
fn key(mode: Mode) -> &'static str {
    match mode {
        Mode::Delayed => "delayed",
        Mode::Immediate => "immediate",
        Mode::BlockByBlock => "block_by_block",
    }
}

fn by_mode<'a, T: 'a>(all: impl IntoIterator<Item = &'a T>, show: impl Fn(&T) -> Value) -> Value {
    let named = Mode::ALL.into_iter().zip(all);
    Value::Object(named.map(|(mode, one)| (key(mode).to_owned(), show(one))).collect::<Map<_, _>>())
}

fn row(row: &Row) -> Value {
    let setup = &row.setup;
    json!({
        "question": match row.question {
            Question::Writers => "writers",
            Question::WritersTogether => "writers_together",
            Question::Habit => "habit",
            Question::Disk => "disk",
        },
        "label": row.label,
        "writers": setup.workload.writers,
        "call_bytes": setup.workload.call_bytes,
        "company": if setup.company == Company::InTurn { "in_turn" } else { "together" },
        "sync_every_bytes": setup.sync_every,
        "cache_bytes": setup.cache_bytes,
        "write_cache_bytes": setup.disk.write_cache_bytes,
        "queue_depth": setup.disk.queue_depth,
        "elevator": setup.disk.elevator.name(),
        "bytes": setup.workload.bytes(),
        "modes": by_mode(&row.outcomes, modelled_outcome),
        "factors": by_mode(&Mode::ALL, |mode| json!({
            "write": row.write_factor(*mode),
            "read": row.read_factor(*mode),
        })),
    })
}

fn modelled_outcome(outcome: &modelled::Outcome) -> Value {
    json!({
        "write_seconds": outcome.write.as_secs_f64(),
        "read_seconds": outcome.read.as_secs_f64(),
        "extents": outcome.extents(),
        "counters": counters(&outcome.counters),
        "disk_requests": outcome.write_disk.requests,
        "disk_seeks": outcome.write_disk.seeks,
        "read_disk_requests": outcome.read_disk.requests,
        "read_disk_seeks": outcome.read_disk.seeks,
    })
}

fn counters(counters: &Counters) -> Value {
    json!({
        "allocator_calls": counters.allocator_calls,
        "allocator_searches": counters.allocator_searches,
        "handles": counters.handles,
        "commits": counters.commits,
        "journal_blocks": counters.journal_blocks,
        "device_writes": counters.device_writes,
        "device_write_bytes": counters.device_write_bytes,
        "flushes": counters.flushes,
    })
}

fn cuts(cuts: &Cuts) -> Value {
    json!({
        "mode": key(cuts.setup.mode),
        "writers": cuts.setup.writers,
        "bytes_per_second": cuts.setup.bytes_per_second,
        "sync_every_seconds": cuts.setup.sync_every.map(|every| every.as_secs_f64()),
        "losses": cuts.losses.iter().map(loss).collect::<Vec<_>>(),
    })
}

fn loss(loss: &Loss) -> Value {
    json!({
        "at_seconds": loss.at.as_secs_f64(),
        "written_bytes": loss.written,
        "written_missing_bytes": loss.written_missing,
        "synced_bytes": loss.synced,
        "synced_missing_bytes": loss.synced_missing,
    })
}

fn real(real: &Real) -> Value {
    json!({
        "folder": real.folder.to_string_lossy(),
        "rounds": real.rounds,
        "e2fsck": real.verdicts.iter().map(|verdict| verdict.name()).collect::<Vec<_>>(),
        "rows": real.rows.iter().map(real_row).collect::<Vec<_>>(),
    })
}

fn real_row(row: &RealRow) -> Value {
    json!({
        "writers": row.workload.writers,
        "bytes": row.workload.bytes(),
        "modes": by_mode(&row.outcomes, |outcome| json!({
            "write_seconds": outcome.write.as_secs_f64(),
            "write_cpu": cpu(&outcome.write_cpu),
            "read_seconds": outcome.read.as_secs_f64(),
            "read_cpu": cpu(&outcome.read_cpu),
            "extents": outcome.extents,
            "counters": counters(&outcome.counters),
        })),
    })
}

fn cpu(cpu: &Cpu) -> Value {
    json!({ "seconds": cpu.time.as_secs_f64(), "instructions": cpu.instructions })
}
