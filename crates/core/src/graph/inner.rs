//! Initializers of the bodies of If, Loop and Scan, and names by which they could stand in the main graph.

use std::collections::{HashMap, HashSet};

use super::bodies;
use super::scope::given;
use crate::onnx::{GraphProto, NodeProto, TensorProto};
use crate::patch::Place;
use crate::wire::Model;
use crate::wire::fields::{attribute as attribute_field, graph as graph_field, node as node_field};

/// An initializer of a body.
#[derive(Debug, Clone)]
pub struct Inner<'m> {
    /// A name that nothing else in the model has: its own, or where another body or the main graph has that too, with a number behind it.
    pub name: String,
    /// The tensor, with its own name.
    pub tensor: &'m TensorProto,
    /// Where it stands, from the main graph's node inwards.
    pub place: Place,
    /// The body, for people: `If@1/then_branch`, behind those around it.
    pub body: String,
    /// Whether it is an output of its body as well.
    pub is_output: bool,
    /// The graph around its body that has a value of its name too, which the body could see: the label of a body, or nothing for the main
    /// graph. The standard forbids that.
    pub shadows: Option<String>,
}

/// All of them, in the order of the file. One that is an input of its body too is none: whoever runs the body gives its value.
pub fn inner_initializers(model: &Model) -> Vec<Inner<'_>> {
    let main = &model.graph;
    let mut found = Vec::new();
    if !main.nodes.iter().any(is_flow) {
        return found;
    }
    let inputs = main.inputs.iter().map(|v| v.name());
    let stored = main.initializers.iter().map(|t| t.name.as_str());
    let sparse = main.sparse_initializers.iter().map(String::as_str);
    let scope = Scope { label: String::new(), names: inputs.chain(stored).chain(sparse).collect() };
    visit(&main.nodes, &Vec::new(), &mut vec![scope], &mut found);
    if found.is_empty() {
        return found;
    }
    let mut times: HashMap<&str, usize> = HashMap::new();
    let inputs: HashSet<&str> = main.inputs.iter().map(|v| v.name()).collect();
    let stored = main.initializers.iter().map(|t| t.name.as_str()).filter(|name| !inputs.contains(name));
    let sparse = main.sparse_initializers.iter().map(String::as_str);
    for name in inputs.iter().copied().chain(stored).chain(sparse) {
        *times.entry(name).or_default() += 1;
    }
    count(&main.nodes, &mut times);
    let mut taken: HashSet<String> = HashSet::new();
    for inner in &mut found {
        let own = inner.tensor.name();
        if times.get(own) == Some(&1) && !inner.is_output {
            continue;
        }
        let mut number = 1;
        while times.contains_key(inner.name.as_str()) || !taken.insert(inner.name.clone()) {
            inner.name = format!("{own}_{number}");
            number += 1;
        }
    }
    found
}

/// Whether a node's bodies are looked into.
fn is_flow(node: &NodeProto) -> bool {
    matches!(node.domain(), "" | "ai.onnx") && matches!(node.op_type(), "If" | "Loop" | "Scan")
}

/// What bodies can see of a graph around them.
struct Scope<'m> {
    /// The body; nothing for the main graph.
    label: String,
    /// Its inputs and initializers, and what its nodes made so far.
    names: HashSet<&'m str>,
}

fn visit<'m>(nodes: &'m [NodeProto], around: &Place, scopes: &mut Vec<Scope<'m>>, found: &mut Vec<Inner<'m>>) {
    for (i, node) in nodes.iter().enumerate() {
        for (body, steps) in bodies(node).filter(|_| is_flow(node)) {
            let here: Place = around.iter().copied().chain([(graph_field::NODE, i)]).chain(steps).collect();
            let attribute = node.attribute.get(steps[0].1).map_or("", |a| a.name());
            let outer = scopes.last().map(|s| s.label.as_str()).filter(|l| !l.is_empty());
            let outer = outer.map_or(String::new(), |l| format!("{l}/"));
            let label = format!("{outer}{}@{i}/{attribute}", node.op_type());
            for (k, tensor) in body.initializer.iter().enumerate() {
                let name = tensor.name();
                if name.is_empty() || body.input.iter().any(|v| v.name() == name) {
                    continue;
                }
                found.push(Inner {
                    name: name.to_owned(),
                    tensor,
                    place: here.iter().copied().chain([(graph_field::INITIALIZER, k)]).collect(),
                    body: label.clone(),
                    is_output: body.output.iter().any(|v| v.name() == name),
                    shadows: scopes.iter().rev().find(|s| s.names.contains(name)).map(|s| s.label.clone()),
                });
            }
            scopes.push(Scope { label, names: given(body).collect() });
            visit(&body.node, &here, scopes, found);
            scopes.pop();
        }
        if let Some(scope) = scopes.last_mut() {
            scope.names.extend(node.output.iter().map(String::as_str));
        }
    }
}

/// How often each name is made by nodes, or defined in a body.
fn count<'m>(nodes: &'m [NodeProto], times: &mut HashMap<&'m str, usize>) {
    for node in nodes {
        node.output.iter().for_each(|name| *times.entry(name).or_default() += 1);
        for (body, _) in bodies(node) {
            let inputs: HashSet<&str> = body.input.iter().map(|v| v.name()).collect();
            let stored = body.initializer.iter().map(|t| t.name()).filter(|name| !inputs.contains(name));
            for name in inputs.iter().copied().chain(stored) {
                *times.entry(name).or_default() += 1;
            }
            count(&body.node, times);
        }
    }
}

/// The body that a place of an initializer, from the node inwards, leads to, to be changed.
pub fn body_at<'n>(node: &'n mut NodeProto, place: &[(u32, usize)]) -> Option<&'n mut GraphProto> {
    let [(node_field::ATTRIBUTE, attribute), (field, k), rest @ ..] = place else { return None };
    let attribute = node.attribute.get_mut(*attribute)?;
    let body = match *field {
        attribute_field::GRAPH => attribute.g.as_deref_mut()?,
        _ => attribute.graphs.get_mut(*k)?,
    };
    match rest {
        [(graph_field::NODE, inner), rest @ ..] => body_at(body.node.get_mut(*inner)?, rest),
        _ => Some(body),
    }
}
