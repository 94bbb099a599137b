//! `extant trace`: what it prints can be read by those it is for, and the image stays as it is.
#![expect(clippy::unwrap_used, reason = "a test that fails may say so in few words")]

mod common;

use std::path::{Path, PathBuf};

use common::{at, check, extant, fails, ok};
use extant_testkit::oracle::Scratch;
use serde_json::Value;

const SCRIPT: &str =
    "# One file.\ncreate b\ntrace\nopen a create\nwrite a 0 10000\nunlink none\nfsync a\nclose a\n";

fn prepared(name: &str) -> (Scratch, PathBuf, PathBuf) {
    let scratch = Scratch::new(name);
    let (image, script) = (scratch.path("disk.img"), scratch.path("a.script"));
    ok(["mkfs", image.to_str().unwrap(), "32M"]);
    std::fs::write(&script, SCRIPT).unwrap();
    (scratch, image, script)
}

fn trace(script: &Path, image: &Path, more: &[&str]) -> String {
    ok([&["trace", script.to_str().unwrap(), image.to_str().unwrap()], more].concat())
}

#[test]
fn lines_are_the_kernels_and_the_image_stays() {
    let (_scratch, image, script) = prepared("trace");
    let before = std::fs::read(&image).unwrap();
    let text = trace(&script, &image, &[]);
    let marks: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("mark_write: "))
        .map(|line| line.1)
        .collect();
    assert_eq!(
        marks,
        [
            "OP open a create",
            "RET done",
            "OP write a 0 10000 tag 3",
            "RET 10000",
            "OP unlink none",
            "RET No such file or directory (os error 2)",
            "OP fsync a",
            "RET done",
            "OP close a",
            "RET done"
        ]
    );
    assert!(text.contains(": ext4_es_lookup_extent_enter: dev 7,0 ino "), "{text}");
    assert!(std::fs::read(&image).unwrap() == before);
}

#[test]
fn the_image_changes_only_if_asked() {
    let (_scratch, image, script) = prepared("trace-write");
    trace(&script, &image, &["--write", "-o", "nodelalloc"]);
    check(&image);
    assert_eq!(ok(["ls", &at(&image, "/")]), "a\nb\nlost+found\n");
    // What stays is dated as everything else on this machine.
    let modified: u64 = ok(["stat", "-c", "%Y", &at(&image, "/a")]).trim().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs().abs_diff(modified) < 1000, "{modified}");
}

#[test]
fn each_event_is_explained() {
    let (_scratch, image, script) = prepared("trace-explain");
    let text = trace(&script, &image, &["--explain"]);
    let events = text
        .lines()
        .filter(|line| line.contains("] .....") && !line.contains("mark_write"))
        .count();
    let reasons = text.lines().filter(|line| line.starts_with("#   ")).count();
    assert!(events > 20 && reasons == events, "{events} events, {reasons} reasons");
    assert!(!text.contains("no more is known"), "{text}");
}

#[test]
fn json_is_a_record_a_line() {
    let (_scratch, image, script) = prepared("trace-json");
    let text = trace(&script, &image, &["--format", "json", "--explain"]);
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0]["operation"], "open a create");
    let events: Vec<&Value> = records.iter().filter(|record| record["event"].is_string()).collect();
    assert!(events.iter().all(|event| event["why"].is_string() && event["fields"].is_object()));
    assert!(
        records
            .windows(2)
            .all(|pair| pair[0]["microseconds"].as_f64() <= pair[1]["microseconds"].as_f64())
    );
}

#[test]
fn spans_of_the_chrome_form_are_balanced() {
    let (_scratch, image, script) = prepared("trace-chrome");
    let shown: Value =
        serde_json::from_str(&trace(&script, &image, &["--format", "chrome"])).unwrap();
    let mut depth = std::collections::HashMap::new();
    for event in shown["traceEvents"].as_array().unwrap() {
        let open = depth.entry(event["tid"].as_u64()).or_insert(0_i32);
        *open += match event["ph"].as_str() {
            Some("B") => 1,
            Some("E") => -1,
            _ => 0,
        };
        assert!(*open >= 0, "{event}");
    }
    assert!(depth.values().all(|open| *open == 0), "{depth:?}");
}

#[test]
fn a_wrong_script_is_told_by_line() {
    let (_scratch, image, script) = prepared("trace-wrong");
    std::fs::write(&script, "open a create\nwrote a 0 1\n").unwrap();
    let arguments = |image: &Path| ["trace".into(), script.clone(), image.to_owned()];
    fails(arguments(&image), 2, "line 2: no operation: wrote a 0 1");
    std::fs::write(&script, "unlink none\ntrace\nsync\n").unwrap();
    fails(arguments(&image), 1, "line 1: unlink none: No such file");
    std::fs::write(&script, "sync\n").unwrap();
    fails(arguments(&script), 3, "");
    fails(["trace", "/no/script", image.to_str().unwrap()], 2, "/no/script: no such file");
    assert!(!extant(["trace", script.to_str().unwrap()]).status.success());
}

/// By the names of the kernel's files.
#[test]
fn counters_are_told_at_the_end() {
    let (_scratch, image, script) = prepared("trace-counters");
    std::fs::write(&script, "open a create\nwrite a 0 40K\n").unwrap();
    let text = trace(&script, &image, &["--counters"]);
    let told = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("# {name}: ")));
    let block = 1024; // what mke2fs takes for so small a volume
    assert_eq!(told("delayed_allocation_blocks").unwrap(), (40 * 1024 / block).to_string());
    assert_eq!(told("mb_stats/reqs"), Some("0"));
    assert!(told("lifetime_write_kbytes").unwrap().parse::<u64>().unwrap() > 0);
    let json = trace(&script, &image, &["--counters", "--format", "json"]);
    let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last["counters"]["delayed_allocation_blocks"], 40);
    let chrome: Value =
        serde_json::from_str(&trace(&script, &image, &["--counters", "--format", "chrome"]))
            .unwrap();
    assert_eq!(chrome["otherData"], last["counters"]);
}
