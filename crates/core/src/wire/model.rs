//! A model: its structure decoded, its weights untouched, and the position of every part in the file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rayon::prelude::*;

use super::error::{WireError, WireResult};
use super::fields::{graph, model, training_info};
use super::file::{ModelFile, recognise_other_format};
use super::record::{Record, read_varint, records};
use super::tensor::Initializer;
use crate::onnx::{
    FunctionProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TrainingInfoProto, ValueInfoProto,
};
use crate::patch::{Change, Part, Substitute};

/// A model as read from a file. Never modified: an edit is a [`Patch`](crate::patch::Patch).
#[derive(Debug)]
pub struct Model {
    /// The bytes it was decoded from.
    pub file: ModelFile,
    /// `ir_version`; 0 when the file has none.
    pub ir_version: i64,
    /// Producer name and version as the file has them.
    pub producer: String,
    /// Operator sets, in file order.
    pub opset_imports: Vec<OperatorSetIdProto>,
    /// Model-level metadata, in file order.
    pub metadata: Vec<StringStringEntryProto>,
    /// Local functions.
    pub functions: Vec<FunctionProto>,
    /// Byte ranges of the `training_info` messages (their payloads).
    pub training_info: Vec<Range<usize>>,
    /// The main graph.
    pub graph: MainGraph,
    pub(super) layout: Layout,
}

/// The main graph's parts, each list in file order.
#[derive(Debug, Default)]
pub struct MainGraph {
    /// `GraphProto.name`.
    pub name: String,
    /// Nodes. Bodies of If, Loop and Scan are decoded with them.
    pub nodes: Vec<NodeProto>,
    /// Initializers without their elements.
    pub initializers: Vec<Initializer>,
    /// Names of sparse initializers.
    pub sparse_initializers: Vec<String>,
    /// Inputs (with initializers among them where ir_version < 4).
    pub inputs: Vec<ValueInfoProto>,
    /// Outputs.
    pub outputs: Vec<ValueInfoProto>,
    /// Declared types of inner values.
    pub value_info: Vec<ValueInfoProto>,
}

/// Where each part lies.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Every record of the model message.
    pub model: Vec<Record>,
    /// The main graph.
    pub graph: Arc<GraphLayout>,
    /// Indices into `model` in file order.
    pub opset_imports: Vec<u32>,
    pub metadata: Vec<u32>,
}

/// Where each part of a graph lies.
#[derive(Debug, Default)]
pub(super) struct GraphLayout {
    /// The messages that the graph is made of (protobuf merges repeated ones), each behind those around it, the outermost first.
    pub messages: Vec<Vec<Record>>,
    /// Every record of the graph.
    pub records: Vec<Record>,
    /// For each part, indices into `records` in file order.
    pub nodes: Vec<u32>,
    pub initializers: Vec<u32>,
    pub inputs: Vec<u32>,
    pub outputs: Vec<u32>,
    pub value_info: Vec<u32>,
}

impl Model {
    /// Opens and decodes a model file; `-` is standard input.
    pub fn open(path: impl AsRef<Path>) -> WireResult<Self> {
        Self::decode(ModelFile::open(path.as_ref())?)
    }

    /// Decodes a model that is in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> WireResult<Self> {
        Self::decode(ModelFile::from_bytes(bytes))
    }

    /// The version of the default operator set (`""` or `ai.onnx`).
    ///
    /// A file without any import means version 1, as the IR specification says.
    pub fn opset(&self) -> i64 {
        let is_default = |o: &&OperatorSetIdProto| matches!(o.domain(), "" | "ai.onnx");
        self.opset_imports.iter().find(is_default).map_or(1, |o| o.version())
    }

    /// The model with other nodes in the place of some, and with further initializers: what a [`Change`] says of these two, and nothing
    /// else of it. A view to look at: structure is copied, weights are shared with this model, and there is no file to splice.
    pub fn with_nodes(&self, change: &Change) -> WireResult<Self> {
        let mut replaced: HashMap<usize, &Substitute> = HashMap::new();
        for replacement in &change.replacements {
            if let Part::Node(node) = replacement.part {
                replaced.insert(node, &replacement.with);
            }
        }
        let mut nodes = Vec::with_capacity(self.graph.nodes.len());
        for (i, node) in self.graph.nodes.iter().enumerate() {
            match replaced.get(&i) {
                Some(Substitute::Nodes(others)) => nodes.extend(others.iter()),
                _ => nodes.push(node.clone()),
            }
        }
        let mut initializers = self.graph.initializers.clone();
        for tensor in &change.initializers {
            initializers.push(Initializer::beside(tensor)?);
        }
        Ok(Model {
            file: ModelFile::from_bytes(self.file.bytes.clone()),
            ir_version: self.ir_version,
            producer: self.producer.clone(),
            opset_imports: self.opset_imports.clone(),
            metadata: self.metadata.clone(),
            functions: self.functions.clone(),
            training_info: self.training_info.clone(),
            graph: MainGraph {
                name: self.graph.name.clone(),
                nodes,
                initializers,
                sparse_initializers: self.graph.sparse_initializers.clone(),
                inputs: self.graph.inputs.clone(),
                outputs: self.graph.outputs.clone(),
                value_info: self.graph.value_info.clone(),
            },
            layout: Layout::default(),
        })
    }

    /// Decodes one `training_info` message.
    pub fn decode_training_info(&self, index: usize) -> WireResult<TrainingInfoProto> {
        let range = self
            .training_info
            .get(index)
            .cloned()
            .ok_or_else(|| WireError::NoSuchPlace { what: format!("training_info {index}") })?;
        decode(&self.file.bytes, &range, || format!("training_info {index}"))
    }

    /// Where the parts of the algorithm graph of a `training_info` lie.
    pub(super) fn algorithm_layout(&self, index: usize) -> WireResult<GraphLayout> {
        let is_entry = |r: &&Record| r.field == model::TRAINING_INFO && r.is_length_delimited();
        let missing = || WireError::NoSuchPlace { what: format!("the algorithm graph of training_info {index}") };
        let entry = self.layout.model.iter().filter(is_entry).nth(index).ok_or_else(missing)?;
        let mut messages = Vec::new();
        for part in records(&self.file.bytes, entry.payload.clone()) {
            let part = part?;
            if part.field == training_info::ALGORITHM && part.is_length_delimited() {
                messages.push(vec![entry.clone(), part]);
            }
        }
        if messages.is_empty() { Err(missing()) } else { GraphLayout::scan(&self.file.bytes, messages) }
    }

    fn decode(file: ModelFile) -> WireResult<Self> {
        let not_onnx = |found: String| WireError::NotOnnx { path: file.display_name(), found };
        if let Some(found) = recognise_other_format(&file.bytes) {
            return Err(not_onnx(found.to_owned()));
        }
        let bytes = &file.bytes;
        let layout = match Layout::scan(bytes) {
            Ok(layout) => layout,
            Err(error) if !looks_like_a_model(bytes) => {
                return Err(not_onnx(format!("its bytes are not those of a model ({error})")));
            }
            Err(error) => return Err(error),
        };
        if !layout.model.iter().any(|r| r.field == model::GRAPH && r.is_length_delimited()) {
            return Err(not_onnx("it holds no graph".into()));
        }

        let mut decoded = Model {
            ir_version: 0,
            producer: String::new(),
            opset_imports: Vec::new(),
            metadata: Vec::new(),
            functions: Vec::new(),
            training_info: Vec::new(),
            graph: MainGraph::default(),
            layout: Layout::default(),
            file: ModelFile::from_bytes(Bytes::new()),
        };
        for record in &layout.model {
            match (record.field, record.wire_type) {
                (1, 0) => {
                    decoded.ir_version = read_varint(bytes, record.payload.start, record.payload.end)?.0.cast_signed();
                }
                (2 | 3, 2) => {
                    if !decoded.producer.is_empty() {
                        decoded.producer.push(' ');
                    }
                    decoded.producer.push_str(&String::from_utf8_lossy(&bytes[record.payload.clone()]));
                }
                (model::OPSET_IMPORT, 2) => {
                    decoded.opset_imports.push(decode(bytes, &record.payload, || "an opset import".into())?);
                }
                (model::METADATA_PROPS, 2) => {
                    decoded.metadata.push(decode(bytes, &record.payload, || "a metadata entry".into())?);
                }
                (model::FUNCTIONS, 2) => {
                    let index = decoded.functions.len();
                    decoded.functions.push(decode(bytes, &record.payload, || format!("function {index}"))?);
                }
                (model::TRAINING_INFO, 2) => decoded.training_info.push(record.payload.clone()),
                _ => {}
            }
        }
        decoded.graph = decode_graph(bytes, &layout.graph)?;
        decoded.layout = layout;
        decoded.file = file;
        Ok(decoded)
    }
}

fn decode_graph(bytes: &Bytes, layout: &GraphLayout) -> WireResult<MainGraph> {
    let mut decoded = MainGraph {
        nodes: each(layout, &layout.nodes, |i, payload| {
            let mut node: NodeProto = decode(bytes, &payload, || format!("node {i}"))?;
            // A list grows by four at a time, and an attribute takes a third of a kilobyte.
            node.attribute.shrink_to_fit();
            Ok(node)
        })?,
        inputs: decode_all(bytes, layout, &layout.inputs, "graph input")?,
        outputs: decode_all(bytes, layout, &layout.outputs, "graph output")?,
        value_info: decode_all(bytes, layout, &layout.value_info, "value_info")?,
        initializers: layout.initializers(bytes)?,
        ..MainGraph::default()
    };
    for record in layout.records.iter().filter(|r| r.is_length_delimited()) {
        match record.field {
            graph::NAME => decoded.name = String::from_utf8_lossy(&bytes[record.payload.clone()]).into_owned(),
            graph::SPARSE_INITIALIZER => {
                // SparseTensorProto.values = 1; the name is that of the values tensor.
                for part in records(bytes, record.payload.clone()) {
                    let part = part?;
                    if part.field == 1 && part.is_length_delimited() {
                        decoded.sparse_initializers.push(Initializer::read(bytes, part.payload)?.name);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(decoded)
}

fn decode_all<M: Message + Default>(
    bytes: &Bytes,
    layout: &GraphLayout,
    which: &[u32],
    part: &str,
) -> WireResult<Vec<M>> {
    each(layout, which, |i, payload| decode(bytes, &payload, || format!("{part} {i}")))
}

/// Reads parts of the graph side by side.
fn each<T: Send>(
    layout: &GraphLayout,
    which: &[u32],
    read: impl Fn(usize, Range<usize>) -> WireResult<T> + Send + std::marker::Sync,
) -> WireResult<Vec<T>> {
    let mut found = Vec::new();
    let part = |(i, r): (usize, &u32)| read(i, layout.records[*r as usize].payload.clone());
    // Into a list of the right size at once; taking the results out of it afterwards happens in place.
    which.par_iter().enumerate().map(part).collect_into_vec(&mut found);
    found.into_iter().collect()
}

fn decode<M: Message + Default>(bytes: &Bytes, range: &Range<usize>, part: impl Fn() -> String) -> WireResult<M> {
    M::decode(bytes.slice(range.clone())).map_err(|source| WireError::Decode {
        part: part(),
        offset: range.start,
        source,
    })
}

/// Whether the first record could be the first of a `ModelProto`: decides which error a broken file gets.
fn looks_like_a_model(bytes: &[u8]) -> bool {
    matches!(records(bytes, 0..bytes.len()).next(), Some(Ok(r)) if matches!((r.field, r.wire_type), (1, 0) | (2..=4 | 6..=8, 2)))
}

impl Layout {
    pub fn scan(bytes: &[u8]) -> WireResult<Self> {
        let mut layout =
            Layout { model: records(bytes, 0..bytes.len()).collect::<WireResult<_>>()?, ..Layout::default() };
        let is_graph = |r: &&Record| r.field == model::GRAPH && r.is_length_delimited();
        let messages = layout.model.iter().filter(is_graph).map(|r| vec![r.clone()]).collect();
        layout.graph = Arc::new(GraphLayout::scan(bytes, messages)?);
        for (i, record) in layout.model.iter().enumerate().filter(|(_, r)| r.is_length_delimited()) {
            match record.field {
                model::OPSET_IMPORT => layout.opset_imports.push(position(bytes, i)?),
                model::METADATA_PROPS => layout.metadata.push(position(bytes, i)?),
                _ => {}
            }
        }
        Ok(layout)
    }
}

impl GraphLayout {
    /// The initializers, without their elements.
    pub fn initializers(&self, bytes: &Bytes) -> WireResult<Vec<Initializer>> {
        each(self, &self.initializers, |_, payload| Initializer::read(bytes, payload))
    }

    fn scan(bytes: &[u8], messages: Vec<Vec<Record>>) -> WireResult<Self> {
        let mut layout = GraphLayout::default();
        // Room that is not used is never touched, and a list that grows is copied again and again.
        let length: usize = messages.iter().filter_map(|around| around.last()).map(|m| m.payload.len()).sum();
        layout.records.reserve((length / SHORTEST_RECORD).min(MOST_RESERVED));
        for message in messages.iter().filter_map(|around| around.last()) {
            for part in records(bytes, message.payload.clone()) {
                layout.records.push(part?);
            }
        }
        layout.messages = messages;
        for (i, record) in layout.records.iter().enumerate().filter(|(_, r)| r.is_length_delimited()) {
            match record.field {
                graph::NODE => layout.nodes.push(position(bytes, i)?),
                graph::INITIALIZER => layout.initializers.push(position(bytes, i)?),
                graph::INPUT => layout.inputs.push(position(bytes, i)?),
                graph::OUTPUT => layout.outputs.push(position(bytes, i)?),
                graph::VALUE_INFO => layout.value_info.push(position(bytes, i)?),
                _ => {}
            }
        }
        Ok(layout)
    }
}

/// Few parts of a graph take less than so many bytes.
const SHORTEST_RECORD: usize = 64;

/// Room is made for so many parts of a graph, 56 MB.
const MOST_RESERVED: usize = 1 << 20;

fn position(bytes: &[u8], i: usize) -> WireResult<u32> {
    u32::try_from(i).map_err(|_| WireError::TooLarge { size: bytes.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_named() {
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04rest of a zip", "zip"),
            (b"\x1c\0\0\0TFL3....", "Lite"),
            (b"\x1c\0\0\0ORTM....", ".ort"),
            (b"graph (float x) => (float y) {}\n", "text"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "not those of a model"),
        ] {
            let message = Model::from_bytes(Bytes::from_static(bytes)).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn every_truncation_of_a_model_is_an_error_or_a_smaller_model() {
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mlp_relu.ts13.onnx")).unwrap();
        for cut in (0..bytes.len()).step_by(97).chain(0..400) {
            let _ = Model::from_bytes(bytes[..cut].to_vec());
        }
    }
}
