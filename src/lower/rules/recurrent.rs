//! **What.** LSTM and GRU get the initial states and biases that they leave out; those that run backward, or both ways, become ones that
//! run forward.
//!
//! **Why.** The gradient builder counts inputs by position: without initial_h (and initial_c) it wires the next input there. The kernels
//! of training know the forward direction, the default activations and whole sequences only, and crash unless W and R are both trained.
//!
//! **Equation.** The same operator with zeros, which is what leaving them out means; a frozen W becomes W + 0·Σt for a trained t. Running
//! backward is running forward over the reversed sequence, with the output reversed again; both ways is one of each, side by side.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::Rule;
use crate::lower::rules::unrolled;
use crate::onnx::AttributeProto;
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Site, extent, size, written_out};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule {
        ops: &["LSTM", "GRU"],
        because: "its training kernel has no such form",
        applies: |site| site.on_path() && is_unusual(site),
        rewrite: unrolled::rewrite,
    },
    Rule {
        ops: &["LSTM", "GRU"],
        because: "its training kernel runs forward only",
        applies: |site| site.on_path() && direction(site) != "forward",
        rewrite,
    },
    Rule {
        ops: &["LSTM", "GRU"],
        because: "its training kernel crashes where W or R is frozen",
        applies: |site| site.on_path() && (1..=2).any(|slot| !site.needs_gradient(slot)),
        rewrite,
    },
    Rule {
        ops: &["LSTM", "GRU"],
        because: "its gradient needs the initial states and the bias written out",
        applies: |site| {
            let states = (0..states(site)).map(|k| FIRST_STATE + k);
            site.on_path() && states.chain([BIAS]).any(|slot| site.input(slot).is_none())
        },
        rewrite,
    },
];

/// Input number of B.
const BIAS: usize = 3;

/// Input number of sequence_lens.
const LENGTHS: usize = 4;

/// Input number of initial_h; initial_c follows.
const FIRST_STATE: usize = 5;

/// Input number of an LSTM's peepholes.
const PEEPHOLES: usize = 7;

fn is_lstm(site: &Site) -> bool {
    site.node.op_type() == "LSTM"
}

fn states(site: &Site) -> usize {
    if is_lstm(site) { 2 } else { 1 }
}

/// `forward`, `reverse` or `bidirectional`.
pub fn direction<'a>(site: &Site<'a>) -> &'a str {
    site.node.string("direction").unwrap_or("forward")
}

/// What no kernel of training has: the graph would train something else, or not at all. It is unrolled.
fn is_unusual(site: &Site) -> bool {
    let usual: &[&str] = if is_lstm(site) { &["sigmoid", "tanh", "tanh"] } else { &["sigmoid", "tanh"] };
    let is_usual = |(i, name): (usize, &bytes::Bytes)| name.eq_ignore_ascii_case(usual[i % usual.len()].as_bytes());
    let activations = site.node.attribute("activations");
    site.input(LENGTHS).is_some()
        || site.int("layout", 0) != 0
        || site.node.attribute("clip").is_some()
        || site.int("input_forget", 0) != 0
        || activations.is_some_and(|a| !a.strings.iter().enumerate().all(is_usual))
}

fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let x = site.required(0)?;
    let recurrence = site.required(2)?;
    let directions = size(&recurrence, 0)?;
    let hidden = size(&recurrence, 2)?;
    written_out(extent(directions.saturating_mul(hidden).saturating_mul(8)))?;
    let mut inputs: Vec<Option<Tensor>> = (0..=PEEPHOLES).map(|slot| site.input(slot)).collect();
    for (slot, weight) in inputs.iter_mut().enumerate().take(3).skip(1) {
        if !site.needs_gradient(slot) {
            *weight = Some(touched(site, b, &site.required(slot)?)?);
        }
    }
    if inputs[BIAS].is_none() {
        let gates = if is_lstm(site) { 4 } else { 3 };
        inputs[BIAS] = Some(b.zeros(&x, &[directions, 2 * gates * hidden]));
    }
    for k in 0..states(site) {
        if inputs[FIRST_STATE + k].is_none() {
            inputs[FIRST_STATE + k] = Some(state(b, &x, directions, hidden)?);
        }
    }
    let kept = inputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
    inputs.truncate(kept);
    if direction(site) == "forward" {
        let outputs: Vec<TensorType> = (0..site.outputs()).map(|slot| site.output_type(slot)).collect();
        let made = b.node(site.node.op_type(), &inputs, site.node.attribute.clone(), &outputs);
        return Ok(made.into_iter().map(Made::from).collect());
    }
    let mut each = Vec::new();
    for d in 0..directions {
        each.push(forward(site, b, &inputs, d, directions)?);
    }
    let join = |b: &mut Builder, slot: usize| {
        let parts: Vec<Tensor> = each.iter().map(|outputs| outputs[slot].clone()).collect();
        // Y is [T, directions, B, H]; the last states are [directions, B, H].
        let axis = usize::from(slot == 0);
        if parts.len() == 1 { parts[0].clone() } else { b.concat(&parts, axis) }
    };
    let is_there = |slot: usize| site.node.output.get(slot).is_some_and(|o| !o.is_empty());
    Ok((0..site.outputs()).map(|slot| if is_there(slot) { join(b, slot).into() } else { Made::nothing() }).collect())
}

/// The same values, on the path of a gradient that is 0.
fn touched(site: &Site, b: &mut Builder, frozen: &Tensor) -> Known<Tensor> {
    // Parameters are smaller than sequences.
    let trained = [1, 2, BIAS, FIRST_STATE, FIRST_STATE + 1, 0].into_iter().find(|slot| site.needs_gradient(*slot));
    let trained =
        trained.and_then(|slot| site.input(slot)).ok_or("what it is trained through is none of its inputs")?;
    let sum = b.reduce("ReduceSum", &trained, None, false);
    let nothing = b.times(&sum, 0.0);
    Ok(b.binary("Add", frozen, &nothing))
}

/// One direction as a node that runs forward; its outputs as they were in the direction's own time.
fn forward(site: &Site, b: &mut Builder, inputs: &[Option<Tensor>], d: u64, directions: u64) -> Known<Vec<Tensor>> {
    let is_backward = direction(site) == "reverse" || d == 1;
    let mut own = Vec::new();
    for (slot, input) in inputs.iter().enumerate() {
        own.push(match input {
            Some(x) if slot == 0 && is_backward => Some(reversed(b, x)),
            // What belongs to the directions has them as its first axis.
            Some(each) if slot > 0 && directions > 1 => Some(b.pick(each, 0, &[extent(d)])),
            other => other.clone(),
        });
    }
    let keep = |a: &&AttributeProto| !matches!(a.name(), "direction" | "activations");
    let attributes: Vec<AttributeProto> = site.node.attribute.iter().filter(keep).cloned().collect();
    let of_one = |slot: usize| {
        let mut ty = site.output_type(slot);
        ty.elem = if ty.elem == 0 { DataType::Float as i32 } else { ty.elem };
        if let Some(dim) = ty.dims.as_mut().and_then(|dims| dims.get_mut(usize::from(slot == 0))) {
            *dim = Dim::Known(1);
        }
        ty
    };
    let types: Vec<TensorType> = (0..=states(site)).map(of_one).collect();
    let mut made = b.node(site.node.op_type(), &own, attributes, &types);
    if is_backward {
        made[0] = reversed(b, &made[0].clone());
    }
    Ok(made)
}

/// Longest sequence whose positions are written into the file.
const LONGEST: u64 = 1 << 16;

/// The sequence from its end.
fn reversed(b: &mut Builder, x: &Tensor) -> Tensor {
    if let Some(n) = x.ty.dims.as_ref().and_then(|d| d.first()).and_then(Dim::known).filter(|n| *n <= LONGEST) {
        let positions: Vec<i64> = (0..extent(n)).rev().collect();
        return b.pick(x, 0, &positions);
    }
    let length = b.shape(&[(x, 0).into()]);
    let n = b.squeeze(&length, &[0]);
    // Range counted down would do, but ONNX Runtime makes that and Gather a Slice with another meaning.
    let last = b.plus(&n, -1.0);
    let count = x.ty.dims.as_ref().and_then(|d| d.first()).cloned().unwrap_or_default();
    let ty = TensorType { elem: n.ty.elem, dims: Some(vec![count.clone()]) };
    let range = b.counted(&length, count);
    let positions = b.one("Sub", &[&last, &range], Vec::new(), ty);
    b.one("Gather", &[x, &positions], vec![int("axis", 0)], x.ty.clone())
}

/// Zeros [directions, batch, hidden].
pub fn state(b: &mut Builder, x: &Tensor, directions: u64, hidden: u64) -> Known<Tensor> {
    let batch = x.ty.dims.as_ref().and_then(|d| d.get(1)).cloned().ok_or("the rank of its input is unknown")?;
    match batch {
        Dim::Known(n) => {
            written_out(extent(directions.saturating_mul(n).saturating_mul(hidden)))?;
            Ok(b.zeros(x, &[directions, n, hidden]))
        }
        open => {
            let shape = b.shape(&[extent(directions).into(), (x, 1).into(), extent(hidden).into()]);
            let ty = TensorType { elem: x.ty.elem, dims: Some(vec![Dim::Known(directions), open, Dim::Known(hidden)]) };
            Ok(b.zeros_of(&shape, ty))
        }
    }
}
