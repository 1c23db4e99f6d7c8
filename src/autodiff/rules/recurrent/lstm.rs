//! LSTM: with gates i, o, f, c̃ of z = x·Wᵀ + h₋·Rᵀ + b, c = f·c₋ + i·c̃ and h = o·tanh c:
//!
//!   dh = g + dh₊, dc = dh·o(1 − tanh²c) + dc₊,
//!   dz = (dc·c̃·i(1 − i), dh·tanh c·o(1 − o), dc·c₋·f(1 − f), dc·i(1 − c̃²)),
//!   dc₋ = dc·f, dh₋ = dz·R, ∂W = Σ dzᵀ·x, ∂R = Σ dzᵀ·h₋, ∂b = Σ dz, ∂x = dz·W.
//!
//! c is no output, so a first Scan, which is elementwise, makes it again.

use super::{Body, Direction, Operands, logistic_slope, rows, summed, summed_product, tanh_slope};
use crate::autodiff::adjoint::Adjoint;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::Builder;
use crate::rewrite::site::{Known, extent, size};

pub fn back(a: &mut Adjoint<'_, '_>, of: &Operands) -> Known<Direction> {
    let b = &mut *a.b;
    let (h, elem) = (of.hidden, of.input.ty.elem);
    let z = of.gates(b, 0, 4, 4);
    let three = b.slice(&z, 2, 0, 3 * h, 1);
    let open = b.unary("Sigmoid", &three);
    let last = of.gate(b, &z, 3);
    let candidate = b.unary("Tanh", &last);
    let [i, o, f] = [0, 1, 2].map(|k| of.gate(b, &open, k));

    let added = b.binary("Mul", &i, &candidate);
    let mut body = Body::new(&of.prefix, "cell", elem);
    let [kept, f_in, added_in] = ["c", "f", "added"].map(|name| body.input(name));
    let product = body.node("Mul", &[&kept, &f_in]);
    let c = body.node("Add", &[&product, &added_in]);
    let out = body.node("Identity", &[&c]);
    let scan = body.scan(&[&c, &out], 2, false);
    let inputs = [of.starts[1].clone(), f.clone(), added].map(Some);
    let cells = b.node("Scan", &inputs, scan, &[of.one_step(), of.wide(h)])[1].clone();
    let earlier = b.slice(&cells, 0, 0, -1, 1);
    let initial = b.unsqueeze(&of.starts[1], &[0]);
    let before = b.concat(&[initial, earlier], 0);
    let before = Tensor { ty: of.wide(h), ..before };

    // What the way back multiplies with.
    let squashed = b.unary("Tanh", &cells);
    let bent = tanh_slope(b, &squashed);
    let through = b.binary("Mul", &o, &bent);
    let factor = |b: &mut Builder, gate: &Tensor, with: &Tensor| {
        let slope = logistic_slope(b, gate);
        b.binary("Mul", &slope, with)
    };
    let bent = tanh_slope(b, &candidate);
    let factors =
        [factor(b, &i, &candidate), factor(b, &o, &squashed), factor(b, &f, &before), b.binary("Mul", &i, &bent)];
    let factors = b.concat(&factors, 2);

    let mut body = Body::new(&of.prefix, "back", elem);
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
    let [end_h, end_c] = of.ends.clone();
    let inputs = [end_h, end_c, of.g.clone(), through, factors, f].map(Some);
    let made = b.node("Scan", &inputs, scan, &[of.one_step(), of.one_step(), of.wide(4 * h)]);
    let [start_h, start_c, dz] = [0, 1, 2].map(|k: usize| made[k].clone());

    let columns = extent(size(&of.w, 1)?);
    let (flat, x, before) = (rows(b, &dz, 4 * h), rows(b, &of.input, columns), rows(b, &of.before, h));
    let (w, r) = (summed_product(b, &flat, &x), summed_product(b, &flat, &before));
    let sum = summed(b, &flat);
    let bias = b.concat(&[sum.clone(), sum], 0);
    Ok(Direction { x: b.matmul(&dz, &of.w), w, r, bias, start_h, start_c: Some(start_c) })
}
