//! The rules, one operator or family each.
//!
//! Every module says **what** it rewrites, **why** ONNX Runtime training 1.19.2 wants it, and the **equation**, which holds exactly; the
//! arithmetic is arranged so that it neither overflows nor cancels, and so that the derivative is right where a function has a kink.

pub mod along;
pub mod batch_normalization;
pub mod cast_like;
pub mod choose;
pub mod convolution;
pub mod cumsum;
pub mod depth_to_space;
pub mod dropout;
pub mod einsum;
pub mod elu;
pub mod gelu;
pub mod hard_sigmoid;
pub mod hyperbolic;
pub mod interleave;
pub mod layer_normalization;
pub mod matmul;
pub mod negative_log_likelihood;
pub mod normalisations;
pub mod normalise;
pub mod old_forms;
pub mod pad;
pub mod pooling;
pub mod pow;
pub mod rectifiers;
pub mod recurrent;
pub mod reductions;
pub mod resize;
pub mod slice;
pub mod softmax_cross_entropy;
pub mod softplus;
pub mod softsign;
pub mod split;
pub mod steps;
pub mod sum;
pub mod transpose;
pub mod trigonometric;
pub mod twice;
pub mod unrolled;
