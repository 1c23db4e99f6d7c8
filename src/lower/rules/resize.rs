//! **What.** Resize and Upsample: nearest, linear and cubic, of sizes that are fixed.
//!
//! **Why.** Their gradient has no kernel on the CPU.
//!
//! **Equation.** Each axis on its own: a product with the constant matrix of weights, out × in, which for nearest has a single 1 in a
//! row; on long axes nearest is Gather at the source positions. Outside the picture, where a region (tf_crop_and_resize) may lie, a row has
//! no weights, and extrapolation_value is added. Source positions follow `coordinate_transformation_mode` and
//! `nearest_mode` as the specification has them. With `antialias`, an axis that becomes shorter is read through a kernel as much wider.

use crate::graph::Attributes;
use crate::graph::infer::scaled_length;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::along::{Map, product};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{self, Known, Refusal, Site, extent, rank, size, written_out};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule {
    ops: &["Resize", "Upsample"],
    because: "its gradient has no kernel on the CPU",
    applies: |site| on_path(site) || site.node.op_type() == "Upsample",
    rewrite,
}];

/// Largest matrix of weights.
const LARGEST: i64 = 1 << 20;

/// Longest axis on which a product is faster than Gather, whose gradient adds one element at a time.
const SHORT: i64 = 64;

/// How one axis is resized.
struct Scaling {
    length: i64,
    resized: i64,
    scale: f64,
    /// The part of the axis that is read, from 0 to 1.
    window: Option<(f64, f64)>,
}

/// Upsample, or Resize before operator set 11: scales are input 1, and nothing says where it reads.
fn is_old(site: &Site) -> bool {
    site.node.op_type() == "Upsample" || site.opset() < 11
}

/// Whether a region of x is resized.
fn is_crop(site: &Site) -> bool {
    site.node.string("coordinate_transformation_mode") == Some("tf_crop_and_resize")
}

/// Whether an axis that becomes shorter is smoothed.
fn is_smooth(site: &Site) -> bool {
    site.int("antialias", 0) != 0
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let input = site.required(0)?;
    let mut x = input.clone();
    let mut inside: Option<Tensor> = None;
    let rank = rank(&x)?;
    if is_smooth(site) && site.node.string("mode").unwrap_or("nearest") == "nearest" {
        return Err("antialias is for linear and cubic, and its mode is nearest".into());
    }
    let axes: Vec<usize> = match site.node.ints("axes") {
        Some(axes) => axes.iter().map(|a| site::axis(*a, rank)).collect::<Known<_>>()?,
        None => (0..rank).collect(),
    };
    for (k, axis) in axes.iter().enumerate() {
        let Some(scaling) = scaling(site, &input, k, *axis, &axes)? else { continue };
        if let Some(marks) = marks(site, b, &scaling, &input, rank - 1 - axis)? {
            inside = Some(inside.map_or_else(|| marks.clone(), |all| b.binary("Mul", &all, &marks)));
        }
        let mode = site.node.string("mode").unwrap_or("nearest");
        x = if mode == "nearest" && scaling.length > SHORT && scaling.window.is_none() {
            let positions = (0..scaling.resized).map(|i| nearest(site, &scaling, i)).collect::<Known<Vec<i64>>>()?;
            b.pick(&x, *axis, &positions)
        } else {
            product(b, &x, *axis, rank, &map(site, &scaling, mode)?)
        };
    }
    let value = site.float("extrapolation_value", 0.0);
    if let Some(inside) = inside.filter(|_| value != 0.0) {
        let one = b.number(1.0, &x);
        let outside = b.binary("Sub", &one, &inside);
        let filling = b.times(&outside, value);
        x = Tensor { ty: x.ty.clone(), ..b.binary("Add", &x, &filling) };
    }
    Ok(vec![x.into()])
}

/// 1 where a region's position lies in the picture, else 0, along the axis; `None` where all do.
fn marks(site: &Site, b: &mut Builder, s: &Scaling, like: &Tensor, later: usize) -> Known<Option<Tensor>> {
    if s.window.is_none() {
        return Ok(None);
    }
    let mark = |i: i64| Ok(if is_inside(s, source(site, s, i)?) { 1.0 } else { 0.0 });
    let values = (0..s.resized).map(mark).collect::<Known<Vec<f64>>>()?;
    if values.iter().all(|v| *v == 1.0) {
        return Ok(None);
    }
    let column = b.matrix(like, s.resized.unsigned_abs(), 1, &values);
    let extents: Vec<Extent> = [s.resized].into_iter().chain(vec![1; later]).map(Extent::Fixed).collect();
    Ok(Some(b.reshape(&column, &extents)))
}

fn is_inside(s: &Scaling, at: f64) -> bool {
    (0.0..=(s.length - 1) as f64).contains(&at)
}

/// What happens to an axis; `None` when it stays.
fn scaling(site: &Site, x: &Tensor, k: usize, axis: usize, axes: &[usize]) -> Known<Option<Scaling>> {
    let count = axes.len();
    let is_old = is_old(site);
    let at = |slot: usize| site.numbers(slot).filter(|v| v.len() == count).map(|v| v[k]);
    let scale = at(if is_old { 1 } else { 2 });
    let is_crop = is_crop(site);
    if scale == Some(1.0) && !is_crop {
        return Ok(None);
    }
    // Sizes that the graph computes are known where the result's are; an axis that keeps its symbol keeps its length.
    let dim = |ty: &TensorType| ty.dims.as_ref().and_then(|d| d.get(axis)).cloned().unwrap_or_default();
    let (before, after) = (dim(&x.ty), dim(&site.output_type(0)));
    if scale.is_none() && before == after && before != Dim::Unknown && !is_crop {
        return Ok(None);
    }
    let inferred = after.known().map(|n| n as f64).filter(|_| site.input(3).is_some());
    let wanted = if is_old { None } else { at(3).or(inferred) };
    let length = extent(size(x, axis)?);
    let policy = site.node.string("keep_aspect_ratio_policy").unwrap_or("stretch");
    if wanted == Some(length as f64) && policy == "stretch" && !is_crop {
        return Ok(None);
    }
    if length == 0 {
        return Err("it resizes an axis that has no elements".into());
    }
    if scale.is_none() && policy != "stretch" {
        // One scale for all axes: the largest (or smallest) that no (or every) size is exceeded by.
        let sizes =
            site.integers(3).filter(|v| v.len() == count).ok_or("its sizes are known only to the running graph")?;
        let ratios = axes.iter().zip(&sizes).map(|(axis, n)| Ok(*n as f64 / size(x, *axis)? as f64));
        let ratios = ratios.collect::<Known<Vec<f64>>>()?.into_iter();
        let scale =
            if policy == "not_larger" { ratios.fold(f64::INFINITY, f64::min) } else { ratios.fold(0.0, f64::max) };
        let resized = written_out((scale * length as f64 + 0.5).floor() as i64)?;
        return Ok(Some(Scaling { length, resized, scale, window: None }));
    }
    let window = match site.numbers(1) {
        Some(roi) if is_crop && roi.len() == 2 * count => Some((roi[k], roi[count + k])),
        _ if is_crop => return Err("its region is known only to the running graph".into()),
        _ => None,
    };
    match (scale, wanted) {
        (Some(scale), _) => {
            let resized = scaled_length(length.unsigned_abs(), scale).and_then(|n| i64::try_from(n).ok());
            let resized = written_out(resized.ok_or_else(|| Refusal(format!("its scale {scale} gives no length")))?)?;
            Ok(Some(Scaling { length, resized, scale, window }))
        }
        (None, Some(wanted)) => {
            Ok(Some(Scaling { length, resized: written_out(wanted as i64)?, scale: wanted / length as f64, window }))
        }
        (None, None) => Err("its scales or sizes are known only to the running graph".into()),
    }
}

/// Where output position `i` lies in the input.
fn source(site: &Site, s: &Scaling, i: i64) -> Known<f64> {
    let i = i as f64;
    let mode = if is_old(site) {
        "asymmetric"
    } else {
        site.node.string("coordinate_transformation_mode").unwrap_or("half_pixel")
    };
    Ok(match mode {
        "asymmetric" => i / s.scale,
        "half_pixel" => (i + 0.5) / s.scale - 0.5,
        "tf_half_pixel_for_nn" => (i + 0.5) / s.scale,
        "pytorch_half_pixel" if s.resized > 1 => (i + 0.5) / s.scale - 0.5,
        "pytorch_half_pixel" => 0.0,
        "half_pixel_symmetric" => {
            let adjustment = s.resized as f64 / (s.scale * s.length as f64);
            let centre = s.length as f64 / 2.0;
            centre * (1.0 - adjustment) + (i + 0.5) / s.scale - 0.5
        }
        "align_corners" if s.resized > 1 => i * (s.length - 1) as f64 / (s.resized - 1) as f64,
        "align_corners" => 0.0,
        "tf_crop_and_resize" => {
            let (start, end) = s.window.ok_or("it has no region")?;
            let last = (s.length - 1) as f64;
            match s.resized {
                2.. => start * last + i * (end - start) * last / (s.resized - 1) as f64,
                _ => 0.5 * (start + end) * last,
            }
        }
        other => return Err(Refusal(format!("its coordinate_transformation_mode {other:?} has no rewriting"))),
    })
}

fn nearest(site: &Site, s: &Scaling, i: i64) -> Known<i64> {
    // ONNX Runtime computes positions in float32; so do we, where a tie depends on it.
    let at = f64::from(source(site, s, i)? as f32);
    let mode = match site.node.string("nearest_mode") {
        // Before it can be told, ONNX Runtime rounds up where a size shrinks.
        _ if is_old(site) => {
            if s.scale < 1.0 {
                "ceil"
            } else {
                "floor"
            }
        }
        mode => mode.unwrap_or("round_prefer_floor"),
    };
    let rounded = match mode {
        "round_prefer_floor" => (at - 0.5).ceil(),
        "round_prefer_ceil" => (at + 0.5).floor(),
        "floor" => at.floor(),
        "ceil" => at.ceil(),
        other => return Err(Refusal(format!("its nearest_mode {other:?} is unknown"))),
    };
    Ok((rounded as i64).clamp(0, s.length - 1))
}

/// The weights of all positions, as a map of the axis.
fn map(site: &Site, s: &Scaling, mode: &str) -> Known<Map> {
    if s.resized < 1 || s.resized.saturating_mul(s.length) > LARGEST {
        return Err("its matrix of weights would be too large".into());
    }
    let unsigned = |n: i64| u64::try_from(n).unwrap_or_default();
    let mut map = Map::zero(unsigned(s.length), unsigned(s.resized));
    for i in 0..s.resized {
        let at = source(site, s, i)?;
        if s.window.is_some() && !is_inside(s, at) {
            continue;
        }
        let taps = if mode == "nearest" { vec![(nearest(site, s, i)?, 1.0)] } else { taps(site, at, s, mode)? };
        taps.iter().for_each(|(position, weight)| map.add(unsigned(i), (*position).clamp(0, s.length - 1), *weight));
    }
    Ok(map)
}

/// Positions and weights that make one output: the kernel around where it lies, of half-width 1 or 2, stretched by 1/scale where an axis
/// that becomes shorter is smoothed.
fn taps(site: &Site, at: f64, s: &Scaling, mode: &str) -> Known<Vec<(i64, f64)>> {
    let a = site.float("cubic_coeff_a", -0.75);
    let cubic = |d: f64| {
        if d <= 1.0 { ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0 } else { a * (((d - 5.0) * d + 8.0) * d - 4.0) }
    };
    let density = if is_smooth(site) { s.scale.min(1.0) } else { 1.0 };
    let reach = match mode {
        "linear" => 1.0 / density,
        "cubic" => 2.0 / density,
        other => return Err(Refusal(format!("its mode {other:?} is unknown"))),
    };
    let weight = |position: i64| {
        let distance = density * (position as f64 - at).abs();
        if mode == "linear" { (1.0 - distance).max(0.0) } else { cubic(distance) }
    };
    let positions = (at - reach).ceil() as i64..=(at + reach).floor() as i64;
    let mut taps: Vec<(i64, f64)> = positions.map(|position| (position, weight(position))).collect();
    let leaves_out = site.int("exclude_outside", 0) != 0;
    if leaves_out {
        taps.retain(|(position, _)| (0..s.length).contains(position));
    }
    let total: f64 = taps.iter().map(|(_, w)| w).sum();
    if (leaves_out || density < 1.0) && total != 0.0 {
        taps.iter_mut().for_each(|(_, w)| *w /= total);
    }
    Ok(taps)
}
