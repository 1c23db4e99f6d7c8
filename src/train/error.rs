//! Why a training run could not start, or stopped.

use std::path::PathBuf;

use thiserror::Error;

/// Shorthand of this layer.
pub type TrainResult<T> = Result<T, TrainError>;

/// What stops a training run. Every message is a sentence for a person.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The model's file, or one that is written.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
    /// The graph's structure.
    #[error(transparent)]
    Graph(#[from] crate::graph::GraphError),
    /// What the model is analysed for.
    #[error(transparent)]
    Analysis(#[from] crate::analysis::AnalysisError),
    /// Trained initializers of bodies.
    #[error(transparent)]
    Hoist(#[from] crate::autodiff::HoistError),
    /// The regulariser cannot be put in.
    #[error(transparent)]
    Inject(#[from] crate::inject::InjectError),
    /// The graph cannot be differentiated.
    #[error(transparent)]
    Differentiate(#[from] crate::autodiff::DifferentiateError),
    /// What runs the steps.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// The data.
    #[error(transparent)]
    Data(Box<super::data::DataError>),
    /// Options that cannot be.
    #[error("{0}")]
    Options(String),
    /// A parameter whose elements cannot be read or written.
    #[error("the initializer {name:?} {problem}")]
    Weights {
        /// The initializer.
        name: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Elements of the model's initializers.
    #[error(transparent)]
    Initializers(Box<crate::weights::WeightsError>),
    /// A checkpoint that cannot be read, or belongs to another run.
    #[error("{path}: {problem}")]
    Checkpoint {
        /// The file or the folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A loss that is no number any more.
    #[error("step {step} gave {what}: {where_from}; {kept}")]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// What was not finite.
        what: String,
        /// The first value that went wrong.
        where_from: String,
        /// What was kept, and what to do.
        kept: String,
    },
    /// A file or folder of the run.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<crate::weights::WeightsError> for TrainError {
    fn from(error: crate::weights::WeightsError) -> Self {
        TrainError::Initializers(Box::new(error))
    }
}

impl From<super::data::DataError> for TrainError {
    fn from(error: super::data::DataError) -> Self {
        TrainError::Data(Box::new(error))
    }
}
