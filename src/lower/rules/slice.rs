//! **What.** Slice with a negative step.
//!
//! **Why.** The kernel of its gradient fails on an end before the beginning (`narrowing_error`).
//!
//! **Equation.** The positions that such a slice takes, by Gather along each axis.

use crate::lower::builder::{Builder, Made};
use crate::lower::registry::Rule;
use crate::lower::site::{self, Known, Site, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Slice"],
    because: "its gradient fails on negative steps",
    applies: |site| site.on_path() && site.integers(4).is_some_and(|steps| steps.iter().any(|s| *s < 0)),
    rewrite,
}];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let mut x = site.required(0)?;
    let rank = rank(&x)?;
    let list = |slot: usize, what: &str| site.attribute_or_input(what, slot);
    let starts = list(1, "starts")?.ok_or("it has no starts")?;
    let ends = list(2, "ends")?.ok_or("it has no ends")?;
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = site::axis(*axis, rank)?;
        if *step > 0 {
            x = b.slice(&x, axis, *start, *end, *step);
            continue;
        }
        let n = extent(size(&x, axis)?);
        let from_front = |i: i64| if i < 0 { i + n } else { i };
        let first = from_front(*start).clamp(0, n - 1);
        let last = from_front(*end).clamp(-1, n - 1);
        let positions: Vec<i64> =
            std::iter::successors(Some(first), |p| Some(p + step)).take_while(|p| *p > last).collect();
        x = b.pick(&x, axis, &positions);
    }
    Ok(vec![x.into()])
}
