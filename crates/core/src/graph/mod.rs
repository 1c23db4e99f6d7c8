//! A view of a graph: values, who makes them, who reads them, and in which order.
//!
//! Built in one pass over the nodes, linear in the size of the graph. Nothing here changes a graph.

pub mod backward;
pub mod body;
mod build;
mod constant;
mod error;
pub mod infer;
mod inner;
pub mod kind;
pub mod lists;
pub mod reach;
pub mod role;
mod scope;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod types;
pub mod warn;
pub mod work;

use std::collections::HashMap;
use std::sync::OnceLock;

use petgraph::graph::{DiGraph, NodeIndex};

pub use constant::{Attributes, tensor_elements};
pub use error::{GraphError, describe_node};
pub use inner::{Inner, body_at, inner_initializers};
use lists::Lists;
pub use scope::{bodies, bodies_mut, captures_of, rename_reads};

use crate::onnx::NodeProto;
use crate::patch::Place;
use crate::wire::Initializer;
use crate::wire::fields::{graph as graph_field, node as node_field};

/// Position of a node in its graph's node list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A value (tensor, or sequence, map, optional) of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl NodeId {
    /// As an index into the graph's nodes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ValueId {
    /// As an index into lists by value.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One place where a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The node of the graph that reads it, itself or in one of its bodies.
    pub node: NodeId,
    /// How.
    pub slot: Slot,
}

/// How a node reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// As its input at this position.
    Input(u32),
    /// Inside the body of an If, Loop or Scan; the number is for [`Graph::reader_of_capture`].
    Captured(u32),
}

/// A name inside a body that refers to a value outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The node of the graph whose body it is (or whose body's body …).
    pub node: NodeId,
    /// The value.
    pub value: ValueId,
    /// Where the name stands.
    pub place: Place,
}

/// A graph, or the body of a local function, as nodes and values.
pub struct Graph<'m> {
    /// The nodes, in file order.
    pub nodes: &'m [NodeProto],
    /// Initializers, in file order; empty for functions.
    pub initializers: &'m [Initializer],
    /// The initializers' values, in the same order.
    pub initializer_values: Vec<ValueId>,
    /// The bytes that the initializers' payload ranges refer to.
    bytes: &'m [u8],
    /// Graph inputs, in file order.
    pub inputs: Vec<ValueId>,
    /// Graph outputs, in file order.
    pub outputs: Vec<ValueId>,
    captures: Lists<Capture>,
    names: Vec<&'m str>,
    index: HashMap<&'m str, ValueId, foldhash::fast::RandomState>,
    producers: Vec<Option<(NodeId, u32)>>,
    initializer_of: Vec<Option<u32>>,
    /// Whether a value is a graph input.
    input_flags: Vec<bool>,
    output_flags: Vec<bool>,
    node_inputs: Lists<Option<ValueId>>,
    node_outputs: Lists<Option<ValueId>>,
    uses: Lists<Use>,
    flow: OnceLock<DiGraph<(), ()>>,
    order: Vec<NodeId>,
    overridable: bool,
}

impl<'m> Graph<'m> {
    /// The value of this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.index.get(name).copied()
    }

    /// A value's name.
    pub fn name(&self, value: ValueId) -> &'m str {
        self.names[value.index()]
    }

    /// Number of values.
    pub fn value_count(&self) -> usize {
        self.names.len()
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.names.len() as u32).map(ValueId)
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> &'m NodeProto {
        &self.nodes[node.index()]
    }

    /// The node that makes a value, and as which of its outputs; `None` for inputs and initializers.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, u32)> {
        self.producers[value.index()]
    }

    /// The node that makes a value as its first output.
    pub fn made_by(&self, value: ValueId) -> Option<NodeId> {
        self.producer(value).filter(|(_, slot)| *slot == 0).map(|(node, _)| node)
    }

    /// Inputs of a node; `None` where an optional input is left out.
    pub fn inputs_of(&self, node: NodeId) -> &[Option<ValueId>] {
        self.node_inputs.get(node.index())
    }

    /// The input of a node at a position; `None` when it is left out.
    pub fn input(&self, node: NodeId, slot: usize) -> Option<ValueId> {
        self.inputs_of(node).get(slot).copied().flatten()
    }

    /// Outputs of a node; `None` where an optional output is left out.
    pub fn outputs_of(&self, node: NodeId) -> &[Option<ValueId>] {
        self.node_outputs.get(node.index())
    }

    /// The output of a node at a position; `None` when it is left out.
    pub fn output(&self, node: NodeId, slot: usize) -> Option<ValueId> {
        self.outputs_of(node).get(slot).copied().flatten()
    }

    /// Every place that reads a value. Graph outputs do not count.
    pub fn uses(&self, value: ValueId) -> &[Use] {
        self.uses.get(value.index())
    }

    /// References from the bodies of a node to values of this graph.
    pub fn captures_of(&self, node: NodeId) -> &[Capture] {
        self.captures.get(node.index())
    }

    /// The initializer behind a value.
    pub fn initializer(&self, value: ValueId) -> Option<&'m Initializer> {
        self.initializer_of[value.index()].map(|i| &self.initializers[i as usize])
    }

    /// Whether a value is a graph input.
    pub fn is_input(&self, value: ValueId) -> bool {
        self.input_flags[value.index()]
    }

    /// Whether a value is a graph output.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.output_flags[value.index()]
    }

    /// By node: whether it reads a value, itself or through others.
    pub fn reached_from(&self, value: ValueId) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        self.uses(value).iter().for_each(|u| reached[u.node.index()] = true);
        for node in &self.order {
            if reached[node.index()] {
                let next = self.flow().neighbors(NodeIndex::new(node.index()));
                next.for_each(|n| reached[n.index()] = true);
            }
        }
        reached
    }

    /// Nodes such that producers come before consumers; file order where that is one.
    pub fn topological_order(&self) -> &[NodeId] {
        &self.order
    }

    /// Where the name of a use stands in the file.
    pub fn place_of_use(&self, used: Use) -> Place {
        match used.slot {
            Slot::Input(slot) => {
                vec![(graph_field::NODE, used.node.index()), (node_field::INPUT, slot as usize)]
            }
            Slot::Captured(i) => self.captures.items[i as usize].place.clone(),
        }
    }

    /// The node inside a body that reads a captured value, and at which input; `None` where the body's output is that value.
    pub fn reader_of_capture(&self, capture: u32) -> Option<(&'m NodeProto, u32)> {
        scope::node_at(self.nodes, &self.captures.items.get(capture as usize)?.place)
    }

    /// How messages name a node: `"conv1" (Conv)`, or `node 12 (Conv)` when it has no name.
    pub fn describe(&self, node: NodeId) -> String {
        describe_node(self.nodes, node)
    }
}
