//! Edits of models that are in memory alone.

use std::collections::HashSet;

use super::error::TrainResult;
use crate::graph::infer::Types;
use crate::graph::{Graph, ValueId};
use crate::patch::{Change, Part, Patch};
use crate::wire::{Model, splice};

/// The model that a patch makes of another. It keeps its name and its folder.
pub fn applied(model: &Model, patch: &Patch) -> TrainResult<Model> {
    let mut made = Model::from_bytes(splice(model, patch)?.to_vec(&model.file.bytes))?;
    made.file.path.clone_from(&model.file.path);
    Ok(made)
}

/// As [`applied`], of one change.
pub fn changed(model: &Model, change: Change) -> TrainResult<Model> {
    applied(model, &Patch { changes: vec![change], ..Patch::default() })
}

/// Makes inputs of initializers: whoever runs the model gives their values, and it does not hold a second copy of them.
pub fn as_inputs(model: &Model, names: &HashSet<&str>) -> TrainResult<Model> {
    let graph = Graph::of(model)?;
    let types = Types::of(&graph, model);
    let mut change = Change { reason: "state comes from outside".into(), ..Change::default() };
    for (i, initializer) in model.graph.initializers.iter().enumerate() {
        if !names.contains(initializer.name.as_str()) {
            continue;
        }
        change.removals.push(Part::Initializer(i));
        let value: Option<ValueId> = graph.find(&initializer.name).filter(|v| !graph.is_input(*v));
        change.inputs.extend(value.and_then(|v| types.get(v).declare(&initializer.name)));
    }
    changed(model, change)
}
