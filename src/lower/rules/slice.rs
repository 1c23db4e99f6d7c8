//! **What.** Slice with a negative step; Slice and Gather of one position that lead nowhere, beside others of the same value that do.
//!
//! **Why.** The kernel of the gradient fails on an end before the beginning (`narrowing_error`). Slices and positions that tile an axis are
//! made into a Split by ONNX Runtime, whose gradient forgets the outputs that lead nowhere: the rest lands in the wrong place.
//!
//! **Equation.** The positions that such a slice takes, by Gather along each axis.

use crate::graph::types::Dim;
use crate::lower::registry::Rule;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{self, Known, Site, extent, rank, size, written_out};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Slice"],
        because: "its gradient fails on negative steps",
        applies: |site| site.on_path() && site.integers(4).is_some_and(|steps| steps.iter().any(|s| *s < 0)),
        rewrite,
    },
    Rule {
        ops: &["Slice"],
        because: "it leads nowhere, and beside other slices ONNX Runtime would lose their gradients",
        applies: |site| is_dead_end(site) && is_one_axis(site),
        rewrite,
    },
    Rule {
        ops: &["Gather"],
        because: "it leads nowhere, and beside other slices ONNX Runtime would lose their gradients",
        applies: |site| is_dead_end(site) && site.input(1).is_some_and(|i| i.ty.rank() == Some(0)),
        rewrite: position,
    },
];

fn is_dead_end(site: &Site) -> bool {
    !site.on_path() && site.needs_gradient(0) && site.has_parts_of(0)
}

/// What ONNX Runtime can make into a Split: one axis of known length, at constant positions.
fn is_one_axis(site: &Site) -> bool {
    let [starts, ends, axes] = [1, 2, 3].map(|slot| site.integers(slot));
    let (Some(x), Some([_]), Some(_)) = (site.input(0), starts.as_deref(), ends) else { return false };
    let axis = axes.and_then(|a| a.first().copied()).unwrap_or(0);
    rank(&x).and_then(|r| site::axis(axis, r)).and_then(|axis| size(&x, axis)).is_ok()
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let mut x = site.required(0)?;
    let rank = rank(&x)?;
    let starts = site.attribute_or_input("starts", 1)?.ok_or("it has no starts")?;
    let ends = site.attribute_or_input("ends", 2)?.ok_or("it has no ends")?;
    let axes = site.attribute_or_input("axes", 3)?.unwrap_or_else(|| (0..extent(starts.len() as u64)).collect());
    let steps = site.attribute_or_input("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = site::axis(*axis, rank)?;
        if *step > 0 && !is_dead_end(site) {
            x = b.slice(&x, axis, *start, *end, *step);
            continue;
        }
        let n = written_out(extent(size(&x, axis)?))?;
        x = aside(b, &x, axis, &positions(*start, *end, *step, n));
    }
    Ok(vec![x.into()])
}

/// The positions of start:end:step in an axis of length n.
fn positions(start: i64, end: i64, step: i64, n: i64) -> Vec<i64> {
    let from_front = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    if n == 0 {
        return Vec::new();
    }
    let (start, end) = (from_front(start), from_front(end));
    let walk = |first: i64| std::iter::successors(Some(first), move |p| p.checked_add(step));
    if step > 0 {
        let end = end.clamp(0, n);
        walk(start.clamp(0, n)).take_while(|p| *p < end).collect()
    } else {
        let end = end.clamp(-1, n - 1);
        walk(start.clamp(0, n - 1)).take_while(|p| *p > end).collect()
    }
}

/// Positions along an axis, by nodes that ONNX Runtime does not make part of a Split: it would a Gather of one position.
pub fn aside(b: &mut Builder, x: &Tensor, axis: usize, positions: &[i64]) -> Tensor {
    let [one] = positions else { return b.pick(x, axis, positions) };
    let twice = b.pick(x, axis, &[*one, *one]);
    b.slice(&twice, axis, 0, 1, 1)
}

/// The same for a position that is an input.
fn position(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, index) = (site.required(0)?, site.required(1)?);
    let axis = site::axis(site.int("axis", 0), rank(&x)?)?;
    let index = b.unsqueeze(&index, &[0]);
    let index = b.concat(&[index.clone(), index], 0);
    let mut ty = x.ty.clone();
    if let Some(dim) = ty.dims.as_mut().and_then(|d| d.get_mut(axis)) {
        *dim = Dim::Known(2);
    }
    let twice = b.one("Gather", &[&x, &index], vec![int("axis", axis as i64)], ty);
    let one = b.slice(&twice, axis, 0, 1, 1);
    Ok(vec![b.squeeze(&one, &[axis]).into()])
}

#[cfg(test)]
mod tests {
    use super::positions;

    #[test]
    fn positions_are_those_of_numpy() {
        assert_eq!(positions(-1, i64::MIN, -1, 4), [3, 2, 1, 0]);
        assert_eq!(positions(0, i64::MAX, 2, 5), [0, 2, 4]);
        assert_eq!(positions(2, 0, -1, 4), [2, 1]);
        assert_eq!(positions(1, 1, 1, 4), [0i64; 0]);
        assert_eq!(positions(0, 4, i64::MAX, 4), [0]);
    }
}
