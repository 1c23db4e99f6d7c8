//! **What.** Dropout in inference mode goes; in training mode it gets its mask.
//!
//! **Why.** The gradient reads the mask, and the builder takes the output without asking whether it is there.
//!
//! **Equation.** In inference mode Dropout(x) = x with a mask of ones; in training mode it is the same operator.

use crate::graph::types::TensorType;
use crate::lower::registry::Rule;
use crate::onnx::tensor_proto::DataType;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Dropout"],
        because: "in inference mode it does nothing, and its gradient wants a mask",
        applies: |site| site.on_path() && is_off(site) && site.outputs() < 2,
        rewrite: |site, _| Ok(vec![site.required(0)?.into()]),
    },
    Rule {
        ops: &["Dropout"],
        because: "its gradient reads the mask",
        applies: |site| site.on_path() && site.outputs() < 2,
        rewrite: masked,
    },
];

/// Without the third input it is an inference.
fn is_off(site: &Site) -> bool {
    match site.input(2) {
        None => true,
        Some(_) => site.numbers(2).is_some_and(|v| v == [0.0]),
    }
}

fn masked(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let mask = TensorType { elem: DataType::Bool as i32, dims: site.output_type(0).dims };
    let made = b.again(site, &[site.output_type(0), mask]);
    Ok(made.into_iter().take(1).map(Made::from).collect())
}
