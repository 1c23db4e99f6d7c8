//! Activations: ∂loss/∂x = g·f′(x). At a kink f′ is what PyTorch takes: that of the side named in each equation.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::graph::Attributes;
use crate::lower::builder::Builder;
use crate::lower::site::Known;
use crate::regularizer::emit::Tensor;

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // f′ = 1 for y > 0, else 0 (at 0 too).
    Rule {
        ops: &["Relu"],
        adjoint: |a| {
            a.pointwise(|b, g, _, y| {
                let zero = b.number(0.0, y);
                let is_open = b.compare("Greater", y, &zero);
                b.choose(&is_open, g, &zero)
            })
        },
    },
    // f′ = 1 for x > 0, else α.
    Rule {
        ops: &["LeakyRelu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 0.01);
            a.pointwise(|b, g, x, _| {
                let (is_open, scaled) = (is_above(b, x, 0.0), b.times(g, alpha));
                b.choose(&is_open, g, &scaled)
            })
        },
    },
    // f′ = 1 for x > α, else 0.
    Rule {
        ops: &["ThresholdedRelu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, x, _| {
                let (is_open, zero) = (is_above(b, x, alpha), b.number(0.0, x));
                b.choose(&is_open, g, &zero)
            })
        },
    },
    // f = x or α(eˣ − 1), f′ = 1 for x > 0, else y + α.
    Rule {
        ops: &["Elu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, x, y| exponential(b, g, x, y, 1.0, alpha))
        },
    },
    // f = γ times Elu of α: f′ = γ for x > 0, else y + γα.
    Rule {
        ops: &["Selu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.673_263_2);
            let gamma = a.site.float("gamma", 1.050_701);
            a.pointwise(|b, g, x, y| exponential(b, g, x, y, gamma, gamma * alpha))
        },
    },
    // f = max(x, 0) + min(0, α(e^(x/α) − 1)): f′ = 1 for x > 0, else y/α + 1.
    Rule {
        ops: &["Celu"],
        adjoint: |a| {
            let alpha = a.site.float("alpha", 1.0);
            a.pointwise(|b, g, x, y| {
                let share = b.divided(y, alpha);
                let slope = b.plus(&share, 1.0);
                let (is_open, below) = (is_above(b, x, 0.0), b.binary("Mul", g, &slope));
                b.choose(&is_open, g, &below)
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
                let (zero, scaled) = (b.number(0.0, y), b.times(g, alpha));
                let is_sloped = is_between(b, y, 0.0, 1.0);
                b.choose(&is_sloped, &scaled, &zero)
            })
        },
    },
    // f = x·max(0, min(1, x/6 + ½)): f′ = x/3 + ½ for −3 < x < 3; beyond, 0 below and 1 above.
    Rule {
        ops: &["HardSwish"],
        adjoint: |a| {
            a.pointwise(|b, g, x, _| {
                let (third, zero) = (b.divided(x, 3.0), b.number(0.0, x));
                let slope = b.plus(&third, 0.5);
                let inside = b.binary("Mul", g, &slope);
                let (is_sloped, is_open) = (is_between(b, x, -3.0, 3.0), is_above(b, x, 0.0));
                let outside = b.choose(&is_open, g, &zero);
                b.choose(&is_sloped, &inside, &outside)
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

fn is_above(b: &mut Builder, x: &Tensor, bound: f64) -> Tensor {
    let bound = b.number(bound, x);
    b.compare("Greater", x, &bound)
}

fn is_between(b: &mut Builder, x: &Tensor, low: f64, high: f64) -> Tensor {
    let (low, high) = (b.number(low, x), b.number(high, x));
    let (above, below) = (b.compare("Greater", x, &low), b.compare("Less", x, &high));
    b.compare("And", &above, &below)
}

/// g·(`above` for x > 0, else y + `below`).
fn exponential(b: &mut Builder, g: &Tensor, x: &Tensor, y: &Tensor, above: f64, below: f64) -> Tensor {
    let (is_open, slope) = (is_above(b, x, 0.0), b.plus(y, below));
    let (open, bent) = (b.times(g, above), b.binary("Mul", g, &slope));
    b.choose(&is_open, &open, &bent)
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
    let is_open = is_above(a.b, &x, 0.0);
    if a.wants(0) {
        let below = a.b.binary("Mul", &g, &slope);
        let dx = a.b.choose(&is_open, &g, &below);
        a.give(0, Tensor { ty: x.ty.clone(), ..dx });
    }
    if a.wants(1) {
        let (product, zero) = (a.b.binary("Mul", &g, &x), a.b.number(0.0, &x));
        let ds = a.b.choose(&is_open, &zero, &product);
        a.give_summed(1, Cotangent { tensor: ds, is_full: true })?;
    }
    Ok(())
}
