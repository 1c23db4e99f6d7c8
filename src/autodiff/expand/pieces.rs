//! Compress, OneHot, CumProd and SwiGLU.

use crate::autodiff::expand::whole;
use crate::graph::Attributes;
use crate::graph::types::Dim;
use crate::lower::registry::Rule;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Refusal, Site, axis, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["Compress"], because: "it is spelt out", applies: |_| true, rewrite: compress },
    Rule { ops: &["OneHot"], because: "it is spelt out", applies: |_| true, rewrite: one_hot },
    Rule { ops: &["CumProd"], because: "it is spelt out", applies: |_| true, rewrite: cumulative_product },
    Rule { ops: &["SwiGLU"], because: "it is spelt out", applies: |_| true, rewrite: gated },
];

/// Gather at the positions where the condition holds.
fn compress(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, condition) = (site.required(0)?, site.required(1)?);
    let flat = [Extent::Fixed(-1)];
    let (x, at) = match site.node.int("axis") {
        Some(at) => (x.clone(), axis(at, rank(&x)?)?),
        None => (b.reshape(&x, &flat), 0),
    };
    let found = b.one("NonZero", &[&condition], Vec::new(), whole(Some(vec![Dim::Known(1), Dim::Unknown])));
    let positions = b.reshape(&found, &flat);
    let mut ty = x.ty.clone();
    if let Some(dim) = ty.dims.as_mut().and_then(|d| d.get_mut(at)) {
        *dim = Dim::Unknown;
    }
    Ok(vec![b.one("Gather", &[&x, &positions], vec![int("axis", at as i64)], ty).into()])
}

/// Ones and zeros, by which `values` are chosen: off + (on − off)·h.
fn one_hot(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (indices, depth, values) = (site.required(0)?, site.required(1)?, site.required(2)?);
    let bits = b.constant("off_on", &values, &[2], &[0.0, 1.0]);
    let ty = crate::graph::types::TensorType { elem: values.ty.elem, ..site.output_type(0) };
    let hits = b.one("OneHot", &[&indices, &depth, &bits], vec![int("axis", site.int("axis", -1))], ty.clone());
    let (off, on) = (b.slice(&values, 0, 0, 1, 1), b.slice(&values, 0, 1, 2, 1));
    let step = b.binary("Sub", &on, &off);
    let scaled = Tensor { ty: ty.clone(), ..b.binary("Mul", &hits, &step) };
    Ok(vec![Tensor { ty, ..b.binary("Add", &scaled, &off) }.into()])
}

/// One product after another along an axis of known length.
fn cumulative_product(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    const LONGEST: i64 = 256;
    let x = site.required(0)?;
    let rank = rank(&x)?;
    let at = match site.integers(1).as_deref() {
        Some([at]) => axis(*at, rank)?,
        _ => return Err("its axis is known only to the running graph".into()),
    };
    let n = extent(size(&x, at)?);
    if n > LONGEST {
        return Err(Refusal(format!("{n} products would have to be written out, and {LONGEST} are the most")));
    }
    let is_reverse = site.int("reverse", 0) != 0;
    let mut order: Vec<i64> = (0..n).collect();
    if is_reverse {
        order.reverse();
    }
    let mut made: Vec<Tensor> = Vec::new();
    for i in order {
        let one = b.slice(&x, at, i, i + 1, 1);
        let next = match made.last() {
            Some(last) => b.binary("Mul", last, &one),
            None => one,
        };
        made.push(next);
    }
    if site.int("exclusive", 0) != 0 && !made.is_empty() {
        made.pop();
        let first = b.slice(&x, at, 0, 1, 1);
        let zero = b.times(&first, 0.0);
        made.insert(0, b.plus(&zero, 1.0));
    }
    if is_reverse {
        made.reverse();
    }
    let y = if made.len() == 1 { made.remove(0) } else { b.concat(&made, at) };
    Ok(vec![y.into()])
}

/// a·σ(αa)·b.
fn gated(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (gate, value) = (site.required(0)?, site.required(1)?);
    let scaled = b.times(&gate, site.float("alpha", 1.0));
    let open = b.unary("Sigmoid", &scaled);
    let bent = b.binary("Mul", &gate, &open);
    Ok(vec![b.binary("Mul", &bent, &value).into()])
}
