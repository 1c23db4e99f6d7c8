//! `per-inject`: puts PER into ONNX training graphs. See `per-inject --help`.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

/// Injecting into a large graph allocates millions of small strings; this allocator takes half the time over them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(per_inject::cli::run(std::env::args_os()))
}
