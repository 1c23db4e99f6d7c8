//! Operators that take some of the elements: Slice, the Gathers, NonZero, OneHot.

use super::dims::{position, slice_length};
use super::integers::LIMIT;
use super::site::Site;
use crate::graph::Attributes;
use crate::graph::types::Dim;

/// A slice of a node: axis, start, end, step. From inputs since opset 10, from attributes before.
pub(super) fn slice_parts(site: &Site<'_, '_>) -> Option<Vec<(i64, i64, i64, i64)>> {
    let by_input = site.value(1).is_some();
    let list = |slot: usize, attribute: &str| {
        if by_input {
            site.numbers(slot)
        } else {
            site.node.ints(attribute).filter(|l| l.len() <= LIMIT).map(<[i64]>::to_vec)
        }
    };
    let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
    let has_axes = if by_input { site.value(3).is_some() } else { site.attribute("axes").is_some() };
    let axes = if has_axes { list(3, "axes")? } else { (0..).take(starts.len()).collect() };
    let steps = if site.value(4).is_some() { site.numbers(4)? } else { vec![1; starts.len()] };
    let same = ends.len() == starts.len() && axes.len() == starts.len() && steps.len() == starts.len();
    let parts = || (0..starts.len()).map(|i| (axes[i], starts[i], ends[i], steps[i])).collect();
    same.then(parts)
}

pub(super) fn slice(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let Some(parts) = slice_parts(site) else { return Some(vec![Dim::Unknown; data.len()]) };
    let mut out = data.to_vec();
    for (axis, start, end, step) in parts {
        let at = position(axis, data.len())?;
        out[at] = match data[at].known().and_then(|n| i64::try_from(n).ok()) {
            Some(size) => slice_length(size, start, end, step).map_or(Dim::Unknown, Dim::Known),
            None if start == 0 && step == 1 && end >= i64::from(i32::MAX) => data[at].clone(),
            None => Dim::Unknown,
        };
    }
    Some(out)
}

/// The indices' shape in place of the axis.
pub(super) fn gather(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let (data, indices) = (site.dims(0)?, site.dims(1)?);
    let axis = position(site.int("axis", 0), data.len())?;
    Some(data[..axis].iter().chain(indices).chain(&data[axis + 1..]).cloned().collect())
}

pub(super) fn gather_elements(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    site.dims(1).map(<[Dim]>::to_vec)
}

/// `indices[:-1]` and what is left of the data behind `batch_dims + indices[-1]` axes.
pub(super) fn gather_nd(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let (data, indices) = (site.dims(0)?, site.dims(1)?);
    let (depth, lead) = indices.split_last()?;
    let taken = usize::try_from(depth.known()?).ok()?.checked_add(usize::try_from(site.int("batch_dims", 0)).ok()?)?;
    Some(lead.iter().chain(data.get(taken..)?).cloned().collect())
}

/// `[rank, how many]`.
pub(super) fn non_zero(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let rank = site.dims(0).and_then(|d| u64::try_from(d.len()).ok());
    Some(vec![rank.map_or(Dim::Unknown, Dim::Known), Dim::Unknown])
}

/// The indices' shape with the depth put in at `axis`.
pub(super) fn one_hot(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let mut out = site.dims(0)?.to_vec();
    let depth = site.number(1).and_then(|d| u64::try_from(d).ok()).map_or(Dim::Unknown, Dim::Known);
    let axis = position(site.int("axis", -1), out.len() + 1)?;
    out.insert(axis, depth);
    Some(out)
}
