//! Before the way back: calls of local functions are spelt out, and so are operators (or forms of them) that have no rule of their own
//! but that [lowering](crate::lower) knows in terms of operators that do.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{DifferentiateError, Undifferentiable};
use super::raise::Raised;
use super::{expand, rule};
use crate::analysis::Analysis;
use crate::graph::{NodeId, ValueId};
use crate::lower::inline::inline;
use crate::lower::registry;
use crate::naming::LayerNames;
use crate::onnx::{NodeProto, TensorProto, ValueInfoProto};
use crate::patch::{Change, Part, Replacement, Substitute};
use crate::record::LOWERED;
use crate::rewrite::builder::Builder;
use crate::rewrite::path::Path;
use crate::rewrite::site::{Refusal, Site, is_reasonable};
use crate::wire::Model;

/// How often what was spelt out is spelt out again.
const ROUNDS: usize = 6;

/// A model in which every node on the path has a rule.
pub struct Prepared {
    /// The model.
    pub model: Model,
    /// By node of it: which node of the original it is, or stands for.
    pub origin: Vec<usize>,
    /// By node of the original: what it is called where others stand for it.
    pub names: BTreeMap<usize, String>,
    /// Constants that were added.
    pub constants: Vec<TensorProto>,
    /// Declared types that were added.
    pub value_info: Vec<ValueInfoProto>,
}

/// What was done to the model before.
#[derive(Default)]
pub struct Start<'a> {
    /// What it became in a newer operator set, which has no functions.
    pub raised: Option<Raised>,
    /// Nodes of it that are not those of its file.
    pub changed: Option<&'a BTreeSet<usize>>,
}

/// Which initializers of a prepared model are trained: those that were.
pub fn trained(original: &Analysis, prepared: &Analysis) -> Vec<bool> {
    let mut trained = original.trained.clone();
    // What was added stands behind the model's own.
    trained.resize(prepared.trained.len(), false);
    trained
}

/// The value of the same name.
pub fn same_value(from: &Analysis, value: ValueId, to: &Analysis) -> ValueId {
    to.graph.find(from.graph.name(value)).unwrap_or(value)
}

/// Spells out what has no rule between some values and others; `None` where everything has one, and every node is the file's own. New names
/// start with `root`.
///
/// # Errors
///
/// All nodes at once that neither have a rule nor can be spelt out.
pub fn prepare(
    original: &Analysis,
    from: &[ValueId],
    to: &[ValueId],
    root: &str,
    start: Start<'_>,
) -> Result<Option<Prepared>, DifferentiateError> {
    let path = Path::between(original, from, to, rule::stops);
    let mut names = BTreeMap::new();
    let mut layers = LayerNames::default();
    let mut name_of = |names: &mut BTreeMap<usize, String>, old: usize| {
        let id = NodeId(u32::try_from(old).unwrap_or(u32::MAX));
        names.entry(old).or_insert_with(|| layers.name(&original.graph, Some(id), "")).clone()
    };
    for old in start.changed.into_iter().flatten() {
        name_of(&mut names, *old);
    }
    let mut state = match start.raised {
        Some(raised) => {
            for old in raised.converted {
                name_of(&mut names, old);
            }
            Some((raised.model, raised.origin))
        }
        None => inline(original, &path, root)?.map(|inlined| {
            for (old, is_call) in inlined.is_call.iter().enumerate() {
                if *is_call {
                    name_of(&mut names, old);
                }
            }
            (inlined.model, inlined.origin)
        }),
    };
    if state.is_none() && !names.is_empty() {
        let itself = original.model.with_nodes(&Change::default())?;
        state = Some((itself, (0..original.graph.nodes.len()).collect()));
    }
    let (mut constants, mut value_info) = (BTreeMap::new(), Vec::new());
    for round in 0..ROUNDS {
        let inner = state.as_ref().map(|(model, _)| Analysis::of(model)).transpose()?;
        let analysis = inner.as_ref().unwrap_or(original);
        let same = |values: &[ValueId]| -> Vec<ValueId> {
            values.iter().map(|v| same_value(original, *v, analysis)).collect()
        };
        let path = Path::between(analysis, &same(from), &same(to), rule::stops);
        let origin = |i: usize| state.as_ref().map_or(i, |(_, origin)| origin[i]);
        let mut change = Change::default();
        let mut next_origin = Vec::with_capacity(analysis.graph.nodes.len());
        let mut unknown = Vec::new();
        for i in 0..analysis.graph.nodes.len() {
            let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
            let old = origin(i);
            let site = Site::new(analysis, &path, id);
            if !path.passes(id) || (rule::rule(&site).is_some() && !expand::elu::is_faster(&site)) {
                next_origin.push(old);
                continue;
            }
            let label = format!("{LOWERED}{}/{round}_{i}", name_of(&mut names, old));
            match spelt_out(&site, root, &label) {
                Ok(mut emission) => {
                    next_origin.extend(std::iter::repeat_n(old, emission.nodes.len()));
                    let with = Substitute::Nodes(std::mem::take(&mut emission.nodes).into());
                    change.replacements.push(Replacement { part: Part::Node(i), with });
                    let fresh: Vec<(String, TensorProto)> =
                        emission.constants.into_iter().filter(|(name, _)| !constants.contains_key(name)).collect();
                    change.initializers.extend(fresh.iter().map(|(_, tensor)| tensor.clone()));
                    constants.extend(fresh);
                    value_info.append(&mut emission.value_info);
                }
                Err(Refusal(reason)) => unknown.push(Undifferentiable {
                    node: original.graph.describe(NodeId(u32::try_from(old).unwrap_or(u32::MAX))),
                    reason,
                }),
            }
        }
        if !unknown.is_empty() {
            return Err(DifferentiateError::Undifferentiable { nodes: unknown });
        }
        if change.replacements.is_empty() {
            break;
        }
        drop(inner);
        let model = state.as_ref().map_or(original.model, |(model, _)| model);
        state = Some((model.with_nodes(&change)?, next_origin));
    }
    let made =
        |(model, origin)| Prepared { model, origin, names, constants: constants.into_values().collect(), value_info };
    Ok(state.map(made))
}

/// The nodes that stand for one without a rule.
fn spelt_out(site: &Site, root: &str, label: &str) -> Result<crate::regularizer::emit::Emission, Refusal> {
    let Some(lowering) = expand::rule(site).or_else(|| registry::rule(site)) else {
        let op = site.node.op_type();
        return Err(Refusal(match site.node.domain() {
            "" | "ai.onnx" => format!("there is no rule for {op}, or not for this form of it"),
            domain => format!("there is no rule for {op} of {domain:?}"),
        }));
    };
    is_reasonable(site)?;
    let mut builder = Builder::new(site.opset(), root, label, site.parameters());
    let outputs = (lowering.rewrite)(site, &mut builder)?;
    Ok(builder.finish(&site.node.output, &outputs))
}

/// What stands for each node of the original that is not itself any more, under names that strip knows.
pub fn stand_ins(prepared: &Prepared, root: &str, nodes: &[Vec<NodeProto>]) -> BTreeMap<usize, Vec<NodeProto>> {
    let mut groups: BTreeMap<usize, Vec<NodeProto>> = BTreeMap::new();
    for (nodes, old) in nodes.iter().zip(&prepared.origin) {
        let Some(name) = prepared.names.get(old) else { continue };
        let group = groups.entry(*old).or_default();
        for node in nodes {
            let called = format!("{root}{LOWERED}{name}/{}_{}", group.len(), node.op_type().to_ascii_lowercase());
            group.push(NodeProto { name: Some(called), ..node.clone() });
        }
    }
    groups
}
