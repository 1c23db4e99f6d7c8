//! **What.** Sum and Mean of any number of operands.
//!
//! **Why.** No gradient of them is registered (the builder itself writes Sum, for gradients).
//!
//! **Equation.** Sum(x₁ … xₙ) = x₁ + … + xₙ by a chain of Add; Mean is that times 1/n.

use crate::lower::registry::{Rule, on_path};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["Sum", "Mean"], because: "no gradient of it is registered", applies: on_path, rewrite }];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let operands = site.inputs();
    let (first, rest) = operands.split_first().ok_or("it has no operands")?;
    let sum = rest.iter().fold(first.clone(), |sum, x| b.binary("Add", &sum, x));
    let is_mean = site.node.op_type() == "Mean";
    Ok(vec![if is_mean { b.divided(&sum, operands.len() as f64) } else { sum }.into()])
}
