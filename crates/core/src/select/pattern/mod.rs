//! Finding activations, as operators and where an exporter spelt them out.
//!
//! Every pattern starts at the last node of what it looks for and looks back over a bounded number of nodes, so that the whole is
//! linear in the size of the graph. A pattern matches only what computes the activation exactly, up to the rounding of its
//! constants; its parts are then no activations of their own, even where others read them too.

mod algebra;
mod exponential;
pub mod function;
mod gated;
mod lookback;
mod number;
mod op;
mod piecewise;
mod polynomial;
mod quotient;
mod rectifier;
mod recurrent;

#[cfg(test)]
mod soundness;
#[cfg(test)]
pub mod testing;

use std::cell::RefCell;

use self::function::Functions;
use self::lookback::Triggers;
use self::op::{Op, classify};
use super::activation::Activation;
use super::catalog::{Found, NearMiss};
use crate::graph::{Graph, NodeId, ValueId};

/// An activation that several nodes compute.
#[derive(Debug, Clone)]
pub struct Match {
    /// The last of them.
    pub node: NodeId,
    pub activation: Activation,
    /// The pre-activation.
    pub input: Option<ValueId>,
    /// All of them, in file order.
    pub members: Vec<NodeId>,
    /// α of an ELU, and how exactly it is known.
    pub alpha: Option<(f64, f64)>,
}

/// The rank that a model declares for a value, if it does.
pub type DeclaredRank<'a> = &'a dyn Fn(&str) -> Option<usize>;

/// A graph as the patterns see it.
pub struct View<'a, 'm> {
    graph: &'a Graph<'m>,
    ops: Vec<Op>,
    matches: Vec<Match>,
    /// For each node, 1 + the index of the match that ends there; 0 where none does.
    ends: Vec<u32>,
    /// For each arithmetic node, how far the nearest trigger behind it is.
    distance: Vec<u8>,
    near: RefCell<Vec<(NearMiss, Vec<NodeId>)>>,
    rank_of: DeclaredRank<'a>,
}

/// What a graph holds, its bodies and functions not counted.
#[derive(Debug, Default)]
pub struct Scan {
    pub found: Vec<Found>,
    pub near_misses: Vec<NearMiss>,
    /// Local functions that it calls and that are no activations, each with one caller.
    pub calls: Vec<(u32, NodeId)>,
}

/// Finds the activations of one graph.
pub fn scan(graph: &Graph<'_>, functions: &Functions<'_>, rank_of: DeclaredRank<'_>) -> Scan {
    let ops: Vec<Op> = graph.nodes.iter().map(|node| classify(node, functions)).collect();
    let (ends, distance) = (vec![0; ops.len()], vec![u8::MAX; ops.len()]);
    let mut view = View { graph, ops, matches: Vec::new(), ends, distance, near: RefCell::default(), rank_of };
    for node in graph.topological_order() {
        view.distance[node.index()] = view.distance_of(*node);
        if let Some(found) = view.attempt(*node) {
            view.matches.push(found);
            view.ends[node.index()] = u32::try_from(view.matches.len()).unwrap_or(0);
        }
    }
    view.finish(functions)
}

impl View<'_, '_> {
    /// The composite that ends at a node.
    fn attempt(&self, node: NodeId) -> Option<Match> {
        match self.ops[node.index()] {
            Op::Mul => self
                .behind(node, |triggers| self.gated(node, triggers))
                .or_else(|| self.scaled_elu(node))
                .or_else(|| self.lstm_cell(node)),
            Op::Div => self.quotient(node).or_else(|| self.behind(node, |triggers| self.gated(node, triggers))),
            Op::Add => self
                .behind(node, |triggers| self.sum(node, triggers))
                .or_else(|| self.stable_softplus(node))
                .or_else(|| self.gru_cell(node)),
            Op::Sub => self.behind(node, |triggers| self.sum(node, triggers)),
            Op::Log => self.softplus(node),
            Op::Reciprocal => self.reciprocal(node),
            Op::Where => self.piecewise(node),
            Op::Max => self.maximum(node),
            Op::Min => self.minimum(node),
            Op::Clip => self.clip(node),
            _ => None,
        }
    }

    fn sum(&self, node: NodeId, triggers: &Triggers) -> Option<Match> {
        self.gated(node, triggers).or_else(|| self.elu_as_sum(node, triggers))
    }

    fn behind(&self, node: NodeId, pattern: impl FnOnce(&Triggers) -> Option<Match>) -> Option<Match> {
        let triggers = self.triggers(node);
        if triggers.is_empty() { None } else { pattern(&triggers) }
    }

    /// The activations that are no part of another, in topological order.
    fn finish(self, functions: &Functions<'_>) -> Scan {
        let mut is_part = vec![false; self.ops.len()];
        for found in &self.matches {
            found.members.iter().filter(|m| **m != found.node).for_each(|m| is_part[m.index()] = true);
        }
        let mut scan = Scan::default();
        let mut called = vec![false; functions.count()];
        for node in self.graph.topological_order().iter().copied() {
            if let Op::Call(function) = self.ops[node.index()]
                && !std::mem::replace(&mut called[function as usize], true)
            {
                scan.calls.push((function, node));
            }
            if is_part[node.index()] {
                continue;
            }
            if let Some(found) = self.match_at(node) {
                if let Some(value) = self.graph.output(node, 0) {
                    let Match { activation, input, members, .. } = found.clone();
                    scan.found.push(Found { node, value, input, activation, members });
                }
            } else if let Op::Activation(activation) = self.ops[node.index()]
                && let Some(value) = self.tapped_output(node, activation)
            {
                let input = self.graph.input(node, 0).filter(|_| !activation.is_recurrent());
                scan.found.push(Found { node, value, input, activation, members: vec![node] });
            }
        }
        let near = self.near.take();
        let within = near.iter().flat_map(|(miss, members)| members.iter().filter(|m| **m != miss.node));
        within.for_each(|m| is_part[m.index()] = true);
        let is_whole = |miss: &NearMiss| !is_part[miss.node.index()] && self.ends[miss.node.index()] == 0;
        scan.near_misses = near.into_iter().map(|(miss, _)| miss).filter(is_whole).collect();
        scan
    }

    /// Output 0; of a recurrent operator Y, or Y_h where only that is used.
    fn tapped_output(&self, node: NodeId, activation: Activation) -> Option<ValueId> {
        let first = self.graph.output(node, 0);
        if !activation.is_recurrent() {
            return first;
        }
        let used = |v: &ValueId| !self.graph.uses(*v).is_empty() || self.graph.is_output(*v);
        let last = self.graph.output(node, 1);
        first.filter(used).or(last.filter(used)).or(first).or(last)
    }

    fn near_miss(&self, node: NodeId, activation: Activation, members: Vec<NodeId>, reason: String) {
        self.near.borrow_mut().push((NearMiss { node, activation, reason }, members));
    }

    /// The node that makes a value as its first output, with its code.
    fn maker(&self, value: ValueId) -> Option<(NodeId, Op)> {
        self.graph.made_by(value).map(|node| (node, self.ops[node.index()]))
    }

    /// The two inputs of a node that has two.
    fn pair(&self, node: NodeId) -> Option<[ValueId; 2]> {
        match self.graph.inputs_of(node) {
            [Some(a), Some(b)] => Some([*a, *b]),
            _ => None,
        }
    }

    /// The two inputs of a node in both orders.
    fn both_orders(&self, node: NodeId) -> impl Iterator<Item = [ValueId; 2]> + use<> {
        self.pair(node).into_iter().flat_map(|[a, b]| [[a, b], [b, a]])
    }

    fn match_at(&self, node: NodeId) -> Option<&Match> {
        let at = self.ends[node.index()].checked_sub(1)?;
        self.matches.get(at as usize)
    }

    fn is_found(&self, node: NodeId) -> bool {
        self.ends[node.index()] != 0
    }

    /// The activation that a node ends, as an operator or as a composite, with its input.
    fn activation_at(&self, node: NodeId) -> Option<(Activation, ValueId)> {
        if let Some(found) = self.match_at(node) {
            return Some((found.activation, found.input?));
        }
        match self.ops[node.index()] {
            Op::Activation(activation) => Some((activation, self.graph.input(node, 0)?)),
            _ => None,
        }
    }

    /// The node whose first output a value is, when it is this activation, with its input.
    fn made_by_activation(&self, value: ValueId, wanted: Activation) -> Option<(NodeId, ValueId)> {
        let (node, _) = self.maker(value)?;
        let (activation, input) = self.activation_at(node)?;
        (activation == wanted).then_some((node, input))
    }

    /// The nodes of the activation that ends at `node`.
    fn members_at(&self, node: NodeId) -> &[NodeId] {
        self.match_at(node).map_or(&[], |m| &m.members)
    }

    fn declared_rank(&self, value: ValueId) -> Option<usize> {
        (self.rank_of)(self.graph.name(value))
    }
}
