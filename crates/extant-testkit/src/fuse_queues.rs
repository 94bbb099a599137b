//! [`FuseQueues`]: the kernel's FUSE queues over io_uring, which it has switched off by default.

use std::fs::{self, File};
use std::io::{Read, Write};

use crate::skip;

/// As long as this lives the kernel offers queues to mounts that are made. One at a time on a machine: the next waits.
#[derive(Debug)]
pub struct FuseQueues {
    /// Locked.
    parameter: File,
    was_off: bool,
}

impl FuseQueues {
    /// Switches them on; `None`, after a skip, where the kernel has none, or for who is not root or may not use io_uring.
    pub fn switch_on() -> Option<Self> {
        let allowed = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        if allowed.is_ok_and(|text| text.trim() != "0") {
            skip("io_uring is switched off");
            return None;
        }
        let path = "/sys/module/fuse/parameters/enable_uring";
        let opened = File::options().read(true).write(true).open(path);
        let switched = opened.and_then(|mut parameter| {
            parameter.lock()?;
            let mut before = [0];
            parameter.read_exact(&mut before)?;
            parameter.write_all(b"Y")?;
            Ok(Self { parameter, was_off: before != *b"Y" })
        });
        switched.inspect_err(|why| skip(&format!("FUSE over io_uring: {why}"))).ok()
    }

    /// Has the kernel offer none for a while.
    pub fn pause(&self, pauses: bool) {
        let word: &[u8] = if pauses { b"N" } else { b"Y" };
        (&self.parameter).write_all(word).expect("it could be written before");
    }
}

impl Drop for FuseQueues {
    fn drop(&mut self) {
        if self.was_off {
            let _ = self.parameter.write_all(b"N");
        }
    }
}
