//! Where added nodes stand among the others: beside what they read, and not at the end of the file, where an injection puts them.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::graph::{Graph, captures_of};
use crate::onnx::NodeProto;
use crate::wire::Model;

/// Nodes with producers before consumers, where the graph is one; else as the file has them.
pub fn file_order(model: &Model) -> Vec<usize> {
    match Graph::of(model) {
        Ok(graph) => graph.topological_order().iter().map(|n| n.index()).collect(),
        Err(_) => (0..model.graph.nodes.len()).collect(),
    }
}

/// The same with nodes for which `is_added` says so as early as they can be, and what reads nothing just before its first reader.
pub fn drawing_order(model: &Model, is_added: impl Fn(usize) -> bool) -> Vec<usize> {
    let nodes = &model.graph.nodes;
    let mut order = file_order(model);
    if !order.iter().any(|n| is_added(*n)) {
        return order;
    }
    let mut maker: HashMap<&str, usize, RandomState> = HashMap::default();
    for (n, node) in nodes.iter().enumerate() {
        node.output.iter().for_each(|name| {
            maker.insert(name, n);
        });
    }
    // Even keys are those of nodes that stay; what follows one of them has the odd key behind it.
    let mut keys: Vec<Option<usize>> = vec![None; nodes.len()];
    for (rank, n) in order.iter().enumerate() {
        keys[*n] = if is_added(*n) {
            read(&nodes[*n], *n).iter().filter_map(|name| keys[*maker.get(name)?]).max().map(|key| key | 1)
        } else {
            Some(2 * rank)
        };
    }
    let mut first: Vec<Option<usize>> = vec![None; nodes.len()];
    for n in order.iter().rev() {
        keys[*n] = keys[*n].or(first[*n]);
        let Some(key) = keys[*n] else { continue };
        let before = if key % 2 == 1 { key } else { key.saturating_sub(1) };
        for from in read(&nodes[*n], *n).iter().filter_map(|name| maker.get(name)) {
            first[*from] = Some(first[*from].map_or(before, |f| f.min(before)));
        }
    }
    order.sort_by_key(|n| keys[*n].unwrap_or(usize::MAX));
    order
}

/// What a node reads, itself or in its bodies.
fn read(node: &NodeProto, position: usize) -> Vec<&str> {
    let captured = captures_of(node, position);
    node.input.iter().map(String::as_str).chain(captured.into_iter().map(|(name, _)| name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::Net;

    #[test]
    fn what_an_injection_adds_at_the_end_stands_beside_what_it_reads() {
        let mut net = Net::new().input("x", 1, "2");
        for (op, inputs, output) in [
            ("Relu", "x", "a"),
            ("Relu", "a", "b"),
            ("Neg", "b", "y"),
            ("RandomNormal", "", "r"),
            ("Mul", "a r", "p"),
            ("Abs", "p", "q"),
            ("Abs", "b", "s"),
        ] {
            let inputs: Vec<&str> = inputs.split_whitespace().collect();
            net = net.node(op, &inputs, &[output], vec![]);
        }
        let model = net.output("y", 1, Some("2")).build();
        let order = drawing_order(&model, |n| n >= 3);
        let names: Vec<&str> = order.iter().map(|n| model.graph.nodes[*n].output[0].as_str()).collect();
        assert_eq!(names, ["a", "r", "p", "q", "b", "s", "y"]);
        assert_eq!(drawing_order(&model, |_| false), [0, 1, 2, 3, 4, 5, 6]);
    }
}
