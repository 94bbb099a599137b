//! Bytes on their way to a copy: which are sent, and which become holes.

use super::settings::Sparse;
use super::stream::{Item, Sink, Stopped};

/// Sends `bytes`, which lie at `offset`; blocks of zeros are left out if they shall become holes.
pub fn send(sink: &mut Sink, sparse: Sparse, offset: u64, bytes: Vec<u8>) -> Result<(), Stopped> {
    if sparse != Sparse::Always || !bytes.chunks(BLOCK_BYTES).any(is_zero) {
        return sink.send(Item::Data { offset, bytes });
    }
    let mut at = offset;
    for run in
        bytes.chunks(BLOCK_BYTES).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b))
    {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if !is_zero(run[0]) {
            sink.send(Item::Data { offset: at, bytes: run.concat() })?;
        }
        at += extant_format::cast::u64_from(len);
    }
    Ok(())
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Smaller holes than this would save nothing.
const BLOCK_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::stream::stream;
    use super::*;

    #[test]
    fn blocks_of_zeros_become_holes_only_if_asked() {
        let mut bytes = vec![1; 3 * BLOCK_BYTES];
        bytes[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
        for (sparse, expected) in
            [(Sparse::Auto, vec![(100, 12288)]), (Sparse::Always, vec![(100, 4096), (8292, 4096)])]
        {
            let (mut sink, mut items) = stream();
            send(&mut sink, sparse, 100, bytes.clone()).unwrap();
            sink.flush().unwrap();
            drop(sink);
            let mut found = Vec::new();
            while let Ok(Some(Item::Data { offset, bytes })) = items.next() {
                found.push((offset, bytes.len()));
            }
            assert_eq!(found, expected);
        }
    }
}
