//! Extended attributes of files of this machine.
//!
//! Source: listxattr(2), getxattr(2).

use alloc::vec;
use alloc::vec::Vec;

use rustix::io::Errno;

/// Names and values of the `wanted` attributes that `list` names and `get` reads, each into a buffer that it is given. What this
/// process may not read is left out, as by cp(1).
pub fn xattrs(
    list: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> Result<usize, Errno>,
    wanted: impl Fn(&[u8]) -> bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = grow(list).unwrap_or_default();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && wanted(name));
    names.filter_map(|name| Some((name.to_vec(), grow(|buffer| get(name, buffer)).ok()?))).collect()
}

/// Calls until the buffer is large enough.
fn grow(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut buffer = vec![0; LARGEST_XATTR];
    let len = call(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Linux keeps values, and lists of names, below this.
const LARGEST_XATTR: usize = 64 << 10;
