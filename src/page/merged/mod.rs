//! Two graphs as one: what corresponds is there once, what is only in one of them is marked.
//!
//! Values go by name and not by a view of the graph, since graphs that ONNX would refuse are compared too.

mod order;

use std::collections::{HashMap, HashSet};

use order::{drawing_order, file_order};

use foldhash::fast::RandomState;

use super::network::{Kind, Mark, Network, Node, Value};
use super::text;
use crate::diff::{Change, Diff};
use crate::graph::infer::Types;
use crate::graph::types::TensorType;
use crate::graph::{Graph, captures_of};
use crate::onnx::NodeProto;
use crate::wire::Model;

type Index<'m> = HashMap<&'m str, u32, RandomState>;

/// Both graphs.
#[derive(Debug, Default)]
pub struct Merged {
    /// In the order of the new graph; what was removed stands where it stood.
    pub network: Network,
    /// The positions here of the nodes of each model.
    pub of_a: Vec<u32>,
    pub of_b: Vec<u32>,
    /// Where each node is: whether in the new model, and at which position.
    origins: Vec<(bool, usize)>,
    values: [HashMap<String, u32, RandomState>; 2],
}

impl Merged {
    /// The graphs of two models, with the marks of their difference.
    pub fn of(a: &Model, b: &Model, found: &Diff) -> Self {
        let mut values = Vec::new();
        let mut in_b = Index::default();
        Side::of(b).declare(&mut values, &mut in_b, |_| None);
        let matched: HashSet<&str> = found.matching.values().map(|(_, b)| b).collect();
        for (name, v) in &in_b {
            if !matched.contains(name) {
                values[*v as usize].mark = Mark::Added;
            }
        }
        let first_removed = values.len();
        let mut in_a = Index::default();
        Side::of(a).declare(&mut values, &mut in_a, |name| in_b.get(found.matching.value(name)?).copied());
        values[first_removed..].iter_mut().for_each(|v| v.mark = Mark::Removed);
        marks_of_values(&mut values, &in_b, found);

        let mut merged = Merged { network: Network { nodes: Vec::new(), values }, ..Merged::default() };
        merged.put_nodes(a, b, found, &in_a, &in_b);
        merged.mark_changes(found, &in_a);
        let owned = |index: Index| index.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
        merged.values = [owned(in_a), owned(in_b)];
        merged
    }

    /// The value that the old model calls so.
    pub fn value_of_a(&self, name: &str) -> Option<u32> {
        self.values[0].get(name).copied()
    }

    /// The value that the new model calls so.
    pub fn value_of_b(&self, name: &str) -> Option<u32> {
        self.values[1].get(name).copied()
    }

    /// Fills in what nodes are called and hold: those of `network` that are a node here, by `origin`.
    pub fn describe(&self, network: &mut Network, origin: &[Option<u32>], a: &Model, b: &Model) {
        for (node, origin) in network.nodes.iter_mut().zip(origin) {
            let Some((is_new, at)) = origin.and_then(|n| self.origins.get(n as usize)) else { continue };
            let proto = if *is_new { b.graph.nodes.get(*at) } else { a.graph.nodes.get(*at) };
            let Some(Node { domain, name, doc, attributes, .. }) = proto.map(Node::alone) else { continue };
            (node.domain, node.name, node.doc, node.attributes) = (domain, name, doc, attributes);
        }
    }

    fn put_nodes(&mut self, a: &Model, b: &Model, found: &Diff, in_a: &Index, in_b: &Index) {
        let is_added = |n: usize| found.matching.b_to_a.get(n).copied().flatten().is_none();
        let order_b = drawing_order(b, is_added);
        let mut rank_of_b = vec![0; b.graph.nodes.len()];
        (0..).zip(&order_b).for_each(|(rank, n)| rank_of_b[*n] = rank);
        // What was removed follows what stood before it.
        let counterpart = |n: usize| found.matching.a_to_b.get(n).copied().flatten();
        let (mut removed, mut before) = (Vec::new(), 0);
        for n in file_order(a) {
            match counterpart(n) {
                Some(there) => before = rank_of_b.get(there.index()).map_or(before, |rank| rank + 1),
                None => removed.push((before, n)),
            }
        }
        removed.sort_unstable_by_key(|(before, _)| *before);
        (self.of_a, self.of_b) = (vec![0; a.graph.nodes.len()], vec![0; b.graph.nodes.len()]);
        let mut removed = removed.into_iter().peekable();
        for rank in 0..=order_b.len() {
            while let Some((_, n)) = removed.next_if(|(before, _)| *before <= rank) {
                self.of_a[n] = self.push(&a.graph.nodes[n], n, in_a, Mark::Removed);
            }
            if let Some(n) = order_b.get(rank) {
                let mark = if is_added(*n) { Mark::Added } else { Mark::None };
                self.of_b[*n] = self.push(&b.graph.nodes[*n], *n, in_b, mark);
            }
        }
        for n in 0..a.graph.nodes.len() {
            if let Some(there) = counterpart(n) {
                self.of_a[n] = self.of_b.get(there.index()).copied().unwrap_or_default();
            }
        }
    }

    fn push(&mut self, node: &NodeProto, position: usize, index: &Index, mark: Mark) -> u32 {
        let number = |name: &String| index.get(name.as_str()).copied();
        self.network.nodes.push(Node {
            inputs: node.input.iter().map(number).collect(),
            captured: captures_of(node, position).iter().filter_map(|(name, _)| index.get(name).copied()).collect(),
            outputs: node.output.iter().map(number).collect(),
            mark,
            // The rest is for nodes that are shown; see [`Merged::describe`].
            op: text::name(node.op_type()),
            ..Node::default()
        });
        self.origins.push((mark != Mark::Removed, position));
        u32::try_from(self.network.nodes.len() - 1).unwrap_or_default()
    }

    fn mark_changes(&mut self, found: &Diff, in_a: &Index) {
        for change in &found.graph.nodes.changed {
            let Some(at) = self.of_b.get(change.b.position) else { continue };
            let node = &mut self.network.nodes[*at as usize];
            node.mark = Mark::Changed;
            for part in &change.changes {
                let Change::Input { slot, from, to } = part else { continue };
                let slot = u32::try_from(*slot).unwrap_or_default();
                node.fresh.extend(to.as_ref().map(|_| slot));
                let former = from.as_ref().and_then(|name| in_a.get(name.as_str()));
                node.former.extend(former.map(|v| (slot, *v)));
            }
        }
    }
}

/// Marks of initializers, inputs and outputs that are in both models.
fn marks_of_values(values: &mut [Value], in_b: &Index, found: &Diff) {
    let graph = &found.graph;
    let initializers = graph.initializers.changed.iter().map(|c| &c.b.name);
    let ends = graph.inputs.changed.iter().chain(&graph.outputs.changed).map(|c| &c.b.name);
    for name in initializers.chain(ends) {
        if let Some(v) = in_b.get(name.as_str()) {
            values[*v as usize].mark = Mark::Changed;
        }
    }
}

/// One model, with what is known of its values.
struct Side<'m> {
    model: &'m Model,
    shapes: HashMap<&'m str, String, RandomState>,
}

impl<'m> Side<'m> {
    fn of(model: &'m Model) -> Self {
        let mut shapes: HashMap<&str, String, RandomState> = HashMap::default();
        if let Ok(graph) = Graph::of(model) {
            let types = Types::of(&graph, model);
            shapes.extend(graph.values().map(|v| (graph.name(v), types.get(v).to_string())));
        } else {
            let parts = &model.graph;
            let declared = parts.value_info.iter().chain(&parts.inputs).chain(&parts.outputs);
            shapes.extend(declared.filter_map(|v| Some((v.name(), TensorType::of_value(v)?.to_string()))));
        }
        Side { model, shapes }
    }

    /// Adds all values that `known` does not have yet, and notes the numbers of all.
    fn declare(self, values: &mut Vec<Value>, index: &mut Index<'m>, known: impl Fn(&str) -> Option<u32>) {
        let graph = &self.model.graph;
        let mut put = |name: &'m str, kind: Kind, is_output: bool| {
            if name.is_empty() {
                return;
            }
            let number = *index.entry(name).or_insert_with(|| {
                known(name).unwrap_or_else(|| {
                    let shape = self.shapes.get(name).map(|s| text::name(s)).unwrap_or_default();
                    values.push(Value { name: text::name(name), shape, kind, ..Value::default() });
                    u32::try_from(values.len() - 1).unwrap_or_default()
                })
            });
            if is_output && let Some(value) = values.get_mut(number as usize) {
                value.is_output = true;
            }
        };
        graph.initializers.iter().for_each(|t| put(&t.name, Kind::Initializer, false));
        graph.sparse_initializers.iter().for_each(|name| put(name, Kind::Initializer, false));
        graph.inputs.iter().for_each(|v| put(v.name(), Kind::Input, false));
        for node in &graph.nodes {
            let kind = if node.op_type() == "Constant" { Kind::Constant } else { Kind::Inner };
            node.output.iter().for_each(|name| put(name, kind, false));
        }
        // What nothing defines is drawn as if it were an input.
        for (i, node) in graph.nodes.iter().enumerate() {
            node.input.iter().for_each(|name| put(name, Kind::Input, false));
            captures_of(node, i).into_iter().for_each(|(name, _)| put(name, Kind::Input, false));
        }
        graph.outputs.iter().for_each(|v| put(v.name(), Kind::Inner, true));
    }
}
