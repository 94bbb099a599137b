//! What the journal says of itself.

use std::io::Write;

use extant_format::jbd2::{JournalSuperblock, LogChecksum};
use extant_image::reader::Reader;
use serde_json::{Value, json};

use crate::output::size;

/// Prints a line, if the journal lies in the image.
pub fn print(reader: &Reader<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let journal = match reader.journal() {
        Ok(Some(journal)) => journal,
        Ok(None) => return Ok(()),
        // What else there is to tell does not depend on it.
        Err(error) => return Ok(writeln!(out, "log         cannot be read: {error}")?),
    };
    let block = u64::from(journal.raw().block_size.get());
    let state = match journal.start() {
        Some(start) => {
            format!("to be replayed from block {start}, transaction {}", journal.sequence().0)
        }
        None => format!("empty, next transaction {}", journal.sequence().0),
    };
    writeln!(
        out,
        "log         {} blocks, {}; {state}",
        journal.max_len(),
        size(block.saturating_mul(journal.max_len().into()))
    )?;
    match &features(&journal)[..] {
        [] => Ok(()),
        features => Ok(writeln!(out, "log has     {}", features.join(" "))?),
    }
}

/// The same for a program; null if there is no journal or it makes no sense.
pub fn json_of(reader: &Reader<'_>) -> Value {
    let Ok(Some(journal)) = reader.journal() else { return Value::Null };
    json!({
        "blocks": journal.max_len(),
        "block_size": journal.raw().block_size.get(),
        "first": journal.first(),
        "start": journal.raw().start.get(),
        "sequence": journal.sequence().0,
        "fast_commit_blocks": journal.fast_commit_blocks(),
        "features": features(&journal),
        "checksums": match journal.format().checksum {
            LogChecksum::None => None,
            _ => Some("crc32c"),
        },
        "checksum": journal.raw().checksum.get(),
        "error": journal.raw().errno.get(),
    })
}

/// The journal's features by the names that dumpe2fs(8) has for them.
fn features(journal: &JournalSuperblock) -> Vec<String> {
    let sets = [journal.raw().compat().to_string(), journal.raw().incompat().to_string()];
    sets.iter().flat_map(|set| set.split_whitespace()).map(str::to_owned).collect()
}
