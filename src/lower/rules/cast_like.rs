//! **What.** CastLike.
//!
//! **Why.** No gradient of it is registered.
//!
//! **Equation.** Cast to the type of the second operand, which the graph fixes.

use crate::lower::registry::{Rule, on_path};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["CastLike"],
    because: "no gradient of it is registered",
    applies: on_path,
    rewrite: |site, b| {
        let elem = site.required(1)?.ty.elem;
        if elem == 0 {
            return Err("the type that it casts to is unknown".into());
        }
        Ok(vec![b.cast(&site.required(0)?, elem).into()])
    },
}];
