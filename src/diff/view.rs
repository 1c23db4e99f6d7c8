//! A graph as the comparison sees it, whether it is the main graph, a body, a function or a training step.

use bytes::Bytes;
use prost::Message;

use crate::onnx::{
    FunctionProto, GraphProto, NodeProto, StringStringEntryProto, TensorAnnotation, TensorProto, ValueInfoProto,
};
use crate::wire::fields::graph as field;
use crate::wire::{Initializer, Model, WireResult, records};

/// The parts of a graph.
#[derive(Default)]
pub struct View<'m> {
    /// Nodes, in file order.
    pub nodes: &'m [NodeProto],
    /// Initializers, in file order, and behind them the sparse ones.
    pub tensors: Vec<Tensor<'m>>,
    /// Inputs.
    pub inputs: Vec<Declared<'m>>,
    /// Outputs.
    pub outputs: Vec<Declared<'m>>,
    /// Declared inner values.
    pub value_info: &'m [ValueInfoProto],
    /// Properties of the graph itself: which, key, value.
    pub properties: Vec<(&'static str, String, String)>,
    /// How tensors are quantized: the tensor, and by key other tensors.
    pub annotations: Vec<TensorAnnotation>,
    /// Whether inputs and outputs go by their names, as those of the main graph do; else by their positions.
    pub by_name: bool,
}

/// An initializer.
pub struct Tensor<'m> {
    /// Its name.
    pub name: &'m str,
    /// What it holds.
    pub data: Data<'m>,
}

/// Where an initializer's elements are.
pub enum Data<'m> {
    /// In the file, not decoded.
    Stored(&'m Initializer),
    /// Decoded with the body around it.
    Decoded(&'m TensorProto),
    /// A sparse one, as its message.
    Sparse(Bytes),
}

/// An input or output.
#[derive(Clone, Copy)]
pub struct Declared<'m> {
    /// Its name.
    pub name: &'m str,
    /// Its declaration; functions have none.
    pub value: Option<&'m ValueInfoProto>,
}

impl<'m> View<'m> {
    /// The main graph.
    pub fn of_model(model: &'m Model) -> WireResult<Self> {
        let graph = &model.graph;
        let tensors = graph.initializers.iter();
        let mut view = View {
            nodes: &graph.nodes,
            tensors: tensors.map(|t| Tensor { name: t.name.as_str(), data: Data::Stored(t) }).collect(),
            inputs: declared(&graph.inputs),
            outputs: declared(&graph.outputs),
            value_info: &graph.value_info,
            properties: vec![("name", String::new(), graph.name.clone())],
            annotations: Vec::new(),
            by_name: true,
        };
        let bytes = &model.file.bytes;
        let mut sparse = graph.sparse_initializers.iter();
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
        let is_graph =
            |r: &crate::wire::Record| r.field == crate::wire::fields::model::GRAPH && r.is_length_delimited();
        for top in records(bytes, 0..bytes.len()) {
            let top = top?;
            if !is_graph(&top) {
                continue;
            }
            for part in records(bytes, top.payload) {
                let part = part?;
                if !part.is_length_delimited() {
                    continue;
                }
                match part.field {
                    field::SPARSE_INITIALIZER => {
                        if let Some(name) = sparse.next() {
                            view.tensors.push(Tensor { name, data: Data::Sparse(bytes.slice(part.payload)) });
                        }
                    }
                    DOC_STRING => view.properties.push(("doc_string", String::new(), text(part.payload))),
                    METADATA_PROPS => {
                        let entry = StringStringEntryProto::decode(&bytes[part.payload]).unwrap_or_default();
                        view.properties.push(("metadata", entry.key().into(), entry.value().into()));
                    }
                    QUANTIZATION => {
                        let note = TensorAnnotation::decode(&bytes[part.payload]).unwrap_or_default();
                        view.annotations.push(note);
                    }
                    _ => {}
                }
            }
        }
        Ok(view)
    }

    /// A body, or a graph of a training step.
    pub fn of_graph(graph: &'m GraphProto) -> Self {
        let tensors = graph.initializer.iter();
        let mut view = View {
            nodes: &graph.node,
            tensors: tensors.map(|t| Tensor { name: t.name(), data: Data::Decoded(t) }).collect(),
            inputs: declared(&graph.input),
            outputs: declared(&graph.output),
            value_info: &graph.value_info,
            properties: vec![("name", String::new(), graph.name().to_owned())],
            annotations: Vec::new(),
            by_name: false,
        };
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |v| v.name());
            view.tensors.push(Tensor { name, data: Data::Sparse(sparse.encode_to_vec().into()) });
        }
        if !graph.doc_string().is_empty() {
            view.properties.push(("doc_string", String::new(), graph.doc_string().to_owned()));
        }
        let entry = |e: &StringStringEntryProto| ("metadata", e.key().to_owned(), e.value().to_owned());
        view.properties.extend(graph.metadata_props.iter().map(entry));
        view.annotations.clone_from(&graph.quantization_annotation);
        view
    }

    /// The body of a local function.
    pub fn of_function(function: &'m FunctionProto) -> Self {
        let named = |names: &'m [String]| names.iter().map(|name| Declared { name, value: None }).collect();
        let mut properties = Vec::new();
        if !function.doc_string().is_empty() {
            properties.push(("doc_string", String::new(), function.doc_string().to_owned()));
        }
        let entry = |e: &StringStringEntryProto| ("metadata", e.key().to_owned(), e.value().to_owned());
        properties.extend(function.metadata_props.iter().map(entry));
        properties.extend(
            function.opset_import.iter().map(|o| ("opset_import", o.domain().to_owned(), o.version().to_string())),
        );
        properties.extend(function.attribute.iter().map(|a| ("attribute", a.clone(), "without a default".to_owned())));
        let default = |a: &crate::onnx::AttributeProto| ("attribute", a.name().to_owned(), super::words::attribute(a));
        properties.extend(function.attribute_proto.iter().map(default));
        View {
            nodes: &function.node,
            tensors: Vec::new(),
            inputs: named(&function.input),
            outputs: named(&function.output),
            value_info: &function.value_info,
            properties,
            annotations: Vec::new(),
            by_name: false,
        }
    }
}

/// Fields of GraphProto that only a comparison looks at.
const DOC_STRING: u32 = 10;
const QUANTIZATION: u32 = 14;
const METADATA_PROPS: u32 = 16;

fn declared(values: &[ValueInfoProto]) -> Vec<Declared<'_>> {
    values.iter().map(|v| Declared { name: v.name(), value: Some(v) }).collect()
}
