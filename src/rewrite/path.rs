//! The path of gradients: what lies between what is trained and the loss.

use crate::analysis::Analysis;
use crate::graph::{NodeId, ValueId};
use crate::onnx::NodeProto;

/// Nodes and values between what is trained and the loss.
#[derive(Debug)]
pub struct Path {
    nodes: Vec<bool>,
    /// By value: whether it depends on what is trained.
    depends: Vec<bool>,
    /// By value: whether its gradient is computed.
    values: Vec<bool>,
}

impl Path {
    /// Follows edges forward from the trained initializers and backward from the loss (or from every output); `stops` says which inputs
    /// of an operator no gradient passes to.
    pub fn following(analysis: &Analysis, loss: Option<ValueId>, stops: fn(&NodeProto, usize) -> bool) -> Self {
        let to = loss.map_or_else(|| analysis.graph.outputs.clone(), |loss| vec![loss]);
        Self::between(analysis, &analysis.trained_values(), &to, stops)
    }

    /// The same from some values to others.
    pub fn between(
        analysis: &Analysis,
        from: &[ValueId],
        to: &[ValueId],
        stops: fn(&NodeProto, usize) -> bool,
    ) -> Self {
        let graph = &analysis.graph;
        let mut depends = vec![false; graph.value_count()];
        from.iter().for_each(|v| depends[v.index()] = true);
        let carries = |node: NodeId| {
            let operator = graph.node(node);
            let inputs = graph.inputs_of(node).iter().enumerate();
            inputs.filter(move |(slot, _)| !stops(operator, *slot)).filter_map(|(_, value)| *value)
        };
        let captured = |node: NodeId| graph.captures_of(node).iter().map(|c| c.value);
        for node in graph.topological_order() {
            if carries(*node).chain(captured(*node)).any(|v| depends[v.index()]) {
                graph.outputs_of(*node).iter().flatten().for_each(|v| depends[v.index()] = true);
            }
        }
        let mut leads = vec![false; graph.value_count()];
        to.iter().for_each(|v| leads[v.index()] = true);
        let mut nodes = vec![false; graph.nodes.len()];
        for node in graph.topological_order().iter().rev() {
            if graph.outputs_of(*node).iter().flatten().any(|v| leads[v.index()]) {
                let from: Vec<ValueId> = carries(*node).chain(captured(*node)).collect();
                nodes[node.index()] = from.iter().any(|v| depends[v.index()]);
                from.iter().for_each(|v| leads[v.index()] = true);
            }
        }
        let is_tensor_of_floats = |v: ValueId| analysis.types.get(v).is_float() != Some(false);
        let values = graph.values().map(|v| depends[v.index()] && leads[v.index()] && is_tensor_of_floats(v)).collect();
        Path { nodes, depends, values }
    }

    /// Whether a gradient has to pass a node.
    pub fn passes(&self, node: NodeId) -> bool {
        self.nodes[node.index()]
    }

    /// Whether a value depends on what is trained, along edges that carry gradients.
    pub fn depends(&self, value: ValueId) -> bool {
        self.depends[value.index()]
    }

    /// Whether the gradient of a value is computed.
    pub fn needs_gradient(&self, value: ValueId) -> bool {
        self.values[value.index()]
    }
}
