//! Softmax and its logarithm.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::rewrite::site::{Known, axis, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // ∂x = y·(g − Σ g·y).
    Rule {
        ops: &["Softmax"],
        adjoint: |a| {
            let (g, y, axes) = (a.g(0)?, a.y(0), axes(a)?);
            let (g, y) = (a.b.widened(&g), a.b.widened(&y));
            let product = a.b.binary("Mul", &g, &y);
            let sum = a.b.reduce("ReduceSum", &product, Some(&axes), true);
            let rest = a.b.binary("Sub", &g, &sum);
            let dx = a.b.binary("Mul", &y, &rest);
            a.give(0, dx);
            Ok(())
        },
    },
    // ∂x = g − eʸ·Σ g.
    Rule {
        ops: &["LogSoftmax"],
        adjoint: |a| {
            let (g, y, axes) = (a.g(0)?, a.y(0), axes(a)?);
            let (g, y) = (a.b.widened(&g), a.b.widened(&y));
            let sum = a.b.reduce("ReduceSum", &g, Some(&axes), true);
            let p = a.b.unary("Exp", &y);
            let share = a.b.binary("Mul", &p, &sum);
            let dx = a.b.binary("Sub", &g, &share);
            a.give(0, dx);
            Ok(())
        },
    },
];

/// The axes over which probabilities add up to 1: one; before operator set 13 all from the given one on.
fn axes(a: &Adjoint<'_, '_>) -> Known<Vec<i64>> {
    let rank = rank(&a.x(0)?)?;
    if a.site.opset() >= 13 {
        return Ok(vec![axis(a.site.int("axis", -1), rank)? as i64]);
    }
    Ok((axis(a.site.int("axis", 1), rank)?..rank).map(|i| i as i64).collect())
}
