//! Recurrent networks, on the way back through time.
//!
//! Y holds every state h, so all gates of all steps come from a few products at once, and so do the gradients of weights and inputs. What
//! remains for a Scan is what has to wait for the step behind it. Each file has the equations of one cell; ₋ is the step before, ₊ the one
//! behind.

mod body;
mod gru;
mod lstm;
mod rnn;

use body::Body;

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::{in_shape_of, zeros_like};
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::onnx::AttributeProto;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::{Builder, Extent};
use crate::rewrite::site::{Known, Site, extent, size};

/// Rules of this module.
pub const RULES: &[Rule] = &[
    Rule { ops: &["LSTM"], adjoint: |a| recurrent(a, lstm::back) },
    Rule { ops: &["GRU"], adjoint: |a| recurrent(a, gru::back) },
    Rule { ops: &["RNN"], adjoint: |a| recurrent(a, rnn::back) },
];

/// Whether the rules know this form. With lengths, clipping, peepholes or activations of its own a layer is unrolled instead.
pub fn is_known_form(site: &Site) -> bool {
    let node = site.node;
    let usual: &[&str] = match node.op_type() {
        "LSTM" => &["sigmoid", "tanh", "tanh"],
        "GRU" => &["sigmoid", "tanh"],
        _ => &["tanh"],
    };
    let are_usual = |given: &AttributeProto| {
        let names = given.strings.iter().map(|s| s.to_ascii_lowercase());
        names.zip(usual.iter().cycle()).all(|(name, usual)| name == usual.as_bytes())
    };
    node.attribute("activations").is_none_or(are_usual)
        && node.float("clip").is_none_or(|clip| clip == 0.0)
        && ["input_forget", "layout"].iter().all(|name| node.int(name).unwrap_or(0) == 0)
        && [4, 7].iter().all(|slot| site.input(*slot).is_none())
}

/// What one direction reads; time is the first axis and runs forwards.
struct Operands {
    /// X, [T, N, I].
    input: Tensor,
    /// h of every step, [T, N, H].
    states: Tensor,
    /// Cotangent of the states.
    g: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Option<Tensor>,
    /// Cotangents of the last h and c, [N, H]; zeros where nothing reads them.
    ends: [Tensor; 2],
    /// The first h and c.
    starts: [Tensor; 2],
    /// h of the step before, [T, N, H].
    before: Tensor,
    hidden: i64,
    /// Starts the names in bodies of Scan.
    prefix: String,
}

/// The gradients of one direction.
struct Direction {
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor,
    start_h: Tensor,
    /// LSTM alone.
    start_c: Option<Tensor>,
}

impl Operands {
    /// [T, N, n] of the same element type.
    fn wide(&self, n: i64) -> TensorType {
        let mut ty = self.input.ty.clone();
        if let Some(last) = ty.dims.as_mut().and_then(|d| d.last_mut()) {
            *last = Dim::Known(n.unsigned_abs());
        }
        ty
    }

    /// [N, H].
    fn one_step(&self) -> TensorType {
        step_type(&self.input, self.hidden)
    }

    /// x·Wᵀ + h₋·Rᵀ and both biases, for the gates from `from` to `to`: [T, N, (to − from)·H].
    fn gates(&self, b: &mut Builder, from: i64, to: i64, all: i64) -> Tensor {
        let (x, h) = (self.of_input(b, from, to, all), self.of_state(b, &self.before, from, to, all));
        Tensor { ty: self.wide((to - from) * self.hidden), ..b.binary("Add", &x, &h) }
    }

    /// x·Wᵀ + b_W for some gates.
    fn of_input(&self, b: &mut Builder, from: i64, to: i64, all: i64) -> Tensor {
        let w = self.part(b, &self.w, from, to, all);
        let w = b.transpose(&w, &[1, 0]);
        let product = b.matmul(&self.input, &w);
        self.with_bias(b, product, from, to)
    }

    /// h·Rᵀ + b_R for some gates.
    fn of_state(&self, b: &mut Builder, h: &Tensor, from: i64, to: i64, all: i64) -> Tensor {
        let r = self.part(b, &self.r, from, to, all);
        let r = b.transpose(&r, &[1, 0]);
        let product = b.matmul(h, &r);
        self.with_bias(b, product, all + from, all + to)
    }

    fn with_bias(&self, b: &mut Builder, product: Tensor, from: i64, to: i64) -> Tensor {
        let Some(bias) = &self.bias else { return product };
        let part = b.slice(bias, 0, from * self.hidden, to * self.hidden, 1);
        b.binary("Add", &product, &part)
    }

    /// Rows of some gates.
    fn part(&self, b: &mut Builder, t: &Tensor, from: i64, to: i64, all: i64) -> Tensor {
        if (from, to) == (0, all) { t.clone() } else { b.slice(t, 0, from * self.hidden, to * self.hidden, 1) }
    }

    /// One gate of several: [T, N, H].
    fn gate(&self, b: &mut Builder, gates: &Tensor, k: i64) -> Tensor {
        Tensor { ty: self.wide(self.hidden), ..b.slice(gates, 2, k * self.hidden, (k + 1) * self.hidden, 1) }
    }
}

fn step_type(x: &Tensor, hidden: i64) -> TensorType {
    let batch = x.ty.dims.as_ref().and_then(|d| d.get(1)).cloned().unwrap_or_default();
    TensorType { elem: x.ty.elem, dims: Some(vec![batch, Dim::Known(hidden.unsigned_abs())]) }
}

/// All rows below one another: [T, N, n] → [T·N, n].
fn rows(b: &mut Builder, t: &Tensor, n: i64) -> Tensor {
    b.reshape(t, &[Extent::Fixed(-1), Extent::Fixed(n)])
}

/// Σ over steps and samples of dzᵀ·t, both as rows.
fn summed_product(b: &mut Builder, dz: &Tensor, t: &Tensor) -> Tensor {
    let last = |t: &Tensor| t.ty.dims.as_ref().and_then(|d| d.last()).cloned().unwrap_or_default();
    let (dz, t) = (&b.widened(dz), &b.widened(t));
    let ty = TensorType { elem: t.ty.elem, dims: Some(vec![last(dz), last(t)]) };
    b.gemm(dz, t, vec![int("transA", 1)], ty)
}

/// Σ over rows.
fn summed(b: &mut Builder, t: &Tensor) -> Tensor {
    let wide = b.widened(t);
    b.reduce("ReduceSum", &wide, Some(&[0]), false)
}

/// 1 − t.
fn rest(b: &mut Builder, t: &Tensor) -> Tensor {
    let one = b.number(1.0, t);
    Tensor { ty: t.ty.clone(), ..b.binary("Sub", &one, t) }
}

/// s(1 − s), the slope of the logistic function.
fn logistic_slope(b: &mut Builder, s: &Tensor) -> Tensor {
    let rest = rest(b, s);
    b.binary("Mul", s, &rest)
}

/// 1 − t², the slope of tanh.
fn tanh_slope(b: &mut Builder, t: &Tensor) -> Tensor {
    let square = b.binary("Mul", t, t);
    rest(b, &square)
}

fn recurrent(a: &mut Adjoint<'_, '_>, back: fn(&mut Adjoint<'_, '_>, &Operands) -> Known<Direction>) -> Known<()> {
    let (x, w, r) = (a.x(0)?, a.x(1)?, a.x(2)?);
    let hidden = extent(size(&r, 2)?);
    let directions = match a.site.node.string("direction").unwrap_or("forward") {
        "bidirectional" => vec![false, true],
        "reverse" => vec![true],
        _ => vec![false],
    };
    let n = directions.len();
    let dims = x.ty.dims.clone().filter(|d| d.len() == 3).ok_or("the rank of its input is unknown")?;
    let y_dims = vec![dims[0].clone(), Dim::Known(n as u64), dims[1].clone(), Dim::Known(hidden.unsigned_abs())];
    let y = a.y_of_type(0, TensorType { elem: x.ty.elem, dims: Some(y_dims) });
    let mut cotangents = Vec::new();
    for slot in 0..3 {
        cotangents.push(if a.has_g(slot) { Some(a.g(slot)?) } else { None });
    }
    let starts = [a.site.input(5), a.site.input(6)];
    let bias = a.site.input(3);
    let mut found: Vec<Direction> = Vec::new();
    for (d, is_reverse) in directions.iter().copied().enumerate() {
        let b = &mut *a.b;
        // [T, N, …] of this direction, in its own order of time.
        let own = |b: &mut Builder, t: &Tensor| {
            let one = pick(b, t, 1, d, n);
            if is_reverse { flipped(b, &one) } else { one }
        };
        let input = if is_reverse { flipped(b, &x) } else { x.clone() };
        let states = own(b, &y);
        let first = b.slice(&states, 0, 0, 1, 1);
        let first = b.squeeze(&first, &[0]);
        let zeros = zeros_like(b, &Tensor { ty: step_type(&x, hidden), ..first });
        let g = match &cotangents[0] {
            Some(g) => own(b, g),
            None => zeros_like(b, &states),
        };
        let mut one = |t: &Option<Tensor>| t.as_ref().map_or_else(|| zeros.clone(), |t| pick(b, t, 0, d, n));
        let ends = [one(&cotangents[1]), one(&cotangents[2])];
        let starts = [one(&starts[0]), one(&starts[1])];
        let [w, r] = [&w, &r].map(|t| pick(b, t, 0, d, n));
        let bias = bias.as_ref().map(|t| pick(b, t, 0, d, n));
        let earlier = b.slice(&states, 0, 0, -1, 1);
        let initial = b.unsqueeze(&starts[0], &[0]);
        let before = b.concat(&[initial, earlier], 0);
        let before = Tensor { ty: states.ty.clone(), ..before };
        let prefix = format!("{}scan_{d}/", a.prefix);
        let operands = Operands { input, states, g, w, r, bias, ends, starts, before, hidden, prefix };
        let mut own = back(a, &operands)?;
        if is_reverse {
            own.x = flipped(a.b, &own.x);
        }
        found.push(own);
    }
    give(a, &x, &found)
}

fn give(a: &mut Adjoint<'_, '_>, x: &Tensor, found: &[Direction]) -> Known<()> {
    if a.wants(0) {
        let mut dx = found[0].x.clone();
        for other in &found[1..] {
            dx = a.b.binary("Add", &dx, &other.x);
        }
        a.give(0, Tensor { ty: x.ty.clone(), ..dx });
    }
    type Part = fn(&Direction) -> Option<&Tensor>;
    let part: [(usize, Part); 5] = [
        (1, |d| Some(&d.w)),
        (2, |d| Some(&d.r)),
        (3, |d| Some(&d.bias)),
        (5, |d| Some(&d.start_h)),
        (6, |d| d.start_c.as_ref()),
    ];
    for (slot, of) in part {
        if a.wants(slot) {
            let each: Vec<Tensor> = found.iter().filter_map(of).map(|t| a.b.unsqueeze(t, &[0])).collect();
            let joined = if each.len() == 1 { each[0].clone() } else { a.b.concat(&each, 0) };
            let x = a.x(slot)?;
            a.give(slot, in_shape_of(joined, &x));
        }
    }
    Ok(())
}

/// One direction's part along an axis, which goes.
fn pick(b: &mut Builder, t: &Tensor, axis: usize, d: usize, of: usize) -> Tensor {
    let part = if of == 1 { t.clone() } else { b.slice(t, axis, d as i64, d as i64 + 1, 1) };
    b.squeeze(&part, &[axis])
}

/// With its first axis backwards.
fn flipped(b: &mut Builder, t: &Tensor) -> Tensor {
    let [starts, ends, axes, steps] = [-1, i64::MIN + 1, 0, -1].map(|n| b.integers(&[n]));
    b.one("Slice", &[t, &starts, &ends, &axes, &steps], Vec::new(), t.ty.clone())
}
