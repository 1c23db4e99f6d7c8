//! Reverse mode: from the loss back to what is trained, over the nodes between them alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::adjoint::{Adjoint, Cotangent, Remade, Saved};
use super::composite;
use super::error::Undifferentiable;
use super::optimizer::{LEARNING_RATE, LOSS_SCALE, LossScale};
use super::rule;
use crate::analysis::Analysis;
use crate::graph::types::{Dim, TensorType};
use crate::graph::{NodeId, ValueId, captures_of};
use crate::naming::LayerNames;
use crate::onnx::{NodeProto, TensorProto, ValueInfoProto};
use crate::regularizer::emit::{Elem, Emission, Tensor};
use crate::rewrite::builder::{Builder, is_half};
use crate::rewrite::path::Path;
use crate::rewrite::site::{Refusal, Site, is_reasonable};

/// The backward pass.
#[derive(Debug, Default)]
pub struct Reversed {
    /// Its nodes, in topological order.
    pub nodes: Vec<NodeProto>,
    /// Declared types of what they make.
    pub value_info: Vec<ValueInfoProto>,
    /// Constants that they read, by name.
    pub constants: BTreeMap<String, TensorProto>,
    /// Gradients of what was asked for and reaches the loss.
    pub gradients: HashMap<ValueId, Tensor>,
    /// Outputs that forward nodes have to have as well.
    pub saved: Saved,
    /// Forward nodes that others take the place of.
    pub remade: Remade,
    /// Types of the outputs that forward nodes have for the gradients' sake, by name.
    pub made: HashMap<String, TensorType>,
    /// Gradients of float16 and bfloat16 values that were made in float32, by what they became.
    pub wide: HashMap<String, Tensor>,
}

/// What to differentiate for.
pub struct Goal {
    /// The values whose gradients are asked for.
    pub from: Vec<ValueId>,
    /// Cotangents to start from; a value may have several.
    pub seeds: Vec<(ValueId, Cotangent)>,
    /// Whether the graph is a body that runs more than once.
    pub is_repeated: bool,
    /// Whether convolutions may be written by tiles.
    pub tiles: bool,
}

impl Reversed {
    /// A part of a gradient that is to be summed, in float32 where it is float16 or bfloat16.
    fn widened(&self, b: &mut Builder, part: Cotangent) -> Cotangent {
        let tensor = match self.wide.get(&part.tensor.name) {
            Some(wide) => wide.clone(),
            None => b.widened(&part.tensor),
        };
        Cotangent { tensor, ..part }
    }

    /// The sum in its value's type.
    fn narrowed(&mut self, b: &mut Builder, sum: Cotangent, elem: i32) -> Cotangent {
        if !is_half(elem) || sum.tensor.ty.elem != Elem::F32.onnx() {
            return sum;
        }
        let narrow = b.cast(&sum.tensor, elem);
        self.wide.insert(narrow.name.clone(), sum.tensor);
        Cotangent { tensor: narrow, ..sum }
    }

    /// A gradient as an optimiser reads it: before it took the type of its parameter.
    pub fn in_full(&self, gradient: &Tensor) -> Tensor {
        self.wide.get(&gradient.name).unwrap_or(gradient).clone()
    }

    /// Leaves out what neither a result nor anything that stays reads.
    pub fn without_unread(&mut self, results: &HashSet<&str>) {
        let mut read: HashSet<String> = results.iter().map(|name| (*name).to_owned()).collect();
        read.extend(self.remade.values().flatten().flat_map(reads));
        let mut gone = HashSet::new();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.output.iter().any(|o| read.contains(o)) {
                read.extend(reads(&node));
                kept.push(node);
            } else {
                gone.extend(node.output);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.value_info.retain(|v| !gone.contains(v.name()));
        self.constants.retain(|name, _| read.contains(name));
    }

    /// Puts something before everything else.
    pub(super) fn add_first(&mut self, mut emission: Emission) {
        emission.nodes.append(&mut self.nodes);
        self.nodes = std::mem::take(&mut emission.nodes);
        self.add(emission);
    }

    pub(super) fn add(&mut self, mut emission: Emission) {
        self.nodes.append(&mut emission.nodes);
        self.value_info.append(&mut emission.value_info);
        // (BTreeMap's append would build all of it anew each time.)
        self.constants.extend(emission.constants);
    }
}

/// Differentiates a graph. Every name that is added starts with `root`.
///
/// # Errors
///
/// All nodes at once whose gradient is not known.
pub fn reverse(analysis: &Analysis, path: &Path, goal: Goal, root: &str) -> Result<Reversed, Vec<Undifferentiable>> {
    let graph = &analysis.graph;
    let opset = analysis.model.opset();
    let mut contributions: HashMap<ValueId, Vec<Cotangent>> = HashMap::new();
    let mut reversed = Reversed::default();
    let mut unknown = Vec::new();
    let mut names = LayerNames::default();
    for (value, cotangent) in goal.seeds {
        contributions.entry(value).or_default().push(cotangent);
    }

    for id in graph.topological_order().iter().rev().copied().filter(|id| path.passes(*id)) {
        let outputs = graph.outputs_of(id);
        if !outputs.iter().flatten().any(|v| contributions.contains_key(v)) {
            continue;
        }
        let site = Site::new(analysis, path, id);
        let Some(rule) = rule::rule(&site) else {
            unknown.push(refusal(&site));
            // What lies before it may be unknown as well: one message names all.
            let inputs = graph.inputs_of(id).iter().enumerate().filter(|(slot, _)| site.needs_gradient(*slot));
            for value in inputs.filter_map(|(_, v)| *v) {
                contributions.entry(value).or_default();
            }
            continue;
        };
        let label = format!("grad/{}", names.name(graph, Some(id), ""));
        let mut builder = Builder::new(opset, root, &label, Vec::new());
        let mut cotangents = Vec::new();
        for value in outputs {
            let parts = value.and_then(|v| contributions.remove(&v)).unwrap_or_default();
            cotangents.push(value.and_then(|v| total(&mut builder, analysis, v, parts)));
        }
        let composite = composite::ending_at(analysis, path, id);
        if let (Some(composite), [Some(g)]) = (composite, &cotangents[..]) {
            let slope = composite.slope(analysis, &mut builder);
            let product = builder.binary("Mul", &g.tensor, &slope);
            let tensor = Tensor { ty: slope.ty, ..product };
            contributions.entry(composite.operand).or_default().push(Cotangent { tensor, is_full: true });
            reversed.add(builder.finish(&[], &[]));
            continue;
        }
        let mut forward = Builder::new(opset, root, &label.replacen("grad/", "forward/", 1), Vec::new());
        let mut adjoint = Adjoint {
            site,
            b: &mut builder,
            cotangents,
            saved: &mut reversed.saved,
            remade: &mut reversed.remade,
            made: &mut reversed.made,
            wide: &mut reversed.wide,
            prefix: format!("{root}{label}/"),
            is_repeated: goal.is_repeated,
            tiles: goal.tiles,
            forward: &mut forward,
            stand_in: None,
            given: Vec::new(),
            given_to_captures: Vec::new(),
        };
        // Behind a node without a rule nothing is given, and the others are looked at for their rules alone.
        let outcome = if adjoint.cotangents.iter().any(Option::is_some) {
            is_reasonable(&site).and_then(|()| (rule.adjoint)(&mut adjoint))
        } else {
            Ok(())
        };
        let Adjoint { given, given_to_captures, stand_in, .. } = adjoint;
        if let Some(made) = stand_in {
            let mut emission = forward.finish(&site.node.output, &made);
            reversed.remade.insert(id, std::mem::take(&mut emission.nodes));
            reversed.add(emission);
        }
        match outcome {
            Ok(()) => {
                for (slot, cotangent) in given {
                    if let Some(value) = graph.input(id, slot).filter(|v| path.needs_gradient(*v)) {
                        contributions.entry(value).or_default().push(cotangent);
                    }
                }
                for (value, cotangent) in given_to_captures {
                    contributions.entry(value).or_default().push(cotangent);
                }
                reversed.add(builder.finish(&[], &[]));
            }
            Err(Refusal(reason)) => unknown.push(Undifferentiable { node: graph.describe(id), reason }),
        }
        if !unknown.is_empty() {
            for (slot, value) in graph.inputs_of(id).iter().enumerate() {
                if let Some(value) = value.filter(|_| site.needs_gradient(slot)) {
                    contributions.entry(value).or_default();
                }
            }
            for value in site.captures_with_gradient() {
                contributions.entry(value).or_default();
            }
        }
    }
    if !unknown.is_empty() {
        unknown.reverse();
        return Err(unknown);
    }
    for value in goal.from {
        let Some(parts) = contributions.remove(&value) else { continue };
        let label = format!("grad/{}", names.name(graph, None, graph.name(value)));
        let mut builder = Builder::new(opset, root, &label, Vec::new());
        let elem = analysis.types.get(value).elem;
        let parts = if parts.len() > 1 {
            parts.into_iter().map(|p| reversed.widened(&mut builder, p)).collect()
        } else {
            parts
        };
        if let Some(sum) = total(&mut builder, analysis, value, parts) {
            let sum = reversed.narrowed(&mut builder, sum, elem);
            let gradient = if sum.is_full {
                sum.tensor
            } else {
                let like = Tensor { name: graph.name(value).to_owned(), ty: analysis.types.get(value).clone() };
                builder.expand_like(&sum.tensor, &like)
            };
            reversed.gradients.insert(value, gradient);
        }
        reversed.add(builder.finish(&[], &[]));
    }
    Ok(reversed)
}

/// The cotangent of the loss, 1 or what it is scaled by, and what makes it. `takes_rate`: see [`takes_rate`](super::optimizer::takes_rate).
pub fn seed(
    analysis: &Analysis,
    loss: ValueId,
    root: &str,
    scale: LossScale,
    takes_rate: bool,
) -> (Cotangent, Emission) {
    let mut b = Builder::new(analysis.model.opset(), root, "grad", Vec::new());
    let ty = analysis.types.get(loss).clone();
    let like = Tensor { name: String::new(), ty: ty.clone() };
    let mut input = |name: &str| {
        let single = TensorType { elem: Elem::F32.onnx(), dims: Some(Vec::new()) };
        let input = Tensor { name: name.into(), ty: single };
        if ty.elem == 0 { input } else { b.cast(&input, ty.elem) }
    };
    let tensor = match scale {
        LossScale::None if takes_rate => input(LEARNING_RATE),
        LossScale::None => b.number(1.0, &like),
        LossScale::Fixed(scale) => b.number(scale, &like),
        LossScale::Input => input(LOSS_SCALE),
    };
    // A loss of one element may have axes.
    let is_scalar = ty.dims.as_ref().is_some_and(Vec::is_empty);
    (Cotangent { tensor, is_full: is_scalar }, b.finish(&[], &[]))
}

/// The sum of what a value's readers gave.
fn total(b: &mut Builder, analysis: &Analysis, value: ValueId, parts: Vec<Cotangent>) -> Option<Cotangent> {
    let ty = analysis.types.get(value);
    let is_full = parts.iter().any(|p| p.is_full);
    let tensor = match parts.as_slice() {
        [] => return None,
        [only] => only.tensor.clone(),
        [first, second] => b.binary("Add", &first.tensor, &second.tensor),
        many => {
            let inputs: Vec<&Tensor> = many.iter().map(|p| &p.tensor).collect();
            let dims = if is_full { ty.dims.clone() } else { None };
            let elem = many.first().map_or(ty.elem, |p| p.tensor.ty.elem);
            b.one("Sum", &inputs, Vec::new(), TensorType { elem, dims })
        }
    };
    let elem = tensor.ty.elem;
    let tensor = if is_full { Tensor { ty: TensorType { elem, ..known(ty, &tensor.ty) }, ..tensor } } else { tensor };
    Some(Cotangent { tensor, is_full })
}

/// What a node reads, itself and in its bodies.
fn reads(node: &NodeProto) -> impl Iterator<Item = String> + '_ {
    let inside = captures_of(node, 0).into_iter().map(|(name, _)| name.to_owned());
    node.input.iter().filter(|name| !name.is_empty()).cloned().chain(inside)
}

/// The value's own type where more is known of it than of its gradient.
fn known(value: &TensorType, gradient: &TensorType) -> TensorType {
    let open =
        |t: &TensorType| t.dims.as_ref().map_or(usize::MAX, |d| d.iter().filter(|d| **d == Dim::Unknown).count());
    if open(value) <= open(gradient) { value.clone() } else { gradient.clone() }
}

fn refusal(site: &Site) -> Undifferentiable {
    let op = site.node.op_type();
    let reason = match site.node.domain() {
        "" | "ai.onnx" => format!("there is no rule for {op}"),
        domain => format!("there is no rule for {op} of {domain:?}"),
    };
    Undifferentiable { node: site.analysis.graph.describe(site.id), reason }
}

/// The forward nodes that change: those that others take the place of, and those that have to make more outputs.
pub fn with_saved(analysis: &Analysis, saved: &Saved, remade: &Remade) -> Vec<(NodeId, Vec<NodeProto>)> {
    let mut changed = remade.clone();
    for ((id, slot), name) in saved {
        let nodes = changed.entry(*id).or_insert_with(|| vec![analysis.graph.node(*id).clone()]);
        // Several nodes take the place of one whose outputs are all there.
        let [node] = &mut nodes[..] else { continue };
        if node.output.len() <= *slot {
            node.output.resize(slot + 1, String::new());
        }
        node.output[*slot].clone_from(name);
    }
    changed.into_iter().collect()
}
