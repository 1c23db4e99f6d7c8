//! A view of a graph: values, who makes them, who reads them, and in which order.
//!
//! Built in one pass over the nodes, linear in the size of the graph. Nothing here changes a graph.

pub mod backward;
mod constant;
mod error;
pub mod infer;
pub mod kind;
pub mod reach;
pub mod role;
mod scope;
#[cfg(test)]
mod testing;
pub mod types;
pub mod warn;
pub mod work;

use std::collections::HashMap;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Topo;

pub use constant::{Attributes, tensor_elements};
pub use error::{GraphError, describe_node};
use scope::captures_of;
pub use scope::{bodies, bodies_mut};

use crate::onnx::{FunctionProto, NodeProto};
use crate::patch::Place;
use crate::wire::fields::{graph as graph_field, node as node_field};
use crate::wire::{Initializer, Model};

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
    /// Inside the body of an If, Loop or Scan; the number indexes [`Graph::captures`].
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
    /// The bytes that the initializers' payload ranges refer to.
    bytes: &'m [u8],
    /// Graph inputs, in file order.
    pub inputs: Vec<ValueId>,
    /// Graph outputs, in file order.
    pub outputs: Vec<ValueId>,
    /// References from bodies to values of this graph.
    pub captures: Vec<Capture>,
    names: Vec<&'m str>,
    index: HashMap<&'m str, ValueId, foldhash::fast::RandomState>,
    producers: Vec<Option<(NodeId, u32)>>,
    initializer_of: Vec<Option<u32>>,
    /// Whether a value is a graph input.
    input_flags: Vec<bool>,
    node_inputs: Lists<Option<ValueId>>,
    node_outputs: Lists<Option<ValueId>>,
    uses: Lists<Use>,
    /// Data flow between nodes: an edge for every input and capture that another node makes.
    pub flow: DiGraph<(), ()>,
    order: Vec<NodeId>,
    overridable: bool,
}

/// Many short lists in one allocation.
struct Lists<T> {
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T> Lists<T> {
    fn with_capacity(lists: usize) -> Self {
        let mut starts = Vec::with_capacity(lists + 1);
        starts.push(0);
        Lists { starts, items: Vec::with_capacity(2 * lists) }
    }

    fn push(&mut self, list: impl Iterator<Item = T>) {
        self.items.extend(list);
        self.starts.push(self.items.len() as u32);
    }

    fn get(&self, i: usize) -> &[T] {
        &self.items[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
}

impl<'m> Graph<'m> {
    /// The main graph of a model. Refuses duplicate tensor names, names that nothing defines, and cycles.
    pub fn of(model: &'m Model) -> Result<Self, GraphError> {
        let graph = &model.graph;
        let inputs = graph.inputs.iter().map(|v| v.name());
        let outputs: Vec<&str> = graph.outputs.iter().map(|v| v.name()).collect();
        let sparse = graph.sparse_initializers.iter().map(String::as_str);
        let mut built = Self::build(&graph.nodes, &graph.initializers, sparse, inputs, &outputs, &model.file.bytes)?;
        // Before IR version 4 every initializer had to be an input too; since then that makes it a default that may be overridden.
        built.overridable = model.ir_version >= 4;
        Ok(built)
    }

    /// The body of a local function; its attributes stay symbolic.
    pub fn of_function(function: &'m FunctionProto) -> Result<Self, GraphError> {
        let outputs: Vec<&str> = function.output.iter().map(String::as_str).collect();
        let inputs = function.input.iter().map(String::as_str);
        Self::build(&function.node, &[], std::iter::empty(), inputs, &outputs, &[])
    }

    fn build(
        nodes: &'m [NodeProto],
        initializers: &'m [Initializer],
        sparse: impl Iterator<Item = &'m str>,
        inputs: impl Iterator<Item = &'m str>,
        outputs: &[&'m str],
        bytes: &'m [u8],
    ) -> Result<Self, GraphError> {
        let mut graph = Graph {
            nodes,
            initializers,
            bytes,
            inputs: Vec::new(),
            outputs: Vec::new(),
            captures: Vec::new(),
            names: Vec::with_capacity(2 * nodes.len()),
            index: HashMap::with_capacity_and_hasher(2 * nodes.len(), foldhash::fast::RandomState::default()),
            producers: Vec::with_capacity(2 * nodes.len()),
            initializer_of: Vec::with_capacity(2 * nodes.len()),
            input_flags: Vec::with_capacity(2 * nodes.len()),
            node_inputs: Lists::with_capacity(nodes.len()),
            node_outputs: Lists::with_capacity(nodes.len()),
            uses: Lists::with_capacity(2 * nodes.len()),
            flow: DiGraph::with_capacity(nodes.len(), 2 * nodes.len()),
            order: Vec::new(),
            overridable: false,
        };
        for name in inputs {
            let value = graph.value_named(name);
            if std::mem::replace(&mut graph.input_flags[value.index()], true) {
                return Err(GraphError::Duplicate {
                    tensor: name.into(),
                    first: "a graph input".into(),
                    second: "another graph input".into(),
                });
            }
            graph.inputs.push(value);
        }
        for (i, initializer) in initializers.iter().enumerate() {
            let value = graph.value_named(&initializer.name);
            if graph.initializer_of[value.index()].replace(i as u32).is_some() {
                return Err(GraphError::Duplicate {
                    tensor: initializer.name.clone(),
                    first: "an initializer".into(),
                    second: "another initializer".into(),
                });
            }
        }
        let mut defined_elsewhere: Vec<ValueId> = sparse.map(|name| graph.value_named(name)).collect();
        defined_elsewhere.sort_unstable();
        graph.define_outputs()?;
        graph.resolve_inputs(&defined_elsewhere)?;
        for name in outputs {
            let value = graph.find(name).ok_or_else(|| GraphError::UndefinedOutput { tensor: (*name).into() })?;
            graph.outputs.push(value);
        }
        graph.connect();
        graph.sort()?;
        Ok(graph)
    }

    fn value_named(&mut self, name: &'m str) -> ValueId {
        let next = ValueId(self.names.len() as u32);
        let value = *self.index.entry(name).or_insert(next);
        if value == next {
            self.names.push(name);
            self.producers.push(None);
            self.initializer_of.push(None);
            self.input_flags.push(false);
        }
        value
    }

    fn define_outputs(&mut self) -> Result<(), GraphError> {
        let mut outputs = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let id = NodeId(i as u32);
            for (slot, name) in node.output.iter().enumerate() {
                if name.is_empty() {
                    outputs.push(None);
                    continue;
                }
                let value = self.value_named(name);
                let taken = if let Some((other, _)) = self.producers[value.index()] {
                    Some(format!("the output of {}", describe_node(self.nodes, other)))
                } else if self.input_flags[value.index()] {
                    Some("a graph input".into())
                } else {
                    self.initializer_of[value.index()].map(|_| "an initializer".into())
                };
                if let Some(first) = taken {
                    let second = format!("the output of {}", describe_node(self.nodes, id));
                    return Err(GraphError::Duplicate { tensor: name.clone(), first, second });
                }
                self.producers[value.index()] = Some((id, slot as u32));
                outputs.push(Some(value));
            }
            self.node_outputs.push(outputs.drain(..));
        }
        Ok(())
    }

    fn resolve_inputs(&mut self, defined_elsewhere: &[ValueId]) -> Result<(), GraphError> {
        let defined = |graph: &Self, name: &str| {
            let value = graph.find(name)?;
            let known = graph.producers[value.index()].is_some()
                || graph.input_flags[value.index()]
                || graph.initializer_of[value.index()].is_some()
                || defined_elsewhere.binary_search(&value).is_ok();
            known.then_some(value)
        };
        let mut inputs = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let id = NodeId(i as u32);
            for (slot, name) in node.input.iter().enumerate() {
                inputs.push(match name.as_str() {
                    "" => None,
                    name => Some(defined(self, name).ok_or_else(|| GraphError::Undefined {
                        tensor: name.into(),
                        node: describe_node(self.nodes, id),
                        slot,
                    })?),
                });
            }
            self.node_inputs.push(inputs.drain(..));
            for (name, place) in captures_of(node, i) {
                let value = defined(self, name).ok_or_else(|| GraphError::UndefinedInBody {
                    tensor: name.into(),
                    node: describe_node(self.nodes, id),
                })?;
                self.captures.push(Capture { node: id, value, place });
            }
        }
        Ok(())
    }

    /// Uses of every value, and the flow between nodes.
    fn connect(&mut self) {
        let mut counts = vec![0u32; self.names.len() + 1];
        for value in self.node_inputs.items.iter().flatten() {
            counts[value.index() + 1] += 1;
        }
        for capture in &self.captures {
            counts[capture.value.index() + 1] += 1;
        }
        for i in 1..counts.len() {
            counts[i] += counts[i - 1];
        }
        let total = counts[counts.len() - 1] as usize;
        let mut items = vec![Use { node: NodeId(0), slot: Slot::Input(0) }; total];
        let mut next = counts.clone();
        let mut put = |value: ValueId, used: Use| {
            items[next[value.index()] as usize] = used;
            next[value.index()] += 1;
        };
        for _ in self.nodes {
            self.flow.add_node(());
        }
        for i in 0..self.nodes.len() {
            let id = NodeId(i as u32);
            for (slot, value) in self.node_inputs.get(i).iter().enumerate() {
                if let Some(value) = value {
                    put(*value, Use { node: id, slot: Slot::Input(slot as u32) });
                    if let Some((producer, _)) = self.producers[value.index()] {
                        self.flow.add_edge(NodeIndex::new(producer.index()), NodeIndex::new(i), ());
                    }
                }
            }
        }
        for (i, capture) in self.captures.iter().enumerate() {
            put(capture.value, Use { node: capture.node, slot: Slot::Captured(i as u32) });
            if let Some((producer, _)) = self.producers[capture.value.index()] {
                self.flow.add_edge(NodeIndex::new(producer.index()), NodeIndex::new(capture.node.index()), ());
            }
        }
        self.uses = Lists { starts: counts, items };
    }

    fn sort(&mut self) -> Result<(), GraphError> {
        let in_file_order = self.flow.raw_edges().iter().all(|e| e.source() < e.target());
        if in_file_order {
            self.order = (0..self.nodes.len() as u32).map(NodeId).collect();
            return Ok(());
        }
        let mut topo = Topo::new(&self.flow);
        self.order = std::iter::from_fn(|| topo.next(&self.flow)).map(|i| NodeId(i.index() as u32)).collect();
        if self.order.len() == self.nodes.len() {
            return Ok(());
        }
        let cycle = self.some_cycle();
        let nodes = cycle.iter().take(5).map(|i| describe_node(self.nodes, *i)).collect();
        Err(GraphError::Cycle { nodes, length: cycle.len() })
    }

    /// A cycle among the nodes that have no place in the order, in the direction of flow. Without recursion, however long it is.
    fn some_cycle(&self) -> Vec<NodeId> {
        let mut waits = vec![true; self.nodes.len()];
        self.order.iter().for_each(|n| waits[n.index()] = false);
        let mut path: Vec<NodeIndex> = Vec::new();
        let mut step_of = vec![usize::MAX; self.nodes.len()];
        // Each of them waits for another one: going back from any of them comes round in the end.
        let mut next = waits.iter().position(|w| *w).map(NodeIndex::new);
        while let Some(node) = next {
            if let Some(cycle) = path.get(step_of[node.index()]..) {
                return cycle.iter().rev().map(|i| NodeId(i.index() as u32)).collect();
            }
            step_of[node.index()] = path.len();
            path.push(node);
            next = self.flow.neighbors_directed(node, Direction::Incoming).find(|n| waits[n.index()]);
        }
        Vec::new()
    }

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
        self.outputs.contains(&value)
    }

    /// By node: whether it reads a value, itself or through others.
    pub fn reached_from(&self, value: ValueId) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        self.uses(value).iter().for_each(|u| reached[u.node.index()] = true);
        for node in &self.order {
            if reached[node.index()] {
                let next = self.flow.neighbors(NodeIndex::new(node.index()));
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
            Slot::Captured(i) => self.captures[i as usize].place.clone(),
        }
    }

    /// The node inside a body that reads a captured value, and at which input; `None` where the body's output is that value.
    pub fn reader_of_capture(&self, capture: u32) -> Option<(&'m NodeProto, u32)> {
        scope::node_at(self.nodes, &self.captures.get(capture as usize)?.place)
    }

    /// How messages name a node: `"conv1" (Conv)`, or `node 12 (Conv)` when it has no name.
    pub fn describe(&self, node: NodeId) -> String {
        describe_node(self.nodes, node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{AttributeProto, GraphProto, ModelProto, ValueInfoProto};
    use prost::Message;

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        NodeProto { op_type: Some(op.into()), input: owned(inputs), output: owned(outputs), ..Default::default() }
    }

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.into()), ..Default::default() }
    }

    fn model(nodes: Vec<NodeProto>, outputs: &[&str]) -> Model {
        let graph = GraphProto {
            node: nodes,
            input: vec![value("x")],
            output: outputs.iter().map(|n| value(n)).collect(),
            ..Default::default()
        };
        let proto = ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() };
        Model::from_bytes(proto.encode_to_vec()).unwrap()
    }

    fn refusal(nodes: Vec<NodeProto>) -> String {
        Graph::of(&model(nodes, &[])).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_graph_is_named() {
        let twice = refusal(vec![node("Relu", &["x"], &["y"]), node("Neg", &["x"], &["y"])]);
        assert!(twice.contains("\"y\" is defined twice") && twice.contains("node 1 (Neg)"), "{twice}");
        let undefined = refusal(vec![node("Relu", &["nowhere"], &["y"])]);
        assert!(undefined.contains("node 0 (Relu) reads tensor \"nowhere\""), "{undefined}");
        let cycle = refusal(vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"])]);
        assert!(cycle.contains("a cycle of 2 node(s)"), "{cycle}");
        assert!(cycle.ends_with("none: node 1 (Relu) → node 0 (Add)"), "{cycle}");
    }

    #[test]
    fn nodes_out_of_order_are_sorted() {
        let model = model(vec![node("Relu", &["a"], &["b"]), node("Neg", &["x"], &["a"])], &["b"]);
        let graph = Graph::of(&model).unwrap();
        assert_eq!(graph.topological_order(), [NodeId(1), NodeId(0)]);
    }

    #[test]
    fn a_capture_in_a_nested_body_has_its_place_and_counts_as_a_use() {
        let inner = GraphProto {
            node: vec![node("Add", &["local", "h"], &["s"])],
            output: vec![value("s")],
            ..Default::default()
        };
        let attribute = |g| AttributeProto { name: Some("body".into()), g: Some(g), ..Default::default() };
        let mut inner_if = node("If", &["local"], &["t"]);
        inner_if.attribute.push(attribute(inner));
        let outer = GraphProto {
            node: vec![node("Neg", &["h"], &["local"]), inner_if],
            output: vec![value("t"), value("h")],
            ..Default::default()
        };
        let mut outer_if = node("If", &["x"], &["y"]);
        outer_if.attribute.push(attribute(outer));
        let model = model(vec![node("Relu", &["x"], &["h"]), outer_if], &["y"]);
        let graph = Graph::of(&model).unwrap();
        let h = graph.find("h").unwrap();
        let places: Vec<Place> = graph.uses(h).iter().map(|u| graph.place_of_use(*u)).collect();
        assert_eq!(
            places,
            [
                vec![(1, 1), (5, 0), (6, 0), (1, 0), (1, 0)],
                vec![(1, 1), (5, 0), (6, 0), (1, 1), (5, 0), (6, 0), (1, 0), (1, 1)],
                vec![(1, 1), (5, 0), (6, 0), (12, 1), (1, 0)],
            ]
        );
    }

    #[test]
    fn every_reference_model_has_a_graph() {
        for entry in std::fs::read_dir("models").unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "onnx") {
                let model = Model::open(&path).unwrap();
                assert!(Graph::of(&model).unwrap().value_count() > 10, "{}", path.display());
            }
        }
    }
}
