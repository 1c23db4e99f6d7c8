//! Activations that no selector reaches: inside the bodies of If, Loop and Scan, and inside local functions.

use std::collections::HashSet;
use std::collections::VecDeque;

use super::catalog::Hidden;
use super::pattern::function::Functions;
use super::pattern::{Scan, scan};
use crate::graph::{Graph, bodies, describe_node};
use crate::onnx::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto};

struct Search<'f, 'm> {
    functions: &'f Functions<'m>,
    hidden: Vec<Hidden>,
    /// Functions that are called, each with where it is called first.
    queue: VecDeque<(u32, String)>,
    queued: HashSet<u32>,
}

/// All that the main graph hides. `calls` are its calls of functions that are no activations.
pub fn hidden_activations(
    graph: &Graph<'_>,
    functions: &Functions<'_>,
    calls: &[(u32, crate::graph::NodeId)],
) -> Vec<Hidden> {
    let mut search = Search { functions, hidden: Vec::new(), queue: VecDeque::new(), queued: HashSet::new() };
    for (function, caller) in calls {
        search.enqueue(*function, || graph.describe(*caller));
    }
    search.bodies_in(graph.nodes, "");
    while let Some((function, caller)) = search.queue.pop_front() {
        let proto = functions.proto(function);
        let Some(scanned) = functions.scanned(function) else { continue };
        let place = format!("inside the function {}, which {caller} calls", name_of(proto));
        search.take(&proto.node, &scanned.scan, &place);
        search.bodies_in(&proto.node, &format!(" {place}"));
    }
    search.hidden
}

impl Search<'_, '_> {
    fn enqueue(&mut self, function: u32, caller: impl Fn() -> String) {
        if self.queued.insert(function) {
            self.queue.push_back((function, caller()));
        }
    }

    fn take(&mut self, nodes: &[NodeProto], scan: &Scan, place: &str) {
        for found in &scan.found {
            self.hidden.push(Hidden {
                description: describe_node(nodes, found.node),
                activation: found.activation,
                reason: format!("it is {place}, and only nodes of the main graph can be tapped"),
            });
        }
        for (function, caller) in &scan.calls {
            self.enqueue(*function, || describe_node(nodes, *caller));
        }
    }

    fn bodies_in(&mut self, nodes: &[NodeProto], outer: &str) {
        for (i, node) in nodes.iter().enumerate().filter(|(_, n)| bodies(n).next().is_some()) {
            let id = crate::graph::NodeId(u32::try_from(i).unwrap_or(u32::MAX));
            for (body, [(_, attribute), _]) in bodies(node) {
                let which = node.attribute.get(attribute).map_or("", AttributeProto::name);
                let place = format!("inside the {which} of {}{outer}", describe_node(nodes, id));
                let as_function = as_function(body);
                if let Ok(graph) = Graph::of_function(&as_function) {
                    let scan = scan(&graph, self.functions, &|_| None);
                    self.take(graph.nodes, &scan, &place);
                }
                self.bodies_in(&body.node, &format!(" {place}"));
            }
        }
    }
}

fn name_of(function: &FunctionProto) -> String {
    match function.domain() {
        "" => function.name().to_owned(),
        domain => format!("{domain}.{}", function.name()),
    }
}

/// A body as a function whose inputs are all that it takes from outside: the view of a graph wants every name defined.
///
/// Its nodes come first and at their positions; their own bodies are left out.
fn as_function(body: &GraphProto) -> FunctionProto {
    let mut nodes: Vec<NodeProto> = body.node.iter().map(without_bodies).collect();
    // Others are no constants of a pattern.
    let small = |t: &&TensorProto| t.dims.iter().all(|d| *d == 1) && t.external_data.is_empty();
    for tensor in body.initializer.iter().filter(small) {
        nodes.push(NodeProto {
            op_type: Some("Constant".into()),
            output: vec![tensor.name().to_owned()],
            attribute: vec![AttributeProto {
                name: Some("value".into()),
                t: Some(Box::new(tensor.clone())),
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
    }
    let made: HashSet<&str> = nodes.iter().flat_map(|n| n.output.iter().map(String::as_str)).collect();
    let mut seen = HashSet::new();
    let declared = body.input.iter().map(|v| v.name());
    let read = nodes.iter().flat_map(|n| n.input.iter().map(String::as_str));
    let given = body.output.iter().map(|v| v.name());
    let input: Vec<String> = declared
        .chain(read)
        .chain(given)
        .filter(|name| !name.is_empty() && !made.contains(name) && seen.insert(*name))
        .map(str::to_owned)
        .collect();
    let output = body.output.iter().map(|v| v.name().to_owned()).collect();
    FunctionProto { input, output, node: nodes, ..FunctionProto::default() }
}

fn without_bodies(node: &NodeProto) -> NodeProto {
    if bodies(node).next().is_none() {
        return node.clone();
    }
    let plain = |a: &&AttributeProto| a.g.is_none() && a.graphs.is_empty();
    NodeProto {
        name: node.name.clone(),
        op_type: node.op_type.clone(),
        domain: node.domain.clone(),
        input: node.input.clone(),
        output: node.output.clone(),
        attribute: node.attribute.iter().filter(plain).cloned().collect(),
        ..NodeProto::default()
    }
}
