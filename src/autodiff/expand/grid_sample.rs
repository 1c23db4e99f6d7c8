//! GridSample: each output place p reads x at the coordinates that the grid has for it, y[n, c, p] = Σ_k w_k(p)·x[n, c, k(p)].
//!
//! A coordinate g of −1 … 1 is (g + 1)/2·(L − 1) with align_corners, else ((g + 1)·L − 1)/2. Outside, border keeps to the edge and reflection
//! folds back. Along an axis, nearest reads the place round c, linear floor c and the next with 1 − t and t for t = c − floor c, cubic four
//! places around with Keys' polynomials (a = −0.75). With zeros, places outside weigh nothing. The weights of several axes multiply.

use crate::autodiff::expand::range;
use crate::graph::Attributes;
use crate::graph::types::TensorType;
use crate::lower::registry::Rule;
use crate::regularizer::emit::{Elem, Tensor, int};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank_from, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule { ops: &["GridSample"], because: "it is spelt out", applies: |_| true, rewrite }];

#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// A place along an axis, as int64, with its weight; both [N, P].
type Tap = (Tensor, Option<Tensor>);

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, grid) = (site.required(0)?, site.required(1)?);
    let rank = rank_from(&x, 3)?;
    let outside = match site.node.string("padding_mode").unwrap_or("zeros") {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        other => return Err(Refusal(format!("its padding_mode {other:?} is unknown"))),
    };
    let is_aligned = site.int("align_corners", 0) != 0;
    let lengths: Vec<i64> = (2..rank).map(|i| size(&x, i).map(extent)).collect::<Known<_>>()?;
    if lengths.contains(&0) {
        return Err("it samples an axis that has no elements".into());
    }
    let mut axes = Vec::new();
    for (i, length) in lengths.iter().enumerate() {
        // The last coordinate is that of the first axis.
        let at = (lengths.len() - 1 - i) as i64;
        let one = b.slice(&grid, rank - 1, at, at + 1, 1);
        let flat = b.reshape(&one, &[(&grid, 0).into(), Extent::Fixed(-1)]);
        axes.push(taps(site, b, &flat, *length, is_aligned, outside)?);
    }
    // x as rows, one for each sample and place.
    let places: i64 = lengths.iter().product();
    let flat = b.reshape(&x, &[(&x, 0).into(), (&x, 1).into(), places.into()]);
    let turned = b.transpose(&flat, &[0, 2, 1]);
    let rows = b.reshape(&turned, &[Extent::Fixed(-1), (&x, 1).into()]);
    let samples = range(b, &(&x, 0).into());
    let like = Tensor { name: String::new(), ty: samples.ty.clone() };
    let step = b.number(places as f64, &like);
    let starts = b.binary("Mul", &samples, &step);
    let starts = b.unsqueeze(&starts, &[1]);

    let mut combined: Vec<Tap> = vec![(starts, None)];
    let mut stride = places;
    for (taps, length) in axes.iter().zip(&lengths) {
        stride /= length;
        let mut next = Vec::new();
        for (place, weight) in &combined {
            for (along, of_it) in taps {
                let step = b.number(stride as f64, &like);
                let offset = if stride == 1 { along.clone() } else { b.binary("Mul", along, &step) };
                let place = b.binary("Add", place, &offset);
                let weight = match (weight, of_it) {
                    (Some(a), Some(c)) => Some(b.binary("Mul", a, c)),
                    (a, c) => a.clone().or_else(|| c.clone()),
                };
                next.push((place, weight));
            }
        }
        combined = next;
    }
    let channels = x.ty.dims.as_ref().and_then(|d| d.get(1)).cloned().unwrap_or_default();
    let mut terms = Vec::new();
    for (place, weight) in &combined {
        let dims = place.ty.dims.clone().map(|d| d.into_iter().chain([channels.clone()]).collect());
        let ty = TensorType { elem: x.ty.elem, dims };
        let read = b.one("Gather", &[&rows, place], vec![int("axis", 0)], ty.clone());
        terms.push(match weight {
            Some(weight) => {
                let weight = b.unsqueeze(weight, &[2]);
                Tensor { ty, ..b.binary("Mul", &read, &weight) }
            }
            None => read,
        });
    }
    let ty = terms[0].ty.clone();
    let sum = if terms.len() == 1 {
        terms[0].clone()
    } else {
        b.one("Sum", &terms.iter().collect::<Vec<_>>(), Vec::new(), ty)
    };
    let sum = b.transpose(&sum, &[0, 2, 1]);
    let out = (1..rank - 1).map(|i| Extent::from((&grid, i)));
    let whole: Vec<Extent> = [(&x, 0).into(), (&x, 1).into()].into_iter().chain(out).collect();
    Ok(vec![b.reshape(&sum, &whole).into()])
}

/// What is read along an axis of some length, for coordinates g of −1 … 1.
fn taps(site: &Site, b: &mut Builder, g: &Tensor, length: i64, is_aligned: bool, outside: Outside) -> Known<Vec<Tap>> {
    let n = length as f64;
    let c = if is_aligned {
        let scaled = b.times(g, (n - 1.0) / 2.0);
        b.plus(&scaled, (n - 1.0) / 2.0)
    } else {
        let scaled = b.times(g, n / 2.0);
        b.plus(&scaled, (n - 1.0) / 2.0)
    };
    let (low, high) = if is_aligned { (0.0, n - 1.0) } else { (-0.5, n - 0.5) };
    let mode = site.node.string("mode").unwrap_or("linear");
    let c = if mode == "nearest" { b.unary("Round", &c) } else { c };
    let c = match outside {
        Outside::Zeros => c,
        Outside::Border => {
            // Half a place beyond the first and the last is inside still, which tells for cubic alone.
            let (inside, edge) = (clipped(b, &c, low, high), clipped(b, &c, 0.0, n - 1.0));
            let is_inside = b.compare("Equal", &inside, &c);
            Tensor { ty: c.ty.clone(), ..b.choose(&is_inside, &c, &edge) }
        }
        Outside::Reflection => folded(b, &c, low, high),
    };
    let base = if mode == "nearest" { c.clone() } else { b.unary("Floor", &c) };
    let weights = match mode {
        "nearest" => vec![(0.0, None)],
        "linear" | "bilinear" => {
            let t = b.binary("Sub", &c, &base);
            let one = b.number(1.0, &t);
            vec![(0.0, Some(b.binary("Sub", &one, &t))), (1.0, Some(t))]
        }
        "cubic" | "bicubic" => {
            let t = b.binary("Sub", &c, &base);
            (-1..=2).map(|k| (f64::from(k), Some(keys(b, &t, k)))).collect()
        }
        other => return Err(Refusal(format!("its mode {other:?} is unknown"))),
    };
    let mut taps = Vec::new();
    for (shift, weight) in weights {
        let place = b.plus(&base, shift);
        let (place, weight) = match outside {
            Outside::Zeros => {
                let inside = clipped(b, &place, 0.0, n - 1.0);
                let is_inside = b.compare("Equal", &inside, &place);
                let counts = b.indicator(&is_inside, &place);
                let weight = match weight {
                    Some(weight) => b.binary("Mul", &weight, &counts),
                    None => counts,
                };
                (inside, Some(weight))
            }
            Outside::Border => (clipped(b, &place, 0.0, n - 1.0), weight),
            Outside::Reflection => {
                let back = folded(b, &place, low, high);
                (clipped(b, &back, 0.0, n - 1.0), weight)
            }
        };
        // Folding back may leave the halves of a rounding.
        taps.push((b.cast(&place, Elem::I64.onnx()), weight));
    }
    Ok(taps)
}

fn clipped(b: &mut Builder, x: &Tensor, low: f64, high: f64) -> Tensor {
    let (low, high) = (b.number(low, x), b.number(high, x));
    b.one("Clip", &[x, &low, &high], Vec::new(), x.ty.clone())
}

/// Mirrored at the borders until it is inside: with u = |c − low| and r = u mod range, low + r after an even number of ranges, else high − r.
fn folded(b: &mut Builder, c: &Tensor, low: f64, high: f64) -> Tensor {
    let span = high - low;
    if span <= 0.0 {
        let zero = b.times(c, 0.0);
        return b.plus(&zero, low);
    }
    let from_low = b.plus(c, -low);
    let u = b.unary("Abs", &from_low);
    let turns = b.divided(&u, span);
    let turns = b.unary("Floor", &turns);
    let gone = b.times(&turns, span);
    let rest = b.binary("Sub", &u, &gone);
    let half = b.times(&turns, 0.5);
    let whole = b.unary("Floor", &half);
    let is_even = b.compare("Equal", &half, &whole);
    let there = b.plus(&rest, low);
    let negative = b.unary("Neg", &rest);
    let back = b.plus(&negative, high);
    Tensor { ty: c.ty.clone(), ..b.choose(&is_even, &there, &back) }
}

/// The weight of the k-th place around floor c, t = c − floor c.
fn keys(b: &mut Builder, t: &Tensor, k: i32) -> Tensor {
    const A: f64 = -0.75;
    let negative = b.unary("Neg", t);
    let d = match k {
        -1 => b.plus(t, 1.0),
        0 => t.clone(),
        1 => b.plus(&negative, 1.0),
        _ => b.plus(&negative, 2.0),
    };
    let coefficients =
        if k == 0 || k == 1 { [A + 2.0, -(A + 3.0), 0.0, 1.0] } else { [A, -5.0 * A, 8.0 * A, -4.0 * A] };
    let mut value = b.times(&d, coefficients[0]);
    value = b.plus(&value, coefficients[1]);
    for c in &coefficients[2..] {
        value = b.binary("Mul", &value, &d);
        value = b.plus(&value, *c);
    }
    value
}
