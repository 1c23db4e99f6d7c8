//! What per-inject itself added, put together in groups that a reader can take in as one line each.
//!
//! The record of an injection in the model's metadata says what its names start with and which layers it has; without the record its
//! nodes are nodes like all others.

use std::collections::HashMap;

use prost::Message;

use super::change::{Change, Diff, Fold, FoldKind, FoldSide, GraphDiff, NodeRef, ValuesDiff};
use crate::graph::Graph;
use crate::graph::infer::Types;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::NodeProto;
use crate::record::{LOWERED, Record, RecordedLayer, Renamed, STEP_KEY, Standin};
use crate::wire::{Model, records};

/// Finds the injections that only one of the models has, and says of every part which group it belongs to.
pub fn fold(diff: &mut Diff, a: &Model, b: &Model) {
    let read = |model: &Model| Record::all(model).unwrap_or_default().into_iter().map(|(_, r)| r).collect::<Vec<_>>();
    let (of_a, of_b) = (read(a), read(b));
    for (own, other, model, side) in [(&of_b, &of_a, b, FoldSide::Added), (&of_a, &of_b, a, FoldSide::Removed)] {
        let is_new = |r: &&Record| !other.iter().any(|o| o.root == r.root && o.original == r.original);
        let mut injections: Vec<Injection> = Vec::new();
        for (number, record) in own.iter().enumerate().filter(|(_, r)| is_new(r)) {
            injections.push(Injection::of(record, number + 1, side, model, &mut diff.folds));
        }
        // `per_inject/2/` before `per_inject/`.
        injections.sort_by_key(|i| std::cmp::Reverse(i.record.root.len()));
        if !injections.is_empty() {
            assign(diff, &injections, side);
        }
    }
}

/// One injection, and its groups by what names say.
struct Injection<'r> {
    record: &'r Record,
    layers: HashMap<&'r str, usize>,
    rewritings: HashMap<&'r str, usize>,
    sum: usize,
    whole: usize,
}

impl<'r> Injection<'r> {
    fn of(record: &'r Record, number: usize, side: FoldSide, model: &Model, folds: &mut Vec<Fold>) -> Self {
        let mut add = |kind, name: &str, title: String| {
            folds.push(Fold { side, injection: number, kind, title, name: name.into(), nodes: 0, initializers: 0 });
            folds.len() - 1
        };
        let lengths = row_lengths(record, model);
        let layer = |(layer, d): (&'r RecordedLayer, &Option<u64>)| {
            let d = d.map_or(String::new(), |d| format!(", d = {}", grouped(d)));
            let title = format!("{}, {}{d}, λ = {}", layer.estimator, layer.view, coefficient(layer.coef));
            (layer.name.as_str(), add(FoldKind::Layer, &layer.name, title))
        };
        let layers = record.layers.iter().zip(&lengths).map(layer).collect();
        let mut rewritings = HashMap::new();
        for replaced in &record.replaced {
            if let Standin::Nodes(name) = &replaced.by {
                let op = replaced.bytes().and_then(|b| original(&b)).map_or(String::new(), |n| n.op_type().to_owned());
                rewritings.insert(name.as_str(), add(FoldKind::Rewriting, name, op));
            }
        }
        let sum = add(FoldKind::Sum, "", String::new());
        let whole = add(FoldKind::Record, "", record.arguments.join(" "));
        Injection { record, layers, rewritings, sum, whole }
    }

    /// The group that a name belongs to, if it is one of this injection's.
    fn of_name(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(&self.record.root)?;
        if let Some(lowered) = rest.strip_prefix(LOWERED)
            && let Some(fold) = prefixes(lowered).find_map(|p| self.rewritings.get(p))
        {
            return Some(*fold);
        }
        Some(prefixes(rest).find_map(|p| self.layers.get(p)).copied().unwrap_or(self.sum))
    }

    /// The task losses, each with what it is called now.
    fn losses(&self) -> impl Iterator<Item = &Renamed> {
        self.record.task_loss.iter().chain(self.record.steps.iter().map(|s| &s.task_loss))
    }

    /// The group of a node that was added.
    fn of_node(&self, node: &NodeRef) -> Option<usize> {
        // The model's own node that makes the task loss has only got another output name.
        let is_task = |name: &str| self.losses().any(|t| t.to == name);
        let by_name = std::iter::once(&node.name).chain(node.outputs.iter().filter(|o| !is_task(o)));
        let makes_total = || self.losses().any(|t| node.inputs.contains(&t.to) && node.outputs.contains(&t.from));
        let exposed = self.record.outputs.iter().chain(self.record.steps.iter().flat_map(|s| &s.outputs));
        let makes_output = || exposed.clone().any(|o| node.outputs.contains(o));
        let mut by_name = by_name.filter_map(|n| self.of_name(n));
        by_name.next().or_else(|| (makes_total() || makes_output()).then_some(self.sum))
    }
}

/// What stands before each `/` of a name, the longest first.
fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('/').map(|(at, _)| &name[..at])
}

/// The node that a record of bytes holds.
fn original(bytes: &[u8]) -> Option<NodeProto> {
    let record = records(bytes, 0..bytes.len()).next()?.ok()?;
    NodeProto::decode(&bytes[record.payload]).ok()
}

fn assign(diff: &mut Diff, injections: &[Injection], side: FoldSide) {
    let is_added = side == FoldSide::Added;
    let mut graphs: Vec<&mut GraphDiff> = vec![&mut diff.graph];
    graphs.extend(diff.training_info.iter_mut().map(|t| &mut t.algorithm));
    for graph in graphs {
        assign_in(graph, injections, is_added, &mut diff.folds);
    }
    for property in &mut diff.model {
        let (here, there) = if is_added { (&property.to, &property.from) } else { (&property.from, &property.to) };
        let of = |i: &&Injection| match property.what {
            "metadata" => {
                let is_record = here.as_ref().is_some_and(|v| v.contains(&format!("{:?}", i.record.root)));
                let is_of_step = i.record.is_step() && property.key == STEP_KEY;
                there.is_none() && (is_of_step || crate::naming::recorded(&property.key).is_some() && is_record)
            }
            "opset_import" => {
                i.record.replaced.iter().any(|r| matches!(&r.by, Standin::OpsetImport(d) if *d == property.key))
            }
            "ir_version" => i.record.replaced.iter().any(|r| r.by == Standin::IrVersion),
            _ => false,
        };
        if let Some(injection) = injections.iter().find(of) {
            property.fold = Some(injection.whole);
        }
    }
    titles(injections, &mut diff.folds);
    drop_unused(diff);
}

/// The lists of declared values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Inputs,
    Outputs,
    ValueInfo,
}

fn assign_in(graph: &mut GraphDiff, injections: &[Injection], is_added: bool, folds: &mut [Fold]) {
    let of_name = |name: &str| injections.iter().find_map(|i| i.of_name(name));
    let (here, there) = match is_added {
        true => (&mut graph.nodes.added, &mut graph.nodes.removed),
        false => (&mut graph.nodes.removed, &mut graph.nodes.added),
    };
    // By value: the group of the node that makes it.
    let mut made: HashMap<String, usize> = HashMap::new();
    for node in here.iter_mut() {
        node.fold = injections.iter().find_map(|i| i.of_node(node));
        if let Some(fold) = node.fold {
            folds[fold].nodes += 1;
            made.extend(node.outputs.iter().map(|o| (o.clone(), fold)));
        }
    }
    // What others took the place of, by its outputs.
    let mut replaced: HashMap<String, usize> = HashMap::new();
    for injection in injections {
        for part in &injection.record.replaced {
            if let Standin::Nodes(name) = &part.by
                && let Some(fold) = injection.rewritings.get(name.as_str())
                && let Some(node) = part.bytes().and_then(|b| original(&b))
            {
                replaced.extend(node.output.into_iter().map(|o| (o, *fold)));
            }
        }
    }
    for node in there.iter_mut() {
        node.fold = node.fold.or_else(|| node.outputs.iter().find_map(|o| replaced.get(o)).copied());
    }
    for change in &mut graph.nodes.changed {
        let own = if is_added { &change.b } else { &change.a };
        let by_name = injections.iter().find_map(|i| i.of_node(own));
        if let Some(fold) = by_name {
            folds[fold].nodes += 1;
        }
        let rewired = |c: &Change| match c {
            Change::Input { from, to, .. } => {
                let value = if is_added { to } else { from };
                value.as_ref().and_then(|v| made.get(v).copied().or_else(|| of_name(v)))
            }
            _ => None,
        };
        let all: Option<Vec<usize>> = change.changes.iter().map(rewired).collect();
        change.fold = by_name.or_else(|| all.and_then(|folds| folds.first().copied()));
    }
    let tensors = &mut graph.initializers;
    for tensor in if is_added { &mut tensors.added } else { &mut tensors.removed } {
        tensor.fold = of_name(&tensor.name);
        if let Some(fold) = tensor.fold {
            folds[fold].initializers += 1;
        }
    }
    let exposed = |name: &str| {
        let in_steps = |i: &Injection| i.record.steps.iter().any(|s| s.outputs.iter().any(|o| o == name));
        let of = |i: &&Injection| i.record.outputs.iter().any(|o| o == name) || in_steps(i);
        injections.iter().find(of).map(|i| i.sum)
    };
    // A step graph has inputs under the parameters' own names.
    let of_step = injections.iter().find(|i| i.record.is_step()).map(|i| i.sum);
    let lists = [
        (&mut graph.inputs, List::Inputs),
        (&mut graph.outputs, List::Outputs),
        (&mut graph.value_info, List::ValueInfo),
    ];
    for (values, list) in lists {
        let is_output = list == List::Outputs;
        let ValuesDiff { added, removed, changed, .. } = values;
        for value in if is_added { added } else { removed } {
            value.fold = of_name(&value.name).or_else(|| match list {
                List::Inputs => of_step,
                List::Outputs => exposed(&value.name),
                List::ValueInfo => None,
            });
        }
        for change in changed {
            let name = if is_added { &change.b.name } else { &change.a.name };
            let declared = injections
                .iter()
                .find(|i| is_output && i.record.replaced.iter().any(|r| r.by == Standin::Output(change.b.position)));
            let source = made.get(name).filter(|_| change.source.is_some() && change.a.ty == change.b.ty).copied();
            change.fold = source.or_else(|| declared.map(|i| i.whole));
        }
    }
    let renamed = [&mut graph.values_renamed, &mut graph.nodes.renamed, &mut graph.initializers.renamed];
    for one in renamed.into_iter().flatten() {
        one.fold = one.fold.or_else(|| of_name(if is_added { &one.to } else { &one.from }));
    }
}

/// Titles that say how much there is.
fn titles(injections: &[Injection], folds: &mut [Fold]) {
    for injection in injections {
        let record = injection.record;
        for fold in injection.layers.values() {
            let fold = &mut folds[*fold];
            fold.title = format!("PER at {}: {}, {}", fold.name, nodes(fold.nodes), fold.title);
        }
        for fold in injection.rewritings.values() {
            let fold = &mut folds[*fold];
            let op = if fold.title.is_empty() { String::new() } else { format!(" ({})", fold.title) };
            fold.title = format!("rewriting of {}{op}: {} in its place", fold.name, nodes(fold.nodes));
        }
        let sum = &mut folds[injection.sum];
        let losses: Vec<String> =
            injection.losses().map(|l| format!("{:?} = task loss (now {:?}) + λ·ΣPER", l.from, l.to)).collect();
        let what = match (losses.is_empty(), record.gradients.len()) {
            (false, _) => losses.join(", "),
            (true, 0) if record.is_step() => "the backward pass and the step".into(),
            (true, 0) => "the sum of the terms and what they share".into(),
            (true, n) => format!("λ·∂PER/∂h in {n} gradients"),
        };
        sum.title = format!("{what}: {}, {} initializers", nodes(sum.nodes), sum.initializers);
        let whole = &mut folds[injection.whole];
        whole.title = format!("record of injection {}: {}", whole.injection, whole.title);
    }
}

fn nodes(n: usize) -> String {
    if n == 1 { "1 node".into() } else { format!("{n} nodes") }
}

/// Takes out groups that nothing belongs to, such as the sum of an injection that only rewrote.
fn drop_unused(diff: &mut Diff) {
    let mut is_used = vec![false; diff.folds.len()];
    each_fold(diff, &mut |fold| fold.iter().for_each(|f| is_used[*f] = true));
    let mut next = 0;
    let mut position = Vec::with_capacity(is_used.len());
    for used in &is_used {
        position.push(next);
        next += usize::from(*used);
    }
    let mut at = 0..;
    diff.folds.retain(|_| at.next().is_some_and(|i| is_used[i]));
    each_fold(diff, &mut |fold| *fold = fold.map(|f| position[f]));
}

fn each_fold(diff: &mut Diff, visit: &mut dyn FnMut(&mut Option<usize>)) {
    diff.model.iter_mut().for_each(|p| visit(&mut p.fold));
    let graphs = std::iter::once(&mut diff.graph).chain(diff.training_info.iter_mut().map(|t| &mut t.algorithm));
    for graph in graphs {
        let nodes = &mut graph.nodes;
        nodes.added.iter_mut().chain(&mut nodes.removed).for_each(|n| visit(&mut n.fold));
        nodes.changed.iter_mut().for_each(|n| visit(&mut n.fold));
        let tensors = &mut graph.initializers;
        tensors.added.iter_mut().chain(&mut tensors.removed).for_each(|t| visit(&mut t.fold));
        for values in [&mut graph.inputs, &mut graph.outputs, &mut graph.value_info] {
            values.added.iter_mut().chain(&mut values.removed).for_each(|v| visit(&mut v.fold));
            values.changed.iter_mut().for_each(|v| visit(&mut v.fold));
        }
        let renamed = nodes.renamed.iter_mut().chain(&mut graph.values_renamed).chain(&mut tensors.renamed);
        renamed.for_each(|r| visit(&mut r.fold));
    }
}

/// Values in a row of each layer, from the declared types, or where these are missing from what can be inferred.
fn row_lengths(record: &Record, model: &Model) -> Vec<Option<u64>> {
    let graph = &model.graph;
    let mut declared: HashMap<&str, TensorType> = HashMap::new();
    let wanted: HashMap<&str, ()> = record.layers.iter().map(|l| (l.tensor.as_str(), ())).collect();
    for value in graph.value_info.iter().chain(&graph.inputs).chain(&graph.outputs) {
        if wanted.contains_key(value.name())
            && let Some(ty) = TensorType::of_value(value)
        {
            declared.insert(value.name(), ty);
        }
    }
    if declared.len() < wanted.len()
        && let Ok(view) = Graph::of(model)
    {
        let types = Types::of(&view, model);
        for name in wanted.keys() {
            if let Some(value) = view.find(name) {
                declared.entry(name).or_insert_with(|| types.get(value).clone());
            }
        }
    }
    record.layers.iter().map(|l| row_length(declared.get(l.tensor.as_str())?.dims.as_ref()?, &l.view)).collect()
}

fn row_length(dims: &[Dim], view: &str) -> Option<u64> {
    match view {
        "channel" => dims.get(1)?.known(),
        "last" => dims.last()?.known(),
        _ => dims.get(1..)?.iter().try_fold(1u64, |n, d| n.checked_mul(d.known()?)),
    }
}

/// 16384 as 16,384.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// 0.00003 as 3e-5.
fn coefficient(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-2 || value.abs() >= 1e4) { format!("{value:e}") } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        assert_eq!([16384, 128, 1_000_000].map(grouped), ["16,384", "128", "1,000,000"]);
        assert_eq!([3e-5, 0.5, 0.0, 1e-2].map(coefficient), ["3e-5", "0.5", "0", "0.01"]);
        assert_eq!(prefixes("a/b/c").collect::<Vec<_>>(), ["a/b", "a"]);
    }
}
