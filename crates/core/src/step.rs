//! A training step of `training_info`: the main graph and an algorithm graph as one graph.
//!
//! The specification has it so: the lists of both are joined, and nodes of the algorithm may read what nodes of the main graph make.
//! An algorithm may also repeat the main graph's nodes, or call it as a whole by a GraphCall node of an early draft of
//! `ai.onnx.preview.training`; a call is looked into.

use std::collections::{HashMap, HashSet};

use prost::Message;

use crate::graph::{Attributes, bodies_mut};
use crate::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::patch::{Anchor, Change, Part, Place, Rename, Root};
use crate::wire::fields::graph as graph_field;
use crate::wire::{Model, WireError, WireResult};

/// Elements of larger initializers are left out of the joined graph: only small ones say anything of its structure.
const SMALL: usize = 1 << 16;

/// Calls that are looked into: a forged file could hold as many as nodes.
const MOST_CALLS: usize = 64;

/// One training step as a graph of its own.
#[derive(Debug)]
pub struct Step {
    /// Which `training_info` it is.
    pub entry: usize,
    /// The joined graph, without the nodes of the main graph that the algorithm does not use. What stands in the algorithm comes
    /// first in all lists but that of nodes.
    pub model: Model,
    /// Where each node of it comes from.
    origins: Vec<Origin>,
    root: String,
    /// What values inside calls are called in an edit, and which of its nodes makes them.
    copies: HashMap<String, Copy>,
}

/// Where a node of the joined graph stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Main,
    Algorithm(usize),
    /// In the main graph, as a GraphCall of the algorithm runs it.
    Called,
}

/// A value that a call computes and keeps to itself.
#[derive(Debug, Clone)]
struct Copy {
    name: String,
    node: usize,
}

impl Step {
    /// The step of one `training_info`. Names of copies of what a call computes start with `root`.
    pub fn of(model: &Model, entry: usize, root: &str) -> WireResult<Self> {
        let whole = ModelProto::decode(model.file.bytes.clone()).map_err(|source| WireError::Decode {
            part: "the model".into(),
            offset: 0,
            source,
        })?;
        let missing = || WireError::NoSuchPlace { what: format!("the algorithm graph of training_info {entry}") };
        let algorithm = whole.training_info.get(entry).and_then(|t| t.algorithm.clone()).ok_or_else(missing)?;
        let main = whole.graph.clone().unwrap_or_default();

        let mut join = Join::of(&main, &algorithm);
        for (i, node) in algorithm.node.iter().enumerate() {
            join.add(i, node, root);
        }
        let Join { nodes, origins, copies, .. } = join;
        let joined = ModelProto { graph: Some(join_lists(main, algorithm, nodes)), training_info: Vec::new(), ..whole };
        let mut model_of_step = Model::from_bytes(joined.encode_to_vec())?;
        model_of_step.file.path.clone_from(&model.file.path);
        Ok(Step { entry, model: model_of_step, origins, root: root.to_owned(), copies })
    }

    /// Whether a node of the joined graph stands in the algorithm.
    pub fn is_in_algorithm(&self, node: usize) -> bool {
        matches!(self.origins.get(node), Some(Origin::Algorithm(_)))
    }

    /// An edit of the joined graph as one of the algorithm; `None` where it is about something that stands elsewhere.
    pub fn translate(&self, change: Change) -> Option<Change> {
        let at = match change.at {
            Anchor::End => Anchor::End,
            Anchor::After(node) => Anchor::After(self.in_algorithm(node)?),
        };
        let place = |place: Place| match place.split_first() {
            Some(((graph_field::NODE, node), rest)) => {
                let node = (graph_field::NODE, self.in_algorithm(*node)?);
                Some(std::iter::once(node).chain(rest.iter().copied()).collect())
            }
            // Lists of the algorithm come first.
            _ => Some(place),
        };
        let renames =
            change.renames.into_iter().map(|r| Some(Rename { place: place(r.place)?, ..r })).collect::<Option<_>>()?;
        let removals = change
            .removals
            .into_iter()
            .map(|part| match part {
                Part::Node(node) => Some(Part::Node(self.in_algorithm(node)?)),
                part => Some(part),
            })
            .collect::<Option<_>>()?;
        let nodes = if self.copies.is_empty() {
            change.nodes
        } else {
            change.nodes.iter().map(|node| self.with_names_of_copies(node)).collect()
        };
        Some(Change { graph: Root::Algorithm(self.entry), at, renames, removals, nodes, ..change })
    }

    /// The nodes that compute values inside calls for the algorithm to read, in order: copies of those that a call runs.
    pub fn copied_nodes(&self, values: &[&str]) -> Vec<NodeProto> {
        let nodes = &self.model.graph.nodes;
        let mut wanted: Vec<usize> = values.iter().filter_map(|v| Some(self.copies.get(*v)?.node)).collect();
        let mut seen: HashSet<usize> = wanted.iter().copied().collect();
        while let Some(node) = wanted.pop() {
            let mut node = nodes[node].clone();
            visit_inputs(&mut node, &mut |name| {
                if let Some(copy) = self.copies.get(name.as_str()).filter(|c| seen.insert(c.node)) {
                    wanted.push(copy.node);
                }
            });
        }
        let mut order: Vec<usize> = seen.into_iter().collect();
        order.sort_unstable();
        let copied = |node: usize| {
            let mut node = nodes[node].clone();
            // What the call gives out is made there already.
            let given = |o: &&mut String| !o.is_empty() && !self.copies.contains_key(o.as_str());
            node.output.iter_mut().filter(given).for_each(|o| *o = format!("{}call_unused/{o}", self.root));
            self.with_names_of_copies(node)
        };
        order.into_iter().map(copied).collect()
    }

    fn in_algorithm(&self, node: usize) -> Option<usize> {
        match self.origins.get(node)? {
            Origin::Algorithm(i) => Some(*i),
            Origin::Main | Origin::Called => None,
        }
    }

    /// Reads and makes copies instead of what stands inside a call.
    fn with_names_of_copies(&self, mut node: NodeProto) -> NodeProto {
        let makes_copies = node.output.iter().any(|o| self.copies.contains_key(o));
        let mut rename = |name: &mut String| {
            if let Some(copy) = self.copies.get(name.as_str()) {
                name.clone_from(&copy.name);
            }
        };
        visit_inputs(&mut node, &mut rename);
        node.output.iter_mut().for_each(&mut rename);
        if makes_copies {
            node.name = node.output.iter().find(|o| !o.is_empty()).cloned();
        }
        node
    }
}

/// Names that a node reads, itself and in its bodies.
fn visit_inputs(node: &mut NodeProto, visit: &mut dyn FnMut(&mut String)) {
    node.input.iter_mut().filter(|name| !name.is_empty()).for_each(&mut *visit);
    for body in bodies_mut(node) {
        body.node.iter_mut().for_each(|inner| visit_inputs(inner, visit));
        for output in &mut body.output {
            if let Some(name) = output.name.as_mut() {
                visit(name);
            }
        }
    }
}

/// The nodes of a step under construction.
struct Join<'g> {
    main: &'g GraphProto,
    /// By value: the node of the main graph that makes it.
    producers: HashMap<&'g str, usize>,
    nodes: Vec<NodeProto>,
    origins: Vec<Origin>,
    copies: HashMap<String, Copy>,
    /// Names that are taken in the joined graph.
    taken: HashSet<String>,
    calls: usize,
}

impl<'g> Join<'g> {
    /// Starts with the nodes of the main graph whose values the algorithm reads.
    fn of(main: &'g GraphProto, algorithm: &GraphProto) -> Self {
        let made = |nodes: &'g [NodeProto]| {
            nodes.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)))
        };
        let producers: HashMap<&str, usize> = made(&main.node).filter(|(name, _)| !name.is_empty()).collect();
        let mut taken: HashSet<String> = algorithm.node.iter().flat_map(|n| n.output.iter().cloned()).collect();
        taken.extend(algorithm.input.iter().map(|v| v.name().to_owned()));
        taken.extend(algorithm.initializer.iter().map(|t| t.name().to_owned()));

        let mut read = Vec::new();
        for node in &algorithm.node {
            visit_inputs(&mut node.clone(), &mut |name| read.push(name.clone()));
        }
        // A Gradient node only names what it differentiates.
        let named = algorithm.node.iter().filter(|n| n.op_type() == "Gradient").filter_map(|n| n.string("y"));
        read.extend(named.map(str::to_owned));
        read.extend(algorithm.output.iter().map(|v| v.name().to_owned()));
        read.retain(|name| !taken.contains(name));
        let used = needed(main, &producers, read);
        let mut join =
            Join { main, producers, nodes: Vec::new(), origins: Vec::new(), copies: HashMap::new(), taken, calls: 0 };
        for i in used {
            join.taken.extend(main.node[i].output.iter().cloned());
            join.push(main.node[i].clone(), Origin::Main);
        }
        join
    }

    fn push(&mut self, node: NodeProto, origin: Origin) {
        self.nodes.push(node);
        self.origins.push(origin);
    }

    /// Adds a node of the algorithm; of a call what it runs.
    fn add(&mut self, position: usize, node: &NodeProto, root: &str) {
        match self.called(node) {
            Some(names) => self.call(names, node, root),
            None => self.push(node.clone(), Origin::Algorithm(position)),
        }
    }

    /// By the main graph's names: the algorithm's values that a GraphCall gives it and takes from it.
    fn called(&self, node: &NodeProto) -> Option<HashMap<String, String>> {
        if node.op_type() != "GraphCall" || self.calls == MOST_CALLS {
            return None;
        }
        let main = self.main;
        let stored: HashSet<&str> = main.initializer.iter().map(|t| t.name()).collect();
        let inputs: Vec<&str> = main.input.iter().map(|v| v.name()).filter(|n| !stored.contains(n)).collect();
        let fits = inputs.len() == node.input.len() && node.output.len() <= main.output.len();
        // An output that no node makes has no place to be renamed.
        let is_made =
            main.output.iter().zip(&node.output).all(|(v, o)| o.is_empty() || self.producers.contains_key(v.name()));
        if !fits || !is_made {
            return None;
        }
        let inputs = inputs.iter().map(|n| (*n).to_owned()).zip(node.input.iter().cloned());
        let outputs = main.output.iter().map(|v| v.name().to_owned()).zip(node.output.iter().cloned());
        Some(inputs.chain(outputs.filter(|(_, o)| !o.is_empty())).collect())
    }

    /// Adds the main graph's nodes once more, between the values of a call.
    fn call(&mut self, mut names: HashMap<String, String>, node: &NodeProto, root: &str) {
        self.calls += 1;
        let outputs = self.main.output.iter().zip(&node.output).filter(|(_, o)| !o.is_empty());
        let used = needed(self.main, &self.producers, outputs.map(|(v, _)| v.name().to_owned()).collect());
        for i in used {
            let mut copy = self.main.node[i].clone();
            for output in copy.output.iter().filter(|o| !o.is_empty()) {
                if names.contains_key(output) {
                    continue;
                }
                // Inside a call a value has its own name as long as nobody else has it.
                let mut inside = output.clone();
                while !self.taken.insert(inside.clone()) {
                    inside.push('\'');
                }
                let name = format!("{root}call_{}/{output}", self.calls);
                self.copies.insert(inside.clone(), Copy { name, node: self.nodes.len() });
                names.insert(output.clone(), inside);
            }
            let mut rename = |name: &mut String| {
                if let Some(to) = names.get(name.as_str()) {
                    name.clone_from(to);
                }
            };
            visit_inputs(&mut copy, &mut rename);
            copy.output.iter_mut().for_each(&mut rename);
            self.push(copy, Origin::Called);
        }
    }
}

/// The positions of the nodes that values depend on, in file order.
fn needed(graph: &GraphProto, producers: &HashMap<&str, usize>, values: Vec<String>) -> Vec<usize> {
    let mut wanted = values;
    let mut used = HashSet::new();
    while let Some(name) = wanted.pop() {
        let Some(node) = producers.get(name.as_str()).copied().filter(|n| used.insert(*n)) else { continue };
        visit_inputs(&mut graph.node[node].clone(), &mut |name| wanted.push(name.clone()));
    }
    let mut used: Vec<usize> = used.into_iter().collect();
    used.sort_unstable();
    used
}

/// The joined graph: of equal names the algorithm's counts, and its parts come first.
fn join_lists(main: GraphProto, algorithm: GraphProto, nodes: Vec<NodeProto>) -> GraphProto {
    let made: HashSet<String> = nodes.iter().flat_map(|n| n.output.iter().cloned()).collect();
    let mut known: HashSet<String> = algorithm.input.iter().map(|v| v.name().to_owned()).collect();
    known.extend(algorithm.initializer.iter().map(|t| t.name().to_owned()));
    let mut initializer: Vec<TensorProto> = algorithm.initializer;
    let mut input = algorithm.input;
    initializer.extend(main.initializer.into_iter().filter(|t| !known.contains(t.name()) && !made.contains(t.name())));
    input.extend(main.input.into_iter().filter(|v| !known.contains(v.name()) && !made.contains(v.name())));
    initializer.iter_mut().for_each(leave_out_elements);
    let declared: HashSet<String> = algorithm.value_info.iter().map(|v| v.name().to_owned()).collect();
    let mut value_info = algorithm.value_info;
    let inner = main.value_info.into_iter().chain(main.output);
    value_info.extend(inner.filter(|v| made.contains(v.name()) && !declared.contains(v.name())));
    GraphProto {
        name: main.name,
        node: nodes,
        initializer,
        input,
        output: algorithm.output,
        value_info,
        ..GraphProto::default()
    }
}

fn leave_out_elements(tensor: &mut TensorProto) {
    if tensor.encoded_len() > SMALL {
        *tensor = TensorProto {
            dims: std::mem::take(&mut tensor.dims),
            data_type: tensor.data_type,
            name: tensor.name.take(),
            ..TensorProto::default()
        };
    }
}
