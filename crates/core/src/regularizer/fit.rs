//! ℓ_d as a polynomial and one square root, which every ONNX runtime can evaluate and differentiate.
//!
//! For one sample h of d ≥ 1 values, with n = ‖h‖² and the coefficients c_k of [`Fit::folded`]:
//!
//! ```text
//! m = n / (d + 5)            Div       (or Mul by the constant 1/(d + 5))
//! s = m + 1                  Add
//! v = 2 / s                  Div
//! x = 1 − v                  Sub       x in [−1, 1]
//! p = c_D                    Horner:
//! p = p·x + c_k              Mul, Add  for k = D − 1, …, 0
//! r = √s                     Sqrt
//! ℓ = r·p                    Mul
//! ```
//!
//! A graph that holds its gradients gets κ from the same x and s: p + 4·p'(x)/s is a polynomial K(x) of the same degree, so
//! κ = K(x)/((d + 5)·√s) is one more Horner's rule and no derivative.
//!
//! This sequence, in this order, is what the graph emits and what the tests below run in f32, forwards
//! and backwards. The derivative is all positive terms: κ = 2·∂ℓ/∂n = (p + 4·p'(x)/s)/((d + 5)·√s).
//!
//! Why d + 5. Any divisor d + c gives ℓ_d = √(2/π)·√s·P(x) with a smooth P; c = 0 is the F_d(w) of
//! [`normalised_loss`](super::kummer::normalised_loss). But F_d has an essential singularity at w = 1,
//! and it is strongest for small d; a larger c moves the variation of ℓ_d away from it. Measured, for the
//! degree that brings κ to 3e-7 and the error of κ that f32 then makes of it:
//!
//! | d | c = 0 | c = 3 | c = 5 |
//! |---|---|---|---|
//! | 1 | none | 19, 4.5e-7 | 18, 4.7e-7 |
//! | 2 | 23, 4.4e-6 | 17, 4.3e-7 | 15, 4.1e-7 |
//! | 3 | 18, 4.9e-7 | 14, 3.4e-7 | 12, 4.0e-7 |
//!
//! With c = 0, P'(−1) = 0 also has to come about by cancellation; with c > 0 every term stays positive.
//! As d grows c no longer matters. d = 1 needs no erf this way.
//!
//! P' is interpolated and integrated, not P: whoever differentiates the graph gets the derivative of the
//! fit, and an error in P' is the larger one. P(−1) = 1 holds by construction, so ℓ(0) = √(2/π).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::chebyshev;
use super::kummer::{Order, RHO_ZERO, half, poisson_mean};

/// The c of n/(d + c).
pub const SHIFT: u32 = 5;

/// No fit has a higher degree.
const MAX_DEGREE: u32 = 32;

/// The arithmetic of the graph that evaluates a fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// ℓ to 2e-7 and κ to 3e-7, relative: with f32's rounding both stay below 1e-6.
    F32,
    /// ℓ and κ to 1e-11, relative (κ to 2e-10 for d = 1).
    F64,
}

impl Precision {
    /// Largest relative errors of (ℓ, κ).
    fn tolerances(self) -> (f64, f64) {
        match self {
            Self::F32 => (2e-7, 3e-7),
            Self::F64 => (1e-11, 1e-11),
        }
    }
}

/// A polynomial P with ℓ_d = √(2/π)·√s·P(1 − 2/s), s = 1 + ‖h‖²/(d + 5).
#[derive(Clone, Debug)]
pub struct Fit {
    /// The number of values in one sample.
    pub d: u64,
    /// c_k multiplies x^k. Their absolute values sum to less than 3 (13 for d = 1 at degree 32), so
    /// Horner's rule is stable.
    pub coefficients: Vec<f64>,
    /// Largest relative error of ℓ_d, over q = ‖h‖²/d from 0 to 10⁶, in f64.
    pub loss_error: f64,
    /// Largest relative error of κ_d as the derivative of the fit, over the same q, in f64.
    pub kappa_error: f64,
}

impl Fit {
    /// The degree D of P.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.coefficients.len().saturating_sub(1)
    }

    /// The d + 5 that divides ‖h‖².
    #[must_use]
    pub fn divisor(&self) -> u64 {
        self.d + u64::from(SHIFT)
    }

    /// The coefficients times √(2/π), as the graph holds them.
    #[must_use]
    pub fn folded(&self) -> Vec<f64> {
        self.coefficients.iter().map(|c| c * RHO_ZERO).collect()
    }

    /// The coefficients of K(x) = P(x) + 4·P'(x)/s times √(2/π), with which κ_d = K(x)/((d + 5)·√s).
    #[must_use]
    pub fn folded_slope(&self) -> Vec<f64> {
        slope_coefficients(&self.folded())
    }

    /// The fit's ℓ_d for a sample with ‖h‖² = `norm_squared`.
    #[must_use]
    pub fn loss(&self, norm_squared: f64) -> f64 {
        let s = 1.0 + norm_squared / (2.0 * half(self.divisor()));
        RHO_ZERO * s.sqrt() * chebyshev::horner(&self.coefficients, 1.0 - 2.0 / s).0
    }

    /// The derivative of [`Fit::loss`] in the form κ_d, with ∂ℓ_d/∂h = κ_d·h.
    #[must_use]
    pub fn kappa(&self, norm_squared: f64) -> f64 {
        let divisor = 2.0 * half(self.divisor());
        let s = 1.0 + norm_squared / divisor;
        let (value, slope) = chebyshev::horner(&self.coefficients, 1.0 - 2.0 / s);
        RHO_ZERO / divisor * (value + 4.0 * slope / s) / s.sqrt()
    }
}

/// The fit of lowest degree that keeps `precision`, or the best one up to degree 32 where none does.
///
/// `d` ≥ 1 (0 is taken for 1). Takes about a millisecond the first time that a d is asked for.
#[must_use]
pub fn fit(d: u64, precision: Precision) -> Arc<Fit> {
    type Fits = Mutex<HashMap<(u64, Precision), Arc<Fit>>>;
    static KNOWN: LazyLock<Fits> = LazyLock::new(Mutex::default);
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(&(d, precision)) {
        return Arc::clone(known);
    }
    let fit = Arc::new(find(d, precision));
    lock().insert((d, precision), Arc::clone(&fit));
    fit
}

fn find(d: u64, precision: Precision) -> Fit {
    let d = d.max(1);
    let exact = Exact::new(d);
    let (loss_tolerance, kappa_tolerance) = precision.tolerances();
    let mut best = exact.measure(coefficients(half(d), 1));
    for degree in 2..=MAX_DEGREE {
        if best.loss_error <= loss_tolerance && best.kappa_error <= kappa_tolerance {
            break;
        }
        let next = exact.measure(coefficients(half(d), degree));
        if next.kappa_error < best.kappa_error {
            best = next;
        }
    }
    best
}

/// The fit of a given degree ≥ 1, with its errors.
#[must_use]
pub fn fit_of_degree(d: u64, degree: u32) -> Fit {
    let d = d.max(1);
    Exact::new(d).measure(coefficients(half(d), degree.max(1)))
}

/// c_0 … c_D of P for b = d/2, which may be any real number here.
pub(super) fn coefficients(b: f64, degree: u32) -> Vec<f64> {
    let slopes: Vec<f64> = chebyshev::nodes(degree).map(|x| slope(b, x)).collect();
    chebyshev::to_powers(&chebyshev::integrate(&chebyshev::interpolate(&slopes), 1.0))
}

/// The coefficients of P + 4·P'/s, of the same degree: 4/s = 2·(1 − x), so k_j = (1 − 2j)·c_j + 2·(j + 1)·c_{j+1}.
///
/// So for any polynomial P, the derivative of √s·P(1 − 2/s) by s is half of this one at x, over √s.
#[must_use]
pub fn slope_coefficients(coefficients: &[f64]) -> Vec<f64> {
    let next = coefficients.iter().skip(1).chain(std::iter::once(&0.0));
    (0..)
        .map(f64::from)
        .zip(coefficients.iter().zip(next))
        .map(|(j, (c, next))| (1.0 - 2.0 * j) * c + 2.0 * (j + 1.0) * next)
        .collect()
}

/// P'(x) = (√s/4)·(q·f₂/(2(b + 1)) + (5/d)·f₁), positive terms only (see [`Order`] for f_n).
///
/// From P + 4P'/s = √s·(1 + 5/d)·f₁ and Stein's identity, as for
/// [`normalised_slope`](super::kummer::normalised_slope).
fn slope(b: f64, x: f64) -> f64 {
    let shift = f64::from(SHIFT) / (2.0 * b);
    let s = 2.0 / (1.0 - x);
    let q = (1.0 + shift) * (s - 1.0);
    let curvature = q * poisson_mean(b, q, Order::Slope) / (2.0 * (b + 1.0));
    s.sqrt() / 4.0 * (curvature + shift * poisson_mean(b, q, Order::Kappa))
}

/// Exact values to measure fits against.
struct Exact {
    d: u64,
    /// (‖h‖², f₀, f₁) with ℓ = √(2/π)·f₀ and κ = √(2/π)·f₁/d.
    points: Vec<(f64, f64, f64)>,
}

impl Exact {
    /// q = 0 and 24 values a decade from 10⁻⁴ to 10⁶: several to every oscillation of a fit's error.
    fn new(d: u64) -> Self {
        let b = half(d);
        let points = std::iter::once(0.0)
            .chain((-96..=144).map(|i| 10_f64.powf(f64::from(i) / 24.0)))
            .map(|q| {
                let (loss, kappa) = (poisson_mean(b, q, Order::Loss), poisson_mean(b, q, Order::Kappa));
                (2.0 * b * q, loss, kappa)
            })
            .collect();
        Self { d, points }
    }

    fn measure(&self, coefficients: Vec<f64>) -> Fit {
        let mut fit = Fit { d: self.d, coefficients, loss_error: 0.0, kappa_error: 0.0 };
        let scale = 2.0 * half(self.d) / RHO_ZERO;
        for &(norm_squared, loss, kappa) in &self.points {
            let loss_error = (fit.loss(norm_squared) / RHO_ZERO / loss - 1.0).abs();
            let kappa_error = (fit.kappa(norm_squared) * scale / kappa - 1.0).abs();
            fit.loss_error = fit.loss_error.max(loss_error);
            fit.kappa_error = fit.kappa_error.max(kappa_error);
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regularizer::{graph_f32, kummer};

    const DIMENSIONS: [u64; 16] = [1, 2, 3, 4, 5, 8, 10, 16, 32, 64, 128, 192, 1000, 4096, 16_384, 1_000_000];

    #[test]
    fn the_graph_in_f32_keeps_loss_and_gradient_to_one_in_a_million() {
        for d in DIMENSIONS {
            let fit = fit(d, Precision::F32);
            let (loss_error, kappa_error) = graph_f32::errors(d, &fit.folded());
            // The fit's own 3e-7 and a handful of roundings of 6e-8 each.
            assert!(loss_error < 5e-7 && kappa_error < 1e-6, "d = {d}");
        }
    }

    #[test]
    fn the_slope_as_one_polynomial_keeps_one_in_a_million_in_f32() {
        for d in DIMENSIONS {
            let fit = fit(d, Precision::F32);
            let slope: Vec<f32> = fit.folded_slope().iter().map(|c| *c as f32).collect();
            for i in -720..=720 {
                let n = (10_f64.powf(f64::from(i) / 120.0) * 2.0 * half(d)) as f32;
                let s = n * (1.0 / fit.divisor() as f64) as f32 + 1.0;
                let x = 1.0 - 2.0 / s;
                let k = slope.iter().rev().fold(0.0, |p, c| p * x + c);
                let kappa = k / s.sqrt() / fit.divisor() as f32;
                let exact = kummer::kappa(d, f64::from(n) / (2.0 * half(d)));
                // The fit's own 3e-7 and roundings of 6e-8 each, more of them where the degree is high.
                assert!(
                    (f64::from(kappa) / exact - 1.0).abs() < if d < 3 { 3e-6 } else { 1e-6 },
                    "d = {d}, n = {n}: {kappa:e} {exact:e}"
                );
            }
        }
    }

    #[test]
    fn the_fit_in_f64_keeps_eleven_digits() {
        for d in DIMENSIONS {
            let fit = fit(d, Precision::F64);
            let sum: f64 = fit.coefficients.iter().map(|c| c.abs()).sum();
            let (kappa_tolerance, largest) = if d == 1 { (2e-10, 13.0) } else { (1e-11, 3.0) };
            assert!(fit.loss_error < 1e-11 && fit.kappa_error < kappa_tolerance, "d = {d}");
            assert!(sum < largest, "d = {d}: {sum}");
        }
    }

    #[test]
    fn degrees_fall_as_dimensions_rise() {
        let degrees = |precision| DIMENSIONS.map(|d| fit(d, precision).degree());
        assert_eq!(degrees(Precision::F32), [18, 15, 12, 12, 11, 9, 9, 7, 6, 5, 4, 4, 3, 2, 2, 2]);
        assert_eq!(degrees(Precision::F64), [32, 32, 28, 26, 24, 20, 18, 15, 12, 10, 8, 8, 6, 4, 4, 2]);
    }

    #[test]
    fn a_fit_holds_beyond_the_range_it_was_measured_on() {
        for d in DIMENSIONS {
            let fit = fit(d, Precision::F32);
            for q in [1e8, 1e12] {
                let n = q * 2.0 * half(d);
                // The errors at q = 10⁶ are those of P(1) already.
                assert!((fit.loss(n) / kummer::loss(d, q) - 1.0).abs() < 2e-7, "d = {d}");
                assert!((fit.kappa(n) / kummer::kappa(d, q) - 1.0).abs() < 3e-7, "d = {d}");
            }
        }
    }

    #[test]
    fn no_lower_degree_would_do() {
        for d in [2, 10, 192] {
            let degree = u32::try_from(fit(d, Precision::F32).degree()).unwrap();
            assert!(fit_of_degree(d, degree - 1).kappa_error > 3e-7);
        }
    }

    #[test]
    fn a_zero_activation_costs_exactly_what_rho_of_zero_does() {
        for d in DIMENSIONS {
            // Σ c_k·(−1)^k with coefficients that sum to 3 at most.
            assert!((fit(d, Precision::F32).loss(0.0) - RHO_ZERO).abs() < 1e-15);
        }
    }
}
