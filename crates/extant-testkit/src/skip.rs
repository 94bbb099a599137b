//! [`skip`]: tests that cannot run here say so by name.

use std::io::Write;

/// Reports that the running test is skipped, with `reason`; the closing line of `cargo xtask ci` counts it.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("a test"));
    eprintln!("skipped {line}");
    if let Some(list) = std::env::var_os("EXTANT_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(list);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.expect("the list of skipped tests can be written");
    }
}
