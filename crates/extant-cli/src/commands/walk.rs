//! A file, or everything below it too.

use anyhow::Context;
use extant::InodeHandle;

use crate::address::ImagePath;
use crate::failure::{self, Told};
use crate::interrupt;

/// Does something to a file, and to everything below it if asked; what is below comes first. What fails is told, and the
/// others go on.
pub fn each(
    start: InodeHandle,
    recursive: bool,
    at: &ImagePath,
    change: &mut dyn FnMut(&InodeHandle, &ImagePath) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut worst = 0;
    let mut stack = vec![(start, at.clone(), false)];
    while let Some((handle, at, listed)) = stack.pop() {
        interrupt::check()?;
        let done = if !listed && recursive && handle.is_dir() {
            list(&handle, &at, &mut stack)
        } else {
            change(&handle, &at)
        };
        if let Err(error) = done {
            if failure::is_broken_pipe(&error) {
                return Err(error);
            }
            worst = failure::tell(&error.context(at.to_string())).max(worst);
        }
    }
    if worst == 0 { Ok(()) } else { Err(Told(worst).into()) }
}

/// Puts a directory on the stack once more, and what is in it on top.
fn list(
    handle: &InodeHandle,
    at: &ImagePath,
    stack: &mut Vec<(InodeHandle, ImagePath, bool)>,
) -> anyhow::Result<()> {
    stack.push((handle.clone(), at.clone(), true));
    for entry in handle.read_dir()? {
        let entry = entry?;
        let below = at.join(entry.name());
        let found = handle.lookup(entry.name()).and_then(|found| {
            found.check_parent(handle.number())?;
            Ok(found)
        });
        let found = found.with_context(|| below.to_string())?;
        stack.push((found, below, false));
    }
    Ok(())
}
