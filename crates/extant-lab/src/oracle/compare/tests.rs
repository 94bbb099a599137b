use super::*;

const SCRIPT: &str = "open a create\nwrite a 0 4096\nfsync a\n";

fn seen(step: usize, stream: Stream, line: &str) -> Seen {
    Seen { stream, step, event: Event::parse(line).unwrap(), is_idle: false }
}

fn recorded() -> Run {
    let events = vec![
        seen(1, Stream::Caller, "ext4_da_write_begin: dev 7,0 ino 12 pos 0 len 4096"),
        seen(1, Stream::Caller, "ext4_da_write_end: dev 7,0 ino 12 pos 0 len 4096 copied 4096"),
        seen(2, Stream::Caller, "ext4_sync_fs: dev 7,0 wait 1"),
        seen(2, Stream::EndOfIo, "ext4_journal_start_reserved: dev 7,0 blocks, 18"),
    ];
    Run { events, answers: vec![Ok(extant_script::Answer::Done); 3] }
}

fn compared(change: impl FnOnce(&mut Run)) -> Comparison {
    let mut ours = recorded();
    change(&mut ours);
    let script = Script::parse(SCRIPT).unwrap();
    Comparison::new(&script, recorded(), ours, &Exceptions::default())
}

#[test]
fn equal_runs_pass() {
    let same = compared(|_| {});
    assert!(same.passes() && same.events() == 4, "{same}");
}

#[test]
fn every_kind_of_difference_is_seen() {
    let missing = compared(|ours| drop(ours.events.remove(0)));
    let added = compared(|ours| ours.events.push(ours.events[2].clone()));
    let field = compared(|ours| ours.events[1].event.set("len", 5));
    let order = compared(|ours| ours.events.swap(0, 1));
    let stream = compared(|ours| ours.events[3].stream = Stream::Caller);
    let step = compared(|ours| ours.events[2].step = 1);
    let answer = compared(|ours| ours.answers[1] = Err(extant_script::Errno(28)));
    for difference in [missing, added, field, order, stream, step, answer] {
        assert!(!difference.passes(), "{difference}");
    }
}

#[test]
fn the_report_shows_both_sides() {
    let text = compared(|ours| ours.events[1].event.set("len", 5)).to_string();
    let line = text.lines().find(|line| line.starts_with(" !")).unwrap();
    assert!(line.contains("len=4096") && line.contains("len=5"), "{text}");
    assert!(text.contains("first difference in `write a 0 4096 tag 2`"), "{text}");
}

/// The rest of such a script is left out, and counted; what came before is compared.
#[test]
fn runs_part_where_the_commit_takes_contents_out_of_an_inode() {
    let run = |differs: bool| {
        let mut kernel = recorded();
        let handle = "ext4_journal_start_inode: dev 7,0 blocks 1, rsv_blocks 0, revoke_creds 8, type 1, ino 12, caller f+0x34/0x90";
        kernel.events.push(seen(2, Stream::Journal, handle));
        let mut ours = recorded();
        ours.events.truncate(if differs { 1 } else { 2 });
        Comparison::new(&Script::parse(SCRIPT).unwrap(), kernel, ours, &Exceptions::default())
    };
    let same = run(false);
    assert!(same.passes() && same.events() == 2, "{same}");
    assert_eq!(same.left_out(), Some(2));
    assert!(!run(true).passes());
}

/// A file's visits: `w` begins one, `r` ends it; of the kernel's, those in capitals are idle.
fn visits(told: &str) -> Run {
    let event = |letter: char| match letter.to_ascii_lowercase() {
        'w' => {
            "ext4_writepages: dev 7,0 ino 12 nr_to_write 1 pages_skipped 0 range_start 0 range_end 1 sync_mode 0 for_kupdate 0 range_cyclic 1 writeback_index 0"
        }
        'r' => {
            "ext4_writepages_result: dev 7,0 ino 12 ret 0 pages_written 0 pages_skipped 0 sync_mode 0 writeback_index 0"
        }
        _ => "ext4_sync_fs: dev 7,0 wait 1",
    };
    let events = told.chars().map(|letter| Seen {
        is_idle: letter.is_ascii_uppercase(),
        ..seen(2, Stream::Flusher, event(letter))
    });
    Run { events: events.collect(), answers: Vec::new() }
}

#[test]
fn visits_that_write_are_paired_before_idle_ones() {
    let exceptions =
        "[[exception]]\nevent = 'ext4_writepages'\nside = 'kernel'\nidle = true\nreason = 'r'\n";
    let both = exceptions.to_owned() + &exceptions.replace("writepages", "writepages_result");
    let exceptions = Exceptions::parse(&both).unwrap();
    let script = Script::parse(SCRIPT).unwrap();
    for (kernel, ours, passes) in [
        ("WRwxr", "wxr", true),
        ("wxrWR", "wxr", true),
        ("WRWRwxrWR", "wxr", true),
        ("WRwr", "wr", true),
        ("wrWR", "wr", true),
        ("WRwr", "wrwr", true),
        ("wrwxr", "wxr", false),
        ("WRwxr", "wrwrwxr", false),
    ] {
        let compared = Comparison::new(&script, visits(kernel), visits(ours), &exceptions);
        assert_eq!(compared.passes(), passes, "{kernel} {ours}\n{compared}");
    }
}
