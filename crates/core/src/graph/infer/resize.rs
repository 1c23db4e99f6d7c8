//! Resize, Upsample, DepthToSpace and SpaceToDepth.

use super::dims::{position, times};
use super::int::Int;
use super::site::Site;
use crate::graph::Attributes;
use crate::graph::types::Dim;

/// Resize takes scales as input 2 (1 before opset 11) and sizes as input 3; Upsample scales as input 1, or by attribute.
pub(super) fn resize(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let data = site.dims(0)?;
    let modern = site.node.op_type() == "Resize" && site.opset() >= 11;
    let axes: Vec<usize> = match site.node.ints("axes") {
        Some(axes) if axes.len() <= data.len() => {
            axes.iter().map(|a| position(*a, data.len())).collect::<Option<_>>()?
        }
        Some(_) => return None,
        None => (0..data.len()).collect(),
    };
    let mut out = data.to_vec();
    let sizes = if modern { site.integers(3) } else { None };
    if let Some(sizes) = sizes.filter(|s| s.len() == axes.len()) {
        let stretches = matches!(site.string("keep_aspect_ratio_policy"), None | Some("stretch"));
        axes.iter().zip(sizes.iter()).for_each(|(axis, size)| {
            out[*axis] = if stretches { Int::to_dim(size) } else { Dim::Unknown };
        });
        return Some(out);
    }
    let slot = if modern { 2 } else { 1 };
    let scales = match site.value(slot) {
        Some(value) => site.known.graph.constant(value).filter(|s| !s.is_empty()),
        None => site.attribute("scales").map(|a| a.floats.iter().map(|f| f64::from(*f)).collect()),
    };
    let scales = scales.filter(|s| s.len() == axes.len());
    for (i, axis) in axes.iter().enumerate() {
        out[*axis] = scales.as_ref().map_or(Dim::Unknown, |s| scaled(&data[*axis], s[i]));
    }
    Some(out)
}

fn scaled(dim: &Dim, scale: f64) -> Dim {
    if scale == 1.0 {
        return dim.clone();
    }
    dim.known().and_then(|n| scaled_length(n, scale)).map_or(Dim::Unknown, Dim::Known)
}

/// The length that Resize and Upsample give an axis by its scale: `⌊length · scale⌋` of a product that is rounded to float32, as in ONNX
/// Runtime and in onnx's shape inference: 5 · 1.4 is 7, although the float32 next to 1.4 is smaller. `None` where that is no length, and
/// for lengths that float32 does not hold.
#[must_use]
pub fn scaled_length(length: u64, scale: f64) -> Option<u64> {
    let exact = u32::try_from(length).ok().filter(|n| *n < 1 << 24)?;
    let scaled = (exact as f32 * scale as f32).floor();
    (0.0..9e15).contains(&scaled).then_some(scaled as u64)
}

/// `[N, C]` of the data and the spatial axes of the grid `[N, d…, axes]`.
pub(super) fn grid_sample(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let (data, grid) = (site.dims(0)?, site.dims(1)?);
    let spatial = grid.get(1..grid.len().checked_sub(1)?)?;
    Some(data.get(..2)?.iter().chain(spatial).cloned().collect())
}

fn block(site: &Site<'_, '_>) -> Option<(u64, u64)> {
    let size = u64::try_from(site.int("blocksize", 0)).ok().filter(|b| *b > 0)?;
    Some((size, size.checked_mul(size)?))
}

fn divided(dim: &Dim, by: u64) -> Dim {
    dim.known().filter(|n| n % by == 0).map_or(Dim::Unknown, |n| Dim::Known(n / by))
}

/// `[N, C/b², H·b, W·b]`.
pub(super) fn depth_to_space(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let ([n, c, h, w], (side, area)) = (site.dims(0)?, block(site)?) else { return None };
    Some(vec![n.clone(), divided(c, area), times(h, &Dim::Known(side)), times(w, &Dim::Known(side))])
}

/// `[N, C·b², H/b, W/b]`.
pub(super) fn space_to_depth(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    let ([n, c, h, w], (side, area)) = (site.dims(0)?, block(site)?) else { return None };
    Some(vec![n.clone(), times(c, &Dim::Known(area)), divided(h, side), divided(w, side)])
}
