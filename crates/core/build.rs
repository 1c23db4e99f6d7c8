//! Compiles the ONNX wire schema with protox, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schemas/onnx.proto");
    let descriptors = protox::compile(["schemas/onnx.proto"], ["schemas"])?;
    prost_build::Config::new()
        // `Bytes` fields are slices of the mapped file: weights are never copied.
        .bytes(["."])
        // The schema's comments are Markdown only by accident, and rustdoc would complain.
        .disable_comments(["."])
        // An attribute holds one value of many kinds: in place, the rare and large ones would make each take 1.7 kB.
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .boxed(".onnx.AttributeProto.tp")
        .compile_fds(descriptors)?;
    Ok(())
}
