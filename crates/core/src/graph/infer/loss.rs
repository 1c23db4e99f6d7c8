//! The loss operators of ONNX: a scalar, or one value an element with reduction none.

use super::site::Site;
use crate::graph::types::{Dim, TensorType};

/// Scores `[N, C, d…]` and labels `[N, d…]` give `[]`, or `[N, d…]` with `reduction = "none"`.
pub(super) fn negative_log_likelihood(site: &Site<'_, '_>) -> Option<Vec<Dim>> {
    if site.string("reduction") != Some("none") {
        return Some(Vec::new());
    }
    site.dims(1).map(<[Dim]>::to_vec).or_else(|| {
        let scores = site.dims(0)?;
        Some(scores.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, d)| d.clone()).collect())
    })
}

/// The loss and the log-probabilities.
pub(super) fn softmax_cross_entropy(site: &Site<'_, '_>) -> Vec<TensorType> {
    let elem = site.elem(0);
    let log_probabilities = site.dims(0).map(<[Dim]>::to_vec);
    [negative_log_likelihood(site), log_probabilities].map(|dims| TensorType { elem, dims }).into()
}
