//! The interface of training: steps that are made one after another, whoever differentiates and whoever keeps the state.

use std::collections::HashMap;
use std::path::Path;

use super::error::{EngineError, EngineResult};
use super::placement::Placed;
use super::program::{Port, Source};
use super::resident::Carried;
use super::tensor::Tensor;

/// What a step graph is trained with: see [`Engine::stepper`](super::Engine::stepper).
#[derive(Debug, Clone)]
pub struct StepPlan<'a> {
    /// One step: forward, backward, and what the optimiser makes of it. Its state are inputs and outputs.
    pub step: Source<'a>,
    /// What evaluates a batch. It reads the state under the names of the step's inputs.
    pub evaluation: Source<'a>,
    /// The state: parameters, optimiser state, running statistics, with what they are before the first step.
    pub carried: Vec<(Carried, Tensor)>,
    /// Outputs of the step that come down, in this order.
    pub step_outputs: Vec<String>,
    /// Outputs of the evaluation that come down, in this order.
    pub evaluation_outputs: Vec<String>,
}

/// A model that is trained a step at a time.
///
/// A step is tried first and kept afterwards, so that one whose loss is no number can be left out: [`step`](Stepper::step) leaves the state
/// as it is, and [`advance`](Stepper::advance) makes what came of it the state of the next one. What is fed is a batch, the random numbers
/// of the step, and scalars that [`inputs`](Stepper::inputs) has by name: `learning_rate`, a float32; where the optimiser counts, `step`, an
/// int64, how often the parameters changed before; where gradients are accumulated, `apply`, a bool, whether they change now, and
/// `accumulated`, an int64, how many batches are summed up since the last time.
pub trait Stepper {
    /// What a step takes; its state may be among it.
    fn inputs(&self) -> &[Port];

    /// Tries one step on the state as it is, and gives the outputs that are wanted. The first one may settle the size of the batch, where
    /// an engine has to know it to make the graph ready.
    ///
    /// # Errors
    /// For an input that is unknown or of another type or shape than declared; when the run itself fails.
    fn step(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>>;

    /// Keeps the step that was tried last.
    ///
    /// # Errors
    /// When the engine has work to do for it, and that fails.
    fn advance(&mut self) -> EngineResult<()>;

    /// Makes the state as it is now what [`evaluate`](Stepper::evaluate) works on, until a step is made.
    ///
    /// # Errors
    /// When the engine does not take the graph that evaluates.
    fn prepare_evaluation(&mut self) -> EngineResult<()>;

    /// Evaluates a batch with that state, and gives the outputs that are wanted.
    ///
    /// # Errors
    /// As [`step`](Stepper::step); when nothing was prepared.
    fn evaluate(&mut self, feeds: Vec<(String, Tensor)>) -> EngineResult<Vec<Tensor>>;

    /// Copies of the state, in an order that stays.
    ///
    /// # Errors
    /// When a copy from the device fails.
    fn state(&self) -> EngineResult<Vec<(String, Tensor)>>;

    /// Sets all of the state.
    ///
    /// # Errors
    /// For a value that is missing, or of another type or shape.
    fn set_state(&mut self, values: &HashMap<String, Tensor>) -> EngineResult<()>;

    /// Copies of what was fed to the last step.
    ///
    /// # Errors
    /// When a copy from the device fails.
    fn fed(&self) -> EngineResult<Vec<(String, Tensor)>>;

    /// Writes the trained model as it is used after training, where only the engine has it.
    ///
    /// # Errors
    /// When it cannot be written, and where the engine was given no more than the graphs.
    fn export(&self, path: &Path) -> EngineResult<()> {
        let _ = path;
        Err(EngineError::NoExport)
    }

    /// Which provider took which nodes; empty where that was not asked for, or the engine has but one.
    fn placed(&self) -> &[Placed] {
        &[]
    }
}
