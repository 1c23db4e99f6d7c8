//! `per-inject diff A B --run`: what both models compute, and how far apart that is.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};
use per_inject::compare::{
    FirstDifference, Inputs, Options, Outcome, Pairs, RunComparison, first_difference, run as run_both,
};
use per_inject::diff::Matching;
use per_inject::engine::{Arrays, EngineError, Fill, LoadOptions, Origin, Runtime, Search};
use per_inject::wire::Model;

use super::args::{Cli, RunArgs};
use super::difference::{MOST, Mark, NAME, Page, both_names};
use super::failure::Failure;
use super::text::{short, visible};

/// Refuses an option on the command line that says how to run models where none is run. An environment variable may say so always.
pub fn refuse_without_run(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some(diff) = matches.subcommand_matches("diff").filter(|diff| !diff.get_flag("run")) else { return Ok(()) };
    let is_given = |id: &&str| diff.value_source(id) == Some(ValueSource::CommandLine);
    match ["inputs", "seed", "dim", "tolerance", "bisect", "ort", "device", "threads"].into_iter().find(is_given) {
        Some(id) => {
            let message = format!("--{id} says how to run the models, and nothing runs them without --run");
            Err(Cli::command().error(ErrorKind::MissingRequiredArgument, message))
        }
        None => Ok(()),
    }
}

/// The runtime that the arguments and the environment lead to.
pub fn open(args: &RunArgs) -> Result<Runtime, Failure> {
    Ok(Runtime::open(&Search::of_process(args.ort.clone()))?)
}

/// Runs both.
pub fn run(
    runtime: &Runtime,
    args: &RunArgs,
    a: &Model,
    b: &Model,
    matching: &Matching,
) -> Result<RunComparison, Failure> {
    let pairs = Pairs::by(a, b, |name| matching.value(name).map(str::to_owned))?;
    let fill = Fill { seed: args.seed, dims: args.dim.iter().cloned().collect(), ..Fill::default() };
    let arrays = args.inputs.as_deref().map(Arrays::read).transpose()?.unwrap_or_default();
    let inputs = Inputs::of(a, b, &pairs, &fill, &arrays)?;
    // Some arrays too many are a remark; where all of them are, what was compared would be made up.
    let is_unused = |name: &String| inputs.a.unused.contains(name) && inputs.b.unused.contains(name);
    if let Some((name, _)) = arrays.named.first()
        && arrays.named.iter().all(|(name, _)| is_unused(name))
    {
        let all = a.graph.inputs.iter().map(|i| i.name()).collect::<Vec<_>>().join(", ");
        let model = a.file.display_name().display().to_string();
        return Err(EngineError::UnknownInput { model, name: name.clone(), all }.into());
    }
    let load = LoadOptions { device: args.device, threads: args.threads, ..LoadOptions::default() };
    let options = Options { load, tolerance: args.tolerance, ..Options::default() };
    let mut found = run_both(runtime, a, b, &pairs, &inputs, &options)?;
    if args.bisect {
        found.first = Some(first_difference(runtime, a, b, &pairs, &inputs, &options)?);
    }
    Ok(found)
}

/// Adds it to a difference as text.
pub fn show(page: &mut Page, run: &RunComparison) {
    page.heading("run");
    let threads = run.threads.map_or(String::new(), |n| format!(", {n} thread{}", if n == 1 { "" } else { "s" }));
    page.sentence(Mark::Context, &format!("{}, on {}{threads}", visible(&run.engine), run.device));
    for input in run.inputs.iter().take(MOST) {
        let name = both_names(input.a.as_deref().unwrap_or("-"), input.b.as_deref().unwrap_or("-"));
        let origin = match input.origin {
            Origin::Given => "as given".to_owned(),
            Origin::Random => "random".to_owned(),
            Origin::RandomBelow(n) => format!("random below {n}"),
        };
        page.line(Mark::Context, &format!("input {name} {}, {origin}", visible(&input.tensor)));
    }
    if let Some(seed) = run.seed {
        page.line(Mark::Context, &format!("seed {seed}"));
    }
    page.some(&run.unused, MOST, |page, name| {
        page.line(Mark::Context, &format!("neither model has an input {}, which is given", short(name, NAME)));
    });
    page.plain(&run.verdict());
    page.some(&run.outputs, MOST, |page, output| {
        let mark = if output.outcome.agrees() { Mark::Context } else { Mark::Changed };
        let name = both_names(&output.a, &output.b);
        page.line(mark, &format!("{name}: {}", visible(&output.outcome.to_string())));
        details(page, &output.outcome);
    });
    page.some(&run.only_a, MOST, |page, name| page.line(Mark::Removed, &format!("output {}", short(name, NAME))));
    page.some(&run.only_b, MOST, |page, name| page.line(Mark::Added, &format!("output {}", short(name, NAME))));
    if let Some(first) = &run.first {
        show_first(page, first, run.agree);
    }
    run.notes.iter().for_each(|note| page.sentence(Mark::Context, &format!("note: {note}")));
}

fn show_first(page: &mut Page, first: &FirstDifference, agree: bool) {
    page.heading("first difference");
    let passes =
        if first.passes == 1 { "one run of each".to_owned() } else { format!("{} runs of each", first.passes) };
    let alone = if first.alone > 0 { format!("; {} of A have no counterpart", first.alone) } else { String::new() };
    let skipped =
        if first.skipped > 0 { format!("; {} are no tensors of numbers", first.skipped) } else { String::new() };
    page.sentence(
        Mark::Context,
        &format!(
            "{} values compared in execution order in {passes}, optimisation {}{alone}{skipped}",
            first.compared,
            first.optimisation.name(),
        ),
    );
    let Some(found) = &first.found else {
        let why = match (agree, first.compared) {
            (true, _) => "",
            (false, 0) => ": none could be compared",
            (false, _) if first.alone > 0 => {
                ": what differs comes from what only one model has, or from the runtime's fusions"
            }
            (false, _) => {
                ": what differs comes from what only B has, or from the runtime's fusions, which are off here"
            }
        };
        page.sentence(Mark::Heading, &format!("No value that both have differs{why}."));
        return;
    };
    let name = both_names(&found.a, &found.b);
    page.line(Mark::Changed, &format!("{name}: {}", visible(&found.outcome.to_string())));
    details(page, &found.outcome);
    page.sentence(
        Mark::Context,
        &format!("made by {} (node {} of A, {} of B)", visible(&found.made_by), found.node_a, found.node_b),
    );
    if !found.unmatched_inputs.is_empty() {
        let names: Vec<String> = found.unmatched_inputs.iter().take(8).map(|name| short(name, NAME)).collect();
        page.sentence(Mark::Context, &format!("it reads what has no counterpart: {}", names.join(", ")));
    }
}

/// What else there is to know of a difference, on a line of its own.
fn details(page: &mut Page, outcome: &Outcome) {
    let Outcome::Compared(d) = outcome else { return };
    let mut parts = Vec::new();
    if d.beyond < d.differing {
        parts.push(format!("{} beyond the tolerance", d.beyond));
    }
    if d.special > 0 {
        parts.push(format!("{} NaN or infinite on one side alone", d.special));
    }
    if d.nan_in_both > 0 && d.differing > 0 {
        parts.push(format!("{} NaN in both", d.nan_in_both));
    }
    if let Some(worst) = &d.worst {
        parts.push(format!("worst at {:?}: {} → {}", worst.index, worst.a, worst.b));
    }
    if !parts.is_empty() {
        page.line(Mark::Context, &format!("  {}", parts.join(", ")));
    }
}
