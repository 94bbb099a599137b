//! [`Watch`]: every step is told before it starts, so that one that never ends has a name.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest that one operation may take.
pub const LONGEST_STEP: Duration = Duration::from_secs(5);

/// The step that runs, for another thread to look at.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    running: Arc<Mutex<Option<(String, Instant)>>>,
    tell: bool,
}

impl Watch {
    /// A watch that prints each step and what came of it, if `tell`.
    pub fn new(tell: bool) -> Self {
        Self { running: Arc::default(), tell }
    }

    /// Does one step.
    ///
    /// # Errors
    /// The step's own.
    pub fn step<T, E: Debug + ToString>(
        &self,
        name: impl Debug,
        step: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut text = format!("{name:?}");
        if let Some((cut, _)) = text.char_indices().nth(160) {
            text.truncate(cut);
        }
        if self.tell {
            print!("{text}: ");
        }
        self.set(Some((text, Instant::now())));
        let done = step();
        self.set(None);
        if self.tell {
            println!("{}", done.as_ref().err().map_or("done".to_owned(), ToString::to_string));
        }
        done
    }

    /// The step that has been running for too long, if there is one.
    pub fn overdue(&self) -> Option<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .as_ref()
            .filter(|(_, start)| start.elapsed() > LONGEST_STEP)
            .map(|(name, _)| name.clone())
    }

    /// The step that runs now.
    pub fn running(&self) -> Option<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|(name, _)| name.clone())
    }

    fn set(&self, step: Option<(String, Instant)>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }
}
