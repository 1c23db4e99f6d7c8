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
use super::signs::{self, Groups};
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
    /// Whether all layers whose rows are as long read one draw.
    ///
    /// Each layer's slices are as uniform on the sphere and as independent of one another as before, so each penalty and each gradient
    /// has the same expectation, and so has their sum. Only the errors of these layers are no longer independent of each other.
    pub shared: bool,
    /// Whether slices differ in signs alone where rows are long enough, see `signs.rs`, and are each sample's own where it has many rows.
    /// Estimator `structured`.
    ///
    /// Every slice of every sample is uniform on the sphere, so the expectation of each row's term is that of any slices. With Θ shared, a
    /// batch scatters as its s slices do, whatever the number of rows that see them. With slices of its own for each sample there are many
    /// more of them, and a row needs fewer: with a quarter, gradients of a convolutional network scatter as much as with s shared slices where
    /// a batch has 4 samples, and two thirds as much with 16 (`tests/python/test_structured.py`).
    pub structured: bool,
}

/// A share of the slices is enough for a sample that has its own; so batches of as many samples see all of them at least.
const SHARE: u64 = 4;

/// A sample of fewer rows projects them faster than it makes slices of its own.
const MANY_ROWS: u64 = 16;

impl Regularizer for Sampled {
    fn name(&self) -> &'static str {
        if self.structured { "structured" } else { "sampled" }
    }

    fn check(&self, opset: i64, _layer: &Layer) -> Result<(), Unsupported> {
        Unsupported::below(opset, 9, "Erf")
    }

    /// With u = ⟨h, θ⟩/√2, ρ = √2·(u·erf(u) + exp(−u²)/√π).
    fn emit(&self, e: &mut Emitter, layer: &Layer) -> Tensor {
        let u = self.project(e, layer).u;
        let erf = erf(e, &u);
        self.value(e, layer, &u, &erf)
    }

    /// √2·λ/(b·s)·erf(u)·Θᵀ/√2.
    fn emit_gradient(&self, e: &mut Emitter, layer: &Layer, coef: &Tensor, with_value: bool) -> Gradient {
        let Projected { directions, norm, u, folded } = self.project(e, layer);
        let erf = erf(e, &u);
        let slices = match layer.reduction {
            Reduction::Mean => 1,
            Reduction::Sum => self.slices_of_a_row(layer),
        };
        let weight = weight(e, layer, coef, ("sqrt_2", std::f64::consts::SQRT_2), slices, &u);
        let rows = match (folded, norm, layer.projection()) {
            (Some((size, d)), _, _) => {
                let weighted = e.binary("erf_weighted", "Mul", &erf, &weight);
                let signs = signs::hadamard(e, "hadamard_back", layer.elem(), size, [self.slices, size]);
                let batch = u.ty.dims.as_ref().and_then(|dims| dims.first().cloned()).unwrap_or_default();
                let sums = e.matmul("gradient_sums", &weighted, &signs, Some(vec![batch, Dim::Known(size)]));
                signs::unfold(e, &sums, &directions, size, d)
            }
            (None, Some(norm), _) => {
                let weight = e.binary("slice_weight", "Div", &weight, &norm);
                let weighted = e.binary("erf_weighted", "Mul", &erf, &weight);
                self.back(e, layer, &weighted, &directions)
            }
            (None, None, Projection::DirectionsTimesMaps) => {
                let transposed = turned(e, &directions);
                let weighted = e.binary("theta_weighted", "Mul", &transposed, &weight);
                let at = |i: usize| u.ty.dims.as_ref().and_then(|dims| dims.get(i).cloned()).unwrap_or_default();
                e.matmul("gradient_rows", &weighted, &erf, Some(vec![at(0), length(layer), at(2)]))
            }
            (None, None, _) => {
                let weighted = e.binary("theta_weighted", "Mul", &directions, &weight);
                self.back(e, layer, &erf, &weighted)
            }
        };
        let gradient = layer.as_h(e, &rows);
        let tensor = e.cast("gradient_cast", &gradient, layer.h.ty.elem);
        Gradient { tensor, value: with_value.then(|| self.value(e, layer, &u, &erf)) }
    }

    fn cost(&self, layer: &Layer) -> Cost {
        let ((rows, d), s) = (layer.size(), self.slices_of_a_row(layer) as f64);
        if let Some(own) = self.own(layer) {
            let samples = own.samples.known().map_or(1.0, |n| n as f64);
            let (drawn, theta) = (samples * own.groups.count as f64 * d, samples * s * d);
            let bytes = layer.elem().bytes() * (drawn + theta + rows * s);
            return Cost { multiply_adds: rows * d * s + 4.0 * rows * s, bytes, random_numbers: drawn };
        }
        if let Some((groups, _)) = self.groups(layer) {
            let (g, drawn) = (groups.size as f64, groups.count as f64 * d);
            let (multiply_adds, bytes) = if Self::folds(groups, layer) {
                (rows * (d + g * s), drawn + rows * (d + g + s))
            } else {
                (rows * d * s, drawn + d * s + rows * s)
            };
            let bytes = layer.elem().bytes() * bytes;
            return Cost { multiply_adds: multiply_adds + 4.0 * rows * s, bytes, random_numbers: drawn };
        }
        let bytes = layer.elem().bytes() * (d * s + rows * s);
        Cost { multiply_adds: rows * d * s + 4.0 * rows * s, bytes, random_numbers: d * s }
    }
}

/// Slices of its own for each sample.
struct Own {
    /// Number of samples.
    samples: Dim,
    /// How the slices of one sample fall into groups.
    groups: Groups,
    /// Slices of one sample.
    slices: u64,
    /// The length of a row.
    d: u64,
}

/// The projections of a layer.
struct Projected {
    /// s directions [s, d], of length 1/√2 unless `norm` divides them; [N, s, d] where samples have their own, with axes of length 1 as rows
    /// of more axes need them.
    directions: Tensor,
    /// √2 times the lengths of the directions, [s], where the projections were divided by them and not the directions themselves.
    norm: Option<Tensor>,
    /// h·Θ/√2: [.., s], or [N, s, L] of maps.
    u: Tensor,
    /// Where the projection went by classes: their number and d. `directions` is then the one vector [1, d] that the signs are put to.
    folded: Option<(u64, u64)>,
}

impl Sampled {
    /// Draws directions and projects h on them.
    ///
    /// Where rows make up a matrix, as all of a sample's activations do, d is long and Θ the largest tensor by far. It is neither divided
    /// by its norms nor transposed then, but read as it was drawn; the few projections are divided.
    fn project(&self, e: &mut Emitter, layer: &Layer) -> Projected {
        let h = layer.input(e);
        let rows = layer.rows_to_project(e, &h);
        if let Some(own) = self.own(layer) {
            return self.project_on_own(e, layer, &rows, &own);
        }
        let normal = self.normal(e, layer);
        let s = Dim::Known(self.slices);
        let groups = self.groups(layer);
        if let Some((groups, d)) = groups.filter(|(groups, _)| Self::folds(*groups, layer)) {
            let norm = self.norm(e, layer, &normal, true);
            let vector = e.binary("vector", "Div", &normal, &norm);
            let u = self.project_folded(e, layer, &rows, &vector, (groups.size, d));
            return Projected { directions: vector, norm: None, u, folded: Some((groups.size, d)) };
        }
        if layer.projection() == Projection::RowsByDirections && groups.is_none() {
            let norm = self.norm(e, layer, &normal, false);
            let dims = rows.ty.dims.as_ref().map(|dims| replace_last(dims, s));
            let projected = e.gemm("project", &rows, &normal, dims);
            let u = e.binary("u", "Div", &projected, &norm);
            return Projected { directions: normal, norm: Some(norm), u, folded: None };
        }
        let norm = self.norm(e, layer, &normal, true);
        let unit = e.binary("theta", "Div", &normal, &norm);
        let directions = match groups {
            Some((groups, d)) => signs::directions(e, layer.elem(), groups, self.slices, d, None, &unit),
            None => unit,
        };
        let u = if layer.projection() == Projection::DirectionsTimesMaps {
            let at = |i: usize| rows.ty.dims.as_ref().and_then(|dims| dims.get(i).cloned()).unwrap_or_default();
            e.matmul("project", &directions, &rows, Some(vec![at(0), s, at(2)]))
        } else {
            let transposed = e.transpose("theta_transposed", &directions, &[1, 0]);
            let dims = rows.ty.dims.as_ref().map(|dims| replace_last(dims, s));
            e.matmul("project", &rows, &transposed, dims)
        };
        Projected { directions, norm: None, u, folded: None }
    }

    /// Each sample's rows on its own slices.
    fn project_on_own(&self, e: &mut Emitter, layer: &Layer, rows: &Tensor, own: &Own) -> Projected {
        let Own { samples, groups, slices, d } = own;
        let elem = layer.elem();
        let normal = match samples.known() {
            Some(samples) => e.random_normal("normal", elem, &[samples, groups.count, *d], self.seed),
            None => {
                let samples = e.dimension("samples", &layer.h, 0);
                let rest = e.shape_constant("shape", &[groups.count.cast_signed(), d.cast_signed()]);
                let shape = e.concat_shape("normal_shape", &[&samples, &rest]);
                let dims = vec![Dim::Unknown, Dim::Known(groups.count), Dim::Known(*d)];
                e.random_normal_of("normal", elem, &shape, dims, self.seed)
            }
        };
        let norm = self.norm(e, layer, &normal, true);
        let unit = e.binary("theta", "Div", &normal, &norm);
        let mut directions = signs::directions(e, elem, *groups, *slices, *d, Some(samples), &unit);
        let s = Dim::Known(*slices);
        let u = if layer.projection() == Projection::DirectionsTimesMaps {
            let at = |i: usize| rows.ty.dims.as_ref().and_then(|dims| dims.get(i).cloned()).unwrap_or_default();
            e.matmul("project", &directions, rows, Some(vec![at(0), s, at(2)]))
        } else {
            let rank = rows.ty.dims.as_ref().map_or(3, Vec::len);
            let between: Vec<i64> = (1..rank as i64 - 2).collect();
            if !between.is_empty() {
                directions = e.unsqueeze("directions_apart", &directions, &between);
            }
            let transposed = turned(e, &directions);
            let dims = rows.ty.dims.as_ref().map(|dims| replace_last(dims, s));
            e.matmul("project", rows, &transposed, dims)
        };
        Projected { directions, norm: None, u, folded: None }
    }

    /// [b, d] ⊙ [1, d], summed over the classes, times the signs: [b, s].
    fn project_folded(
        &self,
        e: &mut Emitter,
        layer: &Layer,
        rows: &Tensor,
        vector: &Tensor,
        (size, d): (u64, u64),
    ) -> Tensor {
        let weighted = e.binary("rows_weighted", "Mul", rows, vector);
        let (sums, tail) = signs::fold(e, &weighted, size, d);
        let dims = sums.ty.dims.as_ref().map(|dims| replace_last(dims, Dim::Known(self.slices)));
        let signs = signs::hadamard(e, "hadamard", layer.elem(), size, [size, self.slices]);
        let u = e.matmul("project", &sums, &signs, dims.clone());
        let Some(tail) = tail else { return u };
        let signs = e.slice("tail_signs", &signs, 0, 0..d % size);
        let rest = e.matmul("project_tail", &tail, &signs, dims);
        e.binary("project_all", "Add", &u, &rest)
    }

    /// Whether every sample has slices of its own, and how many. Along one of its axes at least a sample has many rows then.
    fn own(&self, layer: &Layer) -> Option<Own> {
        let dims = layer.h.ty.dims.as_ref().filter(|dims| dims.len() > 2)?;
        if !self.structured || self.shared || layer.projection() == Projection::RowsByDirections {
            return None;
        }
        let d = layer.row_length()?;
        let samples = dims[0].clone();
        let elements = dims[1..].iter().map(Dim::known).try_fold(1u64, |n, dim| n.checked_mul(dim?));
        if elements.is_some_and(|n| n < MANY_ROWS.saturating_mul(d)) {
            return None;
        }
        let share = samples.known().unwrap_or(SHARE).min(SHARE);
        let slices = (share > 1).then(|| self.slices.div_ceil(share))?;
        let groups = Groups::of(slices, d).unwrap_or(Groups { size: 1, count: slices });
        Some(Own { samples, groups, slices, d })
    }

    /// On how many slices a row is projected.
    fn slices_of_a_row(&self, layer: &Layer) -> u64 {
        self.own(layer).map_or(self.slices, |own| own.slices)
    }

    /// How slices that all samples share fall into groups, and d, where they do.
    fn groups(&self, layer: &Layer) -> Option<(Groups, u64)> {
        let d = layer.row_length().filter(|_| self.structured)?;
        Some((Groups::of(self.slices, d)?, d))
    }

    /// Whether the projection goes by classes.
    fn folds(groups: Groups, layer: &Layer) -> bool {
        groups.count == 1 && layer.projection() == Projection::RowsByDirections
    }

    /// [.., s] · [s, d], the way back from [`Sampled::project`].
    fn back(&self, e: &mut Emitter, layer: &Layer, slopes: &Tensor, directions: &Tensor) -> Tensor {
        let dims = slopes.ty.dims.as_ref().map(|dims| replace_last(dims, length(layer)));
        e.matmul("gradient_rows", slopes, directions, dims)
    }

    /// The penalty, from u and erf(u).
    fn value(&self, e: &mut Emitter, layer: &Layer, u: &Tensor, erf: &Tensor) -> Tensor {
        let linear = e.binary("u_erf", "Mul", u, erf);
        let square = e.binary("u_u", "Mul", u, u);
        // exp(−u²)/√π with its factor in the exponent, where it costs no pass over the projections of its own.
        let log_factor = e.scalar("minus_half_log_pi", layer.elem(), -std::f64::consts::PI.ln() / 2.0);
        let exponent = e.binary("exponent", "Sub", &log_factor, &square);
        let bell = e.unary("exp", "Exp", &exponent);
        let rho = e.binary("rho", "Add", &linear, &bell);
        let (op, scale, label) = match layer.reduction {
            Reduction::Mean => ("ReduceMean", std::f64::consts::SQRT_2, "sqrt_2".to_owned()),
            Reduction::Sum => {
                let slices = self.slices_of_a_row(layer);
                let scale = std::f64::consts::SQRT_2 / slices as f64;
                ("ReduceSum", scale, format!("sqrt_2_over_{slices}"))
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

    /// Standard normal numbers [s, d], or [groups, d].
    fn normal(&self, e: &mut Emitter, layer: &Layer) -> Tensor {
        let elem = layer.elem();
        let drawn = self.groups(layer).map_or(self.slices, |(groups, _)| groups.count);
        match layer.row_length() {
            Some(d) if self.shared => return e.shared_random_normal(elem, [drawn, d], self.seed),
            Some(d) => return e.random_normal("normal", elem, &[drawn, d], self.seed),
            None => {}
        }
        let d = layer.run_time_length(e);
        let s = e.shape_constant("shape", &[i64::try_from(self.slices).unwrap_or(i64::MAX)]);
        let shape = e.concat_shape("normal_shape", &[&s, &d]);
        e.random_normal_of("normal", elem, &shape, vec![Dim::Known(self.slices), Dim::Unknown], self.seed)
    }

    /// √2 times the norms of the rows of `normal`, whose last axis is left out or kept with length 1.
    fn norm(&self, e: &mut Emitter, layer: &Layer, normal: &Tensor, keep: bool) -> Tensor {
        let last = normal.ty.dims.as_ref().map_or(1, |dims| dims.len() as i64 - 1);
        let norm = e.reduce("norm", "ReduceL2", normal, Some(&[last]), keep);
        let root = e.scalar("sqrt_2", layer.elem(), std::f64::consts::SQRT_2);
        e.binary("norm_sqrt_2", "Mul", &norm, &root)
    }
}

/// Directions with their last two axes exchanged.
fn turned(e: &mut Emitter, directions: &Tensor) -> Tensor {
    let rank = directions.ty.dims.as_ref().map_or(2, Vec::len);
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    e.transpose("theta_transposed", directions, &perm)
}

/// d, as a dimension.
fn length(layer: &Layer) -> Dim {
    layer.row_length().map_or(Dim::Unknown, Dim::Known)
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
