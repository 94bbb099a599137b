//! How the C library keeps memory for a server. It has to know before a program starts, so the program starts once more.
//!
//! Source: glibc's manual, "Memory Allocation Tunables".

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::env;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const NAME: &str = "GLIBC_TUNABLES";
    /// Left alone, each thread gets an arena of its own, which keeps what is freed in it: a server of many clients would come
    /// to twice what it uses.
    const SETTINGS: &str = "glibc.malloc.arena_max=2";

    /// See [`settle`](super::settle).
    pub(super) fn settle() {
        let Ok(program) = env::current_exe() else { return };
        if env::var_os(NAME).is_some() {
            return;
        }
        let mut words = env::args_os();
        let mut again = Command::new(program);
        words.next().map(|name| again.arg0(name));
        // If this returns it has failed, which costs memory and nothing more.
        let _ = again.args(words).env(NAME, SETTINGS).exec();
    }
}

/// Starts this program once more, as the same process, unless somebody has chosen how its memory is kept.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::settle();
}
