//! What each initializer is for, and so whether training may move it.
//!
//! Decided in one place, the table (`table.rs`) of operators and input slots, looking through the operators that only rearrange a tensor
//! (Transpose, Reshape, Slice, Concat of initializers …) between the initializer and what reads it. Where the slot alone does not
//! decide (the operands of Add and Mul above all), so do a few properties of the tensor, see `values.rs` and `scalar.rs`.

mod readers;
mod scalar;
mod subject;
mod table;
#[cfg(test)]
mod tests;
mod values;

use rayon::prelude::*;

use super::infer::Types;
use super::{Graph, NodeId, Slot, ValueId};
pub use subject::Reading;

/// What an initializer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// The weight of a layer: of Conv, Gemm, MatMul, a recurrent net, PRelu; a packed, folded or transposed one too.
    Weight,
    /// The bias of a layer, or what is added one element a channel.
    Bias,
    /// The gain of a normalisation, or what multiplies one element a channel.
    Scale,
    /// The bias of a normalisation.
    Shift,
    /// A table of rows that are looked up, or added whole (positions).
    Embedding,
    /// Running statistics of BatchNormalization: moved by the forward pass, not by gradients.
    State,
    /// Where a recurrent net starts.
    InitialState,
    /// What an attention adds to hide positions, or another choice between elements.
    Mask,
    /// A number of the formula: ½ of GELU, an epsilon, a bound, a class weight.
    Constant,
    /// Zeros that fill up a shape.
    Padding,
    /// Whole numbers used as shape, axes, indices or lengths.
    Shape,
    /// Whole numbers or booleans that are data.
    Integer,
    /// Scales, zero points and tensors of quantised operators.
    Quantization,
    /// Read by no node.
    Unused,
    /// Text, and element types that are neither float nor whole.
    Other,
}

impl Role {
    /// Whether training moves it, unless told otherwise.
    pub fn is_trainable(self) -> bool {
        matches!(self, Role::Weight | Role::Bias | Role::Scale | Role::Shift | Role::Embedding)
    }

    /// As a report names it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Weight => "weight",
            Role::Bias => "bias",
            Role::Scale => "scale",
            Role::Shift => "shift",
            Role::Embedding => "embedding",
            Role::State => "state",
            Role::InitialState => "initial state",
            Role::Mask => "mask",
            Role::Constant => "constant",
            Role::Padding => "padding",
            Role::Shape => "shape",
            Role::Integer => "integer",
            Role::Quantization => "quantization",
            Role::Unused => "unused",
            Role::Other => "other",
        }
    }
}

/// One place that reads an initializer, seen through operators that only rearrange it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumer {
    /// The node.
    pub node: NodeId,
    /// How it reads it.
    pub slot: Slot,
    /// What the initializer is there.
    pub role: Role,
}

/// What is known of an initializer.
#[derive(Debug, Clone)]
pub struct InitializerRole {
    /// The initializer.
    pub value: ValueId,
    /// What it is for.
    pub role: Role,
    /// The reason.
    pub because: Because,
    /// Whether its elements are floating point; nothing else can be trained.
    pub is_float: bool,
    /// Who reads it, at most [`MAX_CONSUMERS`] of them.
    pub consumers: Vec<Consumer>,
}

/// Why an initializer has its role.
#[derive(Debug, Clone, Copy)]
pub enum Because {
    /// What reads it.
    Reading(Reading),
    /// It is a graph output that no node reads.
    OnlyOutput,
    /// No node reads it.
    Unread,
    /// An injection of this tool added it.
    Injected,
    /// Only the backward pass reads it.
    Backward,
}

impl Because {
    /// For people: `input 1 (W) of "/net.0/Conv" (Conv)`.
    pub fn explain(&self, graph: &Graph<'_>) -> String {
        match self {
            Because::Reading(reading) => explain(graph, *reading),
            Because::OnlyOutput => "a graph output that no node reads".into(),
            Because::Unread => "no node reads it".into(),
            Because::Injected => "part of an injection".into(),
            Because::Backward => "part of the backward pass".into(),
        }
    }
}

/// How many consumers of one initializer are listed.
pub const MAX_CONSUMERS: usize = 256;

/// The role of every initializer, in file order. Sparse initializers are not listed; they are never trained.
///
/// An initializer that is read in several ways takes the first of its roles that is trainable, else the first.
pub fn roles(graph: &Graph<'_>, types: &Types) -> Vec<InitializerRole> {
    let readings = readers::Readings::of(graph, types);
    graph.initializer_values.par_iter().map(|value| role_of(graph, &readings, *value)).collect()
}

fn role_of(graph: &Graph<'_>, readings: &readers::Readings<'_>, value: ValueId) -> InitializerRole {
    let is_float = graph.initializer(value).is_some_and(crate::wire::Initializer::is_float);
    let consumers = readings.consumers(value);
    let (role, because) = match readings.decisive(value) {
        None if graph.is_output(value) => (Role::Constant, Because::OnlyOutput),
        None => (Role::Unused, Because::Unread),
        Some(reading) => (reading.role, Because::Reading(reading)),
    };
    InitializerRole { value, role, because, is_float, consumers }
}

fn explain(graph: &Graph<'_>, reading: Reading) -> String {
    let node = graph.describe(reading.node);
    let place = match reading.slot {
        Slot::Input(slot) => match table::input_name(graph.node(reading.node), slot) {
            Some(name) => format!("input {slot} ({name}) of {node}"),
            None => format!("input {slot} of {node}"),
        },
        Slot::Captured(_) => format!("read in the body of {node}"),
    };
    match reading.note {
        Some(note) => format!("{place}: {note}"),
        None => place,
    }
}

/// Which initializers are trained, in the order of `roles`: those that `wrt` selects, else those whose role is trainable; without
/// those that `freeze` selects. Only float initializers are ever trained. Lists shorter than `roles` select nothing beyond their end.
pub fn apply_overrides(roles: &[InitializerRole], wrt: Option<&[bool]>, freeze: Option<&[bool]>) -> Vec<bool> {
    let at = |list: &[bool], i: usize| list.get(i).copied().unwrap_or(false);
    let selected = |i: usize, r: &InitializerRole| wrt.map_or(r.role.is_trainable(), |w| at(w, i));
    let frozen = |i: usize| freeze.is_some_and(|f| at(f, i));
    roles.iter().enumerate().map(|(i, r)| r.is_float && selected(i, r) && !frozen(i)).collect()
}
