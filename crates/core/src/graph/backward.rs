//! The half of a graph that computes gradients, as ONNX Runtime's gradient builder writes it.
//!
//! The gradient of a value h is called `<h>_grad`; where it has several contributions, `<h>_grad_0`, `<h>_grad_1` …, a Sum makes it.

use petgraph::Direction;
use petgraph::graph::NodeIndex;

use super::{Attributes, Graph, NodeId, Slot, Use, ValueId};
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
            let node = graph.node(*id);
            let mut made_by = graph.flow().neighbors_directed(NodeIndex::new(id.index()), Direction::Incoming);
            nodes[id.index()] = computes_gradients(node.domain(), node.op_type())
                // Shapes of forward values that only the backward pass needs.
                || node.name().contains("_Grad/")
                || graph.inputs_of(*id).iter().flatten().any(|v| starts(*v))
                || made_by.any(|n| nodes[n.index()]);
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

/// Operators that compute gradients, as ONNX Runtime's gradient builder writes them. It puts MaxPoolGrad and its kin into the default domain.
pub fn computes_gradients(domain: &str, op: &str) -> bool {
    matches!(domain, "" | "ai.onnx" | "com.microsoft")
        && (op.ends_with("Grad") || op.starts_with("InPlaceAccumulator") || op.contains("GradientBuilder"))
}

/// A Gradient node of `ai.onnx.preview.training`, which asks whoever runs the graph for derivatives.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'m> {
    /// The node.
    pub node: NodeId,
    /// Whose derivatives: the loss. The attribute `y`.
    pub of: &'m str,
    /// By what: the attribute `xs`.
    pub by: Vec<&'m str>,
}

/// Every Gradient node of a graph, in file order.
pub fn requests<'m>(graph: &Graph<'m>) -> Vec<Request<'m>> {
    let is_request = |n: &NodeProto| {
        n.op_type() == "Gradient" && matches!(n.domain(), "ai.onnx.preview.training" | "ai.onnx.training")
    };
    let nodes = (0..graph.nodes.len() as u32).map(NodeId).filter(|id| is_request(graph.node(*id)));
    nodes
        .filter_map(|id| {
            let xs = graph.node(id).attribute("xs").map(|a| a.strings.as_slice()).unwrap_or_default();
            let by = xs.iter().filter_map(|x| std::str::from_utf8(x).ok()).collect();
            Some(Request { node: id, of: graph.node(id).string("y")?, by })
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::Net;
    use crate::wire::Model;

    /// y = relu(x·w), differentiated as ONNX Runtime writes it, with a Shape that only the backward pass needs.
    fn differentiated() -> Model {
        Net::new()
            .input("x", 1, "N 4")
            .input("w", 1, "4 4")
            .weight("loss_grad", &[1])
            .node("MatMul", &["x", "w"], &["a"], vec![])
            .node("Relu", &["a"], &["h"], vec![])
            .node("ReduceSum", &["h"], &["loss"], vec![])
            .node("Shape", &["h"], &["s"], vec![])
            .node("Expand", &["loss_grad", "s"], &["h_grad"], vec![])
            .node_of("com.microsoft", "ReluGrad", &["h_grad", "h"], &["a_grad"], vec![])
            .node("MatMul", &["x", "a_grad"], &["w_grad"], vec![])
            .output("loss", 1, Some(""))
            .output("w_grad", 1, None)
            .build()
    }

    #[test]
    fn what_reads_a_gradient_belongs_to_the_backward_pass() {
        let model = differentiated();
        let graph = Graph::of(&model).unwrap();
        let backward = Backward::of(&graph);
        let flags: Vec<bool> = (0..7).map(|n| backward.has(NodeId(n))).collect();
        assert_eq!(flags, [false, false, false, false, true, true, true]);
        let value = |name: &str| graph.find(name).unwrap();
        assert!(backward.alone_reads(&graph, value("loss_grad")) && !backward.alone_reads(&graph, value("w")));
    }

    #[test]
    fn the_gradient_of_a_value_goes_by_its_name_and_must_be_computed() {
        let model = differentiated();
        let graph = Graph::of(&model).unwrap();
        let backward = Backward::of(&graph);
        let value = |name: &str| graph.find(name).unwrap();
        assert_eq!(backward.gradient_of(&graph, value("h")), Some(GradientOf::Value(value("h_grad"))));
        // The loss's own gradient is where it all starts, and nothing is computed of x's.
        assert_eq!(backward.gradient_of(&graph, value("loss")), None);
        assert_eq!(backward.gradient_of(&graph, value("x")), None);
    }

    #[test]
    fn a_recurrent_output_that_nothing_reads_has_its_place_in_the_gradient_node() {
        let model = Net::new()
            .input("x", 1, "5 3 4")
            .input("g", 1, "1 3 6")
            .node_of("com.microsoft", "GRUTraining", &["x"], &["y", "yh", "zrh"], vec![])
            .node_of("com.microsoft", "GRUGrad", &["x", "", "", "", "", "", "y", "zrh", "", "g"], &["x_grad"], vec![])
            .output("x_grad", 1, None)
            .build();
        let graph = Graph::of(&model).unwrap();
        let backward = Backward::of(&graph);
        let value = |name: &str| graph.find(name).unwrap();
        let place = Use { node: NodeId(1), slot: Slot::Input(8) };
        assert_eq!(backward.gradient_of(&graph, value("y")), Some(GradientOf::LeftOut(place)));
        assert_eq!(backward.gradient_of(&graph, value("yh")), Some(GradientOf::Value(value("g"))));
    }
}
