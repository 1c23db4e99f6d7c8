//! **What.** Gelu with the tanh approximation, and Swish.
//!
//! **Why.** The gradient of Gelu is that of the exact one whatever `approximate` says; Swish came with operator set 24, which ONNX
//! Runtime 1.19.2 does not know.
//!
//! **Equation.** Gelu(x) = x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³))) = x·σ(2√(2/π)·x·(1 + 0.044715·x²)), and Swish(x) = x·σ(αx).

use std::f64::consts::FRAC_2_PI;

use crate::graph::Attributes;
use crate::lower::registry::{Rule, on_path};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Gelu"],
        because: "its gradient ignores the tanh approximation",
        applies: |site| on_path(site) && site.node.string("approximate") == Some("tanh"),
        rewrite: tanh,
    },
    Rule {
        ops: &["Swish"],
        because: "ONNX Runtime 1.19.2 does not know it",
        applies: |_| true,
        rewrite: |site, b| {
            let x = site.required(0)?;
            let scaled = b.times(&x, site.float("alpha", 1.0));
            let sigmoid = b.unary("Sigmoid", &scaled);
            Ok(vec![b.binary("Mul", &x, &sigmoid).into()])
        },
    },
];

fn tanh(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let square = b.binary("Mul", &x, &x);
    let cubic = b.times(&square, 0.044_715);
    let sum = b.plus(&cubic, 1.0);
    let product = b.binary("Mul", &x, &sum);
    let scaled = b.times(&product, 2.0 * FRAC_2_PI.sqrt());
    let sigmoid = b.unary("Sigmoid", &scaled);
    Ok(vec![b.binary("Mul", &x, &sigmoid).into()])
}
