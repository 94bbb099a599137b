//! `extant stat --live`: what a mount is doing, as its server counts it.
//!
//! The server answers for an attribute of the mount's root, `extant.counters`; so whoever may look into the mount may ask, from
//! any mount namespace, and there is neither a socket nor a file.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value};

use super::mounted;

/// How often to tell, and how.
pub struct How {
    /// For a program to read: one object a line.
    pub json: bool,
    /// Only once.
    pub once: bool,
    pub interval: Duration,
}

/// Tells of the mount that `at` lies in, a line each time, until a signal ends it or the mount is gone.
pub fn run(at: &Path, how: &How, out: &mut dyn Write) -> anyhow::Result<()> {
    loop {
        let name = || at.display().to_string();
        let told = mounted::attribute(at, "extant.counters").with_context(name)?;
        let told = told.context("no mount of extant").with_context(name)?;
        let counters = told.lines().filter_map(|line| line.split_once(' '));
        if how.json {
            let number = |text: &str| text.parse::<u64>().map_or(Value::Null, Value::from);
            let object: Map<String, Value> =
                counters.map(|(name, value)| (name.to_owned(), number(value))).collect();
            writeln!(out, "{}", Value::from(object))?;
        } else {
            let words: Vec<_> = counters.map(|(name, value)| format!("{name}={value}")).collect();
            writeln!(out, "{}", words.join(" "))?;
        }
        out.flush()?;
        if how.once {
            return Ok(());
        }
        std::thread::sleep(how.interval);
    }
}

/// Seconds, with a fraction or without.
pub fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.01);
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    interval.ok_or_else(|| format!("`{text}` is no interval; write seconds, such as 1 or 0.5"))
}
