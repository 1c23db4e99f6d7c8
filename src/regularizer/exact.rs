//! PER with its expectation over slices in closed form: no random numbers, no matrix product, O(rows·d).
//!
//! L = reduce over rows of ℓ_d(‖h_i‖), where ℓ_d(r) = √(2/π)·₁F₁(−1/2; d/2; −r²/2) = E_θ[ρ(⟨h, θ⟩)] and
//! ∂ℓ_d/∂h = κ_d(r)·h (see [`kummer`]). The graph evaluates the polynomial of [`fit`](super::fit).

use ndarray::{Array2, ArrayView2, Axis};

use super::emit::{Elem, Emitter, Tensor};
use super::fit::{Precision, SHIFT, fit};
use super::kummer::{self, RHO_ZERO};
use super::layer::{Cost, Layer, Unsupported};
use super::rho::{Reduction, float};
use super::{Regularizer, any_d};
use crate::graph::types::TensorType;

/// Reduction over i of ℓ_d(‖h_i‖), for rows [b, d]. The mean of no rows is NaN, as in ONNX.
#[must_use]
pub fn value(rows: ArrayView2<f64>, reduction: Reduction) -> f64 {
    let d = dimension(&rows);
    let sum: f64 = rows.rows().into_iter().map(|h| kummer::loss(d, h.dot(&h) / float(h.len()))).sum();
    sum * reduction.weight(rows.nrows())
}

/// The gradient [b, d] of [`value`]: row i is κ_d(‖h_i‖)·h_i, over b for a mean.
#[must_use]
pub fn gradient(rows: ArrayView2<f64>, reduction: Reduction) -> Array2<f64> {
    let d = dimension(&rows);
    let weight = reduction.weight(rows.nrows());
    let mut gradient = rows.to_owned();
    for mut h in gradient.rows_mut() {
        let kappa = kummer::kappa(d, h.dot(&h) / float(h.len()));
        h *= kappa * weight;
    }
    gradient
}

/// The length of a row.
fn dimension(rows: &ArrayView2<f64>) -> u64 {
    u64::try_from(rows.len_of(Axis(1))).unwrap_or(u64::MAX)
}

/// The closed form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exact;

impl Regularizer for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    /// Every operator set has what it needs.
    fn check(&self, _opset: i64, _layer: &Layer) -> Result<(), Unsupported> {
        Ok(())
    }

    fn emit(&self, e: &mut Emitter, layer: &Layer) -> Tensor {
        let h = layer.input(e);
        let square = e.binary("square", "Mul", &h, &h);
        let norm2 = sum_over_row(e, layer, &square);
        let loss = match layer.row_length() {
            Some(d) => static_loss(e, layer.elem(), d, &norm2),
            None => dynamic_loss(e, layer, &norm2),
        };
        match layer.reduction {
            Reduction::Mean => e.reduce_all("per", "ReduceMean", &loss),
            Reduction::Sum => e.reduce_all("per", "ReduceSum", &loss),
        }
    }

    fn cost(&self, layer: &Layer) -> Cost {
        let (rows, d) = layer.size();
        Cost { multiply_adds: rows * d, bytes: 0.0, random_numbers: 0.0 }
    }
}

/// ‖h_i‖² for every row.
fn sum_over_row(e: &mut Emitter, layer: &Layer, square: &Tensor) -> Tensor {
    match layer.row_axes() {
        Some(axes) if axes.is_empty() => square.clone(),
        Some(axes) => e.sum("norm2", square, &axes),
        // Of unknown rank, and every sample a row.
        None => {
            let rows = e.flatten("rows", square);
            e.reduce("norm2", "ReduceSum", &rows, Some(&[1]), false)
        }
    }
}

/// ℓ_d for a d that is known now; the sequence of [`fit`](super::fit).
fn static_loss(e: &mut Emitter, elem: Elem, d: u64, norm2: &Tensor) -> Tensor {
    let fit = fit(d, if elem == Elem::F64 { Precision::F64 } else { Precision::F32 });
    let scale = 1.0 / fit.divisor() as f64;
    let scale = e.scalar(&format!("d{d}_scale"), elem, scale);
    let scaled = e.binary("scaled", "Mul", norm2, &scale);
    let (s, x) = variable(e, elem, &scaled);
    let coefficients: Vec<Tensor> =
        fit.folded().iter().enumerate().map(|(k, c)| e.scalar(&format!("d{d}_c{k}"), elem, *c)).collect();
    finish(e, &s, &x, &coefficients)
}

/// s = 1 + m and x = 1 − 2/s.
fn variable(e: &mut Emitter, elem: Elem, scaled: &Tensor) -> (Tensor, Tensor) {
    let (one, two) = (e.scalar("one", elem, 1.0), e.scalar("two", elem, 2.0));
    let s = e.binary("s", "Add", scaled, &one);
    let v = e.binary("v", "Div", &two, &s);
    let x = e.binary("x", "Sub", &one, &v);
    (s, x)
}

/// √s·P(x) by Horner's rule.
fn finish(e: &mut Emitter, s: &Tensor, x: &Tensor, coefficients: &[Tensor]) -> Tensor {
    let mut highest_first = coefficients.iter().enumerate().rev();
    let Some((_, leading)) = highest_first.next() else { return s.clone() };
    let mut p = leading.clone();
    for (k, c) in highest_first {
        let product = e.binary(&format!("p{k}_x"), "Mul", &p, x);
        p = e.binary(&format!("p{k}"), "Add", &product, c);
    }
    let root = e.unary("sqrt", "Sqrt", s);
    e.binary("loss", "Mul", &root, &p)
}

/// (rows of the table, orders of the series, degree of the series, degree of the table) by precision.
const ANY_D_F32: (u32, u32, u32, u32) = (63, 4, 6, 16);
const ANY_D_F64: (u32, u32, u32, u32) = (63, 7, 12, 32);

/// ℓ_d for a d that only the running graph knows: coefficients from a table for d < 64, from a series above.
///
/// The choice is made by arithmetic, because Where came with operator set 9: both sides are finite for every d.
fn dynamic_loss(e: &mut Emitter, layer: &Layer, norm2: &Tensor) -> Tensor {
    let elem = layer.elem();
    let (last, orders, series_degree, degree) = if elem == Elem::F64 { ANY_D_F64 } else { ANY_D_F32 };
    let columns = u64::from(degree) + 1;

    let length = layer.run_time_length(e);
    let d = e.cast("d", &length, elem.onnx());
    let shift = e.scalar("shift", elem, f64::from(SHIFT));
    let divisor = e.binary("divisor", "Add", &d, &shift);
    let scaled = e.binary("scaled", "Div", norm2, &divisor);
    let (s, x) = variable(e, elem, &scaled);

    let table: Vec<f64> = any_d::table(last, degree).iter().map(|c| c * RHO_ZERO).collect();
    let table = e.constant("any_d_table", elem, &[u64::from(last) + 1, columns], &table);
    // Of d's shape, because Min broadcasts only from operator set 8 on.
    let last_row = e.constant("any_d_last", elem, &[1], &[f64::from(last)]);
    let clipped = e.binary("row", "Min", &d, &last_row);
    let index = e.cast("row_index", &clipped, Elem::I64.onnx());
    let from_table = e.gather("from_table", &table, &index, 0);

    let one = e.scalar("one", elem, 1.0);
    let y = e.binary("inverse", "Div", &one, &divisor);
    let series = any_d::large_d_series(last + 1, orders, series_degree);
    let padded = |row: usize| -> Vec<f64> {
        let known = series.row(row).to_vec();
        known.iter().map(|c| c * RHO_ZERO).chain(std::iter::repeat(0.0)).take(columns as usize).collect()
    };
    let row = |e: &mut Emitter, j: usize| e.constant(&format!("any_d_series{j}"), elem, &[1, columns], &padded(j));
    let mut from_series = row(e, orders as usize);
    for j in (0..orders as usize).rev() {
        let term = row(e, j);
        let product = e.binary(&format!("series{j}_y"), "Mul", &from_series, &y);
        from_series = e.binary(&format!("series{j}"), "Add", &product, &term);
    }

    let bound = e.constant("any_d_bound", elem, &[1], &[f64::from(last) + 1.0]);
    let small_ty = TensorType { elem: crate::onnx::tensor_proto::DataType::Bool as i32, dims: d.ty.dims.clone() };
    let is_small = e.node("is_small", "Less", &[&d, &bound], Vec::new(), small_ty);
    let is_small = e.cast("use_table", &is_small, elem.onnx());
    let difference = e.binary("difference", "Sub", &from_table, &from_series);
    let chosen = e.binary("chosen", "Mul", &difference, &is_small);
    let row = e.binary("coefficients", "Add", &chosen, &from_series);
    let coefficients: Vec<Tensor> = (0..columns)
        .map(|k| {
            let index = e.constant(&format!("index_{k}"), Elem::I64, &[], &[k as f64]);
            e.gather(&format!("c{k}"), &row, &index, 1)
        })
        .collect();
    finish(e, &s, &x, &coefficients)
}
