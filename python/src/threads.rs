//! Threads that share work, in whatever process this is.
//!
//! A child that fork made has none of its parent's threads, and what it hands to them is never done. There each call has threads of its own.

use std::process;
use std::sync::OnceLock;

use rayon::ThreadPoolBuilder;

/// Bytes of a thread's stack: what the main thread of a program mostly has.
pub const STACK: usize = 8 << 20;

/// The process that loaded this module.
static HOME: OnceLock<u32> = OnceLock::new();

/// Says that this process is the one that loaded the module.
pub fn settle() {
    HOME.get_or_init(process::id);
}

/// Whether this process is a child that fork made of the one that loaded the module.
pub fn is_forked() -> bool {
    HOME.get().is_some_and(|home| *home != process::id())
}

/// Does `work` where it has threads to share it with.
///
/// # Errors
/// When no threads can be started.
pub fn shared<T: Send>(work: impl Send + FnOnce() -> T) -> Result<T, String> {
    if !is_forked() {
        return Ok(work());
    }
    let pool = ThreadPoolBuilder::new().stack_size(STACK).build();
    Ok(pool.map_err(|error| format!("no threads can be started in this process: {error}"))?.install(work))
}
