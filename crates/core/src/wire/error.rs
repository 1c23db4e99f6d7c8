//! What can go wrong between a file and its structure.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Shorthand of this layer.
pub type WireResult<T> = Result<T, WireError>;

/// Why a file was refused. Every message is a sentence for a person; offsets count bytes from the start of the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The file could not be opened, read or mapped.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output could not be written; the target is as it was.
    #[error("cannot write {path}: {source}; {path} is as it was before")]
    Write {
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The target cannot be written at all; nothing was tried.
    #[error("cannot write {path}: {problem}")]
    Target {
        /// The target.
        path: PathBuf,
        /// What is in the way, and what to do.
        problem: String,
    },
    /// Writing to a pipe or a device failed on the way.
    #[error("cannot write {path}: {source}; part of the output may have arrived")]
    WriteDirect {
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever read the output through a pipe stopped reading, as `head` does. No reason to complain.
    #[error("the reader of the output went away")]
    ReaderGone,
    /// The file is something else than an ONNX model.
    #[error("{path} is not an ONNX model: {found}")]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do about it.
        found: String,
    },
    /// A record runs past the end of its message.
    #[error(
        "the file is cut off or damaged: field {field} at byte {offset} runs past the end of its message; fetch or export it again"
    )]
    Truncated {
        /// First byte of the record.
        offset: usize,
        /// Its field number.
        field: u32,
    },
    /// Bytes that are no protobuf.
    #[error("byte {offset} holds {what}")]
    Malformed {
        /// First offending byte.
        offset: usize,
        /// What stands there.
        what: &'static str,
    },
    /// A message that prost refuses.
    #[error("{part} at byte {offset} cannot be decoded: {source}")]
    Decode {
        /// Which message: "node 12", "output 0" …
        part: String,
        /// First byte of the message.
        offset: usize,
        /// What prost said.
        source: prost::DecodeError,
    },
    /// An edit names something that the file does not hold; a defect of the caller.
    #[error("the edit names {what}, which the model does not have")]
    NoSuchPlace {
        /// The place.
        what: String,
    },
    /// Protobuf messages end at 2 GiB.
    #[error(
        "the result would be {size} bytes, and no protobuf reader takes more than 2147483647: \
         move the weights to external data first (onnx.save_model(…, save_as_external_data=True)), nothing was written"
    )]
    TooLarge {
        /// Size of the result in bytes.
        size: u64,
    },
    /// A tensor whose external data lies where it must not.
    #[error("tensor {tensor} keeps its data in {location:?}, {problem}: {advice}")]
    External {
        /// The tensor.
        tensor: String,
        /// The location as the model has it.
        location: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
}
