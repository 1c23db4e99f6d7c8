//! The main job: `per-inject MODEL --layers … --coef … -o OUT`.

use std::path::Path;

use clap::error::ErrorKind;
use per_inject::inject::{Plan, Report, plan};
use per_inject::wire::Model;

use super::args::InjectArgs;
use super::deliver::deliver;
use super::failure::Failure;
use super::{render, streams};

/// A coefficient from here on is a slip of the pen more often than not.
const SUSPICIOUS: f64 = 1000.0;

pub fn run(args: &InjectArgs) -> Result<(), Failure> {
    let path = refuse_slips(args)?;
    let to_stdout = args.output.as_deref().is_some_and(|o| o.as_os_str() == "-");
    if args.json && to_stdout && !args.dry_run {
        return Err(Failure::usage(ErrorKind::ArgumentConflict, "--json and -o - both want standard output"));
    }
    inject_and_show(args, path, to_stdout).map_err(|f| f.of_file(path))
}

/// Refuses what is missing and what cannot be meant; gives the model's path.
pub fn refuse_slips(args: &InjectArgs) -> Result<&Path, Failure> {
    let Some(path) = &args.model else {
        return Err(Failure::usage(
            ErrorKind::MissingRequiredArgument,
            "which model? give an ONNX file, or - for standard input",
        ));
    };
    if args.layers.is_none() && !args.options().is_lowering_alone() {
        return Err(Failure::usage(
            ErrorKind::MissingRequiredArgument,
            format!(
                "which layers? add --layers relu, or --layers all; 'per-inject inspect {}' lists them{}",
                path.display(),
                if args.target.is_some() { " (--layers none rewrites the graph and adds no term)" } else { "" }
            ),
        ));
    }
    if args.output.is_none() && !args.dry_run {
        return Err(Failure::usage(
            ErrorKind::MissingRequiredArgument,
            "where shall the result go? add -o OUT.onnx (-o - is standard output), or --dry-run to see what would be done",
        ));
    }
    args.coef.iter().try_for_each(|coef| refuse_drowning(coef.value, args.any_coef))?;
    Ok(path)
}

/// Refuses a coefficient beside which no task loss counts.
pub fn refuse_drowning(coefficient: f64, is_accepted: bool) -> Result<(), Failure> {
    // What is not finite is refused later, whatever else is accepted.
    if coefficient < SUSPICIOUS || !coefficient.is_finite() || is_accepted {
        return Ok(());
    }
    let written = format!("{coefficient:e}");
    let meant = written.replace('e', "e-");
    let message = format!(
        "the coefficient {written} would drown every task loss: did you mean {meant}? (the paper takes 1e-7 to 3e-4; --any-coef accepts it)"
    );
    Err(Failure::usage(ErrorKind::InvalidValue, message))
}

/// Injects, and writes the result where it is to go somewhere.
pub fn inject(args: &InjectArgs, model: &Model) -> Result<Plan, Failure> {
    let mut plan = plan(model, &args.options())?;
    if let Some(output) = args.output.as_ref().filter(|_| !args.dry_run) {
        plan.report.warnings.extend(deliver(model, &plan.patch, output, args.external.into(), args.sync)?);
    }
    Ok(plan)
}

fn inject_and_show(args: &InjectArgs, path: &Path, to_stdout: bool) -> Result<(), Failure> {
    let model = Model::open(path)?;
    let Plan { patch, report } = inject(args, &model)?;
    let shown = show(args, &report, to_stdout);
    // The process ends here: freeing a large graph piece by piece would only take time.
    std::mem::forget((model, patch, report));
    shown
}

fn show(args: &InjectArgs, report: &Report, to_stdout: bool) -> Result<(), Failure> {
    if args.json {
        return render::json(report);
    }
    let text = render::injection(report, args.output.as_deref().filter(|_| !args.dry_run));
    if to_stdout && !args.dry_run {
        streams::tell(&text);
        return Ok(());
    }
    streams::print(&text)
}
