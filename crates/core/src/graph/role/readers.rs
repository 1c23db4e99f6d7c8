//! Who reads an initializer, through operators that only rearrange it, and what it is there.

use super::subject::{Reading, Subject};
use super::table::{Entry, entry};
use super::{Consumer, MAX_CONSUMERS};
use crate::graph::infer::Types;
use crate::graph::{Graph, Slot, Use, ValueId};
use crate::onnx::NodeProto;

/// How many readers behind one rearranging operator are followed: bounds the work on graphs made to defeat it.
const BEHIND: usize = 16;

/// The readers of everything that is made of initializers alone.
pub(super) struct Readings<'g> {
    graph: &'g Graph<'g>,
    types: &'g Types,
    /// By value: whether it is made of initializers by rearranging alone.
    made: Vec<bool>,
    /// By value that a rearranging operator makes: the first readers behind it.
    behind: Vec<Vec<Use>>,
}

impl<'g> Readings<'g> {
    /// Two passes over the graph: forwards for what is made of initializers, backwards for who reads it.
    pub fn of(graph: &'g Graph<'g>, types: &'g Types) -> Self {
        let mut made: Vec<bool> = graph.values().map(|v| graph.initializer(v).is_some()).collect();
        for node in graph.topological_order() {
            let rearranges = match entry_of(graph.node(*node), 0) {
                Entry::Through => graph.input(*node, 0).is_some_and(|v| made[v.index()]),
                Entry::Joined => graph.inputs_of(*node).iter().flatten().all(|v| made[v.index()]),
                _ => graph.node(*node).op_type() == "Constant",
            };
            if rearranges {
                graph.outputs_of(*node).iter().flatten().for_each(|v| made[v.index()] = true);
            }
        }
        let mut readings = Readings { graph, types, made, behind: vec![Vec::new(); graph.value_count()] };
        for node in graph.topological_order().iter().rev() {
            for value in graph.outputs_of(*node).iter().flatten().filter(|v| readings.made[v.index()]) {
                let mut found = Vec::new();
                for used in graph.uses(*value) {
                    readings.expand(*used, &mut found, BEHIND);
                }
                readings.behind[value.index()] = found;
            }
        }
        readings
    }

    /// Adds a use, or the readers behind it where the node only rearranges.
    fn expand(&self, used: Use, found: &mut Vec<Use>, limit: usize) {
        let mut push = |used: Use| {
            if found.len() < limit && !found.contains(&used) {
                found.push(used);
            }
        };
        if !self.rearranges(used) {
            return push(used);
        }
        for value in self.graph.outputs_of(used.node).iter().flatten() {
            self.behind[value.index()].iter().for_each(|u| push(*u));
        }
    }

    fn rearranges(&self, used: Use) -> bool {
        let Slot::Input(slot) = used.slot else { return false };
        match entry_of(self.graph.node(used.node), slot) {
            Entry::Through => true,
            Entry::Joined => self.graph.outputs_of(used.node).iter().flatten().any(|v| self.made[v.index()]),
            _ => false,
        }
    }

    /// The reading that gives an initializer its role.
    pub fn decisive(&self, value: ValueId) -> Option<Reading> {
        let subject = Subject::of(self.graph, self.types, value)?;
        let mut first = None;
        let mut found = Vec::new();
        for used in self.graph.uses(value) {
            found.clear();
            self.expand(*used, &mut found, BEHIND);
            for used in &found {
                let reading = subject.read(*used);
                if reading.role.is_trainable() {
                    return Some(reading);
                }
                first.get_or_insert(reading);
            }
        }
        first
    }

    /// The first consumers of an initializer.
    pub fn consumers(&self, value: ValueId) -> Vec<Consumer> {
        let Some(subject) = Subject::of(self.graph, self.types, value) else { return Vec::new() };
        let mut found = Vec::new();
        for used in self.graph.uses(value).iter().take(MAX_CONSUMERS) {
            self.expand(*used, &mut found, MAX_CONSUMERS);
        }
        found.into_iter().map(|u| Consumer { node: u.node, slot: u.slot, role: subject.read(u).role }).collect()
    }
}

fn entry_of(node: &NodeProto, slot: u32) -> Entry {
    entry(node.domain(), node.op_type(), slot)
}
