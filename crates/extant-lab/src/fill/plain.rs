//! What a file has to hold: pages that were written, and zeros.

use std::collections::BTreeMap;

use extant::File;
use extant_format::cast::u64_from;

const PAGE: u64 = 4096;

/// A sparse file as a plain model has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain {
    /// Its size in bytes.
    pub(super) size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Plain {
    /// Bytes at `offset`; the file grows if they reach past its end.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let within = place(at % PAGE);
            let count = rest.len().min(place(PAGE) - within);
            let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; place(PAGE)]);
            page[within..within + count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            at += u64_from(count);
        }
        self.size = self.size.max(at);
    }

    /// A new size; what is cut off does not come back.
    pub(super) fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size - size);
        }
        self.size = size;
    }

    /// Zeros within the file.
    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        let touched: Vec<u64> = self
            .pages
            .range(offset / PAGE..end.div_ceil(PAGE))
            .map(|(number, _)| *number)
            .collect();
        for number in touched {
            let start = number * PAGE;
            let (from, to) = (offset.max(start) - start, end.min(start + PAGE) - start);
            if (from, to) == (0, PAGE) {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                page[place(from)..place(to)].fill(0);
            }
        }
    }

    /// Compares size and bytes; where nothing was written, only what the file calls data is read.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn compare(&self, file: &File) -> Result<(), String> {
        let told = |error: extant::Error| error.to_string();
        let size = file.metadata().map_err(told)?.size;
        if size != self.size {
            return Err(format!("size {size}, to be {}", self.size));
        }
        let mut buffer = vec![0; place(PAGE)];
        for number in self.pages.keys() {
            self.compare_page(file, *number, &mut buffer)?;
        }
        let mut at = 0;
        while let Some(start) = file.seek_data(at).map_err(told)? {
            at = file.seek_hole(start).map_err(told)?.ok_or("data without an end")?;
            for number in start / PAGE..at.div_ceil(PAGE) {
                if !self.pages.contains_key(&number) {
                    self.compare_page(file, number, &mut buffer)?;
                }
            }
        }
        Ok(())
    }

    fn compare_page(&self, file: &File, number: u64, buffer: &mut [u8]) -> Result<(), String> {
        let start = number * PAGE;
        let len = place(self.size.saturating_sub(start).min(PAGE));
        buffer.fill(0xEE);
        let count = file.read_at(&mut buffer[..len], start).map_err(|error| error.to_string())?;
        if count != len {
            return Err(format!("{count} bytes at {start}, to be {len}"));
        }
        let zeros = vec![0; len];
        let wanted = self.pages.get(&number).map_or(&zeros[..], |page| &page[..len]);
        match (0..len).find(|&byte| buffer[byte] != wanted[byte]) {
            None => Ok(()),
            Some(byte) => {
                let at = start + u64_from(byte);
                Err(format!("byte {at} is {}, to be {}", buffer[byte], wanted[byte]))
            }
        }
    }
}

fn place(n: u64) -> usize {
    usize::try_from(n).expect("within a page")
}
