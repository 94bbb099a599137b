//! The two sides: the engine, and a kernel mount.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use extant::{Filesystem, MountOptions};
use extant_device::FileDevice;
use extant_testkit::oracle::KernelMount;

use crate::{FILE_BYTES, SLICE_BYTES};

/// What is done to one file, in calls of `piece` bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// Each pass writes a new file, at offsets.
    New { piece: usize },
    /// The file is there, made in calls of the same size, and in memory.
    Overwrite { piece: usize, at_random: bool },
    /// Each pass appends to an empty file.
    Append { piece: usize },
    /// Like that.
    Read { piece: usize, at_random: bool },
}

impl Work {
    fn piece(self) -> usize {
        match self {
            Self::New { piece }
            | Self::Append { piece }
            | Self::Overwrite { piece, .. }
            | Self::Read { piece, .. } => piece,
        }
    }

    /// Whether each pass begins without a file.
    fn begins_empty(self) -> bool {
        matches!(self, Self::New { .. } | Self::Append { .. })
    }

    /// Where the calls of a slice go.
    fn offsets(self, slice: Range<u64>) -> impl Iterator<Item = u64> {
        let piece = u64::try_from(self.piece()).unwrap();
        let at_random = matches!(
            self,
            Self::Overwrite { at_random: true, .. } | Self::Read { at_random: true, .. }
        );
        let all = FILE_BYTES / piece;
        (slice.start / piece..slice.end / piece).map(move |nth| {
            // An odd factor and a power of two: every piece has its turn once.
            let nth = if at_random { (nth * 40_503 + 12_345) % all } else { nth };
            nth * piece
        })
    }
}

/// One of those that are compared.
pub trait Side {
    /// Before the first pass.
    fn prepare(&mut self, work: Work);
    /// Before each pass; not measured.
    fn begin(&mut self, work: Work);
    /// A slice of a pass.
    fn run(&mut self, work: Work, slice: Range<u64>);
    /// After each pass; not measured.
    fn end(&mut self);
}

/// As much as the kernel would take on a machine like this.
const CACHE_BYTES: u64 = 4 << 30;
const PATH: &str = "/file";

/// The engine on an image.
pub struct Engine {
    filesystem: Filesystem,
    file: Option<extant::File>,
    bytes: Vec<u8>,
}

impl Engine {
    /// Mounts `image`.
    pub fn mount(image: &Path) -> Self {
        let device = FileDevice::open(image).expect("nobody else has the image");
        let options = MountOptions::new().cache_bytes(CACHE_BYTES);
        let filesystem = options.mount(device).expect("the image mounts");
        Self { filesystem, file: None, bytes: vec![b'x'; 1 << 20] }
    }

    /// Opens the file at `path`, as the work needs it.
    pub fn open(&self, path: &str, work: Work) -> extant::File {
        let options = match work {
            Work::Read { .. } => extant::OpenOptions::new().read(true),
            Work::Append { .. } => extant::OpenOptions::new().append(true).create(true),
            _ => extant::OpenOptions::new().write(true).create(true),
        };
        self.filesystem.open_with(path, options).unwrap()
    }

    /// Writes or reads a slice of `file`, with the content of `bytes` or into it.
    pub fn run(file: &extant::File, bytes: &mut [u8], work: Work, slice: Range<u64>) {
        let piece = &mut bytes[..work.piece()];
        for at in work.offsets(slice) {
            let done = match work {
                Work::Read { .. } => file.read_at(piece, at),
                _ => file.write_at(piece, at),
            };
            assert_eq!(done.unwrap(), piece.len());
        }
    }
}

impl Side for Engine {
    fn prepare(&mut self, work: Work) {
        self.filesystem.sync_all().unwrap();
        if !work.begins_empty() {
            let write = Work::New { piece: work.piece() };
            self.begin(write);
            let file = self.open(PATH, write);
            Self::run(&file, &mut self.bytes, write, 0..FILE_BYTES);
            self.end();
            self.filesystem.sync_all().unwrap();
        }
    }

    fn begin(&mut self, work: Work) {
        if work.begins_empty() {
            let _ = self.filesystem.remove_file(PATH); // it may be the first
        }
        self.file = Some(self.open(PATH, work));
    }

    fn run(&mut self, work: Work, slice: Range<u64>) {
        Self::run(self.file.as_ref().expect("opened by begin"), &mut self.bytes, work, slice);
    }

    fn end(&mut self) {
        self.file = None;
    }
}

/// The kernel on an image.
pub struct Kernel {
    point: PathBuf,
    file: Option<fs::File>,
    bytes: Vec<u8>,
    _mount: KernelMount,
}

impl Kernel {
    /// Mounts `image`, where the machine lets us.
    pub fn mount(image: &Path, point: &Path) -> Option<Self> {
        let mount = KernelMount::new(image, point, "")?;
        let bytes = vec![b'x'; 1 << 20];
        Some(Self { point: point.to_owned(), file: None, bytes, _mount: mount })
    }

    fn path(&self) -> PathBuf {
        self.point.join(PATH.trim_start_matches('/'))
    }

    fn sync(&self) {
        assert!(Command::new("sync").arg("-f").arg(&self.point).status().unwrap().success());
    }
}

impl Side for Kernel {
    fn prepare(&mut self, work: Work) {
        self.sync();
        if !work.begins_empty() {
            let write = Work::New { piece: work.piece() };
            self.begin(write);
            for start in (0..FILE_BYTES).step_by(SLICE_BYTES.try_into().unwrap()) {
                self.run(write, start..start + SLICE_BYTES);
            }
            self.end();
            self.sync();
        }
    }

    fn begin(&mut self, work: Work) {
        if work.begins_empty() {
            let _ = fs::remove_file(self.path()); // it may be the first
        }
        let mut options = fs::OpenOptions::new();
        match work {
            Work::Read { .. } => options.read(true),
            Work::Append { .. } => options.append(true).create(true),
            _ => options.write(true).create(true).truncate(false),
        };
        self.file = Some(options.open(self.path()).unwrap());
    }

    fn run(&mut self, work: Work, slice: Range<u64>) {
        let mut file = self.file.as_ref().expect("opened by begin");
        let piece = &mut self.bytes[..work.piece()];
        for at in work.offsets(slice) {
            let done = match work {
                Work::Read { .. } => file.read_at(piece, at),
                Work::Append { .. } => file.write(piece),
                _ => file.write_at(piece, at),
            };
            assert_eq!(done.unwrap(), piece.len());
        }
    }

    fn end(&mut self) {
        self.file = None;
    }
}
