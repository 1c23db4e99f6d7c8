//! **What.** SoftmaxCrossEntropyLoss with one output gets its second one, the log-probabilities. Where something that leads to the loss
//! reads that output, it comes from a LogSoftmax of its own.
//!
//! **Why.** The gradient is computed from the log-probabilities, and the builder reads the output without asking whether it is there; what
//! flows back into it is dropped silently.
//!
//! **Equation.** log_prob = LogSoftmax(scores) along axis 1.

use crate::graph::types::TensorType;
use crate::lower::registry::Rule;
use crate::regularizer::emit::int;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["SoftmaxCrossEntropyLoss"],
        because: "the gradient of its second output would be dropped",
        applies: |site| site.on_path() && site.gives_gradient(1),
        rewrite: apart,
    },
    Rule {
        ops: &["SoftmaxCrossEntropyLoss"],
        because: "its gradient reads the second output, the log-probabilities",
        applies: |site| site.on_path() && site.outputs() < 2,
        rewrite: |site, b| Ok(with_log_prob(site, b)?.into_iter().take(1).collect()),
    },
];

fn with_log_prob(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let scores = site.required(0)?;
    let log_prob = TensorType { elem: scores.ty.elem, dims: scores.ty.dims };
    let made = b.again(site, &[site.output_type(0), log_prob]);
    Ok(made.into_iter().map(Made::from).collect())
}

fn apart(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let scores = site.required(0)?;
    let rank = rank(&scores)?;
    let loss = with_log_prob(site, b)?.swap_remove(0);
    if b.opset() >= 13 || rank == 2 {
        let log_prob = b.one("LogSoftmax", &[&scores], vec![int("axis", 1)], scores.ty.clone());
        return Ok(vec![loss, log_prob.into()]);
    }
    Err("its log-probabilities lead to the loss, and before operator set 13 LogSoftmax flattens the axes behind the classes".into())
}
