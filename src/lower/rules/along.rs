//! The product with a constant matrix along one axis: how resizing and pooling are written where lengths are fixed.
//!
//! It is the fastest form of them on ONNX Runtime's CPU kernels, forward and backward, and open dimensions beside the axis do not matter.

use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::Builder;

/// A linear map from an axis of one length to one of another.
pub struct Map {
    /// Length of the operand's axis.
    pub from: u64,
    /// Length of the result's.
    pub to: u64,
    /// Weight of operand position `j` in result position `i`, at `i·from + j`.
    pub weights: Vec<f64>,
}

impl Map {
    /// The map that is 0 everywhere.
    pub fn zero(from: u64, to: u64) -> Self {
        let count = usize::try_from(from.saturating_mul(to)).unwrap_or_default();
        Map { from, to, weights: vec![0.0; count] }
    }

    /// Adds to the weight of operand position `j` in result position `i`; positions outside are left out.
    pub fn add(&mut self, i: u64, j: i64, weight: f64) {
        let j = u64::try_from(j).ok().filter(|j| *j < self.from);
        let at = j.and_then(|j| usize::try_from(i * self.from + j).ok());
        if let Some(slot) = at.and_then(|at| self.weights.get_mut(at)) {
            *slot += weight;
        }
    }
}

/// The product of the map with `x` along an axis.
pub fn product(b: &mut Builder, x: &Tensor, axis: usize, rank: usize, map: &Map) -> Tensor {
    if axis + 1 == rank {
        let at = |i: u64, j: u64| map.weights[usize::try_from(i * map.from + j).unwrap_or_default()];
        let columns: Vec<f64> =
            (0..map.from).flat_map(|j| (0..map.to).map(move |i| (i, j))).map(|(i, j)| at(i, j)).collect();
        let matrix = b.matrix(x, map.from, map.to, &columns);
        return b.matmul(x, &matrix);
    }
    let matrix = b.matrix(x, map.to, map.from, &map.weights);
    if axis + 2 == rank {
        return b.matmul(&matrix, x);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(axis, rank - 2);
    let moved = b.transpose(x, &perm);
    let product = b.matmul(&matrix, &moved);
    b.transpose(&product, &perm)
}
