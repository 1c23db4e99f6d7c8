//! From two graphs to their difference: pairs are found, then every pair is looked at.

use std::cell::RefCell;
use std::collections::HashMap;

use rayon::prelude::*;

use super::change::{
    Change, GraphDiff, InitializerChange, InitializerRef, InitializersDiff, Moved, NodeChange, NodesDiff, Property,
    Renamed, ValuesDiff,
};
use super::pairing::Pairs;
use super::side::{Side, Source, Value};
use super::stages::{Surroundings, pair};
use super::view::View;
use super::weights::{self, Store};
use super::{Options, align, declared, nodes, words};
use crate::graph::bodies;
use crate::onnx::NodeProto;

/// What a comparison needs beside the two graphs.
pub struct Context<'x> {
    pub options: &'x Options,
    pub a: &'x Store<'x>,
    pub b: &'x Store<'x>,
    /// What could not be compared.
    pub warnings: &'x RefCell<Vec<String>>,
}

/// From a name around `a` to the corresponding one around `b`.
pub type Outer<'x> = &'x dyn Fn(&str) -> Option<String>;

/// Compares two graphs. `path` is where they stand, empty for the outermost; `inspect` sees the pairs.
pub fn graphs<'m>(
    context: &Context,
    a: View<'m>,
    b: View<'m>,
    outer: Outer,
    path: &str,
    inspect: &mut dyn FnMut(&Pairs),
) -> GraphDiff {
    let (a, b) = rayon::join(|| Side::of(a, context.a.bytes()), || Side::of(b, context.b.bytes()));
    let pairs = pair(&a, &b, &Surroundings { outer });
    let mut diff = GraphDiff {
        properties: graph_properties(context, &pairs),
        nodes: NodesDiff::default(),
        initializers: initializers(context, &pairs),
        inputs: declared::inputs(context.options, &pairs),
        outputs: declared::outputs(context.options, &pairs),
        value_info: if context.options.ignore.shapes { ValuesDiff::default() } else { declared::value_info(&pairs) },
        values_renamed: Vec::new(),
    };
    if !context.options.ignore.names {
        diff.values_renamed = values_renamed(&pairs);
    }
    diff.nodes = compare_nodes(context, &pairs, outer, path, &mut diff.values_renamed);
    inspect(&pairs);
    diff
}

/// Properties of the graphs themselves, how their tensors are quantized included, which goes by the names of values.
fn graph_properties(context: &Context, pairs: &Pairs) -> Vec<Property> {
    let (a, b) = (pairs.a, pairs.b);
    let in_b = |name: &str| {
        let value = a.names.get(name).and_then(|v| counterpart(pairs, *v));
        value.map_or_else(|| name.to_owned(), |v| b.value_name(v).to_owned())
    };
    let with_annotations = |side: &Side, name: &dyn Fn(&str) -> String| {
        let mut list = side.view.properties.clone();
        for note in &side.view.annotations {
            let entries = note.quant_parameter_tensor_names.iter();
            let mut entries: Vec<String> = entries.map(|e| format!("{} = {}", e.key(), name(e.value()))).collect();
            entries.sort_unstable();
            list.push(("quantization", name(note.tensor_name()), entries.join(", ")));
        }
        list
    };
    properties(context, &with_annotations(a, &in_b), &with_annotations(b, &|name| name.to_owned()))
}

/// Named values on both sides; of those under one key, in order.
pub fn properties(
    context: &Context,
    a: &[(&'static str, String, String)],
    b: &[(&'static str, String, String)],
) -> Vec<Property> {
    let ignore = context.options.ignore;
    let is_ignored = |what: &str| match what {
        "name" => ignore.names,
        "doc_string" | "metadata" | "producer_name" | "producer_version" | "model_version" => ignore.docs,
        _ => false,
    };
    let mut left: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
    for (what, key, value) in a.iter().rev() {
        left.entry((what, key)).or_default().push(value);
    }
    let mut found = Vec::new();
    for (what, key, value) in b.iter().filter(|(what, ..)| !is_ignored(what)) {
        let from = left.get_mut(&(*what, key.as_str())).and_then(Vec::pop);
        if from != Some(value) {
            let (from, to) = (from.map(str::to_owned), Some(value.clone()));
            found.push(Property { what, key: key.clone(), from, to, fold: None });
        }
    }
    for (what, key, value) in a.iter().filter(|(what, ..)| !is_ignored(what)) {
        let rest = left.get_mut(&(*what, key.as_str()));
        if rest.is_some_and(|rest| rest.pop().is_some()) {
            found.push(Property { what, key: key.clone(), from: Some(value.clone()), to: None, fold: None });
        }
    }
    found
}

fn compare_nodes(
    context: &Context,
    pairs: &Pairs,
    outer: Outer,
    path: &str,
    renamed_inside: &mut Vec<Renamed>,
) -> NodesDiff {
    let (a, b) = (pairs.a, pairs.b);
    let (nodes_a, nodes_b) = (0..a.nodes() as u32, 0..b.nodes() as u32);
    let added = nodes_b.clone().into_par_iter().filter(|y| pairs.in_a(*y).is_none());
    let removed = nodes_a.into_par_iter().filter(|x| pairs.in_b(*x).is_none());
    let mut found = NodesDiff {
        added: added.map(|y| nodes::node_ref(b, y)).collect(),
        removed: removed.map(|x| nodes::node_ref(a, x)).collect(),
        ..NodesDiff::default()
    };
    let couple = |y: u32| Some((pairs.in_a(y)?, y));
    let own: Vec<(u32, u32, Vec<Change>)> = nodes_b
        .clone()
        .into_par_iter()
        .with_min_len(256)
        .filter_map(couple)
        .map(|(x, y)| (x, y, nodes::changes(pairs, x, y, context.options)))
        .filter(|(x, _, changes)| !changes.is_empty() || bodies(&a.view.nodes[*x as usize]).next().is_some())
        .collect();
    for (x, y, mut changes) in own {
        body_changes(context, pairs, (x, y), outer, path, &mut changes, renamed_inside);
        if !changes.is_empty() {
            let (a, b) = (nodes::node_ref(a, x), nodes::node_ref(b, y));
            found.changed.push(NodeChange { a, b, changes, fold: None });
        }
    }
    let joined: Vec<(u32, u32)> = nodes_b.filter_map(couple).collect();
    if !context.options.ignore.names {
        for (x, y) in &joined {
            let (from, to) = (a.view.nodes[*x as usize].name(), b.view.nodes[*y as usize].name());
            if from != to {
                found.renamed.push(Renamed {
                    position: *y as usize,
                    from: from.to_owned(),
                    to: to.to_owned(),
                    fold: None,
                });
            }
        }
    }
    let name = |y: u32| pairs.label_name(b, y).to_owned();
    found.moved =
        moved(&joined).into_iter().map(|(x, y)| Moved { name: name(y), from: x as usize, to: y as usize }).collect();
    found
}

/// Of pairs in the order of `b` those that keep the others from being in the order of `a`: as few as possible.
pub fn moved(joined: &[(u32, u32)]) -> Vec<(u32, u32)> {
    if joined.is_sorted_by_key(|(x, _)| *x) {
        return Vec::new();
    }
    let order: Vec<u32> = joined.iter().map(|(x, _)| *x).collect();
    let mut stays = vec![false; joined.len()];
    align::increasing(&order).into_iter().for_each(|i| stays[i] = true);
    joined.iter().zip(stays).filter(|(_, stays)| !stays).map(|(pair, _)| *pair).collect()
}

/// Bodies that correspond are compared as graphs.
fn body_changes(
    context: &Context,
    pairs: &Pairs,
    (x, y): (u32, u32),
    outer: Outer,
    path: &str,
    changes: &mut Vec<Change>,
    renamed_inside: &mut Vec<Renamed>,
) {
    let (left, right) = (&pairs.a.view.nodes[x as usize], &pairs.b.view.nodes[y as usize]);
    let of_right: Vec<_> = bodies(right).map(|(body, at)| (body_name(right, at), body)).collect();
    for (body, at) in bodies(left) {
        let name = body_name(left, at);
        let Some((_, other)) = of_right.iter().find(|(n, _)| *n == name) else { continue };
        if body == *other && captures_the_same(pairs, x, y, left.input.len()) {
            continue;
        }
        // A name inside refers to a value of this graph, or of one further out.
        let here =
            |name: &str| match pairs.a.names.get(name).filter(|v| pairs.a.source(v.vertex) != Some(Source::Outer)) {
                Some(value) => counterpart(pairs, *value).map(|v| pairs.b.value_name(v).to_owned()),
                None => outer(name),
            };
        let node = match right.name() {
            "" => format!("{}@{y}", right.op_type()),
            name => name.to_owned(),
        };
        let place = if path.is_empty() { format!("{node}/{name}") } else { format!("{path}/{node}/{name}") };
        let diff = graphs(context, View::of_graph(body), View::of_graph(other), &here, &place, &mut |_| {});
        // Other names inside make no other node.
        if diff.is_renamed_at_most() {
            let place = place.strip_prefix(path).unwrap_or(&place).trim_start_matches('/');
            let inner = |r: Renamed| Renamed {
                position: y as usize,
                from: format!("{place}/{}", r.from),
                to: format!("{place}/{}", r.to),
                fold: None,
            };
            let own = diff.properties.iter().map(|p| {
                let name = |v: &Option<String>| v.clone().unwrap_or_default();
                Renamed { position: 0, from: name(&p.from), to: name(&p.to), fold: None }
            });
            renamed_inside.extend(own.chain(diff.all_renamed().cloned()).map(inner));
        } else {
            changes.push(Change::Body { attribute: name, path: place, diff: Box::new(diff) });
        }
    }
}

/// The attribute that holds a body, with its position where it is one of a list.
fn body_name(node: &NodeProto, at: [(u32, usize); 2]) -> String {
    let attribute = node.attribute.get(at[0].1);
    let name = attribute.map_or("", |a| a.name());
    if attribute.is_some_and(|a| a.graphs.is_empty()) { name.to_owned() } else { format!("{name}[{}]", at[1].1) }
}

/// Whether bodies with the same text mean the same: what they take from outside corresponds.
fn captures_the_same(pairs: &Pairs, x: u32, y: u32, inputs: usize) -> bool {
    let (p, q) = (&pairs.a.ins.get(x as usize)[inputs..], pairs.b.ins.get(y as usize));
    let q = &q[q.len().saturating_sub(p.len())..];
    p.len() == q.len()
        && p.iter().zip(q).all(|(p, q)| match (p, q) {
            (Some(p), Some(q)) => nodes::corresponds(pairs, *p, *q),
            (None, None) => true,
            _ => false,
        })
}

/// The value in `b` that corresponds to one of `a`.
pub fn counterpart(pairs: &Pairs, value: Value) -> Option<Value> {
    pairs.in_b(value.vertex).map(|vertex| Value { vertex, out: value.out })
}

fn initializers(context: &Context, pairs: &Pairs) -> InitializersDiff {
    let (a, b) = (pairs.a, pairs.b);
    let list = |side: &Side| -> Vec<(u32, u32)> {
        let tensor = |(v, (source, _)): (usize, &(Source, &str))| match source {
            Source::Tensor(i) => Some(((side.nodes() + v) as u32, *i)),
            _ => None,
        };
        side.sources.iter().enumerate().filter_map(tensor).collect()
    };
    let part = |side: &Side, i: u32| {
        let tensor = &side.view.tensors[i as usize];
        InitializerRef {
            position: i as usize,
            name: tensor.name.to_owned(),
            ty: words::initializer(tensor),
            fold: None,
        }
    };
    let of = |side: &Side, vertex: u32| match side.source(vertex) {
        Some(Source::Tensor(i)) => Some(i),
        _ => None,
    };
    let (of_a, of_b) = (list(a), list(b));
    let mut found = InitializersDiff {
        added: of_b.iter().filter(|(v, _)| pairs.in_a(*v).is_none()).map(|(_, i)| part(b, *i)).collect(),
        removed: of_a.iter().filter(|(v, _)| pairs.in_b(*v).is_none()).map(|(_, i)| part(a, *i)).collect(),
        ..InitializersDiff::default()
    };
    let joined: Vec<(u32, u32)> = of_b.iter().filter_map(|(v, j)| Some((of(a, pairs.in_a(*v)?)?, *j))).collect();
    if !context.options.ignore.names {
        for (i, j) in &joined {
            let (from, to) = (a.view.tensors[*i as usize].name, b.view.tensors[*j as usize].name);
            if from != to {
                found.renamed.push(Renamed {
                    position: *j as usize,
                    from: from.to_owned(),
                    to: to.to_owned(),
                    fold: None,
                });
            }
        }
    }
    let (store_a, store_b, ignore) = (context.a, context.b, context.options.ignore);
    let change = |(i, j): &(u32, u32)| {
        let (x, y) = (&a.view.tensors[*i as usize], &b.view.tensors[*j as usize]);
        let has_other_head = super::label::tensor_head(x) != super::label::tensor_head(y);
        let (values, problem) = if has_other_head || ignore.weights {
            (None, None)
        } else {
            match weights::compare((store_a, x), (store_b, y)) {
                Ok(values) => (values, None),
                Err(problem) => (None, Some(problem)),
            }
        };
        (has_other_head || values.is_some() || problem.is_some()).then(|| InitializerChange {
            a: part(a, *i),
            b: part(b, *j),
            values,
            problem,
        })
    };
    let changed: Vec<InitializerChange> = joined.par_iter().filter_map(change).collect();
    for one in changed {
        // What could not be read is no difference that was found.
        match &one.problem {
            Some(problem) => {
                context
                    .warnings
                    .borrow_mut()
                    .push(format!("the elements of {:?} are not compared: {problem}", one.b.name));
            }
            None => found.changed.push(one),
        }
    }
    found
}

fn values_renamed(pairs: &Pairs) -> Vec<Renamed> {
    let (a, b) = (pairs.a, pairs.b);
    let mut found = Vec::new();
    for y in 0..b.nodes() as u32 {
        let Some(x) = pairs.in_a(y) else { continue };
        let (x, node) = (&a.view.nodes[x as usize], &b.view.nodes[y as usize]);
        for (from, to) in x.output.iter().zip(&node.output) {
            if from != to && !from.is_empty() && !to.is_empty() {
                found.push(Renamed { position: y as usize, from: from.clone(), to: to.clone(), fold: None });
            }
        }
    }
    found
}
