//! Activations: ∂loss/∂x = g·f′(x). At a kink f′ is what PyTorch takes: that of the side named in each equation.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::graph::Attributes;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;
use crate::rewrite::site::Known;

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // f′ = 1 for y > 0, else 0 (at 0 too).
    Rule {
        ops: &["Relu"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let slope = step(b, y, 0.0);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f′ = 1 for x > 0, else α.
    Rule {
        ops: &["LeakyRelu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 0.01);
            a.pointwise(|b, g, x, _| {
                let slope = two_slopes(b, x, alpha, 1.0);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f′ = 1 for x > α, else 0.
    Rule {
        ops: &["ThresholdedRelu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, x, _| {
                let slope = step(b, x, alpha);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f = x or α(eˣ − 1), f′ = 1 for x > 0, else y + α.
    Rule {
        ops: &["Elu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, x, y| exponential(b, g, [x, y], 1.0, alpha))
        },
    },
    // f = γ times Elu of α: f′ = γ for x > 0, else y + γα.
    Rule {
        ops: &["Selu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.673_263_2);
            let gamma = a.site.float("gamma", 1.050_701);
            a.pointwise(|b, g, x, y| exponential(b, g, [x, y], gamma, gamma * alpha))
        },
    },
    // f = max(x, 0) + min(0, α(e^(x/α) − 1)): f′ = 1 for x > 0, else y/α + 1.
    Rule {
        ops: &["Celu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, _, y| {
                let bent = below_zero(b, y);
                let share = b.divided(&bent, alpha);
                let slope = b.plus(&share, 1.0);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f = ln(1 + eˣ), f′ = σ(x).
    Rule {
        ops: &["Softplus"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let slope = b.unary("Sigmoid", x);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f = x/(1 + |x|), f′ = 1/(1 + |x|)².
    Rule {
        ops: &["Softsign"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let size = b.unary("Abs", x);
                let sum = b.plus(&size, 1.0);
                let once = b.binary("Div", g, &sum);
                b.binary("Div", &once, &sum)
            })
        },
    },
    // f = max(0, min(1, αx + β)), f′ = α for 0 < y < 1, else 0.
    Rule {
        ops: &["HardSigmoid"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 0.2);
            a.pointwise(|b, g, _, y| {
                let scaled = b.times(g, alpha);
                let slope = between(b, y, 0.0, 1.0);
                b.binary("Mul", &scaled, &slope)
            })
        },
    },
    // f = x·max(0, min(1, x/6 + ½)): f′ = x/3 + ½ for −3 < x < 3; beyond, 0 below and 1 above.
    Rule {
        ops: &["HardSwish"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let third = b.divided(x, 3.0);
                let sloped = b.plus(&third, 0.5);
                let (is_sloped, beyond) = (between(b, x, -3.0, 3.0), at_least(b, x, 3.0));
                let inside = b.binary("Mul", &sloped, &is_sloped);
                let slope = b.binary("Add", &inside, &beyond);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f = x·t, t = tanh(s), s = softplus(x): f′ = t + x(1 − t²)σ(x).
    Rule {
        ops: &["Mish"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let soft = b.unary("Softplus", x);
                let (t, one, gate) = (b.unary("Tanh", &soft), b.number(1.0, x), b.unary("Sigmoid", x));
                let square = b.binary("Mul", &t, &t);
                let rest = b.binary("Sub", &one, &square);
                let inner = b.binary("Mul", &rest, &gate);
                let second = b.binary("Mul", x, &inner);
                let slope = b.binary("Add", &t, &second);
                b.binary("Mul", g, &slope)
            })
        },
    },
    // f = x·σ(αx): with s = σ(αx), f′ = s(1 + αx(1 − s)) = s + αy(1 − s).
    Rule {
        ops: &["Swish"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, x, y| {
                let (scaled, one) = (b.times(x, alpha), b.number(1.0, x));
                let s = b.unary("Sigmoid", &scaled);
                let rest = b.binary("Sub", &one, &s);
                let scaled = b.times(y, alpha);
                let second = b.binary("Mul", &scaled, &rest);
                let slope = b.binary("Add", &s, &second);
                b.binary("Mul", g, &slope)
            })
        },
    },
    Rule { ops: &["Gelu"], adjoint: gelu },
    Rule { ops: &["PRelu"], adjoint: prelu },
];

/// 1 where x > `bound`, else 0. A product with it takes a twentieth of the time that ONNX Runtime's CPU needs for Where.
fn step(b: &mut Builder, x: &Tensor, bound: f64) -> Tensor {
    let bound = b.number(bound, x);
    let is_above = b.compare("Greater", x, &bound);
    b.indicator(&is_above, x)
}

/// 1 where x ≥ `bound`, else 0.
fn at_least(b: &mut Builder, x: &Tensor, bound: f64) -> Tensor {
    let (bound, one) = (b.number(bound, x), b.number(1.0, x));
    let is_below = b.compare("Less", x, &bound);
    let below = b.indicator(&is_below, x);
    b.binary("Sub", &one, &below)
}

/// 1 where `low` < x < `high`, else 0.
fn between(b: &mut Builder, x: &Tensor, low: f64, high: f64) -> Tensor {
    let (low, high) = (b.number(low, x), b.number(high, x));
    let (above, below) = (b.compare("Greater", x, &low), b.compare("Less", x, &high));
    let is_between = b.compare("And", &above, &below);
    b.indicator(&is_between, x)
}

/// `below` for x ≤ 0, `above` for x > 0.
fn two_slopes(b: &mut Builder, x: &Tensor, below: f64, above: f64) -> Tensor {
    let open = step(b, x, 0.0);
    let risen = b.times(&open, above - below);
    b.plus(&risen, below)
}

/// min(y, 0).
fn below_zero(b: &mut Builder, y: &Tensor) -> Tensor {
    if b.opset() < 12 {
        let bent = negative_part(b, y);
        return b.unary("Neg", &bent);
    }
    let zero = b.number(0.0, y);
    b.node("Clip", &[Some(y.clone()), None, Some(zero)], Vec::new(), std::slice::from_ref(&y.ty)).remove(0)
}

/// max(−y, 0).
fn negative_part(b: &mut Builder, y: &Tensor) -> Tensor {
    let negative = b.unary("Neg", y);
    b.unary("Relu", &negative)
}

/// g·(`above` for x > 0, else y + `below`).
fn exponential(b: &mut Builder, g: &Tensor, [x, y]: [&Tensor; 2], above: f64, below: f64) -> Tensor {
    if below < 0.0 || above < 0.0 {
        let (zero, slope) = (b.number(0.0, x), b.plus(y, below));
        let (is_open, open) = (b.compare("Greater", x, &zero), b.times(g, above));
        let bent = b.binary("Mul", g, &slope);
        return b.choose(&is_open, &open, &bent);
    }
    // The sign of y is that of x.
    let bent = below_zero(b, y);
    let slope = if above == below {
        b.plus(&bent, above)
    } else {
        let straight = two_slopes(b, y, below, above);
        b.binary("Add", &straight, &bent)
    };
    b.binary("Mul", g, &slope)
}

/// f = x·Φ(x): f′ = Φ(x) + x·φ(x). With the tanh form, t = tanh(u), u = √(2/π)(x + c·x³): f′ = ½(1 + t) + ½x(1 − t²)·√(2/π)(1 + 3c·x²).
fn gelu(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let is_tanh = a.site.node.string("approximate") == Some("tanh");
    a.pointwise(|b, g, x, _| {
        let slope = if is_tanh {
            const C: f64 = 0.044_715;
            let k = (2.0 / PI).sqrt();
            let square = b.binary("Mul", x, x);
            let bent = b.times(&square, k * C);
            let factor = b.plus(&bent, k);
            let u = b.binary("Mul", x, &factor);
            let (t, one) = (b.unary("Tanh", &u), b.number(1.0, x));
            let t_square = b.binary("Mul", &t, &t);
            let rest = b.binary("Sub", &one, &t_square);
            let bent = b.times(&square, 3.0 * k * C);
            let inner = b.plus(&bent, k);
            let product = b.binary("Mul", &rest, &inner);
            let second = b.binary("Mul", x, &product);
            let above = b.plus(&t, 1.0);
            let sum = b.binary("Add", &above, &second);
            b.times(&sum, 0.5)
        } else {
            let scaled = b.times(x, FRAC_1_SQRT_2);
            let erf = b.unary("Erf", &scaled);
            let above = b.plus(&erf, 1.0);
            let phi = b.times(&above, 0.5);
            let negative = b.times(x, -0.5);
            let exponent = b.binary("Mul", &negative, x);
            let bell = b.unary("Exp", &exponent);
            let weighted = b.binary("Mul", x, &bell);
            let second = b.times(&weighted, 1.0 / (2.0 * PI).sqrt());
            b.binary("Add", &phi, &second)
        };
        b.binary("Mul", g, &slope)
    })
}

/// y = x for x > 0, else s·x: ∂x = g or g·s, ∂s = Σ g·min(x, 0).
fn prelu(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, slope) = (a.g(0)?, a.x(0)?, a.x(1)?);
    if a.wants(0) {
        // s + (1 − s)·[x > 0].
        let (open, one) = (step(a.b, &x, 0.0), a.b.number(1.0, &x));
        let rise = a.b.binary("Sub", &one, &slope);
        let risen = a.b.binary("Mul", &open, &rise);
        let sloped = a.b.binary("Add", &risen, &slope);
        let dx = a.b.binary("Mul", &g, &sloped);
        a.give(0, Tensor { ty: x.ty.clone(), ..dx });
    }
    if a.wants(1) {
        let below = negative_part(a.b, &x);
        let product = a.b.binary("Mul", &g, &below);
        let ds = a.b.unary("Neg", &product);
        a.give_summed(1, Cotangent { tensor: ds, is_full: true })?;
    }
    Ok(())
}
