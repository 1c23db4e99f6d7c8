//! Why data cannot be trained on.

use thiserror::Error;

/// Shorthand of this layer.
pub type DataResult<T> = Result<T, DataError>;

/// What is wrong with data. Every message is a sentence for a person; rows are counted from 0.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that is not understood.
    #[error("{path}: {problem}")]
    File {
        /// The file, and the array in it.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A file or a folder that the system does not give.
    #[error("{path}: {source}")]
    Io {
        /// The file or the folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Options that contradict the data or themselves.
    #[error("{0}")]
    Options(String),
    /// An input of the graph that no array is for.
    #[error("no array of the data is named {input:?}, which the graph takes as {wanted}; {advice}")]
    Missing {
        /// The input.
        input: String,
        /// Its type.
        wanted: String,
        /// What there is instead, and what to do.
        advice: String,
    },
    /// An array of another type or shape than the input that it is for.
    #[error("the array {array:?}, {given}, does not fit the input {input:?}, {wanted}: {problem}")]
    Misfit {
        /// The array.
        array: String,
        /// Its type.
        given: String,
        /// The input.
        input: String,
        /// Its type.
        wanted: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Arrays that have not as many rows as each other.
    #[error(
        "{first:?} has {first_rows} rows and {second:?} has {second_rows}, and a row of each makes a sample; \
         are they of the same part of the data?"
    )]
    Rows {
        /// One array.
        first: String,
        /// Its rows.
        first_rows: usize,
        /// Another one.
        second: String,
        /// Its rows.
        second_rows: usize,
    },
    /// Data without rows, or with rows without elements.
    #[error("{array:?}, {given}, is empty, so there is nothing to train on")]
    Empty {
        /// The array.
        array: String,
        /// Its type.
        given: String,
    },
    /// A value that cannot be trained on.
    #[error("row {row} (counted from 0) of {array:?} {problem}")]
    Value {
        /// The array.
        array: String,
        /// The row.
        row: usize,
        /// What is in it, and what to do.
        problem: String,
    },
    /// The thread that reads ahead could not be started or broke down.
    #[error("the thread that reads the data ahead {0}")]
    Thread(String),
}
