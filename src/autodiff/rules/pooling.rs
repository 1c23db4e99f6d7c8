//! Pooling.
//!
//! MaxPool: the gradient goes to the place that the operator itself names in its second output, the first of equal ones. ONNX Runtime's CPU
//! finds that output six times as slowly as the maxima, so in small maps of 2×2 windows the place is found by comparison. AveragePool: every
//! place of a window gets its share, which is a transposed convolution with ones.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::rules::convolution::spread;
use crate::autodiff::shape::{reshape_like, shape_of, zeros_like};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::regularizer::emit::{Elem, Tensor, int, string};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Known, Refusal, extent, rank_from, size, written_out};
use crate::rewrite::window::{Window, window_sum};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["MaxPool"], adjoint: max },
    Rule { ops: &["AveragePool"], adjoint: average },
    Rule { ops: &["MaxUnpool"], adjoint: unpool },
];

fn kernel(a: &Adjoint<'_, '_>) -> Known<Vec<u64>> {
    let given = a.site.node.ints("kernel_shape").ok_or("it has no kernel_shape")?;
    given.iter().map(|k| u64::try_from(*k).map_err(|_| Refusal(format!("its kernel has the length {k}")))).collect()
}

fn max(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let window = Window::of(&a.site, &x, kernel(a)?)?;
    if let Some(lengths) = comparable(a, &x, &g, &window) {
        let dx = by_comparison(a, &g, &x, lengths);
        a.give(0, dx);
        return Ok(());
    }
    let places = TensorType { elem: Elem::I64.onnx(), dims: g.ty.dims.clone() };
    let indices = a.y_of_type(1, places);
    let indices = if a.site.int("storage_order", 0) == 0 { indices } else { by_rows(a.b, &indices, &x)? };
    let overlaps = (0..window.kernel.len()).any(|i| window.reach(i) >= window.strides[i]);
    if !overlaps && is_filled(&x, &g, &window) {
        // No place is in two windows, and the windows fill x.
        let whole = shape_of(a.b, &x);
        let attributes = window.attributes().into_iter().filter(|p| p.name() != "dilations").collect();
        let dx = a.b.one("MaxUnpool", &[&g, &indices, &whole], attributes, x.ty.clone());
        a.give(0, dx);
        return Ok(());
    }
    if overlaps && a.b.opset() < 16 {
        return by_cells(a, &g, &x, &indices, &window);
    }
    let flat = [Extent::Fixed(-1)];
    let g = a.b.widened(&g);
    let (indices, updates, zeros) = (a.b.reshape(&indices, &flat), a.b.reshape(&g, &flat), zeros_like(a.b, &x));
    let zeros = a.b.reshape(&zeros, &flat);
    let zeros = a.b.cast(&zeros, g.ty.elem);
    let ty = zeros.ty.clone();
    let mut attributes = vec![int("axis", 0)];
    if overlaps {
        attributes.push(string("reduction", "add"));
    }
    let operator = if a.b.opset() < 11 { "Scatter" } else { "ScatterElements" };
    let sums = a.b.one(operator, &[&zeros, &indices, &updates], attributes, ty);
    let dx = reshape_like(a.b, &sums, &x);
    a.give(0, dx);
    Ok(())
}

/// Rows of maps whose maxima are found by comparison: the product below takes time by their length.
const ROWS: std::ops::RangeInclusive<i64> = 4..=32;

/// The two lengths of x's maps, where 2×2 windows fill them and comparing is faster than asking for places, which no one else asks for.
fn comparable(a: &Adjoint<'_, '_>, x: &Tensor, g: &Tensor, window: &Window) -> Option<[i64; 2]> {
    let lengths: Vec<i64> =
        x.ty.dims.as_ref()?.get(2..)?.iter().map(|d| d.known().map(extent)).collect::<Option<_>>()?;
    let [height, width] = lengths[..] else { return None };
    let is_by_two = window.kernel == [2, 2] && window.strides == [2, 2] && is_filled(x, g, window);
    let has_places = a.site.analysis.graph.output(a.site.id, 1).is_some();
    let is_single = x.ty.elem == Elem::F32.onnx();
    (is_by_two && is_single && !has_places && a.b.opset() >= 13 && ROWS.contains(&width)).then_some([height, width])
}

/// Each place of a window that equals the maximum is marked by 1. Of two rows of a map side by side, a product with a constant takes from
/// each mark those before it in its window, so that only the first is left above 0.
fn by_comparison(a: &mut Adjoint<'_, '_>, g: &Tensor, x: &Tensor, [height, width]: [i64; 2]) -> Tensor {
    let y = a.y(0);
    let b = &mut *a.b;
    // One channel a map, so that ONNX Runtime does not reorder them to blocks of channels and back.
    let maps = |height: i64, width: i64| [-1, 1, height, width].map(Extent::Fixed);
    let scales = b.constant("scales_1_1_2_2", x, &[4], &[1.0, 1.0, 2.0, 2.0]);
    let doubled = |b: &mut Builder, t: &Tensor| {
        let small = b.reshape(t, &maps(height / 2, width / 2));
        let dims = [1, height, width].map(|n| Dim::Known(n.unsigned_abs()));
        let ty = TensorType { elem: t.ty.elem, dims: Some([Dim::Unknown].into_iter().chain(dims).collect()) };
        let attributes = vec![
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        b.node("Resize", &[Some(small), None, Some(scales.clone())], attributes, &[ty]).remove(0)
    };
    let (pictures, maxima) = (b.reshape(x, &maps(height, width)), doubled(b, &y));
    let marks = b.compare("Equal", &pictures, &maxima);
    let marks = b.indicator(&marks, x);
    let pairs = b.reshape(&marks, &[Extent::Fixed(-1), Extent::Fixed(2 * width)]);
    let n = 2 * width.unsigned_abs();
    let earlier = b.matrix(x, n, n, &without_earlier(width));
    let left = b.matmul(&pairs, &earlier);
    let first = b.unary("Relu", &left);
    let first = b.reshape(&first, &maps(height, width));
    let spread = doubled(b, g);
    let dx = b.binary("Mul", &first, &spread);
    reshape_like(b, &dx, x)
}

/// Over two rows side by side: each place less those before it in its 2×2 window, by columns of a matrix.
fn without_earlier(width: i64) -> Vec<f64> {
    let window = |place: i64| place % width / 2;
    let entry = |from: i64, to: i64| {
        if from == to { 1.0 } else { -f64::from(u8::from(from < to && window(from) == window(to))) }
    };
    (0..2 * width).flat_map(|from| (0..2 * width).map(move |to| entry(from, to))).collect()
}

/// Places counted by columns (the first axis runs fastest), counted by rows: Σ iₖ·∏ later lengths of the iₖ in Σ iₖ·∏ earlier lengths.
fn by_rows(b: &mut Builder, indices: &Tensor, x: &Tensor) -> Known<Tensor> {
    let lengths = (2..rank_from(x, 3)?).map(|i| size(x, i).map(extent)).collect::<Known<Vec<i64>>>()?;
    let all = lengths.iter().product::<i64>();
    let number = |b: &mut Builder, n: i64| b.number(n as f64, indices);
    let whole = number(b, all);
    let mut rest = b.remainder(indices, &whole);
    let mut rows = b.binary("Sub", indices, &rest);
    let mut stride = all;
    for length in lengths {
        stride /= length.max(1);
        let (n, s) = (number(b, length), number(b, stride));
        let along = b.remainder(&rest, &n);
        let step = b.binary("Mul", &along, &s);
        rows = b.binary("Add", &rows, &step);
        rest = b.binary("Div", &rest, &n);
    }
    Ok(Tensor { ty: indices.ty.clone(), ..rows })
}

/// Whether windows that do not overlap are known to end where x ends, so that MaxUnpool's own shape is x's.
fn is_filled(x: &Tensor, g: &Tensor, window: &Window) -> bool {
    let n = window.kernel.len();
    let length = |t: &Tensor, i: usize| t.ty.dims.as_ref()?.get(i + 2)?.known().map(extent);
    !window.is_padded()
        && (0..n).all(|i| {
            let end = length(g, i).map(|count| (count - 1) * window.strides[i] + window.reach(i) + 1);
            window.dilations[i] == 1 && end.is_some() && end == length(x, i)
        })
}

/// Back to where the values came from.
fn unpool(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x, indices) = (a.g(0)?, a.x(0)?, a.x(1)?);
    let rank = rank_from(&x, 3)?;
    let n = rank - 2;
    let list = |name: &str, default: i64, length: usize| {
        let given = a.site.node.ints(name).filter(|l| l.len() == length);
        given.map_or_else(|| vec![default; length], <[i64]>::to_vec)
    };
    let (kernel, strides, pads) = (list("kernel_shape", 1, n), list("strides", 1, n), list("pads", 0, 2 * n));
    // Places are counted in the shape that follows from the pooling, whatever is filled up behind it.
    let mut own = g;
    if a.site.input(2).is_some() {
        for i in 0..n {
            let count = extent(size(&x, i + 2)?);
            let end = (count - 1) * strides[i] - pads[i] - pads[n + i] + kernel[i];
            own = a.b.slice(&own, i + 2, 0, end, 1);
        }
    }
    let flat = a.b.reshape(&own, &[Extent::Fixed(-1)]);
    let ty = TensorType { elem: x.ty.elem, dims: x.ty.dims.clone() };
    let dx = a.b.one("Gather", &[&flat, &indices], vec![int("axis", 0)], ty);
    a.give(0, dx);
    Ok(())
}

/// The same before operator set 16, where no operator adds up: cell by cell of the window, g where the extremum stands in that cell, and one
/// transposed convolution that puts each cell in its place.
fn by_cells(a: &mut Adjoint<'_, '_>, g: &Tensor, x: &Tensor, indices: &Tensor, window: &Window) -> Known<()> {
    let n = window.kernel.len();
    let lengths = (0..n).map(|i| size(x, i + 2).map(extent)).collect::<Known<Vec<i64>>>();
    let lengths = lengths.map_err(|Refusal(reason)| {
        Refusal(format!("its windows overlap and {reason}, and adding up their gradients then needs operator set 16 (ScatterElements with a reduction), which --opset 16 raises the graph to"))
    })?;
    let spatial: Vec<Dim> = lengths.iter().map(|l| Dim::Known(l.unsigned_abs())).collect();
    let slid = window.slid(&spatial);
    let out =
        slid.iter().map(|d| d.known().map(extent)).collect::<Option<Vec<i64>>>().ok_or("its window does not fit")?;
    let kernel: Vec<i64> = window.kernel.iter().map(|k| extent(*k)).collect();
    let cells = written_out(kernel.iter().product())?;
    written_out(cells.saturating_mul(written_out(out.iter().product())?))?;
    // Where each cell of each window lies among the places of a channel; −1 outside.
    let mut table = Vec::new();
    for cell in places(&kernel) {
        for window_at in places(&out) {
            let along = |i: usize| window_at[i] * window.strides[i] + cell[i] * window.dilations[i] - window.pads[i];
            let place = (0..n).try_fold(0, |flat, i| {
                let at = along(i);
                (0..lengths[i]).contains(&at).then(|| flat * lengths[i] + at)
            });
            table.push(place.unwrap_or(-1));
        }
    }
    let apart = |second: i64| -> Vec<Extent> {
        [-1, second].into_iter().chain(out.iter().copied()).map(Extent::Fixed).collect()
    };
    let table = a.b.positions(&table);
    let shape: Vec<Extent> = [1, cells].into_iter().chain(out.iter().copied()).map(Extent::Fixed).collect();
    let table = a.b.reshape(&table, &shape);
    let (indices, g) = (a.b.reshape(indices, &apart(1)), a.b.reshape(g, &apart(1)));
    // Indices count through all channels.
    let count = a.b.number(lengths.iter().product::<i64>() as f64, &indices);
    let channel = a.b.binary("Div", &indices, &count);
    let before = a.b.binary("Mul", &channel, &count);
    let own = a.b.binary("Sub", &indices, &before);
    let hits = a.b.compare("Equal", &own, &table);
    let hits = a.b.indicator(&hits, &g);
    let each = a.b.binary("Mul", &hits, &g);
    let unit: Vec<f64> = (0..cells * cells).map(|i| f64::from(u8::from(i % (cells + 1) == 0))).collect();
    let unit = a.b.matrix(&g, cells.unsigned_abs(), cells.unsigned_abs(), &unit);
    let shape: Vec<Extent> = [cells, 1].into_iter().chain(kernel).map(Extent::Fixed).collect();
    let unit = a.b.reshape(&unit, &shape);
    let dims = [Dim::Unknown, Dim::Known(1)].into_iter().chain(spatial).collect();
    let like = Tensor { name: x.name.clone(), ty: TensorType { elem: x.ty.elem, dims: Some(dims) } };
    let dx = spread(a.b, &each, &unit, window, 1, &like);
    let dx = reshape_like(a.b, &dx, x);
    a.give(0, dx);
    Ok(())
}

/// All positions in a box of these lengths, the last axis fastest.
fn places(lengths: &[i64]) -> Vec<Vec<i64>> {
    let mut found = vec![Vec::new()];
    for length in lengths {
        found = found
            .iter()
            .flat_map(|first: &Vec<i64>| (0..*length).map(|i| first.iter().copied().chain([i]).collect()))
            .collect();
    }
    found
}

fn average(a: &mut Adjoint<'_, '_>) -> Known<()> {
    let (g, x) = (a.g(0)?, a.x(0)?);
    let rank = rank_from(&x, 3)?;
    let window = Window::of(&a.site, &x, kernel(a)?)?;
    let counts_padding = a.site.int("count_include_pad", 0) != 0;
    // Padding counts, but not what rounding up adds behind it.
    let rounds_up = a.site.int("ceil_mode", 0) != 0;
    // Every channel as a sample of one channel.
    let apart = |t: &Tensor| -> Vec<Extent> {
        [Extent::Fixed(-1), Extent::Fixed(1)].into_iter().chain((2..rank).map(|i| (t, i).into())).collect()
    };
    let (cotangents, pictures) = (
        a.b.reshape(&g, &apart(&g)),
        Tensor {
            name: x.name.clone(),
            ty: TensorType {
                elem: x.ty.elem,
                dims: x.ty.dims.as_ref().map(|d| {
                    let places = d.get(2..).unwrap_or_default().iter().cloned();
                    [Default::default(), Dim::Known(1)].into_iter().chain(places).collect()
                }),
            },
        },
    );
    let share = if window.is_padded() && (!counts_padding || rounds_up) {
        // How many places of each window lie inside.
        let first = a.b.reshape(&x, &apart(&x));
        let one = a.b.slice(&first, 0, 0, 1, 1);
        let (zero, unit) = (a.b.times(&one, 0.0), 1.0);
        let mut ones = a.b.plus(&zero, unit);
        let mut counted = window.clone();
        if counts_padding {
            let n = window.kernel.len();
            let pads =
                a.site.node.ints("pads").filter(|l| l.len() == 2 * n).map_or_else(|| vec![0; 2 * n], <[i64]>::to_vec);
            let whole: Vec<i64> = [&[0, 0], &pads[..n], &[0, 0], &pads[n..]].concat();
            let one = a.b.number(1.0, &x);
            ones = a.b.pad(&ones, &whole, Some(&one));
            counted.pads.iter_mut().zip(&pads).for_each(|(all, own)| *all -= own);
        }
        let counts = window_sum(a.b, &ones, &counted);
        a.b.binary("Div", &cotangents, &counts)
    } else {
        a.b.divided(&cotangents, window.cells())
    };
    let share = Tensor { ty: cotangents.ty.clone(), ..share };
    let dims: Vec<u64> = [1, 1].into_iter().chain(window.kernel.iter().copied()).collect();
    let ones = a.b.ones(&x, &dims);
    let like = if places_are_known(&pictures) { pictures } else { a.b.reshape(&x, &apart(&x)) };
    let spread = spread(a.b, &share, &ones, &window, 1, &like);
    let dx = reshape_like(a.b, &spread, &x);
    a.give(0, dx);
    Ok(())
}

fn places_are_known(x: &Tensor) -> bool {
    x.ty.dims.as_ref().is_some_and(|d| d.iter().skip(2).all(|d| d.known().is_some()))
}
