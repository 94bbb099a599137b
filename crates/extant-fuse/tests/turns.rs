//! Which thread serves which request, seen through a mount of a backend that takes its time.
#![expect(clippy::unwrap_used, reason = "a test that cannot run fails")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use extant::Errno;
use extant_fuse::abi::{self, InHeader, opcode};
use extant_fuse::{Answer, Arguments, Backend, Mount, THREADS, serve, unmount};
use extant_testkit::oracle::Scratch;
use extant_testkit::skip;

/// A directory in which looking for a name that begins with `slow` takes a while, and one with `bad` ends in a panic.
#[derive(Default)]
struct Slow {
    served_by: Mutex<Vec<ThreadId>>,
    is_stopped: Mutex<bool>,
    alarm: Mutex<Option<Thread>>,
    ticks: AtomicUsize,
}

const SLOW: Duration = Duration::from_millis(500);

impl Backend for Slow {
    fn answer(
        &self,
        header: &InHeader,
        mut args: Arguments<'_>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        match header.opcode {
            opcode::INIT => answer.put(&abi::agree(&args.take()?, false)),
            opcode::GETATTR => {
                let attr = abi::Attr { ino: 1, mode: 0o040_755, nlink: 2, ..Default::default() };
                answer.put(&abi::AttrOut { attr_valid: 3600, attr, ..Default::default() });
            }
            opcode::LOOKUP => {
                let name = args.name()?;
                self.served_by.lock().unwrap().push(thread::current().id());
                assert!(!name.starts_with(b"bad"), "as a defect would");
                if name.starts_with(b"slow") {
                    thread::sleep(SLOW);
                }
                return Err(Errno::NOENT);
            }
            _ => return Err(Errno(38)),
        }
        Ok(())
    }

    fn forget(&self, _: u64, _: u64) {}

    fn stop(&self) {
        *self.is_stopped.lock().unwrap() = true;
    }

    fn tick(&self) -> Duration {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(3600)
    }

    fn ticks_in(&self, clock: Thread) {
        *self.alarm.lock().unwrap() = Some(clock);
    }
}

/// Runs `test` on a mount; what the server says when it ends. `None` where nothing can be mounted.
fn mounted(backend: &Slow, test: impl FnOnce(&Path)) -> Option<std::io::Result<()>> {
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        skip("no /dev/fuse");
        return None;
    }
    let scratch = Scratch::new("turns");
    let point = scratch.path("mount");
    fs::create_dir(&point).unwrap();
    let source = "turns".to_owned();
    let (read_only, allow_other, words) = (false, false, Vec::new());
    let mount =
        Mount { source, point: point.clone(), read_only, allow_other, words, backing: None };
    let Ok(device) = mount.attach() else {
        skip("nothing may be mounted");
        return None;
    };
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(backend, &device, THREADS));
        test(&point);
        unmount(&point).unwrap();
        Some(server.join().unwrap())
    })
}

fn look(point: &Path, name: &str) -> Option<i32> {
    fs::symlink_metadata(point.join(name)).unwrap_err().raw_os_error()
}

#[test]
fn a_slow_request_keeps_nobody_else_waiting() {
    let backend = Slow::default();
    let ended = mounted(&backend, |point| {
        thread::scope(|scope| {
            let start = Instant::now();
            for n in 0..4 {
                // Under the directory's lock there is one at a time, but not for other names.
                scope.spawn(move || assert_eq!(look(point, &format!("slow-{n}")), Some(2)));
            }
            thread::sleep(Duration::from_millis(50));
            assert_eq!(look(point, "fast"), Some(2));
            assert!(start.elapsed() < SLOW, "{:?}", start.elapsed());
        });
    });
    if let Some(ended) = ended {
        ended.unwrap();
    }
}

#[test]
fn one_thread_serves_as_long_as_it_can() {
    let backend = Slow::default();
    let ended = mounted(&backend, |point| {
        for n in 0..1000 {
            assert_eq!(look(point, &format!("fast-{n}")), Some(2));
        }
    });
    if ended.is_some() {
        let served_by = backend.served_by.into_inner().unwrap();
        let by_first = served_by.iter().filter(|thread| **thread == served_by[0]).count();
        // Where the machine stops a thread for long, another may come.
        assert!(by_first * 10 >= served_by.len() * 9, "{by_first} of {}", served_by.len());
    }
}

#[test]
fn a_panic_is_an_error_and_ends_what_is_written() {
    let backend = Slow::default();
    let ended = mounted(&backend, |point| {
        assert_eq!(look(point, "bad"), Some(5)); // EIO
        assert_eq!(look(point, "fast"), Some(2));
    });
    if let Some(ended) = ended {
        assert!(ended.is_err());
        assert!(*backend.is_stopped.lock().unwrap());
    }
}

#[test]
fn who_ticks_comes_at_once_when_woken() {
    let backend = Slow::default();
    mounted(&backend, |_| {
        let ticks = |wanted| {
            let start = Instant::now();
            while backend.ticks.load(Ordering::Relaxed) < wanted {
                assert!(start.elapsed() < Duration::from_secs(60), "no tick {wanted}");
                thread::sleep(Duration::from_millis(1));
            }
        };
        ticks(1); // after a second by itself, and never again
        for wanted in 2..5 {
            backend.alarm.lock().unwrap().as_ref().unwrap().unpark();
            ticks(wanted);
        }
    });
}
