//! What happens in a training run, for logs and for progress.

use std::path::PathBuf;

use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run starts, or goes on.
    Start {
        /// Steps that were made before.
        step: u64,
        /// Epochs in all.
        epochs: u64,
        /// Batches of an epoch.
        steps_per_epoch: u64,
        /// The layers whose PER is measured.
        layers: Vec<String>,
    },
    /// A step was made.
    Step {
        /// Which one, from 1.
        step: u64,
        /// Its epoch, from 1.
        epoch: u64,
        /// What is minimised.
        loss: f64,
        /// The loss without the regulariser.
        task_loss: f64,
        /// PER of each layer.
        per: Vec<f64>,
        /// The norm of all gradients.
        gradient_norm: Option<f64>,
        /// The learning rate.
        learning_rate: f64,
        /// What every λ was multiplied by; `None` where λ is constant.
        #[serde(skip_serializing_if = "Option::is_none")]
        coefficient: Option<f64>,
    },
    /// An epoch is over: means over its samples.
    Epoch(Means),
    /// The evaluation after an epoch: means over its samples.
    Evaluation(Means),
    /// A checkpoint was written.
    Checkpoint {
        /// Steps that it has behind it.
        step: u64,
        /// The file.
        path: PathBuf,
    },
    /// A step whose result was no number was left out.
    Skipped {
        /// Which one, from 1.
        step: u64,
        /// What was no number.
        what: String,
    },
}

/// Means over an epoch, or over the data that is evaluated.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Means {
    /// Steps that were made.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: u64,
    /// What is minimised.
    pub loss: f64,
    /// The loss without the regulariser.
    pub task_loss: f64,
    /// PER of each layer.
    pub per: Vec<f64>,
    /// The mean norm of the gradients; `None` in an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// The share of labels that were guessed right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// exp of the task loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Samples.
    pub samples: u64,
    /// Samples a second.
    pub samples_per_second: f64,
}

/// Something that is told what happens.
pub trait Sink {
    /// Takes note.
    fn record(&mut self, event: &Event);

    /// Brings what was noted to where it outlives the process: called before every checkpoint, and at the end.
    fn flush(&mut self) {}
}
