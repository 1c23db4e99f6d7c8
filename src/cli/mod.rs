//! The command line: arguments in, report out. Each command is one file; nothing here knows ONNX.

mod args;
mod deliver;
mod inject;
mod inspect;
mod render;
mod strip;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use miette::Report;

pub use args::Cli;
use args::Command;

/// What a command ends with when it does not succeed.
pub enum Failure {
    /// Refused or failed, with a sentence for a person; exit code 1.
    Refused(Report),
    /// The arguments make no sense together; exit code 2.
    Usage(clap::Error),
    /// Whoever read our output went away; quiet.
    BrokenPipe,
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let broken = |e: &(dyn std::error::Error + 'static)| {
            e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(e) = cause {
            if broken(e) {
                return Failure::BrokenPipe;
            }
            cause = e.source();
        }
        // The chain of causes is in the sentence already.
        Failure::Refused(miette::miette!("{error}"))
    }
}

/// Parses the process's arguments, runs one command, and prints its error.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => inject::run(&cli.inject),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Strip(args)) => strip::run(&args),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "per-inject", &mut io::stdout());
            Ok(())
        }
        Some(Command::Man) => clap_mangen::Man::new(Cli::command()).render(&mut io::stdout()).map_err(Failure::from),
    };
    match result {
        Ok(()) | Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(Failure::Refused(report)) => {
            eprintln!("{report:?}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(error)) => {
            let _ = error.print();
            ExitCode::from(2)
        }
    }
}

/// A usage error with clap's own look.
fn usage(kind: clap::error::ErrorKind, message: impl std::fmt::Display) -> Failure {
    Failure::Usage(Cli::command().error(kind, message))
}
