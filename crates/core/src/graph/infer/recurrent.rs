//! LSTM, GRU and RNN.

use super::site::Site;
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};

/// Y, Y_h and Y_c.
pub(super) fn lstm(site: &Site<'_, '_>) -> Vec<TensorType> {
    outputs(site, 3)
}

/// Y and Y_h.
pub(super) fn gru(site: &Site<'_, '_>) -> Vec<TensorType> {
    outputs(site, 2)
}

/// Y is `[T, D, B, H]` (layout 1: `[B, T, D, H]`), the others `[D, B, H]` (`[B, D, H]`), with D directions.
fn outputs(site: &Site<'_, '_>, count: usize) -> Vec<TensorType> {
    let batch_first = site.int("layout", 0) == 1;
    let (time, batch) = match site.dims(0) {
        Some([batch, time, _]) if batch_first => (time.clone(), batch.clone()),
        Some([time, batch, _]) => (time.clone(), batch.clone()),
        _ => (Dim::Unknown, Dim::Unknown),
    };
    let directions = Dim::Known(if site.string("direction") == Some("bidirectional") { 2 } else { 1 });
    let hidden = match site.node.int("hidden_size").and_then(|h| u64::try_from(h).ok()) {
        Some(hidden) => Dim::Known(hidden),
        // R is [directions, gates · hidden, hidden].
        None => site.dims(2).and_then(|r| r.get(2)).cloned().unwrap_or_default(),
    };
    let (all, last) = if batch_first {
        (vec![batch.clone(), time, directions.clone(), hidden.clone()], vec![batch, directions, hidden])
    } else {
        (vec![time, directions.clone(), batch.clone(), hidden.clone()], vec![directions, batch, hidden])
    };
    let shapes = std::iter::once(all).chain(std::iter::repeat_n(last, count - 1));
    shapes.map(|dims| TensorType { elem: site.elem(0), dims: Some(dims) }).collect()
}
