//! One of the two graphs as vertices and edges.
//!
//! Vertices are the nodes, in file order, and behind them the sources: what no node makes (graph inputs, initializers, values of the
//! graph around a body, names that nothing defines). A value is a vertex and which of its outputs. Graphs that ONNX would refuse are
//! taken as they are: of two definitions of a name the first counts, and nodes on a cycle come last in the order.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use rayon::prelude::*;

use super::label::{self, hash, mix};
use super::view::View;
use super::words;
use crate::graph::captures_of;
use crate::graph::lists::Lists;

/// A value: the vertex that makes it, and as which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    pub vertex: u32,
    pub out: u32,
}

/// One place where a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The node that reads it.
    pub node: u32,
    /// As which input; what bodies capture comes behind the inputs.
    pub slot: u32,
    /// Which output of the vertex it is.
    pub out: u32,
}

/// What no node makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A graph input, by its position.
    Input(u32),
    /// An initializer, by its position; in old files an input too.
    Tensor(u32),
    /// A value of the graph around this one, or of none.
    Outer,
}

/// Labels of every vertex, from strict to lenient.
pub struct Labels {
    /// All there is to a vertex, the elements of initializers included.
    pub content: Vec<u64>,
    /// The same without elements.
    pub full: Vec<u64>,
    /// Operators alone; one label for all initializers.
    pub operator: Vec<u64>,
}

/// A graph as vertices and edges.
pub struct Side<'m> {
    pub view: View<'m>,
    /// The sources, with their names.
    pub sources: Vec<(Source, &'m str)>,
    /// By node: its inputs, then what its bodies capture.
    pub ins: Lists<Option<Value>>,
    /// By vertex: who reads its outputs.
    pub uses: Lists<Use>,
    /// By graph output: its value.
    pub outputs: Vec<Option<Value>>,
    /// By graph input: its source.
    pub inputs: Vec<u32>,
    /// Nodes, producers before consumers.
    pub order: Vec<u32>,
    pub labels: Labels,
    /// Values by their names.
    pub names: HashMap<&'m str, Value, FixedState>,
}

impl<'m> Side<'m> {
    /// Number of nodes, which is the first source's vertex.
    pub fn nodes(&self) -> usize {
        self.view.nodes.len()
    }

    /// What two graphs are put in order by: equal only where nothing tells them apart but declarations.
    pub fn key(&self) -> (usize, usize, u64) {
        let labels = self.labels.content.iter().fold(0, |h, l| mix(h, *l));
        let edges = self
            .ins
            .items
            .iter()
            .fold(labels, |h, v| mix(h, v.map_or(u64::MAX, |v| (u64::from(v.vertex) << 32) | u64::from(v.out))));
        let vertices = 0..self.vertices() as u32;
        (self.nodes(), self.vertices(), vertices.fold(edges, |h, v| mix(h, hash(self.name(v)))))
    }

    /// Number of vertices.
    pub fn vertices(&self) -> usize {
        self.nodes() + self.sources.len()
    }

    /// Whether a vertex is a node.
    pub fn is_node(&self, vertex: u32) -> bool {
        (vertex as usize) < self.nodes()
    }

    /// What a vertex is if it is no node.
    pub fn source(&self, vertex: u32) -> Option<Source> {
        let i = (vertex as usize).checked_sub(self.nodes())?;
        self.sources.get(i).map(|(source, _)| *source)
    }

    /// The name of a vertex: the node's own, or that of the source's value.
    pub fn name(&self, vertex: u32) -> &str {
        match (vertex as usize).checked_sub(self.nodes()) {
            None => self.view.nodes[vertex as usize].name(),
            Some(i) => self.sources[i].1,
        }
    }

    /// The name of a value.
    pub fn value_name(&self, value: Value) -> &str {
        match self.source(value.vertex) {
            None => self.view.nodes[value.vertex as usize].output.get(value.out as usize).map_or("", |n| n),
            Some(_) => self.name(value.vertex),
        }
    }

    /// Vertices that could ever correspond: nodes to nodes, and sources to sources of their kind.
    pub fn kind(&self, vertex: u32) -> u8 {
        match self.source(vertex) {
            None => 0,
            Some(Source::Input(_)) => 1,
            Some(Source::Tensor(_)) => 2,
            Some(Source::Outer) => 3,
        }
    }

    /// `bytes` are those that the initializers' ranges refer to.
    pub fn of(view: View<'m>, bytes: &[u8]) -> Self {
        let count = view.nodes.len();
        let mut side = Side {
            sources: Vec::new(),
            ins: Lists::with_capacity(count),
            uses: Lists::with_capacity(0),
            outputs: Vec::new(),
            inputs: Vec::new(),
            order: Vec::new(),
            labels: Labels { content: Vec::new(), full: Vec::new(), operator: Vec::new() },
            names: HashMap::with_capacity_and_hasher(2 * count, FixedState::with_seed(7)),
            view: View::default(),
        };
        side.define(&view);
        side.connect(&view);
        side.sort();
        side.label(&view, bytes);
        side.view = view;
        side
    }

    fn add_source(&mut self, nodes: usize, source: Source, name: &'m str) -> Value {
        let value = Value { vertex: (nodes + self.sources.len()) as u32, out: 0 };
        self.sources.push((source, name));
        self.names.entry(name).or_insert(value);
        value
    }

    fn define(&mut self, view: &View<'m>) {
        let nodes = view.nodes.len();
        for (i, tensor) in view.tensors.iter().enumerate() {
            let name = tensor.name;
            self.add_source(nodes, Source::Tensor(i as u32), name);
        }
        for (i, input) in view.inputs.iter().enumerate() {
            // An initializer that is an input too is its default.
            let value = match self.names.get(input.name) {
                Some(value) if !input.name.is_empty() => *value,
                _ => self.add_source(nodes, Source::Input(i as u32), input.name),
            };
            self.inputs.push(value.vertex);
        }
        for (i, node) in view.nodes.iter().enumerate() {
            for (out, name) in node.output.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
                self.names.entry(name).or_insert(Value { vertex: i as u32, out: out as u32 });
            }
        }
    }

    fn value(&mut self, nodes: usize, name: &'m str) -> Option<Value> {
        if name.is_empty() {
            return None;
        }
        match self.names.get(name) {
            Some(value) => Some(*value),
            None => Some(self.add_source(nodes, Source::Outer, name)),
        }
    }

    fn connect(&mut self, view: &View<'m>) {
        let nodes = view.nodes.len();
        let mut row = Vec::new();
        for (i, node) in view.nodes.iter().enumerate() {
            for name in &node.input {
                let value = self.value(nodes, name);
                row.push(value);
            }
            for (name, _) in captures_of(node, i) {
                let value = self.value(nodes, name);
                row.push(value);
            }
            self.ins.push(row.drain(..));
        }
        for output in &view.outputs {
            let value = self.value(nodes, output.name);
            self.outputs.push(value);
        }
        let mut starts = vec![0u32; nodes + self.sources.len() + 1];
        self.ins.items.iter().flatten().for_each(|v| starts[v.vertex as usize + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut items = vec![Use { node: 0, slot: 0, out: 0 }; starts[starts.len() - 1] as usize];
        let mut next = starts.clone();
        for node in 0..nodes {
            for (slot, value) in self.ins.get(node).iter().enumerate() {
                if let Some(value) = value {
                    let at = &mut next[value.vertex as usize];
                    items[*at as usize] = Use { node: node as u32, slot: slot as u32, out: value.out };
                    *at += 1;
                }
            }
        }
        self.uses = Lists { starts, items };
    }

    fn sort(&mut self) {
        let nodes = self.ins.starts.len() - 1;
        let made = |v: &&Value| (v.vertex as usize) < nodes;
        let is_sorted = |i: usize| self.ins.get(i).iter().flatten().filter(made).all(|v| (v.vertex as usize) < i);
        if (0..nodes).all(is_sorted) {
            self.order = (0..nodes as u32).collect();
            return;
        }
        let mut waits: Vec<u32> =
            (0..nodes).map(|i| self.ins.get(i).iter().flatten().filter(made).count() as u32).collect();
        let mut order: Vec<u32> = (0..nodes as u32).filter(|i| waits[*i as usize] == 0).collect();
        let mut at = 0;
        while let Some(node) = order.get(at).copied() {
            at += 1;
            for used in self.uses.get(node as usize) {
                waits[used.node as usize] -= 1;
                if waits[used.node as usize] == 0 {
                    order.push(used.node);
                }
            }
        }
        order.extend((0..nodes as u32).filter(|i| waits[*i as usize] > 0));
        self.order = order;
    }

    fn label(&mut self, view: &View<'m>, bytes: &[u8]) {
        let nodes = view.nodes.par_iter().with_min_len(256);
        let mut full: Vec<u64> = nodes.clone().map(label::node).collect();
        let mut operator: Vec<u64> = nodes.map(label::operator).collect();
        let mut content = full.clone();
        let sources = self.sources.par_iter().with_min_len(256);
        let of_sources: Vec<[u64; 3]> = sources
            .map(|(source, _)| match source {
                Source::Input(i) => {
                    let ty = mix(1, hash(words::declared(&view.inputs[*i as usize])));
                    [ty, ty, 1]
                }
                Source::Tensor(i) => {
                    let tensor = &view.tensors[*i as usize];
                    [mix(2, label::tensor_content(tensor, bytes)), mix(2, label::tensor_head(tensor)), 2]
                }
                Source::Outer => [3; 3],
            })
            .collect();
        for [c, f, o] in of_sources {
            content.push(c);
            full.push(f);
            operator.push(o);
        }
        self.labels = Labels { content, full, operator };
    }
}
