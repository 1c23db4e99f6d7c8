//! Signals: those that end a process let a run finish its step first, unless whoever started the process wants them ignored.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

#[cfg(unix)]
const ENDING: [i32; 3] = [SIGINT, SIGTERM, signal_hook::consts::SIGHUP];
#[cfg(not(unix))]
const ENDING: [i32; 2] = [SIGINT, SIGTERM];

/// The last one that came; 0 before any.
static LAST: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Set by Ctrl-C, SIGTERM and SIGHUP; the second time ends the process at once.
pub fn stop() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in ENDING.into_iter().filter(|signal| !is_ignored(*signal)) {
        // They act in this order. Without them the process ends at once, and the last checkpoint counts.
        let _ = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop));
        let _ = flag::register_usize(signal, Arc::clone(&LAST), usize::try_from(signal).unwrap_or_default());
        let _ = flag::register(signal, Arc::clone(&stop));
    }
    stop
}

/// What a shell reports of a process that the signal ended.
pub fn exit_code() -> u8 {
    match LAST.load(Ordering::Relaxed) {
        0 => 130,
        signal => u8::try_from(128 + signal).unwrap_or(u8::MAX),
    }
}

/// Lets a write beyond `ulimit -f` fail, which is told in a sentence, where the signal would kill without one.
pub fn keep_file_limits_from_killing() {
    #[cfg(unix)]
    {
        // A handler that does nothing: unlike an ignored signal, it is not handed on to processes that are started.
        let _ = flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)));
    }
}

/// Whether a signal was ignored when the process began, as `nohup` does it with SIGHUP.
#[cfg(unix)]
#[allow(unsafe_code)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action sigaction only writes the present one to a place that is large enough for it; zero bytes are a valid
    // value of the struct.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn is_ignored(_: i32) -> bool {
    false
}
