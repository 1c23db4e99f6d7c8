//! Reductions: every element of what was reduced gets its share of the result's gradient.
//!
//! The gradient stays small until something needs it in full: a product with the operand broadcasts by itself.

use crate::autodiff::adjoint::{Adjoint, Cotangent};
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::{elements_per, in_shape_of};
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;
use crate::rewrite::site::{Known, axis, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    // ∂x = g.
    Rule { ops: &["ReduceSum"], adjoint: |a| with(a, |_, _, _, g| Ok((g.clone(), false))) },
    // ∂x = g/n.
    Rule { ops: &["ReduceMean"], adjoint: |a| with(a, |a, x, y, g| Ok((mean_share(a.b, g, x, y), false))) },
    // ∂x = 2g·x.
    Rule {
        ops: &["ReduceSumSquare"],
        adjoint: |a| {
            with(a, |a, x, _, g| {
                let twice = a.b.times(g, 2.0);
                Ok((a.b.binary("Mul", &twice, x), true))
            })
        },
    },
    // ∂x = g·sign x.
    Rule {
        ops: &["ReduceL1"],
        adjoint: |a| {
            with(a, |a, x, _, g| {
                let sign = a.b.unary("Sign", x);
                Ok((a.b.binary("Mul", g, &sign), true))
            })
        },
    },
    // ∂x = g·x/y, and 0 where y = 0.
    Rule {
        ops: &["ReduceL2"],
        adjoint: |a| {
            with(a, |a, x, y, g| {
                let zero = a.b.number(0.0, y);
                let is_safe = a.b.compare("Greater", y, &zero);
                let share = a.b.binary("Div", g, y);
                let share = a.b.choose(&is_safe, &share, &zero);
                Ok((a.b.binary("Mul", &share, x), true))
            })
        },
    },
    // y = ln Σ x: ∂x = g/Σ x = g·e⁻ʸ.
    Rule {
        ops: &["ReduceLogSum"],
        adjoint: |a| {
            with(a, |a, _, y, g| {
                let negative = a.b.unary("Neg", y);
                let share = a.b.unary("Exp", &negative);
                Ok((a.b.binary("Mul", g, &share), false))
            })
        },
    },
    // y = ln Σ eˣ: ∂x = g·e^(x − y).
    Rule {
        ops: &["ReduceLogSumExp"],
        adjoint: |a| {
            with(a, |a, x, y, g| {
                let less = a.b.binary("Sub", x, y);
                let share = a.b.unary("Exp", &less);
                Ok((a.b.binary("Mul", g, &share), true))
            })
        },
    },
    // ∂x = g/k where x is the extremum, k being how often it occurs.
    Rule {
        ops: &["ReduceMax", "ReduceMin"],
        adjoint: |a| {
            let axes = axes(a)?;
            with(a, |a, x, y, g| {
                let is_it = a.b.equal(x, y);
                let hit = a.b.indicator(&is_it, x);
                let axes: Vec<i64> = axes.iter().map(|i| *i as i64).collect();
                let count = a.b.reduce("ReduceSum", &hit, Some(&axes), true);
                let share = a.b.binary("Div", g, &count);
                Ok((a.b.binary("Mul", &share, &hit), true))
            })
        },
    },
    // The mean over all places: ∂x = g/n.
    Rule {
        ops: &["GlobalAveragePool"],
        adjoint: |a| {
            let (g, x, y) = (a.lazy(0)?.tensor, a.x(0)?, a.y(0));
            let share = mean_share(a.b, &g, &x, &y);
            a.give_lazy(0, share);
            Ok(())
        },
    },
];

/// g/n, with n elements of x for each of y.
fn mean_share(b: &mut Builder, g: &Tensor, x: &Tensor, y: &Tensor) -> Tensor {
    let g = b.widened(g);
    let counts = x.ty.element_count().zip(y.ty.element_count());
    match counts.filter(|(_, kept)| *kept > 0) {
        Some((all, kept)) => b.divided(&g, (all / kept) as f64),
        None => {
            let n = elements_per(b, x, y);
            b.binary("Div", &g, &n)
        }
    }
}

/// The axes that are reduced, counted from the front.
fn axes(a: &Adjoint<'_, '_>) -> Known<Vec<usize>> {
    let rank = rank(&a.x(0)?)?;
    match a.site.attribute_or_input("axes", 1)? {
        Some(axes) if !axes.is_empty() => axes.iter().map(|i| axis(*i, rank)).collect(),
        _ if a.site.int("noop_with_empty_axes", 0) != 0 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

/// Gives `f` of the operand, the result and the cotangent, the last two with the reduced axes kept. `f` says whether what it returns has
/// the operand's shape.
fn with(
    a: &mut Adjoint<'_, '_>,
    f: impl FnOnce(&mut Adjoint<'_, '_>, &Tensor, &Tensor, &Tensor) -> Known<(Tensor, bool)>,
) -> Known<()> {
    let (g, x, y) = (a.lazy(0)?, a.x(0)?, a.y(0));
    let is_number = g.tensor.ty.dims.as_ref().is_some_and(Vec::is_empty);
    // One number of all elements goes with every shape, whatever the rank of what it is of.
    let is_of_all = is_number && y.ty.rank() == Some(0);
    let (y, g) = if is_of_all || a.site.int("keepdims", 1) != 0 {
        (y, g.tensor)
    } else {
        let axes = axes(a)?;
        // A number goes with every shape, and a cotangent of y's rank gets the axes; any other is brought to y's shape first.
        let kept = |i: usize, d: &Dim| if axes.contains(&i) { Dim::Known(1) } else { d.clone() };
        let dims = x.ty.dims.as_ref().map(|dims| dims.iter().enumerate().map(|(i, d)| kept(i, d)).collect());
        let like = Tensor { name: String::new(), ty: TensorType { elem: x.ty.elem, dims } };
        let y_kept = in_shape_of(a.b.unsqueeze(&y, &axes), &like);
        let is_of_rank = g.tensor.ty.rank().is_some_and(|rank| Some(rank) == y.ty.rank());
        let g = match (is_number, is_of_rank && !g.is_full) {
            (true, _) => g.tensor,
            (false, true) => a.b.unsqueeze(&g.tensor, &axes),
            (false, false) => a.g(0).map(|g| in_shape_of(a.b.unsqueeze(&g, &axes), &like))?,
        };
        (y_kept, g)
    };
    let (tensor, is_full) = f(a, &x, &y, &g)?;
    a.give_as_it_is(0, Cotangent { tensor, is_full });
    Ok(())
}
