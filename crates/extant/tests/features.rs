//! `docs/features.md` says what the code does.

use std::fmt::Write;

use extant::{Support, feature_support};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/features.md");

#[test]
fn the_document_is_what_the_code_does() {
    let expected = document();
    if std::env::var_os("EXTANT_BLESS").is_some() {
        std::fs::write(DOCUMENT, &expected).unwrap();
    }
    let found = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        found == expected,
        "docs/features.md is old: EXTANT_BLESS=1 cargo test -p extant --test features"
    );
}

fn document() -> String {
    let mut text = String::from(
        "# Features of an image\n\n\
         What a mount does with each feature, as `mke2fs` names it. Made from the code by\n\
         `EXTANT_BLESS=1 cargo test -p extant --test features`.\n\n\
         - **write**: read and written. For a *compat* feature: kept, or of no effect.\n\
         - **read**: opened read-only, with one line that names the feature.\n\
         - **refuse**: not opened. So is every unknown *incompat* feature; an unknown *ro_compat* one is read.\n\n\
         | feature | word | support |\n| --- | --- | --- |\n",
    );
    for (word, name, support) in feature_support() {
        let support = match support {
            Support::Write => "write",
            Support::Read => "read",
            Support::Refuse => "refuse",
        };
        writeln!(text, "| {name} | {word} | {support} |").expect("text grows");
    }
    text
}
