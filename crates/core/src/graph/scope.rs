//! Names that the bodies of If, Loop and Scan take from the graph around them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::onnx::{GraphProto, NodeProto};
use crate::patch::Place;
use crate::wire::fields::{attribute, graph, node as node_field, value_info};

/// Every reference from the bodies of `node` (at `position` in its graph) to a name that no body defines, with its place.
pub fn captures_of(node: &NodeProto, position: usize) -> Vec<(&str, Place)> {
    let mut found = Vec::new();
    if node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
        visit_node(node, &vec![(graph::NODE, position)], &mut Vec::new(), &mut found);
    }
    found
}

/// The bodies of a node, each with its place relative to the node.
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = (&GraphProto, [(u32, usize); 2])> {
    node.attribute.iter().enumerate().flat_map(|(i, a)| {
        let at = move |field, k| [(node_field::ATTRIBUTE, i), (field, k)];
        let single = a.g.as_deref().into_iter().map(move |g| (g, at(attribute::GRAPH, 0)));
        let many = a.graphs.iter().enumerate().map(move |(k, g)| (g, at(attribute::GRAPHS, k)));
        single.chain(many)
    })
}

/// The bodies of a node, to be changed.
pub fn bodies_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.as_deref_mut().into_iter().chain(&mut a.graphs))
}

/// Gives what nodes read, themselves or in their bodies, other names. In a body that defines a name itself, that name is another value.
pub fn rename_reads(nodes: &mut [NodeProto], names: &HashMap<String, String>) {
    let swap = |name: &mut String| {
        if let Some(new) = names.get(name) {
            name.clone_from(new);
        }
    };
    for node in nodes {
        node.input.iter_mut().for_each(swap);
        for body in bodies_mut(node) {
            let own = definitions(body);
            let is_hidden = |name: &String| own.contains(name.as_str());
            let names = match names.keys().any(is_hidden) {
                true => Cow::Owned(
                    names.iter().filter(|(n, _)| !is_hidden(n)).map(|(n, to)| (n.clone(), to.clone())).collect(),
                ),
                false => Cow::Borrowed(names),
            };
            rename_reads(&mut body.node, &names);
            let swap = |name: &mut String| {
                if let Some(new) = names.get(name) {
                    name.clone_from(new);
                }
            };
            body.output.iter_mut().filter_map(|o| o.name.as_mut()).for_each(swap);
        }
    }
}

/// The node that a place of an input lies in, however deep, and the input's position.
pub fn node_at<'m>(nodes: &'m [NodeProto], place: &[(u32, usize)]) -> Option<(&'m NodeProto, u32)> {
    let [(graph::NODE, position), rest @ ..] = place else { return None };
    let node = nodes.get(*position)?;
    match rest {
        [(node_field::INPUT, slot)] => Some((node, u32::try_from(*slot).ok()?)),
        [(node_field::ATTRIBUTE, i), (attribute::GRAPH, _), inner @ ..] => {
            node_at(&node.attribute.get(*i)?.g.as_ref()?.node, inner)
        }
        [(node_field::ATTRIBUTE, i), (attribute::GRAPHS, k), inner @ ..] => {
            node_at(&node.attribute.get(*i)?.graphs.get(*k)?.node, inner)
        }
        _ => None,
    }
}

fn visit_node<'a>(
    node: &'a NodeProto,
    at: &Place,
    scopes: &mut Vec<HashSet<&'a str>>,
    found: &mut Vec<(&'a str, Place)>,
) {
    for (body, steps) in bodies(node) {
        let here: Place = at.iter().copied().chain(steps).collect();
        scopes.push(definitions(body));
        for (i, inner) in body.node.iter().enumerate() {
            let inner_at: Place = here.iter().copied().chain([(graph::NODE, i)]).collect();
            for (slot, name) in inner.input.iter().enumerate() {
                note(name, inner_at.iter().copied().chain([(node_field::INPUT, slot)]), scopes, found);
            }
            visit_node(inner, &inner_at, scopes, found);
        }
        for (k, output) in body.output.iter().enumerate() {
            let place = here.iter().copied().chain([(graph::OUTPUT, k), (value_info::NAME, 0)]);
            note(output.name(), place, scopes, found);
        }
        scopes.pop();
    }
}

fn note<'a>(
    name: &'a str,
    place: impl Iterator<Item = (u32, usize)>,
    scopes: &[HashSet<&str>],
    found: &mut Vec<(&'a str, Place)>,
) {
    if !name.is_empty() && !scopes.iter().any(|s| s.contains(name)) {
        found.push((name, place.collect()));
    }
}

/// What a body has before any of its nodes runs.
pub(super) fn given(body: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = body.input.iter().map(|v| v.name());
    let tensors = body.initializer.iter().map(|t| t.name());
    let sparse = body.sparse_initializer.iter().filter_map(|t| t.values.as_ref()).map(|t| t.name());
    inputs.chain(tensors).chain(sparse)
}

fn definitions(body: &GraphProto) -> HashSet<&str> {
    let made = body.node.iter().flat_map(|n| n.output.iter().map(String::as_str));
    given(body).chain(made).collect()
}
