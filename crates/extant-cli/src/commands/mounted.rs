//! What a mount of this program tells of itself and its files: attributes `extant.*`, which no list has.

use std::path::Path;

use rustix::io::Errno;

/// The longest value of an attribute.
const MOST_BYTES: usize = 64 << 10;

/// The value of an attribute; `None` if `path` is in no mount of ours.
///
/// # Errors
/// Of the system, such as that there is no such file.
pub fn attribute(path: &Path, name: &str) -> std::io::Result<Option<String>> {
    let mut bytes = vec![0; MOST_BYTES];
    match rustix::fs::getxattr(path, name, &mut bytes[..]) {
        Ok(len) => Ok(Some(String::from_utf8_lossy(&bytes[..len]).into_owned())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A run of a mounted file's bytes.
pub struct Run {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Where it lies in the image's file system, in bytes; `None` while it has no place.
    pub place: Option<u64>,
    /// Bytes.
    pub len: u64,
    /// `written`, `unwritten`, `delayed` or `inline`.
    pub state: String,
}

/// Where a mounted file's bytes lie; `None` if `path` is in no mount of ours.
///
/// # Errors
/// As [`attribute`].
pub fn map(path: &Path) -> std::io::Result<Option<Vec<Run>>> {
    let Some(first) = attribute(path, "extant.map")? else { return Ok(None) };
    let (mut runs, mut text) = (Vec::new(), first);
    loop {
        let before = runs.len();
        runs.extend(text.lines().filter_map(parse));
        // A value has room for so many runs; the next one begins behind the last.
        let next = runs.last().map_or(0, |run: &Run| run.offset.saturating_add(run.len));
        if runs.len() == before || text.len() < MOST_BYTES / 2 {
            return Ok(Some(runs));
        }
        text = attribute(path, &format!("extant.map.{next}"))?.unwrap_or_default();
    }
}

fn parse(line: &str) -> Option<Run> {
    let mut words = line.split(' ');
    let offset = words.next()?.parse().ok()?;
    let place = words.next()?.parse().ok();
    let len = words.next()?.parse().ok()?;
    Some(Run { offset, place, len, state: words.next()?.to_owned() })
}
