//! LSTM, on the way back through time.
//!
//! With gates i, o, f, c̃ of the pre-activations z = x·Wᵀ + h₋·Rᵀ + b, c = f·c₋ + i·c̃ and h = o·tanh c (₋ is the step before):
//!
//!   dh = g + dh₊, dc = dh·o(1 − tanh²c) + dc₊,
//!   dz = (dc·c̃·i(1 − i), dh·tanh c·o(1 − o), dc·c₋·f(1 − f), dc·i(1 − c̃²)),
//!   dc₋ = dc·f, dh₋ = dz·R, ∂W = Σ dzᵀ·x, ∂R = Σ dzᵀ·h₋, ∂b = Σ dz, ∂x = dz·W.
//!
//! Y holds every h, so all gates come from one product over all steps. Two Scans remain: c forwards, which is elementwise, and dh, dc
//! backwards with the one product that has to wait. What does not depend on them is computed for all steps at once.

use crate::autodiff::adjoint::Adjoint;
use crate::autodiff::rule::Rule;
use crate::autodiff::shape::zeros_like;
use crate::graph::Attributes;
use crate::graph::types::{Dim, TensorType};
use crate::lower::builder::{Builder, Extent};
use crate::lower::site::{Known, Refusal, extent, size};
use crate::onnx::{AttributeProto, GraphProto, NodeProto, TypeProto, ValueInfoProto, attribute_proto, type_proto};
use crate::regularizer::emit::{Tensor, int, ints};

/// Rules of this module.
pub const RULES: &[Rule] = &[Rule { ops: &["LSTM"], adjoint: lstm }];

/// What the rule does not know, in words.
fn unknown_form(a: &Adjoint<'_, '_>) -> Option<&'static str> {
    let node = a.site.node;
    let are_usual = |given: &AttributeProto| {
        let names = given.strings.iter().map(|s| s.to_ascii_lowercase());
        names.zip(["sigmoid", "tanh", "tanh"].iter().cycle()).all(|(name, usual)| name == usual.as_bytes())
    };
    if node.attribute("activations").is_some_and(|given| !are_usual(given)) {
        return Some("it has activations of its own");
    }
    if node.float("clip").is_some_and(|clip| clip != 0.0) {
        return Some("it clips");
    }
    if node.int("input_forget").is_some_and(|v| v != 0) {
        return Some("its input and forget gates are coupled");
    }
    if node.int("layout").is_some_and(|v| v != 0) {
        return Some("its batch axis comes first");
    }
    if a.site.input(4).is_some() {
        return Some("its sequences have lengths of their own");
    }
    a.site.input(7).map(|_| "it has peepholes")
}

fn lstm(a: &mut Adjoint<'_, '_>) -> Known<()> {
    if let Some(form) = unknown_form(a) {
        return Err(Refusal(format!("{form}, and the gradient of that is not known yet")));
    }
    let (x, w, r) = (a.x(0)?, a.x(1)?, a.x(2)?);
    let hidden = extent(size(&r, 2)?);
    let directions = match a.site.node.string("direction").unwrap_or("forward") {
        "bidirectional" => vec![false, true],
        "reverse" => vec![true],
        _ => vec![false],
    };
    let dims = x.ty.dims.clone().filter(|d| d.len() == 3).ok_or("the rank of its input is unknown")?;
    let y_dims =
        vec![dims[0].clone(), Dim::Known(directions.len() as u64), dims[1].clone(), Dim::Known(hidden.unsigned_abs())];
    let y = a.y_of_type(0, TensorType { elem: x.ty.elem, dims: Some(y_dims) });
    let g = if a.has_g(0) { Some(a.g(0)?) } else { None };
    let last = [1, 2].map(|slot| a.has_g(slot).then_some(slot));
    let last = [last[0].map(|s| a.g(s)).transpose()?, last[1].map(|s| a.g(s)).transpose()?];
    let starts = [a.site.input(5), a.site.input(6)];
    let bias = a.site.input(3);

    let mut found: Vec<Direction> = Vec::new();
    for (d, is_reverse) in directions.iter().copied().enumerate() {
        // [T, N, …] of this direction, in its own order of time.
        let own = |b: &mut Builder, t: &Tensor| {
            let one = pick(b, t, 1, d, directions.len());
            if is_reverse { flipped(b, &one) } else { one }
        };
        let input = if is_reverse { flipped(a.b, &x) } else { x.clone() };
        let states = own(a.b, &y);
        let g = g.as_ref().map(|g| own(a.b, g));
        let [w, r] = [&w, &r].map(|t| pick(a.b, t, 0, d, directions.len()));
        let bias = bias.as_ref().map(|t| pick(a.b, t, 0, d, directions.len()));
        let ends = [&last[0], &last[1]].map(|t| t.as_ref().map(|t| pick(a.b, t, 0, d, directions.len())));
        let starts = [&starts[0], &starts[1]].map(|t| t.as_ref().map(|t| pick(a.b, t, 0, d, directions.len())));
        let operands = Operands { input, states, g, w, r, bias, ends, starts, hidden };
        let mut own = back(a, &operands, d)?;
        if is_reverse {
            own.x = flipped(a.b, &own.x);
        }
        found.push(own);
    }
    if a.wants(0) {
        let mut dx = found[0].x.clone();
        for other in &found[1..] {
            dx = a.b.binary("Add", &dx, &other.x);
        }
        a.give(0, Tensor { ty: x.ty, ..dx });
    }
    let part: [(usize, fn(&Direction) -> &Tensor); 5] =
        [(1, |d| &d.w), (2, |d| &d.r), (3, |d| &d.bias), (5, |d| &d.start_h), (6, |d| &d.start_c)];
    for (slot, of) in part {
        if a.wants(slot) {
            let each: Vec<Tensor> = found.iter().map(|d| a.b.unsqueeze(of(d), &[0])).collect();
            let joined = if each.len() == 1 { each[0].clone() } else { a.b.concat(&each, 0) };
            let ty = a.x(slot)?.ty;
            a.give(slot, Tensor { ty, ..joined });
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

/// What one direction reads; time is the first axis and runs forwards.
struct Operands {
    input: Tensor,
    states: Tensor,
    g: Option<Tensor>,
    w: Tensor,
    r: Tensor,
    bias: Option<Tensor>,
    ends: [Option<Tensor>; 2],
    starts: [Option<Tensor>; 2],
    hidden: i64,
}

/// The gradients of one direction.
struct Direction {
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor,
    start_h: Tensor,
    start_c: Tensor,
}

fn back(a: &mut Adjoint<'_, '_>, of: &Operands, d: usize) -> Known<Direction> {
    let prefix = format!("{}scan_{d}/", a.prefix);
    let b = &mut *a.b;
    let h = of.hidden;
    let elem = of.input.ty.elem;
    let width = |n: i64| Dim::Known(n.unsigned_abs());
    let steps = of.input.ty.dims.clone().unwrap_or_default();
    let (time, batch) = (steps.first().cloned().unwrap_or_default(), steps.get(1).cloned().unwrap_or_default());
    let wide = |n: i64| TensorType { elem, dims: Some(vec![time.clone(), batch.clone(), width(n)]) };
    let one_step = TensorType { elem, dims: Some(vec![batch.clone(), width(h)]) };

    // States of zeros where none are given: [N, H].
    let first = b.slice(&of.states, 0, 0, 1, 1);
    let first = b.squeeze(&first, &[0]);
    let zeros = zeros_like(b, &Tensor { ty: one_step.clone(), ..first });
    let [start_h, start_c] = [&of.starts[0], &of.starts[1]].map(|s| s.clone().unwrap_or_else(|| zeros.clone()));
    let [end_h, end_c] = [&of.ends[0], &of.ends[1]].map(|s| s.clone().unwrap_or_else(|| zeros.clone()));
    let g = of.g.clone().unwrap_or_else(|| zeros_like(b, &Tensor { ty: wide(h), ..of.states.clone() }));

    // h of the step before, and all gates.
    let earlier = b.slice(&of.states, 0, 0, -1, 1);
    let initial = b.unsqueeze(&start_h, &[0]);
    let before = b.concat(&[initial, earlier], 0);
    let before = Tensor { ty: wide(h), ..before };
    let (w_t, r_t) = (b.transpose(&of.w, &[1, 0]), b.transpose(&of.r, &[1, 0]));
    let (from_x, from_h) = (b.matmul(&of.input, &w_t), b.matmul(&before, &r_t));
    let mut z = b.binary("Add", &from_x, &from_h);
    if let Some(bias) = &of.bias {
        let (input, recurrent) = (b.slice(bias, 0, 0, 4 * h, 1), b.slice(bias, 0, 4 * h, 8 * h, 1));
        let both = b.binary("Add", &input, &recurrent);
        z = b.binary("Add", &z, &both);
    }
    let three = b.slice(&z, 2, 0, 3 * h, 1);
    let last = b.slice(&z, 2, 3 * h, 4 * h, 1);
    let (open, candidate) = (b.unary("Sigmoid", &three), b.unary("Tanh", &last));
    let gate = |b: &mut Builder, k: i64| Tensor { ty: wide(h), ..b.slice(&open, 2, k * h, (k + 1) * h, 1) };
    let (i, o, f) = (gate(b, 0), gate(b, 1), gate(b, 2));
    let candidate = Tensor { ty: wide(h), ..candidate };

    // c of every step.
    let added = b.binary("Mul", &i, &candidate);
    let mut body = Body::new(&prefix, "cell", elem);
    let [kept, f_in, added_in] = ["c", "f", "added"].map(|name| body.input(name));
    let product = body.node("Mul", &[&kept, &f_in]);
    let c = body.node("Add", &[&product, &added_in]);
    let out = body.node("Identity", &[&c]);
    let scan = body.scan(&[&c, &out], 2, false);
    let made =
        b.node("Scan", &[Some(start_c.clone()), Some(f.clone()), Some(added)], scan, &[one_step.clone(), wide(h)]);
    let cells = made[1].clone();
    let earlier = b.slice(&cells, 0, 0, -1, 1);
    let initial = b.unsqueeze(&start_c, &[0]);
    let cells_before = b.concat(&[initial, earlier], 0);

    // What the way back multiplies with.
    let squashed = b.unary("Tanh", &cells);
    let one = b.number(1.0, &i);
    let rest = |b: &mut Builder, t: &Tensor| b.binary("Sub", &one, t);
    let slope = |b: &mut Builder, s: &Tensor| {
        let rest = b.binary("Sub", &one, s);
        b.binary("Mul", s, &rest)
    };
    let square = b.binary("Mul", &squashed, &squashed);
    let bent = rest(b, &square);
    let through = b.binary("Mul", &o, &bent);
    let square = b.binary("Mul", &candidate, &candidate);
    let bent = rest(b, &square);
    let factors =
        [(slope(b, &i), candidate.clone()), (slope(b, &o), squashed), (slope(b, &f), cells_before), (i.clone(), bent)]
            .map(|(p, q)| b.binary("Mul", &p, &q));
    let factors = b.concat(&factors, 2);

    let mut body = Body::new(&prefix, "back", elem);
    let [dh_next, dc_next, g_in, through_in, factors_in, f_in] =
        ["dh_next", "dc_next", "g", "through", "factors", "f"].map(|name| body.input(name));
    let dh = body.node("Add", &[&g_in, &dh_next]);
    let bent = body.node("Mul", &[&dh, &through_in]);
    let dc = body.node("Add", &[&bent, &dc_next]);
    let four = body.with("Concat", &[&dc, &dh, &dc, &dc], vec![int("axis", 1)]);
    let dz = body.node("Mul", &[&four, &factors_in]);
    let dh_before = body.node("MatMul", &[&dz, &of.r.name]);
    let dc_before = body.node("Mul", &[&dc, &f_in]);
    let scan = body.scan(&[&dh_before, &dc_before, &dz], 4, true);
    let inputs = [end_h, end_c, g, through, factors, f].map(Some);
    let made = b.node("Scan", &inputs, scan, &[one_step.clone(), one_step, wide(4 * h)]);
    let dz = made[2].clone();

    let flat = |b: &mut Builder, t: &Tensor, n: i64| b.reshape(t, &[Extent::Fixed(-1), Extent::Fixed(n)]);
    let (rows, states) = (flat(b, &dz, 4 * h), flat(b, &before, h));
    let columns = extent(size(&of.w, 1)?);
    let inputs = flat(b, &of.input, columns);
    let product = |b: &mut Builder, right: &Tensor, n: i64| {
        let ty = TensorType { elem, dims: Some(vec![width(4 * h), width(n)]) };
        b.one("Gemm", &[&rows, right], vec![int("transA", 1)], ty)
    };
    let (dw, dr) = (product(b, &inputs, columns), product(b, &states, h));
    let sum = b.reduce("ReduceSum", &rows, Some(&[0]), false);
    let bias = b.concat(&[sum.clone(), sum], 0);
    let dx = b.matmul(&dz, &of.w);
    Ok(Direction { x: dx, w: dw, r: dr, bias, start_h: made[0].clone(), start_c: made[1].clone() })
}

/// The body of a Scan.
struct Body {
    prefix: String,
    elem: i32,
    graph: GraphProto,
}

impl Body {
    fn new(prefix: &str, name: &str, elem: i32) -> Self {
        let prefix = format!("{prefix}{name}/");
        Body { graph: GraphProto { name: Some(name.into()), ..GraphProto::default() }, prefix, elem }
    }

    fn declared(&self, name: &str) -> ValueInfoProto {
        let tensor = type_proto::Tensor { elem_type: Some(self.elem), ..Default::default() };
        let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty), ..ValueInfoProto::default() }
    }

    fn input(&mut self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.graph.input.push(self.declared(&name));
        name
    }

    fn node(&mut self, op: &str, inputs: &[&String]) -> String {
        self.with(op, inputs, Vec::new())
    }

    fn with(&mut self, op: &str, inputs: &[&String], attribute: Vec<AttributeProto>) -> String {
        let name = format!("{}{}_{}", self.prefix, op.to_ascii_lowercase(), self.graph.node.len());
        self.graph.node.push(NodeProto {
            name: Some(name.clone()),
            op_type: Some(op.into()),
            input: inputs.iter().map(|i| (*i).clone()).collect(),
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// The attributes of a Scan over `scanned` inputs, whose states and results are `outputs`.
    fn scan(mut self, outputs: &[&String], scanned: i64, is_backwards: bool) -> Vec<AttributeProto> {
        self.graph.output = outputs.iter().map(|o| self.declared(o)).collect();
        let mut attributes = vec![
            AttributeProto {
                name: Some("body".into()),
                r#type: Some(attribute_proto::AttributeType::Graph as i32),
                g: Some(Box::new(self.graph)),
                ..AttributeProto::default()
            },
            int("num_scan_inputs", scanned),
        ];
        if is_backwards {
            let all = vec![1; usize::try_from(scanned).unwrap_or_default()];
            attributes.push(ints("scan_input_directions", &all));
            attributes.push(ints("scan_output_directions", &[1]));
        }
        attributes
    }
}
