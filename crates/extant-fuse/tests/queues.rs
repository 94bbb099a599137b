//! The kernel's queues over io_uring, with a server that tells by which thread a request came, and takes as long as it is told.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use extant::Errno;
use extant_fuse::abi::{self, InHeader, opcode};
use extant_fuse::{Answer, Arguments, Backend, Mount};
use extant_testkit::oracle::Scratch;
use extant_testkit::{FuseQueues, skip};

/// Files `file-N` with the inode number N, whose attributes have to be asked for each time.
#[derive(Default)]
struct Names {
    threads: Mutex<BTreeSet<String>>,
    /// Requests for `file-1` that wait, and whether they may go on.
    slow: Mutex<(u32, bool)>,
    changed: Condvar,
    stopped: Mutex<bool>,
}

impl Names {
    fn wait(&self) {
        let mut slow = self.slow.lock().unwrap();
        slow.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(slow, |slow| !slow.1).unwrap());
    }

    fn let_go(&self) {
        self.slow.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn until_waiting(&self, count: u32) {
        let slow = self.slow.lock().unwrap();
        drop(self.changed.wait_while(slow, |slow| slow.0 < count).unwrap());
    }
}

fn attr(ino: u64) -> abi::Attr {
    let mode = if ino == abi::ROOT_ID { 0o040_755 } else { 0o100_644 };
    abi::Attr { ino, mode, nlink: 1, ..Default::default() }
}

impl Backend for Names {
    fn answer(
        &self,
        header: &InHeader,
        mut args: Arguments<'_>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let name = thread::current().name().unwrap_or("").to_owned();
        self.threads.lock().unwrap().insert(name);
        match header.opcode {
            opcode::INIT => answer.put(&abi::agree(&args.take()?, false)),
            opcode::GETATTR => {
                answer.put(&abi::AttrOut { attr: attr(header.nodeid), ..Default::default() });
            }
            opcode::LOOKUP => {
                let number = args.name()?.strip_prefix(b"file-").ok_or(Errno::NOENT)?;
                let number = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
                let nodeid = number.ok_or(Errno::NOENT)?;
                match nodeid {
                    1 => self.wait(),
                    2 => panic!("as this test wants it"),
                    _ => {}
                }
                // Not root's number, which the kernel would not believe.
                let nodeid = nodeid + 1000;
                answer.put(&abi::EntryOut { nodeid, attr: attr(nodeid), ..Default::default() });
            }
            opcode::DESTROY => {}
            _ => return Err(Errno(38)),
        }
        Ok(())
    }

    fn forget(&self, _: u64, _: u64) {
        let name = thread::current().name().unwrap_or("").to_owned();
        self.threads.lock().unwrap().insert(format!("forgets in {name}"));
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap() = true;
    }

    fn tick(&self) -> Duration {
        Duration::from_secs(3600)
    }
}

/// Mounts, has `work` done, unmounts, and returns what the server said. `offered` tells whether the kernel offers queues when it is
/// mounted.
fn served(
    depth: u16,
    offered: bool,
    work: impl FnOnce(&Path, &Names),
) -> Option<(Arc<Names>, std::io::Result<()>)> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        skip("mounting needs root and /dev/fuse");
        return None;
    }
    let queues = FuseQueues::switch_on()?;
    let scratch = Scratch::new("queues");
    let point = scratch.path("mount");
    fs::create_dir(&point).unwrap();
    let words = Vec::new();
    let mount = Mount {
        source: "names".into(),
        point: point.clone(),
        read_only: false,
        allow_other: false,
        words,
        backing: None,
    };
    if !offered {
        queues.pause(true);
    }
    let mut channel = mount.attach().unwrap();
    queues.pause(false);
    if let Err(why) = channel.use_rings(Some(depth)) {
        drop(channel);
        extant_fuse::detach(&point).unwrap();
        skip(&why.to_string());
        return None;
    }
    let names = Arc::new(Names::default());
    let outcome = thread::scope(|scope| {
        let serving = scope.spawn(|| extant_fuse::serve(&*names, &channel, 4));
        work(&point, &names);
        names.let_go();
        extant_fuse::unmount(&point).unwrap();
        serving.join().unwrap()
    });
    Some((names, outcome))
}

fn number(point: &Path, number: u64) -> std::io::Result<u64> {
    fs::metadata(point.join(format!("file-{number}"))).map(|found| found.ino())
}

#[test]
fn requests_come_by_the_queues_and_what_is_forgotten_by_the_device() {
    let look = |point: &Path, _: &Names| {
        assert_eq!(number(point, 7).unwrap(), 1007);
        assert!(fs::metadata(point.join("none")).is_err());
        // Has the kernel forget all that nobody uses.
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    };
    let Some((names, outcome)) = served(1, true, look) else { return };
    outcome.unwrap();
    let threads = names.threads.lock().unwrap();
    assert!(threads.iter().any(|name| name.starts_with("queue ")), "{threads:?}");
    assert!(!threads.iter().any(|name| name.starts_with("forgets in queue")), "{threads:?}");
}

#[test]
fn a_kernel_that_does_not_offer_queues_is_served_by_the_device() {
    let look = |point: &Path, _: &Names| assert_eq!(number(point, 7).unwrap(), 1007);
    let Some((names, outcome)) = served(2, false, look) else { return };
    outcome.unwrap();
    let threads = names.threads.lock().unwrap();
    assert!(!threads.iter().any(|name| name.contains("queue")), "{threads:?}");
}

/// Up to as many as a queue has entries, on one processor too.
#[test]
fn a_slow_request_keeps_no_other_waiting() {
    let look = |point: &Path, names: &Names| {
        let mut one = rustix::thread::CpuSet::new();
        one.set(0);
        thread::scope(|scope| {
            // Whoever is started stays there too.
            let _ = rustix::thread::sched_setaffinity(None, &one);
            let slow = scope.spawn(|| number(point, 1).unwrap());
            names.until_waiting(1);
            for n in 10..200 {
                assert_eq!(number(point, n).unwrap(), 1000 + n);
            }
            names.let_go();
            assert_eq!(slow.join().unwrap(), 1001);
        });
    };
    let Some((_, outcome)) = served(2, true, look) else { return };
    outcome.unwrap();
}

#[test]
fn a_panic_is_an_error_of_its_request_and_stops_the_volume() {
    let look = |point: &Path, _: &Names| {
        assert_eq!(number(point, 2).unwrap_err().raw_os_error(), Some(5)); // EIO
        assert_eq!(number(point, 3).unwrap(), 1003);
    };
    let Some((names, outcome)) = served(2, true, look) else { return };
    assert!(outcome.unwrap_err().to_string().contains("panicked"));
    assert!(*names.stopped.lock().unwrap());
}
