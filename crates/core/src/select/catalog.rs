//! Every activation of a model.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::activation::Activation;
use super::hidden::hidden_activations;
use super::pattern::function::Functions;
use super::pattern::scan;
use crate::graph::types::TensorType;
use crate::graph::{Graph, NodeId, ValueId};
use crate::wire::Model;

/// An activation that can be tapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The node that makes the tap: the operator, or the last node of a composite.
    pub node: NodeId,
    /// The post-activation h: the node's output 0, or Y_h of a recurrent operator where only that is used.
    pub value: ValueId,
    /// The pre-activation; `None` for recurrent layers, where it is no tensor of the graph.
    pub input: Option<ValueId>,
    /// Which activation it is.
    pub activation: Activation,
    /// The nodes that compute it, `node` among them, in file order.
    pub members: Vec<NodeId>,
}

/// An activation that is there but cannot be tapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its last node, as messages name nodes.
    pub description: String,
    /// Which activation it is.
    pub activation: Activation,
    /// Where it is and why that is out of reach, as a clause.
    pub reason: String,
}

/// Nodes that come close to an activation and are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// The last of the nodes.
    pub node: NodeId,
    /// What they come close to.
    pub activation: Activation,
    /// What differs, as a clause.
    pub reason: String,
}

/// The activations of a model.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Those that can be tapped, in topological order.
    pub found: Vec<Found>,
    /// Those inside the bodies of If, Loop and Scan and inside local functions.
    pub hidden: Vec<Hidden>,
    /// Nodes that come close, for `inspect`.
    pub near_misses: Vec<NearMiss>,
    /// For each value, 1 + the index into `found`; 0 for the others.
    by_value: Vec<u32>,
}

impl Catalog {
    /// Finds them; linear in the size of the model. `graph` is the view of `model`'s main graph.
    pub fn of(graph: &Graph<'_>, model: &Model) -> Self {
        let functions = Functions::of(&model.functions);
        let ranks = OnceCell::new();
        let rank_of = |name: &str| ranks.get_or_init(|| declared_ranks(model)).get(name).copied();
        let scan = scan(graph, &functions, &rank_of);
        let hidden = hidden_activations(graph, &functions, &scan.calls);
        let by_value = index(graph, &scan.found);
        Catalog { found: scan.found, hidden, near_misses: scan.near_misses, by_value }
    }

    /// Leaves out the activations, and what comes close to one, that these nodes compute.
    pub fn leave_out(&mut self, graph: &Graph<'_>, nodes: impl Fn(NodeId) -> bool) {
        self.found.retain(|f| !nodes(f.node));
        self.near_misses.retain(|m| !nodes(m.node));
        self.by_value = index(graph, &self.found);
    }

    /// Adds activations that are known by other ways than their nodes, and leaves out what `parts` make.
    pub fn put_back(&mut self, graph: &Graph<'_>, known: Vec<Found>, parts: &HashSet<ValueId>) {
        let values: HashSet<ValueId> = known.iter().map(|f| f.value).collect();
        self.found.retain(|f| !values.contains(&f.value) && !parts.contains(&f.value));
        self.found.extend(known);
        let mut position = vec![0; graph.nodes.len()];
        (0..).zip(graph.topological_order()).for_each(|(at, node)| position[node.index()] = at);
        self.found.sort_by_key(|f| position[f.node.index()]);
        self.by_value = index(graph, &self.found);
    }

    /// The activation whose output a value is.
    pub fn at(&self, value: ValueId) -> Option<&Found> {
        let position = self.by_value.get(value.index())?.checked_sub(1)?;
        self.found.get(position as usize)
    }

    /// How many there are of each activation, most frequent first.
    pub fn counts(&self) -> Vec<(Activation, usize)> {
        let mut counts = BTreeMap::new();
        self.found.iter().for_each(|f| *counts.entry(f.activation).or_insert(0) += 1);
        let mut counts: Vec<(Activation, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        counts
    }
}

fn index(graph: &Graph<'_>, found: &[Found]) -> Vec<u32> {
    let mut by_value = vec![0; graph.value_count()];
    for (i, found) in (1u32..).zip(found) {
        by_value[found.value.index()] = i;
    }
    by_value
}

fn declared_ranks(model: &Model) -> HashMap<&str, usize> {
    let graph = &model.graph;
    let declared = graph.value_info.iter().chain(&graph.inputs).chain(&graph.outputs);
    declared.filter_map(|v| Some((v.name(), TensorType::of_value(v)?.rank()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::open_model;

    fn counts_of(file: &str) -> Vec<(Activation, usize)> {
        let model = open_model(file);
        let graph = Graph::of(&model).unwrap();
        Catalog::of(&graph, &model).counts()
    }

    #[test]
    fn the_reference_models_hold_what_their_exporters_wrote() {
        use Activation::*;
        for (file, expected) in [
            ("bn_resnet8.ts17", vec![(Relu, 7)]),
            ("cnn11_elu.dyn", vec![(Elu, 10)]),
            ("cnn11_elu.ts17", vec![(Elu, 10)]),
            ("fixup_resnet20.dyn", vec![(Relu, 19)]),
            ("fixup_resnet20.ts17", vec![(Relu, 19)]),
            ("gpt_gelu.dyn", vec![(Gelu, 2)]),
            ("gpt_gelu.ts17", vec![(Gelu, 2)]),
            ("mlp_relu.dyn", vec![(Relu, 2)]),
            ("mlp_relu.ts13", vec![(Relu, 2)]),
            ("mlp_relu.ts17", vec![(Relu, 2)]),
            ("seq_lstm_lm.dyn", vec![(Lstm, 2)]),
            ("seq_lstm_lm.ts17", vec![(Lstm, 2)]),
        ] {
            assert_eq!(counts_of(file), expected, "{file}");
        }
    }
}
