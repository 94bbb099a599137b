//! How many requests an operation takes: what a mount's speed comes down to, since each costs ten times what the server does.
#![expect(clippy::unwrap_used, reason = "a test that cannot run fails")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use extant::{Errno, MemoryDevice, MountOptions};
use extant_fuse::abi::{InHeader, opcode};
use extant_fuse::{Answer, Arguments, Backend, Mount, Owners, Server, Settings, serve};
use extant_image::{MkfsOptions, mkfs};
use extant_testkit::oracle::Scratch;
use extant_testkit::skip;

/// A server whose requests are counted.
struct Counted {
    server: Server,
    requests: Mutex<BTreeMap<u32, u32>>,
}

impl Backend for Counted {
    fn answer(
        &self,
        header: &InHeader,
        arguments: Arguments<'_>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        *self.requests.lock().unwrap().entry(header.opcode).or_default() += 1;
        self.server.answer(header, arguments, answer)
    }

    fn forget(&self, id: u64, times: u64) {
        self.server.forget(id, times);
    }

    fn stop(&self) {
        self.server.stop();
    }

    fn tick(&self) -> Duration {
        self.server.tick()
    }
}

/// An operation, and its requests when it is done so often.
type Case<'a> = (&'a str, &'a dyn Fn(u32), &'a [(u32, u32)]);

/// Mounts an empty volume and counts each of the operations, done [`TIMES`] times.
fn count(cases: impl FnOnce(&Path, &dyn Fn(Case<'_>))) {
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return skip("no /dev/fuse");
    }
    let device = MemoryDevice::new(64 << 20);
    mkfs(&device, &MkfsOptions::default()).unwrap();
    let filesystem = MountOptions::new().mount(device).unwrap();
    let settings = Settings {
        valid_seconds: 3600,
        writeback_cache: false,
        synchronous: false,
        read_only: false,
        master: rustix::process::geteuid().as_raw(),
        owners: Owners::default(),
        on_error: None,
    };
    let server = Server::new(filesystem, settings).unwrap();
    let backend = Counted { server, requests: Mutex::default() };
    let scratch = Scratch::new("requests");
    let point = scratch.path("mount");
    fs::create_dir(&point).unwrap();
    let (source, words) = ("requests".to_owned(), Vec::new());
    let (read_only, allow_other) = (false, false);
    let mount =
        Mount { source, point: point.clone(), read_only, allow_other, words, backing: None };
    let Ok(channel) = mount.attach() else { return skip("nothing may be mounted") };
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&backend, &channel, 1));
        let mounted = Mounted(&point);
        cases(&point, &|(name, operation, expected)| {
            backend.requests.lock().unwrap().clear();
            (0..TIMES).for_each(operation);
            let mut found = backend.requests.lock().unwrap().clone();
            // One more of what is asked once, or comes late.
            found.values_mut().for_each(|count| *count = (*count + 1) / TIMES);
            found.retain(|_, count| *count > 0);
            assert_eq!(found, expected.iter().copied().collect(), "{name}");
        });
        drop(mounted);
        serving.join().unwrap().unwrap();
    });
}

/// Ends the mount also when an assertion has failed, so that the test ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = extant_fuse::detach(self.0);
    }
}

const TIMES: u32 = 20;

#[test]
fn each_operation_takes_its_requests_and_no_more() {
    use opcode::*;
    count(|point, check| {
        fs::create_dir(point.join("d")).unwrap();
        let path = |name: &str, n: u32| point.join(format!("d/{name}-{n}"));
        let create = |n| fs::write(path("file", n), [7; 4096]).unwrap();
        // A change of a directory makes the kernel forget whose it is: the next one asks.
        let made = [(LOOKUP, 1), (GETATTR, 1), (CREATE, 1), (WRITE, 1), (RELEASE, 1)];
        check(("create and write", &create, &made));
        let look = |n| assert!(fs::metadata(path("file", n)).unwrap().is_file());
        check(("stat of what was written", &look, &[(STATX, 1)]));
        check(("stat", &look, &[]));
        check(("look for what is not there", &|_| drop(fs::metadata(path("no", 0))), &[]));
        let file = File::options().write(true).open(path("file", 0)).unwrap();
        check(("write", &|_| file.write_all_at(&[8; 4096], 0).unwrap(), &[(WRITE, 1)]));
        check((
            "write, fsync",
            &|_| {
                file.write_all_at(&[8; 512], 0).unwrap();
                file.sync_all().unwrap();
            },
            &[(WRITE, 1), (FSYNC, 1)],
        ));
        let set_mode = |n| {
            fs::set_permissions(path("file", n), fs::Permissions::from_mode(0o640)).unwrap();
        };
        check(("chmod", &set_mode, &[(SETATTR, 1)]));
        if rustix::process::geteuid().is_root() {
            // The kernel asks for capabilities, which another owner would not keep.
            let set_owner = |n| chown(path("file", n), Some(1), Some(1)).unwrap();
            check(("chown", &set_owner, &[(GETXATTR, 1), (SETATTR, 1)]));
        }
        let rename = |n| fs::rename(path("file", n), path("moved", n)).unwrap();
        check(("rename", &rename, &[(LOOKUP, 1), (GETATTR, 1), (RENAME, 1)]));
        let remove = |n| fs::remove_file(path("moved", n)).unwrap();
        check(("unlink", &remove, &[(GETATTR, 1), (UNLINK, 1)]));
        let make_dir = |n| fs::create_dir(path("dir", n)).unwrap();
        check(("mkdir", &make_dir, &[(LOOKUP, 1), (GETATTR, 1), (MKDIR, 1)]));
        let remove_dir = |n| fs::remove_dir(path("dir", n)).unwrap();
        check(("rmdir", &remove_dir, &[(GETATTR, 1), (RMDIR, 1)]));
    });
}
