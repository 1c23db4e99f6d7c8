//! ℓ for ONNX Runtime's training: its value, and its derivative without a derivation.
//!
//! That runtime differentiates a graph operator by operator. What it makes of the polynomial and the square root of [`fit`](super::fit) is
//! some sixty operators a layer, each over one number a sample: their number is what they cost. But the derivative is one more polynomial,
//! so with m = ‖h‖² (over d + 5 where only the running graph knows d) and m̄ equal to m, through which nothing is differentiated, the
//! graph says
//!
//! ```text
//! ℓ(m) = ℓ(m̄) + ℓ'(m̄)·(m − m̄)        ℓ' = ∂ℓ/∂m = κ/2, as ∂m/∂h = 2h
//! ```
//!
//! As m − m̄ is 0, the value is that of ℓ(m̄) to the last bit (and no number where float32 cannot hold ‖h‖²); the gradient is ℓ'(m̄), a Mul.
//! Whoever does differentiate through m̄ gets ℓ' + ℓ''·0 + ℓ'·(1 − 1), which is the same.
//!
//! m̄ is the one element of a sequence: the gradient builder goes from tensor to tensor only. A sequence copies its tensor, but m has only one
//! number a sample, and sequences are in operator set 11 and in the providers for CPU and CUDA. Optional (operator set 15) copies nothing
//! and would do for h too, but has no kernel for CUDA, where all of h would go to the host and back.

use super::emit::{Elem, Emitter, Tensor};
use crate::graph::types::TensorType;

/// The first operator set with sequences.
pub(super) const FIRST_OPSET: i64 = 11;

/// m̄: the values of `m`, not to be differentiated through.
pub(super) fn held(e: &mut Emitter, label: &str, m: &Tensor) -> Tensor {
    // No type is declared of it: it is no tensor.
    let sequence_ty = TensorType { elem: m.ty.elem, dims: None };
    let sequence = e.node(&format!("{label}_sequence"), "SequenceConstruct", &[m], Vec::new(), sequence_ty);
    let first = e.scalar("first", Elem::I64, 0.0);
    e.node(label, "SequenceAt", &[&sequence, &first], Vec::new(), m.ty.clone())
}

/// ℓ(m̄) + ℓ'(m̄)·(m − m̄), from `loss` and `derivative` at m̄.
pub(super) fn expanded(e: &mut Emitter, loss: &Tensor, derivative: &Tensor, m: &Tensor, held: &Tensor) -> Tensor {
    let zero = e.binary("scaled_difference", "Sub", m, held);
    let product = e.binary("loss_slope", "Mul", derivative, &zero);
    e.binary("loss_of_row", "Add", loss, &product)
}

#[cfg(test)]
mod tests {
    use crate::regularizer::fit::{Precision, fit, slope_coefficients};
    use crate::regularizer::kummer::{self, half};

    /// (ℓ, 2·ℓ') of the graph's operations in f32, for one sample with ‖h‖² = `m`.
    fn run(d: u64, m: f32) -> (f32, f32) {
        let fit = fit(d, Precision::F32);
        let unit = 2.0 * half(fit.divisor());
        let narrow = |c: f64| (c / unit.sqrt()) as f32;
        let loss: Vec<f32> = fit.folded().into_iter().map(narrow).collect();
        let slope: Vec<f32> = slope_coefficients(&fit.folded()).into_iter().map(|k| narrow(k / 2.0)).collect();
        let s = m + unit as f32;
        let x = 1.0 - (2.0 * unit) as f32 / s;
        let horner = |c: &[f32]| c.iter().rev().copied().reduce(|p, c| p * x + c).unwrap();
        (s.sqrt() * horner(&loss), 2.0 * (horner(&slope) / s.sqrt()))
    }

    #[test]
    fn value_and_derivative_keep_one_in_a_million_in_f32() {
        for d in [1, 2, 3, 5, 16, 64, 192, 1000, 16_384, 1_000_000] {
            for i in -721..=720 {
                let q = if i == -721 { 0.0 } else { 10_f64.powf(f64::from(i) / 120.0) };
                let m = (q * 2.0 * half(d)) as f32;
                let (loss, kappa) = run(d, m);
                let q = f64::from(m) / (2.0 * half(d));
                let loss_error = (f64::from(loss) / kummer::loss(d, q) - 1.0).abs();
                let kappa_error = (f64::from(kappa) / kummer::kappa(d, q) - 1.0).abs();
                // The fit's own 2e-7 and 3e-7 and roundings of 6e-8 each, more of them where the degree is high.
                assert!(
                    loss_error < 1e-6 && kappa_error < if d < 3 { 3e-6 } else { 1e-6 },
                    "d = {d}, m = {m}: {loss_error:e} {kappa_error:e}"
                );
            }
        }
    }
}
