//! `per-inject diff A B`, and the same as git calls it.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use per_inject::diff::{Diff, DotOptions, Ignore, Options, diff, dot};
use per_inject::page;
use per_inject::wire::Model;

use super::args::{ColorArg, DiffArgs, FormatArg, IgnoreArg};
use super::deliver::{refuse_a_terminal, report};
use super::failure::Failure;
use super::running;
use super::text::escaped;

/// A model without anything: field 7, the graph, of no bytes. What git calls `/dev/null`.
const NOTHING: &[u8] = &[7 << 3 | 2, 0];

pub fn run(args: &DiffArgs) -> u8 {
    match compare(args) {
        Ok(is_equal) if args.exit_code => u8::from(!is_equal),
        Ok(_) => 0,
        Err(failure) if args.exit_code && !matches!(failure, Failure::BrokenPipe) => {
            failure.report();
            2
        }
        Err(failure) => failure.report(),
    }
}

/// Compares and shows; whether nothing differs.
fn compare(args: &DiffArgs) -> Result<bool, Failure> {
    if matches!(args.format, FormatArg::Html) {
        refuse_a_terminal(args.output.as_deref())?;
    }
    let [a, b] = &files(&args.models)?;
    if let Some(output) = &args.output {
        refuse_as_output(output, [a, b])?;
    }
    if args.run.run && matches!(args.format, FormatArg::Dot) {
        let message = "--run shows in --format text, json and html, and not in a picture";
        return Err(Failure::usage(ErrorKind::ArgumentConflict, message));
    }
    let (a, b) = (open(a)?, open(b)?);
    let found = difference(args, &a, &b)?;
    let shown = show(args, &a, &b, &found)?;
    report(shown, args.output.as_deref(), &[&a, &b])?;
    let is_equal = found.equal && found.run.as_ref().is_none_or(|run| run.agree);
    // The process ends here: freeing two large graphs piece by piece would only take time.
    std::mem::forget((a, b, found));
    Ok(is_equal)
}

/// What differs; with `--run`, also in what comes out.
pub fn difference(args: &DiffArgs, a: &Model, b: &Model) -> Result<Diff, Failure> {
    // First, since whoever lacks an ONNX Runtime need not wait to be told.
    let runtime = args.run.run.then(|| running::open(&args.run)).transpose()?;
    let mut found = diff(a, b, &Options { ignore: ignored(&args.ignore) })?;
    if let Some(runtime) = runtime {
        found.run = Some(running::run(&runtime, &args.run, a, b, &found.matching)?);
    }
    Ok(found)
}

fn show(args: &DiffArgs, a: &Model, b: &Model, found: &Diff) -> Result<String, Failure> {
    let is_coloured = match args.color {
        ColorArg::Always => true,
        ColorArg::Never => false,
        ColorArg::Auto => {
            args.output.is_none()
                && io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    };
    match args.format {
        FormatArg::Json => Ok(escaped(&serde_json::to_string_pretty(found)?) + "\n"),
        FormatArg::Text => Ok(super::difference::text(found, args.expand, is_coloured)),
        FormatArg::Dot => Ok(dot(found, a, b, DotOptions { full: args.full, expand: args.expand })),
        FormatArg::Html => Ok(page::of_diff(a, b, found, args.expand)?),
    }
}

/// The two files among the arguments: two, or those with which git runs an external diff (path, old file, hex, mode, new file, hex,
/// mode, and for a renamed file its other path and what was renamed).
fn files(arguments: &[PathBuf]) -> Result<[PathBuf; 2], Failure> {
    let (a, b) = match arguments {
        [a, b] | [_, a, _, _, b, _, _] | [_, a, _, _, b, _, _, _, _] => (a, b),
        more => {
            let message = format!("two models are compared, and {} are given", more.len());
            return Err(Failure::usage(ErrorKind::TooManyValues, message));
        }
    };
    if a.as_os_str() == "-" && b.as_os_str() == "-" {
        return Err(Failure::usage(ErrorKind::ArgumentConflict, "standard input (-) holds one model, not two"));
    }
    Ok([a.clone(), b.clone()])
}

/// A report in the place of a model is a slip of the pen.
fn refuse_as_output(output: &Path, models: [&Path; 2]) -> Result<(), Failure> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    match models.into_iter().find(|m| real(m).is_some() && real(m) == real(output)) {
        Some(model) => {
            let message = format!("the difference would take the place of {}; give -o another name", model.display());
            Err(Failure::usage(ErrorKind::ArgumentConflict, message))
        }
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<Model, Failure> {
    let model = if path == Path::new("/dev/null") { Model::from_bytes(NOTHING) } else { Model::open(path) };
    model.map_err(|error| Failure::from(error).of_file(path))
}

fn ignored(list: &[IgnoreArg]) -> Ignore {
    let has = |arg| list.contains(&arg);
    Ignore {
        names: has(IgnoreArg::Names),
        docs: has(IgnoreArg::Docs),
        shapes: has(IgnoreArg::Shapes),
        weights: has(IgnoreArg::Weights),
    }
}
