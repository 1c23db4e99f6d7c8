//! Pooling.

use super::convolution::Window;
use super::site::Site;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::tensor_proto::DataType;

/// `[N, C, …]` with every spatial axis shortened by its window.
pub(super) fn pool(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let axes = data.len().checked_sub(2)?;
    let ceil = site.int("ceil_mode", 0) != 0;
    let spatial = (0..axes)
        .map(|axis| Window::along(site, axis, axes, None).map_or(Dim::Unknown, |w| w.slide(&data[axis + 2], ceil)));
    Some(data[..2].iter().cloned().chain(spatial).collect())
}

/// The maxima and their indices.
pub(super) fn max_pool(site: &Site<'_, '_>) -> Vec<TensorType> {
    [site.elem(0), DataType::Int64 as i32].map(|elem| TensorType { elem, dims: pool(site) }).into()
}

/// `[N, C, 1, …]`.
pub(super) fn global(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    Some((0..data.len()).map(|i| if i < 2 { data[i].clone() } else { Dim::Known(1) }).collect())
}
