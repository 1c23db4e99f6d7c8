//! From a list of nodes to a [`Graph`]: names become values, inputs find their producers, nodes an order.

use std::collections::HashMap;
use std::sync::OnceLock;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Topo;
use rayon::prelude::*;

use super::error::{GraphError, describe_node};
use super::lists::Lists;
use super::scope::captures_of;
use super::{Capture, Graph, NodeId, Slot, Use, ValueId};
use crate::onnx::{FunctionProto, NodeProto};
use crate::patch::Place;
use crate::wire::{Initializer, Model};

/// Nodes that are resolved in one go.
const RUN: usize = 1024;

/// What a run of nodes reads.
struct Resolved {
    inputs: Lists<Option<ValueId>>,
    captures: Lists<Capture>,
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
            initializer_values: Vec::with_capacity(initializers.len()),
            bytes,
            inputs: Vec::new(),
            outputs: Vec::new(),
            captures: Lists::with_capacity(nodes.len()),
            names: Vec::with_capacity(2 * nodes.len()),
            index: HashMap::with_capacity_and_hasher(
                2 * nodes.len() + initializers.len(),
                foldhash::fast::RandomState::default(),
            ),
            producers: Vec::with_capacity(2 * nodes.len()),
            initializer_of: Vec::with_capacity(2 * nodes.len()),
            input_flags: Vec::with_capacity(2 * nodes.len()),
            output_flags: Vec::new(),
            node_inputs: Lists::with_capacity(nodes.len()),
            node_outputs: Lists::with_capacity(nodes.len()),
            uses: Lists::with_capacity(2 * nodes.len()),
            flow: OnceLock::new(),
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
            graph.initializer_values.push(value);
        }
        let mut defined_elsewhere: Vec<ValueId> = sparse.map(|name| graph.value_named(name)).collect();
        defined_elsewhere.sort_unstable();
        graph.define_outputs()?;
        graph.resolve_inputs(&defined_elsewhere)?;
        for name in outputs {
            let value = graph.find(name).ok_or_else(|| GraphError::UndefinedOutput { tensor: (*name).into() })?;
            graph.outputs.push(value);
        }
        graph.output_flags = vec![false; graph.names.len()];
        graph.outputs.iter().for_each(|v| graph.output_flags[v.index()] = true);
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
        // Looking names up is most of building a large graph, and every node's are independent of every other's.
        let runs: Vec<Result<Resolved, GraphError>> = (self.nodes.par_chunks(RUN).enumerate())
            .map(|(run, nodes)| self.resolve(run * RUN, nodes, defined_elsewhere))
            .collect();
        for run in runs {
            let Resolved { inputs, captures } = run?;
            self.node_inputs.append(inputs);
            self.captures.append(captures);
        }
        Ok(())
    }

    /// What some nodes read, of which the first stands at position `first`.
    fn resolve(
        &self,
        first: usize,
        nodes: &'m [NodeProto],
        defined_elsewhere: &[ValueId],
    ) -> Result<Resolved, GraphError> {
        let defined = |name: &str| {
            let value = self.find(name)?;
            let known = self.producers[value.index()].is_some()
                || self.input_flags[value.index()]
                || self.initializer_of[value.index()].is_some()
                || defined_elsewhere.binary_search(&value).is_ok();
            known.then_some(value)
        };
        let mut found =
            Resolved { inputs: Lists::with_capacity(nodes.len()), captures: Lists::with_capacity(nodes.len()) };
        for (i, node) in (first..).zip(nodes) {
            let id = NodeId(i as u32);
            let undefined = |slot: usize, name: &str| GraphError::Undefined {
                tensor: name.into(),
                node: describe_node(self.nodes, id),
                slot,
            };
            let resolve = |(slot, name): (usize, &String)| match name.as_str() {
                "" => Ok(None),
                name => defined(name).map(Some).ok_or_else(|| undefined(slot, name)),
            };
            found.inputs.try_push(node.input.iter().enumerate().map(resolve))?;
            let capture = |(name, place): (&str, Place)| match defined(name) {
                Some(value) => Ok(Capture { node: id, value, place }),
                None => Err(GraphError::UndefinedInBody { tensor: name.into(), node: describe_node(self.nodes, id) }),
            };
            found.captures.try_push(captures_of(node, i).into_iter().map(capture))?;
        }
        Ok(found)
    }

    /// Uses of every value.
    fn connect(&mut self) {
        let mut counts = vec![0u32; self.names.len() + 1];
        for value in self.node_inputs.items.iter().flatten() {
            counts[value.index() + 1] += 1;
        }
        for capture in &self.captures.items {
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
        for i in 0..self.nodes.len() {
            let id = NodeId(i as u32);
            for (slot, value) in self.node_inputs.get(i).iter().enumerate() {
                if let Some(value) = value {
                    put(*value, Use { node: id, slot: Slot::Input(slot as u32) });
                }
            }
        }
        for (i, capture) in self.captures.items.iter().enumerate() {
            put(capture.value, Use { node: capture.node, slot: Slot::Captured(i as u32) });
        }
        self.uses = Lists { starts: counts, items };
    }

    /// From which node to which data flows: for every input and capture that another node makes.
    fn edges(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        let from = |value: ValueId| self.producers[value.index()].map(|(producer, _)| producer);
        let inputs = (0..self.nodes.len() as u32).flat_map(move |i| {
            let values = self.node_inputs.get(i as usize).iter().flatten();
            values.filter_map(move |v| Some((from(*v)?, NodeId(i))))
        });
        inputs.chain(self.captures.items.iter().filter_map(move |c| Some((from(c.value)?, c.node))))
    }

    /// Data flow between nodes, made when it is first asked for: most files list their nodes in order, and few questions go along edges.
    pub fn flow(&self) -> &DiGraph<(), ()> {
        self.flow.get_or_init(|| {
            let mut flow = DiGraph::with_capacity(self.nodes.len(), self.node_inputs.items.len());
            self.nodes.iter().for_each(|_| _ = flow.add_node(()));
            let index = |node: NodeId| NodeIndex::new(node.index());
            self.edges().for_each(|(from, to)| _ = flow.add_edge(index(from), index(to), ()));
            flow
        })
    }

    fn sort(&mut self) -> Result<(), GraphError> {
        if self.edges().all(|(from, to)| from < to) {
            self.order = (0..self.nodes.len() as u32).map(NodeId).collect();
            return Ok(());
        }
        let flow = self.flow();
        let mut topo = Topo::new(flow);
        self.order = std::iter::from_fn(|| topo.next(flow)).map(|i| NodeId(i.index() as u32)).collect();
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
            next = self.flow().neighbors_directed(node, Direction::Incoming).find(|n| waits[n.index()]);
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{AttributeProto, GraphProto, ModelProto, ValueInfoProto};
    use crate::patch::Place;
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
        let attribute = |g| AttributeProto { name: Some("body".into()), g: Some(Box::new(g)), ..Default::default() };
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
    fn every_node_has_its_own_captures_and_all_nodes_together_have_each_once() {
        let body = |reads: &str| {
            let node = vec![node("Neg", &[reads], &["n"])];
            let g = Some(GraphProto { node, output: vec![value("n")], ..Default::default() });
            AttributeProto { name: Some("then_branch".into()), g: g.map(Box::new), ..Default::default() }
        };
        let count = 2_000;
        let mut nodes = vec![node("Relu", &["x"], &["y0"])];
        for i in 1..=count {
            let mut branch = node("If", &["x"], &[&format!("y{i}")]);
            branch.attribute.push(body(&format!("y{}", i - 1)));
            nodes.push(branch);
        }
        let model = model(nodes, &["y1"]);
        let graph = Graph::of(&model).unwrap();
        // What a pass over all nodes looks at: one capture a node, not all of them at each.
        let all: Vec<&Capture> = (0..=count).flat_map(|i| graph.captures_of(NodeId(i))).collect();
        assert_eq!(all.len(), count as usize);
        for (capture, i) in all.iter().zip(1..) {
            assert_eq!((capture.node, graph.name(capture.value)), (NodeId(i), format!("y{}", i - 1).as_str()));
        }
    }

    #[test]
    fn every_reference_model_has_a_graph() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "onnx") {
                let model = Model::open(&path).unwrap();
                assert!(Graph::of(&model).unwrap().value_count() > 10, "{}", path.display());
            }
        }
    }
}
