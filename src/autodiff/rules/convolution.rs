//! Conv: y[n, o, p] = Σ w[o, c, k]·x[n, c, s·p + d·k − pad].
//!
//! ∂x is the transposed convolution of g with w; on large maps the convolution with w turned around, where the kernel is a point with wᵀ,
//! and on maps of a few places one product for all samples. ∂w[o, c, k] = Σ g[n, o, p]·x[n, c, s·p + d·k − pad] is itself a convolution: of
//! one picture that has samples as channels and x's channels along its last axis, with g for weights (strides and dilations exchanged),
//! which takes ONNX Runtime's CPU hardly longer than the bare product of matrices. Where it makes few columns, the product over explicit patches, k^dims slices of x with
//! channels in front, is as fast. With groups it is the convolution with samples and channels exchanged. ∂b = Σ g.
//! On the CPU a kernel of 3×3 goes by tiles where that takes less time, see [`winograd`], forward too.
//!
//! ConvTranspose is the same with x and y in each other's place: ∂x is the convolution of g with w, and ∂w that of a Conv from g to x.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::rules::product::gemm_of;
use crate::autodiff::rules::winograd;
use crate::autodiff::shape::{in_shape_of, shape_of};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Tensor, int, ints};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank_from, size};
use crate::rewrite::window::Window;

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["Conv"], adjoint: conv }, Rule { ops: &["ConvTranspose"], adjoint: transposed }];

/// A map of so few places makes ConvTranspose, which goes sample by sample, read all weights for a handful of columns each time.
const FEW: i64 = 16;

/// On a map of so many places Conv, which goes by columns too, is faster than ConvTranspose, by more than it takes to turn the kernel around.
const MANY: i64 = 256;

/// With fewer channels, a Conv takes longer to lay its columns out than to multiply them.
const CHANNELS: u64 = 16;

/// A product with fewer columns than this spends its time on reading the cotangents.
const WIDE: i64 = 128;

/// Whether a ConvTranspose says all about its pads, and its result is no longer than what its convolution reads.
pub fn is_plain(site: &Site) -> bool {
    let strides = site.node.ints("strides");
    let stride = |i: usize| strides.and_then(|s| s.get(i)).copied().unwrap_or(1);
    let padding = site.node.ints("output_padding").unwrap_or_default();
    matches!(site.node.string("auto_pad"), None | Some("NOTSET" | "VALID"))
        && site.node.ints("output_shape").is_none()
        && padding.iter().enumerate().all(|(i, p)| *p < stride(i))
}

fn conv(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, w) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let rank = rank_from(&w, 3)?;
    let kernel = (2..rank).map(|axis| size(&w, axis)).collect::<Known<Vec<u64>>>()?;
    let window = Window::of(&a.site, &x, kernel)?;
    let group = a.site.int("group", 1);
    give_bias(a, &g, rank)?;
    if let Some(plan) = a.tiles.then(|| winograd::Plan::of(&a.site)).flatten() {
        let y = winograd::forward(a.forward, &plan, &x, &w, a.site.input(2).as_ref());
        a.stand_in = Some(vec![y.into()]);
        let gradients = winograd::back(a.b, &plan, &g, &x, &w, [0, 1].map(|slot| a.wants(slot)));
        for (slot, gradient) in gradients.into_iter().enumerate() {
            gradient.into_iter().for_each(|gradient| a.give(slot, gradient));
        }
        return Ok(());
    }
    if a.wants(0) {
        let dx = match places(&x, &g) {
            Some(_) if group == 1 && window.is_point() => {
                let turned = exchanged(a.b, &w, rank);
                a.b.one("Conv", &[&g, &turned], window.attributes(), x.ty.clone())
            }
            Some((_, out)) if group == 1 && window.is_dense() && out.iter().product::<i64>() <= FEW => {
                by_columns(a.b, &g, &x, &w, &window, &out)?
            }
            Some((lengths, _)) if group == 1 && is_turnable(&w, &window, &lengths) => {
                by_turned(a.b, &g, &x, &w, &window)?
            }
            _ => spread(a.b, &g, &w, &window, group, &x),
        };
        a.give(0, dx);
    }
    if a.wants(1) {
        give_weights(a, &g, &x, &w, &window)?;
    }
    Ok(())
}

fn transposed(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, w) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let rank = rank_from(&w, 3)?;
    let kernel = (2..rank).map(|axis| size(&w, axis)).collect::<Known<Vec<u64>>>()?;
    let window = Window::of(&a.site, &x, kernel)?;
    let group = a.site.int("group", 1);
    give_bias(a, &g, rank)?;
    if a.wants(0) {
        let mut attributes = window.attributes();
        if group != 1 {
            attributes.push(int("group", group));
        }
        let dx = a.b.one("Conv", &[&g, &w], attributes, x.ty.clone());
        a.give(0, dx);
    }
    if a.wants(1) {
        give_weights(a, &x, &g, &w, &window)?;
    }
    Ok(())
}

/// ∂b = Σ g over samples and places.
fn give_bias(a: &mut Adjoint<'_, '_>, g: &Tensor, rank: usize) -> Known<()> {
    if !a.wants(2) {
        return Ok(());
    }
    let axes: Vec<i64> = (0..rank as i64).filter(|i| *i != 1).collect();
    let wide = a.b.widened(g);
    let db = a.b.reduce("ReduceSum", &wide, Some(&axes), false);
    let bias = a.x(2)?;
    a.give(2, in_shape_of(db, &bias));
    Ok(())
}

/// ∂w of a convolution of `x` whose result has the cotangent `g`.
fn give_weights(a: &mut Adjoint<'_, '_>, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window) -> Known<()> {
    let group = a.site.int("group", 1);
    let (g, x) = (a.b.widened(g), a.b.widened(x));
    let cells = window.cells();
    let is_wide = cells > 1.0 && size(w, 1)? as f64 * cells >= WIDE as f64;
    let is_even = window.dilations.last() == Some(&1);
    let dw = match places(&x, &g) {
        Some((_, out)) if group == 1 && !(is_wide && is_even) => by_patches(a.b, &g, &x, w, window, &out)?,
        Some((_, out)) if group == 1 && out.len() == 2 && out.iter().product::<i64>() <= FEW => {
            by_volume(a.b, &g, &x, w, window)?
        }
        _ if group == 1 && is_even => by_picture(a.b, &g, &x, w, window)?,
        _ => by_convolution(a.b, &g, &x, w, window, group)?,
    };
    a.give(1, in_shape_of(dw, w));
    Ok(())
}

/// The lengths of the spatial axes of x and of g, where all are known.
fn places(x: &Tensor, g: &Tensor) -> Option<(Vec<i64>, Vec<i64>)> {
    let spatial =
        |t: &Tensor| t.ty.dims.as_ref()?.get(2..)?.iter().map(|d| d.known().map(extent)).collect::<Option<Vec<_>>>();
    Some((spatial(x)?, spatial(g)?))
}

/// The transposed convolution of `g` with `w`, in the shape of `x`.
pub fn spread(b: &mut Builder, g: &Tensor, w: &Tensor, window: &Window, group: i64, x: &Tensor) -> Tensor {
    let n = window.kernel.len();
    let mut attributes = window.attributes();
    if group != 1 {
        attributes.push(int("group", group));
    }
    // What the last window did not reach.
    let rest: Option<Vec<i64>> = places(x, g).map(|(lengths, _)| {
        let over = |i: usize| lengths[i] + window.pads[i] + window.pads[n + i] - window.reach(i) - 1;
        (0..n).map(|i| over(i).rem_euclid(window.strides[i])).collect()
    });
    let all_of_them: Vec<i64> = window.strides.iter().map(|s| s - 1).collect();
    let padding = rest.as_ref().unwrap_or(&all_of_them);
    if padding.iter().any(|p| *p != 0) {
        attributes.push(ints("output_padding", padding));
    }
    let is_exact = rest.is_some() || all_of_them.iter().all(|p| *p == 0);
    let ty = if is_exact { x.ty.clone() } else { TensorType { elem: x.ty.elem, dims: None } };
    let made = b.one("ConvTranspose", &[g, w], attributes, ty);
    if is_exact {
        return made;
    }
    let whole = shape_of(b, x);
    let axes: Vec<i64> = (0..n + 2).map(|i| i as i64).collect();
    let (starts, axes) = (b.integers(&vec![0; n + 2]), b.integers(&axes));
    b.one("Slice", &[&made, &starts, &whole, &axes], Vec::new(), x.ty.clone())
}

/// Whether [`by_turned`] is right, and worth while.
fn is_turnable(w: &Tensor, window: &Window, lengths: &[i64]) -> bool {
    let n = lengths.len();
    let is_within = (0..n).all(|i| window.reach(i) >= window.pads[i].max(window.pads[n + i]));
    let is_large = lengths.iter().product::<i64>() >= MANY && size(w, 1).is_ok_and(|channels| channels >= CHANNELS);
    window.is_dense() && is_within && is_large
}

/// ∂x for stride 1 as the convolution of g with w turned around along every spatial axis, inputs and outputs exchanged.
fn by_turned(b: &mut Builder, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window) -> Known<Tensor> {
    let n = window.kernel.len();
    let (outputs, channels) = (size(w, 0)?, size(w, 1)?);
    let cells: u64 = window.kernel.iter().product();
    // A product with the permutation is five times faster than a Slice that goes backwards.
    let reversal: Vec<f64> =
        (0..cells * cells).map(|i| f64::from(u8::from(i / cells + i % cells + 1 == cells))).collect();
    let reversal = b.matrix(w, cells, cells, &reversal);
    let rows = b.reshape(w, &[extent(outputs * channels).into(), extent(cells).into()]);
    let turned = b.matmul(&rows, &reversal);
    let shape: Vec<Extent> =
        [outputs, channels].iter().chain(&window.kernel).map(|n| Extent::Fixed(extent(*n))).collect();
    let turned = b.reshape(&turned, &shape);
    let turned = exchanged(b, &turned, n + 2);
    let mut back = window.clone();
    for (i, pad) in back.pads.iter_mut().enumerate() {
        *pad = window.reach(i % n) - *pad;
    }
    Ok(b.one("Conv", &[g, &turned], back.attributes(), x.ty.clone()))
}

/// ∂x for stride 1 as one product for all samples: wᵀ·g holds what every cell of the kernel adds, and is added up shifted.
fn by_columns(b: &mut Builder, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window, out: &[i64]) -> Known<Tensor> {
    let n = out.len();
    let (outputs, channels) = (extent(size(w, 0)?), extent(size(w, 1)?));
    let cells: i64 = window.kernel.iter().map(|k| extent(*k)).product();
    let weights = b.reshape(w, &[outputs.into(), (channels * cells).into()]);
    // Samples come last, so that what is moved is moved in long runs.
    let last: Vec<usize> = (1..n + 2).chain([0]).collect();
    let turned = b.transpose(g, &last);
    let cotangents = b.reshape(&turned, &[outputs.into(), Extent::Fixed(-1)]);
    let product = gemm_of(b, (&weights, true), (&cotangents, false), 1.0);
    let shape: Vec<Extent> =
        [channels, cells].into_iter().chain(out.iter().copied()).chain([-1]).map(Extent::Fixed).collect();
    let columns = b.reshape(&product, &shape);
    let mut terms = Vec::new();
    for cell in 0..cells {
        let one = b.slice(&columns, 1, cell, cell + 1, 1);
        let one = b.squeeze(&one, &[1]);
        let (mut rest, mut pads) = (cell, vec![0; 2 * (n + 2)]);
        for axis in (0..n).rev() {
            let kernel = extent(window.kernel[axis]);
            let offset = rest % kernel * window.dilations[axis];
            rest /= kernel;
            (pads[1 + axis], pads[n + 3 + axis]) = (offset, window.reach(axis) - offset);
        }
        terms.push(b.pad(&one, &pads, None));
    }
    let mut sum = match &terms[..] {
        [one] => one.clone(),
        many => b.one("Sum", &many.iter().collect::<Vec<_>>(), Vec::new(), many[0].ty.clone()),
    };
    for (axis, length) in out.iter().enumerate() {
        let (before, after) = (window.pads[axis], window.pads[n + axis]);
        if before != 0 || after != 0 {
            let whole = length + window.reach(axis);
            sum = b.slice(&sum, axis + 1, before, whole - after, 1);
        }
    }
    let first: Vec<usize> = [n + 1].into_iter().chain(0..=n).collect();
    let dx = b.transpose(&sum, &first);
    Ok(Tensor { ty: x.ty.clone(), ..dx })
}

/// With samples and channels exchanged.
fn exchanged(b: &mut Builder, t: &Tensor, rank: usize) -> Tensor {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(0, 1);
    b.transpose(t, &perm)
}

/// ∂w as one product over patches; `out` are the lengths of g's spatial axes.
fn by_patches(b: &mut Builder, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window, out: &[i64]) -> Known<Tensor> {
    let n = out.len();
    let (outputs, channels) = (extent(size(w, 0)?), extent(size(w, 1)?));
    let mut padded = x.clone();
    if window.is_padded() {
        let mut pads = vec![0; 2 * (n + 2)];
        for i in 0..n {
            (pads[2 + i], pads[n + 4 + i]) = (window.pads[i], window.pads[n + i]);
        }
        padded = b.pad(x, &pads, None);
    }
    let cut = |b: &mut Builder, patch: &Tensor, axis: usize| -> Vec<Tensor> {
        let (stride, length) = (window.strides[axis], out[axis]);
        let whole = patch.ty.dims.as_ref().and_then(|d| d.get(axis + 2)).and_then(Dim::known).map(extent);
        let piece = |cell: i64| {
            let start = cell * window.dilations[axis];
            let end = start + (length - 1) * stride + 1;
            let is_whole = start == 0 && stride == 1 && whole == Some(end);
            if is_whole { patch.clone() } else { b.slice(patch, axis + 2, start, end, stride) }
        };
        (0..extent(window.kernel[axis])).map(piece).collect()
    };
    let joined = |b: &mut Builder, pieces: &[Tensor]| match pieces {
        [one] => one.clone(),
        many => b.concat(many, 1),
    };
    // Every channel has its pieces side by side, in the order of w's own columns. Those along the last axis, whose runs in memory are the
    // shortest, are cut first, while there is little to cut.
    let mut patch = exchanged(b, &padded, n + 2);
    for axis in (1..n).rev() {
        let pieces = cut(b, &patch, axis);
        patch = joined(b, &pieces);
    }
    let front = exchanged(b, g, n + 2);
    let cotangents = b.reshape(&front, &[outputs.into(), Extent::Fixed(-1)]);
    let pieces = cut(b, &patch, 0);
    let kernel: Vec<i64> = window.kernel.iter().map(|k| extent(*k)).collect();
    let columns = channels * kernel[1..].iter().product::<i64>();
    let product = |b: &mut Builder, piece: &Tensor, columns: i64, kernel: &[i64]| {
        let rows = b.reshape(piece, &[columns.into(), Extent::Fixed(-1)]);
        let product = gemm_of(b, (&cotangents, false), (&rows, true), 1.0);
        let shape: Vec<Extent> =
            [outputs, channels].into_iter().chain(kernel.iter().copied()).map(Extent::Fixed).collect();
        b.reshape(&product, &shape)
    };
    if pieces.len() == 1 || columns < WIDE {
        let all = joined(b, &pieces);
        return Ok(product(b, &all, columns * kernel[0], &kernel));
    }
    // A product for each, so that the patches are never all in memory.
    let row: Vec<i64> = [1].into_iter().chain(kernel[1..].iter().copied()).collect();
    let rows: Vec<Tensor> = pieces.iter().map(|piece| product(b, piece, columns, &row)).collect();
    Ok(b.concat(&rows, 2))
}

/// ∂w as a convolution of one volume, [1, N, C, …], with g for weights, [O, N, 1, …]. It has the order of w at once, which is worth more than
/// the short runs along its last axis where maps are small.
fn by_volume(b: &mut Builder, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window) -> Known<Tensor> {
    let n = window.kernel.len();
    let kernel: Vec<i64> = window.kernel.iter().map(|k| extent(*k)).collect();
    let spatial = |t: &Tensor| (2..n + 2).map(|i| Extent::from((t, i))).collect::<Vec<_>>();
    let shape: Vec<Extent> = [Extent::Fixed(1), (x, 0).into(), (x, 1).into()].into_iter().chain(spatial(x)).collect();
    let volume = b.reshape(x, &shape);
    let front = exchanged(b, g, n + 2);
    let shape: Vec<Extent> =
        [(&front, 0).into(), (&front, 1).into(), Extent::Fixed(1)].into_iter().chain(spatial(g)).collect();
    let cotangents = b.reshape(&front, &shape);
    let with_channels =
        |own: i64, list: &[i64]| -> Vec<i64> { [own].into_iter().chain(list.iter().copied()).collect() };
    let pads = [with_channels(0, &window.pads[..n]), with_channels(0, &window.pads[n..])].concat();
    let attributes = vec![
        ints("strides", &with_channels(1, &window.dilations)),
        ints("dilations", &with_channels(1, &window.strides)),
        ints("pads", &pads),
    ];
    let made = b.one("Conv", &[&volume, &cotangents], attributes, TensorType { elem: x.ty.elem, dims: None });
    let cells = if is_whole(window, x, g) { made } else { first_cells(b, &made, 3, &kernel) };
    let shape: Vec<Extent> = [size(w, 0)?, size(w, 1)?]
        .into_iter()
        .map(|n| Extent::Fixed(extent(n)))
        .chain(kernel.into_iter().map(Extent::Fixed))
        .collect();
    Ok(b.reshape(&cells, &shape))
}

/// Whether such a convolution makes as many cells as the kernel has: no places lie behind the last whole window.
fn is_whole(window: &Window, x: &Tensor, g: &Tensor) -> bool {
    let n = window.kernel.len();
    places(x, g).is_some_and(|(lengths, out)| {
        let over = |i: usize| {
            lengths[i] + window.pads[i] + window.pads[n + i] - window.reach(i) - 1 - (out[i] - 1) * window.strides[i]
        };
        (0..n).all(|i| over(i) < window.dilations[i])
    })
}

/// ∂w as a convolution of one picture, [1, N, …, Lₙ·C], with g for weights, [O, N, …]: along the last axis, the cells of the kernel are C apart.
fn by_picture(b: &mut Builder, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window) -> Known<Tensor> {
    let n = window.kernel.len();
    let (outputs, channels) = (extent(size(w, 0)?), extent(size(w, 1)?));
    let kernel: Vec<i64> = window.kernel.iter().map(|k| extent(*k)).collect();
    // ONNX Runtime moves one axis of three several times faster than one of more.
    let maps = b.reshape(x, &[(x, 0).into(), channels.into(), Extent::Fixed(-1)]);
    let turned = b.transpose(&maps, &[0, 2, 1]);
    let shape: Vec<Extent> = [Extent::Fixed(1), (x, 0).into()]
        .into_iter()
        .chain((2..n + 1).map(|axis| (x, axis).into()))
        .chain([match size(x, n + 1) {
            Ok(last) => (extent(last) * channels).into(),
            Err(_) => Extent::Fixed(-1),
        }])
        .collect();
    let picture = b.reshape(&turned, &shape);
    // Lengths along the last spatial axis count C times.
    let stretched = |lengths: &[i64]| -> Vec<i64> {
        lengths.iter().enumerate().map(|(i, l)| if i % n == n - 1 { l * channels } else { *l }).collect()
    };
    let attributes = vec![
        ints("strides", &window.dilations),
        ints("dilations", &stretched(&window.strides)),
        ints("pads", &stretched(&window.pads)),
    ];
    let cotangents = exchanged(b, g, n + 2);
    let made = b.one("Conv", &[&picture, &cotangents], attributes, TensorType { elem: x.ty.elem, dims: None });
    let cells = if is_whole(window, x, g) { made } else { first_cells(b, &made, 2, &stretched(&kernel)) };
    let cells = b.reshape(&cells, &[outputs.into(), kernel.iter().product::<i64>().into(), channels.into()]);
    let channels_first = b.transpose(&cells, &[0, 2, 1]);
    let shape: Vec<Extent> = [outputs, channels].into_iter().chain(kernel).map(Extent::Fixed).collect();
    Ok(b.reshape(&channels_first, &shape))
}

/// Without what places behind the last whole window make, which no weight stands for; the kernel's axes start at `first`.
fn first_cells(b: &mut Builder, made: &Tensor, first: usize, kernel: &[i64]) -> Tensor {
    let n = kernel.len();
    let (starts, axes) = (vec![0; n], (first as i64..(first + n) as i64).collect::<Vec<_>>());
    let [starts, ends, axes] = [&starts[..], kernel, &axes].map(|values| b.integers(values));
    let dims = vec![Dim::Unknown; first + n];
    b.one("Slice", &[made, &starts, &ends, &axes], Vec::new(), TensorType { elem: made.ty.elem, dims: Some(dims) })
}

/// ∂w as a convolution of xᵀ with gᵀ, strides and dilations exchanged. With groups, xᵀ is [C/group, group·N, …].
fn by_convolution(b: &mut Builder, g: &Tensor, x: &Tensor, w: &Tensor, window: &Window, group: i64) -> Known<Tensor> {
    let n = window.kernel.len();
    let per_group = extent(size(w, 1)?);
    let outputs = extent(size(w, 0)?);
    if group < 1 || outputs % group != 0 {
        return Err(Refusal(format!("{outputs} outputs do not fall into {group} groups")));
    }
    let spatial = |t: &Tensor| (2..n + 2).map(|i| Extent::from((t, i))).collect::<Vec<_>>();
    let (front, cotangents) = if group == 1 {
        (exchanged(b, x, n + 2), exchanged(b, g, n + 2))
    } else {
        let places: Vec<usize> = (3..n + 3).collect();
        let apart: Vec<Extent> =
            [(x, 0).into(), group.into(), per_group.into()].into_iter().chain(spatial(x)).collect();
        let apart = b.reshape(x, &apart);
        let perm: Vec<usize> = [2, 1, 0].into_iter().chain(places.iter().copied()).collect();
        let turned = b.transpose(&apart, &perm);
        let joined: Vec<Extent> = [per_group.into(), Extent::Fixed(-1)].into_iter().chain(spatial(x)).collect();
        (b.reshape(&turned, &joined), exchanged(b, g, n + 2))
    };
    let mut turned = window.clone();
    std::mem::swap(&mut turned.strides, &mut turned.dilations);
    let mut attributes =
        vec![ints("strides", &turned.strides), ints("dilations", &turned.dilations), ints("pads", &turned.pads)];
    if group != 1 {
        attributes.push(int("group", group));
    }
    let made = b.one("Conv", &[&front, &cotangents], attributes, TensorType { elem: x.ty.elem, dims: None });
    let kernel: Vec<i64> = window.kernel.iter().map(|k| extent(*k)).collect();
    let cut = first_cells(b, &made, 2, &kernel);
    Ok(exchanged(b, &cut, n + 2))
}
