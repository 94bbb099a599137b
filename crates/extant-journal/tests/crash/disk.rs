//! A disk with a volatile cache: what is not flushed may or may not survive, whole or torn.

use std::collections::BTreeMap;

use extant_testkit::Random;

/// A block of the log or of the file system.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    Log(u32),
    Home(u64),
}

#[derive(Clone, Debug)]
pub struct Disk {
    block_size: usize,
    durable: BTreeMap<Place, Vec<u8>>,
    /// Writes since the last flush, in order.
    cache: Vec<(Place, Vec<u8>)>,
    /// Which of them a reader sees.
    newest: BTreeMap<Place, usize>,
}

impl Disk {
    pub fn new(block_size: usize) -> Self {
        Self { block_size, durable: BTreeMap::new(), cache: Vec::new(), newest: BTreeMap::new() }
    }

    /// What a reader sees; zeros where nothing was written.
    pub fn read(&self, place: Place) -> Vec<u8> {
        let cached = self.newest.get(&place).map(|&index| &self.cache[index].1);
        cached.or(self.durable.get(&place)).cloned().unwrap_or_else(|| vec![0; self.block_size])
    }

    pub fn write(&mut self, place: Place, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.block_size);
        self.newest.insert(place, self.cache.len());
        self.cache.push((place, bytes.to_vec()));
    }

    /// With FUA: this block is durable, others need not be.
    pub fn write_through(&mut self, place: Place, bytes: &[u8]) {
        if self.newest.remove(&place).is_some() {
            self.cache.retain(|(written, _)| *written != place);
            self.newest =
                self.cache.iter().enumerate().map(|(index, write)| (write.0, index)).collect();
        }
        self.durable.insert(place, bytes.to_vec());
    }

    pub fn flush(&mut self) {
        self.durable.extend(self.cache.drain(..));
        self.newest.clear();
    }

    /// One of the disks that a power cut could leave.
    pub fn crash(&self, random: &mut Random) -> Self {
        let mut durable = self.durable.clone();
        for (place, bytes) in &self.cache {
            let mut left = durable.remove(place).unwrap_or_else(|| vec![0; self.block_size]);
            let torn = random.below(4) == 0;
            let whole = random.coin();
            for (old, new) in left.chunks_mut(512).zip(bytes.chunks(512)) {
                if if torn { random.coin() } else { whole } {
                    old.copy_from_slice(new);
                }
            }
            durable.insert(*place, left);
        }
        Self { block_size: self.block_size, durable, cache: Vec::new(), newest: BTreeMap::new() }
    }
}
