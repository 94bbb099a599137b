use super::*;

#[test]
fn words_become_operations() {
    let script = parse("create a 600, write a 5 10, fsync /");
    assert_eq!(script[0], Operation::Create { path: b"a".to_vec(), mode: 0o600 });
    assert_eq!(script[1], Operation::Write { path: b"a".to_vec(), offset: 5, len: 10, tag: 2 });
    assert_eq!(script[2], Operation::Fsync { path: Vec::new() });
}

const ALL: &str = "\
image 268435456 -b 1024 -O bigalloc,^has_journal
mount nodelalloc,noatime
warm
create a\\x20b 600
open a create direct
mknod c c 1 3 640
mknod b b 8 17 600
mknod p pipe 644
mknod s socket 644
xattr a user.n =\\x00\\x01v\\x2c
unxattr a user.n
trace
write a 0 100 tag 7
append a 5 tag 8
fill a 4096 10 tag 9
store a 17
read a 0 10
truncate a 3
fallocate a 0 4096 extend
fallocate a 0 4096 punch
fallocate a 0 4096 zero-keep-size
mkdir d 755
symlink a d/l
link a c
rename a d/b
unlink c
rmdir d
chmod a 4755
chown a 1 4000000000
times a -1.000000005 6.999999999
journal-data a on
hold a
release
fsync /
fdatasync a
sync-range a 0 0 before write after
sync
seek-data a 0
seek-hole a 5
fiemap a
stat a
statfs
forget-status a
drop-caches
drop-caches inodes
shutdown 1
promise a
tick 31
remount
close a
";

#[test]
fn what_is_printed_reads_the_same() {
    let script = Script::parse(ALL).unwrap();
    assert_eq!(script.to_string(), ALL);
    assert_eq!(script.settings.setup, 8);
    assert_eq!(script.settings.mkfs, ["-b", "1024", "-O", "bigalloc,^has_journal"]);
}

#[test]
fn every_known_word_is_printed_again() {
    for (_, word, _) in Allocation::WORDS {
        let line = format!("fallocate a 1 2 {word}");
        assert_eq!(parse(&line)[0].to_string(), line);
    }
    for (_, word) in OpenFlag::WORDS {
        let line = format!("open a {word}");
        assert_eq!(parse(&line)[0].to_string(), line);
    }
}

#[test]
fn numbers_have_units() {
    assert_eq!(parse("truncate a 10M")[0], parse("truncate a 10485760")[0]);
    assert!(Script::parse("truncate a 99999999999999G").is_err());
}

#[test]
fn a_wrong_line_is_named() {
    for (text, line) in [
        ("create a\n\n# fine\nwrite a zero 10", 4),
        ("creat a", 1),
        ("create a\nimage 5M", 2),
        ("mount a b", 1),
        ("fallocate a 0 1 sideways", 1),
        ("open a,open b dirct", 1),
        ("create \\xzz", 1),
    ] {
        assert_eq!(Script::parse(text).unwrap_err().line, line, "{text}");
    }
}
