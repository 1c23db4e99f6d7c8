//! Types of all values: what the file declares, and what follows from it.
//!
//! One pass in topological order, linear in the size of the graph. A declaration is never contradicted: inference fills in what a
//! declaration leaves open, and where the two disagree the declaration stands. What an operator that is not known makes stays unknown.

mod constant;
mod convolution;
mod dims;
mod flow;
mod int;
mod integers;
mod layout;
mod loss;
mod matmul;
mod normalization;
mod pointwise;
mod pooling;
mod recurrent;
mod reduction;
mod registry;
mod resize;
mod select;
mod sequences;
mod shaping;
mod site;
#[cfg(test)]
mod tests;

pub use layout::Layout;
pub use resize::scaled_length;

use layout::Making;
use registry::Rule;
pub use site::MAX_RANK;
use site::{Known, Site};

use std::collections::HashSet;

use rayon::prelude::*;

use super::types::{Dim, TensorType};
use super::{Graph, NodeId, ValueId};
use crate::onnx::ValueInfoProto;
use crate::wire::Model;

/// What is known of every value of a graph.
#[derive(Debug, Clone)]
pub struct Types {
    types: Vec<TensorType>,
    layouts: Vec<Layout>,
    /// Sequences, maps, optionals and sparse tensors.
    not_tensors: HashSet<ValueId>,
}

impl Types {
    /// Declared and inferred types of a graph: the main graph of `model`, or the body of one of its functions (for which nothing
    /// is declared). Never fails; what cannot be known stays unknown.
    pub fn of(graph: &Graph<'_>, model: &Model) -> Types {
        let is_main = std::ptr::eq(graph.nodes, model.graph.nodes.as_slice());
        let types = if is_main { declared(graph, model) } else { vec![TensorType::default(); graph.value_count()] };
        let (found, not_tensors) = rayon::join(
            || Self::starting(graph, model, types, flow::DEPTH),
            || sequences::no_tensors(graph, is_main.then_some(model)),
        );
        Types { not_tensors, ..found }
    }

    /// What follows from these, looking so deep into bodies; all values are taken for tensors.
    fn starting(graph: &Graph<'_>, model: &Model, types: Vec<TensorType>, depth: usize) -> Types {
        let integers = vec![None; graph.value_count()];
        let mut known = Known { graph, types, integers, model, opset: model.opset(), depth };
        let mut layouts: Vec<Layout> = known.types.iter().map(starting_layout).collect();
        for node in graph.topological_order() {
            infer_node(&mut known, &mut layouts, *node);
        }
        Types { types: known.types, layouts, not_tensors: HashSet::new() }
    }

    /// The type of a value.
    pub fn get(&self, value: ValueId) -> &TensorType {
        &self.types[value.index()]
    }

    /// Whether a value is a tensor, as far as is known: not declared as, nor made as, anything else.
    pub fn is_tensor(&self, value: ValueId) -> bool {
        !self.not_tensors.contains(&value)
    }

    /// What the axes of a value mean, by how it was made.
    pub fn layout(&self, value: ValueId) -> Layout {
        self.layouts[value.index()]
    }
}

/// Graph inputs, outputs and value_info as declared; initializers as they are.
fn declared(graph: &Graph<'_>, model: &Model) -> Vec<TensorType> {
    let mut types = vec![TensorType::default(); graph.value_count()];
    let main = &model.graph;
    let read = |d: &ValueInfoProto| graph.find(d.name()).zip(TensorType::of_value(d));
    for declarations in [&main.value_info, &main.outputs, &main.inputs] {
        let found: Vec<_> = declarations.par_iter().map(read).collect();
        for (value, found) in found.into_iter().flatten() {
            let known = &mut types[value.index()];
            let earlier = std::mem::replace(known, found);
            if known.elem == 0 {
                known.elem = earlier.elem;
            }
            known.dims = known.dims.take().or(earlier.dims);
        }
    }
    for (initializer, value) in graph.initializers.iter().zip(&graph.initializer_values) {
        let dims = initializer.dims.iter().map(|d| u64::try_from(*d).map_or(Dim::Unknown, Dim::Known)).collect();
        types[value.index()] = TensorType { elem: initializer.data_type, dims: Some(dims) };
    }
    types
}

fn starting_layout(known: &TensorType) -> Layout {
    if known.rank() == Some(2) { Layout::Features } else { Layout::Unknown }
}

/// Adds to `known` what it leaves open. A symbol gives way to a number, which says more and contradicts nothing.
fn fill_in(known: &mut TensorType, found: TensorType) {
    if known.elem == 0 {
        known.elem = found.elem;
    }
    let Some(found) = found.dims.filter(|d| d.len() <= MAX_RANK) else { return };
    match &mut known.dims {
        None => known.dims = Some(found),
        Some(dims) if dims.len() == found.len() => {
            for (dim, found) in dims.iter_mut().zip(found) {
                if *dim == Dim::Unknown || (dim.known().is_none() && found.known().is_some()) {
                    *dim = found;
                }
            }
        }
        Some(_) => {}
    }
}

/// Whether nothing is left to infer.
fn is_complete(known: &TensorType) -> bool {
    known.elem != 0 && known.dims.as_ref().is_some_and(|dims| dims.iter().all(|d| d.known().is_some()))
}

fn infer_node(known: &mut Known<'_, '_>, layouts: &mut [Layout], id: NodeId) {
    let graph = known.graph;
    let node = graph.node(id);
    let outputs = graph.outputs_of(id);
    // Y of an LSTM may be left out where only Y_h is used.
    let Some(present) = outputs.iter().flatten().next().copied() else { return };
    let operator = registry::operator(node.domain(), node.op_type());
    let open = || outputs.iter().flatten().any(|v| !is_complete(&known.types[v.index()]));
    if let Some(operator) = operator.filter(|_| open()) {
        apply(operator.rule, known, id, outputs);
    }
    let site = Site { known, id, node };
    let input = |slot: usize| site.value(slot).map_or(Layout::Unknown, |v| layouts[v.index()]);
    let making = operator.map(|o| o.layout).or_else(|| Making::of(node.op_type())).unwrap_or(Making::Nothing);
    let layout = layout::of(making, &site, input, &known.types[present.index()]);
    let integers = if operator.is_some_and(|o| o.integers) { integers::evaluate(&site) } else { None };
    for value in outputs.iter().flatten() {
        let rank_two = known.types[value.index()].rank() == Some(2);
        layouts[value.index()] = if rank_two { Layout::Features } else { layout };
    }
    if let Some(first) = outputs[0] {
        known.note_integers(first, integers);
    }
}

/// Fills in what a rule finds about a node's outputs.
fn apply(rule: Rule, known: &mut Known<'_, '_>, id: NodeId, outputs: &[Option<ValueId>]) {
    let site = Site { known, id, node: known.graph.node(id) };
    let found = match rule {
        Rule::Like(slot, dims) => TensorType { elem: site.elem(slot), dims: dims(&site) },
        Rule::Typed(elem, dims) => TensorType { elem: elem as i32, dims: dims(&site) },
        Rule::Each(all) => {
            for (value, found) in outputs.iter().zip(all(&site)) {
                if let Some(value) = value {
                    fill_in(&mut known.types[value.index()], found);
                }
            }
            return;
        }
    };
    if let Some(first) = outputs.first().copied().flatten() {
        fill_in(&mut known.types[first.index()], found);
    }
}
