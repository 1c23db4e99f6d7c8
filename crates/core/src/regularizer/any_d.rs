//! Coefficients for a graph that learns d only when it runs.
//!
//! A table for d < 64 and, from 64 up, a series in 1/(d + 5) whose terms are the same powers of x: the
//! graph gathers a row or multiplies powers, selects between them, and then runs the one sequence of
//! [`fit`](super::fit).

use ndarray::Array2;

use super::fit::{SHIFT, coefficients};
use super::{chebyshev, kummer::half};

/// Coefficients [max_d + 1, degree + 1] of P: row d holds d's fit of that degree, unscaled by √(2/π).
///
/// Row 0 is the constant 1. d = 1 is a row like the others and needs no erf. Degree 16 keeps ℓ to 3e-8 and
/// κ to 4e-7 (d = 1; 1e-7 from d = 2), degree 32 keeps 4e-12 and 1.2e-10 (d = 1; 2e-13 and 6e-12 from d = 2).
#[must_use]
pub fn table(max_d: u32, degree: u32) -> Array2<f64> {
    let degree = degree.max(1);
    let mut table = Array2::zeros((size(max_d), size(degree)));
    for (d, mut row) in (0..=max_d).zip(table.rows_mut()) {
        if d == 0 {
            row[0] = 1.0;
            continue;
        }
        for (slot, c) in row.iter_mut().zip(coefficients(half(d.into()), degree)) {
            *slot = c;
        }
    }
    table
}

/// S of shape [orders + 1, degree + 1] with c_k(d) = Σ_j S[j, k]·(d + 5)^(−j), for every d ≥ `from`.
///
/// The expansion of the page on PER's mathematics, F_d(w) = 1 + w²/(4d) + (−w²/2 + w³ − (15/32)·w⁴)/d² + …,
/// is asymptotic, and needs d large. Here d is a real number, so c_k is interpolated in 1/(d + 5) over
/// [0, 1/(from + 5)] instead, with c(∞) = (1, 0, …) kept exactly. Worst relative errors over d ≥ from:
///
/// | from | orders | degree | ℓ | κ |
/// |---|---|---|---|---|
/// | 64 | 4 | 6 | 7e-9 | 3e-8 |
/// | 32 | 5 | 8 | 7e-9 | 2e-8 |
/// | 64 | 6 | 10 | 2e-12 | 8e-12 |
/// | 64 | 7 | 12 | 5e-14 | 1e-13 |
#[must_use]
pub fn large_d_series(from: u32, orders: u32, degree: u32) -> Array2<f64> {
    let (orders, degree) = (orders.max(1), degree.max(1));
    let shift = f64::from(SHIFT);
    let widest = 1.0 / (f64::from(from.max(1)) + shift);
    // At the node t, 1/(d + 5) = widest·(1 + t)/2, and (c_k − δ_k0)·(d + 5) is what is interpolated.
    let samples: Vec<Vec<f64>> = chebyshev::nodes(orders)
        .map(|t| {
            let inverse = widest * (1.0 + t) / 2.0;
            let mut row = coefficients((1.0 / inverse - shift) / 2.0, degree);
            row[0] -= 1.0;
            row.iter_mut().for_each(|c| *c /= inverse);
            row
        })
        .collect();
    let mut series = Array2::zeros((size(orders), size(degree)));
    series[[0, 0]] = 1.0;
    for k in 0..size(degree) {
        let values: Vec<f64> = samples.iter().map(|row| row[k]).collect();
        let in_t = chebyshev::to_powers(&chebyshev::interpolate(&values));
        for (j, c) in substitute(&in_t, 2.0 / widest).into_iter().enumerate() {
            series[[j + 1, k]] = c;
        }
    }
    series
}

/// Powers of y in Σ c_j·(slope·y − 1)^j.
fn substitute(powers: &[f64], slope: f64) -> Vec<f64> {
    let mut result = vec![0.0; powers.len()];
    // Horner over polynomials: result ← result·(slope·y − 1) + c.
    for c in powers.iter().rev() {
        for i in (0..result.len()).rev() {
            let lower = if i == 0 { 0.0 } else { result[i - 1] };
            result[i] = slope * lower - result[i];
        }
        result[0] += c;
    }
    result
}

/// The number of indices 0 … `last`.
fn size(last: u32) -> usize {
    usize::try_from(last).map_or(usize::MAX, |last| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regularizer::{fit::Fit, graph_f32, kummer, kummer::RHO_ZERO};

    /// Largest relative errors of (ℓ, κ) over q from 0 to 10⁶.
    fn errors(d: u64, coefficients: Vec<f64>) -> (f64, f64) {
        let fit = Fit { d, coefficients, loss_error: 0.0, kappa_error: 0.0 };
        (-100..=120).fold((0.0, 0.0), |(loss, kappa): (f64, f64), i| {
            let q = if i == -100 { 0.0 } else { 10_f64.powf(f64::from(i) / 20.0) };
            let n = q * 2.0 * half(d);
            (
                loss.max((fit.loss(n) / kummer::loss(d, q) - 1.0).abs()),
                kappa.max((fit.kappa(n) / kummer::kappa(d, q) - 1.0).abs()),
            )
        })
    }

    fn evaluate(series: &Array2<f64>, d: u64) -> Vec<f64> {
        let inverse = 0.5 / half(d + u64::from(SHIFT));
        series.columns().into_iter().map(|c| c.iter().rev().fold(0.0, |sum, s| sum * inverse + s)).collect()
    }

    #[test]
    fn the_table_serves_every_small_d_and_one_as_well() {
        let (single, double) = (table(63, 16), table(63, 32));
        assert_eq!((single.dim(), double.dim()), ((64, 17), (64, 33)));
        for d in 1..64_u32 {
            let row = usize::try_from(d).unwrap();
            let (loss, kappa) = errors(d.into(), single.row(row).to_vec());
            // Measured: 2.5e-8 and 4e-7 at d = 1, 7e-9 and 1e-7 at d = 2, less from there on.
            assert!(loss < 1e-7 && kappa < 5e-7, "d = {d}: {loss:e} {kappa:e}");
            let (loss, kappa) = errors(d.into(), double.row(row).to_vec());
            let tolerance = if d == 1 { 2e-10 } else { 1e-11 };
            assert!(loss < 1e-11 && kappa < tolerance, "d = {d}: {loss:e} {kappa:e}");
        }
        assert!(errors(1, single.row(0).to_vec()).0 < 1.0);
    }

    #[test]
    fn the_series_takes_over_from_the_table_without_a_gap() {
        // (from, orders, degree) and the tolerances of ℓ and κ, twice what was measured.
        for (from, orders, degree, loss_tolerance, kappa_tolerance) in
            [(64, 4, 6, 2e-8, 6e-8), (32, 5, 8, 2e-8, 4e-8), (64, 7, 12, 1e-13, 3e-13)]
        {
            let series = large_d_series(from, orders, degree);
            for d in [from, 64, 65, 80, 128, 192, 1000, 4096, 1_000_000, 10_000_000] {
                let (loss, kappa) = errors(d.into(), evaluate(&series, d.into()));
                assert!(loss < loss_tolerance && kappa < kappa_tolerance, "from {from}, d = {d}: {loss:e} {kappa:e}");
            }
        }
    }

    #[test]
    fn both_keep_one_in_a_million_in_f32() {
        let (table, series) = (table(63, 16), large_d_series(64, 4, 6));
        let folded = |row: &[f64]| row.iter().map(|c| c * RHO_ZERO).collect::<Vec<f64>>();
        for d in (1..64).chain([64, 100, 1000, 1_000_000]) {
            let row = match usize::try_from(d) {
                Ok(row) if row < 64 => table.row(row).to_vec(),
                _ => evaluate(&series, d),
            };
            let (loss, kappa) = graph_f32::errors(d, &folded(&row));
            // The fit's own 4e-7 and a handful of roundings of 6e-8 each.
            assert!(loss < 5e-7 && kappa < 1e-6, "d = {d}: {loss:e} {kappa:e}");
        }
    }

    #[test]
    fn an_infinite_d_is_the_pseudo_huber_loss() {
        let series = large_d_series(64, 4, 6);
        assert_eq!(series[[0, 0]], 1.0);
        assert!(series.row(0).iter().skip(1).all(|c| *c == 0.0));
        // F = 1 + w²/(4d) + … makes the first term 5u/2 + u²/4 with u = (1 + x)/2, whose x⁰ is 1.3125.
        // Interpolation to third order in 1/69 leaves it within 1e-3.
        assert!((series[[1, 0]] - 1.3125).abs() < 1e-3, "{}", series[[1, 0]]);
    }
}
