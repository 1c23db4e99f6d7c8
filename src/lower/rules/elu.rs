//! **What.** Elu, Selu, Celu.
//!
//! **Why.** No gradient of them is registered.
//!
//! **Equation.** With r = Relu(x) and n = x − r = min(x, 0), both exact:
//! Elu(x) = r + α(eⁿ − 1), Selu(x) = γ·(r + α(eⁿ − 1)), Celu(x) = r + α(e^{n/α} − 1).
//! eⁿ cannot overflow. At 0 the derivative is the one of the left side (α, γα, 1), as PyTorch has it, because Relu's is 0 there.

use crate::lower::registry::{Rule, on_path};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["Elu", "Selu", "Celu"], because: "no gradient of it is registered", applies: on_path, rewrite }];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let positive = b.unary("Relu", &x);
    let negative = b.binary("Sub", &x, &positive);
    let (alpha, gamma) = match site.node.op_type() {
        // The defaults of the specification.
        "Selu" => (site.float("alpha", 1.673_263_2), site.float("gamma", 1.050_701)),
        _ => (site.float("alpha", 1.0), 1.0),
    };
    let exponent = if site.node.op_type() == "Celu" { b.divided(&negative, alpha) } else { negative };
    let exp = b.unary("Exp", &exponent);
    let below = b.plus(&exp, -1.0);
    let below = b.times(&below, alpha);
    let sum = b.binary("Add", &positive, &below);
    Ok(vec![b.times(&sum, gamma).into()])
}
