//! What a server gives up once it is mounted, for whoever made the image may have found a way to make it misbehave.
//!
//! All that it needs is open by then: the image, `/dev/fuse`, the kernel's log, and the pipes to the process that unmounts
//! (`ending`). What the kernel does not have is left out.
//!
//! # Invariants
//! Entered while the process has one thread: those that it starts later inherit all of it.
//! # Source
//! prctl(2), capabilities(7), landlock(7).

use std::ops::RangeInclusive;
use std::os::fd::RawFd;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Gives it up, for good, and returns the names of what could not be given up. Rings with descriptors between two can still be used.
pub fn enter(rings: Option<RangeInclusive<RawFd>>) -> Vec<&'static str> {
    // The filter refuses the calls of all that is before it.
    let steps: [Step<'_>; 5] = [
        ("no core dumps", &leave_no_core),
        ("no_new_privs", &|| rustix::thread::set_no_new_privs(true).is_ok()),
        ("landlock", &use_no_path),
        ("capabilities", &drop_capabilities),
        ("seccomp", &|| refuse_calls(rings.as_ref())),
    ];
    steps.into_iter().filter_map(|(name, step)| (!step()).then_some(name)).collect()
}

/// Its name, and what does it; whether it could.
type Step<'a> = (&'static str, &'a dyn Fn() -> bool);

/// A core would have the bytes of files in it, and a debugger would see them.
fn leave_no_core() -> bool {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = rustix::process::setrlimit(Resource::Core, none);
    // Programs that take cores by a pipe get them whatever the limit is.
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    limited.and(hidden).is_ok()
}

/// No path can be opened or changed, no port used, no process outside sent a signal.
fn use_no_path() -> bool {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|rules| rules.scope(Scope::from_all(LANDLOCK)));
    let status = rules.and_then(Ruleset::create).and_then(|rules| rules.restrict_self());
    status.is_ok_and(|status| status.ruleset == RulesetStatus::FullyEnforced)
}

/// What is asked for: Linux 6.12, and less of an older kernel.
const LANDLOCK: ABI = ABI::V6;

fn drop_capabilities() -> bool {
    let _ = rustix::thread::clear_ambient_capability_set(); // goes with the others
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).is_ok()
}

/// No crate has filters for other machines.
fn refuse_calls(rings: Option<&RangeInclusive<RawFd>>) -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
    return super::calls::refuse(rings);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    return {
        let _ = rings;
        false
    };
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use rustix::io::Errno;

    use super::*;

    /// In a process of its own, since it is for good.
    #[test]
    fn who_is_in_the_sandbox_reaches_nothing_outside() {
        const INSIDE: &str = "EXTANT_IN_THE_SANDBOX";
        const OWN: &str =
            "commands::mount::sandbox::tests::who_is_in_the_sandbox_reaches_nothing_outside";
        if std::env::var_os(INSIDE).is_some() {
            return reach_out();
        }
        let mut inside = Command::new(std::env::current_exe().unwrap());
        inside.args(["--exact", OWN, "--nocapture"]).env(INSIDE, "1");
        let output = inside.output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && words.contains("1 passed"), "{output:?}");
    }

    fn code<T>(outcome: io::Result<T>) -> Option<i32> {
        outcome.err().and_then(|error| error.raw_os_error())
    }

    fn reach_out() {
        let own = std::env::current_exe().unwrap();
        let kept = File::open("/dev/null").unwrap();
        let null = File::options().read(true).write(true).open("/dev/null");
        let entry = || extant_sys::Entry::new(null.as_ref().unwrap().as_fd(), 0, 1 << 12);
        let entries = [entry(), entry()];
        if use_no_path() {
            assert_eq!(code(File::open(&own)), Some(13)); // EACCES, of landlock
            assert_eq!(code(std::net::TcpListener::bind("127.0.0.1:0")), Some(13));
        } else {
            extant_testkit::skip("this kernel has no landlock of Linux 6.12 or later");
        }
        assert!(drop_capabilities() && leave_no_core());
        let rings = entries[0].as_ref().ok().map(|entry| entry.ring()..=entry.ring());
        assert!(refuse_calls(rings.as_ref()), "a kernel without seccomp");
        let refused = Some(1); // EPERM
        assert_eq!(code(File::open(&own)), refused);
        assert_eq!(code(fs::set_permissions(&own, Permissions::from_mode(0o755))), refused);
        assert_eq!(code(kept.set_permissions(Permissions::from_mode(0o666))), refused);
        assert_eq!(code(fs::rename(&own, "/tmp/other")), refused);
        assert_eq!(code(Command::new("true").spawn()), refused);
        assert_eq!(code(UdpSocket::bind("127.0.0.1:0")), refused);
        assert_eq!(code(UnixStream::pair()), refused);
        assert_eq!(code(std::env::set_current_dir("/")), refused);
        assert_eq!(code(extant_fuse::unmount(&own)), refused);
        if let [Ok(mut known), Ok(mut other)] = entries {
            assert!(known.exchange().is_ok() && known.exchange().is_ok());
            assert_eq!((code(other.check()), code(other.exchange().map(drop))), (refused, refused));
        } else {
            extant_testkit::skip("this kernel has no io_uring that takes commands");
        }
        assert_eq!(code(entry().map(drop)), refused);
        let parent = rustix::process::getppid().unwrap();
        assert_eq!(rustix::process::test_kill_process(parent).err(), Some(Errno::PERM));
        assert_eq!(rustix::process::test_kill_process(rustix::process::getpid()).err(), None);
        // What a server does go on doing.
        assert_eq!(std::thread::spawn(|| 5).join().unwrap(), 5);
        assert!(kept.metadata().is_ok() && !vec![0_u8; 64 << 20].is_empty());
    }
}
