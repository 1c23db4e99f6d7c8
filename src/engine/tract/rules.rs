//! What tract lacks, or computes less exactly than training needs, in operators that it has.

use crate::graph::Attributes;
use crate::graph::types::TensorType;
use crate::lower::rules::normalise::by_channel;
use crate::lower::{Rule, registry};
use crate::regularizer::emit::{Elem, Tensor, int};
use crate::rewrite::builder::{Builder, Extent, Made};
use crate::rewrite::site::{Known, Site, axis, rank, rank_from};

const RULES: &[Rule] = &[
    Rule {
        ops: &["BatchNormalization"],
        because: "tract has it with constant statistics and parameters alone",
        applies: |_| true,
        rewrite: batch_normalization,
    },
    Rule {
        ops: &["SoftmaxCrossEntropyLoss"],
        because: "tract has no such operator",
        applies: |_| true,
        rewrite: cross_entropy,
    },
    Rule {
        ops: &["LogSoftmax"],
        because: "tract takes the logarithm of the softmax, which is -inf where that underflows",
        applies: |_| true,
        rewrite: log_softmax,
    },
    Rule {
        ops: &["Relu"],
        because: "tract makes 0 of NaN, so that a step that went wrong would not be seen",
        applies: |_| true,
        rewrite: relu,
    },
    Rule {
        ops: &["ReduceSum", "ReduceMean"],
        because: "tract adds up long rows one number after another, which loses digits",
        applies: |site| summed_as_one(site).is_some(),
        rewrite: sum,
    },
    Rule { ops: &["MaxUnpool"], because: "tract has no such operator", applies: |_| true, rewrite: max_unpool },
];

/// Operators that lowering spells out for another pipeline in a way that suits tract too. (tract divides Celu by α once too often.)
const LOWERED: &[&str] = &["Celu", "LpPool", "NegativeLogLikelihoodLoss", "Upsample"];

/// The rule that a node needs.
pub fn rule(site: &Site) -> Option<&'static Rule> {
    let op = site.node.op_type();
    if !matches!(site.node.domain(), "" | "ai.onnx") {
        return None;
    }
    let lowered = || registry::all().filter(|_| LOWERED.contains(&op));
    let applies = |rule: &&Rule| rule.ops.contains(&op) && (LOWERED.contains(&op) || (rule.applies)(site));
    RULES.iter().chain(lowered()).find(applies)
}

/// y = (x − mean)/√(var + ε)·scale + bias for each channel. In training mode mean and var are those of the batch, and the running ones become
/// running·momentum + batch·(1 − momentum); var is the mean of squares.
fn batch_normalization(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, scale, bias) = (site.required(0)?, site.required(1)?, site.required(2)?);
    let (running_mean, running_variance) = (site.required(3)?, site.required(4)?);
    let rank = rank_from(&x, 2)?;
    let behind: Vec<usize> = (1..rank - 1).collect();
    // Before operator set 14 the number of outputs says it.
    let trains = if site.opset() >= 14 { site.int("training_mode", 0) != 0 } else { site.outputs() > 1 };
    let epsilon = site.float("epsilon", 1e-5);
    let (centred, variance, statistics) = if trains {
        let axes: Vec<i64> = (0..rank as i64).filter(|i| *i != 1).collect();
        let mean = b.reduce("ReduceMean", &x, Some(&axes), true);
        let centred = b.binary("Sub", &x, &mean);
        let square = b.binary("Mul", &centred, &centred);
        let variance = b.reduce("ReduceMean", &square, Some(&axes), false);
        let gone: Vec<usize> = (0..rank).filter(|i| *i != 1).collect();
        let mean = b.squeeze(&mean, &gone);
        (centred, variance.clone(), Some([(running_mean, mean), (running_variance, variance)]))
    } else {
        let mean = b.unsqueeze(&running_mean, &behind);
        (b.binary("Sub", &x, &mean), running_variance, None)
    };
    let sum = b.plus(&variance, epsilon);
    let deviation = b.unary("Sqrt", &sum);
    let gain = b.binary("Div", &scale, &deviation);
    let mut made = vec![Made::from(by_channel(b, &centred, rank, &gain, &bias))];
    let momentum = site.float("momentum", 0.9);
    for (running, batch) in statistics.iter().flatten().filter(|_| site.outputs() > 1) {
        let kept = b.times(running, momentum);
        let moved = b.times(batch, 1.0 - momentum);
        made.push(b.binary("Add", &kept, &moved).into());
    }
    // The saved statistics of operator sets before 14 are for a gradient that is not made of them here.
    for slot in made.len()..site.outputs() {
        if site.is_read(slot) {
            return Err("its saved statistics are read".into());
        }
        made.push(Made::nothing());
    }
    Ok(made)
}

/// NegativeLogLikelihoodLoss of LogSoftmax along the classes.
fn cross_entropy(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (scores, labels) = (site.required(0)?, site.required(1)?);
    rank_from(&scores, 2)?;
    let log_probabilities = log_softmax_along(b, &scores, 1);
    let inputs = [Some(log_probabilities.clone()), Some(labels), site.input(2)];
    let inputs = if inputs[2].is_some() { &inputs[..] } else { &inputs[..2] };
    let loss = b.node("NegativeLogLikelihoodLoss", inputs, site.node.attribute.clone(), &[site.output_type(0)]);
    let mut made: Vec<Made> = loss.into_iter().map(Made::from).collect();
    made.push(log_probabilities.into());
    made.truncate(site.outputs());
    Ok(made)
}

fn log_softmax(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let rank = rank(&x)?;
    let flattens = site.opset() < 13;
    let axis = axis(site.node.int("axis").unwrap_or(if flattens { 1 } else { -1 }), rank)?;
    // Before operator set 13 the axes from there on are one.
    if flattens && axis + 1 != rank {
        let flat = b.one("Flatten", &[&x], vec![int("axis", axis as i64)], TensorType { dims: None, ..x.ty.clone() });
        let made = log_softmax_along(b, &flat, 1);
        let ty = TensorType { elem: Elem::I64.onnx(), dims: None };
        let shape = b.one("Shape", &[&x], Vec::new(), ty);
        return Ok(vec![b.one("Reshape", &[&made, &shape], Vec::new(), x.ty.clone()).into()]);
    }
    Ok(vec![log_softmax_along(b, &x, axis).into()])
}

/// z − ln Σ exp z with z = x − max x: neither overflows nor gives −∞ where a probability underflows.
fn log_softmax_along(b: &mut Builder, x: &Tensor, axis: usize) -> Tensor {
    let axes = [axis as i64];
    let greatest = b.reduce("ReduceMax", x, Some(&axes), true);
    let z = b.binary("Sub", x, &greatest);
    let exponential = b.unary("Exp", &z);
    let sum = b.reduce("ReduceSum", &exponential, Some(&axes), true);
    let log = b.unary("Log", &sum);
    Tensor { ty: x.ty.clone(), ..b.binary("Sub", &z, &log) }
}

/// 0 where x < 0, else x: NaN stays what it is.
fn relu(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let zero = b.number(0.0, &x);
    let is_negative = b.compare("Less", &x, &zero);
    let made = b.choose(&is_negative, &zero, &x);
    Ok(vec![Tensor { ty: x.ty, ..made }.into()])
}

/// Longest row that tract's kernel adds up by itself, and how long the rows are that a longer one is cut into.
const ROW: i64 = 128;
const PART: i64 = 32;

/// Where a sum runs over the last axes, and over many numbers or more axes than one: the sizes of the axes before them, and how many numbers.
fn summed_as_one(site: &Site) -> Option<(Vec<i64>, i64)> {
    let dims = site.input(0)?.ty.dims?;
    let sizes: Vec<i64> = dims.iter().map(|d| i64::try_from(d.known()?).ok()).collect::<Option<_>>()?;
    let asked = site.attribute_or_input("axes", 1).ok()?.filter(|axes| !axes.is_empty());
    let axes = match asked {
        Some(axes) => axes,
        None if site.int("noop_with_empty_axes", 0) == 0 => (0..sizes.len() as i64).collect(),
        None => return None,
    };
    let axes: Vec<usize> = axes.iter().map(|a| axis(*a, sizes.len()).ok()).collect::<Option<_>>()?;
    let first = axes.iter().copied().min()?;
    let is_tail = (first..sizes.len()).all(|i| axes.contains(&i));
    let length = sizes.get(first..)?.iter().try_fold(1i64, |n, d| n.checked_mul(*d))?;
    let is_plain = sizes.len() == first + 1 && length <= ROW;
    (is_tail && !is_plain && length > 0).then(|| (sizes[..first].to_vec(), length))
}

/// The same sum, made of sums of short rows.
fn sum(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let Some((before, length)) = summed_as_one(site) else { return Err("its axes are not the last ones".into()) };
    let axis = before.len();
    let shaped = |b: &mut Builder, x: &Tensor, behind: &[i64]| {
        let extents: Vec<Extent> = before.iter().chain(behind).map(|n| Extent::Fixed(*n)).collect();
        b.reshape(x, &extents)
    };
    let mut row = shaped(b, &x, &[length]);
    let mut left = length;
    while left > ROW {
        let (parts, rest) = (left / PART, left % PART);
        let whole = b.slice(&row, axis, 0, parts * PART, 1);
        let whole = shaped(b, &whole, &[parts, PART]);
        let mut sums = b.reduce("ReduceSum", &whole, Some(&[axis as i64 + 1]), false);
        if rest > 0 {
            let rest = b.slice(&row, axis, parts * PART, left, 1);
            sums = b.concat(&[sums, rest], axis);
        }
        (row, left) = (sums, parts + rest);
    }
    let mut made = b.reduce("ReduceSum", &row, Some(&[axis as i64]), false);
    if site.node.op_type() == "ReduceMean" {
        made = b.divided(&made, length as f64);
    }
    if site.int("keepdims", 1) != 0 {
        let ones = vec![1; rank(&x)? - axis];
        made = shaped(b, &made, &ones);
    }
    Ok(vec![Tensor { ty: site.output_type(0), ..made }.into()])
}

/// Every value at the place that its index counts over the whole result; zeros elsewhere.
fn max_unpool(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let (x, indices) = (site.required(0)?, site.required(1)?);
    let Some(shape) = site.input(2) else {
        return Err("the shape of its result is not given".into());
    };
    let flat = |b: &mut Builder, t: &Tensor| b.reshape(t, &[Extent::Fixed(-1)]);
    let zeros = b.zeros_of(&shape, TensorType { dims: None, ..x.ty.clone() });
    let (zeros, indices, values) = (flat(b, &zeros), flat(b, &indices), flat(b, &x));
    let ty = TensorType { dims: None, ..x.ty };
    let filled = b.one("ScatterElements", &[&zeros, &indices, &values], vec![int("axis", 0)], ty.clone());
    Ok(vec![b.one("Reshape", &[&filled, &shape], Vec::new(), site.output_type(0)).into()])
}
