//! The comparison as a whole, in small: the same in every run, true, and what it says.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::time::Duration;

use extant_bench::DiskModel;
use extant_bench::delalloc::modelled::{Company, Setup, formatted};
use extant_bench::delalloc::survey::{Plan, Question, Survey};
use extant_bench::delalloc::workload::{Mode, Workload};
use extant_testkit::oracle::{self, Scratch};

/// A disk of 256 MiB, of which nobody reads or writes more than an eighth.
fn small_disk() -> DiskModel {
    let mut disk = DiskModel { write_cache_bytes: 2 << 20, ..DiskModel::DESKTOP };
    disk.mechanics.bytes = 256 << 20;
    disk
}

fn small_plan(seed: u64, threads: usize) -> Plan {
    Plan {
        disk: small_disk(),
        writers: 4,
        writer_counts: vec![1, 4, 6],
        total_bytes: 8 << 20,
        seed,
        cuts: 2,
        threads,
        ..Plan::default()
    }
}

#[test]
fn the_same_seed_gives_the_same_figures_in_any_number_of_threads() {
    let survey = |seed, threads| small_plan(seed, threads).run(&|| Ok(())).unwrap();
    let (one, three) = (survey(1, 1), survey(1, 3));
    assert_eq!(one.rows, three.rows);
    assert_eq!(one.cuts, three.cuts);
    let other = survey(2, 2);
    assert_ne!(one.rows, other.rows);
    every_question_is_answered(&one);
    what_fsync_acknowledged_survives(&one);
}

fn every_question_is_answered(survey: &Survey) {
    let plan = &survey.plan;
    assert_eq!(survey.rows.len() * Mode::ALL.len() + survey.cuts.len(), plan.runs());
    for question in [Question::Writers, Question::WritersTogether, Question::Habit, Question::Disk]
    {
        assert!(survey.of(question).count() > 1, "{question:?}");
    }
    for row in &survey.rows {
        for mode in Mode::ALL {
            let outcome = row.outcome(mode);
            assert!(outcome.write > Duration::ZERO && outcome.read > Duration::ZERO, "{row:?}");
            let blocks = outcome.layouts.iter().flat_map(|layout| &layout.runs);
            let blocks: u64 = blocks.map(|(_, len)| u64::from(*len)).sum();
            assert_eq!(blocks * 4096, row.setup.workload.bytes());
        }
    }
}

fn what_fsync_acknowledged_survives(survey: &Survey) {
    for cuts in &survey.cuts {
        for loss in &cuts.losses {
            assert_eq!(loss.synced_missing, 0, "{cuts:?}");
            assert!(loss.written_missing <= loss.written - loss.synced);
            assert_eq!(cuts.setup.sync_every.is_some(), loss.synced > 0);
        }
    }
    let lost = |mode| -> u64 {
        let same = survey.cuts.iter().find(|cuts| cuts.setup.mode == mode).unwrap();
        same.losses.iter().map(|loss| loss.written_missing).sum()
    };
    assert!(lost(Mode::Delayed) > 2 * lost(Mode::Immediate), "up to 35 s of writing, not 5");
}

fn eight_writers(mode: Mode, company: Company) -> Setup {
    Setup {
        disk: small_disk(),
        mode,
        workload: Workload { writers: 8, total_bytes: 32 << 20, call_bytes: 4096, seed: 1 },
        company,
        sync_every: None,
        cache_bytes: 1 << 30,
        reads: true,
    }
}

#[test]
fn eight_writers_block_by_block_take_five_times_as_long_to_write_and_to_read() {
    let run = |mode| {
        // As in the usual plan, each file is twice as large as the write cache.
        let mut setup = eight_writers(mode, Company::InTurn);
        (setup.workload.total_bytes, setup.disk.write_cache_bytes) = (64 << 20, 4 << 20);
        setup.run().unwrap()
    };
    let (delayed, by_block) = (run(Mode::Delayed), run(Mode::BlockByBlock));
    assert!(delayed.extents() <= 16 && by_block.extents() > 12_000, "{}", by_block.extents());
    let factor = |of: fn(&_) -> Duration| of(&by_block).as_secs_f64() / of(&delayed).as_secs_f64();
    let (write, read) = (factor(|outcome| outcome.write), factor(|outcome| outcome.read));
    assert!(write >= 5.0 && read >= 5.0, "write {write}, read {read}");
}

#[test]
fn modelled_runs_leave_clean_images() {
    for company in [Company::InTurn, Company::Together] {
        for mode in Mode::ALL {
            let setup = eight_writers(mode, company);
            let bytes = formatted(&setup.disk).unwrap();
            let outcome = setup.run_on(&bytes).unwrap();
            assert!(outcome.counters.flushes > 0);
            let scratch = Scratch::new("bench");
            let image = scratch.path("image");
            std::fs::write(&image, bytes.to_vec()).unwrap();
            oracle::e2fsck(&image).unwrap();
        }
    }
}
