//! Nodes: how a difference shows one, and what differs between two that correspond.

use std::collections::HashMap;

use super::change::{AttributeText, Change, MOST_NEIGHBOURS, Neighbour, NodeRef};
use super::pairing::Pairs;
use super::side::{Side, Value};
use super::{Options, elements, label, words};
use crate::onnx::{AttributeProto, NodeProto, StringStringEntryProto, TensorProto};

/// A node with its surroundings.
pub fn node_ref(side: &Side, vertex: u32) -> NodeRef {
    let node = &side.view.nodes[vertex as usize];
    let mut producers: Vec<Neighbour> = Vec::new();
    for value in side.ins.get(vertex as usize).iter().flatten().filter(|v| side.is_node(v.vertex)) {
        if producers.len() < MOST_NEIGHBOURS && producers.iter().all(|p| p.position != value.vertex as usize) {
            producers.push(neighbour(side, value.vertex, *value));
        }
    }
    let uses = side.uses.get(vertex as usize);
    let mut readers: Vec<u32> = uses.iter().map(|u| u.node).collect();
    readers.sort_unstable();
    readers.dedup();
    let consumer = |node: &u32| {
        let out = uses.iter().find(|u| u.node == *node).map_or(0, |u| u.out);
        neighbour(side, *node, Value { vertex, out })
    };
    let mut attributes: Vec<AttributeText> = node
        .attribute
        .iter()
        .map(|a| AttributeText { name: a.name().to_owned(), value: words::attribute(a) })
        .collect();
    attributes.sort_by(|x, y| x.name.cmp(&y.name));
    NodeRef {
        position: vertex as usize,
        name: node.name().to_owned(),
        op: node.op_type().to_owned(),
        domain: label::domain(node).to_owned(),
        inputs: node.input.clone(),
        outputs: node.output.clone(),
        attributes,
        producers,
        consumers: readers.iter().take(MOST_NEIGHBOURS).map(consumer).collect(),
        consumer_count: readers.len(),
        fold: None,
    }
}

fn neighbour(side: &Side, vertex: u32, value: Value) -> Neighbour {
    let node = &side.view.nodes[vertex as usize];
    Neighbour {
        position: vertex as usize,
        name: node.name().to_owned(),
        op: node.op_type().to_owned(),
        tensor: side.value_name(value).to_owned(),
    }
}

/// Whether two values correspond.
pub fn corresponds(pairs: &Pairs, a: Value, b: Value) -> bool {
    a.out == b.out && pairs.in_b(a.vertex) == Some(b.vertex)
}

/// What differs between corresponding nodes, apart from their bodies.
pub fn changes(pairs: &Pairs, a: u32, b: u32, options: &Options) -> Vec<Change> {
    let (x, y) = (&pairs.a.view.nodes[a as usize], &pairs.b.view.nodes[b as usize]);
    let mut found = Vec::new();
    attribute_changes(x, y, &mut found);
    let value = |side: &Side, vertex: u32, slot: usize, count: usize| {
        // Behind the inputs is what bodies capture, which is compared inside these.
        side.ins.get(vertex as usize)[..count].get(slot).copied().flatten()
    };
    for slot in 0..x.input.len().max(y.input.len()) {
        let from = value(pairs.a, a, slot, x.input.len());
        let to = value(pairs.b, b, slot, y.input.len());
        let is_same = match (from, to) {
            (None, None) => true,
            (Some(from), Some(to)) => corresponds(pairs, from, to),
            _ => false,
        };
        if !is_same {
            let name = |node: &NodeProto| node.input.get(slot).filter(|n| !n.is_empty()).cloned();
            found.push(Change::Input { slot, from: name(x), to: name(y) });
        }
    }
    for slot in 0..x.output.len().max(y.output.len()) {
        let name = |node: &NodeProto| node.output.get(slot).filter(|n| !n.is_empty()).cloned();
        let (from, to) = (name(x), name(y));
        if from.is_some() != to.is_some() {
            found.push(Change::Output { slot, from, to });
        }
    }
    if !options.ignore.docs {
        if x.doc_string() != y.doc_string() {
            found.push(Change::Doc { from: x.doc_string().into(), to: y.doc_string().into() });
        }
        metadata_changes(&x.metadata_props, &y.metadata_props, &mut found);
    }
    found
}

fn metadata_changes(x: &[StringStringEntryProto], y: &[StringStringEntryProto], found: &mut Vec<Change>) {
    if x == y {
        return;
    }
    let mut keys: Vec<&str> = x.iter().chain(y).map(|e| e.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    let get =
        |list: &[StringStringEntryProto], key: &str| list.iter().find(|e| e.key() == key).map(|e| e.value().to_owned());
    for key in keys {
        let (from, to) = (get(x, key), get(y, key));
        if from != to {
            found.push(Change::Metadata { key: key.to_owned(), from, to });
        }
    }
}

fn attribute_changes(x: &NodeProto, y: &NodeProto, found: &mut Vec<Change>) {
    if x.attribute == y.attribute {
        return;
    }
    let of_y: HashMap<&str, &AttributeProto> = y.attribute.iter().map(|a| (a.name(), a)).collect();
    let of_x: HashMap<&str, &AttributeProto> = x.attribute.iter().map(|a| (a.name(), a)).collect();
    let mut names: Vec<&str> = of_x.keys().chain(of_y.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (from, to) = (of_x.get(name), of_y.get(name));
        if let (Some(from), Some(to)) = (from, to)
            && is_same_attribute(from, to)
        {
            continue;
        }
        let (from, mut to) = (from.map(|a| words::attribute(a)), to.map(|a| words::attribute(a)));
        if from == to
            && let Some(to) = &mut to
        {
            to.push_str(" (other elements)");
        }
        found.push(Change::Attribute { name: name.to_owned(), from, to });
    }
}

/// Whether two attributes have one value. Bodies are compared elsewhere: two of them count as the same here.
fn is_same_attribute(x: &AttributeProto, y: &AttributeProto) -> bool {
    let tensors =
        |a: &[TensorProto], b: &[TensorProto]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same_tensor(a, b));
    let bits = |list: &[f32]| list.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
    x == y
        || (x.ref_attr_name() == y.ref_attr_name()
            && x.i == y.i
            && x.f.map(f32::to_bits) == y.f.map(f32::to_bits)
            && x.s == y.s
            && x.ints == y.ints
            && bits(&x.floats) == bits(&y.floats)
            && x.strings == y.strings
            && tensors(
                x.t.as_deref().map_or(&[], std::slice::from_ref),
                y.t.as_deref().map_or(&[], std::slice::from_ref),
            )
            && tensors(&x.tensors, &y.tensors)
            && x.g.is_some() == y.g.is_some()
            && x.graphs.len() == y.graphs.len()
            && x.sparse_tensor == y.sparse_tensor
            && x.sparse_tensors == y.sparse_tensors
            && x.tp == y.tp
            && x.type_protos == y.type_protos)
}

fn is_same_tensor(x: &TensorProto, y: &TensorProto) -> bool {
    x.dims == y.dims
        && x.data_type() == y.data_type()
        && match (elements::of_decoded(x), elements::of_decoded(y)) {
            (Some(x), Some(y)) => x == y,
            (None, None) => x.external_data == y.external_data,
            _ => false,
        }
}
