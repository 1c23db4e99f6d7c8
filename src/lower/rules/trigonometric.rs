//! **What.** Tan, Atan, Asin, Acos.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** Tan = Sin/Cos. atan(x) = 2·atan(u) for u = x/(1 + √(1 + x²)), so that |u| ≤ 1; once more, and |v| ≤ tan(π/8). There
//! atan(v) = v·Σ cₖ·v²ᵏ/(2k + 1), where Σ cₖ·sᵏ is the Chebyshev fit of 1/(1 + s) for s = v², off by at most 8e-9: it is the
//! derivative that is fitted, so that the gradient is as good as the value. No case is told apart, so nothing jumps. x is clipped to
//! ±1e18, where its square is finite and atan has reached ±π/2 in any precision. asin(x) = atan(x/√((1 − x)(1 + x))), acos = π/2 − asin.

use std::f64::consts::FRAC_PI_2;

use crate::lower::builder::{Builder, Made};
use crate::lower::registry::{Rule, on_path};
use crate::lower::site::{Known, Site};
use crate::regularizer::emit::Tensor;

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Tan", "Atan", "Asin", "Acos"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite,
}];

/// Where atan is ±π/2, and the derivative 0.
const FARTHEST: f64 = 1e18;

/// Σ cₖ·sᵏ fits 1/(1 + s) for s in [0, tan²(π/8)], at Chebyshev nodes.
const DERIVATIVE: [f64; 6] = [
    0.999_999_992_327,
    -0.999_996_772_331,
    0.999_777_818_039,
    -0.994_332_872_433,
    0.933_128_754_514,
    -0.616_040_985_159,
];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let made = match site.node.op_type() {
        "Tan" => {
            let (sin, cos) = (b.unary("Sin", &x), b.unary("Cos", &x));
            b.binary("Div", &sin, &cos)
        }
        "Atan" => atan(b, &x),
        "Asin" => asin(b, &x),
        _ => {
            let asin = asin(b, &x);
            let right_angle = b.number(FRAC_PI_2, &x);
            b.binary("Sub", &right_angle, &asin)
        }
    };
    Ok(vec![made.into()])
}

fn atan(b: &mut Builder, x: &Tensor) -> Tensor {
    let (least, most) = (b.number(-FARTHEST, x), b.number(FARTHEST, x));
    let x = b.one("Clip", &[x, &least, &most], Vec::new(), x.ty.clone());
    let u = half(b, &x);
    let v = half(b, &u);
    let s = b.binary("Mul", &v, &v);
    let series: Vec<f64> = DERIVATIVE.iter().enumerate().map(|(k, c)| 4.0 * c / (2 * k + 1) as f64).collect();
    let angle = horner(b, &s, &series);
    b.binary("Mul", &angle, &v)
}

/// tan(α/2) from x = tan(α).
fn half(b: &mut Builder, x: &Tensor) -> Tensor {
    let square = b.binary("Mul", x, x);
    let sum = b.plus(&square, 1.0);
    let root = b.unary("Sqrt", &sum);
    let denominator = b.plus(&root, 1.0);
    b.binary("Div", x, &denominator)
}

fn asin(b: &mut Builder, x: &Tensor) -> Tensor {
    let one = b.number(1.0, x);
    let (below, above) = (b.binary("Sub", &one, x), b.plus(x, 1.0));
    let product = b.binary("Mul", &below, &above);
    let cosine = b.unary("Sqrt", &product);
    let tangent = b.binary("Div", x, &cosine);
    atan(b, &tangent)
}

/// c₀ + c₁s + c₂s² + …
fn horner(b: &mut Builder, s: &Tensor, coefficients: &[f64]) -> Tensor {
    let Some((last, rest)) = coefficients.split_last() else { return s.clone() };
    let Some((second, rest)) = rest.split_last() else { return b.number(*last, s) };
    let product = b.times(s, *last);
    let start = b.plus(&product, *second);
    rest.iter().rev().fold(start, |sum, c| {
        let product = b.binary("Mul", &sum, s);
        b.plus(&product, *c)
    })
}
