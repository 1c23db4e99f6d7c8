//! (x − mean)/√(variance + ε) over the last axes: what several normalisations have in common.

use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Tensor, float, int};
use crate::rewrite::builder::Builder;

/// LayerNormalization came with this operator set.
const LAYER_NORMALIZATION: i64 = 17;

/// Longest row whose ones and zeros are worth a place in the file.
const LONGEST: u64 = 1 << 16;

/// Normalises over the axes from `first` on.
///
/// By LayerNormalization where it can: one kernel forward and one backward, where the arithmetic written out takes eight and twenty.
pub fn normalised(b: &mut Builder, x: &Tensor, first: usize, rank: usize, epsilon: f64) -> Tensor {
    let row = x.ty.dims.as_ref().and_then(|d| d.get(first..)?.iter().map(Dim::known).collect::<Option<Vec<u64>>>());
    let length = row.as_ref().map(|row| row.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).unwrap_or(u64::MAX));
    if let (Some(row), Some(1..=LONGEST)) = (row, length)
        && b.opset() >= LAYER_NORMALIZATION
    {
        let scale = b.ones(x, &row);
        let bias = b.zeros(x, &row);
        let kept = |dims: &Vec<Dim>| {
            dims.iter().take(first).cloned().chain(std::iter::repeat_n(Dim::Known(1), rank - first)).collect()
        };
        let statistics = TensorType { elem: x.ty.elem, dims: x.ty.dims.as_ref().map(kept) };
        let attributes = vec![int("axis", first as i64), float("epsilon", epsilon as f32)];
        let outputs = [x.ty.clone(), statistics.clone(), statistics];
        return b
            .node("LayerNormalization", &[Some(x.clone()), Some(scale), Some(bias)], attributes, &outputs)
            .swap_remove(0);
    }
    let axes: Vec<i64> = (first..rank).map(|a| a as i64).collect();
    over(b, x, &axes, |b, variance| {
        let sum = b.plus(variance, epsilon);
        b.unary("Sqrt", &sum)
    })
}

/// (x − mean)/deviation(variance) over any axes.
pub fn over(b: &mut Builder, x: &Tensor, axes: &[i64], deviation: impl Fn(&mut Builder, &Tensor) -> Tensor) -> Tensor {
    let mean = b.reduce("ReduceMean", x, Some(axes), true);
    let centred = b.binary("Sub", x, &mean);
    let square = b.binary("Mul", &centred, &centred);
    let variance = b.reduce("ReduceMean", &square, Some(axes), true);
    let deviation = deviation(b, &variance);
    b.binary("Div", &centred, &deviation)
}

/// x·scale + bias, for vectors of one element a channel (axis 1).
pub fn by_channel(b: &mut Builder, x: &Tensor, rank: usize, scale: &Tensor, bias: &Tensor) -> Tensor {
    let behind: Vec<usize> = (1..rank - 1).collect();
    let (scale, bias) = (b.unsqueeze(scale, &behind), b.unsqueeze(bias, &behind));
    let scaled = b.binary("Mul", x, &scale);
    b.binary("Add", &scaled, &bias)
}
