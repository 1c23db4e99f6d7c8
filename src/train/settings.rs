//! How a run goes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::schedule::Schedule;

/// What happens when a step gives a loss or a gradient that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNan {
    /// The run stops, and keeps the state before the step.
    #[default]
    Stop,
    /// The step is left out.
    Skip,
}

/// What is left of a run that stops before its end, beside its log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Left {
    /// Its checkpoints, which it can go on from.
    #[default]
    Checkpoints,
    /// The model with its weights as well, as at the end: for a program that reads them.
    Model {
        /// Where messages say that the state is, in the place of the folder of the run, which goes away.
        kept: Option<String>,
    },
}

/// How a run goes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often the data is gone through.
    pub epochs: u64,
    /// The learning rate.
    pub rate: Schedule,
    /// Coefficients λ that change, each with the item of `--coef` that it is for; `None` is the common one.
    pub coefficients: Vec<(Option<String>, Schedule)>,
    /// Seed of random numbers.
    pub seed: u64,
    /// What happens to a step that gives no number.
    pub on_nan: OnNan,
    /// Over how many batches gradients are summed up before the parameters change, by their mean; those of an epoch's end are never kept for
    /// the next one.
    pub accumulate: u64,
    /// Steps between two checkpoints; `None` writes one after every epoch.
    pub checkpoint_every: Option<u64>,
    /// How many of the last checkpoints are kept.
    pub keep: usize,
    /// The folder of the run.
    pub out: PathBuf,
    /// Whether the run goes on from its last checkpoint.
    pub resume: bool,
    /// What the run is: another one cannot go on from its checkpoints.
    pub identity: BTreeMap<String, String>,
    /// What is left where it stops before its end.
    pub left: Left,
}
