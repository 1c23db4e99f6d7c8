//! Phases of a picture that lie in channels, woven into its places: what ConvTranspose and DepthToSpace have in common.
//!
//! Each axis is one Transpose that moves a single axis, for which ONNX Runtime copies rows; the one Transpose of all axes at once, which
//! says the same, is copied element by element and takes four times as long.

use crate::graph::types::Dim;
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::extent;

/// [N, C·Πs, L…] → [N, C, L·s…], the first axis's phases outermost.
pub fn weave(b: &mut Builder, y: &Tensor, strides: &[i64], channels: i64) -> Tensor {
    let lengths: Vec<Option<i64>> = (0..strides.len())
        .map(|i| y.ty.dims.as_ref().and_then(|d| d.get(i + 2)).and_then(Dim::known).map(extent))
        .collect();
    // −1 stands for one open length.
    if lengths.iter().filter(|n| n.is_none()).count() > 1 {
        return at_once(b, y, strides, channels, &lengths);
    }
    let product = |lengths: &[Option<i64>], strides: &[i64]| {
        let known =
            lengths.iter().zip(strides).try_fold(1i64, |n, (l, s)| Some(n.saturating_mul((*l)?).saturating_mul(*s)));
        Extent::Fixed(known.unwrap_or(-1))
    };
    let ones = vec![1; strides.len()];
    let mut woven = y.clone();
    for (i, stride) in strides.iter().copied().enumerate().rev().filter(|(_, s)| *s > 1) {
        let outer = strides[..i].iter().fold(channels, |n, s| n.saturating_mul(*s));
        let mut apart: Vec<Extent> = vec![0.into(), outer.into(), stride.into(), product(&lengths[..=i], &ones)];
        let mut perm = vec![0, 1, 3, 2];
        if i + 1 < strides.len() {
            apart.push(product(&lengths[i + 1..], &strides[i + 1..]));
            perm.push(4);
        }
        let parts = b.reshape(&woven, &apart);
        woven = b.transpose(&parts, &perm);
    }
    let merged = lengths.iter().zip(strides).map(|(l, s)| Extent::Fixed(l.map_or(-1, |l| l * s)));
    let shape: Vec<Extent> = [0, channels].map(Extent::from).into_iter().chain(merged).collect();
    b.reshape(&woven, &shape)
}

/// The same by one Transpose, one axis of the result after the other.
fn at_once(b: &mut Builder, y: &Tensor, strides: &[i64], channels: i64, lengths: &[Option<i64>]) -> Tensor {
    let n = strides.len();
    let mut apart: Vec<Extent> = vec![0.into(), channels.into()];
    apart.extend(strides.iter().map(|s| Extent::from(*s)));
    apart.extend((0..n).map(|i| Extent::from((y, i + 2))));
    let parts = b.reshape(y, &apart);
    let mut perm = vec![0, 1];
    (0..n).for_each(|i| perm.extend([2 + n + i, 2 + i]));
    let mut woven = b.transpose(&parts, &perm);
    for (i, (length, stride)) in lengths.iter().zip(strides).enumerate() {
        let rank = 2 + 2 * n - i;
        let merged = length.map_or(-1, |l| l * stride);
        let others = |axis: usize| if axis == 2 + i { merged.into() } else { (&woven, axis).into() };
        let shape: Vec<Extent> = (0..rank).filter(|axis| *axis != 3 + i).map(others).collect();
        woven = b.reshape(&woven, &shape);
    }
    woven
}
