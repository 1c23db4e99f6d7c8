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

/// m̄: the values of `x`, not to be differentiated through. `None` below operator set 11.
pub(super) fn held(e: &mut Emitter, label: &str, x: &Tensor) -> Option<Tensor> {
    if e.opset() < 11 {
        return None;
    }
    // No type is declared of it: it is no tensor.
    let sequence_ty = TensorType { elem: x.ty.elem, dims: None };
    let sequence = e.node(&format!("{label}_sequence"), "SequenceConstruct", &[x], Vec::new(), sequence_ty);
    let first = e.scalar("first", Elem::I64, 0.0);
    Some(e.node(label, "SequenceAt", &[&sequence, &first], Vec::new(), x.ty.clone()))
}

/// ℓ(m̄) + ℓ'(m̄)·(m − m̄), from `loss` and `derivative` at m̄.
pub(super) fn expanded(e: &mut Emitter, loss: &Tensor, derivative: &Tensor, m: &Tensor, held: &Tensor) -> Tensor {
    let zero = e.binary("scaled_difference", "Sub", m, held);
    let product = e.binary("loss_slope", "Mul", derivative, &zero);
    e.binary("loss_of_row", "Add", loss, &product)
}
