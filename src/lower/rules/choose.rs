//! **What.** Where with an operand that is stretched.
//!
//! **Why.** The gradient of an operand is not summed over the axes that it was stretched along: it comes out in the wrong shape.
//!
//! **Equation.** Where(c, a, b) = Where(c, Expand(a), Expand(b)), whose gradients Expand sums.

use crate::lower::registry::Rule;
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Where"],
    because: "its gradient has the result's shape, not that of a stretched operand",
    applies: |site| site.on_path() && (is_stretched(site, 1) || is_stretched(site, 2)),
    rewrite,
}];

fn is_stretched(site: &Site, slot: usize) -> bool {
    site.needs_gradient(slot) && site.input(slot).is_some_and(|x| x.ty.dims != site.output_type(0).dims)
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let mut operands = [site.required(1)?, site.required(2)?];
    let condition = site.required(0)?;
    let whole = b.again(site, &[site.output_type(0)]).swap_remove(0);
    for (i, operand) in operands.iter_mut().enumerate() {
        if is_stretched(site, i + 1) {
            *operand = b.expand_like(operand, &whole);
        }
    }
    let [yes, no] = operands;
    Ok(vec![b.one("Where", &[&condition, &yes, &no], Vec::new(), site.output_type(0)).into()])
}
