//! The bounded part of `cargo xtask oracle trace`: the repository's scripts, but those that wait or take long.

use extant_lab::oracle::exceptions::Exceptions;
use extant_lab::oracle::{Other, compare, repository_scripts};
use extant_script::Script;

/// Scripts that wait for clocks, or write until nothing is left.
const LONG: [&str; 3] =
    ["08-enospc-nonda-switch", "37-periodic-writeback", "s13-no-space-is-told-and-nothing-stays"];

/// What so many scripts tell is enough to begin with.
const ENOUGH: usize = 3;

#[test]
fn the_same_script_has_the_kernels_events() {
    let exceptions = Exceptions::ours();
    let (mut wrong, mut excused, mut events) = (Vec::new(), 0, 0);
    for path in repository_scripts().expect("the scripts are in the repository") {
        let name = path.file_stem().expect("scripts have names").to_string_lossy().into_owned();
        if LONG.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a script can be read");
        let script = Script::parse(&text).expect("the repository's scripts are right");
        match compare(&script, Other::Engine, &exceptions, 0) {
            None => return, // skipped by name: no root, no loop device or no tracefs
            Some(Err(reason)) => wrong.push(format!("{name}: {reason}")),
            Some(Ok(found)) => {
                events += found.events();
                excused += found.excused.iter().sum::<usize>();
                if !found.passes() {
                    wrong.push(format!("{name}:\n{found}"));
                }
            }
        }
        if wrong.len() == ENOUGH {
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(excused * 100 <= events, "{excused} of {events} events are excused");
}
