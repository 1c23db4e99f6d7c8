//! The term in the losses of `training_info`: each algorithm graph that asks for the gradient of a loss gets it, nothing else changes.
//!
//! The algorithm is looked at together with the main graph ([`Step`]) and edited alone. The Gradient node names its loss, which keeps its
//! name, so that it differentiates the sum; what is added besides the loss are initializers, which count as constants.

use super::account::added;
use super::error::InjectError;
use super::options::{Form, Options};
use super::report::Report;
use super::{Draft, Joined, Place, Plan, draft, finish};
use crate::analysis::Analysis;
use crate::graph::Graph;
use crate::graph::backward::requests;
use crate::graph::kind::backward_evidence;
use crate::naming;
use crate::patch::{Change, Patch};
use crate::record::{ROOT, RecordedStep};
use crate::step::Step;
use crate::wire::{Model, structure_digest};

/// Whether the term belongs into `training_info`: there is some, the main graph computes no gradients, and nothing else is asked for.
pub fn is_meant(model: &Model, options: &Options) -> Result<bool, InjectError> {
    if model.training_info.is_empty() || options.as_output || options.form == Form::Gradient || options.target.is_some()
    {
        return Ok(false);
    }
    let graph = Graph::of(model)?;
    let names_main = options.loss.as_ref().is_some_and(|name| graph.find(name).is_some());
    Ok(backward_evidence(&graph).is_none() && !names_main)
}

/// Plans the injection into every algorithm graph that has a Gradient node.
pub fn plan(model: &Model, options: &Options) -> Result<Plan, InjectError> {
    if options.loss_term {
        return Err(InjectError::LossTermAnyway);
    }
    let entries = 0..model.training_info.len();
    let mut number = naming::free_root(model, &Graph::of(model)?).1;
    let mut with_loss = Vec::new();
    for entry in entries.clone() {
        // A training_info without an algorithm does no steps.
        let Ok(step) = Step::of(model, entry, ROOT) else { continue };
        let graph = Graph::of(&step.model)?;
        number = number.max(naming::free_root(&step.model, &graph).1);
        if !requests(&graph).is_empty() {
            with_loss.push(entry);
        }
    }
    let root = naming::root(number);
    let mut whole: Option<Report> = None;
    let mut patch = Patch::default();
    let mut steps = Vec::new();
    let mut failures = Vec::new();
    for entry in with_loss {
        let first = whole.as_ref().map_or(0, |r| r.layers.len());
        match plan_step(model, options, entry, &Place { root: &root, number, first }) {
            Ok((changes, report, step)) => {
                patch.changes.extend(changes);
                steps.extend(step);
                match &mut whole {
                    None => whole = Some(report),
                    Some(whole) => append(whole, report),
                }
            }
            Err(error) if options.strict => return Err(error),
            Err(error) => failures.push((entry, error)),
        }
    }
    let Some(mut report) = whole else {
        return Err(match failures.into_iter().next() {
            Some((_, error)) => error,
            None => InjectError::TrainingInfo { entries: entries.len() },
        });
    };
    report.warnings.extend(failures.iter().map(|(entry, e)| format!("training_info {entry} is left as it is: {e}")));
    report.model.bytes = model.file.bytes.len() as u64;
    report.model.nodes = model.graph.nodes.len();
    let place = Place { root: &root, number, first: 0 };
    let joined = Joined { steps, ..Joined::default() };
    finish(model, options, &place, patch, report, joined, structure_digest(model))
}

/// The changes of one algorithm graph, with their report and record.
fn plan_step(
    model: &Model,
    options: &Options,
    entry: usize,
    place: &Place,
) -> Result<(Vec<Change>, Report, Option<RecordedStep>), InjectError> {
    let step = Step::of(model, entry, place.root)?;
    let analysis = Analysis::with_overrides(&step.model, options.wrt.as_deref(), options.freeze.as_deref())?;
    let Draft { patch, mut report, loss_producer, joined } = draft(&analysis, options, place)?;
    report.form = "training_info";
    report.losses.iter_mut().for_each(|l| l.training_info = Some(entry));
    report.layers.iter_mut().for_each(|l| l.training_info = Some(entry));
    let Some(task_loss) = joined.task_loss else { return Ok((Vec::new(), report, None)) };
    let of_main = || InjectError::LossOfMainGraph { entry, loss: task_loss.from.clone() };
    if !loss_producer.is_some_and(|node| step.is_in_algorithm(node.index())) {
        return Err(of_main());
    }
    let tapped: Vec<&str> = report.layers.iter().map(|l| l.tensor.as_str()).collect();
    let copies = step.copied_nodes(&tapped);
    let at = patch.changes.last().map(|c| c.at).unwrap_or_default();
    let mut changes = patch.changes;
    if !copies.is_empty() {
        let reason =
            format!("what the call of the main graph computes before the layers of training_info {entry}, once more");
        changes.insert(0, Change { reason, nodes: copies.into(), at, ..Change::default() });
    }
    let changes = changes.into_iter().map(|c| step.translate(c)).collect::<Option<Vec<_>>>().ok_or_else(of_main)?;
    let outputs = report.outputs.iter().filter(|o| !o.starts_with(place.root)).cloned().collect();
    report.added = added(&changes);
    let record = RecordedStep { entry, task_loss, outputs, added: report.added };
    Ok((changes, report, Some(record)))
}

/// The report of two algorithm graphs as one.
fn append(whole: &mut Report, more: Report) {
    whole.losses.extend(more.losses);
    whole.layers.extend(more.layers);
    whole.skipped.extend(more.skipped);
    for warning in more.warnings {
        if !whole.warnings.contains(&warning) {
            whole.warnings.push(warning);
        }
    }
    whole.outputs.extend(more.outputs);
    whole.inputs.extend(more.inputs);
    let (all, added) = (&mut whole.added, more.added);
    all.nodes += added.nodes;
    all.initializers += added.initializers;
    all.inputs += added.inputs;
    all.outputs += added.outputs;
    let (all, cost) = (&mut whole.cost, more.cost);
    all.model_multiply_adds += cost.model_multiply_adds;
    all.term_multiply_adds += cost.term_multiply_adds;
    all.term_bytes += cost.term_bytes;
    all.random_numbers += cost.random_numbers;
    all.per_sample |= cost.per_sample;
}
