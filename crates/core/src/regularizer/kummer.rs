//! Kummer's function ₁F₁ at the three places where PER in closed form needs it, in f64.
//!
//! With b = d/2 and x = r²/2 = q·b, Kummer's transformation turns an alternating series into a mean
//! of positive terms over a Poisson variable:
//!
//! ```text
//! ₁F₁(n − 1/2; b + n; −x) = E_{K ~ Poisson(x)} [ (b + 1/2)_K / (b + n)_K ]
//! ```
//!
//! n = 0 is the loss, n = 1 the gradient's factor κ, n = 2 the slope of [`normalised_loss`].
//! Small x sums the series as it stands. Large x integrates over K by the trapezoidal rule with a step
//! of half a standard deviation: the rule is exact to e^(−8π²) there, so 40 terms do for any d and q.
//! Agreement with 40-digit arithmetic is better than 1e-13, at a few microseconds a call.

/// √(2/π) = ρ(0): the loss of a zero activation, whatever d is.
pub const RHO_ZERO: f64 = 0.797_884_560_802_865_4;

/// Below this x the Poisson series is summed from K = 0 (at most some 230 terms); above it the
/// trapezoidal rule is exact to f64, since what lies left of K = 0 weighs e^(−x).
const DIRECT: f64 = 100.0;

/// ℓ_d(r) = √(2/π)·₁F₁(−1/2; d/2; −r²/2), the mean of ρ(⟨h, θ⟩) over unit vectors θ, for q = r²/d.
///
/// `d` ≥ 1 is the length of one activation vector, `q` ≥ 0 its mean square. For d = 1 this is
/// ρ(√q) itself. NaN for a negative or NaN `q`; infinite for an infinite one.
#[must_use]
pub fn loss(d: u64, q: f64) -> f64 {
    if q == f64::INFINITY {
        return q;
    }
    RHO_ZERO * poisson_mean(half(d), q, Order::Loss)
}

/// κ_d(r) = (√(2/π)/d)·₁F₁(1/2; d/2 + 1; −r²/2), the factor in ∂ℓ_d/∂h = κ_d·h, for q = r²/d.
///
/// Equal to (2/d)·∂ℓ_d/∂q. Positive, and falls from √(2/π)/d at q = 0 to 0.
#[must_use]
pub fn kappa(d: u64, q: f64) -> f64 {
    if q == f64::INFINITY {
        return 0.0;
    }
    RHO_ZERO / (2.0 * half(d)) * poisson_mean(half(d), q, Order::Kappa)
}

/// F_d(w) with ℓ_d = √(2/π)·√(1+q)·F_d(w) and w = q/(1+q), for w in [0, 1].
///
/// F_d(0) = 1, F_d'(0) = 0, and F_d(1) = √b·Γ(b)/Γ(b + 1/2) with b = d/2; tends to 1 as d grows.
#[must_use]
pub fn normalised_loss(d: u64, w: f64) -> f64 {
    if w >= 1.0 {
        return half(d).sqrt() / gamma_ratio(half(d));
    }
    poisson_mean(half(d), w / (1.0 - w), Order::Loss) * (1.0 - w).sqrt()
}

/// G_d(w) with κ_d = (√(2/π)/d)·G_d(w)/√(1+q) and w = q/(1+q), for w in [0, 1].
///
/// G_d(0) = 1 and G_d(1) = F_d(1).
#[must_use]
pub fn normalised_kappa(d: u64, w: f64) -> f64 {
    if w >= 1.0 {
        return normalised_loss(d, 1.0);
    }
    poisson_mean(half(d), w / (1.0 - w), Order::Kappa) / (1.0 - w).sqrt()
}

/// F_d'(w) = (G_d(w) − F_d(w))/(2(1 − w)), for w in [0, 1], to full relative accuracy.
///
/// The difference cancels near w = 1 and for large d, so it is not taken: with f_n the n-th Poisson mean,
/// Stein's identity E[K·g(K)] = x·E[g(K + 1)] gives F_d' = q·√(1+q)·f₂/(4(b + 1)), all of it positive.
#[must_use]
pub fn normalised_slope(d: u64, w: f64) -> f64 {
    let b = half(d);
    if w >= 1.0 {
        return normalised_loss(d, 1.0) / (4.0 * b);
    }
    let q = w / (1.0 - w);
    q * (1.0 + q).sqrt() * poisson_mean(b, q, Order::Slope) / (4.0 * (b + 1.0))
}

/// The n of ₁F₁(n − 1/2; b + n; −x).
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// n = 0, f₀ = ℓ_d/√(2/π).
    Loss,
    /// n = 1, f₁ = κ_d·d/√(2/π).
    Kappa,
    /// n = 2, f₂.
    Slope,
}

impl Order {
    fn shift(self) -> f64 {
        match self {
            Self::Loss => 0.0,
            Self::Kappa => 1.0,
            Self::Slope => 2.0,
        }
    }
}

/// b = d/2. Exact up to d = 2⁵³, and no tensor is longer.
#[expect(clippy::cast_precision_loss, reason = "no activation has 2^53 elements")]
pub(super) fn half(d: u64) -> f64 {
    d as f64 / 2.0
}

/// f_n = E over K ~ Poisson(q·b) of (b + 1/2)_K/(b + n)_K, for any real b > 0.
pub(super) fn poisson_mean(b: f64, q: f64, order: Order) -> f64 {
    let x = q * b;
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x < DIRECT { series(b, x, order) } else { trapezoid(b, x, order) }
}

/// The Poisson mean term by term, for small x.
fn series(b: f64, x: f64, order: Order) -> f64 {
    let lower = b + order.shift();
    let (mut weight, mut ratio) = (1.0, 1.0);
    let (mut mass, mut sum) = (1.0, 1.0);
    let mut k = 0.0;
    loop {
        ratio *= (b + 0.5 + k) / (lower + k);
        k += 1.0;
        weight *= x / k;
        mass += weight;
        sum += weight * ratio;
        if k > x && weight * (1.0 + ratio) <= 1e-18 * sum {
            return sum / mass;
        }
    }
}

/// The Poisson mean over continuous K = x + z·√x, for x ≥ [`DIRECT`].
///
/// The weights are normalised by their own sum, so only their shape has to be right.
fn trapezoid(b: f64, x: f64, order: Order) -> f64 {
    let (mut mass, mut sum) = (0.0, 0.0);
    for direction in [0.5, -0.5] {
        // K = x belongs to the upward sweep.
        let mut step = if direction > 0.0 { 0.0 } else { 1.0 };
        loop {
            let excess = step * direction / x.sqrt();
            let k = x * (1.0 + excess);
            if k < 1.0 {
                break;
            }
            let weight = (-x * deviance(excess) - stirling_error(k)).exp() / (1.0 + excess).sqrt();
            mass += weight;
            sum += weight * pochhammer_ratio(b, k, order);
            if weight <= 1e-20 {
                break;
            }
            step += 1.0;
        }
    }
    sum / mass
}

/// (1 + e)·ln(1 + e) − e, whose x-fold is −ln of Poisson(x) at K = x(1 + e), up to Stirling's correction.
fn deviance(e: f64) -> f64 {
    if e.abs() > 0.02 {
        return (1.0 + e) * e.ln_1p() - e;
    }
    // Σ_{j≥2} (−e)^j/(j(j − 1)): the closed form cancels here. 0.02^9 is below f64's resolution of e².
    let mut sum = 0.0;
    for j in (2..=9_u8).rev() {
        let j = f64::from(j);
        sum = sum * -e + 1.0 / (j * (j - 1.0));
    }
    e * e * sum
}

/// ln Γ(k + 1) − ln(√(2πk)·(k/e)^k), for k large. The small k of the far tail need no accuracy.
fn stirling_error(k: f64) -> f64 {
    let i = 1.0 / (k * k);
    (1.0 / 12.0 - i * (1.0 / 360.0 - i * (1.0 / 1260.0 - i / 1680.0))) / k
}

/// (b + 1/2)_K/(b + n)_K for real K ≥ 0, by ratios of neighbouring gamma functions only.
fn pochhammer_ratio(b: f64, k: f64, order: Order) -> f64 {
    match order {
        Order::Loss => gamma_ratio(b + k) / gamma_ratio(b),
        Order::Kappa => gamma_ratio(b + 0.5) / gamma_ratio(b + 0.5 + k),
        Order::Slope => pochhammer_ratio(b, k, Order::Kappa) * (b + 1.0) / (b + 1.0 + k),
    }
}

/// Γ(z + 1/2)/Γ(z) for z > 0.
fn gamma_ratio(z: f64) -> f64 {
    // Up to z ≥ 32, where the first omitted term of the asymptotic series is 1.4e-16.
    let (mut z, mut shift) = (z, 1.0);
    while z < 32.0 {
        shift *= z / (z + 0.5);
        z += 1.0;
    }
    const SERIES: [f64; 8] = [
        1.0,
        -1.0 / 8.0,
        1.0 / 128.0,
        5.0 / 1024.0,
        -21.0 / 32_768.0,
        -399.0 / 262_144.0,
        869.0 / 4_194_304.0,
        39_325.0 / 33_554_432.0,
    ];
    let sum = SERIES.iter().rev().fold(0.0, |sum, c| sum / z + c);
    shift * z.sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(value: f64, expected: f64) -> f64 {
        (value - expected).abs() / expected.abs()
    }

    #[test]
    fn loss_and_kappa_agree_with_forty_digit_arithmetic() {
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../../tests/data/per_exact.json")).unwrap();
        assert!(rows.len() > 100);
        let (mut worst_loss, mut worst_kappa) = (0.0_f64, 0.0_f64);
        for row in rows {
            let d = row["d"].as_u64().unwrap();
            let q = row["q"].as_f64().unwrap();
            worst_loss = worst_loss.max(relative(loss(d, q), row["loss"].as_f64().unwrap()));
            worst_kappa = worst_kappa.max(relative(kappa(d, q), row["kappa"].as_f64().unwrap()));
        }
        println!("loss {worst_loss:e} kappa {worst_kappa:e}");
        // 40 terms or 230 products, each rounded to 1.1e-16, leave 1e-14; the rest is room.
        assert!(worst_loss < 1e-13 && worst_kappa < 1e-13, "{worst_loss:e} {worst_kappa:e}");
    }

    #[test]
    fn one_dimension_is_rho_itself() {
        for step in 0..200 {
            let h = f64::from(step) * 0.11;
            let rho = h * libm::erf(h / 2f64.sqrt()) + RHO_ZERO * (-h * h / 2.0).exp();
            // q = h² is rounded once, and libm's erf is good to one unit in the last place.
            assert!(relative(loss(1, h * h), rho) < 1e-14, "h = {h}");
            if h > 0.0 {
                let slope = libm::erf(h / 2f64.sqrt()) / h;
                assert!(relative(kappa(1, h * h), slope) < 1e-14, "h = {h}");
            }
        }
    }

    #[test]
    fn the_series_and_the_trapezoidal_rule_agree_where_they_meet() {
        for d in [1, 2, 3, 10, 100, 1000, 1_000_000, 10_000_000] {
            for order in [Order::Loss, Order::Kappa, Order::Slope] {
                let b = half(d);
                let (low, high) = (series(b, DIRECT, order), trapezoid(b, DIRECT, order));
                // Both are good to some 1e-15.
                assert!(relative(low, high) < 1e-14, "d = {d}: {low} {high}");
            }
        }
    }

    #[test]
    fn a_large_activation_costs_what_its_projection_costs() {
        // q → ∞: ℓ/r → E|t|·1, independent of q, with a first correction of 1/(q·b).
        for d in [1, 2, 7, 1000, 10_000_000] {
            for q in [1e10_f64, 1e12, 1e30, 1e300] {
                let limit = normalised_loss(d, 1.0) * RHO_ZERO * q.sqrt();
                assert!(relative(loss(d, q), limit) < 1e-9, "d = {d}, q = {q}");
                assert!(relative(kappa(d, q) * 2.0 * half(d) * q, limit) < 1e-9, "d = {d}, q = {q}");
            }
        }
        assert_eq!(loss(3, f64::INFINITY), f64::INFINITY);
        assert_eq!(kappa(3, f64::INFINITY), 0.0);
        assert!(loss(3, f64::NAN).is_nan() && kappa(3, f64::NAN).is_nan());
        assert!(loss(3, -1.0).is_nan() && kappa(3, -1.0).is_nan());
    }

    #[test]
    fn the_slope_is_the_difference_of_the_normalised_functions() {
        for d in [1, 2, 3, 16, 192] {
            for step in 0..90 {
                let w = f64::from(step) * 0.01;
                let gap = normalised_kappa(d, w) - normalised_loss(d, w);
                // Absolute: the difference on the right is what cancels.
                assert!((normalised_slope(d, w) - gap / (2.0 * (1.0 - w))).abs() < 1e-13);
            }
            assert_eq!(normalised_loss(d, 0.0), 1.0);
            assert_eq!(normalised_slope(d, 0.0), 0.0);
            for f in [normalised_loss, normalised_kappa, normalised_slope] {
                // One step of 1e-9 away from w = 1 changes them by a multiple of 1e-9.
                assert!(relative(f(d, 1.0 - 1e-9), f(d, 1.0)) < 1e-7);
            }
        }
    }

    #[test]
    fn many_dimensions_follow_the_series_in_one_over_d() {
        for d in [1000, 100_000, 10_000_000_u64] {
            for step in 0..=10 {
                let w = f64::from(step) * 0.1;
                let e = 0.5 / half(d);
                let second = -w.powi(2) / 2.0 + w.powi(3) - 15.0 / 32.0 * w.powi(4);
                let expected = 1.0 + e * (w * w / 4.0 + e * second);
                // The third order is below 0.05·d⁻³ on [0, 1]; 2e-16 is f64's own rounding.
                let error = (normalised_loss(d, w) - expected).abs();
                assert!(error < 0.05 * e.powi(3) + 2e-15, "d = {d}, w = {w}: {error:e}");
            }
        }
    }
}
