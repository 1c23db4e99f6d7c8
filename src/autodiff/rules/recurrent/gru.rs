//! GRU: with gates z, r = σ(x·Wᵀ + h₋·Rᵀ + b), h = (1 − z)·n + z·h₋ and, by `linear_before_reset`,
//! n = tanh(x·W_nᵀ + b_W + r·u), u = h₋·R_nᵀ + b_R, or n = tanh(x·W_nᵀ + b_W + (r·h₋)·R_nᵀ + b_R):
//!
//!   dh = g + dh₊, dn = dh·(1 − z)(1 − n²), dz = dh·(h₋ − n)·z(1 − z),
//!   before:  dr = dn·u·r(1 − r), du = dn·r, dh₋ = dh·z + (dz, dr, du)·R,
//!   after:   t = dn·R_n, dr = t·h₋·r(1 − r), dh₋ = dh·z + (dz, dr)·R_zr + t·r.

use super::{Body, Direction, Operands, logistic_slope, rest, rows, summed, summed_product, tanh_slope};
use crate::autodiff::adjoint::Adjoint;
use crate::regularizer::emit::{Tensor, int};
use crate::rewrite::builder::Builder;
use crate::rewrite::site::{Known, extent, size};

pub fn back(a: &mut Adjoint<'_, '_>, of: &Operands) -> Known<Direction> {
    let is_linear_first = a.site.int("linear_before_reset", 0) != 0;
    let b = &mut *a.b;
    let (h, elem) = (of.hidden, of.input.ty.elem);
    let two = of.gates(b, 0, 2, 3);
    let open = b.unary("Sigmoid", &two);
    let (z, r) = (of.gate(b, &open, 0), of.gate(b, &open, 1));
    let from_x = of.of_input(b, 2, 3, 3);
    // What goes into n beside x: r·u, or (r·h₋)·R_nᵀ + b_R.
    let reset = b.binary("Mul", &r, &of.before);
    let reset = Tensor { ty: of.wide(h), ..reset };
    let u = of.of_state(b, if is_linear_first { &of.before } else { &reset }, 2, 3, 3);
    let u = Tensor { ty: of.wide(h), ..u };
    let from_h = if is_linear_first { b.binary("Mul", &r, &u) } else { u.clone() };
    let sum = b.binary("Add", &from_x, &from_h);
    let n = b.unary("Tanh", &Tensor { ty: of.wide(h), ..sum });

    let (kept, bent) = (rest(b, &z), tanh_slope(b, &n));
    let to_n = b.binary("Mul", &kept, &bent);
    let (difference, slope) = (b.binary("Sub", &of.before, &n), logistic_slope(b, &z));
    let to_z = b.binary("Mul", &difference, &slope);
    let slope = logistic_slope(b, &r);
    let part = |b: &mut Builder, t: &Tensor, from: i64, to: i64| {
        let cut = b.slice(t, 2, from * h, to * h, 1);
        Tensor { ty: of.wide((to - from) * h), ..cut }
    };
    let (of_w, of_r, start_h);
    if is_linear_first {
        let product = b.binary("Mul", &to_n, &u);
        let to_r = b.binary("Mul", &product, &slope);
        let to_u = b.binary("Mul", &to_n, &r);
        let factors = b.concat(&[to_z, to_r, to_u], 2);
        let mut body = Body::new(&of.prefix, "back", elem);
        let [dh_next, g_in, factors_in, z_in] = ["dh_next", "g", "factors", "z"].map(|name| body.input(name));
        let dh = body.node("Add", &[&g_in, &dh_next]);
        let three = body.with("Concat", &[&dh, &dh, &dh], vec![int("axis", 1)]);
        let gates = body.node("Mul", &[&three, &factors_in]);
        let through = body.node("MatMul", &[&gates, &of.r.name]);
        let past = body.node("Mul", &[&dh, &z_in]);
        let before = body.node("Add", &[&through, &past]);
        let out = body.node("Identity", &[&dh]);
        let scan = body.scan(&[&before, &gates, &out], 3, true);
        let inputs = [of.ends[0].clone(), of.g.clone(), factors, z].map(Some);
        let made = b.node("Scan", &inputs, scan, &[of.one_step(), of.wide(3 * h), of.wide(h)]);
        start_h = made[0].clone();
        let dn = b.binary("Mul", &made[2], &to_n);
        let gates = part(b, &made[1], 0, 2);
        of_w = b.concat(&[gates, dn], 2);
        of_r = made[1].clone();
    } else {
        let to_r = b.binary("Mul", &of.before, &slope);
        let (r_gates, r_n) = (of.part(b, &of.r, 0, 2, 3), of.part(b, &of.r, 2, 3, 3));
        let mut body = Body::new(&of.prefix, "back", elem);
        let [dh_next, g_in, to_n_in, to_z_in, to_r_in, z_in, r_in] =
            ["dh_next", "g", "to_n", "to_z", "to_r", "z", "r"].map(|name| body.input(name));
        let dh = body.node("Add", &[&g_in, &dh_next]);
        let dn = body.node("Mul", &[&dh, &to_n_in]);
        let t = body.node("MatMul", &[&dn, &r_n.name]);
        let dz = body.node("Mul", &[&dh, &to_z_in]);
        let dr = body.node("Mul", &[&t, &to_r_in]);
        let two = body.with("Concat", &[&dz, &dr], vec![int("axis", 1)]);
        let through = body.node("MatMul", &[&two, &r_gates.name]);
        let past = body.node("Mul", &[&dh, &z_in]);
        let reset = body.node("Mul", &[&t, &r_in]);
        let sum = body.node("Add", &[&through, &past]);
        let before = body.node("Add", &[&sum, &reset]);
        let all = body.with("Concat", &[&dz, &dr, &dn], vec![int("axis", 1)]);
        let scan = body.scan(&[&before, &all], 6, true);
        let inputs = [of.ends[0].clone(), of.g.clone(), to_n, to_z, to_r, z, r].map(Some);
        let made = b.node("Scan", &inputs, scan, &[of.one_step(), of.wide(3 * h)]);
        start_h = made[0].clone();
        of_w = made[1].clone();
        of_r = made[1].clone();
    }
    let of_w = Tensor { ty: of.wide(3 * h), ..of_w };
    let columns = extent(size(&of.w, 1)?);
    let (flat_w, flat_r) = (rows(b, &of_w, 3 * h), rows(b, &of_r, 3 * h));
    let (x, before) = (rows(b, &of.input, columns), rows(b, &of.before, h));
    let w = summed_product(b, &flat_w, &x);
    let dr = if is_linear_first {
        summed_product(b, &flat_r, &before)
    } else {
        let (gates, last) = (part(b, &of_r, 0, 2), part(b, &of_r, 2, 3));
        let (gates, last, reset) = (rows(b, &gates, 2 * h), rows(b, &last, h), rows(b, &reset, h));
        let (first, second) = (summed_product(b, &gates, &before), summed_product(b, &last, &reset));
        b.concat(&[first, second], 0)
    };
    let sums = [&flat_w, &flat_r].map(|t| summed(b, t));
    let bias = b.concat(&sums, 0);
    Ok(Direction { x: b.matmul(&of_w, &of.w), w, r: dr, bias, start_h, start_c: None })
}
