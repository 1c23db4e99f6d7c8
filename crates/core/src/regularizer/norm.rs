//! ‖h_i‖² of every row, as any runtime is best served and as ONNX Runtime's training is.
//!
//! That runtime's gradient builder makes two gradients of h out of h·h, one for each operand, and adds up all gradients of a value with one
//! Sum. A Sum of three (with that of the layer's own consumer) goes twice over the whole tensor on one thread and fills a temporary between.
//! So a graph for it squares a view of h: the two gradients are equal, their sum meets the consumer's in a Sum of two, and a Reshape
//! copies nothing in either direction. The view has the axes of long sums as they are best stretched again: a gradient that is repeated a
//! few elements at a time (the 4×4 of a late layer) costs more than the sum itself. Value and gradient are those of the other form.

use super::emit::{Emitter, Tensor};
use super::layer::Layer;
use super::sums::{LONGEST_SUM, stages};
use crate::graph::types::Dim;

/// ‖h_i‖² for every row.
pub(super) fn squared(e: &mut Emitter, layer: &Layer, h: &Tensor) -> Tensor {
    let square = e.binary("square", "Mul", h, h);
    match layer.row_axes() {
        Some(axes) if axes.is_empty() => square,
        Some(axes) => e.sum("norm2", &square, &axes),
        // Of unknown rank, and every sample a row.
        None => {
            let rows = e.flatten("rows", &square);
            e.reduce("norm2", "ReduceSum", &rows, Some(&[1]), false)
        }
    }
}

/// The same for ONNX Runtime's training, whatever the axes of the result.
pub(super) fn squared_for_ort_training(e: &mut Emitter, layer: &Layer, h: &Tensor) -> Tensor {
    let Some((view, axes)) = view(e, layer, h) else { return squared(e, layer, h) };
    let square = e.binary("square", "Mul", &view, &view);
    // Channels before locations: what is stretched back is then a map at a time.
    let is_short = |n: &Dim| n.known().is_some_and(|n| n <= LONGEST_SUM);
    if layer.row_length().is_some_and(|d| d > LONGEST_SUM) && view.dims().is_some_and(|dims| is_short(&dims[1])) {
        let maps = e.reduce("norm2_axis1", "ReduceSum", &square, Some(&[1]), false);
        let rest: Vec<i64> = axes.iter().skip(1).map(|a| a - 1).collect();
        return e.sum("norm2", &maps, &rest);
    }
    e.sum("norm2", &square, &axes)
}

/// h once more, and the axes of a row in it, which begin with 1; `None` where there is nothing to gain or to know.
fn view(e: &mut Emitter, layer: &Layer, h: &Tensor) -> Option<(Tensor, Vec<i64>)> {
    let rank = h.ty.rank()?;
    let axes = layer.row_axes()?;
    if rank > 2 && axes.first() == Some(&1) {
        // Of h's own shape: only then does the runtime use the memory of other gradients again.
        let dims = h.ty.dims.clone()?;
        return Some((e.reshape("view", h, &vec![0; rank], dims), axes));
    }
    // Rows that lie in memory one after the other.
    let is_last = !axes.is_empty() && axes.iter().rev().zip((0..rank as i64).rev()).all(|(a, last)| *a == last);
    let d = layer.row_length().filter(|d| is_last && *d > 0)?;
    let stages = stages(d)?;
    let count = h.ty.element_count().map_or(Dim::Unknown, |n| Dim::Known(n / d));
    let dims = std::iter::once(count).chain(stages.iter().copied().map(Dim::Known)).collect();
    let shape: Vec<i64> = std::iter::once(-1).chain(stages.iter().map(|n| n.cast_signed())).collect();
    let view = e.reshape("view", h, &shape, dims);
    Some((view, (1..=stages.len() as i64).collect()))
}
