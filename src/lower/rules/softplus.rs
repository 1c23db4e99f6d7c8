//! **What.** Softplus and Mish.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** With a = |x|: Softplus(x) = ln(1 + eˣ) = (x + a)/2 − ln σ(a), and Mish(x) = x·tanh(Softplus(x)).
//! σ(a) lies in [½, 1], so nothing overflows; at 0 the derivative is ½, because that of |x| is 0 there.

use crate::lower::registry::{Rule, on_path};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["Softplus", "Mish"], because: "no gradient of it is registered", applies: on_path, rewrite }];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let softplus = softplus(b, &x);
    if site.node.op_type() == "Softplus" {
        return Ok(vec![softplus.into()]);
    }
    let tanh = b.unary("Tanh", &softplus);
    Ok(vec![b.binary("Mul", &x, &tanh).into()])
}

fn softplus(b: &mut Builder, x: &Tensor) -> Tensor {
    let magnitude = b.unary("Abs", x);
    let twice = b.binary("Add", x, &magnitude);
    let relu = b.times(&twice, 0.5);
    let sigmoid = b.unary("Sigmoid", &magnitude);
    let log = b.unary("Log", &sigmoid);
    b.binary("Sub", &relu, &log)
}
