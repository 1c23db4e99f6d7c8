//! Training on ONNX Runtime: inject, differentiate, run the step graph, keep checkpoints, and put the trained weights back into the
//! model's file.

pub mod artifacts;
pub mod checkpoint;
pub mod claim;
pub mod data;
mod diagnose;
mod edit;
mod error;
pub mod event;
pub mod feeds;
pub mod graphs;
pub mod log;
pub mod metrics;
pub mod noise;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod weights;

pub use error::{TrainError, TrainResult};
