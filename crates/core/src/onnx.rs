//! The ONNX wire schema (`schemas/onnx.proto`, IR version 14), compiled by `build.rs`.
//!
//! Names and fields are those of the schema; see `schemas/README.md` for its version.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
