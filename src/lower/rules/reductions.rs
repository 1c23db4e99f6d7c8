//! **What.** ReduceMax, ReduceMin, ReduceL1, ReduceSumSquare, ReduceLogSum, ReduceProd; and ReduceL2 and ReduceLogSumExp that drop axes
//! before operator set 18.
//!
//! **Why.** No gradient of the first ones is registered. That of the last two writes an Unsqueeze of the wrong operator set.
//!
//! **Equation.** Over the reduced axes: Max = Σ x·m/Σ m with the mask m = (x = Max), where the gradient builder stops, so that equal maxima
//! share the gradient; L1 = Σ|x|; SumSquare = Σx²; LogSum = ln Σx; Prod by halving the axis, which is right where factors are 0.

use crate::graph::types::Dim;
use crate::lower::registry::{Rule, on_path};
use crate::regularizer::emit::Tensor;
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{self, Known, Refusal, Site, extent, rank};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["ReduceMax", "ReduceMin", "ReduceL1", "ReduceSumSquare", "ReduceLogSum", "ReduceProd"],
        because: "no gradient of it is registered",
        applies: on_path,
        rewrite,
    },
    Rule {
        ops: &["ReduceL2", "ReduceLogSumExp"],
        because: "its gradient is invalid where it drops axes",
        applies: |site| on_path(site) && site.int("keepdims", 1) == 0 && site.input(1).is_none(),
        rewrite: dropping,
    },
];

/// The axes, counted from the front; all of them where none are given.
fn axes(site: &Site, x: &Tensor) -> Known<Option<Vec<i64>>> {
    let given = site.attribute_or_input("axes", 1)?.filter(|axes| !axes.is_empty());
    let Some(given) = given else {
        return if site.int("noop_with_empty_axes", 0) != 0 { Ok(Some(Vec::new())) } else { Ok(None) };
    };
    let rank = rank(x)?;
    let from_front = given.iter().map(|a| site::axis(*a, rank).map(|a| a as i64));
    Ok(Some(from_front.collect::<Known<Vec<i64>>>()?))
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let axes = axes(site, &x)?;
    let keep = site.int("keepdims", 1) != 0;
    if axes.as_ref().is_some_and(Vec::is_empty) {
        return Err("it reduces no axis".into());
    }
    let axes = axes.as_deref();
    let made = match site.node.op_type() {
        "ReduceL1" => {
            let magnitude = b.unary("Abs", &x);
            b.reduce("ReduceSum", &magnitude, axes, keep)
        }
        "ReduceSumSquare" => {
            let square = b.binary("Mul", &x, &x);
            b.reduce("ReduceSum", &square, axes, keep)
        }
        "ReduceLogSum" => {
            let sum = b.reduce("ReduceSum", &x, axes, keep);
            b.unary("Log", &sum)
        }
        "ReduceProd" => product(b, &x, axes, keep)?,
        op => extremum(b, &x, op, axes, keep),
    };
    Ok(vec![made.into()])
}

/// Σ x·m/Σ m.
pub fn extremum(b: &mut Builder, x: &Tensor, op: &str, axes: Option<&[i64]>, keep: bool) -> Tensor {
    let most = b.reduce(op, x, axes, true);
    let mask = b.equal(x, &most);
    let zero = b.number(0.0, x);
    let only = b.choose(&mask, x, &zero);
    let sum = b.reduce("ReduceSum", &only, axes, keep);
    let ones = b.indicator(&mask, x);
    let count = b.reduce("ReduceSum", &ones, axes, keep);
    b.binary("Div", &sum, &count)
}

/// The product of 2n numbers is that of the n products of each with its partner in the other half.
fn product(b: &mut Builder, x: &Tensor, axes: Option<&[i64]>, keep: bool) -> Known<Tensor> {
    let dims = x.ty.dims.clone().ok_or_else(|| Refusal(format!("the rank of {:?} is unknown", x.name)))?;
    let reduced = |i: usize| axes.is_none_or(|axes| axes.contains(&(i as i64)));
    let (kept, gone): (Vec<usize>, Vec<usize>) = (0..dims.len()).partition(|i| !reduced(*i));
    let length = gone.iter().try_fold(1u64, |n, i| n.checked_mul(site::size(x, *i).ok()?));
    let mut n = length.filter(|n| *n > 0).ok_or("the number of its factors is known only to the running graph")?;
    let perm: Vec<usize> = kept.iter().chain(&gone).copied().collect();
    let mut factors = b.transpose(x, &perm);
    let last = kept.len();
    let extents: Vec<Extent> = kept.iter().map(|i| (x, *i).into()).chain([extent(n).into()]).collect();
    factors = b.reshape(&factors, &extents);
    while n > 1 {
        let half = extent(n / 2);
        let (first, second) = (b.slice(&factors, last, 0, half, 1), b.slice(&factors, last, half, 2 * half, 1));
        let mut next = b.binary("Mul", &first, &second);
        if n % 2 == 1 {
            let odd = b.slice(&factors, last, 2 * half, extent(n), 1);
            next = b.concat(&[next, odd], last);
        }
        n = n.div_ceil(2);
        factors = next;
    }
    let shape: Vec<Extent> = (0..dims.len())
        .filter(|i| keep || !reduced(*i))
        .map(|i| if reduced(i) { 1.into() } else { (x, i).into() })
        .collect();
    Ok(b.reshape(&factors, &shape))
}

fn dropping(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let axes = axes(site, &x)?;
    let rank = rank(&x)?;
    let kept = b.reduce(site.node.op_type(), &x, axes.as_deref(), true);
    let gone: Vec<usize> = match &axes {
        Some(axes) => axes.iter().filter_map(|a| usize::try_from(*a).ok()).collect(),
        None => (0..rank).collect(),
    };
    let mut sorted = gone;
    sorted.sort_unstable();
    let kept = Tensor {
        ty: crate::graph::types::TensorType { dims: kept.ty.dims.or(Some(vec![Dim::Known(1); rank])), ..kept.ty },
        ..kept
    };
    Ok(vec![b.squeeze(&kept, &sorted).into()])
}
