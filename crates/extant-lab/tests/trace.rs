//! The bounded part of `cargo xtask oracle trace`: the repository's scripts, but those that wait or take long.
//!
//! `oracle/open.list` names the scripts whose events still differ, each with how many do at the most. A script that is not
//! in it has to be the same; a list that promises less than is true fails too, so that what was reached is kept.

use std::collections::BTreeMap;

use extant_lab::oracle::exceptions::Exceptions;
use extant_lab::oracle::{Other, compare, repository_scripts};
use extant_script::Script;

/// Scripts that wait for clocks, or write until nothing is left.
const LONG: [&str; 3] =
    ["08-enospc-nonda-switch", "37-periodic-writeback", "s13-no-space-is-told-and-nothing-stays"];

#[test]
fn the_same_script_has_the_kernels_events() {
    let open: BTreeMap<&str, usize> = include_str!("../oracle/open.list")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_once(' ').expect("a script and a number"))
        .map(|(name, count)| (name, count.trim().parse().expect("a number")))
        .collect();
    let exceptions = Exceptions::ours();
    let (mut wrong, mut excused, mut events) = (Vec::new(), 0, 0);
    for path in repository_scripts().expect("the scripts are in the repository") {
        let name = path.file_stem().expect("scripts have names").to_string_lossy().into_owned();
        if LONG.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a script can be read");
        let script = Script::parse(&text).expect("the repository's scripts are right");
        let allowed = open.get(name.as_str()).copied();
        match compare(&script, Other::Engine, &exceptions, allowed.unwrap_or(0)) {
            None => return, // skipped by name: no root, no loop device or no tracefs
            Some(Err(_)) if allowed == Some(0) => {} // the engine cannot run it
            Some(Err(reason)) => wrong.push(format!("{name}: {reason}")),
            Some(Ok(found)) => {
                events += found.events();
                excused += found.excused.iter().sum::<usize>();
                let differ = found.differences() + found.answers();
                match allowed {
                    None if !found.passes() => wrong.push(format!("{name}:\n{found}")),
                    Some(allowed) if differ > allowed => {
                        wrong.push(format!("{name}: {differ} differ, not {allowed}:\n{found}"));
                    }
                    Some(0) => wrong.push(format!("{name}: runs now; take it out of open.list")),
                    Some(_) if differ == 0 => {
                        wrong.push(format!("{name}: is the same now; take it out of open.list"));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(excused * 100 <= events, "{excused} of {events} events are excused");
}
