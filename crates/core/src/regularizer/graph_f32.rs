//! The operations of an emitted graph, run in f32, for the tests of the coefficients.

use super::kummer::{self, half};

/// The sequence of [`fit`](super::fit) in f32: (ℓ, κ), κ by reverse mode through the same operations.
///
/// `coefficients` are those of P times √(2/π), from x⁰ up.
fn run(n: f32, divisor: f32, coefficients: &[f32]) -> (f32, f32) {
    let m = n / divisor;
    let s = m + 1.0;
    let v = 2.0 / s;
    let x = 1.0 - v;
    let (last, rest) = coefficients.split_last().unwrap();
    let mut partial = vec![*last];
    for c in rest.iter().rev() {
        partial.push(partial.last().unwrap() * x + c);
    }
    let r = s.sqrt();
    let p = partial.pop().unwrap();
    let loss = r * p;
    // Backwards, from ∂ℓ/∂ℓ = 1.
    let (grad_r, mut grad_p, mut grad_x) = (p, r, 0.0);
    for before in partial.iter().rev() {
        grad_x += grad_p * before;
        grad_p *= x;
    }
    let grad_v = -grad_x;
    let grad_s = grad_r * 0.5 / r - grad_v * v / s;
    (loss, 2.0 * (grad_s / divisor))
}

/// Largest relative errors of (ℓ, κ) in f32 against Kummer's function, at q = 0 and 120 values of q a
/// decade from 10⁻⁶ to 10⁶. `coefficients` are those of P times √(2/π).
pub(super) fn errors(d: u64, coefficients: &[f64]) -> (f64, f64) {
    let coefficients: Vec<f32> = coefficients.iter().copied().map(narrow).collect();
    let dimension = 2.0 * half(d);
    let divisor = narrow(dimension + f64::from(super::fit::SHIFT));
    let (mut loss_error, mut kappa_error) = (0.0_f64, 0.0_f64);
    for i in -720..=720 {
        let q = if i == -720 { 0.0 } else { 10_f64.powf(f64::from(i) / 120.0) };
        // What the graph is given is ‖h‖² in f32, so its exact value is taken there.
        let n = narrow(q * dimension);
        let q = f64::from(n) / dimension;
        let (loss, kappa) = run(n, divisor, &coefficients);
        loss_error = loss_error.max((f64::from(loss) / kummer::loss(d, q) - 1.0).abs());
        kappa_error = kappa_error.max((f64::from(kappa) / kummer::kappa(d, q) - 1.0).abs());
    }
    (loss_error, kappa_error)
}

/// Rounded to f32, which is the point.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
fn narrow(value: f64) -> f32 {
    value as f32
}
