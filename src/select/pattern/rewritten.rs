//! Activations that an earlier run of this tool rewrote for a training pipeline: its record says what they were.
//!
//! Their parts are no activations: where Elu was written with a Relu, that Relu is half of it, and regularising it would be wrong.

use std::collections::HashMap;

use prost::Message;

use super::Match;
use super::function::Functions;
use super::op::{Op, classify};
use crate::graph::{Attributes, Graph, NodeId};
use crate::onnx::{GraphProto, NodeProto};
use crate::record::{LOWERED, ROOT, Record, Standin};
use crate::select::Activation;
use crate::wire::Model;

/// The rewritten activations by their last nodes. Recurrent layers stay recurrent layers when rewritten and are found as such.
///
/// What another program took apart, or a record that cannot be read, is left to the patterns: others report that.
pub fn rewritten(graph: &Graph<'_>, model: &Model, functions: &Functions<'_>) -> HashMap<NodeId, Match> {
    let mut found = HashMap::new();
    let records = Record::all(model).unwrap_or_default();
    if records.iter().all(|(_, record)| record.replaced.is_empty()) {
        return found;
    }
    let standins = standins(graph);
    for (_, record) in records {
        for replaced in &record.replaced {
            let Standin::Nodes(name) = &replaced.by else { continue };
            let Some(original) = replaced.bytes().and_then(|bytes| original(&bytes)) else { continue };
            let Some(members) = standins.get(format!("{}{LOWERED}{name}", record.root).as_str()) else { continue };
            if let Some(whole) = as_match(graph, &original, members, functions) {
                found.insert(whole.node, whole);
            }
        }
    }
    found
}

/// The nodes that stand in for others, by the names of these: `per_inject/lower/elu1/relu` is of `per_inject/lower/elu1`.
fn standins<'m>(graph: &Graph<'m>) -> HashMap<&'m str, Vec<NodeId>> {
    let mut found: HashMap<&str, Vec<NodeId>> = HashMap::new();
    for id in graph.topological_order() {
        let name = graph.node(*id).name();
        if name.starts_with(ROOT)
            && let Some((whole, _)) = name.rsplit_once('/')
        {
            found.entry(whole).or_default().push(*id);
        }
    }
    found
}

/// The node that was replaced; records are those of a graph's fields.
fn original(records: &[u8]) -> Option<NodeProto> {
    GraphProto::decode(records).ok()?.node.into_iter().next()
}

fn as_match(graph: &Graph<'_>, original: &NodeProto, members: &[NodeId], functions: &Functions<'_>) -> Option<Match> {
    let Op::Activation(activation) = classify(original, functions) else { return None };
    if activation.is_recurrent() {
        return None;
    }
    let node = graph.made_by(graph.find(original.output.first()?)?)?;
    if !members.contains(&node) {
        return None;
    }
    let input = graph.find(original.input.first()?);
    let alpha = original.attribute("alpha").map_or(1.0, |a| f64::from(a.f()));
    let alpha = (activation == Activation::Elu).then_some((alpha, 1e-5));
    let mut members = members.to_vec();
    members.sort_unstable();
    Some(Match { node, activation, input, members, alpha })
}
