//! What lies close behind a node, seen through arithmetic.

use super::View;
use super::algebra::is_arithmetic;
use super::op::Op;
use crate::graph::{NodeId, ValueId};

/// How many arithmetic nodes may stand between a trigger and the last node of a composite; the longest known has four.
const FARTHEST: u8 = 6;

impl View<'_, '_> {
    /// How many arithmetic nodes a node is from the nearest trigger behind it; the nodes before it are known.
    pub fn distance_of(&self, node: NodeId) -> u8 {
        if !is_arithmetic(self.ops[node.index()]) {
            return u8::MAX;
        }
        let behind = |input: &ValueId| match self.maker(*input) {
            Some((maker, op)) if self.is_trigger(maker, op) => 1,
            Some((maker, _)) => self.distance[maker.index()].saturating_add(1),
            None => u8::MAX,
        };
        self.graph.inputs_of(node).iter().flatten().map(behind).min().unwrap_or(u8::MAX)
    }

    fn is_trigger(&self, node: NodeId, op: Op) -> bool {
        self.is_found(node) || matches!(op, Op::Erf | Op::Exp | Op::Min | Op::Activation(_))
    }

    /// Values that arithmetic nodes close behind `value` read, nearest first, itself among them; constants left out.
    pub fn ingredients(&self, value: ValueId) -> Vec<ValueId> {
        let mut found = vec![value];
        let mut next = 0;
        while next < found.len() && found.len() < 12 {
            if let Some((node, _)) = self.maker(found[next]).filter(|(n, op)| is_arithmetic(*op) && !self.is_found(*n))
            {
                for input in self.graph.inputs_of(node).iter().flatten() {
                    if !found.contains(input) && self.number(*input).is_none() {
                        found.push(*input);
                    }
                }
            }
            next += 1;
        }
        found
    }

    /// Nodes close behind the inputs of `node`, seen through arithmetic, that are none of it: erf, exp, activations …
    pub fn triggers(&self, node: NodeId) -> Triggers {
        let mut triggers = Triggers { nodes: [NodeId(0); 4], count: 0 };
        if self.distance[node.index()] > FARTHEST {
            return triggers;
        }
        let mut seen = [node; 12];
        let (mut next, mut end) = (0, 1);
        while next < end {
            for input in self.graph.inputs_of(seen[next]).iter().flatten() {
                let Some((maker, op)) = self.maker(*input) else { continue };
                if is_arithmetic(op) && !self.is_found(maker) {
                    if end < seen.len() && !seen[..end].contains(&maker) {
                        seen[end] = maker;
                        end += 1;
                    }
                } else if self.is_trigger(maker, op) {
                    triggers.push(maker);
                }
            }
            next += 1;
        }
        triggers
    }
}

/// Up to four nodes.
pub struct Triggers {
    nodes: [NodeId; 4],
    count: usize,
}

impl Triggers {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, node: NodeId) {
        if self.count < self.nodes.len() && !self.nodes[..self.count].contains(&node) {
            self.nodes[self.count] = node;
            self.count += 1;
        }
    }

    /// Them, nearest first.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes[..self.count].iter().copied()
    }
}
