//! The command line: arguments in, report out. Each command is one file; nothing here knows ONNX.

mod args;
mod deliver;
mod failure;
mod inject;
mod inspect;
mod render;
mod strip;
mod text;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use failure::Failure;

/// Parses the process's arguments, runs one command, and prints its error.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => inject::run(&cli.inject),
        Some(Command::Inspect(args)) => inspect::run(&args).map_err(|f| f.of_file(&args.model)),
        Some(Command::Strip(args)) => strip::run(&args).map_err(|f| f.of_file(&args.model)),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "per-inject", &mut io::stdout());
            Ok(())
        }
        Some(Command::Man) => clap_mangen::Man::new(Cli::command()).render(&mut io::stdout()).map_err(Failure::from),
    };
    result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
