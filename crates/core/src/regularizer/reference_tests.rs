//! The references against finite differences, against each other, and against what is known of normal data.

use ndarray::Array1;

use ndarray::{Array2, ArrayView2, Axis};

use super::exact::{gradient as exact_gradient, value as exact_value};
use super::rho::{Reduction, float};
use super::sampled::{gradient as sampled_gradient, value as sampled_value};

/// Standard normal values from a fixed linear congruential stream, two by Box and Muller's method.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
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
fn worst_difference(rows: &Array2<f64>, gradient: &Array2<f64>, value: impl Fn(ArrayView2<f64>) -> f64) -> f64 {
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
        let largest = rows.map_axis(Axis(1), |h| h.dot(&h).sqrt()).fold(0.0, |a: f64, b| a.max(*b));
        let error = 5.0 * largest / (float(d) * float(SLICES)).sqrt();
        assert!((exact - sampled).abs() < error, "d = {d}: {exact} {sampled} ± {error}");
        // |erf·θ_k| averages 1/√d, and the mean takes a third of it.
        let gap =
            exact_gradient(rows.view(), Reduction::Mean) - sampled_gradient(rows.view(), theta.view(), Reduction::Mean);
        let error = 5.0 / 3.0 / (float(d) * float(SLICES)).sqrt();
        assert!(gap.iter().all(|g| g.abs() < error), "d = {d}: {gap:e}");
    }
}

#[test]
fn in_one_dimension_a_single_slice_is_the_expectation() {
    let rows = Normal(3).matrix([50, 1]) * 3.0;
    let theta = -Array2::<f64>::ones((1, 1));
    // Both are ρ(h), to rounding.
    let gap = exact_value(rows.view(), Reduction::Sum) - sampled_value(rows.view(), theta.view(), Reduction::Sum);
    assert!(gap.abs() < 1e-12);
    let gap = exact_gradient(rows.view(), Reduction::Sum) - sampled_gradient(rows.view(), theta.view(), Reduction::Sum);
    assert!(gap.iter().all(|g| g.abs() < 1e-14));
}

#[test]
fn a_sum_is_the_mean_times_the_number_of_rows() {
    let mut normal = Normal(4);
    let (rows, theta) = (normal.matrix([6, 5]), normal.theta(5, 8));
    let sum = exact_value(rows.view(), Reduction::Sum);
    assert!((sum - 6.0 * exact_value(rows.view(), Reduction::Mean)).abs() < 1e-13);
    let sum = sampled_value(rows.view(), theta.view(), Reduction::Sum);
    assert!((sum - 6.0 * sampled_value(rows.view(), theta.view(), Reduction::Mean)).abs() < 1e-13);
}

#[test]
fn the_loss_of_normal_data_tends_to_two_over_root_pi() {
    let rows = Normal(5).matrix([100_000, 1]);
    // E[ρ(y)] = 2/√π for y ~ N(0, 1), whose ρ deviates by 0.45: four standard errors.
    let value = exact_value(rows.view(), Reduction::Mean);
    assert!((value - std::f64::consts::FRAC_2_SQRT_PI).abs() < 6e-3, "{value}");
}
