//! A model brought to a newer operator set of ONNX's own operators, for gradients that need one.
//!
//! What became of every operator is in [`TABLE`]. A node stays as it is where nothing changed, is written in the newer form where that
//! form is known exactly, and is refused where it might mean something else. Bodies of If, Loop and Scan are raised with their nodes.

mod convert;
mod resize;

use std::collections::BTreeSet;

use super::error::DifferentiateError;
use crate::analysis::Analysis;
use crate::graph::types::TensorType;
use crate::graph::{NodeId, ValueId, bodies_mut};
use crate::lower::by_reason;
use crate::onnx::NodeProto;
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::rewrite::site::{Known, Refusal};
use crate::wire::Model;
use convert::Converter;

/// Operators, the operator sets after 9 that revised them, and what that did.
const TABLE: &str = include_str!("operators.txt");

/// The newest operator set in the table.
pub const NEWEST: i64 = 26;

/// A model of a newer operator set.
pub struct Raised {
    /// The model.
    pub model: Model,
    /// By node of it: which node of the original it is, or stands for.
    pub origin: Vec<usize>,
    /// Nodes of the original that others stand for.
    pub converted: BTreeSet<usize>,
}

/// The model in operator set `to`; `None` where it is in that already. New names start with `root`.
///
/// # Errors
///
/// All nodes at once whose meaning may have changed; functions or algorithm graphs, which have nodes of their own.
pub fn raise(analysis: &Analysis, to: i64, root: &str) -> Result<Option<Raised>, DifferentiateError> {
    let model = analysis.model;
    let found = model.opset();
    let refuse = |problem: String| Err(DifferentiateError::Raise { found, to, problem });
    let imports = model.opset_imports.iter().filter(|o| is_standard(o.domain())).count();
    match () {
        () if to == found => return Ok(None),
        () if to < found => return refuse("--opset goes up, not down".into()),
        () if to > NEWEST => return refuse(format!("{NEWEST} is the newest that is known")),
        () if imports != 1 => return refuse(format!("it imports ONNX's own operators {imports} times")),
        () if !model.functions.is_empty() => {
            return refuse("it has functions of its own; inline them first, with onnx.inliner".into());
        }
        () if !model.training_info.is_empty() => {
            return refuse("it has training_info, whose graphs would have to be raised as well".into());
        }
        () => {}
    }
    let graph = &analysis.graph;
    let (mut origin, mut converted) = (Vec::with_capacity(graph.nodes.len()), BTreeSet::new());
    let mut change = Change::default();
    let mut refused = Vec::new();
    let mut converter = Converter::new(to, root);
    for (i, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        match raised(node, Inputs::Of(analysis, id), found, &mut converter) {
            Ok(None) => origin.push(i),
            Ok(Some(nodes)) => {
                origin.extend(std::iter::repeat_n(i, nodes.len()));
                converted.insert(i);
                change.replacements.push(Replacement { part: Part::Node(i), with: Substitute::Nodes(nodes.into()) });
            }
            Err(Refusal(reason)) => refused.push((graph.describe(id), reason)),
        }
    }
    if !refused.is_empty() {
        return refuse(by_reason(refused.iter().map(|(node, reason)| (node.as_str(), reason.as_str()))));
    }
    let mut model = model.with_nodes(&change)?;
    model.opset_imports.iter_mut().filter(|o| is_standard(o.domain())).for_each(|o| o.version = Some(to));
    Ok(Some(Raised { model, origin, converted }))
}

/// Whether a domain is that of ONNX's own operators.
pub fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// What is known of a node's inputs.
#[derive(Clone, Copy)]
enum Inputs<'a> {
    /// Of a node of the main graph.
    Of(&'a Analysis<'a>, NodeId),
    /// Inside bodies nothing is inferred.
    Unknown,
}

impl<'a> Inputs<'a> {
    fn value(self, slot: usize) -> Option<(&'a Analysis<'a>, ValueId)> {
        let Inputs::Of(analysis, node) = self else { return None };
        Some((analysis, analysis.graph.input(node, slot)?))
    }

    /// The type of an input.
    fn ty(self, slot: usize) -> TensorType {
        self.value(slot).map(|(analysis, value)| analysis.types.get(value).clone()).unwrap_or_default()
    }

    /// The numbers of a constant input.
    fn numbers(self, slot: usize) -> Option<Vec<f64>> {
        let (analysis, value) = self.value(slot)?;
        analysis.graph.constant(value)
    }
}

/// What stands for a node; `None` where it stays.
fn raised(node: &NodeProto, inputs: Inputs<'_>, from: i64, converter: &mut Converter) -> Known<Option<Vec<NodeProto>>> {
    if !is_standard(node.domain()) {
        let has_body = node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
        return if has_body { Err(Refusal(format!("{:?} has a body", node.op_type()))) } else { Ok(None) };
    }
    let mut made = node.clone();
    let (mut before, mut after, mut is_new) = (Vec::new(), Vec::new(), false);
    for body in bodies_mut(&mut made) {
        let mut nodes = Vec::with_capacity(body.node.len());
        for inner in std::mem::take(&mut body.node) {
            let raised = raised(&inner, Inputs::Unknown, from, converter)
                .map_err(|Refusal(reason)| Refusal(format!("in its body, {}: {reason}", inner.op_type())))?;
            is_new |= raised.is_some();
            nodes.extend(raised.unwrap_or_else(|| vec![inner]));
        }
        body.node = nodes;
    }
    let mut version = from;
    while let Some((next, change)) = next_revision(made.op_type(), version, converter.to)? {
        version = next;
        match change {
            "" | "+" => {}
            rule => {
                let rule = rule.trim_start_matches(':');
                is_new |= converter.convert(rule, &mut made, inputs, &mut before, &mut after)?;
            }
        }
    }
    if !is_new {
        return Ok(None);
    }
    before.push(made);
    before.append(&mut after);
    Ok(Some(before))
}

/// The first revision of an operator after one operator set and up to another, with its mark in the table.
fn next_revision(op: &str, after: i64, to: i64) -> Known<Option<(i64, &'static str)>> {
    let mut rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    let row = rows.find_map(|line| line.strip_prefix(op)?.strip_prefix(' ').or((line == op).then_some("")));
    let row = row.ok_or_else(|| Refusal(format!("what became of {op} is not known")))?;
    let revision = |word: &'static str| {
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (version, change) = word.split_at(end);
        Some((version.parse::<i64>().ok()?, change))
    };
    Ok(row.split_whitespace().filter_map(revision).find(|(version, _)| (after + 1..=to).contains(version)))
}
