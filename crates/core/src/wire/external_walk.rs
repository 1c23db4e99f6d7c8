//! Every tensor of a model whose elements lie in another file, wherever in the model the tensor stands.

use super::error::WireResult;
use super::fields::graph;
use super::model::Model;
use super::record::records;
use super::tensor::Initializer;
use crate::onnx::tensor_proto::DataLocation;
use crate::onnx::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto};

/// What is called with a tensor's name and the keys and values that locate its elements.
type Visit<'v> = dyn FnMut(&str, &[(&str, &str)]) -> WireResult<()> + 'v;

/// Visits the external tensors of the main graph, of attributes and bodies, of functions and of `training_info`.
pub fn for_each_external(model: &Model, visit: &mut Visit<'_>) -> WireResult<()> {
    for initializer in &model.graph.initializers {
        head(initializer, visit)?;
    }
    let bytes = &model.file.bytes;
    for sparse in
        model.layout.graph.records.iter().filter(|r| r.field == graph::SPARSE_INITIALIZER && r.is_length_delimited())
    {
        for part in records(bytes, sparse.payload.clone()) {
            let part = part?;
            // SparseTensorProto.values = 1, indices = 2.
            if matches!(part.field, 1 | 2) && part.is_length_delimited() {
                head(&Initializer::read(bytes, part.payload)?, visit)?;
            }
        }
    }
    nodes(&model.graph.nodes, visit)?;
    for function in &model.functions {
        nodes(&function.node, visit)?;
        for default in &function.attribute_proto {
            attribute(default, function.name(), visit)?;
        }
    }
    for i in 0..model.training_info.len() {
        let training = model.decode_training_info(i)?;
        for graph in training.initialization.iter().chain(&training.algorithm) {
            body(graph, visit)?;
        }
    }
    Ok(())
}

fn head(initializer: &Initializer, visit: &mut Visit<'_>) -> WireResult<()> {
    if initializer.external.is_empty() {
        return Ok(());
    }
    let entries: Vec<_> = initializer.external.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    visit(&initializer.name, &entries)
}

fn nodes(nodes: &[NodeProto], visit: &mut Visit<'_>) -> WireResult<()> {
    for node in nodes {
        let name = [node.name(), node.output.first().map_or("", |o| o), node.op_type()];
        let name = name.into_iter().find(|n| !n.is_empty()).unwrap_or_default();
        for part in &node.attribute {
            attribute(part, name, visit)?;
        }
    }
    Ok(())
}

/// `owner` is what an attribute's tensor is called when it has no name of its own, as is usual.
fn attribute(attribute: &AttributeProto, owner: &str, visit: &mut Visit<'_>) -> WireResult<()> {
    for part in attribute.t.as_deref().into_iter().chain(&attribute.tensors) {
        tensor(part, owner, visit)?;
    }
    for part in attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors) {
        sparse(part, owner, visit)?;
    }
    for part in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
        body(part, visit)?;
    }
    Ok(())
}

fn body(graph: &GraphProto, visit: &mut Visit<'_>) -> WireResult<()> {
    for part in &graph.initializer {
        tensor(part, graph.name(), visit)?;
    }
    for part in &graph.sparse_initializer {
        sparse(part, graph.name(), visit)?;
    }
    nodes(&graph.node, visit)
}

fn sparse(sparse: &SparseTensorProto, owner: &str, visit: &mut Visit<'_>) -> WireResult<()> {
    sparse.values.iter().chain(&sparse.indices).try_for_each(|part| tensor(part, owner, visit))
}

fn tensor(tensor: &TensorProto, owner: &str, visit: &mut Visit<'_>) -> WireResult<()> {
    if tensor.data_location() != DataLocation::External {
        return Ok(());
    }
    let name = if tensor.name().is_empty() { owner } else { tensor.name() };
    let entries: Vec<_> = tensor.external_data.iter().map(|e| (e.key(), e.value())).collect();
    visit(name, &entries)
}
