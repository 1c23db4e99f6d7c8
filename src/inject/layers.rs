//! From a selection of values to layers that can be regularised, and what cannot be.

use super::options::{At, Options};
use super::report::Skipped;
use crate::analysis::Analysis;
use crate::graph::backward::is_recurrent;
use crate::graph::infer::{Layout, MAX_RANK};
use crate::graph::{Attributes, ValueId};
use crate::regularizer::emit::Tensor;
use crate::regularizer::{Layer, View};
use crate::select::Tap;

/// A layer and where it came from.
pub struct Chosen {
    /// The tap.
    pub tap: Tap,
    /// The tapped value: the tap's, or what goes into it.
    pub value: ValueId,
    /// What to regularise.
    pub layer: Layer,
}

/// Sorts taps into layers and skipped ones. `loss` is where gradients come from; without one, nothing needs a gradient path.
pub fn resolve(
    analysis: &Analysis,
    taps: Vec<Tap>,
    options: &Options,
    loss: Option<ValueId>,
) -> (Vec<Chosen>, Vec<Skipped>) {
    let leads =
        loss.filter(|_| !taps.is_empty()).map(|loss| analysis.reach.leads_to(&analysis.graph, &analysis.types, loss));
    let mut chosen = Vec::new();
    let mut skipped = Vec::new();
    for tap in taps {
        let value = match options.at {
            At::Post => Some(tap.value),
            At::Pre => tap.input,
        };
        let result = match value {
            None => Err("it has no single input to tap; --at pre takes what goes into an activation".to_owned()),
            Some(value) if Some(value) == loss => Err("it is the loss itself".to_owned()),
            Some(value) => check(analysis, value, leads.as_deref()).map(|()| value),
        };
        match result {
            Err(reason) => skipped.push(Skipped { what: describe(analysis, &tap), reason }),
            Ok(value) => {
                let mut h =
                    Tensor { name: analysis.graph.name(value).to_owned(), ty: analysis.types.get(value).clone() };
                // No tensor has as many axes; a forged declaration would get nodes for each.
                h.ty.dims = h.ty.dims.filter(|dims| dims.len() <= MAX_RANK);
                let recurrent = recurrent_batch_axis(analysis, value);
                let view = view(analysis, value, recurrent.is_some(), options.view, h.ty.rank());
                let batch_axis = recurrent.unwrap_or(0);
                chosen.push(Chosen { tap, value, layer: Layer { h, view, batch_axis, reduction: options.reduction } });
            }
        }
    }
    (chosen, skipped)
}

/// How messages name a tap.
pub fn describe(analysis: &Analysis, tap: &Tap) -> String {
    let tensor = analysis.graph.name(tap.value);
    match tap.node {
        Some(node) => format!("{} → {tensor:?}", analysis.graph.describe(node)),
        None => format!("tensor {tensor:?}"),
    }
}

fn check(analysis: &Analysis, value: ValueId, leads: Option<&[bool]>) -> Result<(), String> {
    let (graph, types) = (&analysis.graph, &analysis.types);
    let name = graph.name(value);
    if !types.is_tensor(value) {
        return Err(format!("{name:?} is no tensor"));
    }
    if types.get(value).is_float() == Some(false) {
        return Err(format!("{name:?} is {}, and only floating point can be regularised", types.get(value)));
    }
    let Some(leads) = leads else { return Ok(()) };
    if !leads[value.index()] {
        return Err("no gradient path leads from it to the loss".into());
    }
    // Where no initializer is trainable, parameters are graph inputs, and nobody knows which.
    if analysis.has_trainable() && !analysis.reach.depends_on_trainable(value) {
        return Err("it depends on no trainable initializer, so its term would have no gradient (--wrt chooses what is trained)".into());
    }
    Ok(())
}

/// The axis of samples in the output of a recurrent operator; `None` for anything else.
fn recurrent_batch_axis(analysis: &Analysis, value: ValueId) -> Option<usize> {
    let (node, slot) = analysis.graph.producer(value)?;
    let operator = analysis.graph.node(node);
    if !is_recurrent(operator) {
        return None;
    }
    let batch_first = operator.int("layout").unwrap_or(0) == 1;
    // Y is [T, directions, B, H] or [B, T, directions, H]; Y_h is [directions, B, H] or [B, directions, H].
    Some(match (batch_first, slot) {
        (true, _) => 0,
        (false, 0) => 2,
        (false, _) => 1,
    })
}

/// `auto`: the paper flattens maps and vectors; of recurrent outputs and token sequences one position is one sample.
fn view(analysis: &Analysis, value: ValueId, recurrent: bool, asked: Option<View>, rank: Option<usize>) -> View {
    let layout = analysis.types.layout(value);
    let sequence = recurrent || layout == Layout::Sequence || (layout == Layout::Unknown && rank == Some(3));
    match asked {
        None if sequence => View::Last,
        None => View::Flatten,
        // The features of a sequence are its last axis: that is what a channel is there. Of unknown origin, what is asked counts.
        Some(View::Channel) if recurrent || layout == Layout::Sequence => View::Last,
        Some(view) => view,
    }
}
