//! **What.** Sinh, Cosh, Asinh, Acosh, Atanh.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** sinh, cosh = (eˣ ∓ e⁻ˣ)/2. asinh(x) = ±ln(a + √(a² + 1)) with a = |x|, which does not cancel for negative x;
//! acosh(x) = ln(x + √((x − 1)(x + 1))); atanh(x) = ½·ln((1 + x)/(1 − x)).
//! |x| is written as a choice between x and −x: at 0 its derivative counts, and is that of x.

use crate::lower::registry::{Rule, on_path};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Sinh", "Cosh", "Asinh", "Acosh", "Atanh"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let made = match site.node.op_type() {
        "Sinh" => halves(b, &x, "Sub"),
        "Cosh" => halves(b, &x, "Add"),
        "Asinh" => asinh(b, &x),
        "Acosh" => {
            let (below, above) = (b.plus(&x, -1.0), b.plus(&x, 1.0));
            let product = b.binary("Mul", &below, &above);
            let root = b.unary("Sqrt", &product);
            let sum = b.binary("Add", &x, &root);
            b.unary("Log", &sum)
        }
        _ => {
            let one = b.number(1.0, &x);
            let (above, below) = (b.plus(&x, 1.0), b.binary("Sub", &one, &x));
            let ratio = b.binary("Div", &above, &below);
            let log = b.unary("Log", &ratio);
            b.times(&log, 0.5)
        }
    };
    Ok(vec![made.into()])
}

fn halves(b: &mut Builder, x: &Tensor, op: &str) -> Tensor {
    let up = b.unary("Exp", x);
    let negative = b.unary("Neg", x);
    let down = b.unary("Exp", &negative);
    let both = b.binary(op, &up, &down);
    b.times(&both, 0.5)
}

fn asinh(b: &mut Builder, x: &Tensor) -> Tensor {
    let zero = b.number(0.0, x);
    let is_negative = b.compare("Less", x, &zero);
    let negative = b.unary("Neg", x);
    let a = b.choose(&is_negative, &negative, x);
    let square = b.binary("Mul", &a, &a);
    let sum = b.plus(&square, 1.0);
    let root = b.unary("Sqrt", &sum);
    let sum = b.binary("Add", &a, &root);
    let log = b.unary("Log", &sum);
    let below = b.unary("Neg", &log);
    b.choose(&is_negative, &below, &log)
}
