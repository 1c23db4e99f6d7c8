//! Taking an injection out again: the inverse patch, from the record in the metadata.
//!
//! Works on the structure, not on remembered bytes, so it also undoes an injection after training changed the weights and after
//! another program wrote the file anew. On the file as injected it gives back the original, bit for bit.

mod restore;

use std::collections::HashSet;

use thiserror::Error;

use crate::graph::{Graph, GraphError, NodeId, ValueId};
use crate::onnx::StringStringEntryProto;
use crate::patch::{Change, Part, Patch, Place, Rename};
use crate::record::{Added, Record, Renamed, STEP_KEY};
use crate::step::Step;
use crate::weights::WeightsError;
use crate::wire::fields::{graph as graph_field, node as node_field};
use crate::wire::{Model, ModelFile, WireError, structure_digest_of, structure_digest_without};
use restore::restore;

/// Why nothing was taken out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StripError {
    /// The file's bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The graph's structure.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// No record in the metadata.
    #[error("the model holds no injection: its metadata has no entry \"per_inject\"")]
    NotInjected,
    /// A record that cannot be read.
    #[error("{problem}")]
    BadRecord {
        /// What is wrong with it.
        problem: String,
    },
    /// Parts of the injection are gone, so that what is left is no longer ours to take out.
    #[error(
        "another program changed the injected part ({part} under {root:?}: {expected} were added, and {found} are there); \
         strip the file before optimising, converting or differentiating it"
    )]
    Changed {
        /// "nodes", "initializers" …
        part: &'static str,
        /// Where they were added.
        root: String,
        /// How many were added.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// What took the place of an original part is gone.
    #[error("another program changed the injected part: {what} is not there, so what it stands for cannot be put back")]
    StandinGone {
        /// What was looked for.
        what: String,
    },
    /// Elements that cannot be put back.
    #[error("the initializer {name:?} cannot go back to the body that it came from: {problem}")]
    Elements {
        /// The initializer.
        name: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Elements that cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Something outside the injection reads what the injection made.
    #[error("{node} reads {tensor:?}, which belongs to the injection, so taking it out would break the graph")]
    InUse {
        /// The reader.
        node: String,
        /// The value.
        tensor: String,
    },
    /// An output of the graph, under a name that the injection did not give it, is made by the injection.
    #[error(
        "the graph output {tensor:?} is made by the injection, which did not name it so: another program renamed it; \
         give it back its name before taking the injection out"
    )]
    IsOutput {
        /// The output.
        tensor: String,
    },
}

/// The patch that takes the last injection out, and the record of that injection.
pub fn plan(model: &Model) -> Result<(Patch, Record), StripError> {
    let mut records = Record::all(model).map_err(|problem| StripError::BadRecord { problem })?;
    let (metadata, record) = records.pop().ok_or(StripError::NotInjected)?;
    let mut changes = Vec::new();
    for recorded in &record.steps {
        let step = Step::of(model, recorded.entry, &record.root)?;
        let (task_loss, outputs) = (Some(recorded.task_loss.clone()), recorded.outputs.clone());
        let own = Record { task_loss, outputs, added: recorded.added, steps: Vec::new(), ..record.clone() };
        let elsewhere =
            || WireError::NoSuchPlace { what: format!("the injection in training_info {}", recorded.entry) };
        changes.push(step.translate(undo(&step.model, &own)?).ok_or_else(elsewhere)?);
    }
    if record.steps.is_empty() {
        changes.push(undo(model, &record)?);
    }
    let reason = "take the record out".into();
    let mut removals = vec![Part::Metadata(metadata)];
    if record.is_step() {
        let is_of_step = |(_, entry): &(usize, &StringStringEntryProto)| entry.key() == STEP_KEY;
        removals.extend(model.metadata.iter().enumerate().filter(is_of_step).map(|(i, _)| Part::Metadata(i)));
    }
    changes.push(Change { reason, removals, ..Change::default() });
    Ok((Patch { changes, widths: record.widths.clone() }, record))
}

/// What takes an injection out of one graph.
fn undo(model: &Model, record: &Record) -> Result<Change, StripError> {
    let graph = Graph::of(model)?;
    let task = record.task_loss.as_ref();
    let is_task = |name: &str| task.is_some_and(|t| t.to == name);
    let ours = |name: &str| name.starts_with(&record.root) && !is_task(name);

    let mut change = Change { reason: "take the injection out".into(), ..Change::default() };
    let mut found = Added::default();
    let mut is_ours = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let makes_total = node.input.iter().any(|n| is_task(n)) && task.is_some_and(|t| node.output.contains(&t.from));
        let makes_output = node.output.iter().any(|o| record.outputs.contains(o));
        is_ours[i] = ours(node.name()) || node.output.iter().any(|o| ours(o)) || makes_total || makes_output;
        found.nodes += usize::from(is_ours[i]);
    }
    let restored = restore(model, &graph, record)?;
    let kept = restored.becomes_original();
    let gone = (0..is_ours.len()).filter(|i| is_ours[*i] && !kept.contains(i));
    change.removals.extend(gone.map(Part::Node));
    for (i, initializer) in model.graph.initializers.iter().enumerate() {
        if ours(&initializer.name) || record.hoisted.iter().any(|h| h.name == initializer.name) {
            found.initializers += 1;
            change.removals.push(Part::Initializer(i));
        }
    }
    for (i, value) in model.graph.value_info.iter().enumerate() {
        if ours(value.name()) || is_task(value.name()) {
            change.removals.push(Part::ValueInfo(i));
        }
    }
    for (i, input) in model.graph.inputs.iter().enumerate() {
        if ours(input.name()) {
            found.inputs += 1;
            change.removals.push(Part::Input(i));
        }
    }
    let removed_output = |name: &str| ours(name) || is_task(name) || record.outputs.iter().any(|o| o == name);
    for (i, output) in model.graph.outputs.iter().enumerate() {
        if removed_output(output.name()) {
            found.outputs += 1;
            change.removals.push(Part::Output(i));
        }
    }
    all_there(record, found)?;
    // The sum under the loss's own name is read by nodes of the model, which read the task loss again afterwards; so are sums of gradients.
    let read_outside: HashSet<&str> =
        task.map(|t| t.from.as_str()).into_iter().chain(record.gradients.iter().map(|g| g.to.as_str())).collect();
    unused_elsewhere(&graph, &is_ours, &restored.stands_in, &record.root, &read_outside)?;
    // What stands in for an original node makes that node's values, which stay.
    let mut goes = is_ours.clone();
    restored.stands_in.iter().for_each(|i| goes[*i] = false);
    no_output_left(&graph, &goes, |name| removed_output(name) || task.is_some_and(|t| t.from == name))?;
    change.replacements = restored.replacements;

    if let Some(task) = task {
        let value = task_value(&graph, &goes, task, &record.root)?;
        let rename = |place| Rename { place, from: task.to.clone(), to: task.from.clone() };
        if let Some((producer, slot)) = graph.producer(value).filter(|(node, _)| !is_ours[node.index()]) {
            let place = vec![(graph_field::NODE, producer.index()), (node_field::OUTPUT, slot as usize)];
            change.renames.push(rename(place));
        }
        let others = graph.uses(value).iter().filter(|u| !is_ours[u.node.index()]);
        change.renames.extend(others.map(|u| rename(graph.place_of_use(*u))));
    }
    for gradient in &record.gradients {
        let uses = graph.find(&gradient.to).map(|value| graph.uses(value)).unwrap_or_default();
        let others = uses.iter().filter(|u| !is_ours[u.node.index()]);
        let rename = |place| Rename { place, from: gradient.to.clone(), to: gradient.from.clone() };
        change.renames.extend(others.map(|u| rename(graph.place_of_use(*u))));
    }
    Ok(change)
}

/// Whether a stripped file has the structure that the record remembers: the same bytes, but for elements of initializers.
pub fn is_original(stripped: &ModelFile, record: &Record) -> Result<bool, WireError> {
    let places: Vec<Place> = record.hoisted.iter().map(|h| h.place.clone()).collect();
    let digest = if places.is_empty() {
        structure_digest_of(stripped)?
    } else {
        structure_digest_without(&Model::from_bytes(stripped.bytes.clone())?, &places)?
    };
    Ok(digest == record.original.structure)
}

fn all_there(record: &Record, found: Added) -> Result<(), StripError> {
    let expected = record.added;
    let parts = [
        ("nodes", expected.nodes, found.nodes),
        ("initializers", expected.initializers, found.initializers),
        ("inputs", expected.inputs, found.inputs),
        ("outputs", expected.outputs, found.outputs),
    ];
    for (part, expected, found) in parts {
        if expected != found {
            return Err(StripError::Changed { part, root: record.root.clone(), expected, found });
        }
    }
    Ok(())
}

/// The value that gets the loss's name back: it and the sum under that name must be there.
fn task_value(graph: &Graph, is_ours: &[bool], task: &Renamed, root: &str) -> Result<ValueId, StripError> {
    let value = |name: &str, made_by_us: bool| {
        let found = graph.find(name)?;
        let producer = graph.producer(found).map(|(node, _)| node);
        (producer.is_some_and(|node| is_ours[node.index()]) == made_by_us).then_some(found)
    };
    let gone = || StripError::Changed { part: "task losses", root: root.into(), expected: 1, found: 0 };
    value(&task.from, true).and(value(&task.to, false)).ok_or_else(gone)
}

/// Another program may have given a value of ours a name of its own and made it an output.
fn no_output_left(graph: &Graph, is_ours: &[bool], goes: impl Fn(&str) -> bool) -> Result<(), StripError> {
    for output in &graph.outputs {
        let ours = graph.producer(*output).is_some_and(|(node, _)| is_ours[node.index()]);
        if ours && !goes(graph.name(*output)) {
            return Err(StripError::IsOutput { tensor: graph.name(*output).into() });
        }
    }
    Ok(())
}

fn unused_elsewhere(
    graph: &Graph,
    is_ours: &[bool],
    stands_in: &HashSet<usize>,
    root: &str,
    read_outside: &HashSet<&str>,
) -> Result<(), StripError> {
    for (i, _) in is_ours.iter().enumerate().filter(|(_, ours)| **ours) {
        for value in graph.outputs_of(NodeId(i as u32)).iter().flatten() {
            // What stands in for an original node makes that node's values, which the original will make again.
            if stands_in.contains(&i) && !graph.name(*value).starts_with(root) {
                continue;
            }
            let outside = graph.uses(*value).iter().find(|u| !is_ours[u.node.index()]);
            if let Some(used) = outside.filter(|_| !read_outside.contains(&graph.name(*value))) {
                return Err(StripError::InUse { node: graph.describe(used.node), tensor: graph.name(*value).into() });
            }
        }
    }
    let constants = graph.initializers.iter().map(|t| t.name.as_str());
    let inputs = graph.inputs.iter().map(|v| graph.name(*v));
    for name in constants.chain(inputs).filter(|name| name.starts_with(root)) {
        let uses = graph.find(name).map(|value| graph.uses(value)).unwrap_or_default();
        if let Some(used) = uses.iter().find(|u| !is_ours[u.node.index()]) {
            return Err(StripError::InUse { node: graph.describe(used.node), tensor: name.into() });
        }
    }
    Ok(())
}
