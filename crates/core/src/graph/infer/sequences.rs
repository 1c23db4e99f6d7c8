//! Which values are no tensors: sequences, optionals and maps, declared as such or made as such, also behind Identity, If and Loop.

use std::collections::HashSet;

use super::super::{Graph, ValueId, bodies};
use crate::onnx::{GraphProto, NodeProto, ValueInfoProto, type_proto};
use crate::wire::Model;

/// The values of a graph that are no tensors, as far as is known. For a function's body `model` is `None`: nothing is declared there.
pub fn no_tensors(graph: &Graph<'_>, model: Option<&Model>) -> HashSet<ValueId> {
    let mut scope = Scope::default();
    if let Some(main) = model.map(|m| &m.graph) {
        scope.declare(main.value_info.iter().chain(&main.outputs).chain(&main.inputs));
    }
    graph.topological_order().iter().for_each(|node| scope.visit(graph.node(*node)));
    scope.others.iter().filter_map(|name| graph.find(name)).collect()
}

/// Names that a body sees and that are no tensors.
#[derive(Default)]
struct Scope<'a> {
    around: Option<&'a Scope<'a>>,
    others: HashSet<&'a str>,
}

impl<'a> Scope<'a> {
    fn has(&self, name: &str) -> bool {
        self.others.contains(name) || self.around.is_some_and(|s| s.has(name))
    }

    fn declare(&mut self, declarations: impl Iterator<Item = &'a ValueInfoProto>) {
        let is_other = |d: &&ValueInfoProto| match d.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            Some(type_proto::Value::TensorType(_)) | None => false,
            Some(_) => true,
        };
        self.others.extend(declarations.filter(is_other).map(|d| d.name()));
    }

    /// Notes which outputs of a node are no tensors.
    fn visit(&mut self, node: &'a NodeProto) {
        match (node.domain(), node.op_type()) {
            (
                "" | "ai.onnx",
                "SequenceEmpty" | "SequenceConstruct" | "SequenceInsert" | "SequenceErase" | "SequenceMap"
                | "SplitToSequence" | "Optional",
            )
            | ("ai.onnx.ml", "ZipMap") => self.others.extend(node.output.iter().map(String::as_str)),
            ("" | "ai.onnx", "Identity") if node.input.first().is_some_and(|x| self.has(x)) => {
                self.others.extend(node.output.first().map(String::as_str));
            }
            ("" | "ai.onnx", "If") => {
                let found: Vec<_> = bodies(node).flat_map(|(body, _)| self.outputs_of(body, &[])).collect();
                self.others.extend(found.iter().filter_map(|k| node.output.get(*k)).map(String::as_str));
            }
            ("" | "ai.onnx", "Loop") => {
                // A body takes the trip count and the condition and the carried values, as the node does; it gives the condition first.
                let found: Vec<_> = bodies(node).flat_map(|(body, _)| self.outputs_of(body, &node.input)).collect();
                let carried = found.iter().filter_map(|k| k.checked_sub(1));
                self.others.extend(carried.filter_map(|k| node.output.get(k)).map(String::as_str));
            }
            _ => {}
        }
    }

    /// Which outputs of a body are no tensors, when it is given these values of the scope around it.
    fn outputs_of(&self, body: &GraphProto, given: &[String]) -> Vec<usize> {
        let mut inner = Scope { around: Some(self), others: HashSet::new() };
        inner.declare(body.value_info.iter().chain(&body.output).chain(&body.input));
        let others = body.input.iter().zip(given).filter(|(_, value)| self.has(value));
        inner.others.extend(others.map(|(input, _)| input.name()));
        body.node.iter().for_each(|node| inner.visit(node));
        body.output.iter().enumerate().filter(|(_, o)| inner.has(o.name())).map(|(k, _)| k).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Net;
    use super::super::Types;
    use super::*;
    use crate::onnx::AttributeProto;

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        let input = inputs.iter().map(|n| (*n).to_owned()).collect();
        NodeProto { op_type: Some(op.into()), input, output: vec![output.into()], ..Default::default() }
    }

    fn body(inputs: &[&str], nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
        let values = |names: &[&str]| {
            names.iter().map(|n| ValueInfoProto { name: Some((*n).into()), ..Default::default() }).collect()
        };
        GraphProto { node: nodes, input: values(inputs), output: values(outputs), ..Default::default() }
    }

    fn attribute(name: &str, g: GraphProto) -> AttributeProto {
        AttributeProto { name: Some(name.into()), g: Some(Box::new(g)), ..Default::default() }
    }

    /// Which of these values count as tensors.
    fn tensors(net: Net, names: &[&str]) -> Vec<bool> {
        let model = net.build();
        let graph = Graph::of(&model).unwrap();
        let types = Types::of(&graph, &model);
        names.iter().map(|n| types.is_tensor(graph.find(n).unwrap())).collect()
    }

    #[test]
    fn a_sequence_stays_one_behind_identity_and_out_of_it_comes_a_tensor() {
        let net = Net::new()
            .input("x", 1, "N 4")
            .numbers("zero", &[0])
            .node("SequenceConstruct", &["x"], &["s"], vec![])
            .node("Identity", &["s"], &["i"], vec![])
            .node("Identity", &["i"], &["ii"], vec![])
            .node("Optional", &["x"], &["o"], vec![])
            .node("SequenceAt", &["ii", "zero"], &["at"], vec![])
            .node("SequenceLength", &["ii"], &["n"], vec![])
            .node("Identity", &["x"], &["t"], vec![])
            .node_of("my.domain", "Identity", &["s"], &["mine"], vec![]);
        let names = ["x", "s", "i", "ii", "o", "at", "n", "t", "mine"];
        assert_eq!(tensors(net, &names), [true, false, false, false, false, true, true, true, true]);
    }

    #[test]
    fn an_if_gives_what_its_branches_give_whether_made_inside_or_captured() {
        let inner = node("SequenceConstruct", &["x"], "a");
        let nested = {
            let mut nested = node("If", &["c"], "a");
            nested.attribute.push(attribute("then_branch", body(&[], vec![node("Identity", &["s"], "b")], &["b"])));
            nested
        };
        let branches = |nodes: Vec<NodeProto>, output: &str| {
            let branch = body(&[], nodes, &["t", output]);
            vec![attribute("then_branch", branch.clone()), attribute("else_branch", branch)]
        };
        let tensor = || node("Neg", &["x"], "t");
        let net = Net::new()
            .input("x", 1, "N 4")
            .input("c", 9, "")
            .node("SequenceConstruct", &["x"], &["s"], vec![])
            .node("If", &["c"], &["t1", "made"], branches(vec![tensor(), inner], "a"))
            .node("If", &["c"], &["t2", "captured"], branches(vec![tensor()], "s"))
            .node("If", &["c"], &["t3", "nested"], branches(vec![tensor(), nested], "a"))
            .node("If", &["c"], &["t4", "plain"], branches(vec![tensor()], "x"));
        let names = ["t1", "made", "t2", "captured", "t3", "nested", "t4", "plain"];
        assert_eq!(tensors(net, &names), [true, false, true, false, true, false, true, true]);
    }

    #[test]
    fn a_loop_hands_on_the_sequences_that_it_carries() {
        let nodes = vec![
            node("Identity", &["go"], "on"),
            node("SequenceInsert", &["held", "x"], "more"),
            node("Neg", &["t"], "tt"),
        ];
        let carried = body(&["i", "go", "t", "held"], nodes, &["on", "tt", "more", "x"]);
        let net = Net::new()
            .input("x", 1, "N 4")
            .input("c", 9, "")
            .numbers("trips", &[2])
            .node("SequenceEmpty", &[], &["s"], vec![])
            .node("Loop", &["trips", "c", "x", "s"], &["last", "all", "stack"], vec![attribute("body", carried)]);
        assert_eq!(tensors(net, &["last", "all", "stack"]), [true, false, true]);
    }
}
