//! Polynomials by interpolation in Chebyshev nodes on [−1, 1].

use std::f64::consts::PI;

/// The `count` roots cos(π(j + 1/2)/count) of T_count. None of them is an end of the interval.
pub(super) fn nodes(count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(move |j| (PI * (f64::from(j) + 0.5) / f64::from(count)).cos())
}

/// Chebyshev coefficients a_k, k < n, of the polynomial through `values` at the n = `values.len()` nodes.
pub(super) fn interpolate(values: &[f64]) -> Vec<f64> {
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    (0..count)
        .map(|k| {
            let sum: f64 = (0..count)
                .zip(values)
                .map(|(j, value)| {
                    let angle = PI * f64::from(k) * (f64::from(j) + 0.5) / f64::from(count);
                    value * angle.cos()
                })
                .sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / f64::from(count)
        })
        .collect()
}

/// The antiderivative of Σ a_k·T_k that is `start` at x = −1, one degree higher.
pub(super) fn integrate(series: &[f64], start: f64) -> Vec<f64> {
    let mut integral = vec![0.0; series.len() + 1];
    // ∫T_0 = T_1, ∫T_1 = T_2/4 + const, ∫T_k = T_{k+1}/(2(k + 1)) − T_{k−1}/(2(k − 1)).
    let mut k = 0.0;
    for (index, a) in series.iter().enumerate() {
        integral[index + 1] += if index == 0 { *a } else { a / (2.0 * (k + 1.0)) };
        if index > 1 {
            integral[index - 1] -= a / (2.0 * (k - 1.0));
        }
        k += 1.0;
    }
    integral[0] = 0.0;
    let at_minus_one: f64 = integral.iter().enumerate().map(|(k, a)| if k % 2 == 0 { *a } else { -a }).sum();
    integral[0] = start - at_minus_one;
    integral
}

/// Coefficients c_k of Σ c_k·x^k = Σ a_k·T_k(x).
///
/// T_k has coefficients as large as (1 + √2)^k/2, which a_k that fall as fast leave harmless.
pub(super) fn to_powers(series: &[f64]) -> Vec<f64> {
    let size = series.len();
    let mut powers = vec![0.0; size];
    // `now` is T_k and `next` T_{k+1}, by powers of x: T_{k+2} = 2x·T_{k+1} − T_k.
    let (mut now, mut next) = (vec![0.0; size + 1], vec![0.0; size + 1]);
    now[0] = 1.0;
    next[1] = 1.0;
    for a in series {
        for (power, t) in powers.iter_mut().zip(&now) {
            *power += a * t;
        }
        let mut after = vec![0.0; size + 1];
        for i in 0..=size {
            after[i] = if i == 0 { 0.0 } else { 2.0 * next[i - 1] } - now[i];
        }
        now = std::mem::replace(&mut next, after);
    }
    powers
}

/// Σ c_k·x^k and its derivative, by Horner's rule.
pub(super) fn horner(powers: &[f64], x: f64) -> (f64, f64) {
    powers.iter().rev().fold((0.0, 0.0), |(value, slope), c| (value * x + c, slope * x + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polynomial_is_interpolated_integrated_and_expanded_exactly() {
        // p' = 3x² − 2x + 5 has the antiderivative x³ − x² + 5x + 9 with value 2 at −1.
        let values: Vec<f64> = nodes(4).map(|x| 3.0 * x * x - 2.0 * x + 5.0).collect();
        let powers = to_powers(&integrate(&interpolate(&values), 2.0));
        for (power, expected) in powers.iter().zip([9.0, 5.0, -1.0, 1.0, 0.0]) {
            // A few roundings of numbers of size 10.
            assert!((power - expected).abs() < 1e-14, "{powers:?}");
        }
        let (value, slope) = horner(&powers, 0.5);
        assert!((value - 11.375).abs() < 1e-13 && (slope - 4.75).abs() < 1e-13);
    }

    #[test]
    fn degree_thirty_keeps_a_smooth_function_to_rounding() {
        let values: Vec<f64> = nodes(30).map(|x| (1.0 + 0.3 * x).ln()).collect();
        let powers = to_powers(&interpolate(&values));
        for x in [-1.0, -0.7, 0.0, 0.31, 1.0_f64] {
            // The coefficients in x sum to below 1, so Horner errs by a few 1e-16.
            assert!((horner(&powers, x).0 - (1.0 + 0.3 * x).ln()).abs() < 1e-14);
        }
    }
}
