//! **What.** HardSigmoid and HardSwish.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** HardSigmoid(x) = Clip(αx + β, 0, 1) and HardSwish(x) = x·Clip(x/6 + ½, 0, 1).

use crate::lower::registry::{Rule, on_path};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["HardSigmoid", "HardSwish"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let is_swish = site.node.op_type() == "HardSwish";
    let (alpha, beta) = if is_swish { (1.0 / 6.0, 0.5) } else { (site.float("alpha", 0.2), site.float("beta", 0.5)) };
    let scaled = b.times(&x, alpha);
    let line = b.plus(&scaled, beta);
    let (zero, one) = (b.number(0.0, &x), b.number(1.0, &x));
    let clipped = b.one("Clip", &[&line, &zero, &one], Vec::new(), x.ty.clone());
    Ok(vec![if is_swish { b.binary("Mul", &x, &clipped) } else { clipped }.into()])
}
