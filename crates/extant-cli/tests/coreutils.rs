//! What cp(1), mv(1), rm(1), ln(1) and others do on a kernel mount is what their namesakes here do to an image: the same
//! trees and the same exit codes.

mod common;

use common::side::compare;

/// Some of everything, on both sides.
const TREE: &str = "
    mkdir -p h/d1/sub h/d2 h/s1 h/s2 I/t I/d I/full/d1/sub
    echo one >h/f; echo two >h/g; echo deep >h/d1/sub/x; echo d1 >h/d1/a; echo d2 >h/d2/a
    echo 1 >h/s1/x; echo 2 >h/s2/x
    ln -s d1 h/ldir; ln -s f h/lf; ln -s nowhere h/dangling
    echo plain >h/plain; ln h/plain h/hard; ln h/plain h/d1/hard
    chmod 640 h/g; chmod 1777 h/d1; chmod 2755 h/d2; chmod 4755 h/f; chown 7:8 h/g
    touch -d 2001-01-01 h/f h/g
    echo old >I/old; chmod 600 I/old; chown 5:6 I/old; echo longer than new >I/two; ln I/two I/again
    ln -s old I/link; ln -s d I/ldir; ln -s nowhere I/dangling; echo x >I/full/d1/a
    mkfifo I/fifo h/fifo; mkdir I/bin; mknod I/null c 1 3";

#[test]
fn cp_copies_what_is_named() {
    compare(
        "cp-names",
        TREE,
        &[
            "cp h/f I:/",
            "cp h/f I:/new",
            "cp h/f h/g I:/d",
            "cp -a h/ldir I:/t/",
            "cp -r h/ldir I:/t/",
            "cp -a h/ldir/ I:/t/",
            "cp h/ldir I:/x1",
            "cp h/lf I:/x",
            "cp -d h/lf I:/x",
            "cp -P h/lf I:/x",
            "cp -a h/dangling I:/x",
            "cp h/dangling I:/x",
            "cp h/f h/d1 h/g I:/",
            "cp h/f h/nope h/g I:/",
            "cp h/nope I:/",
            "cp -r h/d1 I:/t",
            "cp -r h/d1/. I:/t",
            "cp -r h/d1/ I:/t",
            "cp -r h/d1/sub/.. I:/t",
            "cp -r h/d1 I:/new",
            "cp -r h/d1 I:/new/",
            "cp -a h/d1 h/d2 I:/t",
            "cp -a h/. I:/new",
            "cp -a h/. I:/",
            "cp -r h I:/full",
            "cp -rL h/d1 h/ldir I:/t",
            "cp -rH h/ldir I:/t/n",
            "cp -t I:/d h/f h/g",
            "cp -T h/f I:/d",
            "cp -rT h/d1 I:/d",
            "cp -rT h/d1 I:/ldir",
            "cp -r h/d1 I:/ldir",
            "cp h/f I:/ldir",
            "cp h/f I:/ldir/",
            "cp h/f I:/nowhere/",
            "cp h/f I:/old/",
            "cp h/f I:/nowhere/f",
            "cp h/f h/g I:/nodir",
            "cp h/f h/g I:/old",
            "cp -t I:/old h/f",
            "cp h/f/ I:/x",
            "cp --parents h/d1/sub/x I:/t",
            "cp --parents -a h/d1/sub/x I:/t",
            "cp --parents -r h/d1/sub h/d2 I:/t",
            "cp --parents h/f I:/new",
            "cp --parents h/f I:/old",
            "cp -r h/d1 I:/t/",
            "cp -x -a h/d1 I:/t",
        ],
    );
}

#[test]
fn cp_keeps_what_it_is_told_to_keep() {
    compare(
        "cp-keeps",
        TREE,
        &[
            "cp -a h/plain h/hard I:/",
            "cp -r h/plain h/hard I:/",
            "cp -d h/plain h/hard I:/",
            "cp --preserve=links h/plain h/hard h/f I:/",
            "cp -a h/plain h/d1 I:/t",
            "cp -a h I:/",
            "cp -p h/g I:/x",
            "cp -p h/g h/f I:/d",
            "cp -rp h/d1 h/d2 I:/t",
            "cp --preserve=mode h/g I:/x",
            "cp --preserve=ownership h/g I:/x",
            "cp --preserve=mode,ownership h/f I:/x",
            "cp -a --no-preserve=ownership h/g I:/x",
            "cp -a --no-preserve=mode h/g I:/x",
            "cp h/g I:/x",
            "cp -a I:/two I:/again h",
            "cp -a I:/two I:/again I:/d",
            "cp -a I:/. h/out",
            "cp -a I:/two I:/old I:/link h/d2",
            "cp I:/two h/out",
            "cp -p I:/old h/out",
            "cp -r I:/full h/out",
        ],
    );
}

#[test]
fn cp_writes_over_what_is_in_the_way() {
    compare(
        "cp-over",
        TREE,
        &[
            "cp h/f I:/old",
            "cp -a h/f I:/old",
            "cp -p h/g I:/old",
            "cp h/f I:/two",
            "cp -a h/f I:/two",
            "cp -r h/f I:/two",
            "cp -d h/f I:/two",
            "cp h/f I:/link",
            "cp -a h/f I:/link",
            "cp -r h/f I:/link",
            "cp -T h/f I:/link",
            "cp h/f I:/dangling",
            "cp -a h/f I:/dangling",
            "cp -f h/f I:/dangling",
            "cp --remove-destination h/f I:/dangling",
            "cp --remove-destination h/f I:/old",
            "cp --remove-destination h/f I:/link",
            "cp -f h/f I:/old",
            "cp -n h/f I:/old",
            "cp -n h/f I:/fresh",
            "cp -u h/f I:/old",
            "cp -a h/lf I:/old",
            "cp -a h/lf I:/link",
            "cp -r h/lf I:/link",
            "cp -a h/fifo I:/old",
            "cp -r h/fifo I:/x",
            "cp -r h/d1 I:/old",
            "cp -r h/f I:/d/",
            "cp h/f I:/d/../old",
            "cp h/s1/x h/s2/x I:/d",
            "cp -r h/s1 h/s2/x I:/d",
            "cp -r h/s1/. h/s2/. I:/d",
            "cp -r h/d1 h/d2/. I:/d",
            "cp h/f h/f I:/d",
            "cp -r h/d1 h/d1 I:/d",
            "cp -a h/lf h/s1/x h/f I:/d",
            "cp -r h/d1/. I:/full/d1",
            "cp -r h/d1 I:/full",
            "cp -a h/d1 I:/full",
            "cp -a h/d1 I:/full/d1/a",
            "cp I:/old I:/old",
            "cp I:/two I:/again",
            "cp -a I:/two I:/again",
            "cp I:/link I:/old",
            "cp -a I:/link I:/old",
            "cp -a I:/old I:/link",
            "cp -r I:/full I:/full",
            "cp -r I:/full/d1 I:/full",
            "cp -r I:/full I:/full/d1",
            "cp -r I:/full I:/full/new",
            "cp I:/old h/f",
            "cp I:/old h/plain",
            "cp -a I:/old h/plain",
            "cp I:/old h/lf",
            "cp I:/old h/dangling",
            "cp -a I:/link h/f",
            "cp -r I:/full h/f",
            "cp I:/old I:/two h/g",
            "cp I:/old I:/two h/nodir",
            "cp -a I:/full/d1 h/ldir",
            "cp -r I:/full/. h",
        ],
    );
}

#[test]
fn mv_moves_and_refuses_as_on_a_mount() {
    let before = "
        mkdir -p I/d/sub I/e I/full/d; echo f >I/f; echo g >I/g; ln I/f I/hard; echo x >I/full/d/x
        ln -s f I/lf; ln -s d I/ld; ln -s nowhere I/dangling; echo old >I/d/f; touch -d 2001-01-01 I/g
        mkdir I/s1 I/s2; echo 1 >I/s1/x; echo 2 >I/s2/x";
    compare(
        "mv",
        before,
        &[
            "mv I:/f I:/new",
            "mv I:/f I:/e",
            "mv I:/f I:/g I:/e",
            "mv I:/f I:/d",
            "mv -n I:/f I:/d",
            "mv -u I:/g I:/f",
            "mv -u I:/f I:/g",
            "mv I:/f I:/nodir/",
            "mv I:/f I:/g/",
            "mv I:/d I:/nodir/",
            "mv I:/ld/ I:/lc",
            "mv I:/ld I:/lc",
            "mv I:/ld I:/e",
            "mv I:/f I:/hard",
            "mv I:/f I:/f",
            "mv I:/lf I:/f",
            "mv I:/f I:/lf",
            "mv I:/hard I:/lf",
            "mv I:/f I:/dangling",
            "mv I:/f I:/ld",
            "mv -T I:/f I:/ld",
            "mv -T I:/f I:/e",
            "mv -T I:/d I:/e",
            "mv I:/d I:/full",
            "mv I:/d I:/f",
            "mv I:/d I:/d",
            "mv I:/d I:/d/sub",
            "mv I:/d I:/d/sub/x",
            "mv I:/nope I:/x",
            "mv I:/f I:/nope I:/g I:/e",
            "mv I:/f I:/g I:/nodir",
            "mv I:/f I:/g I:/hard",
            "mv -t I:/e I:/f I:/g",
            "mv I:/s1/x I:/s2/x I:/e",
            "mv I:/f/ I:/x",
            "mv I:/e/. I:/x",
            "mv -f I:/f I:/g",
        ],
    );
}

#[test]
fn rm_removes_and_refuses_as_on_a_mount() {
    let before = "
        mkdir -p I/d/sub/deep I/e; echo f >I/f; echo x >I/d/sub/x; ln -s d I/ld; ln -s f I/lf; ln -s nowhere I/dangling
        for n in 1 2 3 4 5; do echo $n >I/d/sub/deep/$n; done; mkfifo I/fifo";
    compare(
        "rm",
        before,
        &[
            "rm I:/f I:/nope I:/lf",
            "rm -f I:/nope",
            "rm -f",
            "rm I:/d",
            "rm -d I:/d",
            "rm -d I:/e",
            "rm -r I:/d",
            "rm -r I:/d/ I:/e/",
            "rm I:/ld",
            "rm I:/ld/",
            "rm -r I:/ld",
            "rm I:/f/",
            "rm -rf I:/d/.",
            "rm -rf I:/d/..",
            "rm -rf I:/d/sub/../.",
            "rm I:/dangling I:/fifo",
            "rm -rf I:/nope/x I:/f",
            "rm -rf I:/f/x",
            "rm -R I:/d",
        ],
    );
}

#[test]
fn ln_links_and_refuses_as_on_a_mount() {
    let before = "
        mkdir -p I/d/sub I/e; echo f >I/f; echo g >I/g; ln I/f I/hard; ln -s d I/ld; ln -s f I/lf; echo df >I/d/f
        ln -s nowhere I/dangling";
    compare(
        "ln",
        before,
        &[
            "ln I:/f I:/new",
            "ln I:/f I:/g",
            "ln -f I:/f I:/g",
            "ln -f I:/f I:/f",
            "ln -f I:/f I:/hard",
            "ln I:/f I:/g I:/e",
            "ln I:/f I:/e/",
            "ln I:/f I:/d",
            "ln -f I:/f I:/d",
            "ln I:/d I:/x",
            "ln I:/nope I:/x",
            "ln I:/lf I:/x",
            "ln -L I:/lf I:/x",
            "ln -t I:/e I:/f I:/g",
            "ln -T I:/f I:/e",
            "ln -s f I:/x",
            "ln -s f I:/g",
            "ln -sf f I:/g",
            "ln -sf e I:/ld",
            "ln -sfn e I:/ld",
            "ln -sn e I:/ld",
            "ln -sfT e I:/ld",
            "ln -s f g I:/e",
            "ln -s f g I:/nodir",
            "ln -s f g I:/f",
            "ln -s f I:/e",
            "ln -sr I:/f I:/d/sub/x",
            "ln -sr I:/d/sub I:/e",
            "ln -sr I:/ld/f I:/e/y",
            "ln -sf nowhere I:/dangling",
            "ln I:/dangling I:/x",
            "ln -f I:/f I:/dangling",
            "ln I:/f I:/new/",
            "ln -s x I:/new/",
            "ln I:/f/ I:/new",
        ],
    );
}

#[test]
fn attributes_change_as_on_a_mount() {
    let before = "
        mkdir -p I/d/sub I/etc; echo f >I/f; echo x >I/d/sub/x; ln -s f I/lf; ln -s d I/ld; ln -s nowhere I/dangling
        chmod 4755 I/f; chmod 2770 I/d; chown 3:4 I/f; ln -s x I/d/sub/lx; mkdir ref; chmod 1751 ref; chown 9:10 ref";
    compare(
        "attributes",
        before,
        &[
            "chmod 644 I:/f I:/d",
            "chmod 0644 I:/d",
            "chmod 00644 I:/d",
            "chmod -v 644 I:/f >/dev/null",
            "chmod +x I:/d/sub/x",
            "chmod +w I:/f",
            "chmod -w I:/d/sub/x",
            "chmod a+w I:/f",
            "chmod -R go-rwx I:/d",
            "chmod -R u=rwX,go=rX I:/d",
            "chmod g-s,o=u I:/d",
            "chmod u=rwx I:/f I:/d",
            "chmod 600 I:/lf",
            "chmod 600 I:/dangling",
            "chmod -R 700 I:/ld",
            "chmod --reference=ref I:/f",
            "chmod 8 I:/f",
            "chmod 644 I:/nope I:/f",
            "chown 1 I:/f",
            "chown 1:2 I:/f I:/d",
            "chown :2 I:/f",
            "chown -R 1:2 I:/d",
            "chown 1 I:/lf",
            "chown -h 1 I:/lf",
            "chown -R 1 I:/ld",
            "chown -RH 1 I:/ld",
            "chown 4294967295 I:/f",
            "chown nobody-here I:/f",
            "chown root:root I:/d",
            "chown -h 1 I:/dangling",
            "chown 1 I:/dangling",
            "chown --reference=ref I:/f",
            "touch I:/new I:/f",
            "touch I:/new/",
            "touch I:/d/",
            "touch I:/f/",
            "touch -c I:/new",
            "touch I:/dangling",
            "touch -h I:/dangling",
            "touch -h I:/nope",
            "touch I:/nodir/x",
            "touch -d 'nonsense' I:/f",
            "touch -t 202001010000 I:/d/new",
            "mkdir I:/",
            "mkdir I:/new I:/d",
            "mkdir -p I:/a/b/c I:/d/sub",
            "mkdir -p I:/f/x",
            "mkdir -p I:/f",
            "mkdir -m 711 I:/new",
            "mkdir -m u=rwx,go=x I:/new",
            "mkdir -m 711 -p I:/a/b",
            "mkdir I:/a/b",
            "mkdir I:/new/",
            "mkdir I:/d/.",
            "mkdir I:/dangling",
            "mkdir I:/d/new",
            "mkdir -m +t I:/new",
        ],
    );
}

#[test]
fn times_are_those_that_were_asked_for() {
    use common::{at, json, ok};
    let scratch = extant_testkit::oracle::Scratch::new("touch-times");
    let image = scratch.path("disk.img");
    ok(["mkfs".as_ref(), image.as_os_str(), "16M".as_ref()]);
    let file = at(&image, "/f");
    let modified = || json(["stat", "--json", &file])[0]["modified"]["seconds"].as_i64();
    for (option, value, seconds) in [
        ("-d", "2026-11-24T02:19+01:00", 1_795_483_140),
        ("-t", "202611240119", 1_795_483_140),
        ("-d", "@5", 5),
    ] {
        ok(["touch", option, value, &file]);
        assert_eq!(modified(), Some(seconds), "{value}");
    }
    ok(["touch", "-d", "@77", &at(&image, "/other")]);
    ok(["touch", "-r", &at(&image, "/other"), &file]);
    assert_eq!(modified(), Some(77));
    ok(["touch", "-d", "now", &file]);
    assert!(modified() > Some(1_700_000_000));
}
