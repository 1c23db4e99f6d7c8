//! What happens in a training run, for those who watch it.

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::log;

/// Something that happened.
#[derive(Debug, Clone)]
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
    Step(Step),
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

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which one, from 1.
    pub step: u64,
    /// Its epoch, from 1.
    pub epoch: u64,
    /// What is minimised.
    pub loss: f64,
    /// The loss without the regulariser.
    pub task_loss: f64,
    /// PER of each layer.
    pub per: Vec<f64>,
    /// The norm of all gradients.
    pub gradient_norm: Option<f64>,
    /// The learning rate.
    pub learning_rate: f64,
    /// Coefficients that change.
    pub coefficients: Vec<(String, f64)>,
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

/// Someone who watches a run.
pub trait Observer {
    /// Takes note.
    ///
    /// # Errors
    /// When what is noted cannot be written.
    fn notice(&mut self, event: &Event) -> io::Result<()>;

    /// Brings what was noted to where it outlives the process: called before every checkpoint, and at the end.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Writes to logs what can be drawn as curves: every step, the means of every epoch under names that begin with `epoch/`, and every
/// evaluation.
pub struct Logged {
    sinks: Vec<Box<dyn log::Sink>>,
    layers: Vec<String>,
}

impl Logged {
    /// For these logs.
    pub fn new(sinks: Vec<Box<dyn log::Sink>>) -> Self {
        Logged { sinks, layers: Vec::new() }
    }

    fn layers(&self, per: &[f64], prefix: &str) -> impl Iterator<Item = (String, f64)> {
        let named = self.layers.iter().zip(per).map(|(layer, value)| (format!("{prefix}per/{layer}"), *value));
        named.collect::<Vec<_>>().into_iter()
    }

    fn means(&self, means: &Means, prefix: &str) -> Vec<(String, f64)> {
        let name = |name: &str| format!("{prefix}{name}");
        let mut values = vec![(name("loss"), means.loss), (name("task_loss"), means.task_loss)];
        values.extend(self.layers(&means.per, prefix));
        let others = [
            ("gradient_norm", means.gradient_norm),
            ("accuracy", means.accuracy),
            ("perplexity", means.perplexity),
            ("samples", Some(means.samples as f64)),
            ("samples_per_second", Some(means.samples_per_second)),
        ];
        values.extend(others.into_iter().filter_map(|(n, value)| Some((name(n), value?))));
        values
    }
}

impl Observer for Logged {
    fn notice(&mut self, event: &Event) -> io::Result<()> {
        let (kind, step, epoch, values) = match event {
            Event::Start { layers, .. } => {
                self.layers.clone_from(layers);
                return Ok(());
            }
            Event::Step(s) => {
                let mut values = vec![("loss".to_owned(), s.loss), ("task_loss".to_owned(), s.task_loss)];
                values.extend(self.layers(&s.per, ""));
                values.extend(s.gradient_norm.map(|norm| ("gradient_norm".to_owned(), norm)));
                values.push(("learning_rate".to_owned(), s.learning_rate));
                values.extend(s.coefficients.iter().cloned());
                (log::Kind::Train, s.step, s.epoch, values)
            }
            Event::Epoch(means) => (log::Kind::Train, means.step, means.epoch, self.means(means, "epoch/")),
            Event::Evaluation(means) => (log::Kind::Eval, means.step, means.epoch, self.means(means, "")),
            Event::Checkpoint { .. } | Event::Skipped { .. } => return Ok(()),
        };
        let event = log::Event { kind, time: now(), step, epoch, values };
        self.sinks.iter_mut().try_for_each(|sink| sink.record(&event))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.flush())
    }
}
