//! The half of a graph that computes gradients, as ONNX Runtime's gradient builder writes it.
//!
//! The gradient of a value h is called `<h>_grad`; where it has several contributions, `<h>_grad_0`, `<h>_grad_1` …, a Sum makes it.

use super::{Graph, NodeId, Slot, Use, ValueId};
use crate::onnx::NodeProto;

/// Whether each node belongs to the backward pass.
#[derive(Debug, Clone, Default)]
pub struct Backward {
    nodes: Vec<bool>,
}

/// Where a graph has, or would take, the gradient of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum GradientOf {
    /// A value that is the gradient.
    Value(ValueId),
    /// An input that is left out, because nothing reads the value: the gradient is zero.
    LeftOut(Use),
}

impl Backward {
    /// Follows the gradient from where it starts: `<loss>_grad`, and every operator that computes gradients.
    pub fn of(graph: &Graph<'_>) -> Self {
        let starts = |value: ValueId| graph.producer(value).is_none() && graph.name(value).ends_with("_grad");
        let mut nodes = vec![false; graph.nodes.len()];
        for id in graph.topological_order() {
            let captured = graph.captures_of(*id).iter().map(|c| c.value);
            let mut reads = graph.inputs_of(*id).iter().flatten().copied().chain(captured);
            let node = graph.node(*id);
            nodes[id.index()] = computes_gradients(node.domain(), node.op_type())
                // Shapes of forward values that only the backward pass needs.
                || node.name().contains("_Grad/")
                || reads.any(|v| starts(v) || graph.producer(v).is_some_and(|(n, _)| nodes[n.index()]));
        }
        Backward { nodes }
    }

    /// Whether there is a backward pass.
    pub fn is_there(&self) -> bool {
        self.nodes.contains(&true)
    }

    /// Whether a node belongs to the backward pass.
    pub fn has(&self, node: NodeId) -> bool {
        self.nodes.get(node.index()).copied().unwrap_or(false)
    }

    /// Whether only the backward pass reads a value.
    pub fn alone_reads(&self, graph: &Graph<'_>, value: ValueId) -> bool {
        let uses = graph.uses(value);
        !uses.is_empty() && uses.iter().all(|u| self.has(u.node))
    }

    /// The gradient of a value that the forward pass makes; `None` where the graph computes none.
    pub fn gradient_of(&self, graph: &Graph<'_>, value: ValueId) -> Option<GradientOf> {
        let named = graph.find(&gradient_name(graph.name(value))).filter(|g| graph.producer(*g).is_some());
        match named {
            Some(gradient) => Some(GradientOf::Value(gradient)),
            None => recurrent_slot(graph, value),
        }
    }
}

/// What ONNX Runtime calls the gradient of a value.
pub fn gradient_name(name: &str) -> String {
    format!("{name}_grad")
}

/// Operators that compute gradients: those of ONNX Runtime's gradient builder, and ONNX's Gradient.
pub fn computes_gradients(domain: &str, op: &str) -> bool {
    match domain {
        // ONNX Runtime writes MaxPoolGrad and its kin into the default domain.
        "" | "ai.onnx" | "com.microsoft" => {
            op.ends_with("Grad") || op.starts_with("InPlaceAccumulator") || op.contains("GradientBuilder")
        }
        "ai.onnx.preview.training" | "ai.onnx.training" => op == "Gradient",
        _ => false,
    }
}

/// Whether a node is a recurrent operator of ONNX, or the form of it that also returns what its gradient needs.
pub fn is_recurrent(node: &NodeProto) -> bool {
    match node.domain() {
        "" | "ai.onnx" => matches!(node.op_type(), "LSTM" | "GRU" | "RNN"),
        "com.microsoft" => matches!(node.op_type(), "LSTMTraining" | "GRUTraining"),
        _ => false,
    }
}

/// The input of LSTMGrad or GRUGrad that takes the gradient of Y, Y_h or Y_c.
fn recurrent_slot(graph: &Graph<'_>, value: ValueId) -> Option<GradientOf> {
    let (maker, output) = graph.producer(value)?;
    let (saved, operator, first) = match (graph.node(maker).domain(), graph.node(maker).op_type()) {
        // Inputs 9, 10 and 11 are dY, dY_h and dY_c.
        ("com.microsoft", "LSTMTraining") if output < 3 => (4, "LSTMGrad", 9),
        // Inputs 8 and 9 are dY and dY_h.
        ("com.microsoft", "GRUTraining") if output < 2 => (2, "GRUGrad", 8),
        _ => return None,
    };
    // Only its gradient reads the gates that the forward operator saves.
    let gates = graph.output(maker, saved)?;
    let reader = graph.uses(gates).iter().map(|u| u.node).find(|n| graph.node(*n).op_type() == operator)?;
    let slot = first + output;
    match graph.inputs_of(reader).get(slot as usize)? {
        Some(gradient) => Some(GradientOf::Value(*gradient)),
        None => Some(GradientOf::LeftOut(Use { node: reader, slot: Slot::Input(slot) })),
    }
}
