//! RNN: with h = tanh(z), z = x·Wᵀ + h₋·Rᵀ + b: dh = g + dh₊, dz = dh·(1 − h²), dh₋ = dz·R.

use super::{Body, Direction, Operands, rows, summed, summed_product, tanh_slope};
use crate::autodiff::adjoint::Adjoint;
use crate::rewrite::site::{Known, extent, size};

pub fn back(a: &mut Adjoint<'_, '_>, of: &Operands) -> Known<Direction> {
    let b = &mut *a.b;
    let h = of.hidden;
    let slope = tanh_slope(b, &of.states);
    let mut body = Body::new(&of.prefix, "back", of.input.ty.elem);
    let [dh_next, g_in, slope_in] = ["dh_next", "g", "slope"].map(|name| body.input(name));
    let dh = body.node("Add", &[&g_in, &dh_next]);
    let dz = body.node("Mul", &[&dh, &slope_in]);
    let before = body.node("MatMul", &[&dz, &of.r.name]);
    let scan = body.scan(&[&before, &dz], 2, true);
    let inputs = [of.ends[0].clone(), of.g.clone(), slope].map(Some);
    let made = b.node("Scan", &inputs, scan, &[of.one_step(), of.wide(h)]);
    let dz = made[1].clone();
    let columns = extent(size(&of.w, 1)?);
    let (flat, x, earlier) = (rows(b, &dz, h), rows(b, &of.input, columns), rows(b, &of.before, h));
    let (w, r) = (summed_product(b, &flat, &x), summed_product(b, &flat, &earlier));
    let sum = summed(b, &flat);
    let bias = b.concat(&[sum.clone(), sum], 0);
    Ok(Direction { x: b.matmul(&dz, &of.w), w, r, bias, start_h: made[0].clone(), start_c: None })
}
