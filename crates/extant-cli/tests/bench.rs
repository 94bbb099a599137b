//! The `bench` command: the same figures in every run of the model, a page that needs nothing else, JSON for programs.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use extant_testkit::oracle::Scratch;

use common::extant;

const SMALL: [&str; 6] = ["bench", "delalloc", "--size", "4M", "--writers", "1,8"];

#[test]
fn the_model_gives_the_same_figures_in_every_run() {
    let scratch = Scratch::new("bench");
    let page = scratch.path("page.html");
    let run = |seed: &str| {
        let page = ["--html", page.to_str().unwrap()];
        let output = extant([&SMALL[..], &["--model-only", "--seed", seed], &page].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run("1");
    assert_eq!(text, run("1"));
    assert_ne!(text, run("2"));
    for words in [
        "against immediate allocation as the kernel does it:",
        "against one block at a time without preallocation:",
        "What changes the factor",
        "write cache off, depth 1, none",
        "When delaying gains nothing",
        "queue depth (NCQ)",
        "mq-deadline",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }

    let page = std::fs::read_to_string(&page).unwrap();
    for outside in ["<script", "http:", "https:", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    assert!(page.matches("<svg").count() >= 9);
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("id=\"factor\""));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn an_image_file_is_measured_and_judged() {
    let scratch = Scratch::new("bench");
    let folder = scratch.path("");
    let options = ["--real-only", "--rounds", "1", "--json", "--folder", folder.to_str().unwrap()];
    let output = extant([&SMALL[..], &options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["modelled_disk"].is_null());
    let rows = json["image_file"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        for mode in ["delayed", "immediate", "block_by_block"] {
            let outcome = &row["modes"][mode];
            assert!(outcome["write_seconds"].as_f64().unwrap() > 0.0, "{outcome}");
            assert!(outcome["extents"].as_u64() >= row["writers"].as_u64(), "{outcome}");
        }
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the image is gone");
}

#[test]
fn a_page_that_cannot_be_written_is_told_before_anything_is_measured() {
    common::fails(["bench", "delalloc", "--html", "/nowhere/page.html"], 1, "/nowhere/page.html");
}
