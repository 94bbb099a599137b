//! The one place that names a lock: `std`'s where there is one, else one that spins.
//!
//! A lock whose holder panicked panics too, so that damage does not spread.

#[cfg(not(feature = "std"))]
use spin as locks;
#[cfg(feature = "std")]
use std::sync as locks;

/// Mutual exclusion around a `T`.
#[derive(Debug, Default)]
pub struct Mutex<T>(locks::Mutex<T>);

impl<T> Mutex<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(locks::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> locks::MutexGuard<'_, T> {
        let guard = self.0.lock();
        #[cfg(feature = "std")]
        let guard = guard.expect("no holder of this lock panicked");
        guard
    }
}

/// Many readers or one writer of a `T`.
#[derive(Debug, Default)]
pub struct RwLock<T>(locks::RwLock<T>);

impl<T> RwLock<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(locks::RwLock::new(value))
    }

    /// Waits until there is no writer.
    pub fn read(&self) -> locks::RwLockReadGuard<'_, T> {
        let guard = self.0.read();
        #[cfg(feature = "std")]
        let guard = guard.expect("no holder of this lock panicked");
        guard
    }

    /// Waits until there is no other holder.
    pub fn write(&self) -> locks::RwLockWriteGuard<'_, T> {
        let guard = self.0.write();
        #[cfg(feature = "std")]
        let guard = guard.expect("no holder of this lock panicked");
        guard
    }
}
