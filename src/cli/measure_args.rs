//! What is measured of a layer, on the command line.

use clap::{Args, ValueEnum};
use per_inject::inject::{At, Estimator, Options};
use per_inject::regularizer::{Reduction, View};

use super::args::{whole_number, yes_or_no};

/// What is measured of a layer: the same for an injection and for a training run.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// Expectation over slices: the paper's Monte Carlo, faster Monte Carlo with slices that differ in signs, or the closed form
    #[arg(long, value_enum, default_value = "sampled", env = "PER_INJECT_ESTIMATOR")]
    pub estimator: EstimatorArg,

    /// Slices of the sampled and structured estimators; structured gives a sample of many rows a quarter, its own
    #[arg(long, value_name = "S", default_value_t = 256, env = "PER_INJECT_SLICES", value_parser = whole_number, allow_negative_numbers = true)]
    pub slices: u64,

    /// One draw for all layers whose rows are as long: faster, and each layer's expectation stays what it is
    #[arg(long, env = "PER_INJECT_SHARE_SLICES", value_parser = yes_or_no())]
    pub share_slices: bool,

    /// What one sample is: all activations, the channels at a location, or the last axis at a position
    #[arg(long, value_enum, default_value = "auto", env = "PER_INJECT_VIEW")]
    pub view: ViewArg,

    /// Mean over rows (equation 6 of the paper), or their sum (its algorithm 1 read literally)
    #[arg(long, value_enum, default_value = "mean", env = "PER_INJECT_REDUCTION")]
    pub reduction: ReductionArg,

    /// Tap an activation's output or its input
    #[arg(long, value_enum, default_value = "post", env = "PER_INJECT_AT")]
    pub at: AtArg,
}

impl MeasureArgs {
    /// The library's options, with nothing else said.
    pub fn options(&self) -> Options {
        Options {
            at: self.at.into(),
            estimator: self.estimator.into(),
            slices: self.slices,
            share_slices: self.share_slices,
            view: self.view.view(),
            reduction: self.reduction.into(),
            ..Options::default()
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EstimatorArg {
    Sampled,
    Structured,
    Exact,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ViewArg {
    Auto,
    Flatten,
    Channel,
    Last,
}

impl ViewArg {
    /// The library's; `None` decides by the kind of activation.
    pub fn view(self) -> Option<View> {
        match self {
            ViewArg::Auto => None,
            ViewArg::Flatten => Some(View::Flatten),
            ViewArg::Channel => Some(View::Channel),
            ViewArg::Last => Some(View::Last),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ReductionArg {
    Mean,
    Sum,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AtArg {
    Post,
    Pre,
}

impl From<AtArg> for At {
    fn from(arg: AtArg) -> Self {
        match arg {
            AtArg::Post => At::Post,
            AtArg::Pre => At::Pre,
        }
    }
}

impl From<EstimatorArg> for Estimator {
    fn from(arg: EstimatorArg) -> Self {
        match arg {
            EstimatorArg::Sampled => Estimator::Sampled,
            EstimatorArg::Structured => Estimator::Structured,
            EstimatorArg::Exact => Estimator::Exact,
        }
    }
}

impl From<ReductionArg> for Reduction {
    fn from(arg: ReductionArg) -> Self {
        match arg {
            ReductionArg::Mean => Reduction::Mean,
            ReductionArg::Sum => Reduction::Sum,
        }
    }
}
