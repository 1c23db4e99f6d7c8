//! PER and its gradient in f64 on plain matrices: what every emitted graph is compared with.
//!
//! Rows h_i are samples, [b, d]. `exact` is the closed form of the expectation over directions,
//! `sampled` the paper's Monte Carlo estimate over the columns of Θ, [d, s], each of unit length.

use ndarray::{Array2, ArrayView2, Axis};

use super::kummer::{self, RHO_ZERO};

/// How the rows' losses become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// (1/b) Σ_i, equations 5 and 6 of the paper.
    #[default]
    Mean,
    /// Σ_i, the paper's algorithm 1 read literally.
    Sum,
}

impl Reduction {
    /// The weight of each of `rows` rows.
    fn weight(self, rows: usize) -> f64 {
        match self {
            Self::Mean => 1.0 / float(rows),
            Self::Sum => 1.0,
        }
    }
}

/// ρ(p) = p·erf(p/√2) + √(2/π)·exp(−p²/2), with ρ'(p) = erf(p/√2).
#[must_use]
pub fn rho(p: f64) -> f64 {
    p * rho_slope(p) + RHO_ZERO * (-p * p / 2.0).exp()
}

/// ρ'(p) = erf(p/√2).
#[must_use]
pub fn rho_slope(p: f64) -> f64 {
    libm::erf(p * std::f64::consts::FRAC_1_SQRT_2)
}

/// Reduction over i of ℓ_d(‖h_i‖), for rows [b, d]. The mean of no rows is NaN, as in ONNX.
#[must_use]
pub fn exact_value(rows: ArrayView2<f64>, reduction: Reduction) -> f64 {
    let d = dimension(&rows);
    let sum: f64 = rows
        .rows()
        .into_iter()
        .map(|h| kummer::loss(d, h.dot(&h) / float(h.len())))
        .sum();
    sum * reduction.weight(rows.nrows())
}

/// The gradient [b, d] of [`exact_value`]: row i is κ_d(‖h_i‖)·h_i, over b for a mean.
#[must_use]
pub fn exact_gradient(rows: ArrayView2<f64>, reduction: Reduction) -> Array2<f64> {
    let d = dimension(&rows);
    let weight = reduction.weight(rows.nrows());
    let mut gradient = rows.to_owned();
    for mut h in gradient.rows_mut() {
        let kappa = kummer::kappa(d, h.dot(&h) / float(h.len()));
        h *= kappa * weight;
    }
    gradient
}

/// Reduction over i of (1/s) Σ_j ρ(⟨h_i, θ_j⟩), for rows [b, d] and theta [d, s].
///
/// # Panics
///
/// When the rows' length is not that of theta's columns.
#[must_use]
pub fn sampled_value(rows: ArrayView2<f64>, theta: ArrayView2<f64>, reduction: Reduction) -> f64 {
    let projection = rows.dot(&theta);
    projection.mapv(rho).sum() / float(theta.ncols()) * reduction.weight(rows.nrows())
}

/// The gradient [b, d] of [`sampled_value`]: row i is (1/s) Σ_j erf(⟨h_i, θ_j⟩/√2)·θ_j, over b for a mean.
///
/// # Panics
///
/// When the rows' length is not that of theta's columns.
#[must_use]
pub fn sampled_gradient(
    rows: ArrayView2<f64>,
    theta: ArrayView2<f64>,
    reduction: Reduction,
) -> Array2<f64> {
    let slope = rows.dot(&theta).mapv_into(rho_slope);
    slope.dot(&theta.t()) * (reduction.weight(rows.nrows()) / float(theta.ncols()))
}

/// The length of a row.
fn dimension(rows: &ArrayView2<f64>) -> u64 {
    u64::try_from(rows.len_of(Axis(1))).unwrap_or(u64::MAX)
}

/// A count as f64.
#[expect(clippy::cast_precision_loss, reason = "no array has 2^53 elements")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;

    /// Standard normal values from a fixed linear congruential stream, two by Box and Muller's method.
    struct Normal(u64);

    impl Normal {
        fn uniform(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (f64::from(u32::try_from(self.0 >> 32).unwrap()) + 0.5) / 4_294_967_296.0
        }

        fn matrix(&mut self, shape: [usize; 2]) -> Array2<f64> {
            Array2::from_shape_simple_fn(shape, || {
                let (u, v) = (self.uniform(), self.uniform());
                (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
            })
        }

        /// Unit columns [d, s].
        fn theta(&mut self, d: usize, s: usize) -> Array2<f64> {
            let mut theta = self.matrix([d, s]);
            let norms: Array1<f64> = theta.map_axis(Axis(0), |v| v.dot(&v).sqrt());
            theta /= &norms;
            theta
        }
    }

    /// Largest |gradient − central difference|, with a step of 1e-5: truncation 1e-10·ρ‴, rounding 1e-11·b.
    fn worst_difference(
        rows: &Array2<f64>,
        gradient: &Array2<f64>,
        value: impl Fn(ArrayView2<f64>) -> f64,
    ) -> f64 {
        const STEP: f64 = 1e-5;
        let mut worst = 0.0_f64;
        for (index, expected) in gradient.indexed_iter() {
            let mut moved = rows.clone();
            moved[index] = rows[index] + STEP;
            let above = value(moved.view());
            moved[index] = rows[index] - STEP;
            let difference = (above - value(moved.view())) / (2.0 * STEP);
            worst = worst.max((difference - expected).abs());
        }
        worst
    }

    #[test]
    fn gradients_are_what_central_differences_say() {
        let mut normal = Normal(1);
        for d in [1, 2, 3, 7, 40] {
            let rows = normal.matrix([4, d]) * 1.5;
            let theta = normal.theta(d, 16);
            for reduction in [Reduction::Mean, Reduction::Sum] {
                let exact = exact_gradient(rows.view(), reduction);
                let worst = worst_difference(&rows, &exact, |h| exact_value(h, reduction));
                assert!(worst < 1e-9, "exact, d = {d}: {worst:e}");
                let sampled = sampled_gradient(rows.view(), theta.view(), reduction);
                let value = |h: ArrayView2<f64>| sampled_value(h, theta.view(), reduction);
                let worst = worst_difference(&rows, &sampled, value);
                assert!(worst < 1e-9, "sampled, d = {d}: {worst:e}");
            }
        }
    }

    #[test]
    fn many_slices_average_to_the_closed_form() {
        let mut normal = Normal(2);
        const SLICES: usize = 40_000;
        for d in [2, 5, 30] {
            let rows = normal.matrix([3, d]) * 2.0;
            let theta = normal.theta(d, SLICES);
            let exact = exact_value(rows.view(), Reduction::Mean);
            let sampled = sampled_value(rows.view(), theta.view(), Reduction::Mean);
            // Five standard errors: ρ(p) has a deviation of at most that of |p|, ‖h‖/√d, here below 4.
            let largest = rows
                .map_axis(Axis(1), |h| h.dot(&h).sqrt())
                .fold(0.0, |a: f64, b| a.max(*b));
            let error = 5.0 * largest / (float(d) * float(SLICES)).sqrt();
            assert!(
                (exact - sampled).abs() < error,
                "d = {d}: {exact} {sampled} ± {error}"
            );
            // |erf·θ_k| averages 1/√d, and the mean takes a third of it.
            let gap = exact_gradient(rows.view(), Reduction::Mean)
                - sampled_gradient(rows.view(), theta.view(), Reduction::Mean);
            let error = 5.0 / 3.0 / (float(d) * float(SLICES)).sqrt();
            assert!(gap.iter().all(|g| g.abs() < error), "d = {d}: {gap:e}");
        }
    }

    #[test]
    fn in_one_dimension_a_single_slice_is_the_expectation() {
        let rows = Normal(3).matrix([50, 1]) * 3.0;
        let theta = -Array2::<f64>::ones((1, 1));
        // Both are ρ(h), to rounding.
        let gap = exact_value(rows.view(), Reduction::Sum)
            - sampled_value(rows.view(), theta.view(), Reduction::Sum);
        assert!(gap.abs() < 1e-12);
        let gap = exact_gradient(rows.view(), Reduction::Sum)
            - sampled_gradient(rows.view(), theta.view(), Reduction::Sum);
        assert!(gap.iter().all(|g| g.abs() < 1e-14));
    }

    #[test]
    fn a_sum_is_the_mean_times_the_number_of_rows() {
        let mut normal = Normal(4);
        let (rows, theta) = (normal.matrix([6, 5]), normal.theta(5, 8));
        let sum = exact_value(rows.view(), Reduction::Sum);
        assert!((sum - 6.0 * exact_value(rows.view(), Reduction::Mean)).abs() < 1e-13);
        let sum = sampled_value(rows.view(), theta.view(), Reduction::Sum);
        assert!(
            (sum - 6.0 * sampled_value(rows.view(), theta.view(), Reduction::Mean)).abs() < 1e-13
        );
    }

    #[test]
    fn the_loss_of_normal_data_tends_to_two_over_root_pi() {
        let rows = Normal(5).matrix([100_000, 1]);
        // E[ρ(y)] = 2/√π for y ~ N(0, 1), whose ρ deviates by 0.45: four standard errors.
        let value = exact_value(rows.view(), Reduction::Mean);
        assert!(
            (value - std::f64::consts::FRAC_2_SQRT_PI).abs() < 6e-3,
            "{value}"
        );
    }
}
