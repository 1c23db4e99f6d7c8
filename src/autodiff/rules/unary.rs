//! Elementwise functions of one operand: ∂loss/∂x = g·f′(x), with f′ written in y = f(x) where that is cheaper.

use std::f64::consts::PI;

use crate::autodiff::rule::Rule;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;
use crate::rewrite::site::Refusal;

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // f = eˣ, f′ = y.
    Rule { ops: &["Exp"], adjoint: |a| a.pointwise(|b, g, _, y| b.binary("Mul", g, y)) },
    // f = ln x, f′ = 1/x.
    Rule { ops: &["Log"], adjoint: |a| a.pointwise(|b, g, x, _| b.binary("Div", g, x)) },
    // f = √x, f′ = 1/(2y).
    Rule {
        ops: &["Sqrt"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let half = b.times(g, 0.5);
                b.binary("Div", &half, y)
            })
        },
    },
    // f = 1/x, f′ = −y².
    Rule {
        ops: &["Reciprocal"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let negative = b.unary("Neg", g);
                let once = b.binary("Mul", &negative, y);
                b.binary("Mul", &once, y)
            })
        },
    },
    // f = |x|, f′ = sign x, which is 0 at 0.
    Rule {
        ops: &["Abs"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let sign = b.unary("Sign", x);
                b.binary("Mul", g, &sign)
            })
        },
    },
    Rule {
        ops: &["Sin"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let cos = b.unary("Cos", x);
                b.binary("Mul", g, &cos)
            })
        },
    },
    Rule {
        ops: &["Cos"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let (sin, negative) = (b.unary("Sin", x), b.unary("Neg", g));
                b.binary("Mul", &negative, &sin)
            })
        },
    },
    // f = tan x, f′ = 1 + y².
    Rule {
        ops: &["Tan"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let square = b.binary("Mul", y, y);
                let slope = b.plus(&square, 1.0);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f′ = ±1/√(1 − x²), the product (1 − x)(1 + x) being exact near 1.
    Rule { ops: &["Asin"], adjoint: |a| a.pointwise(|b, g, x, _| over_root(b, g, x, 1.0, -1.0)) },
    Rule {
        ops: &["Acos"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let negative = b.unary("Neg", g);
                over_root(b, &negative, x, 1.0, -1.0)
            })
        },
    },
    // f′ = 1/(1 + x²).
    Rule {
        ops: &["Atan"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let square = b.binary("Mul", x, x);
                let slope = b.plus(&square, 1.0);
                b.binary("Div", g, &slope)
            })
        },
    },
    Rule {
        ops: &["Sinh"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let cosh = b.unary("Cosh", x);
                b.binary("Mul", g, &cosh)
            })
        },
    },
    Rule {
        ops: &["Cosh"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let sinh = b.unary("Sinh", x);
                b.binary("Mul", g, &sinh)
            })
        },
    },
    // f = tanh x, f′ = 1 − y².
    Rule {
        ops: &["Tanh"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let one = b.number(1.0, y);
                let square = b.binary("Mul", y, y);
                let slope = b.binary("Sub", &one, &square);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f′ = 1/√(x² + 1).
    Rule {
        ops: &["Asinh"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let square = b.binary("Mul", x, x);
                let sum = b.plus(&square, 1.0);
                let root = b.unary("Sqrt", &sum);
                b.binary("Div", g, &root)
            })
        },
    },
    // f′ = 1/√(x² − 1).
    Rule { ops: &["Acosh"], adjoint: |a| a.pointwise(|b, g, x, _| over_root(b, g, x, -1.0, 1.0)) },
    // f′ = 1/(1 − x²).
    Rule {
        ops: &["Atanh"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let product = one_less_square(b, x);
                b.binary("Div", g, &product)
            })
        },
    },
    // f′ = 2/√π·exp(−x²).
    Rule {
        ops: &["Erf"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let negative = b.unary("Neg", x);
                let exponent = b.binary("Mul", &negative, x);
                let bell = b.unary("Exp", &exponent);
                let scaled = b.times(g, 2.0 / PI.sqrt());
                b.binary("Mul", &scaled, &bell)
            })
        },
    },
    // f = 1/(1 + e⁻ˣ), f′ = y(1 − y).
    Rule {
        ops: &["Sigmoid"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let one = b.number(1.0, y);
                let rest = b.binary("Sub", &one, y);
                let slope = b.binary("Mul", y, &rest);
                b.binary("Mul", g, &slope)
            })
        },
    },
    Rule {
        ops: &["Neg"],
        adjoint: |a| {
            let mut g = a.lazy(0)?;
            g.tensor = a.b.unary("Neg", &g.tensor);
            a.give_summed(0, g)
        },
    },
    Rule {
        ops: &["Identity"],
        adjoint: |a| {
            let g = a.lazy(0)?;
            a.give_summed(0, g)
        },
    },
    Rule {
        ops: &["Cast", "CastLike"],
        adjoint: |a| {
            let (mut g, x) = (a.lazy(0)?, a.x(0)?);
            if x.ty.elem == 0 {
                return Err(Refusal(format!("the element type of {:?} is unknown: declare it in value_info", x.name)));
            }
            g.tensor = a.b.cast(&g.tensor, x.ty.elem);
            a.give_summed(0, g)
        },
    },
];

/// (1 − x)(1 + x).
fn one_less_square(b: &mut Builder, x: &Tensor) -> Tensor {
    let one = b.number(1.0, x);
    let (below, above) = (b.binary("Sub", &one, x), b.plus(x, 1.0));
    b.binary("Mul", &below, &above)
}

/// g/√((a + b·x)(1 + x)) for (a, b) = (1, −1) or (−1, 1).
fn over_root(b: &mut Builder, g: &Tensor, x: &Tensor, start: f64, slope: f64) -> Tensor {
    let product = if slope < 0.0 {
        one_less_square(b, x)
    } else {
        let (below, above) = (b.plus(x, start), b.plus(x, 1.0));
        b.binary("Mul", &below, &above)
    };
    let root = b.unary("Sqrt", &product);
    b.binary("Div", g, &root)
}
