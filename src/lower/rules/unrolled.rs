//! **What.** RNN over a sequence of fixed length; and the LSTM and GRU with `sequence_lens`, `clip`, `input_forget` or other activations.
//!
//! **Why.** No gradient of RNN is registered, and the kernels of training know whole sequences and the default cells only.
//!
//! **Equation.** Unrolled, with the products xₜ·Wᵀ of all steps made at once. Where t is behind a sequence's end, the state stays what it
//! is and the output is 0: run backward, the state then is the initial one until the sequence begins. Of an empty sequence ONNX Runtime's
//! last state is 0, not the initial one. `clip` bounds what goes into an
//! activation, but for the cell state of an LSTM on its way to the output: so has it ONNX Runtime.

use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::registry::{Rule, on_path};
use crate::lower::rules::recurrent::{direction, state};
use crate::onnx::tensor_proto::DataType;
use crate::regularizer::emit::{Tensor, int, ints};
use crate::rewrite::builder::{Builder, Made};
use crate::rewrite::site::{Known, Refusal, Site, extent, rank, size};

/// Rules of this module.
pub const RULES: &[Rule] =
    &[Rule { ops: &["RNN"], because: "no gradient of it is registered", applies: on_path, rewrite }];

/// Longest sequence: every step becomes three nodes of an RNN, and some twenty of an LSTM.
const LONGEST: u64 = 1024;

/// Which cell.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Lstm,
    Gru,
}

/// One direction's cell.
struct Cell {
    kind: Kind,
    hidden: i64,
    /// Activations f, g, h.
    activations: Vec<&'static str>,
    clip: Option<f64>,
    /// The forget gate of an LSTM is 1 less the input gate.
    is_coupled: bool,
    /// The reset gate of a GRU comes after the product with R.
    resets_late: bool,
    /// Rᵀ: [H, gates·H].
    recurrence: Tensor,
    /// The part of a GRU's bias that belongs to h·Rᵀ of the candidate.
    late_bias: Option<Tensor>,
    /// P of the gates i, o, f.
    peepholes: Option<[Tensor; 3]>,
}

/// What one step hands on: h and, of an LSTM, c.
type State = (Tensor, Option<Tensor>);

/// Every form that unrolling covers; `site` is an RNN, LSTM or GRU.
pub fn rewrite(site: &Site, b: &mut Builder) -> Known<Vec<Made>> {
    let kind = match site.node.op_type() {
        "LSTM" => Kind::Lstm,
        "GRU" => Kind::Gru,
        _ => Kind::Rnn,
    };
    let x = site.required(0)?;
    if rank(&x)? != 3 {
        return Err("its input is no [T, B, I]".into());
    }
    // In layout 1 the batch comes first, everywhere.
    let is_batch_first = site.int("layout", 0) != 0;
    let turned = |b: &mut Builder, t: Tensor| if is_batch_first { b.transpose(&t, &[1, 0, 2]) } else { t };
    let x = turned(b, x);
    let recurrence = site.required(2)?;
    let (directions, hidden) = (size(&recurrence, 0)?, size(&recurrence, 2)?);
    if !(1..=2).contains(&directions) {
        return Err("it has more than two directions".into());
    }
    let steps = size(&x, 0)?;
    if steps == 0 || steps > LONGEST {
        return Err(Refusal(format!("it has {steps} steps, and 1 to {LONGEST} can be unrolled")));
    }
    let masks = masks(site, b, steps);
    let mut all = Vec::new();
    let mut last: [Vec<Tensor>; 2] = Default::default();
    for d in 0..directions {
        let (cell, projected) = cell(site, b, kind, &x, d, directions)?;
        let initial = |b: &mut Builder, slot: usize| match site.input(slot) {
            Some(each) => {
                let each = turned(b, each);
                Ok(if directions > 1 { b.pick(&each, 0, &[extent(d)]) } else { each })
            }
            None => state(b, &x, 1, hidden),
        };
        let begin = match kind {
            Kind::Lstm => Some((initial(b, 5)?, Some(initial(b, 6)?))),
            // Without a state the first step has no product with R, unless a sequence may be empty.
            Kind::Rnn if masks.is_none() && site.input(5).is_none() => None,
            _ => Some((initial(b, 5)?, None)),
        };
        let is_backward = direction(site) == "reverse" || d == 1;
        let (outputs, (h, c)) = unrolled(b, &cell, &projected, begin, masks.as_deref(), steps, is_backward);
        // The gradient builder wants one of every part of a Split, and the last output gate does not reach c.
        let alone = site.is_read(2) && !site.is_read(0) && !site.is_read(1);
        last[1].extend(c.map(|c| if alone { kept_alive(b, &c, &h) } else { c }));
        last[0].push(h);
        let sequence = b.concat(&outputs, 0);
        all.push(b.unsqueeze(&sequence, &[1]));
    }
    let joined = |b: &mut Builder, parts: &[Tensor], axis: usize| {
        if let [one] = parts { one.clone() } else { b.concat(parts, axis) }
    };
    let is_there = |slot: usize| site.node.output.get(slot).is_some_and(|o| !o.is_empty());
    let mut made = Vec::new();
    made.push(if is_there(0) {
        let sequence = joined(b, &all, 1);
        if is_batch_first { b.transpose(&sequence, &[2, 0, 1, 3]).into() } else { sequence.into() }
    } else {
        Made::nothing()
    });
    for (k, parts) in last.iter().enumerate().take(site.outputs().saturating_sub(1)) {
        made.push(if is_there(k + 1) {
            let end = joined(b, parts, 0);
            turned(b, end).into()
        } else {
            Made::nothing()
        });
    }
    Ok(made)
}

/// x + 0·y: x, and a gradient that is 0 for y.
fn kept_alive(b: &mut Builder, x: &Tensor, y: &Tensor) -> Tensor {
    let nothing = b.times(y, 0.0);
    b.binary("Add", x, &nothing)
}

/// Whether each step is before the end of each sequence, [1, B, 1]; `None` where all are whole.
fn masks(site: &Site, b: &mut Builder, steps: u64) -> Option<Vec<Tensor>> {
    let lengths = site.input(4)?;
    let lengths = b.cast(&lengths, DataType::Int64 as i32);
    let lengths = b.unsqueeze(&lengths, &[0, 2]);
    let is_before_end = |t: u64| {
        let t = b.integers(&[extent(t)]);
        b.compare("Greater", &lengths, &t)
    };
    Some((0..steps).map(is_before_end).collect())
}

/// The cell of one direction, and x·Wᵀ with the biases, [T, B, gates·H].
fn cell(site: &Site, b: &mut Builder, kind: Kind, x: &Tensor, d: u64, directions: u64) -> Known<(Cell, Tensor)> {
    let hidden = extent(size(&site.required(2)?, 2)?);
    let gates = match kind {
        Kind::Rnn => 1,
        Kind::Lstm => 4,
        Kind::Gru => 3,
    };
    let own = |b: &mut Builder, each: &Tensor| {
        let one = if directions > 1 { b.pick(each, 0, &[extent(d)]) } else { each.clone() };
        b.squeeze(&one, &[0])
    };
    let (weight, recurrence) = (own(b, &site.required(1)?), own(b, &site.required(2)?));
    let (weight, recurrence) = (b.transpose(&weight, &[1, 0]), b.transpose(&recurrence, &[1, 0]));
    let mut projected = b.matmul(x, &weight);
    let resets_late = kind == Kind::Gru && site.int("linear_before_reset", 0) != 0;
    let mut late_bias = None;
    if let Some(bias) = site.input(3) {
        let bias = own(b, &bias);
        let size = gates * hidden;
        let (of_w, mut of_r) = (b.slice(&bias, 0, 0, size, 1), b.slice(&bias, 0, size, 2 * size, 1));
        if resets_late {
            late_bias = Some(b.slice(&of_r, 0, 2 * hidden, size, 1));
            let early = b.slice(&of_r, 0, 0, 2 * hidden, 1);
            of_r = b.pad(&early, &[0, hidden], None);
        }
        let sum = b.binary("Add", &of_w, &of_r);
        projected = b.binary("Add", &projected, &sum);
    }
    let peepholes = site.input(7).filter(|_| kind == Kind::Lstm).map(|p| {
        let p = own(b, &p);
        [0, 1, 2].map(|k| b.slice(&p, 0, k * hidden, (k + 1) * hidden, 1))
    });
    let cell = Cell {
        kind,
        hidden,
        activations: activations(site, kind, d)?,
        clip: site.node.float("clip").map(f64::from).filter(|c| *c > 0.0),
        is_coupled: kind == Kind::Lstm && site.int("input_forget", 0) != 0,
        resets_late,
        recurrence,
        late_bias,
        peepholes,
    };
    Ok((cell, projected))
}

/// f, g, h of one direction.
fn activations(site: &Site, kind: Kind, d: u64) -> Known<Vec<&'static str>> {
    let usual: &[&'static str] = match kind {
        Kind::Rnn => &["Tanh"],
        Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        Kind::Gru => &["Sigmoid", "Tanh"],
    };
    let given = site.node.attribute("activations").map(|a| a.strings.as_slice()).unwrap_or_default();
    let first = usize::try_from(d).unwrap_or_default() * usual.len();
    let named =
        |(k, usual): (usize, &&'static str)| match given.get(first + k).map(|s| s.to_ascii_lowercase()).as_deref() {
            None => Ok(*usual),
            Some(b"tanh") => Ok("Tanh"),
            Some(b"relu") => Ok("Relu"),
            Some(b"sigmoid") => Ok("Sigmoid"),
            Some(_) => Err(Refusal("its activation is none of Tanh, Relu and Sigmoid".into())),
        };
    usual.iter().enumerate().map(named).collect()
}

/// The outputs [1, B, H] of all steps, in the order of the sequence, and the state after the last.
fn unrolled(
    b: &mut Builder,
    cell: &Cell,
    projected: &Tensor,
    begin: Option<State>,
    masks: Option<&[Tensor]>,
    steps: u64,
    is_backward: bool,
) -> (Vec<Tensor>, State) {
    let mut ty = projected.ty.clone();
    if let Some(first) = ty.dims.as_mut().and_then(|d| d.first_mut()) {
        *first = Dim::Known(1);
    }
    let types: Vec<TensorType> = (0..steps).map(|_| ty.clone()).collect();
    let inputs = if steps == 1 { vec![projected.clone()] } else { b.split(projected, 0, &types) };
    let order: Vec<usize> = if is_backward { (0..inputs.len()).rev().collect() } else { (0..inputs.len()).collect() };
    let mut outputs = inputs.clone();
    let mut state = begin;
    for t in order {
        let mut next = cell.step(b, &inputs[t], state.as_ref());
        outputs[t] = next.0.clone();
        if let (Some(masks), Some((h, c))) = (masks, &state) {
            let nothing = b.number(0.0, &next.0);
            outputs[t] = b.choose(&masks[t], &next.0, &nothing);
            next.0 = b.choose(&masks[t], &next.0, h);
            next.1 = next.1.zip(c.as_ref()).map(|(new, old)| b.choose(&masks[t], &new, old));
        }
        state = Some(next);
    }
    let (mut h, mut c) = state.unwrap_or_else(|| (projected.clone(), None));
    if let Some(is_any) = masks.and_then(<[Tensor]>::first) {
        let nothing = b.number(0.0, &h);
        h = b.choose(is_any, &h, &nothing);
        c = c.map(|c| b.choose(is_any, &c, &nothing));
    }
    (outputs, (h, c))
}

impl Cell {
    fn step(&self, b: &mut Builder, x: &Tensor, before: Option<&State>) -> State {
        match (self.kind, before) {
            (Kind::Lstm, Some((h, Some(c)))) => self.lstm(b, x, h, c),
            (Kind::Gru, Some((h, _))) => (self.gru(b, x, h), None),
            (_, Some((h, _))) => {
                let carried = self.carried(b, h, x);
                let sum = b.binary("Add", x, &carried);
                (self.activated(b, 0, &sum), None)
            }
            (_, None) => (self.activated(b, 0, x), None),
        }
    }

    /// h·Rᵀ.
    fn carried(&self, b: &mut Builder, h: &Tensor, x: &Tensor) -> Tensor {
        b.one("MatMul", &[h, &self.recurrence], Vec::new(), x.ty.clone())
    }

    fn activated(&self, b: &mut Builder, which: usize, x: &Tensor) -> Tensor {
        let x = match self.clip {
            Some(clip) => {
                let (least, most) = (b.number(-clip, x), b.number(clip, x));
                b.one("Clip", &[x, &least, &most], Vec::new(), x.ty.clone())
            }
            None => x.clone(),
        };
        b.unary(self.activations[which], &x)
    }

    /// [1, B, gates·H] to one tensor for each gate.
    fn gates(&self, b: &mut Builder, all: &Tensor, count: usize) -> Vec<Tensor> {
        let mut ty = all.ty.clone();
        if let Some(last) = ty.dims.as_mut().and_then(|d| d.last_mut()) {
            *last = Dim::Known(u64::try_from(self.hidden).unwrap_or_default());
        }
        let lengths = vec![self.hidden; count];
        let mut attributes = vec![int("axis", 2)];
        let mut inputs = vec![Some(all.clone())];
        // The lengths became an input with operator set 13.
        if b.opset() < 13 {
            attributes.push(ints("split", &lengths));
        } else {
            inputs.push(Some(b.integers(&lengths)));
        }
        b.node("Split", &inputs, attributes, &vec![ty; count])
    }

    /// i = f(…), f = f(…) or 1 − i, c = f·c + i·g(…), o = f(…), h = o·h(c); the peepholes of i and f look at the old c, that of o at the new.
    fn lstm(&self, b: &mut Builder, x: &Tensor, h: &Tensor, c: &Tensor) -> State {
        let carried = self.carried(b, h, x);
        let sum = b.binary("Add", x, &carried);
        let [mut input, mut output, mut forget, candidate] = <[Tensor; 4]>::try_from(self.gates(b, &sum, 4))
            .unwrap_or_else(|_| [sum.clone(), sum.clone(), sum.clone(), sum.clone()]);
        let look = |b: &mut Builder, gate: &Tensor, k: usize, c: &Tensor| match &self.peepholes {
            Some(p) => {
                let seen = b.binary("Mul", &p[k], c);
                b.binary("Add", gate, &seen)
            }
            None => gate.clone(),
        };
        input = look(b, &input, 0, c);
        let input = self.activated(b, 0, &input);
        let forget = if self.is_coupled {
            let one = b.number(1.0, &input);
            let rest = b.binary("Sub", &one, &input);
            kept_alive(b, &rest, &forget)
        } else {
            forget = look(b, &forget, 2, c);
            self.activated(b, 0, &forget)
        };
        let candidate = self.activated(b, 1, &candidate);
        let (kept, added) = (b.binary("Mul", &forget, c), b.binary("Mul", &input, &candidate));
        let c = b.binary("Add", &kept, &added);
        output = look(b, &output, 1, &c);
        let output = self.activated(b, 0, &output);
        let shown = b.unary(self.activations[2], &c);
        (b.binary("Mul", &output, &shown), Some(c))
    }

    /// z, r = f(…), n = g(x + (r·h)·Rᵀ) or g(x + r·(h·Rᵀ + b)), h = (1 − z)·n + z·h.
    fn gru(&self, b: &mut Builder, x: &Tensor, h: &Tensor) -> Tensor {
        let hidden = self.hidden;
        let part = |b: &mut Builder, t: &Tensor, axis: usize, late: bool| {
            let (start, end) = if late { (2 * hidden, 3 * hidden) } else { (0, 2 * hidden) };
            b.slice(t, axis, start, end, 1)
        };
        let (early_r, late_r) = (part(b, &self.recurrence, 1, false), part(b, &self.recurrence, 1, true));
        let (early_x, late_x) = (part(b, x, 2, false), part(b, x, 2, true));
        let carried = b.one("MatMul", &[h, &early_r], Vec::new(), early_x.ty.clone());
        let sum = b.binary("Add", &early_x, &carried);
        let gates = self.activated(b, 0, &sum);
        let gates = self.gates(b, &gates, 2);
        let (update, reset) = (&gates[0], &gates[1]);
        let candidate = if self.resets_late {
            let mut carried = b.one("MatMul", &[h, &late_r], Vec::new(), late_x.ty.clone());
            if let Some(bias) = &self.late_bias {
                carried = b.binary("Add", &carried, bias);
            }
            b.binary("Mul", reset, &carried)
        } else {
            let left = b.binary("Mul", reset, h);
            b.one("MatMul", &[&left, &late_r], Vec::new(), late_x.ty.clone())
        };
        let sum = b.binary("Add", &late_x, &candidate);
        let candidate = self.activated(b, 1, &sum);
        let one = b.number(1.0, update);
        let share = b.binary("Sub", &one, update);
        let (new, old) = (b.binary("Mul", &share, &candidate), b.binary("Mul", update, h));
        b.binary("Add", &new, &old)
    }
}
