//! Calls of the model's own functions, spelt out: the gradient builder does not look inside them.
//!
//! The body of the function takes the place of the call, with the call's inputs, outputs and attributes in it; calls inside it likewise.

use std::collections::HashMap;

use super::path::Path;
use super::site::{Known, Refusal};
use super::{LowerError, Unlowered};
use crate::analysis::Analysis;
use crate::graph::{Attributes, NodeId};
use crate::onnx::{FunctionProto, NodeProto};
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::wire::Model;

/// How deep functions may call each other.
const DEEPEST: usize = 32;

/// A model without calls on the path of a gradient.
pub struct Inlined {
    /// The model.
    pub model: Model,
    /// By node of it: which node of the original it is, or stands for.
    pub origin: Vec<usize>,
    /// By node of the original: whether it is a call that was spelt out.
    pub is_call: Vec<bool>,
}

/// Spells out every call that a gradient has to pass; `None` where there is none. New names start with `root`.
pub fn inline(analysis: &Analysis, path: &Path, root: &str) -> Result<Option<Inlined>, LowerError> {
    let (model, graph) = (analysis.model, &analysis.graph);
    let mut is_call = vec![false; graph.nodes.len()];
    let mut origin = Vec::with_capacity(graph.nodes.len());
    let mut change = Change::default();
    let mut unlowered = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        let Some(function) = callee(model, node).filter(|_| path.passes(id)) else {
            origin.push(i);
            continue;
        };
        match body(model, node, function, &format!("{root}inline/{i}/"), 0) {
            Ok(nodes) => {
                is_call[i] = true;
                origin.extend(std::iter::repeat_n(i, nodes.len()));
                change.replacements.push(Replacement { part: Part::Node(i), with: Substitute::Nodes(nodes.into()) });
            }
            Err(Refusal(reason)) => unlowered.push(Unlowered { node: graph.describe(id), reason }),
        }
    }
    if !unlowered.is_empty() {
        return Err(LowerError::Unlowered { nodes: unlowered });
    }
    if change.replacements.is_empty() {
        return Ok(None);
    }
    Ok(Some(Inlined { model: model.with_nodes(&change)?, origin, is_call }))
}

fn callee<'m>(model: &'m Model, node: &NodeProto) -> Option<&'m FunctionProto> {
    model.functions.iter().find(|f| f.domain() == node.domain() && f.name() == node.op_type())
}

/// The nodes of a function's body in the place of one call.
fn body(
    model: &Model,
    call: &NodeProto,
    function: &FunctionProto,
    prefix: &str,
    depth: usize,
) -> Known<Vec<NodeProto>> {
    if depth > DEEPEST {
        return Err(Refusal(format!("functions call each other more than {DEEPEST} deep")));
    }
    for import in &function.opset_import {
        let known = model.opset_imports.iter().find(|o| o.domain() == import.domain()).map(|o| o.version());
        let calls = model.functions.iter().any(|f| f.domain() == import.domain());
        if known != Some(import.version()) && !calls {
            let (domain, version) = (import.domain(), import.version());
            return Err(Refusal(format!(
                "its function imports version {version} of {domain:?}, and the model does not"
            )));
        }
    }
    let mut names: HashMap<&str, String> = HashMap::new();
    for (i, input) in function.input.iter().enumerate() {
        names.insert(input, call.input.get(i).cloned().unwrap_or_default());
    }
    let mut nodes = Vec::new();
    for (i, output) in function.output.iter().enumerate() {
        let Some(outer) = call.output.get(i).filter(|o| !o.is_empty()) else { continue };
        match names.get(output.as_str()) {
            // An input that is handed out again.
            Some(inner) => nodes.push(NodeProto {
                op_type: Some("Identity".into()),
                input: vec![inner.clone()],
                output: vec![outer.clone()],
                ..NodeProto::default()
            }),
            None => {
                names.insert(output, outer.clone());
            }
        }
    }
    for (i, inner) in function.node.iter().enumerate() {
        let renamed = |name: &String| match names.get(name.as_str()) {
            Some(outer) => outer.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{prefix}{name}"),
        };
        let mut node = NodeProto {
            input: inner.input.iter().map(renamed).collect(),
            output: inner.output.iter().map(renamed).collect(),
            name: Some(format!("{prefix}{i}")),
            attribute: Vec::new(),
            ..inner.clone()
        };
        for attribute in &inner.attribute {
            if attribute.g.is_some() || !attribute.graphs.is_empty() {
                return Err(Refusal(format!("its function holds a body of {}", inner.op_type())));
            }
            if attribute.ref_attr_name().is_empty() {
                node.attribute.push(attribute.clone());
                continue;
            }
            let named = attribute.ref_attr_name();
            let default = function.attribute_proto.iter().find(|a| a.name() == named);
            if let Some(value) = call.attribute(named).or(default) {
                let mut value = value.clone();
                value.name = attribute.name.clone();
                node.attribute.push(value);
            }
        }
        match callee(model, &node) {
            Some(nested) => nodes.extend(body(model, &node, nested, &format!("{prefix}{i}/"), depth + 1)?),
            None => nodes.push(node),
        }
    }
    Ok(nodes)
}
