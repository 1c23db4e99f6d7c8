//! PER as the paper has it (equation 5): the expectation over slices by Monte Carlo.
//!
//! L = reduce over rows of (1/s)·Σ_j ρ(⟨h_i, θ_j⟩), with s directions θ_j drawn anew in every run, uniformly from the unit sphere,
//! and shared by all rows. Its gradient is equation 6.

use ndarray::{Array2, ArrayView2};

use super::Regularizer;
use super::emit::{Elem, Emitter, Tensor};
use super::gradient::{Gradient, weight};
use super::layer::{Cost, Layer, Projection, Unsupported};
use super::rho::{Reduction, float, rho, rho_slope};
use crate::graph::types::Dim;

/// Reduction over i of (1/s) Σ_j ρ(⟨h_i, θ_j⟩), for rows [b, d] and theta [d, s].
///
/// # Panics
///
/// When the rows' length is not that of theta's columns.
#[must_use]
pub fn value(rows: ArrayView2<f64>, theta: ArrayView2<f64>, reduction: Reduction) -> f64 {
    let projection = rows.dot(&theta);
    projection.mapv(rho).sum() / float(theta.ncols()) * reduction.weight(rows.nrows())
}

/// The gradient [b, d] of [`value`]: row i is (1/s) Σ_j erf(⟨h_i, θ_j⟩/√2)·θ_j, over b for a mean.
///
/// # Panics
///
/// When the rows' length is not that of theta's columns.
#[must_use]
pub fn gradient(rows: ArrayView2<f64>, theta: ArrayView2<f64>, reduction: Reduction) -> Array2<f64> {
    let slope = rows.dot(&theta).mapv_into(rho_slope);
    slope.dot(&theta.t()) * (reduction.weight(rows.nrows()) / float(theta.ncols()))
}

/// The paper's estimator.
#[derive(Debug, Clone, Copy)]
pub struct Sampled {
    /// Number of slices s; 256 in the paper.
    pub slices: u64,
    /// This layer's seed, an integer in [2, 2²⁴); without one every run of every session draws anew.
    pub seed: Option<u32>,
}

impl Regularizer for Sampled {
    fn name(&self) -> &'static str {
        "sampled"
    }

    fn check(&self, opset: i64, _layer: &Layer) -> Result<(), Unsupported> {
        Unsupported::below(opset, 9, "Erf")
    }

    /// With Θ divided by √2, u = ⟨h, θ⟩/√2 and ρ = √2·(u·erf(u) + exp(−u²)/√π).
    fn emit(&self, e: &mut Emitter, layer: &Layer) -> Tensor {
        let (_, u) = self.project(e, layer);
        let erf = erf(e, &u);
        self.value(e, layer, &u, &erf)
    }

    /// √2·λ/(b·s)·erf(u)·Θᵀ/√2.
    fn emit_gradient(&self, e: &mut Emitter, layer: &Layer, coef: &Tensor, with_value: bool) -> Gradient {
        let (theta, u) = self.project(e, layer);
        let erf = erf(e, &u);
        let slices = match layer.reduction {
            Reduction::Mean => 1,
            Reduction::Sum => self.slices,
        };
        let weight = weight(e, layer, coef, ("sqrt_2", std::f64::consts::SQRT_2), slices, &u);
        let transposed = e.transpose("theta_transposed", &theta, &[1, 0]);
        let weighted = e.binary("theta_weighted", "Mul", &transposed, &weight);
        let d = layer.row_length().map_or(Dim::Unknown, Dim::Known);
        let rows = match layer.projection() {
            Projection::RowsTimesDirections => {
                let dims = u.ty.dims.as_ref().map(|dims| replace_last(dims, d));
                e.matmul("gradient_rows", &erf, &weighted, dims)
            }
            Projection::DirectionsTimesMaps => {
                let at = |i: usize| u.ty.dims.as_ref().and_then(|dims| dims.get(i).cloned()).unwrap_or_default();
                e.matmul("gradient_rows", &weighted, &erf, Some(vec![at(0), d, at(2)]))
            }
        };
        let gradient = layer.as_h(e, &rows);
        let tensor = e.cast("gradient_cast", &gradient, layer.h.ty.elem);
        Gradient { tensor, value: with_value.then(|| self.value(e, layer, &u, &erf)) }
    }

    fn cost(&self, layer: &Layer) -> Cost {
        let ((rows, d), s) = (layer.size(), self.slices as f64);
        let bytes = layer.elem().bytes() * (d * s + rows * s);
        Cost { multiply_adds: rows * d * s + 4.0 * rows * s, bytes, random_numbers: d * s }
    }
}

impl Sampled {
    /// Θ/√2 and u = h·Θ/√2, [.., s], or [N, s, L] of maps.
    fn project(&self, e: &mut Emitter, layer: &Layer) -> (Tensor, Tensor) {
        let h = layer.input(e);
        let rows = layer.rows_to_project(e, &h);
        let theta = self.directions(e, layer);
        let u = match layer.projection() {
            Projection::RowsTimesDirections => {
                let dims = rows.ty.dims.as_ref().map(|d| replace_last(d, Dim::Known(self.slices)));
                e.matmul("project", &rows, &theta, dims)
            }
            Projection::DirectionsTimesMaps => {
                let at = |i: usize| rows.ty.dims.as_ref().and_then(|d| d.get(i).cloned()).unwrap_or_default();
                e.matmul("project", &theta, &rows, Some(vec![at(0), Dim::Known(self.slices), at(2)]))
            }
        };
        (theta, u)
    }

    /// The penalty, from u and erf(u).
    fn value(&self, e: &mut Emitter, layer: &Layer, u: &Tensor, erf: &Tensor) -> Tensor {
        let linear = e.binary("u_erf", "Mul", u, erf);
        let square = e.binary("u_u", "Mul", u, u);
        let negative = e.unary("neg", "Neg", &square);
        let bell = e.unary("exp", "Exp", &negative);
        let root_pi = e.scalar("one_over_sqrt_pi", layer.elem(), std::f64::consts::FRAC_2_SQRT_PI / 2.0);
        let bell = e.binary("exp_scaled", "Mul", &bell, &root_pi);
        let rho = e.binary("rho", "Add", &linear, &bell);
        let (op, scale, label) = match layer.reduction {
            Reduction::Mean => ("ReduceMean", std::f64::consts::SQRT_2, "sqrt_2".to_owned()),
            Reduction::Sum => {
                let scale = std::f64::consts::SQRT_2 / self.slices as f64;
                ("ReduceSum", scale, format!("sqrt_2_over_{}", self.slices))
            }
        };
        // Of unknown rank the slices at least are summed on their own; see `reduce_all`.
        let rho = match rho.ty.dims {
            Some(_) => rho,
            None => e.reduce("reduced_slices", op, &rho, Some(&[-1]), false),
        };
        let reduced = e.reduce_all("reduced", op, &rho);
        let scale = e.scalar(&label, layer.elem(), scale);
        e.binary("per", "Mul", &reduced, &scale)
    }

    /// Θ/√2: [d, s], or [s, d] where it multiplies maps from the left. Columns (rows) are uniform on the sphere.
    fn directions(&self, e: &mut Emitter, layer: &Layer) -> Tensor {
        let left = matches!(layer.projection(), Projection::DirectionsTimesMaps);
        let elem = layer.elem();
        let normal = match layer.row_length() {
            Some(d) => {
                let dims = if left { [self.slices, d] } else { [d, self.slices] };
                e.random_normal("normal", elem, dims, self.seed)
            }
            None => {
                let d = layer.run_time_length(e);
                let s = i64::try_from(self.slices).unwrap_or(i64::MAX);
                let s = e.shape_constant("shape", &[s]);
                let (parts, dims) = if left {
                    ([&s, &d], vec![Dim::Known(self.slices), Dim::Unknown])
                } else {
                    ([&d, &s], vec![Dim::Unknown, Dim::Known(self.slices)])
                };
                let shape = e.concat_shape("normal_shape", &parts);
                e.random_normal_of("normal", elem, &shape, dims, self.seed)
            }
        };
        let norm = e.reduce("norm", "ReduceL2", &normal, Some(&[i64::from(left)]), true);
        let root = e.scalar("sqrt_2", elem, std::f64::consts::SQRT_2);
        let norm = e.binary("norm_sqrt_2", "Mul", &norm, &root);
        e.binary("theta", "Div", &normal, &norm)
    }
}

/// Erf, in float32 between Casts for float64: ONNX Runtime's CPU provider has no double Erf.
fn erf(e: &mut Emitter, u: &Tensor) -> Tensor {
    if u.ty.elem != Elem::F64.onnx() {
        return e.unary("erf", "Erf", u);
    }
    let single = e.cast("u_float", u, Elem::F32.onnx());
    let erf = e.unary("erf_float", "Erf", &single);
    e.cast("erf", &erf, Elem::F64.onnx())
}

fn replace_last(dims: &[Dim], last: Dim) -> Vec<Dim> {
    let mut dims = dims.to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    dims
}
