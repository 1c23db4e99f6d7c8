//! Which integers a graph can take: indices must lie within the axis that they choose from, labels within the classes.

use std::collections::HashSet;

use crate::graph::infer::Types;
use crate::graph::types::Dim;
use crate::graph::{Attributes, Graph, NodeId, Slot, ValueId};

/// The size that every element of `value` must stay below for all that reads it, itself or through nodes that only move elements
/// around; `None` where nothing limits it. `size` gives the size of a dimension.
pub fn bound(graph: &Graph<'_>, types: &Types, value: ValueId, size: &dyn Fn(&Dim) -> Option<u64>) -> Option<u64> {
    let dim = |value: Option<ValueId>, axis: i64| {
        let dims = types.get(value?).dims.as_ref()?;
        let rank = i64::try_from(dims.len()).ok()?;
        size(dims.get(usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?)?)
    };
    let mut smallest: Option<u64> = None;
    let mut seen = HashSet::from([value]);
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        for reader in graph.uses(value) {
            let Slot::Input(slot) = reader.slot else { continue };
            let node = graph.node(reader.node);
            let chosen_from = |axis: &str, default| dim(graph.input(reader.node, 0), node.int(axis).unwrap_or(default));
            let limit = match (node.op_type(), slot) {
                ("Gather" | "GatherElements" | "ScatterElements" | "Scatter", 1) => chosen_from("axis", 0),
                ("GatherND" | "ScatterND", 1) => first_axes(graph, types, reader.node, &dim),
                ("SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLossInternal", 1) => {
                    dim(graph.input(reader.node, 0), 1)
                }
                ("OneHot", 0) => {
                    let depth = graph.input(reader.node, 1).and_then(|v| graph.scalar(v));
                    depth.filter(|d| *d >= 1.0 && *d < 9e15).map(|d| d as u64)
                }
                (op, slot) if moves_elements(op, slot) => {
                    let outputs = graph.outputs_of(reader.node).iter().flatten();
                    waiting.extend(outputs.copied().filter(|v| seen.insert(*v)));
                    None
                }
                _ => None,
            };
            smallest = smallest.into_iter().chain(limit).min();
        }
    }
    smallest
}

/// An index of several numbers chooses from several axes, each number from its own; the smallest of these is safe for all.
fn first_axes(
    graph: &Graph<'_>,
    types: &Types,
    node: NodeId,
    dim: &dyn Fn(Option<ValueId>, i64) -> Option<u64>,
) -> Option<u64> {
    let first = graph.node(node).int("batch_dims").unwrap_or(0);
    let indices = types.get(graph.input(node, 1)?).dims.as_ref()?;
    let numbers = i64::try_from(indices.last()?.known()?).ok()?;
    (first..first.checked_add(numbers)?)
        .map(|axis| dim(graph.input(node, 0), axis))
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .min()
}

fn moves_elements(op: &str, slot: u32) -> bool {
    match op {
        "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Transpose" | "Expand" | "Slice"
        | "Split" | "Tile" | "Pad" => slot == 0,
        "Concat" => true,
        "Where" => slot > 0,
        _ => false,
    }
}
