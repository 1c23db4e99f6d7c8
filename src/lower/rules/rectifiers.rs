//! **What.** PRelu, ThresholdedRelu, Shrink.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** PRelu(x) = r + slope·(x − r) with r = Relu(x), exact on both sides; at 0 its derivative is the slope.
//! ThresholdedRelu(x) = x where x > α, else 0. Shrink(x) = x + bias where x < −λ, x − bias where x > λ, else 0.

use crate::lower::registry::{Rule, on_path};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["PRelu"], because: "no gradient of it is registered", applies: on_path, rewrite: parametric },
    Rule {
        ops: &["ThresholdedRelu"],
        because: "no gradient of it is registered",
        applies: on_path,
        rewrite: thresholded,
    },
    Rule { ops: &["Shrink"], because: "no gradient of it is registered", applies: on_path, rewrite: shrink },
];

fn parametric(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, slope) = (site.required(0)?, site.required(1)?);
    let positive = b.unary("Relu", &x);
    let negative = b.binary("Sub", &x, &positive);
    let sloped = b.binary("Mul", &negative, &slope);
    Ok(vec![b.binary("Add", &positive, &sloped).into()])
}

fn thresholded(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let (alpha, zero) = (b.number(site.float("alpha", 1.0), &x), b.number(0.0, &x));
    let above = b.compare("Greater", &x, &alpha);
    Ok(vec![b.choose(&above, &x, &zero).into()])
}

fn shrink(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let (lambda, bias) = (site.float("lambd", 0.5), site.float("bias", 0.0));
    let (low, high, zero) = (b.number(-lambda, &x), b.number(lambda, &x), b.number(0.0, &x));
    let below = b.compare("Less", &x, &low);
    let above = b.compare("Greater", &x, &high);
    let (raised, lowered) = (b.plus(&x, bias), b.plus(&x, -bias));
    let upper = b.choose(&above, &lowered, &zero);
    Ok(vec![b.choose(&below, &raised, &upper).into()])
}
