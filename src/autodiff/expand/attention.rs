//! Attention, as ONNX's specification writes it: Y = softmax(scale·Q·Kᵀ + bias)·V.
//!
//! Heads become an axis where they lie in the last one; keys and values of the past are put in front; a head of keys that several heads of
//! queries share is repeated. Scores are capped (c·tanh(s/c)), then masks add 0 or −∞: the mask given, causality and a sliding window
//! (by the position of a query, which is its own behind those of the past), and the padding of each sample. A row that may attend to nothing
//! is 0.

use crate::autodiff::expand::range;
use crate::graph::Attributes;
use crate::graph::types::Dim;
use crate::lower::registry::Rule;
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule { ops: &["Attention"], because: "it is spelt out", applies: |_| true, rewrite }];

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (q, k, v) = (site.required(0)?, site.required(1)?, site.required(2)?);
    let has_heads_apart = rank(&q)? == 4;
    let [q, k, v] = [(&q, "q_num_heads"), (&k, "kv_num_heads"), (&v, "kv_num_heads")]
        .map(|(x, name)| if has_heads_apart { Ok(x.clone()) } else { heads(b, x, site.node.int(name).unwrap_or(0)) });
    let (q, k, v) = (q?, k?, v?);
    let past = site.input(4);
    let joined = |b: &mut Builder, past: Option<Tensor>, new: Tensor| match past {
        Some(past) => b.concat(&[past, new], 2),
        None => new,
    };
    let (k, v) = (joined(b, past.clone(), k), joined(b, site.input(5), v));
    let (present_k, present_v) = (k.clone(), v.clone());

    let (queries, keys) = (size(&q, 1)?, size(&k, 1)?);
    if keys == 0 || queries % keys != 0 {
        return Err(Refusal(format!("{queries} heads of queries do not share {keys} heads of keys evenly")));
    }
    let (k, v) = (repeated(b, &k, queries / keys), repeated(b, &v, queries / keys));
    let scale = match site.node.float("scale") {
        Some(scale) => f64::from(scale),
        None => 1.0 / (size(&q, 3)? as f64).sqrt(),
    };
    let scaled = b.times(&q, scale);
    let turned = b.transpose(&k, &[0, 1, 3, 2]);
    let mut scores = b.matmul(&scaled, &turned);
    if let (Some(Dim::Known(_)), Some(dims)) = (q.ty.dims.as_ref().and_then(|d| d.first()), scores.ty.dims.as_mut()) {
        dims[..2].clone_from_slice(&q.ty.dims.as_ref().ok_or("its rank is unknown")?[..2]);
    }
    let products = scores.clone();
    let cap = site.float("softcap", 0.0);
    if cap > 0.0 {
        let share = b.divided(&scores, cap);
        let bent = b.unary("Tanh", &share);
        scores = b.times(&bent, cap);
    }
    let capped = scores.clone();
    let masks = masks(site, b, &q, &k, past.as_ref())?;
    for mask in &masks {
        let ty = scores.ty.clone();
        scores = Tensor { ty, ..b.binary("Add", &scores, mask) };
    }
    let biased = scores.clone();
    let probabilities = softmax(site, b, &scores, !masks.is_empty());
    let y = b.matmul(&probabilities, &v);
    let y = if has_heads_apart {
        y
    } else {
        let back = b.transpose(&y, &[0, 2, 1, 3]);
        let width = size(&v, 3).map(|n| Extent::Fixed(extent(n * queries))).unwrap_or(Extent::Fixed(-1));
        b.reshape(&back, &[(&q, 0).into(), (&q, 2).into(), width])
    };
    let shown = match site.int("qk_matmul_output_mode", 0) {
        0 if cap > 0.0 => products,
        0 | 1 => capped,
        2 => biased,
        _ => probabilities,
    };
    Ok([y, present_k, present_v, shown].into_iter().take(site.node.output.len()).map(Made::from).collect())
}

/// [B, S, n·H] → [B, n, S, H].
fn heads(b: &mut Builder, x: &Tensor, n: i64) -> Known<Tensor> {
    let width = extent(size(x, 2)?);
    if n < 1 || width % n != 0 {
        return Err(Refusal(format!("{n} heads do not share the width {width} evenly")));
    }
    let apart = b.reshape(x, &[(x, 0).into(), (x, 1).into(), n.into(), (width / n).into()]);
    Ok(b.transpose(&apart, &[0, 2, 1, 3]))
}

/// Every head r times, one after another.
fn repeated(b: &mut Builder, x: &Tensor, r: u64) -> Tensor {
    if r == 1 {
        return x.clone();
    }
    let apart = b.unsqueeze(x, &[2]);
    let heads = x.ty.dims.as_ref().and_then(|d| d.get(1)).and_then(Dim::known).unwrap_or_default();
    let times: Vec<i64> = [1, 1, extent(r), 1, 1].to_vec();
    let times = b.integers(&times);
    let mut ty = apart.ty.clone();
    if let Some(dim) = ty.dims.as_mut().and_then(|d| d.get_mut(2)) {
        *dim = Dim::Known(r);
    }
    let all = b.one("Tile", &[&apart, &times], Vec::new(), ty);
    b.reshape(&all, &[(x, 0).into(), extent(heads * r).into(), (x, 2).into(), (x, 3).into()])
}

/// 0 where a condition holds, −∞ elsewhere.
fn bias(b: &mut Builder, holds: &Tensor, like: &Tensor) -> Tensor {
    let (zero, infinite) = (b.number(0.0, like), b.number(f64::NEG_INFINITY, like));
    b.choose(holds, &zero, &infinite)
}

/// What is added to the scores.
fn masks(site: &Site, b: &mut Builder, q: &Tensor, k: &Tensor, past: Option<&Tensor>) -> Known<Vec<Tensor>> {
    let mut masks = Vec::new();
    if let Some(mask) = site.input(3) {
        let mut mask = if mask.ty.elem == DataType::Bool as i32 { bias(b, &mask, q) } else { mask };
        let rank = rank(&mask)?;
        let missing = extent(size(k, 2).unwrap_or_default()) - extent(size(&mask, rank - 1).unwrap_or_default());
        let last = mask.ty.dims.as_ref().and_then(|d| d.last()).and_then(Dim::known);
        if last.is_some_and(|n| n != 1) && missing > 0 && size(k, 2).is_ok() {
            let mut pads = vec![0; 2 * rank];
            pads[2 * rank - 1] = missing;
            let infinite = b.number(f64::NEG_INFINITY, &mask);
            mask = b.pad(&mask, &pads, Some(&infinite));
        }
        masks.push(mask);
    }
    let (left, right) = (site.int("left_window_size", -1), site.int("right_window_size", -1));
    let is_causal = site.int("is_causal", 0) != 0;
    let lengths = site.input(6).map(|t| {
        let t = b.cast(&t, crate::regularizer::emit::Elem::I64.onnx());
        b.reshape(&t, &[Extent::Fixed(-1), Extent::Fixed(1), Extent::Fixed(1), Extent::Fixed(1)])
    });
    if !is_causal && left < 0 && right < 0 && lengths.is_none() {
        return Ok(masks);
    }
    let columns = range(b, &(k, 2).into());
    if is_causal || left >= 0 || right >= 0 {
        let rows = range(b, &(q, 2).into());
        let mut rows = b.unsqueeze(&rows, &[1]);
        match (past, &lengths) {
            (Some(past), _) => {
                let before = b.shape(&[(past, 2).into()]);
                rows = b.binary("Add", &rows, &before);
            }
            (None, Some(lengths)) => {
                let own = b.shape(&[(q, 2).into()]);
                let before = b.binary("Sub", lengths, &own);
                rows = b.binary("Add", &rows, &before);
            }
            _ => {}
        }
        // A query sees keys up to its own position, and those of a window around it.
        let mut bounds = Vec::new();
        bounds.extend(is_causal.then_some(("LessOrEqual", 0)));
        bounds.extend((left >= 0).then_some(("GreaterOrEqual", -left)));
        bounds.extend((right >= 0).then_some(("LessOrEqual", right)));
        for (op, shift) in bounds {
            let bound = b.plus(&rows, shift as f64);
            let holds = b.compare(op, &columns, &bound);
            masks.push(bias(b, &holds, q));
        }
    }
    if let Some(lengths) = lengths {
        let holds = b.compare("Less", &columns, &lengths);
        masks.push(bias(b, &holds, q));
    }
    Ok(masks)
}

/// Over the last axis; 0 for rows of −∞ alone.
fn softmax(site: &Site, b: &mut Builder, scores: &Tensor, may_be_empty: bool) -> Tensor {
    let precision = i32::try_from(site.int("softmax_precision", 0)).unwrap_or_default();
    let normal = |b: &mut Builder, x: &Tensor| {
        let wide = if precision == 0 { x.clone() } else { b.cast(x, precision) };
        let made = b.one("Softmax", &[&wide], vec![int("axis", -1)], wide.ty.clone());
        b.cast(&made, x.ty.elem)
    };
    if !may_be_empty {
        return normal(b, scores);
    }
    let most = b.reduce("ReduceMax", scores, Some(&[3]), true);
    let (zero, infinite) = (b.number(0.0, scores), b.number(f64::NEG_INFINITY, scores));
    let is_empty = b.compare("Equal", &most, &infinite);
    let safe = Tensor { ty: scores.ty.clone(), ..b.choose(&is_empty, &zero, scores) };
    let made = normal(b, &safe);
    Tensor { ty: scores.ty.clone(), ..b.choose(&is_empty, &zero, &made) }
}
