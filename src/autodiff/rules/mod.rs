//! The gradient rules, one file for each family.
//!
//! Notation: x are a node's inputs, y its outputs, g the cotangent ∂loss/∂y. Every module gives its equations.

pub mod activation;
pub mod arithmetic;
pub mod choice;
pub mod convolution;
pub mod flow;
pub mod gather;
pub mod layout;
pub mod loss;
pub mod normalization;
pub mod pieces;
pub mod pooling;
pub mod product;
pub mod recurrent;
pub mod reduction;
pub mod softmax;
pub mod unary;
mod winograd;
