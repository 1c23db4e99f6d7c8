//! What one item of a selector matches in a graph, and what to say when that is nothing.

use std::collections::BTreeMap;

use super::activation::Activation;
use super::catalog::{Catalog, Found};
use super::error::SelectError;
use super::parse::What;
use super::selector::Tap;
use super::suggest::{did_you_mean, nearest, without_wildcards};
use crate::graph::{Graph, NodeId, ValueId};

/// Sorts taps topologically: 0 for graph inputs, else 1 + the producer's position; then the value.
pub type Key = (u32, ValueId);

fn positions(graph: &Graph<'_>) -> Vec<u32> {
    let mut positions = vec![0; graph.nodes.len()];
    for (position, node) in (1u32..).zip(graph.topological_order()) {
        positions[node.index()] = position;
    }
    positions
}

/// What items choose from.
pub struct Universe<'a, 'm> {
    graph: &'a Graph<'m>,
    catalog: &'a Catalog,
    positions: Vec<u32>,
}

impl<'a, 'm> Universe<'a, 'm> {
    pub fn of(graph: &'a Graph<'m>, catalog: &'a Catalog) -> Self {
        Universe { graph, catalog, positions: positions(graph) }
    }

    pub fn key(&self, tap: &Tap) -> Key {
        (tap.node.map_or(0, |node| self.positions[node.index()]), tap.value)
    }

    /// What an item matches; an error when that is nothing.
    pub fn matches(&self, what: &What, item: usize) -> Result<Vec<Tap>, SelectError> {
        let taps: Vec<Tap> = match what {
            What::Activation(wanted) => self.activations(item, |f| f.activation == *wanted),
            What::All => self.activations(item, |_| true),
            What::Operator(op) => self.nodes(item, |node| self.graph.node(node).op_type() == op),
            What::Node(pattern) => {
                let is_named = |node: NodeId| pattern.matches(self.graph.node(node).name());
                let activations = self.activations(item, |f| is_named(f.node));
                if activations.is_empty() { self.nodes(item, is_named) } else { activations }
            }
            What::Tensor(name) => self.tensor(what, name, item)?.into_iter().collect(),
            What::None | What::Positions { .. } => Vec::new(),
        };
        if taps.is_empty() { Err(self.nothing(what)) } else { Ok(taps) }
    }

    fn activations(&self, item: usize, wanted: impl Fn(&Found) -> bool) -> Vec<Tap> {
        self.catalog.found.iter().filter(|f| wanted(f)).map(|f| self.tap(f.value, item)).collect()
    }

    fn nodes(&self, item: usize, wanted: impl Fn(NodeId) -> bool) -> Vec<Tap> {
        let nodes = self.graph.topological_order().iter().copied().filter(|n| wanted(*n));
        nodes.filter_map(|n| Some(self.tap(self.main_output(n)?, item))).collect()
    }

    /// The tapped output of an activation, else the first output that is there.
    fn main_output(&self, node: NodeId) -> Option<ValueId> {
        let outputs = || self.graph.outputs_of(node).iter().flatten().copied();
        outputs().find(|v| self.catalog.at(*v).is_some()).or_else(|| outputs().next())
    }

    fn tensor(&self, what: &What, name: &str, item: usize) -> Result<Option<Tap>, SelectError> {
        let Some(value) = self.graph.find(name) else { return Ok(None) };
        let refuse = |reason| Err(SelectError::NotTappable { item: what.to_string(), reason });
        if self.graph.producer(value).is_some() {
            return Ok(Some(self.tap(value, item)));
        }
        match (self.graph.is_input(value), self.graph.initializer(value)) {
            (true, None) => Ok(Some(self.tap(value, item))),
            (_, Some(_)) => refuse("it is an initializer, and a tap is what a node makes or a graph input"),
            (false, None) => refuse("it is a sparse initializer, and a tap is what a node makes or a graph input"),
        }
    }

    fn tap(&self, value: ValueId, item: usize) -> Tap {
        let found = self.catalog.at(value);
        Tap {
            node: self.graph.producer(value).map(|(node, _)| node),
            value,
            activation: found.map(|f| f.activation),
            input: found.and_then(|f| f.input),
            item,
        }
    }

    /// The error of an item that matches nothing: what is there, and the nearest name.
    fn nothing(&self, what: &What) -> SelectError {
        let node_names = || self.graph.nodes.iter().map(|n| n.name()).filter(|n| !n.is_empty());
        let operators = || self.graph.nodes.iter().map(|n| n.op_type());
        let (there, hint) = match what {
            What::Operator(op) => (self.operators(), did_you_mean("op:", nearest(op, operators()))),
            What::Node(pattern) => {
                let core = without_wildcards(pattern.source());
                let around = format!("*{core}*");
                let inside = || node_names().any(|n| n.contains(&core)).then_some(around.as_str());
                (self.node_names(), did_you_mean("name:", nearest(&core, node_names()).or_else(inside)))
            }
            What::Tensor(name) => {
                let made = self.graph.values().filter(|v| self.graph.producer(*v).is_some() || self.graph.is_input(*v));
                let near = nearest(name, made.map(|v| self.graph.name(v)));
                ("the graph has no tensor of this name".to_owned(), did_you_mean("tensor:", near))
            }
            What::Activation(wanted) => (self.activations_there(Some(*wanted)), String::new()),
            _ => (self.activations_there(None), String::new()),
        };
        SelectError::NoMatch { item: what.to_string(), there, hint }
    }

    /// `the graph has relu ×11, sigmoid ×2`, and how many of the wanted are out of reach.
    fn activations_there(&self, wanted: Option<Activation>) -> String {
        let counts: Vec<String> = self.catalog.counts().iter().map(|(a, n)| format!("{a} ×{n}")).collect();
        let mut text = if counts.is_empty() {
            format!("the graph has no activation; {}", self.operators())
        } else {
            format!("the graph has {}", counts.join(", "))
        };
        let out_of_reach = self.catalog.hidden.iter().filter(|h| wanted.is_none_or(|w| w == h.activation));
        let out_of_reach: Vec<_> = out_of_reach.collect();
        if let Some(first) = out_of_reach.first() {
            let (description, reason, count) = (&first.description, &first.reason, out_of_reach.len());
            text += &format!("; {count} cannot be tapped, such as {description}: {reason}");
        }
        text
    }

    /// How many nodes there are, and some of their names.
    fn node_names(&self) -> String {
        let names = || self.graph.nodes.iter().map(|n| n.name()).filter(|n| !n.is_empty());
        let some: Vec<String> = names().take(4).map(|n| format!("`{n}`")).collect();
        let rest = names().count() - some.len();
        match (some.is_empty(), rest) {
            (true, _) => "the graph's nodes have no names".into(),
            (false, rest) => {
                let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
                let nodes = self.graph.nodes.len();
                format!("none of the graph's {nodes} nodes is so named; there are {}{more}", some.join(", "))
            }
        }
    }

    /// The most frequent operator types.
    fn operators(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.graph.nodes.iter().for_each(|n| *counts.entry(n.op_type()).or_default() += 1);
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let rest = counts.len().saturating_sub(8);
        let texts: Vec<String> = counts.iter().take(8).map(|(op, n)| format!("{op} ×{n}")).collect();
        let rest = if rest > 0 { format!(" and {rest} more types") } else { String::new() };
        if texts.is_empty() {
            "the graph has no nodes".into()
        } else {
            format!("the operators are {}{rest}", texts.join(", "))
        }
    }
}
