//! [`Alarm`]: a tick before its time.

use std::sync::{Arc, OnceLock};
use std::task::Wake;
use std::thread::Thread;

/// Wakes the thread that does what is due by the clock, when the volume has something for it. With one core to spare, data goes to
/// the image while requests are served.
#[derive(Debug, Default)]
pub struct Alarm(OnceLock<Thread>);

impl Alarm {
    /// It is for this thread.
    pub(crate) fn set(&self, thread: Thread) {
        let _ = self.0.set(thread); // a volume is served once
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before it is set nothing is lost: the first tick comes soon.
        self.0.get().inspect(|thread| thread.unpark());
    }
}
