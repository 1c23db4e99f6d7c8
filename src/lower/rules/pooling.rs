//! **What.** AveragePool of run-time shapes or with dilations, LpPool, GlobalLpPool, GlobalMaxPool.
//!
//! **Why.** AveragePool's gradient takes the shape from the graph's declarations: a symbolic batch makes it empty, and training fails or
//! goes wrong; it ignores dilations. No gradient of the others is registered.
//!
//! **Equation.** Average = Σ window/cells, the cells being those inside the map unless `count_include_pad`: a product with a constant
//! matrix along each axis, or a convolution with ones where the map's size is open; with 1×1 windows it is a slice with steps. Lp =
//! (Σ|x|ᵖ)^{1/p}. GlobalMaxPool is MaxPool over all places in a row, or a maximum as in ReduceMax where the map's size is open.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::along::{Map, product};
use crate::lower::rules::reductions::extremum;
use crate::regularizer::emit::{Tensor, ints};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Site, extent, rank, rank_from, written_out};
use crate::rewrite::window::{Window, channel_sums, window_sum};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["AveragePool"],
        because: "its gradient needs shapes that are fixed, and ignores dilations",
        applies: |site| on_path(site) && (is_dilated(site) || is_open(site)),
        rewrite: average,
    },
    Rule { ops: &["LpPool"], because: "no gradient of it is registered", applies: on_path, rewrite: lp },
    Rule { ops: &["GlobalLpPool"], because: "no gradient of it is registered", applies: on_path, rewrite: global_lp },
    Rule { ops: &["GlobalMaxPool"], because: "no gradient of it is registered", applies: on_path, rewrite: global_max },
];

fn is_dilated(site: &Site) -> bool {
    site.node.ints("dilations").is_some_and(|d| d.iter().any(|d| *d != 1))
}

fn is_open(site: &Site) -> bool {
    site.input(0).is_none_or(|x| x.ty.dims.is_none_or(|dims| dims.iter().any(|d| d.known().is_none())))
}

fn window(site: &Site, x: &Tensor) -> Known<Window> {
    let kernel = site.node.ints("kernel_shape").ok_or("it has no kernel_shape")?;
    let kernel = kernel.iter().map(|k| u64::try_from(*k).ok().filter(|k| *k > 0)).collect::<Option<Vec<u64>>>();
    let kernel = kernel.ok_or("its kernel_shape has an extent below 1")?;
    if rank_from(x, 3)? != kernel.len() + 2 {
        return Err("its kernel_shape does not fit its input".into());
    }
    let cells = kernel.iter().try_fold(1u64, |n, k| n.checked_mul(*k)).map_or(i64::MAX, extent);
    written_out(cells)?;
    Window::of(site, x, kernel)
}

fn average(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let rank = rank(&x)?;
    let window = window(site, &x)?;
    if window.kernel.iter().all(|k| *k == 1) && !window.is_padded() {
        let mut slice = x;
        for (axis, stride) in window.strides.iter().enumerate().filter(|(_, s)| **s > 1) {
            slice = b.slice(&slice, axis + 2, 0, i64::from(i32::MAX), *stride);
        }
        return Ok(vec![slice.into()]);
    }
    let counts_padding = site.int("count_include_pad", 0) != 0;
    let is_ceil = site.int("ceil_mode", 0) != 0;
    if counts_padding && is_ceil && window.is_padded() {
        return Err(
            "with ceil_mode and count_include_pad at once its divisor is not the same in every version of ONNX Runtime"
                .into(),
        );
    }
    if let Some(mean) = separated(b, &x, rank, &window, !counts_padding)? {
        return Ok(vec![mean.into()]);
    }
    let sums = channel_sums(b, &x, rank, &window);
    if counts_padding || !window.is_padded() {
        return Ok(vec![b.divided(&sums, window.cells()).into()]);
    }
    // The same window over ones counts the cells inside the map; no gradient passes here.
    let shape: Vec<Extent> = [1.into(), 1.into()].into_iter().chain((2..rank).map(|i| (&x, i).into())).collect();
    let dims =
        x.ty.dims.as_ref().map(|d| [Dim::Known(1), Dim::Known(1)].into_iter().chain(d[2..].iter().cloned()).collect());
    let shape = b.shape(&shape);
    let zeros = b.zeros_of(&shape, TensorType { elem: x.ty.elem, dims });
    let ones = b.plus(&zeros, 1.0);
    let counts = window_sum(b, &ones, &window);
    Ok(vec![b.binary("Div", &sums, &counts).into()])
}

/// Longest axis of a map whose windows are worth a matrix.
const LONGEST: u64 = 512;

/// Means over windows, axis by axis, where the map's lengths are fixed: the window is a product of intervals, and so is the number of
/// its cells inside the map (`inside_only`) or in all.
fn separated(b: &mut Builder, x: &Tensor, rank: usize, window: &Window, inside_only: bool) -> Known<Option<Tensor>> {
    let lengths: Option<Vec<u64>> = x.ty.dims.as_ref().and_then(|dims| dims.iter().skip(2).map(Dim::known).collect());
    let Some(lengths) = lengths.filter(|l| l.iter().all(|n| (1..=LONGEST).contains(n))) else { return Ok(None) };
    let spatial: Vec<Dim> = lengths.iter().map(|n| Dim::Known(*n)).collect();
    let results: Option<Vec<u64>> = window.slid(&spatial).iter().map(Dim::known).collect();
    let Some(results) = results.filter(|l| l.iter().all(|n| (1..=LONGEST).contains(n))) else { return Ok(None) };
    let mut mean = x.clone();
    for (axis, (from, to)) in lengths.iter().zip(&results).enumerate() {
        let mut map = Map::zero(*from, *to);
        for i in 0..*to {
            let start = extent(i) * window.strides[axis] - window.pads[axis];
            let cells: Vec<i64> =
                (0..extent(window.kernel[axis])).map(|k| start + k * window.dilations[axis]).collect();
            let inside = cells.iter().filter(|j| (0..extent(*from)).contains(j)).count();
            let count = if inside_only { inside } else { cells.len() };
            cells.iter().for_each(|j| map.add(i, *j, 1.0 / count.max(1) as f64));
        }
        mean = product(b, &mean, axis + 2, rank, &map);
    }
    Ok(Some(mean))
}

/// |x|ᵖ.
fn power(b: &mut Builder, x: &Tensor, p: i64) -> Tensor {
    match p {
        1 => b.unary("Abs", x),
        2 => b.binary("Mul", x, x),
        p => {
            let magnitude = b.unary("Abs", x);
            let p = b.number(p as f64, x);
            b.one("Pow", &[&magnitude, &p], Vec::new(), x.ty.clone())
        }
    }
}

/// s^{1/p}, with derivative 0 instead of ∞ where s is 0.
fn root(b: &mut Builder, s: &Tensor, p: i64) -> Tensor {
    if p == 1 {
        return s.clone();
    }
    let (zero, one) = (b.number(0.0, s), b.number(1.0, s));
    let is_positive = b.compare("Greater", s, &zero);
    let safe = b.choose(&is_positive, s, &one);
    let root = if p == 2 {
        b.unary("Sqrt", &safe)
    } else {
        let exponent = b.number(1.0 / p as f64, s);
        b.one("Pow", &[&safe, &exponent], Vec::new(), s.ty.clone())
    };
    b.choose(&is_positive, &root, &zero)
}

fn lp(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let rank = rank(&x)?;
    let window = window(site, &x)?;
    let p = site.int("p", 2);
    let power = power(b, &x, p);
    let sums = match separated(b, &power, rank, &window, false)? {
        Some(mean) => b.times(&mean, window.cells()),
        None => channel_sums(b, &power, rank, &window),
    };
    Ok(vec![root(b, &sums, p).into()])
}

/// The axes of places.
fn places(rank: usize) -> Vec<i64> {
    (2..rank).map(|a| a as i64).collect()
}

fn global_lp(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let axes = places(rank_from(&x, 3)?);
    let p = site.int("p", 2);
    let power = power(b, &x, p);
    let sums = b.reduce("ReduceSum", &power, Some(&axes), true);
    Ok(vec![root(b, &sums, p).into()])
}

fn global_max(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let rank = rank_from(&x, 3)?;
    let map: Option<Vec<i64>> = x.ty.dims.as_ref().and_then(|d| d[2..].iter().map(|d| d.known().map(extent)).collect());
    // Places in a row: ONNX Runtime's pooling is fastest along one axis.
    if let Some(places) = map.map(|map| map.iter().fold(1i64, |n, d| n.saturating_mul(*d))).filter(|n| *n > 0) {
        let row = b.reshape(&x, &[0.into(), 0.into(), places.into()]);
        let dims = row.ty.dims.as_ref().map(|d| vec![d[0].clone(), d[1].clone(), Dim::Known(1)]);
        let ty = TensorType { elem: x.ty.elem, dims };
        let most = b.one("MaxPool", &[&row], vec![ints("kernel_shape", &[places])], ty);
        let shape: Vec<Extent> = (0..rank).map(|axis| if axis < 2 { 0.into() } else { 1.into() }).collect();
        return Ok(vec![b.reshape(&most, &shape).into()]);
    }
    Ok(vec![extremum(b, &x, "ReduceMax", Some(&places(rank)), true).into()])
}
