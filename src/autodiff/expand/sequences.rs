//! An item of a sequence that was just made of tensors is that tensor. Other sequences have no gradient.
//!
//! Graphs that were written for ONNX Runtime's training hold values so that it takes no gradient of them.

use crate::autodiff::raise::is_standard;
use crate::graph::ValueId;
use crate::graph::types::TensorType;
use crate::lower::registry::Rule;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["SequenceAt"], because: "it is a tensor that is known", applies: |s| item(s).is_some(), rewrite: at },
    Rule { ops: &["SequenceConstruct"], because: "its items are known", applies: gives_known_items, rewrite: again },
];

/// The tensor that SequenceAt takes out of a sequence, where the graph shows it.
fn item(site: &Site) -> Option<ValueId> {
    let graph = &site.analysis.graph;
    let (maker, _) = graph.producer(graph.input(site.id, 0)?)?;
    if !is("SequenceConstruct", &site.at(maker)) {
        return None;
    }
    let position = match site.integers(1)?[..] {
        [position] if position < 0 => position + i64::try_from(graph.node(maker).input.len()).ok()?,
        [position] => position,
        _ => return None,
    };
    graph.input(maker, usize::try_from(position).ok()?)
}

/// Whether everything that is read of a sequence is known.
fn gives_known_items(site: &Site) -> bool {
    let graph = &site.analysis.graph;
    let Some(sequence) = graph.output(site.id, 0).filter(|v| !graph.is_output(*v)) else { return false };
    graph
        .uses(sequence)
        .iter()
        .map(|u| site.at(u.node))
        .all(|reader| is("SequenceAt", &reader) && item(&reader).is_some())
}

fn is(op: &str, site: &Site) -> bool {
    site.node.op_type() == op && is_standard(site.node.domain())
}

fn at(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let item = item(site).ok_or("its item is not known")?;
    Ok(vec![b.unary("Identity", &site.tensor(item)).into()])
}

/// The node as it is: none of its readers is on the way back any more.
fn again(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    Ok(b.again(site, &[TensorType::default()]).into_iter().map(Made::from).collect())
}
