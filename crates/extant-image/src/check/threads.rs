//! Work on many items by several threads, or by the caller alone where there is no `std`.

use alloc::vec::Vec;

/// Does `work` for each of `0..items`, by at most `threads` workers that each have a state of their own; the states.
///
/// # Errors
/// The first error that a worker met; the others then stop.
pub(super) fn spread<W: Send, E: Send>(
    threads: usize,
    items: usize,
    new: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, usize) -> Result<(), E> + Sync,
) -> Result<Vec<W>, E> {
    #[cfg(feature = "std")]
    if threads > 1 && items > 1 {
        return in_parallel(threads.min(items), items, new, work);
    }
    let _ = threads;
    let mut worker = new();
    (0..items).try_for_each(|item| work(&mut worker, item))?;
    Ok(alloc::vec![worker])
}

#[cfg(feature = "std")]
fn in_parallel<W: Send, E: Send>(
    threads: usize,
    items: usize,
    new: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, usize) -> Result<(), E> + Sync,
) -> Result<Vec<W>, E> {
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let next = AtomicUsize::new(0);
    let run = || {
        let mut worker = new();
        loop {
            let item = next.fetch_add(1, Relaxed);
            if item >= items {
                return Ok(worker);
            }
            if let Err(error) = work(&mut worker, item) {
                next.store(items, Relaxed);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut workers = alloc::vec![run()];
        for other in others {
            workers.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        workers.into_iter().collect()
    })
}
