//! What the estimators share: ρ and how rows become one number. f64, on plain matrices.

use super::kummer::RHO_ZERO;

/// How the rows' losses become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// (1/b) Σ_i, equations 5 and 6 of the paper.
    #[default]
    Mean,
    /// Σ_i, the paper's algorithm 1 read literally.
    Sum,
}

impl Reduction {
    /// The weight of each of `rows` rows.
    pub(super) fn weight(self, rows: usize) -> f64 {
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

/// A count as f64.
#[expect(clippy::cast_precision_loss, reason = "no array has 2^53 elements")]
pub(super) fn float(count: usize) -> f64 {
    count as f64
}
