//! `extant check` against defects that were planted, and against sound images.

use std::collections::BTreeSet;

use extant_image::check::{CheckOptions, Rule, check};
use extant_lab::planted;
use extant_testkit::oracle::{self, Scratch};

/// Every defect in every kind of image is found, named first in its place, and e2fsck agrees.
#[test]
fn planted_defects_are_found_and_named() {
    let scratch = Scratch::new("planted");
    let all = planted::planted();
    assert!(all.len() >= 300, "{} defects", all.len());
    let failures: Vec<String> = all
        .iter()
        .filter_map(|(defect, base)| planted::judge(defect, base, &scratch).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} defects:\n{}",
        failures.len(),
        all.len(),
        failures.join("\n")
    );
}

/// Sound images of every kind give no finding.
#[test]
fn sound_images_give_no_finding() {
    let failures = planted::clean_images(0, 48);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A name that changes its case in a casefolded directory stays where the index looks for it.
#[test]
fn names_of_casefolded_directories_are_hashed_without_their_case() {
    let Some(image) = planted::plant(&planted::OTHER_CASE, "casefold").unwrap() else { return };
    let report = check(&image, &CheckOptions::default()).unwrap();
    assert_eq!(report.findings, []);
    let (scratch, path) = (Scratch::new("case"), "image");
    planted::store(&image, &scratch.path(path));
    assert_eq!(oracle::e2fsck(&scratch.path(path)), Ok(()));
}

/// A rule without a defect has a reason.
#[test]
fn every_rule_has_a_planted_defect() {
    let planted: BTreeSet<Rule> =
        planted::planted().iter().map(|(defect, _)| defect.rule).collect();
    let without: BTreeSet<Rule> =
        Rule::ALL.iter().copied().filter(|rule| !planted.contains(rule)).collect();
    let reasons: BTreeSet<Rule> = planted::WITHOUT.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(without, reasons);
}

/// No bytes make the check panic or go on for ever, and any number of threads say the same.
#[test]
fn damaged_images_are_checked_to_their_end() {
    let failures = planted::damaged_images(0, 120);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
