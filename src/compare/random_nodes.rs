//! Nodes that draw random numbers and would draw others in a second run.

use crate::graph::{Attributes, Graph, bodies};
use crate::onnx::NodeProto;

/// The operators of a graph that draw without a seed, bodies included, each once.
pub fn unseeded(graph: &Graph<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let trains = || {
            let mode = graph.input(crate::graph::NodeId(i as u32), 2);
            mode.is_some_and(|v| graph.scalar(v) != Some(0.0))
        };
        if node.op_type() != "Dropout" || trains() {
            visit(node, &mut found);
        }
    }
    found
}

fn visit(node: &NodeProto, found: &mut Vec<String>) {
    let draws = matches!(
        node.op_type(),
        "RandomNormal"
            | "RandomNormalLike"
            | "RandomUniform"
            | "RandomUniformLike"
            | "Multinomial"
            | "Bernoulli"
            | "Dropout"
    );
    if draws && node.attribute("seed").is_none() && !found.iter().any(|op| op == node.op_type()) {
        found.push(node.op_type().to_owned());
    }
    for (body, _) in bodies(node) {
        body.node.iter().for_each(|node| visit(node, found));
    }
}
