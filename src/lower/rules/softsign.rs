//! **What.** Softsign.
//!
//! **Why.** No gradient of it is registered.
//!
//! **Equation.** Softsign(x) = x/(1 + |x|). Its derivative at 0 is 1, because the term with |x|′ has the factor x.

use crate::lower::registry::{Rule, on_path};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["Softsign"], because: "no gradient of it is registered", applies: on_path, rewrite }];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let magnitude = b.unary("Abs", &x);
    let denominator = b.plus(&magnitude, 1.0);
    Ok(vec![b.binary("Div", &x, &denominator).into()])
}
