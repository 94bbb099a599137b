//! How free space is divided, as e2freefrag(8) tells it.

use std::io::Write;

use extant_format::PhysicalRange;
use extant_image::map::{FreeSpace, Kind, Owner, Visitor, survey};
use extant_image::reader::{ReadError, Reader};
use serde_json::{Value, json};

use super::unwrapped;
use crate::failure;
use crate::output::size;

/// Free space, and what kept bitmaps from being read.
struct Counting {
    free: FreeSpace,
    troubles: Vec<ReadError>,
}

impl Visitor for Counting {
    fn wants_inodes(&self) -> bool {
        false
    }

    fn group(&mut self, group: extant_format::BlockGroup, bits: Option<&[u8]>) {
        self.free.group(group, bits);
    }

    fn used(&mut self, _: Owner, _: Kind, _: PhysicalRange) {}

    fn trouble(&mut self, error: ReadError) {
        self.troubles.push(error);
    }
}

fn count(reader: &Reader<'_>) -> Counting {
    let mut counting = Counting { free: FreeSpace::new(reader.geometry()), troubles: Vec::new() };
    survey(reader, &mut counting);
    counting.free.finish();
    counting
}

/// Prints the measure of free space and its runs by size.
pub fn print(reader: &Reader<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Counting { free, troubles } = count(reader);
    let bytes = |blocks: u64| size(blocks.saturating_mul(reader.geometry().block_size.into()));
    writeln!(
        out,
        "\nfree space  {} blocks in {} runs: shortest {}, longest {}, on average {}",
        free.blocks,
        free.runs,
        bytes(free.shortest),
        bytes(free.longest),
        bytes(free.average())
    )?;
    writeln!(out, "{:>24} {:>12} {:>14} {:>8}", "runs of", "runs", "blocks", "share")?;
    for (from, runs, blocks) in free.histogram() {
        let hundredths = u128::from(blocks) * 10_000 / u128::from(free.blocks.max(1));
        writeln!(
            out,
            "{:>24} {runs:>12} {blocks:>14} {:>5}.{:02}%",
            format!("{} to {}", bytes(from), bytes(from.saturating_mul(2))),
            hundredths / 100,
            hundredths % 100
        )?;
    }
    let worst = troubles.into_iter().map(|error| failure::tell(&unwrapped(error))).max();
    match worst {
        None => Ok(()),
        Some(code) => Err(failure::Told(code).into()),
    }
}

/// The same for a program.
pub fn json_of(reader: &Reader<'_>) -> Value {
    let Counting { free, troubles } = count(reader);
    let classes = free
        .histogram()
        .map(|(from, runs, blocks)| json!({ "from_blocks": from, "runs": runs, "blocks": blocks }));
    json!({
        "blocks": free.blocks,
        "runs": free.runs,
        "shortest": free.shortest,
        "longest": free.longest,
        "average": free.average(),
        "classes": classes.collect::<Vec<_>>(),
        "unreadable": troubles.len(),
    })
}
