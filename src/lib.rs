pub mod onnx;
pub mod regularizer;
