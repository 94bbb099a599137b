//! A modelled disk for all contenders alike: files on a FUSE mount of our own whose `fsync` takes a while, as a flush of a real
//! disk does. Reads and writes go to memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use extant::Errno;
use extant_fuse::abi::{self, InHeader, opcode};
use extant_fuse::{Answer, Arguments, Backend, Mount};

use crate::null;
use crate::stage::{hear, wait_for};

/// The word that makes this program the server.
pub const CHILD: &str = "--disk";
/// What a flush takes.
pub const FLUSH: Duration = Duration::from_millis(5);

/// The disk as long as it is mounted.
pub struct Disk {
    point: PathBuf,
    server: Child,
}

impl Disk {
    /// Mounts a disk with one file for each of `files`, at the end of whose paths their names stand.
    pub fn new(point: &Path, files: &[PathBuf]) -> Self {
        std::fs::create_dir_all(point).expect("the scratch folder can be written");
        let mut server = Command::new(std::env::current_exe().expect("this program has a path"))
            .arg(CHILD)
            .arg(point)
            .args(files)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        hear(&mut server, "mounted");
        Self { point: point.to_owned(), server }
    }

    /// Where a file of it is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        wait_for(|| extant_fuse::unmount(&self.point).is_ok());
        let _ = self.server.wait();
    }
}

/// Serves a disk until it is unmounted.
pub fn child(point: &Path, files: &[PathBuf]) {
    let open = |path: &PathBuf| {
        let file = File::options().read(true).write(true).open(path).expect("the file is there");
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name.into_bytes(), file)
    };
    let server = Server { files: files.iter().map(open).collect(), buffer: Mutex::default() };
    let mount = Mount {
        source: "disk".into(),
        point: point.to_owned(),
        read_only: false,
        allow_other: false,
        words: Vec::new(),
        backing: None,
    };
    let device = mount.attach().expect("the disk is mounted");
    null::tell("mounted");
    extant_fuse::serve(&server, &device, 2).expect("the disk serves");
}

struct Server {
    files: Vec<(Vec<u8>, File)>,
    buffer: Mutex<Vec<u8>>,
}

/// The first file's number.
const FIRST: u64 = abi::ROOT_ID + 1;

impl Server {
    fn file(&self, id: u64) -> Result<&File, Errno> {
        let at = usize::try_from(id.wrapping_sub(FIRST)).unwrap_or(usize::MAX);
        self.files.get(at).map(|(_, file)| file).ok_or(Errno::STALE)
    }

    fn attr(&self, id: u64) -> abi::Attr {
        let size = self.file(id).ok().and_then(|file| Some(file.metadata().ok()?.len()));
        let mode = if size.is_some() { 0o100_600 } else { 0o040_755 };
        let size = size.unwrap_or(0);
        abi::Attr { ino: id, size, blocks: size / 512, mode, nlink: 1, ..Default::default() }
    }
}

impl Backend for Server {
    fn answer(
        &self,
        header: &InHeader,
        mut args: Arguments<'_>,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let id = header.nodeid;
        match header.opcode {
            opcode::INIT => answer.put(&abi::agree(&args.take()?, false)),
            opcode::LOOKUP => {
                let name = args.name()?;
                let at = self.files.iter().position(|(known, _)| known == name);
                let nodeid = FIRST + u64::try_from(at.ok_or(Errno::NOENT)?).unwrap_or(0);
                let (entry_valid, attr_valid) = (3600, 3600);
                let attr = self.attr(nodeid);
                let rest = abi::EntryOut::default();
                answer.put(&abi::EntryOut { nodeid, entry_valid, attr_valid, attr, ..rest });
            }
            opcode::GETATTR | opcode::SETATTR => {
                let attr = self.attr(id);
                answer.put(&abi::AttrOut { attr_valid: 3600, attr, ..Default::default() });
            }
            opcode::OPEN => {
                answer
                    .put(&abi::OpenOut { open_flags: abi::OPEN_KEEP_CACHE, ..Default::default() });
            }
            opcode::READ => {
                let asked: abi::ReadIn = args.take()?;
                let mut buffer = self.buffer.lock().expect("nobody panics");
                buffer.resize(usize::try_from(asked.size).unwrap_or(0), 0);
                let count = self.file(id)?.read_at(&mut buffer, asked.offset);
                answer.put_bytes(&buffer[..count.map_err(|_| Errno::IO)?]);
            }
            opcode::WRITE => {
                let asked: abi::WriteIn = args.take()?;
                let bytes = args.bytes(asked.size)?;
                self.file(id)?.write_all_at(bytes, asked.offset).map_err(|_| Errno::IO)?;
                answer.put(&abi::WriteOut { size: asked.size, padding: 0 });
            }
            opcode::FSYNC => std::thread::sleep(FLUSH),
            opcode::RELEASE | opcode::DESTROY => {}
            _ => return Err(Errno(38)),
        }
        Ok(())
    }

    fn forget(&self, _: u64, _: u64) {}

    fn stop(&self) {}

    fn tick(&self) -> Duration {
        Duration::from_secs(3600)
    }
}
