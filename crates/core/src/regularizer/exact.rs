//! PER with its expectation over slices in closed form: no random numbers, no matrix product, O(rows·d).
//!
//! L = reduce over rows of ℓ_d(‖h_i‖), where ℓ_d(r) = √(2/π)·₁F₁(−1/2; d/2; −r²/2) = E_θ[ρ(⟨h, θ⟩)] and
//! ∂ℓ_d/∂h = κ_d(r)·h (see [`kummer`]). The graph evaluates the polynomial of [`fit`](super::fit).

use ndarray::{Array2, ArrayView2, Axis};

use super::emit::{Elem, Emitter, Tensor};
use super::fit::{Precision, SHIFT, fit, slope_coefficients};
use super::gradient::{Gradient, weight};
use super::kummer::{self, RHO_ZERO};
use super::layer::{Cost, Layer, Unsupported};
use super::norm;
use super::rho::{Reduction, float};
use super::{Regularizer, any_d, expansion};
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
pub struct Exact {
    /// Whether ONNX Runtime's training will differentiate it: the same value, in the form whose gradient costs least there.
    pub for_ort_training: bool,
}

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
        if self.for_ort_training {
            let norm2 = norm::squared_for_ort_training(e, layer, &h);
            return penalty_for_ort_training(e, layer, &norm2);
        }
        let norm2 = norm::squared(e, layer, &h);
        Sample::of(e, layer, &norm2).penalty(e, layer)
    }

    /// λ/b·κ_d(‖h_i‖)·h_i, with κ_d = K(x)/((d + 5)·√s); see [`fit`](super::fit).
    fn emit_gradient(&self, e: &mut Emitter, layer: &Layer, coef: &Tensor, with_value: bool) -> Gradient {
        let h = layer.input(e);
        let norm2 = norm::squared(e, layer, &h);
        let sample = Sample::of(e, layer, &norm2);
        let kappa = sample.weighted_kappa(e, layer, coef);
        let gradient = match layer.row_axes() {
            Some(axes) => {
                // A row of every axis has one κ, of one element, and a row of none has h's own shape.
                let is_whole = axes.is_empty() || layer.h.ty.rank() == Some(axes.len());
                let kappa = if is_whole { kappa } else { e.unsqueeze("kappa_of_row", &kappa, &axes) };
                e.binary("gradient", "Mul", &h, &kappa)
            }
            None => {
                let rows = e.flatten("h_rows", &h);
                let kappa = e.unsqueeze("kappa_of_row", &kappa, &[1]);
                let gradient = e.binary("gradient", "Mul", &rows, &kappa);
                layer.as_h(e, &gradient)
            }
        };
        let tensor = e.cast("gradient_cast", &gradient, layer.h.ty.elem);
        Gradient { tensor, value: with_value.then(|| sample.penalty(e, layer)) }
    }

    fn cost(&self, layer: &Layer) -> Cost {
        let (rows, d) = layer.size();
        Cost { multiply_adds: rows * d, bytes: 0.0, random_numbers: 0.0 }
    }
}

/// What ℓ and κ of every row are made of.
struct Sample {
    elem: Elem,
    dimension: Dimension,
    /// What s is measured in; 1 where d is not known.
    unit: u64,
    /// √(unit·s), with s = 1 + ‖h‖²/(d + 5).
    root: Tensor,
    /// 1 − 2/s.
    x: Tensor,
}

/// The length of a row.
enum Dimension {
    /// It is known now.
    Known(u64),
    /// Only the running graph knows it.
    RunTime(Box<RunTime>),
}

/// ‖h‖²/(d + 5) for a d that is known now.
fn scaled(e: &mut Emitter, elem: Elem, d: u64, norm2: &Tensor) -> Tensor {
    let scale = e.scalar(&format!("d{d}_scale"), elem, 1.0 / divisor(d) as f64);
    e.binary("scaled", "Mul", norm2, &scale)
}

/// The penalty of rows by their ‖h‖², as [`expansion`] has it.
fn penalty_for_ort_training(e: &mut Emitter, layer: &Layer, norm2: &Tensor) -> Tensor {
    if e.opset() < expansion::FIRST_OPSET {
        return Sample::of(e, layer, norm2).penalty(e, layer);
    }
    let elem = layer.elem();
    let (dimension, m, unit) = match layer.row_length() {
        // The scale of ‖h‖² goes into the coefficients too: one operator less, and one less in its gradient.
        Some(d) => (Dimension::Known(d), norm2.clone(), divisor(d)),
        None => {
            let (run_time, scaled) = RunTime::scaled(e, layer, norm2);
            (Dimension::RunTime(Box::new(run_time)), scaled, 1)
        }
    };
    let held = expansion::held(e, "held", &m);
    let sample = Sample::at(e, elem, dimension, &held, unit);
    // So does a mean's 1/b, where b is known: the gradient of a sum is one stretched number, that of a mean is seven operators.
    let count = match (layer.reduction, &sample.dimension) {
        (Reduction::Mean, Dimension::Known(_)) => m.ty.element_count().filter(|n| *n > 0),
        _ => None,
    };
    let loss = sample.loss(e, count.unwrap_or(1));
    let derivative = sample.derivative(e, count.unwrap_or(1));
    let loss = expansion::expanded(e, &loss, &derivative, &m, &held);
    reduced(e, if count.is_some() { Reduction::Sum } else { layer.reduction }, &loss)
}

/// One number of all rows.
fn reduced(e: &mut Emitter, reduction: Reduction, rows: &Tensor) -> Tensor {
    match reduction {
        Reduction::Mean => e.reduce_all("per", "ReduceMean", rows),
        Reduction::Sum => e.reduce_all("per", "ReduceSum", rows),
    }
}

impl Sample {
    fn of(e: &mut Emitter, layer: &Layer, norm2: &Tensor) -> Self {
        let elem = layer.elem();
        let (dimension, scaled) = match layer.row_length() {
            Some(d) => (Dimension::Known(d), scaled(e, elem, d, norm2)),
            None => {
                let (run_time, scaled) = RunTime::scaled(e, layer, norm2);
                (Dimension::RunTime(Box::new(run_time)), scaled)
            }
        };
        Self::at(e, elem, dimension, &scaled, 1)
    }

    /// From m = unit·‖h‖²/(d + 5).
    fn at(e: &mut Emitter, elem: Elem, dimension: Dimension, m: &Tensor, unit: u64) -> Self {
        let one = e.scalar("one", elem, 1.0);
        let (unit_of_s, two) = match unit {
            1 => (one.clone(), e.scalar("two", elem, 2.0)),
            _ => (
                e.scalar(&format!("number_{unit}"), elem, unit as f64),
                e.scalar(&format!("twice_{unit}"), elem, 2.0 * unit as f64),
            ),
        };
        let s = e.binary("s", "Add", m, &unit_of_s);
        let v = e.binary("v", "Div", &two, &s);
        let x = e.binary("x", "Sub", &one, &v);
        let root = e.unary("sqrt", "Sqrt", &s);
        Sample { elem, dimension, unit, root, x }
    }

    /// ℓ of every row, as one number.
    fn penalty(&self, e: &mut Emitter, layer: &Layer) -> Tensor {
        let loss = self.loss(e, 1);
        reduced(e, layer.reduction, &loss)
    }

    /// ℓ = √s·P(x) of every row, over `divisor` where d is known.
    fn loss(&self, e: &mut Emitter, divisor: u64) -> Tensor {
        let p = self.evaluate(e, Polynomial::Loss, divisor);
        e.binary("loss", "Mul", &self.root, &p)
    }

    /// ∂ℓ/∂m = K(x)/(2·unit·√s) of every row, over `divisor` where d is known.
    fn derivative(&self, e: &mut Emitter, divisor: u64) -> Tensor {
        let k = self.evaluate(e, Polynomial::HalfSlope, divisor);
        e.binary("derivative", "Div", &k, &self.root)
    }

    /// λ/b·κ of every row, with b for a mean.
    fn weighted_kappa(&self, e: &mut Emitter, layer: &Layer, coef: &Tensor) -> Tensor {
        let k = self.evaluate(e, Polynomial::Slope, 1);
        let kappa = e.binary("kappa", "Div", &k, &self.root);
        let (kappa, divisor) = match &self.dimension {
            Dimension::Known(d) => (kappa, divisor(*d)),
            Dimension::RunTime(d) => (e.binary("kappa_of_d", "Div", &kappa, &d.divisor), 1),
        };
        let weight = weight(e, layer, coef, ("one", 1.0), divisor, &kappa);
        e.binary("kappa_weighted", "Mul", &kappa, &weight)
    }

    /// A polynomial at x by Horner's rule, over `divisor` where d is known.
    fn evaluate(&self, e: &mut Emitter, polynomial: Polynomial, divisor: u64) -> Tensor {
        let coefficients = match &self.dimension {
            Dimension::Known(d) => known_coefficients(e, self.elem, *d, polynomial, (divisor, self.unit)),
            Dimension::RunTime(d) => d.coefficients(e, self.elem, polynomial),
        };
        let label = polynomial.label();
        let mut highest_first = coefficients.iter().enumerate().rev();
        let Some((_, leading)) = highest_first.next() else { return self.x.clone() };
        let mut p = leading.clone();
        for (k, c) in highest_first {
            let product = e.binary(&format!("{label}{k}_x"), "Mul", &p, &self.x);
            p = e.binary(&format!("{label}{k}"), "Add", &product, c);
        }
        p
    }
}

/// The d + 5 that divides ‖h‖².
fn divisor(d: u64) -> u64 {
    d.saturating_add(u64::from(SHIFT))
}

/// The polynomials of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polynomial {
    /// P, with ℓ = √s·P(x).
    Loss,
    /// K, with κ = K(x)/((d + 5)·√s).
    Slope,
    /// K/2, with ∂ℓ/∂s = K(x)/(2·√s).
    HalfSlope,
}

impl Polynomial {
    /// What its partial sums are called.
    fn label(self) -> &'static str {
        match self {
            Polynomial::Loss => "p",
            Polynomial::Slope | Polynomial::HalfSlope => "k",
        }
    }

    /// A prefix that tells the names of its coefficients from those of P.
    fn prefix(self) -> &'static str {
        match self {
            Polynomial::Loss => "",
            Polynomial::Slope => "slope_",
            Polynomial::HalfSlope => "half_slope_",
        }
    }

    /// Its coefficients, times √(2/π), from those of P.
    fn folded(self, loss: impl Iterator<Item = f64>) -> Vec<f64> {
        let folded: Vec<f64> = loss.map(|c| c * RHO_ZERO).collect();
        match self {
            Polynomial::Loss => folded,
            Polynomial::Slope => slope_coefficients(&folded),
            Polynomial::HalfSlope => slope_coefficients(&folded).iter().map(|k| k / 2.0).collect(),
        }
    }
}

/// The coefficients, over `divisor` and √unit, for a d that is known now.
fn known_coefficients(
    e: &mut Emitter,
    elem: Elem,
    d: u64,
    polynomial: Polynomial,
    (divisor, unit): (u64, u64),
) -> Vec<Tensor> {
    let fit = fit(d, if elem == Elem::F64 { Precision::F64 } else { Precision::F32 });
    let coefficients = polynomial.folded(fit.coefficients.iter().copied());
    let suffix = if divisor == 1 { String::new() } else { format!("_over_{divisor}") };
    let suffix = if unit == 1 { suffix } else { format!("{suffix}_root_{unit}") };
    let divisor = divisor as f64 * (unit as f64).sqrt();
    let name = |k| format!("d{d}_{}c{k}{suffix}", polynomial.prefix());
    coefficients.iter().enumerate().map(|(k, c)| e.scalar(&name(k), elem, *c / divisor)).collect()
}

/// (rows of the table, orders of the series, degree of the series, degree of the table) by precision.
const ANY_D_F32: (u32, u32, u32, u32) = (63, 4, 6, 16);
const ANY_D_F64: (u32, u32, u32, u32) = (63, 7, 12, 32);

/// A d that only the running graph knows: coefficients from a table for d < 64, from a series above.
///
/// The choice is made by arithmetic, because Where came with operator set 9: both sides are finite for every d. All are of one element.
struct RunTime {
    /// d + 5.
    divisor: Tensor,
    /// min(d, 63), a row of the table.
    row: Tensor,
    /// 1/(d + 5).
    inverse: Tensor,
    /// 1 for d < 64, else 0.
    use_table: Tensor,
}

impl RunTime {
    /// With ‖h‖²/(d + 5).
    fn scaled(e: &mut Emitter, layer: &Layer, norm2: &Tensor) -> (Self, Tensor) {
        let run_time = Self::of(e, layer);
        let scaled = e.binary("scaled", "Div", norm2, &run_time.divisor);
        (run_time, scaled)
    }

    fn of(e: &mut Emitter, layer: &Layer) -> Self {
        let elem = layer.elem();
        let (last, ..) = any_d_sizes(elem);
        let length = layer.run_time_length(e);
        let d = e.cast("d", &length, elem.onnx());
        let shift = e.scalar("shift", elem, f64::from(SHIFT));
        let divisor = e.binary("divisor", "Add", &d, &shift);
        // Of d's shape, because Min broadcasts only from operator set 8 on.
        let last_row = e.constant("any_d_last", elem, &[1], &[f64::from(last)]);
        let clipped = e.binary("row", "Min", &d, &last_row);
        let row = e.cast("row_index", &clipped, Elem::I64.onnx());
        let one = e.scalar("one", elem, 1.0);
        let inverse = e.binary("inverse", "Div", &one, &divisor);
        let bound = e.constant("any_d_bound", elem, &[1], &[f64::from(last) + 1.0]);
        let small_ty = TensorType { elem: crate::onnx::tensor_proto::DataType::Bool as i32, dims: d.ty.dims.clone() };
        let is_small = e.node("is_small", "Less", &[&d, &bound], Vec::new(), small_ty);
        let use_table = e.cast("use_table", &is_small, elem.onnx());
        RunTime { divisor, row, inverse, use_table }
    }

    fn coefficients(&self, e: &mut Emitter, elem: Elem, polynomial: Polynomial) -> Vec<Tensor> {
        let (last, orders, series_degree, degree) = any_d_sizes(elem);
        let columns = u64::from(degree) + 1;
        let prefix = polynomial.prefix();

        let table: Vec<f64> = any_d::table(last, degree)
            .rows()
            .into_iter()
            .flat_map(|row| polynomial.folded(row.iter().copied()))
            .collect();
        let table = e.constant(&format!("any_d_{prefix}table"), elem, &[u64::from(last) + 1, columns], &table);
        let from_table = e.gather(&format!("{prefix}from_table"), &table, &self.row, 0);

        let series = any_d::large_d_series(last + 1, orders, series_degree);
        let row = |e: &mut Emitter, j: usize| {
            let known = series.row(j).to_vec();
            let padded = known.into_iter().chain(std::iter::repeat(0.0)).take(columns as usize);
            e.constant(&format!("any_d_{prefix}series{j}"), elem, &[1, columns], &polynomial.folded(padded))
        };
        let mut from_series = row(e, orders as usize);
        for j in (0..orders as usize).rev() {
            let term = row(e, j);
            let product = e.binary(&format!("{prefix}series{j}_y"), "Mul", &from_series, &self.inverse);
            from_series = e.binary(&format!("{prefix}series{j}"), "Add", &product, &term);
        }

        let difference = e.binary(&format!("{prefix}difference"), "Sub", &from_table, &from_series);
        let chosen = e.binary(&format!("{prefix}chosen"), "Mul", &difference, &self.use_table);
        let row = e.binary(&format!("{prefix}coefficients"), "Add", &chosen, &from_series);
        (0..columns)
            .map(|k| {
                let index = e.constant(&format!("index_{k}"), Elem::I64, &[], &[k as f64]);
                e.gather(&format!("{prefix}c{k}"), &row, &index, 1)
            })
            .collect()
    }
}

fn any_d_sizes(elem: Elem) -> (u32, u32, u32, u32) {
    if elem == Elem::F64 { ANY_D_F64 } else { ANY_D_F32 }
}
