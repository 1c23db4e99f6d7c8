//! Operators that cut, join, repeat and fill up.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::{in_shape_of, reshape_like, shape_of, zeros_like};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Elem, Tensor, int, ints};
use crate::rewrite::builder::Extent;
use crate::rewrite::site::{Known, Refusal, axis, extent, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["Concat"], adjoint: concat },
    Rule { ops: &["Split"], adjoint: split },
    Rule { ops: &["Slice"], adjoint: slice },
    Rule { ops: &["Pad"], adjoint: pad },
    // ∂x = Σ g over what was repeated.
    Rule {
        ops: &["Expand"],
        adjoint: |a| {
            let g = a.lazy(0)?;
            a.give_summed(0, g)
        },
    },
    Rule { ops: &["Tile"], adjoint: tile },
];

/// The lengths of operands or results along an axis, where all are known.
fn lengths(parts: &[TensorType], at: usize) -> Option<Vec<i64>> {
    parts.iter().map(|p| p.dims.as_ref()?.get(at)?.known().map(extent)).collect()
}

/// Every operand gets its part of the gradient.
fn concat(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let g = a.g(0)?;
    let at = axis(a.site.int("axis", 1), rank(&g)?)?;
    let operands = a.site.inputs();
    let types: Vec<TensorType> = operands.iter().map(|x| x.ty.clone()).collect();
    let mut inputs = vec![Some(g.clone())];
    let mut attributes = vec![int("axis", at as i64)];
    match lengths(&types, at) {
        Some(known) if a.b.opset() < 13 => attributes.push(ints("split", &known)),
        Some(known) => inputs.push(Some(a.b.integers(&known))),
        None if a.b.opset() < 13 => {
            return Err(Refusal("how long its operands are is known only to the running graph, and Split has lengths known there from operator set 13 on, which --opset 13 raises the graph to".into()));
        }
        None => {
            let each: Vec<Extent> = operands.iter().map(|x| (x, at).into()).collect();
            inputs.push(Some(a.b.shape(&each)));
        }
    }
    let parts = match operands.len() {
        1 => vec![g],
        _ => a.b.node("Split", &inputs, attributes, &types),
    };
    for (slot, part) in parts.into_iter().enumerate() {
        if a.wants(slot) {
            a.give(slot, part);
        }
    }
    Ok(())
}

/// The parts' gradients, joined; zeros for parts that nothing differentiable reads.
fn split(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let x = a.x(0)?;
    let at = axis(a.site.int("axis", 0), rank(&x)?)?;
    let mut parts = Vec::new();
    for slot in 0..a.site.node.output.len() {
        if a.has_g(slot) {
            parts.push(a.g(slot)?);
        } else {
            let y = a.y(slot);
            parts.push(zeros_like(a.b, &y));
        }
    }
    let dx = a.b.concat(&parts, at);
    a.give(0, Tensor { ty: x.ty, ..dx });
    Ok(())
}

/// Zeros around the gradient; with steps, the gradient at the places that were read, and zeros elsewhere.
fn slice(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    if let Some(pads) = pads_of_slice(a, &x)? {
        let dx = a.b.pad(&g, &pads, None);
        a.give(0, Tensor { ty: x.ty, ..dx });
        return Ok(());
    }
    // Where each element came from: the same slice of the positions of x's elements.
    let scalar = TensorType { elem: Elem::I64.onnx(), dims: Some(Vec::new()) };
    let whole = |dims| TensorType { elem: Elem::I64.onnx(), dims };
    let size = a.b.one("Size", &[&x], Vec::new(), scalar);
    let all = a.b.counted(&size, Dim::Unknown);
    let shape = shape_of(a.b, &x);
    let positions = a.b.one("Reshape", &[&all, &shape], Vec::new(), whole(x.ty.dims.clone()));
    let mut inputs: Vec<Option<Tensor>> = (0..a.site.node.input.len()).map(|slot| a.site.input(slot)).collect();
    inputs[0] = Some(positions);
    let read = a.b.node("Slice", &inputs, a.site.node.attribute.clone(), &[whole(g.ty.dims.clone())]);
    let flat = [Extent::Fixed(-1)];
    let (indices, updates) = (a.b.reshape(&read[0], &flat), a.b.reshape(&g, &flat));
    let zeros = zeros_like(a.b, &x);
    let zeros = a.b.reshape(&zeros, &flat);
    let dx = a.b.scatter(&zeros, &indices, &updates, 0);
    let dx = reshape_like(a.b, &dx, &x);
    a.give(0, dx);
    Ok(())
}

/// How much is missing at the beginning and the end of every axis, where that is known and nothing in between is.
fn pads_of_slice(a: &Adjoint<'_, '_>, x: &Tensor) -> Known<Option<Vec<i64>>> {
    let rank = rank(x)?;
    let is_attribute = a.site.opset() < 10;
    let list = |name: &str, slot: usize| {
        if is_attribute { a.site.node.ints(name).map(<[i64]>::to_vec) } else { a.site.integers(slot) }
    };
    let (Some(starts), Some(ends)) = (list("starts", 1), list("ends", 2)) else { return Ok(None) };
    let missing = |slot: usize| is_attribute || a.site.input(slot).is_none();
    let axes = match list("axes", 3) {
        Some(axes) => axes,
        None if missing(3) => (0..starts.len() as i64).collect(),
        None => return Ok(None),
    };
    let steps = match a.site.integers(4).filter(|_| !is_attribute) {
        Some(steps) => steps,
        None if missing(4) => vec![1; starts.len()],
        None => return Ok(None),
    };
    let mut pads = vec![0; 2 * rank];
    for (((start, end), at), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let at = axis(*at, rank)?;
        let length = x.ty.dims.as_ref().and_then(|d| d.get(at)).and_then(Dim::known).map(extent);
        let (Some(n), 1) = (length, step) else {
            // An axis that is read whole has nothing around it, however long.
            if *step == 1 && *start == 0 && *end >= i64::from(i32::MAX) {
                continue;
            }
            return Ok(None);
        };
        let clamp = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n);
        let (from, to) = (clamp(*start), clamp(*end));
        if to <= from {
            return Ok(None);
        }
        (pads[at], pads[rank + at]) = (from, n - to);
    }
    Ok(Some(pads))
}

/// Constant filling: the gradient of what was filled up, which is a Pad by as much less; the filling gets the rest of the sum. (The other
/// modes repeat elements and are spelt out.)
fn pad(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let rank = rank(&x)?;
    let name = if a.site.opset() < 2 { "paddings" } else { "pads" };
    let axes: Option<Vec<usize>> = match a.site.input(3) {
        Some(_) => {
            a.site.integers(3).map(|axes| axes.iter().map(|i| axis(*i, rank)).collect::<Known<_>>()).transpose()?
        }
        None => Some((0..rank).collect()),
    };
    let given = a.site.node.ints(name).map(<[i64]>::to_vec).or_else(|| a.site.integers(1));
    let dx = match (given, axes) {
        (Some(given), Some(axes)) => {
            if given.len() != 2 * axes.len() {
                return Err(Refusal(format!("it has {} pads for {} axes", given.len(), axes.len())));
            }
            let mut cut = g.clone();
            let mut filled = vec![0; 2 * rank];
            for (i, at) in axes.iter().enumerate() {
                let (before, after) = (given[i], given[axes.len() + i]);
                // Negative pads cut: their places get zeros.
                (filled[*at], filled[rank + *at]) = ((-before).max(0), (-after).max(0));
                let end = if after > 0 { -after } else { i64::from(i32::MAX) };
                if before > 0 || after > 0 {
                    cut = a.b.slice(&cut, *at, before.max(0), end, 1);
                }
            }
            if filled.iter().any(|n| *n != 0) { a.b.pad(&cut, &filled, None) } else { cut }
        }
        _ => {
            let pads = a.x(1)?;
            let less = a.b.unary("Neg", &pads);
            let inputs = [Some(g.clone()), Some(less), None, a.site.input(3)];
            let count = if inputs[3].is_some() { 4 } else { 2 };
            a.b.node("Pad", &inputs[..count], Vec::new(), std::slice::from_ref(&x.ty))[0].clone()
        }
    };
    let dx = Tensor { ty: x.ty, ..dx };
    if a.wants(2) {
        let value = a.x(2)?;
        let [all, kept] = [&g, &dx].map(|t| a.b.reduce("ReduceSum", t, None, false));
        let rest = a.b.binary("Sub", &all, &kept);
        let rest = reshape_like(a.b, &rest, &value);
        a.give(2, rest);
    }
    if a.wants(0) {
        a.give(0, dx);
    }
    Ok(())
}

/// y repeats x r times along each axis: with y as [r₁, n₁, r₂, n₂, …], ∂x sums over the r.
fn tile(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let rank = rank(&x)?;
    let repeats = a.site.integers(1).ok_or("how often it repeats is known only to the running graph")?;
    let extents: Vec<Extent> =
        repeats.iter().enumerate().flat_map(|(i, r)| [Extent::Fixed(*r), (&x, i).into()]).collect();
    let g = a.b.widened(&g);
    let apart = a.b.reshape(&g, &extents);
    let axes: Vec<i64> = (0..rank as i64).map(|i| 2 * i).collect();
    let sum = a.b.reduce("ReduceSum", &apart, Some(&axes), false);
    a.give(0, in_shape_of(sum, &x));
    Ok(())
}
