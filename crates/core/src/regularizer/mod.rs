//! Regularisers: for each one file with its value and gradient in f64 (the reference) and the same in ONNX operators.
//!
//! To add one: a struct in a file of its own, `value` and `gradient` on ndarray, and [`Regularizer`] for the graph.

pub mod any_d;
mod chebyshev;
pub mod emit;
pub mod exact;
mod expansion;
pub mod fit;
mod gradient;
#[cfg(test)]
mod graph_f32;
pub mod kummer;
mod layer;
mod norm;
#[cfg(test)]
mod reference_tests;
pub mod rho;
pub mod sampled;
mod signs;
mod sums;
pub mod template;

pub use exact::Exact;
pub use gradient::Gradient;
pub use layer::{Cost, Layer, Projection, Unsupported, View};
pub use rho::Reduction;
pub use sampled::Sampled;

use emit::{Emitter, Tensor};

/// A penalty on one layer's activations that can be written in ONNX operators.
pub trait Regularizer: Sync {
    /// The name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// Whether the operator set can express it for this layer.
    fn check(&self, opset: i64, layer: &Layer) -> Result<(), Unsupported>;

    /// Writes the nodes that compute the penalty of a layer; returns it as a scalar in the layer's arithmetic.
    ///
    /// Nothing but the tapped value is read, and no gradient flows anywhere else. Call [`Regularizer::check`] first.
    fn emit(&self, e: &mut Emitter, layer: &Layer) -> Tensor;

    /// Writes the nodes that compute λ·∂(penalty)/∂h of a layer, in the shape and type of the tapped value h.
    ///
    /// `coef` is λ, a scalar in the layer's arithmetic. `with_value` asks for the penalty too, of the same random numbers. The nodes
    /// need no gradient themselves. h's element type has to be known. Call [`Regularizer::check`] first.
    fn emit_gradient(&self, e: &mut Emitter, layer: &Layer, coef: &Tensor, with_value: bool) -> Gradient;

    /// What a layer costs in one step, forward. Dimensions that its shape leaves open count as 1.
    fn cost(&self, layer: &Layer) -> Cost;
}
