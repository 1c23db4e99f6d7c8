//! **What.** SoftmaxCrossEntropyLoss with one output gets its second one, the log-probabilities.
//!
//! **Why.** The gradient is computed from them, and the builder reads the output without asking whether it is there.
//!
//! **Equation.** The same operator; nothing else reads the new output.

use crate::graph::types::TensorType;
use crate::lower::builder::{Builder, Made};
use crate::lower::registry::Rule;
use crate::lower::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["SoftmaxCrossEntropyLoss"],
    because: "its gradient reads the second output, the log-probabilities",
    applies: |site| site.on_path() && site.outputs() < 2,
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let scores = site.required(0)?;
    let log_prob = TensorType { elem: scores.ty.elem, dims: scores.ty.dims.clone() };
    let made = b.again(site, &[site.output_type(0), log_prob]);
    Ok(made.into_iter().take(1).map(Made::from).collect())
}
