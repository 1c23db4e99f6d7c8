//! Why a model could not be run.

use std::path::PathBuf;

use thiserror::Error;

use crate::graph::GraphError;

/// Shorthand of this layer.
pub type EngineResult<T> = Result<T, EngineError>;

/// What stands between a model and its outputs. Every message is a sentence for a person.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No ONNX Runtime anywhere.
    #[error(
        "no ONNX Runtime was found ({}); install one with 'pip install onnxruntime', or name one with --ort PATH or \
         ORT_DYLIB_PATH", tried.join("; ")
    )]
    NoRuntime {
        /// Where it was looked for and what was there.
        tried: Vec<String>,
    },
    /// The library that was asked for cannot be used.
    #[error("{path}, which {origin} names, cannot be used as ONNX Runtime: {problem}")]
    BadLibrary {
        /// What was asked for.
        path: PathBuf,
        /// Who asked: an option or an environment variable.
        origin: &'static str,
        /// Why not, and what to do.
        problem: String,
    },
    /// A second library in one process.
    #[error("this process runs {loaded} already, and no process can run a second ONNX Runtime ({asked}) beside it")]
    AlreadyLoaded {
        /// The one that runs.
        loaded: PathBuf,
        /// The one that was asked for.
        asked: PathBuf,
    },
    /// The library is there and does not start.
    #[error("{path} does not start: {message}")]
    Start {
        /// The library.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The device cannot be had.
    #[error("the device {device} cannot be had: {problem}")]
    Device {
        /// As it was asked for.
        device: String,
        /// What is missing, and what to do.
        problem: String,
    },
    /// A model that the runtime does not take.
    #[error("ONNX Runtime {version} refuses {model}: {message}")]
    Refused {
        /// Version of the runtime.
        version: String,
        /// The model.
        model: String,
        /// What it said.
        message: String,
    },
    /// A model that tract cannot run.
    #[error("tract {version} cannot run {model}: {problem}; --engine ort runs it on ONNX Runtime")]
    Tract {
        /// Version of tract.
        version: &'static str,
        /// The model.
        model: String,
        /// The nodes and operators, or what tract said.
        problem: String,
    },
    /// External data of a model in memory, whose folder is not known.
    #[error(
        "{model} keeps tensors in other files, and a model from a pipe or from memory has no folder to look for them in"
    )]
    NoFolder {
        /// The model.
        model: String,
    },
    /// A run that failed.
    #[error("running {model} failed: {message}")]
    Run {
        /// The model.
        model: String,
        /// What the runtime said.
        message: String,
    },
    /// An input without a value.
    #[error("{model} wants an input {name:?}, {wanted}, and no value is given for it; it wants {all}")]
    MissingInput {
        /// The model.
        model: String,
        /// The input.
        name: String,
        /// Its type.
        wanted: String,
        /// All inputs with their types.
        all: String,
    },
    /// A value for an input that the model lacks.
    #[error("{model} has no input {name:?}; it wants {all}")]
    UnknownInput {
        /// The model.
        model: String,
        /// The name.
        name: String,
        /// All inputs with their types.
        all: String,
    },
    /// A value of another type or shape than the input's.
    #[error("the input {name:?} of {model} is {wanted}, and the value given for it is {given}{advice}")]
    WrongInput {
        /// The model.
        model: String,
        /// The input.
        name: String,
        /// Its type.
        wanted: String,
        /// The type of the value.
        given: String,
        /// What to do, with its punctuation.
        advice: String,
    },
    /// An output that the model lacks.
    #[error("{model} has no output {name:?}; it has {all}")]
    UnknownOutput {
        /// The model.
        model: String,
        /// The name.
        name: String,
        /// All outputs.
        all: String,
    },
    /// A runtime without the training API.
    #[error(
        "{runtime} was built without ONNX Runtime's training API, which --engine ort-training drives; --engine ort trains on it all the \
         same, with a graph that per-inject differentiates. Builds with that API are the wheels onnxruntime-training and \
         onnxruntime-training-cpu, from inside Python, and libraries that were built with --enable_training_apis (--ort PATH)"
    )]
    NoTraining {
        /// Which runtime it is.
        runtime: String,
    },
    /// No runtime with the training API, or one that lets nobody in from outside.
    #[error(
        "{problem}. --engine ort-training wants a library that was built with the training API, or the wheel onnxruntime-training from inside \
         its Python: 'pip install per-inject' there, and 'python -m per_inject train …'"
    )]
    TrainingRuntime {
        /// What is wrong with what was found.
        problem: String,
    },
    /// A process that keeps its runtime to itself.
    #[error(
        "the ONNX Runtime of this process cannot be had: {problem}; --engine ort-training wants onnxruntime-training or \
         onnxruntime-training-cpu in the Python that runs per-inject, or a library with the training API (--ort PATH)"
    )]
    NotHandedOver {
        /// What the process said.
        problem: String,
    },
    /// Artifacts of generate_artifacts that cannot be trained with.
    #[error("{path}: {problem}")]
    Artifacts {
        /// One of the files, or their folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A trained model that the engine does not write itself.
    #[error("this engine writes no model; its weights go into a copy of the model that they came from")]
    NoExport,
    /// An engine that is not part of this program.
    #[error(
        "this per-inject was built without {engine}; build it with 'cargo install per-inject --features {engine}', or use --engine ort"
    )]
    NotBuiltIn {
        /// The engine.
        engine: &'static str,
    },
    /// State of a training run that lacks a value.
    #[error("there is no value for {name:?}, which is part of the state")]
    NoState {
        /// The value.
        name: String,
    },
    /// Something that cannot be brought out of the runtime or into it.
    #[error("{name:?} of {model} is {what}; only tensors of numbers and of bool can be run")]
    NoTensor {
        /// The model.
        model: String,
        /// The value.
        name: String,
        /// What it is.
        what: String,
    },
    /// A file of arrays that cannot be read.
    #[error("{path}: {problem}")]
    Array {
        /// The file, and the array in it.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Inputs that cannot be made up.
    #[error("no random values can be made for the input {name:?}: {problem}")]
    Random {
        /// The input.
        name: String,
        /// Why not, and what to do.
        problem: String,
    },
    /// The graph's structure.
    #[error("{model}: {source}")]
    Graph {
        /// The model.
        model: String,
        /// What is wrong with it.
        source: GraphError,
    },
    /// The model's file.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
}
