//! Bytes on their way through a compressor, which works in a thread of its own where its library wants to pull.

use std::io::{self, PipeReader, Read, Write};

use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, FrameCompressor};

use super::Compression;

/// Where a tar is written to.
pub enum Compressed<'a> {
    Plain(&'a mut (dyn Write + Send)),
    Gzip(GzEncoder<&'a mut (dyn Write + Send)>),
    Zstd(io::BufWriter<io::PipeWriter>),
}

impl Write for Compressed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(out) => out.write(bytes),
            Self::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(out) => out.flush(),
            Self::Zstd(out) => out.flush(),
        }
    }
}

/// Lets `write` write through a compressor to `out`, to its end.
pub fn through(
    how: Compression,
    out: &mut (dyn Write + Send),
    write: impl FnOnce(&mut Compressed<'_>) -> io::Result<()>,
) -> io::Result<()> {
    match how {
        Compression::None => {
            write(&mut Compressed::Plain(out))?;
            out.flush()
        }
        Compression::Gzip => {
            // No name and no time: the same tree gives the same bytes.
            let encoder = GzEncoder::new(out, flate2::Compression::default());
            let mut out = Compressed::Gzip(encoder);
            write(&mut out)?;
            match out {
                Compressed::Gzip(encoder) => encoder.finish()?.flush(),
                _ => Ok(()),
            }
        }
        Compression::Zstd => zstd(out, write),
    }
}

/// The library pulls, so that it works in another thread, at the end of a pipe.
fn zstd(
    out: &mut (dyn Write + Send),
    write: impl FnOnce(&mut Compressed<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let (source, sink) = io::pipe()?;
    std::thread::scope(|scope| {
        let compressing = scope.spawn(move || compress(source, out));
        let mut out = Compressed::Zstd(io::BufWriter::with_capacity(1 << 18, sink));
        let written = write(&mut out).and_then(|()| out.flush());
        drop(out);
        let compressed = compressing.join();
        // Where that has failed, this end has seen a broken pipe and knows no more.
        compressed.map_err(|_| io::Error::other("the thread that compresses has failed"))??;
        written
    })
}

/// The library takes no errors of those that it works for: the first is kept here, and ends the source.
fn compress(source: PipeReader, out: &mut dyn Write) -> io::Result<()> {
    let failure = Failure::default();
    let mut compressor = FrameCompressor::new(CompressionLevel::Fastest);
    compressor.set_source(Until { source, failure: &failure });
    compressor.set_drain(Keeping { out, failure: &failure });
    compressor.compress();
    drop(compressor);
    match failure.into_inner() {
        Some(error) => Err(error),
        None => out.flush(),
    }
}

type Failure = std::cell::RefCell<Option<io::Error>>;

/// A source that ends once something has failed.
struct Until<'f> {
    source: PipeReader,
    failure: &'f Failure,
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.failure.borrow().is_some() {
            return Ok(0);
        }
        match self.source.read(bytes) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                *self.failure.borrow_mut() = Some(error);
                Ok(0)
            }
            read => read,
        }
    }
}

/// A sink that takes everything, and keeps the first error.
struct Keeping<'f> {
    out: &'f mut dyn Write,
    failure: &'f Failure,
}

impl Write for Keeping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failure.borrow().is_none()
            && let Err(error) = self.out.write_all(bytes)
        {
            *self.failure.borrow_mut() = Some(error);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
