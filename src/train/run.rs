//! The loop: batches in, steps, evaluations, checkpoints, and what is told of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::checkpoint::{Bits, FORMAT, Meta, Position, Shelf, Sums, encode, write_whole};
use super::diagnose::first_not_finite;
use super::error::{TrainError, TrainResult};
use super::event::{Event, Means, Observer, Step};
use super::feeds::Prepared;
use super::graphs::Interface;
use super::metrics::Metric;
use super::rows::Rows;
use super::schedule::Schedule;
use super::session::{EVALUATIONS, Moment, Numbers, Session};
use super::settings::{Left, OnNan, Settings};
use super::weights::write_back;
use crate::engine::{Placed, Tensor};
use crate::wire::Model;

/// After so many steps in a row without a number, leaving out another one is no help.
const MOST_SKIPPED: u64 = 20;

/// Version of the JSON layout, `schemas/train.schema.json`.
pub const SCHEMA: &str = "per-inject.train/1";

/// What came of a run. In JSON, numbers that are not finite are null.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Which layout this is: [`SCHEMA`].
    pub schema: &'static str,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Steps in all.
    pub steps: u64,
    /// Steps that were left out.
    pub skipped: u64,
    /// Epochs that were finished.
    pub epochs: u64,
    /// Steps that an earlier part of the run had made.
    pub resumed_from: Option<u64>,
    /// The last epoch, as far as this part of the run went through one.
    pub training: Option<Means>,
    /// The last evaluation.
    pub evaluation: Option<Means>,
    /// The best evaluation, and after how many steps it was.
    pub best: Option<(f64, u64)>,
    /// What is measured beside the loss.
    pub metric: Metric,
    /// Names of the layers whose PER is measured.
    pub layers: Vec<String>,
    /// Files that were written.
    pub written: Vec<PathBuf>,
    /// Where the runtime put the nodes of the step, where that was asked for.
    #[serde(skip)]
    pub placed: Vec<Placed>,
}

/// What a run works on.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// How messages name the model.
    pub name: &'a str,
    /// The model as it came, which the weights are put back into; `None` where only the engine has it, which then writes it.
    pub model: Option<&'a Model>,
    /// The graph of a step, for looking into one that went wrong; `None` where the engine has it inside.
    pub step: Option<&'a Model>,
    /// What is fed and read.
    pub interface: &'a Interface,
    /// What it is trained on.
    pub data: &'a Rows,
    /// What it is evaluated on after every epoch.
    pub evaluation: Option<&'a Rows>,
}

/// A run on its way.
struct Run<'a> {
    session: Session<'a>,
    work: Work<'a>,
    settings: &'a Settings,
    shelf: Shelf,
    position: Position,
    /// Coefficients that change: the input that takes it, and its name in the log.
    coefficients: Vec<(String, String, Schedule)>,
    /// Steps behind the last checkpoint.
    saved: Option<u64>,
    observers: &'a mut [Box<dyn Observer>],
    summary: Summary,
}

/// Trains a model.
///
/// # Errors
/// When the data does not fit, the runtime fails, a file cannot be written, or a step gives no number; the sentence says what was kept.
pub fn train<'a>(
    session: Session<'a>,
    work: &Work<'a>,
    settings: &'a Settings,
    observers: &'a mut [Box<dyn Observer>],
    stop: &AtomicBool,
) -> TrainResult<Summary> {
    let Work { interface, data, evaluation, .. } = *work;
    let summary = Summary {
        schema: SCHEMA,
        interrupted: false,
        steps: 0,
        skipped: 0,
        epochs: 0,
        resumed_from: None,
        training: None,
        evaluation: None,
        best: None,
        metric: interface.metric,
        layers: interface.step.outputs.layers.iter().map(|(name, _)| name.clone()).collect(),
        written: Vec::new(),
        placed: session.placed().to_vec(),
    };
    let shelf = Shelf { folder: settings.out.join("checkpoints"), keep: settings.keep };
    let mut run = Run {
        session,
        work: *work,
        settings,
        shelf,
        position: Position::default(),
        coefficients: scheduled(interface, settings),
        saved: None,
        observers,
        summary,
    };
    run.resume()?;
    let all = run.all(data, evaluation, stop);
    if matches!(all, Err(TrainError::NotFinite { .. })) && settings.left != Left::Checkpoints {
        run.write_model()?;
        run.flush()?;
    }
    all?;
    run.finish()
}

impl Run<'_> {
    /// Goes on from the last checkpoint, where that is asked for.
    fn resume(&mut self) -> TrainResult<()> {
        let found = self.shelf.last();
        if !self.settings.resume {
            return match found {
                Ok(None) => Ok(()),
                _ => Err(TrainError::Options(format!(
                    "{} holds a run already; go on with it with --resume, or start another one in another folder",
                    self.settings.out.display()
                ))),
            };
        }
        // A run that was stopped before its first checkpoint starts again.
        let Some(checkpoint) = found? else { return Ok(()) };
        checkpoint.check(&self.settings.identity)?;
        self.session.set_state(&checkpoint.state)?;
        self.position = checkpoint.meta.position;
        self.saved = Some(self.position.step);
        self.summary.resumed_from = Some(self.position.step);
        Ok(())
    }

    fn all(&mut self, data: &Rows, evaluation: Option<&Rows>, stop: &AtomicBool) -> TrainResult<()> {
        let per_epoch = data.plan.batches(data.data.rows());
        self.tell(&Event::Start {
            step: self.position.step,
            epochs: self.settings.epochs,
            steps_per_epoch: per_epoch,
            layers: self.summary.layers.clone(),
        })?;
        while self.position.epoch < self.settings.epochs {
            // A run that was saved before an evaluation goes on with it.
            if !self.position.evaluation_due && !self.epoch(data, per_epoch, stop)? {
                return self.interrupt();
            }
            let is_last = self.position.epoch + 1 >= self.settings.epochs;
            let is_due = is_last || self.is_due().unwrap_or(true);
            let mut is_best = false;
            if let Some(evaluation) = evaluation {
                self.position.evaluation_due = true;
                // What the epoch brought must not depend on an evaluation, which may take long and may fail.
                if is_due && self.saved != Some(self.position.step) {
                    self.save(false)?;
                }
                match self.evaluate(evaluation, stop)? {
                    Some(found) => is_best = found,
                    None => return self.interrupt(),
                }
            }
            self.position.evaluation_due = false;
            self.position.epoch += 1;
            self.position.batch = 0;
            self.position.sums = Sums::default();
            if is_due || is_best {
                self.save(is_best)?;
            }
            if stop.load(Ordering::Relaxed) && !is_last {
                return self.interrupt();
            }
        }
        Ok(())
    }

    /// Whether a checkpoint is to be written after so many steps; `None` where epochs count instead.
    fn is_due(&self) -> Option<bool> {
        self.settings.checkpoint_every.map(|n| self.position.step.is_multiple_of(n.max(1)))
    }

    /// The steps of an epoch, or what is left of them. False where it was stopped before its end.
    fn epoch(&mut self, data: &Rows, per_epoch: u64, stop: &AtomicBool) -> TrainResult<bool> {
        let started = Instant::now();
        let before = self.position.sums.samples;
        let Position { epoch, batch, step, .. } = self.position;
        let mut batches = data.prepared(epoch, batch, self.session.preparation(true), step)?;
        while let Some(batch) = batches.next_item()? {
            self.step(batch, per_epoch)?;
            // What follows an epoch's last batch comes when the epoch is over.
            if self.position.batch < per_epoch {
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                if self.is_due() == Some(true) {
                    self.save(false)?;
                }
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut means = self.means(&self.position.sums, self.position.sums.samples - before, seconds);
        let measures_norm = self.work.interface.step.outputs.gradient_norm.is_some();
        let norm = f64::from(self.position.sums.norm) / self.position.sums.steps.max(1) as f64;
        means.gradient_norm = Some(norm).filter(|_| measures_norm);
        self.tell(&Event::Epoch(means.clone()))?;
        self.summary.training = Some(means);
        Ok(true)
    }

    /// Keeps the state of a run that is stopped.
    fn interrupt(&mut self) -> TrainResult<()> {
        if self.saved != Some(self.position.step) {
            self.save(false)?;
        }
        self.summary.interrupted = true;
        Ok(())
    }

    fn step(&mut self, batch: Prepared, per_epoch: u64) -> TrainResult<()> {
        let samples = batch.samples as u64;
        let history: Vec<f64> = self.position.history.iter().map(|b| f64::from(*b)).collect();
        let (step, settings) = (self.position.step, self.settings);
        let rate = settings.rate.at(step, per_epoch, &history);
        let (mut values, mut coefficients) = (Vec::new(), Vec::new());
        for (input, name, schedule) in &self.coefficients {
            let value = schedule.at(step, per_epoch, &history);
            values.push((input.clone(), value));
            coefficients.push((name.clone(), value));
        }
        self.session.set_coefficients(&values);
        let Position { updates, held, .. } = self.position;
        let is_update = held + 1 >= settings.accumulate || self.position.batch + 1 == per_epoch;
        let numbers = self.session.step(&Moment { rate, updates, held, is_update }, batch)?;
        if let Some(what) = numbers.not_finite() {
            let in_a_row = self.position.skipped_in_a_row + 1;
            if settings.on_nan == OnNan::Stop || in_a_row >= MOST_SKIPPED {
                return Err(self.not_finite(what, in_a_row)?);
            }
            self.position.skipped += 1;
            self.position.skipped_in_a_row = in_a_row;
            self.tell(&Event::Skipped { step: step + 1, what })?;
        } else {
            self.session.advance()?;
            self.position.skipped_in_a_row = 0;
            (self.position.updates, self.position.held) =
                if is_update { (updates + 1, 0) } else { (updates, held + 1) };
            self.position.sums.add(&numbers, samples);
        }
        self.position.step += 1;
        self.position.batch += 1;
        self.tell(&Event::Step(Step {
            step: self.position.step,
            epoch: self.position.epoch + 1,
            loss: numbers.loss,
            task_loss: numbers.task,
            per: numbers.layers,
            gradient_norm: numbers.gradient_norm,
            learning_rate: rate,
            coefficients,
        }))
    }

    /// Keeps the state before the step, and says what went wrong.
    fn not_finite(&mut self, what: String, in_a_row: u64) -> TrainResult<TrainError> {
        let where_from = first_not_finite(&self.session, self.work.step)?;
        let step = self.position.step + 1;
        if self.saved != Some(self.position.step) {
            self.save(false)?;
        }
        let (place, skip) = match &self.settings.left {
            Left::Model { kept: Some(place) } => (place.clone(), "leave such steps out with --on-nan skip"),
            _ => (format!("kept in {}", self.shelf.folder.display()), "go on from there with --resume --on-nan skip"),
        };
        let kept = if in_a_row < MOST_SKIPPED {
            format!("the state before it is {place}; start again with a lower --lr, or {skip}")
        } else {
            format!(
                "that makes {in_a_row} steps in a row without a number, so no single batch is to blame; the state before them is {place}; \
                 start again with a lower --lr"
            )
        };
        Ok(TrainError::NotFinite { step, what, where_from, kept })
    }

    /// Evaluates; returns whether it was the best so far, and `None` where it was stopped before its end.
    fn evaluate(&mut self, data: &Rows, stop: &AtomicBool) -> TrainResult<Option<bool>> {
        self.session.prepare_evaluation()?;
        let started = Instant::now();
        let mut sums = Sums::default();
        let mut batches = data.prepared(0, 0, self.session.preparation(false), EVALUATIONS)?;
        while let Some(batch) = batches.next_item()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let samples = batch.samples as u64;
            sums.add(&self.session.evaluate(batch)?, samples);
        }
        let means = self.means(&sums, sums.samples, started.elapsed().as_secs_f64());
        let value = means.accuracy.filter(|_| self.work.interface.metric.grows()).unwrap_or(means.task_loss);
        let best = self.position.best.map(|(b, _)| f64::from(b));
        let is_better = |best: f64| if self.work.interface.metric.grows() { value > best } else { value < best };
        let is_finite = value.is_finite() && means.loss.is_finite() && means.task_loss.is_finite();
        let is_best = is_finite && best.is_none_or(is_better);
        if is_best {
            self.position.best = Some((value.into(), self.position.step));
        }
        // Schedules want what is better to be lower.
        self.position.history.push(means.task_loss.into());
        self.tell(&Event::Evaluation(means.clone()))?;
        self.summary.evaluation = Some(means);
        Ok(Some(is_best))
    }

    fn means(&self, sums: &Sums, samples: u64, seconds: f64) -> Means {
        // Where every step was left out there is no mean.
        let weight = f64::from(sums.weight);
        let mean = |sum: Bits| f64::from(sum) / weight;
        let task = mean(sums.task);
        let labels = f64::from(sums.labels);
        Means {
            step: self.position.step,
            epoch: self.position.epoch + 1,
            loss: mean(sums.loss),
            task_loss: task,
            per: sums.layers.iter().map(|s| mean(*s)).collect(),
            gradient_norm: None,
            accuracy: (self.work.interface.metric == Metric::Accuracy && labels > 0.0)
                .then(|| f64::from(sums.correct) / labels),
            perplexity: (self.work.interface.metric == Metric::Perplexity).then(|| task.exp()),
            samples: sums.samples,
            samples_per_second: samples as f64 / seconds.max(1e-9),
        }
    }

    fn save(&mut self, is_best: bool) -> TrainResult<()> {
        let meta = Meta {
            format: FORMAT.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            seed: self.settings.seed,
            position: self.position.clone(),
            identity: self.settings.identity.clone(),
        };
        self.flush()?;
        let path = self.shelf.put(&self.session.state()?, &meta, is_best)?;
        self.saved = Some(self.position.step);
        self.tell(&Event::Checkpoint { step: self.position.step, path })?;
        Ok(())
    }

    /// Ends the run, with the model unless it was stopped and nobody reads one then.
    fn finish(mut self) -> TrainResult<Summary> {
        self.summary.steps = self.position.step;
        self.summary.skipped = self.position.skipped;
        self.summary.epochs = self.position.epoch;
        self.summary.best = self.position.best.map(|(value, step)| (f64::from(value), step));
        if !self.summary.interrupted || self.settings.left != Left::Checkpoints {
            self.write_model()?;
        }
        self.flush()?;
        Ok(self.summary)
    }

    /// Puts the weights back into the model.
    fn write_model(&mut self) -> TrainResult<()> {
        let stored = &self.work.interface.stored;
        let state = self.session.state()?.into_iter().filter(|(name, _)| stored.contains(name));
        let weights: Vec<(String, Tensor)> = state.collect();
        let model = self.settings.out.join("model.onnx");
        match self.work.model {
            Some(original) => write_back(original, &weights, &model)?,
            None => self.session.export(&model)?,
        }
        let tensors = self.settings.out.join("model.safetensors");
        write_whole(encode(&weights, None)?, &tensors)?;
        self.summary.written.extend([model, tensors]);
        Ok(())
    }

    fn tell(&mut self, event: &Event) -> TrainResult<()> {
        let failed = |source| TrainError::Io { path: self.settings.out.clone(), source };
        self.observers.iter_mut().try_for_each(|observer| observer.notice(event)).map_err(failed)
    }

    fn flush(&mut self) -> TrainResult<()> {
        let failed = |source| TrainError::Io { path: self.settings.out.clone(), source };
        self.observers.iter_mut().try_for_each(|observer| observer.flush()).map_err(failed)
    }
}

impl Sums {
    fn add(&mut self, numbers: &Numbers, samples: u64) {
        let weight = numbers.counts.map_or(samples as f64, |(_, labels)| labels);
        let put = |sum: &mut Bits, value: f64| *sum = (f64::from(*sum) + value).into();
        self.samples += samples;
        self.steps += 1;
        put(&mut self.weight, weight);
        put(&mut self.loss, weight * numbers.loss);
        put(&mut self.task, weight * numbers.task);
        self.layers.resize(numbers.layers.len(), Bits::default());
        for (sum, value) in self.layers.iter_mut().zip(&numbers.layers) {
            put(sum, weight * value);
        }
        put(&mut self.norm, numbers.gradient_norm.unwrap_or_default());
        if let Some((correct, labels)) = numbers.counts {
            put(&mut self.correct, correct);
            put(&mut self.labels, labels);
        }
    }
}

/// The inputs that coefficients which change are fed to, with their names in the log.
fn scheduled(interface: &Interface, settings: &Settings) -> Vec<(String, String, Schedule)> {
    let of = |item: &Option<String>| settings.coefficients.iter().rev().find(|(i, _)| i == item);
    let name = |item: &Option<String>| match item {
        None => "coefficient".to_owned(),
        Some(item) => format!("coefficient/{item}"),
    };
    let each = interface.coefficients.iter();
    each.filter_map(|c| Some((c.input.clone(), name(&c.item), of(&c.item)?.1.clone()))).collect()
}

/// Refuses a folder whose result would be written over the model itself.
///
/// # Errors
/// When it is so.
pub fn refuse_over(model: &Model, out: &Path) -> TrainResult<()> {
    super::weights::refuse_itself(&model.file.path, &out.join("model.onnx"))
}
