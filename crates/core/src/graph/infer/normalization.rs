//! BatchNormalization and LayerNormalization, the two with outputs beside the result.

use super::dims::position;
use super::pointwise::same;
use super::site::Site;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// The result, then statistics of one element a channel.
pub(super) fn batch(site: &Site<'_, '_>) -> Vec<TensorType> {
    let statistic = |slot: usize| TensorType { elem: site.elem(slot), dims: site.dims(slot).map(<[Dim]>::to_vec) };
    let result = TensorType { elem: site.elem(0), dims: same(site) };
    let statistics = (1..site.output_count().min(5)).map(|i| statistic(if i % 2 == 1 { 3 } else { 4 }));
    std::iter::once(result).chain(statistics).collect()
}

/// The result, the mean and the inverse standard deviation: the latter keep the normalised axes with size 1.
pub(super) fn layer(site: &Site<'_, '_>) -> Vec<TensorType> {
    let statistics = || {
        let data = site.dims(0)?;
        let from = position(site.int("axis", -1), data.len())?;
        Some((0..data.len()).map(|i| if i < from { data[i].clone() } else { Dim::Known(1) }).collect::<Vec<_>>())
    };
    let stash = site.elem_attribute("stash_type").unwrap_or(DataType::Float as i32);
    let mut out = vec![TensorType { elem: site.elem(0), dims: same(site) }];
    if site.output_count() > 1 {
        out.extend([stash, stash].map(|elem| TensorType { elem, dims: statistics() }));
    }
    out
}
