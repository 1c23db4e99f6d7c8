//! An edit as data.
//!
//! A pass looks at a [`Model`](crate::wire::Model) and returns a `Patch`; dry run, report, diff, apply and strip all read it.
//! [`wire::splice`](crate::wire::splice) turns it into bytes, and what it does not name stays byte for byte as it came.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key};
use serde::{Deserialize, Serialize};

use crate::onnx::{NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::wire::Content;
use crate::wire::fields::{graph, model};

/// Everything that one pass wants changed, in the order in which it should be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    /// Independent groups of changes, each with its reason. No two of them name the same place.
    pub changes: Vec<Change>,
    /// Widths that length prefixes shall have, as a record remembers them; see [`Width`].
    pub widths: Vec<Width>,
}

/// How many bytes the length of a message takes, where its padding alone would not bring it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Width {
    /// Which of the messages around the patch's edits, in file order.
    pub message: usize,
    /// Bytes.
    pub width: usize,
}

/// Changes that belong together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Why, as a sentence for the report.
    pub reason: String,
    /// Which graph it is about; operator sets and metadata belong to the model whatever this is.
    pub graph: Root,
    /// Nodes to add, in topological order among themselves.
    pub nodes: Encoded<NodeProto, 1>,
    /// Where the nodes go.
    pub at: Anchor,
    /// Initializers to add.
    pub initializers: Vec<TensorProto>,
    /// Declared types to add.
    pub value_info: Encoded<ValueInfoProto, 13>,
    /// Graph inputs to add, after the existing ones.
    pub inputs: Vec<ValueInfoProto>,
    /// Graph outputs to add, after the existing ones.
    pub outputs: Vec<ValueInfoProto>,
    /// Operator sets to import.
    pub opset_imports: Vec<OperatorSetIdProto>,
    /// Model metadata to add.
    pub metadata: Vec<StringStringEntryProto>,
    /// Names to replace, in place.
    pub renames: Vec<Rename>,
    /// Parts to take out.
    pub removals: Vec<Part>,
    /// Parts to put others in the place of.
    pub replacements: Vec<Replacement>,
}

/// A part of the model, and what stands in its place afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Replacement {
    /// The part.
    pub part: Part,
    /// What takes its place.
    pub with: Substitute,
}

/// What takes the place of a part.
#[derive(Debug, Clone, PartialEq)]
pub enum Substitute {
    /// Nodes, in topological order among themselves.
    Nodes(Encoded<NodeProto, 1>),
    /// Another declaration of an output.
    Output(ValueInfoProto),
    /// Another version of an operator set.
    OpsetImport(OperatorSetIdProto),
    /// Another IR version.
    IrVersion(i64),
    /// Records as they stood in a file: tag, length and payload.
    Records(Bytes),
}

impl Substitute {
    /// The records that stand in the file.
    pub fn records(&self) -> Content {
        let mut out = Vec::new();
        match self {
            Substitute::Nodes(nodes) => return nodes.records().clone(),
            Substitute::Records(records) => return records.clone().into(),
            Substitute::Output(output) => prost::encoding::message::encode(graph::OUTPUT, output, &mut out),
            Substitute::OpsetImport(import) => prost::encoding::message::encode(model::OPSET_IMPORT, import, &mut out),
            Substitute::IrVersion(version) => prost::encoding::int64::encode(model::IR_VERSION, version, &mut out),
        }
        out.into()
    }

    /// How many nodes it is.
    pub fn nodes(&self) -> usize {
        if let Substitute::Nodes(nodes) = self { nodes.len() } else { 0 }
    }
}

/// Messages as they will stand in the file, under the field number of their list.
///
/// A large graph gets hundreds of thousands of nodes; kept as bytes they take a sixth of the memory, and half the time. Those that differ
/// in names alone are made when they are written, and take next to none.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded<M, const FIELD: u32> {
    records: Content,
    count: usize,
    kind: PhantomData<fn() -> M>,
}

impl<M, const FIELD: u32> Encoded<M, FIELD> {
    /// `count` messages that are encoded already: tag, length and message, one behind the other.
    pub fn from_records(records: Content, count: usize) -> Self {
        Encoded { records, count, kind: PhantomData }
    }
}

impl<M: Message + Default, const FIELD: u32> Encoded<M, FIELD> {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their records: tag, length and message, one behind the other.
    pub fn records(&self) -> &Content {
        &self.records
    }

    /// The messages, decoded one by one.
    pub fn iter(&self) -> impl Iterator<Item = M> + use<M, FIELD> {
        let mut rest = self.records.bytes();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // What was encoded here decodes.
            let (_, wire_type) = decode_key(&mut rest).ok()?;
            let mut message = M::default();
            prost::encoding::message::merge(wire_type, &mut message, &mut rest, DecodeContext::default()).ok()?;
            Some(message)
        })
    }
}

impl<M: Message, const FIELD: u32> FromIterator<M> for Encoded<M, FIELD> {
    fn from_iter<I: IntoIterator<Item = M>>(messages: I) -> Self {
        let mut records = Vec::new();
        let mut count = 0;
        for message in messages {
            prost::encoding::message::encode(FIELD, &message, &mut records);
            count += 1;
        }
        Encoded::from_records(records.into(), count)
    }
}

impl<M: Message, const FIELD: u32> From<Vec<M>> for Encoded<M, FIELD> {
    fn from(messages: Vec<M>) -> Self {
        messages.into_iter().collect()
    }
}

impl<M, const FIELD: u32> Default for Encoded<M, FIELD> {
    fn default() -> Self {
        Encoded::from_records(Content::default(), 0)
    }
}

impl<M, const FIELD: u32> fmt::Debug for Encoded<M, FIELD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} message(s) of field {FIELD}, {} bytes", self.count, self.records.len())
    }
}

/// A graph of the model that stands in no node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// The main graph.
    #[default]
    Main,
    /// The algorithm graph of the `training_info` at this position.
    Algorithm(usize),
}

/// Where added nodes go in the graph's node list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anchor {
    /// Right after the node at this position.
    After(usize),
    /// Behind all nodes.
    #[default]
    End,
}

/// One string of the graph that becomes another: a node's input or output, or a name inside a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// Where the string stands.
    pub place: Place,
    /// What stands there now; the edit is refused when it is something else.
    pub from: String,
    /// What shall stand there.
    pub to: String,
}

/// A path from the change's graph to one of its fields: (field number, occurrence) at each level.
///
/// `[(1, 12), (1, 0)]` is the first input of node 12; `[(1, 12), (5, 0), (6, 0), (1, 3), (1, 1)]` the second input of node 3 in
/// the graph that is node 12's first attribute. Field numbers are those of `schemas/onnx.proto`.
pub type Place = Vec<(u32, usize)>;

/// A part of the model, by its position in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// A node of the graph.
    Node(usize),
    /// An initializer of the graph.
    Initializer(usize),
    /// A value_info of the graph.
    ValueInfo(usize),
    /// An input of the graph.
    Input(usize),
    /// An output of the graph.
    Output(usize),
    /// An operator set import of the model.
    OpsetImport(usize),
    /// A metadata entry of the model.
    Metadata(usize),
    /// The model's `ir_version`; of several the last, which counts.
    IrVersion,
}

impl Patch {
    /// Whether applying it would change nothing.
    pub fn is_empty(&self) -> bool {
        let nothing = Change::default();
        let is_nothing = |c: &Change| {
            c.nodes.is_empty()
                && c.value_info.is_empty()
                && Change { reason: String::new(), graph: c.graph, at: c.at, ..nothing.clone() }
                    == Change { reason: String::new(), ..c.clone() }
        };
        self.changes.iter().all(is_nothing)
    }

    /// How many nodes it adds, those that take the place of others included.
    pub fn added_nodes(&self) -> usize {
        self.changes.iter().map(Change::added_nodes).sum()
    }
}

impl Change {
    /// How many nodes it adds, those that take the place of others included.
    pub fn added_nodes(&self) -> usize {
        self.nodes.len() + self.replacements.iter().map(|r| r.with.nodes()).sum::<usize>()
    }
}
