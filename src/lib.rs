//! Puts PER, the projected error function regulariser, into ONNX training graphs that already exist.
#![deny(unsafe_code)]

pub mod graph;
pub mod onnx;
pub mod patch;
pub mod regularizer;
pub mod select;
pub mod wire;
