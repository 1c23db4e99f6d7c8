//! A model as tract takes it: with the shapes of one batch, without what nobody asks for, and in operators that tract has.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;

use super::rules;
use crate::analysis::Analysis;
use crate::graph::infer::Types;
use crate::graph::types::TensorType;
use crate::graph::{Attributes, Graph, NodeId, ValueId, bodies, bodies_mut};
use crate::lower::inline::inline;
use crate::naming;
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::regularizer::emit::Emission;
use crate::rewrite::builder::Builder;
use crate::rewrite::path::Path;
use crate::rewrite::site::{Refusal, Site, is_reasonable};
use crate::wire::Model;

/// How often what was spelt out is spelt out again.
const ROUNDS: usize = 6;

/// The model with inputs of these types and no others, as bytes, to compute these outputs. `has` tells the operators that tract has.
///
/// # Errors
/// What stands in the way, as the end of a sentence that begins with the model: every node that tract lacks, by name.
pub fn shaped(
    bytes: &[u8],
    fed: &HashMap<&str, TensorType>,
    wanted: &[String],
    has: impl Fn(&str) -> bool,
) -> Result<Vec<u8>, String> {
    let mut model = ModelProto::decode(bytes).map_err(|e| e.to_string())?;
    let graph = model.graph.as_mut().ok_or("it holds no graph")?;
    for input in &mut graph.input {
        if let Some(declared) = fed.get(input.name()).and_then(|ty| ty.declare(input.name())) {
            *input = declared;
        }
    }
    // What is fed takes the place of a default; where nothing is, the default is a constant.
    graph.initializer.retain(|t| !fed.contains_key(t.name()));
    graph.input.retain(|i| fed.contains_key(i.name()));
    // Shapes follow from those of the inputs; a declared one may be that of another batch.
    for declared in &mut graph.value_info {
        let elem = TensorType::of_value(declared).map_or(0, |ty| ty.elem);
        *declared = TensorType { elem, dims: None }.declare(declared.name()).unwrap_or_default();
    }
    graph.value_info.retain(|v| !v.name().is_empty());
    graph.output =
        wanted.iter().map(|name| ValueInfoProto { name: Some(name.clone()), ..Default::default() }).collect();
    prune(graph);
    if !model.functions.is_empty() {
        inlined(&mut model)?;
    }
    for round in 0..ROUNDS {
        let decoded = Model::from_bytes(model.encode_to_vec()).map_err(|e| e.to_string())?;
        let Some(graph) = model.graph.as_mut() else { return Err("it holds no graph".into()) };
        let is_done = !spelt_out(&decoded, graph, round)?;
        prune(graph);
        if is_done {
            break;
        }
    }
    let Some(graph) = model.graph.as_mut() else { return Err("it holds no graph".into()) };
    let mut lacking = Vec::new();
    for node in &graph.node {
        lacking.extend(lacks(node, &has).map(|op| format!("{} ({op})", named(node))));
    }
    if !lacking.is_empty() {
        return Err(format!("it lacks the operators of {}", lacking.join(", ")));
    }
    graph.value_info.clear();
    graph.node.iter_mut().for_each(spell_for_tract);
    Ok(model.encode_to_vec())
}

/// Writes out what tract 0.23.9 reads otherwise than ONNX means it, in bodies too.
fn spell_for_tract(node: &mut NodeProto) {
    for body in bodies_mut(node) {
        body.node.iter_mut().for_each(spell_for_tract);
    }
    match node.op_type() {
        // Without a value it makes zeros of float32; tract takes them for float64.
        "ConstantOfShape" if node.attribute("value").is_none() => {
            let zero = TensorProto {
                data_type: Some(DataType::Float as i32),
                dims: vec![1],
                float_data: vec![0.0],
                ..TensorProto::default()
            };
            node.attribute.push(AttributeProto {
                name: Some("value".into()),
                r#type: Some(AttributeType::Tensor as i32),
                t: Some(Box::new(zero)),
                ..AttributeProto::default()
            });
        }
        // Where the body itself reads what it gives, tract gives it the scanned axis there as well.
        "Scan" => {
            let scanned = node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            for body in bodies_mut(node) {
                let states = body.input.len().saturating_sub(scanned);
                let mut taken = names_in(body);
                for output in body.output.iter_mut().skip(states) {
                    let mut copy = format!("{}/scanned", output.name());
                    while !taken.insert(copy.clone()) {
                        copy.push('_');
                    }
                    body.node.push(NodeProto {
                        op_type: Some("Identity".into()),
                        input: vec![output.name().to_owned()],
                        output: vec![copy.clone()],
                        name: Some(copy.clone()),
                        ..NodeProto::default()
                    });
                    output.name = Some(copy);
                }
            }
        }
        _ => {}
    }
}

/// Names of values and nodes of a body.
fn names_in(body: &GraphProto) -> HashSet<String> {
    let of_nodes = body.node.iter().flat_map(|n| n.input.iter().chain(&n.output).chain(&n.name));
    let declared = body.input.iter().chain(&body.output).filter_map(|v| v.name.as_ref());
    of_nodes.chain(declared).chain(body.initializer.iter().filter_map(|t| t.name.as_ref())).cloned().collect()
}

/// How a message names a node.
fn named(node: &NodeProto) -> String {
    match (node.name(), node.output.iter().find(|o| !o.is_empty())) {
        ("", Some(output)) => format!("the node that makes {output:?}"),
        (name, _) => format!("node {name:?}"),
    }
}

/// The operator that is lacking: the node's own, or one in its bodies.
fn lacks(node: &NodeProto, has: &impl Fn(&str) -> bool) -> Option<String> {
    if !matches!(node.domain(), "" | "ai.onnx") {
        return Some(format!("{}:{}", node.domain(), node.op_type()));
    }
    if !has(node.op_type()) {
        return Some(node.op_type().to_owned());
    }
    let inner = bodies(node).find_map(|(body, _)| body.node.iter().find_map(|n| lacks(n, has)));
    inner.map(|op| format!("{op} in a body of {}", node.op_type()))
}

/// Leaves out nodes, inputs and initializers that no output needs.
fn prune(graph: &mut GraphProto) {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        makers.extend(node.output.iter().filter(|o| !o.is_empty()).map(|o| (o.as_str(), i)));
    }
    let mut needed: HashSet<String> = HashSet::new();
    let mut is_kept = vec![false; graph.node.len()];
    let mut waiting: Vec<String> = graph.output.iter().map(|o| o.name().to_owned()).collect();
    while let Some(name) = waiting.pop() {
        if let Some(i) = makers.get(name.as_str()).filter(|i| !is_kept[**i]) {
            is_kept[*i] = true;
            reads(&graph.node[*i], &mut waiting);
        }
        needed.insert(name);
    }
    let mut kept = is_kept.iter();
    graph.node.retain(|_| kept.next().copied().unwrap_or(true));
    graph.input.retain(|i| needed.contains(i.name()));
    graph.initializer.retain(|t| needed.contains(t.name()));
    graph.sparse_initializer.retain(|t| t.values.as_ref().is_none_or(|v| needed.contains(v.name())));
}

/// What a node reads, in its bodies too.
fn reads(node: &NodeProto, names: &mut Vec<String>) {
    names.extend(node.input.iter().filter(|i| !i.is_empty()).cloned());
    for (body, _) in bodies(node) {
        names.extend(body.output.iter().map(|o| o.name().to_owned()));
        body.node.iter().for_each(|n| reads(n, names));
    }
}

/// Calls of the model's functions become their bodies.
fn inlined(model: &mut ModelProto) -> Result<(), String> {
    let decoded = Model::from_bytes(model.encode_to_vec()).map_err(|e| e.to_string())?;
    let analysis = Analysis::of(&decoded).map_err(|e| e.to_string())?;
    let (root, _) = naming::free_root(&decoded, &analysis.graph);
    let all: Vec<ValueId> = analysis.graph.values().collect();
    let path = Path::between(&analysis, &all, &analysis.graph.outputs, |_, _| false);
    let nodes = inline(&analysis, &path, &root).map_err(|e| e.to_string())?.map(|made| made.model.graph.nodes);
    if let (Some(graph), Some(nodes)) = (model.graph.as_mut(), nodes) {
        graph.node = nodes;
    }
    model.functions.clear();
    Ok(())
}

/// Spells out what tract lacks, once; returns whether there was any. `graph` is that of the model.
fn spelt_out(model: &Model, graph: &mut GraphProto, round: usize) -> Result<bool, String> {
    let analysis = Analysis::of(model).map_err(|e| e.to_string())?;
    let (root, _) = naming::free_root(model, &analysis.graph);
    let path = Path::between(&analysis, &[], &[], |_, _| false);
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut constants: HashMap<String, TensorProto> = HashMap::new();
    let mut is_changed = false;
    let mut refused = BTreeSet::new();
    for (i, node) in graph.node.drain(..).enumerate() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        if let Some(known) = known_shape(&analysis.graph, &analysis.types, id) {
            constants.insert(known.name().to_owned(), known);
            is_changed = true;
            continue;
        }
        let site = Site::new(&analysis, &path, id);
        let Some(rule) = rules::rule(&site) else {
            nodes.push(node);
            continue;
        };
        let mut builder = Builder::new(model.opset(), &root, &format!("{round}_{i}"), site.parameters());
        match is_reasonable(&site).and_then(|()| (rule.rewrite)(&site, &mut builder)) {
            Ok(made) => {
                let Emission { nodes: written, constants: added, .. } = builder.finish(&node.output, &made);
                nodes.extend(written);
                constants.extend(added);
                is_changed = true;
            }
            Err(Refusal(reason)) => {
                refused.insert(format!("{}: {reason}, and {}", analysis.graph.describe(id), rule.because));
            }
        }
    }
    if !refused.is_empty() {
        return Err(refused.into_iter().collect::<Vec<_>>().join("; "));
    }
    graph.node = nodes;
    graph.initializer.extend(constants.into_values());
    Ok(is_changed)
}

/// What a Shape or Size gives, where all of it is known.
fn known_shape(graph: &Graph<'_>, types: &Types, id: NodeId) -> Option<TensorProto> {
    let node = graph.node(id);
    let dims = types.get(graph.input(id, 0)?).dims.as_ref()?;
    let sizes: Vec<i64> = dims.iter().map(|d| i64::try_from(d.known()?).ok()).collect::<Option<_>>()?;
    let (dims, values) = match node.op_type() {
        "Shape" if matches!(node.domain(), "" | "ai.onnx") => {
            let rank = i64::try_from(sizes.len()).ok()?;
            let place = |name: &str, default: i64| {
                let at = node.int(name).unwrap_or(default);
                usize::try_from((if at < 0 { at + rank } else { at }).clamp(0, rank)).ok()
            };
            let values = sizes.get(place("start", 0)?..place("end", rank)?).unwrap_or_default().to_vec();
            (vec![i64::try_from(values.len()).ok()?], values)
        }
        "Size" if matches!(node.domain(), "" | "ai.onnx") => {
            (Vec::new(), vec![sizes.iter().try_fold(1i64, |n, d| n.checked_mul(*d))?])
        }
        _ => return None,
    };
    let raw: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
    Some(TensorProto {
        name: Some(node.output.first()?.clone()),
        data_type: Some(DataType::Int64 as i32),
        dims,
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    })
}
