//! **What.** Tan, Atan, Asin, Acos.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** Tan = Sin/Cos. atan(x) = 2·atan(u) for u = x/(1 + √(1 + x²)), so that |u| ≤ 1. There atan(u) = u·P(s)/Q(s) with s = u²,
//! polynomials of degree 2 and 3 that are best in the sense of Chebyshev: off by 2e-8, relative, and its derivative by 3.3e-6. That is
//! 17 operators; polynomials alone take 22 for the same. No case is told apart, so nothing jumps. x is clipped to ±1e18, where its
//! square is finite and atan has reached ±π/2 in any precision. asin(x) = atan(x/√((1 − x)(1 + x))), acos = π/2 − asin.

use std::f64::consts::FRAC_PI_2;

use crate::lower::registry::{Rule, on_path};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Tan", "Atan", "Asin", "Acos"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite,
}];

/// Where atan is ±π/2, and the derivative 0.
const FARTHEST: f64 = 1e18;

/// P, from s⁰ up.
const NUMERATOR: [f64; 3] = [80.789_898_438_611_54, 72.581_384_920_263_83, 11.117_738_824_354_108];

/// Q, from s⁰ up; s³ has the coefficient 1.
const DENOMINATOR: [f64; 3] = [80.789_900_073_421_93, 99.511_186_048_586_8, 28.132_842_834_938_96];

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
    let s = b.binary("Mul", &u, &u);
    let [p0, p1, p2] = NUMERATOR.map(|c| 2.0 * c);
    let numerator = b.times(&s, p2);
    let numerator = horner(b, numerator, &s, &[p1, p0]);
    let [q0, q1, q2] = DENOMINATOR;
    let denominator = horner(b, s.clone(), &s, &[q2, q1, q0]);
    let quotient = b.binary("Div", &numerator, &denominator);
    b.binary("Mul", &quotient, &u)
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

/// ((start + c)·s + c′)·s + …
fn horner(b: &mut Builder, start: Tensor, s: &Tensor, coefficients: &[f64]) -> Tensor {
    let Some((first, rest)) = coefficients.split_first() else { return start };
    let first = b.plus(&start, *first);
    rest.iter().fold(first, |sum, c| {
        let product = b.binary("Mul", &sum, s);
        b.plus(&product, *c)
    })
}
