//! Which operators are differentiated, and what holds where they have no derivative: what `per-inject operators` prints.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{error, expand, rule};
use crate::lower::registry;

/// Version of the JSON layout.
pub const SCHEMA: &str = "per-inject.operators/1";

/// An operator of ONNX's own domain that gradients pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Its name.
    pub name: &'static str,
    /// The oldest operator set in which it is differentiated.
    pub since: i64,
    /// The newest one that has it, where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// How its gradient comes about.
    pub how: How,
    /// What holds where it has no derivative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinks: Option<&'static str>,
    /// What else to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<&'static str>,
}

/// How an operator's gradient comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// By a rule of its own.
    Rule,
    /// It is written in operators that have rules first.
    SpeltOut,
}

/// All of them, by name.
pub fn operators() -> Vec<Operator> {
    let mut found: BTreeMap<&'static str, How> = BTreeMap::new();
    let spelt_out = expand::all().chain(registry::all()).flat_map(|r| r.ops);
    found.extend(spelt_out.filter(|op| !rule::CONSTANT.contains(op)).map(|op| (*op, How::SpeltOut)));
    found.extend(rule::all().flat_map(|r| r.ops).map(|op| (*op, How::Rule)));
    let operator = |(name, how)| {
        let find =
            |table: &[(&str, &'static str)]| table.iter().find(|(ops, _)| names(ops, name)).map(|(_, text)| *text);
        let since = SINCE.iter().find(|(_, ops)| names(ops, name)).map_or(error::OLDEST, |(since, _)| *since);
        let until = UNTIL.iter().find(|(op, _)| *op == name).map(|(_, until)| *until);
        Operator { name, since, until, how, kinks: find(KINKS), notes: find(NOTES) }
    };
    found.into_iter().map(operator).collect()
}

/// Operators whose result does not change with a small change of their inputs, or not in a way that has a derivative, by name: the gradient
/// is 0.
pub fn constant() -> &'static [&'static str] {
    rule::CONSTANT
}

fn names(ops: &str, name: &str) -> bool {
    ops.split(' ').any(|op| op == name)
}

/// Operators that are newer than [`error::OLDEST`].
const SINCE: &[(i64, &str)] = &[
    (10, "Mod Resize ReverseSequence ThresholdedRelu"),
    (11, "CumSum GatherElements GatherND ScatterElements ScatterND SequenceAt SequenceConstruct"),
    (12, "Celu Einsum NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss"),
    (14, "HardSwish Trilu"),
    (15, "CastLike"),
    (16, "GridSample"),
    (17, "LayerNormalization"),
    (18, "CenterCropPad Col2Im GroupNormalization Mish"),
    (20, "AffineGrid Gelu"),
    (23, "Attention RMSNormalization RotaryEmbedding"),
    (24, "Swish"),
    (26, "CumProd"),
    (28, "SwiGLU"),
];

/// Operators that are gone.
const UNTIL: &[(&str, i64)] = &[("Scatter", 10), ("Upsample", 9)];

const KINKS: &[(&str, &str)] = &[
    ("Relu", "at 0: 0"),
    ("LeakyRelu PRelu", "at 0: the slope below"),
    ("Elu Selu Celu", "at 0: the slope below"),
    ("ThresholdedRelu", "at α: 0"),
    ("HardSigmoid", "at both bounds: 0"),
    ("HardSwish", "at −3: 0, at 3: 1"),
    ("Shrink", "at ±λ: 0"),
    ("Abs ReduceL1", "at 0: 0"),
    ("ReduceL2", "where the result is 0: 0"),
    ("Clip", "at a bound: passes; what is clipped passes to the bound"),
    ("Max Min", "operands that are equal share the gradient"),
    ("ReduceMax ReduceMin", "elements that are equal share the gradient"),
    ("MaxPool", "of equal elements the first"),
    ("GlobalMaxPool", "of equal elements the first; of a picture whose size is open they share the gradient"),
    ("TopK", "of equal elements those that it chose"),
    ("Mod", "at a jump: as beside it"),
    ("Pow", "the exponent's gradient is 0 where the base is not above 0"),
    ("ScatterElements ScatterND", "max and min: what is equal shares the gradient"),
    ("GridSample", "at a place: as beyond it; nearest: the grid's gradient is 0"),
    ("LpNormalization", "where the length is 0: as if it were 1"),
];

const NOTES: &[(&str, &str)] = &[
    ("AffineGrid CenterCropPad Col2Im", "its sizes are known before the graph runs"),
    ("AveragePool", "ceil_mode and count_include_pad in every combination"),
    ("BatchNormalization", "running statistics are state: no gradient, a successor in training mode"),
    ("Attention", "the number and the width of heads are known before the graph runs"),
    ("Concat", "before operator set 13: of lengths that are known"),
    ("CumProd", "up to 256 elements along the axis"),
    ("Dropout", "by its own mask; before operator set 12 it does nothing"),
    ("GatherElements", "before operator set 16: with as many indices as data along the other axes"),
    ("GatherND", "before operator set 16: of tuples whose length is known"),
    ("GridSample", "the picture's size is known before the graph runs"),
    ("If", "initializers of branches are trained in the main graph"),
    (
        "Loop Scan",
        "initializers of bodies are trained in the main graph; what a step hands to the next keeps its shape",
    ),
    ("MaxPool", "before operator set 16 and where windows overlap: over places of known number"),
    ("MaxUnpool", "places are counted in the shape that follows from the pooling"),
    ("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss", "the weights of classes are settings: no gradient"),
    ("Resize Upsample", "of sizes that are known before the graph runs"),
    ("Tile", "repeats are known before the graph runs"),
];
