//! The same script on the engine and on real files gives the same answers.
#![expect(clippy::unwrap_used, reason = "a test that fails may say so in few words")]

use std::sync::Arc;

use extant::MountOptions;
use extant_device::MemoryDevice;
use extant_image::{MkfsOptions, mkfs};
use extant_script::{Answer, DirectoryTarget, Errno, Operation, Target, Volume, parse};

fn volume() -> Volume {
    let device = MemoryDevice::new(8 << 20);
    let options = MkfsOptions { usage: Some("default".to_owned()), ..MkfsOptions::default() };
    mkfs(&device, &options).unwrap();
    Volume::mount(Arc::new(device), MountOptions::new()).unwrap()
}

fn answers(target: &mut dyn Target, script: &[Operation]) -> Vec<Result<Answer, Errno>> {
    script.iter().map(|operation| target.apply(operation)).collect()
}

#[test]
fn a_script_gives_the_same_answers_everywhere() {
    let script = parse(
        "open a create, write a 0 100, append a 50, read a 0 4096, fill a 1000 3, rename a b\n\
         append a 1, mkdir d 700, create d/c 4640, truncate d/c 5000, read d/c 4990 100\n\
         create d/c, write none 0 1, open b read, link b d/b, symlink x y, rmdir d\n\
         hold b, unlink b, release, fsync d, fdatasync d/c, sync, seek-hole d/c 9000, close a",
    );
    let folder = tempfile::tempdir().unwrap();
    let real = answers(&mut DirectoryTarget::new(folder.path()), &script);
    let ours = answers(&mut volume(), &script);
    for (operation, (real, ours)) in script.iter().zip(real.iter().zip(&ours)) {
        assert_eq!(real, ours, "{operation}");
    }
    assert_eq!(real[3], Ok(Answer::Count(150)));
    assert_eq!(real[11], Err(Errno(17)));
}

#[test]
fn lengths_that_nothing_can_hold_are_refused_without_memory_for_them() {
    let script = parse(
        "open a create, write a 0 99999G, append a 99999G, fill a 99999G 3, write a 16777215G 1\n\
         write a 18446744073709551615 9, read a 0 99999G, read a 18446744073709551615 9\n\
         xattr a user.long 99999G, tick 33554432, close a",
    );
    let ours = answers(&mut volume(), &script);
    let no_space = Err(Errno(28));
    assert_eq!(ours[1..4], [no_space.clone(), no_space.clone(), no_space]);
    assert_eq!(ours[5], Err(Errno(22)));
    assert!(matches!(ours[6], Ok(Answer::Count(1..))), "{:?}", ours[6]);
    assert_eq!((&ours[7], &ours[8]), (&Err(Errno(22)), &Err(Errno(7))));
    assert!(extant_script::Script::parse("tick 99999G").is_err());
}

#[test]
fn a_store_through_a_mapping_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut target = DirectoryTarget::new(folder.path());
    let script = parse("create a, truncate a 10000, store a 5000");
    for answer in answers(&mut target, &script) {
        if answer == Err(Errno::NOT_SUPPORTED) {
            return; // no perl, or another kind of processor
        }
        answer.unwrap();
    }
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap()[5000], b'Z');
}
