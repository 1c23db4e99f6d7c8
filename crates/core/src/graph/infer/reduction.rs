//! Reductions, and the operators that pick extremes.

use super::dims::position;
use super::site::{Axes, Site};
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// Which axes a Reduce operator reduces; `None` when that is not known.
pub(super) fn reduced_axes(site: &Site<'_, '_>, rank: usize) -> Option<Vec<bool>> {
    match site.axes(1) {
        Axes::Known(axes) if !axes.is_empty() => Site::flags(&axes, rank),
        Axes::Unknown => None,
        _ => Some(vec![site.int("noop_with_empty_axes", 0) == 0; rank]),
    }
}

/// The reduced axes have size 1 (`keepdims`, the default) or are gone.
pub(super) fn reduce(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let keep = site.int("keepdims", 1) != 0;
    match reduced_axes(site, data.len()) {
        Some(reduced) => Some(drop_axes(data, &reduced, keep)),
        None => keep.then(|| vec![Dim::Unknown; data.len()]),
    }
}

fn drop_axes(data: &[Dim], reduced: &[bool], keep: bool) -> Vec<Dim> {
    let axes = data.iter().zip(reduced);
    axes.filter(|(_, r)| keep || !**r).map(|(d, r)| if *r { Dim::Known(1) } else { d.clone() }).collect()
}

/// ArgMax and ArgMin: one axis.
pub(super) fn arg(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let reduced = Site::flags(&[site.int("axis", 0)], data.len())?;
    Some(drop_axes(data, &reduced, site.int("keepdims", 1) != 0))
}

/// Det takes the last two axes away.
pub(super) fn determinant(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    Some(data[..data.len().checked_sub(2)?].to_vec())
}

/// Values and indices; k is an input since opset 10.
pub(super) fn top_k(site: &Site<'_, '_>) -> Vec<TensorType> {
    let dims = || {
        let mut dims = site.dims(0)?.to_vec();
        let axis = position(site.int("axis", -1), dims.len())?;
        let k = if site.value(1).is_some() { site.number(1) } else { Some(site.int("k", -1)) };
        dims[axis] = k.and_then(|k| u64::try_from(k).ok()).map_or(Dim::Unknown, Dim::Known);
        Some(dims)
    };
    [site.elem(0), DataType::Int64 as i32].map(|elem| TensorType { elem, dims: dims() }).into()
}
