//! Col2Im, AffineGrid and CenterCropPad, of sizes that are known.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::Rule;
use crate::regularizer::emit::ints;
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{self, Known, Refusal, Site, extent, rank, size, written_out};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["Col2Im"], because: "it is spelt out", applies: |_| true, rewrite: col2im },
    Rule { ops: &["AffineGrid"], because: "it is spelt out", applies: |_| true, rewrite: affine_grid },
    Rule { ops: &["CenterCropPad"], because: "it is spelt out", applies: |_| true, rewrite: center_crop_pad },
];

/// Columns [N, C·k, L] as pictures [N·C, k, L…] of one channel for each cell of the block: a transposed convolution whose kernel has one 1
/// for each cell puts them where they belong and adds them up.
fn col2im(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let (Some(image), Some(block)) = (site.integers(1), site.integers(2)) else {
        return Err("its image_shape or block_shape is known only to the running graph".into());
    };
    let n = image.len();
    let list = |name: &str, default: i64, length: usize| {
        site.node.ints(name).filter(|l| l.len() == length).map_or_else(|| vec![default; length], <[i64]>::to_vec)
    };
    let (strides, dilations, pads) = (list("strides", 1, n), list("dilations", 1, n), list("pads", 0, 2 * n));
    if block.len() != n || block.iter().chain(&strides).chain(&dilations).any(|v| *v < 1) {
        return Err("its block_shape, strides or dilations do not fit its image_shape".into());
    }
    let reach = |i: usize| dilations[i] * (block[i] - 1) + 1;
    let room = |i: usize| image[i] + pads[i] + pads[n + i] - reach(i);
    if (0..n).any(|i| room(i) < 0) {
        return Err("its block is larger than its image".into());
    }
    let counts: Vec<i64> = (0..n).map(|i| room(i) / strides[i] + 1).collect();
    let rest: Vec<i64> = (0..n).map(|i| room(i) % strides[i]).collect();
    let cells = written_out(block.iter().product())?;
    written_out(cells * cells)?;
    let channels = extent(size(&x, 1)?) / cells;
    let apart: Vec<Extent> =
        [Extent::Fixed(-1), cells.into()].into_iter().chain(counts.iter().map(|c| (*c).into())).collect();
    let pictures = b.reshape(&x, &apart);
    let identity: Vec<f64> = (0..cells * cells).map(|i| if i / cells == i % cells { 1.0 } else { 0.0 }).collect();
    let side = cells.unsigned_abs();
    let kernel = b.matrix(&x, side, side, &identity);
    let shape: Vec<Extent> = [cells, 1].iter().chain(&block).map(|d| (*d).into()).collect();
    let kernel = b.reshape(&kernel, &shape);
    let mut attributes = vec![
        ints("kernel_shape", &block),
        ints("strides", &strides),
        ints("dilations", &dilations),
        ints("pads", &pads),
    ];
    if rest.iter().any(|r| *r != 0) {
        attributes.push(ints("output_padding", &rest));
    }
    let places = image.iter().map(|d| Dim::Known(d.unsigned_abs()));
    let dims = [Dim::Unknown, Dim::Known(1)].into_iter().chain(places).collect();
    let made =
        b.one("ConvTranspose", &[&pictures, &kernel], attributes, TensorType { elem: x.ty.elem, dims: Some(dims) });
    let whole: Vec<Extent> =
        [(&x, 0).into(), channels.into()].into_iter().chain(image.iter().map(|d| (*d).into())).collect();
    Ok(vec![b.reshape(&made, &whole).into()])
}

/// The places of an image, as coordinates of −1 … 1 with a 1 behind, times θᵀ.
fn affine_grid(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let theta = site.required(0)?;
    let shape = site.integers(1).ok_or("its size is known only to the running graph")?;
    let lengths = shape.get(2..).filter(|l| matches!(l.len(), 2 | 3)).ok_or("its size is not that of an image")?;
    let n = lengths.len();
    let places = written_out(lengths.iter().product())?;
    let is_aligned = site.int("align_corners", 0) != 0;
    let coordinate = |i: i64, length: i64| {
        let (i, length) = (i as f64, length as f64);
        if is_aligned {
            if length > 1.0 { 2.0 * i / (length - 1.0) - 1.0 } else { 0.0 }
        } else {
            (2.0 * i + 1.0) / length - 1.0
        }
    };
    let mut values = Vec::new();
    for place in 0..places {
        let mut rest = place;
        let mut along = vec![0.0; n];
        for axis in (0..n).rev() {
            along[n - 1 - axis] = coordinate(rest % lengths[axis], lengths[axis]);
            rest /= lengths[axis];
        }
        values.extend(along);
        values.push(1.0);
    }
    let base = b.matrix(&theta, places.unsigned_abs(), n as u64 + 1, &values);
    let turned = b.transpose(&theta, &[0, 2, 1]);
    let grid = b.matmul(&base, &turned);
    let whole: Vec<Extent> = [(&theta, 0).into()]
        .into_iter()
        .chain(lengths.iter().map(|l| (*l).into()))
        .chain([(n as i64).into()])
        .collect();
    Ok(vec![b.reshape(&grid, &whole).into()])
}

/// Cut, or filled up with zeros, at both ends; the odd one at the end.
fn center_crop_pad(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let shape = site.integers(1).ok_or("its shape is known only to the running graph")?;
    let rank = rank(&x)?;
    let axes: Vec<usize> = match site.node.ints("axes") {
        Some(axes) => axes.iter().map(|a| site::axis(*a, rank)).collect::<Known<_>>()?,
        None => (0..rank).collect(),
    };
    if axes.len() != shape.len() {
        return Err(Refusal(format!("it has {} axes and {} lengths", axes.len(), shape.len())));
    }
    let mut y = x.clone();
    let mut pads = vec![0; 2 * rank];
    for (axis, wanted) in axes.into_iter().zip(shape) {
        let length = extent(size(&x, axis)?);
        if wanted < length {
            let start = (length - wanted) / 2;
            y = b.slice(&y, axis, start, start + wanted, 1);
        } else {
            let before = (wanted - length) / 2;
            (pads[axis], pads[rank + axis]) = (before, wanted - length - before);
        }
    }
    let y = if pads.iter().any(|p| *p != 0) { b.pad(&y, &pads, None) } else { y };
    Ok(vec![y.into()])
}
