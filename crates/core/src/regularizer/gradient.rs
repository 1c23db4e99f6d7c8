//! What gradients of the estimators share: what they return, and the weight λ/b of a row.

use super::Reduction;
use super::emit::{Emitter, Tensor};
use super::layer::Layer;

/// A penalty's gradient in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// λ·∂(penalty)/∂h, in h's shape and type.
    pub tensor: Tensor,
    /// The penalty itself, a scalar in the layer's arithmetic, where it was asked for.
    pub value: Option<Tensor>,
}

/// λ·numerator/divisor, and for a mean also over the number of elements of `counted`, which is constant where its shape is known.
pub(super) fn weight(
    e: &mut Emitter,
    layer: &Layer,
    coef: &Tensor,
    (label, numerator): (&str, f64),
    divisor: u64,
    counted: &Tensor,
) -> Tensor {
    let count = match layer.reduction {
        Reduction::Sum => Some(1),
        Reduction::Mean => counted.ty.element_count(),
    };
    let known = divisor.saturating_mul(count.unwrap_or(1));
    let factor = e.scalar(&format!("{label}_over_{known}"), layer.elem(), numerator / known as f64);
    if count.is_some() {
        return e.binary("weight", "Mul", coef, &factor);
    }
    let scaled = e.binary("weight_of_all", "Mul", coef, &factor);
    let count = e.size("count", counted);
    let count = e.cast("count_cast", &count, layer.elem().onnx());
    e.binary("weight", "Div", &scaled, &count)
}
