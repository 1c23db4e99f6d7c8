//! The gradient form: λ·∂PER/∂h joins the gradient of each layer's h in a graph that computes gradients (the paper's algorithm 1).
//!
//! The gradient keeps its name, its maker and its declared type; what read it reads the sum instead.

use super::Injection;
use super::layers::{Chosen, describe};
use super::report::Skipped;
use super::term::coefficient_tensor;
use crate::analysis::Analysis;
use crate::graph::backward::GradientOf;
use crate::graph::types::TensorType;
use crate::graph::{NodeId, Use};
use crate::patch::{Anchor, Rename};
use crate::regularizer::emit::{Emitter, Tensor};
use crate::regularizer::template::Emitted;
use crate::regularizer::{Layer, Regularizer};
use crate::select::Tap;

/// Where a layer's gradient is, and who reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The gradient; `None` where nothing but the term gives the layer one.
    pub gradient: Option<Tensor>,
    /// The inputs that shall read the sum.
    pub readers: Vec<Use>,
    /// Behind which node the sum can be computed.
    pub after: Option<NodeId>,
}

impl Place {
    /// Name of the gradient; empty where an input is left out.
    pub fn name(&self) -> &str {
        self.gradient.as_ref().map_or("", |g| g.name.as_str())
    }

    /// Where the layer's nodes go.
    pub fn anchor(&self) -> Anchor {
        self.after.map_or(Anchor::End, |node| Anchor::After(node.index()))
    }

    /// The edits that make the readers read `sum`.
    pub fn renames(&self, analysis: &Analysis, sum: &str) -> Vec<Rename> {
        let rename = |used: &Use| Rename {
            place: analysis.graph.place_of_use(*used),
            from: self.name().to_owned(),
            to: sum.to_owned(),
        };
        self.readers.iter().map(rename).collect()
    }
}

/// The taps of the forward pass. What the backward pass computes is left out silently, unless there is nothing else.
pub fn forward_only(analysis: &Analysis, taps: Vec<Tap>) -> Vec<Tap> {
    let is_forward = |tap: &Tap| tap.node.is_none_or(|node| !analysis.backward.has(node));
    if taps.iter().any(is_forward) { taps.into_iter().filter(is_forward).collect() } else { taps }
}

/// The layers whose gradients the graph computes, with the places of these; the others are added to `skipped`.
pub fn locate(analysis: &Analysis, chosen: Vec<Chosen>, skipped: &mut Vec<Skipped>) -> (Vec<Chosen>, Vec<Place>) {
    let mut kept = Vec::with_capacity(chosen.len());
    let mut places = Vec::with_capacity(chosen.len());
    for mut layer in chosen {
        match place_of(analysis, &mut layer) {
            Ok(place) => {
                kept.push(layer);
                places.push(place);
            }
            Err(reason) => skipped.push(Skipped { what: describe(analysis, &layer.tap), reason }),
        }
    }
    (kept, places)
}

/// The place of one layer's gradient; what the layer's own type leaves open is taken from the gradient's.
fn place_of(analysis: &Analysis, chosen: &mut Chosen) -> Result<Place, String> {
    let graph = &analysis.graph;
    let producer = graph.producer(chosen.value).map(|(node, _)| node);
    if producer.is_some_and(|node| analysis.backward.has(node)) {
        return Err("it belongs to the backward pass".into());
    }
    let Some(found) = analysis.backward.gradient_of(graph, chosen.value) else {
        return Err(
            "the graph computes no gradient of it: it does not lead to the loss, or nothing before it is trained"
                .into(),
        );
    };
    let h = &mut chosen.layer.h.ty;
    let (gradient, readers, made) = match found {
        GradientOf::Value(value) => {
            let declared = analysis.types.get(value);
            h.elem = if h.elem == 0 { declared.elem } else { h.elem };
            h.dims = h.dims.take().or_else(|| declared.dims.clone());
            let dims = declared.dims.clone().or_else(|| h.dims.clone());
            let gradient = Tensor { name: graph.name(value).to_owned(), ty: TensorType { elem: h.elem, dims } };
            (Some(gradient), graph.uses(value).to_vec(), graph.producer(value).map(|(node, _)| node))
        }
        GradientOf::LeftOut(used) => (None, vec![used], None),
    };
    let name = gradient.as_ref().map_or("", |g| g.name.as_str());
    if h.elem == 0 {
        return Err("its element type is not known, and its gradient must have the same".into());
    }
    if readers.is_empty() {
        return Err(format!("nothing reads its gradient {name:?}"));
    }
    let after = producer.max(made);
    if let Some(early) = readers.iter().find(|r| Some(r.node) <= after) {
        return Err(format!(
            "{} reads its gradient {name:?} before the file has computed both",
            graph.describe(early.node)
        ));
    }
    Ok(Place { gradient, readers, after })
}

/// Writes one layer: the value that the readers of its gradient shall read, and the value of PER where it is asked for.
///
/// `group` chooses λ; without a `gradient` the readers get the term alone.
pub(super) fn write(
    injection: &Injection,
    e: &mut Emitter,
    regularizer: &dyn Regularizer,
    root: &str,
    layer: &Layer,
    group: usize,
    gradient: Option<&Tensor>,
) -> Emitted {
    let coef = coefficient_tensor(injection, root, group);
    let coef = e.cast("coef_cast", &coef, layer.elem().onnx());
    let made = regularizer.emit_gradient(e, layer, &coef, injection.wants_values());
    let sum = match gradient {
        Some(gradient) => e.node("grad", "Add", &[gradient, &made.tensor], Vec::new(), gradient.ty.clone()),
        None => made.tensor,
    };
    Emitted { per: made.value, sum: Some(sum.name) }
}
