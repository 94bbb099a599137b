//! Files and block devices. Tests that need root or a loop device say so when they are skipped.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::string::{String, ToString};
use std::time::{Duration, Instant};

use alloc::format;
use alloc::vec;
use extant_testkit::skip;
use tempfile::TempDir;

use super::*;
use crate::cast::u64_from;
use crate::device::BlockDeviceExt;
use crate::frame::Frame;

const MIB: u64 = 1 << 20;

fn scratch() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b.img");
    (directory, path)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

#[test]
fn what_was_written_is_read_by_another_opener() {
    let (_directory, path) = scratch();
    let device = FileDevice::create(&path, MIB).unwrap();
    let bytes = pattern(70_144);
    device.write_bytes(512, &bytes).unwrap();
    device.flush().unwrap();
    let reader = FileDevice::open_read_only(&path).unwrap();
    assert_eq!(reader.geometry().len_bytes, MIB);
    assert_eq!(reader.read_vec(513, 70_143).unwrap(), bytes[1..]);
    assert!(matches!(reader.write_bytes(0, &[0; 512]), Err(DeviceError::ReadOnly { .. })));
    reader.flush().unwrap();
}

#[test]
fn requests_that_touch_are_merged_and_all_arrive() {
    let (_directory, path) = scratch();
    let device = FileDevice::create(&path, 8 * MIB).unwrap();
    let bytes = Frame::from(pattern(4 << 20));
    // More slices than one call takes, in a shuffled order, with an empty one and a gap in the middle.
    let mut batch: Vec<_> = (0..4096_usize)
        .map(|n| (n * 1237) % 4096)
        .map(|n| (n, if n < 2048 { 0 } else { MIB }))
        .map(|(n, gap)| {
            let data = vec![
                bytes.slice(n * 1024..n * 1024 + 512),
                bytes.slice(0..0),
                bytes.slice(n * 1024 + 512..(n + 1) * 1024),
            ];
            Request::new(u64_from(n) * 1024 + gap, Operation::Write { data, fua: n == 7 })
        })
        .collect();
    device.run_all(&mut batch).unwrap();
    let mut reads: Vec<_> = (0..4096_u64)
        .map(|n| Request::read(n * 1024, vec![Frame::zeroed(1), Frame::zeroed(1023)]))
        .collect();
    device.run_all(&mut reads).unwrap();
    let read: Vec<u8> = reads
        .into_iter()
        .flat_map(|read| read.into_frames().unwrap())
        .flat_map(|frame| frame.to_vec())
        .collect();
    assert_eq!(&read[..2 << 20], &bytes.as_slice()[..2 << 20]);
    assert!(read[2 << 20..3 << 20].iter().all(|byte| *byte == 0));
    assert_eq!(&read[3 << 20..], &bytes.as_slice()[2 << 20..3 << 20]);
}

#[test]
fn a_truncated_image_fails_only_the_reads_past_its_end() {
    let (_directory, path) = scratch();
    let device = FileDevice::create(&path, 8192).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let mut batch: Vec<_> =
        [0, 4096, 4608].map(|offset| Request::read(offset, vec![Frame::zeroed(512)])).into();
    batch.insert(1, Request::read(512, vec![Frame::zeroed(3584)])); // touches both neighbours
    device.run(&mut batch);
    let results: Vec<_> = batch.iter().map(|request| request.result).collect();
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(DeviceError::Truncated { offset: 5000 })]);
    let line = results[3].unwrap_err().to_string();
    assert_eq!(line, "the image was truncated while in use: nothing to read at byte 5000");
}

#[test]
fn zeroes_and_discard_touch_exactly_their_range() {
    type Way = fn(&FileDevice, u64, u64) -> Result<(), DeviceError>;
    let ways: [Way; 3] = [
        |device, at, len| transfer::send_zeroes(&device.file, at, len),
        |device, at, len| device.run_one(Request::write_zeroes(at, len)),
        |device, at, len| device.run_one(Request::discard(at, len)),
    ];
    for way in ways {
        let (_directory, path) = scratch();
        let device = FileDevice::create(&path, 3 * MIB).unwrap();
        device.write_bytes(0, &vec![9; 3 << 20]).unwrap();
        way(&device, 512, 2 * MIB + 512).unwrap();
        way(&device, 0, 0).unwrap();
        let bytes = device.read_vec(0, 3 << 20).unwrap();
        let (zeros, rest) =
            (&bytes[512..(2 << 20) + 1024], [&bytes[..512], &bytes[(2 << 20) + 1024..]].concat());
        assert!(zeros.iter().all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 9));
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 * MIB);
    }
}

#[test]
fn create_empties_what_was_there() {
    let (_directory, path) = scratch();
    fs::write(&path, [1; 4096]).unwrap();
    let mut device = FileDevice::create(&path, 1024).unwrap();
    assert_eq!(device.read_vec(0, 1024).unwrap(), [0; 1024]);
    device.set_len(2048).unwrap();
    device.write_bytes(1536, &[1; 512]).unwrap();
    assert!(matches!(device.write_bytes(2048, &[1; 512]), Err(DeviceError::OutOfRange { .. })));
}

#[test]
fn only_files_and_block_devices_are_opened() {
    let (directory, path) = scratch();
    let line = |result: Result<FileDevice, OpenError>| result.unwrap_err().to_string();
    assert!(
        line(FileDevice::open(&path)).ends_with("a b.img: No such file or directory (os error 2)")
    );
    assert!(
        line(FileDevice::open(directory.path()))
            .ends_with("is not a regular file or a block device")
    );
    assert!(line(FileDevice::create("/dev/null", 0)).ends_with("/dev/null is not a regular file"));
}

#[test]
fn a_file_that_cannot_have_its_length_does_not_stay() {
    let (_directory, path) = scratch();
    let error = FileDevice::create(&path, u64::MAX / 2 + 1).unwrap_err();
    assert!(matches!(error, OpenError::Length { .. }), "{error}");
    assert!(error.to_string().contains("cannot be 9223372036854775808 bytes long: "), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_second_writer_is_refused_in_the_same_process() {
    let (_directory, path) = scratch();
    let first = FileDevice::create(&path, MIB).unwrap();
    let second = FileDevice::open(&path).unwrap_err();
    let us = std::process::id();
    assert!(
        matches!(&second, OpenError::Locked { holder: Some(holder), .. } if holder.pid == us),
        "{second}"
    );
    assert!(
        second
            .to_string()
            .ends_with(&format!("is in use by this very process (pid {us}); stop that first"))
    );
    FileDevice::open_read_only(&path).unwrap();
    assert!(matches!(FileDevice::open_read_locked(&path), Err(OpenError::Locked { .. })));
    assert!(matches!(FileDevice::create(&path, 0), Err(OpenError::Locked { .. })));
    assert_eq!(fs::metadata(&path).unwrap().len(), MIB);
    drop(first);
    let readers = [
        FileDevice::open_read_locked(&path).unwrap(),
        FileDevice::open_read_locked(&path).unwrap(),
    ];
    let refused = FileDevice::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { reads: true, .. }), "{refused}");
    assert!(refused.to_string().contains("is being read by this very process"), "{refused}");
    drop(readers);
    FileDevice::open(&path).unwrap();
}

#[test]
fn a_reader_keeps_writers_out_unless_there_is_one() {
    let (_directory, path) = scratch();
    let writer = FileDevice::create(&path, MIB).unwrap();
    let (beside, found) = FileDevice::open_beside(&path).unwrap();
    assert!(matches!(found, Some(OpenError::Locked { reads: false, .. })), "{found:?}");
    drop(writer);
    assert!(beside.writer().unwrap().is_none()); // and has the lock now
    assert!(matches!(FileDevice::open(&path), Err(OpenError::Locked { reads: true, .. })));
    let (other, found) = FileDevice::open_beside(&path).unwrap();
    assert!(found.is_none());
    drop((beside, other));
    FileDevice::open(&path).unwrap();
}

#[test]
fn a_lock_of_another_process_is_named() {
    let (_directory, path) = scratch();
    drop(FileDevice::create(&path, MIB).unwrap());
    let mut command = Command::new("flock");
    let Ok(mut holder) =
        command.arg("--exclusive").arg("--no-fork").arg(&path).args(["sleep", "60"]).spawn()
    else {
        return skip("no flock program");
    };
    let mut refusal = FileDevice::open(&path);
    for _ in 0..200 {
        if refusal.as_ref().is_err_and(|error| error.to_string().contains("sleep")) {
            break;
        }
        drop(refusal);
        std::thread::sleep(std::time::Duration::from_millis(10));
        refusal = FileDevice::open(&path);
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    let line = refusal.unwrap_err().to_string();
    assert!(
        line.ends_with(&format!("is in use by sleep (pid {}); stop that first", holder.id())),
        "{line}"
    );
}

#[test]
fn a_record_lock_of_another_process_is_honoured() {
    let (_directory, path) = scratch();
    drop(FileDevice::create(&path, MIB).unwrap());
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+b')\nfcntl.lockf(f,fcntl.LOCK_EX,1,100)\nprint('held',flush=True)\nsys.stdin.read()";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut holder) = command.spawn() else {
        return skip("no python3 program");
    };
    let mut held = [0; 4];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
    let line = FileDevice::open(&path).unwrap_err().to_string();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(line.contains(&format!("(pid {})", holder.id())), "{line}");
    FileDevice::open(&path).unwrap();
}

/// A loop device that is detached when dropped.
struct Loop(String);

impl Loop {
    fn attach(path: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(path).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_string();
        if output.status.success() && !name.is_empty() {
            return Some(Self(name));
        }
        skip("cannot attach a loop device (not root?)");
        None
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        assert!(Command::new("losetup").args(["--detach", &self.0]).status().unwrap().success());
    }
}

#[test]
fn an_image_attached_to_a_loop_device_is_refused() {
    let (directory, path) = scratch();
    drop(FileDevice::create(&path, MIB).unwrap());
    let (second_name, renamed) =
        (directory.path().join("second"), directory.path().join("renamed"));
    fs::hard_link(&path, &second_name).unwrap();
    let Some(attached) = Loop::attach(&path) else { return };
    let refused = |path: &Path| match FileDevice::open(path) {
        Err(OpenError::Attached { loop_device, .. }) => loop_device == Path::new(&attached.0),
        _ => false,
    };
    assert!(refused(&path) && refused(&second_name));
    fs::rename(&path, &renamed).unwrap();
    assert!(refused(&renamed));
    fs::remove_file(&renamed).unwrap();
    assert!(refused(&second_name), "the loop device's own name of it is deleted");
    fs::write(&renamed, [0; 1024]).unwrap();
    FileDevice::open(&renamed).unwrap();
    let line = FileDevice::open(&second_name).unwrap_err().to_string();
    assert!(
        line.ends_with(&format!("is attached to {0}; run `losetup -d {0}` first", attached.0)),
        "{line}"
    );
    drop(attached);
    FileDevice::open(&second_name).unwrap();
}

/// What a mount leaves behind for a moment.
#[test]
fn a_loop_device_that_goes_with_its_last_user_says_so() {
    let (_directory, path) = scratch();
    drop(FileDevice::create(&path, MIB).unwrap());
    let Some(attached) = Loop::attach(&path) else { return };
    let goes_by_itself = || match FileDevice::open(&path) {
        Err(OpenError::Attached { goes_by_itself, .. }) => Some(goes_by_itself),
        _ => None,
    };
    assert_eq!(goes_by_itself(), Some(false));
    let user = File::open(&attached.0).unwrap();
    drop(attached);
    assert_eq!(goes_by_itself(), Some(true));
    drop(user);
    // Somebody who looks at all devices may hold it for a moment.
    let until = Instant::now() + Duration::from_secs(10);
    while goes_by_itself().is_some() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    FileDevice::open(&path).unwrap();
}

/// A mount that is undone when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

#[test]
fn a_mounted_image_and_its_loop_device_are_refused() {
    let (directory, path) = scratch();
    drop(FileDevice::create(&path, 4 * MIB).unwrap());
    let at = directory.path().join("mount point");
    fs::create_dir(&at).unwrap();
    let formatted = Command::new("mke2fs").args(["-q", "-F"]).arg(&path).status();
    if !formatted.is_ok_and(|status| status.success()) {
        return skip("no mke2fs program");
    }
    let Some(attached) = Loop::attach(&path) else { return };
    if !Command::new("mount").arg(&attached.0).arg(&at).status().unwrap().success() {
        return skip("cannot mount");
    }
    let mounted = Mounted(at.clone());
    for path in [path.as_path(), Path::new(&attached.0)] {
        let line = FileDevice::open(path).unwrap_err().to_string();
        assert!(
            line.ends_with(&format!("is mounted at {0}; run `umount {0}` first", at.display())),
            "{line}"
        );
    }
    drop(mounted);
    drop(attached);
    // A file system in user space names the image as its source, and its server has the image locked.
    let _server = FileDevice::open(&path).unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs"]).arg(&path).arg(&at).status().unwrap().success()
    );
    let mounted = Mounted(at.clone());
    assert!(
        matches!(FileDevice::open(&path), Err(OpenError::Mounted { mount_point, .. }) if mount_point == at)
    );
    drop(mounted);
}

#[test]
fn a_block_device_is_held_exclusively() {
    let (_directory, path) = scratch();
    let image = FileDevice::create(&path, MIB).unwrap();
    let Some(attached) = Loop::attach(&path) else { return };
    let device = FileDevice::open(&attached.0).unwrap();
    assert_eq!(device.geometry().len_bytes, MIB);
    assert!(matches!(
        FileDevice::open(&attached.0),
        Err(OpenError::Claimed { .. } | OpenError::Locked { .. })
    ));
    device.write_bytes(4096, &[7; 4096]).unwrap();
    device.run_one(Request::write_zeroes(4608, 512)).unwrap();
    device.run_one(Request::discard(5120, 512)).unwrap();
    device.flush().unwrap();
    assert_eq!(image.read_vec(4096, 1536).unwrap(), [[7; 512], [0; 512], [0; 512]].concat());
    drop(device);
}

#[test]
fn errors_of_the_system_carry_their_number() {
    let (_directory, path) = scratch();
    let device = FileDevice::create(&path, MIB).unwrap();
    let read_end =
        FileDevice { file: File::open(&path).unwrap(), path, geometry: device.geometry() };
    let mut batch = [
        Request::write_frame(512, Frame::zeroed(512)),
        Request::write_frame(1024, Frame::zeroed(512)),
        Request::read(0, vec![Frame::zeroed(512)]),
    ];
    read_end.run(&mut batch);
    let failure =
        |offset| Err(DeviceError::Io { operation: OperationKind::Write, offset, errno: Some(9) });
    assert_eq!(batch.map(|request| request.result), [failure(512), failure(1024), Ok(())]);
    let line = failure(512).unwrap_err().to_string();
    assert_eq!(line, "write at byte 512 failed: Bad file descriptor (os error 9)");
    device.file.write_at(b"x", 0).unwrap();
}
