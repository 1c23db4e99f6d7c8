//! A graph as a page shows it: all text is ready to be shown, and each part says what is remarkable about it.

use super::text;
use crate::graph::infer::Types;
use crate::graph::types::elem_name;
use crate::graph::{Graph, NodeId, ValueId};
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::{AttributeProto, NodeProto};

/// What is remarkable about a part. Pages know these by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// It is only in the new model.
    Added,
    /// It is only in the old model.
    Removed,
    /// It is in both, and differs.
    Changed,
    /// It makes an activation that can be tapped.
    Tap,
    /// It belongs to an activation of several nodes.
    Part,
    /// It makes the loss.
    Loss,
}

impl From<Mark> for u8 {
    fn from(mark: Mark) -> u8 {
        mark as u8
    }
}

/// Where a value comes from. Pages know these by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// A node makes it.
    #[default]
    Inner,
    /// It is a graph input.
    Input,
    /// It is an initializer.
    Initializer,
    /// A Constant node makes it, which is not drawn.
    Constant,
}

/// A node.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub op: String,
    pub domain: String,
    pub name: String,
    pub doc: String,
    /// Names and values.
    pub attributes: Vec<(String, String)>,
    pub inputs: Vec<Option<u32>>,
    /// Positions of inputs that the old model's node does not have so.
    pub fresh: Vec<u32>,
    /// Inputs that only the old model's node has, with their positions there.
    pub former: Vec<(u32, u32)>,
    /// What its bodies read from outside.
    pub captured: Vec<u32>,
    pub outputs: Vec<Option<u32>>,
    pub mark: Mark,
    /// For how many nodes it stands; 0 for one that is itself. See [`super::reduce`].
    pub stands_for: u32,
    /// Whether it stands beside the graph rather than in it.
    pub is_aside: bool,
}

/// A value.
#[derive(Debug, Clone, Default)]
pub struct Value {
    pub name: String,
    /// Element type and shape.
    pub shape: String,
    pub kind: Kind,
    pub is_output: bool,
    pub mark: Mark,
}

/// Nodes in topological order, and values.
#[derive(Debug, Clone, Default)]
pub struct Network {
    pub nodes: Vec<Node>,
    pub values: Vec<Value>,
}

impl Network {
    /// Of a graph, with the position here of each of its nodes. Values have the same numbers here as there.
    pub fn of(graph: &Graph, types: &Types) -> (Self, Vec<u32>) {
        let mut network = Network::default();
        let mut positions = vec![0; graph.nodes.len()];
        for (at, node) in (0..).zip(graph.topological_order()) {
            positions[node.index()] = at;
            network.nodes.push(Node::of(graph, *node));
        }
        network.values = graph.values().map(|v| Value::of(graph, types, v)).collect();
        (network, positions)
    }

    /// Whether a node is left out of pictures: what a Constant makes is shown where it is read, unless it is remarkable itself.
    pub fn is_folded_constant(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let is_output = |v: &Option<u32>| v.is_some_and(|v| self.values[v as usize].is_output);
        node.op == "Constant" && node.mark == Mark::None && !node.outputs.iter().any(is_output)
    }
}

impl Node {
    /// A node of a graph; values by their numbers there.
    pub fn of(graph: &Graph, id: NodeId) -> Self {
        let number = |v: &Option<ValueId>| v.map(|v| v.0);
        Node {
            inputs: graph.inputs_of(id).iter().map(number).collect(),
            captured: graph.captures_of(id).iter().map(|c| c.value.0).collect(),
            outputs: graph.outputs_of(id).iter().map(number).collect(),
            ..Node::alone(graph.node(id))
        }
    }

    /// A node without its values.
    pub fn alone(node: &NodeProto) -> Self {
        Node {
            op: text::name(node.op_type()),
            domain: text::name(node.domain()),
            name: text::name(node.name()),
            doc: text::doc(node.doc_string()),
            attributes: node.attribute.iter().map(|a| (text::name(a.name()), attribute(a))).collect(),
            ..Node::default()
        }
    }

    /// Every value that an edge leads from, with what is remarkable about the edge.
    pub fn reads(&self) -> impl Iterator<Item = (u32, Mark)> + '_ {
        let whole = if matches!(self.mark, Mark::Added | Mark::Removed) { self.mark } else { Mark::None };
        let now =
            self.inputs.iter().zip(0..).filter_map(move |(v, slot)| {
                Some(((*v)?, if self.fresh.contains(&slot) { Mark::Added } else { whole }))
            });
        now.chain(self.captured.iter().map(move |v| (*v, whole)))
            .chain(self.former.iter().map(|(_, v)| (*v, Mark::Removed)))
    }
}

impl Value {
    /// A value of a graph.
    pub fn of(graph: &Graph, types: &Types, value: ValueId) -> Self {
        let made_by_constant = || graph.producer(value).is_some_and(|(n, _)| graph.node(n).op_type() == "Constant");
        let kind = match () {
            () if graph.initializer(value).is_some() => Kind::Initializer,
            () if graph.is_input(value) => Kind::Input,
            () if made_by_constant() => Kind::Constant,
            () => Kind::Inner,
        };
        Value {
            name: text::name(graph.name(value)),
            shape: text::name(&types.get(value).to_string()),
            kind,
            is_output: graph.is_output(value),
            mark: Mark::None,
        }
    }
}

/// The value of an attribute, as a person would write it.
pub fn attribute(a: &AttributeProto) -> String {
    let tensor = |t: &crate::onnx::TensorProto| {
        let dims: Vec<String> = t.dims.iter().map(ToString::to_string).collect();
        let head = format!("{}[{}]", elem_name(t.data_type()), dims.join(", "));
        match crate::graph::tensor_elements(t, 16) {
            Some(elements) => format!("{head} {}", list(&elements)),
            None => head,
        }
    };
    let shown = match a.r#type() {
        _ if !a.ref_attr_name().is_empty() => format!("the function's {:?}", a.ref_attr_name()),
        AttributeType::Float => a.f().to_string(),
        AttributeType::Int => a.i().to_string(),
        AttributeType::String => String::from_utf8_lossy(a.s()).into_owned(),
        AttributeType::Tensor => a.t.as_deref().map(tensor).unwrap_or_default(),
        AttributeType::Graph => a.g.as_ref().map(|g| format!("a graph of {} nodes", g.node.len())).unwrap_or_default(),
        AttributeType::Floats => list(&a.floats),
        AttributeType::Ints => list(&a.ints),
        AttributeType::Strings => list(&a.strings.iter().map(|s| String::from_utf8_lossy(s)).collect::<Vec<_>>()),
        AttributeType::Tensors => list(&a.tensors.iter().map(tensor).collect::<Vec<_>>()),
        AttributeType::Graphs => format!("{} graphs", a.graphs.len()),
        other => other.as_str_name().to_ascii_lowercase(),
    };
    text::value(&shown)
}

/// A list, as far as it is worth showing.
fn list<T: ToString>(items: &[T]) -> String {
    const MOST: usize = 64;
    let mut shown: Vec<String> = items.iter().take(MOST).map(ToString::to_string).collect();
    if items.len() > MOST {
        shown.push(format!("… {} more", items.len() - MOST));
    }
    format!("[{}]", shown.join(", "))
}
