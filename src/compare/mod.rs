//! Two models run on the same inputs → how far apart what they compute is.
//!
//! [`run`] compares the outputs; [`first_difference`] finds the first value in execution order that differs. Both take [`Pairs`] of
//! names that correspond, by name or by whatever else a caller knows, and any [`Engine`](crate::engine::Engine).

mod elements;
pub(crate) mod expose;
mod first;
mod outputs;
mod pairs;
mod random_nodes;

pub use elements::{Outcome, TensorDifference, Worst, compare};
pub use first::{FirstDifference, Found, first_difference};
pub use outputs::{InputUsed, Inputs, OutputComparison, RunComparison, run};
pub use pairs::Pairs;

use crate::engine::{LoadOptions, Optimisation};

/// How two models are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How the models are run for their outputs. Both alike.
    pub load: LoadOptions,
    /// How much of a difference is none: elements a and b of a float tensor agree where |a − b| ≤ tolerance · max(1, |a|, |b|).
    /// Integers and bools agree when they are equal.
    pub tolerance: f64,
    /// How much the engine may rewrite the graphs when inner values are made outputs. That changes what it can fuse, so that beyond
    /// [`Optimisation::Disabled`] the run that is looked into is not quite the run that gave the outputs.
    pub inner_optimisation: Optimisation,
    /// Inner values of one model that are kept at once, in bytes; what does not fit waits for a further pass.
    pub budget: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            load: LoadOptions::default(),
            tolerance: 0.0,
            inner_optimisation: Optimisation::Disabled,
            budget: 256 << 20,
        }
    }
}
