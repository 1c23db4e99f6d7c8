//! The rules, one operator or family each.
//!
//! Every module says **what** it rewrites, **why** ONNX Runtime training 1.19.2 wants it, and the **equation**, which holds exactly; the
//! arithmetic is arranged so that it neither overflows nor cancels, and so that the derivative is right where a function has a kink.

pub mod elu;
pub mod layer_normalization;
pub mod recurrent;
pub mod softmax_cross_entropy;
pub mod sum;
pub mod transpose;
