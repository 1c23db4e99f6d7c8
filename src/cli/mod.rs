//! The command line: arguments in, report out. Each command is one file; nothing here knows ONNX.
//!
//! It is no part of the library's interface: [`run`] is for the program, which the Python package brings too, and [`call`] for that package.

mod args;
pub mod call;
mod deliver;
mod diff;
mod difference;
mod differentiate;
mod failure;
mod host;
mod hunks;
mod identity;
mod inject;
mod inspect;
mod measure_args;
mod operators;
mod render;
mod running;
mod signals;
mod streams;
mod strip;
mod text;
mod train;
mod train_args;
mod training;
mod weights;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Once;

use clap::error::ErrorKind;
use clap::{Arg, CommandFactory, FromArgMatches};
use per_inject::engine;
use per_inject::select::nearest;

use args::{Cli, Command};
use failure::{About, Failure};

/// A second word without an option is a mistyped command, or a model too many; clap takes it for a command that comes too late.
fn explain(error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let late =
        error.kind() == ErrorKind::ArgumentConflict && error.to_string().contains("cannot be used with '<MODEL>'");
    let first = arguments.get(1).and_then(|a| a.to_str()).filter(|first| late && !first.starts_with('-'));
    let Some(first) = first else { return error };
    let cli = Cli::command();
    let commands: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let is_file = Path::new(first).exists();
    let message = match nearest(first, commands.iter().copied()).filter(|_| !is_file) {
        Some(command) => format!("there is no command '{first}'; did you mean '{command}'?"),
        None => format!(
            "one model at a time: what follows '{first}' is no option (a command comes first: {})",
            commands.join(", ")
        ),
    };
    Cli::command().error(ErrorKind::ArgumentConflict, message)
}

/// An environment variable that is set to nothing counts as not set, for flags and for options with a value alike.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &Arg| arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|v| v.is_empty()));
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

/// `--format` and `--json` say the same: the command line wins over variables, and of two variables the one that says more.
fn one_format(command: clap::Command, arguments: &[OsString]) -> clap::Command {
    let says = |option: &str| arguments.iter().any(|a| a.to_string_lossy().split('=').next() == Some(option));
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let (format, json) = (says("--format"), says("--json"));
    let silent = match () {
        () if json && !format => "format",
        () if format || is_set("PER_INJECT_FORMAT") => "json",
        () => return command,
    };
    command.mut_subcommand("inspect", |inspect| inspect.mut_arg(silent, |arg| arg.env(None::<&str>)))
}

/// The released program does not unwind (it is a sixth smaller so): what the binding to ONNX Runtime panics with is said here, and ends it.
fn say_what_the_binding_panics_with() {
    static ONCE: Once = Once::new();
    ONCE.call_once(set_panic_hook);
}

fn set_panic_hook() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !engine::is_in_binding() {
            return usual(panic);
        }
        if cfg!(panic = "abort") {
            let payload = panic.payload();
            let words =
                payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
            let message = engine::gave_up(words.unwrap_or_default());
            let _ = Failure::Refused { message, about: About::Other }.report();
            std::process::exit(1);
        }
    }));
}

/// Parses a program's arguments, its name first, runs one command, and prints its error. Returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    signals::keep_file_limits_from_killing();
    say_what_the_binding_panics_with();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = one_format(without_empty_variables(Cli::command()), &arguments).try_get_matches_from(&arguments);
    let parsed = parsed.and_then(|m| running::refuse_without_run(&m).and_then(|()| Cli::from_arg_matches(&m)));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return failure::told(&explain(error, &arguments)),
    };
    let result = match cli.command {
        None => inject::run(&cli.inject),
        Some(Command::Inspect(args)) => inspect::run(&args).map_err(|f| f.of_file(&args.model)),
        Some(Command::Diff(args)) => return diff::run(&args),
        Some(Command::Differentiate(args)) => differentiate::run(&args).map_err(|f| f.of_file(&args.model)),
        Some(Command::Train(args)) => {
            return train::run(&args).unwrap_or_else(|f| f.of_file(&args.model).report());
        }
        Some(Command::Weights { command }) => weights::run(&command),
        Some(Command::Operators(args)) => operators::run(&args),
        Some(Command::Strip(args)) => strip::run(&args).map_err(|f| f.of_file(&args.model)),
        Some(Command::Completions { shell }) => {
            // Into memory first: clap panics where nobody reads on.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "per-inject", &mut script);
            streams::print(&String::from_utf8_lossy(&script))
        }
        Some(Command::Man) => {
            let mut page = Vec::new();
            let made = clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::from);
            made.and_then(|()| streams::print(&String::from_utf8_lossy(&page)))
        }
    };
    result.map_or_else(Failure::report, |()| 0)
}
