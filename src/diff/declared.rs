//! Inputs, outputs and value_info: what is declared under a name.

use std::collections::HashMap;

use super::Options;
use super::change::{DocChange, Moved, Renamed, SourceChange, ValueChange, ValueRef, ValuesDiff};
use super::compare::{counterpart, moved};
use super::nodes::corresponds;
use super::pairing::Pairs;
use super::side::{Side, Source, Value};
use super::view::Declared;
use super::words;
use crate::onnx::ValueInfoProto;

/// Graph inputs: they correspond as the sources do.
pub fn inputs(options: &Options, pairs: &Pairs) -> ValuesDiff {
    let (a, b) = (pairs.a, pairs.b);
    let position: HashMap<u32, usize> = b.inputs.iter().enumerate().map(|(j, v)| (*v, j)).collect();
    let other = |v: &u32| pairs.in_b(*v).and_then(|w| position.get(&w).copied());
    let joined: Vec<Option<usize>> = a.inputs.iter().map(other).collect();
    lists(options, (&a.view.inputs, &b.view.inputs), &joined, |_, _| None)
}

/// Graph outputs: by name in the main graph, by value, then by position.
pub fn outputs(options: &Options, pairs: &Pairs) -> ValuesDiff {
    let (a, b) = (pairs.a, pairs.b);
    let (of_a, of_b) = (&a.view.outputs, &b.view.outputs);
    let mut joined: Vec<Option<usize>> = vec![None; of_a.len()];
    let mut is_free = vec![true; of_b.len()];
    let mut join = |joined: &mut Vec<Option<usize>>, i: usize, j: usize| {
        if joined[i].is_none() && is_free[j] {
            joined[i] = Some(j);
            is_free[j] = false;
        }
    };
    if a.view.by_name {
        let by_name: HashMap<&str, usize> = of_b.iter().enumerate().map(|(j, o)| (o.name, j)).collect();
        for (i, output) in of_a.iter().enumerate() {
            if let Some(j) = by_name.get(output.name) {
                join(&mut joined, i, *j);
            }
        }
    }
    let mut by_value: HashMap<Value, Vec<usize>> = HashMap::new();
    for (j, value) in b.outputs.iter().enumerate().rev() {
        if let Some(value) = value {
            by_value.entry(*value).or_default().push(j);
        }
    }
    for (i, value) in a.outputs.iter().enumerate().filter(|_| a.view.by_name || of_a.len() != of_b.len()) {
        let there = value.and_then(|v| counterpart(pairs, v)).and_then(|v| by_value.get(&v));
        for j in there.into_iter().flatten().rev() {
            join(&mut joined, i, *j);
        }
    }
    for i in 0..of_a.len().min(of_b.len()) {
        join(&mut joined, i, i);
    }
    lists(options, (of_a, of_b), &joined, |i, j| {
        let (from, to) = (a.outputs[i], b.outputs[j]);
        let is_same = match (from, to) {
            (Some(from), Some(to)) => corresponds(pairs, from, to),
            (from, to) => from.is_none() && to.is_none(),
        };
        (!is_same).then(|| SourceChange { from: source(a, from), to: source(b, to) })
    })
}

/// What makes a value, in words.
fn source(side: &Side, value: Option<Value>) -> String {
    let Some(value) = value else { return "nothing".into() };
    match side.source(value.vertex) {
        None => {
            let node = &side.view.nodes[value.vertex as usize];
            let which = if value.out == 0 { String::new() } else { format!("output {} of ", value.out) };
            match node.name() {
                "" => format!("{which}node {} ({})", value.vertex, node.op_type()),
                name => format!("{which}{name:?} ({})", node.op_type()),
            }
        }
        Some(Source::Input(_)) => format!("the input {:?}", side.value_name(value)),
        Some(Source::Tensor(_)) => format!("the initializer {:?}", side.value_name(value)),
        Some(Source::Outer) => format!("{:?} of the graph around", side.value_name(value)),
    }
}

/// Declared types of inner values: they correspond as the values do.
pub fn value_info(pairs: &Pairs) -> ValuesDiff {
    let (a, b) = (pairs.a, pairs.b);
    let mut by_name: HashMap<&str, usize> = HashMap::with_capacity(b.view.value_info.len());
    b.view.value_info.iter().enumerate().for_each(|(j, v)| _ = by_name.insert(v.name(), j));
    let mut is_free = vec![true; b.view.value_info.len()];
    let mut found = ValuesDiff::default();
    for (i, before) in a.view.value_info.iter().enumerate() {
        let value = a.names.get(before.name());
        let name = match value {
            // The declaration of a value that is gone may have stayed.
            Some(value) => counterpart(pairs, *value)
                .map(|v| b.value_name(v))
                .or_else(|| (!b.names.contains_key(before.name())).then_some(before.name())),
            None => Some(before.name()),
        };
        let Some(j) = name.and_then(|name| by_name.get(name).copied()).filter(|j| is_free[*j]) else {
            found.removed.push(value_ref(i, before.name(), Some(before)));
            continue;
        };
        is_free[j] = false;
        let now = &b.view.value_info[j];
        if before.r#type != now.r#type {
            let (a, b) = (value_ref(i, before.name(), Some(before)), value_ref(j, now.name(), Some(now)));
            found.changed.push(ValueChange { a, b, source: None, doc: None, fold: None });
        }
    }
    let free = b.view.value_info.iter().enumerate().filter(|(j, _)| is_free[*j]);
    found.added = free.map(|(j, v)| value_ref(j, v.name(), Some(v))).collect();
    found.changed.sort_unstable_by_key(|c| c.b.position);
    found
}

fn value_ref(position: usize, name: &str, value: Option<&ValueInfoProto>) -> ValueRef {
    ValueRef { position, name: name.to_owned(), ty: value.map(words::value_type).unwrap_or_default(), fold: None }
}

/// Compares two lists, of which `joined` says what corresponds.
fn lists(
    options: &Options,
    (of_a, of_b): (&[Declared], &[Declared]),
    joined: &[Option<usize>],
    source: impl Fn(usize, usize) -> Option<SourceChange>,
) -> ValuesDiff {
    let mut found = ValuesDiff::default();
    let mut back: Vec<Option<usize>> = vec![None; of_b.len()];
    joined.iter().enumerate().for_each(|(i, j)| j.iter().for_each(|j| back[*j] = Some(i)));
    let part = |list: &[Declared], i: usize| value_ref(i, list[i].name, list[i].value);
    let gone = joined.iter().enumerate().filter(|(_, j)| j.is_none());
    found.removed = gone.map(|(i, _)| part(of_a, i)).collect();
    let mut pairs = Vec::new();
    for (j, i) in back.iter().enumerate() {
        let Some(i) = *i else {
            found.added.push(part(of_b, j));
            continue;
        };
        pairs.push((i as u32, j as u32));
        let (before, now) = (&of_a[i], &of_b[j]);
        if !options.ignore.names && before.name != now.name {
            found.renamed.push(Renamed {
                position: j,
                from: before.name.to_owned(),
                to: now.name.to_owned(),
                fold: None,
            });
        }
        let has_other_type = !options.ignore.shapes && before.value.map(|v| &v.r#type) != now.value.map(|v| &v.r#type);
        let docs = |d: &Declared| d.value.map_or("", |v| v.doc_string()).to_owned();
        let has_other_docs = !options.ignore.docs && docs(before) != docs(now);
        let doc = has_other_docs.then(|| DocChange { from: docs(before), to: docs(now) });
        let source = source(i, j);
        if has_other_type || doc.is_some() || source.is_some() {
            found.changed.push(ValueChange { a: part(of_a, i), b: part(of_b, j), source, doc, fold: None });
        }
    }
    let name = |j: u32| of_b[j as usize].name.to_owned();
    found.moved =
        moved(&pairs).into_iter().map(|(i, j)| Moved { name: name(j), from: i as usize, to: j as usize }).collect();
    found
}
