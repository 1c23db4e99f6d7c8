//! **What.** Conv with `auto_pad`, and ConvTranspose.
//!
//! **Why.** Conv's gradient reads `pads` alone. ConvTranspose's has no kernel on the CPU.
//!
//! **Equation.** Conv: the pads that `auto_pad` stands for. ConvTranspose with stride s: output o = s·i + r belongs to phase r, which is an
//! ordinary convolution of the input with every s-th weight, mirrored. One Conv computes all phases as channels, and a transposition
//! weaves them together; no multiplication by an inserted zero is ever made. The weights stay the parameter that they are: they are
//! rearranged in the graph, where the gradient finds its way back. With dilations the kernel is filled up with zeros first.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::interleave::weave;
use crate::regularizer::emit::{Tensor, int, ints};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Site, extent, rank, rank_from, size, written_out};
use crate::rewrite::window::Window;

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["Conv"],
        because: "its gradient does not know auto_pad",
        applies: |site| on_path(site) && !matches!(site.node.string("auto_pad"), None | Some("NOTSET")),
        rewrite: padded,
    },
    Rule {
        ops: &["ConvTranspose"],
        because: "its gradient has no kernel on the CPU",
        applies: on_path,
        rewrite: transposed,
    },
];

fn padded(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, weight) = (site.required(0)?, site.required(1)?);
    let kernel = (2..rank_from(&weight, 3)?).map(|axis| size(&weight, axis)).collect::<Known<Vec<u64>>>()?;
    let window = Window::of(site, &x, kernel)?;
    let mut attributes = window.attributes();
    attributes.push(int("group", site.int("group", 1)));
    let inputs: Vec<Option<Tensor>> = (0..3).map(|slot| site.input(slot)).filter(Option::is_some).collect();
    let made = b.node("Conv", &inputs, attributes, &[site.output_type(0)]);
    Ok(made.into_iter().map(Made::from).collect())
}

/// One spatial axis of a transposed convolution.
struct Axis {
    /// Taps of the kernel, zeros of the dilation included.
    taps: i64,
    stride: i64,
    /// Taps that one phase sees.
    per_phase: i64,
    /// What is cut off at the beginning.
    cut: i64,
    /// Length of the output; `None` where that of the input is open.
    length: Option<i64>,
    /// The output's length less s times the input's.
    slack: i64,
}

fn axes(site: &Site, x: &Tensor, weight: &Tensor, n: usize) -> Known<Vec<Axis>> {
    let list = |name: &str, default: i64, length: usize| {
        let given = site.node.ints(name).filter(|l| l.len() == length);
        given.map_or_else(|| vec![default; length], <[i64]>::to_vec)
    };
    let (strides, dilations) = (list("strides", 1, n), list("dilations", 1, n));
    let (pads, extra) = (list("pads", 0, 2 * n), list("output_padding", 0, n));
    let shape = site.node.ints("output_shape").filter(|s| s.len() >= n).map(|s| s[s.len() - n..].to_vec());
    let auto_pad = site.node.string("auto_pad").unwrap_or("NOTSET");
    let mut found = Vec::new();
    for axis in 0..n {
        let kernel = extent(size(weight, axis + 2)?);
        let (stride, dilation) = (strides[axis], dilations[axis]);
        if stride < 1 || dilation < 1 {
            return Err("a stride or dilation is below 1".into());
        }
        let taps = dilation * (kernel - 1) + 1;
        let input = x.ty.dims.as_ref().and_then(|d| d.get(axis + 2)).and_then(Dim::known).map(extent);
        let mut begin = pads[axis];
        let mut end = pads[n + axis];
        if shape.is_some() || auto_pad.starts_with("SAME") {
            let input = input.ok_or("its input's length decides its padding and is known only to the running graph")?;
            let wanted = shape.as_ref().map_or(input * stride, |s| s[axis]);
            let total = (stride * (input - 1) + extra[axis] + taps - wanted).max(0);
            // With an odd total the beginning gets more, but for SAME_UPPER.
            begin = if auto_pad == "SAME_UPPER" { total / 2 } else { total - total / 2 };
            end = total - begin;
        }
        // An output_shape beyond the last tap is filled up.
        let slack = match (&shape, input) {
            (Some(shape), Some(input)) => shape[axis] - stride * input,
            _ => extra[axis] - begin - end + taps - stride,
        };
        let length = input.map(|n| stride * n + slack);
        found.push(Axis { taps, stride, per_phase: (taps + stride - 1) / stride, cut: begin, length, slack });
    }
    Ok(found)
}

fn transposed(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, weight) = (site.required(0)?, site.required(1)?);
    let n = rank_from(&weight, 3)? - 2;
    if rank(&x)? != n + 2 {
        return Err("its input and its weight have different ranks".into());
    }
    let axes = axes(site, &x, &weight, n)?;
    let group = site.int("group", 1);
    let inputs = extent(size(&weight, 0)?);
    let outputs = extent(size(&weight, 1)?);
    let phases = written_out(axes.iter().fold(1i64, |n, a| n.saturating_mul(a.stride)))?;
    if group < 1 || inputs % group != 0 {
        return Err("its channels do not fall into its groups".into());
    }
    axes.iter().try_for_each(|a| written_out(a.per_phase.saturating_mul(a.stride)).map(|_| ()))?;
    let kernel = phase_kernel(site, b, &weight, &axes, group, inputs, outputs)?;

    // Every phase at i + 0 … i + per_phase − 1: the input is padded on both sides by one tap less.
    let pads: Vec<i64> = axes.iter().chain(&axes).map(|a| a.per_phase - 1).collect();
    let shape: Vec<i64> = axes.iter().map(|a| a.per_phase).collect();
    let channels = group.saturating_mul(outputs).saturating_mul(phases);
    let positions = |axis: usize| {
        let length = x.ty.dims.as_ref().and_then(|d| d.get(axis + 2)).and_then(Dim::known);
        length.map_or(Dim::Unknown, |n| Dim::Known(n + u64::try_from(axes[axis].per_phase - 1).unwrap_or_default()))
    };
    let batch = x.ty.dims.as_ref().and_then(|d| d.first()).cloned().unwrap_or_default();
    let dims =
        [batch, Dim::Known(u64::try_from(channels).unwrap_or_default())].into_iter().chain((0..n).map(positions));
    let ty = TensorType { elem: x.ty.elem, dims: Some(dims.collect()) };
    let attributes = vec![ints("kernel_shape", &shape), ints("pads", &pads), int("group", group)];
    let mut y = b.one("Conv", &[&x, &kernel], attributes, ty);

    if phases > 1 {
        let strides: Vec<i64> = axes.iter().map(|a| a.stride).collect();
        y = weave(b, &y, &strides, group * outputs);
    }
    for (axis, a) in axes.iter().enumerate() {
        y = cut(b, y, &x, axis, a)?;
    }
    if let Some(bias) = site.input(2) {
        let behind: Vec<usize> = (1..=n).collect();
        let bias = b.unsqueeze(&bias, &behind);
        y = b.binary("Add", &y, &bias);
    }
    Ok(vec![y.into()])
}

/// [Cin, Cout/g, k…] → [Cout·Πs, Cin/g, per_phase…]: phase r has the taps r, r + s, … in reverse.
fn phase_kernel(
    site: &Site,
    b: &mut Builder,
    weight: &Tensor,
    axes: &[Axis],
    group: i64,
    inputs: i64,
    outputs: i64,
) -> Known<Tensor> {
    let n = axes.len();
    let mut kernel = weight.clone();
    // Dilation: every tap becomes d taps, all but the first 0.
    let dilations = site.node.ints("dilations").filter(|d| d.len() == n).map_or_else(|| vec![1; n], <[i64]>::to_vec);
    for axis in 0..n {
        let d = dilations[axis];
        if d > 1 {
            let rank = n + 2;
            let column = b.unsqueeze(&kernel, &[axis + 3]);
            let mut pads = vec![0; 2 * (rank + 1)];
            pads[rank + 1 + axis + 3] = d - 1;
            let filled = b.pad(&column, &pads, None);
            let shape: Vec<Extent> = (0..rank)
                .map(|i| {
                    if i == axis + 2 {
                        (extent(size(&kernel, i).unwrap_or_default()) * d).into()
                    } else {
                        (&kernel, i).into()
                    }
                })
                .collect();
            kernel = b.reshape(&filled, &shape);
        }
    }
    // To a whole number of taps a phase; what the last dilation left behind the last tap goes.
    let mut pads = vec![0; 2 * (n + 2)];
    for (axis, a) in axes.iter().enumerate() {
        let now = extent(size(&kernel, axis + 2)?);
        let wanted = a.per_phase * a.stride;
        if wanted < now {
            kernel = b.slice(&kernel, axis + 2, 0, wanted.max(a.taps), 1);
        }
        pads[n + 2 + axis + 2] = (wanted - extent(size(&kernel, axis + 2)?)).max(0);
    }
    if pads.iter().any(|p| *p > 0) {
        kernel = b.pad(&kernel, &pads, None);
    }
    // [g, Cin/g, Cout/g, (per_phase, s)…]
    let mut split: Vec<Extent> = vec![group.into(), (inputs / group).into(), outputs.into()];
    axes.iter().for_each(|a| split.extend([a.per_phase.into(), a.stride.into()]));
    let parts = b.reshape(&kernel, &split);
    // [g, Cout/g, s…, Cin/g, per_phase…]
    let mut perm = vec![0, 2];
    perm.extend((0..n).map(|i| 4 + 2 * i));
    perm.push(1);
    perm.extend((0..n).map(|i| 3 + 2 * i));
    let parts = b.transpose(&parts, &perm);
    let phases: i64 = axes.iter().map(|a| a.stride).product();
    let mut shape: Vec<Extent> =
        vec![group.saturating_mul(outputs).saturating_mul(phases).into(), (inputs / group).into()];
    shape.extend(axes.iter().map(|a| Extent::from(a.per_phase)));
    let mut kernel = b.reshape(&parts, &shape);
    for (axis, a) in axes.iter().enumerate().filter(|(_, a)| a.per_phase > 1) {
        let mirrored: Vec<i64> = (0..a.per_phase).rev().collect();
        kernel = b.pick(&kernel, axis + 2, &mirrored);
    }
    Ok(kernel)
}

/// Cuts an axis to the output's begin and length, or fills it up where `output_padding` reaches behind the last tap.
fn cut(b: &mut Builder, y: Tensor, x: &Tensor, axis: usize, a: &Axis) -> Known<Tensor> {
    // y has length (n + per_phase − 1)·s, and position `cut` becomes the first.
    let surplus = (a.per_phase - 1) * a.stride - a.cut - a.slack;
    let at = axis + 2;
    let mut y = y;
    if surplus < 0 {
        let rank = rank(x)?;
        let mut pads = vec![0; 2 * rank];
        pads[rank + at] = -surplus;
        y = b.pad(&y, &pads, None);
    }
    if a.cut == 0 && surplus <= 0 {
        return Ok(y);
    }
    let end = match a.length {
        Some(length) => a.cut + length,
        None if surplus <= 0 => i64::from(i32::MAX),
        None => -surplus,
    };
    Ok(b.slice(&y, at, a.cut, end, 1))
}
