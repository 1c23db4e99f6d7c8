//! Why weights could not be read or written.

use std::path::PathBuf;

use thiserror::Error;

/// Shorthand of this layer.
pub type WeightsResult<T> = Result<T, WeightsError>;

/// What stops weights on their way. Every message is a sentence for a person.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The model's file, or one that is written.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
    /// The graph, or a selector over its initializers.
    #[error(transparent)]
    Analysis(#[from] crate::analysis::AnalysisError),
    /// An initializer whose elements cannot be read or written.
    #[error("the initializer {name:?} {problem}")]
    Initializer {
        /// The initializer.
        name: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A file with weights that cannot be read.
    #[error("{path}: {problem}")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// An array of another type or shape than the initializer that it is for.
    #[error("the array {array:?}, {given}, does not fit the initializer {initializer:?}, {wanted}: {problem}")]
    Misfit {
        /// The array.
        array: String,
        /// Its type and shape.
        given: String,
        /// The initializer.
        initializer: String,
        /// Its type and shape.
        wanted: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Options that cannot be.
    #[error("{0}")]
    Options(String),
    /// A file that cannot be written or made.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
