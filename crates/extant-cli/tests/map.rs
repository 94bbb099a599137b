//! `extant info` and `extant map` against dumpe2fs, e2freefrag, debugfs and filefrag, and pictures against a browser.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{at, json, ok};
use extant_testkit::oracle::{self, Scratch};
use serde_json::Value;

/// Kinds of images, by mkfs.ext4's options.
const KINDS: [&[&str]; 6] = [
    &[],
    &["-b", "1024"],
    &["-t", "ext2"],
    &["-O", "bigalloc", "-C", "16384"],
    &["-O", "meta_bg,^resize_inode,inline_data", "-b", "1024"],
    &["-t", "ext3", "-b", "2048", "-O", "^flex_bg", "-g", "4096"],
];

/// An image of a kind with a few files; `None` where there is no mkfs.ext4.
fn image(scratch: &Scratch, kind: &[&str]) -> Option<PathBuf> {
    let image = scratch.path("disk.img");
    oracle::mkfs(&image, 64 << 20, kind)?;
    let holes = scratch.path("holes");
    let file = fs::File::create(&holes).unwrap();
    for n in 0..300_u64 {
        file.write_all_at(&[1; 4096], n * 12288).unwrap();
    }
    fs::write(scratch.path("small"), "few bytes").unwrap();
    fs::write(scratch.path("large"), vec![3; 5_000_000]).unwrap();
    ok(["mkdir", &at(&image, "/d")]);
    for name in ["holes", "small", "large"] {
        let from = scratch.path(name);
        ok(["cp", "--sparse=always", from.to_str().unwrap(), &at(&image, &format!("/d/{name}"))]);
    }
    common::check(&image);
    Some(image)
}

/// What a program prints, line by line.
fn lines(program: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let output = oracle::run(program, arguments)?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The number behind the words that a line starts with.
fn number_after(lines: &[String], words: &str) -> Option<u64> {
    let line = lines.iter().find(|line| line.trim_start().starts_with(words))?;
    let digits: String =
        line.trim_start()[words.len()..].trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[test]
fn info_has_the_numbers_of_dumpe2fs() {
    for kind in KINDS {
        let scratch = Scratch::new("info-dumpe2fs");
        let Some(image) = image(&scratch, kind) else { return };
        let name = image.to_str().unwrap();
        let Some(theirs) = lines("dumpe2fs", &[name]) else { return };
        let ours = json(["info", "--json", "--groups", name]);
        for (words, field) in [
            ("Inode count:", "inodes"),
            ("Block count:", "blocks"),
            ("Reserved block count:", "reserved_blocks"),
            ("Free blocks:", "free_blocks"),
            ("Free inodes:", "free_inodes"),
            ("Block size:", "block_size"),
            ("Blocks per group:", "blocks_per_group"),
            ("Inodes per group:", "inodes_per_group"),
            ("Inode size:", "inode_size"),
            ("First inode:", "first_inode"),
            ("Mount count:", "mounts"),
        ] {
            assert_eq!(ours[field].as_u64(), number_after(&theirs, words), "{kind:?} {words}");
        }
        let journal = number_after(&theirs, "Total journal blocks:");
        assert_eq!(ours["journal"]["blocks"].as_u64(), journal, "{kind:?}");
        let features = theirs.iter().find(|line| line.starts_with("Filesystem features:")).unwrap();
        let mut words: Vec<&str> = features.split_whitespace().skip(2).collect();
        let mut own: Vec<&str> = ours["features"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        words.sort_unstable();
        own.sort_unstable();
        assert_eq!(own, words, "{kind:?}");
        groups_agree(&ours, &theirs);
    }
}

/// Compares each group's line of free blocks, and where its structures are.
fn groups_agree(ours: &Value, theirs: &[String]) {
    let theirs: Vec<Vec<u64>> = theirs
        .iter()
        .filter(|line| line.contains(" free blocks, ") || line.contains(" free clusters, "))
        .map(|line| {
            line.split(", ")
                .map(|part| part.trim().split(' ').next().unwrap().parse().unwrap())
                .collect()
        })
        .collect();
    let ours = ours["groups"].as_array().unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (own, line) in ours.iter().zip(theirs) {
        let fields = ["free_clusters", "free_inodes", "directories", "unused_inodes"];
        for (field, number) in fields.iter().zip(line) {
            assert_eq!(own[field].as_u64(), Some(number), "{own} {field}");
        }
    }
}

#[test]
fn free_space_is_divided_as_e2freefrag_says() {
    // It finds no free run at all where clusters have several blocks.
    for kind in KINDS.into_iter().filter(|kind| !kind.contains(&"bigalloc")) {
        let scratch = Scratch::new("free-e2freefrag");
        let Some(image) = image(&scratch, kind) else { return };
        let name = image.to_str().unwrap();
        let Some(theirs) = lines("e2freefrag", &[name]) else { return };
        let info = json(["info", "--json", "--free", name]);
        let (ours, block) = (&info["free_space"], info["block_size"].as_u64().unwrap());
        let kilobytes = |field: &str| ours[field].as_u64().map(|blocks| blocks * block / 1024);
        assert_eq!(ours["blocks"].as_u64(), number_after(&theirs, "Free blocks:"), "{kind:?}");
        assert_eq!(ours["runs"].as_u64(), number_after(&theirs, "Num. free extent:"), "{kind:?}");
        assert_eq!(kilobytes("longest"), number_after(&theirs, "Max. free extent:"), "{kind:?}");
        assert_eq!(kilobytes("shortest"), number_after(&theirs, "Min. free extent:"), "{kind:?}");
        let rows = theirs.iter().filter(|line| line.contains("...")).map(|line| {
            let behind = line.split(':').nth(1).unwrap();
            let mut words = behind.split_whitespace().map(|word| word.parse::<u64>().ok());
            (words.next().flatten().unwrap(), words.next().flatten().unwrap())
        });
        let own = ours["classes"].as_array().unwrap().iter();
        let own =
            own.map(|class| (class["runs"].as_u64().unwrap(), class["blocks"].as_u64().unwrap()));
        assert_eq!(own.collect::<Vec<_>>(), rows.collect::<Vec<_>>(), "{kind:?}");
    }
}

/// Numbers in the columns of debugfs's `ex`: level, depth, entry, entries, logical from and to, physical, length.
fn ex_line(line: &str) -> Option<[u64; 8]> {
    let line = line.replace(['/', '-'], " ");
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    match numbers[..] {
        [level, depth, entry, entries, from, to, at, _, len] => {
            Some([level, depth, entry, entries, from, to, at, len])
        }
        [level, depth, entry, entries, from, to, at, len] => {
            Some([level, depth, entry, entries, from, to, at, len])
        }
        _ => None,
    }
}

#[test]
fn trees_are_as_debugfs_shows_them() {
    for kind in [KINDS[0], KINDS[1], KINDS[3]] {
        let scratch = Scratch::new("tree-debugfs");
        let Some(image) = image(&scratch, kind) else { return };
        for path in ["/d/holes", "/d/large", "/d"] {
            let Some(theirs) = oracle::debugfs(&image, &format!("ex {path}")) else { return };
            let theirs: Vec<_> = theirs.lines().filter_map(ex_line).collect();
            let ours = json(["map", "--json", "--tree", &at(&image, path)]);
            let number = |step: &Value, field: &str| step[field].as_u64();
            let ours: Vec<_> = ours
                .as_array()
                .unwrap()
                .iter()
                .map(|step| {
                    let (from, len) =
                        (number(step, "logical").unwrap(), number(step, "len").unwrap());
                    let at = number(step, "block").or(number(step, "physical")).unwrap();
                    let position = ["level", "depth", "entry", "entries"]
                        .map(|field| number(step, field).unwrap());
                    let [level, depth, entry, entries] = position;
                    [level, depth, entry, entries, from, from + len - 1, at, len]
                })
                .collect();
            assert!(!ours.is_empty());
            assert_eq!(ours, theirs, "{kind:?} {path}");
            let text = ok(["map", "--tree", &at(&image, path)]);
            assert_eq!(text.lines().count(), ours.len() + 2, "{text}");
        }
    }
}

#[test]
fn runs_cover_every_block_once() {
    for kind in [KINDS[0], KINDS[1], KINDS[2], KINDS[4], KINDS[5]] {
        let scratch = Scratch::new("map-runs");
        let Some(image) = image(&scratch, kind) else { return };
        let name = image.to_str().unwrap();
        let info = json(["info", "--json", name]);
        let runs = json(["map", "--json", "--runs", name]);
        let mut next = u64::from(info["block_size"] == 1024);
        let mut free = 0;
        for run in runs.as_array().unwrap() {
            let (start, len) = (run["start"].as_u64().unwrap(), run["len"].as_u64().unwrap());
            assert_eq!(start, next, "{kind:?} {run}");
            next = start + len;
            free += if run["kind"] == "free" { len } else { 0 };
        }
        assert_eq!(
            (Some(next), Some(free)),
            (info["blocks"].as_u64(), info["free_blocks"].as_u64()),
            "{kind:?}"
        );
        let inode = json(["stat", "--json", &at(&image, "/d/large")])[0]["inode"].clone();
        let of_file = runs
            .as_array()
            .unwrap()
            .iter()
            .filter(|run| run["inode"] == inode && run["kind"] == "files");
        let blocks: u64 = of_file.map(|run| run["len"].as_u64().unwrap()).sum();
        assert_eq!(
            Some(blocks),
            info["block_size"].as_u64().map(|block| 5_000_000_u64.div_ceil(block))
        );
        let one = json(["map", "--json", "--runs", "--blocks", "100-119", name]);
        let lens = one.as_array().unwrap().iter().map(|run| run["len"].as_u64().unwrap());
        assert_eq!(lens.sum::<u64>(), 20);
    }
}

#[test]
fn extents_are_as_filefrag_shows_them() {
    let scratch = Scratch::new("map-filefrag");
    let Some(image) = image(&scratch, &[]) else { return };
    let Some(mount) = oracle::KernelMount::new(&image, &scratch.path("mount"), "ro") else {
        return;
    };
    for path in ["d/holes", "d/large", "d/small"] {
        let file = mount.root().join(path);
        let Some(theirs) = lines("filefrag", &["-v", file.to_str().unwrap()]) else { return };
        let theirs: Vec<Vec<u64>> = theirs
            .iter()
            .filter(|line| line.trim_start().starts_with(|letter: char| letter.is_ascii_digit()))
            .map(|line| line.replace("..", " ").replace(':', " "))
            .map(|line| line.split_whitespace().map_while(|word| word.parse().ok()).collect())
            .collect();
        let text = ok(["map", &at(&image, &format!("/{path}"))]);
        let ours: Vec<Vec<u64>> = text
            .lines()
            .skip(2)
            .map(|line| line.split_whitespace().map_while(|word| word.parse().ok()).collect())
            .filter(|numbers: &Vec<u64>| numbers.len() > 1)
            .collect();
        assert_eq!(ours, theirs, "{path}");
    }
    mount.unmount().unwrap();
}

#[test]
fn what_makes_no_sense_has_one_line() {
    let scratch = Scratch::new("map-mistakes");
    let image = scratch.path("disk.img");
    let name = image.to_str().unwrap();
    ok(["mkfs", name, "4M"]);
    common::fails(["map", "--runs", &at(&image, "/lost+found")], 2, "as a whole");
    common::fails(
        ["map", "--svg", scratch.path("a.svg").to_str().unwrap(), name, name],
        2,
        "one image",
    );
    common::fails(
        ["map", "--svg", scratch.path("no/a.svg").to_str().unwrap(), name],
        1,
        "a.svg: no such file",
    );
    assert_eq!(common::extant(["map", "--runs", "--blocks", "9-1", name]).status.code(), Some(2));
}

/// A picture of an image with one file, drawn as SVG and as a page; the file's inode too.
fn drawn(scratch: &Scratch) -> Option<(PathBuf, String)> {
    let image = image(scratch, &[])?;
    let page = scratch.path("map.html");
    ok(["map", "--html", page.to_str().unwrap(), image.to_str().unwrap()]);
    let inode = json(["stat", "--json", &at(&image, "/d/large")])[0]["inode"].to_string();
    Some((page, inode))
}

#[test]
fn a_browser_shows_groups_files_and_legend_and_asks_nobody() {
    let scratch = Scratch::new("map-browser");
    if !oracle::has("chromium") {
        return extant_testkit::skip("chromium is not installed");
    }
    let Some((page, inode)) = drawn(&scratch) else { return };
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("file://{}#{inode}", page.display());
    let text = fs::read_to_string(&page).unwrap();
    let shot = scratch.path("shot.png");
    for width in [1400, 640] {
        let window = format!("--window-size={width},1800");
        let Some(dom) = browse(&scratch, &proxy, &["--dump-dom", &window, &url]) else { return };
        // The script has marked the file that the address names.
        assert!(dom.contains("class=\"hit\"") && dom.contains("aria-pressed=\"true\""), "{dom}");
        assert!(dom.contains("data-groups=\"0\"") && dom.contains("inode tables"), "{dom}");
        let screenshot = format!("--screenshot={}", shot.display());
        browse(&scratch, &proxy, &[&screenshot, &window, &url]);
        let seen = colours(&shot);
        for name in ["files", "tables", "free", "accent"] {
            let count = seen.get(&colour(&text, name)).copied().unwrap_or(0);
            assert!(count > 50, "{width} wide: {name} is seen {count} times");
        }
    }
    // The browser may ask for things of its own, but for nothing that the page names.
    while let Ok((mut asked, _)) = proxy.accept() {
        let mut line = [0; 256];
        let len = std::io::Read::read(&mut asked, &mut line).unwrap_or(0);
        let line = String::from_utf8_lossy(&line[..len]).into_owned();
        let host = line.split([' ', ':', '/']).find(|word| word.contains('.')).unwrap_or("no host");
        assert!(!text.contains(host), "the page has asked for {line}");
    }
}

/// What the browser prints of a page; `None`, after a skip, where it does not run at all.
fn browse(scratch: &Scratch, proxy: &std::net::TcpListener, arguments: &[&str]) -> Option<String> {
    let port = proxy.local_addr().unwrap().port();
    let own = [
        "30".to_owned(),
        "chromium".to_owned(),
        format!("--user-data-dir={}", scratch.path("profile").display()),
        format!("--proxy-server=127.0.0.1:{port}"),
    ];
    let fixed = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--no-pings",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=2000",
    ];
    let all: Vec<&str> =
        own.iter().map(String::as_str).chain(fixed).chain(arguments.iter().copied()).collect();
    let output = oracle::run("timeout", &all)?;
    if !output.status.success() {
        extant_testkit::skip(&format!("chromium does not run here: {}", output.status));
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How often each colour is seen on a page.
fn colours(path: &Path) -> BTreeMap<[u8; 3], usize> {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let mut seen = BTreeMap::new();
    for pixel in pixels[..frame.buffer_size()].chunks(frame.color_type.samples()) {
        *seen.entry([pixel[0], pixel[1], pixel[2]]).or_insert(0) += 1;
    }
    seen
}

/// The colour that a page's style gives a name, for light rooms.
fn colour(style: &str, name: &str) -> [u8; 3] {
    let at = style.find(&format!("--{name}: #")).unwrap() + name.len() + 5;
    [0, 2, 4].map(|digit| u8::from_str_radix(&style[at + digit..at + digit + 2], 16).unwrap())
}
