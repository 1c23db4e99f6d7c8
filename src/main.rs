//! `per-inject`: puts PER into ONNX training graphs. See `per-inject --help`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
