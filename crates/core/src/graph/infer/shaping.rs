//! Operators that arrange the same elements in another shape, and Concat, Split, Expand, Tile and Pad.

use super::dims::{broadcast, plus, position, product, quotient, times};
use super::int::Int;
use super::site::{Axes, MAX_RANK, Site};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};

/// Reshape: 0 copies the input's dim (unless `allowzero`), −1 takes what is left.
pub(super) fn reshape(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let asked: Vec<Int> = match site.integers(1) {
        Some(shape) => shape.to_vec(),
        // Reshape-1 had an attribute.
        None => match site.node.ints("shape").filter(|_| site.value(1).is_none()) {
            Some(shape) if shape.len() <= super::integers::LIMIT => shape.iter().map(|n| Int::Known(*n)).collect(),
            _ => {
                // The number of elements of the shape is the rank.
                let rank = usize::try_from(site.dims(1)?.first()?.known()?).ok().filter(|r| *r <= MAX_RANK)?;
                vec![Int::Unknown; rank]
            }
        },
    };
    let data = site.dims(0);
    let copies = site.int("allowzero", 0) == 0;
    let mut open = None;
    let mut out: Vec<Dim> = Vec::with_capacity(asked.len());
    for (i, size) in asked.iter().enumerate() {
        out.push(match size {
            Int::Known(0) if copies => data.and_then(|d| d.get(i)).cloned().unwrap_or_default(),
            Int::Known(-1) => {
                open = Some(i);
                Dim::Unknown
            }
            other => other.to_dim(),
        });
    }
    // One size that is not known otherwise follows from the number of elements.
    let unknown = || out.iter().filter(|d| **d == Dim::Unknown).count();
    let rest = open.or_else(|| (unknown() == 1).then(|| out.iter().position(|d| *d == Dim::Unknown)).flatten());
    if let (Some(rest), Some(data)) = (rest, data) {
        let others: Vec<Dim> = out.iter().enumerate().filter(|(i, _)| *i != rest).map(|(_, d)| d.clone()).collect();
        out[rest] = quotient(data, &others);
    }
    Some(out)
}

/// `[before axis, from axis on]`.
pub(super) fn flatten(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let Some(data) = site.dims(0) else { return Some(vec![Dim::Unknown; 2]) };
    let axis = site.int("axis", 1);
    let at = if usize::try_from(axis) == Ok(data.len()) { data.len() } else { position(axis, data.len())? };
    Some(vec![product(&data[..at]), product(&data[at..])])
}

/// The permutation of a Transpose of this rank; reversed axes without `perm`.
pub(super) fn permutation(site: &Site<'_, '_>, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = site.node.ints("perm").filter(|p| !p.is_empty()) else { return Some((0..rank).rev().collect()) };
    let perm: Vec<usize> =
        perm.iter().map(|p| usize::try_from(*p).ok().filter(|p| *p < rank)).collect::<Option<_>>()?;
    (perm.len() == rank).then_some(perm)
}

pub(super) fn transpose(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    Some(permutation(site, data.len())?.into_iter().map(|p| data[p].clone()).collect())
}

/// Squeeze without axes drops every axis of size 1, which takes a known shape.
pub(super) fn squeeze(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let gone = match site.axes(1) {
        Axes::Known(axes) => Site::flags(&axes, data.len())?,
        Axes::Missing => data.iter().map(|d| d.known().map(|n| n == 1)).collect::<Option<_>>()?,
        Axes::Unknown => return None,
    };
    Some(data.iter().zip(gone).filter(|(_, gone)| !gone).map(|(d, _)| d.clone()).collect())
}

/// Positions of the axes that Unsqueeze puts in, in the result.
pub(super) fn inserted_axes(site: &Site<'_, '_>, rank: usize) -> Option<Vec<bool>> {
    let Axes::Known(axes) = site.axes(1) else { return None };
    let flags = Site::flags(&axes, rank + axes.len())?;
    (flags.iter().filter(|f| **f).count() == axes.len()).then_some(flags)
}

pub(super) fn unsqueeze(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let mut rest = data.iter();
    let inserted = inserted_axes(site, data.len())?;
    inserted.into_iter().map(|new| if new { Some(Dim::Known(1)) } else { rest.next().cloned() }).collect()
}

/// The data broadcast with the shape.
pub(super) fn expand(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let shape: Vec<Dim> = match site.integers(1) {
        Some(shape) => shape.iter().map(Int::to_dim).collect(),
        None => vec![Dim::Unknown; usize::try_from(site.dims(1)?.first()?.known()?).ok().filter(|r| *r <= MAX_RANK)?],
    };
    Some(broadcast(site.dims(0)?, &shape))
}

pub(super) fn tile(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let Some(repeats) = site.integers(1).filter(|r| r.len() == data.len()) else {
        return Some(vec![Dim::Unknown; data.len()]);
    };
    Some(data.iter().zip(repeats.iter()).map(|(d, r)| times(d, &r.to_dim())).collect())
}

/// Pads are an attribute before opset 11, then an input, with axes of their own since opset 18.
pub(super) fn pad(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let pads = if site.value(1).is_some() { site.numbers(1) } else { site.node.ints("pads").map(<[i64]>::to_vec) };
    let axes = match site.value(3) {
        Some(_) => site.numbers(3),
        None => (0..data.len()).map(|i| i64::try_from(i).ok()).collect(),
    };
    let (Some(pads), Some(axes)) = (pads, axes) else { return Some(vec![Dim::Unknown; data.len()]) };
    if pads.len() != 2 * axes.len() {
        return None;
    }
    let mut out = data.to_vec();
    for (i, axis) in axes.iter().enumerate() {
        let at = position(*axis, data.len())?;
        let added = pads[i].checked_add(pads[i + axes.len()])?;
        out[at] = match (added, data[at].known()) {
            (0, _) => data[at].clone(),
            (n, Some(size)) => size.checked_add_signed(n).map_or(Dim::Unknown, Dim::Known),
            _ => Dim::Unknown,
        };
    }
    Some(out)
}

/// Along the axis sizes add up; the others agree, so what one input knows holds for all.
pub(super) fn concat(site: &Site<'_, '_>) -> Vec<TensorType> {
    let inputs = 0..site.input_count();
    let elem = inputs.clone().map(|slot| site.elem(slot)).find(|e| *e != 0).unwrap_or(0);
    let dims = || {
        let rank = inputs.clone().find_map(|slot| site.dims(slot))?.len();
        // Axis was optional, and 1, before opset 4.
        let axis = position(site.int("axis", 1), rank)?;
        let mut out = vec![Dim::Unknown; rank];
        out[axis] = Dim::Known(0);
        for slot in inputs.clone() {
            let dims = site.dims(slot).filter(|d| d.len() == rank);
            out[axis] = dims.map_or(Dim::Unknown, |d| plus(&out[axis], &d[axis]));
            for (i, dim) in dims.into_iter().flatten().enumerate().filter(|(i, _)| *i != axis) {
                if out[i] == Dim::Unknown || (out[i].known().is_none() && dim.known().is_some()) {
                    out[i] = dim.clone();
                }
            }
        }
        Some(out)
    };
    vec![TensorType { elem, dims: dims() }]
}

/// Sizes by input (opset 13), by attribute, or equal shares (the last one smaller, with `num_outputs`).
pub(super) fn split(site: &Site<'_, '_>) -> Vec<TensorType> {
    let count = site.output_count();
    let sizes: Option<Vec<Dim>> = if site.value(1).is_some() {
        site.integers(1).map(|sizes| sizes.iter().map(Int::to_dim).collect())
    } else {
        site.node.ints("split").map(|sizes| sizes.iter().map(|n| Int::Known(*n).to_dim()).collect())
    };
    let sizes = sizes.filter(|s| s.len() == count);
    let by_input = site.value(1).is_some() || site.attribute("split").is_some();
    let parts = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    let part = |data: &[Dim], i: usize| {
        let axis = position(site.int("axis", 0), data.len())?;
        let mut out = data.to_vec();
        out[axis] = match (&sizes, data[axis].known()) {
            (Some(sizes), _) => sizes[i].clone(),
            (None, Some(size)) if !by_input => {
                let share = size.div_ceil(parts);
                Dim::Known(share.min(size.saturating_sub(share.saturating_mul(u64::try_from(i).unwrap_or(u64::MAX)))))
            }
            _ => Dim::Unknown,
        };
        Some(out)
    };
    let data = site.dims(0);
    (0..count).map(|i| TensorType { elem: site.elem(0), dims: data.and_then(|d| part(d, i)) }).collect()
}
